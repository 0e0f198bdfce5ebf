package auth

import (
	"context"
	"strings"
	"testing"
)

// witness accepts everybody and remembers what it was shown.
type witness struct{ seen Attempt }

func (w *witness) Authenticate(_ context.Context, a *Attempt) (Verdict, error) {
	w.seen = *a
	return Verdict{Opinion: Accepted, User: &User{ID: "u"}}, nil
}

func TestWhichCredentialsCount(t *testing.T) {
	conflict := `{"error":"CONFLICTING_CREDENTIALS"}`
	for _, c := range []struct {
		name    string
		a       Attempt
		params  string // that the strategies see; empty if they see nothing
		token   string
		refused string
	}{
		{"those of the login alone", Attempt{Params: `{"username":"a","password":"b"}`}, `{"username":"a","password":"b"}`, "", ""},
		{"a token of the upgrade", Attempt{Params: `{}`, Token: "t"}, `{}`, "t", ""},
		{"a token beside a name", Attempt{Params: `{"username":"a"}`, Token: "t"}, `{"username":"a"}`, "t", ""},
		{"a token beside a password", Attempt{Params: `{"username":"a","password":"b"}`, Token: "t"}, `{"username":"a","password":"b"}`, "", ""},
		{"a token beside another", Attempt{Params: `{"token":"new"}`, Token: "old"}, `{"token":"new"}`, "", ""},
		{"a token beside one under another key", Attempt{Params: `{"idToken":"new"}`, Token: "old"}, `{"idToken":"new"}`, "", ""},
		{"a token beside none", Attempt{Params: `{"token":null,"theme":"dark"}`, Token: "t"}, `{"token":null,"theme":"dark"}`, "t", ""},
		{"Basic", Attempt{Params: `{}`, Name: "a", Password: "<b>"}, `{"password":"<b>","username":"a"}`, "", ""},
		{"Basic beside a list", Attempt{Params: `[]`, Name: "a"}, `{"password":"","username":"a"}`, "", ""},
		{"Basic beside something", Attempt{Params: `{"theme":"dark"}`, Name: "a", Password: "b"}, `{"password":"b","theme":"dark","username":"a"}`, "", ""},
		{"Basic beside a name", Attempt{Params: `{"username":"c"}`, Name: "a", Password: "b"}, `{"username":"c"}`, "", ""},
		{"Basic beside a password", Attempt{Params: `{"password":"c"}`, Name: "a", Password: "b"}, `{"password":"c"}`, "", ""},
		{"Basic beside a registered client", Attempt{Params: `{"clientID":"c","authKey":"k"}`, Name: "a", Password: "b"}, `{"clientID":"c","authKey":"k"}`, "", ""},
		{"Basic beside a token", Attempt{Params: `{}`, Name: "a", Password: "b", Token: "t"}, "", "", conflict},
		{"broken ones", Attempt{Params: `{}`, Broken: Conflicting}, "", "", conflict},
		{"malformed ones", Attempt{Params: `{"username":"a"}`, Broken: Malformed}, "", "", `{"error":"MALFORMED_CREDENTIALS"}`},
		{"broken ones beside a token", Attempt{Params: `{"token":"t"}`, Broken: Conflicting}, `{"token":"t"}`, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &witness{}
			d := NewDoor(strategies{Chain{w, &jwtStrategy{tokenKeys: []string{"idToken"}}}})
			before := c.a
			v, err := d.Authenticate(t.Context(), &c.a)
			if err != nil {
				t.Fatal(err)
			}
			if c.refused != "" {
				if v.Opinion != Refused || v.Reason != c.refused || w.seen.Params != "" {
					t.Errorf("got %+v, and %q was shown, want refused with %s", v, w.seen.Params, c.refused)
				}
				return
			}
			if v.Opinion != Accepted || w.seen.Params != c.params || w.seen.Token != c.token || w.seen.Broken != "" {
				t.Errorf("got %+v, shown %+v, want params %s, token %q", v, w.seen, c.params, c.token)
			}
			if c.a.Params != before.Params || c.a.Token != before.Token || c.a.Name != before.Name {
				t.Errorf("the attempt was changed to %+v", c.a)
			}
		})
	}
}

