//go:build !unix

package endpoint

import (
	"net"
	"syscall"
)

// prepare does nothing: here a socket cannot be read without a buffer at hand,
// so Read passes gorilla's own.
func (r *reader) prepare(*net.TCPConn) {}

// fill is never called, because prepare leaves sock empty.
func (r *reader) fill() error { return net.ErrClosed }

// tryWrite is never called either.
func tryWrite(syscall.RawConn, []byte) int { return 0 }

// attempt stands for the one of unix: no wire with a sock uses it.
type attempt struct{}

func newAttempt() *attempt { return nil }

func (*attempt) once(syscall.RawConn, []byte) int { return 0 }
