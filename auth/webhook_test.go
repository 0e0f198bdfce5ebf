package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// secretText must never be in a log or an error.
const secretText = "s3cr3t-of-a-client"

// hookOptions are complete options for a webhook.
func hookOptions(url string) Options {
	attempts, interval := 0, time.Millisecond
	return Options{
		EndpointURL: url, PermittedStatusCodes: []int{200, 202, 204}, RequestTimeout: 30 * time.Second,
		RetryStatusCodes: []int{503}, RetryAttempts: &attempts, RetryInterval: &interval,
	}
}

// hook is a webhook under test and what it logged.
type hook struct {
	*webhook
	log bytes.Buffer
}

func newHook(t *testing.T, o Options, report bool) *hook {
	t.Helper()
	h := &hook{}
	w, err := newWebhook("auth[0].options", &o, report, slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	h.webhook = w
	t.Cleanup(w.transport.CloseIdleConnections)
	return h
}

// server is an HTTP server that ends with the test.
func server(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

func TestOptionsOfAWebhookAreChecked(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"no url", func(o *Options) { o.EndpointURL = "" }, "o.endpointUrl: is missing"},
		{"a path", func(o *Options) { o.EndpointURL = "/auth" }, "o.endpointUrl: does not begin with https"},
		{"no host", func(o *Options) { o.EndpointURL = "https:///auth" }, "o.endpointUrl: has no host"},
		{"another scheme", func(o *Options) { o.EndpointURL = "ftp://x/" }, "o.endpointUrl: does not begin"},
		{"a password in it", func(o *Options) { o.EndpointURL = "https://a:" + secretText + "@x/" }, "o.endpointUrl: holds a user and password"},
		{"rubbish with a password", func(o *Options) { o.EndpointURL = "https://a:" + secretText + "@x:y/%" }, "o.endpointUrl: is no URL"},
		{"no permitted codes", func(o *Options) { o.PermittedStatusCodes = nil }, "o.permittedStatusCodes: is missing"},
		{"5xx permitted", func(o *Options) { o.PermittedStatusCodes = []int{200, 500} }, "o.permittedStatusCodes: 500 means that the webhook failed"},
		{"599 permitted", func(o *Options) { o.PermittedStatusCodes = []int{599} }, "o.permittedStatusCodes: 599 means that the webhook failed"},
		{"redirect permitted", func(o *Options) { o.PermittedStatusCodes = []int{302} }, "o.permittedStatusCodes: 302 is a redirect"},
		{"no code", func(o *Options) { o.PermittedStatusCodes = []int{20} }, "o.permittedStatusCodes: 20 is not a status code"},
		{"both", func(o *Options) { o.RetryStatusCodes = []int{200} }, "o.retryStatusCodes: 200 stands in permittedStatusCodes too"},
		{"no retry codes", func(o *Options) { o.RetryStatusCodes = nil }, "o.retryStatusCodes: is missing"},
		{"no retry code", func(o *Options) { o.RetryStatusCodes = []int{-1} }, "o.retryStatusCodes: -1 is not a status code"},
		{"no timeout", func(o *Options) { o.RequestTimeout = 0 }, "o.requestTimeout: is missing"},
		{"no attempts", func(o *Options) { o.RetryAttempts = nil }, "o.retryAttempts: is missing"},
		{"fewer attempts", func(o *Options) { *o.RetryAttempts = -1 }, "o.retryAttempts: -1 is below zero"},
		{"no interval", func(o *Options) { o.RetryInterval = nil }, "o.retryInterval: is missing"},
		{"an interval before", func(o *Options) { *o.RetryInterval = -1 }, "o.retryInterval: -1ns is below zero"},
		{"longer than a login", func(o *Options) { *o.RetryAttempts = 1 }, "o.requestTimeout: with retryAttempts and retryInterval"},
		{"for ever", func(o *Options) { *o.RetryAttempts = 1 << 62 }, "o.requestTimeout: with retryAttempts and retryInterval"},
		{"a header that is none", func(o *Options) { o.Headers = map[string]string{"a b": "c"} }, `o.headers: "a b" is not the name`},
		{"a header with lines", func(o *Options) { o.Headers = map[string]string{"a": secretText + "\n"} }, "o.headers: a holds a character"},
		{"a header of ours", func(o *Options) { o.Headers = map[string]string{"content-length": "1"} }, "o.headers: Content-Length belongs to the request"},
		{"promotion to one of ours", func(o *Options) { o.PromoteToHeader = []string{"host"} }, "o.promoteToHeader: Host belongs to the request"},
		{"promotion over another", func(o *Options) { o.PromoteToHeader, o.Headers = []string{"a"}, map[string]string{"A": "1"} }, "o.promoteToHeader: a stands in headers too"},
		{"all cookies", func(o *Options) { o.ForwardHeaders = []string{"cookie"} }, "o.forwardHeaders: cookies are chosen one by one"},
		{"no cookie", func(o *Options) { o.ForwardCookies = []string{"a="} }, `o.forwardCookies: "a=" is not the name`},
		{"no header", func(o *Options) { o.ForwardHeaders = []string{""} }, `o.forwardHeaders: "" is not the name`},
		{"fewer at once", func(o *Options) { o.MaxConcurrent = -1 }, "o.maxConcurrent: -1 is below one"},
		{"no such authority", func(o *Options) { o.TLS.CAFile = "/nowhere/ca.pem" }, "o.tls.caFile: open /nowhere/ca.pem"},
		{"a certificate without key", func(o *Options) { o.TLS.CertFile = "c.pem" }, "o.tls.keyFile: is missing"},
		{"a key without certificate", func(o *Options) { o.TLS.KeyFile = "k.pem" }, "o.tls.certFile: is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := hookOptions("https://hook.example/auth")
			c.change(&o)
			_, err := newWebhook("o", &o, true, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), secretText) {
				t.Errorf("the error holds a secret: %v", err)
			}
		})
	}
	if _, err := New([]Config{{Type: "http"}}, false, Deps{}); err == nil || len(strings.Split(err.Error(), "\n")) < 6 {
		t.Errorf("got %v, want all mistakes at once", err)
	}
	o := hookOptions("https://hook.example/auth")
	if _, err := newWebhook("o", &o, true, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("complete options: %v", err)
	}
}

