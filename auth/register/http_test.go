package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"hadal/auth"
	"hadal/auth/vault"
)

func TestAClientRegistersOnceAndLogsIn(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	s.registered("plugin", goodKey)
	if a := s.post("/register", "", pair{"plugin", otherKey}); a.status != http.StatusConflict || a.body["code"] != "CLIENT_EXISTS" {
		t.Errorf("the same id again is answered %d %s, want 409 CLIENT_EXISTS", a.status, a.raw)
	}
	before := time.Now()
	a := s.post("/login", "", pair{"plugin", goodKey})
	if a.status != http.StatusOK || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("login is answered %d %s, %v", a.status, a.raw, a.header)
	}
	ms, _ := a.body["expiresAt"].(float64)
	expires := time.UnixMilli(int64(ms))
	if least := before.Add(24 * time.Hour); expires.Before(least) || expires.After(least.Add(time.Minute)) {
		t.Errorf("the token ends at %v, want in 24 hours", expires)
	}
	if v := s.verdict(auth.Attempt{Token: a.body["bearerToken"].(string)}); v.Opinion != auth.Accepted || v.User.ID != "plugin" || v.User.Session == nil || !v.User.Session.Expires.Equal(expires) {
		t.Errorf("the token is %+v, want that it logs plugin in until then", v)
	}
}

func TestWrongIDsAndKeysAreRefusedWithAReason(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	for _, c := range []struct {
		name, body, want string // want is part of the detail
	}{
		{"no id", `{"authKey":"` + goodKey + `"}`, "clientID: is missing"},
		{"a long id", `{"clientID":"` + strings.Repeat("x", 257) + `","authKey":"` + goodKey + `"}`, "clientID: has 257 bytes"},
		{"an id that Basic cannot carry", `{"clientID":"a:b","authKey":"` + goodKey + `"}`, "clientID: has a colon"},
		{"an id with a line break", `{"clientID":"a\nb","authKey":"` + goodKey + `"}`, "clientID: has control characters"},
		{"the anonymous id", `{"clientID":"open","authKey":"` + goodKey + `"}`, "nobody can have"},
		{"its other form", `{"clientID":"OPEN","authKey":"` + goodKey + `"}`, "nobody can have"},
		{"a name of the server", `{"clientID":"hadal/x","authKey":"` + goodKey + `"}`, "nobody can have"},
		{"no key", `{"clientID":"a"}`, "authKey: is missing"},
		{"31 bytes", `{"clientID":"a","authKey":"` + strings.Repeat("k", 31) + `"}`, "authKey: has 31 bytes, at least 32 are needed"},
		{"31 bytes of 16 characters", `{"clientID":"a","authKey":"` + strings.Repeat("é", 15) + `k"}`, "authKey: has 31 bytes"},
		{"73 bytes", `{"clientID":"a","authKey":"` + strings.Repeat("k", 73) + `"}`, "authKey: has 73 bytes, at most 72 are possible"},
		{"73 bytes of 37 characters", `{"clientID":"a","authKey":"` + strings.Repeat("é", 36) + `k"}`, "authKey: has 73 bytes"},
		{"a key with a zero", `{"clientID":"a","authKey":"` + goodKey + `\u0000"}`, "authKey: has control characters"},
		{"an array", `[]`, "not of the right type"},
		{"a number", `{"clientID":5,"authKey":"` + goodKey + `"}`, "clientID: is not of the right type"},
		{"more keys", `{"clientID":"a","authKey":"` + goodKey + `","role":"admin"}`, "not one JSON object"},
		{"nothing", ``, "not one JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := s.post("/register", "", c.body)
			if detail, _ := a.body["detail"].(string); a.status != http.StatusBadRequest || !strings.Contains(detail, c.want) {
				t.Errorf("answered %d %s, want 400 with %q", a.status, a.raw, c.want)
			}
			if strings.Contains(a.raw, "kkkk") || strings.Contains(a.raw, goodKey) {
				t.Errorf("the key stands in the answer: %s", a.raw)
			}
		})
	}
	for i, key := range []string{strings.Repeat("k", 32), strings.Repeat("k", 72), strings.Repeat("é", 16), strings.Repeat("é", 36)} {
		s.registered(fmt.Sprint("edge", i), key)
		s.loggedIn(fmt.Sprint("edge", i), key)
	}
	if n, _ := s.vault.(*vault.Memory).Size(); n != 4 {
		t.Errorf("the vault has %d entries, want 4", n)
	}
}

