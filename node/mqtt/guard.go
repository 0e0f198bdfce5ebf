package mqtt

import "errors"

// The broker takes the length that a packet claims for true and makes room for it, also of
// strangers. So the bytes are looked at before it has them.

const (
	// typeConnect is the type of a CONNECT in the first byte of a packet.
	typeConnect = 1
	// maxConnect is the largest CONNECT in bytes: strangers are many.
	maxConnect = 32 << 10
)

var (
	errNotConnect = errors.New("the first packet is no CONNECT")
	errTooLarge   = errors.New("the packet is larger than maxMessageSize")
	errLength     = errors.New("the length of a packet has more than four bytes")
)

// guard follows the packets in a stream of bytes.
type guard struct {
	limit int // of a packet in bytes

	begun bool // the first packet has begun
	left  int  // bytes of the packet that are still to come
	head  bool // its length is being read
	kind  byte
	size  int
	shift uint
}

// pass looks at the next bytes. What comes behind an error must not be looked at.
func (g *guard) pass(p []byte) error {
	for len(p) > 0 {
		switch {
		case g.left > 0:
			n := min(g.left, len(p))
			g.left -= n
			p = p[n:]
			continue
		case !g.head:
			g.kind, g.size, g.shift, g.head = p[0]>>4, 0, 0, true
			if !g.begun && g.kind != typeConnect {
				return errNotConnect
			}
		default:
			if err := g.length(p[0]); err != nil {
				return err
			}
		}
		p = p[1:]
	}
	return nil
}

// length takes a byte of the length.
func (g *guard) length(b byte) error {
	g.size |= int(b&0x7f) << g.shift
	if b >= 0x80 {
		if g.shift += 7; g.shift > 21 {
			return errLength
		}
		return nil
	}
	limit := g.limit
	if !g.begun {
		limit = min(limit, maxConnect)
	}
	if g.size > limit {
		return errTooLarge
	}
	g.begun, g.head, g.left = true, false, g.size
	return nil
}
