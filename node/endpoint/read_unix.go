//go:build unix

package endpoint

import (
	"io"
	"net"
	"os"
	"syscall"
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
// from the pool.
func (r *reader) fill() error {
	if err := r.sock.Read(r.readFn); err != nil {
		return err
	}
	return r.err
}

// readNow tries to read and says whether it need not be tried again.
func (r *reader) readNow(fd uintptr) bool {
	buf := readChunks.Get().(*[readChunk]byte)
	n, err := syscall.Read(int(fd), buf[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), buf[:])
	}
	if n > 0 {
		r.buf, r.from, r.to, r.err = buf, 0, n, nil
		return true
	}
	readChunks.Put(buf)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		r.err = os.NewSyscallError("read", err)
	default:
		r.err = io.EOF
	}
	return true
}