func TestOfManyWhoRegisterOneIDOnTwoNodesOneDoes(t *testing.T) {
	v := vault.NewMemory()
	nodes := []*site{newSite(t, v, nil), newSite(t, v, nil)}
	const callers = 16
	statuses := make([]int, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			statuses[i] = nodes[i%2].post("/register", "", pair{"raced", fmt.Sprintf("key-number-%02d-%s", i, goodKey)}).status
		})
	}
	wg.Wait()
	winner := slices.Index(statuses, http.StatusCreated)
	slices.Sort(statuses)
	want := append([]int{http.StatusCreated}, slices.Repeat([]int{http.StatusConflict}, callers-1)...)
	if !slices.Equal(statuses, want) {
		t.Fatalf("answered %v, want one 201 and then 409", statuses)
	}
	for i := range callers {
		a := nodes[(i+1)%2].post("/login", "", pair{"raced", fmt.Sprintf("key-number-%02d-%s", i, goodKey)})
		if want := i == winner; (a.status == http.StatusOK) != want {
			t.Errorf("caller %d logs in: %d, the winner is %d", i, a.status, winner)
		}
	}
}

func TestNoSecretIsKeptOrLogged(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	s.registered("plugin", goodKey)
	token := s.loggedIn("plugin", goodKey)
	s.post("/login", "", pair{"plugin", otherKey})
	s.post("/unregister", "Bearer "+admin+"x", registered{"plugin"})
	var kept []vault.Entry
	if err := s.vault.List(t.Context(), "", func(e vault.Entry) error { kept = append(kept, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 1 || kept[0].Key != "client/"+vault.Segment("plugin") {
		t.Fatalf("kept: %v, want one entry of the client", kept)
	}
	c, err := parseClient(kept[0])
	if err != nil || bcrypt.CompareHashAndPassword([]byte(c.Hash), []byte(goodKey)) != nil {
		t.Errorf("the key is kept as %q (%v), want its bcrypt hash", c.Hash, err)
	}
	secret := token[strings.LastIndex(token, "~")+1:]
	for sink, text := range map[string]string{"the vault": string(kept[0].Value), "the log": s.log.String(), "the stats": fmt.Sprint(s.Stats())} {
		for _, canary := range []string{goodKey, otherKey, token, secret, admin} {
			if strings.Contains(text, canary) {
				t.Errorf("%s has %q in it:\n%s", sink, canary, text)
			}
		}
	}
	for _, want := range []string{"client registered", "client has a new bearer token", "client=plugin"} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, s.log)
		}
	}
}

