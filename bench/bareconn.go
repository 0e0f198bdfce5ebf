package bench

import (
	"io"
	"net"
	"sync"
	"syscall"

	"hadal/node/nonblock"
)

// bareConn is a socket of the bare writer, which reads and writes as cheaply as Hadal's own
// sockets do: without that it would not be the limit.
type bareConn struct {
	*net.TCPConn
	raw syscall.RawConn

	// Of the one reader:

	in     []byte
	n      int
	errno  syscall.Errno
	readFn func(fd uintptr) bool

	writing sync.Mutex
	out     []byte                // guarded by writing
	writeFn func(fd uintptr) bool // likewise
}

// newBareConn makes one of what a listener has accepted, if it can.
func newBareConn(conn net.Conn) net.Conn {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return conn // it is closed, as its reader will see
	}
	c := &bareConn{TCPConn: t, raw: raw}
	c.readFn = func(fd uintptr) bool {
		c.n, c.errno = nonblock.Recv(fd, c.in)
		return c.errno != syscall.EAGAIN
	}
	c.writeFn = func(fd uintptr) bool {
		n, _ := nonblock.Send(fd, c.out) // Write meets the error again
		c.out = c.out[n:]
		return true
	}
	return c
}

// Read implements net.Conn, for one caller at a time.
func (c *bareConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in = p
	err := c.raw.Read(c.readFn)
	switch {
	case err != nil:
		return 0, err
	case c.errno == syscall.ENOTSUP:
		return c.TCPConn.Read(p)
	case c.errno != 0:
		return 0, c.errno
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

// Write implements net.Conn.
func (c *bareConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out = p
	if err := c.raw.Write(c.writeFn); err != nil {
		return 0, err
	}
	if len(c.out) == 0 {
		return len(p), nil
	}
	n, err := c.TCPConn.Write(c.out)
	return len(p) - len(c.out) + n, err
}
