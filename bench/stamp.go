package bench

import (
	"errors"
	"time"
)

// A stamp is what a message carries: 8 hexadecimal digits of the stream, 10 of the number in
// it, 14 of the time in nanoseconds at which it was due. Its width never changes, so that one
// is written over another in an encoded frame.
const (
	streamDigits = 8
	seqDigits    = 10
	dueDigits    = 14
	stampSize    = streamDigits + seqDigits + dueDigits
)

// placeholder stands in a message for the stamp; nothing else looks like it.
const placeholder = "STAMPSTAMPSTAMPSTAMPSTAMPSTAMPST"

// stamp is what was read of a message.
type stamp struct {
	stream uint32
	seq    uint64
	due    int64 // on our clock
}

var errStamp = errors.New("a message without a stamp")

// epoch is where our clock begins.
var epoch = time.Now()

// clock is the time since epoch in nanoseconds; it never runs backwards.
func clock() int64 { return int64(time.Since(epoch)) }

const digits = "0123456789abcdef"

// unhex is the value of a digit, or 0x80.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0x80
	}
	for i := range len(digits) {
		t[digits[i]] = byte(i)
	}
	return t
}()

// put writes the stamp over the first bytes of to.
func (s stamp) put(to []byte) {
	_ = to[stampSize-1]
	putHex(to[:streamDigits], uint64(s.stream))
	putHex(to[streamDigits:streamDigits+seqDigits], s.seq)
	putHex(to[streamDigits+seqDigits:stampSize], uint64(s.due))
}

func putHex(to []byte, v uint64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = digits[v&15]
		v >>= 4
	}
}

// readStamp reads the stamp at the beginning of text.
func readStamp(text string) (stamp, error) {
	if len(text) < stampSize {
		return stamp{}, errStamp
	}
	var bad byte
	hex := func(from, to int) (v uint64) {
		for i := from; i < to; i++ {
			d := unhex[text[i]]
			bad |= d
			v = v<<4 | uint64(d&15)
		}
		return v
	}
	s := stamp{uint32(hex(0, streamDigits)), hex(streamDigits, streamDigits+seqDigits), int64(hex(streamDigits+seqDigits, stampSize))}
	if bad&0x80 != 0 {
		return stamp{}, errStamp
	}
	return s, nil
}

// recordField is where the stamp of a record is.
const recordField = "v"

// stampOf reads the stamp of the data of an event or call, a JSON text that begins with
// it, or of a record, which is an object with such a text.
func stampOf(data string) (stamp, error) {
	const object = `{"` + recordField + `":"`
	switch {
	case len(data) > len(object) && data[0] == '{':
		return readStamp(data[len(object):])
	case len(data) > 1:
		return readStamp(data[1:])
	}
	return stamp{}, errStamp
}