func TestWrongPairsGetTheSameAnswerAfterTheSameWork(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	longest := strings.Repeat("k", 72)
	s.registered("plugin", goodKey)
	s.registered("longest", longest)
	costs := 0
	s.matches = func(hash, key []byte) bool {
		cost, err := bcrypt.Cost(hash)
		if err != nil || cost != bcrypt.MinCost {
			t.Errorf("compared with %q of cost %d (%v)", hash, cost, err)
		}
		costs++
		return bcrypt.CompareHashAndPassword(hash, key) == nil
	}
	want := s.post("/login", "", pair{"nobody", goodKey})
	if want.status != http.StatusUnauthorized {
		t.Fatalf("an unknown client is answered %d, want 401", want.status)
	}
	wrong := map[string]pair{
		"a wrong key": {"plugin", otherKey}, "an empty key": {"plugin", ""}, "no id": {"", goodKey},
		"a short key": {"plugin", "x"}, "a key and more": {"longest", longest + "k"}, "nobody's": {"nobody", otherKey},
		"a huge key": {"plugin", strings.Repeat("x", 10_000)}, "a long id": {strings.Repeat("x", 5000), goodKey},
	}
	for name, p := range wrong {
		costs = 0
		if a := s.post("/login", "", p); a.status != want.status || a.raw != want.raw {
			t.Errorf("%s: answered %d %s, want %s", name, a.status, a.raw, want.raw)
		}
		if costs != 1 {
			t.Errorf("%s: %d hashes compared, want 1", name, costs)
		}
		if strings.Contains(p.ClientID, ":") || p.ClientID == "" {
			continue
		}
		costs = 0
		if a := s.post("/unregister", basic(p.ClientID, p.AuthKey), registered{p.ClientID}); a.status != want.status || a.raw != want.raw || costs != 1 {
			t.Errorf("%s by Basic: answered %d %s after %d hashes, want %s", name, a.status, a.raw, costs, want.raw)
		}
	}
	for name, header := range map[string]string{
		"no credentials": "", "an unknown token": "Bearer hb~" + vault.Segment("plugin") + "~x", "a foreign token": "Bearer a.b.c",
		"a broken token": "Bearer hb~", "another scheme": "Digest x", "broken Basic": "Basic !", "a wrong admin": "Bearer " + admin + "x",
	} {
		if a := s.post("/unregister", header, registered{"plugin"}); a.status != want.status || a.raw != want.raw {
			t.Errorf("%s: answered %d %s, want %s", name, a.status, a.raw, want.raw)
		}
	}
	costs = 0
	s.loggedIn("plugin", goodKey)
	s.loggedIn("plugin", goodKey)
	if costs != 1 {
		t.Errorf("a right key was compared %d times, want once: it is remembered", costs)
	}
}

func TestInModeAuthenticatedOnlyClientsAndTheOperatorRegister(t *testing.T) {
	s := newSite(t, vault.NewMemory(), func(c *Config, _ *Deps) { c.Mode = Authenticated })
	register := func(authorization, id string) int {
		return s.post("/register", authorization, pair{id, goodKey}).status
	}
	if got := register("Bearer "+admin, "first"); got != http.StatusCreated {
		t.Fatalf("the operator is answered %d, want 201", got)
	}
	token := s.loggedIn("first", goodKey)
	for _, c := range []struct {
		name, authorization string
		want                int
	}{
		{"nobody", "", http.StatusUnauthorized},
		{"a client by Basic", basic("first", goodKey), http.StatusCreated},
		{"a client by its token", "Bearer " + token, http.StatusCreated},
		{"the operator by Basic", basic("", admin), http.StatusCreated},
		{"a wrong key", basic("first", otherKey), http.StatusUnauthorized},
		{"an unknown client", basic("second", goodKey), http.StatusUnauthorized},
		{"a wrong token", "Bearer " + token + "x", http.StatusUnauthorized},
		{"the operator's secret under a name", basic("first", admin), http.StatusUnauthorized},
	} {
		if got := register(c.authorization, c.name); got != c.want {
			t.Errorf("%s: answered %d, want %d", c.name, got, c.want)
		}
	}
}

