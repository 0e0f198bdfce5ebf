package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testCluster is a cluster in one process and one synctest bubble: its time is not
// that of the machine. While it is there, it watches what must never happen.
type testCluster struct {
	t     *testing.T
	ctx   context.Context
	net   *memNet
	nodes []*testNode
	stop  chan struct{}
	done  chan struct{}
	mu    sync.Mutex // guards nodes and their r against the watcher

	owners map[[2]uint64]string // partition, epoch: who had it
	epochs map[string]uint64    // node and partition: the last it saw
	held   int                  // how often a node was seen to hold something
}

type testNode struct {
	peer Peer
	dir  string
	// returns says that it has been a member.
	returns bool
	r       *Raft
	cancel  context.CancelFunc
	done    chan error
}

const testStabilise = 3 * time.Second

// inCluster runs a test in a bubble, with nodes that are formed into a cluster of so
// many partitions.
func inCluster(t *testing.T, cores, partitions int, test func(c *testCluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background()) // the test's own is outside the bubble
		defer cancel()
		c := &testCluster{t: t, ctx: ctx, net: newMemNet(), stop: make(chan struct{}), done: make(chan struct{}),
			owners: make(map[[2]uint64]string), epochs: make(map[string]uint64)}
		for range cores {
			c.add(RoleCore)
		}
		defer func() {
			for _, n := range c.nodes {
				c.kill(n)
			}
			close(c.stop)
			<-c.done
		}()
		go c.watch()
		c.form(partitions)
		test(c)
	})
}

// add makes a node and starts it.
func (c *testCluster) add(role Role) *testNode {
	i := len(c.nodes)
	n := &testNode{dir: c.t.TempDir(), peer: Peer{
		Member: Member{ID: fmt.Sprintf("id-%d", i), Name: fmt.Sprintf("node-%d", i), Role: role},
		Raft:   fmt.Sprintf("host-%d:6223", i), NATS: fmt.Sprintf("host-%d:6222", i)}}
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	c.start(n)
	return n
}

// start starts a node, under a new incarnation.
func (c *testCluster) start(n *testNode) {
	c.t.Helper()
	for _, other := range c.nodes {
		c.cut(n, other, false)
	}
	c.net.refuse(n.peer.Raft, false)
	c.mu.Lock()
	n.peer.Incarnation++
	c.mu.Unlock()
	r, err := NewRaft(RaftOptions{Dir: n.dir, Self: n.peer, Returns: n.returns, Stream: c.net.listen(n.peer.Raft), Stabilise: testStabilise,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan error, 1)
	c.set(n, r)
	go func() { n.done <- r.Run(ctx) }()
}

func (c *testCluster) form(partitions int) {
	c.t.Helper()
	var peers []Peer
	for _, n := range c.nodes {
		peers = append(peers, n.peer)
	}
	for _, n := range c.nodes {
		if err := n.r.Bootstrap(c.ctx, peers, "cluster", "test", partitions, 41); err != nil {
			c.t.Fatal(err)
		}
	}
	c.wait("all partitions to be held", 5*time.Second, func() bool { return c.heldAll() })
}

func (c *testCluster) set(n *testNode, r *Raft) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.r = r
}

// end stops a node in order, and says what Run did.
func (c *testCluster) end(n *testNode) error {
	if n.r == nil {
		return nil
	}
	n.cancel()
	err := <-n.done
	c.set(n, nil)
	return err
}

// kill stops a node as kill -9 would, in the eyes of the others: without a word.
func (c *testCluster) kill(n *testNode) {
	if n.r != nil {
		c.vanish(n)()
	}
}

