package register

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"hadal/auth"
	"hadal/auth/vault"
)

func TestCredentialsAreFoundInTheParametersAndThenInTheUpgrade(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	s.registered("plugin", goodKey)
	s.registered("other", otherKey)
	token := s.loggedIn("plugin", goodKey)
	const none, no, yes = auth.NoOpinion, auth.Refused, auth.Accepted
	for _, c := range []struct {
		name    string
		attempt auth.Attempt
		want    auth.Opinion
	}{
		{"nothing", auth.Attempt{}, none},
		{"an array", auth.Attempt{Params: `[]`, Token: token}, none},
		{"a pair", auth.Attempt{Params: `{"clientID":"plugin","authKey":"` + goodKey + `"}`}, yes},
		{"a wrong pair", auth.Attempt{Params: `{"clientID":"plugin","authKey":"` + otherKey + `"}`}, no},
		{"half a pair", auth.Attempt{Params: `{"clientID":"plugin"}`, Token: token}, none},
		{"a pair of numbers", auth.Attempt{Params: `{"clientID":1,"authKey":2}`, Token: token}, none},
		{"a token", auth.Attempt{Params: `{"token":"` + token + `"}`}, yes},
		{"a token of nobody", auth.Attempt{Params: `{"token":"hb~cGx1Z2lu~x"}`}, no},
		{"another strategy's token", auth.Attempt{Params: `{"token":"a.b.c"}`, Token: token}, none},
		{"another strategy's user", auth.Attempt{Params: `{"username":"ann","password":"x"}`, Token: token}, none},
		{"a bearer at the upgrade", auth.Attempt{Token: token}, yes},
		{"another parameter beside it", auth.Attempt{Params: `{"app":"x"}`, Token: token}, yes},
		{"a wrong bearer at the upgrade", auth.Attempt{Token: token + "x"}, no},
		{"a foreign bearer at the upgrade", auth.Attempt{Token: "a.b.c"}, none},
		{"Basic at the upgrade", auth.Attempt{Name: "plugin", Password: goodKey}, yes},
		{"wrong Basic at the upgrade", auth.Attempt{Name: "plugin", Password: otherKey}, no},
		{"Basic of nobody", auth.Attempt{Name: "nobody", Password: goodKey}, no},
		{"a right pair beside wrong Basic", auth.Attempt{Params: `{"clientID":"plugin","authKey":"` + goodKey + `"}`, Name: "plugin", Password: otherKey}, yes},
		{"a wrong pair beside right Basic", auth.Attempt{Params: `{"clientID":"plugin","authKey":"x"}`, Name: "plugin", Password: goodKey}, no},
		{"two kinds at once", auth.Attempt{Token: token, Name: "other", Password: otherKey}, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := s.verdict(c.attempt)
			if v.Opinion != c.want {
				t.Errorf("got %+v, want opinion %d", v, c.want)
			}
			if v.Opinion == auth.Accepted && v.User.ID != "plugin" {
				t.Errorf("logged in as %q, want plugin", v.User.ID)
			}
		})
	}
}

func TestBasicOfNobodyIsLeftToStrategiesThatAreAskedToo(t *testing.T) {
	s := newSite(t, vault.NewMemory(), func(_ *Config, d *Deps) { d.BasicElsewhere = func() bool { return true } })
	s.registered("plugin", goodKey)
	for name, want := range map[string]auth.Opinion{"ann": auth.NoOpinion, "plugin": auth.Refused} {
		if v := s.verdict(auth.Attempt{Name: name, Password: "a password"}); v.Opinion != want {
			t.Errorf("Basic of %s: %+v, want opinion %d", name, v, want)
		}
	}
	if v := s.verdict(auth.Attempt{Params: `{"clientID":"ann","authKey":"x"}`}); v.Opinion != auth.Refused {
		t.Errorf("a pair of nobody: %+v, want refused", v)
	}
}

