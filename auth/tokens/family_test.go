package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth/vault"
)

func TestARefreshTokenIsExchangedAndAnOldOneEndsTheFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		here, there := newWorld(t, testConfig(hmacKey("a")), v), newWorld(t, testConfig(hmacKey("a")), v)
		c, first := here.login("ann")
		p := first
		for range 3 {
			time.Sleep(time.Minute)
			old := p
			there.mustExchange(&p)
			if p.RefreshToken == old.RefreshToken || p.Token == old.Token {
				t.Fatal("the exchange gave the same token")
			}
		}
		// One that never was any says nothing about the family.
		made, _ := parseRefresh(p.RefreshToken)
		made.secret = random(secretSize)
		if _, err := here.refresh(made.String()); !errors.Is(err, errNoFamily) {
			t.Errorf("a refresh token that was made up: %v", err)
		}
		if status, _ := post(t, here, PathRefresh, "", `{"refreshToken":"`+first.RefreshToken+`"}`); status != 401 {
			t.Errorf("an old refresh token: %d", status)
		}
		if _, err := there.refresh(p.RefreshToken); !errors.Is(err, errNoFamily) {
			t.Errorf("the family goes on: %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		c.wantEnd(t, Revoked)
		if v := there.judge(p.Token); v.Reason != `"TOKEN_REVOKED"` {
			t.Errorf("its last access token: %+v", v)
		}
		if n := here.Stats().Replayed; n != 1 {
			t.Errorf("%d replays are counted, want 1", n)
		}
	})
}

func TestARetryGetsTheSameAnswerForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig(hmacKey("a")), vault.NewMemory())
		first := w.mint("ann")
		second := first
		w.mustExchange(&second)
		time.Sleep(retryWindow - time.Millisecond)
		again := first
		w.mustExchange(&again)
		if again != second {
			t.Errorf("the answer was %+v, and then %+v", second, again)
		}
		time.Sleep(time.Millisecond)
		if _, err := w.refresh(first.RefreshToken); !errors.Is(err, errReplayed) {
			t.Errorf("after the window: %v", err)
		}
		// Two steps back is no retry, however soon.
		third := second
		w.mustExchange(&third)
		w.mustExchange(&third)
		if _, err := w.refresh(second.RefreshToken); !errors.Is(err, errReplayed) {
			t.Errorf("two steps back: %v", err)
		}
	})
}

func TestOfManyThatRefreshAtOnceAllGetTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		nodes := []*world{newWorld(t, testConfig(hmacKey("a")), v), newWorld(t, testConfig(hmacKey("a")), v)}
		p := nodes[0].mint("ann")
		for range 5 {
			time.Sleep(time.Minute)
			answers := make([]pair, 20)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					var err error
					if answers[i], err = nodes[i%2].refresh(p.RefreshToken); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for _, a := range answers {
				if a != answers[0] {
					t.Fatalf("one got %+v, another one %+v", answers[0], a)
				}
			}
			p = answers[0]
		}
	})
}

func TestAFamilyThatIsNotUsedEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		cfg.RefreshTTL = time.Hour
		v := vault.NewMemory()
		w := newWorld(t, cfg, v)
		p := w.mint("ann")
		for range 3 { // used, it goes on
			time.Sleep(59 * time.Minute)
			w.mustExchange(&p)
		}
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if _, err := w.refresh(p.RefreshToken); !errors.Is(err, errNoFamily) {
			t.Errorf("after its time: %v", err)
		}
		if err := v.List(t.Context(), familyPrefix, func(e vault.Entry) error { return errors.New(e.Key) }); err != nil {
			t.Errorf("an entry is left: %v", err)
		}
	})
}

// What lies in the vault is not enough to refresh.
func TestTheVaultHoldsNoRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vault.NewMemory()
		w := newWorld(t, testConfig(hmacKey("a")), v)
		p := w.mint("ann")
		w.mustExchange(&p)
		token, _ := parseRefresh(p.RefreshToken)
		entry, err := v.Get(t.Context(), familyPrefix+token.family)
		if err != nil {
			t.Fatal(err)
		}
		var f family
		if err := json.Unmarshal(entry.Value, &f); err != nil {
			t.Fatal(err)
		}
		for name, secret := range map[string][]byte{
			"the current digest": f.Current, "the previous digest": f.Previous, "the salt": f.Salt, "one step from the digest": mac(f.Previous, f.Salt),
		} {
			if _, err := w.refresh(f.token(token.family, secret).String()); err == nil {
				t.Errorf("%s is a refresh token", name)
			}
		}
		_, secret, _ := strings.Cut(strings.TrimPrefix(p.RefreshToken, refreshPrefix+"."), ".")
		if strings.Contains(string(entry.Value), secret[:20]) || strings.Contains(string(entry.Value), p.Token) {
			t.Error("a token lies in the vault")
		}
	})
}

// behind is a vault whose reads are behind its writes for a moment.
type behind struct {
	vault.Vault
	mu    sync.Mutex
	old   vault.Entry // guarded by mu
	until time.Time   // guarded by mu
}

