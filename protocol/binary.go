package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// Why a frame is not a message. Decode returns one of them, alone or wrapped;
// whatever the reason, spec 01 §2 answers all of them alike.
var (
	// ErrTruncated is a frame that ends before what it announced.
	ErrTruncated = errors.New("protocol: truncated frame")
	// ErrMalformed is a frame that is no protobuf at all: a number that does not
	// end, a field without a number, a group that is not closed.
	ErrMalformed = errors.New("protocol: malformed frame")
	// ErrTopic is a topic that has no codec: missing, 0, the peer's own, unknown.
	ErrTopic = errors.New("protocol: topic has no codec")
	// ErrUTF8 is a text that is not UTF-8. The JavaScript peer replaces what it
	// cannot read, so that two different names become one; here a name is one
	// thing everywhere or it is refused.
	ErrUTF8 = errors.New("protocol: text is not UTF-8")
)

// field is one field of Message, whatever its number is under a topic.
type field uint8

const (
	fieldNone field = iota

	// Numbers and flags: varints on the wire.
	fieldAction
	fieldIsError
	fieldIsAck
	fieldIsWriteAck
	fieldOriginalAction
	fieldVersion

	// Everything from here on is length-delimited.
	fieldVersions
	fieldData
	fieldCorrelationID
	fieldName
	fieldNames
	fieldSubscription
	fieldPath
	fieldRequestorName
	fieldRequestorData
	fieldURL
	fieldProtocolVersion
	fieldSDKVersion
	fieldSDKType

	fieldCount
)

// numbers says which field has which number under a topic (spec 01 §5). What it
// leaves out is skipped when read and never written: originalTOPIC, which no
// peer fills, and pattern, which no peer uses. The three topics of only an
// action have a codec, but nobody who would handle them (spec 01 §4).
var numbers = map[Topic]map[byte]field{
	TopicParser: {
		1: fieldAction, 2: fieldData, 9: fieldOriginalAction,
	},
	TopicConnection: {
		1: fieldAction, 2: fieldData, 3: fieldIsError, 4: fieldIsAck,
		5: fieldURL, 6: fieldProtocolVersion, 7: fieldSDKVersion, 8: fieldSDKType,
	},
	TopicAuth: {
		1: fieldAction, 2: fieldData, 3: fieldIsError, 4: fieldIsAck,
	},
	TopicEvent: {
		1: fieldAction, 2: fieldData, 3: fieldCorrelationID, 4: fieldIsError, 5: fieldIsAck,
		6: fieldName, 7: fieldNames, 8: fieldSubscription, 11: fieldOriginalAction,
	},
	TopicRecord: {
		1: fieldAction, 2: fieldData, 3: fieldCorrelationID, 4: fieldIsError, 5: fieldIsAck,
		6: fieldName, 7: fieldNames, 9: fieldSubscription, 10: fieldOriginalAction,
		11: fieldIsWriteAck, 12: fieldPath, 13: fieldVersion, 14: fieldVersions,
	},
	TopicRPC: {
		1: fieldAction, 2: fieldData, 3: fieldCorrelationID, 4: fieldIsError, 5: fieldIsAck,
		6: fieldNames, 7: fieldName, 9: fieldOriginalAction,
		10: fieldRequestorName, 11: fieldRequestorData,
	},
	TopicPresence: {
		1: fieldAction, 3: fieldOriginalAction, 4: fieldData, 5: fieldCorrelationID,
		6: fieldIsError, 7: fieldIsAck, 8: fieldName, 9: fieldNames,
	},
	TopicMonitoring: {1: fieldAction},
	TopicCluster:    {1: fieldAction},
	TopicLock:       {1: fieldAction},
}

const codecTopics = int(TopicLock) + 1

// fieldOf is numbers for reading: the field behind a tag byte (number and wire
// type in one), or none. A known number with a foreign wire type is thereby an
// unknown field, as protobuf wants it. All our tags fit in one byte.
var fieldOf [codecTopics][128]field

