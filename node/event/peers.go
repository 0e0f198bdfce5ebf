package event

import (
	"encoding/binary"
	"errors"
	"sync"

	"hadal/cluster"
	"hadal/protocol"
)

// format begins what nodes publish of events. A node drops what begins otherwise.
const format = 1

var errPayload = errors.New("not an event of a peer")

// appendEvent appends an event as nodes publish it: the format, the length of the
// name as an unsigned varint, the name, and the data, which may be none, to the end.
func appendEvent(b []byte, name, data string) []byte {
	b = binary.AppendUvarint(append(b, format), uint64(len(name)))
	return append(append(b, name...), data...)
}

// parseEvent is the reverse of appendEvent. What it returns views b.
func parseEvent(b []byte) (name, data []byte, err error) {
	if len(b) == 0 || b[0] != format {
		return nil, nil, errPayload
	}
	b = b[1:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, errPayload
	}
	return b[n : n+int(size)], b[n+int(size):], nil
}

// slots counts, for each slot, the names in it that have a subscriber here. A slot is
// joined while there is one.
type slots struct {
	bus   cluster.Bus
	parts [cluster.Slots]slot
}

// slot is joined while n is positive. Its lock is held over Join and Leave, which
// puts them in turn. The first subscriber of a name and the last may be counted the
// other way round than they came and went, so n may be negative for a moment.
type slot struct {
	mu sync.Mutex
	n  int32 // guarded by mu
}

// first counts a name that has got its first subscriber.
func (s *slots) first(name string) { s.enter(cluster.Slot(name)) }

func (s *slots) enter(number uint16) {
	p := &s.parts[number]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n++; p.n == 1 {
		s.bus.Join(cluster.KindEvent, number)
	}
}

// last counts a name that has lost its last subscriber.
func (s *slots) last(name string) { s.exit(cluster.Slot(name)) }

func (s *slots) exit(number uint16) {
	p := &s.parts[number]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n--; p.n == 0 {
		s.bus.Leave(cluster.KindEvent, number)
	}
}

// buffers are for payloads that are being published; they do not outlive Publish.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// keepBuffer is how large a buffer may be that is used again.
const keepBuffer = 64 << 10

// publish hands an event to other nodes, if there are any.
func (r *Room) publish(name, data string) {
	if r.linked.Load() == 0 {
		return
	}
	buffer := buffers.Get().(*[]byte)
	*buffer = appendEvent((*buffer)[:0], name, data)
	r.bus.Publish(cluster.KindEvent, cluster.Slot(name), *buffer)
	r.published.Add(1)
	if cap(*buffer) <= keepBuffer {
		buffers.Put(buffer)
	}
}

// peers is the room as the bus sees it.
type peers struct{ *Room }

var _ cluster.Handler = peers{}

// Up implements cluster.Handler.
func (r peers) Up(string) { r.linked.Add(1) }

// Down implements cluster.Handler.
func (r peers) Down(string) { r.linked.Add(-1) }

// Hear implements cluster.Handler. Events come in slots only.
func (r peers) Hear(peer string, _ []byte) { r.misunderstood(peer) }

// Published implements cluster.Handler: the event is delivered to everybody here. Its
// data was judged by the node that took it from its client.
func (r peers) Published(peer string, slot uint16, payload []byte) {
	name, data, err := parseEvent(payload)
	if err != nil {
		r.misunderstood(peer)
		return
	}
	r.received.Add(1)
	s := string(payload[len(payload)-len(name)-len(data):]) // one copy of both
	o := &protocol.Outbound{Message: protocol.Message{
		Topic: protocol.TopicEvent, Action: protocol.EventEmit, Has: protocol.HasName, Name: s[:len(name)],
	}}
	if !r.subs.Wants(o.Name) { // others in the slot have
		return
	}
	if len(data) > 0 {
		o.Data = s[len(name):]
		o.Has |= protocol.HasData
	}
	r.delivered.Add(uint64(r.subs.Deliver(o.Name, nil, o)))
}

func (r *Room) misunderstood(peer string) {
	r.unknown.Add(1)
	r.log.Debug("message of a peer dropped: it is no event that this version knows", "peer", peer)
}
