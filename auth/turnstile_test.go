package auth

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	crowdAddr = netip.MustParseAddr("10.0.0.1")
	otherAddr = netip.MustParseAddr("10.0.0.2")
)

// one is a turnstile with one place, which is taken.
func one() *turnstile {
	t := newTurnstile(nil)
	t.free = 0
	return t
}

// queue has n attempts from addr wait; what becomes of them is told to done, one
// after the other.
func queue(t *testing.T, s *turnstile, addr netip.Addr, n int, done func(error)) {
	for range n {
		go func() {
			err := s.enter(t.Context(), addr, true)
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
		queue(t, s, crowdAddr, 50, func(error) { order = append(order, "crowd") })
		queue(t, s, otherAddr, 2, func(error) { order = append(order, "other") })
		for range 52 {
			s.leave(crowdAddr, true, true)
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
		queue(t, s, crowdAddr, maxWaiting, count)
		queue(t, s, crowdAddr, 3, count)
		if came != 0 || busy != 3 {
			t.Fatalf("%d came and %d were sent away, want 0 and 3: the line is full", came, busy)
		}
		queue(t, s, otherAddr, 2, count)
		if came != 0 || busy != 5 || s.waiting != maxWaiting {
			t.Errorf("%d came and %d were sent away, %d wait; want 0, 5 and %d: two of the crowd made room", came, busy, s.waiting, maxWaiting)
		}
		for range maxWaiting {
			s.leave(crowdAddr, true, true)
			synctest.Wait()
		}
		if came != maxWaiting {
			t.Errorf("%d came, want %d", came, maxWaiting)
		}
	})
}

func TestASlowedAddressHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(nil)
		for range failBurst + 5 {
			s.leave(crowdAddr, false, false)
		}
		if !s.slowed(crowdAddr) || s.slowed(otherAddr) {
			t.Error("the wrong one is slowed")
		}
		busy, began := 0, time.Now()
		var last time.Duration
		queue(t, s, crowdAddr, slowedWaiting+7, func(err error) {
			if err != nil {
				busy++
				return
			}
			last = time.Since(began)
			s.leave(crowdAddr, true, false)
		})
		if busy != 7 {
			t.Errorf("%d were sent away, want 7", busy)
		}
		if err := s.enter(t.Context(), otherAddr, true); err != nil || time.Since(began) > 0 {
			t.Errorf("the other address: %v after %v, want at once", err, time.Since(began))
		}
		s.leave(otherAddr, true, true)
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
			go func() { _ = s.enter(ctx, crowdAddr, true) }() // only its leaving counts
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !s.slowed(crowdAddr) || s.waiting != 0 || s.turns.Len() != 0 {
			t.Errorf("slowed %v, %d wait in %d lines; want true, 0, 0", s.slowed(crowdAddr), s.waiting, s.turns.Len())
		}
	})
}

func TestPlacesFitTheMemoryAndTheProcessors(t *testing.T) {
	for _, c := range []struct {
		memory uint32
		most   int
	}{{19 << 10, 13}, {100 << 10, 2}, {1 << 20, 1}} {
		s := argon2idSecret{}
		s.params.Memory, s.params.Parallelism = c.memory, 1
		if got := newTurnstile([]secret{s, clearSecret{}}).free; got < 1 || got > c.most {
			t.Errorf("%d hashes of %d KiB at once, want 1 to %d", got, c.memory, c.most)
		}
	}
}

func TestAddressesThatDidNothingAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTurnstile(nil)
		for i := range 10 * keptLines {
			s.leave(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), false, false)
			if i%keptLines == 0 {
				time.Sleep(time.Second) // of the bubble's time
			}
		}
		if n := len(s.lines); n > 3*keptLines {
			t.Errorf("%d addresses are remembered", n)
		}
	})
}

func TestTheTurnstileKeepsItsBooks(t *testing.T) {
	s := newTurnstile(nil)
	s.free = 2
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 7)})
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(2000))*time.Microsecond)
			defer cancel()
			slow := i%3 > 0
			if s.enter(ctx, addr, slow) == nil {
				s.leave(addr, slow, i%2 == 0)
			}
		})
	}
	wg.Wait()
	if s.free != 2 || s.waiting != 0 || s.turns.Len() != 0 {
		t.Errorf("%d places are free, %d wait in %d lines; want 2, 0, 0", s.free, s.waiting, s.turns.Len())
	}
}
