//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"hadal/protocol"
)

// load is what the clients of a trial have in common.
type load struct {
	rig     *rig
	history *history
	names   *names
	// pace is how long a client waits between two questions, about.
	pace time.Duration

	reconnects, logins atomic.Int64
	// errors are answers that are errors. Faults cause them; a restart in good order
	// must not.
	errors atomic.Int64
	// strict has every error noted as a broken promise.
	strict bool
	// hasty has the trial, one of many, end when the first promise is broken. What is merely
	// late is none there: a machine that stands still finds no mistake.
	hasty  bool
	values atomic.Int64 // so that every write has its own
}

// writer is a client that asks all kinds of questions, one at a time. It prefers a node,
// and goes to another when that one is lost.
type writer struct {
	*load
	rand   *rand.Rand
	prefer int
	at     *session
	client int
}

func newWriter(l *load, seed uint64, number int) *writer {
	return &writer{load: l, rand: rand.New(rand.NewPCG(seed, uint64(number))), prefer: number, client: l.history.client()}
}

// run asks until ctx ends. What is under way then is waited for.
func (w *writer) run(ctx context.Context) {
	defer w.leave()
	for ctx.Err() == nil {
		if w.at == nil && !w.connect(ctx) {
			continue
		}
		lane := w.rand.IntN(lanes)
		if w.rand.IntN(3) == 0 {
			lane = w.rand.IntN(2) // two are hotter than the others
		}
		r := w.names.next(lane)
		if !w.exchange(r, w.question(r)) {
			// One that cannot be served is asked less, as every client does.
			wait(ctx, 50*time.Millisecond)
		}
		wait(ctx, time.Duration(w.rand.Int64N(int64(2*w.pace))))
	}
}

func (w *writer) leave() {
	if w.at != nil {
		w.at.close()
		w.at = nil
	}
}

// connect goes to the preferred node, or to any other.
func (w *writer) connect(ctx context.Context) bool {
	n := w.rig.nodes[w.prefer%len(w.rig.nodes)]
	s, err := dial(ctx, n, fmt.Sprintf("w%d", w.client))
	if err != nil {
		w.prefer = w.rand.IntN(len(w.rig.nodes))
		wait(ctx, 50*time.Millisecond)
		return false
	}
	w.logins.Add(1)
	w.at = s
	return true
}

// question is one of all kinds, most of them writes under the version that must be next.
func (w *writer) question(r *record) question {
	q := question{name: r.name, value: fmt.Sprintf("v%d", w.values.Add(1)), plain: w.rand.IntN(2) == 0}
	switch dice := w.rand.IntN(32); {
	case dice < 8:
		q.kind = read
	case dice < 10:
		q.kind = head
	case dice < 12 && mortal(r.name):
		q.kind = remove
	case dice < 18:
		q.kind = patch
	default:
		q.kind = write
	}
	q.version = r.version.Load() + 1
	switch dice := w.rand.IntN(32); {
	case dice == 0:
		q.version = anyVersion
	case dice == 1:
		q.version++
	case dice == 2 && q.version > 1:
		q.version--
	}
	return q
}

// exchange puts a question, notes question and answer, and says whether there was one.
func (w *writer) exchange(r *record, q question) bool {
	called := w.history.now()
	a, said, err := w.at.ask(q)
	w.history.add(w.client, q, called, a)
	if a.outcome == unknown && q.kind.changes() {
		r.doubts.Add(1)
	}
	switch {
	case err != nil:
		if errors.Is(err, errUnanswered) && !w.hasty {
			w.history.complain("%s: node %s has not answered a %v in %v", q.name, w.at.at.name, q.kind, answerIn)
		}
		w.reconnects.Add(1)
		w.leave()
		w.client = w.history.client()
		return false
	case a.outcome == unknown:
		w.errors.Add(1)
		if w.strict {
			w.history.complain("%s: node %s answered a %v with %s", q.name, w.at.at.name, q.kind, said.Name(protocol.TopicRecord))
		}
		w.client = w.history.client()
		return false
	case a.outcome == missing, a.outcome == done && q.kind == remove:
		r.version.Store(0)
	case a.outcome == done && q.kind.changes() && q.version != anyVersion:
		r.version.Store(q.version)
	case a.outcome != done || !q.kind.changes():
		r.version.Store(a.state.version)
	}
	return true
}

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
