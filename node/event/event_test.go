package event

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/listen"
	"hadal/node/sub"
	"hadal/protocol"
)

// fake is a client that keeps what it is sent.
type fake struct {
	id    uint64
	gone  atomic.Bool
	mu    sync.Mutex
	got   []protocol.Message // guarded by mu
	paced atomic.Int64
}

func (f *fake) ID() uint64       { return f.id }
func (f *fake) User() *auth.User { return &auth.User{ID: "u"} }
func (f *fake) Gone() bool       { return f.gone.Load() }
func (f *fake) Reserve(int) bool { return true }
func (f *fake) Release(int)      {}
func (f *fake) Pace()            { f.paced.Add(1) }
func (f *fake) Answer(m *protocol.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, *m)
}
func (f *fake) AnswerShared(o *protocol.Outbound) { f.Answer(&o.Message) }
func (f *fake) Send(o *protocol.Outbound)         { f.Answer(&o.Message) }

func (f *fake) expect(t *testing.T, want ...protocol.Message) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range want {
		want[i].Topic = protocol.TopicEvent
	}
	if len(f.got) != len(want) || len(want) > 0 && !reflect.DeepEqual(f.got, want) {
		t.Errorf("client %d got\n\t%+v\nwant\n\t%+v", f.id, f.got, want)
	}
	f.got = nil
}

func newRoom() *Room { return newRoomOn(cluster.Alone{}) }

func newRoomOn(bus cluster.Bus) *Room {
	log := slog.New(slog.DiscardHandler)
	subs := sub.NewRegistry()
	return New(subs, listen.New(protocol.TopicEvent, listen.DefaultConfig(), subs, cluster.NewSoloInMemory("test"), cluster.Alone{}, log), bus, log)
}

func (r *Room) do(c *fake, m protocol.Message) {
	m.Topic = protocol.TopicEvent
	r.Handle(c, &m)
}

func (r *Room) sub(c *fake, id string, names ...string) {
	r.do(c, protocol.Message{Action: protocol.EventSubscribe, Names: names, CorrelationID: id, Has: protocol.HasCorrelationID})
}

func (r *Room) unsub(c *fake, id string, names ...string) {
	r.do(c, protocol.Message{Action: protocol.EventUnsubscribe, Names: names, CorrelationID: id, Has: protocol.HasCorrelationID})
}

func (r *Room) emitData(c *fake, name, data string) {
	m := protocol.Message{Action: protocol.EventEmit, Name: name, Has: protocol.HasName, Data: data}
	if data != "" {
		m.Has |= protocol.HasData
	}
	r.do(c, m)
}

func acked(a protocol.Action, id string) protocol.Message {
	return protocol.Message{Action: a, IsAck: true, CorrelationID: id, Has: protocol.HasCorrelationID}
}

func emitted(name, data string) protocol.Message {
	m := protocol.Message{Action: protocol.EventEmit, Name: name, Has: protocol.HasName, Data: data}
	if data != "" {
		m.Has |= protocol.HasData
	}
	return m
}

func multiple(name string) protocol.Message {
	return protocol.Message{
		Action: protocol.EventMultipleSubscriptions, Name: name, OriginalAction: protocol.EventSubscribe,
		Has: protocol.HasName | protocol.HasOriginalAction,
	}
}

