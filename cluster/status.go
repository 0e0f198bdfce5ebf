package cluster

import (
	"context"
	"errors"
)

// ErrAlone is what a node answers that runs alone and is asked to change its cluster.
var ErrAlone = errors.New("the node runs alone")

// Status is what this node knows of its cluster, for an operator.
type Status struct {
	// ID is the cluster's, Name is empty for a node that runs alone.
	ID, Name string
	// Self, Leader are ids of members; Leader is empty when there is none.
	Self, Leader string
	// Term is raft's.
	Term uint64
	// Members are all, by name.
	Members []MemberStatus
	// Partitions are all, in order.
	Partitions []PartitionStatus
}

// MemberStatus is what is known of a member.
type MemberStatus struct {
	Member
	// Voter says whether it has a vote, Linked whether this node has a link to it.
	Voter, Linked bool
	// Address is where the others reach it.
	Address string
}

// PartitionStatus is what is known of a partition.
type PartitionStatus struct {
	Ownership
	// Replicas are the ids of the members that keep it.
	Replicas []string
}

// Status is what this node knows of its cluster, from memory.
func (p *Place) Status() Status {
	s := Status{ID: p.ClusterID(), Self: p.Self().ID}
	in := p.inner.Load()
	if in == nil {
		return s
	}
	s.Leader = s.Self
	for _, m := range p.Members() {
		s.Members = append(s.Members, MemberStatus{Member: m, Voter: true})
	}
	for i := range p.Partitions() {
		o := p.Owner(i)
		s.Partitions = append(s.Partitions, PartitionStatus{Ownership: o, Replicas: []string{o.Owner}})
	}
	return s
}

// Drain has a member give away what it owns and get nothing new, or ends that. Clients are
// not its business: the member itself sees in the table that it drains.
func (p *Place) Drain(context.Context, string, bool) error { return ErrAlone }

// Remove has the cluster forget a member that does not run any more.
func (p *Place) Remove(context.Context, string) error { return ErrAlone }

// Move makes a member the owner of a partition.
func (p *Place) Move(context.Context, int, string) error { return ErrAlone }
