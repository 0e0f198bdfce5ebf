package register

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"hadal/auth"
	"hadal/auth/hasher"
	"hadal/auth/vault"
)

const (
	// bcryptCost is that of the hashes of keys. A key has at least 32 bytes that nobody
	// thought up; so the cost is what is usual, and not more than a login should take.
	bcryptCost = 10
	// callLimit bounds what one request takes, its turn at the turnstile included.
	callLimit = 8 * time.Second
	// catchUpWait is how long a login waits for a node that was cut off. Without it, clients
	// that are told to try again would do so at once, for ever.
	catchUpWait = 5 * time.Second
	// maxTries is how often an entry is looked at again that others change meanwhile. One
	// of those who change it at the same time always gets through.
	maxTries = 64
	// maxRecent is how many clients' keys are known by their HMAC.
	maxRecent = 10_000
)

// Deps is what the room needs of the node.
type Deps struct {
	Vault     vault.Vault
	Turnstile *auth.Turnstile
	// Admin says whether a secret is one of the operator's, who may register and unregister
	// everybody.
	Admin func(secret string) bool
	// Others knows the users of other strategies, whose names nobody can register. nil
	// knows nobody.
	Others auth.Knower
	// BasicElsewhere says that another strategy is asked about Basic credentials too, so
	// that those of a client that is not registered are left to it. It may change; nil is
	// never.
	BasicElsewhere func() bool
	// DropRole takes the role away that the operator gave to a user, if he has one; his id is
	// his user id. nil is for a node that has no roles.
	DropRole func(ctx context.Context, id string) error
	// Crowded says that the vault is so full that clients, who may be anybody, shall not fill
	// it any further. nil never does.
	Crowded func(ctx context.Context) bool
	// OfflineGrace is how long a node that is cut off from the vault goes on with who is
	// logged in. It may change.
	OfflineGrace func() time.Duration
	Log          *slog.Logger
	// Cost is that of bcrypt, for tests. 0 is the cost that keys have.
	Cost int
}

// Room is the registrations, as one node sees them. It is safe for many callers at once.
type Room struct {
	cfg    Config
	deps   Deps
	log    *slog.Logger
	counts counts
	rates  *rates
	cost   int    // of bcrypt
	nobody string // a hash that no key has
	// matches is bcrypt's; tests count its calls.
	matches func(hash, key []byte) bool
	mac     [sha256.Size]byte
	touch   *vault.Touch // whether this node hears of who is registered
	census  *census

	mu     sync.Mutex
	recent map[string]verified          // by id: keys that were right; guarded by mu
	conns  map[Conn]string              // the client of each; guarded by mu
	byID   map[string]map[Conn]struct{} // the same by client; guarded by mu
	check  map[string]struct{}          // clients that Run looks up; guarded by mu
	urgent map[string]struct{}          // those of which it was told something; guarded by mu
	warned map[string]bool              // clients whose name others have, that the log was told of; guarded by mu
	wake   chan struct{}                // holds a token while either has something
}

// verified is a key that was right for a registration.
type verified struct {
	login string
	mac   [sha256.Size]byte
}

// Errors of the room's own methods, which http.go turns into answers.
var (
	errExists  = errors.New("there is such a client")
	errWrong   = errors.New("the credentials are wrong")
	errUnknown = errors.New("there is no such client")
	errRaced   = errors.New("others changed this client all the time")
	errMany    = errors.New("there are as many clients as there may be")
	errCrowded = errors.New("the store of logins is too full for more clients")
)

// New makes the room; cfg is valid and enabled. Run has to run for logins to end.
func New(cfg Config, deps Deps) (*Room, error) {
	cost := cmp.Or(deps.Cost, bcryptCost)
	r := &Room{
		cfg: cfg, deps: deps, log: deps.Log, cost: cost, rates: newRates(cfg.PerMinute), matches: hasher.MatchesBcrypt,
		touch: vault.NewTouch(true), census: newCensus(), recent: make(map[string]verified), conns: make(map[Conn]string),
		byID: make(map[string]map[Conn]struct{}), check: make(map[string]struct{}), urgent: make(map[string]struct{}), warned: make(map[string]bool), wake: make(chan struct{}, 1),
	}
	_, _ = rand.Read(r.mac[:]) // never fails: crypto/rand ends the process instead
	hash, err := hasher.NewBcrypt([]byte(random(secretBytes)), cost)
	if err != nil {
		return nil, fmt.Errorf("registration: make a hash: %w", err)
	}
	if r.deps.BasicElsewhere == nil {
		r.deps.BasicElsewhere = func() bool { return false }
	}
	r.nobody = string(hash)
	return r, nil
}

