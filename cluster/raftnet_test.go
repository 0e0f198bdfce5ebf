package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// memNet is a network in memory. What is sent over a cut path is not lost but late: it
// arrives when the path is healed, as with TCP.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	cuts      map[[2]string]bool // from, to
	conns     map[*memConn]struct{}
	refused   map[string]bool // addresses whose system is there, and nobody listens
	wake      chan struct{}   // closed at each change of the cuts
}

func newMemNet() *memNet {
	return &memNet{listeners: make(map[string]*memListener), cuts: make(map[[2]string]bool), refused: make(map[string]bool),
		conns: make(map[*memConn]struct{}), wake: make(chan struct{})}
}

// set cuts or heals the path in one direction.
func (n *memNet) set(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]string{from, to}] = cut
	close(n.wake)
	n.wake = make(chan struct{})
}

func (n *memNet) path(from, to string) (cut bool, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[[2]string{from, to}], n.wake
}

// refuse has an address refuse connections at once, or not any more.
func (n *memNet) refuse(address string, refuse bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused[address] = refuse
}

// reset breaks all connections of a node, as its death does.
func (n *memNet) reset(address string) {
	n.mu.Lock()
	var broken []*memConn
	for c := range n.conns {
		if c.local == address || c.remote == address {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		c.in.end()
		c.Close()
	}
}

func (n *memNet) listen(address string) *memListener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &memListener{net: n, address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[address] = l
	return l
}

// memListener is a raft.StreamLayer on a memNet.
type memListener struct {
	net     *memNet
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

var _ raft.StreamLayer = (*memListener)(nil)

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.listeners[l.address] == l {
			delete(l.net.listeners, l.address)
		}
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return raftAddr(l.address) }

func (l *memListener) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	late := time.NewTimer(timeout)
	defer late.Stop()
	to := string(address)
	l.net.mu.Lock()
	refused := l.net.refused[to]
	l.net.mu.Unlock()
	if refused {
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	for {
		there, changed := l.net.path(l.address, to)
		back, _ := l.net.path(to, l.address)
		if !there && !back {
			break
		}
		select {
		case <-changed:
		case <-late.C:
			return nil, os.ErrDeadlineExceeded
		}
	}
	l.net.mu.Lock()
	other := l.net.listeners[to]
	l.net.mu.Unlock()
	if other == nil {
		return nil, errors.New("connection refused")
	}
	a := &memConn{net: l.net, local: l.address, remote: to, in: newMemBuffer(), closed: make(chan struct{}), deadline: newMemDeadline()}
	b := &memConn{net: l.net, local: to, remote: l.address, in: newMemBuffer(), closed: make(chan struct{}), deadline: newMemDeadline()}
	a.out, b.out = b.in, a.in
	l.net.mu.Lock()
	l.net.conns[a], l.net.conns[b] = struct{}{}, struct{}{}
	l.net.mu.Unlock()
	select {
	case other.conns <- b:
		return a, nil
	case <-other.closed:
	case <-late.C:
	}
	a.Close()
	b.Close()
	return nil, errors.New("connection reset")
}

// memBuffer is what is on its way in one direction.
type memBuffer struct {
	mu    sync.Mutex
	bytes []byte
	ended bool
	wake  chan struct{}
}

func newMemBuffer() *memBuffer { return &memBuffer{wake: make(chan struct{})} }

func (b *memBuffer) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.wake)
	b.wake = make(chan struct{})
}

func (b *memBuffer) end() { b.change(func() { b.ended = true }) }

// memDeadline is a channel that is closed when a time has come.
type memDeadline struct {
	mu    sync.Mutex
	timer *time.Timer
	come  chan struct{}
}

func newMemDeadline() *memDeadline { return &memDeadline{come: make(chan struct{})} }

func (d *memDeadline) set(at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	come := make(chan struct{})
	d.come, d.timer = come, nil
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), func() { close(come) })
	}
}

func (d *memDeadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.come
}

type memConn struct {
	net           *memNet
	local, remote string
	in, out       *memBuffer
	closed        chan struct{}
	once          sync.Once
	deadline      *memDeadline // of reads; writes never wait
}

func (c *memConn) Read(p []byte) (int, error) {
	for {
		cut, healed := c.net.path(c.remote, c.local)
		c.in.mu.Lock()
		wake := c.in.wake
		if !cut && len(c.in.bytes) > 0 {
			n := copy(p, c.in.bytes)
			c.in.bytes = c.in.bytes[n:]
			c.in.mu.Unlock()
			return n, nil
		}
		ended := !cut && c.in.ended
		c.in.mu.Unlock()
		if ended {
			return 0, io.EOF
		}
		select {
		case <-wake:
		case <-healed:
		case <-c.closed:
			return 0, net.ErrClosed
		case <-c.deadline.wait():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (c *memConn) Write(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.out.mu.Lock()
	ended := c.out.ended
	c.out.mu.Unlock()
	if ended {
		return 0, io.ErrClosedPipe
	}
	c.out.change(func() { c.out.bytes = append(c.out.bytes, p...) })
	return len(p), nil
}

func (c *memConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.out.end()
		c.deadline.set(time.Time{})
		c.net.mu.Lock()
		delete(c.net.conns, c)
		c.net.mu.Unlock()
	})
	return nil
}

func (c *memConn) LocalAddr() net.Addr  { return raftAddr(c.local) }
func (c *memConn) RemoteAddr() net.Addr { return raftAddr(c.remote) }

func (c *memConn) SetDeadline(t time.Time) error      { c.deadline.set(t); return nil }
func (c *memConn) SetReadDeadline(t time.Time) error  { c.deadline.set(t); return nil }
func (c *memConn) SetWriteDeadline(t time.Time) error { return nil }
