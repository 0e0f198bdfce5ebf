package record

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"hadal/cluster"
	"hadal/node/listen"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/store"
)

// net is some nodes in this process: the table that they share, and the links between
// them.
type net struct {
	t      testing.TB
	nodes  map[string]*node
	stores []*store.Memory
	wg     sync.WaitGroup
	cancel context.CancelFunc

	mu      sync.Mutex
	owners  []cluster.Ownership            // without Here; guarded by mu
	changed chan struct{}                  // guarded by mu
	frozen  map[string][]cluster.Ownership // nodes that see an old table; guarded by mu
	away    map[string]bool                // nodes without a lease; guarded by mu
}

// node is one of them.
type node struct {
	net   *net
	id    string
	room  *Room
	subs  *sub.Registry
	wrap  func(store.Store) store.Store
	stop  context.CancelFunc
	ended chan struct{}

	mu      sync.Mutex
	handler cluster.Handler
	ears    map[string]*ear // by peer; guarded by mu
}

// ear is what a node has yet to hear from a peer.
type ear struct {
	mu     sync.Mutex
	wake   *sync.Cond
	events []func()             // guarded by mu
	linked bool                 // the peer may send; guarded by mu
	bytes  int                  // of events that were sent; guarded by mu
	total  int                  // of all there have been; guarded by mu
	lag    func() time.Duration // before each event, or nil
	deaf   bool                 // nothing is heard for now; guarded by mu
	ended  bool                 // guarded by mu
}

func (e *ear) say(event func()) {
	e.mu.Lock()
	e.events = append(e.events, event)
	e.mu.Unlock()
	e.wake.Signal()
}

func (e *ear) run() {
	for {
		if e.lag != nil {
			time.Sleep(e.lag())
		}
		e.mu.Lock()
		for !e.ended && (e.deaf || len(e.events) == 0) {
			e.wake.Wait()
		}
		if e.ended {
			e.mu.Unlock()
			return
		}
		event := e.events[0]
		e.events = e.events[1:]
		e.mu.Unlock()
		event()
	}
}

// Table of a node.

func (n *node) ClusterID() string         { return "test" }
func (n *node) Self() cluster.Member      { return cluster.Member{ID: n.id, Alive: true} }
func (n *node) Members() []cluster.Member { return nil }
func (n *node) Partitions() int           { return len(n.net.stores) }
func (n *node) Owner(p int) cluster.Ownership {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	owners := n.net.owners
	if old, ok := n.net.frozen[n.id]; ok {
		owners = old
	}
	o := owners[p]
	o.Here = o.Owner == n.id
	return o
}
func (n *node) Holds(p int) bool {
	o := n.Owner(p)
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return o.Here && !n.net.away[n.id]
}
func (n *node) Changed() <-chan struct{} {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.net.changed
}

// Bus of a node.

func (n *node) Handle(_ cluster.Kind, h cluster.Handler) { n.handler = h }
func (n *node) Linked(peer string) bool                  { return n.net.ear(peer, n.id) != nil }
func (n *node) Publish(cluster.Kind, uint16, []byte)     {}
func (n *node) Join(cluster.Kind, uint16)                {}
func (n *node) Leave(cluster.Kind, uint16)               {}
func (n *node) Offer(peer string, k cluster.Kind, payload []byte) bool {
	return n.Send(peer, k, payload)
}
func (n *node) Send(peer string, _ cluster.Kind, payload []byte) bool {
	e, to := n.net.ear(peer, n.id), n.net.nodes[peer]
	e.mu.Lock()
	linked := e.linked
	if linked {
		copied := append([]byte(nil), payload...)
		e.bytes += len(copied)
		e.total += len(copied)
		e.events = append(e.events, func() {
			e.mu.Lock()
			e.bytes -= len(copied)
			e.mu.Unlock()
			to.handler.Hear(n.id, copied)
			clear(copied) // it is valid during the call only
		})
	}
	e.mu.Unlock()
	e.wake.Signal()
	return linked
}

// ear is how node hears peer.
func (w *net) ear(node, peer string) *ear {
	n := w.nodes[node]
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ears[peer]
}

// link joins two nodes.
func (w *net) link(a, b string) {
	for _, side := range [][2]string{{a, b}, {b, a}} {
		e := w.ear(side[0], side[1])
		e.mu.Lock()
		defer e.mu.Unlock() // whoever hears Up may send
		defer e.wake.Signal()
	}
	for _, side := range [][2]string{{a, b}, {b, a}} {
		e, n := w.ear(side[0], side[1]), w.nodes[side[0]]
		e.linked = true
		e.events = append(e.events, func() { n.handler.Up(side[1]) })
	}
}

// cut parts two nodes. What they have sent and not heard is lost if lost is set.
func (w *net) cut(a, b string, lost bool) {
	for _, side := range [][2]string{{a, b}, {b, a}} {
		e, n := w.ear(side[0], side[1]), w.nodes[side[0]]
		e.mu.Lock()
		e.linked = false
		if lost {
			e.events = nil
		}
		e.events = append(e.events, func() { n.handler.Down(side[1]) })
		e.mu.Unlock()
		e.wake.Signal()
	}
}

// deafen keeps a node from hearing a peer for a while.
func (w *net) deafen(node, peer string, deaf bool) {
	e := w.ear(node, peer)
	e.mu.Lock()
	e.deaf = deaf
	e.mu.Unlock()
	e.wake.Signal()
}

