package protocol

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// most is how many words of a line are looked at; no message has more.
const most = 8

// Decode reads a frame (spec 02 §4) and hands on one message after the other. What is
// none is skipped, as the peer does: too short, or of an unknown topic or action. A
// value that cannot be read becomes data that is no JSON, so that whoever handles the
// message refuses it. The message is reused after hand returns; its strings are views
// into frame, which must not change any more, or new. The error is ErrUTF8, before
// any call of hand.
func (Text) Decode(frame []byte, hand func(*Message)) error {
	s := unsafe.String(unsafe.SliceData(frame), len(frame))
	if !validText(s) {
		return ErrUTF8
	}
	m := spare.Get().(*Message)
	defer m.release()
	for s != "" {
		var line string
		line, s, _ = strings.Cut(s, lineEnd)
		if len(line) < 3 {
			continue
		}
		if m.reset(); m.readLine(line) {
			hand(m)
		}
	}
	return nil
}

// spare are the messages of codecs that hand them on.
var spare = sync.Pool{New: func() any { return new(Message) }}

// release gives a spare message back, which then keeps no frame alive.
func (m *Message) release() {
	m.reset()
	spare.Put(m)
}

// words are what follows the action in a line; those that are missing are empty.
type words []string

func (w words) at(i int) string {
	if i < len(w) {
		return w[i]
	}
	return ""
}

// readLine reads a line into m, which is empty, and says whether it is a message.
func (m *Message) readLine(line string) bool {
	var all [most]string
	w := words(all[:0])
	for more := true; more && len(w) < most; {
		var word string
		word, line, more = strings.Cut(line, wordEnd)
		w = append(w, word)
	}
	topic, w := w[0], w[1:]
	ack := w.at(0) == "A"
	if ack {
		w = w[1:]
	}
	failed := w.at(0) == "E"
	if failed {
		w = w[1:]
	}
	if len(w) == 0 {
		return false
	}
	action, w := w[0], w[1:]
	if topic == "P" {
		m.Topic = TopicRPC
		return m.readRPC(action, w, ack, failed)
	}
	if ack || failed {
		return false // only answers have them
	}
	switch topic {
	case "C":
		m.Topic = TopicConnection
		return m.readConnection(action)
	case "A":
		m.Topic, m.Action = TopicAuth, AuthRequest
		m.payload(w.at(0))
		return action == "REQ"
	case "E":
		m.Topic = TopicEvent
		return m.readEvent(action, w)
	case "R":
		m.Topic = TopicRecord
		return m.readRecord(action, w)
	case "U":
		m.Topic = TopicPresence
		return m.readPresence(action, w)
	}
	return false
}

func (m *Message) readConnection(action string) bool {
	switch action {
	case "PI":
		m.Action = ConnectionPing
	case "PO":
		m.Action = ConnectionPong
	default:
		return false
	}
	return true
}

func (m *Message) readEvent(action string, w words) bool {
	switch action {
	case "S":
		m.bulk(EventSubscribe, w)
	case "US":
		m.bulk(EventUnsubscribe, w)
	case "EVT":
		m.one(EventEmit, w)
		m.payload(untyped(w.at(1)))
	case "L":
		m.one(EventListen, w)
	case "UL":
		m.one(EventUnlisten, w)
	case "LA":
		m.verdict(EventListenAccept, w)
	case "LR":
		m.verdict(EventListenReject, w)
	default:
		return false
	}
	return true
}

