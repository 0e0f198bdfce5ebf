package cluster

import (
	"context"
	"errors"
)

// ErrAlone is what a node answers that runs alone and is asked to change its cluster.
var ErrAlone = errors.New("the node runs alone")

// Status is what this node knows of its cluster.
func (p *Place) Status() Status {
	in := p.inner.Load()
	switch {
	case in == nil:
		return Status{}
	case in.joined != nil:
		return in.joined.raft.Status()
	}
	self := in.table.Self()
	s := Status{ClusterID: in.table.ClusterID(), Node: self.ID, Leader: self.ID, Members: []MemberStatus{{
		ID: self.ID, Name: self.Name, Role: self.Role, Incarnation: self.Incarnation, Alive: true, Votes: true,
	}}}
	for i := range in.table.Partitions() {
		o := in.table.Owner(i)
		s.Partitions = append(s.Partitions, PartitionStatus{Owner: o.Owner, Epoch: o.Epoch, Replicas: []string{o.Owner}})
	}
	return s
}

// Fit says whether this node can write what it keeps, so that it may own records. It may be called
// from anywhere.
func (p *Place) Fit() bool {
	in := p.inner.Load()
	switch {
	case in == nil:
		return true
	case in.joined != nil:
		return !in.joined.raft.isUnfit.Load()
	}
	server := p.Server()
	return server == nil || server.hasRoom(0) == nil
}

// Drain has a member give away what it owns and get nothing new, or ends that. Its clients
// are not the cluster's business: the member sees in the table that it drains.
func (p *Place) Drain(ctx context.Context, id string, on bool) error {
	return p.change(func(r *Raft) error { return r.Drain(ctx, id, on) })
}

// Remove has the cluster forget a member that does not run any more.
func (p *Place) Remove(ctx context.Context, id string) error {
	return p.change(func(r *Raft) error { return r.RemoveMember(ctx, id) })
}

// Move makes a member the owner of a partition.
func (p *Place) Move(ctx context.Context, partition int, id string) error {
	return p.change(func(r *Raft) error { return r.Move(ctx, partition, id) })
}

func (p *Place) change(do func(*Raft) error) error {
	in := p.inner.Load()
	if in == nil || in.joined == nil {
		return ErrAlone
	}
	return do(in.joined.raft)
}

// Reload reads the certificates for other nodes again, where these are files; connections
// that exist stay. On an error all is as it was.
func (p *Place) Reload() error {
	in := p.inner.Load()
	if in == nil || in.joined == nil {
		return nil
	}
	return in.joined.identity.renew()
}

// PlaceStats are gauges and counters of what the nodes of a cluster say to each other.
type PlaceStats struct {
	// Term is raft's.
	Term uint64
	// Links, Port and Slots are about the links, the port for other nodes, and the slots.
	Links LinksStats
	Port  PortStats
	Slots SlotStats
}

// Stats returns the numbers of this moment; ok is false on a node that runs alone.
func (p *Place) Stats() (s PlaceStats, ok bool) {
	in := p.inner.Load()
	if in == nil || in.joined == nil {
		return s, false
	}
	j := in.joined
	return PlaceStats{Term: j.raft.Status().Term, Links: j.links.Stats(), Port: j.port.Stats(), Slots: j.slots.Stats()}, true
}
