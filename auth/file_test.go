package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"hadal/auth/users"
	"hadal/auth/vault"
)

func ptr[T any](v T) *T { return &v }

// newTest makes a chain of one file strategy.
func newTest(t *testing.T, o Options) Authenticator {
	t.Helper()
	a, err := New([]Config{{Type: "file", Options: o}}, false, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestFileStrategyAnswers(t *testing.T) {
	users := map[string]Entry{
		"egon":  {Password: "pw", ClientData: map[string]any{"favourite": "red"}, ServerData: map[string]any{"role": "admin"}},
		"plain": {Password: "pw"},
	}
	const missing = `{"error":"missing or no string: `
	for _, c := range []struct {
		name, params string
		reported     Verdict // User is compared by value
		silent       Opinion // when refusals are not reported
	}{
		{"right password", `{"username":"egon","password":"pw"}`,
			Verdict{Opinion: Accepted, User: &User{ID: "egon", ServerData: `{"role":"admin"}`, ClientData: `{"favourite":"red"}`}}, Accepted},
		{"a user without data is sent null", `{"username":"plain","password":"pw"}`,
			Verdict{Opinion: Accepted, User: &User{ID: "plain", ServerData: "null", ClientData: "null"}}, Accepted},
		{"wrong password", `{"username":"egon","password":"pW"}`, Verdict{Opinion: Refused}, NoOpinion},
		{"empty password", `{"username":"egon","password":""}`, Verdict{Opinion: Refused}, NoOpinion},
		{"unknown user", `{"username":"nobody","password":"pw"}`, Verdict{}, NoOpinion},
		{"a name from JavaScript's prototype", `{"username":"constructor","password":"pw"}`, Verdict{}, NoOpinion},
		{"another name from there", `{"username":"__proto__","password":"pw"}`, Verdict{}, NoOpinion},
		{"empty name", `{"username":"","password":"pw"}`, Verdict{}, NoOpinion},
		{"no parameters", `{}`, Verdict{Opinion: Refused, Reason: missing + `username, password"}`}, NoOpinion},
		{"no username", `{"password":"pw"}`, Verdict{Opinion: Refused, Reason: missing + `username"}`}, NoOpinion},
		{"password is a number", `{"username":"egon","password":1}`, Verdict{Opinion: Refused, Reason: missing + `password"}`}, NoOpinion},
		{"username is null", `{"username":null,"password":"pw"}`, Verdict{Opinion: Refused, Reason: missing + `username"}`}, NoOpinion},
		{"an array", `["egon","pw"]`, Verdict{Opinion: Refused, Reason: missing + `username, password"}`}, NoOpinion},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, report := range []bool{true, false} {
				f, err := newFile("auth[0].options", &Options{Users: users}, report, NewTurnstile())
				if err != nil {
					t.Fatal(err)
				}
				got, err := f.Authenticate(t.Context(), &Attempt{Params: c.params})
				if err != nil {
					t.Fatal(err)
				}
				want := c.reported
				if !report && want.Opinion != Accepted {
					want = Verdict{Opinion: c.silent}
				}
				if (got.User == nil) != (want.User == nil) || got.User != nil && *got.User != *want.User {
					t.Errorf("report %v: got user %+v, want %+v", report, got.User, want.User)
				}
				got.User, want.User = nil, nil
				if got != want {
					t.Errorf("report %v: got %+v, want %+v", report, got, want)
				}
			}
		})
	}
}

func TestAFileStrategyAloneRefusesUnknownUsers(t *testing.T) {
	a := newTest(t, Options{Users: map[string]Entry{"egon": {Password: "pw"}}, ReportInvalidParameters: ptr(false)})
	for _, params := range []string{`{"username":"nobody","password":"pw"}`, `{"username":"egon","password":"no"}`, `{}`} {
		if v, err := a.Authenticate(t.Context(), &Attempt{Params: params}); v.Opinion != Refused || err != nil {
			t.Errorf("%s: got %+v, %v, want refused", params, v, err)
		}
	}
}

