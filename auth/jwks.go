package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// usualRefresh is how often a set is loaded again unless configured, leastRefresh the
	// shortest that can be.
	usualRefresh = 10 * time.Minute
	leastRefresh = time.Second
	// loadLimit is how long loading a set may take.
	loadLimit = 10 * time.Second
	// reloadPause is how long a set is not loaded again, whatever keys tokens name, after
	// it was: anybody can make up names of keys.
	reloadPause = 3 * time.Second
	// maxKeys is how many keys a set may have.
	maxKeys = 64
)

// keySet is a set of public keys at a URL (RFC 7517). It is loaded as long as run runs,
// and when a token names a key that it does not have: whoever issues tokens may have
// changed its key since. While it cannot be loaded, the last one counts.
type keySet struct {
	url        *url.URL
	refresh    time.Duration
	algorithms []string // of keys that do not say theirs
	client     *http.Client
	transport  *http.Transport
	complaints *complaints
	log        *slog.Logger
	observer   Observer // complete

	current atomic.Pointer[loadedKeys] // nil before the first that could be loaded

	ended   context.Context // when run has ended; loads end with it
	end     context.CancelFunc
	running sync.WaitGroup // loads

	mu      sync.Mutex
	loading chan struct{} // closed when the load under way ends; nil without one; guarded by mu
	lastEnd time.Time     // of the last load, guarded by mu
}

// loadedKeys is a set as it was loaded.
type loadedKeys struct {
	byID keyfunc.Keyfunc
	keys []jwkset.JWK
	at   time.Time // when it was loaded
}

// newKeySet checks the options of a set. It loads nothing.
func newKeySet(key string, o *Options, log *slog.Logger) (*keySet, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(key+"."+format, args...)) }
	s := &keySet{refresh: o.JWKSRefresh, algorithms: o.Algorithms, complaints: newComplaints(log), log: log, observer: Observer{}.complete()}
	s.ended, s.end = context.WithCancel(context.Background())
	var err error
	if s.url, err = parseURL(o.JWKSURL); err != nil {
		fail("jwksUrl: %w", err)
	} else if plain(s.url) {
		log.Warn("the keys of tokens are loaded without TLS, so that others may put theirs in: use https", "host", s.url.Host)
	}
	if s.refresh == 0 {
		s.refresh = usualRefresh
	}
	if s.refresh < leastRefresh {
		fail("jwksRefresh: %v is too short: it must be at least %v", s.refresh, leastRefresh)
	}
	if s.algorithms == nil {
		s.algorithms = []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"}
	}
	for _, alg := range s.algorithms {
		switch {
		case !slices.Contains(allAlgorithms, alg):
			fail("algorithms: %q is not one: use %s", alg, strings.Join(allAlgorithms, ", "))
		case strings.HasPrefix(alg, "HS"):
			fail("algorithms: %s has a secret, which does not belong into a set of public keys", alg)
		}
	}
	if s.transport, err = newTransport(key, o.TLS, 2); err != nil {
		errs = append(errs, err)
	}
	s.client = &http.Client{Transport: s.transport, Timeout: loadLimit, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > webhookRedirects || via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return s, errors.Join(errs...)
}

// run loads the set, and again every refresh, until ctx ends. After a failure it is more
// patient from time to time.
func (s *keySet) run(ctx context.Context) {
	defer s.transport.CloseIdleConnections()
	defer s.running.Wait()
	defer func() {
		s.mu.Lock() // so that none begins meanwhile
		defer s.mu.Unlock()
		s.end()
	}()
	wait := leastRefresh
	for {
		next := s.refresh
		if !s.load(ctx) {
			next = min(wait, s.refresh)
			wait = min(2*wait, time.Minute)
		} else {
			wait = leastRefresh
		}
		// Nodes that started together need not come together.
		if !pause(ctx, next-time.Duration(rand.Int64N(int64(next)/8+1))) {
			return
		}
	}
}

// find is the keys that may have signed a token. errNoKeys says that there may be one.
func (s *keySet) find(ctx context.Context, t *jwt.Token, kid string) ([]jwt.VerificationKey, error) {
	if s.current.Load() == nil {
		s.loadSoon(ctx)
	}
	found := s.look(t, kid)
	if len(found) == 0 && s.current.Load() != nil && kid != "" && !s.has(kid) {
		s.loadSoon(ctx)
		found = s.look(t, kid)
	}
	if s.current.Load() == nil {
		return nil, errNoKeys
	}
	return found, nil
}

// has says whether the set has a key of that name, for whatever algorithm.
func (s *keySet) has(kid string) bool {
	return slices.ContainsFunc(s.current.Load().keys, func(k jwkset.JWK) bool { return k.Marshal().KID == kid })
}

