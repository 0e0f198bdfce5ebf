package rpc

import (
	"encoding/binary"
	"errors"

	"hadal/protocol"
)

// A message between nodes is a format byte, a byte that says what it is, the number of
// the call (eight bytes, the low one first), and what follows. The number is chosen by
// the node of the caller, and new each time a node is asked. A text is its length as
// an unsigned varint, and its bytes; data goes to the end, and may be none.
const wireFormat = 1

// To the node that is asked.
const (
	// wireCall puts a call to the node's providers: flags, name, correlation id, the
	// caller's user id and client data as far as the flags say so, data.
	wireCall = 1
	// wireGone says that the caller has left: the call is not put to anybody else.
	wireGone = 2
	// wireCancel says that the node of the caller has given up.
	wireCancel = 3
)

// To the node of the caller. After wireNone, wireResponse and wireError, and after the
// node has sent wireCancel, nothing is said about the number any more.
const (
	// wireAsked says that another provider is asked, since the one before has rejected
	// the call or left.
	wireAsked = 4
	// wireAccepted says that the provider has accepted it.
	wireAccepted = 5
	// wireResponse and wireError are the answer: data.
	wireResponse = 6
	wireError    = 7
	// wireNone says that the node has nobody who has not rejected it.
	wireNone = 8
)

// The flags of wireCall.
const (
	wireHasName = 1
	wireHasData = 2
)

var errWire = errors.New("not a message about a call")

// requestor is what a provider is told of the caller: from its login, never from its
// message (spec 10 §6), and on its own node.
type requestor struct {
	name, data string
	has        protocol.Fields // HasRequestorName, HasRequestorData
}

// wire is a message between nodes.
type wire struct {
	what   byte
	number uint64
	question
	by   requestor
	data string
}

// append appends the message to b.
func (w *wire) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(append(b, wireFormat, w.what), w.number)
	switch w.what {
	case wireCall:
		flags := byte(0)
		if w.by.has&protocol.HasRequestorName != 0 {
			flags |= wireHasName
		}
		if w.by.has&protocol.HasRequestorData != 0 {
			flags |= wireHasData
		}
		b = appendText(appendText(append(b, flags), w.name), w.id)
		if flags&wireHasName != 0 {
			b = appendText(b, w.by.name)
		}
		if flags&wireHasData != 0 {
			b = appendText(b, w.by.data)
		}
		b = append(b, w.data...)
	case wireResponse, wireError:
		b = append(b, w.data...)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseWire is the reverse of append. What it returns shares one copy of b.
func parseWire(b []byte) (w wire, err error) {
	const head = 2 + 8
	if len(b) < head || b[0] != wireFormat {
		return wire{}, errWire
	}
	w.what, w.number = b[1], binary.LittleEndian.Uint64(b[2:])
	b = b[head:]
	switch w.what {
	case wireCall:
		return w, w.parseCall(string(b))
	case wireResponse, wireError:
		w.data = string(b)
		return w, nil
	case wireGone, wireCancel, wireAsked, wireAccepted, wireNone:
		if len(b) == 0 {
			return w, nil
		}
	}
	return wire{}, errWire
}

func (w *wire) parseCall(s string) error {
	if len(s) == 0 || s[0]&^(wireHasName|wireHasData) != 0 {
		return errWire
	}
	flags, s := s[0], s[1:]
	texts := []*string{&w.name, &w.id}
	if flags&wireHasName != 0 {
		w.by.has |= protocol.HasRequestorName
		texts = append(texts, &w.by.name)
	}
	if flags&wireHasData != 0 {
		w.by.has |= protocol.HasRequestorData
		texts = append(texts, &w.by.data)
	}
	for _, text := range texts {
		size, n := uvarint(s)
		if n <= 0 || size > uint64(len(s)-n) {
			return errWire
		}
		*text, s = s[n:n+int(size)], s[n+int(size):]
	}
	w.data = s
	return nil
}

// uvarint is binary.Uvarint for a string.
func uvarint(s string) (uint64, int) {
	var head [binary.MaxVarintLen64]byte
	return binary.Uvarint(head[:copy(head[:], s)])
}
