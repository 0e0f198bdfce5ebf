package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// join makes a node that is not among the formed a member, by the address of another.
func (c *testCluster) join(n *testNode, by ...string) error {
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	return n.r.Join(ctx, by)
}

func (c *testCluster) voters() (ids []string) {
	for _, m := range c.leader().r.Status().Members {
		if m.Votes {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func TestNodesThatJoinGetTheirShareAndVoteAfterAWhile(t *testing.T) {
	inCluster(t, 3, 10, func(c *testCluster) {
		for range 2 {
			n := c.add(RoleCore)
			// Whoever is asked knows who leads; the node itself and one that is not there do not.
			if err := c.join(n, "nobody:1", n.peer.Raft, c.follower().peer.Raft); err != nil {
				t.Fatal(err)
			}
			if err := c.join(n, c.leader().peer.Raft); err != nil {
				t.Errorf("joining again = %v", err)
			}
			c.wait("it to be told of the table", 2*time.Second, func() bool { return n.r.Partitions() == 10 })
			<-n.r.Formed()
			c.wait("balance", 15*time.Second, c.balanced)
		}
		if got := len(c.nodes[4].r.Replicas(0)); got != 5 {
			t.Errorf("a partition has %d replicas on five nodes, want 5", got)
		}
		c.wait("five voters", 20*time.Second, func() bool { return len(c.voters()) == 5 })
		// Five bear the loss of two.
		c.kill(c.nodes[0])
		c.kill(c.nodes[1])
		c.wait("all to be held", 4*time.Second, c.heldAll)
	})
}

// Whoever leads may cease to while it takes a node in, and then nobody knows whether it
// has: the node asks until it knows.
func TestANodeJoinsThroughALeaderThatLosesTheOthers(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		leader := c.leader()
		n := c.add(RoleCore)
		for _, other := range c.nodes[:3] {
			c.cut(leader, other, true)
		}
		done := make(chan error, 1)
		go func() { done <- n.r.Join(c.ctx, []string{leader.peer.Raft}) }()
		c.wait("another to lead", 5*time.Second, func() bool { return c.leader() != nil && c.leader() != leader })
		for _, other := range c.nodes[:3] {
			c.cut(leader, other, false)
		}
		if err := <-done; err != nil {
			t.Fatalf("Join = %v", err)
		}
		c.wait("balance", 15*time.Second, c.balanced)
	})
}

func TestFourNodesHaveThreeVotersAndReplaceADeadOne(t *testing.T) {
	inCluster(t, 4, 4, func(c *testCluster) {
		if got := c.voters(); len(got) != 3 {
			t.Errorf("voters = %v, want three", got)
		}
		c.wait("balance", time.Second, c.balanced)
		var dead *testNode
		for _, n := range c.nodes {
			if slices.Contains(c.voters(), n.peer.ID) && n != c.leader() {
				dead = n
			}
		}
		c.kill(dead)
		c.while("it stays a voter at first", testStabilise/2, func() bool { return slices.Contains(c.voters(), dead.peer.ID) })
		c.wait("the fourth to vote in its place", 3*testStabilise, func() bool {
			v := c.voters()
			return len(v) == 3 && !slices.Contains(v, dead.peer.ID)
		})
		// So another may die.
		c.kill(c.follower())
		c.wait("all to be held by two of four", 5*time.Second, func() bool { return c.leader() != nil && c.heldAll() })
	})
}

func TestAnEdgeNodeOwnsNothingAndIsNoticedWhenItDies(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		edge := c.add(RoleEdge)
		if err := c.join(edge, c.nodes[0].peer.Raft); err != nil {
			t.Fatal(err)
		}
		alive := func() bool {
			i := slices.IndexFunc(c.nodes[0].r.Members(), func(m Member) bool { return m.ID == edge.peer.ID })
			return i >= 0 && c.nodes[0].r.Members()[i].Alive
		}
		c.wait("it to be known", 2*time.Second, func() bool { return alive() && edge.r.Partitions() == 6 })
		c.while("it owns nothing and does not vote", 2*testStabilise, func() bool {
			return len(c.holds(edge)) == 0 && len(c.voters()) == 3 && alive()
		})
		c.kill(edge)
		c.wait("its death to be known", 1500*time.Millisecond, func() bool { return !alive() })
		c.start(edge)
		if err := c.join(edge, c.nodes[1].peer.Raft); err != nil {
			t.Fatal(err)
		}
		c.wait("it to be known again", 2*time.Second, alive)
	})
}

