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
	// "lease": an owner answers however long ago it was last given a lease, which
	// e2e/cluster catches together with "fence" of store/jetstream (--fault fence,lease).
	mutantLease = mutant("lease")
)

func mutant(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("HADAL_MUTANT"), ","), name)
}
