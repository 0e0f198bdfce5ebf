package register

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"hadal/auth"
	"hadal/auth/web"
)

// call is what is asked of the room by HTTP.
type call int

const (
	callRegister call = iota
	callLogin
	callUnregister
	calls
)

var callNames = [calls]string{"register", "login", "unregister"}

// result is how it ended.
type result int

const (
	resultOK      result = iota
	resultInvalid        // what was sent makes no sense
	resultWrong          // wrong credentials, or none, or not for this
	resultExists
	resultUnknown
	resultLimited
	resultFull // no more clients fit
	resultBusy
	resultFailed
	results
)

var resultNames = [results]string{"ok", "invalid", "refused", "exists", "unknown", "limited", "full", "busy", "failed"}

// counts is what has happened since the start.
type counts struct {
	calls  [calls][results]atomic.Uint64
	logins [results]atomic.Uint64 // credentials judged, for connections and requests
	ended  atomic.Uint64          // connections closed because their login was over
}

func (c *counts) call(what call, err error) { c.calls[what][resultOf(err)].Add(1) }
func (c *counts) login(err error)           { c.logins[resultOf(hideUnknown(err))].Add(1) }

// resultOf is how something ended.
func resultOf(err error) result {
	var p *web.Problem
	switch {
	case err == nil:
		return resultOK
	case errors.As(err, &p):
		switch p.Status {
		case http.StatusTooManyRequests:
			return resultLimited
		case http.StatusForbidden, http.StatusUnauthorized:
			return resultWrong
		}
		return resultInvalid
	case errors.Is(err, errWrong), errors.Is(err, errExpired):
		return resultWrong
	case errors.Is(err, errExists):
		return resultExists
	case errors.Is(err, errUnknown):
		return resultUnknown
	case errors.Is(err, errMany), errors.Is(err, errCrowded):
		return resultFull
	case errors.Is(err, auth.ErrBusy), errors.Is(err, errRaced), errors.Is(err, context.DeadlineExceeded):
		return resultBusy
	}
	return resultFailed
}

// Stats is what the room has counted since the start.
type Stats struct {
	// Calls counts requests of HTTP by what was asked and how it ended, Logins the
	// credentials that were judged, for connections and requests, by how that ended.
	Calls  map[string]map[string]uint64
	Logins map[string]uint64
	// Ended counts the connections that were closed because their login was over,
	// Connections those that are open.
	Ended       uint64
	Connections int
	// Clients is how many are registered, as far as this node has heard.
	Clients int
}

// Stats tells it.
func (r *Room) Stats() Stats {
	s := Stats{Calls: make(map[string]map[string]uint64), Logins: make(map[string]uint64), Ended: r.counts.ended.Load(), Clients: r.census.count()}
	for what, name := range callNames {
		s.Calls[name] = make(map[string]uint64)
		for how, ending := range resultNames {
			s.Calls[name][ending] = r.counts.calls[what][how].Load()
		}
	}
	for how, ending := range resultNames {
		s.Logins[ending] = r.counts.logins[how].Load()
	}
	r.mu.Lock()
	s.Connections = len(r.conns)
	r.mu.Unlock()
	return s
}
