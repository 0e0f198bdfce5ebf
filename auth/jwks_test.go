package auth

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
)

// jwk is a key of a set, public unless it is a secret.
func jwk(t *testing.T, kid, alg string, key any, use string) json.RawMessage {
	t.Helper()
	if s, ok := key.(crypto.Signer); ok {
		key = s.Public()
	}
	_, isSecret := key.([]byte)
	k, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: kid, ALG: jwkset.ALG(alg), USE: jwkset.USE(use)},
		Marshal:  jwkset.JWKMarshalOptions{Private: isSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keyServer serves a set that can be changed.
type keyServer struct {
	url   string
	asked atomic.Int32
	mu    sync.Mutex
	text  string // guarded by mu; empty answers 500
}

func newKeyServer(t *testing.T, keys ...json.RawMessage) *keyServer {
	s := &keyServer{}
	s.serve(keys...)
	s.url = server(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked.Add(1)
		if s.text == "" {
			w.WriteHeader(500)
			return
		}
		_, _ = w.Write([]byte(s.text))
	})
	return s
}

func (s *keyServer) serve(keys ...json.RawMessage) {
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err) // they were marshalled before
	}
	s.say(string(b))
}

func (s *keyServer) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
}

// forget has a set loaded again when a token names an unknown key, as if time had passed.
func forget(j *jwtStrategy) {
	j.set.mu.Lock()
	defer j.set.mu.Unlock()
	j.set.lastEnd = time.Now().Add(-reloadPause)
}

// remember has a set not loaded again for a token's sake, however long the test takes.
func remember(j *jwtStrategy) {
	j.set.mu.Lock()
	defer j.set.mu.Unlock()
	j.set.lastEnd = time.Now().Add(time.Hour)
}

func logIn(t *testing.T, j *jwtStrategy, token string) Verdict {
	t.Helper()
	v, err := j.Authenticate(t.Context(), &Attempt{Params: `{"token":"` + token + `"}`})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestKeysOfASetLogIn(t *testing.T) {
	rsa, ec := pairs()["RSA"].private, pairs()["P-256"].private
	s := newKeyServer(t,
		jwk(t, "rs", "RS256", rsa, "sig"), jwk(t, "es", "", ec, ""), jwk(t, "ed", "EdDSA", pairs()["Ed25519"].private, "sig"),
		jwk(t, "enc", "", pairs()["RSA2"].private, "enc"), jwk(t, "oct", "HS256", []byte(testSecret), "sig"), json.RawMessage(`{"kty":"???"}`), json.RawMessage(`7`))
	for _, c := range []struct {
		name, token string
		want        Opinion
	}{
		{"its own algorithm", signWith(t, "RS256", "rs", rsa, valid(nil)), Accepted},
		{"another one of the same key", signWith(t, "PS256", "rs", rsa, valid(nil)), Refused},
		{"a key without algorithm", signWith(t, "ES256", "es", ec, valid(nil)), Accepted},
		{"EdDSA", sign(t, "EdDSA", "ed", valid(nil)), Accepted},
		{"no key named", signWith(t, "RS256", "", rsa, valid(nil)), Accepted},
		{"no key named, another algorithm", signWith(t, "PS256", "", rsa, valid(nil)), Refused},
		{"no key named, without algorithm", signWith(t, "ES256", "", ec, valid(nil)), Accepted},
		{"another key named", signWith(t, "RS256", "ed", rsa, valid(nil)), Refused},
		{"a key for encryption", signWith(t, "RS256", "enc", pairs()["RSA2"].private, valid(nil)), Refused},
		{"a key for encryption, not named", signWith(t, "RS256", "", pairs()["RSA2"].private, valid(nil)), Refused},
		{"a secret in the set", sign(t, "HS256", "oct", valid(nil)), Refused},
		{"the public key as secret", signWith(t, "HS256", "rs", []byte(pairs()["RSA"].public), valid(nil)), Refused},
		{"an algorithm that is not listed", signWith(t, "RS512", "rs", rsa, valid(nil)), Refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, _ := newTestJWT(t, Options{JWKSURL: s.url}, true)
			if v := logIn(t, j, c.token); v.Opinion != c.want {
				t.Errorf("got %+v, want %d", v, c.want)
			}
		})
	}
	j, _ := newTestJWT(t, Options{JWKSURL: s.url, Algorithms: []string{"RS256"}}, true)
	if v := logIn(t, j, signWith(t, "ES256", "es", ec, valid(nil))); v.Opinion != Refused {
		t.Errorf("a key without algorithm, and its own is not listed: got %+v, want refused", v)
	}
	both, _ := newTestJWT(t, Options{JWKSURL: s.url, Keys: []JWTKey{keyFor("hs", "HS256")}}, true)
	for _, token := range []string{sign(t, "HS256", "hs", valid(nil)), signWith(t, "RS256", "rs", rsa, valid(nil))} {
		if v := logIn(t, both, token); v.Opinion != Accepted {
			t.Errorf("a set and a key: got %+v, want accepted", v)
		}
	}
}

