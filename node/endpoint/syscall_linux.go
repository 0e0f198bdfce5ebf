//go:build linux && (amd64 || arm64) && !race

package endpoint

import (
	"syscall"
	"unsafe"
)

// sendNow and recvNow are system calls that return at once, whatever the socket holds: so the
// scheduler is not told of them, which is for calls that may wait and costs a tenth of a
// small send; and for a socket the kernel has less to do in send than in write. At
// most writeChunk goes into one of them, which bounds how long a stop of all goroutines
// waits. The race detector takes what travels over a socket
// for an order of events only where package syscall carries it, so its builds do that.

// sendNow writes what the socket takes of b, which is not empty.
func sendNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// recvNow reads what the socket has into b, which is not empty.
func recvNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}
