package protocol

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unsafe"

	"hadal/protocol/jsonpath"
)

// ErrType is a message of the JSON dialect that is no object, or one whose field is
// of another type than the protocol's.
var ErrType = errors.New("protocol: field of another type")

// JSON is the codec of the JSON dialect (spec 03): the actions and the order of the
// binary one, as one JSON object a frame. It keeps nothing: all connections may share
// one, from anywhere.
type JSON struct{}

// Form is FormJSON.
func (JSON) Form() Form { return FormJSON }

// Frame is an answer as a complete frame.
func (JSON) Frame(m *Message) []byte { return jsonFrame(m, "") }

// Decode reads a frame and hands on its message, which is reused after hand returns. An
// object of a topic that clients have no business with, or that is no message, is handed
// on as a PARSER.ERROR, which every state of a connection has an answer to. An error is
// for a frame that no client sends by mistake: see DecodeJSON.
func (JSON) Decode(frame []byte, hand func(*Message)) error {
	m := spare.Get().(*Message)
	defer m.release()
	switch err := DecodeJSON(frame, m); {
	case errors.Is(err, ErrTopic), errors.Is(err, ErrType):
		m.Topic, m.Action = TopicParser, ParserError
	case err != nil:
		return err
	}
	hand(m)
	return nil
}

// DecodeJSON reads a frame of the JSON dialect (spec 03), one object, into m. It
// forgets what m held before, except the room in m.Names. m.Data is the JSON text
// of the payload, which clients send as text in data, as value in parsedData, or
// both: as in the peer data counts, unless there is none or it is empty. But here
// nobody ever sees the other one. Unknown fields are skipped, null is none, and of
// a field that comes twice the last one counts. Strings of m are views into frame,
// which must not change any more, or new. The error is one of ErrMalformed (no JSON,
// nested too deep, or null), ErrTopic and ErrType, and m is then empty.
func DecodeJSON(frame []byte, m *Message) error {
	m.reset()
	err := m.decodeJSON(unsafe.String(unsafe.SliceData(frame), len(frame)))
	if err != nil {
		m.reset()
	}
	return err
}

func (m *Message) decodeJSON(s string) error {
	if !jsonpath.ValidJSON(s) { // checks UTF-8 too; what follows relies on it
		return ErrMalformed
	}
	switch jsonpath.Kind(s) {
	case jsonpath.Object:
	case jsonpath.Array:
		return fmt.Errorf("%w: a list is no message", ErrType)
	default:
		if strings.Trim(s, blanks) == "null" {
			return ErrMalformed
		}
		return fmt.Errorf("%w: a value is no message", ErrType)
	}
	var topic int32
	var parsed string
	for w := (walk{s: s, i: strings.IndexByte(s, '{') + 1}); w.next('}'); {
		key := w.value()
		w.skip() // to the value, over the colon
		value := w.value()
		if value == "null" && key != `"parsedData"` {
			continue
		}
		var err error
		switch name, _ := jsonpath.Unquote(key); name {
		case "topic":
			topic, err = number32(value)
		case "parsedData":
			parsed = value
		default:
			err = m.setJSON(name, value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if topic <= 0 || int(topic) >= codecTopics {
		return fmt.Errorf("%w: %d", ErrTopic, topic)
	}
	m.Topic = Topic(topic)
	if m.Data == "" {
		m.Has &^= HasData
		m.payload(parsed)
	}
	return nil
}

// The fields of a message by the type of their values.
var (
	jsonTexts = map[string]field{
		"name": fieldName, "data": fieldData, "correlationId": fieldCorrelationID, "subscription": fieldSubscription, "path": fieldPath,
		"requestorName": fieldRequestorName, "requestorData": fieldRequestorData,
		"url": fieldURL, "protocolVersion": fieldProtocolVersion, "sdkVersion": fieldSDKVersion, "sdkType": fieldSDKType,
	}
	jsonNumbers = map[string]field{"action": fieldAction, "version": fieldVersion, "originalAction": fieldOriginalAction}
	jsonFlags   = map[string]field{"isAck": fieldIsAck, "isError": fieldIsError, "isWriteAck": fieldIsWriteAck}
)

// setJSON stores the value of a field that is not null.
func (m *Message) setJSON(name, value string) error {
	if f := jsonTexts[name]; f != fieldNone {
		if value[0] != '"' {
			return ErrType
		}
		text, ok := jsonpath.Unquote(value)
		if !ok {
			return ErrMalformed
		}
		m.setText(f, text)
		return nil
	}
	if f := jsonNumbers[name]; f != fieldNone {
		n, err := number32(value)
		m.setNumber(f, uint64(n))
		return err
	}
	if f := jsonFlags[name]; f != fieldNone {
		if value != "true" && value != "false" {
			return ErrType
		}
		if value == "true" {
			m.setNumber(f, 1)
		} else {
			m.setNumber(f, 0)
		}
		return nil
	}
	if name != "names" {
		return nil
	}
	if value[0] != '[' {
		return ErrType
	}
	m.Names = m.Names[:0]
	for w := (walk{s: value, i: 1}); w.next(']'); {
		text, ok := jsonpath.Unquote(w.value())
		if !ok {
			return ErrType
		}
		m.Names = append(m.Names, text)
	}
	return nil
}

// number32 reads a whole number.
func number32(s string) (int32, error) {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return int32(n), nil
	}
	f, err := strconv.ParseFloat(s, 64) // 1e3, 1.0
	if err != nil || f != math.Trunc(f) || f < math.MinInt32 || f > math.MaxInt32 {
		return 0, ErrType
	}
	return int32(f), nil
}

// blanks are the characters that may stand between the values of JSON text.
const blanks = " \t\r\n"

// walk goes through the members of an object or an array of valid JSON text.
type walk struct {
	s string
	i int
}

// next says whether another value comes before the closing bracket.
func (w *walk) next(end byte) bool {
	w.blank()
	if w.s[w.i] == ',' {
		w.skip()
	}
	return w.s[w.i] != end
}

// skip steps over a comma or a colon.
func (w *walk) skip() {
	w.blank()
	w.i++
	w.blank()
}

func (w *walk) blank() {
	for strings.IndexByte(blanks, w.s[w.i]) >= 0 {
		w.i++
	}
}

// value is the text of the value that begins here, over which it steps. It does not
// recurse.
func (w *walk) value() string {
	start, open := w.i, 0
	for {
		switch w.s[w.i] {
		case '"':
			w.text()
		case '{', '[':
			open++
			w.i++
			continue
		case '}', ']':
			open--
			w.i++
		default:
			w.i++
			if open == 0 {
				for strings.IndexByte(",:]}"+blanks, w.s[w.i]) < 0 {
					w.i++
				}
			}
		}
		if open == 0 {
			return w.s[start:w.i]
		}
	}
}

// text steps over a string.
func (w *walk) text() {
	for w.i++; w.s[w.i] != '"'; w.i++ {
		if w.s[w.i] == '\\' {
			w.i++
		}
	}
	w.i++
}

// jsonFrame is m as a complete frame of the JSON dialect (spec 03 §4).
func jsonFrame(m *Message, result string) []byte {
	size := 128 + len(m.Name) + len(m.CorrelationID) + len(m.Data) + len(result) + len(m.Path) + len(m.Subscription)
	w := object{b: make([]byte, headroom, headroom+size)}
	w.b = append(w.b, '{')
	w.message(m, result)
	w.b = append(w.b, '}')
	return finish(w.b, opText)
}

// object is a JSON object, written a member at a time.
type object struct{ b []byte }

func (w *object) key(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), name...), '"', ':')
}

