package cluster

import (
	"maps"
	"sync"
	"time"
)

// tallyEvery is how often the log is told of one reason at most.
const tallyEvery = 10 * time.Second

// tally counts things that happen for a reason, and bounds how often the log hears
// of them. Reasons are few: they become labels of a metric.
type tally struct {
	mu     sync.Mutex
	counts map[string]uint64    // guarded by mu
	told   map[string]time.Time // guarded by mu
}

// add counts one. It says whether the log should be told, and what the count is.
func (t *tally) add(reason string) (tell bool, count uint64) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts, t.told = make(map[string]uint64), make(map[string]time.Time)
	}
	t.counts[reason]++
	if last, ok := t.told[reason]; !ok || now.Sub(last) >= tallyEvery {
		t.told[reason] = now
		tell = true
	}
	return tell, t.counts[reason]
}

// all are the counts.
func (t *tally) all() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.counts)
}
