package sub

import (
	"hadal/auth"
	"hadal/protocol"
)

// This file is how a change of rules reaches what was let in before.
//
// A room learns of new rules by Rejudge, when they are in force already. It turns
// its gate to them first, and then asks again about everything that stands. Between
// a client's passing the door and its subscription there is time, in which the rules
// may have changed: such a subscription would come behind Rejudge's back. So a
// message carries the generation of the rules that let it pass (protocol.Message.Judged),
// and the gate, under the very lock under which the subscription is added, has those
// asked again that are of an older one. Either Rejudge finds the subscription, or
// the gate was turned before it.

// Rules judge what was judged before by others.
type Rules interface {
	// Generation grows with each exchange of the rules. What is asked after the
	// call is answered by these rules or by younger ones.
	Generation() uint64
	// Refuse is 0 when the user may do a to name, and else the action that says why
	// not: MESSAGE_DENIED or MESSAGE_PERMISSION_ERROR of the topic. It may block, for
	// some seconds at most, and must not be called under a lock.
	Refuse(u *auth.User, t protocol.Topic, a protocol.Action, name, data string) protocol.Action
}

// Gate holds back what was let in by rules that are not in force any more. The zero
// Gate is open. Its methods are called under the lock that guards what it is the
// gate of.
type Gate struct {
	rules      Rules
	generation uint64
}

// Turn has the gate hold back what was judged by older rules than those in force.
func (g *Gate) Turn(rules Rules) { g.rules, g.generation = rules, rules.Generation() }

// Holds is nil for a message that may go on, and else the rules that it must be
// asked of again (see Again), after the lock was given back.
func (g *Gate) Holds(judged uint64) Rules {
	if judged >= g.generation {
		return nil
	}
	return g.rules
}

// Again judges one name of the request m anew. If it is not refused, it may come to
// the gate again with the generation that judged it; if it is, its client is told.
func Again(rules Rules, c Client, m *protocol.Message, name string) (judged uint64, ok bool) {
	judged = rules.Generation()
	refused := rules.Refuse(c.User(), m.Topic, m.Action, name, m.Data)
	if refused == 0 {
		return judged, true
	}
	c.Answer(&protocol.Message{
		Topic: m.Topic, Action: refused, Name: name, OriginalAction: m.Action, IsError: true,
		CorrelationID: m.CorrelationID, Has: m.Has & protocol.HasCorrelationID,
	})
	return 0, false
}

// TellEnded tells a client that new rules have ended what it had by its request a for
// name. It is always MESSAGE_DENIED, which all clients understand.
func TellEnded(c Client, t protocol.Topic, a protocol.Action, name string) {
	c.Answer(&protocol.Message{Topic: t, Action: protocol.Denied(t), Name: name, OriginalAction: a, IsError: true})
}

// Rejudge asks rules, which are in force, about every subscription, as the action a
// of topic t. Those that are refused are ended: nothing is sent to their clients
// any more but what ended does, which is called for each, without a lock; last
// says that the name has no subscriber any more. Subscriptions that come meanwhile
// were judged by these rules, or are. It returns how many were ended.
func (r *Registry) Rejudge(rules Rules, t protocol.Topic, a protocol.Action, ended func(name string, c Client, last bool)) int {
	for i := range r.names {
		ns := &r.names[i]
		ns.mu.Lock()
		ns.gate.Turn(rules)
		ns.mu.Unlock()
	}
	r.Settle()
	n := 0
	for name, clients := range r.All {
		for _, c := range clients {
			if rules.Refuse(c.User(), t, a, name, "") == 0 {
				continue
			}
			if removed, last := r.Remove(name, c); removed {
				n++
				ended(name, c, last)
			}
		}
	}
	return n
}

// RejudgeClient is Rejudge for one client, whose user is another one now while the rules
// are the same. It is called on the client's reader, so that nothing that the former
// user was let in for comes behind it.
func (r *Registry) RejudgeClient(rules Rules, c Client, t protocol.Topic, a protocol.Action, ended func(name string, c Client, last bool)) int {
	r.Settle()
	n := 0
	for _, name := range r.NamesOf(c) {
		if rules.Refuse(c.User(), t, a, name, "") == 0 {
			continue
		}
		if removed, last := r.Remove(name, c); removed {
			n++
			ended(name, c, last)
		}
	}
	return n
}

// All calls yield with every name and its subscribers, until it returns false: it can
// be ranged over. No lock is held meanwhile, so yield may call the registry. A
// subscription that stands during the whole walk is seen; one that comes or goes may
// be. The slice is used again after yield has returned.
func (r *Registry) All(yield func(name string, clients []Client) bool) {
	var clients []Client
	for name := range r.Names {
		clients = r.subscribers(clients[:0], name)
		if len(clients) > 0 && !yield(name, clients) {
			return
		}
		clear(clients)
	}
}

// subscribers appends the subscribers of name to list.
func (r *Registry) subscribers(list []Client, name string) []Client {
	ns := r.nameShard(name)
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if s := ns.subs[name]; s != nil {
		for i := range s.list {
			list = append(list, s.list[i].c)
		}
	}
	return list
}

// Subscribe is Add for one name of a request m that rules have let pass: if they are
// not in force any more, the present ones are asked. It is called without a lock.
func (r *Registry) Subscribe(c Client, m *protocol.Message, name string) Added {
	for judged := m.Judged; ; {
		added, rules := r.add(name, c, judged)
		if rules == nil {
			return added
		}
		var ok bool
		if judged, ok = Again(rules, c, m, name); !ok {
			return Refused
		}
	}
}
