package endpoint

import (
	"context"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"hadal/protocol"
)

// drain is what a port does whose node is about to leave the cluster: it sends
// clients elsewhere.
type drain struct {
	urls []string // of other nodes; empty when none says where it is
	next atomic.Uint32
}

// elsewhere is one of the urls, each in turn.
func (d *drain) elsewhere() string {
	return d.urls[int(d.next.Add(1)-1)%len(d.urls)]
}

// Drain says goodbye to the clients that are there, spread over a time, and lets in
// nobody new, until Refill or the end: who comes is sent to one of urls by REDIRECT
// in answer to its challenge, or, where there are none, refused the upgrade, so that it
// tries again elsewhere. It returns when every client has been told, or ctx ends. The
// other paths of the port are served as before.
func (s *Server) Drain(ctx context.Context, over time.Duration, urls []string) error {
	s.draining.Store(&drain{urls: urls})
	list := s.list()
	if len(list) == 0 {
		return nil
	}
	// In steps of a timer, not of a client: there may be very many.
	const step = 20 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	began := time.Now()
	for told := 0; ; {
		due := len(list)
		if past := time.Since(began); past < over {
			due = int(int64(len(list)) * int64(past+step) / int64(over))
		}
		for ; told < min(due, len(list)); told++ {
			list[told].close(GoingAway)
		}
		if told == len(list) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Hold has everybody who comes refused the upgrade while it is on. The other paths of
// the port are served.
func (s *Server) Hold(on bool) { s.held.Store(on) }

// Refill lets clients in again after a Drain.
func (s *Server) Refill() { s.draining.Store(nil) }

// Draining says whether new clients are sent elsewhere.
func (s *Server) Draining() bool { return s.draining.Load() != nil }

// sentElsewhere sends a client that has just come to another node, while this one drains,
// and says whether it did.
func (c *Conn) sentElsewhere() bool {
	d := c.srv.draining.Load()
	if d == nil || len(d.urls) == 0 {
		return false
	}
	url := pathOf(c.dialect, d.elsewhere(), c.srv.cfg.WebSocket.URLPath)
	c.Answer(&protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionRedirect, URL: url})
	c.close(Redirected)
	return true
}

// pathOf is the place of another node for a client that speaks d. Nodes say where clients
// of the binary protocol find them, on the path binary; the others have their own path there.
// Where binary is empty this node does not serve that protocol, and of place only the host counts.
func pathOf(d *Dialect, place, binary string) string {
	if d.Codec == nil {
		return place
	}
	if base, ok := strings.CutSuffix(place, binary); ok && binary != "" {
		return base + d.Options.URLPath
	}
	u, err := url.Parse(place)
	if err != nil {
		return place
	}
	u.Path = d.Options.URLPath
	return u.String()
}
