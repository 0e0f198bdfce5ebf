package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options configures the embedded server.
type Options struct {
	// Dir is this process's data directory; the server's data lies in it.
	Dir *Dir
	// Store is the name of the server's directory in Dir. Empty means "nats", or
	// "nats-cluster" with Cluster: streams of a server alone are invisible to one in a
	// cluster, so they lie apart and can be copied.
	Store string
	// Cluster has the server be one of a cluster. nil means alone, without a port.
	Cluster *ClusterOptions
	// SyncAlways has every commit fsynced before it is answered.
	SyncAlways bool
	// SyncInterval is the time between fsyncs otherwise. 0 means one second. A server in a
	// cluster does not use it with SyncAlways.
	SyncInterval time.Duration
	// MaxMessage is the largest payload in bytes: above the largest record by 8
	// KiB or more. 0 means 8 MiB. At most MaxMessage.
	MaxMessage int
	// Partition says which partition a stream belongs to, if to any: when its leader dies the
	// owner's server is the first to stand for election. nil: none belongs to any. It is
	// called from any goroutine.
	Partition func(stream string) (partition int, ok bool)
	// DiskReserve is how many bytes of the disk Room keeps free. 0 means an eighth
	// of the volume, but at least 32 and at most 256 MiB.
	DiskReserve int64
	// Log hears the server's warnings and errors. nil discards them.
	Log *slog.Logger
}

// MaxMessage is the largest Options.MaxMessage: what the embedded server stores in one
// message, 32 MiB with its subject and the rest.
const MaxMessage = 32<<20 - 8<<10

// Limits of the embedded server.
const (
	defaultMaxMessage = 8 << 20
	// maxPending bounds what may wait for one of our own connections. The answer
	// to a listing of 100 000 long names is some 100 MiB.
	maxPending = 512 << 20
	// startPatience bounds the start, which reads back the index of all records:
	// about a second per million.
	startPatience = 5 * time.Minute
	// startLook is how often it is asked meanwhile whether the start has failed.
	startLook = 250 * time.Millisecond
	// flushWithin is how long a connection waits for a server that takes nothing, which
	// hangs, as both are in one process.
	flushWithin = 5 * time.Second
	// tidyEvery is how often a server in a cluster that syncs every commit looks after each
	// stream's files. Nothing hangs on it: what a commit needs is in its group's log, which
	// is synced, and given up only when the stream's files are. Each look at each stream wakes
	// the process and syncs a file.
	tidyEvery = 10 * time.Second
	// maxStore stands for no limit: the server's own is three quarters of the
	// free space at its start, and at that limit it shuts JetStream down.
	maxStore = 1 << 60
)

// Server is the embedded NATS server, with this process's connection to it. The
// connections outlive it: Supervise restarts it in its place.
//
// Locks are taken in the order lifecycle, reloading, mu; dialed before a connection's own,
// which it holds while it takes reloading and mu to connect anew.
type Server struct {
	opts Options // with the defaults filled in
	dir  string
	disk disk
	log  *slog.Logger
	nc   *nats.Conn
	// password lets this process's connections in; it is random. Nobody else may
	// connect to the port of a server in a cluster.
	password string
	// alarm holds a token when the health shall be looked at.
	alarm chan struct{}

	// app is the account of everything of ours on the embedded server, nil without one.
	app atomic.Pointer[server.Account]

	// hangAfter and endAfter are the bounds for the embedded server, which end ends.
	hangAfter, endAfter time.Duration
	end                 func(*server.Server)

	lifecycle sync.Mutex // held while a server is started or stopped
	// reloading is held while the server takes new options, and read by each connection
	// that is being made: the server would turn away whoever has not said yet who it is,
	// and reads what it says without its lock.
	reloading sync.RWMutex

	// dialed is not mu, which a connection wants while it connects anew and is locked.
	dialed sync.Mutex
	conns  []*nats.Conn // guarded by dialed; those dialed and maybe closed since

	mu       sync.Mutex
	srv      *server.Server // guarded by mu; nil while there is none
	health   *checkup       // guarded by mu; of srv, or of the one before
	release  func()         // guarded by lifecycle; of the timers, or nil
	lines    *serverLog     // guarded by mu; of srv
	routes   []string       // guarded by mu; as SetRoutes says
	port     int            // guarded by mu; of the routes, once it is known
	closed   bool           // guarded by mu
	first    complaints     // guarded by mu; of the first server, just started
	started  complaints     // guarded by mu; of this server, just started
	trouble  *trouble       // guarded by mu; nil while all is well
	doubts   doubts         // guarded by mu
	wasReady bool           // guarded by mu; in the cluster, when Ready was asked last
	told     time.Time      // guarded by mu; when a full disk was logged last
	stats    Stats          // guarded by mu; without what Stats looks up
}