func TestANodeThatReturnsAtOnceToItsAddressWithoutItsIDIsNotTakenForTheOld(t *testing.T) {
	for _, role := range []string{"a follower", "the leader"} {
		t.Run(role, func(t *testing.T) {
			inCluster(t, 3, 6, func(c *testCluster) {
				c.wait("balance", time.Second, c.balanced)
				old := c.follower()
				if role == "the leader" {
					old = c.leader()
				}
				wiped := &testNode{dir: t.TempDir(), peer: old.peer}
				wiped.peer.ID = "id-new"
				c.kill(old)
				c.mu.Lock()
				c.nodes = append(c.nodes, wiped)
				c.mu.Unlock()
				c.start(wiped)
				var others []string
				for _, n := range c.nodes {
					if n != old && n != wiped {
						others = append(others, n.peer.Raft)
					}
				}
				c.wait("its name to be free", 5*time.Second, func() bool {
					select {
					case err := <-wiped.done:
						c.t.Fatalf("it ends: %v", err)
					default:
					}
					err := c.join(wiped, others...)
					if err != nil && !errors.Is(err, ErrNameTaken) {
						t.Errorf("joining = %v", err)
					}
					return err == nil
				})
				c.wait("it to be told of the table", 2*time.Second, func() bool { return wiped.r.Partitions() == 6 })
				c.wait("the old one to be removed, and three to vote", 10*testStabilise, func() bool {
					v := c.voters()
					return len(v) == 3 && slices.Contains(v, wiped.peer.ID) && len(c.leader().r.Members()) == 3
				})
				c.wait("balance", 15*time.Second, c.balanced)
			})
		})
	}
}

func TestAStreamMeantForAnotherNodeIsRefused(t *testing.T) {
	inCluster(t, 3, 1, func(c *testCluster) {
		leader, other := c.leader(), c.follower()
		former := raftAddress("former", leader.peer.Raft)
		var not *NotLeaderError
		request := encodeRequest(requestStatus, change{})
		if _, err := other.r.ask(c.ctx, former, request); !errors.As(err, &not) {
			t.Errorf("a request = %v, want that it does not lead", err)
		}
		if _, err := other.r.ask(c.ctx, raft.ServerAddress(leader.peer.Raft), request); err != nil {
			t.Errorf("a request to whoever is there = %v", err)
		}
		for _, kind := range []byte{streamRaft, streamLease} {
			conn, err := other.r.streams.dial(kind, former, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("stream of kind %d: read %d bytes, %v; want %v", kind, n, err, io.EOF)
			}
			conn.Close()
		}
	})
}

func FuzzStreamHeader(f *testing.F) {
	f.Add([]byte{streamRaft, 2, 'i', 'd'})
	f.Add([]byte{streamAsk, 0})
	f.Add([]byte{streamLease, 255, 'i'})
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, id, err := readStreamHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again, err := streamHeader(kind, id); err != nil || !bytes.HasPrefix(b, again) {
			t.Errorf("%q is read as kind %d for %q, which is written as %q, %v", b, kind, id, again, err)
		}
	})
}

