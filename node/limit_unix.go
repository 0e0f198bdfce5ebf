//go:build unix

package node

import "syscall"

// maxFiles is how many files and connections the system lets this process have
// open at once; ok is false when it does not say.
func maxFiles() (n uint64, ok bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return uint64(limit.Cur), true
}
