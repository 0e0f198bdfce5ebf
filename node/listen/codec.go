package listen

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// A message between nodes is a format byte and entries to the end. An entry is a byte
// that says what it is, and the fields that fieldsOf names, in the order of the fields
// of entry: numbers as unsigned varints, the name and the list of ids with their
// length before them.
const format = 1

// The entries. Their numbers are part of the format.
const (
	// From any node to the owner of a partition: what it wants and provides.
	opBegin     = 1 // what is wanted and provided in part, under epoch, follows
	opSynced    = 2 // that was all
	opWant      = 3 // there are subscribers of name, which matches ids, and maybe further ones
	opUnwant    = 4 // there are none
	opForget    = 5 // no name matches id any more
	opProviding = 6 // a client provides name
	opLost      = 7 // none does
	opJoined    = 8 // a listener of pattern id has come

	// Between an owner and a node that may provide.
	opAsk    = 9  // provide name with a listener of ids that came after number; question search
	opAnswer = 10 // the end of question search: provided if flag, else nobody up to number
	opCancel = 11 // question search is over, there is no need of an answer
	opEnd    = 12 // name is not to be provided; if flag, although it may be wanted
)

const (
	hasPart = 1 << iota
	hasEpoch
	hasSearch
	hasNumber
	hasName
	hasIDs
	hasFlag
)

// fieldsOf says what is in an entry.
var fieldsOf = [...]uint8{
	opBegin: hasPart | hasEpoch, opSynced: hasPart | hasEpoch,
	opWant: hasName | hasIDs, opUnwant: hasName, opForget: hasIDs,
	opProviding: hasName, opLost: hasName, opJoined: hasIDs,
	opAsk:    hasEpoch | hasSearch | hasNumber | hasName | hasIDs,
	opAnswer: hasEpoch | hasSearch | hasNumber | hasName | hasFlag,
	opCancel: hasSearch | hasName,
	opEnd:    hasEpoch | hasName | hasFlag,
}

const (
	// maxName is the longest name that is kept for a peer, and the longest that a
	// client may use.
	maxName = 4096
	// maxIDs is how many patterns an entry may name. A name that matches more is told
	// in several entries.
	maxIDs = 4096
	// maxPart is one more than the highest number of a partition.
	maxPart = 1 << 16
	// full is the size from where on a message gets no more entries.
	full = 32 << 10
)

// errEntry is what a peer sent that is no list of entries.
var errEntry = errors.New("not a message about listening; the peer may run a version that this one does not understand")

// patternID stands for the text of a pattern between nodes: its hash, so that no two
// nodes have to agree on numbers, and nobody can choose two texts with the same one.
type patternID [16]byte

func idOf(text string) patternID {
	sum := sha256.Sum256([]byte(text))
	return patternID(sum[:])
}

// entry is one of any kind; which fields count is in fieldsOf.
type entry struct {
	op     uint8
	part   int
	epoch  uint64
	search uint64
	number uint64
	name   string
	ids    []patternID
	flag   bool
}

// appendEntry appends e to a message that has begun.
func appendEntry(b []byte, e *entry) []byte {
	b = append(b, e.op)
	has := fieldsOf[e.op]
	if has&hasPart != 0 {
		b = binary.AppendUvarint(b, uint64(e.part))
	}
	if has&hasEpoch != 0 {
		b = binary.AppendUvarint(b, e.epoch)
	}
	if has&hasSearch != 0 {
		b = binary.AppendUvarint(b, e.search)
	}
	if has&hasNumber != 0 {
		b = binary.AppendUvarint(b, e.number)
	}
	if has&hasName != 0 {
		b = binary.AppendUvarint(b, uint64(len(e.name)))
		b = append(b, e.name...)
	}
	if has&hasIDs != 0 {
		b = binary.AppendUvarint(b, uint64(len(e.ids)))
		for _, id := range e.ids {
			b = append(b, id[:]...)
		}
	}
	if has&hasFlag != 0 {
		if e.flag {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// decode returns the entries of a message, which alias nothing of it.
func decode(payload []byte) ([]entry, error) {
	if len(payload) == 0 || payload[0] != format {
		return nil, errEntry
	}
	var all []entry
	for r := (reader{b: payload[1:]}); len(r.b) > 0; {
		e := entry{op: r.byte()}
		if int(e.op) >= len(fieldsOf) || fieldsOf[e.op] == 0 {
			return nil, errEntry
		}
		has := fieldsOf[e.op]
		if has&hasPart != 0 {
			e.part = int(r.number(maxPart - 1))
		}
		if has&hasEpoch != 0 {
			e.epoch = r.number(^uint64(0))
		}
		if has&hasSearch != 0 {
			e.search = r.number(^uint64(0))
		}
		if has&hasNumber != 0 {
			e.number = r.number(^uint64(0))
		}
		if has&hasName != 0 {
			e.name = string(r.bytes(int(r.number(maxName))))
		}
		if has&hasIDs != 0 {
			n := int(r.number(maxIDs))
			for ids := r.bytes(n * len(patternID{})); len(ids) > 0; ids = ids[len(patternID{}):] {
				e.ids = append(e.ids, patternID(ids[:len(patternID{})]))
			}
		}
		if has&hasFlag != 0 {
			e.flag = r.byte() != 0
		}
		if r.bad {
			return nil, errEntry
		}
		all = append(all, e)
	}
	return all, nil
}

// reader takes a message apart. After what is not there, bad is true and all is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if b := r.bytes(1); len(b) == 1 {
		return b[0]
	}
	return 0
}

// number reads one that may be most at the most.
func (r *reader) number(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}