func TestUsersFileWithEveryKindOfPassword(t *testing.T) {
	a := newTest(t, Options{Path: "testdata/users.yml"})
	v, err := a.Authenticate(t.Context(), &Attempt{Params: `{"username":"egon","password":"in the clear"}`})
	if err != nil || v.Opinion != Accepted {
		t.Fatalf("got %+v, %v, want accepted", v, err)
	}
	if got, want := v.User.ClientData, `{"favourite":"red","zoo":[1,2.5,null],"<&>":true}`; got != want {
		t.Errorf("client data %s, want %s", got, want)
	}
	if got, want := v.User.ServerData, `{"role":"admin"}`; got != want {
		t.Errorf("server data %s, want %s", got, want)
	}
	for _, wrong := range []string{"in the clear ", "x"} {
		v, err := a.Authenticate(t.Context(), &Attempt{Params: `{"username":"peter","password":"` + wrong + `"}`})
		if err != nil || v.Opinion != Refused {
			t.Errorf("peter with %q: got %+v, %v, want refused", wrong, v, err)
		}
	}
}

func TestDeepstreamsHashedUsersLogIn(t *testing.T) {
	for _, c := range stored {
		a := newTest(t, Options{
			Users: map[string]Entry{"u": {Password: c.key + salt}},
			Hash:  c.digest.Name, Iterations: c.digest.Iterations, KeyLength: c.digest.KeyLength,
		})
		for params, want := range map[string]Opinion{
			`{"username":"u","password":"pässword"}`:           Accepted,
			`{"username":"u","password":"nope"}`:               Refused,
			`{"username":"constructor","password":"pässword"}`: Refused,
		} {
			if v, err := a.Authenticate(t.Context(), &Attempt{Params: params}); v.Opinion != want || err != nil {
				t.Errorf("%+v %s: got %+v, %v, want opinion %d", c.digest, params, v, err, want)
			}
		}
	}
}

func TestUnknownUsersCostWhatWrongPasswordsCost(t *testing.T) {
	users := make(map[string]Entry)
	for name, cost := range map[string]int{"bcrypt": 5, "cheaper": 4} {
		hash, err := bcrypt.GenerateFromPassword([]byte("pw"), cost)
		if err != nil {
			t.Fatal(err)
		}
		users[name] = Entry{Password: string(hash)}
	}
	users["clear"], users["argon2id"] = Entry{Password: "clear"}, Entry{Password: mustHash(t, "pw")}
	f, err := newFile("k", &Options{Users: users}, true, NewTurnstile())
	if err != nil {
		t.Fatal(err)
	}
	var list []secret
	var counts []*counted
	for _, s := range f.decoys.list {
		c := &counted{secret: s}
		list, counts = append(list, c), append(counts, c)
		if s.kind() == kindBcrypt && work(s) != 5 {
			t.Errorf("the decoy of bcrypt has the cost %d, want that of the dearest", work(s))
		}
	}
	if len(list) != 2 {
		t.Fatalf("there are %d decoys, want bcrypt and argon2id", len(list))
	}
	f.decoys.list = list
	for name, want := range map[string]int{"nobody": 2, "clear": 2, "bcrypt": 1, "argon2id": 1} { // and their own
		counts[0].checks, counts[1].checks = 0, 0
		if v, err := f.Authenticate(t.Context(), &Attempt{Params: `{"username":"` + name + `","password":"wrong"}`}); err != nil || v.Opinion == Accepted {
			t.Fatalf("%s: %+v, %v", name, v, err)
		}
		if got := counts[0].checks + counts[1].checks; got != want {
			t.Errorf("%s: %d decoys were checked, want %d", name, got, want)
		}
	}
}

