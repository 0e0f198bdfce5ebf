package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"hadal/auth/users"
)

// storage knows its users by name and password from a table (spec 06 §5.3). The id of a
// user is not the name, but a UUID (spec 15, trap 30).
type storage struct {
	key    string // of its options
	store  users.Store
	digest Digest
	create bool
	report bool
	last   bool
	turns  *Turnstile
	log    *slog.Logger
	// crowded says that there is no room for users of createUser; nil where there always is.
	crowded func(ctx context.Context) bool
	// decoys are hashes as new users have them, deepstream's where the options name it, and
	// bcrypt's once a user was seen who has one: the table is not read through for that.
	decoys  decoys
	dearest int // the cost of bcrypt up to which it learns: usualBcrypt, less in tests
	recent  remembered
}

var (
	_ guarded  = (*storage)(nil)
	_ follower = (*storage)(nil)
)

// usualBcrypt is the dearest bcrypt hash whose time all wrong passwords take when there is
// one: a single one that takes seconds must not slow all others.
const usualBcrypt = 12

// unavailable is what a client is told when the store fails: none of its insides.
var unavailable = reason("users cannot be looked up at the moment: try again later")

// errCrowded is why nobody is made a user at a login, for the operator.
var errCrowded = errors.New("the store of logins is three quarters full, and what is left is kept for revocations and removals: " +
	"remove users or registrations, or switch createUser off")

// newStorage checks the options, each mistake opening with key. It connects to nothing.
func newStorage(key string, o *Options, report bool, deps Deps) (*storage, error) {
	var errs []error
	digest, err := digestOf(key, o)
	errs = append(errs, err)
	if err := o.Source().Check(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			errs = append(errs, errors.New(key+"."+line))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s := &storage{
		key: key, digest: digest, create: o.CreateUser, report: report, last: true,
		turns: deps.Turnstile, log: deps.Log, dearest: usualBcrypt,
	}
	if s.create && o.Source().Backend != users.Postgres {
		s.crowded = deps.Crowded
	}
	s.decoys.add(newDummy())
	if digest.Name != "" {
		s.decoys.add(dummyOf(digest))
	}
	if s.store, err = deps.Users.Open(o.Source()); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return s, s.recent.init()
}

func (s *storage) reports() bool { return s.report }

func (s *storage) followed(byNames bool) { s.last = !byNames }

// refuse is a refusal where the strategy is to report one, else no opinion.
func (s *storage) refuse(reason string) Verdict {
	if !s.report {
		return Verdict{}
	}
	return Verdict{Opinion: Refused, Reason: reason}
}

// Authenticate implements Authenticator.
func (s *storage) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	name, password, missing := credentials(a.Params)
	if missing != "" {
		return s.refuse(missing), nil
	}
	for {
		u, err := s.find(ctx, a, name)
		switch {
		case errors.Is(err, ErrBusy), ctx.Err() != nil:
			return Verdict{}, err
		case errors.Is(err, users.ErrNotFound) && s.create:
			v, err := s.register(ctx, a, name, password)
			if errors.Is(err, users.ErrExists) {
				continue // somebody was faster, perhaps on another node: that is the user
			}
			return v, err
		case errors.Is(err, users.ErrNotFound):
			return s.unknown(ctx, a, password)
		case err != nil:
			return s.failed("read users", err), nil
		}
		return s.known(ctx, a, u, password)
	}
}

// find reads a user. Addresses that are slowed wait here already, so that they do not
// keep the store busy either.
func (s *storage) find(ctx context.Context, a *Attempt, name string) (u users.User, err error) {
	waited := s.turns.Check(ctx, a.RemoteAddr, Cost{}, func() bool {
		u, err = s.store.Find(ctx, name)
		return true // nothing is known yet
	})
	if waited != nil {
		return users.User{}, waited
	}
	return u, err
}

// failed is the answer when the store could not be asked. It ends the chain: nobody is let
// in by another strategy, because this one might have refused him. The client is not to
// blame, so that it does not count as an attempt.
func (s *storage) failed(what string, err error) Verdict {
	s.log.Error("storage strategy could not "+what, "key", s.key, "err", err)
	return Verdict{Opinion: Refused, Reason: unavailable, Uncounted: true}
}

// unknown takes the time of a wrong password, and has no opinion.
func (s *storage) unknown(ctx context.Context, a *Attempt, password string) (Verdict, error) {
	return Verdict{}, s.turns.Check(ctx, a.RemoteAddr, s.decoys.cost(nil), func() bool {
		s.decoys.waste(password, nil)
		return !s.last
	})
}

