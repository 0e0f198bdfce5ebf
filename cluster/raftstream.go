package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A stream between nodes on the raft port begins with a byte that says what it is
// for, and the id of the node that it is meant for: a byte of length, and so many bytes.
// Another node may have come to the address since, one that was started again without
// its data most of all, and must neither vote nor answer as the one before. The numbers
// are part of the format between nodes.
const (
	streamRaft  = 1 // raft's own messages
	streamLease = 2 // a node that keeps in touch with the leader
	streamAsk   = 3 // one request and its answer; it may be meant for whoever is there
)

// raftAddress is where a node is, for raft: an address and the id of who is expected
// there. So two nodes never have the same one, though one took over the other's place.
func raftAddress(id, address string) raft.ServerAddress {
	return raft.ServerAddress(id + "@" + address)
}

// splitRaftAddress is the reverse of raftAddress. The id is empty when there is none.
func splitRaftAddress(a raft.ServerAddress) (id, address string) {
	if id, address, ok := strings.Cut(string(a), "@"); ok {
		return id, address
	}
	return "", string(a)
}

// raftStreams shares the given StreamLayer between raft and what this package says
// to other nodes beside it. It knows every connection, so that none outlives it: raft's
// transport leaves those it has accepted to their other end.
type raftStreams struct {
	layer   raft.StreamLayer
	id      string
	address string // where others reach this node
	timeout time.Duration
	serve   map[byte]func(context.Context, net.Conn)
	refuse  map[byte]func(net.Conn) // for those meant for another, if it is to be said
	raft    chan net.Conn
	// answered is called whenever something was written to a stream that raft was handed.
	answered func()
	closed   chan struct{}
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[*raftConn]struct{} // guarded by mu; nil when it is closed
}

func newRaftStreams(layer raft.StreamLayer, id, address string, timeout time.Duration) *raftStreams {
	return &raftStreams{layer: layer, id: id, address: address, timeout: timeout,
		serve:  make(map[byte]func(context.Context, net.Conn)),
		refuse: make(map[byte]func(net.Conn)),
		raft:   make(chan net.Conn), closed: make(chan struct{}), conns: make(map[*raftConn]struct{})}
}

// raftConn is a connection that leaves its raftStreams when it closes.
type raftConn struct {
	net.Conn
	of    *raftStreams
	wrote func() // nil, or called after each Write
}

func (c *raftConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.wrote != nil {
		c.wrote()
	}
	return n, err
}

func (c *raftConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (s *raftStreams) track(conn net.Conn) (*raftConn, error) {
	c := &raftConn{Conn: conn, of: s}
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

// dispatch gives a stream to whom it is for. One that does not say so in time, says
// something else, or is meant for another node, is closed.
func (s *raftStreams) dispatch(ctx context.Context, c *raftConn) {
	err := c.SetReadDeadline(time.Now().Add(4 * s.timeout))
	var kind byte
	var target string
	if err == nil {
		kind, target, err = readStreamHeader(c)
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	meant := target == s.id || target == "" && kind == streamAsk
	serve, refuse := s.serve[kind], s.refuse[kind]
	switch {
	case err != nil:
	case !meant:
		if refuse != nil {
			refuse(c)
		}
	case kind == streamRaft:
		c.wrote = s.answered
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

// streamHeader begins a stream of a kind that is meant for a node.
func streamHeader(kind byte, id string) ([]byte, error) {
	if len(id) > math.MaxUint8 {
		return nil, fmt.Errorf("id of %d bytes: a node's has at most %d", len(id), math.MaxUint8)
	}
	return append([]byte{kind, byte(len(id))}, id...), nil
}

func readStreamHeader(from io.Reader) (kind byte, id string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, head[1])
	if _, err := io.ReadFull(from, b); err != nil {
		return 0, "", err
	}
	return head[0], string(b), nil
}

// dial opens a stream of a kind to the node that a raftAddress names, or, without an
// id, to whoever is there.
func (s *raftStreams) dial(kind byte, to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, address := splitRaftAddress(to)
	header, err := streamHeader(kind, id)
	if err != nil {
		return nil, err
	}
	conn, err := s.layer.Dial(raft.ServerAddress(address), timeout)
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
	if _, err := c.Write(header); err != nil {
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

// Addr implements net.Listener: the raftAddress that others use.
func (s forRaft) Addr() net.Addr { return raftAddr(raftAddress(s.id, s.address)) }

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
	// orders is what raft is told, by its peers and by this node.
	orders chan raft.RPC
	heard  func() // is called for each heartbeat of a leader, before it is answered
	every  int64  // between two heartbeats to a peer, in nanoseconds
	closed <-chan struct{}

	mu   sync.Mutex
	sent map[raft.ServerID]int64 // guarded by mu; when a heartbeat was sent last, by now
}

// pace holds a heartbeat back until the next beat. Raft sends them several times as often as
// followers need, to each at moments of its own, and offers no other way to have fewer than
// to be slow to notice a dead leader. Those of all peers go at once: an idle process is woken
// once for all.
func (t *ackingTransport) pace(id raft.ServerID) {
	t.mu.Lock()
	last, ok := t.sent[id]
	t.mu.Unlock()
	if wait := nextBeat(last, t.every) - t.now(); ok && wait > 0 {
		timer := time.NewTimer(time.Duration(wait))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-t.closed:
		}
	}
	t.mu.Lock()
	t.sent[id] = t.now()
	t.mu.Unlock()
}

// nextBeat is the first multiple of every that is later than last by at least half of it.
func nextBeat(last, every int64) int64 { return (last+every/2)/every*every + every }

// isHeartbeat says what raft's own transport makes of it.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return len(a.Entries) == 0 && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && a.LeaderCommitIndex == 0
}

// Consumer implements raft.Transport.
func (t *ackingTransport) Consumer() <-chan raft.RPC { return t.orders }

// SetHeartbeatHandler implements raft.Transport.
func (t *ackingTransport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		handle(rpc)
		t.heard()
	})
}

// pass hands raft what its peers tell it, until the streams are closed.
func (t *ackingTransport) pass(closed <-chan struct{}) {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			select {
			case t.orders <- rpc:
			case <-closed:
				rpc.Respond(nil, raft.ErrTransportShutdown)
				return
			}
		case <-closed:
			return
		}
	}
}

// AppendEntries implements raft.Transport.
func (t *ackingTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		t.pace(id)
	}
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
