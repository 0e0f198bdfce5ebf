// Package sub knows who subscribed to which name, and hands a message to all of
// them. Events, records and presence each own one Registry.
//
// # Shape
//
// There are two tables. Names (sharded by the hash of the name, with a seed of
// this process, so nobody can choose names that meet in one shard) hold for each
// name a slice of its clients: delivering is walking that slice. Clients
// (sharded by id) hold for each client its names and the place it has in each
// name's slice: so a removal needs no search in either direction, a client that
// leaves costs only its own names, and a name that goes costs only its own
// clients.
//
// # Locks
//
// A nameShard's lock may be held while one clientShard's lock is taken, never the
// other way round; never two shards of one table. The registry calls out under
// its locks to Client.ID, Gone, Send, Reserve and Release only, none of which may
// block or call back. So callers may use the registry while they hold a lock of their own.
//
// # Order
//
// Deliver holds the name's shard for reading: two Delivers of one goroutine reach
// every subscriber in that order, and after Remove returned, nothing more is sent.
package sub

import (
	"hadal/auth"
	"hadal/protocol"
)

// Client is a logged-in client as the feature rooms see it. endpoint.Conn is
// one; tests bring their own.
type Client interface {
	// ID is unique among all connections this process has had.
	ID() uint64
	// User is who logged in. Its ID never changes; what else it says does when the
	// client's token is renewed, which happens on the client's reader.
	User() *auth.User
	// Gone says that the connection has ended: from the moment it is true nothing
	// reaches the client any more. A room that subscribes a client from another
	// goroutine than its reader looks here first (see Registry.Add).
	Gone() bool
	// Answer queues a reply to something this client asked for. It never blocks
	// and may be called from anywhere, also after the client has gone (then it
	// does nothing). m is encoded before Answer returns. Answers are never
	// dropped: they hold back the client's reader instead (see Pace).
	Answer(m *protocol.Message)
	// AnswerShared is Answer for what several clients may ask for: its bytes are
	// shared by all of them. o must not be changed afterwards.
	AnswerShared(o *protocol.Outbound)
	// Send queues a broadcast. It never blocks, may be called from anywhere and
	// under a lock. A client too slow for its broadcasts is closed.
	Send(o *protocol.Outbound)
	// Pace blocks while more answers wait for the client than it should have
	// outstanding, or until it has gone. Only the goroutine that reads from the
	// client may call it; a handler does so between the parts of a bulk request.
	Pace()
	// Reserve counts n more of what the server keeps because this client asked for
	// it: subscriptions and what else has names (see Weight). It is false, and
	// nothing is counted, when the client has as much as it may. It never blocks
	// and may be called under a lock.
	Reserve(n int) bool
	// Release gives back what was reserved.
	Release(n int)
}

// WantsWhole says whether c is a client whose dialect has no words for a change of a record,
// only for the whole of it. That never changes.
func WantsWhole(c Client) bool {
	w, ok := c.(interface{ WantsWhole() bool })
	return ok && w.WantsWhole()
}

// weightBytes is how long a name may be that counts as one.
const weightBytes = 256

// Weight is what keeping a name counts for: 1, and more for a long one, so that a
// bound on the number is one on the memory too.
func Weight(name string) int { return 1 + len(name)/weightBytes }

// TooMany is the answer to a client that may keep no more names: one of its request
// m, of m's topic, is denied, as if by a rule, which is what clients understand.
func TooMany(m *protocol.Message, name string) *protocol.Message {
	return &protocol.Message{
		Topic: m.Topic, Action: protocol.Denied(m.Topic), Name: name, OriginalAction: m.Action, IsError: true,
		CorrelationID: m.CorrelationID, Has: m.Has & protocol.HasCorrelationID,
	}
}
