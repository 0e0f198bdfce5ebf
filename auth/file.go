package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/goccy/go-yaml"
	"github.com/tidwall/gjson"
)

// file knows its users by name and password from the configuration or a file
// (spec 06 §5.2). It never changes once made: a reload makes another one.
type file struct {
	users map[string]account
	// decoys are secrets of its users.
	decoys decoys
	// report makes a wrong password or a missing parameter a refusal.
	report bool
	turns  *Turnstile
	// last says that no other strategy behind this one may know a name that it does not
	// know, so that such a name is a wrong guess.
	last bool
	// key is that of the remembered passwords, made up for this run.
	key [sha256.Size]byte
}

// account is one user, ready to log in.
type account struct {
	secret secret
	user   *User // shared by all logins of this user
	// recent is the HMAC of the password that was last found right, if it took
	// long. With it a client that comes back need not wait behind those who try to
	// log in for the first time, be they many or an attack.
	recent *atomic.Pointer[[sha256.Size]byte]
}

// newFile checks the options, each mistake opening with key, and reads the
// users file if they name one.
func newFile(key string, o *Options, report bool, turns *Turnstile) (*file, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(key+"."+format, args...)) }

	digest, err := digestOf(key, o)
	if err != nil {
		errs = append(errs, err)
	}
	users, from := o.Users, "users"
	switch {
	case o.Path != "" && len(o.Users) > 0:
		fail("path: users is set as well: keep one of them")
	case o.Path != "":
		from = "path: " + o.Path
		var err error
		if users, err = readUsers(o.Path); err != nil {
			fail("path: %w", err)
		} else if len(users) == 0 {
			fail("path: %s has no users", o.Path)
		}
	case len(o.Users) == 0:
		fail("users: is empty: add a user, or name a file with path")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	f := &file{users: make(map[string]account, len(users)), report: report, last: true, turns: turns}
	if _, err := rand.Read(f.key[:]); err != nil {
		return nil, fmt.Errorf("%s: key: %w", key, err)
	}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		a, err := newAccount(name, users[name], digest)
		if err != nil {
			fail("%s: user %q: %w", from, name, err)
			continue
		}
		f.users[name] = a
		f.decoys.add(a.secret)
	}
	return f, errors.Join(errs...)
}

func newAccount(name string, e Entry, digest Digest) (account, error) {
	switch {
	case name == "":
		return account{}, errors.New("has no name")
	case CheckName(name) != nil:
		return account{}, CheckName(name)
	case e.Password == "":
		return account{}, errors.New("has no password: every user needs one, as a string")
	}
	secret, err := parseSecret(e.Password, digest)
	if err != nil {
		return account{}, fmt.Errorf("password: %w", err)
	}
	// Both are null when absent, and the client is sent that null (spec 06 §5.2).
	clientData, err := jsonText(e.ClientData)
	if err != nil {
		return account{}, fmt.Errorf("clientData: %w", err)
	}
	serverData, err := jsonText(e.ServerData)
	if err != nil {
		return account{}, fmt.Errorf("serverData: %w", err)
	}
	return account{secret: secret, recent: new(atomic.Pointer[[sha256.Size]byte]), user: &User{ID: name, ClientData: clientData, ServerData: serverData}}, nil
}

// readUsers reads a users file, YAML or JSON.
func readUsers(path string) (map[string]Entry, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	users, err := parseUsers(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return users, nil
}

// parseUsers reads the text of a users file. Equal names are an error.
func parseUsers(text []byte) (map[string]Entry, error) {
	var users map[string]Entry
	if err := yaml.UnmarshalWithOptions(text, &users, yaml.UseOrderedMap()); err != nil {
		return nil, err
	}
	return users, nil
}

var (
	_ guarded  = (*file)(nil)
	_ follower = (*file)(nil)
)

func (f *file) reports() bool { return f.report }

func (f *file) followed(byNames bool) { f.last = !byNames }

// digestOf is the PBKDF2 setting of options, or what is wrong with it, each mistake
// opening with key.
func digestOf(key string, o *Options) (Digest, error) {
	d := o.Digest()
	switch {
	case d.Name != "":
		return d, d.check(key + ".")
	case d.Iterations != 0 || d.KeyLength != 0:
		return d, fmt.Errorf("%s.hash: is missing, but iterations or keyLength is set: name the digest, or remove them", key)
	}
	return d, nil
}

// credentials are name and password of a login, or the reason of the refusal when one of
// them is missing.
func credentials(params string) (username, password, missing string) {
	u, p := param(params, "username"), param(params, "password")
	var absent []string
	if u.Type != gjson.String {
		absent = append(absent, "username")
	}
	if p.Type != gjson.String {
		absent = append(absent, "password")
	}
	if len(absent) > 0 {
		return "", "", reason("missing or no string: " + strings.Join(absent, ", "))
	}
	return u.Str, p.Str, ""
}

// Authenticate implements Authenticator.
func (f *file) Authenticate(ctx context.Context, a *Attempt) (Verdict, error) {
	username, password, missing := credentials(a.Params)
	if missing != "" {
		return f.refuse(missing), nil
	}
	acc, known := f.users[username]
	cost := f.decoys.cost(acc.secret)
	if known && f.recalls(acc, password) && !f.turns.slowed(networkOf(a.RemoteAddr)) {
		return Verdict{Opinion: Accepted, User: acc.user}, nil
	}
	right := false
	if err := f.turns.Check(ctx, a.RemoteAddr, cost, func() bool {
		if right = known && acc.secret.matches(password); !right {
			f.decoys.waste(password, acc.secret)
		}
		return right || !known && !f.last
	}); err != nil {
		return Verdict{}, err
	}
	if right && cost.slow() {
		mac := f.mac(password)
		acc.recent.Store(&mac)
	}
	switch {
	case !known:
		return Verdict{}, nil
	case !right:
		return f.refuse(""), nil
	}
	f.turns.Vouch(a.RemoteAddr)
	return Verdict{Opinion: Accepted, User: acc.user}, nil
}

// recalls says whether password is the one that was last found right.
func (f *file) recalls(a account, password string) bool {
	recent := a.recent.Load()
	if recent == nil {
		return false
	}
	mac := f.mac(password)
	return hmac.Equal(mac[:], recent[:])
}

// mac is what is remembered of a password. Only who can read our memory, where
// passwords come by anyway, could guess from it faster than from the users file.
func (f *file) mac(password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, f.key[:])
	h.Write([]byte(password))
	h.Sum(sum[:0])
	return sum
}

// refuse is a refusal where the strategy is to report one, else no opinion.
func (f *file) refuse(reason string) Verdict {
	if !f.report {
		return Verdict{}
	}
	return Verdict{Opinion: Refused, Reason: reason}
}
