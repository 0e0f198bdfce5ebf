//go:build mutant

package node_test

import (
	"os"
	"testing"

	"hadal/cluster/clustertest"
)

// TestChaosFindsTheMutant is for builds with the tag "mutant", which read the mistake to
// make from HADAL_MUTANT: make chaos runs it for each that there is.
func TestChaosFindsTheMutant(t *testing.T) {
	if os.Getenv("HADAL_MUTANT") == "" {
		t.Fatal("HADAL_MUTANT is not set: see node/record/mutant_on.go for what it may be")
	}
	findMistake(t, clustertest.Config{}, mistakes{})
}