// look is find in what is loaded.
func (s *keySet) look(t *jwt.Token, kid string) []jwt.VerificationKey {
	set := s.current.Load()
	if set == nil {
		return nil
	}
	var found []jwt.VerificationKey
	if kid == "" {
		for _, k := range set.keys {
			if public := publicKey(k); s.bound(k, t.Method.Alg(), public) {
				found = append(found, public)
			}
		}
		return found
	}
	public, err := set.byID.Keyfunc(t) // refuses another algorithm than the key's
	if err != nil {
		return nil
	}
	for _, k := range set.keys {
		if k.Marshal().KID == kid && s.bound(k, t.Method.Alg(), public) {
			return append(found, public)
		}
	}
	return nil
}

// bound says whether a key is for an algorithm.
func (s *keySet) bound(k jwkset.JWK, alg string, public any) bool {
	if own := k.Marshal().ALG.String(); own != "" && own != alg || own == "" && !slices.Contains(s.algorithms, alg) {
		return false
	}
	return fits(alg, public) == nil
}

// publicKey is the public half of a key.
func publicKey(k jwkset.JWK) any {
	if private, ok := k.Key().(interface{ Public() crypto.PublicKey }); ok {
		return private.Public()
	}
	return k.Key()
}

// loadSoon has the set loaded, unless it just was, and waits for it or the end of ctx.
func (s *keySet) loadSoon(ctx context.Context) { s.loadAfter(ctx, reloadPause) }

// load loads the set, once for all who ask at the same time, and says whether it could.
// Who waits may go with ctx; the load goes on.
func (s *keySet) load(ctx context.Context) bool { return s.loadAfter(ctx, 0) }

// loadAfter is load, unless the last one ended less than pause ago.
func (s *keySet) loadAfter(ctx context.Context, pause time.Duration) bool {
	s.mu.Lock()
	done := s.loading
	recent := done == nil && !s.lastEnd.IsZero() && time.Since(s.lastEnd) < pause
	if recent || done == nil && s.ended.Err() != nil {
		s.mu.Unlock()
		return false
	}
	if done == nil {
		done = make(chan struct{})
		s.loading = done
		s.running.Go(func() { s.loadOnce(done) }) // ends after loadLimit at the latest
	}
	s.mu.Unlock()
	select {
	case <-done:
		return s.current.Load() != nil
	case <-ctx.Done():
		return false
	}
}

// loadOnce loads the set.
func (s *keySet) loadOnce(done chan struct{}) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.loading, s.lastEnd = nil, time.Now()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(s.ended, loadLimit)
	defer cancel()
	set, err := s.fetch(ctx)
	if s.ended.Err() != nil {
		return // whatever came of it
	}
	if err != nil {
		s.observer.KeySet(keySetFailed)
		s.complaints.tell("the keys of tokens cannot be loaded", "host", s.url.Host, "err", err)
		return
	}
	set.at = time.Now()
	s.current.Store(set)
	s.observer.KeySet(keySetOK)
}

// fetch asks the URL.
func (s *keySet) fetch(ctx context.Context) (*loadedKeys, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), nil)
	if err != nil {
		return nil, errors.New("jwksUrl cannot be asked") // newKeySet has parsed it
	}
	r.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, whyFailed(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	text, err := readAnswer(resp.Body)
	if err != nil {
		return nil, whyFailed(err)
	}
	return s.parse(ctx, text)
}

// parse reads a set. Keys that cannot be used are left out, with a word to the log.
func (s *keySet) parse(ctx context.Context, text []byte) (*loadedKeys, error) {
	var list struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, errors.New("it is no set of keys in JSON")
	}
	if len(list.Keys) > maxKeys {
		return nil, fmt.Errorf("it has %d keys: at most %d are taken", len(list.Keys), maxKeys)
	}
	set := &loadedKeys{}
	store := jwkset.NewMemoryStorage()
	for i, raw := range list.Keys {
		k, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err == nil {
			err = s.usable(k)
		}
		if err != nil {
			s.log.Debug("a key of tokens is left out", "host", s.url.Host, "index", i, "err", err)
			continue
		}
		if err := store.KeyWrite(ctx, k); err != nil {
			return nil, err
		}
		set.keys = append(set.keys, k)
	}
	if len(set.keys) == 0 {
		return nil, errors.New("it has no key that can be used")
	}
	var err error
	set.byID, err = keyfunc.New(keyfunc.Options{Storage: store})
	return set, err
}

// usable says why a key is none for signatures of tokens; nil if it is.
func (s *keySet) usable(k jwkset.JWK) error {
	m := k.Marshal()
	if m.USE != "" && m.USE != jwkset.UseSig {
		return errors.New("it is not for signatures")
	}
	public := publicKey(k)
	var err error
	for _, alg := range allAlgorithms {
		if own := m.ALG.String(); own != "" && own != alg || strings.HasPrefix(alg, "HS") {
			continue
		}
		if err = fits(alg, public); err == nil {
			return nil
		}
	}
	if err == nil {
		err = errors.New("its algorithm is none of those of tokens here")
	}
	return err
}
