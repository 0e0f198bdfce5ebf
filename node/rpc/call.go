package rpc

import (
	"strings"
	"time"

	"hadal/node/sub"
	"hadal/protocol"
)

// delivery is a REQUEST that goes out when the mutex has been given back.
type delivery struct {
	to sub.Client
	o  *protocol.Outbound
}

func (d delivery) send() {
	if d.to != nil {
		d.to.Send(d.o)
	}
}

// request begins a call.
func (r *Room) request(c sub.Client, m *protocol.Message) {
	if !m.Carries(protocol.HasCorrelationID) {
		r.invalid(c, m)
		return
	}
	if !validData(m) {
		r.mu.Lock()
		r.count.Invalid++
		r.mu.Unlock()
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCRequestError, Data: invalidData,
			Has:  m.Has&(protocol.HasName|protocol.HasCorrelationID) | protocol.HasData,
			Name: m.Name, CorrelationID: m.CorrelationID,
		})
		return
	}
	call := r.newCall(c, m)
	r.mu.Lock()
	if c.Gone() {
		r.mu.Unlock()
		return
	}
	k := r.known(c)
	if k.made[call.id] != nil {
		r.mu.Unlock()
		r.invalid(c, m)
		return
	}
	if k.bytes > 0 && k.bytes+call.size() > maxRunning {
		r.count.Invalid++
		r.mu.Unlock()
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCRequestError, Data: tooManyCalls,
			Has:  m.Has&(protocol.HasName|protocol.HasCorrelationID) | protocol.HasData,
			Name: m.Name, CorrelationID: m.CorrelationID,
		})
		return
	}
	r.count.Requests++
	if k.made == nil {
		k.made = make(map[string]*running, 1)
	}
	k.made[call.id] = call
	k.bytes += call.size()
	d, ok := r.next(call)
	if !ok {
		r.count.NoProvider++
		r.end(call)
		r.mu.Unlock()
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCNoRPCProvider,
			Has:  m.Has & (protocol.HasName | protocol.HasCorrelationID),
			Name: m.Name, CorrelationID: m.CorrelationID,
		})
		return
	}
	r.mu.Unlock()
	d.send()
}

// newCall is the call that m asks for. It copies what it keeps of m, whose frame
// may be much larger.
func (r *Room) newCall(c sub.Client, m *protocol.Message) *running {
	s := m.Name + m.CorrelationID
	call := &running{
		question: question{s[:len(m.Name)], s[len(m.Name):]},
		data:     strings.Clone(m.Data), bytes: len(s) + len(m.Data), from: c,
	}
	if u := c.User(); u != nil && (r.cfg.ProvideRequestorName || r.cfg.ProvideRequestorData) {
		call.by = &requestor{}
		if r.cfg.ProvideRequestorName {
			call.by.name = u.ID
			call.by.has |= protocol.HasRequestorName
		}
		if r.cfg.ProvideRequestorData && u.ClientData != "" {
			call.by.data = u.ClientData
			call.by.has |= protocol.HasRequestorData
		}
	}
	return call
}

// size is what the call counts for while it is under way. The data stays in
// memory as long as the call does.
func (c *running) size() int { return c.bytes + callOverhead }

// next puts the call to a provider here that has not had it, or else to such a node; it
// is false if there is none. The caller holds mu and sends the delivery when it does not
// any more.
func (r *Room) next(call *running) (delivery, bool) {
	if p, ok := r.pick(call); ok {
		return r.ask(call, p), true
	}
	// A peer asks other nodes itself.
	return delivery{}, call.origin == nil && r.askPeer(call)
}

// ask puts the call to p. The caller holds mu and sends the delivery when it does not
// any more.
func (r *Room) ask(call *running, p provider) delivery {
	call.provider, call.accepted = p, false
	k := r.clients[p.id]
	if k.asked == nil {
		k.asked = make(map[question]*running, 1)
	}
	k.asked[call.question] = call
	r.start(call)
	if call.origin != nil && len(call.tried) > 0 {
		r.tell(call.origin, wireAsked, call.number)
	}
	o := &protocol.Outbound{Message: protocol.Message{
		Topic: protocol.TopicRPC, Action: protocol.RPCRequest,
		Has:  withData(protocol.HasName|protocol.HasCorrelationID, call.data),
		Name: call.name, CorrelationID: call.id, Data: call.data,
	}}
	if by := call.by; by != nil {
		o.Has |= by.has
		o.RequestorName, o.RequestorData = by.name, by.data
	}
	return delivery{p.c, o}
}

