package protocol

import (
	"strconv"
)

// textFrame is m as a complete frame of the text dialect (spec 02 §5), or nil when
// the dialect has no words for it.
func textFrame(m *Message, result string) []byte {
	size := 32 + len(m.Name) + len(m.CorrelationID) + len(m.Data) + len(result) + len(m.Path) + len(m.Subscription)
	w := lines{b: make([]byte, headroom, headroom+size)}
	w.message(m, result)
	if len(w.b) == headroom {
		return nil
	}
	return finish(w.b, opText)
}

// lines are written a word at a time. A line with a word that the dialect cannot
// say, because there is a separator in it, is not written at all: it would be read
// as another message.
type lines struct {
	b     []byte
	start int // of the line
	bad   bool
}

// begin begins a line; what holds more than one word.
func (w *lines) begin(t Topic, what string) {
	w.start, w.bad = len(w.b), false
	w.b = append(append(append(w.b, topicLetters[t]), wordEnd...), what...)
}

func (w *lines) word(s string) {
	w.bad = w.bad || !sayable(s)
	w.b = append(append(w.b, wordEnd...), s...)
}

func (w *lines) number(n int32) {
	w.b = strconv.AppendInt(append(w.b, wordEnd...), int64(n), 10)
}

func (w *lines) typed(data string) {
	w.bad = w.bad || !sayable(data) // then it is no JSON
	w.b = appendTyped(append(w.b, wordEnd...), data)
}

func (w *lines) end() {
	if w.bad {
		w.b = w.b[:w.start]
		return
	}
	w.b = append(w.b, lineEnd...)
}

// line is a line of plain words.
func (w *lines) line(t Topic, what string, more ...string) {
	w.begin(t, what)
	for _, s := range more {
		w.word(s)
	}
	w.end()
}

var topicLetters = [...]byte{
	TopicConnection: 'C', TopicAuth: 'A', TopicEvent: 'E', TopicRecord: 'R', TopicRPC: 'P', TopicPresence: 'U',
}

// said is what an acknowledgement repeats: the name, which Decode has made the
// id where the answer has no other.
func said(m *Message) string {
	if m.Name != "" {
		return m.Name
	}
	return m.CorrelationID
}

func (w *lines) message(m *Message, result string) {
	switch m.Topic {
	case TopicConnection:
		w.connection(m)
	case TopicAuth:
		w.auth(m)
	case TopicEvent:
		w.event(m)
	case TopicRecord:
		w.record(m, result)
	case TopicRPC:
		w.rpc(m)
	case TopicPresence:
		w.presence(m)
	}
}

func (w *lines) connection(m *Message) {
	switch m.Action {
	case ConnectionPing:
		w.line(m.Topic, "PI")
	case ConnectionPong:
		w.line(m.Topic, "PO")
	case ConnectionAccept:
		w.line(m.Topic, "A")
	case ConnectionReject:
		w.line(m.Topic, "REJ")
	case ConnectionRedirect:
		w.line(m.Topic, "RED", m.URL)
	case ConnectionAuthenticationTimeout:
		w.line(m.Topic, "E", "CONNECTION_AUTHENTICATION_TIMEOUT")
	}
}

func (w *lines) auth(m *Message) {
	switch m.Action {
	case AuthAuthSuccessful:
		w.begin(m.Topic, "A")
		if m.Data != "" {
			w.typed(m.Data)
		}
		w.end()
	case AuthAuthUnsuccessful, AuthInvalidMessageData:
		w.begin(m.Topic, "E"+wordEnd+"INVALID_AUTH_DATA")
		w.typed(m.Data)
		w.end()
	case AuthTooManyAuthAttempts:
		w.line(m.Topic, "E", "TOO_MANY_AUTH_ATTEMPTS")
	}
}

func (w *lines) event(m *Message) {
	switch m.Action {
	case EventEmit:
		w.begin(m.Topic, "EVT")
		w.word(m.Name)
		w.typed(m.Data)
		w.end()
	case EventSubscribe, EventUnsubscribe, EventListen, EventUnlisten:
		w.ack(m, shortNames[m.Topic][m.Action])
	case EventSubscriptionForPatternFound:
		w.line(m.Topic, "SP", m.Name, m.Subscription)
	case EventSubscriptionForPatternRemoved:
		w.line(m.Topic, "SR", m.Name, m.Subscription)
	case EventListenResponseTimeout: // no form, and nothing to do about it
	default:
		w.failure(m)
	}
}

func (w *lines) record(m *Message, result string) {
	switch m.Action {
	case RecordReadResponse:
		w.whole(m, "R", m.Data)
	case RecordHeadResponse:
		w.whole(m, "HD", "null")
	case RecordUpdate:
		w.whole(m, "U", m.Data)
	case RecordPatchMulti:
		w.whole(m, "U", result)
	case RecordPatch, RecordErase:
		if m.NeedsWhole() {
			w.whole(m, "U", result)
			return
		}
		w.begin(m.Topic, "P")
		w.word(m.Name)
		w.number(m.Version)
		w.word(m.Path)
		w.typed(m.Data)
		w.end()
	case RecordSubscribe, RecordSubscribeCreateAndRead:
		w.ack(m, "S")
	case RecordUnsubscribe:
		w.ack(m, "US")
	case RecordListen, RecordUnlisten:
		w.ack(m, shortNames[m.Topic][m.Action])
	case RecordDeleteSuccess, RecordDeleted:
		w.line(m.Topic, "A", "D", m.Name)
	case RecordWriteAcknowledgement:
		w.line(m.Topic, "WA", m.Name, "["+m.CorrelationID+"]", "L")
	case RecordVersionExists:
		w.begin(m.Topic, "E"+wordEnd+"VERSION_EXISTS")
		w.word(m.Name)
		w.number(m.Version)
		w.word(m.Data)
		if m.IsWriteAck {
			w.word(acked)
		}
		w.end()
	case RecordSubscriptionHasProvider:
		w.line(m.Topic, "SH", m.Name, "T")
	case RecordSubscriptionHasNoProvider:
		w.line(m.Topic, "SH", m.Name, "F")
	case RecordSubscriptionForPatternFound:
		w.line(m.Topic, "SP", m.Name, m.Subscription)
	case RecordSubscriptionForPatternRemoved:
		w.line(m.Topic, "SR", m.Name, m.Subscription)
	case RecordListenResponseTimeout:
	default:
		if m.IsWriteAck && m.CorrelationID != "" {
			// The error alone would leave the callback of the write uncalled.
			w.line(m.Topic, "WA", m.Name, "["+m.CorrelationID+"]", "S"+m.Action.Name(m.Topic))
		}
		w.failure(m)
	}
}

