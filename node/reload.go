package node

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/auth"
	"hadal/node/endpoint"
	"hadal/perms"
	"hadal/protocol"
)

// ErrUnjudged is part of the error of a Reload that put new rules in force, and could
// not have everything that stands judged by them.
var ErrUnjudged = errors.New("the new rules are in force, but not all subscriptions to records were judged by them")

// Reload takes over the rules, the users, the keys of backends, the tokens' settings and the
// certificates of cfg; the rest of cfg needs a restart, and what is taken over has to fit what stays. It is
// all or nothing: what is wrong is found before anything is taken over, and then everything
// stays as it was.
//
// New rules hold for what stands, too. Subscriptions, listening and provided rpcs that
// they do not allow are ended, and their clients told. When Reload has returned nothing
// is sent any more for what it ended; what was sent before may still be on its way.
// Clients stay logged in, also those whose user is gone, but for backends whose API key is
// gone or has another name or role: their connections are closed.
//
// It returns when all is judged, or with ErrUnjudged when ctx or the node ended before
// that.
func (n *Node) Reload(ctx context.Context, cfg Config) error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	stale := n.stale(cfg)
	cfg, err := n.reloaded(cfg)
	if err != nil {
		return err
	}
	strategies, err := n.accounts.strategies(cfg)
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	if err := n.endpoint.Reload(); err != nil {
		return err
	}
	// Those for other nodes are looked after anyway; who asks for it gets the error.
	if err := n.place.Reload(); err != nil {
		return err
	}
	if err := n.tokens.Reload(cfg.Tokens); err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	n.auth.Replace(n.waysIn(strategies))
	n.accounts.keep(cfg)
	if len(stale) > 0 {
		n.log.Warn("a reload does not take over all that has changed: restart the node for the rest", "keys", strings.Join(stale, ", "))
	}
	n.endRemovedKeys(cfg.APIKeys)
	began := time.Now()
	if err := n.shareRules(ctx, cfg.Permission); err != nil {
		return err
	}
	n.log.Info("reloaded rules, users and certificates", "took", time.Since(began).Round(time.Microsecond))
	return nil
}

// stale are the keys whose values in cfg are others than the node runs with, and stay so. The
// name of the server is none: it may be made up anew whenever a file is read.
func (n *Node) stale(cfg Config) (keys []string) {
	taken := []string{"serverName", "auth", "allowOpenAuth", "allowOpenFallback", "apiKeys", "tokens", "permission"}
	was, now := reflect.ValueOf(n.cfg), reflect.ValueOf(cfg)
	for i := range was.NumField() {
		key := was.Type().Field(i).Tag.Get("yaml")
		if !slices.Contains(taken, key) && !reflect.DeepEqual(was.Field(i).Interface(), now.Field(i).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
}

// reloaded is the configuration that is in force after a reload of cfg: what the node runs
// with, and what a reload takes over. What is wrong with it is an error, also where all of cfg
// would do: the prefix of registrations, say, that new strategies need is not there yet.
func (n *Node) reloaded(cfg Config) (Config, error) {
	eff := n.cfg
	eff.Auth, eff.AllowOpenAuth, eff.AllowOpenFallback = cfg.Auth, cfg.AllowOpenAuth, cfg.AllowOpenFallback
	eff.APIKeys, eff.Tokens, eff.Permission = cfg.APIKeys, cfg.Tokens, cfg.Permission
	mistakes := flatten(eff.Validate())
	for i, err := range mistakes {
		mistakes[i] = fmt.Errorf("%w (a reload takes over auth, allowOpenAuth, allowOpenFallback, apiKeys, tokens and permission only, "+
			"and the rest is as it was at the start: restart the node if that is to change as well)", err)
	}
	return eff, errors.Join(mistakes...)
}

// endRemovedKeys has those keys of backends be the ones in force, and closes the connections
// that logged in with another one.
func (n *Node) endRemovedKeys(keys []auth.APIKey) {
	// First what judge asks: of a login with a key that was good a moment ago either this
	// finds the connection, or Opened comes after and finds the keys.
	n.apiKeys.Store(&keys)
	for _, c := range n.endpoint.Conns() {
		n.judgeKey(c)
	}
}

// judgeKey closes a connection that has logged in with a key that is none any more.
func (n *Node) judgeKey(c *endpoint.Conn) {
	if u := c.User(); u != nil && u.Key != nil && !slices.Contains(*n.apiKeys.Load(), *u.Key) {
		c.End(endpoint.KeyRemoved)
	}
}

// rejudge has every room end what the rules do not allow any more, and returns how
// much that was.
func (n *Node) rejudge(ctx context.Context) (ended int, err error) {
	rules := again{n.rules}
	var rooms sync.WaitGroup
	var events, rpcs, users, records int
	rooms.Go(func() { events = n.event.Rejudge(rules) })
	rooms.Go(func() { rpcs = n.rpc.Rejudge(rules) })
	rooms.Go(func() { users = n.presence.Rejudge(rules) })
	if room := n.serving(); room != nil {
		if records, err = room.Rejudge(ctx, rules); err != nil {
			err = fmt.Errorf("%w: %w", ErrUnjudged, err)
		}
	}
	rooms.Wait()
	return events + rpcs + users + records, err
}

// again is the rules in force as the rooms ask them again.
type again struct{ *perms.Live }

// Refuse is 0 when the user may, and else the answer of the pipeline.
func (r again) Refuse(u *auth.User, t protocol.Topic, a protocol.Action, name, data string) protocol.Action {
	return refusal(t, r.Door(u, t, a, name, data))
}
