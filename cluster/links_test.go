package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ear is a room: it notes what it hears, and checks the order of Up, Hear, Down.
type ear struct {
	t    testing.TB
	mu   sync.Mutex
	up   map[string]bool
	ups  int
	msgs []string
	hear func(peer string, payload []byte) // may be nil
	onUp func(peer string)                 // may be nil
	down func(peer string)                 // may be nil
}

func newEar(t testing.TB) *ear { return &ear{t: t, up: make(map[string]bool)} }

func (e *ear) Up(peer string) {
	e.mu.Lock()
	if e.up[peer] {
		e.t.Errorf("Up of %s while it is up", peer)
	}
	e.up[peer] = true
	e.ups++
	e.mu.Unlock()
	if e.onUp != nil {
		e.onUp(peer)
	}
}

func (e *ear) Hear(peer string, payload []byte) {
	e.mu.Lock()
	if !e.up[peer] {
		e.t.Errorf("Hear of %s while it is down", peer)
	}
	if e.hear == nil {
		e.msgs = append(e.msgs, string(payload))
	}
	e.mu.Unlock()
	if e.hear != nil {
		e.hear(peer, payload)
	}
}

func (e *ear) Down(peer string) {
	e.mu.Lock()
	if !e.up[peer] {
		e.t.Errorf("Down of %s while it is down", peer)
	}
	e.up[peer] = false
	e.mu.Unlock()
	if e.down != nil {
		e.down(peer)
	}
}

func (e *ear) Published(string, uint16, []byte) {}

func (e *ear) isUp(peer string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.up[peer]
}

func (e *ear) heard() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.msgs...)
}

// linkNode is a node with links.
type linkNode struct {
	*Links
	port     *Port
	ear      *ear
	stop     context.CancelFunc // of the links
	stopPort context.CancelFunc
}

// quick makes links redial fast enough for a test. Whoever is busy has time to say hello,
// to take all that is queued, and to say goodbye.
var quick = LinksConfig{Keepalive: patience / 6, BackoffMin: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond}

// linkSelf is a node at its first start.
func linkSelf(id string) LinkSelf {
	return LinkSelf{ID: id, Name: "node-" + id, Incarnation: 1, ClusterID: "c1"}
}

// startLinks starts a node; more changes it before it runs.
func startLinks(t testing.TB, cfg LinksConfig, self LinkSelf, more func(*linkNode)) *linkNode {
	t.Helper()
	n := &linkNode{ear: newEar(t)}
	n.port = listenPort(t, PortConfig{}, secretIdentity(t, self.ID))
	n.Links = NewLinks(cfg, self, n.port, quiet())
	if more != nil {
		more(n)
	}
	n.Handle(KindRPC, n.ear)
	n.stopPort = run(t, "port", n.port.Run)
	n.stop = run(t, "links", n.Run)
	return n
}

// addr is the node as a peer.
func (n *linkNode) addr() PeerAddr {
	return PeerAddr{ID: n.self.ID, Name: n.self.Name, Addr: n.port.Address(), Incarnation: n.self.Incarnation}
}

// meet makes nodes each other's members.
func meet(nodes ...*linkNode) {
	var all []PeerAddr
	for _, n := range nodes {
		all = append(all, n.addr())
	}
	for _, n := range nodes {
		n.SetPeers(all)
	}
}

// ended waits until so many links of n are counted as ended for a reason, which is done when
// every room has heard Down.
func (n *linkNode) ended(t testing.TB, reason string, times uint64) {
	t.Helper()
	until(t, fmt.Sprintf("%d links that ended for the reason %q", times, reason), func() bool { return n.Stats().Ends[reason] == times })
}

func linked(t testing.TB, a, b *linkNode) {
	t.Helper()
	until(t, "a link", func() bool { return a.ear.isUp(b.self.ID) && b.ear.isUp(a.self.ID) })
}

