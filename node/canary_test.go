package node

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hadal/auth"
	"hadal/protocol"
)

// wayIn is one way to log in, for the canary test: a node that is set up for it, and
// clients that send secrets to it, right and wrong ones, and in all places that are not
// meant for them. Who adds a strategy adds a row to waysIn.
type wayIn struct {
	// config sets the node up; every secret in it comes from mark.
	config func(t *testing.T, c *Config, mark func() string)
	// visit has clients try; nil is none beyond those that every way gets.
	visit func(v *visitor)
	// in is the login that is right, if it needs no more than parameters; empty without.
	in func() string
}

// waysIn are the ways, each made anew for a test.
var waysIn = map[string]func() wayIn{
	"tokens": tokensWay, "registration": registrationWay, "jwt": jwtWay, "http": hookWay,
	"storage": storageWay, "storage, PostgreSQL": postgresWay, "storage, PostgreSQL away": postgresAwayWay,
	"ws-text": func() wayIn { return dialectWay("/deepstream-v3", textFrame) },
	"ws-json": func() wayIn { return dialectWay("/deepstream-json", jsonFrame) },
	"none": func() wayIn {
		return wayIn{in: func() string { return `{"username":"ann"}` }}
	},
	"file, clear text": func() wayIn { return fileWay(func(_ *testing.T, password string) string { return password }) },
	"file, argon2id": func() wayIn {
		return fileWay(func(t *testing.T, password string) string {
			hash, err := auth.HashArgon2id(password)
			if err != nil {
				t.Fatal(err)
			}
			return hash
		})
	},
	"file, then none": func() wayIn {
		w := fileWay(func(_ *testing.T, password string) string { return password })
		first := w.config
		w.config = func(t *testing.T, c *Config, mark func() string) {
			first(t, c, mark)
			c.Auth = append(c.Auth, auth.Config{Type: "none"})
			c.AllowOpenFallback = true
		}
		return w
	},
}

// fileWay is the file strategy with a user, whose password is stored as stored says.
func fileWay(stored func(t *testing.T, password string) string) wayIn {
	var password string
	return wayIn{
		config: func(t *testing.T, c *Config, mark func() string) {
			password = mark()
			c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{
				"ann": {Password: stored(t, password), ServerData: map[string]any{"role": "admin"}},
			}}}}
		},
		in: func() string { return fmt.Sprintf(`{"username":"ann","password":%q}`, password) },
		visit: func(v *visitor) {
			v.login(nil, "", fmt.Sprintf(`{"username":"bob","password":%q}`, v.mark()))
			v.login(nil, "", fmt.Sprintf(`{"username":["ann"],"password":{"is":%q}}`, v.mark()))
		},
	}
}

// canaries are the secrets that were sent. Every sink is searched for all of them.
type canaries struct {
	n       int
	planted []string
	handed  []string // secrets that clients were given, which nobody else may see
}

// mark makes a secret that stands nowhere else.
func (c *canaries) mark() string {
	c.n++
	s := fmt.Sprintf("canary%dx%08d", time.Now().UnixNano(), c.n)
	c.planted = append(c.planted, s)
	return s
}

// found lists the secrets that a text holds, in the clear or as base64 has them whatever
// stands before them.
func (c *canaries) found(text string, more ...string) (list []string) {
	for _, s := range append(more, c.planted...) {
		forms := []string{s}
		for lead := range 3 {
			coded := base64.StdEncoding.EncodeToString(append(make([]byte, lead), s...))
			// What its first and last characters are depends on the neighbours too.
			forms = append(forms, strings.TrimRight(coded, "=")[4:len(coded)-4])
		}
		for _, form := range forms {
			if strings.Contains(text, form) {
				list = append(list, form)
			}
		}
	}
	return list
}

// visitor is a client that sends secrets everywhere.
type visitor struct {
	t *testing.T
	n *running
	canaries
	heard bytes.Buffer // all that it was told
}

