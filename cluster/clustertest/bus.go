package clustertest

import (
	"bytes"
	"fmt"
	"time"

	"hadal/cluster"
)

// link is one connection between two nodes. Its fields are guarded by Net.mu.
type link struct {
	net    *Net
	nodes  [2]*Node
	up     [2]bool      // that end has heard Up
	down   [2]bool      // that end has heard Down, or will hear nothing any more
	broken bool         // nothing sent from now on arrives
	queue  [2][]queued  // sent by that end while its way was cut
	arrive [2]time.Time // when the last message for that end arrives
}

// queued is one message.
type queued struct {
	kind    cluster.Kind
	payload []byte
}

// dial begins links between all that can have one. The caller holds mu.
func (n *Net) dial() {
	for a := range n.machines {
		for b := a + 1; b < len(n.machines); b++ {
			key := [2]int{a, b}
			if n.links[key] != nil || n.dialing[key] || !n.both(a, b) {
				continue
			}
			n.dialing[key] = true
			call := source{"dial", a, b}
			n.at(call, time.Now().Add(n.between(call, 5*time.Millisecond, 60*time.Millisecond)), func() {
				n.mu.Lock()
				defer n.mu.Unlock()
				delete(n.dialing, key)
				if n.links[key] == nil && n.both(a, b) {
					n.connect(n.machines[a].node, n.machines[b].node)
				}
			})
		}
	}
}

// connect makes a link. The caller holds mu.
func (n *Net) connect(a, b *Node) {
	l := &link{net: n, nodes: [2]*Node{a, b}}
	n.links[pair(a.machine.index, b.machine.index)] = l
	for i, node := range l.nodes {
		peer := l.nodes[1-i]
		d := n.delay(peer.machine.index, node.machine.index)
		l.arrive[i] = l.event(i, time.Now().Add(d), func() { l.hearUp(i) })
	}
}

// event delivers at one end, in the order of all links between the two machines. The
// caller holds mu.
func (l *link) event(i int, t time.Time, fn func()) time.Time {
	node, peer := l.nodes[i], l.nodes[1-i].machine.index
	if last := node.lastIn[peer]; t.Before(last) {
		t = last
	}
	t = node.deliver(source{"link", peer, node.machine.index}, t, fn)
	node.lastIn[peer] = t
	return t
}

func (l *link) hearUp(i int) {
	node, peer := l.nodes[i], l.nodes[1-i]
	l.net.mu.Lock()
	if l.down[i] {
		l.net.mu.Unlock()
		return
	}
	l.up[i] = true
	l.net.History.note(Event{What: Linked, Node: node.Name(), Name: peer.Name()})
	l.net.mu.Unlock()
	for _, h := range node.handlers {
		if h != nil {
			h.Up(peer.ID())
		}
	}
}

// end breaks the link. The machine given notices first, the other some time later.
// The caller holds mu.
func (l *link) end(first int) {
	if l.broken {
		return
	}
	l.broken = true
	l.queue = [2][]queued{}
	for i, node := range l.nodes {
		wait := l.net.draw(l.fate(i), 5*time.Millisecond)
		if node.machine.index != first {
			wait += l.net.draw(l.fate(i), 300*time.Millisecond)
		}
		l.fall(i, wait)
	}
	l.forget()
}

// fate is what decides when one end hears Down.
func (l *link) fate(i int) source {
	return source{"down", l.nodes[1-i].machine.index, l.nodes[i].machine.index}
}

// fall lets one end hear Down after a while: before messages that are under way then,
// which are lost. The caller holds mu.
func (l *link) fall(i int, wait time.Duration) {
	node, peer := l.nodes[i], l.nodes[1-i]
	if node.over {
		l.down[i] = true
		return
	}
	at := node.deliver(l.fate(i), time.Now().Add(wait), func() {
		l.net.mu.Lock()
		was := l.up[i] && !l.down[i]
		l.down[i] = true
		if was {
			l.net.History.note(Event{What: Unlinked, Node: node.Name(), Name: peer.Name()})
		}
		l.net.mu.Unlock()
		if was {
			for _, h := range node.handlers {
				if h != nil {
					h.Down(peer.ID())
				}
			}
		}
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		l.forget()
	})
	if at.After(node.lastIn[peer.machine.index]) {
		node.lastIn[peer.machine.index] = at
	}
}

// crashed breaks the link of a node that has ended: its kernel says so, or nobody.
// The caller holds mu.
func (l *link) crashed(n *Node) {
	for i, node := range l.nodes {
		if node == n {
			l.down[i] = true
			continue
		}
		if l.broken {
			continue // it hears Down already
		}
		wait := l.net.draw(l.fate(i), 5*time.Millisecond)
		if l.net.draw(l.fate(i), 3) == 0 {
			wait = l.net.between(l.fate(i), minNotice, maxNotice)
		}
		l.fall(i, wait)
	}
	l.broken = true
	l.forget()
}

// forget makes room for the next link when both ends know that this one is over.
// The caller holds mu.
func (l *link) forget() {
	key := pair(l.nodes[0].machine.index, l.nodes[1].machine.index)
	for i, node := range l.nodes {
		if node.over {
			l.down[i] = true
		}
	}
	if l.down[0] && l.down[1] && l.net.links[key] == l {
		delete(l.net.links, key)
		l.net.dial()
	}
}

// send brings a message from one end to the other. The caller holds mu.
func (l *link) send(i int, m queued) {
	if l.broken {
		return
	}
	from, to := l.nodes[i].machine.index, l.nodes[1-i].machine.index
	if !l.net.passes(from, to) || len(l.queue[i]) > 0 {
		l.queue[i] = append(l.queue[i], m)
		return
	}
	at := time.Now().Add(l.net.delay(from, to))
	if at.Before(l.arrive[1-i]) {
		at = l.arrive[1-i]
	}
	l.arrive[1-i] = l.event(1-i, at, func() { l.hear(1-i, m) })
}

