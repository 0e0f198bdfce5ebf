//go:build !mutant

package record

// mutantRepair is a mistake on purpose; see mutant_on.go.
const mutantRepair = false