// start starts both timers, since somebody else is asked. For a call of another node it
// is only the longer one, which sees to it that the call is forgotten here whatever
// becomes of that node. The caller holds mu.
func (r *Room) start(call *running) {
	first := false
	if call.origin == nil {
		first = r.acks.start(&call.ack, call, r.cfg.AckTimeout)
	}
	if r.answers.start(&call.answer, call, r.cfg.ResponseTimeout) || first {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	if call.until == 0 {
		call.until = call.answer.deadline.Sub(r.began) + (rounds-1)*r.cfg.ResponseTimeout
	}
}

// late says whether nobody else may be asked any more, for want of time. The caller
// holds mu.
func (r *Room) late(call *running) bool {
	return call.origin == nil && time.Since(r.began) > call.until
}

// release ends the asking of the present provider or node. The caller holds mu.
func (r *Room) release(call *running) {
	r.acks.stop(&call.ack)
	r.answers.stop(&call.answer)
	if call.node != nil {
		delete(call.node.asked, call.number)
		call.node.sent -= call.bytes
		call.node = nil
	}
	if k := r.clients[call.provider.id]; k != nil && call.provider.c != nil {
		delete(k.asked, call.question)
		r.forget(call.provider.id, k)
	}
	call.provider = provider{}
}

// end takes the call out of the room. The caller holds mu.
func (r *Room) end(call *running) {
	r.release(call)
	if p := call.origin; p != nil {
		r.serving--
		delete(p.serving, call.number)
		p.bytes -= call.size()
		return
	}
	if call.orphan {
		r.count.Abandoned++
		return
	}
	id := call.from.ID()
	if k := r.clients[id]; k != nil {
		delete(k.made, call.id)
		k.bytes -= call.size()
		r.forget(id, k)
	}
}

// reroute takes the call from its provider or node and puts it to another one, or ends
// it. The caller holds mu and sends the delivery when it does not any more.
func (r *Room) reroute(call *running) delivery {
	if call.node != nil {
		call.nodes = append(call.nodes, call.node.id)
	} else {
		if call.tried == nil {
			call.tried = make(map[uint64]struct{}, 1)
		}
		call.tried[call.provider.id] = struct{}{}
	}
	r.release(call)
	if !call.orphan {
		if r.late(call) {
			r.timedOut(call, &r.count.AcceptTimeouts, protocol.RPCAcceptTimeout)
			return delivery{}
		}
		if d, ok := r.next(call); ok {
			return d
		}
		if call.origin == nil {
			r.count.NoProvider++
		}
	}
	r.end(call)
	r.tellCaller(call, protocol.RPCNoRPCProvider)
	return delivery{}
}

// tellCaller sends the caller a message without payload; nothing to one that has left.
// The caller holds mu.
func (r *Room) tellCaller(call *running, a protocol.Action) {
	if call.orphan {
		return
	}
	if call.origin != nil {
		r.tellOrigin(call, a)
		return
	}
	call.from.Answer(&protocol.Message{
		Topic: protocol.TopicRPC, Action: a, Has: protocol.HasName | protocol.HasCorrelationID,
		Name: call.name, CorrelationID: call.id,
	})
}

// askedOf returns the call that c is asked by the name and id in m, or nil. The
// caller holds mu.
func (r *Room) askedOf(c sub.Client, m *protocol.Message) *running {
	k := r.clients[c.ID()]
	if k == nil {
		return nil
	}
	return k.asked[question{m.Name, m.CorrelationID}]
}

func (r *Room) accept(c sub.Client, m *protocol.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	call := r.askedOf(c, m)
	switch {
	case call == nil:
		r.refuse(c, m)
	case call.accepted:
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCMultipleAccept,
			Has: protocol.HasName | protocol.HasCorrelationID, Name: call.name, CorrelationID: call.id,
		})
	default:
		call.accepted = true
		r.acks.stop(&call.ack)
		r.tellCaller(call, protocol.RPCAccept) // under mu: before any end of the call
	}
}

// respond ends a call with a RESPONSE or REQUEST_ERROR.
func (r *Room) respond(c sub.Client, m *protocol.Message) {
	valid := validData(m)
	r.mu.Lock()
	call := r.askedOf(c, m)
	if call == nil {
		r.refuse(c, m)
		r.mu.Unlock()
		return
	}
	r.end(call)
	action, data := m.Action, m.Data
	if !valid {
		action, data = protocol.RPCRequestError, invalidData
		r.count.Invalid++
	}
	if !call.orphan && call.origin == nil {
		r.countAnswer(action)
	}
	r.mu.Unlock()

	if !valid {
		r.log.Debug("rpc answer refused: its data is not JSON", "conn", c.ID(), "user", c.User().ID, "name", m.Name)
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCInvalidMessageData, IsError: true,
			Has:  protocol.HasName | protocol.HasCorrelationID | protocol.HasOriginalAction,
			Name: m.Name, CorrelationID: m.CorrelationID, OriginalAction: m.Action,
		})
	}
	r.answer(call, action, data)
}

// countAnswer counts how a call of a caller here has ended. The caller holds mu.
func (r *Room) countAnswer(a protocol.Action) {
	if a == protocol.RPCResponse {
		r.count.Responses++
	} else {
		r.count.Errors++
	}
}

// answer hands over the answer to a call that is over. It is called without mu.
func (r *Room) answer(call *running, a protocol.Action, data string) {
	if call.orphan { // set under mu before the call left the tables, or never
		return
	}
	if call.origin != nil {
		w := wire{what: wireResponse, number: call.number, data: data}
		if a != protocol.RPCResponse {
			w.what = wireError
		}
		r.answerOrigin(call.origin.id, &w)
		return
	}
	call.from.Answer(&protocol.Message{
		Topic: protocol.TopicRPC, Action: a,
		Has:  withData(protocol.HasName|protocol.HasCorrelationID, data),
		Name: call.name, CorrelationID: call.id, Data: data,
	})
}

func (r *Room) reject(c sub.Client, m *protocol.Message) {
	r.mu.Lock()
	call := r.askedOf(c, m)
	if call == nil {
		r.refuse(c, m)
		r.mu.Unlock()
		return
	}
	r.count.Rejects++
	d := r.reroute(call)
	r.mu.Unlock()
	d.send()
}

// invalid is refuse for one who does not hold mu.
func (r *Room) invalid(c sub.Client, m *protocol.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse(c, m)
}

// refuse answers a message whose correlation id is that of no call it may speak
// about, or of a call that runs already. The caller holds mu.
func (r *Room) refuse(c sub.Client, m *protocol.Message) {
	r.count.Invalid++
	c.Answer(&protocol.Message{
		Topic: protocol.TopicRPC, Action: protocol.RPCInvalidRPCCorrelationID, IsError: true,
		Has:  m.Has&(protocol.HasName|protocol.HasCorrelationID) | protocol.HasOriginalAction,
		Name: m.Name, CorrelationID: m.CorrelationID, OriginalAction: m.Action,
	})
}
