package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// allowedHeaders are those that pages may send: deepstream's, and those of our own.
var allowedHeaders = []string{"X-Requested-With", "X-HTTP-Method-Override", "Content-Type", "Accept", "Authorization", "Idempotency-Key"}

// allowedMethods are those that pages may use.
const allowedMethods = "GET, POST, OPTIONS"

// crossOrigin does what pages of other origins need (spec 04 §2), and says whether the
// request is to be served. A request without Origin and Referer is no page's.
func (s *Server) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	h := w.Header()
	if s.deps.AnyOrigin {
		h.Set("Access-Control-Allow-Origin", "*")
	} else {
		h.Add("Vary", "Origin")
		if origin := originOf(r.Header); origin != "" {
			if !s.deps.AllowsOrigin(origin) {
				s.refuse(w, r, problem(http.StatusForbidden, "INVALID_MESSAGE", "pages of this origin may not ask this server"))
				return false
			}
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
		}
	}
	h.Set("Access-Control-Expose-Headers", "Idempotent-Replayed, Retry-After")
	if r.Method == http.MethodOptions {
		s.preflight(w, r)
		return false
	}
	return true
}

// originOf is the origin of the page that a request is from, or empty.
func originOf(h http.Header) string {
	if origins := h["Origin"]; len(origins) > 0 {
		return strings.Join(origins, " ")
	}
	referer := h.Get("Referer")
	if referer == "" {
		return ""
	}
	u, err := url.Parse(referer)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "null"
	}
	return u.Scheme + "://" + u.Host
}

// preflight answers the question of a browser whether a page may send a request.
func (s *Server) preflight(w http.ResponseWriter, r *http.Request) {
	method, asked := r.Header.Get("Access-Control-Request-Method"), r.Header.Values("Access-Control-Request-Headers")
	switch {
	case method == "":
		s.refuse(w, r, problem(http.StatusBadRequest, "INVALID_MESSAGE", "Access-Control-Request-Method is missing"))
		return
	case !slices.Contains(strings.Split(allowedMethods, ", "), method):
		s.refuse(w, r, problem(http.StatusForbidden, "INVALID_MESSAGE", "pages may use GET and POST"))
		return
	case len(asked) == 0:
		s.refuse(w, r, problem(http.StatusBadRequest, "INVALID_MESSAGE", "Access-Control-Request-Headers is missing"))
		return
	}
	for name := range strings.SplitSeq(strings.Join(asked, ","), ",") {
		name = strings.TrimSpace(name)
		if name != "" && !slices.ContainsFunc(allowedHeaders, func(a string) bool { return strings.EqualFold(a, name) }) {
			s.refuse(w, r, problem(http.StatusForbidden, "INVALID_MESSAGE", "pages may not send this header"))
			return
		}
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", allowedMethods)
	h.Set("Access-Control-Allow-Headers", strings.Join(allowedHeaders, ", "))
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}
