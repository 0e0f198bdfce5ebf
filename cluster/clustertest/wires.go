// Package clustertest holds what tests put in the place of a network of nodes.
package clustertest

import (
	"slices"
	"sync"
	"time"

	"hadal/cluster"
)

// Wires join nodes of one process: each gets a cluster.Bus and a cluster.Table. The
// test makes and cuts the links and gives the verdicts; nothing happens by itself.
// What is under way when a link is cut is lost. It works in a synctest bubble and
// outside of one. Close ends it.
type Wires struct {
	// Delay, if set before the first node, says how long each message to a node takes
	// from the moment it is the next of its peer.
	Delay func() time.Duration

	mu      sync.Mutex
	nodes   map[string]*WiredBus     // guarded by mu
	links   map[[2]string]bool       // both directions; guarded by mu
	crowded map[[2]string]bool       // by sender and receiver: see Crowd; guarded by mu
	queues  map[[2]string]*wireQueue // by receiver and sender; guarded by mu
	tables  []*WiredTable            // guarded by mu
	closed  bool                     // guarded by mu
	done    chan struct{}
	pumps   sync.WaitGroup
}

// NewWires returns wires without nodes.
func NewWires() *Wires {
	return &Wires{
		nodes: make(map[string]*WiredBus), links: make(map[[2]string]bool), crowded: make(map[[2]string]bool),
		queues: make(map[[2]string]*wireQueue), done: make(chan struct{}),
	}
}

// Node adds a node, which is alive for all tables and linked to nobody.
func (w *Wires) Node(id string) (*WiredBus, *WiredTable) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := &WiredBus{wires: w, id: id, handlers: make(map[cluster.Kind]cluster.Handler), joined: make(map[wireSlot]bool)}
	w.nodes[id] = b
	t := &WiredTable{self: id, changed: make(chan struct{})}
	for other := range w.nodes {
		t.members = append(t.members, cluster.Member{ID: other, Name: other, Incarnation: 1, Alive: true, Role: cluster.RoleCore})
	}
	for _, other := range w.tables {
		other.SetAlive(id, true)
	}
	w.tables = append(w.tables, t)
	return b, t
}

// Table is the table of a node, or nil.
func (w *Wires) Table(id string) *WiredTable {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.tables {
		if t.self == id {
			return t
		}
	}
	return nil
}

// Link makes a link between two nodes, if there is none.
func (w *Wires) Link(a, b string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.links[[2]string{a, b}] || a == b {
		return
	}
	w.links[[2]string{a, b}], w.links[[2]string{b, a}] = true, true
	for _, d := range [][2]string{{a, b}, {b, a}} {
		w.queue(d[0], d[1]).put(wireItem{what: wireUp})
	}
}

// LinkAll links every node to every other.
func (w *Wires) LinkAll() {
	for _, a := range w.ids() {
		for _, b := range w.ids() {
			w.Link(a, b)
		}
	}
}

// Cut ends the link between two nodes, if there is one.
func (w *Wires) Cut(a, b string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.links[[2]string{a, b}] {
		return
	}
	delete(w.links, [2]string{a, b})
	delete(w.links, [2]string{b, a})
	for _, d := range [][2]string{{a, b}, {b, a}} {
		w.queue(d[0], d[1]).cut()
	}
}

// Crowd has a link take nothing that is only offered by one node to another, or take it again.
func (w *Wires) Crowd(from, to string, crowded bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.crowded[[2]string{from, to}] = crowded
}

// CutOff ends all links of a node.
func (w *Wires) CutOff(id string) {
	for _, other := range w.ids() {
		w.Cut(id, other)
	}
}

// SetAlive gives a verdict to all tables.
func (w *Wires) SetAlive(id string, alive bool) {
	w.mu.Lock()
	tables := slices.Clone(w.tables)
	w.mu.Unlock()
	for _, t := range tables {
		t.SetAlive(id, alive)
	}
}

// Close ends the delivery of messages and waits until nothing runs any more.
func (w *Wires) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.done)
	}
	w.mu.Unlock()
	w.pumps.Wait()
}

