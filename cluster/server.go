package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options configures the embedded server.
type Options struct {
	// Dir is this process's data directory; the server's data lies in it.
	Dir *Dir
	// SyncAlways has every commit fsynced before it is answered.
	SyncAlways bool
	// SyncInterval is the time between fsyncs otherwise. 0 means one second.
	SyncInterval time.Duration
	// MaxMessage is the largest payload in bytes: above the largest record by 8
	// KiB or more. 0 means 8 MiB. At most 64 MiB.
	MaxMessage int
	// Log hears the server's warnings and errors. nil discards them.
	Log *slog.Logger
}

// Limits of the embedded server.
const (
	defaultMaxMessage = 8 << 20
	maxMaxMessage     = 64 << 20
	// maxPending bounds what may wait for one of our own connections. The answer
	// to a listing of 100 000 long names is some 100 MiB.
	maxPending = 512 << 20
	// startPatience bounds the start, which reads back the index of all records:
	// about a second per million.
	startPatience = 5 * time.Minute
	// maxStore stands for no limit: the server's own is three quarters of the
	// free space at its start, and at that limit it shuts JetStream down.
	maxStore = 1 << 60
)

// Server is the embedded NATS server, with this process's connection to it.
type Server struct {
	dir   string
	log   *slog.Logger
	srv   *server.Server
	nc    *nats.Conn
	close sync.Once
}

// Start starts the server on the data directory and connects to it in memory.
// It returns when all stored data can be used, or with an error that names the
// directory.
func Start(ctx context.Context, opts Options) (*Server, error) {
	dir := filepath.Join(opts.Dir.Path(), natsDir)
	s := &Server{dir: dir}
	if err := s.start(ctx, opts); err != nil {
		s.Close()
		return nil, fmt.Errorf("start the embedded server in %s: %w", dir, err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, opts Options) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := probe(s.dir); err != nil {
		return err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s.log = opts.Log
	if opts.SyncInterval <= 0 {
		opts.SyncInterval = time.Second
	}
	if opts.MaxMessage <= 0 {
		opts.MaxMessage = defaultMaxMessage
	}
	if opts.MaxMessage > maxMaxMessage {
		return fmt.Errorf("messages of %d bytes are too large, at most %d", opts.MaxMessage, maxMaxMessage)
	}
	if mutantSync {
		opts.SyncAlways, opts.SyncInterval = false, time.Hour
	}
	srv, err := server.NewServer(&server.Options{
		ServerName:        opts.Dir.NodeID(),
		DontListen:        true,
		JetStream:         true,
		StoreDir:          s.dir,
		JetStreamMaxStore: maxStore,
		SyncAlways:        opts.SyncAlways,
		SyncInterval:      opts.SyncInterval,
		MaxPayload:        int32(opts.MaxMessage),
		MaxPending:        maxPending,
		NoSigs:            true,
		NoLog:             true, // SetLoggerV2 decides
	})
	if err != nil {
		return err
	}
	s.srv = srv
	log := &serverLog{log: opts.Log}
	srv.SetLoggerV2(log, false, false, false)
	started := make(chan struct{})
	go func() {
		defer close(started)
		srv.Start()
	}()
	select {
	case <-started:
	case <-ctx.Done():
		<-started // there is no way to interrupt it; it ends
		return context.Cause(ctx)
	}
	if err := log.fatal(); err != nil {
		return err
	}
	if !srv.ReadyForConnections(startPatience) {
		return errors.New("it does not get ready")
	}
	s.nc, err = s.Dial("hadal")
	return err
}

// probe writes a file, so that a directory that cannot be written is found at
// the start and by its name.
func probe(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Conn is the process's connection to the server, for everyone. It ends with
// Close.
func (s *Server) Conn() *nats.Conn { return s.nc }

// Dial makes another connection, for traffic that shall not stand in the way of
// Conn's. The caller closes it. The name is seen in the server's monitoring.
func (s *Server) Dial(name string) (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(s.srv), nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Warn("connection to the embedded server failed", "conn", name, "err", err)
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded server: %w", err)
	}
	return nc, nil
}

// Close ends the connection and stops the server, and returns when nothing of
// it runs and its files are closed. Stores on it must be closed before. It may
// be called twice.
func (s *Server) Close() {
	s.close.Do(func() {
		if s.nc != nil {
			s.nc.Close()
		}
		if s.srv != nil {
			s.srv.Shutdown()
			s.srv.WaitForShutdown()
		}
	})
}

// serverLog takes the server's log lines: warnings and errors go to ours, what
// would end a process of the server's own is kept for Start.
type serverLog struct {
	log *slog.Logger

	mu    sync.Mutex
	first error // guarded by mu; the first fatal line
}

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// Noticef implements server.Logger.
func (l *serverLog) Noticef(string, ...any) {}

// Debugf implements server.Logger.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l *serverLog) Tracef(string, ...any) {}

// Warnf implements server.Logger.
func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("embedded server warns", "err", fmt.Sprintf(format, v...))
}

// Errorf implements server.Logger.
func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("embedded server failed", "err", fmt.Sprintf(format, v...))
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
}
