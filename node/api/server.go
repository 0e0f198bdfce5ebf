package api

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
	"hadal/auth/web"
	"hadal/protocol"
)

const (
	// PathOpenAPI is where the document about the API is.
	PathOpenAPI = "/openapi.json"
	// answerTime is how long a caller may take to read an answer.
	answerTime = 10 * time.Second
	// retryAfter is for how many seconds one who is refused for want of room should wait.
	retryAfter = "1"
)

// Node is the node as the API sees it.
type Node interface {
	// Opened is called when somebody has logged in for a request that is about to run; it
	// returns what is called when nothing of it runs any more.
	Opened(*Caller) (closed func())
	// Receive is the way of every message of a client. It is called on one goroutine for a
	// request.
	Receive(*Client, *protocol.Message)
	// Closed is called when a client has gone, after its Receive.
	Closed(*Client)
}

// Deps are what the API stands on. All are required but TokenQuery and Crowded.
type Deps struct {
	// Auth decides who a caller is; Attempt is what a request says of who makes it, without
	// its body.
	Auth    auth.Authenticator
	Attempt func(*http.Request) *auth.Attempt
	// Knock is called before a request logs in. With a status it is refused, for some time;
	// otherwise judged is called with who has logged in, or nil, and says whether the
	// connection is to be closed with the answer.
	Knock func(*http.Request) (judged func(*auth.User) (enough bool), status int, wait time.Duration)
	Node  Node
	// Vault keeps the answers of requests with an Idempotency-Key. It may not be open yet.
	Vault vault.Vault
	// Crowded says that the vault has no room for further answers; nil is never.
	Crowded func(context.Context) bool
	// Ready says whether requests can be served; before that they are refused.
	Ready func() bool
	// AnyOrigin says that pages of every origin may ask, AllowsOrigin else which.
	AnyOrigin    bool
	AllowsOrigin func(origin string) bool
	// TokenQuery is the parameter of the query that may hold a token, or empty.
	TokenQuery string
	Log        *slog.Logger
}

// Server is the API.
type Server struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	keys *keys
	// document is what openapi.json says, with the paths of cfg.
	document []byte

	budget budget
	logins *seats // logins under way, by address
	seats  *seats // requests that run, by user
	stats  stats
	panics atomic.Uint64

	mu      sync.Mutex
	ended   bool           // Run is about to return: nothing begins any more; guarded by mu
	running sync.WaitGroup // one for each request that runs; grows under mu while not ended
}

// New makes the API; it does nothing by itself. cfg is valid.
func New(cfg Config, deps Deps) *Server {
	s := &Server{
		cfg: cfg, deps: deps, log: deps.Log, keys: newKeys(cfg.MaxIdempotencyKeys), document: documentOf(cfg),
		logins: newSeats(cfg.MaxConcurrent), seats: newSeats(cfg.MaxConcurrent),
	}
	s.budget.left.Store(memory)
	s.stats.init()
	return s
}

// Run waits until ctx has ended and nothing of a request runs any more. Requests that come
// later are refused.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// begin says whether a request may still run, and counts it in running.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.running.Add(1)
	return true
}

// Routes are the handlers by path, of which those that end with a slash stand for all that
// is below.
func (s *Server) Routes() map[string]http.Handler {
	routes := map[string]http.Handler{PathOpenAPI: s.guarded(http.HandlerFunc(s.serveOpenAPI))}
	h := s.guarded(http.HandlerFunc(s.serve))
	for _, path := range s.cfg.Paths() {
		routes[strings.TrimRight(path, "/")], routes[below(path)] = h, h
	}
	return routes
}

// guarded is a handler behind the rules about pages of other origins.
func (s *Server) guarded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &answered{ResponseWriter: w}
		defer s.requested(r, seen)
		if s.crossOrigin(seen, r) {
			h.ServeHTTP(seen, r)
		}
	})
}

// is says whether a request is for a path or below it.
func is(r *http.Request, path string) bool {
	return path != "" && strings.HasPrefix(below(r.URL.Path), below(path))
}

// isAuth says whether a POST is a login: of two paths that fit, the longer one counts.
func (s *Server) isAuth(r *http.Request) bool {
	p := &s.cfg
	return p.EnableAuthEndpoint && is(r, p.AuthPath) && (!is(r, p.PostPath) || len(p.AuthPath) > len(p.PostPath))
}

