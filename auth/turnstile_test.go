package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	crowdAddr = netip.MustParseAddr("10.0.0.1")
	otherAddr = netip.MustParseAddr("10.0.0.2")
)

// heavy takes every place.
var heavy = Cost{Memory: hashMemory, Threads: 1}

// one is a turnstile with one place for heavy, which is taken.
func one() *Turnstile {
	t := NewTurnstile()
	t.take(heavy)
	return t
}

// queue has n attempts from addr wait; what becomes of them is told to done, one
// after the other.
func queue(t *testing.T, s *Turnstile, addr netip.Addr, n int, cost Cost, done func(error)) {
	for range n {
		go func() {
			err := s.enter(t.Context(), addr, cost)
			told.Lock()
			defer told.Unlock()
			done(err)
		}()
		synctest.Wait()
	}
}

var told sync.Mutex

func TestAddressesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := one()
		var order []string
		queue(t, s, crowdAddr, 50, heavy, func(error) { order = append(order, "crowd") })
		queue(t, s, otherAddr, 2, heavy, func(error) { order = append(order, "other") })
		for range 52 {
			s.leave(crowdAddr, heavy, true)
			synctest.Wait()
		}
		if got := fmt.Sprint(order[:5]); got != "[crowd other crowd other crowd]" || len(order) != 52 {
			t.Errorf("%d came, first %s; want 52, and the addresses one after the other", len(order), got)
		}
	})
}

func TestTheLongestLineLosesItsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := one()
		came, busy := 0, 0
		count := func(err error) {
			if errors.Is(err, ErrBusy) {
				busy++
			} else {
				came++
			}
		}
		queue(t, s, crowdAddr, maxWaiting, heavy, count)
		queue(t, s, crowdAddr, 3, heavy, count)
		if came != 0 || busy != 3 {
			t.Fatalf("%d came and %d were sent away, want 0 and 3: the line is full", came, busy)
		}
		queue(t, s, otherAddr, 2, heavy, count)
		if came != 0 || busy != 5 || s.waiting != maxWaiting {
			t.Errorf("%d came and %d were sent away, %d wait; want 0, 5 and %d: two of the crowd made room", came, busy, s.waiting, maxWaiting)
		}
		for range maxWaiting {
			s.leave(crowdAddr, heavy, true)
			synctest.Wait()
		}
		if came != maxWaiting {
			t.Errorf("%d came, want %d", came, maxWaiting)
		}
	})
}

// numbered is the address of a number.
func numbered(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestWhoSendsWrongPasswordsStandsBehindOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := one()
		var order []string
		people := []struct {
			name string
			did  string // + is a right password, - a wrong one
		}{
			{"known", "+"},
			{"many people", strings.Repeat("----+", 10) + "-"},
			{"known, wrong twice", "+--"},
			{"stranger", ""},
			{"wrong once", "-"},
		}
		var want []string
		for i, p := range people {
			want = append(want, p.name)
			for _, what := range p.did {
				if what == '+' {
					s.Vouch(numbered(i).String())
				} else {
					s.leave(numbered(i), Cost{}, false)
				}
			}
		}
		const flood = 200
		for i := range flood { // from as many addresses, each of which has tried three before
			from := numbered(1000 + i)
			for range 3 {
				s.leave(from, Cost{}, false)
			}
			queue(t, s, from, 3, heavy, func(error) { order = append(order, "flood") })
		}
		for i := range people { // who comes last is served first
			i = len(people) - 1 - i
			queue(t, s, numbered(i), 1, heavy, func(error) { order = append(order, want[i]) })
		}
		for range 3*flood + len(want) {
			s.leave(numbered(9999), heavy, true)
			synctest.Wait()
		}
		if len(order) != 3*flood+len(want) || !slices.Equal(order[:len(want)], want) {
			t.Errorf("%d came, first %q; want %d, first %q", len(order), order[:min(len(order), 8)], 3*flood+len(want), want)
		}
	})
}

func TestWrongPasswordsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := one()
		for range 1000 {
			s.leave(crowdAddr, Cost{}, false)
		}
		time.Sleep(maxWrong*wrongMemory - time.Second) // of the bubble's time
		var order []string
		queue(t, s, crowdAddr, 1, heavy, func(error) { order = append(order, "crowd") })
		queue(t, s, otherAddr, 1, heavy, func(error) { order = append(order, "other") })
		s.leave(crowdAddr, heavy, true)
		synctest.Wait()
		if got := fmt.Sprint(order); got != "[other]" {
			t.Errorf("got %s first, want the other: not all is forgotten", got)
		}
		time.Sleep(time.Minute) // of the bubble's time
		queue(t, s, otherAddr, 1, heavy, func(error) { order = append(order, "other") })
		s.leave(crowdAddr, heavy, true)
		synctest.Wait()
		if got := fmt.Sprint(order); got != "[other crowd]" {
			t.Errorf("got %s, want the crowd second: all is forgotten", got)
		}
		s.leave(crowdAddr, heavy, true)
		synctest.Wait()
	})
}

func TestAFullTurnstileSendsAwayWhoSendsWrongPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := one()
		const room = 40
		s.waiting = maxWaiting - room // of whom nothing more is known
		sent := make(map[string]int)
		count := func(who string) func(error) {
			return func(err error) {
				if errors.Is(err, ErrBusy) {
					sent[who]++
				}
			}
		}
		s.Vouch(otherAddr.String())
		queue(t, s, otherAddr, 5, heavy, count("known")) // the longest line
		for i := range room - 5 {
			from := numbered(1000 + i)
			if i%2 == 0 {
				s.leave(from, Cost{}, false)
			}
			queue(t, s, from, 1, heavy, count([]string{"wrong", "stranger"}[i%2]))
		}
		queue(t, s, numbered(1), 1, heavy, count("new"))
		s.leave(numbered(3), Cost{}, false)
		queue(t, s, numbered(3), 1, heavy, count("new and wrong"))
		queue(t, s, otherAddr, 1, heavy, count("known"))
		if got := fmt.Sprint(sent); got != "map[new and wrong:1 wrong:2]" || s.waiting != maxWaiting {
			t.Errorf("sent away were %s, %d wait; want two that had been wrong, and who came with nothing better", got, s.waiting)
		}
		for range room {
			s.leave(crowdAddr, heavy, true)
			synctest.Wait()
		}
	})
}

func TestASlowedAddressHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTurnstile()
		for range failBurst + 5 {
			s.leave(crowdAddr, Cost{}, false)
		}
		if !s.slowed(crowdAddr) || s.slowed(otherAddr) {
			t.Error("the wrong one is slowed")
		}
		busy, began := 0, time.Now()
		var last time.Duration
		queue(t, s, crowdAddr, slowedWaiting+7, heavy, func(err error) {
			if err != nil {
				busy++
				return
			}
			last = time.Since(began)
			s.leave(crowdAddr, heavy, false)
		})
		if busy != 7 {
			t.Errorf("%d were sent away, want 7", busy)
		}
		if err := s.enter(t.Context(), otherAddr, heavy); err != nil || time.Since(began) > 0 {
			t.Errorf("the other address: %v after %v, want at once", err, time.Since(began))
		}
		s.leave(otherAddr, heavy, true)
		time.Sleep(time.Minute) // of the bubble's time
		synctest.Wait()
		if last < 5*time.Second || last > 9*time.Second {
			t.Errorf("the last of %d came after %v, want about %d s", slowedWaiting, last, slowedWaiting/failRate)
		}
		if s.slowed(crowdAddr) {
			t.Error("it is slowed for ever")
		}
	})
}

func TestWhoLeavesEarlyCountsAsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := one()
		ctx, cancel := context.WithCancel(t.Context())
		for range failBurst + 5 {
			go func() { _ = s.enter(ctx, crowdAddr, heavy) }() // only its leaving counts
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !s.slowed(crowdAddr) || s.waiting != 0 || s.turns.Len() != 0 {
			t.Errorf("slowed %v, %d wait in %d lines; want true, 0, 0", s.slowed(crowdAddr), s.waiting, s.turns.Len())
		}
	})
}

