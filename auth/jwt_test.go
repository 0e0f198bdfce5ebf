package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/golang-jwt/jwt/v5"
)

// testSecret is long enough for every HS algorithm.
var testSecret = strings.Repeat(secretText, 8)

// pair is a key of each kind, made once.
type pair struct {
	private crypto.Signer
	public  string // PEM
}

var pairs = sync.OnceValue(func() map[string]pair {
	m := make(map[string]pair)
	add := func(name string, key crypto.Signer, err error) {
		if err != nil {
			panic(err)
		}
		m[name] = pair{key, publicPEM(key.Public())}
	}
	for _, name := range []string{"RSA", "RSA2"} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		add(name, key, err)
	}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(name, key, err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	add("Ed25519", key, err)
	return m
})

func publicPEM(key any) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// kindOf is the kind of key that an algorithm needs.
func kindOf(alg string) string {
	switch alg[:2] {
	case "RS", "PS":
		return "RSA"
	case "Ed":
		return "Ed25519"
	}
	return map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[alg]
}

// keyFor is a key of the options for an algorithm.
func keyFor(id, alg string) JWTKey {
	if strings.HasPrefix(alg, "HS") {
		return JWTKey{ID: id, Alg: alg, Secret: testSecret}
	}
	return JWTKey{ID: id, Alg: alg, Key: pairs()[kindOf(alg)].public}
}

// sign makes a token. kid may be empty.
func sign(t *testing.T, alg, kid string, claims jwt.MapClaims) string {
	t.Helper()
	if strings.HasPrefix(alg, "HS") {
		return signWith(t, alg, kid, []byte(testSecret), claims)
	}
	return signWith(t, alg, kid, pairs()[kindOf(alg)].private, claims)
}