func TestMembersAreLinkedAndHearEachOtherInOrder(t *testing.T) {
	a, b, c := startLinks(t, quick, linkSelf("a"), nil), startLinks(t, quick, linkSelf("b"), nil), startLinks(t, quick, linkSelf("c"), nil)
	if a.Send("b", KindRPC, []byte("x")) || a.Linked("b") {
		t.Error("Send without a link is true")
	}
	meet(a, b, c)
	linked(t, a, b)
	linked(t, b, c)
	linked(t, a, c)
	var want []string
	large := bytes.Repeat([]byte("L"), 3<<20)
	for n := range 500 {
		msg := fmt.Sprintf("message %d", n)
		if n%100 == 50 {
			msg = string(large[:n*5000])
		}
		want = append(want, msg)
		if !b.Send("a", KindRPC, []byte(msg)) || !b.Send("c", KindRPC, []byte(msg)) {
			t.Fatal("Send is false")
		}
	}
	// Nobody handles this one there.
	if b.Send("a", KindPresence, nil) {
		t.Error("Send of a kind that nobody here has heard Up of is true")
	}
	for _, n := range []*linkNode{a, c} {
		until(t, "all messages", func() bool { return len(n.ear.heard()) == len(want) })
		for i, got := range n.ear.heard() {
			if got != want[i] {
				t.Fatalf("message %d is another one", i)
			}
		}
	}
	if s := b.Stats(); s.Links != 2 || s.Sent.Messages != 1000 || len(s.Ends) > 0 {
		t.Errorf("Stats = %+v", s)
	}
	if got := a.Format("b"); got != 1 {
		t.Errorf("Format = %d", got)
	}
}

func TestTheSmallerIDDials(t *testing.T) {
	a, b := startLinks(t, quick, linkSelf("a"), nil), startLinks(t, quick, linkSelf("b"), nil)
	b.SetPeers([]PeerAddr{{ID: "a", Addr: a.port.Address()}})
	a.SetPeers([]PeerAddr{b.addr()})
	linked(t, a, b)
	if got := a.port.Stats().Accepted[protocolLink]; got != 0 {
		t.Errorf("a was dialled %d times", got)
	}
}

func TestAMessageSentFromWithinUpArrivesFirst(t *testing.T) {
	first := func(n *linkNode) {
		n.ear.onUp = func(peer string) {
			if !n.Send(peer, KindRPC, []byte("first")) {
				t.Error("Send from within Up is false")
			}
		}
	}
	a, b := startLinks(t, quick, linkSelf("a"), first), startLinks(t, quick, linkSelf("b"), first)
	meet(a, b)
	for _, n := range []*linkNode{a, b} {
		until(t, "the first message", func() bool { return len(n.ear.heard()) > 0 })
	}
}

func TestStrangersAndThePastGetNoLink(t *testing.T) {
	b := startLinks(t, quick, linkSelf("m"), nil)
	member := func(self LinkSelf, more func(*linkNode)) *linkNode {
		n := startLinks(t, quick, self, more)
		n.SetPeers([]PeerAddr{b.addr()})
		return n
	}
	refusedFor := func(reason string) {
		t.Helper()
		until(t, reason, func() bool { return b.Stats().Refused[reason] > 0 })
	}
	b.SetPeers([]PeerAddr{{ID: "b", Incarnation: 5}, {ID: "c"}, {ID: "d"}, {ID: "z"}})
	// Each with its reason.
	n := member(linkSelf("a"), nil)
	refusedFor(refusedMember)
	n.stop()
	n = member(linkSelf("b"), nil)
	refusedFor(refusedIncarnation)
	n.stop()
	n = member(LinkSelf{ID: "c", ClusterID: "c2"}, nil)
	refusedFor(refusedClusterID)
	n.stop()
	n = member(linkSelf("d"), func(n *linkNode) { n.min, n.max = 2, 3 })
	refusedFor(refusedFormat)
	n.stop()
	if s := b.Stats(); s.Links != 0 || len(s.Ends) != 0 {
		t.Errorf("Stats = %+v", s)
	}
	// Somebody with a good certificate who says to be another node.
	thief := startLinks(t, quick, linkSelf("e"), nil)
	thief.self.ID = "c"
	conn, err := thief.dial(t.Context(), b.port.Address())
	if err != nil {
		t.Fatal(err)
	}
	_, err = thief.greet(conn, "m", 0)
	conn.Close() // it is counted when both ends have closed
	wantReason(t, "a stolen id", err, refusedOtherNode, "certificate")
	refusedFor(refusedOtherNode)
	// And who dials though it is not its turn.
	late := startLinks(t, quick, linkSelf("z"), nil)
	if conn, err = late.dial(t.Context(), b.port.Address()); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = late.greet(conn, "m", 0)
	wantReason(t, "the wrong direction", err, refusedDirection, "smaller id")
}

