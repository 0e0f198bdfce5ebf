package cluster

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// A leader that lives is replaced by who is told that it is dead, which no election
// timer does; groups that others lead are left alone.
func TestGroupsElectWhenTold(t *testing.T) {
	f := startFleet(t, 3)
	js := f.stream(t, f.members[0])
	retry(t, "a message is stored", publish(t, js))
	successor := f.members[(f.leader(t, js)+1)%3]
	groups := make(map[string]string)
	// A heartbeat of the leader's ends a campaign before it has begun, so there may be
	// several, each with its time; and on a busy machine the third may be elected in between.
	var stood time.Time
	retry(t, "the server leads that stands for election", func() error {
		leader := f.members[f.leader(t, js)]
		if leader == successor {
			return nil
		}
		if time.Since(stood) < electApart {
			return errors.New("another leads yet")
		}
		stood = time.Now()
		dead := []string{leader.opts.Dir.NodeID()}
		err := successor.campaign(dead, groups, func(stream string) bool { return stream == "S" })
		return errors.Join(err, errors.New("another leads"))
	})
	retry(t, "the new leader counts as one", func() error {
		if left := successor.settleLeaders(nil, groups); left > 0 {
			return fmt.Errorf("%d of %d groups have no leader", left, len(groups))
		}
		return nil
	})
	retry(t, "a message is stored at the new leader", publish(t, js))
	for i, s := range f.members {
		if s == successor {
			continue
		}
		var asked []string
		concerned := make(map[string]string)
		err := s.campaign([]string{"nobody"}, concerned, func(stream string) bool {
			asked = append(asked, stream)
			return false
		})
		if err != nil || len(concerned) != 0 || len(asked) != 0 {
			t.Errorf("member %d: campaign for want of a node that leads nothing = %v, of %v, and stood for %q; want none", i, err, concerned, asked)
		}
	}
}

func TestNodesStandForElectionInTurn(t *testing.T) {
	order := []string{"owner", "a", "owner", "b", ""}
	for _, c := range []struct {
		what string
		dead []string
		want []string // by turn
	}{
		{"all live", nil, []string{"owner", "a", "b", "owner"}},
		{"one is dead", []string{"a"}, []string{"owner", "b", "owner"}},
		{"the owner is dead and no other was found", []string{"owner"}, []string{"a", "b", "a"}},
		{"all are dead", []string{"owner", "a", "b"}, []string{"", ""}},
	} {
		var got []string
		for turn := range c.want {
			got = append(got, inTurn(order, c.dead, turn))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: it is the turn of %q, want %q", c.what, got, c.want)
		}
	}
}

// memberSince is a group's member, which knows a leader or none.
type memberSince struct {
	leader string
	since  time.Time
}

func (m memberSince) GroupLeader() string { return m.leader }
func (m memberSince) Created() time.Time  { return m.since }

// A leader that dies while it takes over is not known as one to the others.
func TestAGroupWithoutALeaderIsStoodForUnlessItIsNew(t *testing.T) {
	old, young := time.Now().Add(-time.Hour), time.Now()
	for _, c := range []struct {
		what   string
		member memberSince
		again  bool
		want   bool
	}{
		{"somebody leads", memberSince{"a", old}, false, false},
		{"nobody leads", memberSince{"", old}, false, true},
		{"nobody leads, as far as a new member knows", memberSince{"", young}, false, false},
		{"nobody leads, and an election was held", memberSince{"", young}, true, true},
		{"an election was held, and somebody leads", memberSince{"a", young}, true, false},
	} {
		if got := orphaned(c.member, c.again); got != c.want {
			t.Errorf("%s: orphaned = %v, want %v", c.what, got, c.want)
		}
	}
}
