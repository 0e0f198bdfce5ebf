//go:build mutant

package jetstream

import (
	"os"
	"slices"
	"strings"
)

// The mutants of this room, chosen by HADAL_MUTANT, which may name several.
var (
	// "purge": the LOG is purged before STATE has acknowledged what it held.
	mutantPurge = mutant("purge")
	// "fence": appends to the LOG name no last sequence, so that an owner who was
	// replaced can still write.
	mutantFence = mutant("fence")
)

func mutant(name string) bool {
	return slices.Contains(strings.Split(os.Getenv("HADAL_MUTANT"), ","), name)
}
