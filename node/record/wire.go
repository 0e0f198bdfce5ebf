package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"hadal/protocol"
)

// This file is the format of what nodes say to each other about records. A payload
// is the version of the format, one byte, and frames; a frame is its kind, one byte,
// the length of its body, and the body. Numbers are varints (signed ones zigzag),
// texts their length and bytes. A frame of an unknown kind is skipped; a kind's
// fields never change, a later version adds kinds or raises wireVersion.

// wireVersion is the version of the format.
const wireVersion = 1

// frameKind says what a frame is.
type frameKind uint8

// The kinds. Their numbers are part of the format.
const (
	// From the node of a client to the owner's.
	frameUser    frameKind = 1 // a client that will ask for something
	frameClosed  frameKind = 2 // it has gone
	frameRequest frameKind = 3
	frameForget  frameKind = 4  // nobody here is interested in the name any more
	frameResync  frameKind = 5  // what is known of some names
	frameScan    frameKind = 6  // for the names, or the records, of a partition
	frameMore    frameKind = 7  // the next page of a scan
	frameStop    frameKind = 8  // no more of a scan
	frameTaken   frameKind = 9  // bytes of the owner's that have been worked off
	frameWhole   frameKind = 11 // a client, told just now, wants whole records
	frameLight   frameKind = 12 // nobody here needs whole records of the name any more
	frameHeads   frameKind = 13 // with what the names begin that filters here are for

	// From the owner's node to that of a client.
	frameAnswer       frameKind = 32 // a message for the client
	frameSubscribed   frameKind = 33 // add the client; the state that was at that moment
	frameUnsubscribed frameKind = 34 // remove the client
	frameDone         frameKind = 35 // the request is over
	frameMoved        frameKind = 36 // the request was not begun: ask who owns the partition
	frameRefused      frameKind = 37 // the request was not begun, and must not come again
	frameReply        frameKind = 38 // to the operator, or with a snapshot
	frameUpdate       frameKind = 39 // for all subscribers
	frameDeleted      frameKind = 40 // likewise
	frameState        frameKind = 41 // of a name whose resync found a difference
	framePage         frameKind = 42 // of a scan
)

var errWire = errors.New("malformed message from a peer")

// frame is any frame: which fields are meant is up to the kind.
type frame struct {
	kind      frameKind
	partition int
	id        uint64 // of the request, or the scan
	epoch     uint64
	client    uint64 // its id on its own node; in updates the one that is left out, 0 for none

	// Of frameUser.
	user, serverData, clientData string

	// Of frameRequest.
	request kind

	// Of a state.
	known knowledge

	// Of frameReply.
	failure uint64 // index in failures plus 1, or 0
	text    string

	// Of frameScan and framePage.
	data, last bool
	prefix     string

	bytes uint64 // of frameTaken

	names   []string    // in frameHeads, how they begin
	knows   []knowledge // of names, in frameResync; of records, in framePage
	result  string
	message protocol.Message // without Topic
}

// knowledge is what somebody knows of a record.
type knowledge struct {
	version int32
	exists  bool
	sure    bool   // false when nothing else of it means anything
	whole   bool   // in frameResync: whole records are needed there
	hash    uint64 // of the data
	data    string // in frameReply, frameState and framePage
}

// appendFrame appends f to a payload.
func appendFrame(b []byte, f *frame) []byte {
	if len(b) == 0 {
		b = append(b, wireVersion)
	}
	b = append(b, byte(f.kind))
	// The length is not known yet, and most are short: one byte is left for it, and
	// what is longer is moved.
	at := len(b)
	b = append(b, 0)
	b = f.appendBody(b)
	n := len(b) - at - 1
	if n < 0x80 {
		b[at] = byte(n)
		return b
	}
	var length [binary.MaxVarintLen64]byte
	size := binary.PutUvarint(length[:], uint64(n))
	b = append(b, length[:size-1]...)
	copy(b[at+size:], b[at+1:at+1+n])
	copy(b[at:], length[:size])
	return b
}

