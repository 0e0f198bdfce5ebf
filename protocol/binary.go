package protocol

// Decode reads one binary frame (spec 01 §2) into m.
func Decode(frame []byte, m *Message) error { panic("not yet") }

// Append appends m as one length-delimited binary envelope.
func Append(dst []byte, m *Message) []byte { panic("not yet") }

// EncodeFrame is m in form f as one complete WebSocket frame.
func EncodeFrame(f Form, m *Message, result string) []byte { panic("not yet") }