// login asks the HTTP API, and connects, with more headers and a query, sends the parameters
// of logins one after another, and notes what it is told.
func (v *visitor) login(header http.Header, query string, params ...string) {
	v.t.Helper()
	api := http.Header{"Content-Type": {"application/json"}}
	maps.Copy(api, header)
	for _, p := range params {
		v.ask(http.MethodPost, "/api"+query, api, `{"authData":`+p+`,"body":[{"topic":"presence","action":"query"}]}`)
	}
	ws, resp, err := websocket.DefaultDialer.Dial("ws://"+v.n.Addr().String()+"/deepstream"+query, header)
	if err != nil {
		fmt.Fprintln(&v.heard, err)
		if resp != nil {
			v.note(resp)
		}
		return
	}
	defer ws.Close()
	say := func(m protocol.Message) bool {
		if err := ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, &m)); err != nil {
			return false
		}
		return v.listen(ws)
	}
	if !say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge,
		SDKType: "javascript", SDKVersion: "7.0.5", URL: "ws://ann:" + v.mark() + "@x/deepstream?token=" + v.mark()}) {
		return
	}
	for _, p := range params {
		if !say(protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: p, Has: protocol.HasData}) {
			return
		}
	}
}

// listen notes the next message, and says whether there was one.
func (v *visitor) listen(ws *websocket.Conn) bool {
	if err := ws.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		v.t.Fatal(err)
	}
	_, b, err := ws.ReadMessage()
	fmt.Fprintf(&v.heard, "%s %v\n", b, err)
	return err == nil
}

// ask makes a request of HTTP and notes the answer.
func (v *visitor) ask(method, path string, header http.Header, body string) {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, "http://"+v.n.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	for key, values := range header {
		req.Header[key] = values
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	v.note(resp)
}

func (v *visitor) note(resp *http.Response) {
	defer resp.Body.Close()
	if err := resp.Header.Write(&v.heard); err != nil {
		v.t.Fatal(err)
	}
	if _, err := io.Copy(&v.heard, resp.Body); err != nil {
		fmt.Fprintln(&v.heard, err) // of an upgrade that was refused the body may be cut
	}
}

// strangers sends secrets where no strategy looks for them, and broken ones.
func (v *visitor) strangers() {
	basic := func() string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+v.mark()))
	}
	for _, header := range []http.Header{
		{"Authorization": {"Bearer " + v.mark()}},
		{"Authorization": {basic()}},
		{"Authorization": {v.mark()}},
		{"Cookie": {"token=" + v.mark() + "; session=" + v.mark()}, "Origin": {"https://example.com"}},
		{"X-Api-Key": {v.mark()}, "X-Forwarded-For": {v.mark()}, "Referer": {"https://example.com/?token=" + v.mark()}},
	} {
		v.login(header, "?token="+v.mark()+"&access_token="+v.mark(), fmt.Sprintf(`{"username":"ann","password":%q,"token":%q}`, v.mark(), v.mark()))
		for _, path := range []string{"/auth/token", "/auth/refresh", "/auth/revoke", "/auth/sessions/ann", "/register", "/unregister", "/login", "/nowhere", "/deepstream", "/health-check"} {
			v.ask(http.MethodPost, path+"?token="+v.mark(), header, fmt.Sprintf(`{"clientID":"ann","authKey":%q,"refreshToken":%q,"id":"ann"}`, v.mark(), v.mark()))
		}
		v.ask(http.MethodPost, "/register", header, v.mark())
		v.ask(http.MethodDelete, "/auth/sessions/"+v.mark(), header, "")
	}
	v.login(nil, "", v.mark())
	v.login(nil, "", `["`+v.mark()+`"]`)
	v.login(nil, "", `{"password":"`+v.mark())
	v.login(nil, "", fmt.Sprintf(`{"username":"ann","password":%q}`, v.mark()), fmt.Sprintf(`{"username":"ann","password":%q}`, v.mark()),
		fmt.Sprintf(`{"username":"ann","password":%q}`, v.mark()))
	// Before the challenge, as text, and as nothing that can be read.
	for _, m := range []struct {
		kind int
		data []byte
	}{
		{websocket.BinaryMessage, protocol.Append(nil, &protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: `{"password":"` + v.mark() + `"}`, Has: protocol.HasData})},
		{websocket.TextMessage, []byte(`{"password":"` + v.mark() + `"}`)},
		{websocket.BinaryMessage, []byte(v.mark())},
	} {
		ws := challenge(v.t, v.n)
		if err := ws.WriteMessage(m.kind, m.data); err != nil {
			v.t.Fatal(err)
		}
		v.listen(ws)
	}
}

