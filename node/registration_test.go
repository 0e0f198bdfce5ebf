package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/crypto/bcrypt"

	"hadal/auth"
	"hadal/auth/register"
	"hadal/auth/tokens"
	"hadal/protocol"
)

// With the race detector, on a machine with much else to do, a hash of the usual cost takes
// longer than a request may.
func init() { registrationCost = bcrypt.MinCost }

const (
	pluginKey = "the-key-of-the-plugin-0123456789-abcdef"
	otherKey  = "another-key-0123456789-0123456789-0123"
)

// registering is a node where clients can register, and nobody else can log in.
func registering(t *testing.T, change func(*Config)) *running {
	t.Helper()
	n := run(t, func(c *Config) {
		c.Records.Store = "memory"
		c.Auth, c.Registration.Mode = nil, register.Open
		c.Admin.Token = "the-operators-token-of-32-bytes-x"
		if change != nil {
			change(c)
		}
	})
	return n
}

// post asks the public port.
func post(t *testing.T, n *running, path, authorization, body string) (status int, answer map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusNotFound || strings.HasPrefix(string(text), "{") {
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatalf("%s is answered %d %q: %v", path, resp.StatusCode, text, err)
		}
	}
	return resp.StatusCode, answer
}

func pairOf(id, key string) string { return fmt.Sprintf(`{"clientID":%q,"authKey":%q}`, id, key) }

// bearerOf is a new token of a client.
func bearerOf(t *testing.T, n *running, id, key string) string {
	t.Helper()
	status, answer := post(t, n, "/login", "", pairOf(id, key))
	token, _ := answer["bearerToken"].(string)
	if status != http.StatusOK || token == "" {
		t.Fatalf("login of %s is answered %d %v", id, status, answer)
	}
	return token
}

// enter logs in with parameters, and returns the connection and the answer.
func enter(t *testing.T, n *running, params string) (*peer, protocol.Message) {
	t.Helper()
	p := &peer{t, challenge(t, n)}
	p.say(protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: params, Has: protocol.HasData})
	m, err := p.read()
	if err != nil {
		t.Fatal(err)
	}
	return p, m
}

// closedWith waits for the goodbye of the server.
func (p *peer) closedWith() string {
	p.t.Helper()
	for {
		_, err := p.read()
		if closed, ok := err.(*websocket.CloseError); ok {
			return fmt.Sprint(closed.Code, " ", closed.Text)
		} else if err != nil {
			p.t.Fatal(err)
		}
	}
}

