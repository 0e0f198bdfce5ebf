package cluster

import (
	"context"
	"time"
)

// A node whose disk is full, or broken, lives, votes and carries its clients, but as the owner
// of records it would refuse all writes to them, though others could accept them. So it
// tells the leader, with each question for its lease, and owns nothing until it can write
// again. Its copies stay where they are.

// When a node is fit.
const (
	fitEvery  = 500 * time.Millisecond // how often its disk is looked at
	fitRoom   = 16 << 20               // with less than so many bytes above what is kept free, it does not become fit again
	fitSteady = 5 * time.Second        // for how long it must have had them
)

// SetFit says whether this node can do what an owner does. It may be called from anywhere.
func (r *Raft) SetFit(fit bool) { r.isUnfit.Store(!fit) }

// unfit are the members that should own nothing, as far as this node knows, which leads.
func (r *Raft) unfit() map[string]bool {
	r.lead.mu.Lock()
	defer r.lead.mu.Unlock()
	all := make(map[string]bool)
	for id, c := range r.lead.nodes {
		if c.unfit {
			all[id] = true
		}
	}
	if r.isUnfit.Load() {
		all[r.o.Self.ID] = true
	}
	return all
}

// fitness is whether a node can write, so that it does not change with every block that
// becomes free.
type fitness struct {
	unfit bool
	since time.Time // when there was room again, or zero
}

// see notes whether there is room for so many bytes more, and says whether the node is fit.
func (f *fitness) see(now time.Time, room func(bytes int64) error) bool {
	switch {
	case room(0) != nil:
		f.unfit, f.since = true, time.Time{}
	case !f.unfit:
	case room(fitRoom) != nil:
		f.since = time.Time{}
	case f.since.IsZero():
		f.since = now
	case now.Sub(f.since) >= fitSteady:
		f.unfit = false
	}
	return !f.unfit
}

// watchFitness has the leader know whether this node can write, until ctx ends.
func (j *joined) watchFitness(ctx context.Context) error {
	if j.cfg.Role != RoleCore {
		return nil
	}
	tick := time.NewTicker(fitEvery)
	defer tick.Stop()
	var f fitness
	for {
		was := !f.unfit
		if fit := f.see(time.Now(), j.server.hasRoom); fit != was {
			j.raft.SetFit(fit)
			j.log.Warn("this node owns records only while it can write", "fit", fit)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
