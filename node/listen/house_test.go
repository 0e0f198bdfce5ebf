package listen

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/cluster"
	"hadal/cluster/clustertest"
	"hadal/node/sub"
	"hadal/protocol"
)

// view is the table as one node knows it.
type view struct {
	self string

	mu      sync.Mutex
	alive   map[string]bool     // guarded by mu
	owners  []cluster.Ownership // guarded by mu
	lease   bool                // guarded by mu
	changed chan struct{}       // guarded by mu
}

var _ cluster.Table = (*view)(nil)

func (v *view) ClusterID() string        { return "test" }
func (v *view) Self() cluster.Member     { return cluster.Member{ID: v.self, Alive: true} }
func (v *view) Partitions() int          { return len(v.owners) }
func (v *view) Changed() <-chan struct{} { v.mu.Lock(); defer v.mu.Unlock(); return v.changed }
func (v *view) Members() []cluster.Member {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []cluster.Member
	for id, alive := range v.alive {
		all = append(all, cluster.Member{ID: id, Alive: alive})
	}
	return all
}
func (v *view) Owner(p int) cluster.Ownership {
	v.mu.Lock()
	defer v.mu.Unlock()
	o := v.owners[p]
	o.Here = o.Owner == v.self
	return o
}
func (v *view) Holds(p int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lease && v.owners[p].Owner == v.self
}

// house is a cluster: registries over wires, each with its own view of one truth.
type house struct {
	t     *testing.T
	cfg   Config
	wires *clustertest.Wires
	nodes map[string]*node

	alive  map[string]bool
	owners []cluster.Ownership
	stop   []func()
}

type node struct {
	*world
	id   string
	view *view
}

// inHouse runs body with some nodes that are all linked; the first owns everything.
func inHouse(t *testing.T, partitions int, ids []string, change func(*house), body func(h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.ShuffleProviders = false
		h := &house{
			t: t, cfg: cfg, wires: clustertest.NewWires(), nodes: make(map[string]*node), alive: make(map[string]bool),
			owners: make([]cluster.Ownership, partitions),
		}
		if change != nil {
			change(h)
		}
		for i := range h.owners {
			h.owners[i] = cluster.Ownership{Owner: ids[0], Epoch: 1}
		}
		for _, id := range ids {
			h.add(id)
		}
		h.wires.LinkAll()
		defer func() {
			for _, stop := range h.stop {
				stop()
			}
			h.wires.Close()
		}()
		h.agree()
		h.rest()
		body(h)
	})
}

func (h *house) add(id string) *node {
	bus, _ := h.wires.Node(id)
	h.alive[id] = true
	v := &view{self: id, alive: map[string]bool{id: true}, owners: slices.Clone(h.owners), lease: true, changed: make(chan struct{})}
	n := &node{id: id, view: v}
	n.world = &world{Registry: New(protocol.TopicRecord, h.cfg, sub.NewRegistry(), v, bus, slog.New(slog.DiscardHandler)), t: h.t}
	h.nodes[id] = n
	ctx, stop := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			h.t.Errorf("Run = %v", err)
		}
	})
	h.stop = append(h.stop, func() { stop(); wg.Wait() })
	return n
}

// learn has a node see the truth.
func (h *house) learn(id string) { h.nodes[id].view.see(h.alive, h.owners) }

// see takes over a state of the truth, where it is not older than what is known.
func (v *view) see(alive map[string]bool, owners []cluster.Ownership) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.alive = maps.Clone(alive)
	for i, o := range owners {
		if o.Epoch >= v.owners[i].Epoch {
			v.owners[i] = o
		}
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *view) setLease(on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lease = on
}

func (h *house) agree() {
	for id := range h.nodes {
		h.learn(id)
	}
}

// own gives a partition away, which some hear of at once.
func (h *house) own(partition int, id string) {
	h.owners[partition] = cluster.Ownership{Owner: id, Epoch: h.owners[partition].Epoch + 1}
}

// ownAll gives all to one node, and everybody knows.
func (h *house) ownAll(id string) {
	for i := range h.owners {
		h.own(i, id)
	}
	h.agree()
	h.rest()
}

// die ends a node as the others see it.
func (h *house) die(id string) {
	h.wires.CutOff(id)
	h.alive[id] = false
	for other := range h.nodes {
		if other != id {
			h.learn(other)
		}
	}
	h.rest()
}

// rest lets everything arrive; no question times out meanwhile.
func (h *house) rest() {
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
}

func (h *house) hasProvider(name string, want bool) {
	h.t.Helper()
	for id, n := range h.nodes {
		if got := n.HasProvider(name); got != want {
			h.t.Errorf("on %s HasProvider(%q) = %v, want %v", id, name, got, want)
		}
	}
}

// dump says all that a node knows of a name, for a test that failed.
func (n *node) dump(text string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.id + ":"
	for id, p := range n.peers {
		s += fmt.Sprintf(" [%s alive %v linked %v]", id, p.alive, p.linked)
	}
	for _, p := range n.order {
		s += fmt.Sprintf(" {%s listeners %d peers %v scanned %v}", p.text, len(p.listeners), p.peers, p.scanned)
	}
	m := n.names[text]
	if m == nil {
		return s + fmt.Sprintf(" unknown; subscribed %v", n.subs.Has(text))
	}
	part := n.parts[m.part]
	s += fmt.Sprintf(" part %d owner %s epoch %d here %v pending %v complete %v; mine %v subscribed %v matches %d candidates %d next %d asked %v over %v provider %v failed %v",
		m.part, part.owner, part.epoch, part.here, part.pending, n.complete(m.part), m.mine, n.subs.Has(text), len(m.matches), len(m.candidates), m.next, m.asked != nil, m.over, m.provider != nil, !m.failedAt.IsZero())
	if a := m.away; a != nil {
		for _, w := range a.wants {
			s += fmt.Sprintf(" wanted by %s (%d)", w.peer.id, len(w.ids))
		}
		for _, h := range a.holders {
			s += " held by " + h.peer.id
		}
		s += fmt.Sprintf(" nodes %d next %d asking %v asker %v", len(a.nodes), a.nextNode, a.asking != nil, a.asker.peer != nil)
		if a.asking != nil {
			s += " asking " + a.asking.id
		}
	}
	return s
}
