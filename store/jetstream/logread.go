package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"hadal/store"
)

// Load implements store.Store. It looks into the dirty records first; the rest is
// STATE's. While that is being fenced anew it tries for two seconds.
func (l *Logged) Load(ctx context.Context, name string) (store.Record, error) {
	give := time.Now().Add(patience)
	for {
		op, ok, refences, err := l.look(name)
		switch {
		case err == nil && !ok:
			r, stateErr := l.states.Load(ctx, name)
			if errors.Is(stateErr, store.ErrFenced) && time.Now().Before(give) && l.awaitState(ctx, refences) {
				continue
			}
			return r, stateErr
		case err == nil && op.Delete:
			err = store.ErrNotFound
		}
		if err != nil {
			return store.Record{}, fmt.Errorf("load %q: %w", name, err)
		}
		return op.Record, nil
	}
}

// Lacks implements store.Knower.
func (l *Logged) Lacks(name string) bool {
	op, ok, _, err := l.look(name)
	return err == nil && (ok && op.Delete || !ok && l.states.Lacks(name))
}

// look finds a name among the dirty records.
func (l *Logged) look(name string) (op store.Op, ok bool, refences uint64, err error) {
	l.state.Lock()
	defer l.state.Unlock()
	if err := l.usableLocked(); err != nil {
		return op, false, 0, err
	}
	if op, ok = l.dirty[name]; !ok {
		op, ok = l.writing[name]
	}
	return op, ok, l.refences, nil
}

// awaitState has STATE fenced anew, unless that has happened since refences was
// read, and waits a moment. It returns false when it is not for this owner to do,
// or ctx has ended.
func (l *Logged) awaitState(ctx context.Context, refences uint64) bool {
	l.state.Lock()
	usable := l.usableLocked() == nil
	if usable && l.refences == refences {
		l.down = true
	}
	l.state.Unlock()
	if !usable {
		return false
	}
	l.kick()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(retryPause):
		return true
	}
}

// Scan implements store.Store: first the dirty records as they are now, then
// those of STATE whose names were not among them. A record that is in neither
// came into being later; one that was not dirty and is in STATE stays there at
// least as long as the scan goes on. fn may take its time and call the store.
func (l *Logged) Scan(ctx context.Context, prefix string, fn func(store.Record) error) error {
	dirty, fences, err := l.snapshot(prefix)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	for _, op := range dirty {
		if op.Delete {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("scan %q: %w", prefix, err)
		}
		if err := fn(op.Record); err != nil {
			return err
		}
	}
	if err := l.scanState(ctx, prefix, dirty, fn); err != nil {
		return err
	}
	// Another owner may have removed what was dirty, in the LOG and in STATE.
	l.state.Lock()
	defer l.state.Unlock()
	if err = l.usableLocked(); err == nil && l.fences != fences {
		err = fmt.Errorf("fenced anew meanwhile: %w", store.ErrFenced)
	}
	if err != nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	return nil
}

// scanState visits the records of STATE that are not dirty. When STATE is fenced
// anew under the scan it begins again, as long as nothing was given away.
func (l *Logged) scanState(ctx context.Context, prefix string, dirty map[string]store.Op, fn func(store.Record) error) error {
	give := time.Now().Add(patience)
	for {
		l.state.Lock()
		refences := l.refences
		l.state.Unlock()
		given := false
		err := l.states.Scan(ctx, prefix, func(r store.Record) error {
			if _, ok := dirty[r.Name]; ok {
				return nil
			}
			given = true
			return fn(r)
		})
		if given || !errors.Is(err, store.ErrFenced) || time.Now().After(give) || !l.awaitState(ctx, refences) {
			return err
		}
	}
}

// Names implements store.Store.
func (l *Logged) Names(ctx context.Context, prefix string, fn func(name string) error) error {
	return l.Scan(ctx, prefix, func(r store.Record) error { return fn(r.Name) })
}

// snapshot copies the dirty records under prefix.
func (l *Logged) snapshot(prefix string) (dirty map[string]store.Op, fences uint64, err error) {
	l.state.Lock()
	defer l.state.Unlock()
	if err := l.usableLocked(); err != nil {
		return nil, 0, err
	}
	dirty = make(map[string]store.Op)
	for _, m := range []map[string]store.Op{l.writing, l.dirty} { // the later one wins
		for name, op := range m {
			if strings.HasPrefix(name, prefix) {
				dirty[name] = op
			}
		}
	}
	return dirty, l.fences, nil
}
