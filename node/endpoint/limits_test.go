package endpoint

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// named lets everybody in as the text of the login says.
var named = funcAuth(func(_ context.Context, a *auth.Attempt) (auth.Verdict, error) {
	var p struct{ Username string }
	if err := json.Unmarshal([]byte(a.Params), &p); err != nil {
		return auth.Verdict{}, err
	}
	return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: p.Username}}, nil
})

// stopped is a clock that does not go.
func stopped(s *Server) { s.arrivals.now = func() int64 { return 1 } }

func TestAnAddressThatConnectsTooFastIsRefusedTheUpgrade(t *testing.T) {
	cfg := testConfig()
	cfg.TrustedProxies = []string{"127.0.0.1"}
	cfg.ConnectionRate = ConnectionRateConfig{PerAddress: 1, PerAddressBurst: 2, Global: 1, GlobalBurst: 5}
	ts := serveWith(t, cfg, stopped)
	connects := func(forwarded string) (status int, retry string) {
		header := http.Header{}
		if forwarded != "" {
			header.Set("X-Forwarded-For", forwarded)
		}
		ws, resp, err := new(websocket.Dialer).Dial(ts.url, header)
		if err == nil {
			t.Cleanup(func() { _ = ws.Close() }) // the server may have been first
		}
		if resp == nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	for i, tc := range []struct {
		from   string
		status int
	}{
		{"2001:db8::1", http.StatusSwitchingProtocols},
		{"2001:db8::2", http.StatusSwitchingProtocols},
		{"2001:db8::3", http.StatusTooManyRequests}, // the same network
		{"192.0.2.1", http.StatusSwitchingProtocols},
		{"", http.StatusSwitchingProtocols}, // the proxy for itself
		{"", http.StatusSwitchingProtocols},
		{"192.0.2.2", http.StatusServiceUnavailable}, // one more than five
	} {
		status, retry := connects(tc.from)
		if status != tc.status {
			t.Errorf("connection %d, of %q: status %d, want %d", i, tc.from, status, tc.status)
		}
		if refused := status != http.StatusSwitchingProtocols; refused != (retry == "1") {
			t.Errorf("connection %d: Retry-After %q with status %d", i, retry, status)
		}
	}
	refused := ts.Stats().Refused
	if refused["too fast from an address"] != 1 || refused["too fast"] != 1 {
		t.Errorf("counted %v, want one of each", refused)
	}
}

func TestAUserHasSoManyConnectionsAndNoMore(t *testing.T) {
	cfg := testConfig()
	cfg.MaxConnectionsPerUser = 2
	ts := serve(t, cfg, named, &funcReceiver{})
	login := func(user, want string) *testClient {
		t.Helper()
		c := ts.dial()
		c.send(challenge())
		c.want("CONNECTION.ACCEPT")
		c.send(request(`{"username":"` + user + `"}`))
		c.want(want)
		return c
	}
	const yes, no = "AUTH.AUTH_SUCCESSFUL", "AUTH.AUTH_UNSUCCESSFUL " + overbooked
	first := login("ann", yes)
	login("ann", yes)
	third := login("ann", no)
	login("bob", yes)
	for range 3 {
		login(auth.Anonymous, yes)
	}
	if err := first.ws.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first has gone", func() bool { return ts.Stats().Open == 6 })
	third.send(request(`{"username":"ann"}`))
	third.want(yes)
	login("ann", no)
}

func TestAnOldClientIsToldWhyItCannotLogIn(t *testing.T) {
	cfg := testConfig()
	cfg.Clients = ClientsConfig{
		WarnBelow:   map[string]string{"javascript": "7.1.0"},
		RefuseBelow: map[string]string{"javascript": "7.0.0", "swift": "*"},
	}
	ts := serve(t, cfg, funcAuth(func(context.Context, *auth.Attempt) (auth.Verdict, error) {
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "u"}}, nil
	}), &funcReceiver{})
	for _, tc := range []struct {
		kind, version string
		reason        string // empty: it may log in
	}{
		{"javascript", "7.0.5", ""},
		{"javascript", "7.0.4", ""},
		{"javascript", "7.0.5", ""},
		{"javascript", "7.10.0", ""},
		{"javascript", "6.9.9", `"javascript" need version 7.0.0`},
		{"javascript", "7.0.0-rc.1", `"javascript" need version 7.0.0`},
		{"javascript", "", `"javascript" need version 7.0.0`},
		{"swift", "99.0.0", `"swift" cannot log in`},
		{"java", "1.0.0", ""},
		{"", "", ""},
	} {
		c := ts.dial()
		c.send(&protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, SDKType: tc.kind, SDKVersion: tc.version})
		c.want("CONNECTION.ACCEPT")
		c.send(request(`{}`))
		if tc.reason == "" {
			c.want("AUTH.AUTH_SUCCESSFUL")
			continue
		}
		m, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		var told struct{ Error, Message string }
		if err := json.Unmarshal([]byte(m.Data), &told); err != nil || m.Action != protocol.AuthAuthUnsuccessful ||
			told.Error != "CLIENT_NOT_SUPPORTED" || !strings.Contains(told.Message, tc.reason) {
			t.Errorf("%s %s: %s (%v), want AUTH_UNSUCCESSFUL and why: %s", tc.kind, tc.version, name(m), err, tc.reason)
		}
		c.want("AUTH.TOO_MANY_AUTH_ATTEMPTS")
		c.wantClose(websocket.ClosePolicyViolation)
	}
	if got := ts.Stats().Outdated; got["warned"] != 3 || got["refused"] != 4 {
		t.Errorf("counted %v, want 3 warned and 4 refused", got)
	}
	if n := strings.Count(ts.logs.String(), "an old client is in use"); n != 2 {
		t.Errorf("the log tells %d times of old clients, want 2: once for each version", n)
	}
}

func TestMistakesInLimits(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxConnectionsPerUser = -1
	cfg.MaxSubscriptionsPerUser = -3
	cfg.ConnectionRate.Global = -2
	cfg.Clients.RefuseBelow = map[string]string{"javascript": "seven", "swift": "*", "java": "7"}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{"maxConnectionsPerUser: -1", "maxSubscriptionsPerUser: -3", "connectionRate.global: -2", `clients.refuseBelow.javascript: "seven"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not said: %v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n != 3 {
		t.Errorf("%d mistakes, want 4: %v", n+1, err)
	}
}