// The hash of the strategy that is asked next is the one that counts.
func TestBasicOfNobodyCostsNoHashWhereAnotherStrategyIsAsked(t *testing.T) {
	s := newSite(t, vault.NewMemory(), func(_ *Config, d *Deps) { d.BasicElsewhere = func() bool { return true } })
	s.registered("plugin", goodKey)
	costs := 0
	s.matches = func(hash, key []byte) bool { costs++; return bcrypt.CompareHashAndPassword(hash, key) == nil }
	for _, c := range []struct {
		name   string
		hashes int // at the upgrade, and again at the login
	}{{"ann", 0}, {"plugin", 1}} {
		a := auth.Attempt{Name: c.name, Password: "a password", RemoteAddr: "10.0.0.1"}
		costs = 0
		w := httptest.NewRecorder()
		if passes := s.Guard(w, httptest.NewRequest(http.MethodGet, "/deepstream", nil), &a); passes != (c.hashes == 0) || costs != c.hashes {
			t.Errorf("%s: passes %v after %d hashes, want %d", c.name, passes, costs, c.hashes)
		}
		costs = 0
		if s.verdict(a); costs != c.hashes {
			t.Errorf("the login of %s took %d hashes, want %d", c.name, costs, c.hashes)
		}
	}
}

func TestTheGuardAnswers401BeforeTheUpgrade(t *testing.T) {
	s := newSite(t, vault.NewMemory(), nil)
	s.registered("plugin", goodKey)
	token := s.loggedIn("plugin", goodKey)
	want := s.post("/login", "", pair{"plugin", otherKey})
	for _, c := range []struct {
		name    string
		attempt auth.Attempt
		passes  bool
	}{
		{"nothing", auth.Attempt{}, true},
		{"a token", auth.Attempt{Token: token}, true},
		{"another strategy's token", auth.Attempt{Token: "a.b.c"}, true},
		{"a pair", auth.Attempt{Name: "plugin", Password: goodKey}, true},
		{"a wrong token", auth.Attempt{Token: token + "x"}, false},
		{"a wrong key", auth.Attempt{Name: "plugin", Password: otherKey}, false},
		{"an unknown client", auth.Attempt{Name: "nobody", Password: goodKey}, false},
	} {
		w := httptest.NewRecorder()
		passes := s.Guard(w, httptest.NewRequest(http.MethodGet, "/deepstream", nil), &c.attempt)
		if passes != c.passes || !passes && (w.Code != want.status || w.Body.String() != want.raw) {
			t.Errorf("%s: passes %v, answered %d %s, want %v, or %s", c.name, passes, w.Code, w.Body, c.passes, want.raw)
		}
	}
}

func TestALaterLoginEndsTheConnectionsOfTheEarlierOneOnAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		a, b := newSite(t, v, nil), newSite(t, v, nil)
		defer a.running()()
		defer b.running()()
		a.registered("plugin", goodKey)
		a.registered("other", goodKey)
		first := a.loggedIn("plugin", goodKey)
		onA, onB := a.opened(auth.Attempt{Token: first}), b.opened(auth.Attempt{Token: first})
		byKey := b.opened(auth.Attempt{Name: "plugin", Password: goodKey})
		other := b.opened(auth.Attempt{Token: b.loggedIn("other", goodKey)})
		gone := b.opened(auth.Attempt{Token: first})
		b.Closed(gone)
		synctest.Wait()
		if onA.over() || onB.over() {
			t.Fatal("a connection ended before the later login")
		}
		second := b.loggedIn("plugin", goodKey)
		synctest.Wait()
		if !onA.over() || !onB.over() {
			t.Errorf("after a later login the earlier one's connections are over: %v, %v, want both", onA.over(), onB.over())
		}
		if byKey.over() || other.over() || gone.over() {
			t.Errorf("others ended as well: by key %v, other client %v, gone before %v", byKey.over(), other.over(), gone.over())
		}
		onB = b.opened(auth.Attempt{Token: second})
		if got := a.post("/unregister", basic("plugin", goodKey), registered{"plugin"}); got.status != http.StatusOK {
			t.Fatalf("unregister is answered %d", got.status)
		}
		synctest.Wait()
		if !onB.over() || !byKey.over() || other.over() {
			t.Errorf("after unregister: token %v, key %v, other client %v, want both and not the other", onB.over(), byKey.over(), other.over())
		}
		if got := b.Stats(); got.Ended != 3 || got.Connections != 1 {
			t.Errorf("counted %d ended and %d open, want 3 and 1", got.Ended, got.Connections)
		}
		a.registered("plugin", otherKey)
		b.opened(auth.Attempt{Name: "plugin", Password: otherKey})
		synctest.Wait()
		if got := b.Stats(); got.Ended != 3 {
			t.Errorf("who registered anew was ended too")
		}
	})
}

