package endpoint

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"hadal/auth"

	"github.com/gorilla/websocket"
)

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

func TestCredentialsOfAnUpgrade(t *testing.T) {
	const page, stranger = "https://app.example", "https://evil.example"
	all := UpgradeConfig{Bearer: true, Basic: true, Cookie: "sid", Query: "token", Origins: []string{page, "http://localhost:3000/"}}
	usual := DefaultConfig().Upgrade
	for _, c := range []struct {
		name   string
		cfg    UpgradeConfig
		path   string
		header http.Header
		want   auth.Attempt // Token, Name, Password, Broken; URL unless empty
	}{
		{"none", all, "/deepstream", nil, auth.Attempt{URL: "/deepstream"}},
		{"bearer", usual, "/", http.Header{"Authorization": {"Bearer abc"}}, auth.Attempt{Token: "abc"}},
		{"bearer in other letters", usual, "/", http.Header{"Authorization": {"bEARER  abc "}}, auth.Attempt{Token: "abc"}},
		{"bearer of a page", usual, "/", http.Header{"Authorization": {"Bearer abc"}, "Origin": {stranger}}, auth.Attempt{Token: "abc"}},
		{"bearer that is off", UpgradeConfig{Basic: true}, "/", http.Header{"Authorization": {"Bearer abc"}}, auth.Attempt{}},
		{"bearer of nothing", usual, "/", http.Header{"Authorization": {"Bearer "}}, auth.Attempt{Broken: auth.Malformed}},
		{"another scheme", usual, "/", http.Header{"Authorization": {"Digest abc"}}, auth.Attempt{}},
		{"basic", usual, "/", http.Header{"Authorization": {basic("egon:p:w")}}, auth.Attempt{Name: "egon", Password: "p:w"}},
		{"basic without a password", usual, "/", http.Header{"Authorization": {basic("egon:")}}, auth.Attempt{Name: "egon"}},
		{"basic that is off", UpgradeConfig{Bearer: true}, "/", http.Header{"Authorization": {basic("egon:pw")}}, auth.Attempt{}},
		{"basic of a stranger's page", all, "/", http.Header{"Authorization": {basic("egon:pw")}, "Origin": {stranger}}, auth.Attempt{}},
		{"basic of any page, where none is listed", usual, "/", http.Header{"Authorization": {basic("egon:pw")}, "Origin": {page}}, auth.Attempt{}},
		{"basic of our page", all, "/", http.Header{"Authorization": {basic("egon:pw")}, "Origin": {page}}, auth.Attempt{Name: "egon", Password: "pw"}},
		{"basic that is none", usual, "/", http.Header{"Authorization": {"Basic !!!"}}, auth.Attempt{Broken: auth.Malformed}},
		{"basic without a colon", usual, "/", http.Header{"Authorization": {basic("egon")}}, auth.Attempt{Broken: auth.Malformed}},
		{"basic without a name", usual, "/", http.Header{"Authorization": {basic(":pw")}}, auth.Attempt{Broken: auth.Malformed}},
		{"two headers", usual, "/", http.Header{"Authorization": {"Bearer abc", "Bearer abc"}}, auth.Attempt{Broken: auth.Conflicting}},
		{"cookie of our page", all, "/", http.Header{"Cookie": {"a=b; sid=abc"}, "Origin": {page}}, auth.Attempt{Token: "abc"}},
		{"cookie of our other page", all, "/", http.Header{"Cookie": {"sid=abc"}, "Origin": {"http://localhost:3000"}}, auth.Attempt{Token: "abc"}},
		{"cookie of a stranger's page", all, "/", http.Header{"Cookie": {"sid=abc"}, "Origin": {stranger}}, auth.Attempt{}},
		{"cookie of a page in a sandbox", all, "/", http.Header{"Cookie": {"sid=abc"}, "Origin": {"null"}}, auth.Attempt{}},
		{"cookie of a page below ours", all, "/", http.Header{"Cookie": {"sid=abc"}, "Origin": {page + ".evil.example"}}, auth.Attempt{}},
		{"cookie of two pages", all, "/", http.Header{"Cookie": {"sid=abc"}, "Origin": {page, stranger}}, auth.Attempt{}},
		{"cookie of no page", all, "/", http.Header{"Cookie": {"sid=abc"}}, auth.Attempt{}},
		{"cookie where none counts", usual, "/", http.Header{"Cookie": {"sid=abc"}, "Origin": {page}}, auth.Attempt{}},
		{"the same cookie twice", all, "/", http.Header{"Cookie": {"sid=abc; sid=abc"}, "Origin": {page}}, auth.Attempt{Token: "abc"}},
		{"two cookies", all, "/", http.Header{"Cookie": {"sid=abc; sid=def"}, "Origin": {page}}, auth.Attempt{Broken: auth.Conflicting}},
		{"query", all, "/deepstream?x=1&token=abc", nil, auth.Attempt{Token: "abc", URL: "/deepstream?x=1"}},
		{"query that is off", usual, "/deepstream?token=abc", nil, auth.Attempt{URL: "/deepstream?token=abc"}},
		{"query twice", all, "/?token=abc&token=def", nil, auth.Attempt{Broken: auth.Conflicting, URL: "/"}},
		{"query with a broken pair", all, "/?%zz&token=abc", nil, auth.Attempt{Token: "abc", URL: "/"}},
		{"query, cookie and bearer that agree", all, "/?token=abc", http.Header{"Cookie": {"sid=abc"}, "Origin": {page}, "Authorization": {"Bearer abc"}}, auth.Attempt{Token: "abc"}},
		{"query and bearer that do not", all, "/?token=abc", http.Header{"Authorization": {"Bearer def"}}, auth.Attempt{Broken: auth.Conflicting}},
		{"cookie and query that do not", all, "/?token=abc", http.Header{"Cookie": {"sid=def"}, "Origin": {page}}, auth.Attempt{Broken: auth.Conflicting}},
		{"cookie and basic", all, "/", http.Header{"Cookie": {"sid=def"}, "Origin": {page}, "Authorization": {basic("egon:pw")}}, auth.Attempt{Broken: auth.Conflicting}},
		{"a stranger's cookie and bearer", all, "/", http.Header{"Cookie": {"sid=def"}, "Origin": {stranger}, "Authorization": {"Bearer abc"}}, auth.Attempt{Token: "abc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Server{cfg: Config{Upgrade: c.cfg}}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.path, nil)
			if c.header != nil {
				r.Header = c.header
			}
			got := s.Attempt(r)
			if got.Token != c.want.Token || got.Name != c.want.Name || got.Password != c.want.Password || got.Broken != c.want.Broken {
				t.Errorf("got token %q, name %q, password %q, broken %q; want %+v", got.Token, got.Name, got.Password, got.Broken, c.want)
			}
			if c.want.URL != "" && got.URL != c.want.URL {
				t.Errorf("got URL %q, want %q", got.URL, c.want.URL)
			}
			if got.RemoteAddr == "" || got.Params != "" {
				t.Errorf("got address %q and parameters %q", got.RemoteAddr, got.Params)
			}
		})
	}
}