func (w *Wires) ids() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for id := range w.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// queue is what one node hears of another. The caller holds mu.
func (w *Wires) queue(to, from string) *wireQueue {
	key := [2]string{to, from}
	q := w.queues[key]
	if q == nil {
		q = &wireQueue{more: make(chan struct{}, 1)}
		w.queues[key] = q
		if b := w.nodes[to]; !w.closed && b != nil {
			w.pumps.Go(func() { q.pump(w, func(i wireItem) { b.hear(from, i) }) })
		}
	}
	return q
}

// wireItem is something that a node hears.
type wireItem struct {
	what    byte
	kind    cluster.Kind
	slot    uint16
	from    string // of what is published
	payload []byte
}

const (
	wireUp = iota
	wireDown
	wireSent
	wirePublished
)

type wireQueue struct {
	mu    sync.Mutex
	items []wireItem // guarded by mu
	more  chan struct{}
}

func (q *wireQueue) put(i wireItem) {
	q.mu.Lock()
	q.items = append(q.items, i)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// cut loses what waits of the link that ends, and has its end heard.
func (q *wireQueue) cut() {
	q.mu.Lock()
	q.items = slices.DeleteFunc(q.items, func(i wireItem) bool { return i.what == wireSent })
	q.mu.Unlock()
	q.put(wireItem{what: wireDown})
}

func (q *wireQueue) pump(w *Wires, hear func(wireItem)) {
	for {
		q.mu.Lock()
		waiting := len(q.items) > 0
		q.mu.Unlock()
		if !waiting {
			select {
			case <-w.done:
				return
			case <-q.more:
			}
			continue
		}
		if w.Delay != nil {
			select {
			case <-w.done:
				return
			case <-time.After(w.Delay()):
			}
		}
		q.mu.Lock()
		if len(q.items) == 0 { // they were lost meanwhile
			q.mu.Unlock()
			continue
		}
		next := q.items[0]
		q.items = q.items[1:]
		q.mu.Unlock()
		hear(next)
	}
}

type wireSlot struct {
	kind cluster.Kind
	slot uint16
}

// WiredBus is the Bus of one node.
type WiredBus struct {
	wires *Wires
	id    string

	mu        sync.Mutex
	handlers  map[cluster.Kind]cluster.Handler // guarded by mu
	joined    map[wireSlot]bool                // guarded by mu
	published map[cluster.Kind]*wireQueue      // guarded by mu
	count     [4]int                           // of what was heard, by what it was; guarded by mu
}

var _ cluster.Bus = (*WiredBus)(nil)

// Handle implements cluster.Bus.
func (b *WiredBus) Handle(k cluster.Kind, h cluster.Handler) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.handlers[k] != nil {
		panic("a kind is handled twice")
	}
	b.handlers[k] = h
}

// hear hands something to the rooms of this node.
func (b *WiredBus) hear(from string, i wireItem) {
	b.mu.Lock()
	b.count[i.what]++
	var to []cluster.Handler
	for k, h := range b.handlers {
		if i.what == wireUp || i.what == wireDown || k == i.kind {
			to = append(to, h)
		}
	}
	b.mu.Unlock()
	for _, h := range to {
		switch i.what {
		case wireUp:
			h.Up(from)
		case wireDown:
			h.Down(from)
		case wireSent:
			h.Hear(from, i.payload)
			clear(i.payload) // as the real one may
		case wirePublished:
			h.Published(i.from, i.slot, i.payload)
			clear(i.payload)
		}
	}
}

// Send implements cluster.Bus.
func (b *WiredBus) Send(peer string, k cluster.Kind, payload []byte) bool {
	b.wires.mu.Lock()
	defer b.wires.mu.Unlock()
	if !b.wires.links[[2]string{b.id, peer}] {
		return false
	}
	b.wires.queue(peer, b.id).put(wireItem{what: wireSent, kind: k, payload: slices.Clone(payload)})
	return true
}

// Offer implements cluster.Bus.
func (b *WiredBus) Offer(peer string, k cluster.Kind, payload []byte) bool {
	b.wires.mu.Lock()
	crowded := b.wires.crowded[[2]string{b.id, peer}]
	b.wires.mu.Unlock()
	return !crowded && b.Send(peer, k, payload)
}

