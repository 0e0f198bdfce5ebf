//go:build linux && (amd64 || arm64) && !race

package nonblock

import (
	"syscall"
	"unsafe"
)

// The race detector takes what travels over a socket for an order of events only where
// package syscall carries it, so its builds have the functions of unix.go.

// Send writes what a socket takes at once of b, which is not empty.
func Send(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Recv reads what a socket has into b, which is not empty. It is 0 bytes without an error
// when nothing more will come.
func Recv(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
