package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"hadal/store"
)

// A stored message, of a record or of a fence:
//
//	format   1 byte, 1
//	checksum 4 bytes little endian, CRC-32C of all that follows
//	flags    1 byte
//	dead     uvarint, if flagDead: see compact.go
//	a fence: epoch uvarint, floor uvarint: see compact.go
//	else:    version varint, length of the name uvarint, the name, the JSON
//
// The checksum is ours because the stream's own tells of a bad message with the
// words "no message found", and because payloads travel further than the disk.
const (
	formatByte = 1

	flagTombstone = 1 << 0
	flagDead      = 1 << 1
	flagFence     = 1 << 2
	flagsKnown    = flagTombstone | flagDead | flagFence

	headerSize = 6
	// overhead is the most that a payload holds beside name and JSON.
	overhead = headerSize + 4*binary.MaxVarintLen64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is what a payload says. The strings of a decoded one share memory.
type entry struct {
	store.Op        // of a record
	fence    bool   // else
	epoch    uint64 // of a fence
	floor    uint64 // of a fence
	dead     uint64 // 0 when absent
}

// appendEntry appends the payload of e.
func appendEntry(dst []byte, e *entry) []byte {
	start := len(dst)
	var flags byte
	if e.Delete {
		flags |= flagTombstone
	}
	if e.dead > 0 {
		flags |= flagDead
	}
	if e.fence {
		flags |= flagFence
	}
	dst = append(dst, formatByte, 0, 0, 0, 0, flags)
	if e.dead > 0 {
		dst = binary.AppendUvarint(dst, e.dead)
	}
	if e.fence {
		dst = binary.AppendUvarint(dst, e.epoch)
		dst = binary.AppendUvarint(dst, e.floor)
	} else {
		dst = binary.AppendVarint(dst, int64(e.Version))
		dst = binary.AppendUvarint(dst, uint64(len(e.Name)))
		dst = append(dst, e.Name...)
		if !e.Delete {
			dst = append(dst, e.Data...)
		}
	}
	binary.LittleEndian.PutUint32(dst[start+1:], crc32.Checksum(dst[start+5:], castagnoli))
	return dst
}

var errShort = errors.New("it ends too early")

// decodeEntry reads a payload. The result is a copy.
func decodeEntry(payload []byte) (e entry, err error) {
	if len(payload) == 0 {
		return e, errShort
	}
	if payload[0] != formatByte {
		return e, fmt.Errorf("its format is %d, this version reads %d", payload[0], formatByte)
	}
	if len(payload) < headerSize {
		return e, errShort
	}
	sum := binary.LittleEndian.Uint32(payload[1:])
	if got := crc32.Checksum(payload[5:], castagnoli); got != sum {
		return e, fmt.Errorf("its checksum is %08x, it says %08x", got, sum)
	}
	p := string(payload)
	flags := p[5]
	if flags&^flagsKnown != 0 {
		return e, fmt.Errorf("its flags are %#x, this version knows %#x", flags, flagsKnown)
	}
	p = p[headerSize:]
	if flags&flagDead != 0 {
		if e.dead, p, err = uvarint(p); err != nil {
			return e, err
		}
		if e.dead == 0 {
			return e, errors.New("its count of the dead is 0")
		}
	}
	if e.fence = flags&flagFence != 0; e.fence {
		if e.epoch, p, err = uvarint(p); err != nil {
			return e, err
		}
		if e.floor, p, err = uvarint(p); err != nil {
			return e, err
		}
		if p != "" || flags&flagTombstone != 0 {
			return e, errors.New("it is a fence and more")
		}
		return e, nil
	}
	zigzag, p, err := uvarint(p)
	if err != nil {
		return e, err
	}
	version := int64(zigzag>>1) ^ -int64(zigzag&1)
	if version < math.MinInt32 || version > math.MaxInt32 {
		return e, fmt.Errorf("its version is %d", version)
	}
	e.Version = int32(version)
	size, p, err := uvarint(p)
	if err != nil {
		return e, err
	}
	if size == 0 || size > uint64(len(p)) {
		return e, errShort
	}
	e.Name, e.Data = p[:size], p[size:]
	if e.Delete = flags&flagTombstone != 0; e.Delete && e.Data != "" {
		return e, errors.New("it is a removal with data")
	}
	return e, nil
}

func uvarint(p string) (v uint64, rest string, err error) {
	for i := 0; i < len(p) && i < binary.MaxVarintLen64; i++ {
		c := p[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, "", errors.New("a number in it is longer than needed")
			}
			return v, p[i+1:], nil
		}
	}
	return 0, "", errShort
}
