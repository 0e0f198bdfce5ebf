package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// heard is a handler that counts, and hands on what it hears.
type heard struct {
	n  atomic.Int64
	fn func(peer string, slot uint16, payload []byte)
}

func (h *heard) Published(peer string, slot uint16, payload []byte) {
	h.n.Add(1)
	if h.fn != nil {
		h.fn(peer, slot, payload)
	}
}

// slotsOn runs the slots of a server until the test ends.
func slotsOn(t testing.TB, s *Server, handlers map[Kind]SlotHandler) *SlotBus {
	t.Helper()
	bus := NewSlotBus(s, slog.New(slog.NewTextHandler(t.Output(), nil)))
	for k, h := range handlers {
		bus.Handle(k, h)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := bus.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return bus
}

// awaitJoin waits until a node notices that somebody else has joined.
func awaitJoin(t testing.TB, from *SlotBus, k Kind, slot uint16, want bool) {
	t.Helper()
	retry(t, fmt.Sprintf("it is noticed that somebody has joined: %v", want), func() error {
		// Until its own subscription is counted, a node takes that for somebody else's.
		to := from.at(k, slot)
		if to.joined.Load() != to.counted.Load() || from.wanted(to) != want {
			return errors.New("not yet")
		}
		return nil
	})
}

func TestWhatIsPublishedArrivesInOrderWhereItWasAskedFor(t *testing.T) {
	f := startFleet(t, 3)
	const publishers, each = 4, 2000
	last := make([][publishers]uint32, 3)
	done := make(chan int, 3)
	var buses []*SlotBus
	for i, s := range f.members {
		left := publishers * each
		h := &heard{fn: func(peer string, slot uint16, payload []byte) {
			who, n := payload[0], binary.BigEndian.Uint32(payload[1:])
			if peer != f.members[0].opts.Dir.NodeID() || slot != 7 || n != last[i][who]+1 {
				t.Errorf("member %d heard %d of publisher %d after %d, from %s in slot %d", i, n, who, last[i][who], peer, slot)
			}
			last[i][who] = n
			if left--; left == 0 {
				done <- i
			}
		}}
		buses = append(buses, slotsOn(t, s, map[Kind]SlotHandler{KindEvent: h}))
	}
	buses[0].Join(KindEvent, 7) // does not hear itself
	buses[1].Join(KindEvent, 7)
	buses[2].Join(KindEvent, 8)
	awaitJoin(t, buses[0], KindEvent, 7, true)
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for n := range uint32(each) {
				buses[0].Publish(KindEvent, 7, append([]byte{byte(p)}, binary.BigEndian.AppendUint32(nil, n+1)...))
			}
		})
	}
	all.Wait()
	select {
	case i := <-done:
		if i != 1 {
			t.Errorf("member %d heard everything, want member 1", i)
		}
	case <-time.After(patience):
		t.Fatalf("not everything has arrived: %v; sent %+v, received %+v", last, buses[0].Stats(), buses[1].Stats())
	}
	st := buses[0].Stats()
	if st.Published != publishers*each || st.Dropped != 0 || st.Sent > st.Published || st.Joined != 1 {
		t.Errorf("Stats = %+v", st)
	}
	t.Logf("%d payloads in %d messages", st.Published, st.Sent)
	if st := buses[1].Stats(); st.Heard != publishers*each || st.Missed != 0 {
		t.Errorf("Stats of the receiver = %+v", st)
	}
	if st := buses[2].Stats(); st.Heard != 0 {
		t.Errorf("who joined another slot heard %d", st.Heard)
	}
	buses[1].Leave(KindEvent, 7)
	awaitJoin(t, buses[0], KindEvent, 7, false)
	buses[0].Publish(KindEvent, 7, []byte("nobody"))
	if st := buses[0].Stats(); st.Published != publishers*each {
		t.Error("it was published with nobody there")
	}
}

