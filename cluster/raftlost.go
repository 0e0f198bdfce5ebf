package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/hashicorp/raft"
)

// A member hears from its leader that it was removed, or that another process has taken
// its place. One that was cut off at that time never does: nobody calls it any more, and
// those whom it asks for their votes say no. So a member that has had no leader for long
// asks the others what they know of it.

// lostAfter is after how many FailureTimeouts without a leader, and how often then.
const lostAfter = 4

// leaderless is since when a node has had no leader.
type leaderless struct {
	since int64 // or 0
}

// due says whether it is time to ask around. It is called once a tick.
func (l *leaderless) due(now int64, leader raft.ServerID, after int64) bool {
	switch {
	case leader != "":
		l.since = 0
	case l.since == 0:
		l.since = now
	case now-l.since >= after:
		l.since = now
		return true
	}
	return false
}

// askAround asks all other members for one that leads, and that one for this node.
func (r *Raft) askAround(ctx context.Context) {
	if !r.member.Load() {
		return
	}
	ctx, done := context.WithTimeout(ctx, r.o.FailureTimeout)
	defer done()
	v := r.view.Load()
	request := encodeRequest(requestStatus, change{})
	var try []raft.ServerAddress
	for _, m := range v.sortedMembers() {
		if m.ID != r.o.Self.ID {
			try = append(try, raftAddress(m.ID, m.Raft))
		}
	}
	for i := 0; i < len(try) && i < 2*len(v.members) && ctx.Err() == nil; i++ {
		b, err := r.ask(ctx, try[i], request)
		if err == nil {
			r.judgeSelf(v, b)
			return
		}
		var not *NotLeaderError
		if !errors.As(err, &not) || not.Address == "" {
			continue
		}
		if leader := raftAddress(not.Leader, not.Address); not.Leader != r.o.Self.ID && !slices.Contains(try, leader) {
			try = append(try, leader)
		}
	}
}

// judgeSelf takes from a leader's status whether this process has a place in the cluster.
func (r *Raft) judgeSelf(v *tableView, status []byte) {
	var s Status
	if err := json.Unmarshal(status, &s); err != nil || s.ClusterID != v.cluster {
		r.o.Log.Warn("peer misbehaves", "cluster", s.ClusterID, "err", err)
		return
	}
	i := slices.IndexFunc(s.Members, func(m MemberStatus) bool { return m.ID == r.o.Self.ID })
	switch {
	case i < 0:
		r.placeless(ErrRemoved)
	case s.Members[i].Incarnation > r.o.Self.Incarnation:
		r.placeless(ErrOldIncarnation)
	}
}

// lostTime is lostAfter by Raft.now.
func (r *Raft) lostTime() int64 { return int64(lostAfter * r.o.FailureTimeout) }
