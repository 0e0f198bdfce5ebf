package cluster

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// A follower stands for election when it has heard nothing from the leader for 0.5 to 1
// FailureTimeout, as the leader may be slow, or the network. When the leader's process
// has ended there is nothing to wait for: its system says so, by ending the stream on
// which this node asked and refusing the next one. Then a follower stands at once, so
// that there is a new leader, most often, before the leases that the old one gave
// have ended.
//
// All that depends on elections holds whatever makes a node stand. Raft elects one
// leader a term, one that has everything that was agreed on; a node that has voted
// follows the old leader no more, so leaderProof is right; and a new leader waits for
// the leases of the old one from the moment when it begins. What is lost by standing for
// nothing is a change of leaders. Something else than the leader's system may refuse
// streams, such as a firewall, so a node stands once for each stream that was taken.
//
// If all followers stood together they would split the votes and wait for a timeout
// after all. So each has its turn, standApart ticks later than the one before, in the order
// of their ids, and stands only while it was not asked for its vote.

// standApart is enough for a vote over a connection that has still to be made, on a machine
// that is busy.
const standApart = 2

// lostLeader is what a node makes of a leader that it cannot reach.
type lostLeader struct {
	leader raft.ServerID // whose stream, that was taken, has ended; or empty
	turns  int           // how many ticks others go before this node
	due    bool          // the leader's process has ended
}

// ended notes that a stream to a leader has, which was taken.
func (f *lostLeader) ended(leader raft.ServerID) { *f = lostLeader{leader: leader} }

// failed notes that there is no stream to a leader, and says whether this node shall
// stand for election. It is called once a tick.
func (f *lostLeader) failed(leader raft.ServerID, err error, turns func() int) bool {
	if f.leader != leader || !f.due && !errors.Is(err, syscall.ECONNREFUSED) {
		return false
	}
	if !f.due {
		f.due, f.turns = true, standApart*turns()
	}
	if f.turns > 0 {
		f.turns--
		return false
	}
	*f = lostLeader{}
	return true
}

// turnsBefore is how many voters go before this node when the leader has ended.
func (r *Raft) turnsBefore(leader raft.ServerID) (n int) {
	self := raft.ServerID(r.o.Self.ID)
	for _, s := range r.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID != leader && s.ID < self {
			n++
		}
	}
	return n
}

// stand has this node stand for election, if it votes and still follows that leader. It
// tells raft what a leader that leaves tells the one that it has chosen.
func (r *Raft) stand(leader raft.ServerID) {
	votes := slices.ContainsFunc(r.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool {
		return s.Suffrage == raft.Voter && s.ID == raft.ServerID(r.o.Self.ID)
	})
	if _, now := r.raft.LeaderWithID(); !votes || now != leader || r.raft.State() != raft.Follower {
		return
	}
	r.o.Log.Info("the leader's process has ended: standing for election", "peer", string(leader))
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{RespChan: answer, Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}}
	late := time.NewTimer(time.Duration(r.parts.answer))
	defer late.Stop()
	select {
	case r.transport.orders <- rpc:
	case <-r.streams.closed:
	case <-late.C: // raft is busy; its own timeout will do
	}
}
