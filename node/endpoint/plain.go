package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// This file is how clients come who do not speak WebSocket as the others do: at a port of
// their own, as a stream inside of WebSocket, or with a request of HTTP that does not end.

// Port is a TCP port for Plain connections.
type Port struct {
	// Host and Port are where it listens; port 0 picks a free one.
	Host string
	Port int
	// SSL switches it to TLS.
	SSL SSLConfig
	// Serve serves one client, over a socket that is its own from then on, until the client
	// has gone.
	Serve func(nc net.Conn, visit *auth.Attempt)
}

type port struct {
	Port
	cert     *certificate // nil without TLS
	tls      *tls.Config  // likewise
	listener net.Listener // guarded by Server.mu
}

// AddPort adds a port to those that Listen opens. It is called before that.
func (s *Server) AddPort(p Port) error {
	added := &port{Port: p}
	if p.SSL.Cert != "" {
		cert, err := loadCertificate(p.SSL, s.log)
		if err != nil {
			return err
		}
		added.cert, added.tls = cert, cert.config()
		added.tls.NextProtos = nil // clients may name what they speak, such as "mqtt": it is no HTTP
	}
	s.ports = append(s.ports, added)
	return nil
}

// Watch has connections of a Plain dialect looked at as often as its options need. It is
// called before Serve.
func (s *Server) Watch(options *WebSocketConfig) { s.others = append(s.others, options) }

// PortAddr is where the n-th port listens; nil before Listen.
func (s *Server) PortAddr(n int) net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= len(s.ports) || s.ports[n].listener == nil {
		return nil
	}
	return s.ports[n].listener.Addr()
}

// listenPorts opens the ports, or none. The caller holds mu.
func (s *Server) listenPorts(ctx context.Context) error {
	for _, p := range s.ports {
		addr := net.JoinHostPort(p.Host, strconv.Itoa(p.Port.Port))
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			for _, opened := range s.ports {
				if opened.listener != nil {
					_ = opened.listener.Close() // nobody was let in
				}
			}
			return fmt.Errorf("listen on %s: %w", addr, err)
		}
		p.listener = l
	}
	return nil
}

func (s *Server) closePorts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ports {
		if p.listener != nil {
			_ = p.listener.Close() // closed for good either way
		}
	}
}

// servePorts serves the ports until they are closed.
func (s *Server) servePorts(wg *sync.WaitGroup) {
	for _, p := range s.ports {
		l := listener{p.listener, s.gate}
		if p.cert != nil {
			wg.Go(func() { p.cert.watch(s.stopped) })
		}
		wg.Go(func() {
			for {
				nc, err := l.Accept()
				switch {
				case err == nil:
					wg.Go(func() { s.arrive(p, nc) })
				case errors.Is(err, net.ErrClosed):
					return
				default:
					s.log.Warn("cannot accept clients: if too many files are open, raise the limit (ulimit -n, LimitNOFILE=)", "err", err)
					select {
					case <-time.After(acceptPause):
					case <-s.stopping:
						return
					}
				}
			}
		})
	}
}

// acceptPause is how long a port that cannot accept rests.
const acceptPause = 100 * time.Millisecond

// arrive serves a socket of a port, unless nobody is let in.
func (s *Server) arrive(p *port, nc net.Conn) {
	addr := addressOf(nc)
	if s.closing() || s.held.Load() || s.Draining() || s.gate.full() || !s.welcome(addr) {
		reset(nc)
		s.gate.leave(nc)
		return
	}
	raw := nc
	if p.cert != nil {
		t := tls.Server(nc, p.tls)
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		err := t.HandshakeContext(ctx)
		cancel()
		if err != nil {
			s.log.Debug("tls handshake failed", "remote", addr, "err", err)
			reset(raw)
			s.gate.leave(raw)
			return
		}
		nc = t
	}
	defer s.gate.leave(raw) // if it has not been served
	defer s.survive(nc, addr)
	p.Serve(nc, &auth.Attempt{RemoteAddr: addr.WithZone("").Unmap().String()})
}

// survive, deferred, keeps a panic from ending the process: it may be that of a library over
// a packet that somebody has made up.
func (s *Server) survive(nc net.Conn, addr netip.Addr) {
	p := recover()
	if p == nil {
		return
	}
	s.panics.Add(1)
	s.log.Error("panic while serving a client", "remote", addr, "during", "its packets", "err", p, "stack", string(debug.Stack()))
	reset(tcpOf(nc))
}

// welcome says whether an address may connect now.
func (s *Server) welcome(addr netip.Addr) bool {
	why, wait := s.arrivals.take(addr, addr.IsValid() && !s.trusted(addr))
	if wait > 0 {
		s.gate.count(why)
	}
	return wait == 0
}

// Speak has the client addressed in a form. It is called before the login.
func (c *Conn) Speak(f protocol.Form) { c.form = f }

