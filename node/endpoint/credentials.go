package endpoint

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"hadal/auth"
)

// Attempt is what a request says of who makes it: its address and headers, and those
// credentials of it that the configuration lets count. It has no parameters yet. Several
// credentials that are not the same leave none, and a word on why (auth.Attempt.Broken).
func (s *Server) Attempt(r *http.Request) *auth.Attempt {
	a := &auth.Attempt{RemoteAddr: s.clientAddr(r), Header: s.ownHeader(r), URL: r.URL.RequestURI()}
	c := collected{}
	u := &s.cfg.Upgrade
	if u.Query != "" {
		query := r.URL.Query()
		for _, token := range query[u.Query] {
			c.token(token)
		}
		query.Del(u.Query) // who is told the URL need not have the token
		clean := *r.URL
		clean.RawQuery = query.Encode()
		a.URL = clean.RequestURI()
	}
	if u.Cookie != "" && s.pageTrusted(r.Header) {
		for _, cookie := range r.CookiesNamed(u.Cookie) {
			c.token(cookie.Value)
		}
	}
	authorization := r.Header["Authorization"]
	if len(authorization) > 1 {
		c.broken = auth.Conflicting
	}
	for _, value := range authorization {
		scheme, text, _ := strings.Cut(value, " ")
		text = strings.Trim(text, " ")
		switch {
		case strings.EqualFold(scheme, "Bearer") && u.Bearer:
			if text == "" {
				c.broken = auth.Malformed
			}
			c.token(text)
		case strings.EqualFold(scheme, "Basic") && u.Basic:
			// A browser repeats what was typed into its own dialog once for every page.
			if len(r.Header["Origin"]) == 0 || s.pageTrusted(r.Header) {
				c.basic(text)
			}
		}
	}
	if a.Broken = c.broken; a.Broken == "" {
		a.Token, a.Name, a.Password = c.found, c.name, c.password
	}
	return a
}

// ownHeader is the header without what a browser adds by itself to whatever a foreign page
// asks for: strategies may let a cookie or a password in it count. A page is none that is
// listed, or that came from where it asks.
func (s *Server) ownHeader(r *http.Request) http.Header {
	h := r.Header
	basic := slices.ContainsFunc(h["Authorization"], func(v string) bool {
		scheme, _, _ := strings.Cut(v, " ")
		return strings.EqualFold(scheme, "Basic")
	})
	if origin := h["Origin"]; len(h["Cookie"]) == 0 && !basic || len(origin) == 0 || s.pageTrusted(h) ||
		len(origin) == 1 && (len(s.cfg.HTTP.Origins) > 0 && s.cfg.HTTP.AllowsOrigin(origin[0]) || isFrom(origin[0], r.Host)) {
		return h
	}
	h = h.Clone()
	h.Del("Cookie")
	if basic {
		h.Del("Authorization")
	}
	return h
}

// isFrom says whether an origin is that of a host.
func isFrom(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// pageTrusted says whether a request comes from a page for which the browser's own
// credentials count. A client without an Origin is no page.
func (s *Server) pageTrusted(h http.Header) bool {
	origin := h["Origin"]
	return len(origin) == 1 && slices.ContainsFunc(s.cfg.Upgrade.Origins, func(o string) bool {
		return strings.EqualFold(strings.TrimSuffix(o, "/"), origin[0])
	})
}

// collected is the credentials of one request.
type collected struct {
	found          string
	name, password string
	broken         string
}

// token adds a token.
func (c *collected) token(t string) {
	switch {
	case t == "", t == c.found:
	case c.found != "", c.name != "", c.password != "":
		c.broken = auth.Conflicting
	default:
		c.found = t
	}
}

// basic adds a name and password.
func (c *collected) basic(text string) {
	b, err := base64.StdEncoding.DecodeString(text)
	name, password, ok := strings.Cut(string(b), ":")
	switch {
	case err != nil, !ok, name == "":
		c.broken = auth.Malformed
	case c.found != "":
		c.broken = auth.Conflicting
	default:
		c.name, c.password = name, password
	}
}
