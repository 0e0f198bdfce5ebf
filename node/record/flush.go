package record

import (
	"context"
	"slices"
	"time"
)

// This file waits for what is under way in a seat.

// waiter is a flush: it waits for all that came before it.
type waiter struct {
	turn   uint64
	left   int
	taking bool // waits for this node's owner as well
	done   chan struct{}
}

// flush returns when everything that waited or was under way has been answered, or is
// with an owner of this node. It waits for a partition that this node takes over.
func (s *seat) flush(ctx context.Context) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return errStopped
	}
	taking := s.owner.Load() == nil && (s.busy || s.room.table.Owner(s.partition).Here)
	w := &waiter{turn: s.turns, left: len(s.queue) + len(s.refused), done: make(chan struct{})}
	for _, r := range s.sent {
		if r.kind != kindResync {
			w.left++
		}
	}
	w.taking = taking
	if w.over() {
		s.mu.Unlock()
		return nil
	}
	s.waits = append(s.waits, w)
	s.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// over says that nothing is left to wait for.
func (w *waiter) over() bool { return w.left <= 0 && !w.taking }

// notTaking tells flushes that this node takes nothing over.
func (s *seat) notTaking() {
	s.waits = slices.DeleteFunc(s.waits, func(w *waiter) bool {
		w.taking = false
		if w.over() {
			close(w.done)
			return true
		}
		return false
	})
}

// wake ends the flushes that wait for an owner.
func (s *seat) wake() {
	s.space.Broadcast()
	for _, w := range s.waits {
		close(w.done)
	}
	s.waits = nil
}

// left waits until an owner that has lost the partition has handed everything back.
func (s *seat) left(ctx context.Context, o *owner) error {
	tick := time.NewTicker(leasePause)
	defer tick.Stop()
	for s.owner.Load() == o {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
