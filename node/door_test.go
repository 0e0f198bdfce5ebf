package node

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/bcrypt"

	"hadal/auth"
	"hadal/auth/register"
	"hadal/auth/tokens"
	"hadal/auth/vault"
	"hadal/protocol"
)

// aKey is one that signs tokens.
var aKey = []tokens.Key{{ID: "a", Alg: "HS256", Secret: "a secret of thirty-two characters"}}

// withClient makes a registered client with a bearer token, as auth/register keeps it, but
// with a hash of its key that is cheap: a starved machine needs seconds for one of those.
func withClient(t *testing.T, n *running, id, key string) (token string) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(key), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	token = "hb~" + vault.Segment(id) + "~the-secret-of-this-token"
	sum := sha256.Sum256([]byte(token))
	now := time.Now().Unix()
	entry := fmt.Sprintf(`{"login":"one","hash":%q,"created":%d,"bearer":{"login":"two","hash":%q,"issued":%[2]d,"expires":%[4]d}}`,
		hash, now, base64.RawURLEncoding.EncodeToString(sum[:]), now+3600)
	if _, err := n.vault.Create(t.Context(), "client/"+vault.Segment(id), []byte(entry), 0); err != nil {
		t.Fatal(err)
	}
	return token
}

// Whatever comes with a connection, what the client sends in its login goes before it, for
// every way in; and without a secret in the login nobody becomes another than whose
// credentials the connection came with.
func TestALoginGoesBeforeWhatItsConnectionCameWith(t *testing.T) {
	const theirKey = "the secret of somebody else's tokens, as they say"
	n := registering(t, func(c *Config) {
		c.Auth = []auth.Config{
			{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"bob": {Password: "pw"}, "plugin": {Password: "pw"}}}},
			{Type: "jwt", Options: auth.Options{Keys: []auth.JWTKey{{Alg: "HS256", Secret: theirKey}}, TokenKey: "idToken"}},
		}
		c.Tokens.SigningKeys, c.Registration.UserPrefix = aKey, "client/"
	})
	registered := withClient(t, n, "plugin", pluginKey)
	made := func(id string) string {
		token, _, err := tokens.Make(n.cfg.Tokens, TokenIssuer(n.cfg), []byte(`{"id":"`+id+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	signed := func(secret string, claims jwt.MapClaims) string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
		token.Header["kid"] = aKey[0].ID
		text, err := token.SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	issuer, past := TokenIssuer(n.cfg), time.Now().Add(-time.Hour).Unix()
	expired := signed(aKey[0].Secret, jwt.MapClaims{"iss": issuer, "aud": issuer, "sub": "ann", "jti": "x", "iat": past, "iatms": past * 1000, "exp": past + 1})
	theirs := signed(theirKey, jwt.MapClaims{"sub": "tom", "exp": time.Now().Add(time.Hour).Unix()})
	ann, eve := made("ann"), made("eve")
	const nobody = ""
	for i, c := range []struct {
		name   string
		a      auth.Attempt
		user   string
		reason string // of a refusal
	}{
		{"a fresh token beside an expired one", auth.Attempt{Params: `{"token":"` + eve + `"}`, Token: expired}, "eve", ""},
		{"an expired one alone", auth.Attempt{Params: `{}`, Token: expired}, nobody, "TOKEN_EXPIRED"},
		{"a token alone", auth.Attempt{Params: `{"theme":"dark"}`, Token: ann}, "ann", ""},
		{"a password beside another's token", auth.Attempt{Params: `{"username":"bob","password":"pw"}`, Token: ann}, "bob", ""},
		{"a password beside an expired token", auth.Attempt{Params: `{"username":"bob","password":"pw"}`, Token: expired}, "bob", ""},
		{"a wrong password beside a good token", auth.Attempt{Params: `{"username":"ann","password":"no"}`, Token: ann}, nobody, ""},
		{"an empty password beside a good token", auth.Attempt{Params: `{"username":"ann","password":""}`, Token: ann}, nobody, ""},
		{"another's name beside a token", auth.Attempt{Params: `{"username":"bob"}`, Token: ann}, nobody, "TOKEN_INVALID"},
		{"a foreign token beside one made here", auth.Attempt{Params: `{"idToken":"` + theirs + `"}`, Token: ann}, "tom", ""},
		{"a token beside a foreign one", auth.Attempt{Params: `{"token":"` + ann + `"}`, Token: theirs}, "ann", ""},
		{"a forged token beside a good one", auth.Attempt{Params: `{"token":"` + ann + `x"}`, Token: ann}, nobody, "TOKEN_INVALID"},
		{"no text as token beside a good one", auth.Attempt{Params: `{"token":7}`, Token: ann}, nobody, ""},
		{"a registered client beside a token", auth.Attempt{Params: pairOf("plugin", pluginKey), Token: ann}, "client/plugin", ""},
		{"a wrong key beside a token", auth.Attempt{Params: pairOf("plugin", otherKey), Token: ann}, nobody, ""},
		{"half a pair beside its token", auth.Attempt{Params: `{"authKey":"` + otherKey + `"}`, Token: registered}, nobody, ""},
		{"a token beside a client's", auth.Attempt{Params: `{"token":"` + ann + `"}`, Token: registered}, "ann", ""},
		{"a client's token beside one made here", auth.Attempt{Params: `{"token":"` + registered + `"}`, Token: ann}, "client/plugin", ""},
		{"a password beside a client's token", auth.Attempt{Params: `{"username":"bob","password":"pw"}`, Token: registered}, "bob", ""},
		{"a foreign token beside a client's", auth.Attempt{Params: `{"idToken":"` + theirs + `"}`, Token: registered}, "tom", ""},
		{"a client's token alone", auth.Attempt{Params: `{}`, Token: registered}, "client/plugin", ""},
		{"a token beside Basic", auth.Attempt{Params: `{"token":"` + ann + `"}`, Name: "bob", Password: "pw"}, "ann", ""},
		{"a foreign token beside a client's Basic", auth.Attempt{Params: `{"idToken":"` + theirs + `"}`, Name: "plugin", Password: pluginKey}, "tom", ""},
		{"a name beside a client's Basic", auth.Attempt{Params: `{"username":"bob"}`, Name: "plugin", Password: pluginKey}, nobody, ""},
		{"a client's Basic", auth.Attempt{Params: `{}`, Name: "plugin", Password: pluginKey}, "client/plugin", ""},
		{"a user's Basic", auth.Attempt{Params: `{"theme":"dark"}`, Name: "bob", Password: "pw"}, "bob", ""},
		{"a client that a user is called like", auth.Attempt{Params: `{}`, Name: "plugin", Password: "pw"}, nobody, ""},
		{"a token beside what cannot be used", auth.Attempt{Params: `{"token":"` + ann + `"}`, Broken: auth.Conflicting}, "ann", ""},
		{"a client beside what cannot be used", auth.Attempt{Params: pairOf("plugin", pluginKey), Broken: auth.Malformed}, "client/plugin", ""},
		{"what cannot be used", auth.Attempt{Params: `{"username":"bob"}`, Broken: auth.Conflicting}, nobody, auth.Conflicting},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.RemoteAddr = fmt.Sprintf("192.0.2.%d", i) // wrong guesses of one slow no other
			v, err := n.logins.Authenticate(t.Context(), &c.a)
			if err != nil {
				t.Fatal(err)
			}
			user := nobody
			if v.Opinion == auth.Accepted {
				user = v.User.ID
			}
			if user != c.user || !strings.Contains(v.Reason, c.reason) {
				t.Errorf("got %q (%s), want %q (%s)", user, v.Reason, c.user, c.reason)
			}
		})
	}
}

