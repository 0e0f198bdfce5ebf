package jetstream

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

// content is what the store holds.
func content(t *testing.T, s *Store) map[string]int32 {
	t.Helper()
	got := make(map[string]int32)
	if err := s.Scan(t.Context(), "", func(r store.Record) error { got[r.Name] = r.Version; return nil }); err != nil {
		t.Fatalf("Scan: %v", err)
	}
	return got
}

// A server that crashed reads its files again, and finds the old versions of a
// removed record in them.
func TestRemovedRecordsStayRemovedAfterACrash(t *testing.T) {
	t.Parallel()
	for _, compacted := range []bool{false, true} {
		t.Run(fmt.Sprintf("compacted %v", compacted), func(t *testing.T) {
			r := newRig(t, true)
			s := r.fenced(t)
			for i := range int32(5) {
				mustAppend(t, s, storetest.Put("a", i, `{}`), storetest.Put("b", i, `{}`))
				mustAppend(t, s, storetest.Put("c", i, `{}`))
			}
			mustAppend(t, s, storetest.Delete("a"))
			mustAppend(t, s, storetest.Delete("c"), storetest.Put("d", 1, `{}`))
			if compacted {
				if err := s.compact(t.Context()); err != nil {
					t.Fatal(err)
				}
				if st := s.Stats(t.Context()); st.Messages != 3 || st.Tombstones != 0 {
					t.Errorf("Stats = %+v, want b, d and the fence", st)
				}
			}
			want := map[string]int32{"b": 4, "d": 1}
			for range 3 {
				r.stop(t)
				r.forget(t)
				r.start(t)
				s = r.fenced(t)
				if got := content(t, s); !maps.Equal(got, want) {
					t.Errorf("the store holds %v, want %v", got, want)
				}
				mustAppend(t, s, storetest.Put("b", 5, `{}`))
				want["b"] = 5
			}
		})
	}
}

// Writes go on while everything is appended once more and purged.
func TestCompactionLosesAndRevivesNothingBesideWrites(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	s := r.fenced(t)
	want := make(map[string]int32)
	put := func(i, version int32) store.Op {
		name := fmt.Sprintf("r/%d", i)
		want[name] = version
		return storetest.Put(name, version, `{"some":"data"}`)
	}
	remove := func(i int32) store.Op {
		name := fmt.Sprintf("r/%d", i)
		delete(want, name)
		return storetest.Delete(name)
	}
	var ops []store.Op
	for i := range int32(1000) {
		ops = append(ops, put(i, 0))
	}
	mustAppend(t, s, ops...)
	for round := range int32(3) {
		done := make(chan error, 1)
		go func() { done <- s.compact(t.Context()) }()
		ended := false
		for i := int32(0); !ended || i < 100; i++ {
			mustAppend(t, s, put(i*7%1000, round*1000+i))
			mustAppend(t, s, remove(i*13%1000))
			select {
			case err := <-done:
				if err != nil {
					t.Fatalf("compact: %v", err)
				}
				ended = true
			default:
			}
		}
		if got := content(t, s); !maps.Equal(got, want) {
			t.Fatalf("round %d: the store holds %d records, want %d", round, len(got), len(want))
		}
	}
	r.stop(t)
	r.forget(t)
	r.start(t)
	if got := content(t, r.fenced(t)); !maps.Equal(got, want) {
		t.Errorf("after a crash the store holds %d records, want %d", len(got), len(want))
	}
}

func TestTombstonesDoNotGrowForEver(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	r.opts.compactAt = 20
	s := r.fenced(t)
	mustAppend(t, s, storetest.Put("stays", 1, `{}`))
	for i := range int32(200) {
		name := fmt.Sprintf("comes and goes/%d", i)
		mustAppend(t, s, storetest.Put(name, i, `{}`))
		mustAppend(t, s, storetest.Delete(name))
		if i == 100 {
			// The count outlives the owner. It is closed first: its compaction would
			// go on, and end the count.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			before := s.Stats(t.Context()).Tombstones
			s = r.store(t)
			if err := s.Fence(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			if after := s.Stats(t.Context()).Tombstones; after > before || before > 0 && after == 0 {
				t.Errorf("the next owner counts %d tombstones, the one before %d", after, before)
			}
		}
	}
	for {
		st := s.Stats(t.Context())
		if st.Messages < 60 {
			break
		}
		if err := t.Context().Err(); err != nil {
			t.Fatalf("%d messages are left: %v", st.Messages, err)
		}
		s.wake()
	}
	if got, want := content(t, s), map[string]int32{"stays": 1}; !maps.Equal(got, want) {
		t.Errorf("the store holds %v, want %v", got, want)
	}
}

// A compaction writes every record once more, and may not be what fills the disk.
func TestACompactionNeedsRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	var full atomic.Bool
	var asked atomic.Int64
	full.Store(true)
	r.opts.compactAt = 1_000_000 // not by itself
	r.opts.Room = func(bytes int64) error {
		asked.Store(bytes)
		if full.Load() {
			return errors.New("3 bytes are left")
		}
		return nil
	}
	s := r.fenced(t)
	for i := range int32(100) {
		mustAppend(t, s, storetest.Put(fmt.Sprintf("r/%d", i), i, `{"x":1}`))
	}
	before := s.Stats(t.Context())
	if err := s.compact(t.Context()); !errors.Is(err, store.ErrFull) || !strings.Contains(err.Error(), "3 bytes are left") {
		t.Errorf("compact = %v, want ErrFull and why", err)
	}
	if asked.Load() < 100*int64(len(`{"x":1}`)) {
		t.Errorf("asked for %d bytes, want what all records occupy", asked.Load())
	}
	if after := s.Stats(t.Context()); after.LastSequence != before.LastSequence {
		t.Errorf("it wrote all the same: sequence %d, was %d", after.LastSequence, before.LastSequence)
	}
	full.Store(false)
	if err := s.compact(t.Context()); err != nil {
		t.Errorf("compact = %v when there is room", err)
	}
	if got := content(t, s); len(got) != 100 {
		t.Errorf("%d records are left, want 100", len(got))
	}
}

// An append of unknown outcome is in no note, so the compaction that read the
// record before it may not put it back.
func TestACompactionEndsWithItsFence(t *testing.T) {
	t.Parallel()
	s := newRig(t, false).fenced(t)
	mustAppend(t, s, storetest.Put("a", 1, `{}`))
	sc, _, err := s.beginScan("")
	if err != nil {
		t.Fatal(err)
	}
	defer s.dropScan(sc)
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	old := []store.Op{storetest.Put("a", 1, `{}`)}
	if err := s.again(t.Context(), sc, slices.Clone(old)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("again = %v, want ErrFenced", err)
	}
	if err := s.endScan(t.Context(), sc); !errors.Is(err, store.ErrFenced) {
		t.Errorf("endScan = %v, want ErrFenced", err)
	}
	mustAppend(t, s, old...)
}
