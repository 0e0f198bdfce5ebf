package cluster

import (
	"errors"
	"fmt"
	"sync"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats-server/v2/server"
)

// JetStream's raft elects a new leader 4 to 9 seconds after the old one died. These
// times are variables of the server's package that no option sets. With the ones
// below a group notices by itself within 2 to 4.5 seconds, and a group whose leader the
// table has declared dead is told to elect another at once (elect.go), by a function that
// is not exported either. They are reached by the directive go:linkname, which nobody
// upstream promises to keep working:
//
//   - a function that went away or changed its name fails the link of this program;
//   - a variable that did is found when it is read for the first time: the one here
//     is then a variable of our own, and empty (errNoTimers);
//   - that the server uses what was set is checked through functions of its own;
//   - TestALeaderThatDiesIsReplacedSoon fails when elections take long all the same, and
//     TestGroupsElectWhenTold when they are not begun by being told to.
//
// ClusterOptions.StockTimers leaves them as they are.

//go:linkname natsMinElection github.com/nats-io/nats-server/v2/server.minElectionTimeout
var natsMinElection time.Duration

//go:linkname natsMaxElection github.com/nats-io/nats-server/v2/server.maxElectionTimeout
var natsMaxElection time.Duration

//go:linkname natsHeartbeat github.com/nats-io/nats-server/v2/server.hbInterval
var natsHeartbeat time.Duration

//go:linkname natsLostQuorum github.com/nats-io/nats-server/v2/server.lostQuorumInterval
var natsLostQuorum time.Duration

//go:linkname natsLostQuorumCheck github.com/nats-io/nats-server/v2/server.lostQuorumCheck
var natsLostQuorumCheck time.Duration

//go:linkname natsMinCampaign github.com/nats-io/nats-server/v2/server.minCampaignTimeout
var natsMinCampaign time.Duration

//go:linkname natsMaxCampaign github.com/nats-io/nats-server/v2/server.maxCampaignTimeout
var natsMaxCampaign time.Duration

//go:linkname natsRandElection github.com/nats-io/nats-server/v2/server.randElectionTimeout
func natsRandElection() time.Duration

//go:linkname natsWithinLiveWindow github.com/nats-io/nats-server/v2/server.withinLiveWindow
func natsWithinLiveWindow(at time.Time) bool

//go:linkname natsRandCampaign github.com/nats-io/nats-server/v2/server.randCampaignTimeout
func natsRandCampaign() time.Duration

// natsRaftNode is a server's member of the raft group of that name, or nil. A method is
// a function whose first argument is the receiver.
//
//go:linkname natsRaftNode github.com/nats-io/nats-server/v2/server.(*Server).lookupRaftNode
func natsRaftNode(srv *server.Server, group string) server.RaftNode

// timers are the times of JetStream's raft.
type timers struct {
	minElection, maxElection time.Duration // how long a follower waits for its leader
	minCampaign, maxCampaign time.Duration // and one that is told to stand for election, until it does
	heartbeat                time.Duration // of an idle leader: it sends one each time
	lostQuorum               time.Duration // without a majority's answer the leader steps down
	lostQuorumCheck          time.Duration // how often it looks
}

// stockTimers are those of nats-server 2.15.
var stockTimers = timers{
	minElection: 4 * time.Second, maxElection: 9 * time.Second,
	minCampaign: 100 * time.Millisecond, maxCampaign: 800 * time.Millisecond,
	heartbeat: time.Second, lostQuorum: 10 * time.Second, lostQuorumCheck: 10 * time.Second,
}

// fastTimers let an idle cluster be idle: each heartbeat of each of its groups, two for
// each partition, wakes every replica and then the leader again. They need not be frequent
// to replace a dead leader soon, as it is the table that finds out who is dead. What
// is left to these times is a leader that lives by the table and is silent all the same; a
// follower waits for more than a second longer than it is silent, for a machine that is busy.
var fastTimers = timers{
	minElection: 2250 * time.Millisecond, maxElection: 4250 * time.Millisecond,
	minCampaign: 20 * time.Millisecond, maxCampaign: 100 * time.Millisecond,
	heartbeat: time.Second, lostQuorum: 3 * time.Second, lostQuorumCheck: time.Second,
}

// errNoTimers means that the timers cannot be set in this program.
var errNoTimers = errors.New("the election timers of this nats-server are not where version 2.15 has them, so a new leader takes up to ten seconds; " +
	"set cluster.fastFailover to false to accept that, or run a version of hadal that was tested with it")

// timersInUse counts the servers that run with the timers as they are. They are read
// without a lock, so they may change only while there is none.
var timersInUse struct {
	mu      sync.Mutex
	servers int // guarded by mu
}

func currentTimers() timers {
	return timers{
		minElection: natsMinElection, maxElection: natsMaxElection, minCampaign: natsMinCampaign, maxCampaign: natsMaxCampaign,
		heartbeat: natsHeartbeat, lostQuorum: natsLostQuorum, lostQuorumCheck: natsLostQuorumCheck,
	}
}

// useTimers sets the timers for a server that is about to start, and checks that it
// will go by them. The caller calls release when the server has ended.
func useTimers(t timers) (release func(), err error) {
	u := &timersInUse
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := currentTimers(); now != t {
		if now != stockTimers && now != fastTimers {
			return nil, errNoTimers
		}
		if u.servers > 0 {
			return nil, errors.New("another server in this process runs with other election timers")
		}
		natsMinElection, natsMaxElection, natsHeartbeat = t.minElection, t.maxElection, t.heartbeat
		natsMinCampaign, natsMaxCampaign = t.minCampaign, t.maxCampaign
		natsLostQuorum, natsLostQuorumCheck = t.lostQuorum, t.lostQuorumCheck
		if err := t.used(); err != nil {
			return nil, err
		}
	}
	u.servers++
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.servers--
	}), nil
}

// used asks the server's own functions whether they go by the timers.
func (t timers) used() error {
	for range 16 {
		if got := natsRandElection(); got < t.minElection || got > t.maxElection {
			return fmt.Errorf("%w (an election waits %v, set were %v to %v)", errNoTimers, got, t.minElection, t.maxElection)
		}
	}
	for range 16 {
		if got := natsRandCampaign(); got < t.minCampaign || got > t.maxCampaign {
			return fmt.Errorf("%w (a candidate waits %v, set were %v to %v)", errNoTimers, got, t.minCampaign, t.maxCampaign)
		}
	}
	now := time.Now()
	// A peer counts as alive for three heartbeats.
	if !natsWithinLiveWindow(now.Add(-t.heartbeat)) || natsWithinLiveWindow(now.Add(-4*t.heartbeat)) {
		return fmt.Errorf("%w (heartbeats are not %v apart)", errNoTimers, t.heartbeat)
	}
	return nil
}