func TestKeysOfASetRotate(t *testing.T) {
	one, two := pairs()["RSA"].private, pairs()["RSA2"].private
	s := newKeyServer(t, jwk(t, "one", "RS256", one, "sig"))
	j, _ := newTestJWT(t, Options{JWKSURL: s.url}, true)
	old, fresh := signWith(t, "RS256", "one", one, valid(nil)), signWith(t, "RS256", "two", two, valid(nil))
	if v := logIn(t, j, old); v.Opinion != Accepted {
		t.Fatalf("the first key: got %+v", v)
	}
	s.serve(jwk(t, "one", "RS256", one, "sig"), jwk(t, "two", "RS256", two, "sig"))
	remember(j)
	if v := logIn(t, j, fresh); v.Opinion != Refused || s.asked.Load() != 1 {
		t.Errorf("right after a load: got %+v after %d loads, want refused after 1", v, s.asked.Load())
	}
	forget(j)
	for _, token := range []string{fresh, old} {
		if v := logIn(t, j, token); v.Opinion != Accepted || s.asked.Load() != 2 {
			t.Errorf("with both keys: got %+v after %d loads, want accepted after 2", v, s.asked.Load())
		}
	}
	s.serve(jwk(t, "two", "RS256", two, "sig"))
	forget(j)
	logIn(t, j, signWith(t, "RS256", "three", two, valid(nil))) // has the set loaded
	if v := logIn(t, j, old); v.Opinion != Refused {
		t.Errorf("a key that is gone: got %+v, want refused", v)
	}
	for _, text := range []string{"", "rubbish", `{"keys":[]}`, `{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`, strings.Repeat(" ", maxAnswer+1)} {
		s.say(text)
		forget(j)
		before := s.asked.Load()
		logIn(t, j, old)
		if v := logIn(t, j, fresh); v.Opinion != Accepted || s.asked.Load() == before {
			t.Errorf("after a load of %.20q that failed: got %+v, want that the last set counts", text, v)
		}
	}
}

func TestWithoutItsKeysAStrategyRefusesAndThenRecovers(t *testing.T) {
	s := newKeyServer(t)
	s.say("")
	for _, report := range []bool{true, false} {
		s.say("")
		j, log := newTestJWT(t, Options{JWKSURL: s.url}, report)
		token := signWith(t, "RS256", "one", pairs()["RSA"].private, valid(nil))
		for range 3 { // loaded once
			if v := logIn(t, j, token); v.Opinion != Refused || v.Reason != `"TOKEN_KEYS_UNAVAILABLE"` {
				t.Errorf("report %v: got %+v, want refused for want of keys", report, v)
			}
		}
		if !strings.Contains(log.String(), "the keys of tokens cannot be loaded") {
			t.Errorf("the log does not say so: %s", log.String())
		}
		s.serve(jwk(t, "one", "RS256", pairs()["RSA"].private, "sig"))
		forget(j)
		if v := logIn(t, j, token); v.Opinion != Accepted {
			t.Errorf("report %v, with keys: got %+v, want accepted", report, v)
		}
	}
}

func TestASetIsLoadedOnceForAllWhoWait(t *testing.T) {
	s := newKeyServer(t, jwk(t, "one", "RS256", pairs()["RSA"].private, "sig"))
	j, _ := newTestJWT(t, Options{JWKSURL: s.url}, true)
	token := signWith(t, "RS256", "one", pairs()["RSA"].private, valid(nil))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if v := logIn(t, j, token); v.Opinion != Accepted {
				t.Errorf("got %+v, want accepted", v)
			}
		})
	}
	wg.Wait()
	if n := s.asked.Load(); n != 1 {
		t.Errorf("loaded %d times, want once", n)
	}
	remember(j)
	for i := range 50 {
		logIn(t, j, signWith(t, "RS256", fmt.Sprint("unknown", i), pairs()["RSA"].private, valid(nil)))
	}
	if n := s.asked.Load(); n != 1 {
		t.Errorf("loaded %d times for keys that were made up, want that they are not believed", n)
	}
}

func TestASetIsLoadedInTheBackgroundUntilItsStrategyIsReplaced(t *testing.T) {
	s := newKeyServer(t, jwk(t, "one", "RS256", pairs()["RSA"].private, "sig"))
	cfg := []Config{{Type: "jwt", Options: Options{JWKSURL: s.url, JWKSRefresh: time.Second}}}
	a, err := New(cfg, false, Deps{Log: slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	live := NewLive(a)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- live.Run(ctx) }()
	reached := func(n int32) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); s.asked.Load() < n; {
			if time.Now().After(end) {
				t.Fatalf("loaded %d times, want %d", s.asked.Load(), n)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	reached(2)
	b, err := New(cfg, false, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	live.Replace(&fixed{})
	live.Replace(Chain{&fixed{}, b})
	reached(s.asked.Load() + 2)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was told to end", err)
	}
}

func TestLoadsOfASetAreObserved(t *testing.T) {
	s := newKeyServer(t)
	s.say("")
	var got []string
	a, err := New([]Config{{Type: "jwt", Options: Options{JWKSURL: s.url}}}, false, Deps{Observer: Observer{KeySet: func(result string) { got = append(got, result) }}})
	if err != nil {
		t.Fatal(err)
	}
	live := NewLive(Chain{a})
	set := setsOf(a)[0]
	if at, ok := live.KeySetLoaded(); !ok || !at.IsZero() {
		t.Errorf("before it is loaded: %v, %v, want that there is a set and no time", at, ok)
	}
	set.load(t.Context())
	s.serve(jwk(t, "one", "RS256", pairs()["RSA"].private, "sig"))
	before := time.Now()
	set.load(t.Context())
	if !slices.Equal(got, []string{keySetFailed, keySetOK}) {
		t.Errorf("observed %q, want a failure and a success", got)
	}
	if at, ok := live.KeySetLoaded(); !ok || at.Before(before) {
		t.Errorf("it was loaded at %v, %v, want after %v", at, ok, before)
	}
	if _, ok := NewLive(Chain{none{}}).KeySetLoaded(); ok {
		t.Error("strategies without a set have one")
	}
}
