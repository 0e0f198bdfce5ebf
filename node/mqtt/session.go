package mqtt

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/node/endpoint"
	"hadal/node/sub"
	"hadal/protocol"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

const (
	// maxName is the longest topic in bytes, which is the pipeline's limit of names.
	maxName = 4096
	// goneCheck is how often one who waits for rooms looks whether the client is there.
	goneCheck = 100 * time.Millisecond
)

// session is one client. It is the Codec of its Conn, too.
type session struct {
	server *Server
	conn   atomic.Pointer[endpoint.Conn]

	// Of the reader alone:

	guard   guard
	client  *broker.Client
	v5      bool // set before the login, like client
	key     string
	will    *will
	granted map[string]bool // of the SUBSCRIBE that is being served, by flat filters

	filters  map[string]struct{} // with wildcards
	watchers map[protocol.Topic]*sub.Watcher

	// receiving is held over Conn.Receive: the reader is not alone (see resubscribe).
	receiving sync.Mutex

	mu      sync.Mutex
	why     endpoint.Reason // guarded by mu, like all below
	ending  bool
	asked   *subscribing // nil while nobody waits
	acks    acks
	lost    []string // records that were deleted, to be subscribed to again
	looking bool     // somebody does that
	running sync.WaitGroup
}

// will is what the client has left to be published.
type will struct {
	topic, payload string
	retain         bool
}

// subscribing is a request for names of one topic.
type subscribing struct {
	topic   protocol.Topic
	names   map[string]bool
	acked   bool
	denied  map[string]bool
	waiting map[string]bool // records without an answer
	done    chan struct{}   // closed when there are none
}

func newSession(s *Server) *session {
	return &session{server: s, guard: guard{limit: int(s.cfg.MaxMessageSize)}, filters: make(map[string]struct{}), watchers: make(map[protocol.Topic]*sub.Watcher)}
}

// Form implements endpoint.Codec; the CONNECT may change it.
func (c *session) Form() protocol.Form { return protocol.FormMQTT }

// Decode implements endpoint.Codec; a Plain connection does not use it.
func (c *session) Decode([]byte, func(*protocol.Message)) error { return nil }

// Frame implements endpoint.Codec.
func (c *session) Frame(m *protocol.Message) []byte {
	if m.Topic != protocol.TopicEvent && m.Topic != protocol.TopicRecord {
		return nil
	}
	form := protocol.FormMQTT
	if c.v5 {
		form = protocol.FormMQTT5
	}
	return protocol.EncodeFrame(form, m, "")
}

// ended notes why the connection ends; the first reason stands.
func (c *session) ended(why endpoint.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending {
		c.ending, c.why = true, why
	}
}

func (c *session) reason() endpoint.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// sayBye sends a client of MQTT 5 the reason for which it is disconnected.
func (c *session) sayBye(code byte) {
	if c.v5 {
		_, _ = c.conn.Load().Write([]byte{packets.Disconnect << 4, 1, code}) // it may have gone
	}
}

// takenOver ends the session because its client has come again.
func (c *session) takenOver() {
	c.sayBye(packets.ErrSessionTakenOver.Code)
	c.conn.Load().End(endpoint.Disconnected)
}

// end is what there is to do when the broker has done with the client, before the
// connection is left.
func (c *session) end() {
	conn := c.conn.Load()
	if w := c.will; w != nil && conn.User() != nil {
		for _, m := range c.messages(w.topic, w.payload, w.retain) {
			c.receiving.Lock()
			conn.Bequeath(m)
			c.receiving.Unlock()
		}
	}
	conn.End(c.reason()) // if nobody has
	if c.key != "" {
		c.server.leave(c)
	}
	c.unwatchAll()
	if c.client != nil {
		// The broker keeps one whose CONNACK it could not write.
		c.server.broker.Clients.Delete(c.client.ID)
	}
	c.mu.Lock()
	c.looking = true // nobody begins any more
	c.mu.Unlock()
	c.running.Wait()
}

// receive hands a message to the pipeline.
func (c *session) receive(m *protocol.Message) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	_ = c.conn.Load().Receive(m) // it has gone, or has not logged in: nobody waits for an answer
}

// subscribe subscribes to filters and returns which were granted.
func (c *session) subscribe(filters []string) map[string]bool {
	granted := make(map[string]bool, len(filters))
	var events, records []string
	for _, f := range filters {
		if _, twice := granted[f]; twice {
			continue
		}
		granted[f] = false
		switch {
		case len(f) > maxName || f == "" || f[0] == '$' || !broker.IsValidFilter(f, false):
		case !isPlain(f):
			granted[f] = sub.ValidFilter(f) && c.watch(f)
		case c.server.cfg.isRecord(f):
			records = append(records, f)
		default:
			events = append(events, f)
		}
	}
	c.ask(granted, protocol.TopicEvent, protocol.EventSubscribe, events)
	c.ask(granted, protocol.TopicRecord, protocol.RecordSubscribeAndRead, records)
	return granted
}

// isPlain says whether a filter is a name.
func isPlain(filter string) bool { return !strings.ContainsAny(filter, "+#") }

