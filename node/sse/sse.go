// Package sse is server-sent events, for places where WebSocket is blocked: one request
// whose answer is a stream of the events and records that it names. The request is the
// login, by its own credentials; after that the client is one like all others, on a Plain
// connection of the endpoint, whose heartbeats are comments of the stream.
//
// What goes into the stream is protocol.FormSSE. The ids say which versions of its records a
// client has got; one that comes again says the last id, and is not sent those again (resume).
package sse

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"hadal/auth"
	"hadal/node/endpoint"
	"hadal/protocol"
)

// Name is the dialect in metrics and logs.
const Name = "sse"

// Server serves streams.
type Server struct {
	cfg     Config
	port    *endpoint.Server
	authn   auth.Authenticator
	log     *slog.Logger
	options *endpoint.WebSocketConfig
}

// New adds streams to a port that does not serve yet; the server is their handler.
func New(cfg Config, port *endpoint.Server, authn auth.Authenticator, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, port: port, authn: authn, log: log, options: cfg.options()}
	port.Watch(s.options)
	return s
}

const (
	// maxName is the longest name in bytes, which is the pipeline's limit.
	maxName = 4096
	// loginTime is how long a login may take; the answer has to follow within the time that
	// the port gives to a request.
	loginTime   = 8 * time.Second
	contentType = "text/event-stream; charset=utf-8"
	// head begins the stream. X-Accel-Buffering is for nginx, which would hold it back.
	head = "HTTP/1.1 200 OK\r\nContent-Type: " + contentType + "\r\nCache-Control: no-store\r\n" +
		"X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "a stream is asked for by GET", http.StatusMethodNotAllowed)
		return
	}
	query := r.URL.Query()
	events, records := query["event"], query["record"]
	if status, text := s.check(events, records); status != 0 {
		http.Error(w, text, status)
		return
	}
	refusals := comesAgain(w, r)
	visit := s.port.Welcome(refusals, r)
	if visit == nil {
		return
	}
	// Clients whose EventSource cannot say it, as after a reload of the page, put it here.
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = query.Get("lastEventId")
	}
	c := &stream{server: s, resume: newResume(records, last)}
	user := s.login(refusals, r, visit)
	if user == nil {
		return
	}
	nc := s.port.TakeRequest(w, r, head+cors(r)+"\r\n:\n\n")
	if nc == nil {
		return
	}
	conn := s.port.Plain(&endpoint.Dialect{Name: Name, Options: s.options, Greets: true, Codec: func() endpoint.Codec { return c }}, nc, nil, visit)
	if conn == nil {
		return
	}
	conn.Patience(-1) // it has nothing to say
	c.serve(conn, user, events, records)
}

// check says with which status, if any, a request is refused for what it names.
func (s *Server) check(events, records []string) (status int, text string) {
	switch n := len(events) + len(records); {
	case n == 0:
		return http.StatusBadRequest, "name what to hear: ?event=NAME&record=NAME, each as often as needed"
	case n > s.cfg.MaxNames:
		return http.StatusRequestEntityTooLarge, "more names than one stream may have: open several, or raise sse.maxNames"
	}
	for _, list := range [][]string{events, records} {
		for _, name := range list {
			if name == "" || len(name) > maxName {
				return http.StatusBadRequest, "a name is empty or longer than 4096 bytes"
			}
		}
	}
	return 0, ""
}

// cors lets the page read the stream that may open it; the port has looked at its origin.
func cors(r *http.Request) string {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return ""
	}
	return "Access-Control-Allow-Origin: " + origin + "\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
}

// login asks who the client is, or answers why it is not let in.
func (s *Server) login(w http.ResponseWriter, r *http.Request, visit *auth.Attempt) *auth.User {
	ctx, cancel := context.WithTimeout(r.Context(), loginTime)
	defer cancel()
	attempt := *visit
	attempt.Params = "{}"
	release := s.port.HoldLogin(r)
	verdict, err := s.authn.Authenticate(ctx, &attempt)
	release()
	w.Header().Set("Cache-Control", "no-store")
	allow(w.Header(), r.Header.Get("Origin"))
	switch {
	case errors.Is(err, auth.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many logins: try again later", http.StatusServiceUnavailable)
	case err != nil:
		s.log.Error("login could not be judged", "remote", visit.RemoteAddr, "err", err)
		http.Error(w, "the login could not be judged: try again later", http.StatusServiceUnavailable)
	case verdict.Opinion != auth.Accepted || verdict.User == nil:
		s.log.Info("login refused", "event", "AUTH_UNSUCCESSFUL", "remote", visit.RemoteAddr, "dialect", Name)
		if visit.Token == "" && visit.Name == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="hadal"`)
			http.Error(w, "log in: Authorization: Bearer or Basic, or the cookie", http.StatusUnauthorized)
			return nil
		}
		http.Error(w, "these credentials are not accepted", http.StatusForbidden)
	default:
		return verdict.User
	}
	return nil
}

// stream is one client. It is the Codec of its Conn, too.
type stream struct {
	server *Server
	resume *resume
}

// Form implements endpoint.Codec.
func (c *stream) Form() protocol.Form { return protocol.FormSSE }

// Decode implements endpoint.Codec; a Plain connection does not use it.
func (c *stream) Decode([]byte, func(*protocol.Message)) error { return nil }

// Frame implements endpoint.Codec.
func (c *stream) Frame(m *protocol.Message) []byte {
	if m.Topic == protocol.TopicRecord && m.Action == protocol.RecordReadResponse && c.resume.skips(m) {
		return nil
	}
	return protocol.EncodeFrame(protocol.FormSSE, m, "")
}

// Behind implements endpoint.Follower.
func (c *stream) Behind(m *protocol.Message, queue func([]byte)) { c.resume.sent(m, queue) }

// Distinct implements endpoint.Chooser: what the client has already must not come shared.
func (c *stream) Distinct(m *protocol.Message) bool {
	return c.resume.skipsAny() && m.Topic == protocol.TopicRecord && m.Action == protocol.RecordReadResponse
}

// serve serves the client until it has gone.
func (c *stream) serve(conn *endpoint.Conn, user *auth.User, events, records []string) {
	defer conn.Leave()
	if !conn.Admit(user) {
		conn.End(endpoint.TooManyAuthAttempts)
		return
	}
	for _, m := range []*protocol.Message{
		{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: events},
		{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeAndRead, Names: records},
	} {
		if len(m.Names) > 0 {
			_ = conn.Receive(m) // it has gone: Read says so
		}
	}
	_, _ = io.Copy(io.Discard, conn) // ends with the client; what it says is nothing
	conn.End(endpoint.ClientClosed)
}