func (b *behind) Get(ctx context.Context, key string) (vault.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Now().Before(b.until) {
		return b.old, nil
	}
	return b.Vault.Get(ctx, key)
}

func (b *behind) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !time.Now().Before(b.until) {
		var err error
		if b.old, err = b.Vault.Get(ctx, key); err != nil {
			return 0, err
		}
		b.until = time.Now().Add(200 * time.Millisecond)
	}
	return b.Vault.Update(ctx, key, value, revision, ttl)
}

func TestARaceIsWaitedOutWhereReadsAreBehindWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig(hmacKey("a")), &behind{Vault: vault.NewMemory()})
		p := w.mint("ann")
		answers := make([]pair, 2)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				var err error
				if answers[i], err = w.refresh(p.RefreshToken); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if answers[0] != answers[1] {
			t.Errorf("one got %+v, the other %+v", answers[0], answers[1])
		}
	})
}

// What was handed out while tokens lived longer outlives a revocation of today, unless
// that is remembered for as long; whichever node revokes, and whatever is configured later.
func TestARevocationOutlivesTokensOfAFormerConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		long, short := testConfig(hmacKey("a")), testConfig(hmacKey("a"))
		long.RefreshTTL, long.AccessTTL, short.RefreshTTL = 30*day, 20*day, time.Hour
		v := vault.NewMemory()
		first := newWorld(t, long, v)
		time.Sleep(29 * day) // what is noted is renewed
		ann, bob := first.mint("ann"), first.mint("bob")
		time.Sleep(2 * day)
		p := first.mint("eve")
		for range 2 {
			first.mustExchange(&ann)
		}
		if err := first.Reload(short); err != nil {
			t.Fatal(err)
		}
		second := newWorld(t, short, v) // and has minted nothing
		for user, w := range map[string]*world{"ann": first, "eve": second} {
			if status, _ := post(t, w, PathRevoke, short.APISecret, `{"id":"`+user+`"}`); status != 200 {
				t.Fatalf("revoking is answered %d", status)
			}
		}
		time.Sleep(2 * time.Hour)
		for _, w := range []*world{first, second} {
			for range 2 {
				for name, pair := range map[string]pair{"ann": ann, "eve": p} {
					if _, err := w.refresh(pair.RefreshToken); !errors.Is(err, ErrRevoked) {
						t.Errorf("the family of %s goes on: %v", name, err)
					}
				}
				if err := w.Reload(long); err != nil {
					t.Fatal(err)
				}
			}
			for name, token := range map[string]string{"ann": ann.Token, "eve": p.Token} {
				if v := w.judge(token); v.Reason != `"TOKEN_REVOKED"` {
					t.Errorf("the access token of %s: %+v", name, v)
				}
			}
		}
		first.mustExchange(&bob) // who is not revoked
		time.Sleep(31 * day)
		synctest.Wait()
		if n := first.Stats().Revocations; n != 0 {
			t.Errorf("%d revocations stay for good", n)
		}
		time.Sleep(30 * day)
		if n, _ := v.Size(); n != 0 {
			t.Errorf("%d entries of the vault stay for good", n)
		}
	})
}

// A family is judged by when it was made, and each exchange gives it a whole life more. So
// how long ago the time is that is named says nothing of how long the revocation has to last.
func TestARevocationUpToLongAgoOutlivesFamiliesThatAreInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		cfg.RefreshTTL = 30 * time.Hour
		v := vault.NewMemory()
		w := newWorld(t, cfg, v)
		ann, bob := w.mint("ann"), w.mint("bob")
		for range 2 {
			time.Sleep(25 * time.Hour)
			w.mustExchange(&ann)
			w.mustExchange(&bob)
		}
		time.Sleep(time.Minute)
		later := w.mint("ann")
		for user, ago := range map[string]time.Duration{"ann": 10 * time.Hour, "bob": 40 * time.Hour} { // within a life, and beyond it
			body := fmt.Sprintf(`{"id":%q,"before":%d}`, user, time.Now().Add(-ago).UnixMilli())
			if status, answer := post(t, w, PathRevoke, cfg.APISecret, body); status != 200 {
				t.Fatalf("revoking is answered %d %v", status, answer)
			}
		}
		for _, after := range []time.Duration{0, 30*time.Hour - 2*time.Minute} { // the latter a minute before the families end by themselves
			time.Sleep(after)
			synctest.Wait()
			for user, p := range map[string]pair{"ann": ann, "bob": bob} {
				if _, err := w.refresh(p.RefreshToken); !errors.Is(err, ErrRevoked) {
					t.Errorf("%v later, the family of %s: %v", after, user, err)
				}
			}
			w.mustExchange(&later) // made after the time that was named
		}
		time.Sleep(31 * time.Hour)
		synctest.Wait()
		if n := w.Stats().Revocations; n != 0 {
			t.Errorf("%d revocations stay for good", n)
		}
	})
}
