package protocol

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// maxTopic is the longest topic of MQTT in bytes.
const maxTopic = 1<<16 - 1

// mqttFrame is what a client of MQTT hears of m as one PUBLISH of QoS 0, or nothing where
// the dialect has no words for it: an event with its data as JSON text, a record as a
// whole, empty when it was deleted (spec 05 §3). What is said of a record that has just
// been subscribed to is retained, as MQTT has it.
func mqttFrame(v5 bool, m *Message, result string) []byte {
	retain := false
	payload := m.Data
	switch m.Topic {
	case TopicEvent:
		if m.Action != EventEmit {
			return nil
		}
	case TopicRecord:
		switch m.Action {
		case RecordUpdate:
		case RecordPatch, RecordPatchMulti:
			if result == "" {
				return nil
			}
			payload = result
		case RecordReadResponse:
			if m.Version < 0 {
				return nil
			}
			retain = true
		case RecordDeleted:
			payload = ""
		default:
			return nil
		}
	default:
		return nil
	}
	if !validTopic(m.Name) {
		return nil
	}
	return appendPublish(nil, v5, retain, m.Name, payload)
}

// validTopic says whether a name can be the topic of a PUBLISH.
func validTopic(name string) bool {
	return name != "" && len(name) <= maxTopic && utf8.ValidString(name) && !strings.ContainsAny(name, "+#\x00")
}

// appendPublish appends a PUBLISH of QoS 0.
func appendPublish(b []byte, v5, retain bool, topic, payload string) []byte {
	first := byte(0x30)
	if retain {
		first |= 1
	}
	n := 2 + len(topic) + len(payload)
	if v5 {
		n++
	}
	if n > 1<<28-1 {
		return b // more than the packet can say; records and messages are bounded below that
	}
	if b == nil {
		b = make([]byte, 0, n+5)
	}
	b = append(b, first)
	b = binary.AppendUvarint(b, uint64(n)) // the same form: seven bits a byte, the lowest first
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	if v5 {
		b = append(b, 0) // no properties
	}
	return append(b, payload...)
}
