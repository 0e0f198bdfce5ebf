package record

import (
	"time"

	"hadal/node/sub"
	"hadal/protocol"
	"hadal/protocol/jsonpath"
)

// request is one thing asked of the owner about one record, or, for the last
// kinds, about none that waits in its queue.
type request struct {
	kind   kind
	client sub.Client // nil when the operator asks

	name          string
	action        protocol.Action // as the client sent it, for its answers
	correlationID string
	has           protocol.Fields
	writeAck      bool

	// Of a write.
	version int32
	data    string
	path    string
	changes []change // of PATCH, ERASE and PATCH_MULTI
	came    time.Time

	// references are the records that its rules refer to, as far as they have been
	// fetched, and wanted those that are lacking; until is when that has taken too
	// long.
	references map[string]state
	wanted     []string
	until      time.Time
	waits      bool // for them

	group    *group
	lane     *lane        // that the request has entered, or nil
	names    []string     // of kindSubscribeAndHead as it arrives
	last     bool         // of kindSubscribeAndHead: no part follows
	standing []standing   // of kindRejudgeMany
	reply    func(result) // of the operator's requests, kindFlush, kindSnapshot and kindRejudge; called on the owner
}

// change is one step of a patch: set path to value, or remove it.
type change struct {
	path   jsonpath.Path
	value  string // JSON text
	remove bool
}

// result is what the operator gets.
type result struct {
	state state
	err   error
}

type kind uint8

const (
	kindRead kind = iota
	kindHead
	kindSubscribeAndRead
	kindSubscribeCreateAndRead
	kindSubscribeAndHeadOne
	kindWrite
	kindDelete
	kindNotify
	kindOperatorGet
	kindOperatorSet
	kindOperatorDelete
	// The kinds from here on need no record.
	kindSubscribe
	kindUnsubscribe
	kindRejudge // of a subscription that stands
	kindMarker  // of a flush, in the queue of a record
	// The kinds from here on concern no single record.
	kindSubscribeAndHead
	kindClosed
	kindFlush
	kindSnapshot
	kindRejudgeMany
)

// needsState says whether the record must be in memory for the request.
func (k kind) needsState() bool { return k < kindSubscribe }

// size is roughly what the request occupies in memory.
func (r *request) size() int {
	n := len(r.name) + len(r.data) + len(r.path) + len(r.correlationID) + 256
	for _, name := range r.names {
		n += len(name) + 16
	}
	return n
}

// heavy says whether the answer may carry a record, or costs a walk over one.
func (r *request) heavy() bool {
	switch r.kind {
	case kindRead, kindSubscribeAndRead, kindSubscribeCreateAndRead:
		return true
	case kindWrite:
		return r.version != anyVersion || r.changes != nil
	}
	return false
}

// group counts the requests that one message was split into. Only the owner
// touches it after the requests were put into the mailbox.
type group struct {
	left int
	done func() // runs on the owner when nothing is left
}

// finish notes that one request of the group has been served.
func (g *group) finish() {
	if g == nil {
		return
	}
	if g.left--; g.left == 0 {
		g.done()
	}
}
