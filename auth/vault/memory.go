package vault

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory is a Vault in memory only: for a node whose records are in memory too, and for
// tests. Its clock is package time's, so a synctest bubble drives it. It needs no
// closing.
type Memory struct {
	mu       sync.Mutex
	revision uint64                  // guarded by mu
	entries  map[string]*memoryEntry // guarded by mu
	size     int64                   // guarded by mu; bytes of keys and values
	fan      *Fan                    // told under mu, so in order
}

// memoryEntry is an entry and what ends it.
type memoryEntry struct {
	Entry
	end *time.Timer // nil: never
}

var _ Vault = (*Memory)(nil)

// NewMemory makes an empty one.
func NewMemory() *Memory {
	return &Memory{entries: make(map[string]*memoryEntry), fan: NewFan(0)}
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
	return m.fan.Watch(ctx, prefix, w, m.List)
}

// findLocked is an entry that has not ended, or nil. The caller holds mu.
func (m *Memory) findLocked(key string) *memoryEntry {
	e := m.entries[key]
	if e != nil && !e.Ends.IsZero() && !time.Now().Before(e.Ends) {
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
		e.Ends = time.Now().Add(ttl)
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
	m.fan.Tell(Change{Entry: e.Entry})
	return m.revision
}

// dropLocked removes an entry that is there. The caller holds mu.
func (m *Memory) dropLocked(e *memoryEntry) {
	m.forgetLocked(e)
	m.revision++
	m.fan.Tell(Change{Entry: Entry{Key: e.Key, Revision: m.revision}, Gone: true})
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