func TestALoginThatWaitsForItsTurnEndsWithItsContext(t *testing.T) {
	f, err := newFile("k", &Options{Users: map[string]Entry{"u": {Password: stored[0].key + salt}},
		Hash: "md5", Iterations: 100, KeyLength: 32}, true, NewTurnstile())
	if err != nil {
		t.Fatal(err)
	}
	f.turns.take(heavy) // every place is taken
	gone := errors.New("client gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	a := &Attempt{Params: `{"username":"u","password":"pässword"}`}
	if v, err := f.Authenticate(ctx, a); v.Opinion == Accepted || !errors.Is(err, gone) {
		t.Errorf("got %+v, %v, want the reason the context ended", v, err)
	}
	f.turns.leave(netip.Addr{}, heavy, true) // a place is free again
	if v, err := f.Authenticate(t.Context(), a); v.Opinion != Accepted || err != nil {
		t.Errorf("with a free place: got %+v, %v, want accepted", v, err)
	}
	if f.turns.slow != 0 {
		t.Errorf("%d checks are said to run after the login", f.turns.slow)
	}
}

func TestAPasswordThatWasRightNeedsNoTurnTheNextTime(t *testing.T) {
	f, err := newFile("k", &Options{Users: map[string]Entry{"u": {Password: stored[0].key + salt}},
		Hash: "md5", Iterations: 100, KeyLength: 32}, true, NewTurnstile())
	if err != nil {
		t.Fatal(err)
	}
	login := func(password string, within time.Duration) (Verdict, error) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		return f.Authenticate(ctx, &Attempt{Params: `{"username":"u","password":"` + password + `"}`, RemoteAddr: "10.0.0.1"})
	}
	const soon, ever = 20 * time.Millisecond, time.Minute
	if v, err := login("pässword", ever); v.Opinion != Accepted {
		t.Fatalf("got %+v, %v, want accepted", v, err)
	}
	f.turns.take(heavy) // an attack
	if v, err := login("pässword", ever); v.Opinion != Accepted {
		t.Errorf("the right password again: got %+v, %v, want accepted at once", v, err)
	}
	if _, err := login("wrong", soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wrong one: %v, want that it waits", err)
	}
	f.turns.lines[networkOf("10.0.0.1")].failed = failBurst + 100*failRate // for longer than the test takes
	if _, err := login("pässword", soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the right one from a slowed address: %v, want that it waits", err)
	}
}

