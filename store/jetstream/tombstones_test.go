package jetstream

import (
	"fmt"
	"strings"
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

// swept waits until only n tombstones are left.
func swept(t *testing.T, s *Store, n int) {
	t.Helper()
	for {
		s.state.Lock()
		left, changed := s.tombs.len(), s.changed
		s.state.Unlock()
		if left <= n {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("%d tombstones are left", left)
		}
	}
}

func TestRemovedRecordsLeaveTheStream(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	s := r.fenced(t)
	var puts, deletes []store.Op
	for i := range 50 {
		name := fmt.Sprintf("r/%d", i)
		puts, deletes = append(puts, storetest.Put(name, 1, `{}`)), append(deletes, storetest.Delete(name))
	}
	mustAppend(t, s, puts...)
	mustAppend(t, s, deletes...)
	swept(t, s, 1) // the stream's last message stays until another comes
	if st := s.Stats(t.Context()); st.Messages != 2 || st.Tombstones != 1 {
		t.Errorf("Stats = %+v, want the fence and one tombstone", st)
	}
	mustAppend(t, s, storetest.Put("other", 1, `{}`))
	swept(t, s, 0)
	if st := s.Stats(t.Context()); st.Messages != 2 || st.Tombstones != 0 {
		t.Errorf("Stats = %+v, want the fence and one record", st)
	}
	// A batch whose end was removed and swept is at the end of the stream no
	// more; the rig fails when the server complains of that at the start.
	mustAppend(t, s, puts[:3]...)
	mustAppend(t, s, deletes[2])
	swept(t, s, 1)
	r.Restart(t)
	s = r.fenced(t)
	swept(t, s, 0)
	mustAppend(t, s, puts[:3]...)
	r.Restart(t)
}

// Sweeping goes by sequence, so a record that comes back is safe however late
// its tombstone is swept.
func TestARecordThatCameBackIsNotSwept(t *testing.T) {
	t.Parallel()
	s := newRig(t, false).fenced(t)
	for i := range int32(200) {
		mustAppend(t, s, storetest.Put("a", i, `{}`))
		mustAppend(t, s, storetest.Delete("a"))
		if i%3 == 0 {
			mustAppend(t, s, storetest.Put("b", i, `{}`)) // lets the sweeper at it
		}
		mustAppend(t, s, storetest.Put("a", i, `[]`))
		if r, err := s.Load(t.Context(), "a"); err != nil || r.Version != i || r.Data != `[]` {
			t.Fatalf("round %d: a = %v, %v", i, r, err)
		}
	}
	swept(t, s, 0)
	if st := s.Stats(t.Context()); st.Messages != 3 {
		t.Errorf("%d messages, want a, b and the fence", st.Messages)
	}
}

// An owner that never gets to sweep leaves its tombstones; the next one finds
// every one of them, lists none, and sweeps.
func TestTombstonesOfADeadOwnerAreFound(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	s := r.store(t)
	s.stop() // its sweeper is dead
	s.done.Wait()
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("long", 1000)
	for i := range 20 {
		mustAppend(t, s, storetest.Put(fmt.Sprintf("dead/%d", i), 1, `{}`), storetest.Put(fmt.Sprintf("live/%d", i), 1, `{}`))
	}
	mustAppend(t, s, storetest.Put(long, 1, `{}`))
	for i := range 20 {
		mustAppend(t, s, storetest.Delete(fmt.Sprintf("dead/%d", i)))
	}
	mustAppend(t, s, storetest.Delete(long), storetest.Put("live/0", 2, `{}`))
	check := func(s *Store, want int) {
		t.Helper()
		n := 0
		if err := s.Names(t.Context(), "", func(name string) error {
			n++
			if !strings.HasPrefix(name, "live/") {
				t.Errorf("Names gave %.40q", name)
			}
			return nil
		}); err != nil || n != want {
			t.Errorf("Names gave %d names, %v, want %d", n, err, want)
		}
	}
	check(s, 20)
	if got := s.Stats(t.Context()).Tombstones; got != 21 {
		t.Errorf("%d tombstones, want 21", got)
	}
	next := r.store(t)
	if err := next.Fence(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	check(next, 20)
	swept(t, next, 0)
	check(next, 20)
	if st := next.Stats(t.Context()); st.Messages != 21 {
		t.Errorf("%d messages, want 20 records and the fence", st.Messages)
	}
}

// The low mark in the last message bounds the search of a new owner.
func TestTheLowMarkFollowsTheSweeper(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	s := r.fenced(t)
	for i := range int32(10) {
		mustAppend(t, s, storetest.Put("a", i, `{}`), storetest.Put("b", i, `{}`))
		mustAppend(t, s, storetest.Delete("a"))
	}
	mustAppend(t, s, storetest.Put("c", 1, `{}`))
	swept(t, s, 0)
	mustAppend(t, s, storetest.Put("c", 2, `{}`), storetest.Put("d", 2, `{}`))
	m, err := s.message(t.Context(), getBySequence(s.base))
	if err != nil || m.low != s.base-1 {
		t.Errorf("the low mark is %d at the end %d, %v, want the first of the batch", m.low, s.base, err)
	}
}

// A tombstone that nobody knows of, as after a power cut, goes when it is met.
func TestAnUnknownTombstoneIsSweptWhenMet(t *testing.T) {
	t.Parallel()
	s := newRig(t, false).fenced(t)
	mustAppend(t, s, storetest.Put("a", 1, `{}`))
	mustAppend(t, s, storetest.Delete("a"))
	s.state.Lock()
	s.tombs = tombstones{} // forgotten before it could be swept
	s.state.Unlock()
	mustAppend(t, s, storetest.Put("b", 1, `{}`))
	if _, err := s.Load(t.Context(), "a"); err == nil {
		t.Fatal("a removed record was loaded")
	}
	swept(t, s, 0)
	if st := s.Stats(t.Context()); st.Messages != 2 {
		t.Errorf("%d messages, want the fence and b", st.Messages)
	}
}

func TestTombstonesKnowTheLowestSequence(t *testing.T) {
	var ts tombstones
	if got := ts.low(7); got != 7 {
		t.Errorf("low of none = %d, want the next sequence", got)
	}
	ts.add("a", 3)
	ts.add("b", 4)
	ts.add("a", 5) // removed again
	if head, ok := ts.first(); !ok || head != (tombstone{"b", 4}) || ts.low(9) != 4 || ts.len() != 2 {
		t.Errorf("first = %v, %v of %d, want b at 4 of 2", head, ok, ts.len())
	}
	ts.drop("b")
	ts.drop("never")
	if got := ts.low(9); got != 5 {
		t.Errorf("low = %d, want 5", got)
	}
	ts.drop("a")
	if _, ok := ts.first(); ok || ts.len() != 0 {
		t.Error("tombstones are left")
	}
}
