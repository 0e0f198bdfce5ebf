package endpoint

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"

	"hadal/auth"
)

// serveLogins is a server whose path /login logs in whom the query names: nobody with
// "wrong".
func serveLogins(t *testing.T, cfg Config) *testServer {
	t.Helper()
	return serveWith(t, cfg, func(s *Server) {
		stopped(s)
		s.routes["/login"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			l, status, wait := s.BeginLogin(r)
			if status != 0 {
				http.Error(w, fmt.Sprintf("wait %v", wait), status)
				return
			}
			var user *auth.User
			name := r.URL.Query().Get("as")
			if name != "wrong" {
				user = &auth.User{ID: name}
			}
			if l.EndLogin(user) {
				w.Header().Set("Connection", "close")
			}
			if user == nil {
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
	})
}

// asks logs in on a socket and returns the status and whether the server closes it.
func asks(t *testing.T, nc net.Conn, as string) (status int, closes bool) {
	t.Helper()
	if _, err := fmt.Fprintf(nc, "GET /login?as=%s HTTP/1.1\r\nHost: h\r\n\r\n", as); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode, res.Close
}

func TestASocketOfABackendIsNoStranger(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.MaxUnauthenticated, cfg.HTTP.MaxUnauthenticatedPerAddress = 3, 3
	cfg.MaxConnectionsPerUser = 2
	ts := serveLogins(t, cfg)
	first, second, third, nameless := ts.knock(), ts.knock(), ts.knock(), net.Conn(nil)
	for _, nc := range []net.Conn{first, second, third} {
		asks(t, nc, "billing")
	}
	if got := ts.Stats().NotLoggedIn; got != 1 {
		t.Errorf("%d of three sockets have not logged in, want the one that is more than the user may have", got)
	}
	nameless = ts.knock()
	asks(t, nameless, auth.Anonymous)
	ts.knock()
	ts.knock() // from here on the oldest is one too many
	ended(t, "the third of the user", third)
	ts.knock()
	ended(t, "who has no name", nameless)
	for _, nc := range []net.Conn{first, second} {
		if status, closes := asks(t, nc, "billing"); status != http.StatusOK || closes {
			t.Errorf("status %d, closes: %v; want that the socket of a backend outlives strangers", status, closes)
		}
	}
	// When one has gone another one has its place.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has gone", func() bool { return !ts.gate.knows(first.LocalAddr()) })
	before := ts.Stats().NotLoggedIn
	fourth := ts.knock()
	asks(t, fourth, "billing")
	if got := ts.Stats().NotLoggedIn; got > before {
		t.Errorf("%d have not logged in, want no more than %d", got, before)
	}
	// It may become a client.
	if _, err := fmt.Fprintf(fourth, "GET %s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", cfg.WebSocket.URLPath); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(fourth), nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("upgrade: %v, %v", res, err)
	}
	_ = res.Body.Close()
}

func TestRequestsThatLogInAreBoundedAsConnectionsAre(t *testing.T) {
	cfg := testConfig()
	cfg.ConnectionRate = ConnectionRateConfig{PerAddress: 1, PerAddressBurst: 5}
	ts := serveLogins(t, cfg)
	backend := ts.knock()
	for range 20 { // a user's requests are no connections
		if status, _ := asks(t, backend, "billing"); status != http.StatusOK {
			t.Fatalf("a user's request: %d", status)
		}
	}
	nameless := ts.knock()
	for range 20 { // the first one is
		if status, _ := asks(t, nameless, auth.Anonymous); status != http.StatusOK {
			t.Fatalf("a request without a name: %d", status)
		}
	}
	guesses := ts.knock()
	for i := range cfg.WebSocket.MaxAuthAttempts {
		status, closes := asks(t, guesses, "wrong")
		if last := i == cfg.WebSocket.MaxAuthAttempts-1; status != http.StatusUnauthorized || closes != last {
			t.Errorf("guess %d: %d, closes: %v", i, status, closes)
		}
	}
	again := ts.knock()
	if status, _ := asks(t, again, "wrong"); status != http.StatusUnauthorized {
		t.Errorf("the fifth of five: %d", status)
	}
	// A right login does not make guesses free either.
	if status, _ := asks(t, nameless, "wrong"); status != http.StatusUnauthorized {
		t.Errorf("a guess after a login: %d", status)
	}
	for what, nc := range map[string]net.Conn{"a guess": again, "a guess after a login": nameless, "another socket": ts.knock()} {
		if status, _ := asks(t, nc, "wrong"); status != http.StatusTooManyRequests {
			t.Errorf("%s, one more than five: %d", what, status)
		}
	}
	if status, _ := asks(t, backend, "billing"); status != http.StatusOK {
		t.Errorf("a user who was there before: %d", status)
	}
	if got := ts.Stats().Refused["too fast from an address"]; got != 3 {
		t.Errorf("%d were counted, want 3", got)
	}
}
