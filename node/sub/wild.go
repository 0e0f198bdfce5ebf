package sub

import (
	"strings"
	"sync"
	"sync/atomic"

	"hadal/auth"
	"hadal/protocol"
)

// This file is subscriptions to many names at once, by filters as MQTT has them. Such a
// subscription gives no right to a name: whatever is delivered is judged for its name
// first, as if the client had subscribed to that. A registry without filters pays one
// atomic load for all this.

// Bounds of what a Watcher keeps.
const (
	// maxLevels is how many levels a filter may have.
	maxLevels = 32
	// maxVerdicts is how many names a Watcher remembers the verdict of.
	maxVerdicts = 4096
	// maxUnjudged and maxUnjudgedBytes are how much may wait for a verdict.
	maxUnjudged      = 4096
	maxUnjudgedBytes = 8 << 20
)

// Judge says whether the user of a client may hear a message, as if the client subscribed
// to its name at that moment. It is called on a goroutine of the Watcher's own and may
// block, for some seconds at most. keep says that the answer is about the name alone and
// holds until the rules or the user change; without it the next message is judged anew.
type Judge func(u *auth.User, o *protocol.Outbound) (ok, keep bool)

// Watcher is a client with its filters. It is of one Registry.
type Watcher struct {
	client     Client
	judge      Judge
	generation func() uint64
	accepts    func(name string) bool
	overflow   func()
	tally      *wildTally // of the registry; set by its first filter

	mu       sync.Mutex
	filters  map[string]struct{} // guarded by mu, like all below
	verdicts map[string]bool
	seen     uint64     // the rules that verdicts are of
	user     *auth.User // likewise
	waiting  []unjudged
	bytes    int
	judged   chan struct{} // closed when nothing is judged any more; nil when nothing is
}

// unjudged is a message that waits for a verdict on its name.
type unjudged struct {
	name string
	o    *protocol.Outbound
}

// NewWatcher makes one. generation is Rules.Generation of the rules that judge asks;
// accepts says which names are meant at all; overflow is called, once and without a lock,
// when more waits for a verdict than may: from then on the client hears nothing.
func NewWatcher(c Client, judge Judge, generation func() uint64, accepts func(name string) bool, overflow func()) *Watcher {
	return &Watcher{
		client: c, judge: judge, generation: generation, accepts: accepts, overflow: overflow,
		filters: make(map[string]struct{}), verdicts: make(map[string]bool),
	}
}

// ValidFilter says whether a filter can be one: + and # stand for whole levels, # at the
// end only, and there are not too many levels.
func ValidFilter(filter string) bool {
	levels := strings.Split(filter, "/")
	if filter == "" || len(levels) > maxLevels {
		return false
	}
	for i, l := range levels {
		if l == "#" && i == len(levels)-1 || l == "+" {
			continue
		}
		if strings.ContainsAny(l, "+#") {
			return false
		}
	}
	return true
}

// hidden says whether no filter reaches a name: the server's own ones.
func hidden(name string) bool {
	return strings.HasPrefix(name, "$") || protocol.Reserved(name)
}

// level is a level of all filters of a registry.
type level struct {
	next        map[string]*level
	here, below []*Watcher // whose filters end here, or with # below
}

// wild is the filters of a registry.
type wild struct {
	mu   sync.RWMutex
	root level // guarded by mu
	n    atomic.Int64

	tally wildTally
}

// wildTally counts what came for filters.
type wildTally struct{ judged, delivered, withheld, overflows atomic.Uint64 }

// WildStats are what came for the filters of a Registry, and the filters there are.
type WildStats struct {
	// Filters is how many there are, of all clients.
	Filters int
	// Judged is how often a rule was asked about a message for a filter; for all else the
	// verdict was known.
	Judged uint64
	// Delivered and Withheld are the messages that the rules let pass, and those not.
	Delivered, Withheld uint64
	// Overflows is how often a client was cut off because too much waited for a verdict.
	Overflows uint64
}

