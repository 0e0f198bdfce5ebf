//go:build !mutant

package cluster

// These are mistakes on purpose; see mutant_on.go.
const (
	mutantSync  = false
	mutantLease = false
)