// find reads a client, for which a node that was cut off has to catch up first. The error is
// errUnknown, auth.ErrBusy, or the vault's.
func (r *Room) find(ctx context.Context, id string) (*client, uint64, error) {
	if id == "" || len(id) > maxID {
		return nil, 0, errUnknown // nobody registers it, and it is no key
	}
	if !r.touch.Await(ctx, catchUpWait) {
		return nil, 0, fmt.Errorf("%w: this node does not know who is registered", auth.ErrBusy)
	}
	e, err := r.deps.Vault.Get(ctx, keyOf(id))
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return nil, 0, errUnknown
	case err != nil:
		return nil, 0, fmt.Errorf("read registration: %w", err)
	}
	c, err := parseClient(e)
	return c, e.Revision, err
}

// eligible is find for who wants to log in: who has the name of another strategy's user, as
// one that was added later, is no client while he has it, or he would be that user.
func (r *Room) eligible(ctx context.Context, id string) (*client, uint64, error) {
	c, revision, err := r.find(ctx, id)
	if err != nil || r.cfg.UserPrefix != "" { // ids of others do not begin with it
		return c, revision, err
	}
	switch taken, err := r.taken(ctx, id); {
	case err != nil:
		return nil, 0, err
	case !taken:
		return c, revision, nil
	}
	r.mu.Lock()
	warned := r.warned[id]
	r.warned[id] = true
	r.mu.Unlock()
	if !warned {
		r.log.Warn("a registered client cannot log in, because another strategy has a user of that name: unregister the client, or rename the user", "client", id)
	}
	return nil, 0, errUnknown
}

// taken says whether another strategy has a user of the id that a client has or would have.
func (r *Room) taken(ctx context.Context, id string) (bool, error) {
	if r.deps.Others == nil {
		return false, nil
	}
	known, err := r.deps.Others.Knows(ctx, r.cfg.UserPrefix+id)
	if err != nil {
		return false, fmt.Errorf("look for a user of that name: %w", err)
	}
	return known, nil
}

