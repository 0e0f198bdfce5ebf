//go:build !unix

package cluster

import (
	"errors"
	"fmt"
	"os"
)

// errLocked means that another process holds the lock.
var errLocked = errors.New("locked")

// lock would take an exclusive lock. Two processes on one directory destroy it,
// so a system where we cannot lock is refused.
func lock(*os.File) error {
	return fmt.Errorf("hadal locks files on Unix only: %w", errors.ErrUnsupported)
}