// vanish begins a kill, and what it returns waits for its end.
func (c *testCluster) vanish(n *testNode) (ended func()) {
	r := n.r
	c.set(n, nil)
	for _, other := range c.nodes {
		c.cut(n, other, true)
	}
	c.net.mu.Lock()
	l := c.net.listeners[n.peer.Raft]
	c.net.mu.Unlock()
	r.stopped.Store(true)
	n.cancel()
	if l != nil {
		l.Close()
	}
	c.net.reset(n.peer.Raft)
	return func() {
		if err := <-n.done; err != nil {
			c.t.Errorf("%s ends with %v", n.peer.Name, err)
		}
	}
}

// crash is kill where the node's system goes on, and refuses what is sent to it.
func (c *testCluster) crash(n *testNode) {
	c.net.refuse(n.peer.Raft, true)
	c.kill(n)
}

// cut cuts, or heals, both directions between two nodes.
func (c *testCluster) cut(a, b *testNode, cut bool) {
	if a != b {
		c.net.set(a.peer.Raft, b.peer.Raft, cut)
		c.net.set(b.peer.Raft, a.peer.Raft, cut)
	}
}

// isolate cuts a node off from all others, or lets it back.
func (c *testCluster) isolate(n *testNode, cut bool) {
	for _, other := range c.nodes {
		if other.r != nil || !cut {
			c.cut(n, other, cut)
		}
	}
}

// wait waits for a condition, at most so long, and says how long it took.
func (c *testCluster) wait(what string, within time.Duration, cond func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > within {
			for _, n := range c.nodes {
				if n.r != nil {
					c.t.Logf("%s: %+v", n.peer.Name, n.r.Status())
				}
			}
			c.t.Fatalf("waited %v for %s", within, what)
		}
		<-time.After(5 * time.Millisecond)
	}
	return time.Since(start)
}

// while checks that a condition stays for so long.
func (c *testCluster) while(what string, long time.Duration, cond func() bool) {
	c.t.Helper()
	for start := time.Now(); time.Since(start) < long; <-time.After(5 * time.Millisecond) {
		if !cond() {
			c.t.Fatalf("not any more after %v: %s", time.Since(start), what)
		}
	}
}

// running are the nodes that run.
func (c *testCluster) running() (nodes []*testNode) {
	for _, n := range c.nodes {
		if n.r != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (c *testCluster) holder(p int) *testNode {
	for _, n := range c.running() {
		if n.r.Holds(p) {
			return n
		}
	}
	return nil
}

func (c *testCluster) partitions() int {
	for _, n := range c.running() {
		if p := n.r.Partitions(); p > 0 {
			return p
		}
	}
	return 0
}

func (c *testCluster) heldAll() bool {
	for p := range c.partitions() {
		if c.holder(p) == nil {
			return false
		}
	}
	return c.partitions() > 0
}

func (c *testCluster) holds(n *testNode) (held []int) {
	for p := range n.r.Partitions() {
		if n.r.Holds(p) {
			held = append(held, p)
		}
	}
	return held
}

func (c *testCluster) leader() *testNode {
	for _, n := range c.running() {
		if n.r.lead.leads() {
			return n
		}
	}
	return nil
}

// follower is a node that does not lead.
func (c *testCluster) follower() *testNode {
	for _, n := range c.running() {
		if !n.r.lead.leads() && n.peer.Role == RoleCore {
			return n
		}
	}
	return nil
}

// balanced says whether every node holds its share.
func (c *testCluster) balanced() bool {
	low, high := c.partitions(), 0
	for _, n := range c.running() {
		if n.peer.Role == RoleCore {
			held := len(c.holds(n))
			low, high = min(low, held), max(high, held)
		}
	}
	return c.heldAll() && high-low <= 1
}

// watch looks every millisecond for what must never be: two that hold the same, an
// epoch with two owners, an epoch that falls.
func (c *testCluster) watch() {
	defer close(c.done)
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(time.Millisecond):
		}
		c.mu.Lock()
		for p := range c.partitions() {
			var holders []string
			for _, n := range c.nodes {
				r := n.r
				if r == nil {
					continue
				}
				if r.Holds(p) {
					holders = append(holders, n.peer.Name)
				}
				c.see(n, p, r.Owner(p))
			}
			c.held += len(holders)
			if len(holders) > 1 {
				c.t.Errorf("partition %d is held by %v", p, holders)
			}
		}
		c.mu.Unlock()
	}
}

