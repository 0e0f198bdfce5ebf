package listen

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
)

// name is a name that somebody wants, asks about or provides. It is guarded by
// Registry.mu.
//
//	idle ──search──► asking ──accept──► provided
//	 ▲                 │                    │
//	 └── nobody left ──┴── provider lost ───┘   no subscriber: the state is dropped
type name struct {
	name    string
	part    int        // its partition
	mine    bool       // it has subscribers on this node, and matches is true
	matches []*pattern // by registration

	candidates []*listener // everybody of the present or last search
	next       int         // the first of them that has not had its turn
	asked      *listener   // whose answer is awaited
	waiting    bool        // asked is busy: the name is in its backlog
	over       bool        // nobody waits for asked any more: an accept is taken back
	question   uint64      // number of the question, to know its timeout

	provider *listener
	failedAt time.Time // when a search found nobody; zero if the last one did not

	away *away // what other nodes have to do with it; nil if they have nothing
}

// ask is a question under way.
type ask struct {
	n        *name
	question uint64
	deadline time.Time
}

// name returns the state of a name, which may be new.
func (r *Registry) name(text string) *name {
	n := r.names[text]
	if n == nil {
		n = &name{name: strings.Clone(text), part: cluster.Partition(cluster.Slot(text), len(r.parts))}
		r.names[n.name] = n
	}
	return n
}

// searching says that somebody, here or elsewhere, is asked whether he provides n.
func (n *name) searching() bool {
	return n.asked != nil && !n.over || n.away != nil && n.away.asking != nil
}

// search asks all candidates anew, one after the other: the listeners of this node and
// then the others that have some. n is not being asked about, but somebody may have been
// left to answer an earlier question: then he begins.
func (r *Registry) search(n *name) {
	if !r.mayJudge(n) || !r.maySearch(n) {
		return
	}
	clear(n.candidates) // or those who have left would live on behind the slice's end
	n.candidates, n.next = n.candidates[:0], 0
	for _, p := range n.matches {
		n.candidates = append(n.candidates, p.listeners...)
	}
	if n.away != nil || len(r.peers) > 0 {
		r.searchAway(n)
	}
	n.failedAt = time.Time{}
	r.begin(n)
}

// begin asks the candidates that stand there.
func (r *Registry) begin(n *name) {
	if r.cfg.ShuffleProviders {
		rand.Shuffle(len(n.candidates), func(i, j int) {
			n.candidates[i], n.candidates[j] = n.candidates[j], n.candidates[i]
		})
	} else {
		// They stand by pattern, and an owner names the patterns in the order in which it
		// learned of them. Those that the worker has not seen yet (0) come last.
		slices.SortStableFunc(n.candidates, func(a, b *listener) int {
			return cmp.Compare(a.joined-1, b.joined-1)
		})
	}
	if n.asked == nil {
		r.advance(n)
		return
	}
	n.over = false
	n.candidates = slices.DeleteFunc(n.candidates, func(l *listener) bool { return l == n.asked })
	n.candidates = slices.Insert(n.candidates, 0, n.asked)
	n.next = 1
}

