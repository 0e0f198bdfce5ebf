package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"hadal/cluster"
	"hadal/node/admin"
)

// members is the cluster as the admin API sees it.
type members struct{ node *Node }

var _ admin.Cluster = members{}

// Status implements admin.Cluster.
func (m members) Status(context.Context) (admin.ClusterStatus, error) {
	n := m.node
	s := n.place.Status()
	out := admin.ClusterStatus{ID: s.ID, Name: s.Name, Self: s.Self, Leader: s.Leader, Term: s.Term}
	owns := make(map[string]int)
	for i, p := range s.Partitions {
		owns[p.Owner]++
		out.Partitions = append(out.Partitions, admin.PartitionStatus{Partition: i, Owner: p.Owner, Epoch: p.Epoch, Replicas: p.Replicas})
	}
	for _, member := range s.Members {
		st := admin.NodeStatus{
			ID: member.ID, Name: member.Name, Role: string(member.Role), Voter: member.Voter,
			Alive: member.Alive, Linked: member.Linked, Draining: member.Draining,
			Address: member.Address, URL: member.URL, Partitions: owns[member.ID],
		}
		if member.ID == s.Self {
			st.Version, st.Clients = Version, n.clients()
		}
		out.Nodes = append(out.Nodes, st)
	}
	slices.SortFunc(out.Nodes, func(a, b admin.NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// clients is how many connections there are.
func (n *Node) clients() int { return len(n.endpoint.Conns()) }

// Drain implements admin.Cluster.
func (m members) Drain(ctx context.Context, node string, on bool) error {
	id, err := m.find(node)
	if err != nil {
		return err
	}
	return translateCluster(m.node.place.Drain(ctx, id, on))
}

// Remove implements admin.Cluster.
func (m members) Remove(ctx context.Context, node string) error {
	id, err := m.find(node)
	if err != nil {
		return err
	}
	return translateCluster(m.node.place.Remove(ctx, id))
}

// Move implements admin.Cluster.
func (m members) Move(ctx context.Context, partition int, node string) error {
	id, err := m.find(node)
	if err != nil {
		return err
	}
	if n := m.node.place.Partitions(); partition < 0 || partition >= n {
		return fmt.Errorf("%w: there are the partitions 0 to %d", admin.ErrNotPossible, n-1)
	}
	return translateCluster(m.node.place.Move(ctx, partition, id))
}

// find is the id of a node that is named by its id or its name. Of two of one name, one of
// which has gone, it is the other.
func (m members) find(node string) (string, error) {
	found := ""
	for _, member := range m.node.place.Members() {
		switch {
		case member.ID == node:
			return node, nil
		case member.Name == node && (found == "" || member.Alive):
			found = member.ID
		}
	}
	if found == "" {
		return "", fmt.Errorf("%w: %q", admin.ErrNoSuchNode, node)
	}
	return found, nil
}

// translateCluster gives an error of the cluster the meaning that the admin API knows.
func translateCluster(err error) error {
	if errors.Is(err, cluster.ErrAlone) {
		return fmt.Errorf("%w: %w", admin.ErrNotPossible, err)
	}
	return err
}