func (c *testCluster) see(n *testNode, p int, o Ownership) {
	if o.Owner == "" {
		return
	}
	key := [2]uint64{uint64(p), o.Epoch}
	if had, ok := c.owners[key]; ok && had != o.Owner {
		c.t.Errorf("epoch %d of partition %d belongs to %s and %s", o.Epoch, p, had, o.Owner)
	}
	c.owners[key] = o.Owner
	last := fmt.Sprintf("%s/%d/%d", n.peer.ID, n.peer.Incarnation, p)
	if o.Epoch < c.epochs[last] {
		c.t.Errorf("%s saw epoch %d of partition %d after %d", n.peer.Name, o.Epoch, p, c.epochs[last])
	}
	c.epochs[last] = o.Epoch
}

func TestNodesFormAClusterAndShareThePartitions(t *testing.T) {
	for _, cores := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(cores, " nodes"), func(t *testing.T) {
			inCluster(t, cores, 6, func(c *testCluster) {
				c.wait("balance", time.Second, c.balanced)
				for _, n := range c.nodes {
					r := n.r
					select {
					case <-r.Formed():
					default:
						t.Errorf("%s is not formed", n.peer.Name)
					}
					if r.ClusterID() != "cluster" || r.ClusterName() != "test" || r.Partitions() != 6 || len(r.Members()) != cores {
						t.Errorf("%s sees cluster %q %q of %d partitions and members %v", n.peer.Name, r.ClusterID(), r.ClusterName(), r.Partitions(), r.Members())
					}
					for p := range 6 {
						o := r.Owner(p)
						if want := c.holder(p).peer.ID; o.Owner != want || o.Epoch != 42 || o.Here != (want == n.peer.ID) {
							t.Errorf("%s says that %+v owns partition %d, want %s at epoch 42", n.peer.Name, o, p, want)
						}
						if got := len(r.Replicas(p)); got != replicaCount(cores, 0, false) {
							t.Errorf("partition %d has %d replicas", p, got)
						}
					}
					if self := r.Self(); !self.Alive || self.ID != n.peer.ID {
						t.Errorf("Self = %+v", self)
					}
				}
				for _, p := range []int{-1, 6} {
					if r := c.nodes[0].r; r.Owner(p) != (Ownership{}) || r.Holds(p) || r.Replicas(p) != nil {
						t.Errorf("partition %d exists", p)
					}
				}
			})
		})
	}
}

func TestPartitionsOfADeadNodeMoveAndOthersAreHeldThroughout(t *testing.T) {
	for _, cores := range []int{3, 5} {
		t.Run(fmt.Sprint(cores, " nodes"), func(t *testing.T) {
			inCluster(t, cores, 10, func(c *testCluster) {
				c.wait("balance", time.Second, c.balanced)
				dead := c.follower()
				lost := c.holds(dead)
				var others []int
				for p := range 10 {
					if !slices.Contains(lost, p) {
						others = append(others, p)
					}
				}
				c.kill(dead)
				start, took := time.Now(), time.Duration(0)
				c.while("others hold theirs", 2*time.Second, func() bool {
					if took == 0 && c.heldAll() {
						took = time.Since(start)
					}
					return !slices.ContainsFunc(others, func(p int) bool { return c.holder(p) == nil })
				})
				// Its connections broke, so it need not be waited for as for one that is silent.
				if took == 0 || took > 900*time.Millisecond {
					t.Errorf("the partitions of the dead are held after %v, want 0.9s at most", took)
				}
				for _, p := range lost {
					if o := c.leader().r.Owner(p); o.Epoch != 43 {
						t.Errorf("partition %d moved to epoch %d, want 43", p, o.Epoch)
					}
				}
				c.start(dead)
				c.wait("the dead one to have its share again", 10*time.Second, c.balanced)
			})
		})
	}
}

