package node_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hadal/cluster/clustertest"
	"hadal/protocol"
)

// listening is what clients do about listening, in the actions of one topic.
type listening struct {
	topic                            protocol.Topic
	prefix                           string // of the names that are provided
	listen, unlisten, accept, reject protocol.Action
	found, removed, timeout          protocol.Action
	subscribe, unsubscribe           protocol.Action
	provided, unprovided             protocol.Action // 0 where subscribers are not told
}

var eventListening = &listening{
	topic: protocol.TopicEvent, prefix: "l",
	listen: protocol.EventListen, unlisten: protocol.EventUnlisten, accept: protocol.EventListenAccept, reject: protocol.EventListenReject,
	found: protocol.EventSubscriptionForPatternFound, removed: protocol.EventSubscriptionForPatternRemoved, timeout: protocol.EventListenResponseTimeout,
	subscribe: protocol.EventSubscribe, unsubscribe: protocol.EventUnsubscribe,
}

var recordListening = &listening{
	topic: protocol.TopicRecord, prefix: "s",
	listen: protocol.RecordListen, unlisten: protocol.RecordUnlisten, accept: protocol.RecordListenAccept, reject: protocol.RecordListenReject,
	found: protocol.RecordSubscriptionForPatternFound, removed: protocol.RecordSubscriptionForPatternRemoved, timeout: protocol.RecordListenResponseTimeout,
	subscribe: protocol.RecordSubscribe, unsubscribe: protocol.RecordUnsubscribe,
	provided: protocol.RecordSubscriptionHasProvider, unprovided: protocol.RecordSubscriptionHasNoProvider,
}

// Every third client listens, and the last one never accepts.
func listener(number int) bool { return number%3 == 0 }
func decliner(number int) bool { return number == 9 }

// pattern matches all names that are provided.
func (l *listening) pattern() string { return "^" + l.prefix + "[0-9]" }

// act listens, or ends that, or changes a subscription.
func (l *listening) act(u *chaosClient, ctx context.Context) {
	if listener(u.number) && u.r.IntN(2) == 0 {
		l.turn(u, ctx)
		return
	}
	name := fmt.Sprint(l.prefix, u.r.IntN(4))
	m := protocol.Message{Topic: l.topic, Action: l.subscribe, Has: protocol.HasCorrelationID, CorrelationID: name, Names: []string{name}}
	if u.wants[name] = !u.wants[name]; u.wants[name] {
		u.say(ctx, &m, nil)
		return
	}
	m.Action = l.unsubscribe
	u.say(ctx, &m, func() { u.note(clustertest.Unsubscribes, clustertest.Event{Name: name}) })
}

// turn begins or ends to listen.
func (l *listening) turn(u *chaosClient, ctx context.Context) {
	m := protocol.Message{Topic: l.topic, Action: l.listen, Has: protocol.HasName | protocol.HasCorrelationID, Name: l.pattern(), CorrelationID: "l"}
	if u.listens[l.pattern()] {
		if u.r.IntN(4) > 0 {
			return
		}
		m.Action = l.unlisten
	}
	u.listens[l.pattern()] = !u.listens[l.pattern()]
	for name := range u.asked {
		u.asked[name]++
	}
	u.say(ctx, &m, func() {
		u.note(clustertest.Listens, clustertest.Event{Name: l.pattern(), OK: u.listens[l.pattern()] && !decliner(u.number)})
		if u.listens[l.pattern()] {
			return
		}
		// Who ends to listen is not told to stop.
		for _, name := range slices.Sorted(maps.Keys(u.serves)) {
			if strings.HasPrefix(name, l.prefix) {
				delete(u.serves, name)
				u.note(clustertest.Removed, clustertest.Event{Name: name})
			}
		}
	})
}

func (l *listening) hear(u *chaosClient, ctx context.Context, m *protocol.Message) {
	name, pattern := m.Subscription, m.Name
	answer := func(a protocol.Action) func(context.Context) {
		question := u.asked[name]
		return func(ctx context.Context) {
			// The end of listening is an answer, and a newer question replaces an old one.
			if !u.listens[pattern] || u.asked[name] != question {
				return
			}
			has := protocol.HasName | protocol.HasSubscription
			u.say(ctx, &protocol.Message{Topic: l.topic, Action: a, Has: has, Name: pattern, Subscription: name}, func() {
				if a == l.accept {
					u.serves[name] = true
					u.note(clustertest.Accepts, clustertest.Event{Name: name})
				} else {
					u.note(clustertest.Declines, clustertest.Event{Name: name})
				}
			})
		}
	}
	switch m.Action {
	case l.subscribe:
		if m.IsAck && u.wants[m.CorrelationID] && strings.HasPrefix(m.CorrelationID, l.prefix) {
			u.note(clustertest.Wants, clustertest.Event{Name: m.CorrelationID})
		}
	case l.provided, l.unprovided:
		if l.provided != 0 && strings.HasPrefix(m.Name, l.prefix) {
			u.note(clustertest.Provided, clustertest.Event{Name: m.Name, OK: m.Action == l.provided})
		}
	case l.found:
		u.asked[name]++
		u.note(clustertest.Found, clustertest.Event{Name: name})
		switch n := u.r.IntN(10); {
		case decliner(u.number) || n == 0 && !u.chaos.quiet.Load():
			answer(l.reject)(ctx)
		case n == 1 && !u.chaos.quiet.Load(): // silence
		case n < 5:
			u.soon(300*time.Millisecond, answer(l.accept))
		default:
			answer(l.accept)(ctx)
		}
	case l.removed:
		delete(u.serves, name)
		u.note(clustertest.Removed, clustertest.Event{Name: name})
	}
}

// can says which connections accept a name at the end of a history.
func (l *listening) can(events []clustertest.Event) func(conn, name string) bool {
	listens := make(map[string]bool)
	for _, e := range events {
		if e.What == clustertest.Listens && e.Name == l.pattern() {
			listens[e.Client] = e.OK
		}
	}
	return func(conn, name string) bool { return listens[conn] && strings.HasPrefix(name, l.prefix) }
}