func TestVerdictsOfAWebhook(t *testing.T) {
	const (
		text = "text/plain"
		json = "application/json; charset=utf-8"
	)
	refused := func(reason string) Verdict { return Verdict{Opinion: Refused, Reason: reason} }
	accepted := func(u User) Verdict { return Verdict{Opinion: Accepted, User: &u} }
	unusable := refused(`{"error":"AUTH_ANSWER_UNUSABLE"}`)
	for _, c := range []struct {
		name        string
		status      int
		contentType string
		body        string
		want        Verdict
		notSaid     bool // so that the next strategy is not asked either
	}{
		{"nothing", 204, "", "", accepted(User{ID: "open"}), false},
		{"nothing, as JSON", 200, json, "", accepted(User{ID: "open"}), false},
		{"text", 200, text, "egon", accepted(User{ID: "egon"}), false},
		{"text with a line end", 200, text, "egon\n", accepted(User{ID: "egon"}), false},
		{"text without type", 200, "", "egon", accepted(User{ID: "egon"}), false},
		{"text as JSON", 200, json, `"egon"`, accepted(User{ID: "egon"}), false},
		{"the anonymous name", 200, text, "OPEN", accepted(User{ID: "open"}), false},
		{"object", 200, json, `{"id":"egon","clientData":{"a":1},"serverData":{"role":"admin"},"token":"t","else":1}`,
			Verdict{Opinion: Accepted, User: &User{ID: "egon", ClientData: `{"a":1}`, ServerData: `{"role":"admin"}`}, Token: "t"}, false},
		{"object of another type", 200, "application/vnd.x+json", `{"id":"egon"}`, accepted(User{ID: "egon"}), false},
		{"object as text", 200, text, ` {"id":"egon"}`, accepted(User{ID: "egon"}), false},
		{"null data", 202, json, `{"id":"egon","clientData":null}`, accepted(User{ID: "egon", ClientData: "null"}), false},
		{"empty object", 200, json, `{}`, accepted(User{ID: "open"}), false},
		{"null id", 200, json, `{"id":null}`, accepted(User{ID: "open"}), false},
		{"number id", 200, json, `{"id":12345678901234567}`, accepted(User{ID: "12345678901234567"}), false},
		{"equal ids", 200, json, `{"id":"a","id":"b"}`, accepted(User{ID: "b"}), false},
		{"isValid", 200, json, `{"id":"egon","isValid":true}`, accepted(User{ID: "egon"}), false},
		{"not isValid", 200, json, `{"id":"egon","isValid":false,"clientData":{"why":"no"}}`, refused(`{"why":"no"}`), false},
		{"not isValid, as text", 200, text, `{"id":"egon","isValid":false}`, refused(""), false},
		{"isValid of another type", 200, json, `{"id":"egon","isValid":"true"}`, refused(""), false},
		{"isValid null", 200, json, `{"id":"egon","isValid":null}`, refused(""), false},
		{"isValid, then not", 200, json, `{"id":"egon","isValid":true,"isValid":false}`, refused(""), false},
		{"not isValid, escaped", 200, json, `{"id":"egon","isV\u0061lid":false}`, refused(""), false},

		{"refused with text", 403, text, "no entry", refused(`{"error":"no entry"}`), false},
		{"refused with text as JSON", 403, json, `"no entry"`, refused(`{"error":"no entry"}`), false},
		{"refused with an object", 401, json, `{"code":7}`, refused(`{"code":7}`), false},
		{"refused with an empty object", 401, json, `{}`, refused(""), false},
		{"refused with a list", 401, json, `[1]`, refused(""), false},
		{"refused with nothing", 403, "", "", refused(""), false},
		{"refused with isValid", 403, json, `{"id":"egon","isValid":true}`, refused(`{"id":"egon","isValid":true}`), false},
		{"refused with broken text", 403, text, "\xff", refused("{\"error\":\"\uFFFD\"}"), false},
		{"a success that is not permitted", 201, json, `{"id":"egon"}`, refused(`{"id":"egon"}`), false},
		{"a failure", 500, text, "oops", refused(`{"error":"oops"}`), true},
		{"a failure that claims to be none", 500, json, `{"isValid":true,"id":"egon"}`, refused(`{"isValid":true,"id":"egon"}`), true},
		{"a redirect", 302, text, "", unusable, true},

		{"a list", 200, json, `["egon"]`, unusable, true},
		{"a number", 200, json, `7`, unusable, true},
		{"true", 200, json, `true`, unusable, true},
		{"null", 200, json, `null`, unusable, true},
		{"broken JSON", 200, json, `{"id":`, unusable, true},
		{"broken JSON as text", 200, text, `{"id":"egon"`, unusable, true},
		{"a list as text", 200, text, `["egon"]`, unusable, true},
		{"a page", 200, "text/html", "<!doctype html>", unusable, true},
		{"a page in disguise", 200, text, "\n<html>", unusable, true},
		{"an id that is an object", 200, json, `{"id":{}}`, unusable, true},
		{"an id that is no whole number", 200, json, `{"id":12.5}`, unusable, true},
		{"an id that is zero", 200, json, `{"id":0}`, unusable, true},
		{"an id that is a boolean", 200, json, `{"id":true}`, unusable, true},
		{"an id of the server's", 200, json, `{"id":"hadal/x"}`, unusable, true},
		{"a long id", 200, text, strings.Repeat("x", maxUserName+1), unusable, true},
		{"two lines", 200, text, "egon\nx", unusable, true},
		{"broken text", 200, text, "\xff\xfe", unusable, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer := webhookAnswer{status: c.status, contentType: c.contentType, body: []byte(c.body)}
			h := newHook(t, hookOptions("https://hook.example/"), true)
			same(t, c.want, first(h.judge(answer)))
			// Without a report, what the webhook refuses is left to the next strategy; but not
			// what it did not judge.
			want := c.want
			if want.Opinion == Refused && !c.notSaid {
				want = Verdict{}
			}
			h = newHook(t, hookOptions("https://hook.example/"), false)
			v, said := h.judge(answer)
			same(t, want, v)
			if said == c.notSaid {
				t.Errorf("said %v, want %v", said, !c.notSaid)
			}
		})
	}
}

