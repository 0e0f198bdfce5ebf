// Package clustertest is a network of nodes in one process, with faults that come
// from a seed. It stands in for the cluster's transport and its table, so that the
// rooms of several nodes run together in a test, and what went wrong happens again.
//
// # Time
//
// A Net lives in a testing/synctest bubble. Everything that travels (a message on a
// link, an event in a slot, the table's heartbeats, a request to a store) takes a
// delay drawn from the seed and arrives at an instant of its own: no two deliveries
// happen at the same time, and the bubble's clock moves only when all goroutines
// wait. So between two deliveries everything they caused has come to rest, and the
// interleaving of nodes is the seed's, not the scheduler's. Each pair of nodes, and
// each other source of chance, has a generator of its own, so that one message more
// or less does not change the fate of all others. What the rooms themselves leave to
// chance (the order of a map, a random provider) stays outside of the seed.
//
// # A node
//
// A machine has an identity that outlives crashes; a Node is one start of it, with a
// cluster.Bus and a cluster.Table of its own. Crash ends it from one instant to the
// next: nothing it does from then on leaves it, its context ends, its links break.
// Start makes the next incarnation, which knows nothing.
//
// A goroutine in a bubble cannot be stopped, so Pause stops what goes in and out:
// deliveries to the node, the table's heartbeats among them, wait until Resume, and
// so does what it sends. Its timers run on, as if all of them were late by less than
// the pause. That covers what a stopped process does to others (silence, then a burst
// from the past), and that it wakes up believing in an old table. It does not cover a
// stop between two instructions of one goroutine.
//
// # What may break
//
// Cut stops one direction between two nodes, Partition all directions between
// groups. What is sent on a link meanwhile waits, as in TCP; when the cut lasts, the
// ends notice at different times that the link is down, and what waited is lost. Heal
// ends all cuts. Reset breaks a link at once, Overflow with the next message sent on
// it. Slow delays one direction. What is published in slots is lost where a link would
// wait, and also at random when Loss is set.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"hadal/cluster"
)

// ErrDead is what a node gets that has crashed, from whatever it still asks for.
var ErrDead = errors.New("the node has crashed")

// Config says how large the cluster is and what is wrong with it on purpose.
type Config struct {
	Seed       uint64
	Nodes      int // machines, all of them core nodes, named a, b, c, …
	Partitions int
	// Loss is the share of what is published in slots that is lost, 0 to 1.
	Loss float64

	// NoLease is a mistake on purpose, which tests must catch: a node that was the
	// owner believes that it still is, whatever time has passed.
	NoLease bool
	// LateLease is another: the lease counts from when a heartbeat's answer arrives,
	// however long it waited, instead of from when it was asked for.
	LateLease bool
}

// Net is the network, and the table's arbiter. Its methods may be called from any
// goroutine of the bubble.
type Net struct {
	cfg     Config
	began   time.Time
	History *History

	mu       sync.Mutex
	sources  map[source]*chance // guarded by mu
	machines []*machine         // the slice never changes; their fields are guarded by mu
	links    map[[2]int]*link   // by the indices of both ends, lower first; guarded by mu
	dialing  map[[2]int]bool    // guarded by mu
	cut      map[[2]int]uint64  // from, to → number of the cut; guarded by mu
	cuts     uint64             // guarded by mu
	slow     map[[2]int]time.Duration
	overflow map[[2]int]bool
	changed  chan struct{} // closed when what is reachable changes; guarded by mu
	closed   bool          // guarded by mu
	table    arbiter       // guarded by mu
}

// machine is what stays of a node between its starts.
type machine struct {
	index       int
	id, name    string
	incarnation uint64
	node        *Node // the one that runs, or nil
}

// New makes a network of machines none of which runs. It must be called in a bubble.
func New(cfg Config) *Net {
	n := &Net{
		cfg: cfg, began: time.Now(), sources: make(map[source]*chance),
		links: make(map[[2]int]*link), dialing: make(map[[2]int]bool),
		cut: make(map[[2]int]uint64), slow: make(map[[2]int]time.Duration), overflow: make(map[[2]int]bool),
		changed: make(chan struct{}),
	}
	n.History = &History{began: n.began}
	for i := range cfg.Nodes {
		name := string(rune('a' + i))
		n.machines = append(n.machines, &machine{index: i, id: "node-" + name, name: name})
	}
	n.table.init(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table.tick()
	return n
}

// Close ends the network: nothing is delivered any more.
func (n *Net) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	n.topologyChanged()
}