func TestAClientUnregistersItselfAndTheOperatorEverybody(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	ids := []string{"a", "b", "c", "d"}
	for _, id := range ids {
		s.registered(id, goodKey+id)
	}
	token := s.loggedIn("b", goodKey+"b")
	for _, c := range []struct {
		name, authorization, id string
		want                    int
	}{
		{"another client", basic("a", goodKey+"a"), "b", http.StatusForbidden},
		{"another client for one that is not there", basic("a", goodKey+"a"), "nobody", http.StatusForbidden},
		{"itself by Basic", basic("a", goodKey+"a"), "a", http.StatusOK},
		{"itself again", basic("a", goodKey+"a"), "a", http.StatusUnauthorized},
		{"itself by its token", "Bearer " + token, "b", http.StatusOK},
		{"the operator", "Bearer " + admin, "c", http.StatusOK},
		{"the operator again", "Bearer " + admin, "c", http.StatusNotFound},
	} {
		if a := s.post("/unregister", c.authorization, registered{c.id}); a.status != c.want || c.want == http.StatusOK && a.body["clientID"] != c.id {
			t.Errorf("%s: answered %d %s, want %d", c.name, a.status, a.raw, c.want)
		}
	}
	for _, id := range ids[:3] {
		if a := s.post("/login", "", pair{id, goodKey + id}); a.status != http.StatusUnauthorized {
			t.Errorf("%s is unregistered, and logs in: %d", id, a.status)
		}
	}
	if v := s.verdict(auth.Attempt{Token: token}); v.Opinion != auth.Refused {
		t.Errorf("the token of who was unregistered: %+v, want refused", v)
	}
	s.loggedIn("d", goodKey+"d")
	s.registered("a", otherKey) // its id is free again
	if v := s.verdict(auth.Attempt{Name: "a", Password: goodKey + "a"}); v.Opinion != auth.Refused {
		t.Errorf("the old key of who registered anew: %+v, want refused", v)
	}
}

func TestAnAddressRegistersSoManyAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, vault.NewMemory(), func(c *Config, _ *Deps) { c.PerMinute = 3 })
		n := 0
		register := func(authorization string) int {
			n++
			return s.post("/register", authorization, pair{fmt.Sprint("client", n), goodKey}).status
		}
		got := []int{register(""), register(""), register(""), register("")}
		if want := []int{201, 201, 201, 429}; !slices.Equal(got, want) {
			t.Errorf("answered %v, want %v", got, want)
		}
		if got := register("Bearer " + admin); got != http.StatusCreated {
			t.Errorf("the operator is answered %d, want 201", got)
		}
		time.Sleep(20 * time.Second)
		if got := []int{register(""), register("")}; !slices.Equal(got, []int{201, 429}) {
			t.Errorf("a third of a minute later: %v, want one more", got)
		}
		if s.Stats().Calls["register"]["limited"] != 2 {
			t.Errorf("counted %v, want 2 limited", s.Stats().Calls)
		}
	})
}

func TestUsersOfOtherStrategiesCannotBeTaken(t *testing.T) {
	s := newSite(t, vault.NewMemory(), func(c *Config, d *Deps) {
		c.UserPrefix, c.Role = "client/", "guest"
		d.Others = knows{"client/ann"}
	})
	if a := s.post("/register", "", pair{"ann", goodKey}); a.status != http.StatusConflict {
		t.Errorf("a name that another strategy has: %d, want 409", a.status)
	}
	s.registered("bob", goodKey)
	v := s.verdict(auth.Attempt{Name: "bob", Password: goodKey})
	if v.Opinion != auth.Accepted || v.User.ID != "client/bob" || v.User.ServerData != `{"role":"guest"}` {
		t.Errorf("got %+v, want client/bob with the role guest", v.User)
	}
}