// move makes a node the owner of partitions.
func (w *net) move(owner string, partitions ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range partitions {
		w.owners = append([]cluster.Ownership(nil), w.owners...)
		w.owners[p] = cluster.Ownership{Owner: owner, Epoch: w.owners[p].Epoch + 1}
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// freeze keeps a node from seeing changes of the table, or ends that.
func (w *net) freeze(id string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on {
		w.frozen[id] = w.owners
		return
	}
	delete(w.frozen, id)
	close(w.changed)
	w.changed = make(chan struct{})
}

// lease gives a node its lease, or takes it.
func (w *net) lease(id string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[id] = !on
}

// netOptions are those of start, for several nodes.
type netOptions struct {
	options
	partitions int
	ids        []string
	wrap       map[string]func(store.Store) store.Store
	lag        func() time.Duration // of the links, in a bubble
}

// startNet runs nodes, all linked, the first of which owns everything.
func startNet(t testing.TB, o netOptions) *net {
	t.Helper()
	w := &net{
		t: t, nodes: map[string]*node{}, changed: make(chan struct{}),
		frozen: map[string][]cluster.Ownership{}, away: map[string]bool{},
	}
	for range max(1, o.partitions) {
		w.owners = append(w.owners, cluster.Ownership{Owner: o.ids[0], Epoch: 1})
		w.stores = append(w.stores, store.NewMemory())
	}
	cfg, keep := DefaultConfig(), DefaultKeepConfig()
	if o.cfg != nil {
		o.cfg(&cfg)
	}
	if o.keep != nil {
		o.keep(&keep)
	}
	if o.rules == nil {
		o.rules = rules(nil)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("HADAL_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	for _, id := range o.ids {
		n := &node{net: w, id: id, ears: map[string]*ear{}, subs: sub.NewRegistry(), wrap: o.wrap[id], ended: make(chan struct{})}
		for _, peer := range o.ids {
			e := &ear{lag: o.lag}
			e.wake = sync.NewCond(&e.mu)
			if peer != id {
				n.ears[peer] = e
				w.wg.Go(e.run)
			}
		}
		w.nodes[id] = n
	}
	for _, id := range o.ids {
		n := w.nodes[id]
		n.room = New(cfg, keep, Deps{
			Table: n, Bus: n, Subs: n.subs, Rules: o.rules, Log: log.With("node", id), Observe: func(time.Duration) {},
			Listen: listen.New(protocol.TopicRecord, listen.DefaultConfig(), n.subs, cluster.NewSoloInMemory("test"), cluster.Alone{}, log),
			Open: func(_ context.Context, p int) (store.Store, error) {
				var st store.Store = w.stores[p].Another()
				if o.store != nil {
					st = keptOpen{o.store}
				}
				if n.wrap != nil {
					st = n.wrap(st)
				}
				return st, nil
			},
		})
		own, stop := context.WithCancel(ctx)
		n.stop = stop
		w.wg.Go(func() {
			defer close(n.ended)
			if err := n.room.Run(own); err != nil {
				t.Errorf("Run of %s = %v", id, err)
			}
		})
	}
	for i, a := range o.ids {
		for _, b := range o.ids[i+1:] {
			w.link(a, b)
		}
	}
	t.Cleanup(w.stop)
	return w
}

func (w *net) stop() {
	w.cancel()
	for _, n := range w.nodes {
		<-n.ended
	}
	for _, n := range w.nodes {
		for _, e := range n.ears {
			e.mu.Lock()
			e.ended = true
			e.mu.Unlock()
			e.wake.Signal()
		}
	}
	w.wg.Wait()
}

// room is that of a node.
func (w *net) room(id string) *Room { return w.nodes[id].room }

// ready waits until every node is content.
func (w *net) ready() {
	w.t.Helper()
	w.until("every node is ready", func() bool {
		for _, n := range w.nodes {
			if n.room.Ready() != nil {
				return false
			}
		}
		return true
	})
}

// until waits for something that will be, for thirty seconds at most.
func (w *net) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(30 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-limit:
			w.t.Fatalf("never: %s", what)
		}
	}
}

// keptOpen is a store that the test shares among nodes.
type keptOpen struct{ store.Store }

func (keptOpen) Close() error { return nil }

func (s keptOpen) Lacks(name string) bool {
	k, ok := s.Store.(store.Knower)
	return ok && k.Lacks(name)
}

// startElsewhere is start for clients of a node that owns nothing.
func startElsewhere(t testing.TB, o options) *Room {
	t.Helper()
	return startNet(t, netOptions{options: o, ids: []string{"owner", "here"}}).room("here")
}

// settleAll waits until everything asked so far at any node has been answered, and
// what others are told of it has arrived.
func (w *net) settleAll() {
	w.t.Helper()
	for range 2 {
		for _, n := range w.nodes {
			settle(w.t, n.room)
		}
		w.drain()
	}
}

// drain waits until what was sent has been heard.
func (w *net) drain() {
	var heard sync.WaitGroup
	for _, n := range w.nodes {
		for _, e := range n.ears {
			heard.Add(1)
			e.say(heard.Done)
		}
	}
	heard.Wait()
}

func count(format string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf(format, i))
	}
	return names
}

// compared waits until every node has told every owner what its subscribers know.
func (w *net) compared() {
	w.t.Helper()
	w.until("nobody compares any more", func() bool {
		for id := range w.nodes {
			for _, s := range w.room(id).seats() {
				s.mu.Lock()
				busy := len(s.unknown) > 0 || len(s.sent) > 0
				for _, k := range s.known {
					busy = busy || !k.synced
				}
				s.mu.Unlock()
				if busy {
					return false
				}
			}
		}
		return true
	})
}
