package tokens

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
	"hadal/auth/web"
)

const (
	// catchUpWait is how long a login waits for a node that does not know what is revoked.
	// Without it, clients that are told to try again would do so at once, for ever.
	catchUpWait = 5 * time.Second
	// enforcePause is how long after one round of closing what is revoked the next begins:
	// many revocations cost one look at the sessions.
	enforcePause = 50 * time.Millisecond
	// watchPause is how long after a watch that failed the next one begins.
	watchPause = time.Second
	// vaultTime is how long a request may wait for the vault.
	vaultTime = 8 * time.Second
)

// ErrNotRenewable is the error of renewing a connection with a token that is not its
// user's, or one that had none.
var ErrNotRenewable = errors.New("NOT_RENEWABLE")

// Deps is what a Room is given.
type Deps struct {
	// Vault need not be open yet.
	Vault vault.Vault
	// Issuer is the cluster, in its tokens.
	Issuer string
	// Clients are all connections that are logged in, with a token or without; only a kick
	// looks at them.
	Clients iter.Seq[Client]
	// Crowded says that the vault is so full that no tokens shall be minted, so that there
	// is room to revoke those that there are; nil never does.
	Crowded func(ctx context.Context) bool
	Log     *slog.Logger
}

// Room makes tokens, lets in who has one, and looks after the connections of those who
// did. Its methods may be called from anywhere.
type Room struct {
	deps     Deps
	maker    atomic.Pointer[maker]
	enabled  chan struct{} // closed when there are keys for the first time
	enabling sync.Once

	families families
	revoked  *revocations
	sessions *sessions
	refreshs chan struct{} // a place for each refresh under way

	// touch is whether this node knows the cluster's revocations.
	touch *vault.Touch
	dirty chan struct{} // has a token when connections may have to end
	mu    sync.Mutex
	kicks map[string]struct{} // users to be kicked; guarded by mu

	counts counts
}

// counts are what Stats tells.
type counts struct {
	minted, refreshed, repeated, replayed, revoked, kicked, renewed atomic.Uint64
}

// Stats are gauges, and counters since the start.
type Stats struct {
	// Sessions is how many connections have a token, Revocations how many are known.
	Sessions, Revocations int
	// Knows says that the node knows what is revoked.
	Knows bool
	// Minted counts tokens for backends, Refreshed exchanges of refresh tokens, Repeated those
	// that got the answer of one before, Replayed the families that a token used twice ended.
	Minted, Refreshed, Repeated, Replayed uint64
	// Revoked counts revocations made at this node, Kicked kicks, Renewed connections whose
	// token was renewed.
	Revoked, Kicked, Renewed uint64
}

// New makes a room; mistakes in cfg open with their key below tokens.
func New(cfg Config, deps Deps) (*Room, error) {
	r := &Room{
		deps: deps, enabled: make(chan struct{}), families: families{deps.Vault, &lives{vault: deps.Vault}}, revoked: newRevocations(),
		refreshs: make(chan struct{}, maxRefreshs), dirty: make(chan struct{}, 1), kicks: make(map[string]struct{}),
		touch: vault.NewTouch(false),
	}
	r.sessions = newSessions(func() time.Duration { return r.maker.Load().cfg.Grace })
	return r, r.Reload(cfg)
}

// Reload takes over another configuration: keys, secrets and times. What is wrong with it
// is an error, and then everything stays as it was.
func (r *Room) Reload(cfg Config) error {
	m, err := newMaker(cfg, r.deps.Issuer)
	if err != nil {
		return err
	}
	r.maker.Store(m)
	if cfg.Enabled() {
		r.enabling.Do(func() { close(r.enabled) })
	}
	return nil
}

// IsBackend says whether a secret is the apiSecret of the moment.
func (r *Room) IsBackend(secret string) bool {
	return web.SameSecret(secret, r.maker.Load().cfg.APISecret)
}

// Stats returns the numbers of this moment.
func (r *Room) Stats() Stats {
	c := &r.counts
	st := Stats{
		Sessions: r.sessions.count(), Revocations: r.revoked.count(),
		Minted: c.minted.Load(), Refreshed: c.refreshed.Load(), Repeated: c.repeated.Load(), Replayed: c.replayed.Load(),
		Revoked: c.revoked.Load(), Kicked: c.kicked.Load(), Renewed: c.renewed.Load(),
	}
	st.Knows = r.touch.Knows()
	return st
}

// OfflineGrace is how long this node goes on when it is cut off, at the moment.
func (r *Room) OfflineGrace() time.Duration { return r.maker.Load().cfg.OfflineGrace }

// Enabled says whether there are tokens of this cluster.
func (r *Room) Enabled() bool { return r.maker.Load().cfg.Enabled() }

// Run looks after sessions and revocations until ctx ends. It is called once.
func (r *Room) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.sessions.run(ctx) })
	select {
	case <-r.enabled:
	case <-ctx.Done():
		return nil
	}
	wg.Go(func() { r.enforceLoop(ctx) })
	wg.Go(func() { r.touch.Run(ctx, r.OfflineGrace, r.stir) })
	r.watchLoop(ctx)
	return nil
}

