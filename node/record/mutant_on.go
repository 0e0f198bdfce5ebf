//go:build mutant

package record

import "os"

// mutantRepair, chosen by HADAL_MUTANT=repair, tells subscribers nothing of what they
// missed while a record had another owner or a link was down, which the chaos tests
// must catch.
var mutantRepair = os.Getenv("HADAL_MUTANT") == "repair"
