package record

import (
	"context"
	"slices"
	"time"

	"hadal/store"
)

// This file is the time in which this node owns a partition: from the table's word
// until another node is named.

// serve is the time in which this node owns the partition. It returns when another
// one does, when ctx ends, or with an error that nobody else will mend.
func (s *seat) serve(ctx context.Context, epoch uint64) error {
	lost := make(chan struct{})
	s.mu.Lock()
	s.busy, s.mine, s.lost, s.isLost = true, epoch, lost, false
	s.settle() // the table may have changed again
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.busy = false
		s.mu.Unlock()
	}()
	begun := time.Now()
	s.room.log.Debug("taking a partition over", "partition", s.partition, "epoch", epoch)
	st, err := s.takeOver(ctx, epoch, lost)
	if st == nil {
		return err
	}
	s.room.log.Debug("partition taken over", "partition", s.partition, "epoch", epoch, "took", time.Since(begun))
	s.room.owned.Add(1)
	s.room.share()
	o := s.room.newOwner(s.partition, epoch, st)
	s.seatOwner(o)
	o.run(ctx, lost)
	s.room.owned.Add(-1)
	s.room.share()
	s.unseatOwner(o)
	if err := st.Close(); err != nil {
		s.room.log.Error("close records failed", "partition", s.partition, "err", err)
	}
	return nil
}

// takeOver opens and fences the store, trying again until it is taken over, or lost is
// closed or ctx ends: then there is no store. What waits meanwhile expires.
func (s *seat) takeOver(ctx context.Context, epoch uint64, lost <-chan struct{}) (store.Store, error) {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	type taken struct {
		store store.Store
		err   error
	}
	result := make(chan taken, 1)
	go func() {
		st, err := s.fence(work, epoch)
		result <- taken{st, err}
	}()
	tick := time.NewTicker(seatTick)
	defer tick.Stop()
	done := result
	var t taken
	for {
		if done == nil && s.alone() {
			return t.store, nil
		}
		var ended <-chan struct{}
		if done == nil { // else it is fence that sees the end
			ended = ctx.Done()
		}
		select {
		case <-ended:
			s.discard(t.store)
			return nil, nil
		case t = <-done:
			if t.store != nil {
				done = nil // nothing of ours may overtake what the owner before still has
				continue
			}
			if t.err != nil && ctx.Err() == nil && work.Err() == nil {
				return nil, t.err
			}
			return nil, nil
		case <-lost:
			cancel()
			if done != nil {
				t = <-done
			}
			if t.store != nil {
				s.discard(t.store)
			}
			return nil, nil
		case <-s.bell:
			s.move()
		case <-tick.C:
			s.expire()
		}
	}
}

// alone says that nothing is with an owner on another node.
func (s *seat) alone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link == nil
}

// fence opens the store and takes it over. Only where nobody else could do so an
// error is final.
func (s *seat) fence(ctx context.Context, epoch uint64) (store.Store, error) {
	var st store.Store
	begun := time.Now()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var err error
		if st == nil {
			st, err = s.room.open(ctx, s.partition)
		}
		if err == nil {
			opened := time.Since(begun)
			if err = st.Fence(ctx, epoch); err == nil {
				s.room.log.Debug("records are fenced", "partition", s.partition, "epoch", epoch, "opened", opened, "fenced", time.Since(begun))
				return st, nil
			}
		}
		if ctx.Err() == nil && s.room.table.Changed() != nil {
			s.room.log.Warn("partition is not taken over yet", "partition", s.partition, "epoch", epoch, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
				continue
			}
		}
		if st != nil {
			s.discard(st)
		}
		return nil, &startError{err}
	}
}

// startError is why a partition cannot be taken over, and never will be.
type startError struct{ err error }

func (e *startError) Error() string { return "take over records: " + e.err.Error() }

func (e *startError) Unwrap() error { return e.err }

// discard closes a store that is not used after all.
func (s *seat) discard(st store.Store) {
	if err := st.Close(); err != nil {
		s.room.log.Error("close records failed", "partition", s.partition, "err", err)
	}
}

// seatOwner hands everything that waits to the owner, in order.
func (s *seat) seatOwner(o *owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.queue {
		s.release(r)
		l := r.lane
		if l == nil {
			l = s.room.operators
		}
		_ = o.mail.force(l, r) // nobody has stopped it yet
	}
	s.queue = nil
	for _, g := range s.guests {
		if g.epoch == o.epoch {
			_ = o.mail.force(g.lane, g.req)
		}
	}
	s.guests = slices.DeleteFunc(s.guests, func(g *guest) bool { return g.epoch == o.epoch })
	for name, k := range s.known {
		o.repair[name] = k.knowledge
	}
	clear(s.known)
	s.unknown = nil
	for name := range o.repair {
		o.toMend = append(o.toMend, name)
	}
	if len(o.toMend) > 0 {
		o.mail.post(s.room.operators, &request{kind: kindCall, trip: &trip{call: o.mend}})
	}
	s.owner.Store(o)
	s.wake()
}

// unseatOwner takes back what the owner has not begun, and what is known of the names
// that clients here have subscribed to.
func (s *seat) unseatOwner(o *owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owner.Store(nil)
	// An owner that has ended takes nothing, and says so: it may have been ctx.
	o.mail.stop(errMoved)
	now := time.Now()
	back := append(o.early, o.returned...)
	for _, r := range back {
		s.admit(r, now)
	}
	s.queue = append(back, s.queue...)
	s.known = o.knows()
	s.ring()
}