func signWith(t *testing.T, alg, kid string, key any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valid are the claims of a token for egon, with changes; nil removes one.
func valid(changes jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "egon", "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range changes {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

func newTestJWT(t *testing.T, o Options, report bool) (*jwtStrategy, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	j, err := newJWT("auth[0].options", &o, report, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	return j, &log
}

func TestOptionsOfJWTAreChecked(t *testing.T) {
	private, err := x509.MarshalPKCS8PrivateKey(pairs()["RSA"].private)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	leeway := time.Hour
	hs := JWTKey{ID: "a", Alg: "HS256", Secret: testSecret}
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"no key", Options{}, "o.keys: is empty"},
		{"no alg", Options{Keys: []JWTKey{{Secret: testSecret}}}, `o.keys[0].alg: "" is not an algorithm`},
		{"alg none", Options{Keys: []JWTKey{{Alg: "none"}}}, `o.keys[0].alg: "none" is not an algorithm`},
		{"no secret", Options{Keys: []JWTKey{{Alg: "HS256"}}}, "o.keys[0].secret: is missing"},
		{"a short secret", Options{Keys: []JWTKey{{Alg: "HS512", Secret: testSecret[:63]}}}, "o.keys[0].secret: is shorter than the 64 bytes"},
		{"a public key as secret", Options{Keys: []JWTKey{{Alg: "HS256", Secret: pairs()["RSA"].public}}}, "o.keys[0].secret: is a key in PEM"},
		{"a key for HS", Options{Keys: []JWTKey{{Alg: "HS256", Key: pairs()["RSA"].public}}}, "o.keys[0].alg: HS256 has a secret"},
		{"a secret for RS", Options{Keys: []JWTKey{{Alg: "RS256", Secret: testSecret}}}, "o.keys[0].secret: is for HS algorithms"},
		{"no public key", Options{Keys: []JWTKey{{Alg: "RS256"}}}, "o.keys[0].key: is missing"},
		{"two public keys", Options{Keys: []JWTKey{{Alg: "RS256", Key: "x", KeyFile: "y"}}}, "o.keys[0].keyFile: key is set as well"},
		{"no PEM", Options{Keys: []JWTKey{{Alg: "RS256", Key: secretText}}}, "o.keys[0].key: is not in PEM"},
		{"no file", Options{Keys: []JWTKey{{Alg: "RS256", KeyFile: "/nowhere/k.pem"}}}, "o.keys[0].keyFile: open /nowhere/k.pem"},
		{"a private key", Options{Keys: []JWTKey{{Alg: "RS256", Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))}}}, "o.keys[0].key: is a private key"},
		{"another block", Options{Keys: []JWTKey{{Alg: "RS256", Key: "-----BEGIN X-----\nAAAA\n-----END X-----"}}}, `o.keys[0].key: is a PEM block of type "X"`},
		{"a small key", Options{Keys: []JWTKey{{Alg: "PS256", Key: publicPEM(small.Public())}}}, "o.keys[0].key: is an RSA key of 1024 bits"},
		{"another kind of key", Options{Keys: []JWTKey{{Alg: "RS256", Key: pairs()["P-256"].public}}}, "o.keys[0].key: is a key of type P-256, but RS256 needs RSA"},
		{"another curve", Options{Keys: []JWTKey{{Alg: "ES256", Key: pairs()["P-384"].public}}}, "o.keys[0].key: is a key of type P-384, but ES256 needs P-256"},
		{"the same id twice", Options{Keys: []JWTKey{hs, hs}}, `o.keys[1].id: "a" stands here twice`},
		{"a long leeway", Options{Keys: []JWTKey{hs}, Leeway: &leeway}, "o.leeway: 1h0m0s is not between"},
		{"algorithms without a set", Options{Keys: []JWTKey{hs}, Algorithms: []string{"RS256"}}, "o.algorithms: is for keys of a jwksUrl"},
		{"a set at no url", Options{JWKSURL: "x"}, "o.jwksUrl: does not begin with https"},
		{"HS for a set", Options{JWKSURL: "https://x/", Algorithms: []string{"HS256"}}, "o.algorithms: HS256 has a secret"},
		{"no algorithm", Options{JWKSURL: "https://x/", Algorithms: []string{"none"}}, `o.algorithms: "none" is not one`},
		{"too often", Options{JWKSURL: "https://x/", JWKSRefresh: 1}, "o.jwksRefresh: 1ns is too short"},
		{"an empty audience", Options{Keys: []JWTKey{hs}, Audience: []string{""}}, "o.audience: one of them is empty"},
		{"claims of numbers", Options{Keys: []JWTKey{hs}, Claims: ClaimsConfig{ServerData: []any{7}}}, "o.claims.serverData: each claim is the name of one"},
		{"claims of nothing", Options{Keys: []JWTKey{hs}, Claims: ClaimsConfig{ClientData: yaml.MapSlice{{Key: "a"}}}}, "o.claims.clientData: each claim is the name of one"},
		{"claims in a number", Options{Keys: []JWTKey{hs}, Claims: ClaimsConfig{ClientData: 7}}, "o.claims.clientData: write a list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := newJWT("o", &c.o, true, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), secretText) {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
}

func TestTokensOfEveryAlgorithmLogIn(t *testing.T) {
	var all []JWTKey
	for _, alg := range allAlgorithms {
		all = append(all, keyFor("id-"+alg, alg))
	}
	together, _ := newTestJWT(t, Options{Keys: all}, true)
	for _, alg := range allAlgorithms {
		alone, _ := newTestJWT(t, Options{Keys: []JWTKey{keyFor("", alg)}}, true)
		file := filepath.Join(t.TempDir(), "key.pem")
		for _, kid := range []string{"", "id-" + alg} {
			token := sign(t, alg, kid, valid(nil))
			for name, j := range map[string]*jwtStrategy{"among all": together, "alone": alone} {
				v, err := j.Authenticate(t.Context(), &Attempt{Params: `{"token":"` + token + `"}`})
				if err != nil || v.Opinion != Accepted || v.User.ID != "egon" {
					t.Errorf("%s, kid %q, %s: got %+v, %v, want egon", alg, kid, name, v, err)
				}
			}
		}
		if strings.HasPrefix(alg, "HS") {
			continue
		}
		if err := os.WriteFile(file, []byte(keyFor("", alg).Key), 0o600); err != nil {
			t.Fatal(err)
		}
		fromFile, _ := newTestJWT(t, Options{Keys: []JWTKey{{Alg: alg, KeyFile: file}}}, true)
		if v, _ := fromFile.Authenticate(t.Context(), &Attempt{Params: `{"jwt":"` + sign(t, alg, "", valid(nil)) + `"}`}); v.Opinion != Accepted {
			t.Errorf("%s from a file: got %+v, want accepted", alg, v)
		}
	}
}

func TestForgedTokensAreRefused(t *testing.T) {
	keys := []JWTKey{keyFor("hs", "HS256"), keyFor("rs", "RS256"), keyFor("es", "ES256"), {ID: "rs2", Alg: "RS256", Key: pairs()["RSA2"].public}}
	good := sign(t, "HS256", "hs", valid(nil))
	parts := strings.Split(good, ".")
	part := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, valid(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	crit := jwt.NewWithClaims(jwt.SigningMethodHS256, valid(nil))
	crit.Header["crit"] = []string{"x"}
	critical, err := crit.SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	number := jwt.NewWithClaims(jwt.SigningMethodHS256, valid(nil))
	number.Header["kid"] = 7
	numbered, err := number.SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"nothing":                             "x",
		"dots":                                "..",
		"no signature":                        parts[0] + "." + parts[1] + ".",
		"no signature at all":                 parts[0] + "." + parts[1],
		"alg none":                            none,
		"alg None with a signature":           part(`{"alg":"None"}`) + "." + parts[1] + "." + parts[2],
		"alg none with a signature":           part(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2],
		"no alg":                              part(`{}`) + "." + parts[1] + "." + parts[2],
		"alg of another type":                 part(`{"alg":["HS256"]}`) + "." + parts[1] + "." + parts[2],
		"other claims":                        parts[0] + "." + part(`{"sub":"admin","exp":99999999999}`) + "." + parts[2],
		"the public key as secret":            signWith(t, "HS256", "", []byte(pairs()["RSA"].public), valid(nil)),
		"the public key as secret, named":     signWith(t, "HS256", "rs", []byte(pairs()["RSA"].public), valid(nil)),
		"the secret for another HS":           signWith(t, "HS512", "hs", []byte(testSecret), valid(nil)),
		"an RSA key for another algorithm":    signWith(t, "PS256", "rs", pairs()["RSA"].private, valid(nil)),
		"an RSA key for another digest":       signWith(t, "RS512", "", pairs()["RSA"].private, valid(nil)),
		"a key that is not named":             signWith(t, "RS256", "rs2", pairs()["RSA"].private, valid(nil)),
		"a key that is not there":             sign(t, "HS256", "other", valid(nil)),
		"a key of somebody else":              signWith(t, "HS256", "", []byte(strings.Repeat("x", 64)), valid(nil)),
		"a key in the header":                 part(`{"alg":"HS256","jwk":{"kty":"oct","k":"eA"}}`) + "." + parts[1] + "." + parts[2],
		"extensions that must be understood":  critical,
		"a key named by a number":             numbered,
		"padding":                             good + "=",
		"claims that are a list":              parts[0] + "." + part(`["sub"]`) + "." + parts[2],
		"a long one":                          parts[0] + "." + strings.Repeat("A", maxToken) + "." + parts[2],
		"five parts, as of an encrypted one":  good + ".a.b",
		"white space":                         " " + good,
		"the word Bearer":                     "Bearer " + good,
		"an algorithm that is not configured": signWith(t, "EdDSA", "", pairs()["Ed25519"].private, valid(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			for _, report := range []bool{true, false} {
				j, log := newTestJWT(t, Options{Keys: keys}, report)
				v, err := j.Authenticate(t.Context(), &Attempt{Params: `{"token":"` + token + `"}`})
				want := Verdict{Opinion: Refused, Reason: `"TOKEN_INVALID"`}
				if !report {
					want = Verdict{}
				}
				if err != nil || v != want {
					t.Errorf("report %v: got %+v, %v, want %+v", report, v, err, want)
				}
				if len(token) > 9 && strings.Contains(log.String(), token[len(token)-9:]) {
					t.Errorf("the log holds the token: %s", log.String())
				}
			}
		})
	}
	j, _ := newTestJWT(t, Options{Keys: keys}, true)
	if v, err := j.Authenticate(t.Context(), &Attempt{Params: `{"token":"` + good + `"}`}); err != nil || v.Opinion != Accepted {
		t.Fatalf("the token that all were made of: got %+v, %v, want accepted", v, err)
	}
}

func TestClaimsOfATokenAreChecked(t *testing.T) {
	now := time.Now()
	invalid := Verdict{Opinion: Refused, Reason: `"TOKEN_INVALID"`}
	expired := Verdict{Opinion: Refused, Reason: `"TOKEN_EXPIRED"`, Uncounted: true}
	other := Verdict{Opinion: Refused, Reason: `"TOKEN_OF_ANOTHER_USER"`}
	ok := Verdict{Opinion: Accepted}
	minute := time.Minute
	strict := Options{Audience: []string{"hadal", "chat"}, Issuer: "https://id.example/", RequiredClaims: []string{"exp", "jti", "realm.name"}}
	full := jwt.MapClaims{"aud": "hadal", "iss": "https://id.example/", "jti": "1", "realm": map[string]any{"name": "r"}}
	with := func(changes jwt.MapClaims) jwt.MapClaims {
		c := valid(full)
		for k, v := range changes {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	for _, c := range []struct {
		name   string
		o      Options
		claims jwt.MapClaims
		params string // beside the token
		want   Verdict
	}{
		{"plain", Options{}, valid(nil), "", ok},
		{"expired", Options{}, valid(jwt.MapClaims{"exp": now.Add(-time.Minute).Unix()}), "", expired},
		{"expired long ago", Options{}, valid(jwt.MapClaims{"exp": 1}), "", expired},
		{"expired within the leeway", Options{Leeway: &minute}, valid(jwt.MapClaims{"exp": now.Add(-time.Second * 30).Unix()}), "", ok},
		{"no expiry", Options{}, valid(jwt.MapClaims{"exp": nil}), "", invalid},
		{"no expiry, allowed", Options{RequiredClaims: []string{}}, valid(jwt.MapClaims{"exp": nil}), "", ok},
		{"expiry 0", Options{RequiredClaims: []string{}}, valid(jwt.MapClaims{"exp": 0}), "", invalid},
		{"expiry before time began", Options{}, valid(jwt.MapClaims{"exp": -5}), "", invalid},
		{"expiry beyond time", Options{}, valid(jwt.MapClaims{"exp": 1e300}), "", invalid},
		{"expiry as text", Options{}, valid(jwt.MapClaims{"exp": "99999999999"}), "", invalid},
		{"not valid yet", Options{}, valid(jwt.MapClaims{"nbf": now.Add(time.Minute).Unix()}), "", invalid},
		{"not valid yet and expired", Options{}, valid(jwt.MapClaims{"nbf": now.Add(time.Minute).Unix(), "exp": 1}), "", invalid},
		{"valid within the leeway", Options{Leeway: &minute}, valid(jwt.MapClaims{"nbf": now.Add(time.Second * 30).Unix()}), "", ok},
		{"issued as text", Options{}, valid(jwt.MapClaims{"iat": "x"}), "", invalid},

		{"all that is asked for", strict, with(nil), "", ok},
		{"one of several audiences", strict, with(jwt.MapClaims{"aud": []string{"x", "chat"}}), "", ok},
		{"another audience", strict, with(jwt.MapClaims{"aud": "shop"}), "", invalid},
		{"no audience", strict, with(jwt.MapClaims{"aud": nil}), "", invalid},
		{"another audience and expired", strict, with(jwt.MapClaims{"aud": "shop", "exp": 1}), "", invalid},
		{"another issuer", strict, with(jwt.MapClaims{"iss": "https://evil.example/"}), "", invalid},
		{"no issuer", strict, with(jwt.MapClaims{"iss": nil}), "", invalid},
		{"a claim is missing", strict, with(jwt.MapClaims{"jti": nil}), "", invalid},
		{"a claim is empty", strict, with(jwt.MapClaims{"jti": ""}), "", invalid},
		{"a claim inside is missing", strict, with(jwt.MapClaims{"realm": map[string]any{}}), "", invalid},
		{"missing and expired", strict, with(jwt.MapClaims{"jti": nil, "exp": 1}), "", invalid},

		{"nobody", Options{}, valid(jwt.MapClaims{"sub": nil}), "", invalid},
		{"nobody by name", Options{}, valid(jwt.MapClaims{"sub": ""}), "", invalid},
		{"an object as user", Options{}, valid(jwt.MapClaims{"sub": map[string]any{}}), "", invalid},
		{"the server's user", Options{}, valid(jwt.MapClaims{"sub": "hadal/x"}), "", invalid},
		{"the anonymous user", Options{}, valid(jwt.MapClaims{"sub": "OPEN"}), "", invalid},
		{"a user that is no whole number", Options{}, valid(jwt.MapClaims{"sub": 1.5}), "", invalid},
		{"a user of two lines", Options{}, valid(jwt.MapClaims{"sub": "a\nb"}), "", invalid},
		{"a long user", Options{}, valid(jwt.MapClaims{"sub": strings.Repeat("x", maxUserName+1)}), "", invalid},

		{"as oneself", Options{}, valid(nil), `"username":"egon","id":"egon"`, ok},
		{"as nobody", Options{}, valid(nil), `"username":null`, ok},
		{"as another", Options{}, valid(nil), `"username":"admin"`, other},
		{"as another id", Options{}, valid(nil), `"id":"admin"`, other},
		{"as oneself, then another", Options{}, valid(nil), `"username":"egon","username":"admin"`, other},
		{"as a number", Options{}, valid(nil), `"username":0`, other},
		{"as another, expired", Options{}, valid(jwt.MapClaims{"exp": 1}), `"username":"admin"`, other},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Keys = []JWTKey{keyFor("", "HS256")}
			j, log := newTestJWT(t, c.o, true)
			token := sign(t, "HS256", "", c.claims)
			params := `{"token":"` + token + `"`
			if c.params != "" {
				params += "," + c.params
			}
			v, err := j.Authenticate(t.Context(), &Attempt{Params: params + "}"})
			if v.Opinion == Accepted {
				v.User = nil
			}
			if err != nil || v != c.want {
				t.Errorf("got %+v, %v, want %+v", v, err, c.want)
			}
			if strings.Contains(log.String(), token[len(token)-9:]) {
				t.Errorf("the log holds the token: %s", log.String())
			}
			j.report = false
			v, _ = j.Authenticate(t.Context(), &Attempt{Params: params + "}"})
			if c.want == expired && v != expired || c.want.Opinion == Refused && c.want != expired && v != (Verdict{}) {
				t.Errorf("without a report: got %+v", v)
			}
		})
	}
}

func TestClaimsBecomeAUser(t *testing.T) {
	claims := valid(jwt.MapClaims{
		"role": "admin", "name": "Egon", "uid": 12345678901234567, "team": "red", "https://x.example/plan": "gold", "jti": "j1",
		"iat": time.Now().Unix(), "realm_access": map[string]any{"roles": []string{"a", "b"}, "role": "inner"}, "app": map[string]any{"a": 1, "role": "x"}, "big": 1e20,
	})
	for _, c := range []struct {
		name               string
		claims             ClaimsConfig
		id, server, client string
		refused            bool
	}{
		{"by default", ClaimsConfig{}, "egon", `{"role":"admin"}`, "", false},
		{"without a role", ClaimsConfig{Role: "none"}, "egon", "", "", false},
		{"another role", ClaimsConfig{Role: "realm_access.role"}, "egon", `{"role":"inner"}`, "", false},
		{"a role that is no text", ClaimsConfig{Role: "realm_access.roles"}, "egon", "", "", false},
		{"another id", ClaimsConfig{ID: "name"}, "Egon", `{"role":"admin"}`, "", false},
		{"a number as id", ClaimsConfig{ID: "uid"}, "12345678901234567", `{"role":"admin"}`, "", false},
		{"lists", ClaimsConfig{ServerData: []any{"team", "none", "uid"}, ClientData: []any{"name", "https://x.example/plan"}},
			"egon", `{"team":"red","uid":12345678901234567,"role":"admin"}`, `{"name":"Egon","https://x.example/plan":"gold"}`, false},
		{"mappings", ClaimsConfig{ServerData: yaml.MapSlice{{Key: "groups", Value: "realm_access.roles"}, {Key: "role", Value: "team"}}, ClientData: yaml.MapSlice{{Key: "n", Value: "name"}}},
			"egon", `{"groups":["a","b"],"role":"admin"}`, `{"n":"Egon"}`, false},
		{"whole", ClaimsConfig{ServerData: "app", ClientData: "app"}, "egon", `{"a":1,"role":"admin"}`, `{"a":1,"role":"x"}`, false},
		{"whole text", ClaimsConfig{ClientData: "name"}, "egon", `{"role":"admin"}`, `"Egon"`, false},
		{"whole, but none", ClaimsConfig{ServerData: "nothing", ClientData: "nothing"}, "egon", `{"role":"admin"}`, "", false},
		{"whole, but no object", ClaimsConfig{ServerData: "name"}, "", "", "", true},
		{"an empty list", ClaimsConfig{Role: "x", ServerData: []any{"nothing"}}, "egon", `{}`, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, _ := newTestJWT(t, Options{Keys: []JWTKey{keyFor("", "HS256")}, Claims: c.claims}, true)
			v, err := j.Authenticate(t.Context(), &Attempt{Params: `{"token":"` + sign(t, "HS256", "", claims) + `"}`})
			if c.refused {
				if err != nil || v.Opinion != Refused {
					t.Errorf("got %+v, %v, want refused", v, err)
				}
				return
			}
			if err != nil || v.Opinion != Accepted {
				t.Fatalf("got %+v, %v, want accepted", v, err)
			}
			if u := v.User; u.ID != c.id || u.ServerData != c.server || u.ClientData != c.client {
				t.Errorf("got %q %s %s, want %q %s %s", u.ID, u.ServerData, u.ClientData, c.id, c.server, c.client)
			}
			s := v.User.Session
			if s.ID != "j1" || s.Ours || s.Issued.Unix() != claims["iat"] || s.Expires.Unix() != claims["exp"].(int64)+5 {
				t.Errorf("got session %+v, want that of the token, with the leeway", s)
			}
		})
	}
}