func (w *object) number(name string, n int32) {
	w.key(name)
	w.b = strconv.AppendInt(w.b, int64(n), 10)
}

func (w *object) flag(name string, on bool) {
	if on {
		w.key(name)
		w.b = append(w.b, "true"...)
	}
}

func (w *object) text(name, s string, present bool) {
	if present {
		w.key(name)
		w.b = appendQuoted(w.b, s)
	}
}

func (w *object) names(list []string) {
	w.key("names")
	w.b = append(w.b, '[')
	for i, name := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = appendQuoted(w.b, name)
	}
	w.b = append(w.b, ']')
}

func (w *object) versions(list []NameVersion) {
	w.key("versions")
	w.b = append(w.b, '{')
	for i, v := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = strconv.AppendInt(append(appendQuoted(w.b, v.Name), ':'), int64(v.Version), 10)
	}
	w.b = append(w.b, '}')
}

// message writes what the binary dialect writes, by the same rules of presence.
func (w *object) message(m *Message, result string) {
	action, data, path := m.Action, m.Data, m.writes(m.Path, HasPath)
	if m.Topic == TopicRecord && action == RecordPatchMulti {
		action, data, path = RecordUpdate, result, false
	}
	w.number("topic", int32(m.Topic))
	w.number("action", int32(action))
	w.text("correlationId", m.CorrelationID, m.writes(m.CorrelationID, HasCorrelationID))
	w.flag("isError", m.IsError)
	w.flag("isAck", m.IsAck)
	w.flag("isWriteAck", m.IsWriteAck)
	w.text("name", m.Name, m.writes(m.Name, HasName))
	if len(m.Names) > 0 || m.Topic == TopicPresence && action == PresenceQueryAllResponse {
		w.names(m.Names)
	}
	w.text("subscription", m.Subscription, m.writes(m.Subscription, HasSubscription))
	if m.writesOriginalAction() {
		w.number("originalAction", int32(m.OriginalAction))
	}
	w.text("path", m.Path, path)
	if m.Has&HasVersion != 0 {
		w.number("version", m.Version)
	}
	if m.Has&HasVersions != 0 || len(m.Versions) > 0 {
		w.versions(m.Versions)
	}
	w.text("requestorName", m.RequestorName, m.writes(m.RequestorName, HasRequestorName))
	w.text("requestorData", m.RequestorData, m.writes(m.RequestorData, HasRequestorData))
	w.text("url", m.URL, m.URL != "")
	w.text("protocolVersion", m.ProtocolVersion, m.ProtocolVersion != "")
	w.text("sdkVersion", m.SDKVersion, m.SDKVersion != "")
	w.text("sdkType", m.SDKType, m.SDKType != "")
	// An error may repeat what its client sent, and say of it that it is no JSON.
	if data != "" && (action < firstError || jsonpath.ValidJSON(data)) {
		w.key("parsedData")
		w.b = append(w.b, data...)
	}
}
