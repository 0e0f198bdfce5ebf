package node

import (
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"hadal/auth"
	"hadal/auth/tokens"
	"hadal/protocol"
)

// The role of the store counts whatever lets a user in: it stands around everything that
// decides on logins.
func TestARoleOfTheStoreCountsForEveryKindOfLogin(t *testing.T) {
	n := registering(t, func(c *Config) {
		c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "pw", ServerData: map[string]any{"role": "guest", "age": 3}}}}}}
		c.Tokens.SigningKeys = []tokens.Key{{ID: "a", Alg: "HS256", Secret: "a secret of thirty-two characters"}}
		c.Tokens.APISecret = "the secret of the backend, of 32 bytes"
		c.Registration.Role, c.Registration.UserPrefix = "guest", "client/"
	})
	withClient(t, n, "plugin", pluginKey)
	status, answer := post(t, n, tokens.PathToken, "Bearer the secret of the backend, of 32 bytes", `{"id":"bob","role":"guest"}`)
	token, _ := answer["token"].(string)
	if status != 200 && status != 201 || token == "" {
		t.Fatalf("minting is answered %d %v", status, answer)
	}
	logins := map[string]string{"ann": `{"username":"ann","password":"pw"}`, "client/plugin": pairOf("plugin", pluginKey), "bob": `{"token":"` + token + `"}`}
	// role is that of a user who logs in now.
	role := func(id string) string {
		t.Helper()
		before := make(map[uint64]bool)
		for _, c := range n.endpoint.Conns() {
			before[c.ID()] = true
		}
		if _, m := enter(t, n, logins[id]); m.Action != protocol.AuthAuthSuccessful {
			t.Fatalf("%s is answered %s %s", id, m.Action.Name(m.Topic), m.Data)
		}
		for _, c := range n.endpoint.Conns() {
			if u := c.User(); u != nil && u.ID == id && !before[c.ID()] {
				return gjson.Get(u.ServerData, "role").Str
			}
		}
		t.Fatalf("%s has no connection", id)
		return ""
	}
	for id := range logins {
		if got := role(id); got != "guest" {
			t.Errorf("%s has the role %q, want that of the strategy", id, got)
		}
		if err := n.accounts.SetRole(t.Context(), id, "moderator"); err != nil {
			t.Fatal(err)
		}
		// A node hears of it a moment later.
		for began := time.Now(); role(id) != "moderator"; {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("%s does not get the role of the store", id)
			}
		}
	}
}