// serve finds what a request is for: by its method and path.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	h, p := http.HandlerFunc(nil), &s.cfg
	switch {
	case r.Method == http.MethodGet && is(r, p.GetPath):
		h = s.serveGet
	case r.Method != http.MethodPost:
	case s.isAuth(r):
		h = s.serveAuth
	case is(r, p.PostPath):
		h = s.serveBatch
	}
	switch {
	case h == nil:
		w.Header().Set("Allow", "GET, POST, OPTIONS")
		s.refuse(w, r, problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "use POST, or GET for what only reads"))
	case !s.deps.Ready():
		w.Header().Set("Retry-After", retryAfter)
		s.refuse(w, r, problem(http.StatusServiceUnavailable, "UNAVAILABLE", "this server takes no requests now: see /readyz"))
	default:
		h(w, r)
	}
}

// serveAuth answers a login (spec 04 §5).
func (s *Server) serveAuth(w http.ResponseWriter, r *http.Request) {
	share := s.newShare()
	defer share.give()
	body, p := s.readBody(w, r, share)
	if p != nil {
		s.refuse(w, r, p)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.cfg.RequestTimeout)
	defer cancel()
	v, _, p := s.login(ctx, w, r, body)
	if p != nil {
		s.refuse(w, r, p)
		return
	}
	b := []byte{'{'}
	if v.Token != "" {
		b = append(append(b, `"token":`...), quote(v.Token)...)
	}
	if v.User.ClientData != "" {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(b, `"clientData":`...), v.User.ClientData...)
	}
	s.answer(w, append(b, '}'))
}

// serveBatch answers a batch of commands (spec 04 §6).
func (s *Server) serveBatch(w http.ResponseWriter, r *http.Request) {
	share := s.newShare()
	defer share.give()
	body, p := s.readBody(w, r, share)
	if p != nil {
		s.refuse(w, r, p)
		return
	}
	b, p := s.parseBatch(body, share)
	if p != nil {
		s.refuse(w, r, p)
		return
	}
	s.perform(w, r, b, share)
}

// perform logs a caller in and runs what was asked for.
func (s *Server) perform(w http.ResponseWriter, r *http.Request, b *request, share *share) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.cfg.RequestTimeout)
	defer cancel()
	_, caller, p := s.login(ctx, w, r, b.params)
	if p == nil {
		p = b.parse()
	}
	if p != nil {
		s.refuse(w, r, p)
		return
	}
	claim, p := s.claim(ctx, r, caller, b)
	if p != nil {
		s.refuse(w, r, p)
		return
	}
	if claim.answer != nil {
		w.Header().Set("Idempotent-Replayed", "true")
		s.answer(w, claim.answer)
		return
	}
	who := caller.whose()
	why := s.seats.take(who)
	if why == seated && !s.begin() {
		s.seats.leave(who)
		why = allTaken
	}
	if why != seated {
		claim.drop()
		s.refuse(w, r, noSeat(w, why))
		return
	}
	text := result(s.run(ctx, caller, b.commands, share, func() { s.seats.leave(who) }))
	claim.keep(text)
	s.answer(w, text)
}

// noSeat is what a request is told that may not run.
func noSeat(w http.ResponseWriter, why int) *web.Problem {
	w.Header().Set("Retry-After", retryAfter)
	if why == ownTaken {
		return problem(http.StatusTooManyRequests, "TOO_MANY_REQUESTS", "too many requests of this user run at once: wait for answers")
	}
	return problem(http.StatusServiceUnavailable, "BUSY", "too many requests run at once: try again")
}

// whose is in whose name a caller takes seats: those without a name by their address.
func (c *Caller) whose() string {
	if c.User.IsAnonymous() {
		return "a" + networkOf(c.RemoteAddr)
	}
	return "u" + c.User.ID
}

// answer answers a request with JSON.
func (s *Server) answer(w http.ResponseWriter, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	s.write(w, http.StatusOK, body)
}

// write writes an answer, for which the caller has answerTime.
func (s *Server) write(w http.ResponseWriter, status int, body []byte) {
	// The port gives a request a time from its beginning, which may be shorter than
	// RequestTimeout. A connection that cannot be told has gone, or has no such time.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller may have gone
}

// problem says what is wrong with a request.
func problem(status int, code, detail string) *web.Problem {
	return &web.Problem{Status: status, Code: code, Detail: detail}
}

// refuse answers a request with what is wrong with it: as deepstream does in a line of
// text, or as problem details for who understands them (RFC 9457).
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, p *web.Problem) {
	h := w.Header()
	for _, accept := range r.Header["Accept"] {
		if strings.Contains(accept, "application/problem+json") {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // as in write
			web.Refuse(w, p)
			return
		}
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="hadal"`)
	}
	s.write(w, p.Status, []byte(p.Code+": "+p.Detail+"\n"))
}