func TestANodeThatReturnsWithoutItsIDReplacesTheOld(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		old := c.follower()
		wiped := &testNode{dir: t.TempDir(), peer: old.peer}
		wiped.peer.ID, wiped.peer.Raft, wiped.peer.NATS = "id-new", "host-new:6223", "host-new:6222"
		c.mu.Lock()
		c.nodes = append(c.nodes, wiped)
		c.mu.Unlock()
		c.start(wiped)
		leader := c.leader()
		if err := c.join(wiped, leader.peer.Raft); !errors.Is(err, ErrNameTaken) {
			t.Errorf("joining under the name of a living node = %v, want %v", err, ErrNameTaken)
		}
		c.kill(old)
		c.wait("the death to be noticed", 3*time.Second, c.heldAll)
		if err := c.join(wiped, leader.peer.Raft); err != nil {
			t.Fatal(err)
		}
		c.wait("the old one to be removed", 10*testStabilise, func() bool {
			return !slices.ContainsFunc(leader.r.Members(), func(m Member) bool { return m.ID == old.peer.ID })
		})
		c.wait("three voters", testStabilise, func() bool {
			v := c.voters()
			return len(v) == 3 && slices.Contains(v, wiped.peer.ID)
		})
		c.wait("balance", 15*time.Second, c.balanced)
		for p := range 6 {
			if got := leader.r.Replicas(p); len(got) != 3 || slices.Contains(got, old.peer.ID) {
				t.Errorf("partition %d has replicas %v", p, got)
			}
		}
		// The old one does not come back as it was: it is told when it asks to, or before,
		// by a leader that it has still heard of.
		c.start(old)
		if err := c.join(old, leader.peer.Raft); !errors.Is(err, ErrNameTaken) {
			select {
			case end := <-old.done:
				c.set(old, nil)
				if !errors.Is(end, ErrRemoved) {
					t.Errorf("the old one ends with %v, want %v", end, ErrRemoved)
				}
			default:
				t.Errorf("the old one joins: %v, want %v", err, ErrNameTaken)
			}
		}
	})
}

func TestAnOperatorRemovesMembers(t *testing.T) {
	inCluster(t, 5, 10, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		gone := c.follower()
		remove := func(ctx context.Context) error { return c.leader().r.RemoveMember(ctx, gone.peer.ID) }
		if err := remove(c.ctx); err == nil {
			t.Error("a living node was removed that was not drained")
		}
		c.ask("drain it", func(ctx context.Context) error { return c.leader().r.Drain(ctx, gone.peer.ID, true) })
		c.wait("it to hold nothing", 10*time.Second, func() bool { return len(c.holds(gone)) == 0 && c.heldAll() })
		c.ask("remove it", remove)
		if err := <-gone.done; !errors.Is(err, ErrRemoved) {
			t.Errorf("Run of the removed node = %v, want %v", err, ErrRemoved)
		}
		c.set(gone, nil)
		if err := remove(c.ctx); !errors.Is(err, ErrUnknownMember) {
			t.Errorf("removing it again = %v, want %v", err, ErrUnknownMember)
		}
		c.wait("three of four to vote", 20*time.Second, func() bool { return len(c.voters()) == 3 })
		c.wait("balance", 15*time.Second, c.balanced)
		// The leader goes the same way.
		leader := c.leader()
		c.ask("drain the leader", func(ctx context.Context) error { return leader.r.Drain(ctx, leader.peer.ID, true) })
		c.wait("it to hold nothing", 10*time.Second, func() bool { return len(c.holds(leader)) == 0 && c.heldAll() })
		c.ask("remove the leader", func(ctx context.Context) error { return leader.r.RemoveMember(ctx, leader.peer.ID) })
		if err := <-leader.done; !errors.Is(err, ErrRemoved) {
			t.Errorf("Run of the removed leader = %v, want %v", err, ErrRemoved)
		}
		c.set(leader, nil)
		c.wait("balance", 15*time.Second, c.balanced)
		c.wait("three to vote", 20*time.Second, func() bool { return len(c.voters()) == 3 && len(c.leader().r.Members()) == 3 })
	})
}

