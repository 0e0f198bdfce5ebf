// Package event is the room for events: a message published under a name, now,
// to whoever subscribed to it (spec 09). Nothing is kept and nothing is
// acknowledged but the subscriptions; delivery is at most once, in the order of
// each publisher.
//
// An EMIT is encoded once for all its subscribers and handed to each of their
// queues on the publisher's reader. What they receive is a message of our own
// with topic, action, name and data: no other field of the publisher's passes
// (spec 15, trap 50). Unlike the peer's, our events carry valid JSON only,
// because the receiving client fails on anything else: an EMIT whose data is not
// JSON is answered with INVALID_MESSAGE_DATA and not relayed.
//
// # Other nodes
//
// An EMIT is delivered to the subscribers of this node and published, once, in the
// slot of its name (cluster.Slot); nodes join the slots in which they have a
// subscriber, and hand what comes to those of the name. Nothing is published while no
// peer is linked, so a node alone pays one load for all this. Between nodes the
// promises are the same: at most once, and a publisher's order for each name; an
// event may be lost when a connection between nodes breaks.
//
// The ack of a subscription says that the events of this node's clients arrive from
// now on. Others learn that this node has joined the slot some milliseconds later: what
// their clients emit until then may be missed. An ack that waited for them would
// promise no more about nodes that cannot be reached, and would be slower for all.
//
// # Locks
//
// Subscriptions stand in a sub.Registry, the choice of providers in a
// listen.Registry; both belong to this room alone. Each slot has a lock, under which
// the bus is told, and which is taken when no lock of those is held.
package event

import (
	"log/slog"
	"sync/atomic"

	"hadal/cluster"
	"hadal/node/listen"
	"hadal/node/sub"
	"hadal/protocol"
	"hadal/protocol/jsonpath"
)

// pace is how many names of one request are treated before the client's queue
// of answers is looked at.
const pace = 256

// Room relays events. Its methods may be called from anywhere, Handle on the
// reader of the client it is called for.
type Room struct {
	subs   *sub.Registry
	listen *listen.Registry
	bus    cluster.Bus
	slots  slots
	all    all
	linked atomic.Int32 // peers that can be reached
	log    *slog.Logger

	emitted, delivered, refused  atomic.Uint64
	published, received, unknown atomic.Uint64
}

// Stats are gauges and counters of the room.
type Stats struct {
	// Names and Subscriptions are what is subscribed to now.
	Names, Subscriptions int
	// Emitted counts events taken from clients, Delivered how many times one was
	// handed to a subscriber, Refused those whose data was not JSON.
	Emitted, Delivered, Refused uint64
	// Published counts events handed to the bus for other nodes, Received those that
	// came from them, Unknown what came and was none that this version understands.
	Published, Received, Unknown uint64
	// Listen is about the room's providers.
	Listen listen.Stats
}

// New returns a room over its subscriptions and listeners, which are those of
// topic EVENT, and the bus to other nodes, which does not run yet. Whoever runs the
// room runs the listeners too.
func New(subs *sub.Registry, listen *listen.Registry, bus cluster.Bus, log *slog.Logger) *Room {
	r := &Room{
		subs: subs, listen: listen, bus: bus, slots: slots{bus: bus},
		log: log.With("topic", protocol.TopicEvent.String()),
	}
	bus.Handle(cluster.KindEvent, peers{r})
	return r
}

// Handle takes a message of topic EVENT whose names have been found permitted.
// Actions that no client may send are logged and dropped.
func (r *Room) Handle(c sub.Client, m *protocol.Message) {
	switch m.Action {
	case protocol.EventEmit:
		r.emit(c, m)
	case protocol.EventSubscribe:
		r.subscribe(c, m)
	case protocol.EventUnsubscribe:
		r.unsubscribe(c, m)
	case protocol.EventListen, protocol.EventUnlisten, protocol.EventListenAccept, protocol.EventListenReject:
		r.listen.Handle(c, m)
	default:
		r.log.Debug("action ignored", "conn", c.ID(), "action", m.Action.Name(protocol.TopicEvent))
	}
}

// Closed forgets a client that has disconnected; Gone is true by then.
func (r *Room) Closed(c sub.Client) {
	for _, name := range r.subs.RemoveClient(c) {
		r.slots.last(name)
		r.listen.Changed(name)
	}
	r.listen.Closed(c)
}

