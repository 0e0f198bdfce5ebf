//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// kind says what an event tells.
type kind byte

// What a victim tells its parent. All but the first two are told by the owner of
// the records, in the order in which things happen to each of them.
const (
	sentWrite  kind = 'w' // before the room is given it: name, version, hash
	sentDelete kind = 'd'

	wrote     kind = 'W' // acknowledged: name, version, hash
	deleted   kind = 'D' // acknowledged
	conflict  kind = 'C' // VERSION_EXISTS: the version and hash that are there
	tooFar    kind = 'V' // INVALID_VERSION: the version that is there
	failed    kind = 'E' // any other answer; the outcome is unknown
	read      kind = 'R' // an answer to a read
	missing   kind = 'N' // a read of a record that does not exist
	shown     kind = 'U' // an update that a subscriber heard
	shownGone kind = 'X' // a deletion that a subscriber heard

	scanBegins kind = 'S'
	found      kind = 'F' // in a scan of the store
	scanEnds   kind = 'G'
	loadBegins kind = 'L'
	takeover   kind = 'T' // a second owner has taken over; writers from secondOwner on are its own
)

// event is one thing that happened in a victim.
type event struct {
	kind    kind
	who     uint8  // the writer; for what is not a writer's, the first one of the same owner
	name    uint16 // of the record, by number
	version int32
	hash    uint64 // of the data
}

const eventSize = 16

func (e event) append(b []byte) []byte {
	b = append(b, byte(e.kind), e.who)
	b = binary.LittleEndian.AppendUint16(b, e.name)
	b = binary.LittleEndian.AppendUint32(b, uint32(e.version))
	return binary.LittleEndian.AppendUint64(b, e.hash)
}

func parseEvent(b []byte) event {
	return event{
		kind: kind(b[0]), who: b[1], name: binary.LittleEndian.Uint16(b[2:]),
		version: int32(binary.LittleEndian.Uint32(b[4:])), hash: binary.LittleEndian.Uint64(b[8:]),
	}
}

// pipe is the way from a victim to its parent. Each event is one write: nothing
// of what was told is lost when the victim is killed, and the kernel tears no
// write of so few bytes.
type pipe struct{ f *os.File }

// tell is called from anywhere. A victim without its parent has no purpose.
func (p pipe) tell(e event) {
	if _, err := p.f.Write(e.append(make([]byte, 0, eventSize))); err != nil {
		fmt.Fprintln(os.Stderr, "victim: the parent is gone:", err)
		os.Exit(1)
	}
}

// The records: half of the writes go to the hot ones.
const (
	hotNames = 64
	allNames = 2048
)

func nameOf(n uint16) string {
	if n < hotNames {
		return "hot/" + strconv.Itoa(int(n))
	}
	return "uniform/" + strconv.Itoa(int(n))
}

// numberOf is the other way round; false is a name that no victim writes.
func numberOf(name string) (uint16, bool) {
	_, digits, _ := strings.Cut(name, "/")
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), err == nil && n < allNames && nameOf(uint16(n)) == name
}

// hashOf stands for the data of a record. Every write has data of its own.
func hashOf(data string) uint64 { return xxhash.Sum64String(data) }
