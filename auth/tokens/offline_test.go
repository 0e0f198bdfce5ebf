package tokens

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
)

// Nobody knows of a token that was made by a configuration with longer lives than any node
// has. Its revocation outlives it all the same.
func TestARevocationOutlivesATokenMadeOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		token, expires, err := Make(cfg, "hadal", []byte(`{"id":"ann","ttl":"24h"}`))
		if err != nil || time.Until(expires) != OfflineLife {
			t.Fatalf("Make = %v, %v", time.Until(expires), err)
		}
		short := cfg
		short.AccessTTL, short.RefreshTTL = time.Minute, time.Minute
		w := newWorld(t, short, vault.NewMemory())
		if status, answer := post(t, w, PathRevoke, cfg.APISecret, `{"id":"ann"}`); status != 200 {
			t.Fatalf("revoke: %d %v", status, answer)
		}
		time.Sleep(time.Hour) // far longer than tokens live there
		if err := w.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		if v := w.judge(token); v.Opinion != auth.Refused || v.Reason != `"TOKEN_REVOKED"` {
			t.Errorf("a token that is revoked, and good by the configuration of now: %+v", v)
		}
	})
}

func TestATokenMadeOfflineLogsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		token, expires, err := Make(cfg, "hadal", []byte(`{"id":"ann","role":"admin","ttl":"1h"}`))
		if err != nil || time.Until(expires) != time.Hour {
			t.Fatalf("Make = %v, %v", time.Until(expires), err)
		}
		w := newWorld(t, cfg, vault.NewMemory())
		v := w.judge(token)
		if v.Opinion != auth.Accepted || v.User.ServerData != `{"role":"admin"}` || v.User.Session.Family != "" {
			t.Errorf("a login: %+v", v)
		}
		if got, err := Check(cfg, "hadal", token); err != nil || !got.Valid || got.ID != "ann" {
			t.Errorf("Check = %+v, %v", got, err)
		}
		time.Sleep(time.Hour)
		if got, err := Check(cfg, "hadal", token); err != nil || got.Valid || got.Reason != "TOKEN_EXPIRED" || got.ID != "ann" {
			t.Errorf("Check = %+v, %v", got, err)
		}
		if got, err := Check(cfg, "hadal/other", token); err != nil || got.Valid {
			t.Errorf("Check for another cluster = %+v, %v", got, err)
		}
		if _, _, err := Make(cfg, "hadal", []byte(`{"id":"ann","ttl":"25h"}`)); err == nil || !strings.Contains(err.Error(), "ttl: ") {
			t.Errorf("Make of a token for longer than revocations are sure to last: %v", err)
		}
		longer := cfg
		longer.AccessTTL = 48 * time.Hour
		if _, expires, err := Make(longer, "hadal", []byte(`{"id":"ann"}`)); err != nil || time.Until(expires) != OfflineLife {
			t.Errorf("Make without a ttl, where tokens live longer = %v, %v", time.Until(expires), err)
		}
		if _, _, err := Make(DefaultConfig(), "hadal", []byte(`{"id":"ann"}`)); !errors.Is(err, ErrOff) {
			t.Errorf("Make without keys: %v", err)
		}
		if _, _, err := Make(cfg, "hadal", []byte(`{"id":"ann","x":1}`)); err == nil {
			t.Error("a request with an unknown key was taken")
		}
	})
}
