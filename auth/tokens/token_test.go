package tokens

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// secret is a key for tests.
const secret = "0123456789abcdef0123456789abcdef"

func privatePEM(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// someKeys has a key of each kind.
func someKeys(t testing.TB) map[string]Key {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]Key)
	for _, k := range []Key{
		{Alg: "HS256", Secret: secret}, {Alg: "HS512", Secret: secret + secret},
		{Alg: "RS256", Key: privatePEM(t, rsaKey)}, {Alg: "PS256", Key: privatePEM(t, rsaKey)},
		{Alg: "ES256", Key: privatePEM(t, p256)}, {Alg: "EdDSA", Key: privatePEM(t, ed)},
	} {
		k.ID = "key of " + k.Alg
		keys[k.Alg] = k
	}
	return keys
}

func testConfig(keys ...Key) Config {
	cfg := DefaultConfig()
	cfg.SigningKeys = keys
	cfg.APISecret = "the secret of the backend, of 32 bytes"
	return cfg
}

func hmacKey(id string) Key { return Key{ID: id, Alg: "HS256", Secret: secret + id} }

func newTestMaker(t testing.TB, cfg Config) *maker {
	t.Helper()
	m, err := newMaker(cfg, "hadal")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testClaims(now time.Time) claims {
	return claims{
		Subject: "ann", ID: "x.1", Family: "x", IssuedAt: now.Unix(), IssuedMillis: now.UnixMilli(), Expires: now.Add(time.Minute).Unix(),
		ServerData: json.RawMessage(`{"role":"admin"}`), ClientData: json.RawMessage(`[1]`),
	}
}

func TestEachKindOfKeySignsAndVerifies(t *testing.T) {
	now := time.Now()
	for alg, key := range someKeys(t) {
		m := newTestMaker(t, testConfig(key))
		text, err := m.sign(testClaims(now))
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		c, err := m.open(text, now)
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		u := c.user()
		if u.ID != "ann" || u.ServerData != `{"role":"admin"}` || u.ClientData != `[1]` || u.Session.ID != "x.1" || !u.Session.Ours {
			t.Errorf("%s: got %+v", alg, u)
		}
		if _, err := m.open(text, now.Add(2*time.Minute)); !errors.Is(err, ErrExpired) {
			t.Errorf("%s: after its time: %v", alg, err)
		}
	}
}

func TestKeysThatCannotBeUsedAreRefused(t *testing.T) {
	keys := someKeys(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := privatePEM(t, small)
	dir := t.TempDir()
	named := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(named, []byte(keys["ES256"].Key), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  Key
		want string // empty: fine
	}{
		{Key{ID: "a", Alg: "ES256", Key: named}, ""},
		{Key{Alg: "HS256", Secret: secret}, "signingKeys[0].id: is missing"},
		{Key{ID: "a", Alg: "none"}, `signingKeys[0].alg: "none"`},
		{Key{ID: "a", Alg: "hs256", Secret: secret}, `signingKeys[0].alg: "hs256"`},
		{Key{ID: "a", Alg: "HS256", Secret: "short"}, `signingKeys[0].secret: that of key "a" is missing or too short`},
		{Key{ID: "a", Alg: "HS256", Secret: secret[1:]}, "HS256 needs at least 32 random characters (openssl rand -hex 32)"},
		{Key{ID: "a", Alg: "HS384", Secret: secret + secret[:15]}, "HS384 needs at least 48"},
		{Key{ID: "a", Alg: "HS512", Secret: secret + secret[1:]}, "HS512 needs at least 64"},
		{Key{ID: "a", Alg: "RS256", Key: weak}, `signingKeys[0].key: that of key "a" has 1024 bits`},
		{Key{ID: "a", Alg: "PS512", Key: weak}, "make one of at least 2048 (openssl genrsa 3072)"},
		{Key{ID: "a", Alg: "HS256", Secret: secret, Key: keys["RS256"].Key}, "signingKeys[0].key: HS256 has a secret"},
		{Key{ID: "a", Alg: "RS256", Secret: secret}, "signingKeys[0].secret: RS256 has a private key"},
		{Key{ID: "a", Alg: "RS256"}, "signingKeys[0].key: is missing"},
		{Key{ID: "a", Alg: "RS256", Key: keys["ES256"].Key}, "signingKeys[0].key: is no private key for RS256"},
		{Key{ID: "a", Alg: "ES384", Key: keys["ES256"].Key}, "signingKeys[0].key: does not fit ES384"},
		{Key{ID: "a", Alg: "ES256", Key: filepath.Join(dir, "none")}, "signingKeys[0].key: neither"},
	} {
		err := testConfig(c.key).Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.key.Alg, err, c.want)
		}
	}
	if err := testConfig(hmacKey("a"), hmacKey("a")).Validate(); err == nil {
		t.Error("two keys have one id")
	}
	short := testConfig(hmacKey("a"))
	short.APISecret = short.APISecret[:31]
	if err := short.Validate(); err == nil || !strings.HasPrefix(err.Error(), "apiSecret: is too short: use at least 32") {
		t.Errorf("an API secret of 31 bytes: %v", err)
	}
}

