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
//     listens on no port; this process talks to it in memory.
//   - Solo is the Table of one member, which owns every partition, under an epoch
//     that rises with each start. It never changes.
//
// The cluster adds, behind the same Table, a raft group that holds members,
// partitions and epochs; routes between the embedded servers; lanes (ordered
// requests from node to node), slot subjects for broadcasts, and replicated sets.
// Nothing outside this room asks whether there is more than one node.
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

// Member is one node of the cluster.
type Member struct {
	// ID is random, made when the node's data directory was; it is what the node
	// is. Name is for people.
	ID, Name string
	// Incarnation rises with every start of the node.
	Incarnation uint64
	// Alive says whether the cluster counts on the node now.
	Alive bool
}

// Ownership says who owns a partition. The zero value is nobody.
type Ownership struct {
	// Owner is the member's ID.
	Owner string
	// Epoch rises whenever the partition changes hands or its owner restarts. The
	// owner fences its store under it.
	Epoch uint64
	// Here is true on the owner itself.
	Here bool
}

// Table says who is in the cluster and who owns what, as this node knows it. It
// may be asked from anywhere at any time, and answers from memory.
type Table interface {
	// ClusterID is random, made with the cluster.
	ClusterID() string
	// Self is this node.
	Self() Member
	// Members are all nodes, this one among them. The slice is the caller's.
	Members() []Member
	// Partitions is the number of partitions, fixed when the cluster was made.
	Partitions() int
	// Owner says who owns a partition, from 0.
	Owner(partition int) Ownership
	// Changed returns a channel that is closed at the next change of the table,
	// or nil when it never changes. Take it before asking, or miss a change.
	Changed() <-chan struct{}
}

// Solo is the Table of a node that runs alone: it owns every partition.
type Solo struct {
	cluster    string
	self       Member
	partitions int
	epoch      uint64
}

var _ Table = (*Solo)(nil)

// NewSolo returns the table of a node alone on its data directory. The epoch is
// the directory's, which rose when it was opened.
func NewSolo(dir *Dir, name string) *Solo {
	return &Solo{
		cluster: dir.ClusterID(), partitions: dir.Partitions(), epoch: dir.Epoch(),
		self: Member{ID: dir.NodeID(), Name: name, Incarnation: dir.Epoch(), Alive: true},
	}
}

// NewSoloInMemory returns the table of a node that keeps nothing, under epoch 1.
func NewSoloInMemory(name string) *Solo {
	return &Solo{cluster: newID(), partitions: 1, epoch: 1, self: Member{ID: newID(), Name: name, Incarnation: 1, Alive: true}}
}

// ClusterID implements Table.
func (s *Solo) ClusterID() string { return s.cluster }

// Self implements Table.
func (s *Solo) Self() Member { return s.self }

// Members implements Table.
func (s *Solo) Members() []Member { return []Member{s.self} }

// Partitions implements Table.
func (s *Solo) Partitions() int { return s.partitions }

// Owner implements Table. A partition that does not exist has no owner.
func (s *Solo) Owner(partition int) Ownership {
	if partition < 0 || partition >= s.partitions {
		return Ownership{}
	}
	return Ownership{Owner: s.self.ID, Epoch: s.epoch, Here: true}
}

// Changed implements Table: never.
func (s *Solo) Changed() <-chan struct{} { return nil }

// maxPartitions is how many partitions a data directory may speak of.
const maxPartitions = Slots