func TestSubscriptionsAreAcknowledged(t *testing.T) {
	for _, tc := range []struct {
		what string
		do   func(r *Room, c *fake)
		want []protocol.Message
	}{
		{"a subscription", func(r *Room, c *fake) { r.sub(c, "0", "a", "b") },
			[]protocol.Message{acked(protocol.EventSubscribe, "0")}},
		{"one name again", func(r *Room, c *fake) { r.sub(c, "0", "a", "b"); r.sub(c, "1", "b", "c") },
			[]protocol.Message{acked(protocol.EventSubscribe, "0"), multiple("b"), acked(protocol.EventSubscribe, "1")}},
		{"one name twice in a list", func(r *Room, c *fake) { r.sub(c, "0", "a", "a") },
			[]protocol.Message{multiple("a"), acked(protocol.EventSubscribe, "0")}},
		{"no name", func(r *Room, c *fake) { r.sub(c, "0") },
			[]protocol.Message{acked(protocol.EventSubscribe, "0")}},
		{"no correlation id", func(r *Room, c *fake) {
			r.do(c, protocol.Message{Action: protocol.EventSubscribe, Names: []string{"a"}})
		}, []protocol.Message{{Action: protocol.EventSubscribe, IsAck: true}}},
		{"an end", func(r *Room, c *fake) { r.sub(c, "0", "a"); r.unsub(c, "1", "a") },
			[]protocol.Message{acked(protocol.EventSubscribe, "0"), acked(protocol.EventUnsubscribe, "1")}},
		{"an end of nothing", func(r *Room, c *fake) { r.unsub(c, "0", "a") },
			[]protocol.Message{acked(protocol.EventUnsubscribe, "0")}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			r, c := newRoom(), &fake{id: 1}
			tc.do(r, c)
			c.expect(t, tc.want...)
		})
	}
}

func TestAnEventReachesEverybodyButItsSocket(t *testing.T) {
	r := newRoom()
	sender, other, same := &fake{id: 1}, &fake{id: 2}, &fake{id: 3}
	for _, c := range []*fake{sender, other, same} {
		r.sub(c, "0", "news")
		c.expect(t, acked(protocol.EventSubscribe, "0"))
	}
	r.emitData(sender, "news", `{"a":1}`)
	sender.expect(t)
	other.expect(t, emitted("news", `{"a":1}`))
	same.expect(t, emitted("news", `{"a":1}`))
	r.unsub(same, "1", "news")
	r.emitData(sender, "news", "2")
	other.expect(t, emitted("news", "2"))
	same.expect(t, acked(protocol.EventUnsubscribe, "1"))
}

func TestOnlyKnownFieldsAreRelayed(t *testing.T) {
	r := newRoom()
	sender, other := &fake{id: 1}, &fake{id: 2}
	r.sub(other, "0", "news")
	other.expect(t, acked(protocol.EventSubscribe, "0"))
	r.do(sender, protocol.Message{
		Action: protocol.EventEmit, Name: "news", Names: []string{"x"}, Data: "null", CorrelationID: "9", Subscription: "s",
		IsAck: true, IsError: true, IsWriteAck: true, OriginalAction: 3, Path: "p", Version: 2,
		Has: ^protocol.Fields(0),
	})
	other.expect(t, emitted("news", "null"))
}

func TestPayloadsOfEvents(t *testing.T) {
	for _, tc := range []struct {
		what, data string
		relayed    bool
	}{
		{"null", "null", true},
		{"an empty text", `""`, true},
		{"zero", "0", true},
		{"an object", `{"a":[1,2,{"b":"c"}]}`, true},
		{"none", "", true},
		{"half an object", `{"a":`, false},
		{"two values", "1 2", false},
		{"not a number", "NaN", false},
		{"undefined", "undefined", false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			r := newRoom()
			sender, other := &fake{id: 1}, &fake{id: 2}
			r.sub(other, "0", "x")
			other.expect(t, acked(protocol.EventSubscribe, "0"))
			r.emitData(sender, "x", tc.data)
			if tc.relayed {
				other.expect(t, emitted("x", tc.data))
				sender.expect(t)
				return
			}
			other.expect(t)
			sender.expect(t, protocol.Message{
				Action: protocol.EventInvalidMessageData, IsError: true, Name: "x", OriginalAction: protocol.EventEmit,
				Has: protocol.HasName | protocol.HasOriginalAction,
			})
			if got := r.Stats().Refused; got != 1 {
				t.Errorf("Refused = %d, want 1", got)
			}
		})
	}
}

