package jetstream

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hadal/store"
	"hadal/store/storetest"
)

func logEntries() []logEntry {
	return []logEntry{
		{kind: logFence, epoch: 3, floor: 2},
		{kind: logFloor, follows: 9, epoch: math.MaxUint64, floor: 8},
		{kind: logBatch, follows: 1, epoch: 1, ops: []store.Op{storetest.Put("a", 1, `{}`)}},
		{kind: logBatch, follows: math.MaxUint64, epoch: 1, floor: 1 << 40, ops: []store.Op{
			storetest.Put("ä/b", math.MinInt32, ""), storetest.Delete("c"), storetest.Put(strings.Repeat("n", 300), math.MaxInt32, strings.Repeat("d", 1000)),
		}},
	}
}

// sealed is a payload of the LOG with a right checksum.
func sealed(body ...byte) []byte {
	p := append([]byte{logFormat, 0, 0, 0, 0}, body...)
	binary.LittleEndian.PutUint32(p[1:], crc32.Checksum(p[5:], castagnoli))
	return p
}

func TestLogMessagesComeBack(t *testing.T) {
	for _, e := range logEntries() {
		got, err := decodeLog(appendLog(nil, &e))
		if err != nil || !cmp.Equal(got, e, cmp.AllowUnexported(logEntry{})) {
			t.Errorf("decodeLog = %+v, %v, want %+v", got, err, e)
		}
	}
}

func TestLogMessagesThatAreNotOursAreRefused(t *testing.T) {
	good := appendLog(nil, &logEntries()[2])
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 4
	tests := []struct {
		name    string
		payload []byte
		want    string
	}{
		{"empty", nil, "too early"},
		{"a message of STATE", appendEntry(nil, &entry{Op: storetest.Put("a", 1, `1`)}), "format is 1"},
		{"short", []byte{logFormat, 0, 0}, "too early"},
		{"a flipped bit", flipped, "checksum"},
		{"cut", good[:len(good)-1], "checksum"},
		{"an unknown kind", sealed(9, 0, 1, 0), "kind is 9"},
		{"a fence that follows", sealed(logFence, 1, 1, 0), "follows"},
		{"a fence and more", sealed(logFence, 0, 1, 0, 7), "1 bytes too many"},
		{"a batch without ops", sealed(logBatch, 1, 1, 0, 0), "0 ops"},
		{"a batch of too many", sealed(logBatch, 1, 1, 0, 0x80, 0x80, 0x80, 0x80, 8, 0, 0, 0), "holds 2147483648 ops"},
		{"unknown flags", sealed(logBatch, 1, 1, 0, 1, 2, 0, 1, 0, 'a'), "flags are 0x2"},
		{"no name", sealed(logBatch, 1, 1, 0, 1, 0, 0, 0, 1, 'a'), "too early"},
		{"a name too long", sealed(logBatch, 1, 1, 0, 1, 0, 0, 9, 1, 'a'), "too early"},
		{"data too long", sealed(logBatch, 1, 1, 0, 1, 0, 0, 1, 9, 'a'), "too early"},
		{"a removal with data", sealed(logBatch, 1, 1, 0, 1, flagTombstone, 0, 1, 1, 'a', 'b'), "removal with data"},
		{"a long number", sealed(logFence, 0x80, 0), "longer than needed"},
	}
	for _, tt := range tests {
		if e, err := decodeLog(tt.payload); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: decodeLog = %+v, %v, want %q", tt.name, e, err, tt.want)
		}
	}
}

func FuzzDecodeLog(f *testing.F) {
	for _, e := range logEntries() {
		f.Add(appendLog(nil, &e)[5:])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		p := sealed(body...)
		e, err := decodeLog(p)
		if err != nil {
			return
		}
		if again := appendLog(nil, &e); !bytes.Equal(again, p) {
			t.Errorf("%q was read as %+v, which is %q", p, e, again)
		}
	})
}