// A user may be added whose name somebody has registered: he must not find himself shut out,
// nor the client be him.
func TestAClientWithTheNameOfALaterUserIsNobody(t *testing.T) {
	var later knows
	s := newSite(t, vault.NewMemory(), func(_ *Config, d *Deps) {
		d.Others, d.BasicElsewhere = &later, func() bool { return true }
	})
	s.registered("carol", goodKey)
	s.registered("dave", goodKey)
	token := s.loggedIn("carol", goodKey)
	later = knows{"carol"}
	for range 2 {
		for name, c := range map[string]struct {
			attempt auth.Attempt
			want    auth.Opinion
		}{
			"a token":            {auth.Attempt{Params: `{"token":"` + token + `"}`}, auth.Refused},
			"a pair":             {auth.Attempt{Params: `{"clientID":"carol","authKey":"` + goodKey + `"}`}, auth.Refused},
			"the client's Basic": {auth.Attempt{Name: "carol", Password: goodKey}, auth.NoOpinion},
			"the user's Basic":   {auth.Attempt{Name: "carol", Password: "pw"}, auth.NoOpinion},
			"another client":     {auth.Attempt{Name: "dave", Password: goodKey}, auth.Accepted},
		} {
			if v := s.verdict(c.attempt); v.Opinion != c.want {
				t.Errorf("%s: %+v, want opinion %d", name, v, c.want)
			}
		}
		if got := s.post("/login", "", pair{"carol", goodKey}); got.status != http.StatusUnauthorized {
			t.Errorf("login is answered %d %s, want 401", got.status, got.raw)
		}
	}
	if n := strings.Count(s.log.String(), "another strategy has a user of that name"); n != 1 {
		t.Errorf("the log says so %d times, want once:\n%s", n, s.log)
	}
	if got := s.post("/register", "", pair{"carol", otherKey}); got.status != http.StatusConflict {
		t.Errorf("registering the name is answered %d %s, want 409", got.status, got.raw)
	}
	if got := s.post("/unregister", "Bearer "+admin, registered{"carol"}); got.status != http.StatusOK {
		t.Errorf("the operator unregisters the client: answered %d %s, want 200", got.status, got.raw)
	}
}

type knows []string

func (k knows) Knows(_ context.Context, name string) (bool, error) {
	return slices.Contains(k, name), nil
}