func first(v Verdict, _ bool) Verdict { return v }

// same compares verdicts, users by value.
func same(t *testing.T, want, got Verdict) {
	t.Helper()
	if (want.User == nil) != (got.User == nil) || want.User != nil && *want.User != *got.User {
		t.Errorf("got user %+v, want %+v", got.User, want.User)
	}
	want.User, got.User = nil, nil
	if want != got {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWhatAWebhookIsSent(t *testing.T) {
	header := http.Header{
		"User-Agent": {"browser"}, "X-Two": {"a", "b"}, "Referer": {"https://app.example/"}, "Cookie": {"sid=1; theme=dark; other=x"},
		"Authorization": {"Bearer " + secretText}, "X-Api-Key": {secretText},
	}
	for _, c := range []struct {
		name    string
		change  func(*Options)
		attempt Attempt
		body    string
		headers map[string]string
	}{
		{"by default", func(*Options) {}, Attempt{Params: `{"username":"egon","password":"<pw>"}`, RemoteAddr: "10.0.0.1", Header: header},
			`{"connectionData":{"remoteAddress":"10.0.0.1","headers":{"referer":"https://app.example/","user-agent":"browser","x-two":"a, b"},"referer":"https://app.example/"},` +
				`"authData":{"password":"<pw>","username":"egon"}}`, nil},
		{"nothing known", func(*Options) {}, Attempt{Params: `[]`}, `{"connectionData":{"headers":{}},"authData":[]}`, nil},
		{"listed headers and cookies", func(o *Options) {
			o.ForwardHeaders, o.ForwardCookies = []string{"user-agent", "AUTHORIZATION"}, []string{"sid", "none", "other"}
		}, Attempt{Params: `{}`, Header: header},
			`{"connectionData":{"headers":{"authorization":"Bearer ` + secretText + `","cookie":"sid=1; other=x","user-agent":"browser"}},"authData":{}}`, nil},
		{"no headers", func(o *Options) { o.ForwardHeaders = []string{} }, Attempt{Params: `{}`, Header: header}, `{"connectionData":{"headers":{}},"authData":{}}`, nil},
		{"the HTTP API", func(o *Options) { o.ForwardHeaders = []string{} }, Attempt{Params: `{}`, RemoteAddr: "10.0.0.1", URL: "/api?x=1", API: true},
			`{"connectionData":{"headers":{},"url":"/api?x=1"},"authData":{}}`, nil},
		{"a token of the upgrade", func(*Options) {}, Attempt{Params: `{"a":1}`, Token: "tok"}, `{"connectionData":{"headers":{}},"authData":{"a":1,"token":"tok"}}`, nil},
		{"a key twice", func(*Options) {}, Attempt{Params: `{"a":1,"b":{"c":2,"c":3},"a":4}`}, `{"connectionData":{"headers":{}},"authData":{"a":4,"b":{"c":2,"c":3}}}`, nil},
		{"promotion", func(o *Options) {
			o.PromoteToHeader = []string{"token", "n", "yes", "no", "nothing", "empty"}
			o.Headers = map[string]string{"x-server": "hadal 1"}
		}, Attempt{Params: `{"token":"abc","n":7,"yes":true,"no":false,"empty":""}`},
			`{"connectionData":{"headers":{}},"authData":{"empty":"","n":7,"no":false,"token":"abc","yes":true}}`,
			map[string]string{"Token": "abc", "N": "7", "Yes": "true", "No": "", "Nothing": "", "Empty": "", "X-Server": "hadal 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
			}))
			c.change(&o)
			h := newHook(t, o, true)
			v, err := h.Authenticate(t.Context(), &c.attempt)
			if err != nil || v.Opinion != Accepted {
				t.Fatalf("got %+v, %v, want accepted", v, err)
			}
			if text := strings.TrimSpace(string(body)); text != c.body {
				t.Errorf("got body\n%s\nwant\n%s", text, c.body)
			}
			if got.Method != http.MethodPost || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Accept") != "application/json" {
				t.Errorf("got %s with %v, want a POST of JSON", got.Method, got.Header)
			}
			for name, want := range c.headers {
				if v := got.Header.Get(name); v != want {
					t.Errorf("header %s is %q, want %q", name, v, want)
				}
			}
		})
	}
}