func TestADeadLeaderIsReplacedAndItsPartitionsMove(t *testing.T) {
	for _, cores := range []int{3, 5} {
		t.Run(fmt.Sprint(cores, " nodes"), func(t *testing.T) {
			inCluster(t, cores, 10, func(c *testCluster) {
				c.wait("balance", time.Second, c.balanced)
				dead := c.leader()
				c.kill(dead)
				took := c.wait("all to be held", 3500*time.Millisecond, c.heldAll)
				t.Logf("all partitions are held %v after the leader's death", took)
				c.start(dead)
				c.wait("balance", 15*time.Second, c.balanced)
			})
		})
	}
}

func TestALeaderWhoseProcessEndsIsReplacedBeforeLeasesEnd(t *testing.T) {
	for _, cores := range []int{3, 5} {
		t.Run(fmt.Sprint(cores, " nodes"), func(t *testing.T) {
			inCluster(t, cores, 10, func(c *testCluster) {
				c.wait("balance", time.Second, c.balanced)
				dead := c.leader()
				kept := make(map[*testNode][]int)
				for _, n := range c.running() {
					if n != dead {
						kept[n] = c.holds(n)
					}
				}
				begun := time.Now()
				c.net.refuse(dead.peer.Raft, true) // its system goes on
				ended := c.vanish(dead)
				for !c.heldAll() || c.leader() == dead {
					for n, partitions := range kept {
						for _, p := range partitions {
							if !n.r.Holds(p) {
								t.Fatalf("%s does not hold partition %d any more after %v", n.peer.Name, p, time.Since(begun))
							}
						}
					}
					if time.Since(begun) > 1200*time.Millisecond {
						t.Fatalf("not all partitions are held after %v", time.Since(begun))
					}
					<-time.After(5 * time.Millisecond)
				}
				t.Logf("all partitions are held %v after the end of the leader's process", time.Since(begun))
				ended()
			})
		})
	}
}

func TestALeaderThatRefusesStreamsStaysWhileItsOwnLast(t *testing.T) {
	inCluster(t, 3, 3, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		n := c.leader()
		c.net.refuse(n.peer.Raft, true)
		c.while("who led goes on", time.Second, func() bool { return c.leader() == n })
		c.net.reset(n.peer.Raft) // as a firewall may
		<-time.After(50 * time.Millisecond)
		c.net.refuse(n.peer.Raft, false)
		c.wait("all to be held", 5*time.Second, c.heldAll)
	})
}

func TestANodeThatLeavesInOrderIsNotWaitedFor(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		for _, n := range []*testNode{c.follower(), c.leader()} {
			if err := c.end(n); err != nil {
				t.Error(err)
			}
			c.wait("all to be held", 500*time.Millisecond, c.heldAll)
			c.start(n)
			c.wait("balance", 15*time.Second, c.balanced)
		}
	})
}

func TestAMinorityHoldsNothingAndAgreesAfterHealing(t *testing.T) {
	inCluster(t, 5, 10, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		leader := c.leader()
		minority := []*testNode{leader, c.follower()}
		var majority []*testNode
		for _, n := range c.nodes {
			if !slices.Contains(minority, n) {
				majority = append(majority, n)
				for _, m := range minority {
					c.cut(n, m, true)
				}
			}
		}
		c.wait("the minority to hold nothing", 500*time.Millisecond, func() bool {
			return len(c.holds(minority[0])) == 0 && len(c.holds(minority[1])) == 0
		})
		ctx, cancel := context.WithTimeout(c.ctx, 2*time.Second)
		defer cancel()
		var not *NotLeaderError
		if err := minority[1].r.Drain(ctx, majority[0].peer.ID, true); !errors.As(err, &not) || not.Leader != "" {
			t.Errorf("the minority drains a node: %v", err)
		}
		c.wait("the majority to hold everything", 3*time.Second, c.heldAll)
		c.while("the majority holds everything", 5*time.Second, c.heldAll)
		for _, n := range minority {
			for _, m := range majority {
				c.cut(n, m, false)
			}
		}
		c.while("the majority keeps everything at once", 200*time.Millisecond, c.heldAll)
		c.wait("balance", 15*time.Second, c.balanced)
	})
}

