// Package record is the room for records: it reads, writes, orders, keeps and
// announces them (spec 08), and lists are records to it.
//
// # The owner
//
// Everything that happens to the records of a partition happens on one goroutine, its
// owner (owner.go). Handle, on a client's reader, checks what can be checked without the
// record, puts a request into the owner's mailbox and returns, so a client may have many
// writes in flight; when it has too many the reader blocks, which is the back-pressure.
// Requests of one client are served in the order they came, those for one record in the
// order in which they reached the owner. That alone gives one order per record, reads
// that see the client's own earlier writes, a subscription that is atomic with the read
// that belongs to it, and rules judged on the very state the write lands on. No lock
// guards records: only the owner touches them.
//
// A record that is not in the owner's memory is loaded beside it, on a
// goroutine of its own; meanwhile only that record's requests wait.
//
// # Seats
//
// Names fall into partitions, and each partition has one owner in the cluster. A seat
// (seat.go, takeover.go) stands for it on every node: it asks the Table who the owner is, and takes
// requests there. On the owner's node that is the owner's mailbox, and costs nothing
// more than if there were no seat. Otherwise requests go over the link to the owner's
// node (link.go), where they are served by the same code as those of clients there, in
// lanes of their own; what is answered comes back on the same link (remote.go). wire.go
// is the format.
//
// When the partition changes hands, requests wait in the seat: reads for
// record.storageRetrievalTimeout, writes for holdTime, and up to seatBytes of them; then
// they get the errors of a store that fails.
//
//   - An owner that loses the partition serves nothing new. What it is appending, and
//     the batch that builds on it, it completes if the store takes them; everything
//     else it hands back as it came (lose.go). To an own seat that is a queue, to
//     another node the word "moved".
//   - A node that was told "moved", or whose table or link has changed, sends nothing
//     more until all that it has sent is back. So nothing overtakes what is sent again,
//     and the requests of a client for a record stay in order across owners. That takes
//     drainTime at most, or ends with the link.
//   - What was sent and neither answered nor handed back is asked again if it only
//     reads or subscribes. A write is never made twice: its client gets
//     RECORD_UPDATE_ERROR (or RECORD_DELETE_ERROR), which says that it may have been
//     made.
//   - A node that takes over opens the store and fences it under the new epoch; from
//     then on no former owner can write. It tries until it is done, or another node is
//     the owner.
//
// A request carries the epoch of the owner it is meant for. An owner of a later one
// sends it back; one that is about to become the owner lets it wait.
//
// # The lease
//
// A fence stops a former owner's writes, but not what it says from memory. So an owner
// asks the Table whether it holds the lease each time it has taken requests from its
// mailbox, before it looks at any of them (lease.go). Without it they wait, and after
// holdTime are refused. A node that is cut off from the majority so refuses reads and
// writes in bounded time, while subscriptions stand.
//
// # Interest
//
// A client is subscribed in the Registry of its own node only. Its node asks the owner,
// and the owner, at the very point in the record's order at which it answers, notes that
// this node is interested in the name (interest.go), and says so before it sends the
// answer; the client's node then subscribes the client. Updates go once to each
// interested node, by the same link and from the same goroutine as answers, so what a
// client gets first and what follows cannot change places. When the last subscriber of a
// name has gone, and none is under way, its node says that it is interested no more.
// Both are numbered by the node that asks, for lanes may change their order.
//
// Interest ends with the owner and with the link. Each node remembers, of the names that
// its clients have subscribed to and that have their owner elsewhere, the version and a
// hash of what it passed on last. To a new owner, and over a new link, it shows these;
// the owner notes the interest and sends the state of what differs, from which on
// everything follows. The subscribers get that state as an UPDATE, or DELETED. A node
// that becomes the owner itself does the same with its own memory, and one that ceases
// to be leaves behind what its subscribers know: of a record whose change was not durable
// yet, what was told before. Of records that have left memory it does not know that, but
// for those that were missing: nobody hears that they were deleted. For the same reason
// an owner in a cluster looks at the record also for a mere SUBSCRIBE. What another owner
// than the present one says is not passed on. So versions never run backwards at a
// subscriber, and it misses nothing for longer than the repair takes; it may get an UPDATE
// that it knows already.
//
// # Between nodes
//
// What runs where a peer is heard never blocks. The peers of a node bound what they
// send: each client by its lane at its own node, a seat by seatBytes. Each end of a link
// tells the other how much it has taken; above linkWindow the owner makes no more
// answers that carry records for that peer, and the peer sends no more requests. Updates
// are not held back: a peer too slow for them loses the link, and is repaired.
//
// A seat's mu may be held while a link's, a mailbox's or a registry's is taken, never
// the other way round; no two seats' together.
//
// # Group commit
//
// A write changes the record in memory, joins the open batch and leaves its
// consequences (the ack, the update to subscribers) with that batch. As soon as
// no append is under way, the batch is appended to the store as one; when it is
// durable its consequences happen, in order. Whatever is computed from a state
// that is not durable yet, a read or a VERSION_EXISTS, joins the consequences
// of the batch it depends on. So nothing that could still be taken back ever
// leaves the owner. Busy owners of one node append by turns, so that each batch
// holds more (turns.go).
//
// An append that the store refuses, because it has no room or could never hold it,
// has written nothing: those who wait for it are told, and the next one may
// succeed. When an append fails otherwise its outcome is unknown. The owner then
// holds the batch, fences the store, appends the batch once more, and only then
// goes on: the batch holds results and nobody else can have written in between, so
// it does not matter whether the first attempt had reached the disk. New requests
// are held back meanwhile, for holdTime; after that the owner forgets every record
// that the held and the open batch touched, tells those who wait, and refuses
// writes until the store is back. Then it looks what those records are, and tells
// subscribers on all nodes where that is not what they know (interest.go).
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
// first, when they exceed records.cacheBytes, of which each owner on this node has an
// equal share. Names under record.storageExclusionPrefixes live in memory only and are
// never evicted; they are gone when their partition changes hands, and subscribers are
// told that they are deleted.
package record
