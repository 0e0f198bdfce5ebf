package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// Memory is a Store that keeps records in this process: gone at exit. It serves
// tests and nodes with `records: {store: memory}`.
type Memory struct {
	data *memoryData

	mu     sync.RWMutex // taken before data.mu
	epoch  uint64       // guarded by mu; what this handle fenced under
	ready  bool         // guarded by mu; fenced, and no append failed since
	closed bool         // guarded by mu
}

// memoryData is what all handles share, as two nodes share one stream.
type memoryData struct {
	mu      sync.RWMutex
	epoch   uint64            // guarded by mu; the highest seen
	owner   *Memory           // guarded by mu; who fenced last
	records map[string]Record // guarded by mu
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{data: &memoryData{records: make(map[string]Record)}}
}

// Another returns a second handle on the same records, for an owner that takes
// over from this one: whoever fenced last may append. It outlives Close of the
// first, so it also stands for a restart.
func (m *Memory) Another() *Memory { return &Memory{data: m.data} }

// Fence implements Store.
func (m *Memory) Fence(ctx context.Context, epoch uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("fence under epoch %d: %w", epoch, ErrClosed)
	}
	m.ready = false
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("fence under epoch %d: %w", epoch, err)
	}
	d := m.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch < d.epoch {
		return fmt.Errorf("fence under epoch %d, the store has seen %d: %w", epoch, d.epoch, ErrFenced)
	}
	d.epoch, d.owner = epoch, m
	m.epoch, m.ready = epoch, true
	return nil
}

// Append implements Store.
func (m *Memory) Append(ctx context.Context, ops []Op) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if err := CheckOps(ops); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if err := ctx.Err(); err != nil {
		m.ready = false
		return fmt.Errorf("append: %w", err)
	}
	d := m.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != m {
		m.ready = false
		return fmt.Errorf("append under epoch %d, the owner's is %d: %w", m.epoch, d.epoch, ErrFenced)
	}
	for i := range ops {
		if op := &ops[i]; op.Delete {
			delete(d.records, op.Name)
		} else {
			d.records[op.Name] = op.Record
		}
	}
	return nil
}

// Load implements Store.
func (m *Memory) Load(ctx context.Context, name string) (Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.readable(ctx); err != nil {
		return Record{}, fmt.Errorf("load %q: %w", name, err)
	}
	m.data.mu.RLock()
	r, ok := m.data.records[name]
	m.data.mu.RUnlock()
	if !ok {
		return Record{}, fmt.Errorf("load %q: %w", name, ErrNotFound)
	}
	return r, nil
}

// Scan implements Store. It works on a copy taken at its start, so that fn may
// take its time, or call the store.
func (m *Memory) Scan(ctx context.Context, prefix string, fn func(Record) error) error {
	records, err := m.snapshot(ctx, prefix)
	if err != nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	for _, r := range records {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("scan %q: %w", prefix, err)
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// Names implements Store.
func (m *Memory) Names(ctx context.Context, prefix string, fn func(name string) error) error {
	return m.Scan(ctx, prefix, func(r Record) error { return fn(r.Name) })
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *Memory) snapshot(ctx context.Context, prefix string) ([]Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.readable(ctx); err != nil {
		return nil, err
	}
	m.data.mu.RLock()
	defer m.data.mu.RUnlock()
	var records []Record
	for name, r := range m.data.records {
		if strings.HasPrefix(name, prefix) {
			records = append(records, r)
		}
	}
	return records, nil
}

// usable says whether this handle may be used. The caller holds mu.
func (m *Memory) usable() error {
	switch {
	case m.closed:
		return ErrClosed
	case !m.ready:
		return ErrFenced
	}
	return nil
}

func (m *Memory) readable(ctx context.Context) error {
	if err := m.usable(); err != nil {
		return err
	}
	return ctx.Err()
}

// CheckOps is for drivers: it returns ErrRefused, with the reason, for a batch
// that no driver stores.
func CheckOps(ops []Op) error {
	for i := range ops {
		if ops[i].Name == "" {
			return fmt.Errorf("op %d has no name: %w", i, ErrRefused)
		}
	}
	if len(ops) <= MaxOps {
		return nil
	}
	names := make(map[string]struct{}, MaxOps+1)
	for i := range ops {
		names[ops[i].Name] = struct{}{}
		if len(names) > MaxOps {
			return fmt.Errorf("more than %d names: %w", MaxOps, ErrRefused)
		}
	}
	return nil
}
