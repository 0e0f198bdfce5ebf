package event

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/cluster"
	"hadal/cluster/clustertest"
	"hadal/protocol"
)

// onNodes runs a test in a bubble with a room on each of so many nodes, all linked.
func onNodes(t *testing.T, nodes int, test func(t *testing.T, w *clustertest.Wires, rooms []*Room, buses []*clustertest.WiredBus)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := clustertest.NewWires()
		w.Delay = func() time.Duration { return time.Duration(rand.IntN(2000)) * time.Microsecond }
		var rooms []*Room
		var buses []*clustertest.WiredBus
		for i := range nodes {
			bus, _ := w.Node(string(rune('a' + i)))
			rooms, buses = append(rooms, newRoomOn(bus)), append(buses, bus)
		}
		w.LinkAll()
		settle()
		test(t, w, rooms, buses)
		w.Close()
	})
}

// settle waits until nothing is under way any more.
func settle() {
	<-time.After(10 * time.Second)
	synctest.Wait()
}

func TestAnEventReachesSubscribersOnAllNodes(t *testing.T) {
	onNodes(t, 3, func(t *testing.T, w *clustertest.Wires, rooms []*Room, buses []*clustertest.WiredBus) {
		sender, here, there, further := &fake{id: 1}, &fake{id: 2}, &fake{id: 3}, &fake{id: 4}
		rooms[0].sub(sender, "0", "news")
		rooms[0].sub(here, "0", "news")
		rooms[1].sub(there, "0", "news")
		rooms[1].sub(further, "0", "news")
		for _, c := range []*fake{sender, here, there, further} {
			c.expect(t, acked(protocol.EventSubscribe, "0"))
		}
		rooms[0].do(sender, protocol.Message{
			Action: protocol.EventEmit, Name: "news", Data: `{"a":1}`, CorrelationID: "9", Alone: true, Has: ^protocol.Fields(0),
		})
		rooms[0].emitData(sender, "news", "")
		rooms[0].emitData(sender, "news", "{")
		rooms[0].emitData(sender, "other", "1")
		settle()
		first := emitted("news", `{"a":1}`)
		there.expect(t, first, emitted("news", ""))
		further.expect(t, first, emitted("news", ""))
		first.Alone = true // what may be written at once may not on the bus
		here.expect(t, first, emitted("news", ""))
		// Its client hears nothing of it, from other nodes neither.
		sender.expect(t, protocol.Message{
			Action: protocol.EventInvalidMessageData, IsError: true, Name: "news", OriginalAction: protocol.EventEmit,
			Has: protocol.HasName | protocol.HasOriginalAction,
		})
		if _, got := buses[2].Heard(); got != 0 {
			t.Errorf("a node without subscribers hears of %d events", got)
		}
		if st := rooms[1].Stats(); st.Received != 2 || st.Delivered != 4 || st.Emitted != 0 || st.Unknown != 0 {
			t.Errorf("Stats = %+v", st)
		}
		if st := rooms[0].Stats(); st.Published != 3 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

func TestAPublishersOrderIsKeptOnOtherNodes(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, w *clustertest.Wires, rooms []*Room, _ []*clustertest.WiredBus) {
		sender, other := &fake{id: 1}, &fake{id: 2}
		rooms[1].sub(other, "0", "x")
		want := []protocol.Message{acked(protocol.EventSubscribe, "0")}
		for i := range 200 {
			rooms[0].emitData(sender, "x", fmt.Sprint(i))
			want = append(want, emitted("x", fmt.Sprint(i)))
		}
		settle()
		other.expect(t, want...)
	})
}

func TestASlotIsLeftWithItsLastSubscriber(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, w *clustertest.Wires, rooms []*Room, buses []*clustertest.WiredBus) {
		c, other := &fake{id: 1}, &fake{id: 2}
		joined := func(what string, want bool) {
			t.Helper()
			if got := buses[0].Joined(cluster.KindEvent, cluster.Slot("x")); got != want {
				t.Errorf("%s: joined %v, want %v", what, got, want)
			}
		}
		joined("before", false)
		rooms[0].sub(c, "0", "x")
		rooms[0].sub(other, "0", "x")
		joined("with two", true)
		rooms[0].unsub(c, "1", "x")
		rooms[0].unsub(c, "1", "x")
		joined("with one", true)
		other.gone.Store(true)
		rooms[0].Closed(other)
		joined("when the client has left", false)
		rooms[0].sub(c, "2", "x", "secret")
		joined("again", true)
		rooms[0].Rejudge(closed{})
		joined("with other rules", true)
		if buses[0].Joined(cluster.KindEvent, cluster.Slot("secret")) {
			t.Error("the slot of a name that nobody may subscribe to is joined")
		}
	})
}

func TestSlotsFollowManyReadersAtOnce(t *testing.T) {
	w := clustertest.NewWires()
	defer w.Close()
	bus, _ := w.Node("a") // which panics when it is joined twice
	r := newRoomOn(bus)
	names := make([]string, 8)
	for i := range names {
		names[i] = fmt.Sprint("name ", i)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				c := &fake{id: uint64(g*1000 + i)}
				r.sub(c, "0", names...)
				r.unsub(c, "1", names[:4]...)
				c.gone.Store(true)
				r.Closed(c)
			}
		})
	}
	wg.Wait()
	for _, name := range names {
		if bus.Joined(cluster.KindEvent, cluster.Slot(name)) {
			t.Errorf("the slot of %q is joined for nobody", name)
		}
	}
	r.sub(&fake{id: 1 << 40}, "0", names...)
	for _, name := range names {
		if !bus.Joined(cluster.KindEvent, cluster.Slot(name)) {
			t.Errorf("the slot of %q is not joined", name)
		}
	}
}

func TestNothingIsPublishedWithoutAPeer(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, w *clustertest.Wires, rooms []*Room, _ []*clustertest.WiredBus) {
		c := &fake{id: 1}
		w.Cut("a", "b")
		settle()
		rooms[0].emitData(c, "x", "1")
		w.Link("a", "b")
		settle()
		rooms[0].emitData(c, "x", "1")
		if got := rooms[0].Stats(); got.Emitted != 2 || got.Published != 1 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestWhatIsNoEventIsDropped(t *testing.T) {
	r, c := newRoom(), &fake{id: 1}
	r.sub(c, "0", "x")
	good := appendEvent(nil, "x", "1")
	p := peers{r}
	p.Published("p", cluster.Slot("x"), good)
	p.Published("p", cluster.Slot("x"), append([]byte{format + 1}, good[1:]...))
	p.Published("p", cluster.Slot("x"), good[:2])
	p.Published("p", cluster.Slot("x"), nil)
	p.Hear("p", good)
	c.expect(t, acked(protocol.EventSubscribe, "0"), emitted("x", "1"))
	if st := r.Stats(); st.Unknown != 4 || st.Received != 1 {
		t.Errorf("Stats = %+v", st)
	}
}

func FuzzEventOfAPeer(f *testing.F) {
	f.Add(appendEvent(nil, "news", `{"a":1}`))
	f.Add(appendEvent(nil, "", ""))
	f.Add([]byte{format, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		name, data, err := parseEvent(b)
		if err != nil {
			return
		}
		again := appendEvent(nil, string(name), string(data))
		if n, d, err := parseEvent(again); err != nil || !bytes.Equal(n, name) || !bytes.Equal(d, data) {
			t.Errorf("%q, %q is %q, %q, %v", name, data, n, d, err)
		}
	})
}