func TestKindsAndSlotsAreKeptApart(t *testing.T) {
	f := startFleet(t, 2)
	type message struct {
		kind Kind
		slot uint16
		text string
	}
	got := make(chan message, 100)
	handlers := func(out bool) map[Kind]SlotHandler {
		all := make(map[Kind]SlotHandler)
		for _, k := range []Kind{KindEvent, KindPresence} {
			all[k] = &heard{fn: func(_ string, slot uint16, payload []byte) {
				if out {
					got <- message{k, slot, string(payload)}
				}
			}}
		}
		return all
	}
	a, b := slotsOn(t, f.members[0], handlers(false)), slotsOn(t, f.members[1], handlers(true))
	for _, k := range []Kind{KindEvent, KindPresence} {
		for _, slot := range []uint16{0, Slots - 1} {
			b.Join(k, slot)
			awaitJoin(t, a, k, slot, true)
			want := message{k, slot, fmt.Sprint(k, slot)}
			a.Publish(k, slot, []byte(want.text))
			select {
			case m := <-got:
				if m != want {
					t.Errorf("heard %+v, want %+v", m, want)
				}
			case <-time.After(patience):
				t.Fatalf("%+v has not arrived", want)
			}
		}
	}
	// What nobody handles, or does not exist, is dropped.
	a.Publish(KindRPC, 1, nil)
	a.Join(KindRPC, 1)
	a.Join(KindEvent, Slots)
	a.Publish(200, 1, nil)
}

func TestASlotIsLeftAndJoinedAgain(t *testing.T) {
	f := startFleet(t, 2)
	h := &heard{}
	a, b := slotsOn(t, f.members[0], map[Kind]SlotHandler{KindEvent: &heard{}}), slotsOn(t, f.members[1], map[Kind]SlotHandler{KindEvent: h})
	for range 3 {
		b.Join(KindEvent, 1)
		b.Join(KindEvent, 1)
		awaitJoin(t, a, KindEvent, 1, true)
		before := h.n.Load()
		a.Publish(KindEvent, 1, []byte("x"))
		retry(t, "it arrives", func() error {
			if h.n.Load() != before+1 {
				return errors.New("not yet")
			}
			return nil
		})
		b.Leave(KindEvent, 1)
		b.Leave(KindEvent, 1)
		awaitJoin(t, a, KindEvent, 1, false)
	}
}

func TestAllSlotsAreJoinedAndOutliveARestartOfTheServer(t *testing.T) {
	f := startFleet(t, 2)
	h := &heard{}
	a, b := slotsOn(t, f.members[0], map[Kind]SlotHandler{KindEvent: &heard{}}), slotsOn(t, f.members[1], map[Kind]SlotHandler{KindEvent: h})
	began := time.Now()
	for i := range uint16(Slots) {
		b.Join(KindEvent, i)
	}
	awaitJoin(t, a, KindEvent, Slots-1, true)
	t.Logf("%d slots joined, and noticed, in %v", Slots, time.Since(began).Round(time.Millisecond))
	supervise(t, f.members[1])
	if err := f.members[1].restart(t.Context(), errors.New("a test")); err != nil {
		t.Fatal(err)
	}
	for _, slot := range []uint16{0, Slots - 1} {
		awaitJoin(t, a, KindEvent, slot, true)
		before := h.n.Load()
		a.Publish(KindEvent, slot, []byte("x"))
		retry(t, "it arrives", func() error {
			if h.n.Load() == before {
				a.Publish(KindEvent, slot, []byte("x"))
				return errors.New("not yet")
			}
			return nil
		})
	}
}

func TestWhatDoesNotFitIsDroppedAndCounted(t *testing.T) {
	f := startFleet(t, 2)
	var log strings.Builder
	// Not run: nothing leaves the queue.
	a := NewSlotBus(f.members[0], slog.New(slog.NewTextHandler(&log, nil)))
	a.Handle(KindEvent, &heard{})
	b := slotsOn(t, f.members[1], map[Kind]SlotHandler{KindEvent: &heard{}})
	b.Join(KindEvent, 1)
	awaitJoin(t, a, KindEvent, 1, true)
	payload := make([]byte, 1<<20)
	for range 20 {
		a.Publish(KindEvent, 1, payload)
	}
	a.Publish(KindEvent, 1, make([]byte, f.members[0].opts.MaxMessage))
	st := a.Stats()
	if st.Published != 15 || st.Dropped != 6 || st.Queued > slotsQueue {
		t.Errorf("Stats = %+v, want 15 published and 6 dropped", st)
	}
	if got := strings.Count(log.String(), "dropped"); got == 0 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("the log is %q, want one line", log.String())
	}
}

