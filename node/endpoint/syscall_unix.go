//go:build unix && !(linux && (amd64 || arm64) && !race)

package endpoint

import "syscall"

// sendNow writes what the socket, which never waits, takes of b.
func sendNow(fd uintptr, b []byte) (int, syscall.Errno) { return outcome(syscall.Write(int(fd), b)) }

// recvNow reads what the socket has into b.
func recvNow(fd uintptr, b []byte) (int, syscall.Errno) { return outcome(syscall.Read(int(fd), b)) }

func outcome(n int, err error) (int, syscall.Errno) {
	errno, _ := err.(syscall.Errno) // which is what package syscall returns, or nil
	return n, errno
}
