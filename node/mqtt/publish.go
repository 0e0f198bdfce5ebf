package mqtt

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"hadal/node/endpoint"
	"hadal/protocol"
	"hadal/protocol/jsonpath"

	broker "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// This file is what a client publishes, and how it is acknowledged.

// quote is s as JSON text.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// messages are what a PUBLISH becomes (spec 05 §2); none when it cannot be anything.
func (c *session) messages(topic, payload string, retain bool) []*protocol.Message {
	record := c.server.cfg.isRecord(topic)
	if record && retain && payload == "" {
		return []*protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordDelete, Name: topic}}
	}
	var list []*protocol.Message
	if kind := jsonpath.Kind(payload); record || retain && (kind == '{' || kind == '[') && jsonpath.ValidJSON(payload) {
		list = append(list, &protocol.Message{
			Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: topic, Version: -1, Data: payload,
			Has: protocol.HasVersion | protocol.HasData,
		})
	}
	if !record && utf8.ValidString(payload) {
		list = append(list, &protocol.Message{
			Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: topic, Data: quote(payload), Has: protocol.HasName | protocol.HasData,
		})
	}
	return list
}

// publish hands a PUBLISH to the pipeline. One that is to be acknowledged has its PUBACK
// when everything it became is done.
func (c *session) publish(topic, payload string, retain, ack bool, id uint16) {
	list := c.messages(topic, payload, retain)
	a := c.open(ack, id, len(list) == 0)
	for _, m := range list {
		c.mu.Lock()
		c.acks.now, c.acks.record = a, m.Topic == protocol.TopicRecord
		if c.acks.record {
			a.left++
			if m.IsWriteAck = m.Action != protocol.RecordDelete; !m.IsWriteAck {
				a.deletes = topic
			}
			m.CorrelationID, m.Has = a.correlation, m.Has|protocol.HasCorrelationID
		}
		c.mu.Unlock()
		c.receive(m)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks.now = nil
	a.left--
	c.flushAcks()
}

// reserved says whether a topic is the server's own, to which no client publishes.
func reserved(topic string) bool {
	return len(topic) >= len(broker.SysPrefix) && strings.EqualFold(topic[:len(broker.SysPrefix)], broker.SysPrefix)
}

// refuse acknowledges a PUBLISH in its turn that nobody may make.
func (c *session) refuse(id uint16) {
	a := c.open(true, id, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	a.code = packets.ErrNotAuthorized.Code
	a.left--
	c.flushAcks()
}

// open begins to count what a PUBLISH becomes.
func (c *session) open(ack bool, id uint16, hopeless bool) *pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &pending{id: id, ack: ack, left: 1, correlation: strconv.FormatUint(c.acks.first+uint64(len(c.acks.queue)), 10)}
	if hopeless {
		a.code = packets.ErrPayloadFormatInvalid.Code
	}
	c.acks.queue = append(c.acks.queue, a)
	return a
}

// acks are the PUBLISHes that are not done, in their order.
type acks struct {
	queue  []*pending
	first  uint64   // number of the first in queue
	now    *pending // that is being handed to the pipeline
	record bool     // as a record
}

// pending is a PUBLISH that is not done.
type pending struct {
	id          uint16
	ack         bool
	left        int    // what it waits for
	code        byte   // why it was refused, in MQTT 5; 0 if it was not
	failed      bool   // nobody knows whether it was written, or it may be soon
	correlation string // of the write
	deletes     string // the name of a record to be deleted
}

// hear notes what became of a PUBLISH.
func (a *acks) hear(m *protocol.Message) {
	switch m.Topic {
	case protocol.TopicParser: // the feature is switched off
		if a.now != nil {
			a.now.code = packets.ErrImplementationSpecificError.Code
			if a.record {
				a.now.left--
			}
		}
		return
	case protocol.TopicEvent:
		if a.now != nil && m.IsError && m.OriginalAction == protocol.EventEmit {
			a.now.code = codeOf(m)
		}
		return
	}
	p := a.of(m)
	if p == nil || p.left == 0 {
		return
	}
	switch m.Action {
	case protocol.RecordWriteAcknowledgement, protocol.RecordDeleteSuccess:
	case protocol.RecordRecordUpdateError, protocol.RecordRecordDeleteError, protocol.RecordRecordLoadError, protocol.RecordStorageRetrievalTimeout:
		p.failed, p.code = true, packets.ErrUnspecifiedError.Code
	default:
		p.code = codeOf(m)
	}
	p.left--
}

// of is the PUBLISH that an answer of the record room belongs to.
func (a *acks) of(m *protocol.Message) *pending {
	if m.Carries(protocol.HasCorrelationID) {
		n, err := strconv.ParseUint(m.CorrelationID, 10, 64)
		if err != nil || n < a.first || n-a.first >= uint64(len(a.queue)) {
			return nil
		}
		return a.queue[n-a.first]
	}
	if m.Action != protocol.RecordDeleteSuccess && m.Action != protocol.RecordRecordDeleteError {
		return nil
	}
	for _, p := range a.queue { // DELETE is answered by name
		if p.deletes != "" && p.deletes == m.Name {
			p.deletes = ""
			return p
		}
	}
	return nil
}

// codeOf is what MQTT 5 calls a refusal.
func codeOf(m *protocol.Message) byte {
	switch m.Action {
	case protocol.Denied(m.Topic), protocol.PermissionError(m.Topic):
		return packets.ErrNotAuthorized.Code
	}
	return packets.ErrPayloadFormatInvalid.Code
}

// flushAcks sends the PUBACKs of what is done, in order. A client of 3.1.1 cannot be told
// that it was refused: it is acknowledged, as that version has it; of what has failed it
// can only learn by losing its connection, after which it publishes again. The caller
// holds mu.
func (c *session) flushAcks() {
	var b []byte
	q := c.acks.queue
	for len(q) > 0 && q[0].left <= 0 {
		p := q[0]
		q[0] = nil
		q = q[1:]
		c.acks.first++
		switch {
		case !p.ack:
		case p.failed && !c.v5:
			c.conn.Load().End(endpoint.Disconnected)
		case p.code != 0 && c.v5:
			b = append(b, packets.Puback<<4, 3, byte(p.id>>8), byte(p.id), p.code)
		default:
			b = append(b, packets.Puback<<4, 2, byte(p.id>>8), byte(p.id))
		}
	}
	if c.acks.queue = q; len(q) == 0 {
		c.acks.queue = nil
	}
	if len(b) > 0 {
		_, _ = c.conn.Load().Write(b) // it may have gone
	}
}
