package endpoint

import "encoding/binary"

// What WebSocket frames begin with (RFC 6455 §5.2).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opControl      = 8 // and above
	opClose        = 8
	opPong         = 10

	finalBit     = 0x80
	reservedBits = 0x70
	opcodeBits   = 0x0f
	maskBit      = 0x80
	sizeBits     = 0x7f

	// longestHeader is with 8 bytes of length and the mask.
	longestHeader = 14
)

// header is the header of a client's frame.
type header struct {
	opcode byte
	final  bool
	header int64 // its length in bytes
	size   int64 // of what follows
	// strange says that no client may send this; the sizes mean nothing then.
	strange bool
}

// parseHeader reads the header that b begins with, and says whether it has come whole.
// within says that a message of several frames has begun and not ended. That a frame is
// strange is said as soon as it can be seen.
func parseHeader(b []byte, within bool) (h header, ok bool) {
	if len(b) < 2 {
		return h, false
	}
	h.opcode, h.final = b[0]&opcodeBits, b[0]&finalBit != 0
	h.header, h.size = 6, int64(b[1]&sizeBits)
	switch {
	case h.opcode >= opControl:
		h.strange = h.opcode > opPong || !h.final || h.size > 125
	case h.opcode > opBinary:
		h.strange = true
	default:
		h.strange = within != (h.opcode == opContinuation)
	}
	if h.strange = h.strange || b[0]&reservedBits != 0 || b[1]&maskBit == 0; h.strange {
		return h, true
	}
	switch h.size {
	case 126:
		if h.header = 8; len(b) >= 4 {
			h.size = int64(binary.BigEndian.Uint16(b[2:]))
		}
	case 127:
		if h.header = longestHeader; len(b) >= 10 {
			size := binary.BigEndian.Uint64(b[2:])
			h.size, h.strange = int64(size), size > 1<<62 // with its header it would be negative
		}
	}
	return h, h.strange || int64(len(b)) >= h.header
}

// unmask copies a client's bytes to dst, as many as that holds, without their mask.
func unmask(dst, src, mask []byte) {
	src, mask = src[:len(dst)], mask[:4]
	key := uint64(binary.LittleEndian.Uint32(mask))
	key |= key << 32
	for len(src) >= 8 {
		binary.LittleEndian.PutUint64(dst, binary.LittleEndian.Uint64(src)^key)
		dst, src = dst[8:], src[8:]
	}
	for i, c := range src {
		dst[i] = c ^ mask[i&3]
	}
}
