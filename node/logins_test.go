package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/auth/register"
	"hadal/auth/tokens"
	"hadal/auth/vault"
	"hadal/node/admin"
	"hadal/protocol"
	"hadal/store/jetstream"
)

// adminClient speaks HTTP to the node's admin socket.
func adminClient(t *testing.T, n *running) *http.Client {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(n.cfg.DataDir, admin.SocketName))
	}}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func metricsOf(t *testing.T, n *running) string {
	t.Helper()
	res, err := adminClient(t, n).Get("http://admin/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// loginsOf is all that logins keep, as an operator copies it.
func loginsOf(t *testing.T, n *Node) map[string]string {
	t.Helper()
	all := make(map[string]string)
	if err := (operator{n}).ScanLogins(t.Context(), func(l admin.Login) error {
		all[l.Key] = string(l.Value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatLoginsKeepOutlivesTheNode(t *testing.T) {
	data := t.TempDir()
	first := run(t, func(c *Config) { c.DataDir = data })
	if _, err := first.vault.Create(t.Context(), "user/secret", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := first.vault.Create(t.Context(), "user/secret", []byte("2"), 0); !errors.Is(err, vault.ErrExists) {
		t.Errorf("Create = %v", err)
	}
	text := metricsOf(t, first)
	for _, want := range []string{
		"hadal_login_store_entries 1\n", `hadal_login_store_calls_total{call="create",result="exists"} 1`, `hadal_login_store_calls_total{call="create",result="ok"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("metrics tell a key")
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.vault.Get(t.Context(), "user/secret"); !errors.Is(err, vault.ErrNotReady) {
		t.Errorf("Get on a node that has stopped = %v, want ErrNotReady", err)
	}
	second := run(t, func(c *Config) { c.DataDir = data })
	if e, err := second.vault.Get(t.Context(), "user/secret"); err != nil || string(e.Value) != "1" {
		t.Errorf("Get = %q, %v", e.Value, err)
	}
	if reasons := second.Ready(); len(reasons) > 0 {
		t.Errorf("Ready = %v", reasons)
	}
}

func TestWhatLoginsKeepIsInMemoryWhereRecordsAre(t *testing.T) {
	n := run(t, func(c *Config) { c.Records.Store = "memory" })
	if _, err := n.vault.Create(t.Context(), "a", []byte("1"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if text := metricsOf(t, n); !strings.Contains(text, "hadal_login_store_bytes 2\n") {
		t.Error("metrics do not tell its size")
	}
}

func TestOperatorsCopyWhatLoginsKeep(t *testing.T) {
	from, to := run(t, nil), run(t, nil)
	ends := time.Now().Add(time.Hour)
	for key, ttl := range map[string]time.Duration{"user/a": 0, "bearer/b": time.Until(ends)} {
		if _, err := from.vault.Create(t.Context(), key, []byte(key), ttl); err != nil {
			t.Fatal(err)
		}
	}
	if err := (operator{from.Node}).ScanLogins(t.Context(), func(l admin.Login) error {
		return operator{to.Node}.RestoreLogin(t.Context(), l)
	}); err != nil {
		t.Fatal(err)
	}
	for key, ending := range map[string]bool{"user/a": false, "bearer/b": true} {
		e, err := to.vault.Get(t.Context(), key)
		if err != nil || string(e.Value) != key || e.Ends.IsZero() == ending || ending && e.Ends.Sub(ends).Abs() > time.Minute {
			t.Errorf("%s = %q until %v, %v", key, e.Value, e.Ends, err)
		}
	}
	if err := (operator{to.Node}).RestoreLogin(t.Context(), admin.Login{Key: "no key"}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("RestoreLogin of no key = %v, want ErrInvalid", err)
	}
}

// What strangers and backends can fill of the store of logins ends before what takes rights
// away has no room.
func TestAStoreOfLoginsThatFillsUpKeepsRoomForRevocations(t *testing.T) {
	const secret = "the-secret-of-backends-of-32-bytes"
	n := run(t, func(c *Config) {
		c.Auth = []auth.Config{{Type: "storage", Options: auth.Options{CreateUser: true}}}
		c.Registration.Mode, c.Registration.UserPrefix = register.Open, "client/"
		c.Tokens.SigningKeys, c.Tokens.APISecret = []tokens.Key{{ID: "a", Alg: "HS256", Secret: strings.Repeat("s", 32)}}, secret
	})
	l := n.stored().loginStore()
	for _, c := range []struct {
		quarters       uint64
		register, mint int
		newcomer       protocol.Action // the answer to a login of his
	}{
		{2, http.StatusCreated, http.StatusOK, protocol.AuthAuthSuccessful},
		{3, http.StatusInsufficientStorage, http.StatusOK, protocol.AuthAuthSuccessful},
		{4, http.StatusInsufficientStorage, http.StatusInsufficientStorage, protocol.AuthAuthUnsuccessful},
	} {
		l.mu.Lock()
		l.looked, l.stream.Bytes = time.Now().Add(time.Hour), c.quarters*jetstream.VaultBytes/4 // and nobody looks soon
		l.mu.Unlock()
		name := fmt.Sprint("user", c.quarters)
		if status, answer := post(t, n, "/register", "", pairOf(name, pluginKey)); status != c.register {
			t.Errorf("%d quarters full, registering is answered %d %v, want %d", c.quarters, status, answer, c.register)
		}
		if status, answer := post(t, n, tokens.PathToken, "Bearer "+secret, `{"id":"ann"}`); status != c.mint {
			t.Errorf("%d quarters full, minting is answered %d %v, want %d", c.quarters, status, answer, c.mint)
		}
		if _, m := enter(t, n, `{"username":"`+name+`","password":"pw"}`); m.Action != c.newcomer {
			t.Errorf("%d quarters full, a new name is answered %v, want %v", c.quarters, m.Action, c.newcomer)
		}
		if _, m := enter(t, n, `{"username":"user2","password":"pw"}`); m.Action != protocol.AuthAuthSuccessful {
			t.Errorf("%d quarters full, a user that is there is answered %v", c.quarters, m.Action)
		}
		if status, answer := post(t, n, tokens.PathRevoke, "Bearer "+secret, `{"id":"ann"}`); status != http.StatusOK {
			t.Errorf("%d quarters full, revoking is answered %d %v", c.quarters, status, answer)
		}
	}
}
