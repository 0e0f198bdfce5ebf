package cluster

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A stream between nodes on the raft port begins with a byte that says what it is
// for. The number is part of the format between nodes.
const (
	streamRaft  = 1 // raft's own messages
	streamLease = 2 // a node that keeps in touch with the leader
	streamAsk   = 3 // one request and its answer
)

// raftStreams shares the given StreamLayer between raft and what this package says
// to other nodes beside it. It knows every connection, so that none outlives it: raft's
// transport leaves those it has accepted to their other end.
type raftStreams struct {
	layer   raft.StreamLayer
	address string // where others reach this node
	timeout time.Duration
	serve   map[byte]func(context.Context, net.Conn)
	raft    chan net.Conn
	closed  chan struct{}
	wg      sync.WaitGroup

	mu    sync.Mutex
	conns map[*raftConn]struct{} // guarded by mu; nil when it is closed
}

func newRaftStreams(layer raft.StreamLayer, address string, timeout time.Duration) *raftStreams {
	return &raftStreams{layer: layer, address: address, timeout: timeout,
		serve: make(map[byte]func(context.Context, net.Conn)),
		raft:  make(chan net.Conn), closed: make(chan struct{}), conns: make(map[*raftConn]struct{})}
}

// raftConn is a connection that leaves its raftStreams when it closes.
type raftConn struct {
	net.Conn
	of *raftStreams
}

func (c *raftConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (s *raftStreams) track(conn net.Conn) (*raftConn, error) {
	c := &raftConn{conn, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	s.conns[c] = struct{}{}
	return c, nil
}

// run accepts streams until the StreamLayer is closed, which it does itself when ctx
// ends, and returns when all is gone.
func (s *raftStreams) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.end)
	defer s.wg.Wait()
	defer s.end()
	defer stop()
	for {
		conn, err := s.layer.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close() // nobody is told any more
			}
			return nil
		}
		if err != nil {
			return err
		}
		c, err := s.track(conn)
		if err != nil {
			return nil
		}
		s.wg.Go(func() { s.dispatch(ctx, c) })
	}
}

// end closes every connection and the StreamLayer. It may be called again.
func (s *raftStreams) end() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	if conns == nil {
		return
	}
	close(s.closed)
	// Nothing is lost with an error here: all of it is going away.
	_ = s.layer.Close()
	for c := range conns {
		_ = c.Conn.Close()
	}
}

// dispatch gives a stream to whom it is for. One that does not say so in time, or
// says something else, is closed.
func (s *raftStreams) dispatch(ctx context.Context, c *raftConn) {
	var kind [1]byte
	err := c.SetReadDeadline(time.Now().Add(4 * s.timeout))
	if err == nil {
		_, err = c.Read(kind[:])
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	serve := s.serve[kind[0]]
	switch {
	case err != nil:
	case kind[0] == streamRaft:
		select {
		case s.raft <- c:
			return // raft closes it
		case <-s.closed:
		}
	case serve != nil:
		serve(ctx, c)
	}
	_ = c.Close()
}

// dial opens a stream of a kind.
func (s *raftStreams) dial(kind byte, address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	conn, err := s.layer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	c, err := s.track(conn)
	if err != nil {
		return nil, err
	}
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, err := c.Write([]byte{kind}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, c.SetWriteDeadline(time.Time{})
}

// forRaft is the part of a raftStreams that raft sees.
type forRaft struct{ *raftStreams }

var _ raft.StreamLayer = forRaft{}

// Accept implements net.Listener.
func (s forRaft) Accept() (net.Conn, error) {
	select {
	case c := <-s.raft:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s forRaft) Close() error {
	s.end()
	return nil
}

// Addr implements net.Listener: the address that others use.
func (s forRaft) Addr() net.Addr { return raftAddr(s.address) }

// Dial implements raft.StreamLayer.
func (s forRaft) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.dial(streamRaft, address, timeout)
}

type raftAddr string

func (raftAddr) Network() string  { return "raft" }
func (a raftAddr) String() string { return string(a) }

// ackingTransport is raft's transport, and notes which peer has followed this node as
// leader, and when it was asked.
type ackingTransport struct {
	*raft.NetworkTransport
	now   func() int64
	acked func(id raft.ServerID, term uint64, asked int64)
}

// AppendEntries implements raft.Transport.
func (t *ackingTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	asked := t.now()
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if err == nil && resp.Term == args.Term {
		t.acked(id, args.Term, asked)
	}
	return err
}

// leaderProof is since when, at the least, this node was the leader without doubt: the
// time at which it asked, at the latest, a majority that then still followed it. No
// other node can have been elected before. asked is by voter in this term.
func leaderProof(now int64, self raft.ServerID, conf raft.Configuration, asked func(raft.ServerID) int64) int64 {
	var times []int64
	for _, s := range conf.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		if s.ID == self {
			times = append(times, now)
			continue
		}
		times = append(times, asked(s.ID))
	}
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	// All but the oldest so many are a majority.
	return times[(len(times)-1)/2]
}
