package node

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"hadal/auth"
	"hadal/auth/vault"
)

// The login of a request is that of a connection: its parameters in the body, or what the
// headers have.
func TestARequestOfTheAPILogsInAsAConnectionDoes(t *testing.T) {
	key, hash := auth.NewAPIKey()
	other, _ := auth.NewAPIKey()
	d := describe(t, func(c *Config) {
		c.APIKeys = []auth.APIKey{{ID: "billing", Hash: hash, Role: "backend"}}
		c.Permission.Type = "config"
		c.Permission.Options.Permissions = map[string]any{
			"record":   map[string]any{"*": map[string]any{"read": "user.data !== null && user.data.role === 'backend'", "write": true, "create": true}},
			"event":    map[string]any{"*": map[string]any{"publish": "user.id === 'bob'"}},
			"rpc":      map[string]any{"*": map[string]any{"request": true}},
			"presence": map[string]any{"*": map[string]any{"allow": true}},
		}
	})
	const head, emit = `{"topic":"record","action":"head","recordName":"r"}`, `{"topic":"event","action":"emit","eventName":"e"}`
	for name, c := range map[string]struct {
		body   string
		header string
		status int
		want   bool // that the commands succeed
	}{
		"a key as a bearer":            {`{"body":[` + head + `]}`, "Bearer " + key, 200, true},
		"a key as the token":           {`{"token":"` + key + `","body":[` + head + `]}`, "", 200, true},
		"a key that is none":           {`{"body":[` + head + `]}`, "Bearer " + other, 401, false},
		"a user without the role":      {`{"authData":{"username":"bob","password":"x"},"body":[` + head + `]}`, "", 200, false},
		"a user by Basic":              {`{"body":[` + emit + `]}`, "Basic Ym9iOng=", 200, true},
		"a wrong password by Basic":    {`{"body":[` + emit + `]}`, "Basic Ym9iOnk=", 401, false},
		"a backend without the rights": {`{"body":[` + emit + `]}`, "Bearer " + key, 200, false},
	} {
		header := map[string]string{}
		if c.header != "" {
			header["Authorization"] = c.header
		}
		resp, text := d.send(t, http.MethodPost, "/api", header, c.body)
		if resp.StatusCode != c.status || strings.Contains(text, `"SUCCESS"`) != c.want {
			t.Errorf("%s: is answered %d %s", name, resp.StatusCode, text)
		}
	}
	resp, text := d.send(t, http.MethodGet, "/api?topic=record&action=head&recordName=r", map[string]string{"Authorization": "Bearer " + key}, "")
	if resp.StatusCode != 200 || text != `{"result":"SUCCESS","body":[{"success":true,"version":-1}]}` {
		t.Errorf("GET is answered %d %s", resp.StatusCode, text)
	}
	resp, text = d.send(t, http.MethodPost, "/api/auth", nil, `{"username":"ann","password":"x"}`)
	if resp.StatusCode != 200 || text != `{"clientData":{"likes":"red"}}` {
		t.Errorf("a login is answered %d %s", resp.StatusCode, text)
	}
	if resp, text = d.send(t, http.MethodPost, "/api/auth", map[string]string{"Authorization": "Bearer " + key}, ""); resp.StatusCode != 200 || text != `{}` {
		t.Errorf("a login without parameters is answered %d %s", resp.StatusCode, text)
	}
	for _, secret := range []string{key, other} {
		if strings.Contains(d.log.String(), secret) {
			t.Error("a key stands in the log")
		}
	}
}