func TestBasicLogsInWithAPassword(t *testing.T) {
	a, err := New([]Config{{Type: "file", Options: Options{Users: map[string]Entry{"egon": {Password: "pw"}}}}}, false, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a    Attempt
		want Opinion
	}{
		{Attempt{Params: `{}`, Name: "egon", Password: "pw"}, Accepted},
		{Attempt{Params: `{}`, Name: "egon", Password: "no"}, Refused},
		{Attempt{Params: `{"username":"egon"}`, Name: "egon", Password: "pw"}, Refused},
		{Attempt{Params: `{"username":"egon","password":"no"}`, Name: "egon", Password: "pw"}, Refused},
		{Attempt{Params: `{"username":"egon","password":"pw"}`, Name: "egon", Password: "no"}, Accepted},
	} {
		if v, err := NewDoor(a).Authenticate(t.Context(), &c.a); err != nil || v.Opinion != c.want {
			t.Errorf("%+v: got %+v, %v, want %d", c.a, v, err, c.want)
		}
	}
}

// Chains of every order of a strategy that asks for passwords, one that asks for tokens,
// a webhook, and an open one.
func TestOrdersOfAChain(t *testing.T) {
	url := webhookFor(t)
	yes, no := true, false
	file := func(report *bool) Config {
		return Config{Type: "file", Options: Options{Users: map[string]Entry{"egon": {Password: "pw"}}, ReportInvalidParameters: report}}
	}
	token := func(report *bool) Config {
		return Config{Type: "jwt", Options: Options{Keys: []JWTKey{keyFor("", "HS256")}, ReportInvalidParameters: report}}
	}
	web := func(report *bool) Config {
		o := hookOptions(url)
		o.ReportInvalidParameters = report
		return Config{Type: "http", Options: o}
	}
	open := Config{Type: "none"}
	good := `{"token":"` + sign(t, "HS256", "", valid(nil)) + `"}`
	expired := `{"token":"` + sign(t, "HS256", "", valid(map[string]any{"exp": 1})) + `"}`
	for _, c := range []struct {
		name    string
		chain   []Config
		params  string
		opinion Opinion
		user    string
		reason  string
	}{
		{"file, jwt: a password", []Config{file(nil), token(nil)}, `{"username":"egon","password":"pw"}`, Accepted, "egon", ""},
		{"file, jwt: a token", []Config{file(nil), token(nil)}, good, Accepted, "egon", ""},
		{"file, jwt: nothing", []Config{file(nil), token(nil)}, `{}`, Refused, "", ""},
		{"file that reports, jwt: a token", []Config{file(&yes), token(nil)}, good, Refused, "", `{"error":"missing or no string: username, password"}`},
		{"jwt, file: a password", []Config{token(nil), file(nil)}, `{"username":"egon","password":"pw"}`, Accepted, "egon", ""},
		{"jwt, file: a forged token", []Config{token(nil), file(nil)}, `{"token":"x"}`, Refused, "", ""},
		{"jwt, file: an expired token", []Config{token(nil), file(nil)}, expired, Refused, "", `"TOKEN_EXPIRED"`},
		{"jwt that reports, file: a password", []Config{token(&yes), file(nil)}, `{"username":"egon","password":"pw"}`, Refused, "", `{"error":"missing or no string: token"}`},
		{"http, jwt: what the webhook knows", []Config{web(nil), token(nil)}, `{"who":"ann"}`, Accepted, "ann", ""},
		{"http, jwt: what it refuses", []Config{web(nil), token(nil)}, good, Accepted, "egon", ""},
		{"http that reports, jwt: what it refuses", []Config{web(&yes), token(nil)}, good, Refused, "", `{"error":"unknown"}`},
		{"http, jwt: when it fails", []Config{web(nil), token(nil)}, `{"who":"500",` + good[1:], Refused, "", `{"error":"failed"}`},
		{"http, jwt: when it is not there", []Config{web(nil), token(nil)}, `{"who":"503",` + good[1:], Refused, "", `{"error":"AUTH_RETRY_ATTEMPTS_EXCEEDED"}`},
		{"jwt, http: a token", []Config{token(nil), web(nil)}, good, Accepted, "egon", ""},
		{"jwt, http: a forged token goes to the webhook", []Config{token(nil), web(nil)}, `{"token":"x","who":"ann"}`, Accepted, "ann", ""},
		{"http, none: what the webhook refuses", []Config{web(&no), open}, `{"username":"ann"}`, Accepted, "ann", ""},
		{"http, none: when it fails", []Config{web(&no), open}, `{"who":"500","username":"ann"}`, Refused, "", `{"error":"failed"}`},
		{"http, none: when it is not there", []Config{web(&no), open}, `{"who":"503","username":"ann"}`, Refused, "", `{"error":"AUTH_RETRY_ATTEMPTS_EXCEEDED"}`},
		{"http, none: when it talks rubbish", []Config{web(&no), open}, `{"who":"rubbish","username":"ann"}`, Refused, "", `{"error":"AUTH_ANSWER_UNUSABLE"}`},
		{"jwt, none: an expired token", []Config{token(&no), open}, expired, Refused, "", `"TOKEN_EXPIRED"`},
		{"jwt, none: no token", []Config{token(&no), open}, `{"username":"guest"}`, Accepted, "guest", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := New(c.chain, true, Deps{})
			if err != nil {
				t.Fatal(err)
			}
			v, err := a.Authenticate(t.Context(), &Attempt{Params: c.params})
			user := ""
			if v.User != nil {
				user = v.User.ID
			}
			if err != nil || v.Opinion != c.opinion || user != c.user || v.Reason != c.reason {
				t.Errorf("got %+v, user %q, %v", v, user, err)
			}
		})
	}
	for _, c := range []struct {
		name  string
		chain []Config
		want  string
	}{
		{"jwt, none", []Config{token(nil), open}, "auth[1]: after wrong credentials in auth[0]"},
		{"http, none", []Config{web(nil), open}, "auth[1]: after wrong credentials in auth[0]"},
		{"file, http, none", []Config{file(&yes), web(nil), open}, "auth[2]: after wrong credentials in auth[1]"},
		{"none, jwt", []Config{open, token(nil)}, "auth[1]: is never asked"},
		{"http that reports, none", []Config{web(&yes), open}, ""},
		{"jwt that reports, none", []Config{token(&yes), open}, ""},
		{"jwt, http", []Config{token(nil), web(nil)}, ""},
	} {
		_, err := New(c.chain, false, Deps{})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// Where users come in by another way, a strategy that asks for nothing would let anybody
// be one of them; and the list may be empty.
func TestNoneStandsBesideNoOtherWayIn(t *testing.T) {
	yes := true
	file := Config{Type: "file", Options: Options{Users: map[string]Entry{"egon": {Password: "pw"}}, ReportInvalidParameters: &yes}}
	deps := Deps{Beside: []string{"tokens", "registration"}}
	for _, c := range []struct {
		name string
		list []Config
		open bool // allowOpenFallback
		want string
	}{
		{"none", []Config{{Type: "none"}}, false, "auth[0]: none, which"},
		{"file, none", []Config{file, {Type: "none"}}, false, "auth[1]: none, which"},
		{"none where it is meant", []Config{{Type: "none"}}, true, ""},
		{"file", []Config{file}, false, ""},
		{"nothing", nil, false, ""},
	} {
		_, err := New(c.list, c.open, deps)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		} else if err != nil && !strings.Contains(err.Error(), "any user of tokens and registration: write auth: []") {
			t.Errorf("%s: %v names no cure", c.name, err)
		}
	}
	a, err := New(nil, false, deps)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := NewDoor(a).Authenticate(t.Context(), &Attempt{Params: `{"username":"egon"}`, Name: "egon", Password: "pw"}); err != nil || v.Opinion != Refused {
		t.Errorf("without strategies: %+v, %v", v, err)
	}
	if _, err := New(nil, true, Deps{}); err == nil || !strings.HasPrefix(err.Error(), "auth: the list is empty") {
		t.Errorf("a node that nobody could log in to: %v", err)
	}
}