func TestARegisteredClientConnectsUntilItsLoginEnds(t *testing.T) {
	n := registering(t, func(c *Config) {
		c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "pw"}}}}}
		c.Registration.Role = "guest"
	})
	if status, answer := post(t, n, "/register", "", pairOf("plugin", pluginKey)); status != http.StatusCreated || answer["clientID"] != "plugin" {
		t.Fatalf("register is answered %d %v", status, answer)
	}
	for id, want := range map[string]int{"plugin": http.StatusConflict, "ann": http.StatusConflict, "open": http.StatusBadRequest} {
		if status, answer := post(t, n, "/register", "", pairOf(id, otherKey)); status != want {
			t.Errorf("registering %s is answered %d %v, want %d", id, status, answer, want)
		}
	}
	first := bearerOf(t, n, "plugin", pluginKey)
	byToken, m := enter(t, n, `{"token":"`+first+`"}`)
	if m.Action != protocol.AuthAuthSuccessful {
		t.Fatalf("the token is answered %s %s", m.Action.Name(m.Topic), m.Data)
	}
	byKey, m := enter(t, n, pairOf("plugin", pluginKey))
	if m.Action != protocol.AuthAuthSuccessful {
		t.Fatalf("the pair is answered %s %s", m.Action.Name(m.Topic), m.Data)
	}
	if _, m := enter(t, n, pairOf("plugin", otherKey)); m.Action != protocol.AuthAuthUnsuccessful {
		t.Errorf("a wrong pair is answered %s", m.Action.Name(m.Topic))
	}
	if _, m := enter(t, n, `{"username":"ann","password":"pw"}`); m.Action != protocol.AuthAuthSuccessful {
		t.Errorf("a user of the file is answered %s", m.Action.Name(m.Topic))
	}
	for _, c := range n.endpoint.Conns() {
		if u := c.User(); u != nil && u.ID == "plugin" && u.ServerData != `{"role":"guest"}` {
			t.Errorf("the client has the server data %s, want its role", u.ServerData)
		}
	}

	second := bearerOf(t, n, "plugin", pluginKey)
	if got, want := byToken.closedWith(), "1008 token revoked"; got != want {
		t.Errorf("after a later login the connection ends with %q, want %q", got, want)
	}
	if _, m := enter(t, n, `{"token":"`+first+`"}`); m.Action != protocol.AuthAuthUnsuccessful {
		t.Errorf("the earlier token is answered %s", m.Action.Name(m.Topic))
	}
	again, m := enter(t, n, `{"token":"`+second+`"}`)
	if m.Action != protocol.AuthAuthSuccessful {
		t.Fatalf("the later token is answered %s", m.Action.Name(m.Topic))
	}
	byKey.say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
	byKey.hear(protocol.TopicConnection, protocol.ConnectionPong)

	stream, res := listenTo(t, n, "?event=e", "Authorization", "Bearer "+second)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("a stream with the token is answered %s", res.Status)
	}
	if status, _ := post(t, n, "/unregister", "Bearer "+second, `{"clientID":"plugin"}`); status != http.StatusOK {
		t.Errorf("unregister is answered %d, want 200", status)
	}
	for name, p := range map[string]*peer{"by token": again, "by key": byKey} {
		if got, want := p.closedWith(), "1008 token revoked"; got != want {
			t.Errorf("after unregister the connection %s ends with %q, want %q", name, got, want)
		}
	}
	stream.hearEnd()
	text := metricsText(t, n)
	for _, want := range []string{
		`hadal_registration_requests_total{call="register",result="ok"} 1`, `hadal_registration_requests_total{call="register",result="exists"} 2`,
		`hadal_registration_ended_total 4`, `hadal_registration_connections 0`, `hadal_registration_logins_total{result="refused"} 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for _, secret := range []string{pluginKey, otherKey, first, second} {
		if strings.Contains(n.log.String()+text, secret) {
			t.Errorf("%q stands in the log or the metrics", secret)
		}
	}
}

func metricsText(t *testing.T, n *running) string {
	t.Helper()
	w := &strings.Builder{}
	families, err := n.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			fmt.Fprintf(w, "%s %v\n", name, m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return w.String()
}

func TestRegistrationIsOffUnlessTheConfigurationSaysElse(t *testing.T) {
	n := registering(t, func(c *Config) { c.Auth, c.Registration.Mode = Default().Auth, register.Off })
	for _, path := range register.Paths {
		if status, _ := post(t, n, path, "Bearer the-operators-token-of-32-bytes-x", pairOf("plugin", pluginKey)); status != http.StatusNotFound {
			t.Errorf("%s is answered %d, want 404", path, status)
		}
	}
	n = registering(t, func(c *Config) { c.Registration.Mode = register.Authenticated })
	for authorization, want := range map[string]int{"": http.StatusUnauthorized, "Bearer x": http.StatusUnauthorized, "Bearer the-operators-token-of-32-bytes-x": http.StatusCreated} {
		if status, _ := post(t, n, "/register", authorization, pairOf("plugin", pluginKey)); status != want {
			t.Errorf("with %q: %d, want %d", authorization, status, want)
		}
	}
}

// The address that counts is the client's, not that of a proxy that the operator trusts.
func TestRegistrationsAreCountedByTheAddressBehindATrustedProxy(t *testing.T) {
	n := registering(t, func(c *Config) { c.Registration.PerMinute, c.TrustedProxies = 1, []string{"127.0.0.1"} })
	ask := func(id, from string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+n.Addr().String()+"/register", strings.NewReader(pairOf(id, pluginKey)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Forwarded-For", from)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for i, c := range []struct {
		from string
		want int
	}{{"192.0.2.1", 201}, {"192.0.2.1", 429}, {"192.0.2.2", 201}} {
		if got := ask(fmt.Sprint("client", i), c.from); got != c.want {
			t.Errorf("registration %d, from %s: %d, want %d", i, c.from, got, c.want)
		}
	}
}

func TestMistakesInRegistrationOpenWithTheirKey(t *testing.T) {
	c := Default()
	c.Admin.Token = strings.Repeat("x", 31)
	c.Registration.Mode, c.Registration.BearerTTL = "opne", 0
	err := c.Validate()
	for _, want := range []string{`registration.mode: "opne"`, "registration.bearerTTL: 0s", "admin.token: is too short: with registrations the public port takes it"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestNoPathIsThatOfSomethingElse(t *testing.T) {
	for _, path := range append([]string{tokens.PathToken, tokens.PathSessions + "ann", "/auth/x"}, register.Paths...) {
		c := Default()
		c.HTTPServer.Options.HealthCheckPath = path
		if err := c.Validate(); err != nil {
			t.Errorf("%s is nobody's, and still: %v", path, err)
		}
		c.Auth, c.Tokens.SigningKeys, c.Registration.Mode, c.Registration.UserPrefix = nil, aKey, register.Open, "client/"
		key, cure := "httpServer.options.healthCheckPath", "registration.mode: off"
		if strings.HasPrefix(path, "/auth/") {
			cure = "remove tokens.signingKeys"
		}
		for range 2 {
			err := c.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("%s: %q is ", key, path)) || !strings.HasSuffix(err.Error(), cure) {
				t.Errorf("%s as %s: %v", path, key, err)
			}
			c.HTTPServer.Options.HealthCheckPath, c.ConnectionEndpoints[0].Options.URLPath = "/health-check", path
			key = "connectionEndpoints[0].options.urlPath"
		}
	}
	c := Default()
	c.ConnectionEndpoints[0].Options.URLPath = c.HTTPServer.Options.HealthCheckPath
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "is that of httpServer.options.healthCheckPath, too") {
		t.Errorf("clients would connect where health is asked for: %v", err)
	}
}

// upgraded asks for a WebSocket with an Authorization header, and logs in with nothing
// else. It returns the answer of HTTP where there was no WebSocket.
func upgraded(t *testing.T, n *running, authorization string) (*peer, protocol.Message, *http.Response) {
	t.Helper()
	ws, resp, err := websocket.DefaultDialer.Dial("ws://"+n.Addr().String()+"/deepstream", http.Header{"Authorization": {authorization}})
	if err != nil {
		if resp == nil {
			t.Fatal(err)
		}
		return nil, protocol.Message{}, resp
	}
	t.Cleanup(func() { ws.Close() })
	p := &peer{t, ws}
	p.say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: "x"})
	p.hear(protocol.TopicConnection, protocol.ConnectionAccept)
	p.say(protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: `{}`, Has: protocol.HasData})
	m, err := p.read()
	if err != nil {
		t.Fatal(err)
	}
	return p, m, nil
}

func basicOf(id, key string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(id, key)
	return r.Header.Get("Authorization")
}

func TestBasicAndBearerOfTheUpgradeLogInOrAreAnswered401(t *testing.T) {
	n := registering(t, func(c *Config) {
		c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "pw"}}}}}
	})
	if status, _ := post(t, n, "/register", "", pairOf("plugin", pluginKey)); status != http.StatusCreated {
		t.Fatalf("register is answered %d", status)
	}
	token := bearerOf(t, n, "plugin", pluginKey)
	_, want := post(t, n, "/login", "", pairOf("plugin", otherKey))
	for name, c := range map[string]struct {
		authorization string
		user          string // who it logs in; without one it is answered 401
	}{
		"a pair":          {basicOf("plugin", pluginKey), "plugin"},
		"a token":         {"Bearer " + token, "plugin"},
		"a user's":        {basicOf("ann", "pw"), "ann"},
		"a wrong key":     {basicOf("plugin", otherKey), ""},
		"a wrong token":   {"Bearer " + token + "x", ""},
		"nobody's token":  {"Bearer hb~cGx1Z2lu", ""},
		"a key and more":  {basicOf("plugin", pluginKey+"x"), ""},
		"an empty key":    {basicOf("plugin", ""), ""},
		"a token's start": {"Bearer " + token[:len(token)-1], ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, m, resp := upgraded(t, n, c.authorization)
			switch {
			case c.user == "" && resp == nil:
				t.Errorf("answered %s, want 401", m.Action.Name(m.Topic))
			case c.user == "":
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				var got map[string]any
				if err := json.Unmarshal(text, &got); err != nil || resp.StatusCode != http.StatusUnauthorized || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("answered %d %s (%v), want 401 %v", resp.StatusCode, text, err, want)
				}
			case p == nil:
				defer resp.Body.Close()
				t.Errorf("answered %d, want a WebSocket", resp.StatusCode)
			case m.Action != protocol.AuthAuthSuccessful:
				t.Errorf("answered %s %s, want a login", m.Action.Name(m.Topic), m.Data)
			}
		})
	}
	// An unknown name may be a user's of the file, who is judged at the login.
	if _, m, resp := upgraded(t, n, basicOf("nobody", pluginKey)); resp != nil || m.Action != protocol.AuthAuthUnsuccessful {
		t.Errorf("Basic of nobody is answered %s, %v, want a refused login", m.Action.Name(m.Topic), resp)
	}
}

func TestWhoRegistersAnIDAnewDoesNotHaveTheRoleOfTheFormerClient(t *testing.T) {
	n := registering(t, func(c *Config) { c.Registration.UserPrefix, c.Registration.Role = "client/", "guest" })
	roleOf := func(key string) string {
		t.Helper()
		if status, _ := post(t, n, "/register", "", pairOf("plugin", key)); status != http.StatusCreated && status != http.StatusConflict {
			t.Fatalf("register is answered %d", status)
		}
		v, err := n.logins.Authenticate(t.Context(), &auth.Attempt{Params: pairOf("plugin", key), RemoteAddr: "127.0.0.1"})
		if err != nil || v.Opinion != auth.Accepted {
			t.Fatalf("the client is judged %+v, %v", v, err)
		}
		return v.User.ServerData
	}
	roleOf(pluginKey)
	if err := n.accounts.SetRole(t.Context(), "client/plugin", "admin"); err != nil {
		t.Fatal(err)
	}
	give := time.Now().Add(30 * time.Second)
	for roleOf(pluginKey) != `{"role":"admin"}` { // a node hears of roles a moment later
		if time.Now().After(give) {
			t.Fatal("the client does not get its role")
		}
	}
	if status, _ := post(t, n, "/unregister", basicOf("plugin", pluginKey), `{"clientID":"plugin"}`); status != http.StatusOK {
		t.Fatalf("unregister is answered %d", status)
	}
	for { // as above
		role, err := n.accounts.roles.Role(t.Context(), "client/plugin")
		if err != nil {
			t.Fatal(err)
		}
		if role == "" {
			break
		}
		if time.Now().After(give) {
			t.Fatal("the role stays when its client is unregistered")
		}
	}
	if got := roleOf(otherKey); got != `{"role":"guest"}` {
		t.Errorf("the next client of that id has the server data %s, want its own role", got)
	}
}