// TestNoSecretReachesASink sends marked secrets to a node every way there is, at the
// level of log that says most, and searches all that the node says to anybody.
func TestNoSecretReachesASink(t *testing.T) {
	for name, make := range waysIn {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way, v := make(), &visitor{t: t}
			cfg := canaryConfig(t, v.mark)
			if way.config != nil {
				way.config(t, &cfg, v.mark)
			}
			log := &logBuffer{}
			v.n = runLogged(t, cfg, log)
			v.strangers()
			if way.visit != nil {
				way.visit(v)
			}
			accepted := v.n.endpoint.Stats().Logins["accepted"]
			if way.in != nil {
				v.login(nil, "", way.in(), fmt.Sprintf(`{"username":"ann","password":%q}`, v.mark()))
				if now := v.n.endpoint.Stats().Logins["accepted"]; now == accepted {
					t.Errorf("the right login of %s does not log in:\n%s", name, log)
				}
			}
			sinks := map[string]string{"clients": v.heard.String(), "config show": shownConfig(t, cfg), "info": fmt.Sprint(v.n.Info())}
			adminAnswers(t, v.n, cfg, v.mark(), sinks)
			if err := v.n.stop(); err != nil {
				t.Error(err)
			}
			sinks["log"] = log.String()
			for sink, text := range sinks {
				if text == "" {
					t.Errorf("%s: nothing was said, so nothing was searched", sink)
				}
				var more []string
				if sink != "clients" {
					more = v.handed
				}
				for _, secret := range v.found(text, more...) {
					t.Errorf("%s: holds the secret %s: …%s…", sink, secret, around(text, secret))
				}
			}
			if !strings.Contains(sinks["log"], "level=DEBUG") || !strings.Contains(sinks["log"], `"level":"DEBUG"`) {
				t.Error("the log says nothing at debug level, as text and as JSON")
			}
		})
	}
}

// canaryConfig is a node that logs all it can, whose own secrets are marked.
func canaryConfig(t *testing.T, mark func() string) Config {
	cfg := Default()
	cfg.ServerName = "canary"
	cfg.LogLevel = LogDebug
	cfg.DataDir = t.TempDir()
	cfg.HTTPServer.Options.Port = 0
	cfg.ConnectionEndpoints[0].Options.LogInvalidAuthData = true
	cfg.Records.Store = "memory"
	cfg.Admin.Listen, cfg.Admin.Token = "127.0.0.1:0", mark()
	cfg.RateLimits = []RateLimit{{Topic: "EVENT", PerSecond: 1000}}
	return cfg
}

// runLogged is run for a whole Config, whose log is written in all its forms.
func runLogged(t *testing.T, cfg Config, log *logBuffer) *running {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	text, jsonText := cfg, cfg
	jsonText.Logger.Type = "json"
	n, err := New(cfg, slog.New(slog.NewMultiHandler(
		NewLogger(text, log).Handler(), NewLogger(jsonText, log).Handler(), newTerminalHandler(log, slog.LevelDebug))))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	var stopped bool
	stop := func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		return <-ended
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	select {
	case <-n.Started():
	case err := <-ended:
		stopped = true
		t.Fatalf("the node ended at once: %v\n%s", err, log)
	}
	return &running{Node: n, log: log, stop: stop}
}