func TestWhatNoHeaderCanHoldIsRefusedBeforeTheWebhookIsAsked(t *testing.T) {
	h := newHook(t, func() Options {
		o := hookOptions(server(t, func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
		o.PromoteToHeader = []string{"token"}
		return o
	}(), true)
	for _, params := range []string{`{"token":"a\r\nx: y"}`, `{"token":"\u0000"}`, `{"token":{}}`, `{"token":["a"]}`} {
		v, err := h.Authenticate(t.Context(), &Attempt{Params: params})
		if err != nil || v.Opinion != Refused || v.Reason != `{"error":"token cannot be sent as a header"}` {
			t.Errorf("%s: got %+v, %v, want refused", params, v, err)
		}
	}
}

func TestAWebhookIsAskedAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []int // the last one repeats; 0 hangs up
		retries int
		asked   int
		want    string
	}{
		{"never", []int{200}, 2, 1, "accepted"},
		{"after a retry code", []int{503, 200}, 2, 2, "accepted"},
		{"after a lost connection", []int{0, 0, 200}, 2, 3, "accepted"},
		{"until a refusal", []int{503, 403}, 2, 2, "refused"},
		{"too often", []int{503}, 2, 3, retriesExceeded},
		{"too often without an answer", []int{0}, 2, 3, retriesExceeded},
		{"not at all", []int{503}, 0, 1, retriesExceeded},
		{"not after another failure", []int{500}, 2, 1, "refused"},
	} {
		for _, report := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, report %v", c.name, report), func(t *testing.T) {
				var asked atomic.Int32
				o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) {
					n := int(asked.Add(1)) - 1
					code := c.answers[min(n, len(c.answers)-1)]
					if code == 0 {
						panic(http.ErrAbortHandler)
					}
					w.WriteHeader(code)
				}))
				o.RetryAttempts, o.RequestTimeout = &c.retries, 10*time.Second
				h := newHook(t, o, report)
				v, err := h.Authenticate(t.Context(), &Attempt{Params: `{"password":"` + secretText + `"}`})
				if err != nil {
					t.Fatal(err)
				}
				switch c.want {
				case "accepted":
					if v.Opinion != Accepted {
						t.Errorf("got %+v, want accepted", v)
					}
				case "refused":
					// A refusal is the next strategy's to judge, a failure is not.
					if want := Refused; v.Opinion != want && (report || c.answers[0] == 500) || v.Opinion == Accepted {
						t.Errorf("got %+v, want refused", v)
					}
				default:
					if v.Opinion != Refused || v.Reason != reason(c.want) {
						t.Errorf("got %+v, want refused with %s", v, c.want)
					}
				}
				if n := int(asked.Load()); n != c.asked {
					t.Errorf("asked %d times, want %d", n, c.asked)
				}
				if strings.Contains(h.log.String(), secretText) {
					t.Errorf("the log holds a secret: %s", h.log.String())
				}
			})
		}
	}
}

