package rate

import (
	"sync"
	"time"
)

// fewKeys is how many keys a Table holds before it looks for some to forget.
const fewKeys = 1024

// Table is a bucket for each of many keys, all of one Limit. It holds only those that
// are not full, and never more than its bound.
type Table[K comparable] struct {
	limit Limit
	most  int

	mu    sync.Mutex
	full  map[K]int64 // guarded by mu
	prune int         // how many keys make it look for some to forget; guarded by mu
}

// NewTable is a table of at most so many keys.
func NewTable[K comparable](l Limit, most int) *Table[K] {
	return &Table[K]{limit: l, most: most, full: make(map[K]int64), prune: min(fewKeys, most)}
}

// Take takes a token of key at now, as Bucket.Take does. While the table holds as many
// keys as it may, every other key has tokens: who fills it must not shut others out.
func (t *Table[K]) Take(key K, now int64) time.Duration {
	if t.limit.None() {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	full, known := t.full[key]
	after, wait := t.limit.next(full, now)
	if wait > 0 {
		return wait
	}
	if !known && len(t.full) >= t.prune {
		t.forget(now)
		if len(t.full) >= t.most {
			return 0
		}
	}
	t.full[key] = after
	return 0
}

// Wait is what Take would say, and takes nothing.
func (t *Table[K]) Wait(key K, now int64) time.Duration {
	if t.limit.None() {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, wait := t.limit.next(t.full[key], now)
	return max(0, wait)
}

// forget drops the keys whose buckets are full. The caller holds mu. It looks again
// when there are twice as many as are left, so that each key that comes pays for the
// look at two; a table at its bound looks when a key has had the time to go.
func (t *Table[K]) forget(now int64) {
	for key, full := range t.full {
		if full <= now {
			delete(t.full, key)
		}
	}
	t.prune = min(max(fewKeys, 2*len(t.full)), t.most)
}

// Len is how many keys it holds.
func (t *Table[K]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.full)
}