func TestUsersOfAnotherStrategyAreNoGuesses(t *testing.T) {
	a, err := New([]Config{{Type: "file", Options: Options{
		Users: map[string]Entry{"ada": {Password: "pw"}}, ReportInvalidParameters: ptr(true),
	}}, {Type: "none"}}, false, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 3 * failBurst {
		v, err := a.Authenticate(t.Context(), &Attempt{Params: `{"username":"bob","password":"x"}`, RemoteAddr: "10.0.0.1"})
		if err != nil || v.Opinion != Accepted {
			t.Fatalf("got %+v, %v, want accepted", v, err)
		}
	}
	if took := time.Since(began); took > failBurst/failRate*time.Second {
		t.Errorf("%d logins took %v: they were slowed", 3*failBurst, took)
	}
}

// A strategy that takes tokens only knows nobody by a name, so that a name that is made up
// counts as a guess before it, too.
func TestNamesThatNobodyKnowsAreGuesses(t *testing.T) {
	file := Config{Type: "file", Options: Options{Users: map[string]Entry{"ada": {Password: "pw"}}}}
	storage := Config{Type: "storage"}
	jwt := Config{Type: "jwt", Options: Options{Keys: []JWTKey{{Alg: "HS256", Secret: strings.Repeat("k", 32)}}}}
	hook := Config{Type: "http", Options: Options{
		EndpointURL: "http://127.0.0.1:1", PermittedStatusCodes: []int{200}, RetryStatusCodes: []int{}, RequestTimeout: time.Second,
		RetryAttempts: ptr(0), RetryInterval: ptr(time.Second),
	}}
	for _, c := range []struct {
		list  []Config
		guess []bool // of the first ones, whether a name that it does not know is one
	}{
		{[]Config{file, jwt}, []bool{true}},
		{[]Config{storage, jwt}, []bool{true}},
		{[]Config{file, storage, jwt}, []bool{false, true}},
		{[]Config{storage, file, jwt}, []bool{false, true}},
		{[]Config{file, jwt, hook}, []bool{false}},
		{[]Config{storage, jwt, hook}, []bool{false}},
	} {
		v, turns := vault.NewMemory(), NewTurnstile()
		a, err := New(c.list, false, Deps{Vault: v, Users: users.NewStores(v), Turnstile: turns})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range c.guess {
			from := fmt.Sprintf("192.0.2.%d", i)
			got, err := a.(strategies).Chain[i].Authenticate(t.Context(), &Attempt{Params: `{"username":"bob","password":"x"}`, RemoteAddr: from})
			if err != nil || got.Opinion != NoOpinion {
				t.Fatalf("got %+v, %v, want no opinion", got, err)
			}
			if counted := turns.lines[networkOf(from)].wrong > 0; counted != want {
				t.Errorf("%s, strategy %d: counted as a guess %v, want %v", typesOf(c.list), i, counted, want)
			}
		}
	}
}

func typesOf(list []Config) (types []string) {
	for _, c := range list {
		types = append(types, c.Type)
	}
	return types
}

func TestGuessingAPasswordLocksNobodyElseOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := newFile("k", &Options{Users: map[string]Entry{"ada": {Password: "pw"}}}, true, NewTurnstile())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for range 3 * failBurst {
			v, err := f.Authenticate(t.Context(), &Attempt{Params: `{"username":"ada","password":"guess"}`, RemoteAddr: "10.0.0.1"})
			if err != nil || v.Opinion != Refused {
				t.Fatalf("got %+v, %v, want refused", v, err)
			}
		}
		if took, want := time.Since(began), 2*failBurst/failRate*time.Second; took < want-time.Second || took > want+time.Second {
			t.Errorf("%d guesses took %v, want %v", 3*failBurst, took, want)
		}
		began = time.Now()
		v, err := f.Authenticate(t.Context(), &Attempt{Params: `{"username":"ada","password":"pw"}`, RemoteAddr: "10.0.0.2"})
		if err != nil || v.Opinion != Accepted || time.Since(began) > 0 {
			t.Errorf("ada herself: %+v, %v after %v, want accepted at once", v, err, time.Since(began))
		}
	})
}

func TestMistakesInTheAuthListNameTheirKey(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := map[string]Entry{"u": {Password: "pw"}}
	file := func(o Options) []Config { return []Config{{Type: "file", Options: o}} }
	for _, c := range []struct {
		name string
		cfgs []Config
		want []string // parts of the error
	}{
		{"no strategy", nil, []string{"auth: the list is empty"}},
		{"no type", []Config{{}}, []string{"auth[0].type: is missing"}},
		{"unknown types, all of them", []Config{{Type: "htpp"}, {Type: "none"}, {Type: "ldap"}},
			[]string{`auth[0].type: there is no strategy "htpp"`, `auth[2].type: there is no strategy "ldap"`}},
		{"no users", file(Options{}), []string{"auth[0].options.users: is empty"}},
		{"users twice", file(Options{Users: one, Path: "x"}), []string{"auth[0].options.path: users is set as well"}},
		{"missing file", file(Options{Path: filepath.Join(dir, "none.yml")}), []string{"auth[0].options.path: ", "none.yml"}},
		{"empty file", file(Options{Path: write("empty.yml", "# nobody\n")}), []string{"auth[0].options.path: ", "has no users"}},
		{"broken file", file(Options{Path: write("broken.yml", "a: {password: x\n")}), []string{"auth[0].options.path: ", "broken.yml"}},
		{"user named twice", file(Options{Path: write("twice.yml", "a: {password: x}\na: {password: y}\n")}),
			[]string{"twice.yml", `"a" already defined`}},
		{"a number for a password", file(Options{Path: write("number.yml", "a: {password: 0123}\n")}), []string{"number.yml", "put it in quotes"}},
		{"misspelt key", file(Options{Path: write("misspelt.yml", "a: {password: x, serverdata: {}}\n")}), []string{"misspelt.yml", "unknown key serverdata"}},
		{"no password", file(Options{Path: write("nopw.yml", "a: {clientData: 1}\nb:\n")}),
			[]string{`nopw.yml: user "a": has no password`, `user "b": has no password`}},
		{"unknown digest, no numbers", file(Options{Users: one, Hash: "md4"}),
			[]string{`auth[0].options.hash: there is no digest "md4"`, "auth[0].options.iterations: 0", "auth[0].options.keyLength: 0"}},
		{"numbers without digest", file(Options{Users: one, Iterations: 5}), []string{"auth[0].options.hash: is missing"}},
		{"clear text in a hashed file", file(Options{Users: one, Hash: "md5", Iterations: 1, KeyLength: 32}),
			[]string{`auth[0].options.users: user "u": password: is no md5 hash`}},
		{"anonymous user", file(Options{Users: map[string]Entry{"open": {Password: "x"}, "OPEN": {Password: "x"}}}),
			[]string{`user "open": open and OPEN are the names`, `user "OPEN": `}},
		{"reserved user", file(Options{Users: map[string]Entry{"hadal/root": {Password: "x"}}}), []string{"belong to the server"}},
		{"user without a name", file(Options{Users: map[string]Entry{"": {Password: "x"}}}), []string{"has no name"}},
		{"data that is no JSON", file(Options{Users: map[string]Entry{"a": {Password: "x", ClientData: func() {}}}}),
			[]string{"clientData: cannot be written as JSON"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.cfgs, false, Deps{})
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
		})
	}
}

