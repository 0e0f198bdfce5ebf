//go:build mutant

package cluster

import "os"

// mutantSync, chosen by HADAL_MUTANT=sync, syncs nothing, which the power cut test
// must catch.
var mutantSync = os.Getenv("HADAL_MUTANT") == "sync"
