package listen

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/protocol"
)

// job is one thing for the worker to look at; exactly one field is set.
type job struct {
	name    string    // it got its first subscriber or lost its last; our own copy
	joined  *listener // it has come
	left    *listener // it has gone
	rematch bool      // the rematch interval has passed
	rescan  bool      // so many names changed that all have to be looked at
}

// Run matches, asks and keeps the time until ctx ends, and returns nil when
// nothing it started is left. What is queued afterwards is dropped. It is called
// once.
func (r *Registry) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { r.keepTime(ctx) })
	if r.cfg.RematchInterval > minRematch {
		wg.Go(func() { r.keepRematching(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			r.qmu.Lock()
			r.stopped, r.jobs, r.queued = true, nil, nil
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
	if j.joined == nil && j.left == nil && !j.rematch {
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
	return jobs
}

func (r *Registry) do(ctx context.Context, j job) {
	switch {
	case j.joined != nil:
		r.doJoined(ctx, j.joined)
	case j.left != nil:
		r.doLeft(j.left)
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
	if n := r.names[text]; n != nil || !has {
		// Asked again under mu: whoever subscribes from now on queues the name again.
		if n != nil && !r.subs.Has(text) {
			r.unsubscribed(n)
		}
		r.mu.Unlock()
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
	defer r.mu.Unlock()
	if !r.subs.Has(text) {
		return
	}
	n := &name{name: strings.Clone(text)}
	r.names[n.name] = n
	for _, p := range matching {
		r.matched(n, p)
	}
	r.search(n)
}

// doJoined offers the names that match its pattern to a new listener.
func (r *Registry) doJoined(ctx context.Context, l *listener) {
	p := l.p
	r.mu.Lock()
	gone := l.gone
	r.mu.Unlock()
	if gone || p.removed { // whoever comes and goes at once costs no scan
		return
	}
	if !p.scanned {
		for text := range r.subs.Names {
			if ctx.Err() != nil {
				return
			}
			if protocol.Reserved(text) || !r.match(p, text) {
				continue
			}
			r.mu.Lock()
			n := r.names[text]
			if n != nil {
				r.matched(n, p)
				r.join(n, l)
			}
			r.mu.Unlock()
			if n == nil { // it matched nothing so far, or its own job is yet to come: look at all patterns
				r.doName(ctx, text)
			}
		}
		p.scanned = true
		return
	}
	r.mu.Lock()
	names := make([]*name, 0, len(p.names))
	for n := range p.names {
		names = append(names, n)
	}
	r.mu.Unlock()
	r.each(names, func(n *name) { r.join(n, l) })
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

	p := l.p
	r.mu.Lock()
	if r.listeners[l.c.ID()] == nil {
		delete(r.wasted, l.c.ID())
	}
	l.backlog = nil
	if len(p.listeners) > 0 || p.removed {
		r.mu.Unlock()
		return
	}
	p.removed = true
	delete(r.patterns, p.text)
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
			r.drop(n)
		}
	})
	r.mu.Lock()
	r.live.Store(int64(len(r.patterns)))
	r.mu.Unlock()
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
		if n.provider == nil && n.asked == nil && !r.resting(n) {
			r.search(n)
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
		r.mu.Unlock()
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
				r.mu.Unlock()
				return 0, false
			}
			a := r.asks[0]
			if wait := time.Until(a.deadline); wait > 0 {
				r.mu.Unlock()
				return wait, true
			}
			r.asks = r.asks[1:]
			r.expired(a)
		}
		r.mu.Unlock()
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
