//go:build !mutant

package cluster

// mutantSync is a mistake on purpose; see mutant_on.go.
const mutantSync = false
