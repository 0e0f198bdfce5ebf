// Package admin is the operator's way in: HTTP on a unix socket in the data
// directory, which only the node's own user can open, and, if configured, on a
// TCP address behind a token. Clients never come here; what the public port
// answers about the node's health is in health.go.
//
// The API, all of it JSON:
//
//	GET    /healthz /readyz /info /metrics
//	GET    /debug/pprof/...      Go's profiles: cpu, heap, goroutines
//	GET    /record?name=N        {"name","version","data"}
//	PUT    /record?name=N        body: the data; answers {"version"}
//	DELETE /record?name=N
//	GET    /records?prefix=P     names, a JSON string a line
//	GET    /export?prefix=P      records, an object a line, and an end line
//	POST   /import?partial=false the same; answers {"imported"}
//	GET    /rules/coverage       how often each rule was judged, to what
//	PUT    /rules/coverage?count=true   counts, or no longer
//	DELETE /rules/coverage       begins again at zero
//	POST   /rules/shadow?for=10m body: a rules file; what it would decide, a
//	                             report a line, the last with "end"
//	GET    /cluster              a ClusterStatus
//	POST   /cluster/drain?node=N&on=true
//	POST   /cluster/remove?node=N
//	POST   /cluster/move?partition=P&node=N
//	GET    /users?table=T        a User a line; the table may be left out if there is one
//	POST   /user?table=T         body: a NewUser; answers {"id"}
//	PUT    /user/password?table=T&name=N   body: {"password"}, a hash
//	DELETE /user?table=T&name=N
//	POST   /users/import?table=T&replace=false  stored users, an object a line; answers
//	                             an ImportedUsers
//	GET    /users/export?table=T the same, with hashes
//	GET    /roles                a Role a line
//	PUT    /role?id=I            body: {"role"}; with name= and table= instead of id=
//	DELETE /role?id=I            a stored user is meant; both answer {"id"}
//	POST   /explain              body: a perms.Query; answers a perms.Explanation;
//	                             also as /admin/explain
//	POST   /auth/token, /auth/check, /auth/revoke   as on the public port, without a
//	                             secret: package auth/tokens
//
// What JSON cannot hold stands as base64 under name64 or data64: export.go.
//
// Record names stand in the query, because a path would lose the double
// slashes and dots that names may have. Errors are {"error": text}; a stream
// that cannot be finished ends in such a line and without its last chunk, so
// that no client takes it for whole. Client speaks the same from the other side.
//
// What is written here is the owner's write of an operator: subscribers do not
// hear of it until a client sends NOTIFY, as if an outside system had written.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SocketName is the name of the unix socket in the data directory.
const SocketName = "admin.sock"

const (
	readHeaderTimeout = 10 * time.Second
	// drainTime is how long requests under way may take once Serve has to end.
	drainTime = 5 * time.Second
	// maxSocketPath is how long the path of a unix socket may be everywhere.
	maxSocketPath = 103
)

// Deps is what the admin API shows and does. All are required, but for Records,
// Users, Rules, Cluster, Explainer and Routes, which are nil when there are none.
type Deps struct {
	// Socket is the path of the unix socket, SocketName in the data directory,
	// which must exist when Listen is called.
	Socket  string
	Records Records
	// Logins are what logins keep, in backups; nil is nothing.
	Logins Logins
	// Users are the stored users, and everybody's roles.
	Users Users
	// Rules are the rules in force.
	Rules Rules
	// Cluster answers /cluster; without one nothing does.
	Cluster Cluster
	// Explainer answers /explain; without one nothing does.
	Explainer Explainer
	// Routes are further paths, as http.ServeMux has them, and who answers them.
	Routes map[string]http.Handler
	// Metrics answers /metrics.
	Metrics http.Handler
	// Info is what /info answers, as anything that can be written as JSON.
	Info func() any
	// Health answers /healthz and /readyz.
	Health *Health
	Log    *slog.Logger
}

// Server is the operator's listener.
type Server struct {
	cfg  Config
	deps Deps

	socket string
	unix   net.Listener
	inode  fs.FileInfo // of the socket as we made it
	tcp    net.Listener
}

// New checks cfg and does nothing else.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, deps: deps, socket: deps.Socket}, nil
}

// Listen binds the socket and the address, so that a start can fail early. It
// may be left to Serve. After it, Serve or Close must be called.
func (s *Server) Listen(ctx context.Context) error {
	if err := s.listenUnix(ctx); err != nil {
		return fmt.Errorf("admin socket %s: %w", s.socket, err)
	}
	if s.cfg.Listen == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("admin.listen: %w", err), s.Close())
	}
	s.tcp = l
	return nil
}

// listenUnix makes the socket where nobody else can reach it, and moves it to
// its place when only its owner can open it.
func (s *Server) listenUnix(ctx context.Context) error {
	if err := s.clearStale(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(s.socket), ".admin")
	if err != nil {
		return err
	}
	made := filepath.Join(dir, "s")
	err = s.listenAt(ctx, made)
	if removed := os.RemoveAll(dir); removed != nil && err == nil {
		err = removed
	}
	if err != nil && s.unix != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (s *Server) listenAt(ctx context.Context, path string) error {
	if max(len(path), len(s.socket)) > maxSocketPath {
		return errors.New("the path is too long for a unix socket: choose a data directory with a shorter one")
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return err
	}
	s.unix = l
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would look in the wrong place
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path, s.socket); err != nil {
		return err
	}
	s.inode, err = os.Lstat(s.socket)
	return err
}

