// Package pgtest runs a real PostgreSQL for the length of a test: the one that is
// installed on the machine (Debian's package postgresql), with a data directory of its
// own, on a free port of this machine, as a user without rights, because it refuses root.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"hadal/cluster/freeport"
)

// Password is the superuser's, for tests that look for it where it must not be.
const Password = "pg-s3cret"

// limit is how long a start may take: the machine may be busy.
const limit = 2 * time.Minute

// Server is a PostgreSQL that runs until the test ends.
type Server struct {
	t    testing.TB
	bin  string
	dir  string
	addr string
	cmd  *exec.Cmd
	log  *log
	done chan struct{} // closed when it has ended
}

// log keeps what the server writes, for when it fails.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Start starts one. Where PostgreSQL is not installed the test is skipped, and says so;
// `make test` installs it first.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := binaries()
	if bin == "" {
		t.Skip("PostgreSQL is not installed: make deps does it, or apt-get install postgresql")
	}
	dir, err := os.MkdirTemp("", "hadal-pg-") // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the data of PostgreSQL: %v", err)
		}
	})
	if err := giveAway(dir); err != nil {
		t.Fatal(err)
	}
	addrs, release, err := freeport.Claim(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	s := &Server{t: t, bin: bin, dir: dir, addr: addrs[0]}
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(Password), 0o644); err != nil {
		t.Fatal(err)
	}
	s.run("initdb", "--pgdata="+s.data(), "--username=hadal", "--pwfile="+secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	s.Run()
	return s
}

// binaries is the folder of the newest PostgreSQL, or empty.
func binaries() string {
	// Debian keeps them out of the PATH.
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err == nil && len(found) > 0 {
		slices.SortFunc(found, func(a, b string) int {
			if len(a) != len(b) { // 9 is older than 15
				return len(a) - len(b)
			}
			return strings.Compare(a, b)
		})
		return filepath.Dir(found[len(found)-1])
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return ""
	}
	return filepath.Dir(path)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// command is one of PostgreSQL's, as the user without rights.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+s.dir)
	withoutRights(cmd)
	return cmd
}

func (s *Server) run(name string, args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if out, err := s.command(ctx, name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// Run starts the server again after Stop, on its old port and data.
func (s *Server) Run() {
	s.t.Helper()
	if !s.try() {
		s.t.Fatalf("PostgreSQL does not start:\n%s", s.log)
	}
	s.t.Cleanup(s.Stop)
}

// try says whether the server answers on its port.
func (s *Server) try() bool {
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.log, s.done = &log{}, make(chan struct{})
	s.cmd = s.command(context.Background(), "postgres", "-D", s.data(), "-p", port, "-k", s.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB",
		"-c", "max_connections=50")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, done := s.cmd, s.done
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended is in the log
	}()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			err = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return true
		}
		select {
		case <-done:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.t.Fatalf("PostgreSQL does not answer:\n%s", s.log)
	return false
}

// Stop ends the server and all connections to it, if it runs.
func (s *Server) Stop() {
	select {
	case <-s.done:
		return
	default:
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("stop PostgreSQL: %v", err)
	}
	select {
	case <-s.done:
	case <-time.After(limit):
		s.t.Errorf("PostgreSQL does not stop:\n%s", s.log)
	}
}

// URL is the connection string of the superuser.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://hadal:%s@%s/postgres?sslmode=disable", Password, s.addr)
}

// Exec runs SQL as the superuser.
func (s *Server) Exec(statements string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL())
	if err == nil {
		_, err = conn.Exec(ctx, statements)
		err = errors.Join(err, conn.Close(ctx))
	}
	if err != nil {
		s.t.Fatalf("PostgreSQL: %v", err)
	}
}