func TestAChainThatForgivesWrongPasswordsIsRefused(t *testing.T) {
	users := map[string]Entry{"u": {Password: "pw"}}
	file, strict := Config{Type: "file", Options: Options{Users: users}},
		Config{Type: "file", Options: Options{Users: users, ReportInvalidParameters: ptr(true)}}
	open := Config{Type: "none"}
	for _, c := range []struct {
		name string
		cfgs []Config
		want string // part of the error; none when empty
	}{
		{"file alone", []Config{file}, ""},
		{"two files", []Config{file, file}, ""},
		{"file, then none", []Config{file, open}, "auth[1]: after wrong credentials in auth[0]"},
		{"file that reports, then none", []Config{strict, open}, ""},
		{"one of two files does not report", []Config{strict, file, open}, "auth[2]: after wrong credentials in auth[1]"},
		{"none, then file", []Config{open, strict}, "auth[1]: is never asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(c.cfgs, false, Deps{})
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v, want no error", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "allowOpenFallback: true")):
				t.Errorf("got %v, want an error with %q and its cure", err, c.want)
			}
			if _, err := New(c.cfgs, true, Deps{}); err != nil {
				t.Errorf("allowed by the operator, and still: %v", err)
			}
		})
	}
}

func TestAllowedFallbackLetsTheNextStrategyDecide(t *testing.T) {
	a, err := New([]Config{{Type: "file", Options: Options{Users: map[string]Entry{"u": {Password: "pw"}}}}, {Type: "none"}}, true, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := a.Authenticate(t.Context(), &Attempt{Params: `{"username":"u","password":"wrong"}`})
	if err != nil || v.Opinion != Accepted || v.User.ClientData != "" {
		t.Errorf("got %+v, %v, want u without data, from none", v, err)
	}
}

func FuzzAnyUsersFileIsReadOrRefused(f *testing.F) {
	text, err := os.ReadFile("testdata/users.yml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"a":{"password":"x","clientData":{"b":[1,{"c":null}]}}}`))
	f.Add([]byte("a: &x {password: x}\nb: *x\nc: {<<: *x}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := parseUsers(text)
		if err != nil {
			return
		}
		for name, e := range users {
			if a, err := newAccount(name, e, Digest{}); err == nil && a.user.ID != name {
				t.Errorf("user %q became %q", name, a.user.ID)
			}
		}
	})
}