// known judges a user that is there.
func (s *storage) known(ctx context.Context, a *Attempt, u users.User, password string) (Verdict, error) {
	yes := Verdict{Opinion: Accepted, User: &User{ID: u.ID(), ClientData: u.ClientData, ServerData: u.ServerData}}
	if s.recent.has(&u, password) && !s.turns.slowed(networkOf(a.RemoteAddr)) {
		return yes, nil
	}
	own, err := parseStored(u.Password, s.digest)
	if err != nil {
		return s.failed("verify a user", fmt.Errorf("password of user %q: %w", u.Name, err)), nil
	}
	if own.kind() == kindBcrypt && work(own) <= s.dearest {
		s.decoys.add(own)
	}
	var right bool
	var fresh string
	if err := s.turns.Check(ctx, a.RemoteAddr, s.decoys.cost(own), func() bool {
		switch right = own.matches(password); {
		case !right:
			s.decoys.waste(password, own)
		case !isNew(own):
			fresh, err = HashArgon2id(password)
		}
		return right
	}); err != nil {
		return Verdict{}, err
	}
	if !right {
		return s.refuse(""), nil
	}
	if fresh != "" || err != nil {
		s.renew(ctx, &u, fresh, err)
	}
	s.recent.add(&u, password)
	s.turns.Vouch(a.RemoteAddr)
	return yes, nil
}

// renew puts a hash of today in the place of an old one, whose password has just been
// found right. The user logs in whatever becomes of it; when the password was changed
// meanwhile, that one stays.
func (s *storage) renew(ctx context.Context, u *users.User, fresh string, err error) {
	if err == nil {
		changed := *u
		changed.Password = fresh
		if changed, err = s.store.Update(ctx, changed); err == nil {
			*u = changed
			return
		}
	}
	if !errors.Is(err, users.ErrConflict) {
		s.log.Warn("an old hash could not be replaced", "key", s.key, "user", u.ID(), "err", err)
	}
}

// register makes a user of somebody who logs in for the first time. It counts like a wrong
// password, so that one address does not make users without end. The error
// users.ErrExists asks for another look.
func (s *storage) register(ctx context.Context, a *Attempt, name, password string) (Verdict, error) {
	if why := unfit(name, password); why != "" {
		return s.refuse(reason(why)), nil
	}
	var hash string
	var err error
	if waited := s.turns.Check(ctx, a.RemoteAddr, newDummy().cost(), func() bool {
		hash, err = HashArgon2id(password)
		return false
	}); waited != nil {
		return Verdict{}, waited
	}
	if s.crowded != nil && s.crowded(ctx) {
		return s.failed("create a user", errCrowded), nil
	}
	var u users.User
	if err == nil {
		u, err = users.New(name, hash)
	}
	if err == nil {
		u, err = s.store.Create(ctx, u)
	}
	switch {
	case errors.Is(err, users.ErrExists), ctx.Err() != nil:
		return Verdict{}, err
	case err != nil:
		return s.failed("create a user", err), nil
	}
	s.recent.add(&u, password)
	s.log.Info("user created at login", "key", s.key, "user", u.ID())
	return Verdict{Opinion: Accepted, User: &User{ID: u.ID(), ClientData: u.ClientData, ServerData: u.ServerData}}, nil
}

// unfit says why nobody is made a user of that name with that password.
func unfit(name, password string) string {
	switch err := users.ValidName(name); {
	case err != nil:
		return "username: " + err.Error()
	case reserved(name), isAnonymous(name):
		return "username: belongs to the server"
	case password == "":
		return "password: is empty"
	}
	return ""
}

// maxRemembered is how many passwords are remembered; each takes about a hundred bytes.
const maxRemembered = 1 << 16

// remembered knows the passwords that were last found right, as an HMAC with a key of
// this run, each with the hash that it matched: a changed password is not remembered.
// Clients that come back after a restart of something in between need not wait behind
// those who log in for the first time, be they many or an attack.
type remembered struct {
	key  [sha256.Size]byte
	mu   sync.Mutex
	sums map[string][sha256.Size]byte // by user id; guarded by mu
}

func (r *remembered) init() error {
	r.sums = make(map[string][sha256.Size]byte)
	if _, err := rand.Read(r.key[:]); err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	return nil
}

func (r *remembered) sum(u *users.User, password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, r.key[:])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(u.Password))))
	h.Write([]byte(u.Password))
	h.Write([]byte(password))
	h.Sum(sum[:0])
	return sum
}

func (r *remembered) has(u *users.User, password string) bool {
	sum := r.sum(u, password)
	r.mu.Lock()
	defer r.mu.Unlock()
	old, ok := r.sums[u.ID()]
	return ok && hmac.Equal(old[:], sum[:])
}

func (r *remembered) add(u *users.User, password string) {
	sum := r.sum(u, password)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sums) >= maxRemembered {
		for id := range r.sums { // any: maps begin anywhere
			delete(r.sums, id)
			break
		}
	}
	r.sums[u.ID()] = sum
}
