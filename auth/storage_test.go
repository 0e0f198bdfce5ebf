package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
	"golang.org/x/crypto/bcrypt"

	"hadal/auth/users"
	"hadal/auth/vault"
)

// brokenStore fails as said, else is the store inside.
type brokenStore struct {
	users.Store
	find, create, update error
	meanwhile            func() // called before a Create or Update
}

func (b *brokenStore) Find(ctx context.Context, name string) (users.User, error) {
	if b.find != nil {
		return users.User{}, b.find
	}
	return b.Store.Find(ctx, name)
}

func (b *brokenStore) Create(ctx context.Context, u users.User) (users.User, error) {
	if b.meanwhile != nil {
		b.meanwhile()
	}
	if b.create != nil {
		return users.User{}, b.create
	}
	return b.Store.Create(ctx, u)
}

func (b *brokenStore) Update(ctx context.Context, u users.User) (users.User, error) {
	if b.meanwhile != nil {
		b.meanwhile()
	}
	if b.update != nil {
		return users.User{}, b.update
	}
	return b.Store.Update(ctx, u)
}

// bench is one storage strategy, its store, and what it wrote to the log.
type bench struct {
	*storage
	store *brokenStore
	log   *bytes.Buffer
}

var oldDigest = Options{Hash: "md5", Iterations: 100, KeyLength: 32}