// The rate limits of a user are those of its requests too.
func TestRateLimitsHoldForTheAPI(t *testing.T) {
	const few, many = 3, 200
	d := describe(t, func(c *Config) {
		c.RateLimits = []RateLimit{{Topic: "RECORD", Action: "HEAD", PerSecond: 1, Burst: few}}
	})
	heads := slices.Repeat([]string{`{"topic":"record","action":"head","recordName":"r"}`}, many)
	got := d.batch(t, heads...)
	passed := 0
	for _, one := range got.Body {
		switch {
		case one["success"] == true:
			passed++
		case one["errorEvent"] != "MESSAGE_DENIED":
			t.Fatalf("is answered %+v", one)
		}
	}
	if passed < few || passed == many {
		t.Errorf("%d of %d passed, want %d and what a second or two bring", passed, many, few)
	}
	if got := d.batchAs(t, "bob", heads[:few]...); got.Result != "SUCCESS" {
		t.Errorf("another user is answered %+v", got)
	}
}

// Each part can be switched off, and paths chosen; the document says what there is.
func TestTheAPIIsWhereTheConfigurationSays(t *testing.T) {
	off := run(t, func(c *Config) { c.Records.Store, c.ConnectionEndpoints = "memory", c.ConnectionEndpoints[:3] })
	for _, path := range []string{"/api", "/api/auth", "/openapi.json"} {
		if resp, _ := (&described{running: off}).send(t, http.MethodPost, path, nil, "{}"); resp.StatusCode != 404 {
			t.Errorf("without an HTTP API %s is answered %d", path, resp.StatusCode)
		}
	}
	d := describe(t, func(c *Config) {
		a := &c.ConnectionEndpoints[3].API
		a.PostPath, a.GetPath, a.EnableAuthEndpoint, a.AllowAuthData = "/v1/batch/", "", false, false
	})
	for path, want := range map[string]int{"/v1/batch": 401, "/v1/batch/": 401, "/v1/batch/auth": 401, "/api": 404, "/api/auth": 404} {
		if resp, text := d.send(t, http.MethodPost, path, nil, `{"body":[{}]}`); resp.StatusCode != want {
			t.Errorf("%s is answered %d %s, want %d", path, resp.StatusCode, text, want)
		}
	}
	if resp, text := d.send(t, http.MethodPost, "/v1/batch", nil, `{"authData":{},"body":[{}]}`); resp.StatusCode != 400 || !strings.Contains(text, "allowAuthData") {
		t.Errorf("authData that is not allowed is answered %d %s", resp.StatusCode, text)
	}
	if resp, _ := d.send(t, http.MethodGet, "/v1/batch?topic=record", nil, ""); resp.StatusCode != 405 {
		t.Errorf("GET that is switched off is answered %d", resp.StatusCode)
	}
	_, text := d.send(t, http.MethodGet, "/openapi.json", nil, "")
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Paths["/v1/batch/"]["post"] == nil || len(doc.Paths) != 2 || len(doc.Paths["/v1/batch/"]) != 1 {
		t.Errorf("the document has the paths %v", doc.Paths)
	}
}

// A request with a key is carried out once, also when it is sent again while it runs.
func TestAKeyHasARequestCarriedOutOnce(t *testing.T) {
	d := describe(t, nil)
	d.vault.Put(vault.NewMemory()) // unless it has one
	key := func(k string) map[string]string { return map[string]string{"Idempotency-Key": k} }
	body := func(commands string) string {
		return `{"authData":{"username":"ann","password":"x"},"body":[` + commands + `]}`
	}
	const patch = `{"topic":"record","action":"write","recordName":"r","path":"n","data":1}`
	first, text := d.send(t, http.MethodPost, "/api", key("one"), body(patch))
	again, same := d.send(t, http.MethodPost, "/api", key("one"), body(patch))
	if first.StatusCode != 200 || again.StatusCode != 200 || text != same || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("is answered %d %s, then %d %s", first.StatusCode, text, again.StatusCode, same)
	}
	if got := d.batch(t, `{"topic":"record","action":"head","recordName":"r"}`); got.Body[0]["version"] != float64(1) {
		t.Errorf("after it was sent twice the record is %v", got.Body[0])
	}
	if resp, text := d.send(t, http.MethodPost, "/api", key("one"), body(patch+","+patch)); resp.StatusCode != 422 {
		t.Errorf("another body is answered %d %s", resp.StatusCode, text)
	}
	for _, bad := range []string{strings.Repeat("x", 256), "ä"} {
		if resp, text := d.send(t, http.MethodPost, "/api", key(bad), body(patch)); resp.StatusCode != 400 {
			t.Errorf("the key %q is answered %d %s", bad, resp.StatusCode, text)
		}
	}
	// The key is ann's: bob's is another one, and so is none.
	bobs := strings.Replace(body(patch), "ann", "bob", 1)
	if resp, _ := d.send(t, http.MethodPost, "/api", key("one"), bobs); resp.Header.Get("Idempotent-Replayed") != "" || resp.StatusCode != 200 {
		t.Errorf("another user is answered %d from what was kept", resp.StatusCode)
	}
	if got := d.batch(t, patch, `{"topic":"record","action":"head","recordName":"r"}`); got.Body[1]["version"] != float64(3) {
		t.Errorf("then the record is %v", got.Body[1])
	}
}