// WildStats counts filters and what came for them.
func (r *Registry) WildStats() WildStats {
	t := &r.wild.tally
	return WildStats{
		Filters: int(r.wild.n.Load()), Judged: t.judged.Load(), Delivered: t.delivered.Load(),
		Withheld: t.withheld.Load(), Overflows: t.overflows.Load(),
	}
}

// Watch adds a filter, which is valid, to those of w. It is Already or Full when that did
// nothing, First for the first filter of all clients.
func (r *Registry) Watch(filter string, w *Watcher) Added {
	r.wild.mu.Lock()
	defer r.wild.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.filters[filter]; ok {
		return Already
	}
	if w.client.Gone() {
		return Ended
	}
	if !w.client.Reserve(Weight(filter)) {
		return Full
	}
	filter = strings.Clone(filter)
	w.filters[filter], w.tally = struct{}{}, &r.wild.tally
	l, end := &r.wild.root, filter
	below := false
	if end == "#" {
		end, below = "", true
	} else if base, ok := strings.CutSuffix(end, "/#"); ok {
		end, below = base, true
	}
	if end != "" || !below {
		for part := range strings.SplitSeq(end, "/") {
			if l.next == nil {
				l.next = make(map[string]*level)
			}
			if l.next[part] == nil {
				l.next[part] = &level{}
			}
			l = l.next[part]
		}
	}
	if below {
		l.below = append(l.below, w)
	} else {
		l.here = append(l.here, w)
	}
	if r.wild.n.Add(1) == 1 {
		return First
	}
	return Further
}

// Unwatch removes a filter; last says that there is none of any client any more.
func (r *Registry) Unwatch(filter string, w *Watcher) (removed, last bool) {
	r.wild.mu.Lock()
	defer r.wild.mu.Unlock()
	w.mu.Lock()
	_, ok := w.filters[filter]
	delete(w.filters, filter)
	w.mu.Unlock()
	if !ok {
		return false, false
	}
	w.client.Release(Weight(filter))
	r.wild.root.remove(filter, w)
	return true, r.wild.n.Add(-1) == 0
}

// Filters are those of w.
func (w *Watcher) Filters() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]string, 0, len(w.filters))
	for f := range w.filters {
		list = append(list, f)
	}
	return list
}

// Wait returns when nothing is judged for w any more. Its client has gone, or it has no
// filter.
func (w *Watcher) Wait() {
	w.mu.Lock()
	judged := w.judged
	w.mu.Unlock()
	if judged != nil {
		<-judged
	}
}

// remove takes a filter out, and the levels that nobody needs any more.
func (l *level) remove(filter string, w *Watcher) {
	part, rest, more := strings.Cut(filter, "/")
	switch {
	case part == "#":
		l.below = without(l.below, w)
		return
	case l.next[part] == nil:
		return
	}
	next := l.next[part]
	if more {
		next.remove(rest, w)
	} else {
		next.here = without(next.here, w)
	}
	if len(next.next)+len(next.here)+len(next.below) == 0 {
		delete(l.next, part)
	}
}

func without(list []*Watcher, w *Watcher) []*Watcher {
	for i := range list {
		if list[i] == w {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			return list[:len(list)-1]
		}
	}
	return list
}

// match calls yield with who has a filter for what is left of a name, maybe twice.
func (l *level) match(rest string, end bool, yield func(*Watcher)) {
	for _, w := range l.below {
		yield(w)
	}
	if end {
		for _, w := range l.here {
			yield(w)
		}
		return
	}
	part, after, more := strings.Cut(rest, "/")
	if next := l.next[part]; next != nil {
		next.match(after, !more, yield)
	}
	if next := l.next["+"]; next != nil && part != "+" {
		next.match(after, !more, yield)
	}
}

// watchers are those with a filter for a name, each once.
func (r *Registry) watchers(name string) []*Watcher {
	if r.wild.n.Load() == 0 || hidden(name) {
		return nil
	}
	var list []*Watcher
	r.wild.mu.RLock()
	defer r.wild.mu.RUnlock()
	var seen map[*Watcher]struct{}
	r.wild.root.match(name, false, func(w *Watcher) {
		if _, twice := seen[w]; twice || !w.accepts(name) {
			return
		}
		if seen == nil {
			seen = make(map[*Watcher]struct{})
		}
		seen[w] = struct{}{}
		list = append(list, w)
	})
	return list
}

