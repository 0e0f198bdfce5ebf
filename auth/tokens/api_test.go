package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
)

// request asks the public port.
func request(t *testing.T, w *world, method, path, secret, body string) (int, map[string]any) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	h := w.Routes()[path]
	if strings.HasPrefix(path, PathSessions) {
		h = w.Routes()[PathSessions]
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	answer := make(map[string]any)
	if text := rec.Body.Bytes(); bytes.HasPrefix(text, []byte("{")) {
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
	return rec.Code, answer
}

func post(t *testing.T, w *world, path, secret, body string) (int, map[string]any) {
	t.Helper()
	return request(t, w, http.MethodPost, path, secret, body)
}

func TestTheAPIMintsForBackendsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		w := newWorld(t, cfg, vault.NewMemory())
		for _, c := range []struct {
			path, body string
			status     int
			code       string
			server     string // of a token that is minted
		}{
			{PathToken, `{"id":"ann"}`, 200, "", ""},
			{PathToken, `{"id":"ann","role":"admin","serverData":null}`, 200, "", `{"role":"admin"}`},
			{PathToken, `{"id":"ann","role":"admin","serverData":{"a":[1]},"clientData":"x","ttl":60000}`, 200, "", `{"a":[1],"role":"admin"}`},
			{PathToken, `{"id":"ann","role":"admin","serverData":{"role":"admin"},"ttl":"24h"}`, 200, "", `{"role":"admin"}`},
			{PathToken, `{"id":"ann","role":"admin","serverData":{"role":"guest"}}`, 400, "INVALID_SERVER_DATA", ""},
			{PathToken, `{"id":"ann","role":"admin","serverData":[1]}`, 400, "INVALID_SERVER_DATA", ""},
			{PathToken, `{}`, 400, "INVALID_ID", ""},
			{PathToken, `{"id":"hadal/x"}`, 400, "INVALID_ID", ""},
			{PathToken, `{"id":"ann","ttl":999}`, 400, "INVALID_TTL", ""},
			{PathToken, `{"id":"ann","ttl":"721h"}`, 400, "INVALID_TTL", ""},
			{PathToken, `{"id":"ann","ttl":"soon"}`, 400, "INVALID_BODY", ""},
			{PathToken, `{"id":"ann","password":"x"}`, 400, "INVALID_BODY", ""},
			{PathToken, `{"id":"ann","serverData":"` + strings.Repeat("x", 13<<10) + `"}`, 400, "TOO_MUCH_DATA", ""},
			{PathToken, `{"id":"ann","serverData":"` + strings.Repeat("x", 65<<10) + `"}`, 413, "BODY_TOO_LARGE", ""},
			{PathRevoke, `{"jti":"x"}`, 200, "", ""},
			{PathRevoke, `{"id":"ann"}`, 200, "", ""},
			{PathRevoke, `{"id":"ann","before":"1999-01-02T03:04:05Z"}`, 200, "", ""},
			{PathRevoke, `{"before":1}`, 200, "", ""},
			{PathRevoke, `{"before":1,"undo":true}`, 200, "", ""},
			{PathRevoke, `{}`, 400, "INVALID_BODY", ""},
			{PathRevoke, `{"jti":"x","id":"ann"}`, 400, "INVALID_BODY", ""},
			{PathRevoke, `{"before":4102444800000}`, 400, "INVALID_BEFORE", ""},
			{PathRevoke, `{"before":"yesterday"}`, 400, "INVALID_BODY", ""},
		} {
			for _, wrong := range []string{"", "x", cfg.APISecret + "x"} {
				if status, answer := post(t, w, c.path, wrong, c.body); status != 401 || answer["code"] != "UNAUTHORIZED" {
					t.Errorf("%s %.60s with the secret %q: %d %v", c.path, c.body, wrong, status, answer)
				}
			}
			status, answer := post(t, w, c.path, cfg.APISecret, c.body)
			code, _ := answer["code"].(string)
			if status != c.status || code != c.code {
				t.Errorf("%s %.60s: got %d %v, want %d %s", c.path, c.body, status, answer, c.status, c.code)
			}
			if c.path != PathToken || status != 200 {
				continue
			}
			time.Sleep(time.Millisecond)
			v := w.judge(answer["token"].(string))
			if v.Opinion != auth.Accepted || v.User.ServerData != c.server {
				t.Errorf("%.60s: a login: %+v", c.body, v)
			} else if at := v.User.Session.Expires.UnixMilli(); float64(at) != answer["expiresAt"] {
				t.Errorf("it expires at %d, and the answer says %v", at, answer["expiresAt"])
			}
			if _, ok := parseRefresh(answer["refreshToken"].(string)); !ok {
				t.Errorf("the refresh token is %v", answer["refreshToken"])
			}
		}
	})
}

func TestTheAPIRefreshesRevokesAndKicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		w := newWorld(t, cfg, vault.NewMemory())
		c, p := w.login("ann")
		status, answer := post(t, w, PathRefresh, "", `{"refreshToken":"`+p.RefreshToken+`"}`)
		if status != 200 || answer["refreshToken"] == p.RefreshToken {
			t.Fatalf("refresh: %d %v", status, answer)
		}
		for _, body := range []string{`{}`, `{"refreshToken":"x"}`, `{"refreshToken":"` + refreshToken{newID(), random(secretSize), random(tagSize)}.String() + `"}`} {
			if status, answer := post(t, w, PathRefresh, "", body); status != 401 || answer["code"] != "UNAUTHORIZED" {
				t.Errorf("%s: %d %v", body, status, answer)
			}
		}
		refresh := `{"refreshToken":"` + answer["refreshToken"].(string) + `"}`
		if status, answer := post(t, w, PathRevoke, cfg.APISecret, `{"id":"ann"}`); status != 200 {
			t.Fatalf("revoke: %d %v", status, answer)
		}
		if status, answer := post(t, w, PathRefresh, "", refresh); status != 401 || answer["code"] != "TOKEN_REVOKED" {
			t.Errorf("refresh of a revoked user: %d %v", status, answer)
		}
		time.Sleep(time.Second)
		c.wantEnd(t, Revoked)
		if status, answer := request(t, w, http.MethodDelete, PathRevoke, cfg.APISecret, `{"id":"ann"}`); status != 200 {
			t.Fatalf("undo: %d %v", status, answer)
		}
		if status, answer := post(t, w, PathRefresh, "", refresh); status != 200 {
			t.Errorf("refresh after the undo: %d %v", status, answer)
		}
		c, _ = w.login("ann")
		for secret, want := range map[string]int{"": 401, cfg.APISecret: 200} {
			if status, answer := request(t, w, http.MethodDelete, PathSessions+"ann", secret, ""); status != want {
				t.Errorf("kick: %d %v, want %d", status, answer, want)
			}
		}
		time.Sleep(time.Second)
		c.wantEnd(t, Kicked)
		if status, _ := request(t, w, http.MethodDelete, PathSessions, cfg.APISecret, ""); status != 400 {
			t.Errorf("kick of nobody: %d, want 400", status)
		}
		if status, _ := request(t, w, http.MethodGet, PathToken, cfg.APISecret, ""); status != 405 {
			t.Errorf("GET: %d, want 405", status)
		}
		off := newWorld(t, DefaultConfig(), vault.NewMemory())
		if status, _ := post(t, off, PathRefresh, "", refresh); status != 404 {
			t.Errorf("without keys: %d, want 404", status)
		}
	})
}

func TestWithoutAnAPISecretNobodyIsABackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		cfg.APISecret = ""
		w := newWorld(t, cfg, vault.NewMemory())
		for _, secret := range []string{"", "x"} {
			if status, _ := post(t, w, PathToken, secret, `{"id":"ann"}`); status != 401 {
				t.Errorf("secret %q: %d, want 401", secret, status)
			}
		}
	})
}

