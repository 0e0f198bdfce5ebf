package auth

import (
	"cmp"
	"container/list"
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// hashMemory is how much memory, in KiB, the hashes that are computed at once
	// may take together; one is always computed.
	hashMemory = 256 << 10
	// maxWaiting is how many attempts may wait for their turn.
	maxWaiting = 2048
	// failBurst is how many wrong passwords an address may send before it is slowed,
	// failRate how many of them are forgotten in a second. Few people mistype a
	// password a hundred times in a moment, not even all of one office together.
	failBurst = 100
	failRate  = 10
	// slowedWaiting is how many attempts of a slowed address may wait. So nobody
	// behind it waits longer than this divided by failRate, in seconds.
	slowedWaiting = 64
	// keptLines is how many addresses are remembered before those are looked for
	// that need not be.
	keptLines = 1024
)

// Cost is what a check takes from others while it runs. The zero value takes nothing
// worth to wait for.
type Cost struct {
	// Memory is in KiB.
	Memory int
	// Threads is how many processors it keeps busy.
	Threads int
}

// BcryptCost is that of a bcrypt hash.
var BcryptCost = Cost{Memory: 4, Threads: 1}

func (c Cost) slow() bool { return c != Cost{} }

// Turnstile lets attempts in to have their password checked: few at once, because
// a hash is made to cost time and memory; the addresses in turn, so that one that
// sends very many attempts waits for itself; and slowly those that send wrong
// passwords. Nothing is counted for a user name: who guesses somebody's password
// keeps nobody but himself from logging in. A node has one, for all that hash
// passwords in it. It is safe for many callers at once.
type Turnstile struct {
	mu      sync.Mutex
	free    Cost                 // what slow checks may still take; guarded by mu
	slow    int                  // slow checks that run; guarded by mu
	waiting int                  // attempts in all lines; guarded by mu
	lines   map[netip.Addr]*line // guarded by mu
	turns   list.List            // the lines that have somebody in them, in the order of their turns; guarded by mu
	sweepAt int                  // how many lines make it worth to look for old ones; guarded by mu
}

// line is one address. Guarded by Turnstile.mu.
type line struct {
	waiting []*turn
	failed  float64   // wrong passwords that are not forgotten, as of at
	at      time.Time // when failed was brought up to date
	place   *list.Element
}

// turn is one attempt that waits.
type turn struct {
	cost Cost
	come chan error // its turn has come, or it must go; holds one
}

// NewTurnstile makes one for this process.
func NewTurnstile() *Turnstile {
	// A quarter of the processors is left to those who are logged in.
	threads := max(runtime.GOMAXPROCS(0)*3/4, 1)
	return &Turnstile{free: Cost{hashMemory, threads}, lines: make(map[netip.Addr]*line), sweepAt: keptLines}
}

// Check waits for the turn of an attempt from remote, an address as in Attempt, and has
// its password checked by right, which says whether it was. The error is ErrBusy, or why
// ctx ended, and right has not been called then.
func (t *Turnstile) Check(ctx context.Context, remote string, cost Cost, right func() bool) error {
	from := networkOf(remote)
	if err := t.enter(ctx, from, cost); err != nil {
		return err
	}
	ok := false
	defer func() { t.leave(from, cost, ok) }()
	ok = right()
	return nil
}

// enter waits for the turn of an attempt from addr to have its password checked.
// The caller says by leave whether it was right, or, when the error is not nil, does
// not. The error is ErrBusy, or why ctx ended.
func (t *Turnstile) enter(ctx context.Context, addr netip.Addr, cost Cost) error {
	now := time.Now()
	t.mu.Lock()
	l := t.line(addr, now)
	u := &turn{cost: cost, come: make(chan error, 1)}
	if l.wait(now) > 0 && len(l.waiting) >= slowedWaiting || t.waiting >= maxWaiting && !t.makeRoom(l) {
		t.mu.Unlock()
		return ErrBusy
	}
	l.waiting = append(l.waiting, u)
	t.waiting++
	if l.place == nil {
		l.place = t.turns.PushBack(l)
	}
	t.serve(now)
	wait := l.wait(now)
	t.mu.Unlock()

	for {
		// Whoever leaves serves those who wait; but nobody may be there to leave
		// when a line need not be slow any more.
		timer := time.NewTimer(cmp.Or(wait, time.Second))
		select {
		case err := <-u.come:
			timer.Stop()
			return err
		case <-ctx.Done():
			timer.Stop()
			return t.giveUp(ctx, addr, u)
		case now := <-timer.C:
			t.mu.Lock()
			t.serve(now)
			wait = l.wait(now)
			t.mu.Unlock()
		}
	}
}

// leave ends a check.
func (t *Turnstile) leave(addr netip.Addr, cost Cost, right bool) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.give(cost)
	if !right {
		t.line(addr, now).failed++
	}
	t.serve(now)
}