func TestStrategiesAreNotToldWhatABrowserAddsForForeignPages(t *testing.T) {
	const listed, allowed, stranger = "https://app.example", "https://other.example", "https://evil.example"
	for _, c := range []struct {
		name    string
		origins []string // httpServer.options.origins
		origin  []string
		told    bool
	}{
		{"no page", nil, nil, true},
		{"a page of upgrade.origins", nil, []string{listed}, true},
		{"a page of httpServer.options.origins", []string{allowed}, []string{allowed}, true},
		{"a page of the node's own host", nil, []string{"https://node.example:6020"}, true},
		{"a page of another port", nil, []string{"https://node.example"}, false},
		{"any page, where none is listed", nil, []string{stranger}, false},
		{"a page that is not listed", []string{allowed}, []string{stranger}, false},
		{"a page in a sandbox", nil, []string{"null"}, false},
		{"two pages", nil, []string{listed, stranger}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Server{cfg: DefaultConfig()}
			s.cfg.Upgrade.Origins, s.cfg.HTTP.Origins = []string{listed}, c.origins
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://node.example:6020/", nil)
			r.Header = http.Header{"Cookie": {"sid=abc"}, "Authorization": {basic("egon:pw")}, "X-A": {"b"}}
			if c.origin != nil {
				r.Header["Origin"] = c.origin
			}
			got := s.Attempt(r).Header
			if told := got.Get("Cookie") != "" && got.Get("Authorization") != ""; told != c.told {
				t.Errorf("got %v, want its cookie and password told: %t", got, c.told)
			}
			if got.Get("X-A") != "b" || r.Header.Get("Cookie") == "" {
				t.Errorf("got %v of %v", got, r.Header)
			}
			r.Header.Set("Authorization", "Bearer t")
			if got := s.Attempt(r).Header.Get("Authorization"); got != "Bearer t" {
				t.Errorf("got %q, want the token, which a page sends on purpose", got)
			}
		})
	}
}