// Nodes are the nodes that run, in the order of their names.
func (n *Net) Nodes() []*Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	var running []*Node
	for _, m := range n.machines {
		if m.node != nil {
			running = append(running, m.node)
		}
	}
	return running
}

// source is something that has chances and instants of its own, so that what happens
// elsewhere at the same moment, in whatever order, changes nothing for it.
type source struct {
	what string
	a, b int // machines, or 0
}

// chance is the state of a source.
type chance struct {
	rand *rand.Rand
	last time.Duration // its latest instant, in whole microseconds
	odd  time.Duration // what its instants have beyond that: below a microsecond
}

// source returns the state of one. The caller holds mu.
func (n *Net) source(s source) *chance {
	c := n.sources[s]
	if c == nil {
		label := fmt.Sprint(s.what, " ", s.a, " ", s.b)
		c = &chance{rand: n.Rand(label), odd: time.Duration(hash(label) % 1000)}
		n.sources[s] = c
	}
	return c
}

func hash(label string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(label)) // never fails
	return h.Sum64()
}

// Rand returns the generator of one source of chance, made from the seed and the
// label. It belongs to one goroutine at a time.
func (n *Net) Rand(label string) *rand.Rand {
	return rand.New(rand.NewPCG(n.cfg.Seed, hash(label)))
}

// draw is a number below max. The caller holds mu.
func (n *Net) draw(s source, max time.Duration) time.Duration {
	return time.Duration(n.source(s).rand.Int64N(int64(max)))
}

// between is draw from a range. The caller holds mu.
func (n *Net) between(s source, min, max time.Duration) time.Duration {
	return min + n.draw(s, max-min)
}

// instant is the source's next moment at or after t, at which nothing else happens. The
// caller holds mu.
func (n *Net) instant(s source, t time.Time) time.Time {
	c := n.source(s)
	whole := max(t.Sub(n.began).Truncate(time.Microsecond), c.last) + time.Microsecond
	c.last = whole
	return n.began.Add(whole + c.odd)
}

// Sleep waits for d, and then for an instant of its own. Who waits is named by who,
// which belongs to one goroutine at a time.
func (n *Net) Sleep(ctx context.Context, who string, d time.Duration) error {
	n.mu.Lock()
	at := n.instant(source{what: who}, time.Now().Add(d))
	n.mu.Unlock()
	return sleepUntil(ctx, at)
}

func sleepUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// at runs fn at an instant of the source's own, not before t, and returns the instant.
// fn is called without mu. The caller holds mu.
func (n *Net) at(s source, t time.Time, fn func()) time.Time {
	t = n.instant(s, t)
	time.AfterFunc(time.Until(t), func() {
		n.mu.Lock()
		closed := n.closed
		n.mu.Unlock()
		if !closed {
			fn()
			// What fn did is before whatever is delivered next, as if one goroutine did both.
			n.mu.Lock()
			defer n.mu.Unlock()
		}
	})
	return t
}

// Delays of what nothing is wrong with.
const (
	minDelay = 100 * time.Microsecond
	maxDelay = 3 * time.Millisecond
)

// delay is how long a message takes. The caller holds mu.
func (n *Net) delay(from, to int) time.Duration {
	way := source{"delay", from, to}
	d := n.between(way, minDelay, maxDelay)
	if slow := n.slow[[2]int{from, to}]; slow > 0 {
		d += n.draw(way, slow)
	}
	return d
}

// passes says whether the way from one machine to another is open. The caller holds mu.
func (n *Net) passes(from, to int) bool { return n.cut[[2]int{from, to}] == 0 }

// both says whether both ways are open and both nodes run. The caller holds mu.
func (n *Net) both(a, b int) bool {
	x, y := n.machines[a].node, n.machines[b].node
	return x != nil && y != nil && !x.paused && !y.paused && x.running && y.running &&
		(a == b || n.passes(a, b) && n.passes(b, a))
}

