// Package listen chooses, for each subscribed name that matches the pattern of a
// provider, the one provider that serves it (spec 09 §2). Events and records have
// a Registry each; the two differ in action numbers, and in that only records
// tell their subscribers whether there is a provider.
//
// # How a decision is made
//
// A name that is subscribed and matches at least one pattern has a state (type
// name): idle, asking one candidate, or provided. All states stand under one
// mutex, and every decision about a name is made there, so there is one answer
// at a time to "who is asked" and "who serves".
//
// What costs time is done outside of it by one worker, part of Run: matching
// names against patterns. Subscribing only puts the name into the worker's queue
// (Changed), so a reader never waits for a regular expression. The queue is level
// triggered: it says "look at this name", and the worker asks the subscription
// registry what is true now. A name is matched once, when it gets its first
// subscriber or when a new pattern comes; the patterns that match it are kept in
// its state, and a name without a state matches none. A second goroutine of Run
// holds the clock: candidates that do not answer, and the rematch.
//
// # What differs from the peer
//
//   - The ack of a LISTEN or UNLISTEN goes out before anything that follows from it
//     (spec 15, trap 38). Every LISTEN and UNLISTEN is acknowledged, but for an
//     invalid pattern.
//   - Only the client that was asked may accept or reject, and with the pattern it
//     was asked for. A candidate that leaves is a rejection; the others stay.
//   - A name nobody accepted rests for MatchCooldown: the rematch passes it over.
//     A provider that registers meanwhile is asked at once, alone. When the last
//     subscriber leaves, the failure is forgotten.
//   - A name whose last subscriber leaves while a candidate is being asked: a
//     LISTEN_ACCEPT is answered with SUBSCRIPTION_FOR_PATTERN_REMOVED, so that the
//     provider does not feed a name nobody hears.
//   - At most window questions wait for one provider at a time; with more, the
//     name waits its turn and its timeout begins when it is asked. A provider that
//     registers for a pattern with a hundred thousand names can so answer in time.
//
// # Patterns
//
// A pattern is an unanchored JavaScript regular expression without flags, read by
// dlclark/regexp2 in its ECMAScript mode. It works on code points where JavaScript
// works on UTF-16 units. A pattern may be 4096 bytes long, a client may have 1000,
// and they count among its subscriptions, as they are large; what is beyond is
// answered with INVALID_LISTEN_REGEX. Plain patterns are
// matched by the standard library in linear time (linear.go), the others by
// regexp2: a match may then take 50 ms (the engine's clock is coarse: up to 150),
// and one that takes longer counts as none. A pattern that goes on to waste time is
// switched off (see expression.match); what the patterns of one client waste
// together is bounded, and what those of all do (see Registry.match).
//
// Names under hadal/ belong to the server: a client may subscribe to them, but no
// pattern matches them, so nobody is asked to provide them.
//
// # Locks
//
// Registry.mu, then (never the other way round) the locks of sub.Registry inside
// its methods; Registry.qmu is taken alone or under mu. Under mu only
// Client.Answer, Client.Send and the subscription registry are called.
package listen

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/node/sub"
	"hadal/protocol"
)

const (
	// maxPattern is the longest pattern in bytes.
	maxPattern = 4096
	// maxPatterns is how many patterns one client may listen to.
	maxPatterns = 1000
	// patternBytes and patternShare say what a pattern weighs among the subscriptions
	// of its client (sub.Client.Reserve): compiled, a short one is as large as ten of
	// them, and each four bytes of it as one.
	patternBytes, patternShare = 4, 10
	// window is how many questions may wait for one listener's answers.
	window = 4096
	// maxQueued is how many names may wait for the worker one by one.
	maxQueued = 1 << 16
	// chunk is how many names are treated before mu is given to others.
	chunk = 256
	// minRematch is the longest RematchInterval that means "never" (spec 09 §2.2).
	minRematch = time.Second
)

// actions are the numbers of a topic's listen actions.
type actions struct {
	listen, unlisten, accept, reject protocol.Action
	found, removed                   protocol.Action
	hasProvider, hasNoProvider       protocol.Action
	timeout, invalid, multiple       protocol.Action
}

