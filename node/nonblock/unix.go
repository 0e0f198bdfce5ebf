//go:build unix && !(linux && (amd64 || arm64) && !race)

package nonblock

import "syscall"

// Send writes what a socket that never waits takes of b.
func Send(fd uintptr, b []byte) (int, syscall.Errno) { return outcome(syscall.Write(int(fd), b)) }

// Recv reads what a socket that never waits has into b. It is 0 bytes without an error when
// nothing more will come.
func Recv(fd uintptr, b []byte) (int, syscall.Errno) { return outcome(syscall.Read(int(fd), b)) }

func outcome(n int, err error) (int, syscall.Errno) {
	if errno, ok := err.(syscall.Errno); ok { // as package syscall has them
		return 0, errno
	}
	return n, 0
}
