package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
)

// fakeClient is a connection.
type fakeClient struct {
	id uint64

	mu       sync.Mutex
	user     *auth.User // guarded by mu
	warnings []string   // guarded by mu
	ends     []End      // guarded by mu
	began    time.Time
	ended    time.Duration // since began; guarded by mu
}

func (c *fakeClient) ID() uint64 { return c.id }

func (c *fakeClient) RemoteAddr() string { return fmt.Sprintf("10.0.0.%d", c.id) }

func (c *fakeClient) User() *auth.User {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.user
}

func (c *fakeClient) Renew(u *auth.User) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.user = u
	return true
}

func (c *fakeClient) Expiring(expires, closes time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warnings = append(c.warnings, fmt.Sprintf("after %v: %v left, then %v", time.Since(c.began), time.Until(expires), closes.Sub(expires)))
}

func (c *fakeClient) End(why End) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends = append(c.ends, why)
	c.ended = time.Since(c.began)
}

func (c *fakeClient) said() ([]string, []End, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.warnings, c.ends, c.ended
}

// wantEnd fails unless the connection was ended in that way, once.
func (c *fakeClient) wantEnd(t *testing.T, want ...End) {
	t.Helper()
	if _, ends, _ := c.said(); !slices.Equal(ends, want) {
		t.Errorf("client %d: ended by %v, want %v", c.id, ends, want)
	}
}

// world is a room, and connections, in a bubble.
type world struct {
	*Room
	t       *testing.T
	mu      sync.Mutex
	clients map[uint64]*fakeClient // guarded by mu
}

