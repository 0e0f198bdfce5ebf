package cluster

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The protocols on a Port, told apart by ALPN.
const (
	protocolRaft = "hadal-raft/1"
	protocolLink = "hadal-link/1"
	protocolJoin = "hadal-join/1"
)

// PortConfig says where a node listens for others.
type PortConfig struct {
	// Listen is the host and port to bind to, of this interface only.
	Listen string
	// Advertise is the host and port that others are told; empty is Listen as bound.
	Advertise string
	// HandshakeTimeout is how long a handshake may take; 0 is 5 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes is how many may be under way; 0 is 256. When there are more the
	// oldest is given up: a real one takes milliseconds, and so gets through however
	// many connections somebody opens to say nothing on them.
	MaxHandshakes int
}

// PortStats are counts of a Port since it was made.
type PortStats struct {
	// Accepted are connections of peers, by protocol.
	Accepted map[string]uint64
	// Refused are connections that came to nothing, by reason.
	Refused map[string]uint64
	// Handshakes is how many are under way.
	Handshakes int
}

// Port is where the nodes of a cluster connect to each other for raft, links and
// joining: one TCP port, mutual TLS, and a protocol chosen in the handshake. NATS routes
// have a port of their own (the configured one; this is the next: NextPort).
type Port struct {
	cfg      PortConfig
	id       *Identity
	log      *slog.Logger
	client   map[string]*tls.Config
	server   *tls.Config
	handlers sync.Map // protocol → func(ctx context.Context, conn *tls.Conn)
	layer    *RaftLayer
	listener net.Listener // set by Listen

	accepted, refused tally

	mu      sync.Mutex
	pending *list.List // net.Conns in a handshake, the oldest first; guarded by mu
}

// Reasons why a connection comes to nothing, beside those of certificates.
const (
	refusedTimeout  = "handshake timeout"
	refusedCrowded  = "too many handshakes"
	refusedNotTLS   = "not tls"
	refusedProtocol = "unknown protocol"
	refusedByPeer   = "peer refused us"
	refusedHungUp   = "hung up"
	refusedOther    = "handshake failed"
	refusedNotReady = "not ready"
)

// NextPort is the address with the next higher port: where nodes have their Port when
// the address is that of the NATS routes.
func NextPort(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("address %q: %w; write host:port", address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || n == 65535 {
		return "", fmt.Errorf("address %q: the port must be a number from 1 to 65534", address)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n+1, 10)), nil
}

// NewPort makes a port. It does not bind yet.
func NewPort(cfg PortConfig, id *Identity, log *slog.Logger) *Port {
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = 5 * time.Second
	}
	if cfg.MaxHandshakes == 0 {
		cfg.MaxHandshakes = 256
	}
	p := &Port{cfg: cfg, id: id, log: log, pending: list.New(),
		client: make(map[string]*tls.Config)}
	p.server = id.ServerConfig(protocolRaft, protocolLink, protocolJoin)
	for _, protocol := range p.server.NextProtos {
		p.client[protocol] = id.ClientConfig(protocol)
	}
	p.layer = &RaftLayer{port: p, conns: make(chan net.Conn), closed: make(chan struct{})}
	p.handle(protocolRaft, p.layer.serve)
	return p
}

// handle says who serves a protocol, also while Run runs: who comes before is refused, and
// tries again. serve owns the connection, and must return, whatever the peer does, when
// its context ends.
func (p *Port) handle(protocol string, serve func(ctx context.Context, conn *tls.Conn)) {
	p.handlers.Store(protocol, serve)
}

// Listen binds. Run must follow.
func (p *Port) Listen() error {
	l, err := net.Listen("tcp", p.cfg.Listen)
	if err != nil {
		return fmt.Errorf("cluster port %s cannot be opened: %w; give an address of this machine in --cluster-listen, whose next port is free too", p.cfg.Listen, err)
	}
	host, _, err := net.SplitHostPort(p.Advertised(l.Addr()))
	if err != nil {
		return errors.Join(fmt.Errorf("--cluster-advertise %q: %w; write host:port", p.cfg.Advertise, err), l.Close())
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return errors.Join(fmt.Errorf("cluster port %s is on every interface, which tells others no address; name one with --cluster-advertise", p.cfg.Listen), l.Close())
	}
	p.listener = l
	return nil
}

// Advertised is what others are told for a bound address.
func (p *Port) Advertised(bound net.Addr) string {
	if p.cfg.Advertise != "" {
		return p.cfg.Advertise
	}
	return bound.String()
}

// Address is what others are told: host and port. It is known after Listen.
func (p *Port) Address() string { return p.Advertised(p.listener.Addr()) }

// Raft is the port for raft's NetworkTransport.
func (p *Port) Raft() *RaftLayer { return p.layer }

// Stats are the counts so far.
func (p *Port) Stats() PortStats {
	p.mu.Lock()
	n := p.pending.Len()
	p.mu.Unlock()
	return PortStats{Accepted: p.accepted.all(), Refused: p.refused.all(), Handshakes: n}
}