func TestASlowWebhookLetsNobodyIn(t *testing.T) {
	release := make(chan struct{})
	for name, f := range map[string]http.HandlerFunc{
		"no answer": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
			case <-release:
			}
		},
		"no end of the answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":"egon"}`)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-release:
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := hookOptions(server(t, f))
			o.RequestTimeout = 100 * time.Millisecond
			v, err := newHook(t, o, false).Authenticate(t.Context(), &Attempt{Params: `{}`})
			if err != nil || v.Opinion != Refused || v.Reason != reason(retriesExceeded) {
				t.Errorf("got %+v, %v, want refused", v, err)
			}
		})
	}
	close(release)
}

func TestALongAnswerLetsNobodyIn(t *testing.T) {
	o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"egon","clientData":"`+strings.Repeat("x", maxAnswer)+`"}`)
	}))
	v, err := newHook(t, o, false).Authenticate(t.Context(), &Attempt{Params: `{}`})
	if err != nil || v.Opinion != Refused || v.Reason != reason(answerUnusable) {
		t.Errorf("got %+v, %v, want refused", v, err)
	}
}

func TestRedirectsOfAWebhook(t *testing.T) {
	var elsewhere atomic.Int32
	other := server(t, func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	var bodies []string
	here := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, r.Method+" "+r.URL.Path+" "+string(body))
		switch code := 0; {
		case r.URL.Path == "/end":
			_, _ = io.WriteString(w, "egon")
		case strings.HasPrefix(r.URL.Path, "/away"):
			http.Redirect(w, r, other, http.StatusTemporaryRedirect)
		default: // /302/307/308 redirects with 302 to /307/308
			var rest string
			if n, err := fmt.Sscanf(r.URL.Path, "/%d%s", &code, &rest); n < 1 {
				t.Errorf("path %s: %v", r.URL.Path, err)
			}
			http.Redirect(w, r, rest, code)
		}
	})
	for path, asked := range map[string]int{ // 0: followed to the end
		"/307/end": 0, "/308/end": 0, "/307/308/end": 0, "/307/307/307/end": 3, "/302/end": 1, "/301/end": 1, "/303/end": 1, "/away": 1, "/307/away": 2,
	} {
		bodies = nil
		h := newHook(t, hookOptions(here+path), false)
		v, err := h.Authenticate(t.Context(), &Attempt{Params: `{"password":"` + secretText + `"}`})
		if err != nil {
			t.Fatal(err)
		}
		if asked == 0 {
			if v.Opinion != Accepted || v.User.ID != "egon" {
				t.Errorf("%s: got %+v, want egon", path, v)
			}
		} else if v.Opinion != Refused || v.Reason != reason(answerUnusable) || len(bodies) != asked {
			t.Errorf("%s: got %+v after %d requests, want refused after %d", path, v, len(bodies), asked)
		}
		for _, b := range bodies {
			if !strings.HasPrefix(b, "POST ") || !strings.Contains(b, secretText) {
				t.Errorf("%s: got %q, want the whole request again", path, b)
			}
		}
		if strings.Contains(h.log.String(), secretText) {
			t.Errorf("the log holds a secret: %s", h.log.String())
		}
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("another server got %d requests", n)
	}
}

