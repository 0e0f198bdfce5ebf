package listen

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/cluster"
	"hadal/protocol"
)

// job is one thing for the worker to look at; exactly one field is set.
type job struct {
	name    string    // it got its first subscriber or lost its last; our own copy
	pattern string    // peers have gained or lost it
	joined  *listener // it has come
	left    *listener // it has gone
	rematch bool      // the rematch interval has passed
	rescan  bool      // so many names changed that all have to be looked at
}

// Run matches, asks and keeps the time until ctx ends, and returns nil when
// nothing it started is left. What is queued afterwards is dropped. It is called
// once.
func (r *Registry) Run(ctx context.Context) error {
	r.refresh() // before anything is decided
	var wg sync.WaitGroup
	wg.Go(func() { r.keepTime(ctx) })
	wg.Go(func() { r.keepPeers(ctx) })
	for _, set := range []*cluster.Set{r.patternSet, r.providedSet} {
		wg.Go(func() {
			if err := set.Run(ctx); err != nil {
				r.log.Error("set of names ended; restart this node", "err", err)
			}
		})
	}
	if r.cfg.RematchInterval > minRematch {
		wg.Go(func() { r.keepRematching(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			r.qmu.Lock()
			r.stopped, r.jobs, r.queued, r.heard = true, nil, nil, nil
			r.qmu.Unlock()
			return nil
		case <-r.work:
			for _, j := range r.take() {
				if ctx.Err() != nil {
					break
				}
				r.do(ctx, j)
			}
		}
	}
}

// enqueue adds a job; a name that waits already is not added again.
func (r *Registry) enqueue(j job) {
	r.qmu.Lock()
	defer r.qmu.Unlock()
	if r.stopped {
		return
	}
	switch {
	case j.pattern != "":
		if _, ok := r.heard[j.pattern]; ok {
			return
		}
		r.heard[j.pattern] = struct{}{}
	case j.joined == nil && j.left == nil && !j.rematch:
		if _, ok := r.queued[j.name]; ok || r.rescan {
			return
		}
		if len(r.queued) >= maxQueued {
			// Subscribing is faster than matching: from here on it does not matter which.
			r.rescan = true
			j = job{rescan: true}
		} else {
			j.name = strings.Clone(j.name) // of a frame, which may be large
			r.queued[j.name] = struct{}{}
		}
	}
	r.jobs = append(r.jobs, j)
	ring(r.work)
}

// take hands all jobs over. Names that change from now on are queued again.
func (r *Registry) take() []job {
	r.qmu.Lock()
	defer r.qmu.Unlock()
	jobs := r.jobs
	r.jobs, r.rescan = nil, false
	if len(r.queued) > 0 {
		r.queued = make(map[string]struct{})
	}
	clear(r.heard)
	return jobs
}

func (r *Registry) do(ctx context.Context, j job) {
	switch {
	case j.joined != nil:
		r.doJoined(ctx, j.joined)
	case j.left != nil:
		r.doLeft(j.left)
	case j.pattern != "":
		r.doPattern(ctx, j.pattern)
	case j.rematch:
		r.doRematch()
	case j.rescan:
		r.doRescan(ctx)
	default:
		r.doName(ctx, j.name)
	}
}

// doName looks at a name whose subscriptions have changed.
func (r *Registry) doName(ctx context.Context, text string) {
	if protocol.Reserved(text) {
		return
	}
	has := r.subs.Has(text)
	r.mu.Lock()
	if n := r.names[text]; n != nil && n.mine || !has {
		// Asked again under mu: whoever subscribes from now on queues the name again.
		if n != nil && n.mine && !r.subs.Has(text) {
			r.unsubscribed(n)
		}
		r.unlock()
		return
	}
	patterns := r.order
	r.mu.Unlock()

	var matching []*pattern
	for _, p := range patterns {
		if ctx.Err() != nil {
			return
		}
		if r.match(p, text) {
			matching = append(matching, p)
		}
	}
	if len(matching) == 0 {
		return
	}
	r.mu.Lock()
	defer r.unlock()
	if !r.subs.Has(text) {
		return
	}
	n := r.name(text)
	r.matched(n, matching...)
	if !n.searching() && !r.resting(n) {
		r.judge(n)
		return
	}
	for _, p := range matching {
		r.offerAll(n, p)
	}
}

// doJoined offers the names that match its pattern to a new listener.
func (r *Registry) doJoined(ctx context.Context, l *listener) {
	p := l.p
	r.mu.Lock()
	gone := l.gone
	if !gone && !p.removed {
		r.joined++
		l.joined = r.joined
		r.postOwners(&entry{op: opJoined, ids: []patternID{p.id}})
	}
	r.unlock()
	if gone || p.removed { // whoever comes and goes at once costs no scan
		return
	}
	scanned := p.scanned
	r.scan(ctx, p, func(n *name) { r.join(n, l) })
	r.each(r.concerned(p, scanned), func(n *name) { r.join(n, l) })
}

// scan looks once for the names that match a pattern, and calls found for each under
// mu, unless the name was new: then its search is just beginning.
func (r *Registry) scan(ctx context.Context, p *pattern, found func(*name)) {
	if p.scanned {
		return
	}
	for text := range r.subs.Names {
		if ctx.Err() != nil {
			return
		}
		if protocol.Reserved(text) || !r.match(p, text) {
			continue
		}
		r.mu.Lock()
		n := r.names[text]
		known := n != nil && n.mine
		if known {
			r.matched(n, p)
			found(n)
		}
		r.unlock()
		if !known { // it matched nothing so far, or its own job is yet to come: look at all patterns
			r.doName(ctx, text)
		}
	}
	p.scanned = true
}

// concerned are the names that match a pattern, as far as peers have told, and if
// own, this node has found.
func (r *Registry) concerned(p *pattern, own bool) []*name {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]*name, 0, len(p.names))
	if own {
		for n := range p.names {
			names = append(names, n)
		}
	}
	for n := range r.votes[p.id] {
		if _, both := p.names[n]; !both || !own {
			names = append(names, n)
		}
	}
	return names
}

