//go:build mutant

package main

import "os"

// The rooms have read HADAL_MUTANT when they were made. It is no key of the
// configuration, which would refuse it.
func init() {
	if err := os.Unsetenv("HADAL_MUTANT"); err != nil {
		panic(err)
	}
}