// A login is judged, then comes the later one, and is heard; only then is the connection
// listed.
func TestALoginThatEndedBeforeItsConnectionWasListedIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, vault.NewMemory(), nil)
		defer s.running()()
		s.registered("plugin", goodKey)
		late := s.judged(auth.Attempt{Token: s.loggedIn("plugin", goodKey)})
		s.loggedIn("plugin", goodKey)
		synctest.Wait()
		s.Opened(late)
		synctest.Wait()
		if !late.over() {
			t.Error("the connection of a login that was over stays")
		}
	})
}

func TestATokenIsGoodForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, vault.NewMemory(), func(c *Config, _ *Deps) { c.BearerTTL = time.Minute })
		s.registered("plugin", goodKey)
		token := s.loggedIn("plugin", goodKey)
		time.Sleep(time.Minute - time.Second)
		v := s.verdict(auth.Attempt{Token: token})
		if v.Opinion != auth.Accepted || time.Until(v.User.Session.Expires) != time.Second {
			t.Fatalf("a second before its end the token is %+v", v)
		}
		time.Sleep(2 * time.Second)
		if v := s.verdict(auth.Attempt{Token: token}); v.Opinion != auth.Refused || v.Reason != `"TOKEN_EXPIRED"` || !v.Uncounted {
			t.Errorf("the token is %+v, want refused as expired, and not counted", v)
		}
		// Its client may have a fresh one for the login, and cannot change the headers.
		w := httptest.NewRecorder()
		if !s.Guard(w, httptest.NewRequest(http.MethodGet, "/deepstream", nil), &auth.Attempt{Token: token}) {
			t.Errorf("the upgrade with it is answered %d %s", w.Code, w.Body)
		}
		if a := s.post("/unregister", "Bearer "+token, registered{"plugin"}); a.status != http.StatusUnauthorized {
			t.Errorf("by HTTP it is answered %d %s, want 401", a.status, a.raw)
		}
	})
}

// A connection may be renewed: what counts is its token of the moment.
func TestARenewedConnectionIsJudgedByItsNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, vault.NewMemory(), nil)
		defer s.running()()
		s.registered("plugin", goodKey)
		token := s.loggedIn("plugin", goodKey)
		another := &auth.User{ID: "plugin", Session: &auth.Session{ID: "another strategy's"}}
		elsewhere, renewed := s.opened(auth.Attempt{Token: token}), connOf(another)
		s.Opened(renewed)
		synctest.Wait()
		elsewhere.user.Store(another)
		renewed.user.Store(s.judged(auth.Attempt{Token: token}).User())
		s.Opened(renewed)
		synctest.Wait()
		if renewed.over() {
			t.Fatal("the renewed connection ended with a token that is good")
		}
		s.loggedIn("plugin", goodKey)
		synctest.Wait()
		if !renewed.over() || elsewhere.over() {
			t.Errorf("after a later login: renewed %v, by another strategy %v, want only the first ended", renewed.over(), elsewhere.over())
		}
	})
}

