package cluster

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"
)

func TestANodeThatWasRemovedIsNotTakenInAgain(t *testing.T) {
	inCluster(t, 4, 8, func(c *testCluster) {
		gone := c.follower()
		c.kill(gone)
		c.wait("its death to be noticed", 5*time.Second, func() bool {
			for _, m := range c.leader().r.Members() {
				if m.ID == gone.peer.ID {
					return !m.Alive
				}
			}
			return false
		})
		c.ask("remove it", func(ctx context.Context) error { return c.leader().r.RemoveMember(ctx, gone.peer.ID) })
		gone.returns = true
		c.start(gone)
		if err := c.join(gone, c.leader().peer.Raft); !errors.Is(err, ErrRemoved) {
			t.Errorf("the removed node joins with %v, want %v", err, ErrRemoved)
		}
		if got := len(c.leader().r.Members()); got != 3 {
			t.Errorf("the cluster has %d members, want 3", got)
		}
		c.kill(gone)
		// Without its data it is another node, of the same name.
		fresh := c.add(RoleCore)
		if err := c.join(fresh, c.leader().peer.Raft); err != nil {
			t.Errorf("a new node joins with %v", err)
		}
	})
}

// A leader that was stopped, while another was elected and took a node in, must not take that
// one for removed: it says so only when it has proved that it still leads.
func TestALeaderThatCannotProveItTellsNobodyThatItWasRemoved(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		leader := c.leader()
		n := c.add(RoleCore)
		<-n.r.running
		n.r.o.Returns = true // in the eyes of the leader: it was a member, and is none
		join := encodeRequest(requestJoin, n.r.joinSelf())
		for _, other := range c.nodes[:3] {
			c.cut(leader, other, true)
		}
		conn, err := n.r.streams.dial(streamLease, raftAddress(leader.peer.ID, leader.peer.Raft), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		told := make(chan byte, 1)
		go func() {
			last := byte(leaseNone)
			defer func() { told <- last }()
			message := frame(join)
			for last == leaseNone || last == leaseGiven {
				var b [leaseReplySize]byte
				if _, err := conn.Write(append(message, n.r.leaseAsk(0)...)); err != nil {
					return
				}
				if _, err := io.ReadFull(conn, b[:]); err != nil {
					return
				}
				message, last = nil, decodeLeaseReply(b).what
				<-time.After(n.r.part(partAsk))
			}
		}()
		var asking sync.WaitGroup
		for what, request := range map[string][]byte{"to join": join, "for its status": encodeRequest(requestStatus, change{})} {
			asking.Go(func() {
				_, err := decodeReply(leader.r.Serve(request))
				if not := (*NotLeaderError)(nil); !errors.As(err, &not) {
					t.Errorf("it is asked %s and says: %v; want that it does not lead", what, err)
				}
			})
		}
		asking.Wait()
		if last := <-told; last == leaseNoMember {
			t.Errorf("it is asked for a lease and says that the asker was removed")
		}
	})
}

// copyOf starts a process with another node's id and incarnation, at an address of its own.
func (c *testCluster) copyOf(n *testNode, incarnation uint64) *testNode {
	twin := &testNode{dir: c.t.TempDir(), peer: n.peer, returns: true}
	twin.peer.Incarnation = incarnation - 1 // start raises it
	twin.peer.Raft = "copy-of-" + n.peer.Raft
	c.mu.Lock()
	c.nodes = append(c.nodes, twin)
	c.mu.Unlock()
	c.start(twin)
	return twin
}

func TestACopyOfANodeIsRefusedWhileThatRuns(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		for _, n := range []*testNode{c.follower(), c.leader()} {
			for later, want := range map[uint64]error{0: ErrCopied, 1: ErrCopied, 7: ErrCopied} {
				twin := c.copyOf(n, n.peer.Incarnation+later)
				if err := c.join(twin, c.leader().peer.Raft); !errors.Is(err, want) {
					t.Errorf("a copy that was started %d times more joins with %v, want %v", later, err, want)
				}
				c.kill(twin)
			}
			if !c.heldAll() || !c.balanced() {
				t.Errorf("the copy of %s has taken something from it", n.peer.Name)
			}
		}
	})
}

func TestAProcessWhosePlaceACopyHasTakenStops(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		n := c.follower()
		c.isolate(n, true)
		c.wait("its death to be noticed", 5*time.Second, func() bool {
			return !c.leader().r.view.Load().members[n.peer.ID].Alive
		})
		twin := c.copyOf(n, n.peer.Incarnation+1)
		c.cut(n, twin, true)
		if err := c.join(twin, c.leader().peer.Raft); err != nil {
			t.Fatalf("a node that has moved joins with %v", err)
		}
		old := &testNode{peer: n.peer, dir: t.TempDir(), returns: true}
		old.peer.Incarnation, old.peer.Raft = old.peer.Incarnation-2, "backup:1"
		c.mu.Lock()
		c.nodes = append(c.nodes, old)
		c.mu.Unlock()
		c.start(old)
		if err := c.join(old, c.leader().peer.Raft); !errors.Is(err, ErrOldIncarnation) {
			t.Errorf("an old copy joins with %v, want %v", err, ErrOldIncarnation)
		}
		c.kill(old)
		c.isolate(n, false)
		ends(c, n, ErrOldIncarnation)
	})
}

func TestANodeThatWasCutOffWhileItWasRemovedStops(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		n := c.follower()
		c.isolate(n, true)
		c.wait("its death to be noticed, and it to have lost its leader", 20*time.Second, func() bool {
			_, leader := n.r.raft.LeaderWithID()
			return !c.leader().r.view.Load().members[n.peer.ID].Alive && leader == ""
		})
		c.ask("remove it", func(ctx context.Context) error { return c.leader().r.RemoveMember(ctx, n.peer.ID) })
		c.isolate(n, false)
		ends(c, n, ErrRemoved)
	})
}

// ends waits until a node ends, and says if that is not for the reason given.
func ends(c *testCluster, n *testNode, want error) {
	c.t.Helper()
	select {
	case err := <-n.done:
		if !errors.Is(err, want) {
			c.t.Errorf("Run of %s = %v, want %v", n.peer.Name, err, want)
		}
	case <-time.After(time.Minute):
		c.t.Fatalf("%s goes on, want %v", n.peer.Name, want)
	}
	c.set(n, nil)
}