func TestNodesOfNeighbouringFormatsSpeakTheHighestThatBothKnow(t *testing.T) {
	a := startLinks(t, quick, linkSelf("a"), func(n *linkNode) { n.min, n.max = 2, 3 })
	b := startLinks(t, quick, linkSelf("b"), func(n *linkNode) { n.min, n.max = 1, 2 })
	meet(a, b)
	linked(t, a, b)
	if x, y := a.Format("b"), b.Format("a"); x != 2 || y != 2 {
		t.Errorf("formats %d and %d", x, y)
	}
}

func TestARestartedPeerIsUpAfterTheOldOneIsDown(t *testing.T) {
	for _, dialler := range []bool{true, false} {
		t.Run(fmt.Sprintf("dialler %v", dialler), func(t *testing.T) {
			keep, other := "a", "b"
			if dialler {
				keep, other = "b", "a"
			}
			a := startLinks(t, quick, linkSelf(keep), nil)
			b := startLinks(t, quick, linkSelf(other), nil)
			meet(a, b)
			linked(t, a, b)
			b.stop()
			until(t, "Down", func() bool { return !a.ear.isUp(other) })
			a.ended(t, endPeerLeft, 1)
			b.stopPort()
			self := linkSelf(other)
			self.Incarnation = 2
			b = startLinks(t, quick, self, nil)
			meet(a, b)
			linked(t, a, b)
			if a.ear.ups != 2 {
				t.Errorf("%d times up", a.ear.ups)
			}
			// Its past self is not heard of again.
			a.mu.Lock()
			got := a.peers[other].incarnation
			a.mu.Unlock()
			if got != 2 {
				t.Errorf("incarnation %d is known", got)
			}
		})
	}
}

func TestARemovedMemberLosesItsLink(t *testing.T) {
	a, b := startLinks(t, quick, linkSelf("a"), nil), startLinks(t, quick, linkSelf("b"), nil)
	for range 5 {
		meet(a, b)
		linked(t, a, b)
		b.SetPeers(nil)
		until(t, "Down", func() bool { return !a.ear.isUp("b") && !b.ear.isUp("a") })
		if b.Linked("a") || b.Send("a", KindRPC, nil) {
			t.Error("linked after removal")
		}
	}
	b.ended(t, endRemoved, 5)
	until(t, "a is told why", func() bool { return b.Stats().Refused[refusedMember] > 0 })
}

func TestATableThatKnowsANewerStartEndsTheOldLink(t *testing.T) {
	a, b := startLinks(t, quick, linkSelf("a"), nil), startLinks(t, quick, linkSelf("b"), nil)
	meet(a, b)
	linked(t, a, b)
	newer := a.addr()
	newer.Incarnation = 9
	b.SetPeers([]PeerAddr{newer})
	until(t, "the old start is refused", func() bool { return b.Stats().Refused[refusedIncarnation] > 0 })
	b.ended(t, endOlder, 1)
}

