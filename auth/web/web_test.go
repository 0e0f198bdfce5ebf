package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestReadJSON(t *testing.T) {
	const long = `{"name":"%s"}`
	for _, c := range []struct {
		what, contentType, body string
		status                  int // 0 is no problem
	}{
		{"an object", "application/json", `{"name":"ann","age":3}`, 0},
		{"with a character set and spaces", "application/json; charset=utf-8", " {\"name\":\"ann\"} \n", 0},
		{"no type", "", `{}`, http.StatusUnsupportedMediaType},
		{"a form, as pages of other origins may send", "application/x-www-form-urlencoded", `{}`, http.StatusUnsupportedMediaType},
		{"text", "text/plain", `{}`, http.StatusUnsupportedMediaType},
		{"nothing", "application/json", ``, http.StatusBadRequest},
		{"a key that nobody asked for", "application/json", `{"nom":"ann"}`, http.StatusBadRequest},
		{"a wrong type", "application/json", `{"age":"three"}`, http.StatusBadRequest},
		{"a list", "application/json", `[]`, http.StatusBadRequest},
		{"two objects", "application/json", `{}{}`, http.StatusBadRequest},
		{"something after it", "application/json", `{} secret`, http.StatusBadRequest},
		{"half of one", "application/json", `{"name":"sec`, http.StatusBadRequest},
		{"too much", "application/json", fmt.Sprintf(long, strings.Repeat("a", MaxBody)), http.StatusRequestEntityTooLarge},
		{"too much after it", "application/json", `{}` + strings.Repeat(" ", MaxBody), http.StatusRequestEntityTooLarge},
	} {
		t.Run(c.what, func(t *testing.T) {
			var got struct {
				Name string `json:"name"`
				Age  int    `json:"age"`
			}
			var failed error
			h := Handle(func(_ *http.Request, err error) { failed = err }, func(r *http.Request) (int, any, error) {
				return http.StatusOK, map[string]string{"hello": "you"}, ReadJSON(r, &got)
			})
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(c.body))
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			want, kind := c.status, "application/problem+json"
			if want == 0 {
				want, kind = http.StatusOK, "application/json"
			}
			if w.Code != want || w.Header().Get("Content-Type") != kind {
				t.Errorf("answer %d %s, want %d %s: %s", w.Code, w.Header().Get("Content-Type"), want, kind, w.Body)
			}
			if strings.Contains(w.Body.String(), "sec") {
				t.Errorf("the answer quotes the body: %s", w.Body)
			}
			if failed != nil {
				t.Errorf("failed was told %v", failed)
			}
			if c.status == 0 && got.Name != "ann" {
				t.Errorf("read %+v", got)
			}
		})
	}
}

func TestHandleTellsCallersNothingOfWhatFails(t *testing.T) {
	broken := errors.New("the disk at /secret/place is broken")
	var failed error
	h := Handle(func(_ *http.Request, err error) { failed = err }, func(*http.Request) (int, any, error) { return 0, nil, broken })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	text, err := io.ReadAll(w.Body)
	if err != nil || w.Code != http.StatusServiceUnavailable || strings.Contains(string(text), "secret") {
		t.Errorf("answer %d %s, %v", w.Code, text, err)
	}
	if !errors.Is(failed, broken) {
		t.Errorf("failed was told %v", failed)
	}
	h = Handle(nil, func(*http.Request) (int, any, error) { return 0, nil, fmt.Errorf("login: %w", Unauthorized) })
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusUnauthorized || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer") || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("answer %d %v", w.Code, w.Header())
	}
}

// A password is checked when its turn comes, which may be later than the port gives a request.
func TestAnAnswerThatTookLongIsWrittenAllTheSame(t *testing.T) {
	for want, err := range map[int]error{http.StatusOK: nil, http.StatusUnauthorized: Unauthorized} {
		late := httptest.NewUnstartedServer(Handle(nil, func(*http.Request) (int, any, error) {
			<-time.After(50 * time.Millisecond) // longer than WriteTimeout
			return http.StatusOK, "x", err
		}))
		late.Config.WriteTimeout = 10 * time.Millisecond
		late.Start()
		defer late.Close()
		resp, err := http.Get(late.URL)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("it is answered %d, want %d", resp.StatusCode, want)
		}
	}
}

func TestBearer(t *testing.T) {
	for header, want := range map[string]string{
		"": "", "Bearer": "", "Bearer ": "", "Bearer abc": "abc", "bearer abc ": "abc", "Basic abc": "", "Bearerabc": "",
	} {
		if got := Bearer(http.Header{"Authorization": {header}}); got != want {
			t.Errorf("Bearer of %q = %q, want %q", header, got, want)
		}
	}
}

func TestSameSecret(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{{"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"", "", false}, {"", "a", false}} {
		if got := SameSecret(c.a, c.b); got != c.same {
			t.Errorf("SameSecret(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func FuzzAnyHeaderHoldsABearerOrNone(f *testing.F) {
	for _, header := range []string{"", "Bearer", "Bearer abc", "bearer  abc ", "Basic abc", "Bearer\tabc", "Bearer a b", "Bearer \x00", "BEARER é"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token := Bearer(http.Header{"Authorization": {header}})
		if token == "" {
			return
		}
		if token != strings.TrimSpace(token) || !strings.HasSuffix(strings.TrimSpace(header), token) || !strings.EqualFold(header[:len("Bearer ")], "Bearer ") {
			t.Errorf("the bearer of %q is %q", header, token)
		}
		if again := Bearer(http.Header{"Authorization": {"Bearer " + token}}); again != token {
			t.Errorf("the bearer of %q is %q when it is sent again", token, again)
		}
	})
}
