package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"hadal/store"
	"hadal/store/storetest"
)

func newReplicated() *storetest.Replicated {
	return storetest.NewReplicated(rand.New(rand.NewPCG(1, 2)))
}

func TestReplicatedKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return newReplicated().Open(nil) })
}

// sharedReplicated hands out handles on one log.
type sharedReplicated struct{ log *storetest.Replicated }

func (s *sharedReplicated) Open(*testing.T) store.Store { return s.log.Open(nil) }
func (s *sharedReplicated) Restart(*testing.T)          {}

func TestReplicatedIsHandedFromOwnerToOwner(t *testing.T) {
	storetest.RunShared(t, func(*testing.T) storetest.Shared { return &sharedReplicated{newReplicated()} })
}

// put appends one record, again after each doubt, and returns how often that was.
func put(t *testing.T, s store.Store, epoch uint64, version int32) (doubts int) {
	t.Helper()
	for ; ; doubts++ {
		err := s.Append(t.Context(), []store.Op{storetest.Put("a", version, `{}`)})
		if err == nil {
			return doubts
		}
		if errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrRefused) {
			t.Fatalf("Append = %v, want a doubt", err)
		}
		if err := s.Fence(t.Context(), epoch); err != nil {
			t.Fatal(err)
		}
	}
}

func TestADoubtfulAppendIsNeverMadeAfterAFence(t *testing.T) {
	made, not := 0, 0
	synctest.Test(t, func(t *testing.T) {
		log := newReplicated()
		s := log.Open(nil)
		if err := s.Fence(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		log.Doubt(0.5)
		for v := range int32(200) {
			if put(t, s, 1, 2*v) == 0 {
				continue
			}
			// What was in doubt and not repeated is known after a fence, and stays.
			log.Doubt(1)
			if err := s.Append(t.Context(), []store.Op{storetest.Put("a", 2*v+1, `{}`)}); err == nil {
				t.Fatal("Append = nil, want a doubt")
			}
			if v%2 == 0 {
				time.Sleep(time.Second) // in the bubble: let a late one arrive
			}
			log.Doubt(0.5)
			if err := s.Fence(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			before, err := s.Load(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if after, err := s.Load(t.Context(), "a"); err != nil || after != before {
				t.Fatalf("a is %v, %v after the fence, then %v", before, err, after)
			}
			if before.Version == 2*v {
				not++
			} else {
				made++
			}
		}
	})
	if made < 10 || not < 10 {
		t.Errorf("%d appends in doubt were made and %d were not, want many of both", made, not)
	}
}

func TestAFullLogWritesNothingAndGoesOnWhenThereIsRoom(t *testing.T) {
	log := newReplicated()
	s := log.Open(nil)
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	put(t, s, 1, 1)
	log.Fill(true)
	if err := s.Append(t.Context(), []store.Op{storetest.Put("a", 2, `{}`)}); !errors.Is(err, store.ErrFull) {
		t.Fatalf("Append = %v, want ErrFull", err)
	}
	if r := log.Truth()["a"]; r.Version != 1 {
		t.Errorf("version = %d, want 1", r.Version)
	}
	log.Fill(false)
	put(t, s, 1, 2)
}

func TestAStalledLogAnswersLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newReplicated()
		s := log.Open(nil)
		log.Stall(time.Second)
		began := time.Now()
		if err := s.Fence(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("Fence took %v, want a second", d)
		}
		log.Stall(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Append(ctx, []store.Op{storetest.Put("a", 1, `{}`)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Append = %v, want the end of its time", err)
		}
	})
}

func TestAnOvertakenOwnerReadsThePast(t *testing.T) {
	log := newReplicated()
	old, next := log.Open(nil), log.Open(nil)
	for i, s := range []store.Store{old, next} {
		if err := s.Fence(t.Context(), uint64(i+1)); err != nil {
			t.Fatal(err)
		}
		put(t, s, uint64(i+1), int32(i))
	}
	if r, err := old.Load(t.Context(), "a"); err != nil || r.Version != 0 {
		t.Errorf("Load of the old owner = %v, %v, want version 0", r.Version, err)
	}
	if r, err := next.Load(t.Context(), "a"); err != nil || r.Version != 1 {
		t.Errorf("Load of the owner = %v, %v, want version 1", r.Version, err)
	}
}

func TestALogWithoutAFenceTakesWhatItShouldNot(t *testing.T) {
	log := newReplicated()
	log.NoFence = true
	old, next := log.Open(nil), log.Open(nil)
	for i, s := range []store.Store{old, next} {
		if err := s.Fence(t.Context(), uint64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, old, 1, 7)
	if got := fmt.Sprint(log.Truth()["a"].Version); got != "7" {
		t.Errorf("version = %s, want that of the old owner", got)
	}
}
