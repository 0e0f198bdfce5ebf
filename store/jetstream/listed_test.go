package jetstream

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

// knows waits until a store has learnt, after a record was missed, what there is.
func knows(t *testing.T, s *Store) {
	t.Helper()
	until(t, "what is there is known", func() error {
		if _, err := s.Load(t.Context(), "missing"); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("Load of what is missing = %v, want ErrNotFound", err)
		}
		s.state.Lock()
		defer s.state.Unlock()
		if s.listed == nil || !s.listed.whole {
			return errors.New("the list is not whole")
		}
		return nil
	})
}

// manyNames are names of all kinds, more than are read at a time.
func manyNames(prefix string) []string {
	names := []string{prefix + "/", "/" + prefix, prefix + "/a b/ü.*>", prefix + "/" + strings.Repeat("long/", 500), prefix + strings.Repeat("x", 3000)}
	for i := range 2000 {
		names = append(names, fmt.Sprintf("%s/%d/name", prefix, i))
	}
	return names
}

func fill(t *testing.T, s *Store, names []string) {
	t.Helper()
	for len(names) > 0 {
		n := min(500, len(names))
		var ops []store.Op
		for _, name := range names[:n] {
			ops = append(ops, storetest.Put(name, 1, `{}`))
		}
		mustAppend(t, s, ops...)
		names = names[n:]
	}
}

func TestAfterTheFirstMissNobodyIsAskedForWhatIsNotThere(t *testing.T) {
	for _, leader := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader reads %v", leader), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, false)
			r.opts.leaderReads = leader
			s := r.fenced(t)
			if !s.Lacks("missing") {
				t.Error("of an empty stream it is not known that it has nothing")
			}
			names := manyNames("r")
			fill(t, s, names)
			mustAppend(t, s, storetest.Delete(names[0]), storetest.Delete("never"))
			// What another owner has left, and what this one adds.
			s = r.store(t)
			if err := s.Fence(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			knows(t, s)
			asked := r.nc.Stats().OutMsgs
			for i := range 100 {
				if _, err := s.Load(t.Context(), fmt.Sprintf("other/%d", i)); !errors.Is(err, store.ErrNotFound) {
					t.Fatalf("Load = %v, want ErrNotFound", err)
				}
			}
			if n := r.nc.Stats().OutMsgs - asked; n != 0 {
				t.Errorf("%d requests for 100 records that are not there, want none", n)
			}
			mustAppend(t, s, storetest.Put("other/1", 1, `{}`))
			check := func() {
				t.Helper()
				for _, name := range append(names[1:], "other/1") {
					if s.Lacks(name) {
						t.Fatalf("%.100q is lacking", name)
					}
					if _, err := s.Load(t.Context(), name); err != nil {
						t.Fatalf("Load: %v", err)
					}
				}
				for _, name := range []string{names[0], "never", "other/2"} {
					if _, err := s.Load(t.Context(), name); !errors.Is(err, store.ErrNotFound) {
						t.Fatalf("Load of a removed record = %v, want ErrNotFound", err)
					}
				}
			}
			check()
			if err := s.compact(t.Context()); err != nil {
				t.Fatal(err)
			}
			check()
			// And a list that is made after a compaction is whole too.
			if _, err := s.list(t.Context()); err != nil {
				t.Error(err)
			}
			check()
		})
	}
}

func TestWhatAnotherOwnerWroteIsNotMissed(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	a, b := r.fenced(t), r.store(t)
	knows(t, a)
	if err := b.Fence(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, b, storetest.Put("new", 1, `{}`))
	if err := a.Fence(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Load(t.Context(), "new"); err != nil {
		t.Errorf("Load: %v", err)
	}
	knows(t, a)
	if _, err := a.Load(t.Context(), "new"); err != nil {
		t.Errorf("Load when all is known: %v", err)
	}
}

// Appends go on while the subjects are read: each record is among those that were read, or
// among those that were noted.
func TestWhatIsWrittenWhileSubjectsAreReadIsNotMissed(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	s := r.fenced(t)
	old := manyNames("old")
	fill(t, s, old)
	done := make(chan error, 1)
	go func() {
		_, err := s.list(t.Context())
		done <- err
	}()
	var all []string
	for i, err := 0, errors.New("reading"); err != nil; i++ {
		name := fmt.Sprintf("new/%d", i)
		// An old one goes to the end of the stream, behind the reading.
		mustAppend(t, s, storetest.Put(name, 1, `{}`), storetest.Put(old[(i*7)%len(old)], 2, `{}`))
		all = append(all, name)
		select {
		case err = <-done:
			if err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	t.Logf("%d appends meanwhile", len(all))
	for _, name := range append(all, old...) {
		if s.Lacks(name) {
			t.Fatalf("the list lacks %.100q", name)
		}
	}
}

// A message that the server lists and cannot read is passed over when subjects are read. The
// list must not count then, or the record would be created anew.
func TestAListWithoutADamagedRecordDoesNotCount(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	s := r.fenced(t)
	mark := "MARK-OF-THE-RECORD"
	mustAppend(t, s, storetest.Put("before", 1, `{}`))
	mustAppend(t, s, storetest.Put("bad", 1, `{"m":"`+mark+`"}`))
	mustAppend(t, s, storetest.Put("after", 1, `{}`))
	r.stop(t)
	if !overwrite(t, filepath.Join(r.dir, "jetstream", "*", "streams", "*", "msgs", "*.blk"), mark) {
		t.Fatal("the record is in no block file")
	}
	r.start(t)
	s = r.store(t)
	if err := s.Fence(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if n, err := s.list(t.Context()); err == nil || !strings.Contains(err.Error(), "4 subjects, of which 3 were read") {
		t.Errorf("list = %d, %v, want the numbers", n, err)
	}
	for range 2 {
		if _, err := s.Load(t.Context(), "bad"); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("Load = %v, want ErrCorrupt", err)
		}
		if _, err := s.Load(t.Context(), "missing"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load = %v, want ErrNotFound", err)
		}
	}
}

// BenchmarkLoadMissing is what the creation of a record asks of the store.
func BenchmarkLoadMissing(b *testing.B) {
	r := newRig(b, false)
	s := r.fenced(b)
	if _, err := s.list(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Load(b.Context(), "some/record/1"); !errors.Is(err, store.ErrNotFound) {
			b.Fatal(err)
		}
	}
}
