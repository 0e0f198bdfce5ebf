package auth

import (
	"cmp"
	"container/list"
	"context"
	"math"
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
	// wrongMemory is how long a wrong password keeps its address behind others; of
	// several, one is forgotten after the other, and no more than maxWrong are kept.
	wrongMemory = 5 * time.Minute
	maxWrong    = 20
	// trust is how long a right password lets its address go before strangers, and
	// trustWorth how many wrong ones of it that makes up for, before and after: many
	// people of one address mistype more often than one.
	trust      = 24 * time.Hour
	trustWorth = 5
	// keptLines is how many addresses are remembered before those are looked for
	// that need not be; when there are more than mostLines, only those are kept that
	// wait or are slowed.
	keptLines = 1024
	mostLines = 1 << 16
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
// a hash is made to cost time and memory; first those of addresses from which a right
// password came, then strangers, then those that have sent wrong ones, the fewer the
// sooner; among equals the addresses in turn, so that one that sends very many
// attempts waits for itself; and slowly those that send very many wrong passwords.
// Within an address it is first come, first served: the other way round, under a flood
// whoever is not the newest would wait for ever, and clients do wait.
//
// Nothing is counted for a user name: who guesses somebody's password keeps nobody but
// himself from logging in, and who floods with right ones is recognised without a hash.
// A node has one, for all that hash passwords in it. It is safe for many callers at once.
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
	failed  float64   // wrong passwords for which it is slowed, as of at
	wrong   float64   // wrong passwords for which others go first, as of at
	at      time.Time // when both were brought up to date
	trusted time.Time // until when it goes before strangers
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
	if l.wait(now) > 0 && len(l.waiting) >= slowedWaiting || t.waiting >= maxWaiting && !t.makeRoom(l, now) {
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
		t.line(addr, now).fail()
	}
	t.serve(now)
}

// Vouch notes that somebody at remote, an address as in Attempt, has shown a right
// password, and one that had to be checked: who is recognised vouches for nobody, or one
// account would do so for all addresses of a flood.
func (t *Turnstile) Vouch(remote string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.line(networkOf(remote), now)
	l.trusted, l.wrong = now.Add(trust), max(0, l.wrong-trustWorth)
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
	l.fail()
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
	for l := t.next(now); l != nil; l = t.next(now) {
		u := l.waiting[0]
		t.take(u.cost)
		l.waiting = slices.Delete(l.waiting, 0, 1)
		t.waiting--
		u.come <- nil
		t.turns.MoveToBack(l.place) // the next one is another address's
		t.tidy(l)
	}
}

// next is the line whose first may go in now; nil if none may. The caller holds mu.
func (t *Turnstile) next(now time.Time) *line {
	var first, free *line // of all, and of those that take nothing
	var rank int
	for e := t.turns.Front(); e != nil; e = e.Next() {
		l := e.Value.(*line)
		if l.wait(now) > 0 {
			continue
		}
		if r := l.rank(now); first == nil || r < rank {
			first, rank = l, r
		}
		if free == nil && !l.waiting[0].cost.slow() {
			free = l
		}
	}
	if first != nil && t.fits(first.waiting[0].cost) {
		return first
	}
	// Behind one that does not fit, smaller ones that would wait as well: else it
	// might never come. Those that take nothing go on.
	return free
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

// makeRoom sends the last one of the worst line away, of equal ones of the longest,
// unless that would be l with one more; and says whether it did. The caller holds mu.
func (t *Turnstile) makeRoom(l *line, now time.Time) bool {
	var worst *line
	rank, length := l.rank(now), len(l.waiting)+1
	for e := t.turns.Front(); e != nil; e = e.Next() {
		o := e.Value.(*line)
		r, n := o.rank(now), len(o.waiting)
		if o != l && (r > rank || r == rank && n > length) {
			worst, rank, length = o, r, n
		}
	}
	if worst == nil {
		return false
	}
	worst.waiting[length-1].come <- ErrBusy
	worst.waiting = slices.Delete(worst.waiting, length-1, length)
	t.waiting--
	t.tidy(worst)
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
			t.sweep(now)
		}
		l = &line{at: now}
		t.lines[addr] = l
	}
	l.forget(now)
	return l
}

// sweep removes the lines of which nothing needs to be known any more. The caller holds mu.
func (t *Turnstile) sweep(now time.Time) {
	for _, keep := range []func(l *line) bool{
		func(l *line) bool { return l.failed > 0 || l.wrong > 0 || now.Before(l.trusted) },
		func(l *line) bool { return l.failed > 0 || len(t.lines) <= mostLines },
	} {
		for a, l := range t.lines {
			if l.forget(now); len(l.waiting) == 0 && !keep(l) {
				delete(t.lines, a)
			}
		}
	}
	t.sweepAt = max(keptLines, 2*len(t.lines))
}

// fail counts a wrong password. The line is up to date.
func (l *line) fail() {
	l.failed++
	l.wrong = min(l.wrong+1, maxWrong)
}

// forget takes the time that has passed into account.
func (l *line) forget(now time.Time) {
	l.failed = max(0, l.failed-failRate*now.Sub(l.at).Seconds())
	l.wrong = l.wrongAt(now)
	l.at = now
}

// wrongAt is how many wrong passwords others go before, at a time that is not before at.
func (l *line) wrongAt(now time.Time) float64 {
	return max(0, l.wrong-now.Sub(l.at).Seconds()/wrongMemory.Seconds())
}

// rank orders the lines: the lowest is served first.
func (l *line) rank(now time.Time) int {
	r := int(math.Ceil(l.wrongAt(now)))
	if now.Before(l.trusted) {
		r -= trustWorth
	}
	return r
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
