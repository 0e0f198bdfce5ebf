package vault

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// memoryBehind is how many changes wait for one watcher of a Memory before it begins
// anew.
const memoryBehind = 1 << 16

// errBehind is what a watcher is told who was too slow.
var errBehind = errors.New("the watcher was too slow to hear of every change")

// Memory is a Vault in memory only: for a node whose records are in memory too, and for
// tests. Its clock is package time's, so a synctest bubble drives it. It needs no
// closing.
type Memory struct {
	mu       sync.Mutex
	revision uint64                  // guarded by mu
	entries  map[string]*memoryEntry // guarded by mu
	size     int64                   // guarded by mu; bytes of keys and values
	watchers map[*memoryWatcher]bool // guarded by mu
	behind   int                     // the constant, less in tests
}

// memoryEntry is an entry and when it ends.
type memoryEntry struct {
	Entry
	ends time.Time   // zero: never
	end  *time.Timer // nil: never
}

// memoryWatcher is one Watch.
type memoryWatcher struct {
	prefix string
	more   chan struct{} // holds a token while queue may have something
	queue  []Change      // guarded by the vault's mu
	lost   bool          // guarded by the vault's mu; queue is not all
}

var _ Vault = (*Memory)(nil)

// NewMemory makes an empty one.
func NewMemory() *Memory {
	return &Memory{entries: make(map[string]*memoryEntry), watchers: make(map[*memoryWatcher]bool), behind: memoryBehind}
}

// Size is how many entries there are, and how many bytes their keys and values have.
func (m *Memory) Size() (entries int, size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries), m.size
}

// Get implements Vault.
func (m *Memory) Get(ctx context.Context, key string) (Entry, error) {
	if err := CheckKey(ctx, key); err != nil {
		return Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.findLocked(key); e != nil {
		return e.Entry, nil
	}
	return Entry{}, ErrNotFound
}

// Create implements Vault.
func (m *Memory) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	if err := CheckEntry(ctx, key, value); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.findLocked(key) != nil {
		return 0, ErrExists
	}
	return m.setLocked(key, value, ttl), nil
}

// Update implements Vault.
func (m *Memory) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	if err := CheckEntry(ctx, key, value); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.findLocked(key); e == nil || e.Revision != revision {
		return 0, ErrConflict
	}
	return m.setLocked(key, value, ttl), nil
}

// Delete implements Vault.
func (m *Memory) Delete(ctx context.Context, key string, revision uint64) error {
	if err := CheckKey(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.findLocked(key)
	switch {
	case revision == 0 && e == nil:
		return nil
	case e == nil, revision != 0 && e.Revision != revision:
		return ErrConflict
	}
	m.dropLocked(e)
	return nil
}

// List implements Vault. Entries come in the order of their keys.
func (m *Memory) List(ctx context.Context, prefix string, each func(Entry) error) error {
	if err := CheckPrefix(ctx, prefix); err != nil {
		return err
	}
	m.mu.Lock()
	list := m.belowLocked(prefix)
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	for _, e := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

// Watch implements Vault.
func (m *Memory) Watch(ctx context.Context, prefix string, w Watcher) error {
	if err := CheckPrefix(ctx, prefix); err != nil {
		return err
	}
	watcher := &memoryWatcher{prefix: prefix, more: make(chan struct{}, 1)}
	defer func() {
		m.mu.Lock()
		delete(m.watchers, watcher)
		m.mu.Unlock()
	}()
	for {
		m.mu.Lock()
		watcher.queue, watcher.lost = nil, false
		m.watchers[watcher] = true
		now := m.belowLocked(prefix)
		m.mu.Unlock()
		slices.SortFunc(now, func(a, b Entry) int { return cmp.Compare(a.Revision, b.Revision) })
		for _, e := range now {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			w.Told(Change{Entry: e})
		}
		w.Synced()
		if err := m.follow(ctx, watcher, w); err != nil {
			return err
		}
		w.Lost(errBehind)
	}
}

// follow tells of changes until ctx ends, or returns nil when some are missing.
func (m *Memory) follow(ctx context.Context, watcher *memoryWatcher, w Watcher) error {
	for {
		select {
		case <-watcher.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		m.mu.Lock()
		queue, lost := watcher.queue, watcher.lost
		watcher.queue = nil
		m.mu.Unlock()
		if lost {
			return nil
		}
		for _, c := range queue {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			w.Told(c)
		}
	}
}

// findLocked is an entry that has not ended, or nil. The caller holds mu.
func (m *Memory) findLocked(key string) *memoryEntry {
	e := m.entries[key]
	if e != nil && !e.ends.IsZero() && !time.Now().Before(e.ends) {
		m.dropLocked(e) // its timer is about to
		return nil
	}
	return e
}

// belowLocked are the entries below a prefix. The caller holds mu.
func (m *Memory) belowLocked(prefix string) []Entry {
	var list []Entry
	for key := range m.entries {
		if strings.HasPrefix(key, prefix) {
			if e := m.findLocked(key); e != nil {
				list = append(list, e.Entry)
			}
		}
	}
	return list
}

// setLocked puts an entry in its place. The caller holds mu.
func (m *Memory) setLocked(key string, value []byte, ttl time.Duration) uint64 {
	m.forgetLocked(m.entries[key])
	m.revision++
	e := &memoryEntry{Entry: Entry{Key: key, Value: bytes.Clone(value), Revision: m.revision}}
	if e.Value == nil {
		e.Value = []byte{}
	}
	if ttl = WholeSeconds(ttl); ttl > 0 {
		e.ends = time.Now().Add(ttl)
		e.end = time.AfterFunc(ttl, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.entries[key] == e {
				m.dropLocked(e)
			}
		})
	}
	m.entries[key] = e
	m.size += int64(len(key) + len(value))
	m.tellLocked(Change{Entry: e.Entry})
	return m.revision
}

// dropLocked removes an entry that is there. The caller holds mu.
func (m *Memory) dropLocked(e *memoryEntry) {
	m.forgetLocked(e)
	m.revision++
	m.tellLocked(Change{Entry: Entry{Key: e.Key, Revision: m.revision}, Gone: true})
}

// forgetLocked takes an entry out of its place, if there is one. The caller holds mu.
func (m *Memory) forgetLocked(e *memoryEntry) {
	if e == nil {
		return
	}
	if e.end != nil {
		e.end.Stop()
	}
	delete(m.entries, e.Key)
	m.size -= int64(len(e.Key) + len(e.Value))
}

// tellLocked tells the watchers. The caller holds mu.
func (m *Memory) tellLocked(c Change) {
	for w := range m.watchers {
		if !strings.HasPrefix(c.Key, w.prefix) || w.lost {
			continue
		}
		if len(w.queue) >= m.behind {
			w.queue, w.lost = nil, true
		} else {
			w.queue = append(w.queue, c)
		}
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}
