package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"hadal/store"
)

// Replicated stands for the log of one partition that a majority of nodes keeps: it
// survives whatever happens to its owners, and its leader may move or stop answering
// for a while. Each owner opens a handle and goes to it over a Path. Chance comes from
// the generator it was made with, time from the clock of the goroutines that use it,
// which may be a synctest bubble's.
//
// What an owner may meet:
//
//   - A way that takes time, or is closed.
//   - A leader that moves (Stall): nothing is answered meanwhile.
//   - An append of unknown outcome (Doubt): it failed and was not made; or it was made
//     and the answer got lost; or it arrives only after the owner has been told that it
//     failed, unless a fence came first.
//   - A full disk (Fill): ErrFull.
//   - Another owner, who has fenced: ErrFenced, at the next append. Until then a
//     handle that was overtaken reads what was there when it was.
//
// NoFence is a mistake on purpose, for tests that must find it: appends of owners that
// were replaced, and those that come late, are made all the same.
type Replicated struct {
	NoFence bool

	mu      sync.Mutex
	chance  *rand.Rand              // guarded by mu
	epoch   uint64                  // the highest seen; guarded by mu
	fence   uint64                  // number of the last fence; guarded by mu
	owner   *replica                // who fenced last; guarded by mu
	records map[string]store.Record // guarded by mu
	full    bool                    // guarded by mu
	doubt   float64                 // guarded by mu
	stalled time.Time               // guarded by mu
	appends int                     // guarded by mu
}

// Path is the way from an owner to the log, or back. It returns when the way has been
// gone, or why it could not.
type Path func(ctx context.Context) error

// errNoAnswer is the outcome of an append that nobody knows.
var errNoAnswer = errors.New("the log did not answer")

// NewReplicated returns an empty log.
func NewReplicated(chance *rand.Rand) *Replicated {
	return &Replicated{chance: chance, records: make(map[string]store.Record)}
}

// Open returns another handle, not yet fenced. A nil path takes no time.
func (l *Replicated) Open(path Path) store.Store {
	if path == nil {
		path = func(ctx context.Context) error { return ctx.Err() }
	}
	return &replica{log: l, path: path}
}

// Stall lets the log answer nothing for a while.
func (l *Replicated) Stall(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = time.Now().Add(d)
}

// Fill says whether there is no room for appends.
func (l *Replicated) Fill(full bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.full = full
}

// Doubt sets the share of appends whose outcome is unknown to the owner, 0 to 1.
func (l *Replicated) Doubt(share float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubt = share
}

// Appends is how many batches have been made.
func (l *Replicated) Appends() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appends
}

// Truth is every record as the log has it.
func (l *Replicated) Truth() map[string]store.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.records)
}

// replica is an owner's handle.
type replica struct {
	log  *Replicated
	path Path

	// What follows is guarded by Replicated.mu.

	epoch  uint64
	fence  uint64 // the number of its fence
	ready  bool   // fenced, and no append failed since
	closed bool
	frozen map[string]store.Record // what it saw when another owner fenced, or nil
}

var _ store.Store = (*replica)(nil)

