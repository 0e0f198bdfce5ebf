package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"hadal/store"
	"hadal/store/storetest"
)

// rig is an embedded server in a directory, with a connection.
type rig struct {
	dir  string
	sync bool
	srv  *server.Server
	nc   *nats.Conn
	open []*Store
	opts Options
}

func newRig(t testing.TB, sync bool) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), sync: sync}
	r.start(t)
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *rig) start(t testing.TB) {
	t.Helper()
	r.srv, r.nc = startServer(t, r.dir, r.sync)
}

func startServer(t testing.TB, dir string, sync bool) (*server.Server, *nats.Conn) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		ServerName: "test", DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: sync,
		MaxPayload: 4 << 20, MaxPending: 512 << 20, NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatalf("NewServer: %v", err)
	}
	srv.SetLoggerV2(serverLines{t}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the server did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatalf("Connect: %v", err)
	}
	return srv, nc
}

// serverLines fails the test when the server has an error to tell. A start after
// anything that we do must find nothing to complain of.
type serverLines struct{ t testing.TB }

func (serverLines) Noticef(string, ...any) {}
func (serverLines) Debugf(string, ...any)  {}
func (serverLines) Tracef(string, ...any)  {}
func (l serverLines) Warnf(format string, v ...any) {
	fmt.Fprintf(l.t.Output(), "server: "+format+"\n", v...)
}
func (l serverLines) Errorf(format string, v ...any) { l.t.Errorf("server: "+format, v...) }
func (l serverLines) Fatalf(format string, v ...any) { l.t.Errorf("server: "+format, v...) }

func (r *rig) stop(t testing.TB) {
	t.Helper()
	for _, s := range r.open {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	r.open = nil
	r.nc.Close()
	r.srv.Shutdown()
	r.srv.WaitForShutdown()
}

func (r *rig) store(t testing.TB) *Store {
	t.Helper()
	opts := r.opts
	if r.sync {
		opts.Mark = filepath.Join(r.dir, "mark")
	}
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := Open(context.Background(), r.nc, opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	r.open = append(r.open, s)
	return s
}

func (r *rig) Open(t *testing.T) store.Store { return r.store(t) }

func (r *rig) Restart(t *testing.T) {
	r.stop(t)
	r.start(t)
}

// fenced is an open store under epoch 1.
func (r *rig) fenced(t testing.TB) *Store {
	t.Helper()
	s := r.store(t)
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Fatalf("Fence: %v", err)
	}
	return s
}

// until asks again and again, for 30 seconds at most, until there is no error.
func until(t testing.TB, what string, ask func() error) {
	t.Helper()
	give := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-give:
			t.Fatalf("not within 30 s: %s: %v", what, err)
		}
	}
}

func mustAppend(t testing.TB, s *Store, ops ...store.Op) {
	t.Helper()
	if err := s.Append(context.Background(), ops); err != nil {
		t.Fatalf("Append of %d ops: %v", len(ops), err)
	}
}

func TestJetStreamKeepsTheContract(t *testing.T) {
	for _, leader := range []bool{false, true} {
		t.Run(fmt.Sprintf("leader reads %v", leader), func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) store.Store {
				r := newRig(t, false)
				r.opts.leaderReads = leader
				return r.store(t)
			})
		})
	}
}

func TestJetStreamIsHandedFromOwnerToOwner(t *testing.T) {
	t.Parallel()
	storetest.RunShared(t, func(t *testing.T) storetest.Shared { return newRig(t, true) })
}

func TestRecordsAboveTheLimitAreRefusedAndNothingIsWritten(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	if _, err := Open(t.Context(), r.nc, Options{MaxRecord: 4 << 20}); err == nil || !strings.Contains(err.Error(), "MaxPayload") {
		t.Errorf("Open for records as large as a message = %v, want an error about MaxPayload", err)
	}
	for _, limit := range []int{0, 1000} {
		r.opts.MaxRecord = limit
		s := r.fenced(t)
		mustAppend(t, s, storetest.Put("a", 1, `{}`))
		tooLarge := strings.Repeat("x", s.maxRecord+1)
		if err := s.Append(t.Context(), []store.Op{storetest.Put("b", 1, `{}`), storetest.Put("a", 2, tooLarge)}); !errors.Is(err, store.ErrRefused) {
			t.Errorf("limit %d: Append = %v, want ErrRefused", limit, err)
		}
		if _, err := s.Load(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("limit %d: Load = %v, want ErrNotFound", limit, err)
		}
		mustAppend(t, s, storetest.Put("a", 2, tooLarge[1:]))
		if got, err := s.Load(t.Context(), "a"); err != nil || len(got.Data) != s.maxRecord {
			t.Errorf("limit %d: Load = %d bytes, %v, want the largest record", limit, len(got.Data), err)
		}
	}
}