// newWorld starts a room of a cluster that has v. It ends with the test.
func newWorld(t *testing.T, cfg Config, v vault.Vault) *world {
	t.Helper()
	w := &world{t: t, clients: make(map[uint64]*fakeClient)}
	r, err := New(cfg, Deps{Vault: v, Issuer: "hadal", Log: slog.New(slog.DiscardHandler), Clients: func(yield func(Client) bool) {
		w.mu.Lock()
		list := slices.Collect(maps.Values(w.clients))
		w.mu.Unlock()
		for _, c := range list {
			if !yield(c) {
				return
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.Room = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return w
}

// open logs a connection in as a user.
func (w *world) open(u *auth.User) *fakeClient {
	w.mu.Lock()
	c := &fakeClient{id: uint64(len(w.clients) + 1), user: u, began: time.Now()}
	w.clients[c.id] = c
	w.mu.Unlock()
	w.Opened(c)
	return c
}

// mint makes tokens for a user.
func (w *world) mint(user string) pair {
	w.t.Helper()
	m := w.maker.Load()
	f, err := (&mintRequest{ID: user}).family(m, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := w.families.create(w.t.Context(), m, f)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// login is mint, and a connection by it.
func (w *world) login(user string) (*fakeClient, pair) {
	w.t.Helper()
	p := w.mint(user)
	v := w.judge(p.Token)
	if v.Opinion != auth.Accepted {
		w.t.Fatalf("the login of %s: %+v", user, v)
	}
	return w.open(v.User), p
}

// judge asks about a token.
func (w *world) judge(token string) auth.Verdict {
	w.t.Helper()
	v, err := w.Authenticate(w.t.Context(), &auth.Attempt{Params: fmt.Sprintf(`{"token":%q}`, token)})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func TestAConnectionIsToldAndEndsWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		cfg.AccessTTL, cfg.Grace = 100*time.Second, 7*time.Second
		w := newWorld(t, cfg, vault.NewMemory())
		c, p := w.login("ann")
		forever := w.open(&auth.User{ID: "x", Session: &auth.Session{ID: "x"}})
		plain := w.open(&auth.User{ID: "x"})
		w.Remind(c.id) // not yet
		time.Sleep(75 * time.Second)
		synctest.Wait()
		w.Remind(c.id)
		want := []string{"after 1m15s: 25s left, then 7s", "after 1m15s: 25s left, then 7s"}
		if warnings, ends, _ := c.said(); !slices.Equal(warnings, want) || len(ends) > 0 {
			t.Errorf("was told %q, ended %v; want %q, none", warnings, ends, want)
		}
		time.Sleep(time.Hour)
		c.wantEnd(t, Expired)
		if _, _, after := c.said(); after != 107*time.Second {
			t.Errorf("ended after %v, want 107s", after)
		}
		if v := w.judge(p.Token); v.Reason != `"TOKEN_EXPIRED"` || !v.Uncounted {
			t.Errorf("a login with the token: %+v", v)
		}
		forever.wantEnd(t)
		plain.wantEnd(t)
		if n := w.Stats().Sessions; n != 2 {
			t.Errorf("%d sessions, want the two that have not left", n)
		}
		w.Closed(c)
		w.Closed(forever)
		w.Closed(plain)
		if n := w.Stats().Sessions; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

// The strategy jwt's tokens are not ours, and end all the same, with tokens here or not.
func TestTokensOfOthersExpireToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, DefaultConfig(), vault.NewSlot())
		c := w.open(&auth.User{ID: "ann", Session: &auth.Session{Expires: time.Now().Add(time.Minute)}})
		time.Sleep(time.Minute + w.maker.Load().cfg.Grace)
		synctest.Wait()
		c.wantEnd(t, Expired)
		if v := w.judge("x"); v.Opinion != auth.NoOpinion {
			t.Errorf("a token where there are none: %+v", v)
		}
	})
}

func TestARenewedConnectionGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		cfg.AccessTTL = 20 * time.Second
		w := newWorld(t, cfg, vault.NewMemory())
		c, p := w.login("ann")
		for range 10 {
			time.Sleep(17 * time.Second)
			w.mustExchange(&p)
			was, now, err := w.Renew(t.Context(), c.id, p.Token, w)
			if err != nil || was.ID != "ann" || now != c.User() {
				t.Fatalf("Renew = %v, %v, %v", was, now, err)
			}
		}
		c.wantEnd(t)
		if warnings, _, _ := c.said(); len(warnings) != 10 {
			t.Errorf("was told %d times, want 10", len(warnings))
		}
		other := w.mint("bob")
		for token, want := range map[string]error{other.Token: ErrNotRenewable, "x": ErrInvalid} {
			if _, _, err := w.Renew(t.Context(), c.id, token, w); !errors.Is(err, want) {
				t.Errorf("Renew: got %v, want %v", err, want)
			}
		}
		if _, _, err := w.Renew(t.Context(), w.open(&auth.User{ID: "ann"}).id, p.Token, w); !errors.Is(err, ErrNotRenewable) {
			t.Errorf("a connection without a token: %v", err)
		}
		time.Sleep(time.Minute)
		c.wantEnd(t, Expired)
		if _, _, err := w.Renew(t.Context(), c.id, p.Token, w); !errors.Is(err, ErrExpired) {
			t.Errorf("with a token that has expired: %v", err)
		}
	})
}

// mustExchange refreshes p.
func (w *world) mustExchange(p *pair) {
	w.t.Helper()
	got, err := w.refresh(p.RefreshToken)
	if err != nil {
		w.t.Fatal(err)
	}
	*p = got
}

// refresh is an exchange.
func (w *world) refresh(text string) (pair, error) {
	w.t.Helper()
	token, ok := parseRefresh(text)
	if !ok {
		w.t.Fatalf("%q is no refresh token", text)
	}
	got, err := w.families.exchange(w.t.Context(), w.maker.Load(), token, w.judgeFamily)
	return got.pair, err
}

func TestOnlyOurTokensAreJudgedAndOnlyForTheirUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig(hmacKey("a")), vault.NewMemory())
		p := w.mint("ann")
		for _, c := range []struct {
			attempt auth.Attempt
			want    auth.Opinion
		}{
			{auth.Attempt{Params: `{}`}, auth.NoOpinion},
			{auth.Attempt{Params: `[]`}, auth.NoOpinion},
			{auth.Attempt{Params: `{"username":"ann","password":"x"}`}, auth.NoOpinion},
			{auth.Attempt{Params: `{"token":1}`}, auth.NoOpinion},
			{auth.Attempt{Params: `{"token":"x.y.z"}`}, auth.NoOpinion},
			{auth.Attempt{Params: `{"token":"x","token":"` + p.Token + `"}`}, auth.Accepted},
			{auth.Attempt{Params: `{"username":"ann","token":"` + p.Token + `"}`}, auth.Accepted},
			{auth.Attempt{Params: `{"username":"bob","token":"` + p.Token + `"}`}, auth.Refused},
			{auth.Attempt{Params: `{}`, Token: p.Token}, auth.Accepted},
			{auth.Attempt{Params: `{}`, Token: p.Token + "x"}, auth.Refused},
		} {
			v, err := w.Authenticate(t.Context(), &c.attempt)
			if err != nil || v.Opinion != c.want {
				t.Errorf("%.60s: got %+v, %v, want %v", c.attempt.Params, v, err, c.want)
			}
		}
	})
}

