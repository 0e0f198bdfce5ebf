package rate

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestABucketGivesItsBurstAndThenWhatComes(t *testing.T) {
	l := Per(10, 3)
	var b Bucket
	now := int64(1)
	for i := range 3 {
		if wait := b.Take(l, now); wait != 0 {
			t.Fatalf("token %d of the burst: wait %v, want none", i, wait)
		}
	}
	if wait := b.Take(l, now); wait != 100*time.Millisecond {
		t.Errorf("beyond the burst: wait %v, want 100ms", wait)
	}
	now += int64(100 * time.Millisecond)
	if wait := b.Take(l, now); wait != 0 {
		t.Errorf("a token later: wait %v, want none", wait)
	}
	if wait := b.Take(l, now); wait == 0 {
		t.Error("two tokens came in the time of one")
	}
	now += int64(time.Hour)
	for range 3 {
		if wait := b.Take(l, now); wait != 0 {
			t.Fatalf("after a rest: wait %v, want none", wait)
		}
	}
	if b.Take(l, now) == 0 {
		t.Error("a rest filled the bucket beyond its burst")
	}
}

func TestRefusedTakesCostNothing(t *testing.T) {
	l := Per(1, 1)
	var b Bucket
	b.Take(l, 1)
	for range 1000 {
		if b.Take(l, 1) == 0 {
			t.Fatal("an empty bucket gave a token")
		}
	}
	if wait := b.Take(l, 1+int64(time.Second)); wait != 0 {
		t.Errorf("a second later: wait %v, want none, whatever was refused", wait)
	}
}

func TestManyWhoTakeAtOnceGetNoMoreThanTheBurst(t *testing.T) {
	const burst = 1000
	l := Per(1, burst)
	var (
		b   Bucket
		got atomic.Int64
		wg  sync.WaitGroup
	)
	for range 8 {
		wg.Go(func() {
			for range burst {
				if b.Take(l, 1) == 0 {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != burst {
		t.Errorf("%d tokens were given, want %d", got.Load(), burst)
	}
}

func TestALimitThatCannotBeReachedIsNone(t *testing.T) {
	if !Per(0, 5).None() || !Per(1, 1<<62).None() {
		t.Error("a limit of 0 a second, or of a burst beyond time, limits something")
	}
	if Per(2_000_000_000, 1).None() {
		t.Error("a fast limit is none")
	}
}

func TestATableForgetsFullBucketsAndStaysBounded(t *testing.T) {
	const most = 5000
	table := NewTable[int](Per(1, 1), most)
	for key := range most {
		if table.Take(key, 1) != 0 {
			t.Fatal("a new key was refused")
		}
	}
	if table.Take(0, 1) == 0 {
		t.Error("a key has two tokens at once")
	}
	for range 2 {
		if table.Take(most, 1) != 0 {
			t.Error("a full table refuses a key that it does not know")
		}
	}
	if n := table.Len(); n != most {
		t.Errorf("%d keys, want the bound of %d", n, most)
	}
	later := 1 + int64(time.Minute)
	table.Take(most, later)
	if n := table.Len(); n != 1 {
		t.Errorf("%d keys after all buckets were full again, want 1", n)
	}
}

func BenchmarkTake(b *testing.B) {
	b.ReportAllocs()
	l, clock := Per(1_000_000_000, 1_000_000), NewClock()
	var bucket Bucket
	for b.Loop() {
		bucket.Take(l, clock.Now())
	}
}

func BenchmarkNow(b *testing.B) {
	clock := NewClock()
	for b.Loop() {
		clock.Now()
	}
}
