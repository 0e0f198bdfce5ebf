package node

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"hadal/auth"
	"hadal/auth/register"
	"hadal/auth/tokens"
)

// given asks as ask does, and returns a text of the answer that is a secret from now on,
// of which its client alone knows.
func (v *visitor) given(path, authorization, body, key string) string {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, "http://"+v.n.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {authorization}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(b, &answer); err != nil {
		v.t.Fatalf("%s: %v: %s", path, err, b)
	}
	secret, ok := answer[key].(string)
	if !ok {
		v.t.Fatalf("%s: status %d without %s", path, resp.StatusCode, key)
	}
	v.handed = append(v.handed, secret)
	return secret
}

func tokensWay() wayIn {
	var api string
	return wayIn{
		config: func(_ *testing.T, c *Config, mark func() string) {
			api = mark()
			c.Auth = nil
			c.Tokens.APISecret = api
			c.Tokens.SigningKeys = []tokens.Key{{ID: "a", Alg: "HS256", Secret: mark()}}
			c.Upgrade.Query, c.Upgrade.Cookie, c.Upgrade.Origins = "token", "token", []string{"https://example.com"}
		},
		visit: func(v *visitor) {
			token := v.given("/auth/token", "Bearer "+api, `{"id":"ann","serverData":{"role":"x"}}`, "token")
			fresh := v.given("/auth/token", "Bearer "+api, `{"id":"ann"}`, "refreshToken")
			v.given("/auth/refresh", "", fmt.Sprintf(`{"refreshToken":%q}`, fresh), "refreshToken")
			v.ask(http.MethodPost, "/auth/refresh", nil, fmt.Sprintf(`{"refreshToken":%q}`, fresh)) // a replay
			for _, login := range []string{token, token + "x", v.mark() + "." + v.mark() + "." + v.mark()} {
				v.login(nil, "", fmt.Sprintf(`{"token":%q}`, login))
				v.login(nil, "?token="+login, "{}")
				v.login(http.Header{"Authorization": {"Bearer " + login}}, "", "{}")
				v.login(http.Header{"Cookie": {"token=" + login}, "Origin": {"https://example.com"}}, "", "{}")
			}
			v.ask(http.MethodPost, "/auth/revoke", http.Header{"Authorization": {"Bearer " + v.mark()}}, `{"id":"ann"}`)
			v.ask(http.MethodPost, "/auth/revoke", http.Header{"Authorization": {"Bearer " + api}}, `{"id":"ann"}`)
			v.login(nil, "", fmt.Sprintf(`{"token":%q}`, token))
		},
	}
}

func registrationWay() wayIn {
	return wayIn{
		config: func(_ *testing.T, c *Config, _ func() string) { c.Auth, c.Registration.Mode = nil, register.Open },
		visit: func(v *visitor) {
			key := v.mark()
			body := fmt.Sprintf(`{"clientID":"plugin","authKey":%q}`, key)
			basic := func(key string) http.Header {
				return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("plugin:"+key))}}
			}
			json := http.Header{"Content-Type": {"application/json"}}
			v.ask(http.MethodPost, "/register", json, body)
			v.ask(http.MethodPost, "/register", json, body) // again
			v.ask(http.MethodPost, "/register", json, fmt.Sprintf(`{"clientID":"short","authKey":%q}`, v.mark()[:20]))
			v.ask(http.MethodPost, "/login", json, fmt.Sprintf(`{"clientID":"plugin","authKey":%q}`, v.mark()))
			bearer := v.given("/login", "", body, "bearerToken")
			for _, header := range []http.Header{basic(key), basic(v.mark()), {"Authorization": {"Bearer " + bearer}}, {"Authorization": {"Bearer " + bearer + "x"}}} {
				v.login(header, "", "{}")
			}
			v.ask(http.MethodPost, "/unregister", basic(v.mark()), "")
			v.ask(http.MethodPost, "/unregister", basic(key), "")
		},
	}
}

func jwtWay() wayIn {
	var secret string
	sign := func(claims jwt.MapClaims) string {
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
		if err != nil {
			panic(err) // a key of bytes signs anything
		}
		return s
	}
	return wayIn{
		config: func(_ *testing.T, c *Config, mark func() string) {
			secret = mark()
			c.Auth = []auth.Config{{Type: "jwt", Options: auth.Options{Keys: []auth.JWTKey{{Alg: "HS256", Secret: secret}}, Audience: []string{"here"}}}}
			c.Upgrade.Query = "token"
		},
		visit: func(v *visitor) {
			for _, claims := range []jwt.MapClaims{
				{"sub": "ann", "aud": "here", "exp": 1}, {"sub": "ann", "aud": v.mark(), "exp": 1 << 40}, {"sub": "ann", "aud": "here", "nbf": 1 << 40, "exp": 1 << 41},
				{"sub": "ann", "aud": "here", "exp": v.mark()}, {"aud": "here", "exp": 1 << 40},
			} {
				token := sign(claims)
				v.handed = append(v.handed, token)
				v.login(nil, "", fmt.Sprintf(`{"token":%q}`, token))
				v.login(nil, "?token="+token, "{}")
			}
			v.login(nil, "", fmt.Sprintf(`{"token":%q}`, v.mark()+"."+v.mark()+"."), fmt.Sprintf(`{"token":%q}`, "eyJhbGciOiJub25lIn0."+v.mark()+"."))
		},
		in: func() string {
			return fmt.Sprintf(`{"token":%q}`, sign(jwt.MapClaims{"sub": "ann", "aud": "here", "exp": 1 << 40}))
		},
	}
}