func TestConnectionsToAWebhookAreUsedAgainAndBounded(t *testing.T) {
	var mu sync.Mutex
	peers := make(map[string]int)
	var now, most int
	o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		peers[r.RemoteAddr]++
		now++
		most = max(most, now)
		mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		now--
		mu.Unlock()
	}))
	o.MaxConcurrent = 3
	h := newHook(t, o, true)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			v, err := h.Authenticate(t.Context(), &Attempt{Params: `{}`, RemoteAddr: fmt.Sprintf("10.0.0.%d", i%5)})
			if err != nil || v.Opinion != Accepted {
				t.Errorf("got %+v, %v, want accepted", v, err)
			}
		})
	}
	wg.Wait()
	if most > 3 || len(peers) > 3 {
		t.Errorf("%d requests at once over %d connections, want at most 3", most, len(peers))
	}
}

func TestAFullWebhookSaysSoAndAClientThatGoesGivesItsTurnBack(t *testing.T) {
	asked, release := make(chan struct{}, 10), make(chan struct{})
	o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	o.MaxConcurrent = 1
	h := newHook(t, o, true)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = h.Authenticate(t.Context(), &Attempt{Params: `{}`}) })
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Authenticate(ctx, &Attempt{Params: `{}`}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the client has gone", err)
	}
	h.turns.mu.Lock()
	h.turns.waiting = maxWaiting
	h.turns.mu.Unlock()
	if _, err := h.Authenticate(t.Context(), &Attempt{Params: `{}`}); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	h.turns.mu.Lock()
	h.turns.waiting = 0
	h.turns.mu.Unlock()
	close(release)
	wg.Wait()
}

func TestAClientThatGoesEndsItsRequest(t *testing.T) {
	asked := make(chan struct{})
	o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices a lost client only after that
		close(asked)
		<-r.Context().Done()
	}))
	h := newHook(t, o, true)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if v, err := h.Authenticate(ctx, &Attempt{Params: `{}`}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %+v, %v, want that the client has gone", v, err)
		}
	})
	<-asked
	cancel()
	wg.Wait()
}

func TestAWebhookIsKnownByItsCertificate(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	o := hookOptions(s.URL)
	if v, err := newHook(t, o, true).Authenticate(t.Context(), &Attempt{Params: `{}`}); err != nil || v.Opinion != Refused {
		t.Errorf("with an unknown certificate: got %+v, %v, want refused", v, err)
	}
	o.TLS.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(o.TLS.CAFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := newHook(t, o, true).Authenticate(t.Context(), &Attempt{Params: `{}`}); err != nil || v.Opinion != Accepted {
		t.Errorf("with its authority: got %+v, %v, want accepted", v, err)
	}
}

func TestOnlyRefusalsSlowAnAddressDown(t *testing.T) {
	code := atomic.Int32{}
	o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(int(code.Load())) }))
	h := newHook(t, o, true)
	for _, c := range []struct {
		code int32
		want bool
	}{{503, false}, {500, false}, {302, false}, {200, false}, {403, true}} {
		code.Store(c.code)
		for range failBurst + 20 {
			if _, err := h.Authenticate(t.Context(), &Attempt{Params: `{}`, RemoteAddr: "10.0.0.1"}); err != nil {
				t.Fatal(err)
			}
			if h.turns.slowed(networkOf("10.0.0.1")) {
				break
			}
		}
		if got := h.turns.slowed(networkOf("10.0.0.1")); got != c.want {
			t.Errorf("after many %d: slowed %v, want %v", c.code, got, c.want)
		}
	}
}

