// Package record is the room for records: it reads, writes, orders, keeps and
// announces them (spec 08), and lists are records to it.
//
// # The owner
//
// Everything that happens to the records of a partition happens on one
// goroutine, its owner (owner.go). Handle, on a client's reader, checks what
// can be checked without the record, puts a request into the owner's mailbox
// and returns, so a client may have many writes in flight; a full mailbox
// blocks the reader, which is the back-pressure. Requests for one record are
// served in the order they came. That alone gives one order per record, reads
// that see the client's own earlier writes, a subscription that is atomic with
// the read that belongs to it, and rules judged on the very state the write
// lands on. No lock guards records: only the owner touches them.
//
// A record that is not in the owner's memory is loaded beside it, on a
// goroutine of its own; meanwhile only that record's requests wait.
//
// # Group commit
//
// A write changes the record in memory, joins the open batch and leaves its
// consequences (the ack, the update to subscribers) with that batch. As soon as
// no append is under way, the batch is appended to the store as one; when it is
// durable its consequences happen, in order. Whatever is computed from a state
// that is not durable yet, a read or a VERSION_EXISTS, joins the consequences
// of the batch it depends on. So nothing that could still be taken back ever
// leaves the owner.
//
// When an append fails its outcome is unknown. The owner then forgets every
// record that a failed or open batch touched, refuses what waited for them,
// fences the store again, and loads afresh. It holds new requests back for
// holdTime meanwhile, and refuses writes after that until the store is back.
//
// A client has few requests under way whose answers carry records (gate.go), and a
// list of names is served in parts, so that what few bytes ask for is made no
// faster than the client takes it, and others have their turn.
//
// # Memory
//
// Records that are not being written may leave memory, least recently used
// first, when they exceed records.cacheBytes. Names under
// record.storageExclusionPrefixes live in memory only and are never evicted.
package record
