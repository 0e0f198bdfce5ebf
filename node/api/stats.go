package api

import (
	"net/http"
	"sync/atomic"
)

// results are how commands end.
var results = [...]string{"failed", "done"}

// paths are what requests are for.
var paths = [...]string{"openapi", "auth", "post", "get", "preflight", "other"}

// loginResults are how logins end.
var loginResults = [...]string{"accepted", "refused", "failed", "busy", "hasty"}

// stats are the counters.
type stats struct {
	commands [][len(results)]atomic.Uint64 // by kind
	requests [len(paths)][6]atomic.Uint64  // by hundreds of the status
	logins   [len(loginResults)]atomic.Uint64
}

func (s *stats) init() { s.commands = make([][len(results)]atomic.Uint64, len(kinds)) }

// login counts a login.
func (s *stats) login(result string) {
	for i, r := range loginResults {
		if r == result {
			s.logins[i].Add(1)
		}
	}
}

// count counts a command.
func (s *Server) count(k *kind, o outcome) {
	i := 0
	if o.success {
		i = 1
	}
	s.stats.commands[k.number][i].Add(1)
}

// answered notes the status of an answer.
type answered struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *answered) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *answered) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// requested counts a request that was answered.
func (s *Server) requested(r *http.Request, w *answered) {
	i := len(paths) - 1
	switch {
	case r.URL.Path == PathOpenAPI:
		i = 0
	case r.Method == http.MethodOptions:
		i = 4
	case r.Method == http.MethodGet:
		i = 3
	case r.Method != http.MethodPost:
	case s.isAuth(r):
		i = 1
	default:
		i = 2
	}
	s.stats.requests[i][min(max(w.status/100, 0), 5)].Add(1)
}

// Stats are the numbers of the API since the start. Nothing in them grows with what
// callers send.
type Stats struct {
	// Requests counts by what they are for (openapi, auth, post, get, preflight, other) and
	// the first digit of the status.
	Requests map[[2]string]uint64
	// Commands counts by topic, action and result (done, failed).
	Commands map[[3]string]uint64
	// Logins counts by result: accepted, refused, failed (could not be judged), busy, hasty
	// (not judged, because too many connect).
	Logins map[string]uint64
	// Running is how many requests run, Keys how many answers are kept for them.
	Running, Keys int
	// Panics counts mistakes of ours that ended a request.
	Panics uint64
}

// Stats reads the counters. They are not read at one instant.
func (s *Server) Stats() Stats {
	st := Stats{
		Requests: make(map[[2]string]uint64), Commands: make(map[[3]string]uint64), Logins: make(map[string]uint64),
		Running: s.seats.number(), Keys: s.keys.number(), Panics: s.panics.Load(),
	}
	for i, path := range paths {
		for class := range s.stats.requests[i] {
			if n := s.stats.requests[i][class].Load(); n > 0 {
				st.Requests[[2]string{path, string(rune('0'+class)) + "xx"}] = n
			}
		}
	}
	for i, k := range kinds {
		for j, result := range results {
			if n := s.stats.commands[i][j].Load(); n > 0 {
				st.Commands[[3]string{k.topic, k.action, result}] = n
			}
		}
	}
	for i, result := range loginResults {
		st.Logins[result] = s.stats.logins[i].Load()
	}
	return st
}