func TestAFailingWebhookDoesNotFloodTheLog(t *testing.T) {
	o := hookOptions(server(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }))
	h := newHook(t, o, true)
	for range 50 {
		if _, err := h.Authenticate(t.Context(), &Attempt{Params: `{}`}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(h.log.String(), "the webhook of auth fails"); n != 1 {
		t.Errorf("%d lines, want 1: %s", n, h.log.String())
	}
}

func FuzzAnyAnswerOfAWebhook(f *testing.F) {
	for _, s := range []string{`{"id":"a","isValid":false}`, `{"id":{}}`, `"a"`, "egon", "<html>", "[", `{"id":"\ud800"}`} {
		f.Add(200, "application/json", s)
		f.Add(403, "text/plain", s)
	}
	o := hookOptions("https://hook.example/")
	w, err := newWebhook("o", &o, true, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, contentType, body string) {
		v, _ := w.judge(webhookAnswer{status: status, contentType: contentType, body: []byte(body)})
		switch {
		case v.Opinion == NoOpinion:
			t.Error("no opinion, but it reports")
		case v.Opinion == Accepted && !slices.Contains(o.PermittedStatusCodes, status):
			t.Errorf("status %d lets in", status)
		case v.Opinion == Accepted && (v.User.ID == "" || reserved(v.User.ID) || len(v.User.ID) > maxUserName):
			t.Errorf("accepted as %q", v.User.ID)
		case v.Reason != "" && !json.Valid([]byte(v.Reason)):
			t.Errorf("the reason is no JSON: %q", v.Reason)
		case v.User != nil && v.User.ServerData != "" && !json.Valid([]byte(v.User.ServerData)):
			t.Errorf("serverData is no JSON: %q", v.User.ServerData)
		}
	})
}

// webhookFor serves a webhook that lets in whom the auth data names as who, and fails if
// that is 500 or 503.
func webhookFor(t *testing.T) string {
	return server(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			AuthData struct{ Who string }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("the webhook cannot read its request: %v", err)
		}
		switch who := body.AuthData.Who; who {
		case "":
			w.WriteHeader(403)
			_, _ = io.WriteString(w, "unknown")
		case "500":
			w.WriteHeader(500)
			_, _ = io.WriteString(w, "failed")
		case "503":
			w.WriteHeader(503)
		case "rubbish":
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{")
		default:
			_, _ = io.WriteString(w, who)
		}
	})
}

func TestEachRequestToAWebhookIsObservedByHowItEnded(t *testing.T) {
	answers := []struct {
		status int
		body   string
		want   string
	}{
		{200, `{"id":"ann"}`, webhookAccepted}, {403, `{}`, webhookRefused}, {503, "", webhookAgain}, {200, "<html>", webhookUnusable},
		{200, strings.Repeat("x", 65<<10), webhookUnusable}, {500, "", webhookUnusable},
	}
	next := 0 // one request at a time
	url := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(answers[next].status)
		_, _ = w.Write([]byte(answers[next].body)) // the strategy may have read enough
	})
	var got []string
	a, err := New([]Config{{Type: "http", Options: hookOptions(url)}}, false, Deps{Observer: Observer{Webhook: func(result string, took time.Duration) {
		if took <= 0 {
			t.Errorf("%s took %v", result, took)
		}
		got = append(got, result)
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context) {
		_, _ = a.Authenticate(ctx, &Attempt{Params: `{"username":"ann"}`}) // how it ended is what is observed
	}
	var want []string
	for next = range answers {
		ask(t.Context())
		want = append(want, answers[next].want)
	}
	if !slices.Equal(got, want) {
		t.Errorf("observed %q, want %q", got, want)
	}
	got = nil
	if a, err = New([]Config{{Type: "http", Options: hookOptions("http://127.0.0.1:1")}}, false, Deps{Observer: Observer{Webhook: func(result string, _ time.Duration) {
		got = append(got, result)
	}}}); err != nil {
		t.Fatal(err)
	}
	if ask(t.Context()); !slices.Equal(got, []string{webhookFailed}) {
		t.Errorf("nobody listens: observed %q, want %s", got, webhookFailed)
	}
}