// majority says whether a machine and those it reaches are more than half. The
// caller holds mu.
func (n *Net) majority(of int) bool {
	count := 0
	for i := range n.machines {
		if n.both(of, i) {
			count++
		}
	}
	return count > len(n.machines)/2
}

// topologyChanged wakes who waits for a way. The caller holds mu.
func (n *Net) topologyChanged() {
	close(n.changed)
	n.changed = make(chan struct{})
	n.dial()
}

// Start starts a machine that does not run, from 0. The node takes part when it is run.
func (n *Net) Start(index int) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.machines[index]
	if m.node != nil {
		panic("clustertest: " + m.name + " runs already")
	}
	m.incarnation++
	m.node = &Node{
		net: n, machine: m, incarnation: m.incarnation,
		lastIn: make(map[int]time.Time), slotIn: make(map[int]time.Time), joined: make(map[channel]time.Time),
		dead: make(chan struct{}),
	}
	m.node.view, m.node.viewChanged = &view{owners: make([]cluster.Ownership, n.cfg.Partitions)}, make(chan struct{})
	n.History.note(Event{What: Fault, Node: m.node.Name(), Note: "starts"})
	return m.node
}

// Partition cuts all ways between machines of different groups. A machine that no
// group names is alone.
func (n *Net) Partition(groups ...[]int) {
	group := make(map[int]int)
	for i := range n.machines {
		group[i] = -1 - i
	}
	for g, members := range groups {
		for _, i := range members {
			group[i] = g
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.History.note(Event{What: Fault, Note: fmt.Sprint("partition ", groups)})
	for i := range n.machines {
		for j := range n.machines {
			if group[i] != group[j] {
				n.cutOff(i, j)
			}
		}
	}
	n.topologyChanged()
}

// Cut stops what goes from one machine to another, not what goes back.
func (n *Net) Cut(from, to int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.History.note(Event{What: Fault, Node: n.machines[from].name, Note: "cut towards " + n.machines[to].name})
	n.cutOff(from, to)
	n.topologyChanged()
}

// How long the ends of a link take to notice silence.
const (
	minNotice = 600 * time.Millisecond
	maxNotice = 1200 * time.Millisecond
)

// cutOff is Cut. The caller holds mu.
func (n *Net) cutOff(from, to int) {
	way := [2]int{from, to}
	if n.cut[way] != 0 {
		return
	}
	n.cuts++
	number := n.cuts
	n.cut[way] = number
	l := n.links[pair(from, to)]
	if l == nil {
		return
	}
	silence := source{"silence", from, to}
	n.at(silence, time.Now().Add(n.between(silence, minNotice, maxNotice)), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.cut[way] == number {
			l.end(to)
		}
	})
}

// Heal ends all cuts and all slowness.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.History.note(Event{What: Fault, Note: "heal"})
	clear(n.slow)
	clear(n.cut)
	for _, m := range n.machines { // in their order, not the map's
		for _, o := range n.machines[m.index+1:] {
			if l := n.links[pair(m.index, o.index)]; l != nil {
				l.flush()
			}
		}
	}
	n.topologyChanged()
}

// Slow lets what goes from one machine to another take up to d longer, until Heal.
func (n *Net) Slow(from, to int, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.History.note(Event{What: Fault, Node: n.machines[from].name, Note: fmt.Sprintf("slow towards %s: %v", n.machines[to].name, d)})
	n.slow[[2]int{from, to}] = d
}

// Reset breaks the link between two machines, if there is one.
func (n *Net) Reset(a, b int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.links[pair(a, b)]; l != nil {
		n.History.note(Event{What: Fault, Node: n.machines[a].name, Note: "link reset to " + n.machines[b].name})
		l.end(a)
	}
}

// Overflow lets the next Send from one machine to another find a full queue.
func (n *Net) Overflow(from, to int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.overflow[[2]int{from, to}] = true
}

// SetLoss sets the share of what is published in slots that is lost.
func (n *Net) SetLoss(share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cfg.Loss = share
}

func pair(a, b int) [2]int { return [2]int{min(a, b), max(a, b)} }
