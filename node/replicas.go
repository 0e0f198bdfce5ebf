package node

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// This file has the streams of a partition kept by as many nodes as the cluster's table
// says. A stream is made with the number of that moment; when nodes join or leave for
// good, the number changes, and the owner of the partition sees to it.

const (
	// replicasEvery is how often the owner compares what is with what the table says. A
	// number has to be the same twice: a node that is replaced leaves and comes.
	replicasEvery = 2 * time.Second
	// replicasTime bounds one change, in which a new replica copies all of a partition. A
	// change that takes longer goes on in the servers, and is waited for again.
	replicasTime = 2 * time.Minute
	// replicasPause is how long a partition is left alone after a failure.
	replicasPause = 10 * time.Second
)

// replicaNeed is what the loop knows of one store's replicas.
type replicaNeed struct {
	has    int       // how many the streams have; 0 is not known yet
	wanted int       // by the table, when it was looked at last
	after  time.Time // a failed change is not tried again before
}

// due says whether a change to wanted replicas is due now.
func (r *replicaNeed) due(wanted int, now time.Time) bool {
	settled := wanted == r.wanted
	r.wanted = wanted
	return settled && wanted != r.has && !now.Before(r.after)
}

// keepReplicas has the streams of the partitions that this node owns kept by as many
// nodes as the table says, and the store of logins, until ctx ends.
func (s *recordStores) keepReplicas(ctx context.Context) error {
	lookEach(ctx, s.keepPartitions, s.keepLogins)
	return nil
}

// lookEach calls each of looks every replicasEvery until ctx ends. None waits for another, which
// may take minutes.
func lookEach(ctx context.Context, looks ...func(context.Context)) {
	var looking sync.WaitGroup
	defer looking.Wait()
	for _, look := range looks {
		looking.Go(func() {
			tick := time.NewTicker(replicasEvery)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				look(ctx)
			}
		})
	}
}

// keepPartitions is one look at all partitions, one after the other.
func (s *recordStores) keepPartitions(ctx context.Context) {
	for _, st := range s.all() {
		wanted := s.node.place.Replicas(st.partition)
		if !st.replicas.due(wanted, time.Now()) {
			continue
		}
		if err := st.replicate(ctx, wanted); err != nil && ctx.Err() == nil && st.isOpen() {
			st.replicas.after = time.Now().Add(replicasPause)
			s.node.log.Warn("a partition is not kept by as many nodes as it should yet, and it is tried again", "partition", st.partition, "replicas", wanted, "err", err)
		}
	}
}

// replicate has the streams kept by so many nodes, and returns when all of these have
// everything.
func (s *partitionStore) replicate(ctx context.Context, wanted int) error {
	ctx, done := context.WithTimeout(ctx, replicasTime)
	defer done()
	streams, err := s.Streams(ctx)
	if err != nil {
		return err
	}
	differs := false
	for _, st := range streams {
		differs = differs || st.Wanted != wanted
	}
	if differs {
		began, log := time.Now(), s.of.node.log
		log.Info("a partition gets another number of replicas", "partition", s.partition, "were", streams[0].Wanted, "replicas", wanted)
		if err := s.SetReplicas(ctx, wanted); err != nil {
			return fmt.Errorf("after %v: %w", time.Since(began).Round(time.Second), err)
		}
		log.Info("all replicas of a partition have everything", "partition", s.partition, "replicas", wanted, "took", time.Since(began).Round(time.Millisecond))
	}
	s.replicas.has = wanted
	return nil
}

// isOpen says whether the store has not been closed.
func (s *partitionStore) isOpen() bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	_, ok := s.of.open[s]
	return ok
}