func TestAFullQueueEndsTheLinkInsteadOfBlocking(t *testing.T) {
	stuck := make(chan struct{})
	cfg := quick
	cfg.Queue, cfg.MaxMessage = 1<<20, 1<<19
	a := startLinks(t, cfg, linkSelf("a"), nil)
	b := startLinks(t, cfg, linkSelf("b"), func(n *linkNode) {
		n.ear.hear = func(string, []byte) { <-stuck }
	})
	meet(a, b)
	linked(t, a, b)
	payload := make([]byte, 100<<10)
	for n := 0; a.Send("b", KindRPC, payload); n++ {
		if n > 1000 {
			t.Fatal("the queue has no bound")
		}
	}
	a.ended(t, endQueueFull, 1)
	close(stuck)
	linked(t, a, b) // anew
	if a.Send("b", KindRPC, make([]byte, 1<<20)) {
		t.Error("a message over the bound is sent")
	}
	a.ended(t, endTooLarge, 1)
}

// mute is a peer that says hello and then nothing, or takes nothing.
func mute(t *testing.T, b *linkNode, self LinkSelf) net.Conn {
	t.Helper()
	n := newLinks(LinksConfig{}, self, quiet())
	port := NewPort(PortConfig{}, secretIdentity(t, self.ID), quiet())
	conn, err := port.dial(t.Context(), protocolLink, b.port.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp(conn) })
	if _, err := n.greet(conn, b.self.ID, 0); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestASilentPeerIsGivenUpAndAnIdleOneIsNot(t *testing.T) {
	cfg := quick
	cfg.Keepalive = time.Second
	a, b := startLinks(t, cfg, linkSelf("a"), nil), startLinks(t, cfg, linkSelf("b"), nil)
	b.SetPeers([]PeerAddr{a.addr(), {ID: "aa"}})
	a.SetPeers([]PeerAddr{b.addr()})
	linked(t, a, b)
	mute(t, b, linkSelf("aa"))
	until(t, "it is up", func() bool { return b.ear.isUp("aa") })
	b.ended(t, endSilent, 1)
	if !a.ear.isUp("b") || a.ear.ups != 1 {
		t.Error("the idle link has ended too")
	}
}

func TestAPeerThatTakesNothingIsGivenUp(t *testing.T) {
	cfg := quick
	cfg.Keepalive, cfg.Queue = time.Second, 1<<30
	b := startLinks(t, cfg, linkSelf("b"), nil)
	b.SetPeers([]PeerAddr{{ID: "aa"}})
	conn := mute(t, b, linkSelf("aa"))
	stop := make(chan struct{})
	var alive sync.WaitGroup
	defer alive.Wait()
	defer close(stop)
	alive.Go(func() { // it lives, but it reads nothing
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				if _, err := conn.Write(make([]byte, frameHead)); err != nil {
					return
				}
			}
		}
	})
	until(t, "it is up", func() bool { return b.Linked("aa") })
	for range 100 {
		b.Send("aa", KindRPC, make([]byte, 1<<20))
	}
	b.ended(t, endStalled, 1)
}

func TestAPeerThatDialsAnewReplacesItsOldLink(t *testing.T) {
	downs := make(chan struct{})
	b := startLinks(t, quick, linkSelf("b"), func(n *linkNode) {
		n.ear.down = func(string) { <-downs }
	})
	b.SetPeers([]PeerAddr{{ID: "aa"}})
	mute(t, b, linkSelf("aa"))
	until(t, "it is up", func() bool { return b.Linked("aa") })
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		mute(t, b, linkSelf("aa"))
	}()
	until(t, "the old one ends", func() bool { return !b.Linked("aa") })
	select {
	case <-answered:
		t.Error("the new link is answered before every room has heard Down")
	default:
	}
	close(downs)
	<-answered
	until(t, "the new one is up", func() bool { return b.Linked("aa") })
	b.ended(t, endReplaced, 1)
}

func TestWhatIsQueuedWhenANodeStopsStillArrives(t *testing.T) {
	a, b := startLinks(t, quick, linkSelf("a"), nil), startLinks(t, quick, linkSelf("b"), nil)
	meet(a, b)
	linked(t, a, b)
	for range 1000 {
		if !a.Send("b", KindRPC, make([]byte, 1000)) {
			t.Fatal("Send is false")
		}
	}
	a.stop()
	until(t, "Down", func() bool { return !b.ear.isUp("a") })
	if got := len(b.ear.heard()); got != 1000 {
		t.Errorf("%d of 1000 messages arrived", got)
	}
}