func TestOddInputIsHarmless(t *testing.T) {
	r, c, other := newRoom(), &fake{id: 1}, &fake{id: 2}
	r.sub(other, "0", "", "a")
	other.expect(t, acked(protocol.EventSubscribe, "0"))
	r.do(c, protocol.Message{Action: protocol.EventEmit})
	r.do(c, protocol.Message{Action: protocol.EventEmit, Data: "{", Has: protocol.HasData})
	r.do(c, protocol.Message{Action: protocol.EventSubscriptionHasProvider, Name: "a", Has: protocol.HasName})
	r.do(c, protocol.Message{Action: 4711, Name: "a", Has: protocol.HasName})
	r.do(c, protocol.Message{})
	c.expect(t)
	other.expect(t)
}

func TestOnePublishersEventsArriveInOrder(t *testing.T) {
	r, c, other := newRoom(), &fake{id: 1}, &fake{id: 2}
	r.sub(other, "0", "x")
	want := []protocol.Message{acked(protocol.EventSubscribe, "0")}
	for i := range 100 {
		r.emitData(c, "x", fmt.Sprint(i))
		want = append(want, emitted("x", fmt.Sprint(i)))
	}
	other.expect(t, want...)
}

func TestALeavingClientHearsNothingMore(t *testing.T) {
	r, c, other := newRoom(), &fake{id: 1}, &fake{id: 2}
	r.sub(other, "0", "x", "y")
	other.gone.Store(true)
	r.Closed(other)
	r.emitData(c, "x", "1")
	other.expect(t, acked(protocol.EventSubscribe, "0"))
	if got, want := r.Stats(), (Stats{Emitted: 1}); !reflect.DeepEqual(got, want) {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
}

func TestAnEndlessListOfDuplicatesIsPaced(t *testing.T) {
	r, c := newRoom(), &fake{id: 1}
	r.sub(c, "0", slices.Repeat([]string{"x"}, 10*pace)...)
	if got := c.paced.Load(); got != 10 {
		t.Errorf("paced %d times, want 10", got)
	}
}

func TestSubscribingFindsAProviderAndLeavingFreesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p, c := newRoom(), &fake{id: 1}, &fake{id: 2}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := r.listen.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		listened := func(a protocol.Action, name string) protocol.Message {
			return protocol.Message{Action: a, Name: "^n", Subscription: name, Has: protocol.HasName | protocol.HasSubscription}
		}
		r.do(p, protocol.Message{Action: protocol.EventListen, Name: "^n", Has: protocol.HasName})
		r.sub(c, "0", "news")
		synctest.Wait()
		r.do(p, listened(protocol.EventListenAccept, "news"))
		r.unsub(c, "1", "news")
		synctest.Wait()
		r.sub(c, "2", "nuts")
		synctest.Wait()
		r.do(p, listened(protocol.EventListenAccept, "nuts"))
		c.gone.Store(true)
		r.Closed(c)
		synctest.Wait()
		p.expect(t,
			protocol.Message{Action: protocol.EventListen, IsAck: true, Name: "^n", Has: protocol.HasName},
			listened(protocol.EventSubscriptionForPatternFound, "news"),
			listened(protocol.EventSubscriptionForPatternRemoved, "news"),
			listened(protocol.EventSubscriptionForPatternFound, "nuts"),
			listened(protocol.EventSubscriptionForPatternRemoved, "nuts"))
		p.gone.Store(true)
		r.Closed(p)
		synctest.Wait()
		if got := r.Stats().Listen; got.Listeners != 0 || got.Patterns != 0 {
			t.Errorf("Stats = %+v, want no listener", got)
		}
		stop()
		wg.Wait()
	})
}

func TestManyPublishersAndSubscribersAtOnce(t *testing.T) {
	r := newRoom()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				c := &fake{id: uint64(g*1000 + i)}
				r.sub(c, "0", "a", "b")
				r.emitData(c, "a", "1")
				r.unsub(c, "1", "b")
				c.gone.Store(true)
				r.Closed(c)
			}
		})
	}
	wg.Wait()
	if got := r.Stats(); got.Names != 0 || got.Subscriptions != 0 || got.Emitted != 800 {
		t.Errorf("Stats = %+v", got)
	}
}

