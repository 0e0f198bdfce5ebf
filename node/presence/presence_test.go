package presence

import (
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hadal/auth"
	"hadal/cluster"
	"hadal/protocol"
)

// fake is a client that keeps what it is sent.
type fake struct {
	id    uint64
	user  *auth.User
	gone  atomic.Bool
	paced atomic.Int64
	mu    sync.Mutex
	got   []protocol.Message // guarded by mu
}

func (f *fake) Reserve(int) bool                  { return true }
func (f *fake) Release(int)                       {}
func (f *fake) ID() uint64                        { return f.id }
func (f *fake) User() *auth.User                  { return f.user }
func (f *fake) Gone() bool                        { return f.gone.Load() }
func (f *fake) Pace()                             { f.paced.Add(1) }
func (f *fake) AnswerShared(o *protocol.Outbound) { f.Answer(&o.Message) }
func (f *fake) Send(o *protocol.Outbound)         { f.Answer(&o.Message) }
func (f *fake) Answer(m *protocol.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, *m)
}

func (f *fake) expect(t *testing.T, want ...protocol.Message) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range want {
		want[i].Topic = protocol.TopicPresence
	}
	for i := range f.got {
		slices.Sort(f.got[i].Names)
	}
	if len(f.got) != len(want) || len(want) > 0 && !reflect.DeepEqual(f.got, want) {
		t.Errorf("client %d got\n\t%+v\nwant\n\t%+v", f.id, f.got, want)
	}
	f.got = nil
}

var lastID atomic.Uint64

func client(user string) *fake { return &fake{id: lastID.Add(1), user: &auth.User{ID: user}} }

func newRoom() *Room { return newRoomOn(cluster.Alone{}, cluster.NewSoloInMemory("n")) }

func newRoomOn(bus cluster.Bus, table cluster.Table) *Room {
	return New(bus, table, slog.New(slog.DiscardHandler))
}

func (r *Room) login(user string) *fake { c := client(user); r.Login(c); return c }

func (r *Room) logout(c *fake) { c.gone.Store(true); r.Closed(c) }

func (r *Room) do(c *fake, a protocol.Action, id string, names ...string) {
	m := &protocol.Message{Topic: protocol.TopicPresence, Action: a, Names: names, CorrelationID: id}
	if id != "" {
		m.Has = protocol.HasCorrelationID
	}
	r.Handle(c, m)
}

const (
	subscribe   = protocol.PresenceSubscribe
	unsubscribe = protocol.PresenceUnsubscribe
	subAll      = protocol.PresenceSubscribeAll
	unsubAll    = protocol.PresenceUnsubscribeAll
	query       = protocol.PresenceQuery
	queryAll    = protocol.PresenceQueryAll
	join        = protocol.PresencePresenceJoin
	joinAll     = protocol.PresencePresenceJoinAll
	leave       = protocol.PresencePresenceLeave
	leaveAll    = protocol.PresencePresenceLeaveAll
)

func acked(a protocol.Action, id string) protocol.Message {
	m := protocol.Message{Action: a, IsAck: true, CorrelationID: id}
	if id != "" {
		m.Has = protocol.HasCorrelationID
	}
	return m
}

func about(a protocol.Action, user string) protocol.Message {
	return protocol.Message{Action: a, Name: user, Has: protocol.HasName}
}

func again(of protocol.Action, name string) protocol.Message {
	return protocol.Message{
		Action: protocol.PresenceMultipleSubscriptions, Name: name, OriginalAction: of,
		Has: protocol.HasName | protocol.HasOriginalAction,
	}
}

func everybody(names ...string) protocol.Message {
	return protocol.Message{Action: protocol.PresenceQueryAllResponse, Names: names}
}

func answer(id, data string) protocol.Message {
	return protocol.Message{
		Action: protocol.PresenceQueryResponse, CorrelationID: id, Data: data,
		Has: protocol.HasCorrelationID | protocol.HasData,
	}
}

// The example of spec 11 §5.
func TestComingAndGoingAsInTheExample(t *testing.T) {
	r := newRoom()
	a := r.login("a")
	r.do(a, subAll, "")
	r.do(a, subscribe, "0", "b")
	a.expect(t, acked(subAll, ""), acked(subscribe, "0"))
	b1 := r.login("b")
	a.expect(t, about(joinAll, "b"), about(join, "b"))
	r.do(a, queryAll, "")
	a.expect(t, everybody("b"))
	b2 := r.login("b")
	r.logout(b1)
	a.expect(t)
	r.logout(b2)
	a.expect(t, about(leaveAll, "b"), about(leave, "b"))
	b1.expect(t)
	b2.expect(t)
	if got, want := r.Stats(), (Stats{Users: 1, Sockets: 1, Subscriptions: 1, Global: 1, Joins: 2, Leaves: 1}); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
}