func TestWhereTheTokenComesFrom(t *testing.T) {
	good := sign(t, "HS256", "", valid(nil))
	bad := good + "x"
	missing := Verdict{Opinion: Refused, Reason: `{"error":"missing or no string: token"}`}
	invalid := Verdict{Opinion: Refused, Reason: `"TOKEN_INVALID"`}
	ok := Verdict{Opinion: Accepted}
	for _, c := range []struct {
		name, key string
		a         Attempt
		want      Verdict
	}{
		{"token", "", Attempt{Params: `{"token":"` + good + `"}`}, ok},
		{"jwt", "", Attempt{Params: `{"jwt":"` + good + `"}`}, ok},
		{"token before jwt", "", Attempt{Params: `{"jwt":"` + good + `","token":"` + bad + `"}`}, invalid},
		{"another key", "idToken", Attempt{Params: `{"idToken":"` + good + `"}`}, ok},
		{"not the key", "idToken", Attempt{Params: `{"token":"` + good + `"}`}, Verdict{Opinion: Refused, Reason: `{"error":"missing or no string: idToken"}`}},
		{"of the upgrade", "", Attempt{Params: `{}`, Token: good}, ok},
		{"of the upgrade, as another", "", Attempt{Params: `{"username":"admin"}`, Token: good}, Verdict{Opinion: Refused, Reason: `"TOKEN_OF_ANOTHER_USER"`}},
		{"none", "", Attempt{Params: `{}`}, missing},
		{"null", "", Attempt{Params: `{"token":null}`}, missing},
		{"a number", "", Attempt{Params: `{"token":7}`}, invalid},
		{"empty", "", Attempt{Params: `{"token":""}`, Token: good}, invalid},
		{"a list of parameters", "", Attempt{Params: `["` + good + `"]`}, missing},
		{"a long one of the upgrade", "", Attempt{Params: `{}`, Token: strings.Repeat("x", maxToken+1)}, invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, _ := newTestJWT(t, Options{Keys: []JWTKey{keyFor("", "HS256")}, TokenKey: c.key}, true)
			v, err := j.Authenticate(t.Context(), &c.a)
			if v.Opinion == Accepted {
				v.User = nil
			}
			if err != nil || v != c.want {
				t.Errorf("got %+v, %v, want %+v", v, err, c.want)
			}
		})
	}
}

func FuzzAnyToken(f *testing.F) {
	for _, s := range []string{"a.b.c", "..", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "eyJhbGciOiJIUzI1NiIsImtpZCI6N30.e30.AA"} {
		f.Add(s, s)
	}
	o := Options{Keys: []JWTKey{keyFor("a", "HS256"), keyFor("b", "RS256")}}
	j, err := newJWT("o", &o, true, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, params, token string) {
		v, err := j.Authenticate(t.Context(), &Attempt{Params: params, Token: token})
		if err != nil || v.Opinion != Refused {
			t.Errorf("got %+v, %v, want refused", v, err)
		}
	})
}
