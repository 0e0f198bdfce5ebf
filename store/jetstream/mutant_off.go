//go:build !mutant

package jetstream

import "context"

// Mutants are mistakes on purpose, which the crash tests must catch. Only a build
// with the tag "mutant" can have them; see mutant_on.go.
const (
	mutantPurge = false
	mutantFence = false
)

// stall holds nothing.
func stall(context.Context) bool { return false }
