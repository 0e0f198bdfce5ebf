package rpc

import (
	"strings"

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
	call := newCall(c, m)
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
	p, ok := r.pick(call)
	if !ok {
		r.count.NoProvider++
		r.forget(c.ID(), k)
		r.mu.Unlock()
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCNoRPCProvider,
			Has:  m.Has & (protocol.HasName | protocol.HasCorrelationID),
			Name: m.Name, CorrelationID: m.CorrelationID,
		})
		return
	}
	if k.made == nil {
		k.made = make(map[string]*running, 1)
	}
	k.made[call.id] = call
	k.bytes += call.size()
	d := r.ask(call, p)
	r.mu.Unlock()
	d.send()
}

// newCall is the call that m asks for. It copies what it keeps of m, whose frame
// may be much larger.
func newCall(c sub.Client, m *protocol.Message) *running {
	s := m.Name + m.CorrelationID
	return &running{
		question: question{s[:len(m.Name)], s[len(m.Name):]},
		data:     strings.Clone(m.Data), bytes: len(s) + len(m.Data), from: c,
	}
}

// size is what the call counts for while it is under way. The data stays in
// memory as long as the call does.
func (c *running) size() int { return c.bytes + callOverhead }

// ask puts the call to p: both timers start. The caller holds mu and sends the
// delivery when it does not any more.
func (r *Room) ask(call *running, p provider) delivery {
	call.provider, call.accepted = p, false
	k := r.clients[p.id]
	if k.asked == nil {
		k.asked = make(map[question]*running, 1)
	}
	k.asked[call.question] = call
	first := r.acks.start(&call.ack, call, r.cfg.AckTimeout)
	if r.answers.start(&call.answer, call, r.cfg.ResponseTimeout) || first {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	o := &protocol.Outbound{Message: protocol.Message{
		Topic: protocol.TopicRPC, Action: protocol.RPCRequest,
		Has:  withData(protocol.HasName|protocol.HasCorrelationID, call.data),
		Name: call.name, CorrelationID: call.id, Data: call.data,
	}}
	// From the caller's login, never from its message (spec 10 §6).
	if u := call.from.User(); u != nil {
		if r.cfg.ProvideRequestorName {
			o.RequestorName = u.ID
			o.Has |= protocol.HasRequestorName
		}
		if r.cfg.ProvideRequestorData && u.ClientData != "" {
			o.RequestorData = u.ClientData
			o.Has |= protocol.HasRequestorData
		}
	}
	return delivery{p.c, o}
}

// release ends the asking of the present provider. The caller holds mu.
func (r *Room) release(call *running) {
	r.acks.stop(&call.ack)
	r.answers.stop(&call.answer)
	if k := r.clients[call.provider.id]; k != nil {
		delete(k.asked, call.question)
		r.forget(call.provider.id, k)
	}
}

// end takes the call out of the room. The caller holds mu.
func (r *Room) end(call *running) {
	r.release(call)
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

// reroute takes the call from its provider and puts it to another one, or ends it.
// The caller holds mu and sends the delivery when it does not any more.
func (r *Room) reroute(call *running) delivery {
	r.release(call)
	if call.tried == nil {
		call.tried = make(map[uint64]struct{}, 1)
	}
	call.tried[call.provider.id] = struct{}{}
	if !call.orphan {
		if p, ok := r.pick(call); ok {
			return r.ask(call, p)
		}
		r.count.NoProvider++
	}
	r.end(call)
	r.tellCaller(call, protocol.RPCNoRPCProvider)
	return delivery{}
}

// tellCaller sends the caller a message without payload; nothing to one that has left.
func (r *Room) tellCaller(call *running, a protocol.Action) {
	if call.orphan {
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
	switch {
	case call.orphan:
	case valid && m.Action == protocol.RPCResponse:
		r.count.Responses++
	default:
		r.count.Errors++
	}
	if !valid {
		r.count.Invalid++
	}
	r.mu.Unlock()

	action, data := m.Action, m.Data
	if !valid {
		r.log.Debug("rpc answer refused: its data is not JSON", "conn", c.ID(), "user", c.User().ID, "name", m.Name)
		action, data = protocol.RPCRequestError, invalidData
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCInvalidMessageData, IsError: true,
			Has:  protocol.HasName | protocol.HasCorrelationID | protocol.HasOriginalAction,
			Name: m.Name, CorrelationID: m.CorrelationID, OriginalAction: m.Action,
		})
	}
	if call.orphan { // set under mu before the call left the tables, or never
		return
	}
	call.from.Answer(&protocol.Message{
		Topic: protocol.TopicRPC, Action: action,
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