// Wants says whether somebody has subscribed to name, or has a filter for it.
func (r *Registry) Wants(name string) bool { return r.Has(name) || len(r.watchers(name)) > 0 }

// Watched says whether there is any filter.
func (r *Registry) Watched() bool { return r.wild.n.Load() > 0 }

// DeliverWild sends o to those with a filter for name who have not subscribed to it by
// name, but except (nil for none), as far as they may hear of it. It never blocks.
func (r *Registry) DeliverWild(name string, except Client, o *protocol.Outbound) int {
	n := 0
	for _, w := range r.watchers(name) {
		if except != nil && except.ID() == w.client.ID() || r.Subscribed(name, w.client) {
			continue
		}
		n++
		w.take(name, o)
	}
	return n
}

// take sends o when the verdict on its name is known and nothing waits before it.
func (w *Watcher) take(name string, o *protocol.Outbound) {
	w.mu.Lock()
	w.current()
	if w.judged == nil {
		if ok, known := w.verdicts[name]; known {
			w.deliver(o, ok)
			w.mu.Unlock()
			return
		}
	}
	if w.client.Gone() {
		w.mu.Unlock()
		return
	}
	size := len(name) + len(o.Data) + len(o.Result)
	if len(w.waiting) >= maxUnjudged || w.bytes+size > maxUnjudgedBytes && len(w.waiting) > 0 {
		w.tally.overflows.Add(1)
		w.mu.Unlock()
		w.overflow()
		return
	}
	w.waiting = append(w.waiting, unjudged{name, o})
	w.bytes += size
	if w.judged == nil {
		w.judged = make(chan struct{})
		go w.work()
	}
	w.mu.Unlock()
}

// deliver sends what has a verdict, if that lets it. The caller holds mu.
func (w *Watcher) deliver(o *protocol.Outbound, ok bool) {
	if !ok {
		w.tally.withheld.Add(1)
		return
	}
	w.tally.delivered.Add(1)
	w.client.Send(o)
}

// current forgets the verdicts of other rules, or about another user, than those of the
// moment. The caller holds mu.
func (w *Watcher) current() {
	if g, u := w.generation(), w.client.User(); g != w.seen || u != w.user {
		w.seen, w.user = g, u
		clear(w.verdicts)
	}
}

// work judges what waits, in order, until nothing does.
func (w *Watcher) work() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.waiting) > 0 && !w.client.Gone() {
		first := w.waiting[0]
		w.current()
		ok, known := w.verdicts[first.name]
		if !known {
			seen, user := w.seen, w.user
			w.mu.Unlock()
			var keep bool
			ok, keep = w.judge(user, first.o)
			w.mu.Lock()
			w.tally.judged.Add(1)
			if w.current(); seen != w.seen || user != w.user {
				continue // it is out of date
			}
			if keep {
				if len(w.verdicts) >= maxVerdicts {
					clear(w.verdicts)
				}
				w.verdicts[strings.Clone(first.name)] = ok
			}
		}
		w.deliver(first.o, ok)
		w.bytes -= len(first.name) + len(first.o.Data) + len(first.o.Result)
		w.waiting[0] = unjudged{}
		w.waiting = w.waiting[1:]
	}
	w.waiting, w.bytes = nil, 0
	close(w.judged)
	w.judged = nil
}

// Settle returns when nothing is being sent any more that rules before those of the
// moment let pass to a filter.
func (r *Registry) Settle() {
	if r.wild.n.Load() == 0 {
		return
	}
	var all []*Watcher
	r.wild.mu.RLock()
	r.wild.root.each(func(w *Watcher) { all = append(all, w) })
	r.wild.mu.RUnlock()
	for _, w := range all {
		w.mu.Lock()
		w.current()
		w.mu.Unlock()
	}
}

func (l *level) each(yield func(*Watcher)) {
	for _, w := range l.here {
		yield(w)
	}
	for _, w := range l.below {
		yield(w)
	}
	for _, next := range l.next {
		next.each(yield)
	}
}
