package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"

	"github.com/olahol/melody"
)

const (
	// handshakeTimeout is how long TLS may take, and after it the whole of a
	// request; from its beginning, whatever trickles in meanwhile. The timeouts of
	// net/http count from there, and those of a request that front hands on from its
	// first byte.
	handshakeTimeout = 10 * time.Second
	// answerTimeout is how long a client may take to read an answer of HTTP.
	answerTimeout = 10 * time.Second
	// idleTimeout is how long a client may take to send a further request of HTTP.
	idleTimeout = time.Minute
	// maxHeaderBytes is the longest head of a request, cookies included.
	maxHeaderBytes = 16 << 10
	// drainTime is how long Serve, whose context has ended, lets clients take
	// what waits for them. A caller of Shutdown chooses for itself.
	drainTime = 5 * time.Second
	// minSweep bounds how often all connections are looked at, whatever short
	// times a test configures.
	minSweep = 5 * time.Millisecond
)

// Server is the public port.
type Server struct {
	cfg     Config
	authn   auth.Authenticator
	to      Receiver
	log     *slog.Logger
	routes  map[string]http.Handler
	proxies []netip.Prefix
	speak   map[string]*Dialect // by path
	cert    *certificate        // nil without TLS
	ports   []*port             // beside that of HTTP
	others  []*WebSocketConfig  // of dialects of Plain connections; changed before Serve only
	http    *http.Server
	melody  *melody.Melody
	gate    *gate
	writers []*writer
	crew    *crew
	guard   func(http.ResponseWriter, *http.Request, *auth.Attempt) bool // nil lets all pass

	began  time.Time
	lastID atomic.Uint64
	// clock is nanoseconds since the start, as the sweep sees them: in steps, and
	// without the time the process itself was stopped, which is no client's fault.
	clock atomic.Int64

	counters [counterShards]counters
	closes   [reasons]atomic.Uint64
	logins   [loginResults]atomic.Uint64
	panics   atomic.Uint64

	arrivals *arrivals
	seats    *seats
	callers  *seats // of sockets by which users log in with requests
	outdated outdated

	draining atomic.Pointer[drain] // nil unless Drain was called
	held     atomic.Bool           // as Hold says

	stopping chan struct{} // closed when Shutdown begins
	stopped  chan struct{} // closed when it has ended

	mu       sync.Mutex
	listener net.Listener       // guarded by mu
	serving  bool               // guarded by mu
	stop     bool               // stopping is closed; guarded by mu
	conns    map[*Conn]struct{} // guarded by mu
	spoken   map[string]uint64  // connections there have been by dialect; guarded by mu
	running  sync.WaitGroup     // one for each of conns; grows under mu while not stop
}

// New prepares the port and reads the certificate, nothing else. routes are
// further HTTP paths, matched exactly, but for those that end with a slash, which stand
// for all that begin so and have no route of their own; every other path is answered
// 404. Requests have the address of the client in RemoteAddr, as far as TrustedProxies let
// it be known, and without a port. A key and certificate that cannot be used are an error
// naming them.
func New(cfg Config, authn auth.Authenticator, to Receiver, routes map[string]http.Handler, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	proxies, err := parseProxies(cfg.TrustedProxies)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, authn: authn, to: to, log: log, routes: routes, proxies: proxies,
		began:    time.Now(),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
		conns:    make(map[*Conn]struct{}),
		spoken:   make(map[string]uint64),
	}
	if cfg.HTTP.SSL.Cert != "" {
		if s.cert, err = loadCertificate(cfg.HTTP.SSL, log); err != nil {
			return nil, err
		}
	}
	s.speak = dialects(append([]Dialect{{Name: "ws-binary", Options: &s.cfg.WebSocket, Binary: true}}, cfg.Dialects...))
	s.gate = newGate(&s.cfg.HTTP, s.trusted, log)
	s.arrivals, s.seats, s.callers = newArrivals(cfg.ConnectionRate), newSeats(cfg.MaxConnectionsPerUser, cfg.MaxSubscriptionsPerUser), newSeats(cfg.MaxConnectionsPerUser, 0)
	s.melody = newMelody(s.speak, log)
	s.writers = newWriters()
	s.crew = newCrew(s.stopped)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // a connection of HTTP/2 cannot be taken over
	s.http = &http.Server{
		Handler:        http.HandlerFunc(s.serveHTTP),
		ReadTimeout:    handshakeTimeout,
		WriteTimeout:   answerTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		Protocols:      protocols,
		ConnState:      s.gate.connState,
		ConnContext:    connContext,
		ErrorLog:       stdlog.New(httpErrors{log}, "", 0),
	}
	return s, nil
}

