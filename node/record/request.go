package record

import (
	"sync/atomic"
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

	remote *remote // the node that asks for a client of its own, or nil

	trip *trip // of a request that did not find its owner at once, or is a special one

	group    *group
	lane     *lane      // that the request has entered, or nil
	names    []string   // of kindSubscribeAndHead as it arrives
	last     bool       // of kindSubscribeAndHead: no part follows
	standing []standing // of kindRejudgeMany
	// reply is of the operator's requests, kindFlush, kindSnapshot and kindRejudge. It is
	// called on an owner or on what hears of one, and must not block.
	reply func(result)
}

// fetches says whether the answer may carry a record, whoever asks.
func (r *request) fetches() bool {
	switch r.kind {
	case kindOperatorGet, kindSnapshot, kindResyncMany:
		return true
	}
	return r.heavy()
}

// trip is what only few requests need: most find their owner at once.
type trip struct {
	// Of a request on its way to an owner (seat.go). Guarded by the seat's mu.
	id         uint64    // under which it was sent to another node
	since      time.Time // when it began to wait for an owner
	turn       uint64    // its place among all requests of the seat
	answered   bool      // the client has what it asked for
	subscribed bool      // the client is subscribed because of this request, or was before
	added      bool      // it was not before
	mute       bool      // the client may have no more subscriptions, and was told

	// astray is told of a kindRejudge, kindRejudgeMany or kindResync whose owner has gone
	// before it.
	astray func(*request)
	call   func()      // of kindCall
	known  knowledge   // of kindResync
	knows  []knowledge // of names, of kindResyncMany and of a resync that was sent
	peer   *link       // that a kindResync, kindPeerGone or kindForget is for
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
	kindResync // of what another node knows, or what stood here before
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
	kindCall     // runs something on the owner
	kindPeerGone // forgets what a link was interested in
	kindForget   // forgets one name of that
	kindResyncMany
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

// again says whether the request may be sent once more when nobody knows what became
// of it.
func (k kind) again() bool {
	switch k {
	case kindWrite, kindDelete, kindNotify, kindOperatorSet, kindOperatorDelete:
		return false
	}
	return true
}

// subscribes says whether a request of the kind may subscribe its client.
func (k kind) subscribes() bool {
	switch k {
	case kindSubscribe, kindSubscribeAndRead, kindSubscribeCreateAndRead, kindSubscribeAndHeadOne:
		return true
	}
	return false
}

// group counts the requests that one message was split into, which may be with
// several owners.
type group struct {
	left atomic.Int64
	done func() // runs when nothing is left, on an owner or on what hears of one
}

func newGroup(left int, done func()) *group {
	g := &group{done: done}
	g.left.Store(int64(left))
	return g
}

// finish notes that one request of the group has been served.
func (g *group) finish() {
	if g != nil && g.left.Add(-1) == 0 {
		g.done()
	}
}