// Run accepts connections until ctx ends, and returns when nothing of them is left but
// what raft has taken.
func (p *Port) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		p.listener.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for e := p.pending.Front(); e != nil; e = e.Next() {
			e.Value.(net.Conn).Close()
		}
	})
	var pause time.Duration
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			if errors.Is(err, net.ErrClosed) {
				cancel(fmt.Errorf("cluster port: %w", err))
				break
			}
			// Out of file descriptors, most likely.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if tell, n := p.refused.add("accept failed"); tell {
				p.log.Error("cluster port cannot accept a connection", "err", err, "count", n)
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		place := p.admit(conn)
		wg.Go(func() { p.serve(ctx, conn, place) })
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// admit notes that a handshake begins, and gives up the oldest if there are too many.
func (p *Port) admit(conn net.Conn) *list.Element {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending.Len() >= p.cfg.MaxHandshakes {
		oldest := p.pending.Front()
		p.pending.Remove(oldest)
		oldest.Value.(net.Conn).Close()
		oldest.Value = nil // crowded out
	}
	return p.pending.PushBack(conn)
}

// settle notes that a handshake has ended. It says whether it was crowded out.
func (p *Port) settle(place *list.Element) (crowded bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if place.Value == nil {
		return true
	}
	p.pending.Remove(place)
	return false
}

// serve makes the handshake and gives the connection to whom it is for.
func (p *Port) serve(ctx context.Context, raw net.Conn, place *list.Element) {
	conn := tls.Server(raw, p.server)
	deadline, cancel := context.WithTimeout(ctx, p.cfg.HandshakeTimeout)
	err := conn.HandshakeContext(deadline)
	cancel()
	if crowded := p.settle(place); crowded {
		err = refuse(refusedCrowded, "more than %d handshakes are under way", p.cfg.MaxHandshakes)
	}
	protocol := conn.ConnectionState().NegotiatedProtocol
	handler, ready := p.handlers.Load(protocol)
	switch {
	case err != nil || ready:
	case protocol == "":
		err = refuse(refusedProtocol, "the peer wants no protocol")
	default:
		err = refuse(refusedNotReady, "protocol %q is not spoken here yet", protocol)
	}
	if err != nil {
		raw.Close()
		if ctx.Err() == nil {
			p.refuse(raw.RemoteAddr(), err)
		}
		return
	}
	p.accepted.add(protocol)
	handler.(func(context.Context, *tls.Conn))(ctx, conn)
}

// refuse counts, and tells the log now and then.
func (p *Port) refuse(from net.Addr, err error) {
	reason := reasonOf(err)
	if tell, n := p.refused.add(reason); tell {
		p.log.Warn("peer refused", "peer", from.String(), "reason", reason, "count", n, "err", err)
	}
}

// reasonOf is the reason behind a handshake's error.
func reasonOf(err error) string {
	var refused *refusal
	var record tls.RecordHeaderError
	var remote *net.OpError
	switch {
	case errors.As(err, &refused):
		return refused.reason
	case errors.As(err, &record):
		return refusedNotTLS
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return refusedTimeout
	case errors.Is(err, io.EOF):
		return refusedHungUp
	case errors.As(err, &remote) && remote.Op == "remote error":
		return refusedByPeer
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return refusedNoCertificate // crypto/tls has no type for it
	case strings.Contains(err.Error(), "unsupported application protocols"):
		return refusedProtocol // nor for this
	}
	return refusedOther
}

// dial connects to the Port of another node. The deadline of ctx holds for all of it.
// The other side may still refuse our certificate: the first read tells.
func (p *Port) dial(ctx context.Context, protocol, address string) (*tls.Conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, p.client[protocol])
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("handshake with %s: %w", address, remoteAlert(err))
	}
	return conn, nil
}

// remoteAlert says in words what an alert of the other side means, which sees a
// certificate after we believe that all is well.
func remoteAlert(err error) error {
	if err != nil && reasonOf(err) == refusedByPeer {
		return refuse(refusedByPeer, "the peer refuses this node (%v): its log says why; most often cluster.secret, cluster.name or the clocks differ, or its certificate has expired", err)
	}
	return err
}

// RaftLayer is raft's part of a Port: a raft.StreamLayer.
type RaftLayer struct {
	port   *Port
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

var _ raft.StreamLayer = (*RaftLayer)(nil)

// serve hands a connection over to raft, if there is one that takes it.
func (l *RaftLayer) serve(ctx context.Context, conn *tls.Conn) {
	timer := time.NewTimer(l.port.cfg.HandshakeTimeout)
	defer timer.Stop()
	select {
	case l.conns <- promptConn{conn}:
		return
	case <-ctx.Done():
	case <-l.closed:
	case <-timer.C:
	}
	conn.NetConn().Close()
	if ctx.Err() == nil {
		l.port.refuse(conn.RemoteAddr(), refuse(refusedNotReady, "raft does not run here yet"))
	}
}

// Accept implements net.Listener.
func (l *RaftLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The port stays open for the rest.
func (l *RaftLayer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener: what others are told.
func (l *RaftLayer) Addr() net.Addr { return advertised(l.port.Address()) }

// Dial implements raft.StreamLayer.
func (l *RaftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := l.port.dial(ctx, protocolRaft, string(address))
	if err != nil {
		return nil, err // not conn, which would be no nil net.Conn
	}
	return promptConn{conn}, nil
}

// promptConn is a connection whose Close does not wait, for seconds, to say goodbye to
// a peer that takes nothing. Raft waits for answers, so nothing is on its way.
type promptConn struct{ *tls.Conn }

// Close implements net.Conn.
func (c promptConn) Close() error { return c.NetConn().Close() }

// advertised is an address for others, whose host may be a name.
type advertised string

// Network implements net.Addr.
func (advertised) Network() string { return "tcp" }

// String implements net.Addr.
func (a advertised) String() string { return string(a) }