// Guard has f look at every upgrade that would be accepted. When f returns false it has
// answered the request. It is called on the request's goroutine; the attempt has no
// parameters yet, and is not to be changed. Guard is called before Serve, if at all.
func (s *Server) Guard(f func(http.ResponseWriter, *http.Request, *auth.Attempt) bool) { s.guard = f }

// httpErrors takes what the HTTP server has to say. Most of it is what strangers
// do; that no client can be accepted, mostly for want of descriptors, is the
// operator's, who hears of it as often as the server tries: soon once a second.
type httpErrors struct{ log *slog.Logger }

// Write implements io.Writer.
func (h httpErrors) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	if strings.Contains(text, "panic serving") {
		h.log.Error("panic while serving a request", "err", text)
	} else if strings.Contains(text, "Accept error") {
		h.log.Warn("cannot accept clients: if too many files are open, raise the limit (ulimit -n, LimitNOFILE=)", "err", text)
	} else {
		h.log.Debug("http server", "err", text)
	}
	return len(p), nil
}

// Listen binds the port, so that Addr is known; clients wait until Serve.
func (s *Server) Listen(ctx context.Context) error {
	addr := net.JoinHostPort(s.cfg.HTTP.Host, strconv.Itoa(s.cfg.HTTP.Port))
	// Heartbeats and timeouts find the dead; see Plain for those who have none.
	lc := net.ListenConfig{KeepAlive: -1}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil || s.stop {
		return errors.Join(errors.New("listen: called twice, or after Shutdown"), l.Close())
	}
	if err := s.listenPorts(ctx); err != nil {
		return errors.Join(err, l.Close())
	}
	s.listener = l
	return nil
}

// Addr is the address listened on; nil before Listen.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Secure says whether the port speaks TLS.
func (s *Server) Secure() bool { return s.cert != nil }

// Serve serves clients until ctx ends, or Shutdown is called, or the listener
// fails, which is its only error. When it returns, no goroutine of the port is
// left. Listen comes first.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	l := s.listener
	if l == nil || s.serving {
		s.mu.Unlock()
		return errors.New("serve: called before Listen, or twice")
	}
	s.serving = true
	s.mu.Unlock()
	l = listener{l, s.gate}
	if s.cert != nil {
		l = tls.NewListener(l, s.cert.config())
	}

	var wg sync.WaitGroup
	wg.Go(s.sweepLoop)
	for _, r := range s.writers {
		wg.Go(func() { r.run(s.stopped) })
	}
	s.servePorts(&wg)
	if s.cert != nil {
		wg.Go(func() { s.cert.watch(s.stopped) })
	}
	wg.Go(func() {
		select {
		case <-ctx.Done():
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
			defer cancel()
			if err := s.Shutdown(grace); err != nil {
				s.log.Warn("clients were cut off at the end", "err", err)
			}
		case <-s.stopped:
		}
	})
	if s.cert == nil {
		to := newHanded(l.Addr())
		l = &front{Listener: l, srv: s, to: to}
		wg.Go(func() { _ = s.http.Serve(to) }) // ends with the other, which says why
	}
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	} else if s.closing() && errors.Is(err, net.ErrClosed) {
		err = nil
	} else {
		err = fmt.Errorf("serve %s: %w", l.Addr(), err)
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(now) // err is what went wrong
	}
	<-s.stopped
	wg.Wait()
	s.crew.wait()
	return err
}

// Shutdown ends the port: it accepts nobody any more, writes what waits for
// clients, says goodbye to them (close code 1001) and waits until all have gone
// and Closed was called for each. When ctx ends first, the rest are cut off and
// ctx's error is returned. It may be called more than once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.stop
	s.stop = true
	if first {
		close(s.stopping)
	}
	l := s.listener
	s.mu.Unlock()

	if !first {
		select {
		case <-s.stopped:
			return nil
		case <-ctx.Done():
			s.cutOff()
			<-s.stopped
			return ctx.Err()
		}
	}
	defer close(s.stopped)
	if l != nil {
		_ = l.Close() // closed for good either way
	}
	s.closePorts()
	var wg sync.WaitGroup
	wg.Go(func() {
		s.gate.closeMute()
		if err := s.http.Shutdown(ctx); err != nil {
			_ = s.http.Close() // the requests had their time
		}
	})
	for _, c := range s.list() {
		c.close(GoingAway)
	}
	gone := make(chan struct{})
	wg.Go(func() {
		s.running.Wait()
		close(gone)
	})
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
		s.cutOff()
	}
	wg.Wait()
	return err
}

// cutOff closes the sockets of all that are left.
func (s *Server) cutOff() {
	for _, c := range s.list() {
		c.wire.end(GoingAway)
		c.wire.abort()
	}
}