// shownConfig is what the operator is shown of a configuration.
func shownConfig(t *testing.T, cfg Config) string {
	b, err := cfg.Show()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// adminAnswers asks the operator's listener for all that it tells, with the right token
// and a wrong one.
func adminAnswers(t *testing.T, n *running, cfg Config, wrong string, sinks map[string]string) {
	socket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.admin.Socket())
	}}}
	defer socket.CloseIdleConnections()
	ask := func(client *http.Client, method, addr, path, token string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		sinks[fmt.Sprintf("admin: %s %s on %s, %d", method, path, addr, resp.StatusCode)] = fmt.Sprint(resp.Status, resp.Header, string(b))
	}
	for _, path := range []string{"/info", "/metrics", "/readyz", "/healthz", "/cluster", "/records", "/rules/coverage", "/users", "/tokens", "/logins", "/", "/nowhere"} {
		ask(socket, http.MethodGet, "admin", path, "")
		ask(socket, http.MethodPost, "admin", path, wrong)
	}
	tcp := n.admin.Addr().String()
	for _, token := range []string{cfg.Admin.Token, wrong} {
		ask(http.DefaultClient, http.MethodGet, tcp, "/info", token)
	}
}

// around is some of a text on both sides of what stands in it.
func around(text, what string) string {
	i := strings.Index(text, what)
	return text[max(0, i-100):min(len(text), i+len(what)+20)]
}

// What is wrong with a configuration is told without the secrets in it.
func TestMistakesInAConfigurationTellNoSecret(t *testing.T) {
	var c canaries
	for _, text := range []string{
		`admin: {token: ["%s"]}`, `admin: {token: {a: "%s"}}`, `admin: {listen: "127.0.0.1:1", token: "a %s"}`, `admin: {listen: x, token: "%s"}`,
		`cluster: {name: a, secret: "%s", join: 1, role: boss}`, `cluster: {name: a, secret: ["%s"]}`,
		`auth: [{type: file, options: {users: {ann: {password: ["%s"]}}}}]`, `auth: [{type: file, options: {users: {ann: {password: "%s", role: 1}}}}]`,
		`auth: [{type: file, options: {users: {ann: {password: "%s"}}, hash: md5}}]`,
		`auth: [{type: http, options: {endpointUrl: "http://hook:%s@127.0.0.1/", permittedStatusCodes: [200]}}]`,
		`auth: [{type: http, options: {endpointUrl: ["http://127.0.0.1/?key=%s"]}}]`,
		`auth: [{type: storage, options: {connectionString: "postgres://h:%s@h/x"}}]`,
		`auth: [{type: storage, options: {backend: postgres, connectionString: "postgres://h:%s@h:nowhere/x"}}]`,
		`auth: [{type: storage, options: {backend: postgres, connectionString: ["%s"]}}]`,
		`auth: [{type: jwt, options: {keys: [{alg: HS256, secret: ["%s"]}]}}]`,
		`tokens: {apiSecret: ["%s"]}`, `tokens: {signingKeys: [{id: a, alg: HS256, secret: "%s", more: 1}]}`,
		`httpServer: {options: {ssl: {key: "-----BEGIN %s"}}}`, "httpServer: {options: {ssl: {key: [\"-----BEGIN %s\"], cert: 1}}}",
	} {
		path := filepath.Join(t.TempDir(), "config.yml")
		if err := os.WriteFile(path, fmt.Appendf(nil, text, c.mark()), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, loaded, err := LoadConfig(path, Overrides{})
		if err == nil {
			err = cfg.Validate()
		}
		if err == nil {
			_, err = New(cfg, slog.New(slog.DiscardHandler))
		}
		if err == nil {
			t.Errorf("%s: there is nothing wrong with it", text)
		}
		warnings, _ := json.Marshal(loaded.Warnings) // texts
		for _, secret := range c.found(fmt.Sprint(err, string(warnings))) {
			t.Errorf("%s: the secret %s is told: %v", text, secret, err)
		}
	}
}

// A search that finds nothing proves nothing.
func TestTheCanarySearchFindsWhatIsThere(t *testing.T) {
	var c canaries
	secret := c.mark()
	for lead := range 6 {
		name := strings.Repeat("x", lead)
		coded := base64.StdEncoding.EncodeToString([]byte(name + ":" + secret + "!"))
		if len(c.found("header Basic "+coded)) == 0 {
			t.Errorf("not found in base64 behind %d characters", lead+1)
		}
	}
	if len(c.found(`{"msg":"`+secret+`"}`)) == 0 || len(c.found("nothing")) != 0 {
		t.Error("a secret in the clear is not found, or one that is not there is")
	}
}
