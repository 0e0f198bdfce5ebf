package auth

import (
	"context"
	"sync/atomic"
)

// Live is an Authenticator that can be exchanged while clients log in, for
// reloads. Logins under way end with the strategies they began with; clients
// that are logged in stay so.
type Live struct {
	current atomic.Pointer[Authenticator]
}

// NewLive starts with a.
func NewLive(a Authenticator) *Live {
	l := &Live{}
	l.Replace(a)
	return l
}

// Replace makes a the one that is asked from now on. A reload makes a whole new
// Authenticator with New, which reads the users files again, and replaces the
// old one only when that succeeded. It may be called from anywhere.
func (l *Live) Replace(a Authenticator) { l.current.Store(&a) }

// Authenticate implements Authenticator.
func (l *Live) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	return (*l.current.Load()).Authenticate(ctx, a)
}
