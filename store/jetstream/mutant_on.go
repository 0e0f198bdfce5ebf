//go:build mutant

package jetstream

import "os"

// The mutants of this room, chosen by HADAL_MUTANT.
var (
	// "purge": the LOG is purged before STATE has acknowledged what it held.
	mutantPurge = os.Getenv("HADAL_MUTANT") == "purge"
	// "fence": appends to the LOG name no last sequence, so that an owner who was
	// replaced can still write.
	mutantFence = os.Getenv("HADAL_MUTANT") == "fence"
)