func TestTwoNodesOfThreeDownLeaveNobodyInCharge(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		last := c.follower()
		var down []*testNode
		for _, n := range c.nodes {
			if n != last {
				down = append(down, n)
				c.kill(n)
			}
		}
		c.wait("the last to hold nothing", time.Second, func() bool { return len(c.holds(last)) == 0 })
		c.while("the last holds nothing", 5*time.Second, func() bool { return len(c.holds(last)) == 0 })
		for _, n := range down {
			c.start(n)
		}
		c.wait("balance", 15*time.Second, c.balanced)
	})
}

// A node that stood still has a buffer full of what the leader said meanwhile, and a
// lease that ended. None of it may make it hold what another has.
func TestAPausedNodeHoldsNothingWhenItGoesOn(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		paused := c.follower()
		c.isolate(paused, true)
		<-time.After(200 * time.Millisecond) // others write, into buffers
		c.wait("others to hold everything", 3*time.Second, func() bool { return c.heldAll() && len(c.holds(paused)) == 0 })
		c.while("others hold everything", 3*time.Second, c.heldAll)
		c.isolate(paused, false)
		c.while("everything is held", time.Second, c.heldAll)
		c.wait("balance", 15*time.Second, c.balanced)
	})
}

func TestEverythingIsThereAgainAfterAllHaveStopped(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshots: ", snapshots), func(t *testing.T) {
			inCluster(t, 3, 6, func(c *testCluster) {
				if err := c.nodes[1].r.Set(c.ctx, "rules", []byte("v1"), 0); err != nil {
					t.Fatal(err)
				}
				c.wait("balance", time.Second, c.balanced)
				for _, n := range c.nodes {
					if snapshots {
						if err := n.r.raft.Snapshot().Error(); err != nil {
							t.Fatal(err)
						}
					}
				}
				for _, n := range c.nodes {
					c.kill(n)
				}
				for _, n := range c.nodes {
					c.start(n)
				}
				c.wait("balance", 15*time.Second, c.balanced)
				for _, n := range c.nodes {
					if v, number := n.r.Setting("rules"); string(v) != "v1" || number != 1 {
						t.Errorf("%s has %q at number %d", n.peer.Name, v, number)
					}
					for p := range 6 {
						if o := n.r.Owner(p); o.Epoch < 43 {
							t.Errorf("partition %d is at epoch %d after its owner started again", p, o.Epoch)
						}
					}
				}
			})
		})
	}
}

// A node that has been away for long is sent a snapshot, because the log of what it
// missed is gone.
func TestANodeThatMissedTooMuchIsSentASnapshot(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		away := c.follower()
		c.kill(away)
		c.wait("all to be held", 3*time.Second, c.heldAll)
		leader := c.leader()
		conf := leader.r.raft.ReloadableConfig()
		conf.TrailingLogs = 1
		if err := leader.r.raft.ReloadConfig(conf); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(30) {
			if err := leader.r.Set(c.ctx, "rules", fmt.Append(nil, "v", i), i); err != nil {
				t.Fatal(err)
			}
		}
		if err := leader.r.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		c.start(away)
		c.wait("it to know", 5*time.Second, func() bool { v, _ := away.r.Setting("rules"); return string(v) == "v29" })
		c.wait("balance", 15*time.Second, c.balanced)
	})
}