func TestOnlyPostIsAnswered(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	for _, path := range Paths {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
			w := httptest.NewRecorder()
			s.routes[path].ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != http.MethodPost {
				t.Errorf("%s %s: %d, Allow %q, want 405 and POST", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	if len(s.routes) != len(Paths) {
		t.Errorf("there are %d routes, Paths has %d", len(s.routes), len(Paths))
	}
}

// doubtful is a vault that does what it is told to, and then says that it does not know.
type doubtful struct {
	vault.Vault
	mu    sync.Mutex
	fails int // guarded by mu
}

var errDoubt = errors.New("the outcome is unknown")

func (d *doubtful) doubt(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails == 0 {
		return err
	}
	d.fails--
	return errDoubt
}

func (d *doubtful) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	rev, err := d.Vault.Create(ctx, key, value, ttl)
	return rev, d.doubt(err)
}

func (d *doubtful) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	rev, err := d.Vault.Update(ctx, key, value, revision, ttl)
	return rev, d.doubt(err)
}

func (d *doubtful) Delete(ctx context.Context, key string, revision uint64) error {
	return d.doubt(d.Vault.Delete(ctx, key, revision))
}

func TestWritesOfUnknownOutcomeAreFoundOut(t *testing.T) {
	v := &doubtful{Vault: vault.NewMemory()}
	s := newSite(t, v, nil)
	v.fails = 1
	s.registered("plugin", goodKey)
	v.fails = 1
	token := s.loggedIn("plugin", goodKey)
	if got := s.verdict(auth.Attempt{Token: token}); got.Opinion != auth.Accepted {
		t.Errorf("the token is %+v, want accepted", got)
	}
	v.fails = 1
	if a := s.post("/unregister", basic("plugin", goodKey), registered{"plugin"}); a.status != http.StatusOK {
		t.Errorf("unregister is answered %d %s, want 200", a.status, a.raw)
	}
}

// broken is a vault that cannot be asked.
type broken struct{ vault.Vault }

func (broken) Get(context.Context, string) (vault.Entry, error) { return vault.Entry{}, errDoubt }

func TestAVaultThatCannotBeAskedLetsNobodyIn(t *testing.T) {
	m := vault.NewMemory()
	s := newSite(t, m, nil)
	s.registered("plugin", goodKey)
	token := s.loggedIn("plugin", goodKey)
	s = newSite(t, broken{m}, nil)
	for path, body := range map[string]any{"/register": pair{"new", goodKey}, "/login": pair{"plugin", goodKey}, "/unregister": registered{"plugin"}} {
		if a := s.post(path, basic("plugin", goodKey), body); a.status != http.StatusServiceUnavailable || strings.Contains(a.raw, "outcome") {
			t.Errorf("%s is answered %d %s, want 503 without the cause", path, a.status, a.raw)
		}
	}
	for _, a := range []auth.Attempt{{Params: `{"token":"` + token + `"}`}, {Params: "{}", Name: "plugin", Password: goodKey}} {
		if v, err := s.Authenticate(t.Context(), &a); v.Opinion == auth.Accepted || !errors.Is(err, errDoubt) {
			t.Errorf("%+v: got %+v, %v, want the vault's error", a, v, err)
		}
	}
	if !strings.Contains(s.log.String(), "outcome is unknown") {
		t.Errorf("the operator was not told:\n%s", s.log)
	}
}

func TestLaterLoginsEndEarlierOnesAlsoWhenManyRace(t *testing.T) {
	v := vault.NewMemory()
	nodes := []*site{newSite(t, v, nil), newSite(t, v, nil)}
	nodes[0].registered("plugin", goodKey)
	tokens := make([]string, 12)
	var wg sync.WaitGroup
	for i := range tokens {
		wg.Go(func() { tokens[i] = nodes[i%2].loggedIn("plugin", goodKey) })
	}
	wg.Wait()
	right := 0
	for _, token := range tokens {
		if nodes[0].verdict(auth.Attempt{Token: token}).Opinion == auth.Accepted {
			right++
		}
	}
	if right != 1 {
		t.Errorf("%d of %d tokens are right, want one", right, len(tokens))
	}
}

func TestALoginWhileTheClientIsUnregisteredIsOneOrTheOther(t *testing.T) {
	v := vault.NewMemory()
	nodes := []*site{newSite(t, v, nil), newSite(t, v, nil)}
	for range 20 {
		nodes[0].registered("plugin", goodKey)
		var in, out answer
		var wg sync.WaitGroup
		wg.Go(func() { in = nodes[0].post("/login", "", pair{"plugin", goodKey}) })
		wg.Go(func() { out = nodes[1].post("/unregister", "Bearer "+admin, registered{"plugin"}) })
		wg.Wait()
		if out.status != http.StatusOK || in.status != http.StatusOK && in.status != http.StatusUnauthorized {
			t.Fatalf("login is answered %d %s, unregister %d %s", in.status, in.raw, out.status, out.raw)
		}
		if token, ok := in.body["bearerToken"].(string); ok {
			if got := nodes[0].verdict(auth.Attempt{Token: token}); got.Opinion != auth.Refused {
				t.Fatalf("the token outlives the client: %+v", got)
			}
		}
		if n, _ := v.Size(); n != 0 {
			t.Fatalf("the vault still has %d entries", n)
		}
	}
}

func FuzzAnyTokenNamesAClientOrNobody(f *testing.F) {
	token, _ := newToken("plugin", time.Now(), time.Hour)
	for _, s := range []string{token, "hb~", "hb~~", "hb~cGx1Z2lu~", "hb~!~x", "a.b.c", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, ok := clientOf(token)
		if ok && (id == "" || len(id) > maxID || !isToken(token)) {
			t.Errorf("%q names %q", token, id)
		}
	})
}