// What a reload brings has to fit what is in force, too: registrations need a restart.
func TestNoReloadLetsAnybodyInAsAUserOfTokensOrRegistrations(t *testing.T) {
	n := registering(t, func(c *Config) { c.Registration.UserPrefix = "client/" })
	for name, change := range map[string]func(*Config){
		"none":                          func(c *Config) { c.Auth = Default().Auth },
		"none, and registrations go":    func(c *Config) { c.Auth, c.Registration.Mode = Default().Auth, "off" },
		"none and tokens":               func(c *Config) { c.Auth, c.Tokens.SigningKeys = Default().Auth, aKey },
		"none where there were no keys": func(c *Config) { c.Auth, c.Tokens.SigningKeys, c.Registration.Mode = Default().Auth, aKey, "off" },
	} {
		cfg := n.cfg
		change(&cfg)
		if err := n.Reload(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "allowOpenFallback: true") {
			t.Errorf("%s: the reload is answered %v", name, err)
		}
	}
	cfg := n.cfg
	cfg.Auth, cfg.AllowOpenFallback = Default().Auth, true
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	cfg.Auth, cfg.Tokens.SigningKeys = nil, aKey
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	if v, err := n.logins.Authenticate(t.Context(), &auth.Attempt{Params: `{"username":"ann"}`}); err != nil || v.Opinion != auth.Refused {
		t.Errorf("without strategies somebody is answered %+v, %v", v, err)
	}
}

