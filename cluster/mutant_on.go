//go:build mutant

package cluster

import (
	"os"
	"slices"
	"strings"
)

// The mutants of this room, chosen by HADAL_MUTANT, which may name several.
var (
	// "sync": nothing is synced, which the power cut test must catch.
	mutantSync = mutant("sync")
	// "lease": an owner answers however long ago it was last given a lease, which, together
	// with "fence" of store/jetstream, e2e/cluster must catch.
	mutantLease = mutant("lease")
)

func mutant(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("HADAL_MUTANT"), ","), name)
}
