package node

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/auth/tokens"
	"hadal/node/endpoint"
	"hadal/node/sub"
	"hadal/protocol"
)

// logins is a session that keeps what it was asked.
type logins struct{ asked []string }

func (l *logins) renew(_ sub.Client, m *protocol.Message) {
	l.asked = append(l.asked, "renew "+m.Data)
}
func (l *logins) remind(sub.Client) { l.asked = append(l.asked, "remind") }

func TestNoRuleStandsBetweenAClientAndItsToken(t *testing.T) {
	p, k, d, c := pipelineForTest()
	s := &logins{}
	p.session = s
	for _, m := range []protocol.Message{
		{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: protocol.CallRefresh, Data: "1"},
		{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"a", protocol.EventExpiring}},
		{Topic: protocol.TopicEvent, Action: protocol.EventUnsubscribe, Names: []string{protocol.EventExpiring}},
		{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: "other", Data: "2"},
		{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"no/" + protocol.CallRefresh}},
	} {
		p.receive(c, &m)
	}
	if want := []string{"renew 1", "remind"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %q, want %q", s.asked, want)
	}
	if slices.ContainsFunc(d.asked, func(q string) bool { return strings.HasPrefix(q, "REQUEST "+protocol.CallRefresh) }) {
		t.Errorf("the door was asked %q", d.asked)
	}
	if len(k.got) != 3 {
		t.Errorf("the rooms got %d messages, want 3", len(k.got))
	}
}

func TestSecretsOfTokensAreNotShown(t *testing.T) {
	cfg := Default()
	cfg.Tokens.APISecret = "the secret of backends, of 32 bytes"
	cfg.Tokens.SigningKeys = []tokens.Key{{ID: "a", Alg: "HS256", Secret: "a secret of thirty-two characters"}, {ID: "b", Alg: "ES256", Key: "keys/b.pem"},
		{ID: "c", Alg: "ES256", Key: "-----BEGIN PRIVATE KEY-----\nabc"}}
	text, err := cfg.Show()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret of", "BEGIN"} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("%q is shown in\n%s", secret, text)
		}
	}
	if !bytes.Contains(text, []byte("keys/b.pem")) {
		t.Errorf("the file of a key is not shown in\n%s", text)
	}
}

func TestMistakesInTokensOpenWithTheirKey(t *testing.T) {
	cfg := Default()
	cfg.Tokens.SigningKeys = []tokens.Key{{ID: "a", Alg: "HS256", Secret: "short"}}
	cfg.Tokens.RefreshTTL = 1
	err := cfg.Validate()
	for _, want := range []string{"tokens.signingKeys[0].secret: ", "tokens.refreshTTL: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestPagesThatMayConnectMayRefresh(t *testing.T) {
	asked := 0
	h := crossOrigin(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }), endpoint.HTTPConfig{Origins: []string{"https://a.example/"}}.AllowsOrigin)
	for _, c := range []struct {
		method, origin, allowed string
		asked                   int
	}{
		{http.MethodPost, "https://a.example", "https://a.example", 1},
		{http.MethodOptions, "https://a.example", "https://a.example", 0},
		{http.MethodPost, "https://b.example", "", 1},
		{http.MethodOptions, "https://b.example", "", 1},
		{http.MethodPost, "", "", 1},
	} {
		asked = 0
		r := httptest.NewRequestWithContext(t.Context(), c.method, tokens.PathRefresh, nil)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != c.allowed || asked != c.asked {
			t.Errorf("%s from %q: allowed %q, asked %d; want %q, %d", c.method, c.origin, got, asked, c.allowed, c.asked)
		}
	}
}

// docs/auth-storage.md says how the operator puts out whose account is gone.
func TestTheOperatorKicksWhoeverIsConnectedOnceThereAreKeys(t *testing.T) {
	n := run(t, func(c *Config) { c.Records.Store, c.Auth = "memory", []auth.Config{fileOf("ann")} })
	ann, m := enter(t, n, `{"username":"ann","password":"pw"}`)
	if m.Action != protocol.AuthAuthSuccessful {
		t.Fatalf("the login is answered %s", m.Action.Name(m.Topic))
	}
	socket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.admin.Socket())
	}}}
	defer socket.CloseIdleConnections()
	kick := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://admin/auth/sessions/ann", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := socket.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if status := kick(); status != http.StatusNotFound {
		t.Errorf("without keys: %d, want 404", status)
	}
	cfg := n.cfg
	cfg.Tokens.SigningKeys = aKey
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	give := time.After(30 * time.Second)
	for !n.tokens.Stats().Knows { // the node hears of kicks from now on
		select {
		case <-time.After(10 * time.Millisecond):
		case <-give:
			t.Fatal("the node does not get to know what is revoked")
		}
	}
	if status := kick(); status != http.StatusOK {
		t.Errorf("with keys: %d, want 200", status)
	}
	if got, want := ann.closedWith(), "1008 kicked"; got != want {
		t.Errorf("the connection ends with %q, want %q", got, want)
	}
}
