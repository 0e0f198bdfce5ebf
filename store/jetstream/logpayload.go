package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"hadal/store"
)

// A message of the LOG:
//
//	format   1 byte, 'L', so that no message of STATE is taken for one
//	checksum 4 bytes little endian, CRC-32C of all that follows
//	kind     1 byte: a batch, a fence, a floor
//	follows  uvarint, the sequence of the message before; 0 in a fence, which
//	         does not know it
//	epoch    uvarint, its owner's
//	floor    uvarint, the floor that its owner knew
//	a batch: count uvarint, then for each op: flags 1 byte, version varint, length of
//	         the name uvarint, length of the JSON uvarint, the name, the JSON
const (
	logFormat = 'L'

	logBatch = 1
	logFence = 2
	logFloor = 3

	// logOverhead is the most that a batch of one op holds beside name and JSON.
	logOverhead = headerSize + 1 + 7*binary.MaxVarintLen64
)

// logEntry is what a message of the LOG says. The strings of a decoded one share
// memory.
type logEntry struct {
	kind                  byte
	follows, epoch, floor uint64
	ops                   []store.Op // of a batch, at least one
}

// appendLog appends the payload of e.
func appendLog(dst []byte, e *logEntry) []byte {
	start := len(dst)
	dst = append(dst, logFormat, 0, 0, 0, 0, e.kind)
	dst = binary.AppendUvarint(dst, e.follows)
	dst = binary.AppendUvarint(dst, e.epoch)
	dst = binary.AppendUvarint(dst, e.floor)
	if e.kind == logBatch {
		dst = binary.AppendUvarint(dst, uint64(len(e.ops)))
		for i := range e.ops {
			op := &e.ops[i]
			flags, data := byte(0), op.Data
			if op.Delete {
				flags, data = flagTombstone, ""
			}
			dst = append(dst, flags)
			dst = binary.AppendVarint(dst, int64(op.Version))
			dst = binary.AppendUvarint(dst, uint64(len(op.Name)))
			dst = binary.AppendUvarint(dst, uint64(len(data)))
			dst = append(dst, op.Name...)
			dst = append(dst, data...)
		}
	}
	binary.LittleEndian.PutUint32(dst[start+1:], crc32.Checksum(dst[start+5:], castagnoli))
	return dst
}

// decodeLog reads a payload. The result is a copy.
func decodeLog(payload []byte) (e logEntry, err error) {
	if len(payload) == 0 {
		return e, errShort
	}
	if payload[0] != logFormat {
		return e, fmt.Errorf("its format is %d, this version reads %d", payload[0], logFormat)
	}
	if len(payload) < headerSize {
		return e, errShort
	}
	sum := binary.LittleEndian.Uint32(payload[1:])
	if got := crc32.Checksum(payload[5:], castagnoli); got != sum {
		return e, fmt.Errorf("its checksum is %08x, it says %08x", got, sum)
	}
	p := string(payload)
	e.kind, p = p[5], p[headerSize:]
	for _, v := range []*uint64{&e.follows, &e.epoch, &e.floor} {
		if *v, p, err = uvarint(p); err != nil {
			return e, err
		}
	}
	switch e.kind {
	case logBatch:
		if e.ops, p, err = decodeOps(p); err != nil {
			return e, err
		}
	case logFence:
		if e.follows != 0 {
			return e, errors.New("it is a fence that follows a message")
		}
	case logFloor:
	default:
		return e, fmt.Errorf("its kind is %d, this version knows 1 to 3", e.kind)
	}
	if p != "" {
		return e, fmt.Errorf("it has %d bytes too many", len(p))
	}
	return e, nil
}

func decodeOps(p string) (ops []store.Op, rest string, err error) {
	count, p, err := uvarint(p)
	if err != nil {
		return nil, "", err
	}
	// An op has at least five bytes, so what is allocated is bounded by what came.
	if count == 0 || count > uint64(len(p))/5 {
		return nil, "", fmt.Errorf("it says that it holds %d ops", count)
	}
	ops = make([]store.Op, count)
	for i := range ops {
		if ops[i], p, err = decodeOp(p); err != nil {
			return nil, "", fmt.Errorf("op %d: %w", i, err)
		}
	}
	return ops, p, nil
}

func decodeOp(p string) (op store.Op, rest string, err error) {
	if p == "" {
		return op, "", errShort
	}
	flags := p[0]
	if flags&^flagTombstone != 0 {
		return op, "", fmt.Errorf("its flags are %#x", flags)
	}
	op.Delete = flags != 0
	zigzag, p, err := uvarint(p[1:])
	if err != nil {
		return op, "", err
	}
	version := int64(zigzag>>1) ^ -int64(zigzag&1)
	if version < math.MinInt32 || version > math.MaxInt32 {
		return op, "", fmt.Errorf("its version is %d", version)
	}
	op.Version = int32(version)
	name, p, err := uvarint(p)
	if err != nil {
		return op, "", err
	}
	data, p, err := uvarint(p)
	if err != nil {
		return op, "", err
	}
	if name == 0 || name > uint64(len(p)) || data > uint64(len(p))-name {
		return op, "", errShort
	}
	op.Name, op.Data, p = p[:name], p[name:name+data], p[name+data:]
	if op.Delete && op.Data != "" {
		return op, "", errors.New("it is a removal with data")
	}
	return op, p, nil
}
