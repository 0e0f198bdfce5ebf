// Package record is the room for records: it reads, writes, orders, keeps and
// announces them (spec 08), and lists are records to it.
//
// # The owner
//
// Everything that happens to the records of a partition happens on one
// goroutine, its owner (owner.go). Handle, on a client's reader, checks what
// can be checked without the record, puts a request into the owner's mailbox
// and returns, so a client may have many writes in flight; when it has too many the
// reader blocks, which is the back-pressure. Requests of one client are served in the
// order they came, those for one record in the order in which they reached the owner. That alone gives one order per record, reads
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
// An append that the store refuses, because it has no room or could never hold it,
// has written nothing: those who wait for it are told, and the next one may
// succeed. When an append fails otherwise its outcome is unknown. The owner then
// holds the batch, fences the store, appends the batch once more, and only then
// goes on: the batch holds results and nobody else can have written in between, so
// it does not matter whether the first attempt had reached the disk. New requests
// are held back meanwhile, for holdTime; after that the owner forgets every record
// that the held and the open batch touched, tells those who wait, and refuses
// writes until the store is back.
//
// With records.durability "fast" consequences happen at once and do not wait for
// the batch. It is then never given up while the process runs; what a crash loses
// is what was not yet appended.
//
// # Rules
//
// Rules are judged in the record's turn, on the state that a request lands on. One
// that refers to other records has its request parked, with what else is asked about
// that record, until snapshots of them are there (reference.go). When the rules
// change, subscriptions that stand are judged again (rejudge.go).
//
// # Fairness
//
// Each client has a lane to the owner (mailbox.go), which serves a few requests of
// each in turn. What one client has under way is bounded, in number, in bytes, and
// once more in answers that carry records. A list of names is served in parts, so
// that what few bytes ask for is made no faster than the client takes it.
//
// # Memory
//
// Records that are not being written may leave memory, least recently used
// first, when they exceed records.cacheBytes. Names under
// record.storageExclusionPrefixes live in memory only and are never evicted.
package record
