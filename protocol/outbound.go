package protocol

import (
	"encoding/binary"
	"sync/atomic"
)

// Form is a way an outgoing message is put into bytes: a dialect, or a variant
// of one for older clients. Clients of one form share the bytes of a broadcast.
type Form uint8

// The forms.
const (
	// FormBinary is the protobuf dialect for clients that know every action.
	FormBinary Form = iota
	// FormBinary70 is FormBinary for clients before 7.1, which do not know
	// PATCH_MULTI: they get the whole record as an UPDATE (spec 08 §3.3).
	FormBinary70
	// FormText is the dialect of clients 2.x and 3.x. It has no words for some
	// messages: their frames are empty, and nothing is to be sent.
	FormText
	// FormJSON is the dialect of one JSON object a message. PATCH_MULTI is said as
	// in FormBinary70, because clients of this dialect do not say how old they are.
	FormJSON
	// FormMQTT is MQTT 3.1.1: no WebSocket frame but a PUBLISH, of an event or of a whole
	// record. It has no words for all else.
	FormMQTT
	// FormMQTT5 is the same of MQTT 5, whose packets have properties.
	FormMQTT5
	// FormSSE is server-sent events: a piece of the stream, with whole records.
	FormSSE
	forms
)

// WantsWhole says whether all changes of records are said with the whole record.
func (f Form) WantsWhole() bool { return f == FormMQTT || f == FormMQTT5 || f == FormSSE }

// Outbound is one message on its way to any number of clients. It is encoded
// at most once a form, at the first client that needs it. It must not be
// changed after the first call of Frame; Frame may be called from anywhere.
type Outbound struct {
	Message
	// Result is the whole record after a PATCH or PATCH_MULTI, as JSON text, for forms
	// that cannot say the change itself. It is there for clients of such forms; across
	// nodes a PATCH has it only where somebody needs it, or it NeedsWhole.
	Result string

	frames [forms]atomic.Pointer[[]byte]
}

// NeedsWhole says whether m is a change of a record that some form can only say with the
// whole record: several places at once, or a path that is no word of the text dialect.
func (m *Message) NeedsWhole() bool {
	return m.Topic == TopicRecord && (m.Action == RecordPatchMulti || !sayable(m.Path))
}

// Frame is the message as one complete server-to-client WebSocket frame
// (header included: server frames are not masked, so receivers can share
// them), or as what the form has in its place. The caller must not change the
// bytes, of which there are none where the form has no words for the message.
func (o *Outbound) Frame(f Form) []byte {
	if p := o.frames[f].Load(); p != nil {
		return *p
	}
	b := EncodeFrame(f, &o.Message, o.Result)
	o.frames[f].Store(&b) // two encoders may race: both results are equal
	return b
}

// EncodeFrame is m in form f as one complete server-to-client WebSocket frame:
// final, not masked, one message. result is the whole record after a change that NeedsWhole,
// for forms that cannot say the change itself. The caller owns the bytes, of which
// there are none where FormText has no words for m. It panics when f is binary and
// m's topic has no codec.
func EncodeFrame(f Form, m *Message, result string) []byte {
	switch f {
	case FormText:
		return textFrame(m, result)
	case FormJSON:
		return jsonFrame(m, result)
	case FormMQTT, FormMQTT5:
		return mqttFrame(f == FormMQTT5, m, result)
	case FormSSE:
		return sseFrame(m, result)
	}
	return binaryFrame(f, m, result)
}

// The first byte of a frame that is a whole message.
const (
	opText   = 0x81
	opBinary = 0x82
)

// headroom is what a frame's header can take. Who does not know the size of a
// payload leaves it free before it.
const headroom = 10

// finish makes the frame of the payload that stands in b after headroom bytes.
func finish(b []byte, op byte) []byte {
	n := len(b) - headroom
	switch {
	case n < 126:
		b = b[headroom-2:]
		b[1] = byte(n)
	case n < 1<<16:
		b = b[headroom-4:]
		b[1] = 126
		binary.BigEndian.PutUint16(b[2:], uint16(n))
	default:
		b[1] = 127
		binary.BigEndian.PutUint64(b[2:], uint64(n))
	}
	b[0] = op
	return b
}
