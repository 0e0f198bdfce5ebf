package record

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// counters are written by the owner and read by metrics.
type counters struct {
	faults       atomic.Int64 // stores that failed and are not back
	barred       atomic.Int64 // owners without a lease, for so long that they refuse
	writes       atomic.Int64
	refused      atomic.Int64
	conflicts    atomic.Int64
	denied       atomic.Int64
	commits      atomic.Int64
	committed    atomic.Int64
	appendErrors atomic.Int64
	loads        atomic.Int64
	loadErrors   atomic.Int64
	cacheBytes   atomic.Int64
	cacheRecords atomic.Int64
	waited       atomic.Int64
	forwarded    atomic.Int64
	received     atomic.Int64
	resent       atomic.Int64
	moved        atomic.Int64
	resyncs      atomic.Int64
	interests    atomic.Int64
}

// Stats are the room's numbers since start; CacheBytes and CacheRecords are now.
type Stats struct {
	Writes       int64 // accepted
	Refused      int64 // not accepted, for whatever reason but rules
	Conflicts    int64 // refused because the version existed
	Denied       int64 // refused by rules at the owner
	Commits      int64 // batches made durable
	Committed    int64 // record states in them
	AppendErrors int64
	Loads        int64 // from the store
	LoadErrors   int64
	CacheBytes   int64
	CacheRecords int64

	Owned     int64 // partitions, now
	Waited    int64 // requests that found no owner in this node
	Forwarded int64 // requests sent to owners on other nodes
	Received  int64 // requests of other nodes
	Resent    int64 // requests that came back from another node unserved, or were lost with it
	Moved     int64 // requests of other nodes that were sent back
	Resyncs   int64 // parts of comparisons with a new owner, of some hundred names each
	Interests int64 // pairs of a name and another node that is interested, now
}

// Stats may be called from anywhere.
func (r *Room) Stats() Stats {
	c := &r.stats
	return Stats{
		Writes: c.writes.Load(), Refused: c.refused.Load(), Conflicts: c.conflicts.Load(), Denied: c.denied.Load(),
		Commits: c.commits.Load(), Committed: c.committed.Load(), AppendErrors: c.appendErrors.Load(),
		Loads: c.loads.Load(), LoadErrors: c.loadErrors.Load(),
		CacheBytes: c.cacheBytes.Load(), CacheRecords: c.cacheRecords.Load(),
		Owned: r.owned.Load(), Waited: c.waited.Load(), Forwarded: c.forwarded.Load(), Received: c.received.Load(),
		Resent: c.resent.Load(), Moved: c.moved.Load(), Resyncs: c.resyncs.Load(), Interests: c.interests.Load(),
	}
}

// Ready is nil when every partition has an owner that serves writes or can be reached,
// or says why not, in words for anybody: the cause, which may name records and files,
// is in the log. It may be called from anywhere.
func (r *Room) Ready() error {
	if r.stats.faults.Load() > 0 {
		return errors.New("the record store failed and is not back: see the log")
	}
	if r.stats.barred.Load() > 0 {
		return errNoLease
	}
	taking, away := 0, 0
	if len(r.seats()) == 0 {
		taking++
	}
	for _, s := range r.seats() {
		switch s.mu.Lock(); {
		case s.owner.Load() != nil && !s.isLost, s.link != nil && !s.draining:
		case s.busy || s.room.table.Owner(s.partition).Here:
			taking++
		default:
			away++
		}
		s.mu.Unlock()
	}
	switch {
	case taking > 0:
		return errors.New("record store is not taken over yet")
	case away > 0:
		return fmt.Errorf("%d of %d parts of the records have no owner that can be reached", away, len(r.seats()))
	}
	return nil
}