// It may still have a lease when it is removed: nobody holds what it had before that
// has ended (the watcher looks).
func TestANodeRemovedWhileItOwnsIsWaitedFor(t *testing.T) {
	inCluster(t, 5, 10, func(c *testCluster) {
		c.wait("balance", time.Second, c.balanced)
		gone, leader := c.follower(), c.leader()
		had := c.holds(gone)
		// It is cut off from everybody, so that it learns nothing.
		c.isolate(gone, true)
		if err := leader.r.propose([]change{{kind: changeRemove, id: gone.peer.ID}}); err != nil {
			t.Fatal(err)
		}
		if len(had) == 0 || len(c.holds(gone)) != len(had) {
			t.Errorf("it held %v and holds %v, which tries nothing", had, c.holds(gone))
		}
		c.wait("all to be held by the others", 3*time.Second, func() bool { return len(c.holds(gone)) == 0 && c.heldAll() })
		c.isolate(gone, false)
		c.kill(gone)
		c.wait("balance", 15*time.Second, c.balanced)
	})
}

func TestANodeReturnsUnderAnotherAddress(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		n := c.follower()
		c.kill(n)
		n.peer.Raft, n.peer.URL = "host-moved:6223", "wss://moved"
		c.start(n)
		if err := c.join(n, c.leader().peer.Raft); err != nil {
			t.Fatal(err)
		}
		c.wait("balance", 15*time.Second, c.balanced)
		peers := c.leader().r.Peers()
		if i := slices.IndexFunc(peers, func(p Peer) bool { return p.ID == n.peer.ID }); i < 0 || peers[i].Raft != "host-moved:6223" || peers[i].URL != "wss://moved" {
			t.Errorf("peers = %+v", peers)
		}
	})
}

func TestTheLeaderTellsWhoWasHeardOf(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		f := c.follower()
		s, err := f.r.ClusterStatus(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Leader != c.leader().peer.ID || s.Node != s.Leader || s.ClusterID != "cluster" || s.Term == 0 || len(s.Members) != 3 || len(s.Partitions) != 6 {
			t.Errorf("status = %+v", s)
		}
		for _, m := range s.Members {
			if heard := m.LastContact != nil; heard != (m.ID != s.Leader) || !m.Alive || !m.Votes {
				t.Errorf("member = %+v", m)
			}
		}
		if s := f.r.Status(); s.Node != f.peer.ID || len(s.Members) != 3 || s.Members[0].LastContact != nil || s.Lease <= 0 {
			t.Errorf("a follower's own status = %+v", s)
		}
	})
}

// A lease never reaches further than the proof that the leader still led.
func TestALeaseIsShortenedByTheAgeOfTheLeadersProof(t *testing.T) {
	inCluster(t, 3, 6, func(c *testCluster) {
		leader, f := c.leader().r, c.follower()
		age := 150 * time.Millisecond
		leader.lead.mu.Lock()
		for id := range leader.lead.asked {
			leader.lead.asked[id] = asked{leader.raft.CurrentTerm(), leader.now() - int64(age)}
		}
		leader.lead.mu.Unlock()
		var ask [leaseAskSize]byte
		copy(ask[:], f.r.leaseAsk(0))
		stream := &leaseStream{}
		reply := leader.lead.answer(leader, stream, f.peer.ID, f.peer.Incarnation, ask)
		if reply.what != leaseGiven || reply.lead != int64(age) {
			t.Errorf("answer = %+v, want a lease shortened by %v", reply, age)
		}
		leader.lead.ended(stream, f.peer.ID)
		for _, other := range []struct {
			id          string
			incarnation uint64
			want        byte
		}{{f.peer.ID, f.peer.Incarnation + 1, leaseNone}, {f.peer.ID, f.peer.Incarnation - 1, leaseOutdated}, {"nobody", 1, leaseNone /* not said without a newer proof */}} {
			if got := leader.lead.answer(leader, &leaseStream{}, other.id, other.incarnation, ask).what; got != other.want {
				t.Errorf("answer to incarnation %d of %s = %d, want %d", other.incarnation, other.id, got, other.want)
			}
		}
		if got := f.r.lead.answer(f.r, &leaseStream{}, leader.o.Self.ID, 1, ask).what; got != leaseNotLeader {
			t.Errorf("answer of a follower = %d, want %d", got, leaseNotLeader)
		}
	})
}