// tagOf is numbers for writing: the tag byte of a field, 0 where the topic has
// no such field.
var tagOf [codecTopics][fieldCount]byte

func init() {
	for topic, fields := range numbers {
		for n, f := range fields {
			wireType := protowire.VarintType
			if f >= fieldVersions {
				wireType = protowire.BytesType
			}
			tag := byte(protowire.EncodeTag(protowire.Number(n), wireType))
			fieldOf[topic][tag] = f
			tagOf[topic][f] = tag
		}
	}
}

// The tags of the envelope (spec 01 §2) and of an entry of versions.
const (
	tagTopic   = 2<<3 | byte(protowire.VarintType)
	tagMessage = 3<<3 | byte(protowire.BytesType)

	tagEntryName    = 1<<3 | byte(protowire.BytesType)
	tagEntryVersion = 2<<3 | byte(protowire.VarintType)
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
			text, next, err := bytesAt(s, i+1)
			if err != nil {
				return err
			}
			if !utf8.ValidString(text) {
				return ErrUTF8
			}
			m.setText(f, text)
			i = next
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
			if !utf8.ValidString(name) {
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
	if errors.Is(protowire.ParseError(code), protowire.ParseError(truncatedCode)) {
		return ErrTruncated
	}
	return ErrMalformed
}

// truncatedCode is what protowire says of input that ends too early.
var truncatedCode = func() int { _, n := protowire.ConsumeVarint(nil); return n }()

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

// writes says whether a text field goes on the wire: not empty, or named.
func (m *Message) writes(text string, has Fields) bool {
	return len(text) != 0 || m.Has&has != 0
}

func (m *Message) writesOriginalAction() bool {
	return m.OriginalAction != 0 || m.Has&HasOriginalAction != 0
}

// tags returns the tag bytes of m's topic. Asking for a topic without a codec
// is our own bug: nothing that came over a wire has one.
func (m *Message) tags() *[fieldCount]byte {
	if int(m.Topic) >= codecTopics || m.Topic == TopicUnknown {
		panic(fmt.Sprintf("protocol: encode topic %d, which has no codec", m.Topic))
	}
	return &tagOf[m.Topic]
}

// Size is the number of bytes that Append adds for m.
func Size(m *Message) int {
	n := envelopeSize(m.bodySize(m.tags()))
	return protowire.SizeVarint(uint64(n)) + n
}

// envelopeSize is the size of an envelope without its length, by that of its
// message. Topics fit in one byte.
func envelopeSize(body int) int {
	return 3 + protowire.SizeVarint(uint64(body)) + body
}

// Append appends m as one length-delimited envelope (spec 01 §2), fields in the
// order of their numbers, present as the package comment says. Fields that m's
// topic does not have are left out. It panics when m's topic has no codec.
func Append(dst []byte, m *Message) []byte {
	tags := m.tags()
	body := m.bodySize(tags)
	n := envelopeSize(body)
	dst = slices.Grow(dst, protowire.SizeVarint(uint64(n))+n)
	return m.appendEnvelope(dst, tags, n, body)
}

// EncodeFrame is m in form f as one complete server-to-client WebSocket frame:
// binary, final, not masked, one envelope. result is the whole record after a
// PATCH_MULTI, for forms that cannot say the change itself. The caller owns the
// bytes. It panics when m's topic has no codec.
func EncodeFrame(f Form, m *Message, result string) []byte {
	if f == FormBinary70 && m.Topic == TopicRecord && m.Action == RecordPatchMulti {
		whole := *m
		whole.Action, whole.Data = RecordUpdate, result
		whole.Path, whole.Has = "", whole.Has&^HasPath // a path would make it a patch
		m = &whole
	}
	tags := m.tags()
	body := m.bodySize(tags)
	n := envelopeSize(body)
	payload := protowire.SizeVarint(uint64(n)) + n
	var frame []byte
	switch {
	case payload < 126:
		frame = make([]byte, 2, 2+payload)
		frame[1] = byte(payload)
	case payload < 1<<16:
		frame = make([]byte, 4, 4+payload)
		frame[1] = 126
		binary.BigEndian.PutUint16(frame[2:], uint16(payload))
	default:
		frame = make([]byte, 10, 10+payload)
		frame[1] = 127
		binary.BigEndian.PutUint64(frame[2:], uint64(payload))
	}
	frame[0] = 0x82 // final fragment, binary
	return m.appendEnvelope(frame, tags, n, body)
}

func (m *Message) appendEnvelope(dst []byte, tags *[fieldCount]byte, n, body int) []byte {
	dst = protowire.AppendVarint(dst, uint64(n))
	dst = append(dst, tagTopic, byte(m.Topic), tagMessage)
	dst = protowire.AppendVarint(dst, uint64(body))
	return m.appendBody(dst, tags)
}

// bodySize and appendBody name the fields in one order that is right for every
// topic, but for two: PRESENCE numbers originalAction before data, and RPC
// numbers names before name. Each must mirror the other.
func (m *Message) bodySize(tags *[fieldCount]byte) int {
	n := 1 + sizeInt32(int32(m.Action))
	if tags[fieldOriginalAction] != 0 && m.writesOriginalAction() {
		n += 1 + sizeInt32(int32(m.OriginalAction))
	}
	if tags[fieldData] != 0 && m.Data != "" {
		n += sizeText(m.Data)
	}
	if tags[fieldCorrelationID] != 0 && m.writes(m.CorrelationID, HasCorrelationID) {
		n += sizeText(m.CorrelationID)
	}
	if tags[fieldIsError] != 0 && m.IsError {
		n += 2
	}
	if tags[fieldIsAck] != 0 && m.IsAck {
		n += 2
	}
	if tags[fieldName] != 0 && m.writes(m.Name, HasName) {
		n += sizeText(m.Name)
	}
	if tags[fieldNames] != 0 {
		for _, name := range m.Names {
			n += sizeText(name)
		}
	}
	if tags[fieldSubscription] != 0 && m.writes(m.Subscription, HasSubscription) {
		n += sizeText(m.Subscription)
	}
	switch m.Topic {
	case TopicRecord:
		if m.IsWriteAck {
			n += 2
		}
		if m.writes(m.Path, HasPath) {
			n += sizeText(m.Path)
		}
		if m.Has&HasVersion != 0 {
			n += 1 + sizeInt32(m.Version)
		}
		for i := range m.Versions {
			entry := sizeEntry(&m.Versions[i])
			n += 1 + protowire.SizeVarint(uint64(entry)) + entry
		}
	case TopicRPC:
		if m.writes(m.RequestorName, HasRequestorName) {
			n += sizeText(m.RequestorName)
		}
		if m.writes(m.RequestorData, HasRequestorData) {
			n += sizeText(m.RequestorData)
		}
	case TopicConnection:
		for _, text := range [...]string{m.URL, m.ProtocolVersion, m.SDKVersion, m.SDKType} {
			if text != "" {
				n += sizeText(text)
			}
		}
	}
	return n
}

func (m *Message) appendBody(dst []byte, tags *[fieldCount]byte) []byte {
	original := tags[fieldOriginalAction] != 0 && m.writesOriginalAction()

	dst = appendInt32(dst, tags[fieldAction], int32(m.Action))
	if original && m.Topic == TopicPresence {
		dst = appendInt32(dst, tags[fieldOriginalAction], int32(m.OriginalAction))
	}
	if tag := tags[fieldData]; tag != 0 && m.Data != "" {
		dst = appendText(dst, tag, m.Data)
	}
	if tag := tags[fieldCorrelationID]; tag != 0 && m.writes(m.CorrelationID, HasCorrelationID) {
		dst = appendText(dst, tag, m.CorrelationID)
	}
	if tag := tags[fieldIsError]; tag != 0 && m.IsError {
		dst = append(dst, tag, 1)
	}
	if tag := tags[fieldIsAck]; tag != 0 && m.IsAck {
		dst = append(dst, tag, 1)
	}
	if m.Topic == TopicRPC {
		dst = appendTexts(dst, tags[fieldNames], m.Names)
	}
	if tag := tags[fieldName]; tag != 0 && m.writes(m.Name, HasName) {
		dst = appendText(dst, tag, m.Name)
	}
	if tag := tags[fieldNames]; tag != 0 && m.Topic != TopicRPC {
		dst = appendTexts(dst, tag, m.Names)
	}
	if tag := tags[fieldSubscription]; tag != 0 && m.writes(m.Subscription, HasSubscription) {
		dst = appendText(dst, tag, m.Subscription)
	}
	if original && m.Topic != TopicPresence {
		dst = appendInt32(dst, tags[fieldOriginalAction], int32(m.OriginalAction))
	}
	switch m.Topic {
	case TopicRecord:
		dst = m.appendRecord(dst, tags)
	case TopicRPC:
		if m.writes(m.RequestorName, HasRequestorName) {
			dst = appendText(dst, tags[fieldRequestorName], m.RequestorName)
		}
		if m.writes(m.RequestorData, HasRequestorData) {
			dst = appendText(dst, tags[fieldRequestorData], m.RequestorData)
		}
	case TopicConnection:
		dst = m.appendChallenge(dst, tags)
	}
	return dst
}

// appendRecord appends what only RECORD has.
func (m *Message) appendRecord(dst []byte, tags *[fieldCount]byte) []byte {
	if m.IsWriteAck {
		dst = append(dst, tags[fieldIsWriteAck], 1)
	}
	if m.writes(m.Path, HasPath) {
		dst = appendText(dst, tags[fieldPath], m.Path)
	}
	if m.Has&HasVersion != 0 {
		dst = appendInt32(dst, tags[fieldVersion], m.Version)
	}
	for i := range m.Versions {
		e := &m.Versions[i]
		dst = append(dst, tags[fieldVersions])
		dst = protowire.AppendVarint(dst, uint64(sizeEntry(e)))
		dst = appendText(dst, tagEntryName, e.Name)
		dst = appendInt32(dst, tagEntryVersion, e.Version)
	}
	return dst
}

// appendChallenge appends what only CONNECTION has.
func (m *Message) appendChallenge(dst []byte, tags *[fieldCount]byte) []byte {
	if m.URL != "" {
		dst = appendText(dst, tags[fieldURL], m.URL)
	}
	if m.ProtocolVersion != "" {
		dst = appendText(dst, tags[fieldProtocolVersion], m.ProtocolVersion)
	}
	if m.SDKVersion != "" {
		dst = appendText(dst, tags[fieldSDKVersion], m.SDKVersion)
	}
	if m.SDKType != "" {
		dst = appendText(dst, tags[fieldSDKType], m.SDKType)
	}
	return dst
}

// sizeEntry is the size of an entry of versions, without its tag and length. As
// the npm codec does, an entry always has both halves.
func sizeEntry(e *NameVersion) int {
	return sizeText(e.Name) + 1 + sizeInt32(e.Version)
}

// sizeText is the size of a text field with its tag.
func sizeText(s string) int {
	return 1 + protowire.SizeVarint(uint64(len(s))) + len(s)
}

// sizeInt32 is the size of a number without its tag; negative ones are
// sign-extended to 64 bits and take ten bytes.
func sizeInt32(v int32) int { return protowire.SizeVarint(uint64(v)) }

func appendInt32(dst []byte, tag byte, v int32) []byte {
	return protowire.AppendVarint(append(dst, tag), uint64(v))
}

func appendText(dst []byte, tag byte, s string) []byte {
	return append(protowire.AppendVarint(append(dst, tag), uint64(len(s))), s...)
}

func appendTexts(dst []byte, tag byte, texts []string) []byte {
	for _, s := range texts {
		dst = appendText(dst, tag, s)
	}
	return dst
}
