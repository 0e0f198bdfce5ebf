package protocol

import "sync/atomic"

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
	forms
)

// Outbound is one message on its way to any number of clients. It is encoded
// at most once a form, at the first client that needs it. It must not be
// changed after the first call of Frame; Frame may be called from anywhere.
type Outbound struct {
	Message
	// Result is the whole record after a PATCH_MULTI, as JSON text, for forms
	// that cannot say the change itself.
	Result string

	frames [forms]atomic.Pointer[[]byte]
}

// Frame is the message as one complete server-to-client WebSocket frame
// (header included: server frames are not masked, so receivers can share
// them). The caller must not change the bytes.
func (o *Outbound) Frame(f Form) []byte {
	if p := o.frames[f].Load(); p != nil {
		return *p
	}
	b := EncodeFrame(f, &o.Message, o.Result)
	o.frames[f].Store(&b) // two encoders may race: both results are equal
	return b
}
