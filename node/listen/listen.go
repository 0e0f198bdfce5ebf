package listen

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
)

const (
	// maxPattern is the longest pattern in bytes.
	maxPattern = 4096
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
	table cluster.Table
	bus   cluster.Bus
	kind  cluster.Kind // of what nodes tell each other directly
	log   *slog.Logger

	// What all nodes know of all: the patterns of each, and the names that its clients
	// provide.
	patternSet, providedSet *cluster.Set

	skipped     atomic.Uint64 // see Stats
	switchedOff atomic.Uint64 // see Stats

	// Of the worker alone: the time that was wasted, by the client whose patterns did,
	// and in all.
	wasted map[uint64]*budget
	total  budget

	live      atomic.Int64 // len(patterns), readable without mu
	providing atomic.Int64 // names provided here, and those provided elsewhere, readable without mu

	mu        sync.Mutex
	gate      sub.Gate                        // guarded by mu
	patterns  map[string]*pattern             // by text, of this node and others; guarded by mu
	byID      map[patternID]*pattern          // the same; guarded by mu
	order     []*pattern                      // by registration; guarded by mu; what is in it never changes, so a copy of the slice stays valid
	listeners map[uint64]map[string]*listener // client id → pattern; guarded by mu
	users     map[string]int                  // user id → listeners; guarded by mu
	names     map[string]*name                // guarded by mu
	asks      []ask                           // questions in the order of their deadlines; guarded by mu
	count     Stats                           // the counters of Stats; guarded by mu
	serving   int                             // names provided here; guarded by mu
	joined    uint64                          // the number of the listener that joined last; guarded by mu

	self      string                      // this node's id; guarded by mu
	parts     []partition                 // guarded by mu
	peers     map[string]*peer            // nodes that are alive or linked; guarded by mu
	votes     map[patternID]map[*name]int // how many peers told that a name matches; guarded by mu
	elsewhere map[string]int              // how many live peers provide a name; guarded by mu
	searches  uint64                      // the number of the last question to a peer; guarded by mu
	posted    []*peer                     // those with something in their post; guarded by mu
	peering   chan struct{}               // says to keepPeers that there is something to do

	asked chan struct{} // says to the clock that asks is not empty any more

	qmu     sync.Mutex
	jobs    []job               // guarded by qmu
	queued  map[string]struct{} // the names in jobs, at most maxQueued; guarded by qmu
	heard   map[string]struct{} // the patterns in jobs; guarded by qmu
	rescan  bool                // jobs has one to look at all names; guarded by qmu
	stopped bool                // Run has ended; guarded by qmu
	work    chan struct{}       // says to the worker that jobs is not empty any more
}

// pattern is one expression and those who listen to it.
type pattern struct {
	text      string
	id        patternID
	author    uint64 // the client that brought it; 0 if it came from another node
	expr      *expression
	peers     []string           // nodes that have listeners; guarded by Registry.mu
	listeners []*listener        // by registration; guarded by Registry.mu
	names     map[*name]struct{} // the names of this node that match; guarded by Registry.mu
	scanned   bool               // the names that were there before it are known; the worker's
	removed   bool               // it has left the registry; the worker's
}

// listener is one client's registration of one pattern. All but the first two
// fields are guarded by Registry.mu.
type listener struct {
	c       sub.Client
	p       *pattern
	joined  uint64             // numbers those that the worker has seen, in its order
	gone    bool               // unlistened or disconnected
	names   map[*name]struct{} // what it is asked about or serves
	open    int                // questions sent and not answered
	backlog []*name            // names that wait for a free place among them
}

// Stats are gauges and counters of one Registry.
type Stats struct {
	// Patterns and Listeners count what is registered now: patterns in the cluster,
	// listeners on this node; a pattern can have several.
	Patterns, Listeners int
	// Matched is how many names this node looks after: those subscribed here that
	// match a pattern, those that others ask about, and those it owns. Provided is how
	// many its clients provide, Elsewhere how many those of others do.
	Matched, Provided, Elsewhere int
	// Asked, Accepted, Rejected and TimedOut count the questions put to providers
	// and their ends since the start; Stray counts answers nobody had asked for.
	Asked, Accepted, Rejected, TimedOut, Stray uint64
	// Refused counts patterns that were not taken, SwitchedOff those that were taken
	// and then wasted too much time, Skipped matches that were not tried because too
	// much had been wasted.
	Refused, SwitchedOff, Skipped uint64
	// Unsuccessful counts searches that ended without a provider.
	Unsuccessful uint64
	// Referred counts questions put to other nodes, Ended providers that were told to
	// stop because another node has one too, Invalid messages of peers that could not
	// be understood, or asked for more than a peer may have.
	Referred, Ended, Invalid uint64
}