var eventActions = actions{
	listen: protocol.EventListen, unlisten: protocol.EventUnlisten,
	accept: protocol.EventListenAccept, reject: protocol.EventListenReject,
	found:       protocol.EventSubscriptionForPatternFound,
	removed:     protocol.EventSubscriptionForPatternRemoved,
	hasProvider: protocol.EventSubscriptionHasProvider, hasNoProvider: protocol.EventSubscriptionHasNoProvider,
	timeout: protocol.EventListenResponseTimeout, invalid: protocol.EventInvalidListenRegex,
	multiple: protocol.EventMultipleSubscriptions,
}

var recordActions = actions{
	listen: protocol.RecordListen, unlisten: protocol.RecordUnlisten,
	accept: protocol.RecordListenAccept, reject: protocol.RecordListenReject,
	found:       protocol.RecordSubscriptionForPatternFound,
	removed:     protocol.RecordSubscriptionForPatternRemoved,
	hasProvider: protocol.RecordSubscriptionHasProvider, hasNoProvider: protocol.RecordSubscriptionHasNoProvider,
	timeout: protocol.RecordListenResponseTimeout, invalid: protocol.RecordInvalidListenRegex,
	multiple: protocol.RecordMultipleSubscriptions,
}

// Registry knows who listens to which pattern and who provides which name of one
// topic. Its methods may be called from anywhere; nothing is matched, asked or
// timed out before Run.
type Registry struct {
	topic protocol.Topic
	act   actions
	cfg   Config
	subs  *sub.Registry
	log   *slog.Logger

	skipped     atomic.Uint64 // see Stats
	switchedOff atomic.Uint64 // see Stats

	// Of the worker alone: the time that was wasted, by the client whose patterns did,
	// and in all.
	wasted map[uint64]*budget
	total  budget

	live      atomic.Int64 // len(patterns), readable without mu
	providing atomic.Int64 // names with a provider, readable without mu

	mu        sync.Mutex
	gate      sub.Gate                        // guarded by mu
	patterns  map[string]*pattern             // by text; guarded by mu
	order     []*pattern                      // by registration; guarded by mu; what is in it never changes, so a copy of the slice stays valid
	listeners map[uint64]map[string]*listener // client id → pattern; guarded by mu
	names     map[string]*name                // guarded by mu
	asks      []ask                           // questions in the order of their deadlines; guarded by mu
	count     Stats                           // the counters of Stats; guarded by mu

	asked chan struct{} // says to the clock that asks is not empty any more

	qmu     sync.Mutex
	jobs    []job               // guarded by qmu
	queued  map[string]struct{} // the names in jobs, at most maxQueued; guarded by qmu
	rescan  bool                // jobs has one to look at all names; guarded by qmu
	stopped bool                // Run has ended; guarded by qmu
	work    chan struct{}       // says to the worker that jobs is not empty any more
}

// pattern is one expression and those who listen to it.
type pattern struct {
	text      string
	author    uint64 // the client that brought it
	expr      *expression
	listeners []*listener        // by registration; guarded by Registry.mu
	names     map[*name]struct{} // the names that match; guarded by Registry.mu
	scanned   bool               // the names that were there before it are known; the worker's
	removed   bool               // it has left the registry; the worker's
}

// listener is one client's registration of one pattern. All but the first two
// fields are guarded by Registry.mu.
type listener struct {
	c       sub.Client
	p       *pattern
	gone    bool               // unlistened or disconnected
	names   map[*name]struct{} // what it is asked about or serves
	open    int                // questions sent and not answered
	backlog []*name            // names that wait for a free place among them
}

// Stats are gauges and counters of one Registry.
type Stats struct {
	// Patterns and Listeners count what is registered now; a pattern can have
	// several listeners.
	Patterns, Listeners int
	// Matched is how many subscribed names match a pattern now, Provided how many
	// of them have a provider.
	Matched, Provided int
	// Asked, Accepted, Rejected and TimedOut count the questions put to providers
	// and their ends since the start; Stray counts answers nobody had asked for.
	Asked, Accepted, Rejected, TimedOut, Stray uint64
	// Refused counts patterns that were not taken, SwitchedOff those that were taken
	// and then wasted too much time, Skipped matches that were not tried because too
	// much had been wasted.
	Refused, SwitchedOff, Skipped uint64
	// Unsuccessful counts searches that ended without a provider.
	Unsuccessful uint64
}