// cutter is a relay that breaks connections.
type cutter struct {
	l    net.Listener
	to   string
	mu   sync.Mutex
	live []net.Conn
	wg   sync.WaitGroup
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{l: l, to: to}
	c.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			c.live = append(c.live, in, out)
			c.mu.Unlock()
			for _, d := range [][2]net.Conn{{in, out}, {out, in}} {
				c.wg.Go(func() {
					io.Copy(d[0], d[1])
					in.Close()
					out.Close()
				})
			}
		}
	})
	t.Cleanup(func() { l.Close(); c.cut(); c.wg.Wait() })
	return c
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.live {
		conn.Close()
	}
	c.live = nil
}

// What arrives on a link has nothing missing in between, nothing twice, and nothing
// that was sent on an earlier one.
func TestBreakingConnectionsLeavesNoHoles(t *testing.T) {
	type run struct{ link, next uint64 }
	var mu sync.Mutex
	var current run
	var total atomic.Uint64
	b := startLinks(t, quick, linkSelf("b"), func(n *linkNode) {
		n.ear.onUp = func(string) {
			mu.Lock()
			defer mu.Unlock()
			current = run{}
		}
		n.ear.hear = func(_ string, p []byte) {
			link, number := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
			mu.Lock()
			defer mu.Unlock()
			switch {
			case current.link == 0: // the first on this link, maybe sent as Up was about to be heard
			case link == current.link && number == current.next:
			case link == current.link+1 && number == 0:
			default:
				t.Errorf("message %d of link %d, want %d of %d", number, link, current.next, current.link)
			}
			current = run{link, number + 1}
			total.Add(1)
		}
	})
	var link, number uint64
	var sendMu sync.Mutex
	a := startLinks(t, quick, linkSelf("a"), func(n *linkNode) {
		n.ear.onUp = func(string) {
			sendMu.Lock()
			defer sendMu.Unlock()
			link++
			number = 0
		}
	})
	link = 1
	relay := newCutter(t, b.port.Address())
	b.SetPeers([]PeerAddr{a.addr()})
	a.SetPeers([]PeerAddr{{ID: "b", Addr: relay.l.Addr().String()}})
	ended := func() (n uint64) {
		for _, of := range a.Stats().Ends {
			n += of
		}
		return n
	}
	random := rand.New(rand.NewPCG(1, 2))
	cuts := 0
	for end := time.Now().Add(patience); cuts < 12; {
		if time.Now().After(end) {
			t.Fatalf("only %d links in %v", cuts, patience)
		}
		sendMu.Lock()
		for range 200 {
			p := binary.BigEndian.AppendUint64(nil, link)
			p = binary.BigEndian.AppendUint64(p, number)
			if !a.Send("b", KindRPC, append(p, make([]byte, random.IntN(3000))...)) {
				break
			}
			number++
		}
		sent := number
		sendMu.Unlock()
		if sent > 1000 && a.Linked("b") {
			before := ended()
			relay.cut()
			cuts++
			until(t, "Down", func() bool { return ended() > before }) // the next link may be up already
		}
	}
	if total.Load() == 0 {
		t.Error("nothing arrived")
	}
}

