//go:build !unix

package nonblock

import "syscall"

// Send does nothing here and says so.
func Send(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.ENOTSUP }

// Recv does nothing here and says so.
func Recv(uintptr, []byte) (int, syscall.Errno) { return 0, syscall.ENOTSUP }
