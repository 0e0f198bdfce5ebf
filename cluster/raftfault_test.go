package cluster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	raftSeeds = flag.Int("raft.seeds", 6, "how many seeds of faults the lease is tried with")
	raftSeed  = flag.Int("raft.seed", 0, "the first of them")
)

// The watcher of a testCluster fails the test when two nodes hold the same, at any of
// the milliseconds that it looks at.
func TestNoTwoNodesHoldTheSamePartitionWhateverFails(t *testing.T) {
	for seed := *raftSeed; seed < *raftSeed+*raftSeeds; seed++ {
		cores := 3 + 2*(seed%2)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			inCluster(t, cores, 4, func(c *testCluster) {
				f := &faults{testCluster: c, random: rand.New(rand.NewPCG(uint64(seed), 1))}
				for range 40 {
					what := f.fault()
					pause := time.Duration(f.random.IntN(900)) * time.Millisecond
					if t.Failed() {
						t.Fatalf("the last fault was: %s", what)
					}
					<-time.After(pause)
				}
				f.heal()
				for _, n := range c.nodes {
					if n.r == nil {
						c.start(n)
					}
				}
				c.wait("everything to be held again", 15*time.Second, c.heldAll)
				for _, n := range c.nodes {
					c.ask("end the drain", func(ctx context.Context) error { return n.r.Drain(ctx, n.peer.ID, false) })
				}
				for p := range c.partitions() {
					c.ask("end the move", func(ctx context.Context) error { return c.nodes[0].r.Move(ctx, p, "") })
				}
				c.wait("balance", 20*time.Second, c.balanced)
				c.mu.Lock()
				defer c.mu.Unlock()
				c.t.Logf("looked at %d holders, %d epochs", c.held, len(c.owners))
			})
		})
	}
}

// ask carries out a request that must succeed in time.
func (c *testCluster) ask(what string, request func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	if err := request(ctx); err != nil {
		c.t.Errorf("%s: %v", what, err)
	}
}

type faults struct {
	*testCluster
	random *rand.Rand
}

func (f *faults) any() *testNode { return f.nodes[f.random.IntN(len(f.nodes))] }

// fault does one thing to the cluster and says what.
func (f *faults) fault() string {
	n, other := f.any(), f.any()
	switch f.random.IntN(10) {
	case 0, 1:
		f.isolate(n, true)
		return n.peer.Name + " is cut off, or stands still"
	case 2:
		f.cut(n, other, true)
		return fmt.Sprintf("%s and %s are cut off from each other", n.peer.Name, other.peer.Name)
	case 3:
		if n != other {
			f.net.set(n.peer.Raft, other.peer.Raft, true)
		}
		return fmt.Sprintf("%s does not hear %s", other.peer.Name, n.peer.Name)
	case 4, 5, 6:
		f.heal()
		return "all hear each other again"
	case 7:
		if n.r == nil {
			f.start(n)
			return n.peer.Name + " starts"
		}
		switch f.random.IntN(4) {
		case 0:
			f.kill(n)
			return n.peer.Name + " is killed"
		case 1:
			f.crash(n)
			return n.peer.Name + " is killed, and refuses streams"
		}
		if err := f.end(n); err != nil {
			f.t.Errorf("%s ends with %v", n.peer.Name, err)
		}
		return n.peer.Name + " ends in order"
	}
	if n.r == nil {
		return "nothing"
	}
	ctx, cancel := context.WithTimeout(f.ctx, 100*time.Millisecond)
	defer cancel()
	// Whether it succeeds is up to the faults.
	if f.random.IntN(2) == 0 {
		err := n.r.Drain(ctx, other.peer.ID, f.random.IntN(2) == 0)
		return fmt.Sprintf("drain of %s: %v", other.peer.Name, err)
	}
	err := n.r.Move(ctx, f.random.IntN(4), other.peer.ID)
	return fmt.Sprintf("move to %s: %v", other.peer.Name, err)
}

func (f *faults) heal() {
	for _, a := range f.running() {
		for _, b := range f.running() {
			f.cut(a, b, false)
		}
	}
}