// arrive goes to the log and waits until it answers.
func (r *replica) arrive(ctx context.Context) error {
	for {
		if err := r.path(ctx); err != nil {
			return err
		}
		r.log.mu.Lock()
		wait := time.Until(r.log.stalled)
		r.log.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// usable says whether the handle may be used. The caller holds mu.
func (r *replica) usable() error {
	switch {
	case r.closed:
		return store.ErrClosed
	case !r.ready:
		return store.ErrFenced
	}
	return nil
}

// Fence implements store.Store.
func (r *replica) Fence(ctx context.Context, epoch uint64) error {
	l := r.log
	l.mu.Lock()
	r.ready = false
	closed := r.closed
	l.mu.Unlock()
	if closed {
		return fmt.Errorf("fence under epoch %d: %w", epoch, store.ErrClosed)
	}
	if err := r.arrive(ctx); err != nil {
		return fmt.Errorf("fence under epoch %d: %w", epoch, err)
	}
	l.mu.Lock()
	if epoch < l.epoch && !l.NoFence {
		seen := l.epoch
		l.mu.Unlock()
		return fmt.Errorf("fence under epoch %d, the log has seen %d: %w", epoch, seen, store.ErrFenced)
	}
	if l.owner != nil && l.owner != r {
		l.owner.frozen = maps.Clone(l.records)
	}
	l.epoch, l.owner = max(l.epoch, epoch), r
	l.fence++
	r.epoch, r.fence, r.frozen = epoch, l.fence, nil
	number := l.fence
	l.mu.Unlock()
	if err := r.path(ctx); err != nil {
		return fmt.Errorf("fence under epoch %d: %w", epoch, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.ready = r.fence == number && !r.closed
	return nil
}

// The fates of an append.
const (
	fateMade = iota
	fateNotMade
	fateAnswerLost
	fateLate
)

// Append implements store.Store.
func (r *replica) Append(ctx context.Context, ops []store.Op) error {
	l := r.log
	l.mu.Lock()
	err := r.usable()
	number := r.fence
	l.mu.Unlock()
	if err == nil {
		err = store.CheckOps(ops)
	}
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	err = r.append(ctx, append([]store.Op(nil), ops...), number)
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !errors.Is(err, store.ErrFull) && r.fence == number {
		r.ready = false
	}
	return fmt.Errorf("append under epoch %d: %w", r.epoch, err)
}

func (r *replica) append(ctx context.Context, ops []store.Op, number uint64) error {
	if err := r.arrive(ctx); err != nil {
		return err
	}
	l := r.log
	l.mu.Lock()
	fate, pause := fateMade, time.Duration(0)
	if l.doubt > 0 && l.chance.Float64() < l.doubt {
		fate = fateNotMade + l.chance.IntN(3)
		pause = time.Duration(l.chance.Int64N(int64(400 * time.Millisecond)))
	}
	var err error
	switch fate {
	case fateMade, fateAnswerLost:
		err = l.make(r, ops, number)
	case fateLate:
		time.AfterFunc(2*pause, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			_ = l.make(r, ops, number) // nobody waits for it any more
		})
	}
	l.mu.Unlock()
	if fate != fateMade {
		t := time.NewTimer(pause)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			return errNoAnswer
		}
	}
	if lost := r.path(ctx); lost != nil {
		return lost
	}
	return err
}

// make does what an append says. The caller holds mu.
func (l *Replicated) make(r *replica, ops []store.Op, number uint64) error {
	switch {
	case l.full:
		return store.ErrFull
	case (l.owner != r || l.fence != number) && !l.NoFence:
		return fmt.Errorf("the log's epoch is %d: %w", l.epoch, store.ErrFenced)
	}
	l.appends++
	for i := range ops {
		if op := &ops[i]; op.Delete {
			delete(l.records, op.Name)
		} else {
			l.records[op.Name] = op.Record
		}
	}
	return nil
}

// Load implements store.Store.
func (r *replica) Load(ctx context.Context, name string) (store.Record, error) {
	records, err := r.read(ctx)
	if err != nil {
		return store.Record{}, fmt.Errorf("load %q: %w", name, err)
	}
	defer r.log.mu.Unlock()
	rec, ok := records[name]
	if !ok {
		return store.Record{}, fmt.Errorf("load %q: %w", name, store.ErrNotFound)
	}
	return rec, nil
}

// read returns what the handle sees, and holds mu when there is no error.
func (r *replica) read(ctx context.Context) (map[string]store.Record, error) {
	r.log.mu.Lock()
	err := r.usable()
	r.log.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := r.arrive(ctx); err != nil {
		return nil, err
	}
	r.log.mu.Lock()
	if err := r.usable(); err != nil {
		r.log.mu.Unlock()
		return nil, err
	}
	if r.frozen != nil {
		return r.frozen, nil
	}
	return r.log.records, nil
}

// Scan implements store.Store, on a copy taken at its start.
func (r *replica) Scan(ctx context.Context, prefix string, fn func(store.Record) error) error {
	records, err := r.read(ctx)
	if err != nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	var found []store.Record
	for name, rec := range records {
		if strings.HasPrefix(name, prefix) {
			found = append(found, rec)
		}
	}
	r.log.mu.Unlock()
	for _, rec := range found {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("scan %q: %w", prefix, err)
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// Names implements store.Store.
func (r *replica) Names(ctx context.Context, prefix string, fn func(name string) error) error {
	return r.Scan(ctx, prefix, func(rec store.Record) error { return fn(rec.Name) })
}

// Close implements store.Store.
func (r *replica) Close() error {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.closed = true
	return nil
}