// cutOff is a vault whose watchers can be kept from hearing.
type cutOff struct {
	vault.Vault
	deaf  bool // told is not called; set while nothing runs
	lose  chan struct{}
	again chan struct{}
	fails int // of Get
}

func (c *cutOff) Watch(ctx context.Context, prefix string, w vault.Watcher) error {
	hear := w.Told
	w.Told = func(change vault.Change) {
		if !c.deaf {
			hear(change)
		}
	}
	ended := make(chan struct{})
	defer func() { <-ended }()
	go func() {
		defer close(ended)
		for {
			select {
			case <-c.lose:
				w.Lost(errDoubt)
			case <-c.again:
				w.Lost(errDoubt)
				w.Synced()
			case <-ctx.Done():
				return
			}
		}
	}()
	return c.Vault.Watch(ctx, prefix, w)
}

func (c *cutOff) Get(ctx context.Context, key string) (vault.Entry, error) {
	if c.fails > 0 {
		c.fails--
		return vault.Entry{}, errDoubt
	}
	return c.Vault.Get(ctx, key)
}

func TestWhatWasMissedInAGapIsFoundOutAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vault.NewMemory()
		v := &cutOff{Vault: m, again: make(chan struct{})}
		away, s := newSite(t, m, nil), newSite(t, v, nil)
		defer s.running()()
		s.registered("plugin", goodKey)
		s.registered("stays", goodKey)
		c, stays := s.opened(auth.Attempt{Name: "plugin", Password: goodKey}), s.opened(auth.Attempt{Name: "stays", Password: goodKey})
		synctest.Wait()
		v.deaf = true
		away.post("/unregister", "Bearer "+admin, registered{"plugin"})
		synctest.Wait()
		if c.over() {
			t.Fatal("the gap was none")
		}
		v.fails = 3 // and the first looks fail
		v.again <- struct{}{}
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if !c.over() || stays.over() {
			t.Errorf("after the gap: unregistered %v, other %v, want only the first ended", c.over(), stays.over())
		}
	})
}

func TestANodeThatIsCutOffForLongEndsItsConnectionsAndLetsNobodyIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &cutOff{Vault: vault.NewMemory(), lose: make(chan struct{}), again: make(chan struct{})}
		s := newSite(t, v, nil)
		defer s.running()()
		s.registered("plugin", goodKey)
		s.registered("other", goodKey)
		byToken, byKey := auth.Attempt{Token: s.loggedIn("plugin", goodKey)}, auth.Attempt{Name: "other", Password: goodKey}
		conns := []*conn{s.opened(byToken), s.opened(byKey)}
		late, elsewhere := s.judged(byToken), s.opened(byToken)
		elsewhere.user.Store(&auth.User{ID: "plugin", Session: &auth.Session{ID: "another strategy's"}})
		synctest.Wait()

		v.lose <- struct{}{}
		time.Sleep(testGrace - time.Second)
		synctest.Wait()
		conns = append(conns, s.opened(byKey)) // it goes on with what it knows
		for i, c := range conns {
			if c.over() {
				t.Fatalf("connection %d was ended within the grace", i)
			}
		}
		time.Sleep(2 * time.Second)
		s.Opened(late)
		for i, c := range append(conns, late) {
			if !c.over() || c.how != Unknown {
				t.Errorf("connection %d of a node that is cut off: over %v, for %d, want that its end is unknown", i, c.over(), c.how)
			}
		}
		if elsewhere.over() {
			t.Error("who goes on by another strategy was ended as well")
		}
		for name, a := range map[string]auth.Attempt{"a token": byToken, "a pair": byKey} {
			a.Params = "{}"
			began := time.Now()
			if _, err := s.Authenticate(t.Context(), &a); !errors.Is(err, auth.ErrBusy) || time.Since(began) != catchUpWait {
				t.Errorf("%s is answered %v after %v, want that it waits and tries again", name, err, time.Since(began))
			}
		}
		if got := s.post("/login", "", pair{"plugin", goodKey}); got.status != http.StatusServiceUnavailable {
			t.Errorf("POST /login is answered %d %s, want 503", got.status, got.raw)
		}

		time.AfterFunc(time.Second, func() { v.again <- struct{}{} })
		back := s.opened(byToken) // it waits for that
		synctest.Wait()
		if back.over() {
			t.Error("after it has caught up the node ends who logs in")
		}
	})
}