// New returns the registry of topic, which is EVENT or RECORD, over the
// subscriptions in subs. A ResponseTimeout of zero or less means the default.
func New(topic protocol.Topic, cfg Config, subs *sub.Registry, log *slog.Logger) *Registry {
	act := eventActions
	if topic == protocol.TopicRecord {
		act = recordActions
	}
	if cfg.ResponseTimeout <= 0 {
		cfg.ResponseTimeout = DefaultConfig().ResponseTimeout
	}
	return &Registry{
		topic: topic, act: act, cfg: cfg, subs: subs, log: log.With("topic", topic.String()),
		patterns:  make(map[string]*pattern),
		listeners: make(map[uint64]map[string]*listener),
		names:     make(map[string]*name),
		wasted:    make(map[uint64]*budget),
		asked:     make(chan struct{}, 1),
		queued:    make(map[string]struct{}),
		work:      make(chan struct{}, 1),
	}
}

// Handle takes a LISTEN, UNLISTEN, LISTEN_ACCEPT or LISTEN_REJECT of the
// registry's topic, on the reader of c. Other actions are logged and dropped.
func (r *Registry) Handle(c sub.Client, m *protocol.Message) {
	switch m.Action {
	case r.act.listen:
		r.listen(c, m)
	case r.act.unlisten:
		r.unlisten(c, m)
	case r.act.accept:
		r.answered(c, m, true)
	case r.act.reject:
		r.answered(c, m, false)
	default:
		r.log.Debug("not a listen action", "conn", c.ID(), "action", m.Action.Name(r.topic))
	}
}

// Changed says that name got its first subscriber or lost its last. It only
// queues the name, and may be called from anywhere, after the change was made.
func (r *Registry) Changed(name string) {
	// Without a pattern there is nothing to decide. No change is missed: a pattern
	// is counted in live before its scan of all names begins.
	if r.live.Load() == 0 {
		return
	}
	r.enqueue(job{name: name})
}

// HasProvider says whether somebody provides name now. A subscriber that was
// added before the call will be told of later changes.
func (r *Registry) HasProvider(name string) bool {
	if r.providing.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[name]
	return n != nil && n.provider != nil && !n.provider.gone
}

// Closed forgets a client that has disconnected. Its subscriptions are not this
// registry's business: whoever ends them calls Changed.
func (r *Registry) Closed(c sub.Client) {
	r.mu.Lock()
	var left []*listener
	for _, l := range r.listeners[c.ID()] {
		left = append(left, l)
		r.leave(l)
	}
	delete(r.listeners, c.ID())
	r.mu.Unlock()
	for _, l := range left {
		r.enqueue(job{left: l})
	}
}

// Rejudge ends the listening that rules, which are in force, do not allow any more,
// as if the clients had unlistened, and tells them: of each name they provide that
// it is over, and of each pattern. They are not asked anything afterwards. It
// returns how many listeners that were.
func (r *Registry) Rejudge(rules sub.Rules) int {
	r.mu.Lock()
	r.gate.Turn(rules)
	patterns := r.order
	r.mu.Unlock()
	ended := 0
	for _, p := range patterns {
		r.mu.Lock()
		listeners := slices.Clone(p.listeners)
		r.mu.Unlock()
		for _, l := range listeners {
			if rules.Refuse(l.c.User(), r.topic, r.act.listen, p.text, "") != 0 && r.evict(l) {
				ended++
			}
		}
	}
	return ended
}

// evict ends what a listener does not end itself, if it is still there.
func (r *Registry) evict(l *listener) bool {
	r.mu.Lock()
	if l.gone {
		r.mu.Unlock()
		return false
	}
	var provided []string
	for n := range l.names {
		if n.provider == l {
			provided = append(provided, n.name)
		}
	}
	r.leave(l)
	r.disown(l)
	r.mu.Unlock()
	for _, name := range provided {
		r.tell(l, r.act.removed, name)
	}
	sub.TellEnded(l.c, r.topic, r.act.listen, l.p.text)
	r.enqueue(job{left: l})
	return true
}

// Stats returns the numbers of this moment.
func (r *Registry) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.count
	st.Patterns = len(r.patterns)
	for _, p := range r.order {
		st.Listeners += len(p.listeners)
	}
	st.Matched = len(r.names)
	st.SwitchedOff, st.Skipped = r.switchedOff.Load(), r.skipped.Load()
	st.Provided = int(r.providing.Load())
	return st
}

