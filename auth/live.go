package auth

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Live is an Authenticator that can be exchanged while clients log in, for
// reloads. Logins under way end with the strategies they began with; clients
// that are logged in stay so.
type Live struct {
	current  atomic.Pointer[Authenticator]
	replaced chan struct{} // holds one
}

// NewLive starts with a.
func NewLive(a Authenticator) *Live {
	l := &Live{replaced: make(chan struct{}, 1)}
	l.current.Store(&a)
	return l
}

// Replace makes a the one that is asked from now on. A reload makes a whole new
// Authenticator with New, which reads the users files again, and replaces the
// old one only when that succeeded, and for good. It may be called from anywhere.
func (l *Live) Replace(a Authenticator) {
	l.current.Store(&a)
	select {
	case l.replaced <- struct{}{}:
	default: // Run has not looked yet
	}
}

// Run does what the strategies have to do in the background, such as loading the keys of
// tokens again, until ctx ends. Those that were replaced end. It sees what New returned,
// also in a Chain and behind a door. It returns ctx's error when nothing of it runs.
func (l *Live) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		l.runUntilReplaced(ctx)
	}
	return ctx.Err()
}

func (l *Live) runUntilReplaced(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ours := l.current.Load()
	if r, ok := (*ours).(runner); ok {
		wg.Go(func() { r.run(ctx) })
	}
	for {
		select {
		case <-l.replaced:
			if l.current.Load() != ours {
				return
			}
			// It was seen already, without this word of it.
		case <-ctx.Done():
			return
		}
	}
}

// Authenticate implements Authenticator.
func (l *Live) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	return (*l.current.Load()).Authenticate(ctx, a)
}

// KeySetLoaded is when that set of keys was loaded last whose last time is the longest ago;
// the zero time when one never was. ok says whether there are any.
func (l *Live) KeySetLoaded() (oldest time.Time, ok bool) {
	for _, s := range setsOf(*l.current.Load()) {
		at := time.Time{}
		if set := s.current.Load(); set != nil {
			at = set.at
		}
		if !ok || at.Before(oldest) {
			oldest, ok = at, true
		}
	}
	return oldest, ok
}

// setsOf are the sets of keys that an Authenticator of New stands on.
func setsOf(a Authenticator) (sets []*keySet) {
	switch a := a.(type) {
	case *door:
		return setsOf(a.Chain)
	case strategies:
		return setsOf(a.Chain)
	case Chain:
		for _, each := range a {
			sets = append(sets, setsOf(each)...)
		}
	case *jwtStrategy:
		if a.set != nil {
			sets = append(sets, a.set)
		}
	}
	return sets
}