func TestALeaseRunsFromWhenItWasAskedFor(t *testing.T) {
	inCluster(t, 1, 1, func(c *testCluster) {
		r, err := NewRaft(RaftOptions{Dir: t.TempDir(), Self: c.nodes[0].peer, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		l := c.net.listen("fake:1")
		defer l.Close()
		dialed := make(chan error, 1)
		var answers *memConn
		go func() {
			conn, err := l.Dial("fake:1", time.Second)
			answers, _ = conn.(*memConn)
			dialed <- err
		}()
		conn, err := l.Accept()
		if err = errors.Join(err, <-dialed); err != nil {
			t.Fatal(err)
		}
		at := r.now()
		<-time.After(100 * time.Millisecond)
		if _, err := answers.Write(leaseReply{what: leaseGiven, asked: at, lead: int64(time.Millisecond), settled: 7}.encode()); err != nil {
			t.Fatal(err)
		}
		if err := r.hearLeader(conn); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("hearLeader = %v, want an end when nothing is heard", err)
		}
		if want := at - int64(time.Millisecond) + r.parts.lease; r.until.Load() != want || r.settled.Load() != 7 {
			t.Errorf("the lease ends at %d, settled %d, want %d and 7", r.until.Load(), r.settled.Load(), want)
		}
	})
}

func TestALeadersProofIsWhenAMajorityWasAsked(t *testing.T) {
	voter := func(id string) raft.Server { return raft.Server{ID: raft.ServerID(id), Suffrage: raft.Voter} }
	edge := raft.Server{ID: "edge", Suffrage: raft.Nonvoter}
	at := map[raft.ServerID]int64{"b": 90, "c": 40, "d": 70, "e": 10, "edge": 99}
	for _, tt := range []struct {
		servers []raft.Server
		want    int64
	}{
		{[]raft.Server{voter("a")}, 100},
		{[]raft.Server{voter("a"), edge}, 100},
		{[]raft.Server{voter("a"), voter("b")}, 90},
		{[]raft.Server{voter("a"), voter("c"), voter("b"), edge}, 90},
		{[]raft.Server{voter("a"), voter("b"), voter("c"), voter("d")}, 70},
		{[]raft.Server{voter("a"), voter("b"), voter("c"), voter("d"), voter("e")}, 70},
		{[]raft.Server{voter("a"), voter("x"), voter("y")}, 0},
		{[]raft.Server{voter("b"), voter("c"), voter("e")}, 40}, // it votes no more itself
		{[]raft.Server{edge}, 0},
	} {
		got := leaderProof(100, "a", raft.Configuration{Servers: tt.servers}, func(id raft.ServerID) int64 { return at[id] })
		if got != tt.want {
			t.Errorf("proof of %v = %d, want %d", tt.servers, got, tt.want)
		}
	}
}

// tcpLayer is a StreamLayer on plain TCP.
type tcpLayer struct{ net.Listener }

func (tcpLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}

// One test in real time, on real sockets.
func TestThreeNodesShareThePartitionsOverTCP(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var peers []Peer
	var nodes []*Raft
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, Peer{Raft: l.Addr().String(),
			Member: Member{ID: fmt.Sprint("id-", i), Name: fmt.Sprint("node-", i), Role: RoleCore, Incarnation: 1}})
		r, err := NewRaft(RaftOptions{Dir: t.TempDir(), Self: peers[i], Stream: tcpLayer{l}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, r)
	}
	done := make(chan error, 3)
	running, stop := context.WithCancel(ctx)
	for _, r := range nodes {
		go func() { done <- r.Run(running) }()
	}
	for _, r := range nodes {
		if err := r.Bootstrap(ctx, peers, "cluster", "test", 6, 0); err != nil {
			t.Error(err)
		}
	}
	held := func() (n int) {
		for _, r := range nodes {
			for p := range r.Partitions() {
				if r.Holds(p) {
					n++
				}
			}
		}
		return n
	}
	for held() != 6 && ctx.Err() == nil {
		select {
		case <-nodes[0].Changed():
		case <-time.After(10 * time.Millisecond):
		}
	}
	if ctx.Err() != nil {
		t.Errorf("waited 30s for 6 partitions to be held, %d are", held())
	}
	stop()
	for range nodes {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestOptionsOfARaftAreChecked(t *testing.T) {
	good := RaftOptions{Self: Peer{Member: Member{ID: "a", Name: "a", Role: RoleCore}, Raft: "a:1"}, Log: slog.New(slog.DiscardHandler)}
	if _, err := NewRaft(good); err != nil {
		t.Error(err)
	}
	for i, spoil := range []func(*RaftOptions){
		func(o *RaftOptions) { o.Self.ID = "" },
		func(o *RaftOptions) { o.Self.Name = "" },
		func(o *RaftOptions) { o.Self.Raft = "" },
		func(o *RaftOptions) { o.Self.Role = "" },
		func(o *RaftOptions) { o.FailureTimeout = time.Millisecond },
	} {
		o := good
		spoil(&o)
		if _, err := NewRaft(o); err == nil {
			t.Errorf("options %d were taken: %+v", i, o)
		}
	}
}

func TestErrorsOfTheLeaderArriveByName(t *testing.T) {
	for _, want := range sentinels[1:] {
		_, err := decodeReply(encodeReply(nil, fmt.Errorf("more: %w", want)))
		if !errors.Is(err, want) || err.Error() != "more: "+want.Error() {
			t.Errorf("%v arrives as %v", want, err)
		}
	}
	var not *NotLeaderError
	if _, err := decodeReply(encodeReply(nil, &NotLeaderError{"id", "host:1"})); !errors.As(err, &not) || *not != (NotLeaderError{"id", "host:1"}) {
		t.Errorf("a leader's address arrives as %v", err)
	}
	if b, err := decodeReply(encodeReply([]byte("fine"), nil)); err != nil || string(b) != "fine" {
		t.Errorf("an answer arrives as %q, %v", b, err)
	}
}

func FuzzDecodeRequestAndReply(f *testing.F) {
	f.Add(encodeRequest(requestChange, change{kind: changeSetting, name: "x", value: []byte("y"), number: 7}))
	f.Add(encodeReply(nil, ErrNameTaken))
	f.Add(encodeReply(nil, &NotLeaderError{"id", "host:1"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if kind, c, err := decodeRequest(b); err == nil {
			kind2, c2, err := decodeRequest(encodeRequest(kind, c))
			if err != nil || kind != kind2 || !sameChange(c, c2) {
				t.Errorf("%d %+v comes back as %d %+v, %v", kind, c, kind2, c2, err)
			}
		}
		if b, err := decodeReply(b); err == nil && b == nil {
			t.Error("neither an answer nor an error")
		}
	})
}

func BenchmarkRaftHolds(b *testing.B) {
	r, err := NewRaft(RaftOptions{Self: Peer{Member: Member{ID: "a", Name: "a", Role: RoleCore, Incarnation: 1}, Raft: "a:1"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	s, err := (&tableState{}).apply(1, []change{{kind: changeForm, id: "c", number: 6},
		joining(peerMember{Peer: Peer{Member: Member{ID: "a", Name: "a", Role: RoleCore, Incarnation: 1, Alive: true}}, speaks: 1}),
		{kind: changeAssign, number: 3, id: "a", replicas: []string{"a"}}})
	if err != nil {
		b.Fatal(err)
	}
	r.view.Store(newTableView(s, r.o.Self.Member))
	r.settled.Store(1)
	r.until.Store(int64(time.Hour))
	b.ReportAllocs()
	for b.Loop() {
		if !r.Holds(3) {
			b.Fatal("it does not hold")
		}
	}
}