// doLeft frees what a listener was asked about or served, and removes its
// pattern when nobody else listens to it.
func (r *Registry) doLeft(l *listener) {
	r.mu.Lock()
	names := make([]*name, 0, len(l.names))
	for n := range l.names {
		names = append(names, n)
	}
	r.mu.Unlock()
	r.each(names, func(n *name) { r.lost(n, l) })

	r.mu.Lock()
	if r.listeners[l.c.ID()] == nil {
		delete(r.wasted, l.c.ID())
	}
	l.backlog = nil
	r.mu.Unlock()
	r.retire(l.p)
}

// doPattern looks at which peers have listeners for a pattern.
func (r *Registry) doPattern(ctx context.Context, text string) {
	peers := r.patternSet.Peers(text)
	r.mu.Lock()
	p := r.patterns[text]
	r.mu.Unlock()
	if p == nil {
		if len(peers) == 0 {
			return
		}
		expr, err := compile(text)
		if err != nil {
			r.log.Warn("listen pattern of another node cannot be used: its names get no provider from here", "peer", peers[0], "err", err)
			return
		}
		r.mu.Lock()
		if p = r.patterns[text]; p == nil { // still
			p = r.know(text, 0, expr)
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	var came []string
	for _, id := range peers {
		if !slices.Contains(p.peers, id) {
			came = append(came, id)
		}
	}
	p.peers = peers
	r.mu.Unlock()
	if len(came) > 0 {
		// A name that matches and rests is not offered by the scan.
		r.scan(ctx, p, func(*name) {})
		r.each(r.concerned(p, true), func(n *name) {
			for _, id := range came {
				r.offer(n, r.peers[id])
			}
		})
	}
	r.retire(p)
}

// retire removes a pattern that nobody listens to any more.
func (r *Registry) retire(p *pattern) {
	r.mu.Lock()
	if len(p.listeners) > 0 || len(p.peers) > 0 || p.removed {
		r.mu.Unlock()
		return
	}
	p.removed = true
	delete(r.patterns, p.text)
	delete(r.byID, p.id)
	r.order = slices.DeleteFunc(slices.Clone(r.order), func(o *pattern) bool { return o == p })
	matched := make([]*name, 0, len(p.names))
	for n := range p.names {
		matched = append(matched, n)
	}
	r.mu.Unlock()
	r.each(matched, func(n *name) {
		delete(p.names, n)
		n.matches = slices.DeleteFunc(n.matches, func(o *pattern) bool { return o == p })
		if len(n.matches) == 0 {
			r.unmatched(n)
		}
	})
	r.mu.Lock()
	r.postOwners(&entry{op: opForget, ids: []patternID{p.id}})
	r.live.Store(int64(len(r.patterns)))
	r.unlock()
}

// doRescan looks at every name that is known or subscribed.
func (r *Registry) doRescan(ctx context.Context) {
	r.mu.Lock()
	known := make([]string, 0, len(r.names))
	for text := range r.names {
		known = append(known, text)
	}
	r.mu.Unlock()
	for _, text := range known {
		r.doName(ctx, text)
	}
	for text := range r.subs.Names {
		if ctx.Err() != nil {
			return
		}
		r.doName(ctx, text)
	}
}

// doRematch offers again every name that has no provider and does not rest.
func (r *Registry) doRematch() {
	r.mu.Lock()
	names := make([]*name, 0, len(r.names))
	for _, n := range r.names {
		names = append(names, n)
	}
	r.mu.Unlock()
	r.each(names, func(n *name) {
		if n.provider == nil && !n.searching() && !r.resting(n) {
			r.judge(n)
		}
	})
}

// each calls do under mu for those of the names that are still there, and lets
// others in between.
func (r *Registry) each(names []*name, do func(*name)) {
	for part := range slices.Chunk(names, chunk) {
		r.mu.Lock()
		for _, n := range part {
			if r.names[n.name] == n {
				do(n)
			}
		}
		r.unlock()
	}
}

// keepTime ends the questions that were not answered in time. All have the same
// timeout, so the oldest is always the first.
func (r *Registry) keepTime(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.asked:
		}
		if wait, ok := r.expire(); ok {
			timer.Reset(wait)
		}
	}
}

// expire ends what is due and returns how long to wait for the next one, if
// there is one.
func (r *Registry) expire() (wait time.Duration, ok bool) {
	for {
		r.mu.Lock()
		for range chunk {
			if len(r.asks) == 0 {
				r.asks = nil
				r.unlock()
				return 0, false
			}
			a := r.asks[0]
			if wait := time.Until(a.deadline); wait > 0 {
				r.unlock()
				return wait, true
			}
			r.asks = r.asks[1:]
			r.expired(a)
		}
		r.unlock()
	}
}

func (r *Registry) keepRematching(ctx context.Context) {
	tick := time.NewTicker(r.cfg.RematchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.enqueue(job{rematch: true})
		}
	}
}

// ring wakes a goroutine that waits, or will wait, on c.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