func TestChecksFitTheMemoryAndTheProcessors(t *testing.T) {
	for _, c := range []struct {
		cost          Cost
		memory, procs int
		want          int
	}{
		{Cost{19 << 10, 1}, 256 << 10, 100, 13},
		{Cost{19 << 10, 1}, 256 << 10, 3, 3},
		{Cost{19 << 10, 2}, 256 << 10, 3, 1},
		{Cost{100 << 10, 1}, 256 << 10, 100, 2},
		{Cost{1 << 20, 9}, 256 << 10, 2, 1}, // more than there is, but alone
		{BcryptCost, 256 << 10, 2, 2},
		{Cost{}, 0, 0, 40},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := NewTurnstile()
			s.free = Cost{c.memory, c.procs}
			came := 0
			queue(t, s, crowdAddr, 40, c.cost, func(error) { came++ })
			if came != c.want {
				t.Errorf("%+v: %d run at once, want %d", c.cost, came, c.want)
			}
			for came < 40 {
				s.leave(crowdAddr, c.cost, true)
				synctest.Wait()
			}
		})
	}
}

func TestALargeCheckIsNotOvertakenBySmallOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := one()
		var order []string
		queue(t, s, crowdAddr, 1, heavy, func(error) { order = append(order, "large") })
		queue(t, s, otherAddr, 1, BcryptCost, func(error) { order = append(order, "small") })
		queue(t, s, otherAddr, 1, Cost{}, func(error) { order = append(order, "free") })
		s.give(heavy)
		s.take(Cost{hashMemory / 2, 1}) // the small one would fit beside it
		s.leave(otherAddr, Cost{}, true)
		synctest.Wait()
		if len(order) != 0 {
			t.Errorf("%v came before the large one", order)
		}
		s.leave(crowdAddr, Cost{hashMemory / 2, 1}, true)
		synctest.Wait()
		s.leave(crowdAddr, heavy, true)
		synctest.Wait()
		// The other two come together.
		if len(order) != 3 || order[0] != "large" {
			t.Errorf("got %v, want the large one, then the others", order)
		}
	})
}

func TestACheckThatPanicsGivesItsPlaceBack(t *testing.T) {
	s := NewTurnstile()
	func() {
		defer func() { _ = recover() }() // the panic is what is made here
		_ = s.Check(t.Context(), "10.0.0.1", heavy, func() bool { panic("broken") })
	}()
	ran := false
	if err := s.Check(t.Context(), "10.0.0.1", heavy, func() bool { ran = true; return true }); err != nil || !ran || s.slow != 0 {
		t.Errorf("after a panic: %v, ran %v, %d are said to run", err, ran, s.slow)
	}
}

func TestAddressesThatDidNothingAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTurnstile()
		for i := range 10 * keptLines {
			s.leave(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Cost{}, false)
			if i%keptLines == 0 {
				time.Sleep(wrongMemory) // of the bubble's time
			}
		}
		if n := len(s.lines); n > 3*keptLines {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

func TestTheTurnstileKeepsItsBooks(t *testing.T) {
	s := NewTurnstile()
	s.free = Cost{2, 2}
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 7)})
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(2000))*time.Microsecond)
			defer cancel()
			cost := []Cost{{}, {1, 1}, {5, 1}}[i%3]
			if s.enter(ctx, addr, cost) == nil {
				s.leave(addr, cost, i%2 == 0)
			}
		})
	}
	wg.Wait()
	if s.free != (Cost{2, 2}) || s.slow != 0 || s.waiting != 0 || s.turns.Len() != 0 {
		t.Errorf("%+v is free, %d wait in %d lines; want 2 of each, 0, 0", s.free, s.waiting, s.turns.Len())
	}
}
