package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hadal/auth"
	"hadal/auth/tokens"
	"hadal/node/endpoint"
	"hadal/node/sub"
	"hadal/protocol"
)

// This file joins the tokens of the cluster with connections: who makes them, who ends
// by them, and how a client renews its own.

// renewTime is how long renewing a token may take; the client's other messages wait.
const renewTime = 10 * time.Second

// newTokens makes the room of tokens, off or on.
func (n *Node) newTokens() (*tokens.Room, error) {
	room, err := tokens.New(n.cfg.Tokens, tokens.Deps{
		Vault: n.vault, Issuer: TokenIssuer(n.cfg), Crowded: n.loginsCrowded, Log: n.log,
		Clients: func(yield func(tokens.Client) bool) {
			for _, c := range n.endpoint.Conns() {
				if c.User() != nil && !yield(tokenClient{c, n}) {
					return
				}
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	return room, nil
}

// TokenIssuer is who makes the tokens, by their own word: the cluster.
func TokenIssuer(cfg Config) string {
	if !cfg.Cluster.Enabled() {
		return "hadal"
	}
	return "hadal/" + cfg.Cluster.Name
}

// crossOrigin lets pages of other origins post to h, as far as they may connect. They do
// so without cookies: what they send in the body is all that counts.
func crossOrigin(h http.Handler, allowed func(origin string) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, header := r.Header.Get("Origin"), w.Header()
		header.Add("Vary", "Origin")
		if origin == "" || !allowed(origin) {
			h.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Origin", origin)
		if r.Method != http.MethodOptions {
			h.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Methods", http.MethodPost)
		header.Set("Access-Control-Allow-Headers", "Content-Type")
		header.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	})
}

// tokenClient is a connection as the room of tokens sees it.
type tokenClient struct {
	*endpoint.Conn
	node *Node
}

// Expiring implements tokens.Client.
func (c tokenClient) Expiring(expires, closes time.Time) {
	c.node.event.Tell(c.Conn, protocol.EventExpiring, fmt.Sprintf(`{"expiresAt":%d,"closesAt":%d}`, expires.UnixMilli(), closes.UnixMilli()))
}

// End implements tokens.Client.
func (c tokenClient) End(why tokens.End) {
	c.Conn.End(map[tokens.End]endpoint.Reason{
		tokens.Expired: endpoint.TokenExpired, tokens.Revoked: endpoint.TokenRevoked,
		tokens.Kicked: endpoint.Kicked, tokens.Unknown: endpoint.TokensUnknown,
	}[why])
}

// remind implements session.
func (n *Node) remind(c sub.Client) { n.tokens.Remind(c.ID()) }

// renew implements session: a client that has logged in with a token goes on with
// another one of the same user, and with what that one allows. It runs on the client's
// reader, so that nothing the client sends comes between.
func (n *Node) renew(c sub.Client, m *protocol.Message) {
	if !m.Carries(protocol.HasCorrelationID) {
		c.Answer(&protocol.Message{
			Topic: protocol.TopicRPC, Action: protocol.RPCInvalidRPCCorrelationID, OriginalAction: m.Action, IsError: true,
			Name: m.Name, Has: m.Has & protocol.HasName,
		})
		return
	}
	answer := &protocol.Message{
		Topic: protocol.TopicRPC, Action: protocol.RPCResponse, Name: m.Name, CorrelationID: m.CorrelationID,
		Has: protocol.HasName | protocol.HasCorrelationID | protocol.HasData,
	}
	now, err := n.renewed(c, m.Data)
	if err != nil {
		answer.Action, answer.Data = protocol.RPCRequestError, `"`+err.Error()+`"`
	} else {
		answer.Data = fmt.Sprintf(`{"expiresAt":%d}`, now.Session.Expires.UnixMilli())
	}
	c.Answer(answer)
}

// errUnavailable is the answer to a client whose token could not be judged.
var errUnavailable = errors.New("UNAVAILABLE")

// renewed renews a client by the data of its call, {token}. The text of an error is the
// answer.
func (n *Node) renewed(c sub.Client, data string) (*auth.User, error) {
	var params struct {
		Token string `json:"token"`
	}
	if json.Unmarshal([]byte(data), &params) != nil || params.Token == "" {
		return nil, errors.New("INVALID_MESSAGE_DATA")
	}
	ctx, cancel := context.WithTimeout(context.Background(), renewTime)
	defer cancel()
	was, now, err := n.tokens.Renew(ctx, c.ID(), params.Token, n.logins)
	for _, told := range []error{tokens.ErrExpired, tokens.ErrRevoked, tokens.ErrInvalid, tokens.ErrNotRenewable} {
		if errors.Is(err, told) {
			return nil, told
		}
	}
	if err != nil {
		n.log.Warn("a token could not be renewed", "conn", c.ID(), "user", c.User().ID, "err", err)
		return nil, errUnavailable
	}
	n.log.Debug("token renewed", "conn", c.ID(), "user", now.ID)
	if conn, ok := c.(*endpoint.Conn); ok && n.registration != nil {
		n.registration.Opened(registeredConn{conn}) // it may be by a token of that room now
	}
	if was.ServerData == now.ServerData {
		return now, nil // the rules cannot tell the two apart
	}
	if ended, err := n.rejudgeClient(ctx, c); err != nil {
		// It has what its new token may not allow: it has to come again.
		n.log.Error("what a client has could not be judged by its new token", "conn", c.ID(), "user", now.ID, "err", err)
		if conn, ok := c.(*endpoint.Conn); ok {
			conn.Disconnect()
		}
	} else if ended > 0 {
		n.log.Info("a renewed token allows less than before", "conn", c.ID(), "user", now.ID, "ended", ended)
	}
	return now, nil
}

// rejudgeClient has every room end what the rules do not allow any more of what one
// client has, whose user has changed, and returns how much that was. It is called on the
// client's reader.
func (n *Node) rejudgeClient(ctx context.Context, c sub.Client) (ended int, err error) {
	rules := again{n.rules}
	ended = n.event.RejudgeClient(rules, c) + n.rpc.RejudgeClient(rules, c) + n.presence.RejudgeClient(rules, c)
	if room := n.serving(); room != nil {
		var records int
		records, err = room.RejudgeClient(ctx, rules, c)
		ended += records
	}
	return ended, err
}

// collectTokens tells of tokens.
func (n *Node) collectTokens(count, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	st := n.tokens.Stats()
	gauge(descTokenSessions, float64(st.Sessions))
	if !n.tokens.Enabled() {
		return
	}
	for what, v := range map[string]uint64{
		"minted": st.Minted, "refreshed": st.Refreshed, "repeated": st.Repeated, "replayed": st.Replayed,
		"revoked": st.Revoked, "kicked": st.Kicked, "renewed": st.Renewed,
	} {
		count(descTokens, float64(v), what)
	}
	gauge(descRevocations, float64(st.Revocations))
	known := 0.0
	if st.Knows {
		known = 1
	}
	gauge(descTokensKnown, known)
}
