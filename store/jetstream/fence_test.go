package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"hadal/store"
	"hadal/store/storetest"
)

// The old owner is in the middle of its work when the new one takes over, on a
// connection of its own: whatever was acknowledged is there, and nothing
// arrives after the fence.
func TestNothingOfTheOldOwnerArrivesAfterTheFence(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	for round := range uint64(10) {
		old := r.store(t)
		if err := old.Fence(t.Context(), 2*round+1); err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect("", nats.InProcessServer(r.srv))
		if err != nil {
			t.Fatal(err)
		}
		next, err := Open(t.Context(), nc, Options{})
		if err != nil {
			t.Fatal(err)
		}
		acked := int32(0)
		started, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := int32(1); ; i++ {
				ops := []store.Op{storetest.Put("a", i, `"old"`)}
				if i%4 == 0 {
					ops = append(ops, storetest.Put("b", i, `"old"`))
				}
				if err := old.Append(context.Background(), ops); err != nil {
					ended <- err
					return
				}
				acked = i
				if i == 5 {
					close(started)
				}
			}
		}()
		<-started
		if err := next.Fence(t.Context(), 2*round+2); err != nil {
			t.Fatal(err)
		}
		a, err := next.Load(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, next, storetest.Put("b", 0, `"new"`))
		if err := <-ended; !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the old owner ended with %v, want ErrFenced", err)
		}
		if after, err := next.Load(t.Context(), "a"); err != nil || after != a || a.Version < acked {
			t.Fatalf("a was %v after the fence and is %v, %v; acknowledged was %d", a, after, err, acked)
		}
		if b, err := next.Load(t.Context(), "b"); err != nil || b.Data != `"new"` {
			t.Fatalf("b = %v, %v, want the new owner's", b, err)
		}
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
}

// Publishes that wait in a pipe while the fence passes them, each naming the
// sequence that the one before it would have had.
func TestPipelinedAppendsOfTheOldOwnerFailOneAndAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	old := r.fenced(t)
	mustAppend(t, old, storetest.Put("a", 1, `1`))
	base := old.base
	next := r.store(t)
	if err := next.Fence(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(8) {
		msg := nats.Msg{
			Subject: old.subject("a"), Header: nats.Header{headerLastSeq: {fmt.Sprint(base + i)}},
			Data: appendEntry(nil, &entry{Op: storetest.Put("a", int32(i)+2, `"old"`)}),
		}
		// The second names what is by chance the fence's own sequence; the stream
		// cannot tell. The driver never sends it: the first one's failure ends it.
		if i == 1 {
			continue
		}
		if seq, err := old.publish(t.Context(), &msg); !isWrongSequence(err) {
			t.Errorf("publish %d = %d, %v, want a wrong sequence", i, seq, err)
		}
	}
	if r, err := next.Load(t.Context(), "a"); err != nil || r.Version != 1 {
		t.Errorf("a = %v, %v, want version 1", r, err)
	}
}

func TestAnAppendWithoutAnswerFencesTheStoreOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	s := r.fenced(t)
	mustAppend(t, s, storetest.Put("a", 1, `1`))
	if st := s.Stats(t.Context()); st.Messages != 2 || st.Bytes == 0 || st.LastSequence != 2 || st.Epoch != 1 || st.Fenced || st.Ops != 1 {
		t.Errorf("Stats = %+v, want 2 messages, the fence and the record", st)
	}
	r.srv.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := s.Append(ctx, []store.Op{storetest.Put("a", 2, `2`)})
	if err == nil || errors.Is(err, store.ErrFenced) || !strings.Contains(err.Error(), `"a"`) {
		t.Fatalf("Append = %v, want another error than ErrFenced, with the name", err)
	}
	if _, err := s.Load(t.Context(), "a"); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Load = %v, want ErrFenced", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Fence(ctx, 1); err == nil {
		t.Error("Fence without a server succeeded")
	}
	if st := s.Stats(t.Context()); !st.Fenced || st.Failures != 1 || st.Appends != 1 || st.Messages != 2 {
		t.Errorf("Stats = %+v, want the last known ones, fenced, one failure", st)
	}
}

// A new owner looks where the stream ends, and what stands there, in two requests.
func TestAnEndThatIsOvertakenWhileItIsLookedAtIsNoDamage(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	s := r.fenced(t)
	mustAppend(t, s, storetest.Put("a", 1, `1`))
	before, err := s.streamInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, storetest.Put("a", 2, `2`)) // in the place of the last message
	if _, err := s.deadCount(t.Context(), before); !errors.Is(err, errMoved) {
		t.Errorf("an end that was overtaken: got %v, want that the stream changed", err)
	}
}
