package node

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"hadal/auth"
	"hadal/auth/register"
	"hadal/auth/users"
	"hadal/auth/web"
	"hadal/node/endpoint"
)

// This file joins the registrations of clients with the port and its connections.

// minOperatorSecret is the length in bytes of the shortest secret that strangers may try.
const minOperatorSecret = 32

// registrationCost is that of bcrypt for keys; tests have it lower. 0 is the usual one.
var registrationCost int

// newRegistration makes the room; nil when there are no registrations.
func (n *Node) newRegistration() (*register.Room, error) {
	c := n.cfg.Registration
	if !c.Enabled() {
		return nil, nil
	}
	if c.Mode == register.Authenticated && n.cfg.Admin.Token == "" && n.cfg.Tokens.APISecret == "" {
		n.log.Warn("nobody can register the first client: set tokens.apiSecret or admin.token, whose bearer may", "key", "registration.mode")
	}
	return register.New(c, register.Deps{
		Vault: n.vault, Turnstile: n.accounts.turns, Admin: n.isOperator, Others: others{n}, OfflineGrace: n.tokens.OfflineGrace, Log: n.log,
		DropRole: n.dropRole, Crowded: n.loginsHalfFull,
		BasicElsewhere: n.accounts.basic.Load, Cost: registrationCost,
	})
}

// others is the strategies as registrations, which are made before them, ask them.
type others struct{ *Node }

// Knows implements auth.Knower.
func (n others) Knows(ctx context.Context, name string) (bool, error) { return n.auth.Knows(ctx, name) }

// dropRole takes the role of a client away that unregisters.
func (n *Node) dropRole(ctx context.Context, id string) error {
	if err := n.accounts.roles.Remove(ctx, id); !errors.Is(err, users.ErrNotFound) {
		return err
	}
	return nil
}

// waysIn is all that decides who a client is: registered clients and the cluster's own
// tokens are asked for before the strategies, all behind one door.
func (n *Node) waysIn(strategies auth.Authenticator) auth.Authenticator {
	if n.registration == nil {
		return auth.NewDoor(n.tokens, strategies)
	}
	return auth.NewDoor(n.registration, n.tokens, strategies)
}

// isOperator says whether a secret is one by which the operator, or a backend, is known to
// HTTP. Both are compared, whatever the first says.
func (n *Node) isOperator(secret string) bool {
	operator, backend := web.SameSecret(secret, n.cfg.Admin.Token), n.tokens.IsBackend(secret)
	return operator || backend
}

// runRegistration ends logins of registered clients that are over, until ctx ends.
func (n *Node) runRegistration(ctx context.Context) error {
	if n.registration == nil {
		<-ctx.Done()
		return nil
	}
	return n.registration.Run(ctx)
}

// registeredConn is a connection as the room of registrations sees it.
type registeredConn struct{ *endpoint.Conn }

// EndLogin implements register.Conn.
func (c registeredConn) EndLogin(why register.End) {
	if why == register.Unknown {
		c.End(endpoint.TokensUnknown)
		return
	}
	c.End(endpoint.TokenRevoked)
}

// collectRegistration tells of registered clients, if there may be any.
func (n *Node) collectRegistration(count, gauge func(d *prometheus.Desc, v float64, labels ...string)) {
	if n.registration == nil {
		return
	}
	s := n.registration.Stats()
	for call, results := range s.Calls {
		for result, v := range results {
			count(descRegistration, float64(v), call, result)
		}
	}
	for result, v := range s.Logins {
		count(descRegLogins, float64(v), result)
	}
	count(descRegEnded, float64(s.Ended))
	gauge(descRegClients, float64(s.Clients))
	gauge(descRegOpen, float64(s.Connections))
}

// validateRegistration checks what registrations need of the rest, too.
func (c Config) validateRegistration(m *mistakes) {
	*m = append(*m, flatten(c.Registration.Validate())...)
	if !c.Registration.Enabled() {
		return
	}
	if n := len(c.Admin.Token); n > 0 && n < minOperatorSecret {
		m.add("admin.token", "is too short: with registrations the public port takes it, too, so use at least %d random characters (openssl rand -hex 32)", minOperatorSecret)
	}
	// A strategy that makes its users up, or gives them ids that are not their names, cannot
	// say whose an id is.
	others := slices.ContainsFunc(c.Auth, func(a auth.Config) bool { return a.Type == "storage" || a.Type == "http" || a.Type == "jwt" })
	if c.Registration.UserPrefix == "" && (others || c.Tokens.Enabled()) {
		m.add("registration.userPrefix", "is empty, so who registers could take the id of a user of storage, http, jwt or tokens, with all its rights: "+
			"set it to what no such id begins with, such as client/")
	}
}
