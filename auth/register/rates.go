package register

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"hadal/auth"
)

// keptRates is how many addresses are remembered before those are looked for that need
// not be.
const keptRates = 4096

// rates bounds how many clients an address registers. The zero address is all that have
// none.
type rates struct {
	perMinute int

	mu      sync.Mutex
	of      map[netip.Addr]*rate.Limiter // guarded by mu
	sweepAt int                          // guarded by mu
}

// newRates makes it; 0 is without bound.
func newRates(perMinute int) *rates {
	return &rates{perMinute: perMinute, of: make(map[netip.Addr]*rate.Limiter), sweepAt: keptRates}
}

// allow counts a registration from an address, unless there were too many.
func (r *rates) allow(remote string, now time.Time) bool {
	if r.perMinute == 0 {
		return true
	}
	addr, err := netip.ParseAddr(remote)
	if err != nil {
		addr = netip.Addr{}
	} else {
		addr = auth.Network(addr)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.of[addr]
	if l == nil {
		r.sweepLocked(now)
		l = rate.NewLimiter(rate.Limit(float64(r.perMinute)/60), r.perMinute)
		r.of[addr] = l
	}
	return l.AllowN(now, 1)
}

// sweepLocked forgets addresses that may do all they might. The caller holds mu.
func (r *rates) sweepLocked(now time.Time) {
	if len(r.of) < r.sweepAt {
		return
	}
	for addr, l := range r.of {
		if l.TokensAt(now) >= float64(r.perMinute) {
			delete(r.of, addr)
		}
	}
	r.sweepAt = max(keptRates, 2*len(r.of))
}
