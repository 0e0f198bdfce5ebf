package jetstream

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"hadal/store"
)

func TestPayloadsComeBack(t *testing.T) {
	tests := []entry{
		{Op: store.Op{Record: store.Record{Name: "a", Version: 0, Data: "{}"}}},
		{Op: store.Op{Record: store.Record{Name: "a/b", Version: math.MaxInt32, Data: "[1]"}}, dead: 1},
		{Op: store.Op{Record: store.Record{Name: "a", Version: math.MinInt32}}, dead: math.MaxUint64},
		{Op: store.Op{Record: store.Record{Name: strings.Repeat("n", 5000), Version: -1}, Delete: true}},
		{fence: true, epoch: math.MaxUint64, floor: 300, dead: 7},
		{fence: true},
	}
	for _, want := range tests {
		got, err := decodeEntry(appendEntry(nil, &want))
		if err != nil || got != want {
			t.Errorf("decoded %v, %v, want %v", got, err, want)
		}
	}
}

func TestDamagedPayloadsAreRefused(t *testing.T) {
	good := appendEntry(nil, &entry{Op: store.Op{Record: store.Record{Name: "name", Version: 3, Data: `{"a":1}`}}, dead: 9})
	for i := range good {
		if _, err := decodeEntry(good[:i]); err == nil {
			t.Errorf("payload cut at %d was decoded", i)
		}
		for bit := range 8 {
			bad := []byte(string(good))
			bad[i] ^= 1 << bit
			if _, err := decodeEntry(bad); err == nil {
				t.Errorf("payload with bit %d of byte %d flipped was decoded", bit, i)
			}
		}
	}
}

// FuzzPayload gives the bytes a right checksum, so that what lies behind it is
// reached, and checks that what is decoded is encoded to the same bytes.
func FuzzPayload(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendEntry(nil, &entry{Op: store.Op{Record: store.Record{Name: "n", Data: "{}"}}, dead: 1}))
	f.Add(appendEntry(nil, &entry{Op: store.Op{Record: store.Record{Name: "n"}, Delete: true}}))
	f.Add(appendEntry(nil, &entry{fence: true, epoch: 3, floor: 2, dead: 4}))
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > headerSize {
			p[0] = formatByte
			binary.LittleEndian.PutUint32(p[1:], crc32.Checksum(p[5:], castagnoli))
		}
		e, err := decodeEntry(p)
		if err != nil {
			return
		}
		if back := appendEntry(nil, &e); string(back) != string(p) {
			t.Fatalf("%x decodes to %v, which is %x", p, e, back)
		}
	})
}