// ask subscribes to names of one topic, and notes which were granted when all have been
// judged.
func (c *session) ask(granted map[string]bool, t protocol.Topic, a protocol.Action, names []string) {
	if len(names) == 0 {
		return
	}
	asked := &subscribing{topic: t, names: make(map[string]bool, len(names)), denied: make(map[string]bool), done: make(chan struct{})}
	for _, name := range names {
		asked.names[name] = true
	}
	if t == protocol.TopicRecord {
		asked.waiting = maps.Clone(asked.names)
	}
	c.mu.Lock()
	c.asked = asked
	c.mu.Unlock()
	c.receive(&protocol.Message{
		Topic: t, Action: a, Names: slices.Clone(names), CorrelationID: "s", Has: protocol.HasCorrelationID,
	})
	c.mu.Lock()
	wait := asked.acked && len(asked.waiting) > 0
	c.mu.Unlock()
	if wait {
		c.await(asked.done)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = nil
	for _, name := range names {
		granted[name] = asked.acked && !asked.denied[name] && !asked.waiting[name]
	}
}

// await returns when done is closed or the client has gone.
func (c *session) await(done <-chan struct{}) {
	tick := time.NewTicker(goneCheck)
	defer tick.Stop()
	for !c.conn.Load().Gone() {
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// Hear implements endpoint.Listener: the answers of the rooms.
func (c *session) Hear(m *protocol.Message) {
	if m.Topic != protocol.TopicEvent && m.Topic != protocol.TopicRecord && m.Topic != protocol.TopicParser {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Topic == protocol.TopicRecord && (m.Action == protocol.RecordDeleted || m.Action == protocol.RecordDeleteSuccess) {
		c.deleted(m.Name)
	}
	c.acks.hear(m)
	c.flushAcks()
	s := c.asked
	if s != nil && s.topic == m.Topic {
		s.hear(m)
	}
	if ends(m) && (s == nil || !s.names[m.Name]) {
		c.forbidden()
	}
}

// ends says whether a message tells that the rules have ended a subscription by name, or do
// not let deleted have it again, unless it answers a SUBSCRIBE.
func ends(m *protocol.Message) bool {
	switch {
	case !m.IsError || m.Action != protocol.Denied(m.Topic) && m.Action != protocol.PermissionError(m.Topic):
		return false
	case m.Topic == protocol.TopicEvent:
		return m.OriginalAction == protocol.EventSubscribe
	}
	switch m.OriginalAction {
	case protocol.RecordSubscribe, protocol.RecordSubscribeAndRead, protocol.RecordSubscribeCreateAndRead:
		return m.Topic == protocol.TopicRecord
	}
	return false
}

// forbidden ends the session of a client that has a subscription less than it believes:
// no packet says so. It comes again, subscribes, and is told what it may not. The caller
// holds mu.
func (c *session) forbidden() {
	if c.client == nil || c.ending {
		return
	}
	c.ending, c.why = true, endpoint.NotAllowed
	c.sayBye(packets.ErrNotAuthorized.Code)
	c.conn.Load().End(endpoint.NotAllowed)
}

// hear notes an answer to a subscription.
func (s *subscribing) hear(m *protocol.Message) {
	switch {
	case m.IsAck:
		s.acked = true
		return
	case m.IsError && subscribes(m.Topic, m.OriginalAction):
		s.denied[m.Name] = true
	case m.Topic == protocol.TopicRecord && m.Action == protocol.RecordReadResponse:
	default:
		return
	}
	if s.waiting[m.Name] {
		if delete(s.waiting, m.Name); len(s.waiting) == 0 {
			close(s.done)
		}
	}
}

// subscribes says whether an action is one of those that ask uses.
func subscribes(t protocol.Topic, a protocol.Action) bool {
	if t == protocol.TopicEvent {
		return a == protocol.EventSubscribe
	}
	return a == protocol.RecordSubscribeAndRead
}

// unsubscribe ends subscriptions.
func (c *session) unsubscribe(filters []string) {
	var events, records []string
	for _, f := range filters {
		switch {
		case len(f) > maxName || f == "":
		case !isPlain(f):
			c.unwatch(f)
		case c.server.cfg.isRecord(f):
			records = append(records, f)
		default:
			events = append(events, f)
		}
	}
	if len(events) > 0 {
		c.receive(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventUnsubscribe, Names: events})
	}
	if len(records) > 0 {
		c.receive(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordUnsubscribe, Names: records})
	}
}

// deleted has a client that subscribed to a record that was deleted hear of the next one
// of that name: the rooms end such subscriptions, MQTT does not. The caller holds mu.
func (c *session) deleted(name string) {
	if c.client == nil || c.ending || !c.server.cfg.isRecord(name) {
		return
	}
	c.lost = append(c.lost, name)
	if !c.looking {
		c.looking = true
		c.running.Go(c.resubscribe)
	}
}

// resubscribe subscribes again to what was deleted, unless the client has not, or not any more.
func (c *session) resubscribe() {
	for {
		c.mu.Lock()
		names := c.lost
		c.lost = nil
		if len(names) == 0 || c.ending {
			c.looking = c.ending
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.receiving.Lock()
		names = slices.DeleteFunc(names, func(name string) bool {
			_, subscribed := c.client.State.Subscriptions.Get(flat(name))
			return !subscribed
		})
		if len(names) > 0 {
			_ = c.conn.Load().Receive(&protocol.Message{ // it may have gone
				Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeAndRead, Names: names, CorrelationID: "d", Has: protocol.HasCorrelationID,
			})
		}
		c.receiving.Unlock()
	}
}
