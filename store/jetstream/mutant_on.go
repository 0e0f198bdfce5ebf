//go:build mutant

package jetstream

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// The mutants of this room, chosen by HADAL_MUTANT, which may name several.
var (
	// "purge": the LOG is purged before STATE has acknowledged what it held.
	mutantPurge = mutant("purge")
	// "fence": appends to the LOG name no last sequence, so that an owner who was
	// replaced can still write.
	mutantFence = mutant("fence")
	// "stall": no mistake, but what a disk or a network may do: some batches are slow to
	// leave the node, and when the process was stopped meanwhile, it leaves a while after
	// the process goes on, when another node may own the partition. Together with "fence",
	// e2e/cluster must notice; alone, nothing may be wrong.
	mutantStall = mutant("stall")
)

func mutant(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("HADAL_MUTANT"), ","), name)
}

// Parts of a stall. It is made of many short waits, of which one at most is over while the
// process is stopped.
const (
	stallEach  = 2 // batches, of which one is held
	stallStep  = 5 * time.Millisecond
	stallSteps = 30
	// stallGap is how long one wait takes at least when the process was stopped; then
	// there are stallAfter more: time enough to hear of the new owner, and less than the
	// room for records leaves to an append when it has.
	stallGap   = time.Second
	stallAfter = 100
)

var stallCount atomic.Uint64

// stall may hold a batch, and says whether the process was stopped meanwhile.
func stall(ctx context.Context) (stopped bool) {
	if !mutantStall || stallCount.Add(1)%stallEach != 0 {
		return false
	}
	tick := time.NewTicker(stallStep)
	defer tick.Stop()
	for left := stallSteps; left > 0; left-- {
		begun := time.Now()
		select {
		case <-ctx.Done():
			return stopped
		case <-tick.C:
		}
		if time.Since(begun) >= stallGap {
			left, stopped = stallAfter, true
		}
	}
	return stopped
}