// Start starts the server on the data directory and connects to it in memory.
// It returns when all stored data can be used, or with an error that names the
// directory. On a disk without room it starts, as long as the server itself can.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if opts.Store == "" {
		opts.Store = natsDir
		if opts.Cluster != nil {
			opts.Store = natsClusterDir
		}
	}
	dir := filepath.Join(opts.Dir.Path(), opts.Store)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.SyncInterval <= 0 {
		opts.SyncInterval = time.Second
	}
	if opts.SyncAlways && opts.Cluster != nil {
		opts.SyncInterval = tidyEvery
	}
	if opts.MaxMessage <= 0 {
		opts.MaxMessage = defaultMaxMessage
	}
	if mutantSync {
		opts.SyncAlways, opts.SyncInterval = false, time.Hour
	}
	s := &Server{
		opts: opts, dir: dir, disk: disk{dir: dir, reserve: opts.DiskReserve}, log: opts.Log,
		alarm: make(chan struct{}, 1), password: newID(),
		hangAfter: hangAfter, endAfter: endAfter, end: shutDown,
	}
	if c := opts.Cluster; c != nil {
		s.routes, s.port = c.Routes, c.Port
	}
	if err := s.start(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("start the embedded server in %s: %w", dir, err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if s.opts.MaxMessage > MaxMessage {
		return fmt.Errorf("messages of %d bytes are too large, at most %d", s.opts.MaxMessage, MaxMessage)
	}
	if c := s.opts.Cluster; c != nil {
		if err := c.check(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return withCure(err)
	}
	if err := probe(s.dir, startProbe); err != nil {
		return err
	}
	if err := sweep(s.dir); err != nil {
		return err
	}
	if err := s.disk.room(0); err != nil {
		s.tell(err)
	}
	if err := s.boot(ctx); err != nil {
		return err
	}
	s.first = s.started
	var err error
	s.nc, err = s.Dial("hadal")
	return err
}

// boot starts an embedded server and puts it in place. The caller holds lifecycle,
// or is Start.
func (s *Server) boot(ctx context.Context) error {
	opts, err := s.serverOptions()
	if err != nil {
		return err
	}
	if err := s.setTimers(); err != nil {
		return err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	log := &serverLog{log: s.log, heard: s.look, routes: s.opts.Cluster != nil}
	srv.SetLoggerV2(log, false, false, false)
	if s.opts.Cluster != nil {
		opts.CustomClientAuthentication.(*insiders).srv.Store(srv)
	}
	srv.Start() // there is no way to interrupt it
	if err = context.Cause(ctx); err == nil {
		err = log.fatal()
	}
	for end := time.Now().Add(startPatience); err == nil && !srv.ReadyForConnections(startLook); {
		// A port that somebody else has is found out on the way.
		if err = log.fatal(); err == nil && time.Now().After(end) {
			err = errors.New("it does not get ready")
		}
	}
	if err != nil {
		return withCure(errors.Join(err, endWithin(srv, s.end, s.endAfter)))
	}
	health := newCheckup(srv, complaintsOf)
	var found complaints
	if s.opts.Cluster == nil {
		if found, err = health.complaints(startPatience); err != nil {
			return errors.Join(err, endWithin(srv, s.end, s.endAfter))
		}
	}
	s.mu.Lock()
	s.srv, s.health, s.started, s.lines = srv, health, found, log
	s.app.Store(srv.GlobalAccount())
	if addr := srv.ClusterAddr(); addr != nil {
		s.port = addr.Port // a restart must be found where this one was
	}
	s.mu.Unlock()
	return nil
}

// serverOptions are those of the embedded server.
func (s *Server) serverOptions() (*server.Options, error) {
	opts := &server.Options{
		ServerName:        s.opts.Dir.NodeID(),
		DontListen:        true,
		JetStream:         true,
		StoreDir:          s.dir,
		JetStreamMaxStore: maxStore,
		SyncAlways:        s.opts.SyncAlways,
		SyncInterval:      s.opts.SyncInterval,
		MaxPayload:        int32(s.opts.MaxMessage),
		MaxPending:        maxPending,
		NoSigs:            true,
		NoLog:             true, // SetLoggerV2 decides
	}
	if s.opts.Cluster == nil {
		return opts, nil
	}
	return opts, s.joinCluster(opts)
}

// shutDown stops an embedded server, if there is one, and returns when nothing of
// it runs and its files are closed.
func shutDown(srv *server.Server) {
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// server is the embedded server, or nil while there is none.
func (s *Server) server() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.srv
}

// take takes the embedded server out of its place.
func (s *Server) take() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	srv := s.srv
	s.srv = nil
	s.app.Store(nil)
	return srv
}

// Conn is the process's connection to the server, for everyone. It ends with
// Close.
func (s *Server) Conn() *nats.Conn { return s.nc }

// Dial makes another connection, for traffic that shall not stand in the way of
// Conn's. The caller closes it. The name is seen in the server's monitoring. When
// the server restarts it connects anew by itself; who waits for an answer then gets
// nats.ErrDisconnected.
func (s *Server) Dial(name string) (*nats.Conn, error) { return s.dial(name, userApp) }

// dial is Dial for a user, with more options.
func (s *Server) dial(name, user string, more ...nats.Option) (*nats.Conn, error) {
	opts := []nats.Option{nats.InProcessServer(door{s}), nats.Name(name), nats.MaxReconnects(-1),
		nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.FlusherTimeout(flushWithin),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Warn("connection to the embedded server failed", "conn", name, "err", err)
		})}
	if s.opts.Cluster != nil {
		opts = append(opts, nats.UserInfo(user, s.password), nats.IgnoreDiscoveredServers())
	}
	nc, err := nats.Connect("", append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded server: %w", err)
	}
	s.dialed.Lock()
	s.conns = append(slices.DeleteFunc(s.conns, (*nats.Conn).IsClosed), nc)
	s.dialed.Unlock()
	return nc, nil
}

