package rpc

import (
	"context"
	"math/rand/v2"
	"slices"

	"hadal/cluster"
	"hadal/protocol"
)

// maxServed is how much the calls of one peer that are under way here may count for, in
// bytes. It is more than one caller may have, so that a caller alone cannot shut out
// the others of its node. What comes above that is answered as if nobody provided it.
const maxServed = 4 * maxRunning

// maxSent is how many bytes of the texts of calls may be at one peer: half of what may
// wait for it on its link, which would end if that were full, whoever uses it. For a
// call above that it is as if the peer could not be reached.
const maxSent = 32 << 20

// peer is another node between Up and Down. Guarded by Room.mu.
type peer struct {
	id      string
	asked   map[uint64]*running // calls from here that it is asked, by number
	serving map[uint64]*running // calls of its clients that are put to providers here
	sent    int                 // bytes of those in asked
	bytes   int                 // that those in serving count for
	dead    bool                // by the table, at last
}

// askPeer puts the call to another node that provides its name and has not had it, in
// random order. The caller holds mu.
func (r *Room) askPeer(call *running) bool {
	nodes := r.set.Peers(call.name)
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	var payload []byte
	for _, id := range nodes {
		p := r.peers[id]
		if p == nil || p.dead || slices.Contains(call.nodes, id) || p.sent > 0 && p.sent+call.bytes > maxSent {
			continue
		}
		if payload == nil {
			r.serial++
			w := wire{what: wireCall, number: r.serial, question: call.question, data: call.data}
			if call.by != nil {
				w.by = *call.by
			}
			payload = w.append(nil)
		}
		// Under mu, as all that is said about a call before its end: in order.
		if !r.bus.Send(id, cluster.KindRPC, payload) {
			continue
		}
		r.count.Forwarded++
		call.node, call.number, call.accepted = p, r.serial, false
		p.asked[call.number] = call
		p.sent += call.bytes
		r.start(call)
		return true
	}
	return false
}

// tell says something without data about a call to a peer. If there is no link any more,
// both ends hear of that. The caller holds mu.
func (r *Room) tell(p *peer, what byte, number uint64) {
	w := wire{what: what, number: number}
	r.bus.Send(p.id, cluster.KindRPC, w.append(make([]byte, 0, 16)))
}

// cancel tells the node that is asked, if it is a node, that it need not go on. The
// caller holds mu.
func (r *Room) cancel(call *running) {
	if call.node != nil {
		r.tell(call.node, wireCancel, call.number)
	}
}

// tellOrigin tells the peer whose call it is what would be told to a caller here. It
// has the clock, so it is not told of timeouts. The caller holds mu.
func (r *Room) tellOrigin(call *running, a protocol.Action) {
	switch a {
	case protocol.RPCAccept:
		r.tell(call.origin, wireAccepted, call.number)
	case protocol.RPCNoRPCProvider:
		r.tell(call.origin, wireNone, call.number)
	}
}

// answerOrigin sends an answer to the node of the caller. Answers may be larger than calls, and
// come faster than that node takes them: when much waits for it already, the call ends with
// an error. If there is no link any more, both ends hear of that. It is called without mu.
func (r *Room) answerOrigin(id string, w *wire) {
	if r.bus.Offer(id, cluster.KindRPC, w.append(make([]byte, 0, 16+len(w.data)))) {
		return
	}
	short := wire{what: wireError, number: w.number, data: tooManyAnswers}
	if !r.bus.Send(id, cluster.KindRPC, short.append(make([]byte, 0, 64))) {
		return
	}
	r.mu.Lock()
	r.count.Crowded++
	r.mu.Unlock()
	r.log.Debug("rpc answer dropped, and its caller told: too much waits for the caller's node", "peer", id, "bytes", len(w.data))
}

// handler is the room as the cluster.Bus sees it.
type handler struct{ *Room }

var _ cluster.Handler = handler{}

// Up implements cluster.Handler.
func (r handler) Up(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers[id] = &peer{id: id, asked: make(map[uint64]*running), serving: make(map[uint64]*running)}
}

// Down implements cluster.Handler: whatever the peer was asked goes to others, and its
// callers have left.
func (r handler) Down(id string) {
	r.mu.Lock()
	p := r.peers[id]
	if p == nil {
		r.mu.Unlock()
		return
	}
	delete(r.peers, id)
	for _, call := range p.serving {
		call.orphan, call.data = true, ""
	}
	todo := r.moveOn(p)
	r.mu.Unlock()
	for _, d := range todo {
		d.send()
	}
}

// moveOn puts all that a node is asked to others. The caller holds mu, which is given
// to others in between, and sends the deliveries when it does not any more.
func (r *Room) moveOn(p *peer) (todo []delivery) {
	numbers := make([]uint64, 0, len(p.asked))
	for number := range p.asked {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers) // the oldest first
	for i, number := range numbers {
		if call := p.asked[number]; call != nil {
			r.count.Returned++
			r.cancel(call) // it may be alive, and its link a new one
			todo = append(todo, r.reroute(call))
		}
		if i%chunk == chunk-1 {
			r.mu.Unlock()
			r.mu.Lock()
		}
	}
	return todo
}