func TestWhatIsOfferedLeavesHalfOfTheQueue(t *testing.T) {
	k := &link{limit: 10_000, largest: 9_000, wake: make(chan struct{}, 1), done: make(chan struct{}), sent: &counter{}}
	k.up.Store(1 << KindRPC)
	if !k.offer(KindRPC, make([]byte, 6_000)) {
		t.Error("what is large is not taken though nothing waits")
	}
	k.chunks, k.waiting = nil, 0 // it was written
	offered := 0
	for k.offer(KindRPC, make([]byte, 1_000)) {
		offered++
	}
	if offered != 4 || k.reason() != "" {
		t.Errorf("%d messages of 1 000 bytes were taken, and the link has ended with %q, want 4 and none", offered, k.reason())
	}
	if !k.send(KindRPC, make([]byte, 5_000)) {
		t.Error("what must be sent finds no room")
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	k := &link{limit: 1 << 30, largest: 1 << 20, wake: make(chan struct{}, 1), done: make(chan struct{}), sent: &counter{}}
	k.up.Store(1 << KindRPC)
	payload := make([]byte, 128)
	got := testing.AllocsPerRun(1000, func() {
		if !k.send(KindRPC, payload) {
			t.Fatal("Send is false")
		}
		// As the writer does.
		k.mu.Lock()
		if len(k.chunks) > 1 {
			k.free = append(k.free, k.chunks[0][:0])
			k.chunks = append(k.chunks[:0], k.chunks[1:]...)
		}
		k.mu.Unlock()
	})
	if got > 0 {
		t.Errorf("%v allocations a message", got)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 'h', 'i', 0, 0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Add(append([]byte{0, 2, 0, 0, 3}, make([]byte, 2<<16)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		const largest = 1 << 18
		var again []byte
		err := readFrames(bytes.NewReader(in), largest, func(kind Kind, payload []byte) error {
			if len(payload) > largest {
				t.Fatalf("a payload of %d bytes", len(payload))
			}
			again = binary.BigEndian.AppendUint32(again, uint32(len(payload)))
			again = append(append(again, byte(kind)), payload...)
			return nil
		})
		if err == nil || !bytes.HasPrefix(in, again) {
			t.Fatalf("%v; %d bytes in, %d heard", err, len(in), len(again))
		}
		if errors.Is(err, io.EOF) && len(in)-len(again) >= frameHead+linkRead {
			t.Fatalf("%d bytes are left", len(in)-len(again))
		}
	})
}

func FuzzHello(f *testing.F) {
	var b bytes.Buffer
	if err := writeJSON(&b, newLinks(LinksConfig{}, linkSelf("a"), quiet()).hello(), maxHello); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{255, 255, 255, 255})
	l := newLinks(LinksConfig{}, linkSelf("b"), quiet())
	f.Fuzz(func(t *testing.T, in []byte) {
		var h hello
		if readJSON(bytes.NewReader(in), &h, maxHello) != nil {
			return
		}
		conn, other := net.Pipe()
		defer conn.Close()
		defer other.Close()
		if err := l.admit(conn, h); err == nil {
			t.Fatalf("%+v is admitted, and there is no peer", h)
		}
	})
}

func BenchmarkLinkPingPong(b *testing.B) {
	pong := make(chan struct{}, 1)
	x := startLinks(b, LinksConfig{}, linkSelf("a"), func(n *linkNode) {
		n.ear.hear = func(string, []byte) { pong <- struct{}{} }
	})
	y := startLinks(b, LinksConfig{}, linkSelf("b"), func(n *linkNode) {
		n.ear.hear = func(peer string, p []byte) { n.Send(peer, KindRPC, p) }
	})
	meet(x, y)
	linked(b, x, y)
	payload := make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		x.Send("b", KindRPC, payload)
		<-pong
	}
}

func BenchmarkLinkOneWay128(b *testing.B) {
	var heard atomic.Int64
	x := startLinks(b, LinksConfig{}, linkSelf("a"), nil)
	y := startLinks(b, LinksConfig{}, linkSelf("b"), func(n *linkNode) {
		n.ear.hear = func(string, []byte) { heard.Add(1) }
	})
	meet(x, y)
	linked(b, x, y)
	payload := make([]byte, 128)
	b.ReportAllocs()
	b.SetBytes(128)
	sent := int64(0)
	for b.Loop() {
		for sent-heard.Load() > 4096 {
			time.Sleep(20 * time.Microsecond) // the window of a sender that waits for answers
		}
		if !x.Send("b", KindRPC, payload) {
			b.Fatal("Send is false")
		}
		sent++
	}
	for heard.Load() < sent {
		time.Sleep(10 * time.Microsecond)
	}
}