func FuzzAnyParametersAreCredentialsOrNone(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"clientID":"a","authKey":"b"}`, `{"token":"hb~x~y"}`, `{"token":5,"clientID":null}`, `{"username":"a"}`} {
		f.Add(s, "hb~a~b", "", "")
		f.Add(s, "", "name", "word")
	}
	f.Fuzz(func(t *testing.T, params, token, name, password string) {
		c := credentialsOf(&auth.Attempt{Params: params, Token: token, Name: name, Password: password})
		if c.pair && c.token != "" || c.token != "" && !isToken(c.token) {
			t.Errorf("%+v is two things at once, or not ours", c)
		}
		if c.fallible && (c.id != name || !json.Valid([]byte(params))) {
			t.Errorf("%+v does not come from the upgrade", c)
		}
	})
}

// guesses sends wrong credentials one after the other, and returns how long that took.
func guesses(t *testing.T, n int, guess func(i int)) time.Duration {
	t.Helper()
	began := time.Now()
	for i := range n {
		guess(i)
	}
	return time.Since(began)
}

func TestWhoMakesUpTokensOrGuessesTheOperatorsSecretIsSlowed(t *testing.T) {
	for name, c := range map[string]struct {
		guess func(s *site, i int) answer
		right func(s *site) string // authorization
		want  int
	}{
		"tokens of clients": {
			func(s *site, i int) answer {
				return s.post("/unregister", fmt.Sprintf("Bearer %s%s~%d", tokenScheme, vault.Segment(fmt.Sprint("client", i)), i), registered{"x"})
			}, func(s *site) string { return "Bearer " + s.loggedIn("plugin", goodKey) }, http.StatusForbidden,
		},
		"the operator's secret": {
			func(s *site, i int) answer {
				return s.post("/unregister", fmt.Sprint("Bearer guess", i), registered{"x"})
			},
			func(*site) string { return "Bearer " + admin }, http.StatusNotFound,
		},
		"the operator's secret by Basic": {
			func(s *site, i int) answer {
				return s.post("/register", basic("", fmt.Sprint("guess", i)), pair{"new", goodKey})
			}, func(*site) string { return basic("", admin) }, http.StatusNotFound,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, vault.NewMemory(), nil)
				s.registered("plugin", goodKey)
				right := c.right(s)
				// A hundred may be mistakes, then ten a second.
				if took := guesses(t, 300, func(i int) {
					if a := c.guess(s, i); a.status != http.StatusUnauthorized {
						t.Fatalf("guess %d is answered %d %s, want 401", i, a.status, a.raw)
					}
				}); took < 15*time.Second {
					t.Errorf("300 guesses took %v, want some 20 seconds", took)
				}
				s.from = "10.0.0.2"
				if took := guesses(t, 1, func(int) {
					if a := s.post("/unregister", right, registered{"nobody"}); a.status != c.want {
						t.Errorf("the right one from another address is answered %d %s, want %d", a.status, a.raw, c.want)
					}
				}); took != 0 {
					t.Errorf("another address waited %v", took)
				}
			})
		})
	}
}

// asked is a vault that counts how often it is read.
type asked struct {
	vault.Vault
	reads atomic.Int64
}

func (a *asked) Get(ctx context.Context, key string) (vault.Entry, error) {
	a.reads.Add(1)
	return a.Vault.Get(ctx, key)
}

func TestASlowedAddressWaitsBeforeTheVaultIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &asked{Vault: vault.NewMemory()}
		s := newSite(t, v, nil)
		for range 200 {
			if err := s.deps.Turnstile.Check(t.Context(), "10.0.0.1", auth.Cost{}, func() bool { return false }); err != nil {
				t.Fatal(err)
			}
		}
		var logins sync.WaitGroup
		defer logins.Wait()
		for range 50 {
			logins.Go(func() { s.post("/login", "", pair{"nobody", goodKey}) })
			logins.Go(func() { s.post("/unregister", basic("nobody", goodKey), registered{"nobody"}) })
		}
		synctest.Wait()
		if n := v.reads.Load(); n > 0 {
			t.Errorf("100 requests of a slowed address read the vault %d times before their turn", n)
		}
		other := *s
		other.from = "10.0.0.2"
		if other.post("/login", "", pair{"nobody", goodKey}); v.reads.Load() != 1 {
			t.Errorf("another address read the vault %d times, want once", v.reads.Load())
		}
	})
}

// A token that has ended is no guess: clients come back with it, all at once.
func TestTokensThatHaveExpiredAreNoGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, vault.NewMemory(), func(c *Config, _ *Deps) { c.BearerTTL = time.Minute })
		s.registered("plugin", goodKey)
		token := s.loggedIn("plugin", goodKey)
		time.Sleep(time.Hour)
		if took := guesses(t, 300, func(int) { s.verdict(auth.Attempt{Token: token}) }); took != 0 {
			t.Errorf("who comes back with an expired token waits %v", took)
		}
	})
}

func TestNoMoreClientsAreRegisteredThanThereMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		few := func(c *Config, _ *Deps) { c.MaxClients = 2 }
		a, b := newSite(t, v, few), newSite(t, v, few)
		defer a.running()()
		defer b.running()()
		a.registered("one", goodKey)
		b.registered("two", goodKey)
		a.loggedIn("one", goodKey) // changes the entry, and is no client more
		synctest.Wait()
		for name, s := range map[string]*site{"a": a, "b": b} {
			if got := s.post("/register", "", pair{"three", goodKey}); got.status != http.StatusInsufficientStorage || !strings.Contains(got.raw, "registration.maxClients") {
				t.Errorf("a third client at %s is answered %d %s, want 507 with the key", name, got.status, got.raw)
			}
			if got := s.post("/register", "", pair{"two", goodKey}); got.status != http.StatusConflict {
				t.Errorf("a client that is there is answered %d %s, want 409", got.status, got.raw)
			}
		}
		if got := b.Stats(); got.Clients != 2 || got.Calls["register"]["full"] != 1 {
			t.Errorf("counted %d clients and %d refused, want 2 and 1", got.Clients, got.Calls["register"]["full"])
		}
		a.post("/unregister", basic("one", goodKey), registered{"one"})
		synctest.Wait()
		b.registered("three", goodKey)
	})
}

func TestWhatWentUnheardIsNoClientAnyMore(t *testing.T) {
	c := newCensus()
	c.told("client/a", false)
	c.told("client/b", false)
	c.synced()
	c.lost()
	c.told("client/b", false)
	c.told("client/c", false)
	c.told("client/c", true)
	if got := c.count(); got != 2 {
		t.Errorf("before all are told again there are %d, want the 2 that were", got)
	}
	c.synced()
	if got := c.count(); got != 1 {
		t.Errorf("after that there are %d, want 1", got)
	}
}

func TestNobodyIsRegisteredInACrowdedStore(t *testing.T) {
	crowded := true
	s := newSite(t, vault.NewMemory(), func(_ *Config, d *Deps) { d.Crowded = func(context.Context) bool { return crowded } })
	if got := s.post("/register", "", pair{"plugin", goodKey}); got.status != http.StatusInsufficientStorage || got.body["code"] != "STORE_CROWDED" {
		t.Errorf("answered %d %s, want 507 STORE_CROWDED", got.status, got.raw)
	}
	crowded = false
	s.registered("plugin", goodKey)
}

func TestTheRoleOfAClientGoesBeforeItDoes(t *testing.T) {
	var dropped []string
	var fails error
	s := newSite(t, vault.NewMemory(), func(c *Config, d *Deps) {
		c.UserPrefix = "client/"
		d.DropRole = func(_ context.Context, id string) error {
			dropped = append(dropped, id)
			return fails
		}
	})
	s.registered("plugin", goodKey)
	fails = errDoubt
	if got := s.post("/unregister", basic("plugin", goodKey), registered{"plugin"}); got.status != http.StatusServiceUnavailable {
		t.Errorf("with a role that cannot be taken away: answered %d %s, want 503", got.status, got.raw)
	}
	s.loggedIn("plugin", goodKey) // it stays: nobody else can have the role
	fails = nil
	if got := s.post("/unregister", basic("plugin", goodKey), registered{"plugin"}); got.status != http.StatusOK {
		t.Errorf("answered %d %s, want 200", got.status, got.raw)
	}
	if !slices.Equal(dropped, []string{"client/plugin", "client/plugin"}) {
		t.Errorf("roles were taken from %q", dropped)
	}
	if got := s.post("/unregister", "Bearer "+admin, registered{"nobody"}); got.status != http.StatusNotFound || len(dropped) != 2 {
		t.Errorf("who is not registered: answered %d, and roles taken from %q", got.status, dropped)
	}
}
