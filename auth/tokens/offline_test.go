package tokens

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
)

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
		if _, _, err := Make(DefaultConfig(), "hadal", []byte(`{"id":"ann"}`)); !errors.Is(err, ErrOff) {
			t.Errorf("Make without keys: %v", err)
		}
		if _, _, err := Make(cfg, "hadal", []byte(`{"id":"ann","x":1}`)); err == nil {
			t.Error("a request with an unknown key was taken")
		}
	})
}
