package register

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"hadal/auth"
	"hadal/auth/vault"
)

const (
	goodKey  = "a-key-of-the-plugin-0123456789-abcdef"
	otherKey = "another-key-0123456789-0123456789-01"
	admin    = "the-operators-secret"

	testGrace = 30 * time.Second
)

// logBuffer is a log that tests can read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// site is one node's room under test.
type site struct {
	*Room
	t      testing.TB
	vault  vault.Vault
	log    *logBuffer
	routes map[string]http.Handler
	from   string // the address of requests
}

// newSite makes a room on a vault; change may be nil.
func newSite(t testing.TB, v vault.Vault, change func(*Config, *Deps)) *site {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Mode = Open
	log := &logBuffer{}
	deps := Deps{
		Vault: v, Turnstile: auth.NewTurnstile(), Admin: func(s string) bool { return s == admin },
		OfflineGrace: func() time.Duration { return testGrace },
		Log:          slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg, &deps)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	deps.Cost = bcrypt.MinCost
	r, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return &site{Room: r, t: t, vault: v, log: log, routes: r.Routes(), from: "10.0.0.1"}
}

// running runs the room until the returned function is called.
func (s *site) running() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx) // ctx's error
	}()
	return func() { cancel(); <-done }
}

// answer is what a request is answered.
type answer struct {
	status int
	body   map[string]any
	raw    string
	header http.Header
}

func basic(id, key string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(id, key)
	return r.Header.Get("Authorization")
}

// post sends a request; authorization may be empty.
func (s *site) post(path, authorization string, body any) answer {
	s.t.Helper()
	text, ok := body.(string)
	if !ok {
		b, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		text = string(b)
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(text))
	r.RemoteAddr = s.from
	r.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	s.routes[path].ServeHTTP(w, r)
	a := answer{status: w.Code, raw: w.Body.String(), header: w.Header()}
	if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
		s.t.Errorf("%s is answered %q, which is no JSON object", path, a.raw)
	}
	return a
}

// register registers a client, which must work.
func (s *site) registered(id, key string) {
	s.t.Helper()
	if a := s.post("/register", "", pair{id, key}); a.status != http.StatusCreated || a.body["clientID"] != id {
		s.t.Fatalf("register %s: answered %d %s, want 201", id, a.status, a.raw)
	}
}

// loggedIn is a new bearer token of a client.
func (s *site) loggedIn(id, key string) string {
	s.t.Helper()
	a := s.post("/login", "", pair{id, key})
	token, _ := a.body["bearerToken"].(string)
	if a.status != http.StatusOK || token == "" {
		s.t.Fatalf("login of %s: answered %d %s, want 200", id, a.status, a.raw)
	}
	return token
}

// verdict is what the room thinks of an attempt.
func (s *site) verdict(a auth.Attempt) auth.Verdict {
	s.t.Helper()
	if a.Params == "" {
		a.Params = "{}"
	}
	a.RemoteAddr = "10.0.0.1"
	v, err := s.Authenticate(s.t.Context(), &a)
	if err != nil {
		s.t.Fatalf("Authenticate: %v", err)
	}
	return v
}

// conn is a connection.
type conn struct {
	user  atomic.Pointer[auth.User]
	ended chan struct{}
	how   End // before ended is closed
}

func (c *conn) User() *auth.User { return c.user.Load() }
func (c *conn) EndLogin(how End) { c.how = how; close(c.ended) }

func (c *conn) over() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

func connOf(u *auth.User) *conn {
	c := &conn{ended: make(chan struct{})}
	c.user.Store(u)
	return c
}

// opened is a connection of who made an attempt, which must be accepted.
func (s *site) opened(a auth.Attempt) *conn {
	s.t.Helper()
	c := s.judged(a)
	s.Opened(c)
	return c
}

// judged is the same before the room is told.
func (s *site) judged(a auth.Attempt) *conn {
	s.t.Helper()
	v := s.verdict(a)
	if v.Opinion != auth.Accepted {
		s.t.Fatalf("verdict %+v, want accepted", v)
	}
	return connOf(v.User)
}