func TestRevocationsReachWhomTheyConcern(t *testing.T) {
	const ann, again, bob, other = 0, 1, 2, 3 // connections: ann's two, bob's, and one of another node
	for name, c := range map[string]struct {
		request func(annID string, issued time.Time) revokeRequest
		ends    []int
	}{
		"one token": {func(id string, _ time.Time) revokeRequest { return revokeRequest{JTI: id} }, []int{ann}},
		"a user":    {func(string, time.Time) revokeRequest { return revokeRequest{ID: "ann"} }, []int{ann, again, other}},
		"a user before": {func(_ string, at time.Time) revokeRequest {
			m := moment(at)
			return revokeRequest{ID: "ann", Before: &m}
		}, []int{ann}},
		"everybody before":   {func(_ string, at time.Time) revokeRequest { m := moment(at); return revokeRequest{Before: &m} }, []int{ann}},
		"somebody who's not": {func(string, time.Time) revokeRequest { return revokeRequest{ID: "cy"} }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := vault.NewMemory()
				here, there := newWorld(t, testConfig(hmacKey("a")), v), newWorld(t, testConfig(hmacKey("a")), v)
				first, p := here.login("ann")
				issued := first.user.Session.Issued
				time.Sleep(10 * time.Millisecond)
				clients := []*fakeClient{ann: first}
				for _, user := range []string{"ann", "bob"} {
					c, _ := here.login(user)
					clients = append(clients, c)
				}
				elsewhere, _ := there.login("ann")
				clients = append(clients, elsewhere)
				q := c.request(first.user.Session.ID, issued)
				key, before, err := q.key(time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if err := here.revoke(t.Context(), key, before, time.Hour); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				for i, client := range clients {
					if slices.Contains(c.ends, i) {
						client.wantEnd(t, Revoked)
					} else {
						client.wantEnd(t)
					}
				}
				if slices.Contains(c.ends, ann) {
					if v := there.judge(p.Token); v.Reason != `"TOKEN_REVOKED"` || !v.Uncounted {
						t.Errorf("a login with a revoked token: %+v", v)
					}
					if _, err := there.refresh(p.RefreshToken); !errors.Is(err, ErrRevoked) {
						t.Errorf("a refresh of a revoked token: %v", err)
					}
				}
				// And back.
				if err := v.Delete(t.Context(), key, 0); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if v := there.judge(p.Token); v.Opinion != auth.Accepted {
					t.Errorf("a login when it was taken back: %+v", v)
				}
				if _, err := here.refresh(p.RefreshToken); err != nil {
					t.Errorf("a refresh when it was taken back: %v", err)
				}
			})
		})
	}
}

func TestATokenMadeAfterARevocationIsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig(hmacKey("a")), vault.NewMemory())
		c, _ := w.login("ann")
		if err := w.revoke(t.Context(), revokedUsers+vault.Segment("ann"), time.Now(), time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond) // of the bubble
		again, _ := w.login("ann")
		time.Sleep(time.Second)
		synctest.Wait()
		c.wantEnd(t, Revoked)
		again.wantEnd(t)
	})
}

func TestAKickClosesWhatIsThereOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		here, there := newWorld(t, testConfig(hmacKey("a")), v), newWorld(t, testConfig(hmacKey("a")), v)
		a, _ := here.login("ann/1")
		b := there.open(&auth.User{ID: "ann/1"}) // without a token
		c, _ := there.login("bob")
		kick := func() {
			t.Helper()
			if err := here.revoke(t.Context(), revokedKick+vault.Segment("ann/1"), time.Now(), time.Hour); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		kick()
		a.wantEnd(t, Kicked)
		b.wantEnd(t, Kicked)
		c.wantEnd(t)
		back, _ := there.login("ann/1")
		time.Sleep(time.Minute)
		back.wantEnd(t)
		kick()
		back.wantEnd(t, Kicked)
		late := newWorld(t, testConfig(hmacKey("a")), v)
		d, _ := late.login("ann/1")
		time.Sleep(time.Minute)
		d.wantEnd(t)
	})
}

// cuttable is a vault whose watches can be cut off.
type cuttable struct {
	vault.Vault
	mu   sync.Mutex
	cut  chan struct{} // closed to cut; guarded by mu
	heal chan struct{} // closed to heal; guarded by mu
}

func newCuttable(v vault.Vault) *cuttable {
	return &cuttable{Vault: v, cut: make(chan struct{}), heal: make(chan struct{})}
}

