package record

import (
	"errors"
	"sync/atomic"
)

// counters are written by the owner and read by metrics.
type counters struct {
	ready        atomic.Bool
	fault        atomic.Bool // the store failed and is not back
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
}

// Stats may be called from anywhere.
func (r *Room) Stats() Stats {
	c := &r.stats
	return Stats{
		Writes: c.writes.Load(), Refused: c.refused.Load(), Conflicts: c.conflicts.Load(), Denied: c.denied.Load(),
		Commits: c.commits.Load(), Committed: c.committed.Load(), AppendErrors: c.appendErrors.Load(),
		Loads: c.loads.Load(), LoadErrors: c.loadErrors.Load(),
		CacheBytes: c.cacheBytes.Load(), CacheRecords: c.cacheRecords.Load(),
	}
}

// Ready is nil when the room serves writes, or says why it does not, in words
// for anybody: the cause, which may name records and files, is in the log. It may
// be called from anywhere.
func (r *Room) Ready() error {
	if r.stats.fault.Load() {
		return errors.New("the record store failed and is not back: see the log")
	}
	if !r.stats.ready.Load() {
		return errors.New("record store is not taken over yet")
	}
	return nil
}
