package endpoint

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/node/rate"
)

// maxArrivals is how many addresses are known that have connected a short while ago: a
// few megabytes. When there are more, those that are not known are bounded together
// only.
const maxArrivals = 1 << 16

// arrivals bounds how fast clients connect.
type arrivals struct {
	now       func() int64
	all       rate.Limit
	everybody rate.Bucket
	addresses *rate.Table[netip.Addr]
}

func newArrivals(cfg ConnectionRateConfig) *arrivals {
	return &arrivals{
		now: rate.NewClock().Now, all: rate.Per(cfg.Global, cfg.GlobalBurst),
		addresses: rate.NewTable[netip.Addr](rate.Per(cfg.PerAddress, cfg.PerAddressBurst), maxArrivals),
	}
}

// take says whether a client at an address may connect now. Otherwise it says why not,
// and how long that will be so. An address that is not valid, or a proxy's that did not
// say for whom it speaks, counts only with all others.
func (a *arrivals) take(addr netip.Addr, own bool) (why int, wait time.Duration) {
	now := a.now()
	if own && addr.IsValid() {
		if wait = a.addresses.Take(auth.Network(addr), now); wait > 0 {
			return refusedHasty, wait
		}
	}
	if !a.all.None() {
		if wait = a.everybody.Take(a.all, now); wait > 0 {
			return refusedRush, wait
		}
	}
	return 0, 0
}

// look is take, but takes nothing.
func (a *arrivals) look(addr netip.Addr, own bool) (why int, wait time.Duration) {
	now := a.now()
	if own && addr.IsValid() {
		if wait = a.addresses.Wait(auth.Network(addr), now); wait > 0 {
			return refusedHasty, wait
		}
	}
	if !a.all.None() {
		if wait = a.everybody.Wait(a.all, now); wait > 0 {
			return refusedRush, wait
		}
	}
	return 0, 0
}

// hurry refuses a request for a connection that comes too soon, with its status, or
// returns 0.
func (s *Server) hurry(w http.ResponseWriter, r *http.Request) (status int, text string) {
	addr, err := netip.ParseAddr(s.clientAddr(r))
	why, wait := s.arrivals.take(addr, err == nil && !s.trusted(addr))
	if wait == 0 {
		return 0, ""
	}
	s.gate.count(why)
	w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	w.Header().Set("Connection", "close")
	if why == refusedHasty {
		return http.StatusTooManyRequests, "too many connections in a short time from this address"
	}
	return http.StatusServiceUnavailable, "too many connections in a short time"
}

// seats counts what each user has here, its connections together.
type seats struct {
	most int   // connections; 0: without bound
	kept int64 // of what Conn.Reserve counts; 0: without bound

	mu    sync.Mutex
	taken map[string]*seat // by user id; guarded by mu
}

// seat is one user's. Its connections point to it.
type seat struct {
	conns int          // guarded by seats.mu
	kept  atomic.Int64 // see Conn.Reserve
}

func newSeats(most, kept int) *seats {
	return &seats{most: most, kept: int64(kept), taken: make(map[string]*seat)}
}

// take gives a user one more connection, or says that it has as many as it may. Clients
// without a name are no user, and have no bound and no seat; nor has anybody when nothing
// is bounded.
func (s *seats) take(u *auth.User) (*seat, bool) {
	if s.most == 0 && s.kept == 0 || u.IsAnonymous() {
		return nil, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	its := s.taken[u.ID]
	switch {
	case its == nil:
		its = &seat{}
		s.taken[u.ID] = its
	case s.most > 0 && its.conns >= s.most:
		return nil, false
	}
	its.conns++
	return its, true
}

// leave gives it back; its is what take returned.
func (s *seats) leave(u *auth.User, its *seat) {
	if its == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if its.conns--; its.conns == 0 {
		delete(s.taken, u.ID)
	}
}

// reserve counts n more for a user, or says that it has as much as it may.
func (s *seats) reserve(its *seat, n int) bool {
	if its == nil || s.kept == 0 || its.kept.Add(int64(n)) <= s.kept {
		return true
	}
	its.kept.Add(-int64(n))
	return false
}

// release gives it back.
func (s *seats) release(its *seat, n int) {
	if its != nil && s.kept > 0 {
		its.kept.Add(-int64(n))
	}
}

// overbooked is what a client is told whose user has all the connections it may have.
const overbooked = `{"error":"TOO_MANY_CONNECTIONS","message":"this user has as many connections as it may have"}`
