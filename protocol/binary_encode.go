package protocol

import (
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

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

// binaryFrame is m in form f as a complete binary frame of one envelope.
func binaryFrame(f Form, m *Message, result string) []byte {
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
	frame[0] = opBinary
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