func TestSettingsChangeByComparison(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		a, b := c.leader().r, c.follower().r
		for _, tt := range []struct {
			r      *Raft
			number uint64
			want   error
		}{{a, 0, nil}, {b, 0, ErrSettingChanged}, {b, 1, nil}, {a, 1, ErrSettingChanged}} {
			if err := tt.r.Set(c.ctx, "rules", []byte(fmt.Sprint(tt.number)), tt.number); !errors.Is(err, tt.want) {
				t.Errorf("Set at number %d = %v, want %v", tt.number, err, tt.want)
			}
		}
		if err := b.Overwrite(c.ctx, "rules", nil); err != nil {
			t.Error(err)
		}
		c.wait("number 3 everywhere", time.Second, func() bool {
			return !slices.ContainsFunc(c.nodes, func(n *testNode) bool { _, number := n.r.Setting("rules"); return number != 3 })
		})
	})
}

// A node that starts must not end because the leader is lost that it asks.
func TestAFirstValueIsGivenAlthoughTheLeaderIsLost(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		leader := c.leader()
		c.isolate(leader, true) // it leads until it notices
		if err := leader.r.Set(c.ctx, "asked once", nil, 0); !errors.Is(err, errUndecided) {
			t.Errorf("Set by a leader that is lost = %v, want %v", err, errUndecided)
		}
		c.isolate(leader, false)
		c.wait("a leader", 10*time.Second, func() bool { return c.leader() != nil })

		leader = c.leader()
		c.isolate(leader, true)
		done := make(chan error, 1)
		go func() { done <- giveFirst(c.ctx, &joined{raft: leader.r}, "first", []byte("v")) }()
		<-time.After(5 * time.Second)
		c.isolate(leader, false)
		if err := <-done; err != nil {
			t.Errorf("a first value given through a leader that is lost: %v", err)
		}
		c.wait("it everywhere", 10*time.Second, func() bool {
			return !slices.ContainsFunc(c.nodes, func(n *testNode) bool { v, number := n.r.Setting("first"); return number != 1 || string(v) != "v" })
		})
		if err := giveFirst(c.ctx, &joined{raft: leader.r}, "first", []byte("late")); err != nil {
			t.Errorf("a first value where there is one: %v", err)
		}
	})
}

func TestADrainingNodeGivesAwayWhatItHolds(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		for _, n := range []*testNode{c.follower(), c.leader()} {
			if err := c.nodes[0].r.Drain(c.ctx, n.peer.ID, true); err != nil {
				t.Fatal(err)
			}
			took := c.wait("it to hold nothing", 5*time.Second, func() bool { return len(c.holds(n)) == 0 && c.heldAll() })
			t.Logf("drained in %v", took)
			c.while("it gets nothing", 3*time.Second, func() bool { return len(c.holds(n)) == 0 && c.heldAll() })
			if err := c.nodes[1].r.Drain(c.ctx, n.peer.ID, false); err != nil {
				t.Fatal(err)
			}
			c.wait("balance", 15*time.Second, c.balanced)
		}
		if err := c.nodes[0].r.Drain(c.ctx, "nobody", true); !errors.Is(err, ErrUnknownMember) {
			t.Errorf("draining nobody = %v, want %v", err, ErrUnknownMember)
		}
	})
}

func TestAnOperatorMovesAPartition(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		to := c.follower()
		for p := range 6 {
			if err := c.nodes[p%3].r.Move(c.ctx, p, to.peer.ID); err != nil {
				t.Fatal(err)
			}
		}
		c.wait("all to be there", 10*time.Second, func() bool { return len(c.holds(to)) == 6 })
		c.while("all stay there", 5*time.Second, func() bool { return len(c.holds(to)) == 6 })
		for p := range 6 {
			if err := c.nodes[0].r.Move(c.ctx, p, ""); err != nil {
				t.Fatal(err)
			}
		}
		c.wait("balance", 15*time.Second, c.balanced)
		if err := c.nodes[0].r.Move(c.ctx, 6, to.peer.ID); err == nil {
			t.Error("a partition that does not exist was moved")
		}
	})
}
