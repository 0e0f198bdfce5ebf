package cluster

import (
	"slices"
	"testing"
	"time"
)

func TestANodeThatCannotWriteOwnsNothingUntilItCan(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		for _, n := range []*testNode{c.follower(), c.leader()} {
			if len(c.holds(n)) == 0 {
				t.Errorf("%s holds nothing, which tries nothing", n.peer.Name)
			}
			n.r.SetFit(false)
			c.wait("the others to own all", 10*time.Second, func() bool { return c.heldAll() && len(c.holds(n)) == 0 })
			for p := range c.partitions() {
				if !slices.Contains(n.r.Replicas(p), n.peer.ID) {
					t.Errorf("%s does not keep partition %d any more", n.peer.Name, p)
				}
			}
			n.r.SetFit(true)
			c.wait("balance", 15*time.Second, c.balanced)
		}
		// When nobody can, somebody owns them all the same.
		for _, n := range c.nodes {
			n.r.SetFit(false)
		}
		c.while("all are held", 5*time.Second, c.heldAll)
	})
}

// A leader whose table is as it should be plans nothing, until something that counts changes.
func TestALeaderPlansAgainOnlyWhenSomethingHasChanged(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		r := c.leader().r
		g := &governor{Raft: r, moved: r.now()}
		steps := func() int {
			changes, _ := g.steps(r.view.Load().tableState, nil, nil)
			return len(changes)
		}
		c.wait("a plan that changes nothing", 10*time.Second, func() bool { return c.balanced() && steps() == 0 && g.balanced != nil })
		found := g.balanced
		if steps(); g.balanced != found {
			t.Error("nothing has changed, and it plans again")
		}
		if !g.configures(r.now()) || g.configures(r.now()) || !g.configures(r.now()+int64(r.o.FailureTimeout)) {
			t.Error("raft's group is not looked at once, and again after a while")
		}
		r.SetFit(false)
		if steps() == 0 || g.balanced != nil {
			t.Error("a node cannot write, and nobody is to take over what it owns")
		}
	})
}

func TestANodeIsFitAgainWhenThereHasBeenRoomForAWhile(t *testing.T) {
	var f fitness
	var free int64 = 1
	room := func(bytes int64) error {
		if bytes >= free {
			return ErrDiskFull
		}
		return nil
	}
	now := time.Now()
	step := func(after time.Duration, has int64, want bool) {
		t.Helper()
		now, free = now.Add(after), has
		if got := f.see(now, room); got != want {
			t.Errorf("with %d bytes the node is fit: %v, want %v", has, got, want)
		}
	}
	step(0, 1, true)
	step(time.Second, 0, false)
	step(time.Hour, 1, false)
	step(time.Hour, fitRoom+1, false)
	step(fitSteady/2, fitRoom+1, false)
	step(time.Second, fitRoom, false) // less again
	step(fitSteady, fitRoom+1, false)
	step(fitSteady, fitRoom+1, true)
}