// New returns the registry of topic, which is EVENT or RECORD, over the
// subscriptions in subs. The table says who owns a name and who is alive; the bus,
// which does not run yet, reaches the registries of the same topic on other nodes. A
// ResponseTimeout of zero or less means the default.
func New(topic protocol.Topic, cfg Config, subs *sub.Registry, table cluster.Table, bus cluster.Bus, log *slog.Logger) *Registry {
	act, kind, patterns, provided := eventActions, cluster.KindEventListen, cluster.KindEventPatterns, cluster.KindEventProvided
	if topic == protocol.TopicRecord {
		act, kind, patterns, provided = recordActions, cluster.KindRecordListen, cluster.KindRecordPatterns, cluster.KindRecordProvided
	}
	if cfg.ResponseTimeout <= 0 {
		cfg.ResponseTimeout = DefaultConfig().ResponseTimeout
	}
	if cfg.MaxPatterns <= 0 {
		cfg.MaxPatterns = DefaultConfig().MaxPatterns
	}
	r := &Registry{
		topic: topic, act: act, cfg: cfg, subs: subs, table: table, bus: bus, kind: kind,
		log:       log.With("topic", topic.String()),
		patterns:  make(map[string]*pattern),
		byID:      make(map[patternID]*pattern),
		listeners: make(map[uint64]map[string]*listener),
		users:     make(map[string]int),
		names:     make(map[string]*name),
		wasted:    make(map[uint64]*budget),
		peers:     make(map[string]*peer),
		votes:     make(map[patternID]map[*name]int),
		elsewhere: make(map[string]int),
		asked:     make(chan struct{}, 1),
		peering:   make(chan struct{}, 1),
		queued:    make(map[string]struct{}),
		heard:     make(map[string]struct{}),
		work:      make(chan struct{}, 1),
	}
	r.patternSet = cluster.NewSet(bus, table, patterns, func(_, text string, _ bool) { r.enqueue(job{pattern: text}) })
	r.providedSet = cluster.NewSet(bus, table, provided, r.providedElsewhere)
	bus.Handle(kind, peerHandler{r})
	r.refresh()
	return r
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

// Subscribe has add subscribe a client to name, and calls provided if it returns true and
// somebody in the cluster provides name, as far as this node knows. Nothing is told of
// providers between the two, nor while provided tells the client: so it hears of each of
// them once, and in order. Both may call what may be called under mu, and Changed. It
// returns what add does.
func (r *Registry) Subscribe(name string, add func() bool, provided func()) bool {
	if r.live.Load() == 0 && r.providing.Load() == 0 {
		return add() // who begins to listen now has yet to be asked, and tells this one too
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !add() {
		return false
	}
	if r.elsewhere[name] > 0 || r.providedHere(name) {
		provided()
	}
	return true
}

// HasProvider says whether somebody in the cluster provides name, as far as this node
// knows now.
func (r *Registry) HasProvider(name string) bool {
	if r.providing.Load() == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.elsewhere[name] > 0 || r.providedHere(name)
}

// providedHere says whether a client of this node provides name. The caller has mu.
func (r *Registry) providedHere(name string) bool {
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
		ended += r.judgeAgain(rules, listeners)
	}
	return ended
}

// RejudgeClient is Rejudge for one client, whose user has changed. It is called on its
// reader.
func (r *Registry) RejudgeClient(rules sub.Rules, c sub.Client) int {
	r.mu.Lock()
	listeners := slices.Collect(maps.Values(r.listeners[c.ID()]))
	r.mu.Unlock()
	return r.judgeAgain(rules, listeners)
}

// judgeAgain ends the listeners that rules do not allow, and returns how many.
func (r *Registry) judgeAgain(rules sub.Rules, listeners []*listener) (ended int) {
	for _, l := range listeners {
		if rules.Refuse(l.c.User(), r.topic, r.act.listen, l.p.text, "") != 0 && r.evict(l) {
			ended++
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
	st.Provided, st.Elsewhere = r.serving, len(r.elsewhere)
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
	case len(own) >= r.cfg.MaxPatterns:
		r.mu.Unlock()
		r.refuse(c, m, errTooMany)
		return
	case !r.admits(c.User()):
		r.mu.Unlock()
		r.refuse(c, m, errUserTooMany)
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
		p = r.know(text, c.ID(), expr)
	}
	l := &listener{c: c, p: p, names: make(map[*name]struct{})}
	if len(p.listeners) == 0 {
		r.patternSet.Add(p.text)
	}
	p.listeners = append(p.listeners, l)
	if own == nil {
		own = make(map[string]*listener, 1)
		r.listeners[c.ID()] = own
	}
	own[p.text] = l
	r.users[c.User().ID]++
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

// know adds a pattern. The caller holds mu.
func (r *Registry) know(text string, author uint64, expr *expression) *pattern {
	p := &pattern{text: strings.Clone(text), id: idOf(text), author: author, expr: expr, names: make(map[*name]struct{})}
	r.patterns[p.text], r.byID[p.id] = p, p
	r.order = append(r.order, p)
	r.live.Store(int64(len(r.patterns)))
	return p
}

// admits says whether a user may have one more listener. The caller holds mu.
func (r *Registry) admits(u *auth.User) bool {
	most := r.cfg.MaxPatternsPerUser
	return most == 0 || u.IsAnonymous() || r.users[u.ID] < most
}

// leave takes l out of its pattern; what it was asked or served follows on the
// worker. The caller holds mu.
func (r *Registry) leave(l *listener) {
	l.gone = true
	l.c.Release(weight(l.p.text))
	user := l.c.User().ID
	if r.users[user]--; r.users[user] == 0 {
		delete(r.users, user)
	}
	l.p.listeners = slices.DeleteFunc(l.p.listeners, func(o *listener) bool { return o == l })
	if len(l.p.listeners) == 0 {
		r.patternSet.Remove(l.p.text)
	}
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