// watchLoop follows the revocations until ctx ends.
func (r *Room) watchLoop(ctx context.Context) {
	for {
		err := r.deps.Vault.Watch(ctx, revokedPrefix, vault.Watcher{Told: r.told, Synced: r.synced, Lost: r.lost})
		if ctx.Err() != nil {
			return
		}
		r.lost(err)
		pause := time.NewTimer(watchPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// told is called with each revocation.
func (r *Room) told(c vault.Change) {
	news, err := r.revoked.note(c)
	if err != nil {
		// Nobody but a later version writes what this one cannot read.
		r.deps.Log.Error("a revocation was not understood: do all nodes run the same version?", "err", err)
		return
	}
	if news {
		r.enforce(c.Key)
	}
}

// enforce has a revocation reach connections soon.
func (r *Room) enforce(key string) {
	if segment, ok := strings.CutPrefix(key, revokedKick); ok {
		user, err := vault.Text(segment)
		if err != nil {
			r.deps.Log.Error("a kick was not understood: do all nodes run the same version?", "err", err)
			return
		}
		if r.touch.Began() { // else it was meant for the connections of a former run
			r.mu.Lock()
			r.kicks[user] = struct{}{}
			r.mu.Unlock()
		}
	}
	r.stir()
}

// stir has enforceLoop look.
func (r *Room) stir() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// synced is called when all revocations have been told.
func (r *Room) synced() {
	r.revoked.caughtUp()
	if away := r.touch.Synced(); away > 0 {
		r.deps.Log.Info("revocations of tokens are known again", "after", away.Round(time.Millisecond))
	}
}

// lost is called when the watch has ended or will begin anew.
func (r *Room) lost(err error) {
	r.revoked.begin()
	if r.touch.Lost() {
		r.deps.Log.Warn("cut off from the revocations of tokens", "err", err, "grace", r.OfflineGrace())
	}
}

// enforceLoop ends connections, until ctx ends.
func (r *Room) enforceLoop(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C: // not sooner
		case <-ctx.Done():
			return
		}
		select {
		case <-r.dirty:
		case <-ctx.Done():
			return
		}
		r.endRevoked()
		pause.Reset(enforcePause)
	}
}

// endRevoked closes the connections that may not be.
func (r *Room) endRevoked() {
	// Before the first catching up nobody has come in by what this node did not know.
	cut := r.touch.Gone()
	r.mu.Lock()
	kicks := r.kicks
	r.kicks = make(map[string]struct{})
	r.mu.Unlock()
	ended := 0
	for _, c := range r.sessions.ours() {
		switch u := c.User(); {
		case r.revoked.void(u.ID, u.Session):
			c.End(Revoked)
			ended++
		case cut:
			c.End(Unknown)
			ended++
		}
	}
	if cut && ended > 0 {
		r.deps.Log.Warn("connections of tokens were closed: this node does not know any more what is revoked", "closed", ended)
	}
	if len(kicks) == 0 {
		return
	}
	for c := range r.deps.Clients {
		if u := c.User(); u != nil {
			if _, ok := kicks[u.ID]; ok {
				c.End(Kicked)
			}
		}
	}
}

// Opened begins to look after a connection that has logged in. One without a token costs
// nothing.
func (r *Room) Opened(c Client) {
	u := c.User()
	if u == nil || u.Session == nil {
		return
	}
	r.sessions.enter(c)
	r.lookAgain(c)
}

// lookAgain ends a connection that was entered while its token was revoked, or while the
// node was cut off.
func (r *Room) lookAgain(c Client) {
	u := c.User()
	if !u.Session.Ours {
		return
	}
	if r.revoked.void(u.ID, u.Session) {
		c.End(Revoked)
		return
	}
	if !r.touch.Knows() {
		c.End(Unknown)
	}
}

// Closed forgets a connection that has gone.
func (r *Room) Closed(c Client) { r.sessions.leave(c.ID()) }

// Remind tells a client that its token expires, if it was told before, when it could not
// hear it yet.
func (r *Room) Remind(id uint64) { r.sessions.remind(id) }

// Renew has a connection, by its id, go on with a token, which judge is asked about as of
// a login: the same user's, or it is an error. It returns the user before and now. Called
// on the reader of the connection.
func (r *Room) Renew(ctx context.Context, id uint64, token string, judge auth.Authenticator) (was, now *auth.User, err error) {
	c := r.sessions.client(id)
	if c == nil {
		return nil, nil, ErrNotRenewable
	}
	// As a token of the upgrade it is found by every strategy, whatever key of the parameters
	// that is configured for. The address is whose turn is waited for.
	v, err := judge.Authenticate(ctx, &auth.Attempt{Params: "{}", Token: token, RemoteAddr: c.RemoteAddr()})
	was = c.User()
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("renew a session: %w", err)
	case v.Opinion != auth.Accepted:
		return nil, nil, refusedBecause(v.Reason)
	case v.User == nil || v.User.Session == nil || v.User.ID != was.ID || !c.Renew(v.User):
		return nil, nil, ErrNotRenewable
	}
	r.sessions.enter(c)
	r.lookAgain(c)
	r.counts.renewed.Add(1)
	return was, v.User, nil
}

// refusedBecause is the error of a token that a strategy refused.
func refusedBecause(reason string) error {
	for _, err := range []error{ErrExpired, ErrRevoked} {
		if reason == jsonText(err.Error()) {
			return err
		}
	}
	return ErrInvalid
}