// hangUp has every connection connect anew. Unlike the end of the server alone it
// ends the requests under way at once, which else would wait for their timeouts.
func (s *Server) hangUp() {
	s.dialed.Lock()
	conns := slices.Clone(s.conns)
	s.dialed.Unlock()
	for _, nc := range conns {
		if err := nc.ForceReconnect(); err != nil && !nc.IsClosed() {
			s.log.Warn("connection to the embedded server failed", "conn", nc.Opts.Name, "err", err)
		}
	}
}

// door leads a connection to the server of the moment.
type door struct{ s *Server }

var _ nats.InProcessConnProvider = door{}

// InProcessConn implements nats.InProcessConnProvider. The server takes no new options
// from here until it has let the connection in, or not.
func (d door) InProcessConn() (net.Conn, error) {
	d.s.reloading.RLock()
	srv := d.s.server()
	if srv == nil {
		d.s.reloading.RUnlock()
		return nil, errStopped
	}
	c, err := srv.InProcessConn()
	if err != nil {
		d.s.reloading.RUnlock()
		return nil, err
	}
	n := &newcomer{Conn: c, settled: sync.OnceFunc(d.s.reloading.RUnlock)}
	// The client also leaves behind, without a word, what does not begin as a server does.
	time.AfterFunc(newcomerLimit, n.settled)
	return n, nil
}

// newcomerLimit is longer than a client waits for a server to let it in.
const newcomerLimit = 2 * nats.DefaultTimeout