// clearStale removes the socket of a node that did not end cleanly. One that is
// answered belongs to a node that runs.
func (s *Server) clearStale(ctx context.Context) error {
	info, err := os.Lstat(s.socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("is there already, and is no socket: move it away")
	}
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", s.socket); err == nil {
		return errors.Join(errors.New("another node runs on this data directory"), c.Close())
	}
	return os.Remove(s.socket)
}

// Addr is the TCP address listened on; nil without one or before Listen.
func (s *Server) Addr() net.Addr {
	if s.tcp == nil {
		return nil
	}
	return s.tcp.Addr()
}

// Socket is the path of the unix socket.
func (s *Server) Socket() string { return s.socket }

// Close releases what Listen bound. Serve does it too; it is for a start that
// fails between the two.
func (s *Server) Close() error {
	var errs []error
	for _, l := range []net.Listener{s.unix, s.tcp} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	// Only the socket that is ours: another node may have come since.
	if info, err := os.Lstat(s.socket); err == nil && s.inode != nil && os.SameFile(info, s.inode) {
		errs = append(errs, os.Remove(s.socket))
	}
	return errors.Join(errs...)
}

// Serve answers until ctx ends, and then lets requests under way finish for a
// while. When it returns, nothing of it is left. Its error is that of a
// listener that failed before that.
func (s *Server) Serve(ctx context.Context) error {
	if s.unix == nil {
		if err := s.Listen(ctx); err != nil {
			return err
		}
	}
	var wg sync.WaitGroup
	var servers []*http.Server
	broken := make(chan error, 2) // room for both listeners
	serve := func(l net.Listener, h http.Handler) {
		if l == nil {
			return
		}
		srv := &http.Server{
			Handler:           h,
			ReadHeaderTimeout: readHeaderTimeout,
			ErrorLog:          slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug),
		}
		servers = append(servers, srv)
		wg.Go(func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				broken <- fmt.Errorf("admin listener: %w", err)
			}
		})
	}
	api := s.routes(ctx)
	serve(s.unix, api)
	serve(s.tcp, s.guard(api))
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-broken:
	}
	drain, stop := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer stop()
	for _, srv := range servers {
		if err := srv.Shutdown(drain); err != nil {
			s.deps.Log.Warn("admin requests cut off", "err", errors.Join(err, srv.Close()))
		}
	}
	wg.Wait()
	return errors.Join(failed, s.Close())
}

// routes is the API. What would never end by itself ends with ctx.
func (s *Server) routes(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", s.deps.Health.Alive())
	mux.Handle("GET /readyz", s.deps.Health.Ready())
	mux.Handle("GET /metrics", s.deps.Metrics)
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.deps.Info()) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if s.deps.Records != nil {
		newRecordsAPI(s.deps.Records, s.deps.Logins, s.deps.Log).register(mux)
	}
	if s.deps.Users != nil {
		(&usersAPI{answers{s.deps.Log}, s.deps.Users}).register(mux)
	}
	if s.deps.Rules != nil {
		newRulesAPI(ctx, s.deps.Rules).register(mux)
	}
	if s.deps.Cluster != nil {
		clusterAPI{s.deps.Cluster}.register(mux)
	}
	if s.deps.Explainer != nil {
		mux.HandleFunc("POST /explain", s.explain)
		mux.HandleFunc("POST /admin/explain", s.explain)
	}
	for path, h := range s.deps.Routes {
		mux.Handle(path, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is no %s %s here", r.Method, r.URL.Path))
	})
	return mux
}

// guard is what the TCP address asks of requests: the token, or, on loopback
// without one, that they do not come from a web page. A browser on this machine
// would send those for any page that knows the port, under the page's own name.
func (s *Server) guard(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Token != "" {
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			got := sha256.Sum256([]byte(token))
			if !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				w.Header().Set("WWW-Authenticate", "Bearer")
				refuse(w, http.StatusUnauthorized, "send admin.token as a bearer token")
				return
			}
		} else {
			host, _, err := net.SplitHostPort(r.Host)
			if err != nil {
				host = r.Host
			}
			if !isLoopback(host) || r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
				refuse(w, http.StatusForbidden, "web pages may not use the admin API without a token: set admin.token")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// answer writes v as the whole JSON answer.
func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	answerText(w, status, append(b, '\n'))
}

// answerText writes JSON text as the whole answer.
func answerText(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	// A client that has gone does not read its answer; there is nobody to tell.
	_, _ = w.Write(text)
}

// failure is every answer that is no success.
type failure struct {
	Error string `json:"error"`
	// Detail is the text of a problem (auth/web), which has no Error.
	Detail string `json:"detail,omitempty"`
	// Line is where an import stopped, from 1.
	Line int `json:"line,omitempty"`
	// Imported is how many records of it were taken.
	Imported int `json:"imported,omitempty"`
}

func refuse(w http.ResponseWriter, status int, text string) { answer(w, status, failure{Error: text}) }