func TestTheOperatorChecksATokenWithoutLearningASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, testConfig(hmacKey("a")), vault.NewMemory())
		p := w.mint("ann")
		for token, want := range map[string]string{p.Token: "", p.Token + "x": "TOKEN_INVALID", "x": "not a token of this cluster"} {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, PathCheck, strings.NewReader(`{"token":"`+token+`"}`))
			req.Header.Set("Content-Type", "application/json")
			rec := httptest.NewRecorder()
			w.OperatorRoutes()[PathCheck].ServeHTTP(rec, req)
			var got Checked
			if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if got.Reason != want || got.Valid != (want == "") || got.Valid && got.ID != "ann" {
				t.Errorf("got %+v, want %q", got, want)
			}
		}
	})
}

// What goes wrong tells no secret.
func TestNoSecretReachesTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := testConfig(hmacKey("a"))
		w := newWorld(t, cfg, vault.NewMemory())
		w.deps.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		p := w.mint("ann")
		second := p
		w.mustExchange(&second)
		time.Sleep(time.Minute)
		for _, body := range []string{`{"refreshToken":"` + p.RefreshToken + `"}`, `{"refreshToken":"` + second.RefreshToken + `"`, `{"refreshToken":{"x":"` + second.Token + `"}}`} {
			post(t, w, PathRefresh, cfg.APISecret, body)
		}
		w.families.vault = vault.NewSlot() // which is not open
		if status, _ := post(t, w, PathRefresh, cfg.APISecret, `{"refreshToken":"`+second.RefreshToken+`"}`); status != 503 {
			t.Errorf("without a vault: %d, want 503", status)
		}
		if !strings.Contains(log.String(), "used twice") || !strings.Contains(log.String(), "not open") {
			t.Errorf("the log lacks what happened: %s", log.String())
		}
		for _, secret := range []string{p.RefreshToken[len(p.RefreshToken)-30:], second.RefreshToken[len(second.RefreshToken)-30:], p.Token, second.Token, cfg.APISecret, cfg.SigningKeys[0].Secret} {
			if strings.Contains(log.String(), secret) {
				t.Errorf("a secret is in the log: %s", log.String())
			}
		}
	})
}

// The last quarter of the store is for what takes rights away.
func TestACrowdedStoreMintsNothingAndRevokesStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(hmacKey("a"))
		v := vault.NewMemory()
		w := newWorld(t, cfg, v)
		full := false
		w.deps.Crowded = func(context.Context) bool { return full }
		c, p := w.login("ann")
		full = true
		before, _ := v.Size()
		if status, answer := post(t, w, PathToken, cfg.APISecret, `{"id":"bob"}`); status != http.StatusInsufficientStorage || answer["code"] != "STORE_CROWDED" {
			t.Errorf("minting: %d %v, want 507 STORE_CROWDED", status, answer)
		}
		if after, _ := v.Size(); after != before || w.Stats().Minted != 0 {
			t.Errorf("there were %d entries and are %d, %d minted", before, after, w.Stats().Minted)
		}
		time.Sleep(time.Second)
		if status, answer := post(t, w, PathRefresh, "", `{"refreshToken":"`+p.RefreshToken+`"}`); status != 200 {
			t.Errorf("refreshing: %d %v", status, answer)
		}
		if status, answer := post(t, w, PathRevoke, cfg.APISecret, `{"id":"ann"}`); status != 200 {
			t.Errorf("revoking: %d %v", status, answer)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		c.wantEnd(t, Revoked)
		full = false
		if status, answer := post(t, w, PathToken, cfg.APISecret, `{"id":"bob"}`); status != 200 {
			t.Errorf("when there is room again: %d %v", status, answer)
		}
	})
}
