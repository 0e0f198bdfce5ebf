// Package cluster is what nodes share: the bus between them, who owns which part
// of the names, and this node's data directory.
//
// Names fall into 4096 slots (Slot), slots into partitions (Partition), and each
// partition has one owner at a time: the node that orders its writes, chooses
// its providers and counts its presence. Rooms ask a Table who that is and route
// by the answer. An owner writes under an epoch, which rises with every change
// of hands, so that the store can refuse an owner of the past.
//
// Today a node runs alone, in the shape it will have in a cluster:
//
//   - Dir is the data directory, used by one process at a time, with the ids that
//     make this node and this cluster themselves, and the epoch.
//   - Server is an embedded NATS server with JetStream in that directory. It
//     listens on no port; this process talks to it in memory. It keeps part of the
//     disk free, and Supervise restarts it in its place when it has stopped.
//   - Solo is the Table of one member, which owns every partition, under an epoch
//     that rises with each start. It never changes.
//
// The cluster adds, behind the same Table, a raft group that holds members,
// partitions and epochs; routes between the embedded servers; lanes (ordered
// requests from node to node), slot subjects for broadcasts, and replicated sets.
// Nothing outside this room asks whether there is more than one node.
//
// # When the disk fails
//
// What nats-server 2.15 does with streams of one replica, from its source and as
// the tests of this package see it happen on small volumes:
//
//   - A write or sync of a stream that fails (ENOSPC, EIO, EROFS, EDQUOT) puts the
//     stream out of use for writing, until it is opened anew: nothing tries again
//     when the disk is well. Publishes to it get no answer at all. Reads go on, and
//     so do other streams. JetStream itself stays enabled: only a server in a
//     cluster gives up all of it for want of space.
//   - EPERM or EACCES stops all of JetStream, reads too.
//   - A purge that fails half way does the first, but the health check learns of
//     it only with the next write. The purge is complete in memory, and undone or
//     half done after the stream is opened again.
//   - An atomic batch that cannot be staged is refused, with an answer, and harms
//     nothing. One that fails while it is committed is completed when the stream is
//     opened again.
//   - The index that the server writes every two minutes may fail: the next start
//     reads the blocks instead, and is slower. It is rewritten in place, so it may
//     take the last of the disk from an append.
//   - A stream that cannot be opened at a start is left out, with a warning.
//   - A sync that takes seconds (45 were tried) delays whatever needs the stream,
//     its reads as well, and kills nothing. 128 MiB or 100 000 messages may wait for a
//     stream; what comes above that is refused. Nor does a connection end: in memory
//     only a client that does not read for ten seconds is dropped.
//
// Each of these is written to the server's log in the same moment, and that wakes
// Supervise. What the operating system adds: after a failed sync it holds the pages
// for written (see settle), and ext4 tells a sync under way while it turns
// read-only that all is well. Against the latter nothing helps.
package cluster

import (
	"github.com/cespare/xxhash/v2"
)

// Slots is the number of slots that names fall into. It is fixed for ever.
const Slots = 4096

// Slot is the slot of a name.
func Slot(name string) uint16 { return uint16(xxhash.Sum64String(name) % Slots) }

// Partition is the partition, of n, that a slot belongs to. Partitions are
// ranges of slots, as even as can be; n is at least 1 and at most Slots.
func Partition(slot uint16, n int) int { return int(slot) * n / Slots }

// maxPartitions is how many partitions a data directory may speak of.
const maxPartitions = Slots
