package endpoint

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"

	"hadal/auth"
)

// This file is logins by requests that end: those of the HTTP API. What bounds the logins
// of connections bounds them, too. Their socket is a newcomer until one of its requests has
// logged a user in, and at home from then on; a request without a name, and one that is
// refused, counts as a client that connects.

// socketKey is the key of a request's context under which its socket is.
type socketKey struct{}

// connContext is http.Server.ConnContext.
func connContext(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, socketKey{}, nc)
}

// guestOfRequest is the guest behind a request; nil if it did not come through the gate.
func (s *Server) guestOfRequest(r *http.Request) *guest {
	nc, ok := r.Context().Value(socketKey{}).(net.Conn)
	if !ok {
		return nil
	}
	return s.gate.guestOf(nc)
}

// HoldLogin says that a request is about to log in: until release is called its socket is
// not turned away for want of a login.
func (s *Server) HoldLogin(r *http.Request) (release func()) {
	u := s.guestOfRequest(r)
	s.gate.judging(u, true)
	return func() { s.gate.judging(u, false) }
}

// RequestLogin is the login of one request.
type RequestLogin struct {
	srv  *Server
	u    *guest
	addr netip.Addr
	own  bool // addr is not a proxy's
}

// BeginLogin is called before a request logs in. With a status it may not, for some time:
// too many strangers connect, from its address (429) or at all (503). Otherwise EndLogin
// must be called.
func (s *Server) BeginLogin(r *http.Request) (l RequestLogin, status int, wait time.Duration) {
	addr, err := netip.ParseAddr(s.clientAddr(r))
	l = RequestLogin{srv: s, u: s.guestOfRequest(r), addr: addr, own: err == nil && !s.trusted(addr)}
	if s.gate.arrived(l.u) {
		return l, 0, 0
	}
	why, wait := s.arrivals.look(addr, l.own)
	if wait > 0 {
		s.gate.count(why)
		if why == refusedHasty {
			return l, http.StatusTooManyRequests, wait
		}
		return l, http.StatusServiceUnavailable, wait
	}
	s.gate.judging(l.u, true)
	return l, 0, 0
}

// EndLogin says who has logged in; nil if nobody. When enough is true, so many logins of
// the socket have failed that it is to be closed with the answer.
func (l RequestLogin) EndLogin(user *auth.User) (enough bool) {
	s := l.srv
	if user != nil && !user.IsAnonymous() {
		s.gate.atHome(l.u, user, s.callers)
		return false
	}
	if !s.gate.arrived(l.u) {
		s.arrivals.take(l.addr, l.own) // whoever comes next waits, if there is nothing left
	}
	s.gate.judging(l.u, false)
	if user != nil {
		s.gate.arrive(l.u)
		return false
	}
	return s.gate.failed(l.u) >= s.cfg.WebSocket.MaxAuthAttempts && l.own
}

// arrived says whether the logins of u's requests do not count as clients that connect: a
// user has logged in by it, or somebody without a name, who was counted.
func (g *gate) arrived(u *guest) bool {
	if u == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return u.home != nil || u.counted
}

// arrive notes that somebody without a name has logged in by u, and was counted.
func (g *gate) arrive(u *guest) {
	if u == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	u.counted = true
}

// failed counts one more failed login by u and returns how many there have been.
func (g *gate) failed(u *guest) int {
	if u == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	u.counted = false // a right login does not make the next guesses free
	u.failures++
	return u.failures
}

// atHome makes u a client because a user has logged in by one of its requests, if that
// user has not as many such sockets as it may have connections.
func (g *gate) atHome(u *guest, user *auth.User, callers *seats) {
	if u == nil {
		return
	}
	g.mu.Lock()
	newcomer := u.newcomer
	g.mu.Unlock()
	var its *seat
	if newcomer {
		its, newcomer = callers.take(user)
	}
	if !newcomer {
		g.judging(u, false)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !u.newcomer { // it has left, or was turned away
		callers.leave(user, its)
		return
	}
	g.settle(u)
	u.home = func() { callers.leave(user, its) }
}