// forged is a token with a header and a signature of one's choice.
func forged(t *testing.T, header string, c claims, sign func(text string) []byte) string {
	t.Helper()
	body, err := json.Marshal(&c)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(body)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

func TestTokensThatAreNoneAreRefused(t *testing.T) {
	now := time.Now()
	keys := someKeys(t)
	m := newTestMaker(t, testConfig(keys["RS256"], keys["HS256"]))
	ring := m.keys.byID
	public, err := x509.MarshalPKIXPublicKey(ring[keys["RS256"].ID].verifies)
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	hs := func(key []byte) func(string) []byte {
		return func(text string) []byte {
			b, err := jwt.SigningMethodHS256.Sign(text, key)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	none := func(string) []byte { return nil }
	c := testClaims(now)
	c.Issuer, c.Audience = "hadal", "hadal"
	with := func(change func(*claims)) claims {
		d := c
		change(&d)
		return d
	}
	const hsHeader, rsID = `{"alg":"HS256","kid":"key of HS256"}`, `"kid":"key of RS256"`
	good := forged(t, hsHeader, c, hs([]byte(secret)))
	if _, err := m.open(good, now); err != nil {
		t.Fatalf("the one that is good: %v", err)
	}
	for name, tc := range map[string]struct {
		text string
		want error
	}{
		"empty":                      {"", errForeign},
		"no token":                   {"a.b.c", errForeign},
		"of another issuer":          {forged(t, hsHeader, with(func(c *claims) { c.Issuer = "x" }), hs([]byte(secret))), errForeign},
		"for another audience":       {forged(t, hsHeader, with(func(c *claims) { c.Audience = "x" }), hs([]byte(secret))), ErrInvalid},
		"alg none":                   {forged(t, `{"alg":"none",`+rsID+`}`, c, none), ErrInvalid},
		"alg None":                   {forged(t, `{"alg":"None",`+rsID+`}`, c, none), ErrInvalid},
		"public key as HMAC secret":  {forged(t, `{"alg":"HS256",`+rsID+`}`, c, hs(publicPEM)), ErrInvalid},
		"PS with a key for RS":       {forged(t, `{"alg":"PS256",`+rsID+`}`, c, none), ErrInvalid},
		"of a key that is not here":  {forged(t, `{"alg":"HS256","kid":"x"}`, c, hs([]byte(secret))), ErrInvalid},
		"without a kid":              {forged(t, `{"alg":"HS256"}`, c, hs([]byte(secret))), ErrInvalid},
		"kid that is no text":        {forged(t, `{"alg":"HS256","kid":1}`, c, hs([]byte(secret))), ErrInvalid},
		"wrong signature":            {forged(t, hsHeader, c, hs([]byte(secret+"x"))), ErrInvalid},
		"no user":                    {forged(t, hsHeader, with(func(c *claims) { c.Subject = "" }), hs([]byte(secret))), ErrInvalid},
		"the server's user":          {forged(t, hsHeader, with(func(c *claims) { c.Subject = "hadal/x" }), hs([]byte(secret))), ErrInvalid},
		"no id":                      {forged(t, hsHeader, with(func(c *claims) { c.ID = "" }), hs([]byte(secret))), ErrInvalid},
		"cut off":                    {good[:len(good)-3], ErrInvalid},
		"longer than any may live":   {forged(t, hsHeader, with(func(c *claims) { c.IssuedMillis = 1000; c.Expires = now.Add(time.Hour).Unix() }), hs([]byte(secret))), ErrExpired},
		"too long to be looked into": {good + strings.Repeat("x", maxToken), errForeign},
	} {
		if _, err := m.open(tc.text, now); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func TestATokenOutlivesTheExchangeOfItsKey(t *testing.T) {
	now := time.Now()
	old := newTestMaker(t, testConfig(hmacKey("old")))
	both := newTestMaker(t, testConfig(hmacKey("new"), hmacKey("old")))
	only := newTestMaker(t, testConfig(hmacKey("new")))
	text, err := old.sign(testClaims(now))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := both.open(text, now); err != nil {
		t.Errorf("while both keys are there: %v", err)
	}
	if _, err := only.open(text, now); !errors.Is(err, ErrInvalid) {
		t.Errorf("when its key has gone: %v", err)
	}
	if text, err = both.sign(testClaims(now)); err != nil {
		t.Fatal(err)
	}
	if _, err := only.open(text, now); err != nil {
		t.Errorf("the first key does not sign: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	m := newTestMaker(f, testConfig(hmacKey("a")))
	now := time.UnixMilli(1_700_000_000_000) // the same in every process
	good, err := m.sign(testClaims(now))
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", good, "a.b.c", good + "=", strings.Replace(good, ".", "..", 1), "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := m.open(text, now)
		if err == nil && (text != good || c.Subject != "ann") {
			t.Errorf("%q was taken, as %+v", text, c)
		}
	})
}

func FuzzParseRefresh(f *testing.F) {
	fam := family{TagKey: random(secretSize)}
	for _, s := range []string{"", "hr1..", fam.token(newID(), random(secretSize)).String(), "hr1." + strings.Repeat("a", idLen) + ".!"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if token, ok := parseRefresh(text); ok && token.String() != text {
			t.Errorf("%q was read as %q", text, token)
		}
	})
}