func newBench(t *testing.T, o Options, report bool) *bench {
	t.Helper()
	log := new(bytes.Buffer)
	v := vault.NewMemory()
	s, err := newStorage("auth[0].options", &o, report, Deps{
		Vault: v, Users: users.NewStores(v), Turnstile: NewTurnstile(), Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	store := &brokenStore{Store: s.store}
	s.store = store
	return &bench{s, store, log}
}

// put stores a user with that password as it is stored.
func (b *bench) put(t *testing.T, name, stored string) users.User {
	t.Helper()
	u, err := users.New(name, stored)
	if err == nil {
		u, err = b.store.Store.Create(t.Context(), u)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (b *bench) login(t *testing.T, name, password string) Verdict {
	t.Helper()
	return b.try(t, fmt.Sprintf(`{"username":%q,"password":%q}`, name, password))
}

func (b *bench) try(t *testing.T, params string) Verdict {
	t.Helper()
	v, err := b.Authenticate(t.Context(), &Attempt{Params: params, RemoteAddr: "10.0.0.1"})
	if err != nil {
		t.Fatalf("%s: %v", params, err)
	}
	return v
}

func mustHash(t *testing.T, password string) string {
	t.Helper()
	hash, err := HashArgon2id(password)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// The table of spec 06 §5.3.
func TestStorageAnswersAsDeepstreamDoes(t *testing.T) {
	hash := mustHash(t, "right")
	down := errors.New("secret-host:5432 is down")
	for _, c := range []struct {
		name, params string
		options      Options
		find, create error
		report       Opinion // with reportInvalidParameters
		silent       Opinion // without
		reason       string  // of the refusal
	}{
		{name: "no username", params: `{"password":"right"}`, report: Refused, silent: NoOpinion,
			reason: `{"error":"missing or no string: username"}`},
		{name: "a number for a password", params: `{"username":"ada","password":5}`, report: Refused, silent: NoOpinion,
			reason: `{"error":"missing or no string: password"}`},
		{name: "read error", params: `{"username":"ada","password":"right"}`, find: down, report: Refused, silent: Refused, reason: unavailable},
		{name: "unknown", params: `{"username":"bob","password":"right"}`, report: NoOpinion, silent: NoOpinion},
		{name: "unknown, of the prototype", params: `{"username":"constructor","password":"right"}`, report: NoOpinion, silent: NoOpinion},
		{name: "a name that nobody can have", params: `{"username":"a\u0000","password":"right"}`, report: NoOpinion, silent: NoOpinion},
		{name: "created", params: `{"username":"bob","password":"right"}`, options: Options{CreateUser: true}, report: Accepted, silent: Accepted},
		{name: "write error while creating", params: `{"username":"bob","password":"right"}`, options: Options{CreateUser: true}, create: down,
			report: Refused, silent: Refused, reason: unavailable},
		{name: "not created without a password", params: `{"username":"bob","password":""}`, options: Options{CreateUser: true},
			report: Refused, silent: NoOpinion, reason: `{"error":"password: is empty"}`},
		{name: "not created without a name", params: `{"username":"","password":"x"}`, options: Options{CreateUser: true},
			report: Refused, silent: NoOpinion, reason: `{"error":"username: the name is empty"}`},
		{name: "not created with the server's name", params: `{"username":"hadal/x","password":"x"}`, options: Options{CreateUser: true},
			report: Refused, silent: NoOpinion, reason: `{"error":"username: belongs to the server"}`},
		{name: "wrong password", params: `{"username":"ada","password":"wrong"}`, report: Refused, silent: NoOpinion},
		{name: "right", params: `{"username":"ada","password":"right"}`, report: Accepted, silent: Accepted},
	} {
		for _, report := range []bool{true, false} {
			b := newBench(t, c.options, report)
			ada := b.put(t, "ada", hash)
			b.store.find, b.store.create = c.find, c.create
			want, reason := c.report, c.reason
			if !report {
				want = c.silent
			}
			if want != Refused {
				reason = ""
			}
			v := b.try(t, c.params)
			if v.Opinion != want || v.Reason != reason {
				t.Errorf("%s, report %v: got %+v, want opinion %d, reason %s", c.name, report, v, want, reason)
			}
			if v.Uncounted != (reason == unavailable) {
				t.Errorf("%s: Uncounted is %v; only what is not the client's fault is", c.name, v.Uncounted)
			}
			if failed := c.find != nil || c.create != nil; strings.Contains(b.log.String(), "is down") != failed {
				t.Errorf("%s: the log has %q", c.name, b.log)
			}
			if want != Accepted {
				continue
			}
			name := gjson.Get(c.params, "username").Str
			u, err := b.store.Find(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if got := *v.User; got.ID != u.ID() || got.ID == name || got.ClientData != `{"id":"`+u.ID()+`"}` ||
				!gjson.Get(got.ServerData, "created").Exists() || name == "ada" && got.ID != ada.ID() {
				t.Errorf("%s: got %+v, want the id and the data of %+v", c.name, got, u)
			}
			if !strings.HasPrefix(u.Password, "$argon2id$") {
				t.Errorf("%s: stored %q, want an argon2id hash", c.name, u.Password)
			}
		}
	}
}

func TestOldHashesVerifyAndAreRenewed(t *testing.T) {
	digest := oldDigest
	bcrypted, err := HashBcrypt("pässword")
	if err != nil {
		t.Fatal(err)
	}
	for name, old := range map[string]string{"deepstream": stored[0].key + salt, "bcrypt": bcrypted} {
		b := newBench(t, digest, true)
		u := b.put(t, "ada", old)
		if v := b.login(t, "ada", "wrong"); v.Opinion != Refused {
			t.Errorf("%s: a wrong password: got %+v, want a refusal", name, v)
		}
		if v := b.login(t, "ada", "pässword"); v.Opinion != Accepted || v.User.ID != u.ID() {
			t.Errorf("%s: got %+v, want accepted", name, v)
		}
		now, err := b.store.Find(t.Context(), "ada")
		if err != nil || !strings.HasPrefix(now.Password, "$argon2id$") || now.ClientData != u.ClientData || now.ServerData != u.ServerData {
			t.Errorf("%s: after the login: %+v, %v, want a new hash and all else as it was", name, now, err)
		}
		b.recent.sums = map[string][32]byte{} // what is remembered is no proof
		if v := b.login(t, "ada", "pässword"); v.Opinion != Accepted {
			t.Errorf("%s: with the new hash: got %+v, want accepted", name, v)
		}
		again, err := b.store.Find(t.Context(), "ada")
		if err != nil || again.Revision != now.Revision {
			t.Errorf("%s: a new hash was written again: %v", name, err)
		}
	}
}

func TestRenewingAHashUndoesNoChange(t *testing.T) {
	digest := oldDigest
	b := newBench(t, digest, true)
	b.put(t, "ada", stored[0].key+salt)
	newer := mustHash(t, "newer")
	b.store.meanwhile = func() {
		b.store.meanwhile = nil
		if _, err := users.Change(t.Context(), b.store.Store, "ada", func(u *users.User) error { u.Password = newer; return nil }); err != nil {
			t.Error(err)
		}
	}
	if v := b.login(t, "ada", "pässword"); v.Opinion != Accepted {
		t.Errorf("got %+v, want accepted: the password was right when it was looked at", v)
	}
	if v := b.login(t, "ada", "pässword"); v.Opinion != Refused {
		t.Errorf("the old password again: got %+v, want a refusal", v)
	}
	if v := b.login(t, "ada", "newer"); v.Opinion != Accepted {
		t.Errorf("the new one: got %+v, want accepted", v)
	}
	// A store that cannot be written to keeps nobody out.
	b = newBench(t, digest, true)
	b.put(t, "ada", stored[0].key+salt)
	b.store.update = errors.New("read only")
	if v := b.login(t, "ada", "pässword"); v.Opinion != Accepted || !strings.Contains(b.log.String(), "read only") {
		t.Errorf("got %+v, log %q, want accepted and a warning", v, b.log)
	}
}

func TestWhatCannotBeVerifiedLetsNobodyIn(t *testing.T) {
	for name, stored := range map[string]string{
		"clear text":              "right",
		"a hash without a digest": stored[0].key + salt,
		"too much memory":         "$argon2id$v=19$m=99999999,t=2,p=1$c2FsdHNhbHRzYWx0$a2V5a2V5a2V5a2V5a2V5a2V5",
	} {
		b := newBench(t, Options{}, true)
		b.put(t, "ada", stored)
		for _, password := range []string{"right", stored} {
			if v := b.login(t, "ada", password); v.Opinion != Refused || v.Reason != unavailable {
				t.Errorf("%s: got %+v, want a refusal", name, v)
			}
		}
		if log := b.log.String(); !strings.Contains(log, "ada") || strings.Contains(log, stored) {
			t.Errorf("%s: the log has %q, want the user and not the password", name, log)
		}
	}
}

func TestARemovedOrChangedUserIsNotRemembered(t *testing.T) {
	b := newBench(t, Options{}, true)
	b.put(t, "ada", mustHash(t, "right"))
	b.login(t, "ada", "right")
	b.turns.take(heavy) // an attack
	if v := b.login(t, "ada", "right"); v.Opinion != Accepted {
		t.Errorf("got %+v, want accepted without a turn", v)
	}
	b.turns.give(heavy)
	if _, err := users.Change(t.Context(), b.store, "ada", func(u *users.User) error { u.Password = mustHash(t, "new"); return nil }); err != nil {
		t.Fatal(err)
	}
	if v := b.login(t, "ada", "right"); v.Opinion != Refused {
		t.Errorf("the password of before: got %+v, want a refusal", v)
	}
	if err := b.store.Remove(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	if v := b.login(t, "ada", "new"); v.Opinion != NoOpinion {
		t.Errorf("a removed user: got %+v, want no opinion", v)
	}
}

func TestUnknownNamesCostWhatWrongPasswordsCost(t *testing.T) {
	digest := oldDigest
	b := newBench(t, digest, true)
	old, fresh := &counted{secret: dummyOf(b.digest)}, &counted{secret: newDummy()}
	b.decoys.list = []secret{fresh, old}
	b.put(t, "old", stored[0].key+salt)
	b.put(t, "new", mustHash(t, "right"))
	for _, c := range []struct {
		name       string
		old, fresh int // dummies that are checked beside the user's own hash
	}{{"nobody", 1, 1}, {"a\x00", 1, 1}, {"old", 0, 1}, {"new", 1, 0}} {
		old.checks, fresh.checks = 0, 0
		b.login(t, c.name, "wrong")
		if old.checks != c.old || fresh.checks != c.fresh {
			t.Errorf("%q: %d old and %d new dummies were checked, want %d and %d", c.name, old.checks, fresh.checks, c.old, c.fresh)
		}
	}
}

// Users of bcrypt are not known before one comes.
func TestABcryptHashThatWasSeenIsCheckedForAllOthers(t *testing.T) {
	b := newBench(t, Options{}, true)
	b.dearest = 4
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), 4)
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, "usual", string(hash))
	b.put(t, "dear", strings.Replace(string(hash), "$04$", "$05$", 1))
	kinds := func() (list []secretKind) {
		for _, s := range b.decoys.list {
			list = append(list, s.kind())
		}
		return list
	}
	b.login(t, "dear", "wrong")
	b.login(t, "nobody", "wrong")
	if got := kinds(); !slices.Equal(got, []secretKind{kindArgon2id}) {
		t.Errorf("before a usual bcrypt hash was seen the decoys are %v, want argon2id", got)
	}
	b.login(t, "usual", "wrong")
	if got := kinds(); !slices.Equal(got, []secretKind{kindArgon2id, kindBcrypt}) {
		t.Errorf("after that they are %v, want argon2id and bcrypt", got)
	}
	seen := &counted{secret: b.decoys.list[1]}
	b.decoys.list[1] = seen
	b.login(t, "nobody", "wrong")
	if seen.checks != 1 {
		t.Errorf("for a name that nobody has it was checked %d times, want once", seen.checks)
	}
}

// counted counts checks.
type counted struct {
	secret
	checks int
}

func (c *counted) matches(string) bool {
	c.checks++
	return false
}

func TestTwoNodesThatCreateOneUserMakeOne(t *testing.T) {
	v := vault.NewMemory()
	var nodes []Authenticator
	for range 2 {
		a, err := New([]Config{{Type: "storage", Options: Options{CreateUser: true}}}, false, Deps{Vault: v})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, a)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted, refused := map[string]int{}, 0
	for i := range 8 {
		wg.Go(func() {
			got, err := nodes[i%2].Authenticate(t.Context(), &Attempt{Params: fmt.Sprintf(`{"username":"ada","password":"pw%d"}`, i/4), RemoteAddr: "10.0.0.1"})
			if err != nil {
				t.Errorf("login: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if got.Opinion == Accepted {
				accepted[got.User.ID]++
			} else {
				refused++
			}
		})
	}
	wg.Wait()
	// Whose password came first counts; the four with the other one are refused.
	if len(accepted) != 1 || refused != 4 {
		t.Errorf("logged in as %v, %d refused; want one user, and 4", accepted, refused)
	}
	if n, _ := v.Size(); n != 1 {
		t.Errorf("%d users are stored, want 1", n)
	}
}

func TestCreatingManyUsersSlowsAnAddress(t *testing.T) {
	b := newBench(t, Options{CreateUser: true}, true)
	b.login(t, "ada", "pw")
	if got := b.turns.lines[networkOf("10.0.0.1")].failed; got < 0.5 {
		t.Errorf("a created user counts %v, want about 1", got)
	}
}

func TestALoginMakesNoUserWhereTheVaultIsCrowded(t *testing.T) {
	v, log := vault.NewMemory(), new(bytes.Buffer)
	full := false
	deps := Deps{Vault: v, Log: slog.New(slog.NewTextHandler(log, nil)), Crowded: func(context.Context) bool { return full }}
	a, err := New([]Config{{Type: "storage", Options: Options{CreateUser: true}}, {Type: "none"}}, true, deps)
	if err != nil {
		t.Fatal(err)
	}
	login := func(name string) Verdict {
		got, err := a.Authenticate(t.Context(), &Attempt{Params: fmt.Sprintf(`{"username":%q,"password":"pw"}`, name), RemoteAddr: "10.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	login("ada")
	full = true
	if got := login("bob"); got.Opinion != Refused || got.Reason != unavailable {
		t.Errorf("a new name: %+v, want a refusal", got)
	}
	if n, _ := v.Size(); n != 1 {
		t.Errorf("%d users are stored, want the one of before", n)
	}
	if !strings.Contains(log.String(), "three quarters full") || strings.Contains(log.String(), "bob") {
		t.Errorf("the log does not say why, or says a name, which may be a password:\n%s", log)
	}
	if got := login("ada"); got.Opinion != Accepted {
		t.Errorf("a user that is there: %+v", got)
	}
	full = false
	if got := login("bob"); got.Opinion != Accepted {
		t.Errorf("when there is room again: %+v", got)
	}
	// A table elsewhere has nothing to do with it.
	o := Options{CreateUser: true, Backend: users.Postgres, ConnectionString: "postgres://localhost/x"}
	deps.Users, deps.Turnstile = users.NewStores(v), NewTurnstile()
	defer deps.Users.Close()
	if s, err := newStorage("auth[0].options", &o, true, deps); err != nil || s.crowded != nil {
		t.Errorf("newStorage of PostgreSQL: %v, or it asks how full the vault is", err)
	}
}

func TestAFailingStoreDoesNotHandOn(t *testing.T) {
	v := vault.NewSlot() // not open
	a, err := New([]Config{{Type: "storage"}, {Type: "none"}}, true, Deps{Vault: v})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Authenticate(t.Context(), &Attempt{Params: `{"username":"ada","password":"pw"}`})
	if got.Opinion != Refused || got.Reason != unavailable || err != nil {
		t.Errorf("got %+v, %v, want a refusal", got, err)
	}
}

func TestMistakesInStorageAreNamed(t *testing.T) {
	for _, c := range []struct {
		cfgs []Config
		want []string
	}{
		{[]Config{{Type: "storage", Options: Options{Hash: "md6", Backend: "mysql"}}},
			[]string{"auth[0].options.hash: ", "auth[0].options.iterations: ", "auth[0].options.keyLength: ", "auth[0].options.backend: "}},
		{[]Config{{Type: "storage", Options: Options{KeyLength: 5}}}, []string{"auth[0].options.hash: is missing"}},
		{[]Config{{Type: "storage", Options: Options{Backend: "postgres", Table: "a-b"}}},
			[]string{"auth[0].options.connectionString: is missing", "auth[0].options.table: "}},
		{[]Config{{Type: "storage"}, {Type: "none"}}, []string{"auth[1]: after wrong credentials in auth[0]"}},
		{[]Config{{Type: "none"}, {Type: "storage"}}, []string{"auth[1]: is never asked"}},
	} {
		_, err := New(c.cfgs, false, Deps{})
		for _, want := range c.want {
			if err == nil || !strings.Contains("\n"+err.Error(), "\n"+want) {
				t.Errorf("%+v: got %v, want a line that begins with %s", c.cfgs, err, want)
			}
		}
	}
}
