// Package protocol is what clients and server say to each other: one Message
// for every dialect, the topics and actions it may carry, and a codec a dialect:
// the binary one (Decode, EncodeFrame), Text and JSON. It imports none of Hadal's rooms.
//
// # Presence
//
// The official client tells a field that is absent from one that is zero
// (spec 01 §3), so a Message says with Has which fields were on the wire. A
// writer emits a text field when it is not empty or Has names it, a flag when
// it is true, and Version only when Has names it; Data is never written empty,
// because the client would fail to parse it.
//
// # Memory
//
// A received frame is never changed and never reused after it was handed to
// Decode, and every string of the decoded Message is a view into it. So a
// string may be kept without copying; it keeps the whole frame alive, which is
// why a room that keeps a small piece for long (a subscribed name) clones it.
package protocol

import "strings"

// Topic is the subject area of a message (spec 01 §4).
type Topic uint8

// The topics that clients and server use. All others are the peer's own
// between its nodes, or unused.
const (
	TopicUnknown    Topic = 0
	TopicParser     Topic = 1
	TopicConnection Topic = 2
	TopicAuth       Topic = 3
	TopicEvent      Topic = 4
	TopicRecord     Topic = 5
	TopicRPC        Topic = 6
	TopicPresence   Topic = 7
)

// Topics that have a codec, but nobody here who handles them: a client that
// sends one is answered PARSER.UNKNOWN_TOPIC.
const (
	TopicMonitoring Topic = 8
	TopicCluster    Topic = 9
	TopicLock       Topic = 10
)

// String is the protobuf name of the topic, or UNKNOWN.
func (t Topic) String() string {
	switch t {
	case TopicParser:
		return "PARSER"
	case TopicConnection:
		return "CONNECTION"
	case TopicAuth:
		return "AUTH"
	case TopicEvent:
		return "EVENT"
	case TopicRecord:
		return "RECORD"
	case TopicRPC:
		return "RPC"
	case TopicPresence:
		return "PRESENCE"
	case TopicMonitoring:
		return "MONITORING"
	case TopicCluster:
		return "CLUSTER"
	case TopicLock:
		return "LOCK"
	}
	return "UNKNOWN"
}

// Fields says which fields of a Message are present.
type Fields uint32

// One bit for each field whose absence differs from its zero value.
const (
	HasData Fields = 1 << iota
	HasCorrelationID
	HasName
	HasPath
	HasVersion
	HasSubscription
	HasRequestorName
	HasRequestorData
	HasOriginalAction
	// HasVersions makes a writer send Versions. An empty map looks the same on the wire.
	HasVersions
)

// Message is one message of any topic, in no dialect. Which fields a topic and
// action may carry stands in spec 01 §5 and §6.
type Message struct {
	Topic  Topic
	Action Action
	Has    Fields

	IsAck      bool
	IsError    bool
	IsWriteAck bool

	Version        int32 // of a record; -1 means "whatever comes next" in a write
	OriginalAction Action

	CorrelationID string
	Name          string
	Names         []string
	Data          string // JSON text
	Path          string
	Subscription  string // the subscribed name, beside a listen pattern in Name

	Versions []NameVersion // HEAD_RESPONSE_BULK only

	RequestorName string // RPC only
	RequestorData string // RPC only, JSON text

	// Alone is set by who read the message, when its client sends one by one:
	// nothing came with this message or the few before. A room that sends on what
	// it received, at once and on that reader's goroutine, hands it on: such a
	// message is worth a write of its own, while others are better written
	// together. It is no part of the message's bytes.
	Alone bool
	// Judged is set by who let the message pass: the generation of the rules that
	// it was asked of. It is no part of the message's bytes.
	Judged uint64

	URL             string // CHALLENGE and REDIRECT only
	ProtocolVersion string // CHALLENGE only
	SDKVersion      string // CHALLENGE only
	SDKType         string // CHALLENGE only
}

// Reserved says whether a name belongs to the server: clients may read and
// subscribe to it, and call it, but neither change nor provide it.
func Reserved(name string) bool { return strings.HasPrefix(name, "hadal/") }

// Names under hadal/ that mean something to clients.
const (
	// EventExpiring is the event by which a client is told that its token will expire. The
	// server sends it to that client alone, if it has subscribed.
	EventExpiring = "hadal/auth/expiring"
	// CallRefresh is the remote procedure by which a client renews its token. The server
	// answers it.
	CallRefresh = "hadal/auth/refresh"
)

// NameVersion is one entry of a HEAD_RESPONSE_BULK.
type NameVersion struct {
	Name    string
	Version int32
}

// Carries says whether all the given fields are present.
func (m *Message) Carries(f Fields) bool { return m.Has&f == f }
