package jetstream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/minio/highwayhash"
)

// A block file of the embedded server is messages, one after the other:
//
//	length   4 bytes little endian, of all of it; the highest bit says that there are headers
//	sequence 8 bytes; the two highest bits say that a message was erased, or that
//	         this stands for the removal of one elsewhere, a tombstone of the server's own
//	time     8 bytes
//	subject  2 bytes, its length, and later the subject
//	headers  if any: 4 bytes, their length, and the headers
//	payload
//	checksum 8 bytes, a HighwayHash under a key made of the stream's name and the block's number
//
// The checksum leaves out the three lengths. What is wrong with those shows in
// the bytes that it then covers, except for the length of the headers, which
// are looked at for that reason.
const (
	blockHeader   = 22
	blockChecksum = 8
	blockMinimum  = blockHeader + blockChecksum

	blockHasHeaders = 1 << 31 // in the length
	blockErased     = 1 << 63 // in the sequence
	blockTombstone  = 1 << 62 // in the sequence

	// blockMaxMessage is what the server takes for damage.
	blockMaxMessage = 32 << 20
	// blockMaxFile is above the size of any block: a message begins below 8 MiB.
	blockMaxFile = 8<<20 + blockMaxMessage
)

// itemKind is what stands at a place of a block file.
type itemKind byte

const (
	itemMessage itemKind = iota
	itemErased           // a message that was removed where it stood
	itemRemoval          // the server's note that it removed a message elsewhere
	itemDamage           // bytes that are none of these
)

// item is a piece of a block file, from off up to end. Of damage, seq and subject
// are what the bytes say of themselves, or nothing when they make no sense at all.
type item struct {
	off, end int
	seq      uint64
	subject  int // its length
	payload  int // where it begins, up to end less the checksum
	kind     itemKind
	torn     bool   // of damage: the file ends before the message does
	why      string // of damage
}

// blockReader splits the block files of one stream.
type blockReader struct {
	stream string
	prefix []byte // with which every subject of the stream begins
	hash   *highwayhash.Digest64
	items  []item // reused
	budget int    // how many bytes may still be hashed in search of a message
}

// read splits a block file. Its items cover all of buf, and stay valid until the next call.
func (r *blockReader) read(buf []byte, block uint32) ([]item, error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", r.stream, block))
	var err error
	if r.hash, err = highwayhash.NewDigest64(key[:]); err != nil {
		return nil, err
	}
	r.items = r.items[:0]
	// Each byte is hashed once where all is well. A file that is made to look like
	// many overlapping messages ends the search, not the patience.
	r.budget = 16*len(buf) + blockMaxMessage
	for off := 0; off < len(buf); {
		it := r.at(buf, off)
		if it.kind == itemDamage {
			it.end = r.resume(buf, &it)
		}
		r.items = append(r.items, it)
		off = it.end
	}
	return r.items, nil
}

// at reads what begins at off. Of damage, end is where the bytes say that it ends,
// or 0.
func (r *blockReader) at(buf []byte, off int) item {
	it := item{off: off, kind: itemDamage}
	b := buf[off:]
	if len(b) < blockMinimum {
		it.torn, it.why = true, "the file ends in the middle of a message"
		return it
	}
	word := binary.LittleEndian.Uint32(b)
	length := int(word &^ blockHasHeaders)
	subject := int(binary.LittleEndian.Uint16(b[20:]))
	fixed := blockMinimum + subject
	if word&blockHasHeaders != 0 {
		fixed += 4
	}
	if length < fixed || length > blockMaxMessage {
		// Zeros are what a file system leaves where a write was cut off.
		it.torn = len(bytes.Trim(b, "\x00")) == 0
		it.why = fmt.Sprintf("no message has the length %d", length)
		return it
	}
	sequence := binary.LittleEndian.Uint64(b[4:])
	it.seq = sequence &^ (blockTombstone | blockErased)
	if length > len(b) {
		it.subject = r.subject(b, subject)
		it.torn, it.why = true, "the file ends in the middle of a message"
		return it
	}
	it.end = off + length
	content, from := b[blockHeader:length-blockChecksum], subject
	r.hash.Reset()
	// A hash.Hash does not fail.
	_, _ = r.hash.Write(b[4:20])
	_, _ = r.hash.Write(content[:subject])
	if word&blockHasHeaders != 0 {
		from += 4
	}
	_, _ = r.hash.Write(content[from:])
	r.budget -= length
	if r.hash.Sum64() != binary.LittleEndian.Uint64(b[length-blockChecksum:]) {
		it.subject = r.subject(b, subject)
		it.why = "the checksum of the message is wrong"
		return it
	}
	if word&blockHasHeaders != 0 {
		headers := int(binary.LittleEndian.Uint32(content[subject:]))
		if headers > len(content)-from || !bytes.HasPrefix(content[from:], []byte("NATS/1.0")) ||
			!bytes.HasSuffix(content[from:from+headers], []byte("\r\n\r\n")) {
			it.subject = r.subject(b, subject)
			it.why = "the length of the message's headers is wrong"
			return it
		}
		from += headers
	}
	switch {
	case sequence&blockTombstone != 0:
		it.kind = itemRemoval
	case sequence&blockErased != 0 || sequence == 0:
		it.kind = itemErased
	default:
		it.kind = itemMessage
	}
	it.subject, it.payload = subject, off+blockHeader+from
	return it
}

// subject is the length of a subject in a damaged message if it may be one of the
// stream's, else 0.
func (r *blockReader) subject(b []byte, length int) int {
	if length > len(b)-blockHeader {
		return 0
	}
	s := b[blockHeader : blockHeader+length]
	if !bytes.HasPrefix(s, r.prefix) {
		return 0
	}
	for _, c := range s[len(r.prefix):] {
		if !plain[c] && c != '.' && c != '=' && c != '~' {
			return 0
		}
	}
	return length
}

// resume is where the next message after damage begins: where the damaged one
// says that it ends, if that holds, or else at the next bytes that are a message
// of the stream with a right checksum.
func (r *blockReader) resume(buf []byte, damage *item) int {
	if damage.end > 0 {
		if damage.end == len(buf) || r.at(buf, damage.end).kind != itemDamage {
			return damage.end
		}
	}
	for from := damage.off + 1; from < len(buf) && r.budget > 0; {
		i := bytes.Index(buf[from:], r.prefix)
		if i < 0 {
			break
		}
		if start := from + i - blockHeader; start > damage.off && r.at(buf, start).kind == itemMessage {
			return start
		}
		from += i + 1
	}
	return len(buf)
}