func TestSubscriptionsAreAcknowledged(t *testing.T) {
	for _, tc := range []struct {
		what string
		do   func(r *Room, c *fake)
		want []protocol.Message
	}{
		{"to single users", func(r *Room, c *fake) { r.do(c, subscribe, "0", "a", "nobody") }, []protocol.Message{acked(subscribe, "0")}},
		{"again", func(r *Room, c *fake) { r.do(c, subscribe, "0", "a"); r.do(c, subscribe, "1", "b", "a", "b") },
			[]protocol.Message{acked(subscribe, "0"), again(subscribe, "a"), again(subscribe, "b"), acked(subscribe, "1")}},
		{"ended", func(r *Room, c *fake) { r.do(c, subscribe, "0", "a"); r.do(c, unsubscribe, "1", "a") },
			[]protocol.Message{acked(subscribe, "0"), acked(unsubscribe, "1")}},
		{"ended that never were", func(r *Room, c *fake) { r.do(c, unsubscribe, "1", "a") }, []protocol.Message{acked(unsubscribe, "1")}},
		{"to nobody", func(r *Room, c *fake) { r.do(c, subscribe, "0") }, []protocol.Message{acked(subscribe, "0")}},
		{"to everybody", func(r *Room, c *fake) { r.do(c, subAll, "") }, []protocol.Message{acked(subAll, "")}},
		{"to everybody, with an id that is not echoed", func(r *Room, c *fake) { r.do(c, subAll, "7", "x") },
			[]protocol.Message{acked(subAll, "")}},
		{"to everybody again", func(r *Room, c *fake) { r.do(c, subAll, ""); r.do(c, subAll, "") },
			[]protocol.Message{acked(subAll, ""), again(subAll, "%_EVERYONE_%"), acked(subAll, "")}},
		{"to everybody ended twice", func(r *Room, c *fake) { r.do(c, subAll, ""); r.do(c, unsubAll, ""); r.do(c, unsubAll, "") },
			[]protocol.Message{acked(subAll, ""), acked(unsubAll, ""), acked(unsubAll, "")}},
		{"an action no client may send", func(r *Room, c *fake) { r.do(c, joinAll, "0", "a"); r.do(c, 4711, ""); r.do(c, 0, "") }, nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			r, c := newRoom(), client("me")
			tc.do(r, c)
			c.expect(t, tc.want...)
		})
	}
}

func TestQueries(t *testing.T) {
	for _, tc := range []struct {
		what  string
		names []string
		want  string
	}{
		{"some are online", []string{"a", "b"}, `{"a":true,"b":false}`},
		{"oneself is", []string{"me"}, `{"me":true}`},
		{"twice the same", []string{"a", "b", "a"}, `{"a":true,"b":false}`},
		{"nobody", nil, `{}`},
		{"names that need care", []string{`q"\`, "__proto__", "é", "\n"}, `{"q\"\\":true,"__proto__":false,"é":false,"\n":false}`},
		{"the anonymous are never online", []string{auth.Anonymous}, `{"open":false}`},
	} {
		t.Run(tc.what, func(t *testing.T) {
			r := newRoom()
			r.login("a")
			r.login(`q"\`)
			r.login(auth.Anonymous)
			me := r.login("me")
			r.do(me, query, "3", tc.names...)
			me.expect(t, answer("3", tc.want))
		})
	}
}

func TestQueryAllLeavesOutTheAskerAndTheAnonymous(t *testing.T) {
	r := newRoom()
	me := r.login("me")
	r.login("me")
	anonymous := r.login(auth.Anonymous)
	r.do(me, queryAll, "")
	me.expect(t, everybody())
	r.login("b")
	r.login("c")
	r.do(me, queryAll, "5")
	me.expect(t, everybody("b", "c"))
	r.do(anonymous, queryAll, "")
	anonymous.expect(t, everybody("b", "c", "me"))
}

func TestTheAnonymousComeAndGoUnseen(t *testing.T) {
	r := newRoom()
	a := r.login("a")
	r.do(a, subAll, "")
	r.do(a, subscribe, "0", auth.Anonymous)
	a.expect(t, acked(subAll, ""), acked(subscribe, "0"))
	r.logout(r.login(auth.Anonymous))
	a.expect(t)
}