func TestANodeThatNeverHeardWhoIsRegisteredGoesOnForItsGraceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vault.NewMemory()
		newSite(t, m, nil).registered("plugin", goodKey)
		s := newSite(t, deafVault{m}, nil)
		defer s.running()()
		c := s.opened(auth.Attempt{Name: "plugin", Password: goodKey})
		time.Sleep(testGrace - time.Second)
		synctest.Wait()
		if c.over() {
			t.Error("the connection was ended within the grace")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !c.over() || c.how != Unknown {
			t.Error("a connection that nobody watches stays")
		}
	})
}

// slow is a vault that takes a second to find an entry.
type slow struct{ vault.Vault }

func (s slow) Get(ctx context.Context, key string) (vault.Entry, error) {
	time.Sleep(time.Second)
	return s.Vault.Get(ctx, key)
}

// After each login its client is looked up once. When very many log in at once, as after a
// restart, the end of a registration does not wait for all of them.
func TestAnUnregisteredClientEndsBeforeAllWhoLogInAreLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		elsewhere, s := newSite(t, v, nil), newSite(t, slow{v}, nil)
		defer elsewhere.running()()
		defer s.running()()
		elsewhere.registered("plugin", goodKey)
		gone := s.opened(auth.Attempt{Token: elsewhere.loggedIn("plugin", goodKey)})
		var others []*conn
		for i := range 8 {
			id := fmt.Sprint("client", i)
			elsewhere.registered(id, goodKey)
			others = append(others, elsewhere.judged(auth.Attempt{Token: elsewhere.loggedIn(id, goodKey)}))
		}
		time.Sleep(5 * time.Second) // plugin has been looked up
		for _, c := range others {
			s.Opened(c)
		}
		time.Sleep(1500 * time.Millisecond) // and they are
		if got := elsewhere.post("/unregister", basic("plugin", goodKey), registered{"plugin"}); got.status != http.StatusOK {
			t.Fatalf("unregister is answered %d %s", got.status, got.raw)
		}
		time.Sleep(4 * time.Second) // one under way, one more, and its own
		synctest.Wait()
		if !gone.over() {
			t.Error("the connection of a client that was unregistered stays while others are looked up")
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		for i, c := range others {
			if c.over() {
				t.Errorf("the connection of client%d has ended", i)
			}
		}
		if n := len(s.check) + len(s.urgent); n > 0 {
			t.Errorf("%d are still to be looked up", n)
		}
	})
}

// deafVault is a vault of which nothing is heard.
type deafVault struct{ vault.Vault }

func (deafVault) Watch(ctx context.Context, _ string, _ vault.Watcher) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := newSite(t, vault.NewSlot(), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("stopping")
	cancel(why)
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, why) {
		t.Errorf("Run = %v, want why its context ended", err)
	}
}

func TestMistakesInTheConfigurationNameTheirKey(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"":                                       func(*Config) {},
		`registration.mode: "on" is not one of`:  func(c *Config) { c.Mode = "on" },
		"registration.bearerTTL: 10ms is not":    func(c *Config) { c.BearerTTL = 10 * time.Millisecond },
		"registration.perMinute: -1 is below":    func(c *Config) { c.PerMinute = -1 },
		"registration.maxClients: -1 is below":   func(c *Config) { c.MaxClients = -1 },
		`registration.userPrefix: "a\n" has con`: func(c *Config) { c.UserPrefix = "a\n" },
	} {
		c := DefaultConfig()
		change(&c)
		got := ""
		if err := c.Validate(); err != nil {
			got = err.Error()
		}
		if (got == "") != (want == "") || len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
