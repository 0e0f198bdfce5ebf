package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Status is the cluster as one node sees it, for operators.
type Status struct {
	ClusterID   string            `json:"clusterId"`
	ClusterName string            `json:"clusterName"`
	Node        string            `json:"node"` // who says this
	Term        uint64            `json:"term"`
	Leader      string            `json:"leader"`  // an id, or empty
	Version     uint64            `json:"version"` // of the table
	Settled     uint64            `json:"settled"` // the version up to which no older owner can answer
	Lease       time.Duration     `json:"leaseNanoseconds"`
	Members     []MemberStatus    `json:"members"`
	Partitions  []PartitionStatus `json:"partitions"`
}

// MemberStatus is one member.
type MemberStatus struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Role        Role   `json:"role"`
	Incarnation uint64 `json:"incarnation"`
	Alive       bool   `json:"alive"`
	Draining    bool   `json:"draining"`
	Replaced    bool   `json:"replaced"` // its name was taken over; it is about to be removed
	Votes       bool   `json:"votes"`
	NATS        string `json:"nats"`
	Raft        string `json:"raft"`
	URL         string `json:"url"`
	// LastContact is how long ago the leader last heard from it; nil when this node
	// does not lead, or has not heard from it.
	LastContact *time.Duration `json:"lastContactNanoseconds"`
}

// PartitionStatus is one partition.
type PartitionStatus struct {
	Owner    string   `json:"owner"` // an id, or empty
	Epoch    uint64   `json:"epoch"`
	Replicas []string `json:"replicas"`
	Wanted   string   `json:"wanted"` // an id: where an operator wants it
}

// Status is the cluster as this node sees it. Before Run runs it is empty.
func (r *Raft) Status() Status {
	select {
	case <-r.running:
	default:
		return Status{Node: r.o.Self.ID}
	}
	v := r.view.Load()
	_, leader := r.raft.LeaderWithID()
	s := Status{
		ClusterID: v.cluster, ClusterName: v.name, Node: r.o.Self.ID, Term: r.raft.CurrentTerm(), Leader: string(leader),
		Version: v.changed, Settled: r.settled.Load(), Lease: max(0, time.Duration(r.until.Load()-r.now())),
	}
	votes := make(map[string]bool)
	for _, server := range r.raft.GetConfiguration().Configuration().Servers {
		votes[string(server.ID)] = server.Suffrage == raft.Voter
	}
	for _, m := range v.sortedMembers() {
		s.Members = append(s.Members, MemberStatus{
			ID: m.ID, Name: m.Name, Role: m.Role, Incarnation: m.Incarnation, Alive: m.Alive, Draining: m.Draining, Replaced: m.replaced,
			Votes: votes[m.ID], NATS: m.NATS, Raft: m.Raft, URL: m.URL, LastContact: r.lead.lastContact(r, m.ID),
		})
	}
	for _, p := range v.partitions {
		s.Partitions = append(s.Partitions, PartitionStatus{Owner: p.owner, Epoch: p.epoch, Replicas: p.replicas, Wanted: p.wanted})
	}
	return s
}

// ClusterStatus is the cluster as the leader sees it, who knows who has been heard of.
func (r *Raft) ClusterStatus(ctx context.Context) (Status, error) {
	b, err := r.request(ctx, encodeRequest(requestStatus, change{}))
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return Status{}, fmt.Errorf("status of the leader: %w", err)
	}
	return s, nil
}

func (l *leading) lastContact(r *Raft, id string) *time.Duration {
	now := r.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.nodes[id]; l.term != 0 && c != nil && c.heard > 0 {
		d := time.Duration(now - c.heard)
		return &d
	}
	return nil
}
