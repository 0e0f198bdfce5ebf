package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hadal/auth"
	"hadal/perms"
	"hadal/protocol"
)

// ErrUnjudged is part of the error of a Reload that put new rules in force, and could
// not have everything that stands judged by them.
var ErrUnjudged = errors.New("the new rules are in force, but not all subscriptions to records were judged by them")

// Reload takes over the rules, the users, the tokens' settings and the certificates of
// cfg; the rest of cfg needs a restart. It is all or nothing: what is wrong is found before
// anything is taken over, and then everything stays as it was.
//
// New rules hold for what stands, too. Subscriptions, listening and provided rpcs that
// they do not allow are ended, and their clients told. When Reload has returned nothing
// is sent any more for what it ended; what was sent before may still be on its way.
// Clients stay logged in, also those whose user is gone.
//
// It returns when all is judged, or with ErrUnjudged when ctx or the node ended before
// that.
func (n *Node) Reload(ctx context.Context, cfg Config) error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	cfg.Registration = n.cfg.Registration // it stays as it is, so auth has to fit it
	strategies, err := n.accounts.strategies(cfg)
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	if _, err := perms.New(cfg.Permission); err != nil {
		return fmt.Errorf("permission: %w", err)
	}
	if err := cfg.Tokens.Validate(); err != nil {
		return fmt.Errorf("tokens: %w", err)
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
	began := time.Now()
	if err := n.shareRules(ctx, cfg.Permission); err != nil {
		return err
	}
	n.log.Info("reloaded rules, users and certificates", "took", time.Since(began).Round(time.Microsecond))
	return nil
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