func hookWay() wayIn {
	return wayIn{
		config: func(t *testing.T, c *Config, mark func() string) {
			hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				switch {
				case err != nil, strings.Contains(string(b), "hang up"):
					panic(http.ErrAbortHandler)
				case strings.Contains(string(b), "fail"):
					http.Error(w, "an error", http.StatusInternalServerError)
				case strings.Contains(string(b), "garbage"):
					_, _ = w.Write([]byte("{")) // the node notices if it does not arrive
				case strings.Contains(string(b), "right"):
					w.WriteHeader(http.StatusNoContent)
				default:
					w.WriteHeader(http.StatusForbidden)
				}
			}))
			t.Cleanup(hook.Close)
			retries, pause := 0, time.Millisecond
			c.Auth = []auth.Config{{Type: "http", Options: auth.Options{
				EndpointURL: hook.URL + "/?key=" + mark(), PermittedStatusCodes: []int{200, 204}, RetryAttempts: &retries, RetryInterval: &pause,
				RetryStatusCodes: []int{503}, RequestTimeout: 30 * time.Second,
				PromoteToHeader: []string{"token"}, ForwardHeaders: []string{"X-Api-Key"}, ForwardCookies: []string{"session"},
				Headers: map[string]string{"X-Secret": mark()},
			}}}
		},
		visit: func(v *visitor) {
			for _, how := range []string{"wrong", "fail", "garbage", "hang up"} {
				v.login(http.Header{"X-Api-Key": {v.mark()}, "Cookie": {"session=" + v.mark()}}, "",
					fmt.Sprintf(`{"username":"ann","how":%q,"password":%q,"token":%q}`, how, v.mark(), v.mark()))
			}
		},
		in: func() string { return `{"how":"right"}` },
	}
}

// dialectWay is the file strategy, and clients who come by another dialect than the binary
// one: frame puts the parameters of a login into its words.
func dialectWay(path string, frame func(params string) string) wayIn {
	w := fileWay(func(_ *testing.T, password string) string { return password })
	first, guesses := w.config, w.visit
	w.config = func(t *testing.T, c *Config, mark func() string) {
		first(t, c, mark)
		for i := range c.ConnectionEndpoints {
			c.ConnectionEndpoints[i].Options.LogInvalidAuthData = true
		}
	}
	w.visit = func(v *visitor) {
		guesses(v)
		header := http.Header{"Authorization": {"Bearer " + v.mark()}, "Cookie": {"token=" + v.mark()}}
		query := path + "?token=" + v.mark()
		right := frame(w.in())
		before := v.n.endpoint.Stats().Logins
		v.speak(query, header, frame(fmt.Sprintf(`{"username":"ann","password":%q}`, v.mark())), frame(fmt.Sprintf(`{"username":"bob","token":%q}`, v.mark())), right, right)
		now := v.n.endpoint.Stats().Logins
		if now["accepted"] != before["accepted"]+1 || now["refused"] != before["refused"]+2 {
			v.t.Errorf("%s: two wrong logins and a right one are counted as %v, and were %v before", path, now, before)
		}
		for _, broken := range []string{
			frame(fmt.Sprintf(`{"username":["ann"],"password":{"is":%q}}`, v.mark())), frame(`["` + v.mark() + `"]`), frame(`"` + v.mark() + `"`),
			frame(`{"password":"` + v.mark()), frame(fmt.Sprintf(`{"password":%q}`, v.mark()))[3:], v.mark(),
		} {
			v.speak(query, nil, broken)
		}
	}
	return w
}

// jsonFrame is a login in JSON over WebSocket, textFrame one as clients of 2.x send it.
func jsonFrame(params string) string { return `{"topic":3,"action":2,"parsedData":` + params + `}` }

func textFrame(params string) string { return "A\x1fREQ\x1f" + params + "\x1e" }

// speak connects to the path of a dialect of text, sends frames and notes all that it is
// told.
func (v *visitor) speak(path string, header http.Header, frames ...string) {
	v.t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+v.n.Addr().String()+path, header)
	if err != nil {
		v.t.Fatal(err)
	}
	defer ws.Close()
	if strings.HasPrefix(path, "/deepstream-json") {
		frames = append([]string{`{"topic":2,"action":5,"url":"ws://ann:` + v.mark() + `@x/"}`}, frames...)
	}
	for _, f := range frames {
		if ws.WriteMessage(websocket.TextMessage, []byte(f)) != nil {
			break // the server has had enough, and what it said is there to be read
		}
	}
	_ = ws.WriteMessage(websocket.BinaryMessage, []byte(v.mark())) // the last: the dialect has none; likewise
	for v.listen(ws) {
	}
}
