package tokens

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"hadal/auth"
	"hadal/auth/vault"
)

// door is all ways in, which remembers the addresses it was asked for.
type door struct {
	auth.Authenticator
	from []string
}

func (d *door) Authenticate(ctx context.Context, a *auth.Attempt) (auth.Verdict, error) {
	d.from = append(d.from, a.RemoteAddr)
	return d.Authenticator.Authenticate(ctx, a)
}

// Whoever judges a token, and wherever he looks for it at a login, renews by it; and a client
// that renews by wrong ones holds up nobody but those of its own address.
func TestARenewalIsJudgedAsALoginOfThatClientIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig(hmacKey("a")), vault.NewMemory())
		secret := strings.Repeat("s", 32)
		others, err := auth.New([]auth.Config{{Type: "jwt", Options: auth.Options{
			Keys: []auth.JWTKey{{Alg: "HS256", Secret: secret}}, TokenKey: "idToken",
		}}}, false, auth.Deps{Beside: []string{"tokens"}})
		if err != nil {
			t.Fatal(err)
		}
		d := &door{Authenticator: auth.NewDoor(w, others)}

		ours, p := w.login("ann")
		foreign := w.open(&auth.User{ID: "bob", Session: &auth.Session{Expires: time.Now().Add(time.Minute)}})
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "bob", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			client *fakeClient
			token  string
		}{{ours, p.Token}, {foreign, signed}} {
			if _, now, err := w.Renew(t.Context(), c.client.id, c.token, d); err != nil || now != c.client.User() {
				t.Errorf("Renew of client %d = %v, %v", c.client.id, now, err)
			}
		}
		if want := []string{ours.RemoteAddr(), foreign.RemoteAddr()}; !slices.Equal(d.from, want) {
			t.Errorf("judged as from %q, want %q", d.from, want)
		}
	})
}