func (c *cuttable) Watch(ctx context.Context, prefix string, w vault.Watcher) error {
	for {
		c.mu.Lock()
		cut, heal := c.cut, c.heal
		c.mu.Unlock()
		inner, stop := context.WithCancel(ctx)
		release := context.AfterFunc(ctx, stop)
		go func() {
			select {
			case <-cut:
				stop()
			case <-inner.Done():
			}
		}()
		err := c.Vault.Watch(inner, prefix, w)
		stop()
		release()
		if ctx.Err() != nil {
			return err
		}
		w.Lost(errors.New("cut"))
		select {
		case <-heal:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *cuttable) cutOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cut)
}

func (c *cuttable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = make(chan struct{})
	close(c.heal)
	c.heal = make(chan struct{})
}

func TestANodeThatIsCutOffForLongTakesNoTokensUntilItHasCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		cut := newCuttable(v)
		cfg := testConfig(hmacKey("a"))
		cfg.AccessTTL, cfg.OfflineGrace = time.Hour, 30*time.Second
		here, there := newWorld(t, cfg, cut), newWorld(t, cfg, v)
		a, p := here.login("ann")
		b, revoked := here.login("bob")
		foreign := here.open(&auth.User{ID: "cy", Session: &auth.Session{Expires: time.Now().Add(time.Hour)}})

		// For a moment nobody notices.
		cut.cutOff()
		time.Sleep(20 * time.Second)
		if v := here.judge(p.Token); v.Opinion != auth.Accepted {
			t.Errorf("a login within the grace: %+v", v)
		}
		cut.mend()
		time.Sleep(time.Minute)
		a.wantEnd(t)

		cut.cutOff()
		synctest.Wait()
		if err := there.revoke(t.Context(), revokedUsers+vault.Segment("bob"), time.Now(), time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		a.wantEnd(t, Unknown)
		b.wantEnd(t, Unknown)
		foreign.wantEnd(t)
		if here.Stats().Knows {
			t.Error("it says that it knows what is revoked")
		}
		_, err := here.Authenticate(t.Context(), &auth.Attempt{Token: p.Token})
		if !errors.Is(err, auth.ErrBusy) {
			t.Errorf("a login while it is cut off: %v", err)
		}
		// Who waits is let in when it has caught up.
		got := make(chan auth.Verdict, 1)
		go func() {
			v, err := here.Authenticate(t.Context(), &auth.Attempt{Token: p.Token})
			if err != nil {
				t.Error(err)
			}
			got <- v
		}()
		synctest.Wait()
		cut.mend()
		if v := <-got; v.Opinion != auth.Accepted {
			t.Errorf("a login that waited: %+v", v)
		}
		if v := here.judge(revoked.Token); v.Reason != `"TOKEN_REVOKED"` {
			t.Errorf("what was revoked meanwhile: %+v", v)
		}
		// What is taken back while it is cut off is forgotten.
		cut.cutOff()
		synctest.Wait()
		if err := v.Delete(t.Context(), revokedUsers+vault.Segment("bob"), 0); err != nil {
			t.Fatal(err)
		}
		cut.mend()
		synctest.Wait()
		if v := here.judge(revoked.Token); v.Opinion != auth.Accepted {
			t.Errorf("what was taken back meanwhile: %+v", v)
		}
	})
}

func TestANodeThatHasJustStartedLetsLoginsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slot, v := vault.NewSlot(), vault.NewMemory()
		other := newWorld(t, testConfig(hmacKey("a")), v)
		p := other.mint("ann")
		w := newWorld(t, testConfig(hmacKey("a")), slot)
		_, err := w.Authenticate(t.Context(), &auth.Attempt{Token: p.Token})
		if !errors.Is(err, auth.ErrBusy) {
			t.Errorf("before the vault is there: %v", err)
		}
		slot.Put(v)
		if v := w.judge(p.Token); v.Opinion != auth.Accepted {
			t.Errorf("after: %+v", v)
		}
	})
}

func TestManySessionsCostNothingWhileNothingIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig(hmacKey("a")), vault.NewMemory())
		const many = 10_000
		expires := time.Now().Add(24 * time.Hour)
		clients := make([]*fakeClient, many)
		for i := range clients {
			clients[i] = w.open(&auth.User{ID: "ann", Session: &auth.Session{ID: "x", Issued: time.Now(), Expires: expires.Add(time.Duration(i%97) * time.Second)}})
		}
		time.Sleep(23 * time.Hour) // of the bubble: 1380 looks at the head of the heap
		for i := range many / 2 {
			w.Closed(clients[i])
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		for i, c := range clients {
			if i < many/2 {
				c.wantEnd(t)
				continue
			}
			c.wantEnd(t, Expired)
		}
	})
}
