package node_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hadal/cluster/clustertest"
	"hadal/protocol"
)

// actOnEvents emits, or changes a subscription.
func actOnEvents(u *chaosClient, ctx context.Context) {
	name := fmt.Sprintf("e%d", u.r.IntN(5))
	switch {
	case u.r.IntN(3) > 0:
		u.events++
		n := u.events
		u.say(ctx, &protocol.Message{
			Topic: protocol.TopicEvent, Action: protocol.EventEmit, Has: protocol.HasName | protocol.HasData, Name: name,
			Data: fmt.Sprintf(`"%s %d"`, u.c.name, n),
		}, func() { u.note(clustertest.Emits, clustertest.Event{Name: name, ID: n}) })
	case u.subs[name]:
		delete(u.subs, name)
		u.say(ctx, &protocol.Message{
			Topic: protocol.TopicEvent, Action: protocol.EventUnsubscribe, Has: protocol.HasCorrelationID, CorrelationID: name, Names: []string{name},
		}, func() { u.note(clustertest.Unsubscribes, clustertest.Event{Name: name}) })
	default:
		u.subs[name] = true
		u.say(ctx, &protocol.Message{
			Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Has: protocol.HasCorrelationID, CorrelationID: name, Names: []string{name},
		}, nil)
	}
}

func hearEvents(u *chaosClient, ctx context.Context, m *protocol.Message) {
	switch {
	case m.Action == protocol.EventEmit:
		from, number, _ := strings.Cut(strings.Trim(m.Data, `"`), " ")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			u.chaos.fail("%s hears an event with data %q", u.c.name, m.Data)
			return
		}
		u.note(clustertest.Hears, clustertest.Event{Name: m.Name, Data: from, ID: n})
	case m.Action == protocol.EventSubscribe && m.IsAck && u.subs[m.CorrelationID]:
		u.note(clustertest.Subscribes, clustertest.Event{Name: m.CorrelationID})
	default:
		eventListening.hear(u, ctx, m)
	}
}

// greetPresence lets every other client watch who comes and goes.
func greetPresence(u *chaosClient, ctx context.Context) {
	if u.number%2 == 0 {
		u.say(ctx, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribeAll}, nil)
	}
}

func actOnPresence(u *chaosClient, ctx context.Context) {
	u.say(ctx, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceQueryAll}, nil)
}

func hearPresence(u *chaosClient, _ context.Context, m *protocol.Message) {
	switch m.Action {
	case protocol.PresenceSubscribeAll:
		u.note(clustertest.Watches, clustertest.Event{})
	case protocol.PresencePresenceJoinAll:
		u.note(clustertest.Joins, clustertest.Event{Name: m.Name})
	case protocol.PresencePresenceLeaveAll:
		u.note(clustertest.Leaves, clustertest.Event{Name: m.Name})
	case protocol.PresenceQueryAllResponse:
		u.note(clustertest.Online, clustertest.Event{Data: strings.Join(m.Names, " ")})
	}
}

// actOnCalls calls, or begins or ends to provide.
func actOnCalls(u *chaosClient, ctx context.Context) {
	name := fmt.Sprintf("p%d", u.r.IntN(3))
	switch {
	case u.r.IntN(4) > 0:
		id := u.chaos.net.History.NewID()
		u.say(ctx, &protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Has: protocol.HasName | protocol.HasCorrelationID | protocol.HasData,
			Name: name, CorrelationID: strconv.FormatUint(id, 10), Data: strconv.FormatUint(id, 10),
		}, func() { u.note(clustertest.Calls, clustertest.Event{Name: name, ID: id}) })
	case u.provide[name]:
		delete(u.provide, name)
		u.say(ctx, &protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCUnprovide, Has: protocol.HasCorrelationID, CorrelationID: "u", Names: []string{name},
		}, nil)
	default:
		u.provide[name] = true
		u.say(ctx, &protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Has: protocol.HasCorrelationID, CorrelationID: "p", Names: []string{name},
		}, nil)
	}
}

func hearCalls(u *chaosClient, ctx context.Context, m *protocol.Message) {
	id, err := strconv.ParseUint(m.CorrelationID, 10, 64)
	if m.Action == protocol.RPCRequest { // the data, because a room may give the call an id of its own
		id, err = strconv.ParseUint(m.Data, 10, 64)
	}
	if err != nil {
		return // the ack of a PROVIDE
	}
	reply := func(a protocol.Action, data string) func(context.Context) {
		name, correlation := m.Name, m.CorrelationID
		return func(ctx context.Context) {
			has := protocol.HasName | protocol.HasCorrelationID
			if data != "" {
				has |= protocol.HasData
			}
			u.say(ctx, &protocol.Message{Topic: protocol.TopicRPC, Action: a, Has: has, Name: name, CorrelationID: correlation, Data: data}, func() {
				if a == protocol.RPCReject {
					u.note(clustertest.Rejects, clustertest.Event{Name: name, ID: id})
				}
			})
		}
	}
	switch m.Action {
	case protocol.RPCRequest:
		u.note(clustertest.Asked, clustertest.Event{Name: m.Name, ID: id})
		switch n := u.r.IntN(20); {
		case n < 4:
			reply(protocol.RPCReject, "")(ctx)
		case n < 6: // silence
		case n < 8:
			reply(protocol.RPCAccept, "")(ctx)
		default:
			accept, respond := reply(protocol.RPCAccept, ""), reply(protocol.RPCResponse, m.Data)
			accept(ctx)
			u.soon(time.Second, respond)
		}
	case protocol.RPCResponse:
		if m.Data != m.CorrelationID {
			u.chaos.fail("%s hears %q as the answer to call %s", u.c.name, m.Data, m.CorrelationID)
		}
		u.note(clustertest.Answer, clustertest.Event{Name: m.Name, ID: id, Note: "response"})
	case protocol.RPCRequestError, protocol.RPCNoRPCProvider, protocol.RPCAcceptTimeout, protocol.RPCResponseTimeout:
		u.note(clustertest.Answer, clustertest.Event{Name: m.Name, ID: id, Note: m.Action.Name(protocol.TopicRPC)})
	}
}
