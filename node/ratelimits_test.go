package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hadal/auth"
	"hadal/node/sub"
	"hadal/protocol"
)

// spendingListener is a listener that is somebody, with buckets.
type spendingListener struct {
	listener
	user *auth.User
	tied any
}

func (l *spendingListener) User() *auth.User { return l.user }
func (l *spendingListener) Attached() any    { return l.tied }

// limited is a pipeline with limits, and a way to log in there.
func limited(limits ...RateLimit) (*pipeline, *keeper, func(u *auth.User, remote string) *spendingListener) {
	room := &keeper{}
	p := &pipeline{rules: &doors{}, rates: newRateLimits(limits)}
	for t := protocol.TopicEvent; t <= protocol.TopicPresence; t++ {
		p.rooms[t] = room
	}
	return p, room, func(u *auth.User, remote string) *spendingListener {
		return &spendingListener{user: u, tied: p.rates.opened(u, remote)}
	}
}

func emitted(name string) *protocol.Message {
	return &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: name}
}

func TestAMessageBeyondTheRateIsDeniedWithWhatCorrelatesIt(t *testing.T) {
	p, room, login := limited(
		RateLimit{Topic: "RECORD", Action: "UPDATE", PerSecond: 1},
		RateLimit{Topic: "event", Action: "subscribe", PerSecond: 1},
	)
	c := login(&auth.User{ID: "u"}, "192.0.2.1")
	write := func(id string) *protocol.Message {
		return &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordUpdate, Name: "r", Data: "{}", IsWriteAck: true,
			CorrelationID: id, Has: protocol.HasCorrelationID | protocol.HasData}
	}
	p.receive(c, write("1"))
	p.receive(c, write("2"))
	for _, id := range []string{"3", "4"} {
		p.receive(c, &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"a", "b"}, CorrelationID: id, Has: protocol.HasCorrelationID})
	}
	if len(room.got) != 2 {
		t.Errorf("%d messages came through, want 2: %v", len(room.got), room.got)
	}
	denied := func(name string, id string) protocol.Message {
		return protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventMessageDenied, Name: name, OriginalAction: protocol.EventSubscribe,
			IsError: true, CorrelationID: id, Has: protocol.HasCorrelationID}
	}
	want := []protocol.Message{
		{Topic: protocol.TopicRecord, Action: protocol.RecordMessageDenied, Name: "r", OriginalAction: protocol.RecordUpdate,
			IsError: true, IsWriteAck: true, CorrelationID: "2", Has: protocol.HasCorrelationID},
		denied("a", "4"), denied("b", "4"),
	}
	if diff := cmp.Diff(want, c.got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	var refused []uint64
	for _, s := range p.rates.stats() {
		refused = append(refused, s.Refused)
	}
	if diff := cmp.Diff([]uint64{1, 1}, refused); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	p.rates.now.Add(int64(time.Second))
	p.receive(c, write("5"))
	if len(room.got) != 3 {
		t.Error("a second later nothing comes through")
	}
}

// renewals counts what clients ask about their own login.
type renewals struct{ calls int }

func (r *renewals) renew(sub.Client, *protocol.Message) { r.calls++ }
func (*renewals) remind(sub.Client)                     {}

// A strategy behind it may ask a server for each.
func TestRenewingALoginIsACallOfItsUser(t *testing.T) {
	p, room, login := limited(RateLimit{Topic: "RPC", Action: "REQUEST", PerSecond: 1, Burst: 2})
	asked := &renewals{}
	p.session = asked
	c := login(&auth.User{ID: "u"}, "192.0.2.1")
	for i := range 5 {
		p.receive(c, &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: protocol.CallRefresh, Data: `{"token":"x"}`,
			CorrelationID: fmt.Sprint(i), Has: protocol.HasName | protocol.HasCorrelationID | protocol.HasData})
	}
	if asked.calls != 2 || len(room.got) != 0 {
		t.Errorf("%d renewals came through, and %d calls, want 2 and none", asked.calls, len(room.got))
	}
	if len(c.got) != 3 || c.got[0].Action != protocol.RPCMessageDenied || c.got[0].CorrelationID != "2" {
		t.Errorf("the others are answered %v, want MESSAGE_DENIED with what correlates it", c.got)
	}
}