func TestPagesOfOtherOriginsMayAskAsConfigured(t *testing.T) {
	const app, evil = "https://app.example.com", "https://evil.example.com"
	open := describe(t, nil)
	closed := describe(t, func(c *Config) { c.HTTPServer.Options.Origins = []string{app} })
	const read = "/api?topic=record&action=read&recordName=r"
	for name, c := range map[string]struct {
		d      *described
		method string
		header map[string]string
		status int
		allow  string
	}{
		"all may":                      {open, "GET", map[string]string{"Origin": evil}, 401, "*"},
		"one may":                      {closed, "GET", map[string]string{"Origin": app}, 401, app},
		"one may, by its referer":      {closed, "GET", map[string]string{"Referer": app + "/page?x"}, 401, app},
		"another may not":              {closed, "GET", map[string]string{"Origin": evil}, 403, ""},
		"nor by its referer":           {closed, "GET", map[string]string{"Referer": evil + "/" + app}, 403, ""},
		"a referer that is none":       {closed, "GET", map[string]string{"Referer": "app.example.com"}, 403, ""},
		"what is no page":              {closed, "GET", nil, 401, ""},
		"a preflight":                  {closed, "OPTIONS", map[string]string{"Origin": app, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, idempotency-key,authorization"}, 204, app},
		"a preflight of another":       {closed, "OPTIONS", map[string]string{"Origin": evil, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}, 403, ""},
		"without a method":             {open, "OPTIONS", map[string]string{"Access-Control-Request-Headers": "accept"}, 400, "*"},
		"with a method we lack":        {open, "OPTIONS", map[string]string{"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "accept"}, 403, "*"},
		"without headers":              {open, "OPTIONS", map[string]string{"Access-Control-Request-Method": "POST"}, 400, "*"},
		"with a header we do not know": {open, "OPTIONS", map[string]string{"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "accept,x-mine"}, 403, "*"},
	} {
		resp, text := c.d.send(t, c.method, read, c.header, "")
		if resp.StatusCode != c.status || resp.Header.Get("Access-Control-Allow-Origin") != c.allow {
			t.Errorf("%s: is answered %d %s, allowed is %q, want %d and %q", name, resp.StatusCode, text, resp.Header.Get("Access-Control-Allow-Origin"), c.status, c.allow)
		}
		if credentials := resp.Header.Get("Access-Control-Allow-Credentials"); (credentials == "true") != (c.allow == app) {
			t.Errorf("%s: credentials are allowed: %q", name, credentials)
		}
		if c.status == 204 && (resp.Header.Get("Access-Control-Allow-Methods") != "GET, POST, OPTIONS" || !strings.Contains(resp.Header.Get("Access-Control-Allow-Headers"), "Idempotency-Key")) {
			t.Errorf("%s: the preflight allows %v", name, resp.Header)
		}
	}
}
