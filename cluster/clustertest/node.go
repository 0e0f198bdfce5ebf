package clustertest

import (
	"context"
	"fmt"
	"time"

	"hadal/cluster"
)

// Node is one start of a machine.
type Node struct {
	net         *Net
	machine     *machine
	incarnation uint64
	dead        chan struct{} // closed when the node has crashed or ended

	// What follows is guarded by Net.mu.

	running bool // Run was called and has not ended
	over    bool // it will never run again
	paused  bool
	pauses  uint64
	held    []func() // deliveries that wait for Resume, or for those before them
	out     []func() // what was sent during a pause

	handlers [kinds]cluster.Handler
	lastIn   map[int]time.Time     // the latest instant at which something of a peer's link arrives
	slotIn   map[int]time.Time     // the same of its slots
	joined   map[channel]time.Time // since when others can have noticed

	view        *view
	viewChanged chan struct{}
	heard       time.Time // when the last heartbeat that was answered began
}

// kinds is more than the highest cluster.Kind.
const kinds = 16

// channel is one slot of one kind.
type channel struct {
	kind cluster.Kind
	slot uint16
}

// Name is the machine's name and the number of the start: a.1.
func (n *Node) Name() string { return fmt.Sprintf("%s.%d", n.machine.name, n.incarnation) }

// ID is the machine's id, which is its peers' name for it.
func (n *Node) ID() string { return n.machine.id }

// Index is the machine's number.
func (n *Node) Index() int { return n.machine.index }

// Dead is closed when the node has ended.
func (n *Node) Dead() <-chan struct{} { return n.dead }

// Bus is the node's bus.
func (n *Node) Bus() cluster.Bus { return bus{n} }

// Table is what the node knows of the table.
func (n *Node) Table() cluster.Table { return table{n} }

// Run lets the node take part until ctx ends or it crashes. All kinds must have been
// handled.
func (n *Node) Run(ctx context.Context) error {
	n.net.mu.Lock()
	if n.over {
		n.net.mu.Unlock()
		return ErrDead
	}
	n.running = true
	n.net.topologyChanged()
	n.net.mu.Unlock()
	select {
	case <-n.dead:
		return ErrDead
	case <-ctx.Done():
		n.stop("stops")
		return nil
	}
}

// Crash ends the node now. Whoever started its rooms ends their contexts at once.
func (n *Node) Crash() { n.stop("crashes") }

func (n *Node) stop(how string) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.over {
		return
	}
	n.net.History.note(Event{What: Fault, Node: n.Name(), Note: how})
	n.running, n.over, n.held, n.out = false, true, nil, nil
	n.machine.node = nil
	close(n.dead)
	for _, m := range n.net.machines {
		if l := n.net.links[pair(n.machine.index, m.index)]; l != nil {
			l.crashed(n)
		}
	}
	n.net.topologyChanged()
}

// Pause stops what goes into the node and out of it.
func (n *Node) Pause() {
	net := n.net
	net.mu.Lock()
	defer net.mu.Unlock()
	if n.over || n.paused {
		return
	}
	net.History.note(Event{What: Fault, Node: n.Name(), Note: "paused"})
	n.paused = true
	n.pauses++
	number := n.pauses
	for _, m := range net.machines {
		l := net.links[pair(n.machine.index, m.index)]
		if l == nil {
			continue
		}
		silence := source{"pause", n.machine.index, m.index}
		net.at(silence, time.Now().Add(net.between(silence, minNotice, maxNotice)), func() {
			net.mu.Lock()
			defer net.mu.Unlock()
			if n.paused && n.pauses == number {
				l.end(m.index)
			}
		})
	}
	net.topologyChanged()
}

// Resume ends a pause: first what waited to leave goes out, then what waited comes in.
func (n *Node) Resume() {
	n.net.mu.Lock()
	if n.over || !n.paused {
		n.net.mu.Unlock()
		return
	}
	n.net.History.note(Event{What: Fault, Node: n.Name(), Note: "resumed"})
	n.paused = false
	out := n.out
	n.out = nil
	for _, send := range out {
		send()
	}
	n.drainLater()
	n.net.topologyChanged()
	n.net.mu.Unlock()
}

// Paused says whether the node is.
func (n *Node) Paused() bool {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.paused
}

// drainLater delivers what was held, one at a time. The caller holds mu.
func (n *Node) drainLater() {
	if len(n.held) > 0 {
		n.net.at(source{"drain", n.machine.index, 0}, time.Now(), n.drain)
	}
}

func (n *Node) drain() {
	n.net.mu.Lock()
	if n.paused || n.over || len(n.held) == 0 {
		n.net.mu.Unlock()
		return
	}
	fn := n.held[0]
	n.net.mu.Unlock()
	fn()
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.over {
		return
	}
	if n.held = n.held[1:]; len(n.held) == 0 {
		n.net.topologyChanged() // who waits to enter may
		return
	}
	n.drainLater()
}

// deliver runs fn on the node at an instant not before t, or later if it is paused
// then, or never if it has ended. fn is called without mu. The caller holds mu.
func (n *Node) deliver(s source, t time.Time, fn func()) time.Time {
	return n.net.at(s, t, func() {
		n.net.mu.Lock()
		switch {
		case n.over:
			n.net.mu.Unlock()
		case n.paused || len(n.held) > 0:
			n.held = append(n.held, fn)
			n.net.mu.Unlock()
		default:
			n.net.mu.Unlock()
			fn()
		}
	})
}

// Tell runs fn now, or at Resume when the node is paused: it is how an answer leaves
// the node for a client. A node that has ended tells nothing.
func (n *Node) Tell(fn func()) {
	n.net.mu.Lock()
	switch {
	case n.over:
		n.net.mu.Unlock()
	case n.paused || len(n.held) > 0:
		n.held = append(n.held, fn)
		n.net.mu.Unlock()
	default:
		n.net.mu.Unlock()
		fn()
	}
}

// Enter is how a message of a client, named by who, comes to the node: it waits a
// moment, and while the node is paused. It is ErrDead when the node has ended, or the
// error of ctx.
func (n *Node) Enter(ctx context.Context, who string) error {
	return n.wait(ctx, who, func() bool { return !n.paused && len(n.held) == 0 })
}

// Reach is the way from the node to what a majority of the machines keeps, such as
// a replicated log, or back: it waits a moment, while the node is paused, and while it
// reaches no majority. Who goes it is named by who.
func (n *Node) Reach(ctx context.Context, who string) error {
	return n.wait(ctx, who, func() bool { return !n.paused && n.net.majority(n.machine.index) })
}

// wait sleeps for a delay and until open, which is called under mu.
func (n *Node) wait(ctx context.Context, who string, open func() bool) error {
	s := source{who, n.machine.index, 0}
	for {
		n.net.mu.Lock()
		at := n.net.instant(s, time.Now().Add(n.net.between(s, minDelay, maxDelay)))
		n.net.mu.Unlock()
		if err := sleepUntil(ctx, at); err != nil {
			return err
		}
		n.net.mu.Lock()
		over, ok, changed := n.over || n.net.closed, open(), n.net.changed
		n.net.mu.Unlock()
		switch {
		case over:
			return ErrDead
		case ok:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.dead:
			return ErrDead
		case <-changed:
		}
	}
}
