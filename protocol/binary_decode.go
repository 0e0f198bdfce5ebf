package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxKeptNames bounds the list that a Message keeps for the next frame: one
// bulk subscription must not hold memory for the rest of a connection.
const maxKeptNames = 1024

// Decode reads the first envelope of a binary frame (spec 01 §2) into m, and
// ignores what follows it. It forgets what m held before, except the room in
// m.Names. The strings of m are views into frame, which must not change any
// more. Unknown fields are skipped, unknown actions kept as numbers, and of a
// field that comes twice the last one counts (Names and Versions collect).
// MONITORING, CLUSTER and LOCK are read as topic and action only, so that they
// can be answered. The error is one of ErrTruncated, ErrMalformed, ErrTopic and
// ErrUTF8, and m is then empty.
func Decode(frame []byte, m *Message) error {
	m.reset()
	err := m.decode(unsafe.String(unsafe.SliceData(frame), len(frame)))
	if err != nil {
		m.reset()
	}
	return err
}

// reset empties m but keeps the room of Names, without the old names in it.
func (m *Message) reset() {
	names := m.Names
	if cap(names) > maxKeptNames {
		names = nil
	}
	clear(names)
	*m = Message{Names: names[:0]}
}

func (m *Message) decode(s string) error {
	envelope, _, err := bytesAt(s, 0)
	if err != nil {
		return err
	}
	var topic int32
	var body string
	for i := 0; i < len(envelope); {
		switch envelope[i] {
		case tagTopic:
			v, next := varintAt(envelope, i+1)
			if next < 0 {
				return varintError(next)
			}
			topic, i = int32(v), next
		case tagMessage:
			body, i, err = bytesAt(envelope, i+1)
			if err != nil {
				return err
			}
		default:
			if i, err = skip(envelope, i); err != nil {
				return err
			}
		}
	}
	if topic <= 0 || int(topic) >= codecTopics {
		return fmt.Errorf("%w: %d", ErrTopic, topic)
	}
	m.Topic = Topic(topic)
	return m.decodeBody(body)
}

// decodeBody reads the topic's own message.
func (m *Message) decodeBody(s string) error {
	fields := &fieldOf[m.Topic]
	for i := 0; i < len(s); {
		f := fieldNone
		if s[i] < 0x80 {
			f = fields[s[i]]
		}
		switch {
		case f == fieldNone:
			next, err := skip(s, i)
			if err != nil {
				return err
			}
			i = next
		case f < fieldVersions:
			v, next := varintAt(s, i+1)
			if next < 0 {
				return varintError(next)
			}
			m.setNumber(f, v)
			i = next
		case f == fieldVersions:
			entry, next, err := bytesAt(s, i+1)
			if err != nil {
				return err
			}
			v, err := decodeEntry(entry)
			if err != nil {
				return err
			}
			m.Versions = append(m.Versions, v)
			m.Has |= HasVersions
			i = next
		default:
			n, next := varintAt(s, i+1)
			if next < 0 {
				return varintError(next)
			}
			if n > uint64(len(s)-next) {
				return ErrTruncated
			}
			i = next + int(n)
			text := s[next:i]
			if !validText(text) {
				return ErrUTF8
			}
			m.setText(f, text)
		}
	}
	return nil
}

// setNumber stores a varint. Wider values are cut to 32 bits, as protobuf does.
func (m *Message) setNumber(f field, v uint64) {
	switch f {
	case fieldAction:
		m.Action = Action(v)
	case fieldIsError:
		m.IsError = v != 0
	case fieldIsAck:
		m.IsAck = v != 0
	case fieldIsWriteAck:
		m.IsWriteAck = v != 0
	case fieldOriginalAction:
		m.OriginalAction = Action(v)
		m.Has |= HasOriginalAction
	case fieldVersion:
		m.Version = int32(v)
		m.Has |= HasVersion
	}
}

func (m *Message) setText(f field, s string) {
	switch f {
	case fieldData:
		m.Data = s
		m.Has |= HasData
	case fieldCorrelationID:
		m.CorrelationID = s
		m.Has |= HasCorrelationID
	case fieldName:
		m.Name = s
		m.Has |= HasName
	case fieldNames:
		m.Names = append(m.Names, s)
	case fieldSubscription:
		m.Subscription = s
		m.Has |= HasSubscription
	case fieldPath:
		m.Path = s
		m.Has |= HasPath
	case fieldRequestorName:
		m.RequestorName = s
		m.Has |= HasRequestorName
	case fieldRequestorData:
		m.RequestorData = s
		m.Has |= HasRequestorData
	case fieldURL:
		m.URL = s
	case fieldProtocolVersion:
		m.ProtocolVersion = s
	case fieldSDKVersion:
		m.SDKVersion = s
	case fieldSDKType:
		m.SDKType = s
	}
}

// decodeEntry reads one entry of the versions map; what it lacks is zero.
func decodeEntry(s string) (NameVersion, error) {
	var e NameVersion
	for i := 0; i < len(s); {
		switch s[i] {
		case tagEntryName:
			name, next, err := bytesAt(s, i+1)
			if err != nil {
				return e, err
			}
			if !validText(name) {
				return e, ErrUTF8
			}
			e.Name, i = name, next
		case tagEntryVersion:
			v, next := varintAt(s, i+1)
			if next < 0 {
				return e, varintError(next)
			}
			e.Version, i = int32(v), next
		default:
			next, err := skip(s, i)
			if err != nil {
				return e, err
			}
			i = next
		}
	}
	return e, nil
}

// validText is utf8.ValidString with a shorter way for ASCII, which most of our
// texts are.
func validText(s string) bool {
	b := bytesOf(s)
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return utf8.Valid(b)
		}
		b = b[8:]
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return utf8.Valid(b)
		}
	}
	return true
}

// varintAt reads the varint at i and says where the next byte is; that is
// negative, a protowire error code, when there is no varint.
func varintAt(s string, i int) (v uint64, next int) {
	if i < len(s) && s[i] < 0x80 {
		return uint64(s[i]), i + 1
	}
	return longVarintAt(s, i)
}

func longVarintAt(s string, i int) (v uint64, next int) {
	v, n := protowire.ConsumeVarint(bytesOf(s[min(i, len(s)):]))
	if n < 0 {
		return 0, n
	}
	return v, i + n
}

// varintError is the error behind a negative next of varintAt.
func varintError(code int) error {
	if errors.Is(protowire.ParseError(code), io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return ErrMalformed
}

// bytesAt reads the length-delimited bytes whose length is at i.
func bytesAt(s string, i int) (value string, next int, err error) {
	n, i := varintAt(s, i)
	if i < 0 {
		return "", 0, varintError(i)
	}
	if n > uint64(len(s)-i) {
		return "", 0, ErrTruncated
	}
	next = i + int(n)
	return s[i:next], next, nil
}

// skip steps over the unknown field whose tag is at i.
func skip(s string, i int) (next int, err error) {
	_, _, n := protowire.ConsumeField(bytesOf(s[i:]))
	if n < 0 {
		return 0, varintError(n)
	}
	return i + n, nil
}

// bytesOf is s for those who only read it.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