func TestMistakesInUpgradeAreFound(t *testing.T) {
	for _, c := range []struct {
		cfg  UpgradeConfig
		want string
	}{
		{UpgradeConfig{Cookie: "sid"}, "upgrade.origins: is empty"},
		{UpgradeConfig{Cookie: "a b", Origins: []string{"https://a.example"}}, "upgrade.cookie: "},
		{UpgradeConfig{Origins: []string{"https://a.example", "a.example"}}, "upgrade.origins[1]: "},
		{UpgradeConfig{Origins: []string{"https://a.example/path"}}, "upgrade.origins[0]: "},
		{UpgradeConfig{Origins: []string{"*"}}, "upgrade.origins[0]: "},
		{UpgradeConfig{Origins: []string{"null"}}, "upgrade.origins[0]: "},
		{UpgradeConfig{Origins: []string{"https://a@b.example"}}, "upgrade.origins[0]: "},
	} {
		cfg := DefaultConfig()
		cfg.Upgrade = c.cfg
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q", c.cfg, err, c.want)
		}
	}
}

func TestTheUpgradesCredentialsReachTheLoginAndNothingElse(t *testing.T) {
	const secret = "s3cr3t-of-a-client"
	attempts := make(chan auth.Attempt, 2)
	cfg := testConfig()
	cfg.Upgrade.Query = "token"
	cfg.WebSocket.LogInvalidAuthData = true
	ts := serve(t, cfg, funcAuth(func(_ context.Context, a *auth.Attempt) (auth.Verdict, error) {
		attempts <- *a
		return auth.Verdict{Opinion: auth.Refused}, nil
	}), &funcReceiver{})
	ts.url += "?token=" + secret
	c := ts.dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	for _, params := range []string{`{}`, `{"username":"a"}`} {
		c.send(request(params))
		c.want("AUTH.AUTH_UNSUCCESSFUL")
		if a := <-attempts; a.Token != secret || a.Params != params || strings.Contains(a.URL, secret) {
			t.Errorf("got %+v, want the token with each login, and not in the URL", a)
		}
	}
	if strings.Contains(ts.logs.String(), secret) {
		t.Errorf("the log holds the token: %s", ts.logs.String())
	}
}

func TestAGuardAnswersUpgrades(t *testing.T) {
	ts := serveWith(t, testConfig(), func(s *Server) {
		s.Guard(func(w http.ResponseWriter, _ *http.Request, a *auth.Attempt) bool {
			if a.Name == "egon" {
				return true
			}
			http.Error(w, "who is "+a.Name, http.StatusUnauthorized)
			return false
		})
	})
	for name, want := range map[string]int{"egon": http.StatusSwitchingProtocols, "eve": http.StatusUnauthorized} {
		ws, resp, err := websocket.DefaultDialer.Dial(ts.url, http.Header{"Authorization": {basic(name + ":pw")}})
		if err == nil {
			defer ws.Close()
		}
		if resp == nil || resp.StatusCode != want {
			t.Errorf("%s: got %v, %v, want %d", name, resp, err, want)
		}
	}
}

func FuzzAnyHeaderOfAnUpgrade(f *testing.F) {
	for _, s := range []string{"Bearer abc", "Basic ZWdvbjpwdw==", "Basic", "bearer", "Digest x", basic(":")} {
		f.Add(s, "sid=1; sid=2", "https://app.example", "token=a&token=b")
	}
	s := &Server{cfg: Config{Upgrade: UpgradeConfig{Bearer: true, Basic: true, Cookie: "sid", Query: "token", Origins: []string{"https://app.example"}}}}
	f.Fuzz(func(t *testing.T, authorization, cookie, origin, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		r.Header = http.Header{"Authorization": {authorization}, "Cookie": {cookie}, "Origin": {origin}}
		a := s.Attempt(r)
		kinds := []bool{a.Token != "", a.Name != "" || a.Password != "", a.Broken != ""}
		if n := len(slices.DeleteFunc(kinds, func(b bool) bool { return !b })); n > 1 {
			t.Errorf("several at once: %+v", a)
		}
		if a.Name != "" && origin != "https://app.example" {
			t.Errorf("a page of %q logged in as %q", origin, a.Name)
		}
	})
}