// Rejudge ends what rules, which are in force, do not allow any more of what stands,
// and tells the clients. It returns how much that was.
func (r *Room) Rejudge(rules sub.Rules) int {
	return r.subs.Rejudge(rules, protocol.TopicEvent, protocol.EventSubscribe, r.ended) + r.listen.Rejudge(rules)
}

// RejudgeClient is Rejudge for one client, whose user has changed. It is called on its
// reader.
func (r *Room) RejudgeClient(rules sub.Rules, c sub.Client) int {
	return r.subs.RejudgeClient(rules, c, protocol.TopicEvent, protocol.EventSubscribe, r.ended) + r.listen.RejudgeClient(rules, c)
}

// ended follows the end of a subscription that the rules do not allow any more.
func (r *Room) ended(name string, c sub.Client, last bool) {
	if last {
		r.slots.last(name)
		r.listen.Changed(name)
	}
	sub.TellEnded(c, protocol.TopicEvent, protocol.EventSubscribe, name)
}

// Tell sends an event of the server's own to one client, if it has subscribed to it. data
// is JSON text.
func (r *Room) Tell(c sub.Client, name, data string) {
	if r.subs.Subscribed(name, c) {
		c.Send(&protocol.Outbound{Message: protocol.Message{
			Topic: protocol.TopicEvent, Action: protocol.EventEmit, Has: protocol.HasName | protocol.HasData, Name: name, Data: data,
		}})
	}
}

// Stats returns the numbers of this moment.
func (r *Room) Stats() Stats {
	s := r.subs.Stats()
	return Stats{
		Names: s.Names, Subscriptions: s.Subscriptions,
		Emitted: r.emitted.Load(), Delivered: r.delivered.Load(), Refused: r.refused.Load(),
		Published: r.published.Load(), Received: r.received.Load(), Unknown: r.unknown.Load(),
		Listen: r.listen.Stats(),
	}
}

// emit relays an event to everybody but the socket it came from. One without a
// name goes nowhere (spec 09 §1).
func (r *Room) emit(c sub.Client, m *protocol.Message) {
	if !m.Carries(protocol.HasName) {
		r.log.Debug("event without a name", "conn", c.ID())
		return
	}
	has := protocol.HasName
	if m.Data != "" { // a payload that is present but empty is none (trap 2)
		if !jsonpath.ValidJSON(m.Data) {
			r.refuse(c, m)
			return
		}
		has |= protocol.HasData
	}
	o := &protocol.Outbound{Message: protocol.Message{
		Topic: protocol.TopicEvent, Action: protocol.EventEmit, Has: has, Name: m.Name, Data: m.Data, Alone: m.Alone,
	}}
	n := r.subs.Deliver(m.Name, c, o)
	r.emitted.Add(1)
	r.delivered.Add(uint64(n))
	r.publish(m.Name, m.Data)
}

func (r *Room) refuse(c sub.Client, m *protocol.Message) {
	r.refused.Add(1)
	r.log.Debug("event refused: its data is not JSON", "conn", c.ID(), "user", c.User().ID, "name", m.Name)
	c.Answer(&protocol.Message{
		Topic: protocol.TopicEvent, Action: protocol.EventInvalidMessageData, IsError: true,
		Has: protocol.HasName | protocol.HasOriginalAction, Name: m.Name, OriginalAction: m.Action,
	})
}

func (r *Room) subscribe(c sub.Client, m *protocol.Message) {
	for i, name := range m.Names {
		switch r.subs.Subscribe(c, m, name) {
		case sub.First:
			r.slots.first(name)
			r.listen.Changed(name)
		case sub.Full:
			c.Answer(sub.TooMany(m, name))
		case sub.Already:
			c.Answer(&protocol.Message{
				Topic: protocol.TopicEvent, Action: protocol.EventMultipleSubscriptions,
				Has: protocol.HasName | protocol.HasOriginalAction, Name: name, OriginalAction: m.Action,
			})
		}
		if i%pace == pace-1 {
			c.Pace()
		}
	}
	ack(c, m)
}

func (r *Room) unsubscribe(c sub.Client, m *protocol.Message) {
	for _, name := range m.Names {
		if _, last := r.subs.Remove(name, c); last {
			r.slots.last(name)
			r.listen.Changed(name)
		}
	}
	ack(c, m)
}

// ack acknowledges a bulk request, with nothing but its correlation id (trap 7).
func ack(c sub.Client, m *protocol.Message) {
	c.Answer(&protocol.Message{
		Topic: protocol.TopicEvent, Action: m.Action, IsAck: true,
		Has: m.Has & protocol.HasCorrelationID, CorrelationID: m.CorrelationID,
	})
}