func (l *link) hear(i int, m queued) {
	node, peer := l.nodes[i], l.nodes[1-i]
	l.net.mu.Lock()
	lost := !l.up[i] || l.down[i]
	l.net.mu.Unlock()
	if h := node.handlers[m.kind]; h != nil && !lost {
		h.Hear(peer.ID(), m.payload)
		clear(m.payload) // it was valid during the call only
	}
}

// flush sends what waited for a cut to end. The caller holds mu.
func (l *link) flush() {
	for i := range l.queue {
		waiting := l.queue[i]
		l.queue[i] = nil
		for _, m := range waiting {
			l.send(i, m)
		}
	}
}

// bus is the cluster.Bus of a node.
type bus struct{ n *Node }

var _ cluster.Bus = bus{}

// Handle implements cluster.Bus.
func (b bus) Handle(k cluster.Kind, h cluster.Handler) {
	b.n.net.mu.Lock()
	defer b.n.net.mu.Unlock()
	switch {
	case b.n.running:
		panic(fmt.Sprintf("clustertest: kind %d is handled after the bus runs", k))
	case b.n.handlers[k] != nil:
		panic(fmt.Sprintf("clustertest: kind %d is handled twice", k))
	}
	b.n.handlers[k] = h
}

// linkTo returns the link to a peer and which end of it is the node's, when that is up. The
// caller holds mu.
func (b bus) linkTo(peer string) (*link, int) {
	for _, m := range b.n.net.machines {
		if m.id != peer || m == b.n.machine {
			continue
		}
		l := b.n.net.links[pair(b.n.machine.index, m.index)]
		if l == nil {
			return nil, 0
		}
		for i, node := range l.nodes {
			if node == b.n && l.up[i] && !l.down[i] {
				return l, i
			}
		}
	}
	return nil, 0
}

// Send implements cluster.Bus.
func (b bus) Send(peer string, k cluster.Kind, payload []byte) bool {
	b.n.net.mu.Lock()
	defer b.n.net.mu.Unlock()
	l, i := b.linkTo(peer)
	if l == nil || b.n.over {
		return false
	}
	way := [2]int{b.n.machine.index, l.nodes[1-i].machine.index}
	if b.n.net.overflow[way] && !l.broken {
		delete(b.n.net.overflow, way)
		b.n.net.History.note(Event{What: Fault, Node: b.n.Name(), Note: "link overflows towards " + l.nodes[1-i].Name()})
		l.end(b.n.machine.index)
		return false
	}
	m := queued{k, bytes.Clone(payload)}
	if b.n.paused {
		b.n.out = append(b.n.out, func() { l.send(i, m) })
	} else {
		l.send(i, m)
	}
	return true
}

// Offer implements cluster.Bus.
func (b bus) Offer(peer string, k cluster.Kind, payload []byte) bool { return b.Send(peer, k, payload) }

// Linked implements cluster.Bus.
func (b bus) Linked(peer string) bool {
	b.n.net.mu.Lock()
	defer b.n.net.mu.Unlock()
	l, _ := b.linkTo(peer)
	return l != nil
}

// Publish implements cluster.Bus.
func (b bus) Publish(k cluster.Kind, slot uint16, payload []byte) {
	n := b.n.net
	n.mu.Lock()
	defer n.mu.Unlock()
	payload = bytes.Clone(payload)
	publish := func() { b.publish(channel{k, slot}, payload) }
	if b.n.paused {
		b.n.out = append(b.n.out, publish)
	} else {
		publish()
	}
}

// publish brings a message to those who have joined. The caller holds mu.
func (b bus) publish(c channel, payload []byte) {
	n, from := b.n.net, b.n.machine.index
	for _, m := range n.machines {
		to := m.node
		if to == nil || to == b.n || !to.running || b.n.over || !n.passes(from, m.index) {
			continue
		}
		since, ok := to.joined[c]
		if !ok || time.Now().Before(since) {
			continue
		}
		if n.cfg.Loss > 0 && n.draw(source{"loss", from, m.index}, 1e6) < time.Duration(n.cfg.Loss*1e6) {
			continue
		}
		at := time.Now().Add(n.delay(from, m.index))
		if last := to.slotIn[from]; at.Before(last) {
			at = last
		}
		payload := bytes.Clone(payload)
		to.slotIn[from] = to.deliver(source{"slot", from, m.index}, at, func() {
			n.mu.Lock()
			_, joined := to.joined[c]
			n.mu.Unlock()
			if h := to.handlers[c.kind]; h != nil && joined {
				h.Published(b.n.ID(), c.slot, payload)
				clear(payload)
			}
		})
	}
}

// Join implements cluster.Bus.
func (b bus) Join(k cluster.Kind, slot uint16) {
	b.n.net.mu.Lock()
	defer b.n.net.mu.Unlock()
	c := channel{k, slot}
	if _, ok := b.n.joined[c]; ok {
		panic(fmt.Sprintf("clustertest: slot %d of kind %d is joined twice", slot, k))
	}
	b.n.joined[c] = time.Now().Add(b.n.net.between(source{"join", b.n.machine.index, 0}, minDelay, maxDelay))
}

// Leave implements cluster.Bus.
func (b bus) Leave(k cluster.Kind, slot uint16) {
	b.n.net.mu.Lock()
	defer b.n.net.mu.Unlock()
	c := channel{k, slot}
	if _, ok := b.n.joined[c]; !ok {
		panic(fmt.Sprintf("clustertest: slot %d of kind %d is left without being joined", slot, k))
	}
	delete(b.n.joined, c)
}