// register makes a client, or errExists, errMany, errCrowded. remote is whose turn is waited for. id and key
// have been looked at.
func (r *Room) register(ctx context.Context, id, key, remote string) error {
	// Who comes second need not cost a hash.
	switch _, _, err := r.find(ctx, id); {
	case err == nil:
		return errExists
	case !errors.Is(err, errUnknown):
		return err
	}
	switch taken, err := r.taken(ctx, id); {
	case err != nil:
		return err
	case taken:
		return errExists
	}
	switch {
	case r.cfg.MaxClients > 0 && r.census.count() >= r.cfg.MaxClients:
		return errMany
	case r.deps.Crowded != nil && r.deps.Crowded(ctx):
		return errCrowded
	}
	var hash []byte
	var failed error
	err := r.deps.Turnstile.Check(ctx, remote, auth.BcryptCost, func() bool {
		hash, failed = hasher.NewBcrypt([]byte(key), r.cost)
		return true // nothing was guessed at
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	c := &client{Login: random(idBytes), Hash: string(hash), Created: time.Now().Unix()}
	_, err = r.deps.Vault.Create(ctx, keyOf(id), c.text(), 0)
	if err == nil {
		return nil
	}
	// The outcome may be unknown; and what was found may be what we wrote.
	switch found, _, lost := r.find(ctx, id); {
	case lost == nil && found.Login == c.Login:
		return nil
	case errors.Is(err, vault.ErrExists):
		return errExists
	}
	return fmt.Errorf("write registration: %w", err)
}

// authenticate says who a pair of id and key is. The error is errWrong, auth.ErrBusy, or
// that of what could not be asked. It takes as long for a client that is not registered,
// whose error Is errUnknown as well; unless another strategy may know it, as elsewhere says.
// Then it is no wrong guess, and takes no hash: it goes on to that strategy, so that all can
// see that there is no such client, and a hash here would be one that nobody is slowed for.
func (r *Room) authenticate(ctx context.Context, id, key, remote string, elsewhere bool) (*client, uint64, error) {
	var c *client
	var revision uint64
	var err error
	// Addresses that are slowed wait here already, so that they do not keep the vault busy.
	turn := r.deps.Turnstile.Check(ctx, remote, auth.Cost{}, func() bool {
		c, revision, err = r.eligible(ctx, id)
		return true // nothing is known yet
	})
	if turn != nil {
		return nil, 0, turn
	}
	unknown := errors.Is(err, errUnknown)
	if err != nil && !unknown {
		return nil, 0, err
	}
	if unknown && elsewhere {
		return nil, 0, errors.Join(errWrong, errUnknown)
	}
	hash := r.nobody
	if !unknown {
		hash = c.Hash
		if r.recalls(id, c.Login, key) && !r.deps.Turnstile.Slowed(remote) {
			return c, revision, nil
		}
	}
	right := false
	err = r.deps.Turnstile.Check(ctx, remote, auth.BcryptCost, func() bool {
		// What is behind the longest key would be ignored.
		match := r.matches([]byte(hash), []byte(key[:min(len(key), maxKey)]))
		right = match && !unknown && len(key) <= maxKey
		return right
	})
	switch {
	case err != nil:
		return nil, 0, err
	case unknown:
		return nil, 0, errors.Join(errWrong, errUnknown)
	case !right:
		return nil, 0, errWrong
	}
	r.remember(id, c.Login, key)
	r.deps.Turnstile.Vouch(remote)
	return c, revision, nil
}

// login gives a client a new token, and so ends its last one. The error is as for
// authenticate.
func (r *Room) login(ctx context.Context, id, key, remote string) (token string, b *bearer, err error) {
	c, revision, err := r.authenticate(ctx, id, key, remote, false)
	if err != nil {
		return "", nil, err
	}
	registration := c.Login
	token, b = newToken(id, time.Now(), r.cfg.BearerTTL)
	for range maxTries {
		c.Bearer = b
		_, err = r.deps.Vault.Update(ctx, keyOf(id), c.text(), revision, 0)
		if err == nil {
			return token, b, nil
		}
		var lost error
		switch c, revision, lost = r.find(ctx, id); {
		case errors.Is(lost, errUnknown), lost == nil && c.Login != registration:
			return "", nil, errWrong // it was unregistered meanwhile
		case lost != nil:
			return "", nil, errors.Join(err, lost)
		case c.Bearer != nil && c.Bearer.Login == b.Login:
			return token, b, nil // the outcome was unknown
		case !errors.Is(err, vault.ErrConflict):
			return "", nil, fmt.Errorf("write token: %w", err)
		}
	}
	return "", nil, errRaced
}

// verify says whose token it is. The error is errWrong, errExpired, auth.ErrBusy, or the
// vault's. To look one up takes no time of this node's; but who makes tokens up has the
// vault asked for each, so wrong ones are slowed as wrong keys are.
func (r *Room) verify(ctx context.Context, token, remote string) (id string, c *client, err error) {
	id, ok := clientOf(token)
	if !ok {
		return "", nil, errWrong
	}
	turn := r.deps.Turnstile.Check(ctx, remote, auth.Cost{}, func() bool {
		c, _, err = r.eligible(ctx, id)
		if errors.Is(err, errUnknown) || err == nil && !c.Bearer.matches(token) {
			err = errWrong
		}
		return !errors.Is(err, errWrong)
	})
	switch {
	case turn != nil:
		return "", nil, turn
	case err != nil:
		return "", nil, err
	case !time.Now().Before(c.Bearer.expires()):
		return "", nil, errExpired
	}
	return id, c, nil
}

var errExpired = errors.New("the token has expired")

// unregister removes a client: the registration of that login, or any when it is empty. Its
// role goes first: who registers the id next is somebody else, and when only one of the two
// can be removed, it is a client without its role that stays. The error is errUnknown, or the
// vault's.
func (r *Room) unregister(ctx context.Context, id, login string) error {
	tried := false // an attempt whose outcome is unknown
	for range maxTries {
		c, revision, err := r.find(ctx, id)
		switch {
		case errors.Is(err, errUnknown) && tried:
			return nil
		case err != nil:
			return err
		case login != "" && c.Login != login:
			return errUnknown // a later registration is another client's
		}
		login = c.Login
		if r.deps.DropRole != nil {
			if err := r.deps.DropRole(ctx, r.cfg.UserPrefix+id); err != nil {
				return fmt.Errorf("remove the role of a client: %w", err)
			}
		}
		err = r.deps.Vault.Delete(ctx, keyOf(id), revision)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, vault.ErrConflict): // a login
		case tried || ctx.Err() != nil:
			return fmt.Errorf("remove registration: %w", err)
		default:
			tried = true
		}
	}
	return errRaced
}

// userOf is who a client is; login and expires are of what it came with, issued is when.
// The session is not Ours in the sense of revocations: it ends with its entry.
func (r *Room) userOf(id, login string, issued, expires time.Time) *auth.User {
	u := &auth.User{ID: r.cfg.UserPrefix + id, Session: &auth.Session{
		ID: login, Family: keyOf(id), Issued: issued, Expires: expires,
	}}
	if r.cfg.Role != "" {
		data, err := json.Marshal(map[string]string{"role": r.cfg.Role})
		if err != nil {
			panic(fmt.Sprintf("register: role cannot be written as JSON: %v", err)) // a text
		}
		u.ServerData = string(data)
	}
	return u
}

// recalls says whether a key is the one that was last right for a registration.
func (r *Room) recalls(id, login, key string) bool {
	sum := r.sum(key)
	r.mu.Lock()
	v, ok := r.recent[id]
	r.mu.Unlock()
	return ok && v.login == login && hmac.Equal(v.mac[:], sum[:])
}

// remember notes a key that was right.
func (r *Room) remember(id, login, key string) {
	sum := r.sum(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.recent[id]; !ok && len(r.recent) >= maxRecent {
		for other := range r.recent { // any: it costs that one a hash
			delete(r.recent, other)
			break
		}
	}
	r.recent[id] = verified{login, sum}
}

// sum is what is remembered of a key.
func (r *Room) sum(key string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, r.mac[:])
	h.Write([]byte(key))
	h.Sum(sum[:0])
	return sum
}