// Slowed says whether remote, an address as in Attempt, has sent many wrong passwords, so
// that also right ones have to wait: who asks need not be told sooner.
func (t *Turnstile) Slowed(remote string) bool { return t.slowed(networkOf(remote)) }

// slowed says whether addr has sent many wrong passwords.
func (t *Turnstile) slowed(addr netip.Addr) bool {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lines[addr]
	return l != nil && l.wait(now) > 0
}

// giveUp ends an attempt that does not wait any longer. It counts as a wrong
// password: who leaves early could else ask faster than others.
func (t *Turnstile) giveUp(ctx context.Context, addr netip.Addr, u *turn) error {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.line(addr, now)
	l.failed++
	if i := slices.Index(l.waiting, u); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		t.waiting--
		t.tidy(l)
	} else if err := <-u.come; err == nil { // its turn came just now
		t.give(u.cost)
		t.serve(now)
	}
	return context.Cause(ctx)
}

// serve lets in everybody whose turn it is. The caller holds mu.
func (t *Turnstile) serve(now time.Time) {
	full := false
	for e := t.turns.Front(); e != nil; {
		l, next := e.Value.(*line), e.Next()
		u := l.waiting[0]
		if l.wait(now) > 0 {
			e = next
			continue
		}
		// Behind one that does not fit, smaller ones that would wait as well: else it
		// might never come. Those that take nothing go on.
		if full = full || !t.fits(u.cost); full && u.cost.slow() {
			e = next
			continue
		}
		t.take(u.cost)
		l.waiting = slices.Delete(l.waiting, 0, 1)
		t.waiting--
		u.come <- nil
		t.turns.MoveToBack(e) // the next one is another address's
		t.tidy(l)
		if next == nil {
			next = t.turns.Front()
		}
		e = next
	}
}

// fits says whether a check may run now: a slow one alone always may, however much it
// takes. The caller holds mu.
func (t *Turnstile) fits(c Cost) bool {
	return !c.slow() || t.slow == 0 || c.Memory <= t.free.Memory && c.Threads <= t.free.Threads
}

// take and give keep the books of what runs. The caller holds mu.
func (t *Turnstile) take(c Cost) {
	t.free.Memory -= c.Memory
	t.free.Threads -= c.Threads
	if c.slow() {
		t.slow++
	}
}

func (t *Turnstile) give(c Cost) {
	t.free.Memory += c.Memory
	t.free.Threads += c.Threads
	if c.slow() {
		t.slow--
	}
}

// makeRoom sends the last one of the longest line away, unless that is l, and says
// whether it did. The caller holds mu.
func (t *Turnstile) makeRoom(l *line) bool {
	longest := l
	for e := t.turns.Front(); e != nil; e = e.Next() {
		if o := e.Value.(*line); len(o.waiting) > len(longest.waiting) {
			longest = o
		}
	}
	if longest == l {
		return false
	}
	last := len(longest.waiting) - 1
	longest.waiting[last].come <- ErrBusy
	longest.waiting = slices.Delete(longest.waiting, last, last+1)
	t.waiting--
	t.tidy(longest)
	return true
}

// tidy takes an empty line out of the turns. The caller holds mu.
func (t *Turnstile) tidy(l *line) {
	if len(l.waiting) == 0 && l.place != nil {
		t.turns.Remove(l.place)
		l.place = nil
	}
}

// line is what is known of an address, up to date. The caller holds mu.
func (t *Turnstile) line(addr netip.Addr, now time.Time) *line {
	l := t.lines[addr]
	if l == nil {
		if len(t.lines) >= t.sweepAt {
			for a, o := range t.lines {
				if o.forget(now); o.failed == 0 && len(o.waiting) == 0 {
					delete(t.lines, a)
				}
			}
			t.sweepAt = max(keptLines, 2*len(t.lines))
		}
		l = &line{at: now}
		t.lines[addr] = l
	}
	l.forget(now)
	return l
}

// forget takes the time that has passed into account.
func (l *line) forget(now time.Time) {
	l.failed = max(0, l.failed-failRate*now.Sub(l.at).Seconds())
	l.at = now
}

// wait is how long the line has to wait for having failed often; 0 if not.
func (l *line) wait(now time.Time) time.Duration {
	over := l.failed - failRate*now.Sub(l.at).Seconds() - failBurst
	if over < 0 {
		return 0
	}
	return time.Duration((over + 1) / failRate * float64(time.Second))
}

// Network is what counts as one address when there may be too many of something:
// of IPv6, where everybody has very many, the first 64 bits.
func Network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, err := a.Prefix(64)
	if err != nil { // not for an address of 128 bits
		return a
	}
	return p.Addr()
}

// networkOf is the network of an attempt's address; all that have none are one.
func networkOf(remote string) netip.Addr {
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return netip.Addr{}
	}
	return Network(a)
}
