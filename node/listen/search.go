package listen

import (
	"math/rand/v2"
	"slices"
	"time"

	"hadal/node/sub"
	"hadal/protocol"
)

// name is a subscribed name that matches a pattern. It is guarded by Registry.mu.
//
//	idle ──search──► asking ──accept──► provided
//	 ▲                 │                    │
//	 └── nobody left ──┴── provider lost ───┘   no subscriber: the state is dropped
type name struct {
	name    string
	matches []*pattern // by registration

	candidates []*listener // everybody of the present or last search
	next       int         // the first of them that has not had its turn
	asked      *listener   // whose answer is awaited
	waiting    bool        // asked is busy: the name is in its backlog
	question   uint64      // number of the question, to know its timeout

	provider *listener
	failedAt time.Time // when a search found nobody; zero if the last one did not
}

// ask is a question under way.
type ask struct {
	n        *name
	question uint64
	deadline time.Time
}

// search asks all candidates anew, one after the other. n is idle.
func (r *Registry) search(n *name) {
	clear(n.candidates) // or those who have left would live on behind the slice's end
	n.candidates, n.next = n.candidates[:0], 0
	for _, p := range n.matches {
		n.candidates = append(n.candidates, p.listeners...)
	}
	if r.cfg.ShuffleProviders {
		rand.Shuffle(len(n.candidates), func(i, j int) {
			n.candidates[i], n.candidates[j] = n.candidates[j], n.candidates[i]
		})
	}
	n.failedAt = time.Time{}
	r.advance(n)
}

// advance puts the question to the next candidate. n is idle.
func (r *Registry) advance(n *name) {
	if !r.subs.Has(n.name) {
		r.drop(n)
		return
	}
	for n.next < len(n.candidates) {
		l := n.candidates[n.next]
		n.next++
		if l.gone {
			continue
		}
		n.asked = l
		l.names[n] = struct{}{}
		if l.open < window {
			r.put(n)
		} else {
			n.waiting = true
			l.backlog = append(l.backlog, n)
		}
		return
	}
	if len(n.candidates) > 0 {
		n.failedAt = time.Now()
		r.count.Unsuccessful++
	}
}

// put sends the question to the candidate and starts its timeout.
func (r *Registry) put(n *name) {
	l := n.asked
	l.open++
	n.waiting = false
	n.question++
	r.asks = append(r.asks, ask{n, n.question, time.Now().Add(r.cfg.ResponseTimeout)})
	if len(r.asks) == 1 {
		ring(r.asked)
	}
	r.count.Asked++
	r.tell(l, r.act.found, n.name)
}

// release ends the question under way: the candidate has answered, left or let
// the time pass. Its place goes to a name that waits for it.
func (r *Registry) release(n *name) {
	l, waited := n.asked, n.waiting
	n.asked, n.waiting = nil, false
	delete(l.names, n)
	if waited { // its place in the backlog is skipped when its turn comes
		return
	}
	l.open--
	for !l.gone && l.open < window && len(l.backlog) > 0 {
		m := l.backlog[0]
		l.backlog = l.backlog[1:]
		if m.asked == l && m.waiting {
			r.put(m)
		}
	}
}

// answered takes a LISTEN_ACCEPT or LISTEN_REJECT.
func (r *Registry) answered(c sub.Client, m *protocol.Message, accept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[m.Subscription]
	if n == nil || n.asked == nil || n.waiting || n.asked.c.ID() != c.ID() || n.asked.p.text != m.Name {
		r.count.Stray++
		r.log.Debug("listen answer ignored: not asked", "conn", c.ID(), "name", m.Subscription)
		return
	}
	l := n.asked
	if l.gone { // the worker is about to take it as a rejection
		return
	}
	r.release(n)
	if !accept {
		r.count.Rejected++
		r.advance(n)
		return
	}
	r.count.Accepted++
	n.provider, n.candidates, n.next = l, nil, 0
	l.names[n] = struct{}{}
	r.providing.Add(1)
	if !r.subs.Has(n.name) {
		r.drop(n)
		return
	}
	r.announce(n, r.act.hasProvider)
}

// expired ends a question whose time has passed, if it is still under way.
func (r *Registry) expired(a ask) {
	n := a.n
	if n.asked == nil || n.waiting || n.question != a.question || n.asked.gone {
		return
	}
	l := n.asked
	r.count.TimedOut++
	l.c.Send(&protocol.Outbound{Message: protocol.Message{
		Topic: r.topic, Action: r.act.timeout, Has: protocol.HasSubscription, Subscription: n.name,
	}})
	r.release(n)
	r.advance(n)
}

// lost takes away from l, which has gone, a name it was asked about or served.
func (r *Registry) lost(n *name, l *listener) {
	switch l {
	case n.asked:
		r.release(n)
		r.advance(n)
	case n.provider:
		n.provider = nil
		delete(l.names, n)
		r.providing.Add(-1)
		r.announce(n, r.act.hasNoProvider)
		r.search(n)
	}
}

// unsubscribed is called when n has no subscriber. A candidate that has been
// asked is left to answer, because it cannot be told to forget the question.
func (r *Registry) unsubscribed(n *name) {
	if n.asked == nil || n.waiting {
		r.drop(n)
	}
}

// drop forgets n; its provider is told.
func (r *Registry) drop(n *name) {
	if n.asked != nil {
		r.release(n)
	}
	if l := n.provider; l != nil {
		n.provider = nil
		delete(l.names, n)
		r.providing.Add(-1)
		if !l.gone {
			r.tell(l, r.act.removed, n.name)
		}
	}
	for _, p := range n.matches {
		delete(p.names, n)
	}
	delete(r.names, n.name)
}

// matched notes that n matches p.
func (r *Registry) matched(n *name, p *pattern) {
	if _, known := p.names[n]; !known {
		p.names[n] = struct{}{}
		n.matches = append(n.matches, p)
	}
}

// join offers n to a listener that has just come, unless it is provided or the
// listener had its chance in this search.
func (r *Registry) join(n *name, l *listener) {
	switch {
	case n.provider != nil || l.gone:
	case n.asked == nil && !r.resting(n):
		r.search(n)
	case slices.Contains(n.candidates, l):
	case n.asked != nil:
		n.candidates = append(n.candidates, l)
	default: // it rests: of the old candidates only those still here need be known
		n.candidates = slices.DeleteFunc(n.candidates, func(o *listener) bool { return o.gone })
		n.next = len(n.candidates)
		n.candidates = append(n.candidates, l)
		n.failedAt = time.Time{}
		r.advance(n)
	}
}

// resting says that n found nobody a short while ago.
func (r *Registry) resting(n *name) bool {
	return !n.failedAt.IsZero() && time.Since(n.failedAt) < r.cfg.MatchCooldown
}

// tell sends a message about one of its names to a listener.
func (r *Registry) tell(l *listener, a protocol.Action, subscription string) {
	l.c.Send(&protocol.Outbound{Message: protocol.Message{
		Topic: r.topic, Action: a, Has: protocol.HasName | protocol.HasSubscription,
		Name: l.p.text, Subscription: subscription,
	}})
}

// announce tells the subscribers of a record whether it has a provider.
func (r *Registry) announce(n *name, a protocol.Action) {
	if r.topic != protocol.TopicRecord {
		return
	}
	r.subs.Deliver(n.name, nil, &protocol.Outbound{Message: protocol.Message{
		Topic: r.topic, Action: a, Has: protocol.HasName, Name: n.name,
	}})
}