// fileOf is the file strategy with one user, whose password is pw.
func fileOf(user string) auth.Config {
	return auth.Config{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{user: {Password: "pw"}}}}
}

// A configuration that would do as a whole is not taken over when only a part of it would be.
func TestAReloadHasToFitWhatNeedsARestart(t *testing.T) {
	jwt := auth.Config{Type: "jwt", Options: auth.Options{Keys: []auth.JWTKey{{Alg: "HS256", Secret: aKey[0].Secret}}}}
	for name, c := range map[string]struct {
		start, change func(*Config)
		key           string
	}{
		"jwt with a prefix": {nil, func(c *Config) {
			c.Auth, c.Registration.UserPrefix = append(c.Auth[:1:1], jwt), "client/"
		}, "registration.userPrefix: "},
		"storage instead of registrations": {nil, func(c *Config) {
			c.Auth, c.Registration.Mode = append(c.Auth[:1:1], auth.Config{Type: "storage"}), register.Off
		}, "registration.userPrefix: "},
		"tokens with a prefix": {nil, func(c *Config) {
			c.Tokens.SigningKeys, c.Registration.UserPrefix = aKey, "client/"
		}, "registration.userPrefix: "},
		"none on loopback": {func(c *Config) {
			c.HTTPServer.Options.Host, c.Registration.Mode = "0.0.0.0", register.Off
		}, func(c *Config) {
			c.Auth, c.HTTPServer.Options.Host = Default().Auth, "127.0.0.1"
		}, "httpServer.options.host: "},
	} {
		t.Run(name, func(t *testing.T) {
			n := registering(t, func(cfg *Config) {
				cfg.Auth = []auth.Config{fileOf("ann")}
				if c.start != nil {
					c.start(cfg)
				}
			})
			cfg := n.cfg
			c.change(&cfg)
			if err := cfg.Validate(); err != nil {
				t.Fatalf("as a whole it would not do either: %v", err)
			}
			err := n.Reload(t.Context(), cfg)
			if err == nil || !strings.HasPrefix(err.Error(), c.key) || !strings.Contains(err.Error(), "restart the node") {
				t.Errorf("the reload is answered %v", err)
			}
			for params, want := range map[string]auth.Opinion{`{"username":"ann","password":"pw"}`: auth.Accepted, `{"username":"eve"}`: auth.Refused} {
				if v, err := n.logins.Authenticate(t.Context(), &auth.Attempt{Params: params}); err != nil || v.Opinion != want {
					t.Errorf("%s is answered %+v, %v", params, v, err)
				}
			}
		})
	}
}

// Who is the user of a file that was read after the start comes in by Basic, too.
func TestUsersOfAReloadLogInByBasic(t *testing.T) {
	n := registering(t, nil)
	if _, _, resp := upgraded(t, n, basicOf("ann", "pw")); resp == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("nobody is answered %+v", resp)
	}
	cfg := n.cfg
	cfg.Auth = []auth.Config{fileOf("ann")}
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, m, resp := upgraded(t, n, basicOf("ann", "pw")); resp != nil || m.Action != protocol.AuthAuthSuccessful {
		t.Errorf("the new user is answered %s, %+v", m.Action.Name(m.Topic), resp)
	}
}
