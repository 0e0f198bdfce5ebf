package vault

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Call is a kind of call and how it ended, for a count.
type Call struct {
	// Op is get, create, update, delete or list.
	Op string
	// Outcome is ok, not found, exists, conflict, full, not ready, canceled or failed.
	Outcome string
}

// The names of Calls.
var (
	callOps      = [...]string{"get", "create", "update", "delete", "list"}
	callOutcomes = [...]string{"ok", "not found", "exists", "conflict", "full", "not ready", "canceled", "failed"}
)

// Counted is a Vault whose calls are counted.
type Counted struct {
	Vault
	calls [len(callOps)][len(callOutcomes)]atomic.Uint64
}

// Count counts the calls of a Vault.
func Count(v Vault) *Counted { return &Counted{Vault: v} }

// Calls are the calls so far, those that there were.
func (c *Counted) Calls() map[Call]uint64 {
	all := make(map[Call]uint64)
	for op := range c.calls {
		for outcome := range c.calls[op] {
			if n := c.calls[op][outcome].Load(); n > 0 {
				all[Call{callOps[op], callOutcomes[outcome]}] = n
			}
		}
	}
	return all
}

// note counts a call, and returns its error.
func (c *Counted) note(ctx context.Context, op int, err error) error {
	outcome := len(callOutcomes) - 1
	switch {
	case err == nil:
		outcome = 0
	case errors.Is(err, ErrNotFound):
		outcome = 1
	case errors.Is(err, ErrExists):
		outcome = 2
	case errors.Is(err, ErrConflict):
		outcome = 3
	case errors.Is(err, ErrFull):
		outcome = 4
	case errors.Is(err, ErrNotReady):
		outcome = 5
	case errors.Is(ctx.Err(), context.Canceled):
		outcome = 6
	}
	c.calls[op][outcome].Add(1)
	return err
}

// Get implements Vault.
func (c *Counted) Get(ctx context.Context, key string) (Entry, error) {
	e, err := c.Vault.Get(ctx, key)
	return e, c.note(ctx, 0, err)
}

// Create implements Vault.
func (c *Counted) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	revision, err := c.Vault.Create(ctx, key, value, ttl)
	return revision, c.note(ctx, 1, err)
}

// Update implements Vault.
func (c *Counted) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	revision, err := c.Vault.Update(ctx, key, value, revision, ttl)
	return revision, c.note(ctx, 2, err)
}

// Delete implements Vault.
func (c *Counted) Delete(ctx context.Context, key string, revision uint64) error {
	return c.note(ctx, 3, c.Vault.Delete(ctx, key, revision))
}

// List implements Vault. That each ended it is no failure.
func (c *Counted) List(ctx context.Context, prefix string, each func(Entry) error) error {
	var stopped error
	err := c.Vault.List(ctx, prefix, func(e Entry) error {
		stopped = each(e)
		return stopped
	})
	if stopped != nil {
		c.calls[4][0].Add(1)
		return err
	}
	return c.note(ctx, 4, err)
}

// Restore writes an entry of another vault, or of a backup, over what is there. One that
// has ended is left out.
func Restore(ctx context.Context, to Vault, e Entry) error {
	for {
		ttl := time.Duration(0)
		if !e.Ends.IsZero() {
			if ttl = time.Until(e.Ends); ttl <= 0 {
				return nil
			}
		}
		_, err := to.Create(ctx, e.Key, e.Value, ttl)
		if !errors.Is(err, ErrExists) {
			return err
		}
		now, err := to.Get(ctx, e.Key)
		if err == nil {
			_, err = to.Update(ctx, e.Key, e.Value, now.Revision, ttl)
		}
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
}
