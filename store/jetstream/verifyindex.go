package jetstream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server/avl"
)

// streamHash is the server's checksum of what belongs to a stream as a whole.
func streamHash(stream string, content []byte) []byte {
	key := sha256.Sum256([]byte(stream))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		panic(err) // the key has the wrong size
	}
	_, _ = h.Write(content) // a hash.Hash does not fail
	return h.Sum(nil)
}

// checkMeta checks the file that says what a stream is. Where it is wrong the
// server passes the stream over with a warning, and the node would begin an empty
// one.
func (v *verifier) checkMeta(s *files) error {
	p := Problem{File: filepath.Join(s.dir, "meta.inf"), Offset: -1, Stream: s.Name, Cure: CureRestore}
	content, err := os.ReadFile(p.File)
	sum, sumErr := os.ReadFile(filepath.Join(s.dir, "meta.sum"))
	var config struct {
		Name string `json:"name"`
	}
	switch err := errors.Join(err, sumErr); {
	case errors.Is(err, fs.ErrNotExist):
		p.What = "it is missing, or meta.sum beside it is; the server does not open the stream"
	case err != nil:
		return err
	case hex.EncodeToString(streamHash(s.Name, content)) != string(sum):
		p.What = "its checksum in meta.sum is another one; the server does not open the stream"
	case json.Unmarshal(content, &config) != nil || config.Name != s.Name:
		p.What = "it is not the configuration of this stream"
	default:
		return nil
	}
	v.problem(p)
	return nil
}

// The file index.db, written at a clean stop, after a purge and every few minutes,
// says what of a stream was there:
//
//	magic 11, version, 1 byte each
//	messages, bytes, first sequence, time varint, last sequence, time varint
//	count of subjects, for each: length, subject, messages, first and last block
//	count of blocks, for each: number, bytes, first sequence, time varint, last
//	sequence, time varint, count of what was removed in between, two more counts,
//	and a set of what was removed if any was
//	number of the last block, the 8 bytes at its end
//	checksum 8 bytes
//
// Numbers are uvarints unless said otherwise. It may be older than the blocks, and
// never says too much: what it lists was there.
const (
	indexMagic   = 11
	indexVersion = 4
)

// streamIndex is what index.db says.
type streamIndex struct {
	first, last uint64
	subjects    []byte // what is left to read, beginning with the first subject
	count       uint64 // of subjects
	blocks      map[uint32]indexBlock
}

// indexBlock is what it says of a block.
type indexBlock struct{ first, last uint64 }

var errIndex = errors.New("it is not what an index looks like")

// readIndex reads a stream's index. It is nil, after a note, when there is none
// or it makes no sense, which is no damage: the server makes another.
func (v *verifier) readIndex(s *files) (*streamIndex, error) {
	name := filepath.Join(s.msgs, "index.db")
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		v.note("stream %s has no index.db, as after a kill: a block file that is missing as a whole would not be noticed", s.Name)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	cut := len(content) - blockChecksum
	if cut < 2 || !bytes.Equal(streamHash(s.Name, content[:cut]), content[cut:]) {
		v.note("%s has a wrong checksum, so that a block file that is missing as a whole would not be noticed; the server makes another", name)
		return nil, nil
	}
	index, err := parseIndex(content[:cut])
	if err != nil {
		v.note("%s: %v, so that a block file that is missing as a whole would not be noticed", name, err)
		return nil, nil
	}
	return index, nil
}

// numbers reads one after the other; after an error all are 0.
type numbers struct {
	b      []byte
	failed bool
}

func (n *numbers) next() uint64 {
	v, size := binary.Uvarint(n.b)
	if size <= 0 {
		n.failed = true
		return 0
	}
	n.b = n.b[size:]
	return v
}

func (n *numbers) bytes(size uint64) []byte {
	if size > uint64(len(n.b)) {
		n.failed = true
		return nil
	}
	b := n.b[:size]
	n.b = n.b[size:]
	return b
}

// subject reads one entry of the list of subjects.
func (n *numbers) subject() (subject []byte, last uint32) {
	subject = n.bytes(n.next())
	n.next()
	n.next()
	return subject, uint32(n.next())
}

func parseIndex(b []byte) (*streamIndex, error) {
	if len(b) < 2 || b[0] != indexMagic {
		return nil, errIndex
	}
	if b[1] != indexVersion {
		return nil, fmt.Errorf("its version is %d, this version of hadal reads %d", b[1], indexVersion)
	}
	n := &numbers{b: b[2:]}
	index := &streamIndex{blocks: make(map[uint32]indexBlock)}
	n.next()
	n.next()
	index.first = n.next()
	n.next()
	index.last = n.next()
	n.next()
	index.count = n.next()
	index.subjects = n.b
	for i := uint64(0); i < index.count && !n.failed; i++ {
		n.subject()
	}
	for i := n.next(); i > 0 && !n.failed; i-- {
		number := uint32(n.next())
		n.next()
		first := n.next()
		n.next()
		last := n.next()
		n.next()
		removed := n.next()
		n.next()
		n.next()
		index.blocks[number] = indexBlock{first, last}
		if removed > 0 {
			_, size, err := avl.Decode(n.b)
			if err != nil {
				return nil, errIndex
			}
			n.bytes(uint64(size))
		}
	}
	n.next()
	if n.bytes(blockChecksum); n.failed || len(n.b) > 0 {
		return nil, errIndex
	}
	return index, nil
}

// checkMissing finds the names that the index lists and that are nowhere: a
// removed record has its tombstone, so a name goes only with a purge, below the
// floor. The last message of those was in a block that is gone or was cut short.
func (v *verifier) checkMissing(s *files, index *streamIndex) {
	type gone struct {
		count int
		first string
	}
	missing := make(map[uint32]*gone)
	prefix := s.prefix + "r."
	n := &numbers{b: index.subjects}
	for range index.count {
		subject, last := n.subject()
		tokens, isRecord := strings.CutPrefix(string(subject), prefix)
		if _, seen := v.seen[fingerprint(tokens)]; seen || !isRecord {
			continue
		}
		// An index from before a purge lists what was purged.
		if index.first <= s.Floor && index.blocks[last].first <= s.Floor {
			continue
		}
		g := missing[last]
		if g == nil {
			g = &gone{first: string(subject)}
			missing[last] = g
		}
		g.count++
		g.first = min(g.first, string(subject))
	}
	there := make(map[uint32]bool)
	for _, b := range s.blocks {
		there[b.number] = true
	}
	for number, g := range missing {
		p := Problem{File: filepath.Join(s.msgs, fmt.Sprintf("%d.blk", number)), Offset: -1, Stream: s.Name, Subject: g.first, Cure: CureRestore}
		p.What = fmt.Sprintf("%d records that the server's index lists are missing, of which this is one", g.count)
		if !there[number] {
			p.What = "the file is missing, and " + p.What
		}
		v.problem(p)
	}
}