// advance puts the question to the next candidate. Nobody is being asked about n.
func (r *Registry) advance(n *name) {
	if !r.goesOn(n) {
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
	if n.away != nil && r.advanceAway(n) {
		return
	}
	if len(n.candidates) > 0 || n.away != nil && len(n.away.nodes) > 0 {
		n.failedAt = time.Now()
		r.count.Unsuccessful++
	}
	r.tidy(n)
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

// stop ends the search for a provider of n. A candidate that has been asked is left
// to answer, because it cannot be told to forget the question.
func (r *Registry) stop(n *name) {
	if n.asked != nil {
		if n.waiting {
			r.release(n)
		} else {
			n.over = true
		}
	}
	n.candidates, n.next, n.failedAt = nil, 0, time.Time{}
	if n.away != nil {
		r.stopAway(n)
	}
}

// answered takes a LISTEN_ACCEPT or LISTEN_REJECT.
func (r *Registry) answered(c sub.Client, m *protocol.Message, accept bool) {
	r.mu.Lock()
	defer r.unlock()
	n := r.names[m.Subscription]
	if n == nil || n.asked == nil || n.waiting || n.asked.c.ID() != c.ID() || n.asked.p.text != m.Name {
		r.count.Stray++
		r.log.Debug("listen answer ignored: not asked", "conn", c.ID(), "name", m.Subscription)
		if accept {
			r.deny(n, c, m)
		}
		return
	}
	l := n.asked
	if l.gone { // the worker is about to take it as a rejection
		return
	}
	r.release(n)
	switch {
	case !accept:
		r.count.Rejected++
		r.advance(n)
	case n.over:
		r.tell(l, r.act.removed, n.name)
		r.advance(n)
	default:
		r.accepted(n, l)
	}
}

// deny tells a client that accepts n, which may be nil, too late or unasked that it does
// not provide: the official client takes no notice of LISTEN_RESPONSE_TIMEOUT, and would go
// on for good beside whoever was asked after it.
func (r *Registry) deny(n *name, c sub.Client, m *protocol.Message) {
	l := r.listeners[c.ID()][m.Name]
	if l == nil || l.gone {
		return
	}
	if n != nil && (n.provider != nil && n.provider.c.ID() == c.ID() || n.asked != nil && !n.waiting && n.asked.c.ID() == c.ID()) {
		return // it does provide, or is asked, by another pattern
	}
	r.tell(l, r.act.removed, strings.Clone(m.Subscription))
}

// accepted makes l the provider of n.
func (r *Registry) accepted(n *name, l *listener) {
	r.count.Accepted++
	n.provider, n.candidates, n.next = l, nil, 0
	l.names[n] = struct{}{}
	r.providing.Add(1)
	r.serving++
	r.providedSet.Add(n.name)
	if r.parts[n.part].here && !r.wanted(n) && r.unwanted(n) {
		return
	}
	r.announce(n, r.act.hasProvider)
	r.tellProvided(n)
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
		r.provideNoMore(n)
		r.announce(n, r.act.hasNoProvider)
		if r.parts[n.part].here {
			r.judge(n)
		} else {
			r.postOwner(n, &entry{op: opLost, name: n.name})
			r.tidy(n)
		}
	}
}

// provideNoMore ends the role of n's provider, which is not told.
func (r *Registry) provideNoMore(n *name) {
	delete(n.provider.names, n)
	n.provider = nil
	r.providing.Add(-1)
	r.serving--
	r.providedSet.Remove(n.name)
}

// unsubscribed is called when n has no subscriber on this node. What it matches is not
// kept up from here on, whatever becomes of it.
func (r *Registry) unsubscribed(n *name) {
	for _, p := range n.matches {
		delete(p.names, n)
	}
	n.matches = nil
	r.unmatched(n)
}

// unmatched is called when n matches no pattern any more, or nobody here wants to know.
func (r *Registry) unmatched(n *name) {
	n.mine = false
	r.postOwner(n, &entry{op: opUnwant, name: n.name})
	r.judge(n)
}

// tidy forgets n when nothing holds it.
func (r *Registry) tidy(n *name) {
	if !n.mine && n.provider == nil && n.asked == nil && n.away.empty() && r.names[n.name] == n {
		delete(r.names, n.name)
	}
}

// drop ends all that is done for n, which nobody hears; its provider is told.
func (r *Registry) drop(n *name) {
	if n.asked != nil {
		r.release(n)
	}
	n.over = false
	if l := n.provider; l != nil {
		r.provideNoMore(n)
		if !l.gone {
			r.tell(l, r.act.removed, n.name)
		}
	}
	for _, p := range n.matches {
		delete(p.names, n)
	}
	n.mine, n.matches, n.candidates, n.next, n.failedAt = false, nil, nil, 0, time.Time{}
	if n.away != nil {
		r.stopAway(n)
	}
	r.tidy(n)
}

// matched notes that n matches patterns. The owner hears of them together: it begins
// to search at once, with those that it knows.
func (r *Registry) matched(n *name, patterns ...*pattern) {
	n.mine = true
	known := len(n.matches)
	for _, p := range patterns {
		if _, had := p.names[n]; !had {
			p.names[n] = struct{}{}
			n.matches = append(n.matches, p)
		}
	}
	r.tellMatches(n, n.matches[known:])
}

// tellMatches tells the owner of n, if it is another node, that n is wanted and matches
// patterns.
func (r *Registry) tellMatches(n *name, patterns []*pattern) {
	if !r.telling(n.part) {
		return
	}
	for part := range slices.Chunk(patterns, maxIDs) {
		ids := make([]patternID, len(part))
		for i, p := range part {
			ids[i] = p.id
		}
		r.postOwner(n, &entry{op: opWant, name: n.name, ids: ids})
	}
}

// join offers n to a listener that has just come, unless it is provided or the
// listener had its chance in this search. On a node that does not own n that is the
// owner's to do.
func (r *Registry) join(n *name, l *listener) {
	switch {
	case !r.parts[n.part].here || l.gone || r.provided(n):
	case !n.searching() && !r.resting(n):
		r.judge(n)
	case slices.Contains(n.candidates, l):
	case n.searching():
		n.candidates = append(n.candidates, l)
	default: // it rests: of the old candidates only those still here need be known
		n.candidates = slices.DeleteFunc(n.candidates, func(o *listener) bool { return o.gone })
		n.next = len(n.candidates)
		n.candidates = append(n.candidates, l)
		n.failedAt = time.Time{}
		if n.asked == nil {
			r.advance(n)
		}
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

// announce tells the subscribers of a record on this node that its provider has come
// or gone here, unless there is another one elsewhere.
func (r *Registry) announce(n *name, a protocol.Action) {
	if len(r.elsewhere) > 0 && r.elsewhere[n.name] > 0 {
		return
	}
	r.announceName(n.name, a)
}

func (r *Registry) announceName(name string, a protocol.Action) {
	if r.topic != protocol.TopicRecord {
		return
	}
	r.subs.Deliver(name, nil, &protocol.Outbound{Message: protocol.Message{
		Topic: r.topic, Action: a, Has: protocol.HasName, Name: name,
	}})
}