// whole is a line with all of a record. Without data there is nothing to say: a
// client would take it for broken JSON.
func (w *lines) whole(m *Message, what, data string) {
	if data == "" {
		return
	}
	w.begin(m.Topic, what)
	w.word(m.Name)
	w.number(m.Version)
	w.word(data)
	w.end()
}

func (w *lines) rpc(m *Message) {
	switch m.Action {
	case RPCRequest, RPCResponse:
		w.begin(m.Topic, shortNames[m.Topic][m.Action])
		w.word(m.Name)
		w.word(m.CorrelationID)
		w.typed(m.Data)
		w.end()
	case RPCAccept:
		w.line(m.Topic, "A", "REQ", m.Name, m.CorrelationID)
	case RPCReject:
		w.line(m.Topic, "REJ", m.Name, m.CorrelationID)
	case RPCRequestError:
		w.begin(m.Topic, "E")
		w.typed(m.Data)
		w.word(m.Name)
		w.word(m.CorrelationID)
		w.end()
	case RPCProvide, RPCUnprovide:
		w.ack(m, shortNames[m.Topic][m.Action])
	case RPCNoRPCProvider, RPCResponseTimeout, RPCAcceptTimeout, RPCMultipleAccept, RPCMultipleResponse, RPCInvalidRPCCorrelationID,
		RPCInvalidMessageData:
		w.line(m.Topic, "E", m.Action.Name(m.Topic), m.Name, m.CorrelationID)
	default:
		w.failure(m)
	}
}

func (w *lines) presence(m *Message) {
	switch m.Action {
	case PresenceSubscribeAll:
		w.line(m.Topic, "A", "S", "S")
	case PresenceUnsubscribeAll:
		w.line(m.Topic, "A", "US", "US")
	case PresenceSubscribe, PresenceUnsubscribe:
		w.ack(m, shortNames[m.Topic][m.Action])
	case PresenceQueryAllResponse:
		w.begin(m.Topic, "Q")
		for _, name := range m.Names {
			if sayable(name) {
				w.word(name)
			}
		}
		w.end()
	case PresenceQueryResponse:
		w.line(m.Topic, "Q", m.CorrelationID, m.Data)
	case PresencePresenceJoin, PresencePresenceJoinAll:
		w.line(m.Topic, "PNJ", m.Name)
	case PresencePresenceLeave, PresencePresenceLeaveAll:
		w.line(m.Topic, "PNL", m.Name)
	default:
		w.failure(m)
	}
}

// ack acknowledges a request, by what it asked for.
func (w *lines) ack(m *Message, what string) {
	if name := said(m); m.IsAck && name != "" {
		w.line(m.Topic, "A", what, name)
	}
}

// failure is a line for an error of EVENT, RECORD, RPC or PRESENCE. What is no error
// has no form.
func (w *lines) failure(m *Message) {
	if m.Action < firstError {
		return
	}
	w.begin(m.Topic, "E")
	switch m.Action {
	case Denied(m.Topic):
		w.word("MESSAGE_DENIED")
		w.word(orUndefined(m.Name))
		w.word(orUndefined(shortNames[m.Topic][m.OriginalAction]))
		w.idOfRequest(m)
	case PermissionError(m.Topic):
		w.word("MESSAGE_PERMISSION_ERROR")
		w.word(orUndefined(m.Name))
		w.idOfRequest(m)
	default:
		name := m.Action.Name(m.Topic)
		switch name {
		case "MULTIPLE_PROVIDERS":
			name = "MULTIPLE_SUBSCRIPTIONS"
		case "NOT_PROVIDED":
			name = "NOT_SUBSCRIBED"
		}
		w.word(name)
		switch {
		case name == "INVALID_MESSAGE_DATA" && m.Data != "":
			w.word(m.Data)
		case m.Name != "":
			w.word(m.Name)
		}
	}
	w.end()
}

// idOfRequest is the id of a refused request, if its client gave it one. That of a
// write is its version.
func (w *lines) idOfRequest(m *Message) {
	if m.CorrelationID == "" {
		return
	}
	switch m.Topic {
	case TopicRecord:
		switch m.OriginalAction {
		case RecordUpdate, RecordPatch, RecordErase, RecordCreateAndUpdate, RecordCreateAndPatch:
		default:
			return
		}
	case TopicRPC:
		if m.OriginalAction == RPCProvide || m.OriginalAction == RPCUnprovide {
			return
		}
	case TopicEvent:
		return
	}
	w.word(m.CorrelationID)
}

// orUndefined is what the peer says where there is nothing to say.
func orUndefined(s string) string {
	if s == "" {
		return "undefined"
	}
	return s
}