func (m *Message) readRecord(action string, w words) bool {
	switch action {
	case "CR":
		m.bulk(RecordSubscribeCreateAndRead, w)
	case "R", "SN":
		m.one(RecordRead, w)
	case "HD":
		m.one(RecordHead, w)
	case "S":
		m.bulk(RecordSubscribe, w)
	case "US":
		m.bulk(RecordUnsubscribe, w)
	case "D":
		m.one(RecordDelete, w)
	case "U":
		m.write(RecordUpdate, w, w.at(3))
		m.payload(w.at(2))
	case "P":
		m.write(RecordPatch, w, w.at(4))
		m.patch(w.at(2), w.at(3))
	case "CU":
		if len(w) < 5 {
			m.write(RecordCreateAndUpdate, w, w.at(3))
			m.payload(w.at(2))
			break
		}
		m.write(RecordCreateAndPatch, w, w.at(4))
		m.patch(w.at(2), w.at(3))
	case "L":
		m.one(RecordListen, w)
	case "UL":
		m.one(RecordUnlisten, w)
	case "LA":
		m.verdict(RecordListenAccept, w)
	case "LR":
		m.verdict(RecordListenReject, w)
	default:
		return false
	}
	return true
}

func (m *Message) readRPC(action string, w words, ack, failed bool) bool {
	switch {
	case failed:
		m.call(RPCRequestError, w)
		m.payload(string(appendQuoted(make([]byte, 0, len(action)+2), action)))
	case ack:
		m.call(RPCAccept, w)
		return action == "REQ"
	case action == "S":
		m.bulk(RPCProvide, w)
	case action == "US":
		m.bulk(RPCUnprovide, w)
	case action == "REQ":
		m.call(RPCRequest, w)
		m.payload(untyped(w.at(2)))
	case action == "RES":
		m.call(RPCResponse, w)
		m.payload(untyped(w.at(2)))
	case action == "REJ":
		m.call(RPCReject, w)
	default:
		return false
	}
	return true
}

func (m *Message) readPresence(action string, w words) bool {
	all := len(w) < 2 // then its only word is one that says nothing
	switch action {
	case "S":
		m.Action = PresenceSubscribe
		if all {
			m.Action = PresenceSubscribeAll
		}
	case "US":
		m.Action = PresenceUnsubscribe
		if all {
			m.Action = PresenceUnsubscribeAll
		}
	case "Q":
		m.Action = PresenceQuery
		if all {
			m.Action = PresenceQueryAll
		}
	default:
		return false
	}
	if all {
		return true
	}
	m.id(w[0])
	return json.Unmarshal(bytesOf(w[1]), &m.Names) == nil
}

// one is a request about one name.
func (m *Message) one(a Action, w words) {
	m.Action = a
	if m.Name = w.at(0); m.Name != "" {
		m.Has |= HasName
	}
}

// bulk is a request that all other dialects make for a list of names. Its answer
// repeats nothing but the id.
func (m *Message) bulk(a Action, w words) {
	m.Action = a
	m.Names = append(m.Names, w.at(0))
	m.id(w.at(0))
}

// verdict is the answer of a provider that was asked to listen.
func (m *Message) verdict(a Action, w words) {
	m.one(a, w)
	if m.Subscription = w.at(1); m.Subscription != "" {
		m.Has |= HasSubscription
	}
}

// call is a message of an rpc.
func (m *Message) call(a Action, w words) {
	m.one(a, w)
	m.id(w.at(1))
}

// write is a change of a record. Its answers repeat the version that it asked for.
func (m *Message) write(a Action, w words, options string) {
	m.one(a, w)
	m.IsWriteAck = options == acked
	v, err := strconv.ParseInt(w.at(1), 10, 32)
	if err != nil {
		return // a write without a version, which the room refuses
	}
	m.Version = int32(v)
	m.Has |= HasVersion
	m.id(strconv.Itoa(int(v)))
}

// patch is a write at a path; undefined removes what is there. No value at all is not
// undefined: a line that was cut off must not remove anything.
func (m *Message) patch(path, value string) {
	m.Path = path
	m.Has |= HasPath
	data := untyped(value)
	switch {
	case value == "":
		data = notTyped
	case data == "":
		m.Action = RecordErase
	}
	m.payload(data)
}

// payload sets data; there is none when it is empty.
func (m *Message) payload(data string) {
	if m.Data = data; data != "" {
		m.Has |= HasData
	}
}

func (m *Message) id(s string) {
	if m.CorrelationID = s; s != "" {
		m.Has |= HasCorrelationID
	}
}
