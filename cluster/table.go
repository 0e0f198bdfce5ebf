package cluster

// Member is one node of the cluster.
type Member struct {
	// ID is random, made when the node's data directory was; it is what the node
	// is. Name is for people.
	ID, Name string
	// Incarnation rises with every start of the node.
	Incarnation uint64
	// Alive says whether the cluster counts on the node now. What a node that is not
	// alive held (users, providers, partitions) is not there any more.
	Alive bool
	// Role is what the node does for the cluster.
	Role Role
	// Draining says that the node is about to leave: it gets nothing new to own.
	Draining bool
	// URL is where clients reach this node by itself, or empty.
	URL string
}

// Role is what a node does for the cluster beside serving clients.
type Role string

// The roles.
const (
	// RoleCore nodes vote and keep data.
	RoleCore Role = "core"
	// RoleEdge nodes carry clients only: they own nothing and keep nothing.
	RoleEdge Role = "edge"
)

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
	// Holds says whether this node may answer as the owner of a partition at this very
	// moment: the table says that it is, and it has heard from the cluster so lately
	// that nobody can have been made owner in its place (its lease). Whoever answers
	// from an owner's memory asks first.
	Holds(partition int) bool
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
		self: Member{ID: dir.NodeID(), Name: name, Incarnation: dir.Epoch(), Alive: true, Role: RoleCore},
	}
}

// NewSoloInMemory returns the table of a node that keeps nothing, under epoch 1.
func NewSoloInMemory(name string) *Solo {
	return &Solo{cluster: newID(), partitions: 1, epoch: 1, self: Member{ID: newID(), Name: name, Incarnation: 1, Alive: true, Role: RoleCore}}
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

// Holds implements Table: nobody else is there.
func (s *Solo) Holds(partition int) bool { return s.Owner(partition).Here }

// Changed implements Table: never.
func (s *Solo) Changed() <-chan struct{} { return nil }
