//go:build unix

package endpoint

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"hadal/node/nonblock"
)

// prepare lets fill read the socket itself.
func (r *reader) prepare(t *net.TCPConn) {
	sock, err := t.SyscallConn()
	if err != nil {
		return // a plain Read will do
	}
	r.sock = sock
	r.readFn = r.readNow // made once: a closure for each read would be garbage
}

// fill waits until there is something to read, and only then takes a buffer
// from the pool. In it buf[from:to] is new, and what was half stands before that.
func (r *reader) fill() error {
	if r.early != nil {
		r.fillEarly()
		return nil
	}
	if err := r.sock.Read(r.readFn); err != nil {
		return err
	}
	return r.err
}

// readNow tries to read and says whether it need not be tried again. Most reads
// are followed by one that finds nothing; it cannot be left out, because Go's
// poller forgets, when RawConn.Read begins, that more has come since the last.
func (r *reader) readNow(fd uintptr) bool {
	buf := readChunks.Get().(*[readChunk]byte)
	n, errno := nonblock.Recv(fd, buf[r.halves:])
	for errno == syscall.EINTR {
		n, errno = nonblock.Recv(fd, buf[r.halves:])
	}
	if n > 0 {
		r.filled(buf, n)
		return true
	}
	readChunks.Put(buf)
	switch errno {
	case syscall.EAGAIN:
		return false
	case 0:
		r.err = io.EOF
	default:
		r.err = os.NewSyscallError("read", errno)
	}
	return true
}

// fillEarly is fill with what came behind the upgrade request.
func (r *reader) fillEarly() {
	buf := readChunks.Get().(*[readChunk]byte)
	n := copy(buf[r.halves:], r.early)
	if r.early = r.early[n:]; len(r.early) == 0 {
		r.early = nil
	}
	r.filled(buf, n)
}

// filled puts what is half before the n bytes that were read behind room for it.
func (r *reader) filled(buf *[readChunk]byte, n int) {
	copy(buf[:], r.half[:r.halves])
	r.buf, r.from, r.to, r.err = buf, int(r.halves), int(r.halves)+n, nil
	r.halves = 0
}

// attempt is one write that does not wait.
type attempt struct {
	b  []byte
	n  int
	fn func(fd uintptr) bool // write, made once
}

func newAttempt() *attempt {
	a := new(attempt)
	a.fn = a.write
	return a
}

var attempts = sync.Pool{New: func() any { return newAttempt() }}

// write is RawConn.Write's callback: it never asks to be called again when the
// socket has room.
func (a *attempt) write(fd uintptr) bool {
	a.n, _ = nonblock.Send(fd, a.b) // see once
	return true
}

// once writes what the socket takes without waiting and returns how much that was.
// Errors count as nothing: whoever writes next, and can wait, meets them again, or, if
// it was a deadline of long ago, sets a new one. The caller sees to it that nobody else
// writes, for which this would wait.
func (a *attempt) once(sock syscall.RawConn, b []byte) int {
	a.b, a.n = b, 0
	_ = sock.Write(a.fn)
	a.b = nil
	return a.n
}

// tryWrite is once for who has no attempt of its own.
func tryWrite(sock syscall.RawConn, b []byte) int {
	a := attempts.Get().(*attempt)
	n := a.once(sock, b)
	attempts.Put(a)
	return n
}