// sink is a client as cheap as can be that still needs the bytes.
type sink struct {
	fake
	bytes int
}

func (s *sink) Send(o *protocol.Outbound) { s.bytes += len(o.Frame(protocol.FormBinary)) }

// An event is copied once for all its subscribers, whatever their number.
func TestAnEventAllocatesTheSameForAnyNumberOfSubscribers(t *testing.T) {
	for _, n := range []int{1, 1000} {
		r := newRoom()
		for i := range n {
			r.Handle(&sink{fake: fake{id: uint64(i)}}, &protocol.Message{
				Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"news/sport"},
			})
		}
		sender := &sink{fake: fake{id: 1 << 40}}
		m := &protocol.Message{
			Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "news/sport", Data: `{"home":1,"away":0}`,
			Has: protocol.HasName | protocol.HasData,
		}
		if got := testing.AllocsPerRun(100, func() { r.Handle(sender, m) }); got > 3 {
			t.Errorf("an event to %d subscribers allocates %v times, want at most 3", n, got)
		}
	}
}

func BenchmarkEmit(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := newRoom()
			for i := range n {
				r.Handle(&sink{fake: fake{id: uint64(i)}}, &protocol.Message{
					Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"news/sport"},
				})
			}
			sender := &sink{fake: fake{id: 1 << 40}}
			m := &protocol.Message{
				Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "news/sport", Data: `{"home":1,"away":0}`,
				Has: protocol.HasName | protocol.HasData,
			}
			b.ReportAllocs()
			for b.Loop() {
				r.Handle(sender, m)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/subscriber")
		})
	}
}

func TestAnEventThatCameAloneIsSentOnAsSuch(t *testing.T) {
	r := newRoom()
	from, to := &fake{id: 1}, &fake{id: 2}
	r.sub(to, "1", "e")
	to.expect(t, acked(protocol.EventSubscribe, "1"))
	for _, alone := range []bool{true, false} {
		r.do(from, protocol.Message{Action: protocol.EventEmit, Name: "e", Has: protocol.HasName, Alone: alone})
		to.expect(t, protocol.Message{Action: protocol.EventEmit, Name: "e", Has: protocol.HasName, Alone: alone})
	}
}

func TestAnEventToManyIsNotSentOnAsAlone(t *testing.T) {
	r := newRoom()
	from, to := &fake{id: 1}, make([]*fake, 5)
	for i := range to {
		to[i] = &fake{id: uint64(2 + i)}
		r.sub(to[i], "1", "e")
		to[i].expect(t, acked(protocol.EventSubscribe, "1"))
	}
	r.do(from, protocol.Message{Action: protocol.EventEmit, Name: "e", Has: protocol.HasName, Alone: true})
	for _, c := range to {
		c.expect(t, protocol.Message{Action: protocol.EventEmit, Name: "e", Has: protocol.HasName})
	}
}

// The message for the subscribers, its frame, and the reference to that.
func TestAnEventMakesAsLittleGarbageForManyAsForOne(t *testing.T) {
	for _, n := range []int{1, 1000} {
		r := newRoom()
		for i := range n {
			r.Handle(&sink{fake: fake{id: uint64(i)}}, &protocol.Message{
				Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"news/sport"},
			})
		}
		sender := &sink{fake: fake{id: 1 << 40}}
		m := &protocol.Message{
			Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "news/sport", Data: `{"home":1,"away":0}`,
			Has: protocol.HasName | protocol.HasData,
		}
		if got := testing.AllocsPerRun(100, func() { r.Handle(sender, m) }); got != 3 {
			t.Errorf("an event for %d subscribers takes %v allocations, want 3", n, got)
		}
	}
}