// Reload reads the certificate files again, as SIGHUP asks for. Clients stay; on
// an error the old certificate does.
func (s *Server) Reload() error {
	var errs []error
	if s.cert != nil {
		errs = append(errs, s.cert.reload())
	}
	for _, p := range s.ports {
		if p.cert != nil {
			errs = append(errs, p.cert.reload())
		}
	}
	return errors.Join(errs...)
}

// Conns lists the connections of the moment, in no order.
func (s *Server) Conns() []*Conn { return s.list() }

func (s *Server) list() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// closing says whether Shutdown was called.
func (s *Server) closing() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// newConn registers a connection, from when on others see it; nil when the server is ending.
func (s *Server) newConn(nc net.Conn, early []byte, visit *auth.Attempt, d *Dialect, plain bool) *Conn {
	c := &Conn{srv: s, dialect: d, remote: visit.RemoteAddr, since: time.Now(), visit: visit, guest: s.gate.guestOf(nc)}
	if d.Codec != nil {
		c.codec = d.Codec()
		c.form = c.codec.Form()
		if l, ok := c.codec.(Listener); ok {
			c.hear = l.Hear
		}
		c.follow, _ = c.codec.(Follower)
	}
	c.started = s.clock.Load()
	c.heardAt.Store(c.started)
	c.pinged.Store(c.started)
	newWire(c, nc, early)
	if plain {
		c.wire.plain = true
		c.wire.open.Store(true)
		c.state.Store(uint32(stateChallenged))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop {
		return nil
	}
	c.id = s.lastID.Add(1)
	c.counters = &s.counters[c.id%counterShards]
	s.conns[c] = struct{}{}
	s.spoken[d.Name]++
	s.running.Add(1)
	return c
}

// removed forgets a connection whose goroutine ends.
func (s *Server) removed(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.gate.leave(c.wire.raw())
	s.running.Done()
}

// serveHTTP finds who answers a path.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if d := s.speak[r.URL.Path]; d != nil {
		s.serveWebSocket(w, r, d)
		return
	}
	r.RemoteAddr = s.clientAddr(r)
	if h, ok := s.routes[r.URL.Path]; ok {
		h.ServeHTTP(w, r)
		return
	}
	// The few that end with a slash; the path is as it came, not cleaned.
	for path, h := range s.routes {
		if strings.HasSuffix(path, "/") && strings.HasPrefix(r.URL.Path, path) {
			h.ServeHTTP(w, r)
			return
		}
	}
	http.NotFound(w, r)
}

// now is the time since the start.
func (s *Server) now() time.Duration { return time.Since(s.began) }

// sweepLoop looks at all connections now and then, until Shutdown has ended:
// goodbyes can get stuck too.
func (s *Server) sweepLoop() {
	period := s.cfg.WebSocket.sweepEvery()
	for _, d := range s.cfg.Dialects {
		period = min(period, d.Options.sweepEvery())
	}
	for _, o := range s.others {
		period = min(period, o.sweepEvery())
	}
	period = max(period, minSweep)
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	last := s.now()
	for {
		select {
		case <-ticker.C:
			now := s.now()
			s.clock.Add(int64(min(now-last, 2*period)))
			last = now
			s.sweep(now, period)
			s.crew.thin()
		case <-s.stopped:
			return
		}
	}
}

// sweepEvery is how often connections of a dialect are to be looked at.
func (w *WebSocketConfig) sweepEvery() time.Duration {
	period := min(w.HeartbeatInterval/4, w.QueueStall/2)
	if w.UnauthenticatedClientTimeout > 0 {
		period = min(period, w.UnauthenticatedClientTimeout/4)
	}
	return period
}

// sweep ends the connections that are silent, not logged in, or stuck, and pings those
// that wait for it. What it reads of a connection may be one period old, so it waits that
// much longer.
func (s *Server) sweep(now, period time.Duration) {
	clock := s.clock.Load()
	for _, c := range s.list() {
		w := c.dialect.Options
		silent := int64(2*w.HeartbeatInterval + period)
		if q := c.quiet.Load(); q > 0 {
			silent = q + int64(period)
		}
		login := int64(w.UnauthenticatedClientTimeout + period)
		if w.UnauthenticatedClientTimeout == 0 {
			login = clock + 1
		}
		if c.dialect.Greets && state(c.state.Load()) != stateNew && !c.Gone() && clock-c.pinged.Load() >= int64(w.HeartbeatInterval-period) {
			c.ping(clock)
		}
		switch {
		case c.wire.stalled(now, w.QueueStall):
			c.wire.end(SlowConsumer) // or a reason that stands already
			c.wire.abort()
		case c.Gone():
		case clock-c.started > login && state(c.state.Load()) != stateOpen:
			c.timeOut()
		case c.busy.Load():
			c.heardAt.Store(clock) // it is us who do not listen
		case c.quiet.Load() >= 0 && clock-c.heardAt.Load() > silent:
			c.close(Silent)
		}
	}
}