func (r *Registry) listen(c sub.Client, m *protocol.Message) {
	text := m.Name
	r.mu.Lock()
	p := r.patterns[text]
	r.mu.Unlock()
	var expr *expression
	if p == nil {
		var err error
		if expr, err = compile(text); err != nil {
			r.refuse(c, m, err)
			return
		}
	}

	r.mu.Lock()
	for judged := m.Judged; ; {
		rules := r.gate.Holds(judged)
		if rules == nil {
			break
		}
		r.mu.Unlock()
		var ok bool
		if judged, ok = sub.Again(rules, c, m, text); !ok {
			return
		}
		r.mu.Lock()
	}
	own := r.listeners[c.ID()]
	switch {
	case c.Gone(): // Closed was called, or will be: then it must find nothing new
		r.mu.Unlock()
		return
	case own[text] != nil:
		r.mu.Unlock()
		c.Answer(&protocol.Message{
			Topic: r.topic, Action: r.act.multiple, Has: protocol.HasName | protocol.HasOriginalAction,
			Name: text, OriginalAction: r.act.listen,
		})
		r.ack(c, m)
		return
	case len(own) >= maxPatterns:
		r.mu.Unlock()
		r.refuse(c, m, errTooMany)
		return
	case !c.Reserve(weight(text)):
		r.mu.Unlock()
		r.refuse(c, m, errTooMuch)
		return
	}
	if p = r.patterns[text]; p == nil {
		if expr == nil { // it was there a moment ago
			r.mu.Unlock()
			c.Release(weight(text))
			r.listen(c, m)
			return
		}
		p = &pattern{text: strings.Clone(text), author: c.ID(), expr: expr, names: make(map[*name]struct{})}
		r.patterns[p.text] = p
		r.order = append(r.order, p)
		r.live.Store(int64(len(r.patterns)))
	}
	l := &listener{c: c, p: p, names: make(map[*name]struct{})}
	p.listeners = append(p.listeners, l)
	if own == nil {
		own = make(map[string]*listener, 1)
		r.listeners[c.ID()] = own
	}
	own[p.text] = l
	r.ack(c, m) // under mu: before the first question
	r.mu.Unlock()
	r.enqueue(job{joined: l})
}

func (r *Registry) unlisten(c sub.Client, m *protocol.Message) {
	r.mu.Lock()
	l := r.listeners[c.ID()][m.Name]
	if l != nil {
		r.leave(l)
		r.disown(l)
	}
	r.ack(c, m)
	r.mu.Unlock()
	if l != nil {
		r.enqueue(job{left: l})
	}
}

// leave takes l out of its pattern; what it was asked or served follows on the
// worker. The caller holds mu.
func (r *Registry) leave(l *listener) {
	l.gone = true
	l.c.Release(weight(l.p.text))
	l.p.listeners = slices.DeleteFunc(l.p.listeners, func(o *listener) bool { return o == l })
}

// disown takes l out of its client's table. The caller holds mu.
func (r *Registry) disown(l *listener) {
	own := r.listeners[l.c.ID()]
	delete(own, l.p.text)
	if len(own) == 0 {
		delete(r.listeners, l.c.ID())
	}
}

// weight is what a pattern counts for.
func weight(text string) int { return patternShare + len(text)/patternBytes }

func (r *Registry) ack(c sub.Client, m *protocol.Message) {
	c.Answer(&protocol.Message{
		Topic: r.topic, Action: m.Action, IsAck: true, Has: m.Has & (protocol.HasName | protocol.HasCorrelationID),
		Name: m.Name, CorrelationID: m.CorrelationID,
	})
}

// refuse answers INVALID_LISTEN_REGEX, which no ack follows.
func (r *Registry) refuse(c sub.Client, m *protocol.Message, err error) {
	r.mu.Lock()
	r.count.Refused++
	r.mu.Unlock()
	r.log.Debug("listen pattern refused", "conn", c.ID(), "user", c.User().ID, "err", err)
	c.Answer(&protocol.Message{Topic: r.topic, Action: r.act.invalid, Has: m.Has & protocol.HasName, Name: m.Name})
}
