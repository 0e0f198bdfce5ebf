package protocol

import (
	"encoding/json"
	"strconv"
	"strings"
)

// ssePing keeps proxies from closing a quiet stream; clients ignore it.
const ssePing = ":\n\n"

// sseFrame is what a client of server-sent events hears of m, or nothing where the
// dialect has no words for it. The type says what it is: event, record, deleted, denied or
// error. The data is one line of JSON. A record has an id, which the client says when it
// comes again.
func sseFrame(m *Message, result string) []byte {
	data := m.Data
	switch {
	case m.Topic == TopicConnection && m.Action == ConnectionPing:
		return []byte(ssePing)
	case m.IsError && (m.Topic == TopicEvent || m.Topic == TopicRecord):
		return sseError(m)
	case m.Topic == TopicEvent && m.Action == EventEmit:
		return sseEvent("event", m, false, m.Data)
	case m.Topic != TopicRecord:
		return nil
	}
	switch m.Action {
	case RecordUpdate:
	case RecordPatch, RecordPatchMulti:
		if data = result; data == "" {
			return nil
		}
	case RecordReadResponse:
		if m.Version < 0 {
			return nil
		}
	case RecordDeleted:
		return sseEvent("deleted", m, false, "")
	default:
		return nil
	}
	return sseEvent("record", m, true, data)
}

// sseEvent is one event of the stream.
func sseEvent(kind string, m *Message, versioned bool, data string) []byte {
	b := make([]byte, 0, 64+2*len(m.Name)+len(data))
	if versioned {
		b = append(b, "id: "...)
		b = append(SSEID(b, m.Name, m.Version), '\n')
	}
	b = append(b, "event: "...)
	b = append(b, kind...)
	b = append(b, "\ndata: {\"name\":"...)
	b = appendASCII(b, m.Name)
	if versioned {
		b = append(b, `,"version":`...)
		b = strconv.AppendInt(b, int64(m.Version), 10)
	}
	if data != "" {
		b = append(b, `,"data":`...)
		b = appendLine(b, data)
	}
	return append(b, "}\n\n"...)
}

// sseError tells of a name that cannot be subscribed to, or not any more.
func sseError(m *Message) []byte {
	if m.Name == "" {
		return nil
	}
	kind := "error-answer" // "error" is the browser's own
	if m.Action == Denied(m.Topic) {
		kind = "denied"
	}
	b := append([]byte("event: "), kind...)
	b = append(b, "\ndata: {\"name\":"...)
	b = appendASCII(b, m.Name)
	b = append(b, `,"topic":`...)
	b = appendASCII(b, strings.ToLower(m.Topic.String()))
	b = append(b, `,"reason":`...)
	b = appendASCII(b, m.Action.Name(m.Topic))
	return append(b, "}\n\n"...)
}

// SSEID appends the id of a version of a record: the version, and the name as JSON text,
// which no header's line ends in.
func SSEID(b []byte, name string, version int32) []byte {
	b = append(strconv.AppendInt(b, int64(version), 10), ' ')
	return appendASCII(b, name)
}

// ParseSSEID is the reverse of SSEID.
func ParseSSEID(id string) (name string, version int32, ok bool) {
	number, text, found := strings.Cut(id, " ")
	if !found {
		return "", 0, false
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 || json.Unmarshal([]byte(text), &name) != nil || name == "" {
		return "", 0, false
	}
	return name, int32(n), true
}

// appendASCII appends s as JSON text of ASCII: headers carry nothing else safely.
func appendASCII(b []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string always marshals
	for _, r := range string(text) {
		switch {
		case r < 0x80:
			b = append(b, byte(r))
		case r > 0xffff:
			r -= 0x10000
			b = appendEscape(appendEscape(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
		default:
			b = appendEscape(b, r)
		}
	}
	return b
}

func appendEscape(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// appendLine appends JSON text as one line: between its tokens it may have line ends,
// inside of them never.
func appendLine(b []byte, data string) []byte {
	for {
		i := strings.IndexAny(data, "\r\n")
		if i < 0 {
			return append(b, data...)
		}
		b = append(append(b, data[:i]...), ' ')
		data = data[i+1:]
	}
}