func TestMalformedMessagesAreCounted(t *testing.T) {
	f := startFleet(t, 2)
	h := &heard{}
	b := slotsOn(t, f.members[1], map[Kind]SlotHandler{KindEvent: h})
	b.Join(KindEvent, 1)
	to := b.at(KindEvent, 1)
	good := appendSlotPayload(appendSlotHeader(nil, "somebody"), []byte("x"))
	retry(t, "a good one arrives", func() error {
		if err := f.members[0].Conn().Publish(to.subject, good); err != nil {
			return err
		}
		if h.n.Load() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	bad := [][]byte{nil, {2}, {1}, {1, 0}, good[:len(good)-1], appendSlotHeader(nil, strings.Repeat("x", 100))}
	for _, data := range bad {
		if err := f.members[0].Conn().Publish(to.subject, data); err != nil {
			t.Fatal(err)
		}
	}
	retry(t, "all are counted", func() error {
		if got := b.Stats().Malformed; got != uint64(len(bad)) {
			return fmt.Errorf("%d malformed, want %d", got, len(bad))
		}
		return nil
	})
	for _, m := range []*nats.Msg{{Subject: "x", Data: good}, {Subject: "hadal.slot.1.4096", Data: good}} {
		if err := b.open(b.kinds[KindEvent], m, map[string]string{}); err == nil {
			t.Errorf("a message on %s was read", m.Subject)
		}
	}
}

func FuzzSlotMessage(f *testing.F) {
	f.Add(appendSlotPayload(appendSlotPayload(appendSlotHeader(nil, "id"), []byte("one")), nil))
	f.Add([]byte{1, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		sender, rest, err := cutSlotHeader(data)
		if err != nil {
			return
		}
		again := appendSlotHeader(nil, string(sender))
		for len(rest) > 0 {
			var payload []byte
			if payload, rest, err = cutSlotPayload(rest); err != nil {
				return
			}
			again = appendSlotPayload(again, payload)
		}
		// Only a number that is longer than needed reads the same and is not.
		if len(again) == len(data) && !bytes.Equal(again, data) {
			t.Errorf("%x was read as %x", data, again)
		}
	})
}

func BenchmarkSlots(b *testing.B) {
	f := startFleet(b, 2)
	h := &heard{}
	from, to := slotsOn(b, f.members[0], map[Kind]SlotHandler{KindEvent: &heard{}}), slotsOn(b, f.members[1], map[Kind]SlotHandler{KindEvent: h})
	payload := make([]byte, 128)
	b.Run("nobody", func(b *testing.B) {
		b.ReportAllocs()
		slot := uint16(0)
		for b.Loop() {
			from.Publish(KindEvent, slot, payload)
			slot = (slot + 1) % Slots
		}
	})
	b.Run("nobody but ourselves", func(b *testing.B) {
		from.Join(KindEvent, 3)
		retry(b, "it is counted", func() error {
			if !from.at(KindEvent, 3).counted.Load() {
				return errors.New("not yet")
			}
			return nil
		})
		b.ReportAllocs()
		for b.Loop() {
			from.Publish(KindEvent, 3, payload)
		}
		from.Leave(KindEvent, 3)
	})
	for _, slots := range []uint16{1, Slots} {
		b.Run(fmt.Sprintf("one way, %d slots", slots), func(b *testing.B) {
			for i := range slots {
				to.Join(KindEvent, i)
			}
			awaitJoin(b, from, KindEvent, slots-1, true)
			b.ReportAllocs()
			before, n := h.n.Load(), int64(0)
			dropped := from.Stats().Dropped
			for b.Loop() {
				from.Publish(KindEvent, uint16(n)%slots, payload)
				if n++; n%256 == 0 {
					for n-(h.n.Load()-before) > 20_000 { // no more than the queue takes
						runtime.Gosched()
					}
				}
			}
			retry(b, "everything has arrived", func() error {
				st := to.Stats()
				if got := h.n.Load() - before; got+int64(from.Stats().Dropped-dropped) < n && st.Missed == 0 {
					return fmt.Errorf("%d of %d", got, n)
				}
				return nil
			})
			b.ReportMetric(float64(h.n.Load()-before)/b.Elapsed().Seconds(), "events/s")
			for i := range slots {
				to.Leave(KindEvent, i)
			}
			awaitJoin(b, from, KindEvent, slots-1, false)
		})
	}
}