// Linked implements cluster.Bus.
func (b *WiredBus) Linked(peer string) bool {
	b.wires.mu.Lock()
	defer b.wires.mu.Unlock()
	return b.wires.links[[2]string{b.id, peer}]
}

// Publish implements cluster.Bus: it reaches nodes that are linked.
func (b *WiredBus) Publish(k cluster.Kind, slot uint16, payload []byte) {
	b.wires.mu.Lock()
	defer b.wires.mu.Unlock()
	for id, other := range b.wires.nodes {
		if id != b.id && b.wires.links[[2]string{b.id, id}] && other.Joined(k, slot) {
			other.slotQueue(k).put(wireItem{what: wirePublished, kind: k, slot: slot, from: b.id, payload: slices.Clone(payload)})
		}
	}
}

// slotQueue is what this node hears of a kind in slots. The caller holds Wires.mu.
func (b *WiredBus) slotQueue(k cluster.Kind) *wireQueue {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.published == nil {
		b.published = make(map[cluster.Kind]*wireQueue)
	}
	q := b.published[k]
	if q == nil {
		q = &wireQueue{more: make(chan struct{}, 1)}
		b.published[k] = q
		if !b.wires.closed {
			b.wires.pumps.Go(func() { q.pump(b.wires, func(i wireItem) { b.hear(i.from, i) }) })
		}
	}
	return q
}

// Join implements cluster.Bus. What is joined already may not be joined.
func (b *WiredBus) Join(k cluster.Kind, slot uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.joined[wireSlot{k, slot}] {
		panic("a slot is joined twice")
	}
	b.joined[wireSlot{k, slot}] = true
}

// Leave implements cluster.Bus. What is not joined may not be left.
func (b *WiredBus) Leave(k cluster.Kind, slot uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.joined[wireSlot{k, slot}] {
		panic("a slot is left that was not joined")
	}
	delete(b.joined, wireSlot{k, slot})
}

// Joined says whether this node has joined a slot.
func (b *WiredBus) Joined(k cluster.Kind, slot uint16) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.joined[wireSlot{k, slot}]
}

// Heard is how many messages have been handed to rooms, by links and by slots.
func (b *WiredBus) Heard() (sent, published int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count[wireSent], b.count[wirePublished]
}

// WiredTable is the Table of one node. There is one partition, without an owner.
type WiredTable struct {
	self string

	mu      sync.Mutex
	members []cluster.Member // guarded by mu
	changed chan struct{}    // guarded by mu
}

var _ cluster.Table = (*WiredTable)(nil)

// SetAlive gives this table alone a verdict on a node.
func (t *WiredTable) SetAlive(id string, alive bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.members, func(m cluster.Member) bool { return m.ID == id })
	if i < 0 {
		i = len(t.members)
		t.members = append(t.members, cluster.Member{ID: id, Name: id, Incarnation: 1, Role: cluster.RoleCore})
	}
	t.members[i].Alive = alive
	close(t.changed)
	t.changed = make(chan struct{})
}

// Dead gives this table a verdict on several nodes in one change.
func (t *WiredTable) Dead(ids ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.members {
		if slices.Contains(ids, t.members[i].ID) {
			t.members[i].Alive = false
		}
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// Remove takes a node out of the table.
func (t *WiredTable) Remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = slices.DeleteFunc(t.members, func(m cluster.Member) bool { return m.ID == id })
	close(t.changed)
	t.changed = make(chan struct{})
}

// ClusterID implements cluster.Table.
func (t *WiredTable) ClusterID() string { return "wired" }

// Self implements cluster.Table.
func (t *WiredTable) Self() cluster.Member {
	for _, m := range t.Members() {
		if m.ID == t.self {
			return m
		}
	}
	return cluster.Member{ID: t.self}
}

// Members implements cluster.Table.
func (t *WiredTable) Members() []cluster.Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.members)
}

// Partitions implements cluster.Table.
func (t *WiredTable) Partitions() int { return 1 }

// Owner implements cluster.Table.
func (t *WiredTable) Owner(int) cluster.Ownership { return cluster.Ownership{} }

// Holds implements cluster.Table.
func (t *WiredTable) Holds(int) bool { return false }

// Changed implements cluster.Table.
func (t *WiredTable) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}