func (f *frame) appendBody(b []byte) []byte {
	switch f.kind {
	case frameUser:
		b = binary.AppendUvarint(b, f.client)
		b = appendText(b, f.user)
		b = appendText(b, f.serverData)
		return appendText(b, f.clientData)
	case frameClosed, frameWhole:
		return binary.AppendUvarint(b, f.client)
	case frameTaken:
		return binary.AppendUvarint(b, f.bytes)
	case frameHeads:
		b = binary.AppendUvarint(b, uint64(len(f.names)))
		for _, name := range f.names {
			b = appendText(b, name)
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(f.partition))
	b = binary.AppendUvarint(b, f.id)
	switch f.kind {
	case frameRequest:
		b = binary.AppendUvarint(b, f.epoch)
		b = binary.AppendUvarint(b, f.client)
		b = append(b, byte(f.request))
		b = appendMessage(b, &f.message)
	case frameForget, frameLight:
		b = binary.AppendUvarint(b, f.epoch)
		b = appendText(b, f.message.Name)
	case frameResync:
		b = binary.AppendUvarint(b, f.epoch)
		b = binary.AppendUvarint(b, uint64(len(f.names)))
		for i, name := range f.names {
			b = appendText(b, name)
			b = appendKnowledge(b, &f.knows[i], false)
		}
	case frameScan:
		b = binary.AppendUvarint(b, f.epoch)
		b = append(b, flags(f.data))
		b = appendText(b, f.prefix)
	case frameAnswer:
		b = appendMessage(b, &f.message)
	case frameSubscribed:
		b = appendKnowledge(b, &f.known, false)
	case frameMoved:
		b = binary.AppendUvarint(b, f.epoch)
	case frameReply:
		b = appendKnowledge(b, &f.known, true)
		b = binary.AppendUvarint(b, f.failure)
		b = appendText(b, f.text)
	case frameUpdate:
		b = binary.AppendUvarint(b, f.epoch)
		b = binary.AppendUvarint(b, f.client)
		b = binary.AppendUvarint(b, f.known.hash)
		b = appendMessage(b, &f.message)
		b = appendText(b, f.result)
	case frameDeleted:
		b = binary.AppendUvarint(b, f.epoch)
		b = binary.AppendUvarint(b, f.client)
		b = appendText(b, f.message.Name)
	case frameState:
		b = binary.AppendUvarint(b, f.epoch)
		b = appendText(b, f.message.Name)
		b = appendKnowledge(b, &f.known, true)
	case framePage:
		b = append(b, flags(f.data, f.last))
		b = appendText(b, f.text)
		b = binary.AppendUvarint(b, uint64(len(f.names)))
		for i, name := range f.names {
			b = appendText(b, name)
			if f.data {
				b = appendKnowledge(b, &f.knows[i], true)
			}
		}
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func flags(set ...bool) byte {
	var b byte
	for i, on := range set {
		if on {
			b |= 1 << i
		}
	}
	return b
}

func appendKnowledge(b []byte, k *knowledge, data bool) []byte {
	b = append(b, flags(k.exists, k.sure, k.whole))
	b = binary.AppendVarint(b, int64(k.version))
	if data {
		return appendText(b, k.data)
	}
	return binary.LittleEndian.AppendUint64(b, k.hash)
}

// appendMessage appends the fields that messages about records have.
func appendMessage(b []byte, m *protocol.Message) []byte {
	b = binary.AppendVarint(b, int64(m.Action))
	b = binary.AppendUvarint(b, uint64(m.Has))
	b = append(b, flags(m.IsAck, m.IsError, m.IsWriteAck))
	b = binary.AppendVarint(b, int64(m.Version))
	b = binary.AppendVarint(b, int64(m.OriginalAction))
	b = binary.AppendUvarint(b, m.Judged)
	for _, s := range []string{m.CorrelationID, m.Name, m.Data, m.Path} {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Names)))
	for _, s := range m.Names {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Versions)))
	for _, v := range m.Versions {
		b = appendText(b, v.Name)
		b = binary.AppendVarint(b, int64(v.Version))
	}
	return b
}

// eachFrame calls fn for the frames of a payload, in order. Their texts are views of
// the payload.
func eachFrame(payload string, fn func(*frame) error) error {
	if payload == "" || payload[0] != wireVersion {
		return fmt.Errorf("%w: not of version %d", errWire, wireVersion)
	}
	for r := (reader{rest: payload[1:]}); r.rest != ""; {
		kind := frameKind(r.byte())
		body := r.text()
		if r.bad {
			return fmt.Errorf("%w: a frame is cut off", errWire)
		}
		f := frame{kind: kind}
		known, ok := f.parse(body)
		if !ok {
			return fmt.Errorf("%w: a frame of kind %d", errWire, kind)
		}
		if !known {
			continue
		}
		if err := fn(&f); err != nil {
			return err
		}
	}
	return nil
}