// watch takes calls from nodes that the table says are dead, until ctx ends.
func (r *Room) watch(ctx context.Context) {
	for {
		change := r.table.Changed() // before the table is asked
		alive := make(map[string]bool)
		for _, m := range r.table.Members() {
			alive[m.ID] = m.Alive
		}
		var todo []delivery
		r.mu.Lock()
		linked := r.linked()
		for _, p := range linked { // all, before a call is put to one of them
			p.dead = !alive[p.id]
		}
		for _, p := range linked {
			if p.dead {
				todo = append(todo, r.moveOn(p)...)
			}
		}
		r.mu.Unlock()
		for _, d := range todo {
			d.send()
		}
		select {
		case <-ctx.Done():
			return
		case <-change:
		}
	}
}

// linked are the peers of this moment. The caller holds mu.
func (r *Room) linked() []*peer {
	list := make([]*peer, 0, len(r.peers))
	for _, p := range r.peers {
		list = append(list, p)
	}
	return list
}

// Published implements cluster.Handler: calls go by links.
func (r handler) Published(id string, _ uint16, _ []byte) { r.misunderstood(id) }

// Hear implements cluster.Handler.
func (r handler) Hear(id string, payload []byte) {
	w, err := parseWire(payload)
	if err != nil {
		r.misunderstood(id)
		return
	}
	r.mu.Lock()
	p := r.peers[id]
	if p == nil {
		r.mu.Unlock()
		return
	}
	var d delivery
	switch w.what {
	case wireCall:
		d = r.serve(p, w)
	case wireGone, wireCancel:
		r.giveUp(p, w)
	case wireResponse, wireError:
		if call := p.asked[w.number]; call != nil {
			r.answered(call, w) // which gives mu back
			return
		}
	default:
		if call := p.asked[w.number]; call != nil {
			d = r.progress(call, w.what)
		}
	}
	r.mu.Unlock()
	d.send()
}

func (r *Room) misunderstood(id string) {
	r.mu.Lock()
	r.count.Unknown++
	r.mu.Unlock()
	r.log.Debug("message of a peer dropped: it is none that this version knows", "peer", id)
}

// serve puts a call of a peer's client to a provider here. The caller holds mu and
// sends the delivery when it does not any more.
func (r *Room) serve(p *peer, w wire) delivery {
	if p.serving[w.number] != nil {
		r.count.Unknown++
		return delivery{}
	}
	call := &running{
		question: w.question, data: w.data, origin: p, number: w.number,
		bytes: len(w.name) + len(w.id) + len(w.data) + len(w.by.name) + len(w.by.data),
	}
	if w.by.has != 0 {
		by := w.by
		call.by = &by
	}
	if p.bytes > 0 && p.bytes+call.size() > r.most {
		r.count.Invalid++
		r.log.Warn("a peer has too many calls under way here: this one is refused", "peer", p.id, "name", call.name)
		r.tell(p, wireNone, w.number)
		return delivery{}
	}
	d, ok := r.next(call)
	if !ok {
		r.tell(p, wireNone, w.number)
		return delivery{}
	}
	p.serving[w.number] = call
	p.bytes += call.size()
	r.serving++
	r.count.Served++
	return d
}

// giveUp is told that the caller of a peer's call has left, or that nobody waits for the
// call. The caller holds mu.
func (r *Room) giveUp(p *peer, w wire) {
	call := p.serving[w.number]
	if call == nil { // it was answered just now
		return
	}
	call.orphan, call.data = true, ""
	if w.what == wireCancel {
		r.end(call)
	}
}

// progress is told how it goes with a call at the node that is asked. The caller holds
// mu and sends the delivery when it does not any more.
func (r *Room) progress(call *running, what byte) delivery {
	switch what {
	case wireAsked:
		r.acks.stop(&call.ack)
		r.answers.stop(&call.answer)
		if r.late(call) {
			r.timedOut(call, &r.count.AcceptTimeouts, protocol.RPCAcceptTimeout)
			return delivery{}
		}
		call.accepted = false
		r.start(call)
	case wireAccepted:
		if !call.accepted {
			call.accepted = true
			r.acks.stop(&call.ack)
			r.tellCaller(call, protocol.RPCAccept)
		}
	case wireNone:
		r.count.Returned++
		return r.reroute(call)
	}
	return delivery{}
}

// answered ends a call with the answer of a provider at another node, which has found
// the data to be JSON. The caller holds mu, and does not any more afterwards.
func (r *Room) answered(call *running, w wire) {
	r.end(call)
	action := protocol.RPCResponse
	if w.what == wireError {
		action = protocol.RPCRequestError
	}
	if !call.orphan {
		r.countAnswer(action)
	}
	r.mu.Unlock()
	r.answer(call, action, w.data)
}