// newcomer is a connection that calls settled once when the server has let it in: when
// the first answer to what it wrote arrives, which it first writes when the server has
// introduced itself. It also does when it fails or is closed.
type newcomer struct {
	net.Conn
	wrote   atomic.Bool
	in      atomic.Bool
	settled func()
}

// Write implements net.Conn.
func (n *newcomer) Write(p []byte) (int, error) {
	n.wrote.Store(true)
	k, err := n.Conn.Write(p)
	if err != nil {
		// The client gives up without closing what it could not write to.
		n.in.Store(true)
		n.settled()
	}
	return k, err
}

// Read implements net.Conn.
func (n *newcomer) Read(p []byte) (int, error) {
	k, err := n.Conn.Read(p)
	if !n.in.Load() && (err != nil || n.wrote.Load()) {
		n.in.Store(true)
		n.settled()
	}
	return k, err
}

// Close implements net.Conn.
func (n *newcomer) Close() error {
	n.settled()
	return n.Conn.Close()
}

// Close ends the connection and stops the server, and returns when nothing of
// it runs and its files are closed. Stores on it must be closed before. It may
// be called twice. It waits for a restart under way.
func (s *Server) Close() {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if s.nc != nil {
		s.nc.Close()
	}
	if err := endWithin(s.take(), s.end, s.endAfter); err != nil {
		s.log.Error("embedded server does not end", "err", err)
	}
	if s.release != nil {
		s.release()
	}
}

// serverLog takes the server's log lines: warnings and errors go to ours, what
// would end a process of the server's own is kept for boot. The server writes a
// line whenever it gives up a stream or JetStream, partly as a notice, and under its
// locks: heard is told of every line, and may not wait.
type serverLog struct {
	log    *slog.Logger
	heard  func()
	routes bool // the server has routes, whose loss is not for the operator to mend

	mu      sync.Mutex
	first   error // guarded by mu; the first fatal line
	removed bool  // guarded by mu; the cluster has removed this server
	// window is when the last routeLinesEvery began, lines how many about routes came in
	// it, held how many were not logged since one was.
	window      time.Time // guarded by mu
	lines, held int       // guarded by mu
}

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// Noticef implements server.Logger.
func (l *serverLog) Noticef(string, ...any) { l.heard() }

// Debugf implements server.Logger.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l *serverLog) Tracef(string, ...any) {}

// Warnf implements server.Logger.
func (l *serverLog) Warnf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	switch {
	// It does not know of VerifyConnection, which ClusterOptions.check asks for.
	case l.routes && strings.Contains(text, "hostname of solicited routes will not be verified"):
	case l.ofRoute(text):
		l.warnOfRoute(text)
	default:
		l.log.Warn("embedded server warns", "err", text)
	}
	l.heard()
}

// Errorf implements server.Logger.
func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.Contains(text, "was removed from the cluster") {
		l.mu.Lock()
		l.removed = true
		l.mu.Unlock()
	}
	if l.ofRoute(text) {
		l.warnOfRoute(text)
	} else {
		l.log.Error("embedded server failed", "err", text)
	}
	l.heard()
}

// ofRoute says whether a line is about a route.
func (l *serverLog) ofRoute(text string) bool {
	return l.routes && (strings.Contains(text, "route") || strings.Contains(text, " - rid:"))
}

// warnOfRoute logs a line about a route, a few at a time: a node that is refused, or
// another that is not there, is tried again and again.
func (l *serverLog) warnOfRoute(text string) {
	now := time.Now()
	l.mu.Lock()
	if now.Sub(l.window) >= routeLinesEvery {
		l.window, l.lines = now, 0
	}
	l.lines++
	tell, held := l.lines <= routeLines, l.held
	if tell {
		l.held = 0
	} else {
		l.held++
	}
	l.mu.Unlock()
	switch {
	case tell && held > 0:
		l.log.Warn("embedded server warns", "err", text, "notLogged", held)
	case tell:
		l.log.Warn("embedded server warns", "err", text)
	}
}

// Fatalf implements server.Logger. The server goes on after it.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.mu.Lock()
	if l.first == nil {
		l.first = errors.New(text)
	}
	l.mu.Unlock()
	l.log.Error("embedded server failed", "err", text)
	l.heard()
}
