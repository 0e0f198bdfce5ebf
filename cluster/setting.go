package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// settings are named values that every node of a cluster knows: few, small, and rarely
// changed.
type settings interface {
	Setting(name string) (number uint64, value []byte)
	SetSetting(ctx context.Context, name string, value []byte, expected uint64) error
}

// soloSettings are those of a node that runs alone, until it ends.
type soloSettings struct {
	mu     sync.Mutex
	values map[string]soloSetting // guarded by mu
}

type soloSetting struct {
	number uint64
	value  []byte
}

// Setting implements settings.
func (s *soloSettings) Setting(name string) (uint64, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values[name]
	return v.number, v.value
}

// SetSetting implements settings.
func (s *soloSettings) SetSetting(_ context.Context, name string, value []byte, expected uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values[name]
	if v.number != expected {
		return fmt.Errorf("%w: %q is at number %d", ErrSettingChanged, name, v.number)
	}
	if s.values == nil {
		s.values = make(map[string]soloSetting)
	}
	s.values[name] = soloSetting{v.number + 1, slices.Clone(value)}
	return nil
}

// Setting is a value that all nodes share, and its number, which rises by one with each
// change; 0 means that it was never set. The table's Changed tells of it. A node that
// runs alone keeps settings until it ends. The value must not be changed.
func (p *Place) Setting(name string) (number uint64, value []byte) {
	if in := p.inner.Load(); in != nil {
		return in.settings.Setting(name)
	}
	return 0, nil
}

// SetSetting changes a setting that is at the expected number, or returns
// ErrSettingChanged. Any other error leaves it open whether it was changed.
func (p *Place) SetSetting(ctx context.Context, name string, value []byte, expected uint64) error {
	in := p.inner.Load()
	if in == nil {
		return errors.New("the cluster is not joined yet")
	}
	return in.settings.SetSetting(ctx, name, value, expected)
}

// SetFirst gives a setting its first value, unless it has one, which is no error: another
// node was sooner. While nodes start the leader may change as it is asked; then it is
// asked again, until ctx ends.
func (p *Place) SetFirst(ctx context.Context, name string, value []byte) error {
	in := p.inner.Load()
	if in == nil {
		return errors.New("the cluster is not joined yet")
	}
	return giveFirst(ctx, in.settings, name, value)
}

// askAgain is how long after an answer that was lost a setting is asked for again.
const askAgain = 100 * time.Millisecond

func giveFirst(ctx context.Context, s settings, name string, value []byte) error {
	for {
		err := s.SetSetting(ctx, name, value, 0)
		switch {
		case errors.Is(err, ErrSettingChanged):
			return nil
		case !errors.Is(err, errUndecided):
			return err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return err
		}
	}
}