func TestARateIsTheUsersAndNotTheConnections(t *testing.T) {
	p, room, login := limited(RateLimit{Topic: "EVENT", PerSecond: 2})
	u := func(id string) *auth.User { return &auth.User{ID: id} }
	first, second := login(u("u"), "192.0.2.1"), login(u("u"), "192.0.2.2")
	p.receive(first, emitted("a"))
	p.receive(second, emitted("b"))
	p.receive(second, emitted("c"))
	p.rates.closed(first.tied.(*spending))
	p.rates.closed(second.tied.(*spending))
	again := login(u("u"), "192.0.2.1")
	p.receive(again, emitted("d"))
	if len(room.got) != 2 {
		t.Errorf("%d messages of one user came through, want 2", len(room.got))
	}
	p.receive(login(u("v"), "192.0.2.1"), emitted("e"))
	if len(room.got) != 3 {
		t.Error("another user is limited too")
	}
	// Nobody in particular: by address, of IPv6 by network.
	for i, remote := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:1::1"} {
		p.receive(login(u(auth.Anonymous), remote), emitted(fmt.Sprint(i)))
	}
	if len(room.got) != 6 {
		t.Errorf("%d messages, want 6: two of one network, one of another", len(room.got))
	}
}

func TestTheFirstEntryThatFitsCounts(t *testing.T) {
	p, room, login := limited(
		RateLimit{Topic: "EVENT", Action: "EMIT", PerSecond: 3, Role: "bot"},
		RateLimit{Topic: "EVENT", Action: "EMIT", PerSecond: 1},
		RateLimit{Topic: "EVENT", PerSecond: 2},
	)
	sends := func(c *spendingListener, m protocol.Message, n int) int {
		before := len(room.got)
		for range n {
			again := m
			p.receive(c, &again)
		}
		return len(room.got) - before
	}
	bot, person := &auth.User{ID: "b", ServerData: `{"role":"bot"}`}, &auth.User{ID: "p", ServerData: `{"role":["bot"]}`}
	b, q := login(bot, ""), login(person, "")
	if got := sends(b, *emitted("a"), 9); got != 3 {
		t.Errorf("a bot emits %d, want 3", got)
	}
	if got := sends(q, *emitted("a"), 9); got != 1 {
		t.Errorf("a person emits %d, want 1", got)
	}
	if got := sends(q, protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventListen, Name: "a"}, 9); got != 2 {
		t.Errorf("a person listens %d times, want 2", got)
	}
	if got := sends(q, protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventUnlisten, Name: "a"}, 9); got != 9 {
		t.Errorf("a person takes back %d, want 9: that is not limited unless it is named", got)
	}
	q.user = &auth.User{ID: "p", ServerData: `{"role":"bot"}`} // renewed
	if got := sends(q, *emitted("a"), 9); got != 3 {
		t.Errorf("a person who became a bot emits %d, want 3", got)
	}
}

func TestUsersWhoHaveGoneAreForgottenOnceTheirBucketsAreFull(t *testing.T) {
	p, _, login := limited(RateLimit{Topic: "EVENT", PerSecond: 1, Burst: 10})
	const many = 1000
	for i := range many {
		c := login(&auth.User{ID: fmt.Sprint(i)}, "")
		p.receive(c, emitted("a"))
		p.rates.closed(c.tied.(*spending))
	}
	if n := len(p.rates.users); n != many {
		t.Errorf("%d users are known whose buckets are not full, want %d", n, many)
	}
	p.rates.now.Add(int64(time.Minute))
	for range many {
		p.rates.closed(login(&auth.User{ID: "somebody"}, "").tied.(*spending))
	}
	if n := len(p.rates.users); n > 1 || p.rates.resting.Len() > 1 {
		t.Errorf("%d users are known after their buckets were full, want 1 at most", n)
	}
}

func TestMistakesInRateLimits(t *testing.T) {
	for key, l := range map[string]RateLimit{
		"topic":     {Topic: "EVENTS", PerSecond: 1},
		"action":    {Topic: "EVENT", Action: "UPDATE", PerSecond: 1},
		"perSecond": {Topic: "EVENT"},
		"burst":     {Topic: "EVENT", PerSecond: 1000, Burst: 9},
	} {
		c := Default()
		c.ServerName = "a"
		c.RateLimits = []RateLimit{{Topic: "RPC", PerSecond: 1}, l}
		err := c.Validate()
		want := "rateLimits[1]." + key + ": "
		if err == nil || len(flatten(err)) != 1 || err.Error()[:len(want)] != want {
			t.Errorf("%v: %v, want one mistake at %s", l, err, want)
		}
	}
}

// What the limits cost a message that they let through, and one that none is on.
func BenchmarkRateLimits(b *testing.B) {
	p, _, login := limited(RateLimit{Topic: "EVENT", Action: "EMIT", PerSecond: 1_000_000_000, Burst: 1_000_000_000})
	c := login(&auth.User{ID: "u", ServerData: `{"role":"x"}`}, "")
	for name, m := range map[string]*protocol.Message{
		"limited": emitted("a"), "not limited": {Topic: protocol.TopicEvent, Action: protocol.EventListen, Name: "a"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.rates.now.Add(1)
				if !p.rates.admit(c, m) {
					b.Fatal("refused")
				}
			}
		})
	}
}
