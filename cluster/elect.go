package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// A group of JetStream's raft misses its leader only when that has been silent for long
// (timers.go). The table knows sooner who is dead, and who is to own what instead. So
// each node, when it learns that another is dead, has those of its groups that the dead
// one led elect a new leader: first the server of the new owner, whose streams its server
// is to lead anyway, then, one after the other, those that keep a replica, in case
// that one lacks something or does not answer.
//
// A new leader counts as one when what it begins with is agreed on. When it has to send a
// replica what that lacks first, which is usual under load, it learns that the replica has
// it from the answer to its next heartbeat only, so it is had to send one soon.
//
// The table may be wrong about who is dead. All that raft promises holds whoever stands for
// election and whenever: there is one leader a term, and it has all that was acknowledged. A
// leader that lives is followed no more, learns it with its next message, and what it had
// not agreed on with a majority is refused.
const (
	// electApart is enough for an election on a machine that is busy: a candidate waits up to
	// a tenth of a second, and writes its vote to the disk before it asks for others'.
	electApart = 300 * time.Millisecond
	// electTurns is after how many of them the groups are left to themselves.
	electTurns = 10
	// electLook is how often it is seen after who leads meanwhile.
	electLook = 25 * time.Millisecond
)

// metaGroup is what the server calls the group that all streams are made and moved by.
const metaGroup = "_meta_"

// elect has the groups of this server elect new leaders when nodes die, until ctx ends.
func (j *joined) elect(ctx context.Context) error {
	known := make(map[string]bool)
	for {
		changed := j.raft.Changed()
		dead := j.dead()
		found := slices.ContainsFunc(dead, func(id string) bool { return !known[id] })
		clear(known)
		for _, id := range dead {
			known[id] = true
		}
		if found {
			j.electWithout(ctx)
			// Who has died meanwhile was seen to by the later turns, but maybe by too few.
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// dead are the ids of the other core nodes that do not live, by the table.
func (j *joined) dead() (ids []string) {
	self := j.dir.NodeID()
	for _, p := range j.raft.Peers() {
		if p.Role == RoleCore && !p.Alive && p.ID != self {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// electWithout has every group that a dead node leads elect another leader, and returns
// when none is left, or after electTurns.
func (j *joined) electWithout(ctx context.Context) {
	groups := make(map[string]string)
	tick := time.NewTicker(electLook)
	defer tick.Stop()
	for turn := range electTurns {
		err := j.server.campaign(j.dead(), groups, func(stream string) bool { return j.stands(stream, turn) })
		if err != nil {
			j.log.Debug("no elections held", "err", err)
		}
		for next := time.Now().Add(electApart); time.Now().Before(next); {
			if j.server.settleLeaders(j.dead(), groups) == 0 && err == nil {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// stands says whether it is this node's turn to stand for election in a stream's group,
// or in the meta group, whose name is empty.
func (j *joined) stands(stream string, turn int) bool {
	var order []string
	if stream == "" {
		_, leads := j.raft.raft.LeaderWithID() // no node is in better touch with the others
		order = append(order, string(leads))
		for _, p := range j.raft.Peers() {
			if p.Role == RoleCore {
				order = append(order, p.ID)
			}
		}
	} else if partition, ok := j.partitionOf(stream); ok {
		order = append([]string{j.raft.Owner(partition).Owner}, j.raft.Replicas(partition)...)
	}
	return inTurn(order, j.dead(), turn) == j.dir.NodeID()
}

// partitionOf is Options.Partition.
func (j *joined) partitionOf(stream string) (int, bool) {
	if of := j.server.opts.Partition; of != nil {
		return of(stream)
	}
	return 0, false
}

// inTurn is whose turn it is of the nodes in order that are not dead, each named once or
// more, or empty when there is none. After the last it is the first's again.
func inTurn(order, dead []string, turn int) string {
	var living []string
	for _, id := range order {
		if id != "" && !slices.Contains(living, id) && !slices.Contains(dead, id) {
			living = append(living, id)
		}
	}
	if len(living) == 0 {
		return ""
	}
	return living[turn%len(living)]
}

// campaign has this server stand for election in those of its groups that a dead node, by
// its id, leads, and for which stands says so; the stream of the meta group is empty. It
// adds these groups and their streams to concerned, and does the same in those that nobody
// leads now (orphaned).
func (s *Server) campaign(dead []string, concerned map[string]string, stands func(stream string) bool) error {
	srv := s.server()
	if srv == nil {
		return errStopped
	}
	groups := map[string]string{metaGroup: ""} // to their streams
	account, err := srv.JszAccount(&server.JSzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Streams: true, RaftGroups: true})
	if err == nil {
		for _, stream := range account.Streams {
			if stream.RaftGroup != "" {
				groups[stream.RaftGroup] = stream.Name
			}
		}
	}
	for group, stream := range groups {
		node := natsRaftNode(srv, group)
		if node == nil { // of one replica, or on its way out
			continue
		}
		_, again := concerned[group]
		if !ledBy(node, dead) && !orphaned(node, again) {
			continue
		}
		concerned[group] = stream
		if !stands(stream) {
			continue
		}
		s.log.Debug("standing for election", "stream", stream, "group", group)
		// It leads already when it has just been elected.
		if e := node.Campaign(); e != nil && node.State() != server.Leader {
			err = errors.Join(err, e)
		}
	}
	return err
}

// orphaned says whether nobody leads a group. Its leader may have died just when it was
// about to lead: an owner has the leaders of its streams moved to its server. A member that
// is new here may merely not have heard from its leader yet, so it does not count, unless it
// did before: then its election has failed, or takes long.
func orphaned(node interface {
	GroupLeader() string
	Created() time.Time
}, again bool) bool {
	return node.GroupLeader() == "" && (again || time.Since(node.Created()) >= fastTimers.minElection)
}

// ledBy says whether a group is led by one of the nodes, as far as its member here knows.
func ledBy(node server.RaftNode, ids []string) bool {
	leader := node.GroupLeader()
	return leader != "" && slices.ContainsFunc(ids, func(id string) bool { return peerID(id) == leader })
}

// settleLeaders has those of the groups that this server has come to lead send heartbeats
// until their leader counts as one. left is how many groups have none yet, here or elsewhere.
func (s *Server) settleLeaders(dead []string, groups map[string]string) (left int) {
	srv := s.server()
	if srv == nil {
		return 0
	}
	for group := range groups {
		node := natsRaftNode(srv, group)
		switch {
		case node == nil:
		case node.State() == server.Leader:
			if !node.Leader() {
				left++
				node.SendHeartbeat()
			}
		case node.GroupLeader() == "" || ledBy(node, dead):
			left++
		}
	}
	return left
}