func TestAUserMaySubscribeToItself(t *testing.T) {
	r := newRoom()
	a := r.login("a")
	r.do(a, subscribe, "0", "a")
	a.expect(t, acked(subscribe, "0"))
	b := client("a")
	r.Login(b)
	r.logout(a)
	a.expect(t) // one of two: silent
	r.logout(b)
	r.login("a")
	if got, want := r.Stats().Joins, uint64(2); got != want {
		t.Errorf("Joins = %d, want %d", got, want)
	}
}

func TestTheReservedNameIsAnOrdinaryOne(t *testing.T) {
	r := newRoom()
	a, b := r.login("a"), r.login("b")
	r.do(a, subscribe, "0", "%_EVERYONE_%")
	r.do(b, subAll, "")
	a.expect(t, acked(subscribe, "0"))
	b.expect(t, acked(subAll, ""))
	r.login("c")
	a.expect(t)
	b.expect(t, about(joinAll, "c"))
	r.login("%_EVERYONE_%")
	a.expect(t, about(join, "%_EVERYONE_%"))
	b.expect(t, about(joinAll, "%_EVERYONE_%"))
}

func TestUnsubscribingEndsOneKindOnly(t *testing.T) {
	r := newRoom()
	a := r.login("a")
	r.do(a, subAll, "")
	r.do(a, subscribe, "0", "b")
	r.do(a, unsubAll, "")
	a.expect(t, acked(subAll, ""), acked(subscribe, "0"), acked(unsubAll, ""))
	b := r.login("b")
	a.expect(t, about(join, "b"))
	r.do(a, unsubscribe, "1", "b")
	r.logout(b)
	a.expect(t, acked(unsubscribe, "1"))
}

func TestLoginsAndEndsInAnyOrderLeaveNobodyOnline(t *testing.T) {
	r := newRoom()
	c := client("a")
	r.logout(c) // it closed while its login was running
	r.Login(c)
	if got := r.Stats(); got != (Stats{}) {
		t.Errorf("Stats = %+v, want nothing", got)
	}
	d := r.login("a")
	r.Login(d) // counted once
	r.logout(d)
	r.Closed(d)
	if got, want := r.Stats(), (Stats{Joins: 1, Leaves: 1}); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
	e := &fake{id: lastID.Add(1)} // never logged in: it has no user
	r.Login(e)
	r.logout(e)
}

func TestAnEndlessListOfDuplicatesIsPaced(t *testing.T) {
	r, c := newRoom(), client("a")
	r.do(c, subscribe, "0", slices.Repeat([]string{"x"}, 10*pace)...)
	if got := c.paced.Load(); got != 10 {
		t.Errorf("paced %d times, want 10", got)
	}
}

func TestJoinsAndLeavesOfAUserAlternate(t *testing.T) {
	r := newRoom()
	watcher := r.login("watcher")
	users := []string{"a", "b", "c"}
	r.do(watcher, subAll, "")
	r.do(watcher, subscribe, "0", users...)
	watcher.expect(t, acked(subAll, ""), acked(subscribe, "0"))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				c := r.login(users[(g+i)%len(users)])
				r.do(c, subAll, "")
				r.do(c, query, "0", users...)
				r.do(c, queryAll, "")
				r.logout(c)
			}
		})
	}
	wg.Wait()
	online := map[string]bool{}
	for i, m := range watcher.got {
		switch m.Action {
		case joinAll, leaveAll:
			if online[m.Name] == (m.Action == joinAll) {
				t.Fatalf("message %d: %s twice in a row for %s", i, m.Action.Name(m.Topic), m.Name)
			}
			online[m.Name] = m.Action == joinAll
		case join, leave:
			if online[m.Name] != (m.Action == join) {
				t.Fatalf("message %d: %s before its global message", i, m.Action.Name(m.Topic))
			}
		}
	}
	for user, on := range online {
		if on {
			t.Errorf("%s is still online", user)
		}
	}
	if got := r.Stats(); got.Users != 1 || got.Sockets != 1 || got.Global != 1 || got.Joins != got.Leaves+1 {
		t.Errorf("Stats = %+v", got)
	}
}

// quiet is a client that costs nothing.
type quiet struct{ fake }

func (q *quiet) AnswerShared(*protocol.Outbound) {}
func (q *quiet) Send(*protocol.Outbound)         {}

func BenchmarkLoginAndLeaveBeforeThousandWatchers(b *testing.B) {
	r := newRoom()
	for i := range 1000 {
		r.Handle(&quiet{fake{id: lastID.Add(1), user: &auth.User{ID: fmt.Sprint("w", i)}}}, &protocol.Message{
			Topic: protocol.TopicPresence, Action: subAll,
		})
	}
	c := client("a")
	b.ReportAllocs()
	for b.Loop() {
		r.Login(c)
		r.Closed(c)
	}
}