// parse reads a body. It is not ok when the body is not as the kind says.
func (f *frame) parse(body string) (known, ok bool) {
	r := reader{rest: body}
	switch f.kind {
	case frameUser:
		f.client, f.user, f.serverData, f.clientData = r.number(), r.text(), r.text(), r.text()
		return true, r.whole() && f.client != 0
	case frameClosed, frameWhole:
		f.client = r.number()
		return true, r.whole()
	case frameHeads:
		for range r.count() {
			f.names = append(f.names, r.text())
		}
		return true, r.whole()
	case frameTaken:
		f.bytes = r.number()
		return true, r.whole()
	case frameRequest, frameForget, frameLight, frameResync, frameScan, frameMore, frameStop,
		frameAnswer, frameSubscribed, frameUnsubscribed, frameDone, frameMoved, frameRefused, frameReply, frameUpdate, frameDeleted, frameState, framePage:
	default:
		return false, true
	}
	f.partition, f.id = int(min(r.number(), 1<<31-1)), r.number()
	switch f.kind {
	case frameRequest:
		f.epoch, f.client, f.request = r.number(), r.number(), kind(r.byte())
		r.message(&f.message)
	case frameForget, frameLight:
		f.epoch, f.message.Name = r.number(), r.text()
	case frameResync:
		f.epoch = r.number()
		for range r.count() {
			f.names, f.knows = append(f.names, r.text()), append(f.knows, r.knowledge(false))
		}
	case frameScan:
		f.epoch = r.number()
		f.data = r.byte()&1 != 0
		f.prefix = r.text()
	case frameAnswer:
		r.message(&f.message)
	case frameSubscribed:
		f.known = r.knowledge(false)
	case frameMoved:
		f.epoch = r.number()
	case frameReply:
		f.known, f.failure, f.text = r.knowledge(true), r.number(), r.text()
	case frameUpdate:
		f.epoch, f.client, f.known.hash = r.number(), r.number(), r.number()
		r.message(&f.message)
		f.result = r.text()
	case frameDeleted:
		f.epoch, f.client, f.message.Name = r.number(), r.number(), r.text()
	case frameState:
		f.epoch, f.message.Name, f.known = r.number(), r.text(), r.knowledge(true)
	case framePage:
		b := r.byte()
		f.data, f.last = b&1 != 0, b&2 != 0
		f.text = r.text()
		for range r.count() {
			f.names = append(f.names, r.text())
			if f.data {
				f.knows = append(f.knows, r.knowledge(true))
			}
		}
	}
	return true, r.whole()
}

// reader reads a body from its beginning. After something that is not there it is
// bad, and reads nothing.
type reader struct {
	rest string
	bad  bool
}

func (r *reader) whole() bool { return !r.bad && r.rest == "" }

func (r *reader) fail() {
	r.rest, r.bad = "", true
}

func (r *reader) byte() byte {
	if r.rest == "" {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) number() uint64 {
	var x uint64
	for i := range binary.MaxVarintLen64 {
		b := r.byte()
		if i == binary.MaxVarintLen64-1 && b > 1 {
			break
		}
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return x
		}
	}
	r.fail()
	return 0
}

func (r *reader) signed() int32 {
	u := r.number()
	x := int64(u>>1) ^ -int64(u&1)
	if int64(int32(x)) != x {
		r.fail()
		return 0
	}
	return int32(x)
}

func (r *reader) text() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

// count reads the number of things that follow, of which each has a byte at least.
func (r *reader) count() int {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) knowledge(data bool) knowledge {
	b := r.byte()
	k := knowledge{exists: b&1 != 0, sure: b&2 != 0, whole: b&4 != 0, version: r.signed()}
	if data {
		k.data = r.text()
		return k
	}
	for i := range 8 {
		k.hash |= uint64(r.byte()) << (8 * i)
	}
	return k
}

func (r *reader) message(m *protocol.Message) {
	m.Topic = protocol.TopicRecord
	m.Action = protocol.Action(r.signed())
	m.Has = protocol.Fields(r.number())
	b := r.byte()
	m.IsAck, m.IsError, m.IsWriteAck = b&1 != 0, b&2 != 0, b&4 != 0
	m.Version, m.OriginalAction, m.Judged = r.signed(), protocol.Action(r.signed()), r.number()
	m.CorrelationID, m.Name, m.Data, m.Path = r.text(), r.text(), r.text(), r.text()
	for range r.count() {
		m.Names = append(m.Names, r.text())
	}
	for range r.count() {
		m.Versions = append(m.Versions, protocol.NameVersion{Name: r.text(), Version: r.signed()})
	}
}
