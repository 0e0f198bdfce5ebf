package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hadal/cluster"
	"hadal/node/admin"
	"hadal/store/jetstream"
)

// members is the cluster as the admin API sees it.
type members struct{ node *Node }

var _ admin.Cluster = members{}

// Status implements admin.Cluster. Nodes that are alive are asked how they are.
func (m members) Status(ctx context.Context) (admin.ClusterStatus, error) {
	n := m.node
	s := n.place.Status()
	out := admin.ClusterStatus{ID: s.ClusterID, Name: s.ClusterName, Self: s.Node, Leader: s.Leader, Term: s.Term}
	owns := make(map[string]int)
	for i, p := range s.Partitions {
		owns[p.Owner]++
		out.Partitions = append(out.Partitions, admin.PartitionStatus{
			Partition: i, Owner: p.Owner, Epoch: p.Epoch, Replicas: p.Replicas, Streams: n.streams(ctx, i),
		})
	}
	out.Logins = n.loginStream(ctx)
	out.Nodes = make([]admin.NodeStatus, len(s.Members))
	var asking sync.WaitGroup
	for i, member := range s.Members {
		st := &out.Nodes[i]
		*st = admin.NodeStatus{
			ID: member.ID, Name: member.Name, Role: string(member.Role), Voter: member.Votes,
			Alive: member.Alive, Linked: n.place.Linked(member.ID), Draining: member.Draining,
			Address: member.NATS, URL: member.URL, Partitions: owns[member.ID],
		}
		if !st.Alive {
			continue
		}
		asking.Go(func() {
			// One that does not answer is shown without.
			if d, err := n.describe(ctx, st.ID); err == nil {
				st.Version, st.Clients, st.Unfit = d.Version, d.Clients, d.Unfit
			}
		})
	}
	asking.Wait()
	slices.SortFunc(out.Nodes, func(a, b admin.NodeStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// streams are those of a partition, as far as they can be asked for.
func (n *Node) streams(ctx context.Context, partition int) (out []admin.StreamStatus) {
	server := n.place.Server()
	if server == nil || n.place.Replicas(partition) == 1 {
		return nil
	}
	ctx, done := context.WithTimeout(ctx, streamTime)
	defer done()
	// Those that do not answer are left out: who looks wants to see the rest.
	all, err := jetstream.Status(ctx, server.Conn(), partition)
	if err != nil {
		n.log.Debug("stream not shown", "partition", partition, "err", err)
	}
	for _, s := range all {
		out = append(out, streamStatus(s))
	}
	return out
}

// loginStream is that of the vault, or nil where there is one node, or it is not known now.
func (n *Node) loginStream(ctx context.Context) *admin.StreamStatus {
	st := n.stored()
	if st == nil {
		return nil
	}
	l := st.loginStore()
	if l == nil || l.kept == nil {
		return nil
	}
	s, err := l.look(ctx)
	if err != nil {
		n.log.Debug("stream not shown", "stream", jetstream.VaultName, "err", err)
		return nil
	}
	if s.Wanted <= 1 && n.place.Replicas(0) == 1 { // as with the partitions'
		return nil
	}
	out := streamStatus(s)
	return &out
}

// streamStatus is a stream in the words of the admin API.
func streamStatus(s jetstream.StreamStatus) admin.StreamStatus {
	st := admin.StreamStatus{Name: s.Stream, Leader: s.Leader, Replicas: s.Wanted, Messages: s.Messages, Bytes: s.Bytes}
	for _, r := range s.Replicas {
		if r.Current && !r.Offline {
			st.Current++
		} else {
			st.Behind = append(st.Behind, admin.Behind{Node: r.Server, Lag: r.Lag, Offline: r.Offline, Seen: r.Seen.Seconds()})
		}
		st.Lag = max(st.Lag, r.Lag)
	}
	return st
}

// streamTime bounds the questions about the streams of a partition.
const streamTime = 2 * time.Second

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
	leaderless := (*cluster.NotLeaderError)(nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrAlone):
		return fmt.Errorf("%w: %w", admin.ErrNotPossible, err)
	case errors.As(err, &leaderless):
		return fmt.Errorf("%w: %w", admin.ErrNoQuorum, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, cluster.ErrUnknownMember):
		return fmt.Errorf("%w: %w", admin.ErrNoSuchNode, err)
	}
	return fmt.Errorf("%w: %w", admin.ErrNotPossible, err)
}
