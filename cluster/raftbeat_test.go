package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// What nobody changes costs a node one beat of raft and one question for its lease every so
// often, and the leader sends the beats of all at once.
func TestAnIdleTableIsKeptWithOneBeatAndOneQuestion(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		leader := c.leader()
		<-time.After(2 * leader.r.o.FailureTimeout)
		const beats = 100
		every := leader.r.part(partBeat)
		times := make(map[string]map[int64]bool) // by node: when it was asked, or asked
		note := func(what string, at int64) {
			if times[what] == nil {
				times[what] = make(map[int64]bool)
			}
			times[what][at] = true
		}
		for end := time.Now().Add(beats * every); time.Now().Before(end); {
			<-time.After(every / 20)
			synctest.Wait()
			leader.r.lead.mu.Lock()
			for _, n := range c.nodes {
				if n != leader {
					note("asked "+n.peer.ID, leader.r.lead.asked[raft.ServerID(n.peer.ID)].at)
					note(n.peer.ID+" asked", leader.r.lead.nodes[n.peer.ID].heard)
				}
			}
			leader.r.lead.mu.Unlock()
		}
		if len(times) != 4 {
			t.Fatalf("times of %d kinds, want 4", len(times))
		}
		together := 0
		for what, at := range times {
			if n := len(at); n < beats*3/4 || n > beats*21/20 {
				t.Errorf("%s %d times in %v, want about %d", what, n, beats*every, beats)
			}
			for a := range at {
				if a%int64(every) == 0 {
					together++
				}
			}
		}
		if together < 4*beats*9/10 {
			t.Errorf("of %d times %d at a beat, want nearly all", 4*beats, together)
		}
	})
}
