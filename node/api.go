package node

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hadal/auth"
	"hadal/node/api"
	"hadal/protocol"
)

// This file joins the HTTP API with the port and the pipeline.

// openAPI makes the HTTP API, if there is one, and adds its routes. The port, by which it
// knows who makes a request, comes later.
func (n *Node) openAPI(routes map[string]http.Handler) {
	cfg, ok := n.cfg.api()
	if !ok {
		return
	}
	port := n.cfg.HTTPServer.Options
	n.api = api.New(cfg, api.Deps{
		Auth: n.logins, Node: apiNode{n}, Vault: n.vault, Crowded: n.loginsQuarterFull, Log: n.log, Ready: n.takesRequests,
		Attempt: func(r *http.Request) *auth.Attempt { return n.endpoint.Attempt(r) },
		Knock: func(r *http.Request) (func(*auth.User) bool, int, time.Duration) {
			l, status, wait := n.endpoint.BeginLogin(r)
			return l.EndLogin, status, wait
		},
		AnyOrigin: port.AllowAllOrigins && len(port.Origins) == 0, AllowsOrigin: port.AllowsOrigin,
		TokenQuery: n.cfg.Upgrade.Query,
	})
	for path, h := range n.api.Routes() {
		routes[path] = h
	}
}

// takesRequests says whether what HTTP asks for can be done: as soon as clients can log
// in, and until the node stops.
func (n *Node) takesRequests() bool {
	select {
	case <-n.started:
		return true
	default:
		return false
	}
}

// runAPI waits at the end for what still runs of requests.
func (n *Node) runAPI(ctx context.Context) error {
	if n.api == nil {
		<-ctx.Done()
		return nil
	}
	return n.api.Run(ctx)
}

// apiNode is the node as the HTTP API sees it.
type apiNode struct{ *Node }

// Opened gives a caller its part in its user's rate limits.
func (n apiNode) Opened(c *api.Caller) (closed func()) {
	if n.pipe.rates == nil {
		return func() {}
	}
	s := n.pipe.rates.opened(c.User, c.RemoteAddr)
	c.Tied = s
	return func() { n.pipe.rates.closed(s) }
}

// Receive is the way of a command: that of every message.
func (n apiNode) Receive(c *api.Client, m *protocol.Message) { n.pipe.receive(c, m) }

// Closed forgets the client of a command.
func (n apiNode) Closed(c *api.Client) {
	for _, r := range n.pipe.rooms {
		if r != nil {
			r.Closed(c)
		}
	}
}

// collectAPI tells of the HTTP API, if there is one.
func (n *Node) collectAPI(count, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	if n.api == nil {
		return
	}
	st := n.api.Stats()
	for l, v := range st.Requests {
		count(descAPIRequests, float64(v), l[0], l[1])
	}
	for l, v := range st.Commands {
		count(descAPICommands, float64(v), l[0], l[1], l[2])
	}
	for result, v := range st.Logins {
		count(descAPILogins, float64(v), result)
	}
	gauge(descAPIRunning, float64(st.Running))
	gauge(descAPIKeys, float64(st.Keys))
	count(descAPIPanics, float64(st.Panics))
}