// Takes is how many bytes of one message the client takes at the most; 0 is any number.
// Larger ones are not sent, and counted. It is called before the login.
func (c *Conn) Takes(n int) { c.most = n }

// Patience is how long the client may be silent; below zero for ever. Zero is two
// heartbeats.
func (c *Conn) Patience(d time.Duration) { c.quiet.Store(int64(d)) }

// Bequeath is Receive for what a client has left to be said when it is gone. It is called
// by the reader of a Plain connection, before Leave. Whose login was taken back has nothing
// to say any more.
func (c *Conn) Bequeath(m *protocol.Message) {
	if state(c.state.Load()) != stateOpen || c.Gone() && c.wire.reason() == TokenRevoked {
		return
	}
	defer c.recovered("last message")
	c.counters.received(m)
	c.srv.to.Receive(c, m)
}

// TakeStream answers a request for a WebSocket inside of which a stream of bytes goes, and
// returns that as a socket. It is nil when the request was refused, and answered.
func (s *Server) TakeStream(w http.ResponseWriter, r *http.Request, subprotocol string) (net.Conn, *auth.Attempt) {
	d := &Dialect{Subprotocol: subprotocol}
	if status, text := s.checkUpgrade(w, r, d); status != 0 {
		http.Error(w, text, status)
		return nil, nil
	}
	visit := s.Attempt(r)
	if s.guard != nil && !s.guard(w, r, visit) {
		return nil, nil
	}
	up := websocket.Upgrader{
		ReadBufferSize: streamBuffer, WriteBufferSize: streamBuffer, Subprotocols: []string{subprotocol},
		CheckOrigin: func(*http.Request) bool { return true }, // checked before
	}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil { // it was answered
		s.log.Debug("upgrade failed", "remote", visit.RemoteAddr, "err", err)
		return nil, nil
	}
	return &stream{Conn: ws.NetConn(), ws: ws}, visit
}

// streamBuffer is the size of the buffers of a stream.
const streamBuffer = 1 << 10

// stream is the bytes inside of the binary messages of a WebSocket.
type stream struct {
	net.Conn
	ws  *websocket.Conn
	now io.Reader // the message that is being read
}

// NetConn is the connection below TLS.
func (s *stream) NetConn() net.Conn { return tcpOf(s.Conn) }

// errNotBinary is a client that sends text.
var errNotBinary = errors.New("a message that is not binary")

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.now == nil {
			kind, r, err := s.ws.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errNotBinary
			}
			s.now = r
		}
		n, err := s.now.Read(p)
		if err == io.EOF {
			s.now = nil
			if err = nil; n == 0 {
				continue
			}
		}
		return n, err
	}
}

// Write implements net.Conn. Only the pump of the connection calls it.
func (s *stream) Write(p []byte) (int, error) {
	if err := s.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.ws.SetWriteDeadline(t) }

// CloseWrite says goodbye. It does not wait for the client's.
func (s *stream) CloseWrite() error {
	return s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(lingerTime))
}

// TakeRequest takes the socket of a request whose answer has no end, which head begins. It
// is nil when the server takes no clients now, and the request was answered. What the
// client may do is the caller's to find out before.
func (s *Server) TakeRequest(w http.ResponseWriter, r *http.Request, head string) net.Conn {
	nc, _, err := s.take(w)
	if err != nil {
		s.log.Error("cannot take over a connection", "err", err)
		http.Error(w, "cannot answer on this connection", http.StatusInternalServerError)
		return nil
	}
	if err := errors.Join(nc.SetDeadline(time.Now().Add(answerTimeout)), writeAll(nc, head), nc.SetDeadline(time.Time{})); err != nil {
		s.decline(nc)
		return nil
	}
	return nc
}

func writeAll(nc net.Conn, text string) error {
	_, err := io.WriteString(nc, text)
	return err
}

// Welcome is who makes a request that may become a connection now. It is nil when it may
// not, and was answered: for its origin, its haste, or because the server takes nobody.
func (s *Server) Welcome(w http.ResponseWriter, r *http.Request) *auth.Attempt {
	status, text := 0, ""
	switch {
	case !s.originAllowed(r.Header["Origin"]):
		status, text = http.StatusForbidden, "origin not allowed"
	case s.closing():
		status, text = http.StatusServiceUnavailable, "the server is going away"
	case s.held.Load() || s.Draining():
		w.Header().Set("Retry-After", "1")
		status, text = http.StatusServiceUnavailable, "this server takes no clients now: see /readyz"
	case s.gate.full():
		s.gate.count(refusedFull)
		w.Header().Set("Retry-After", "10")
		status, text = http.StatusServiceUnavailable, "too many connections"
	default:
		status, text = s.hurry(w, r)
	}
	if status != 0 {
		w.Header().Set("Connection", "close")
		http.Error(w, text, status)
		return nil
	}
	visit := s.Attempt(r)
	if s.guard != nil && !s.guard(w, r, visit) {
		return nil
	}
	return visit
}
