package endpoint

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

func TestOnlyAWholeUpgradeRequestIsServedWithoutTheHTTPServer(t *testing.T) {
	s := serve(t, testConfig(), anybody, &funcReceiver{}).Server
	f := &front{srv: s}
	whole := upgradeRequest("/deepstream?a=b", "X-Custom: é,\tx\r\n")
	for _, tc := range []struct {
		name, bytes string
		want        bool
	}{
		{"an upgrade", whole, true},
		{"an upgrade with a message behind it", whole + "\x82\x80\r\n\r\n", true},
		{"its first half", whole[:len(whole)/2], false},
		{"all but the last byte", whole[:len(whole)-1], false},
		{"nothing", "", false},
		{"another path", upgradeRequest("/other"), false},
		{"a route", upgradeRequest("/hello"), false},
		{"another host's URL", strings.Replace(whole, "GET /", "GET http://x/", 1), false},
		{"another method", strings.Replace(whole, "GET", "POST", 1), false},
		{"HTTP/1.0", strings.Replace(whole, "HTTP/1.1", "HTTP/1.0", 1), false},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
		{"no host", strings.Replace(whole, "Host: localhost\r\n", "", 1), false},
		{"a body", upgradeRequest("/deepstream", "Content-Length: 3\r\n") + "abc", false},
		{"a chunked body", upgradeRequest("/deepstream", "Transfer-Encoding: chunked\r\n"), false},
		{"an expectation", upgradeRequest("/deepstream", "Expect: 100-continue\r\n"), false},
		{"no upgrade", strings.Replace(whole, "Upgrade: WebSocket", "Upgrade: h2c", 1), false},
		{"lines without a return", strings.Replace(whole, "\r\n", "\n", 1), false},
		{"an end before the end", strings.Replace(whole, "\r\n", "\n\n", 1), false},
		{"a return within a line", strings.Replace(whole, "localhost", "local\rhost", 1), false},
		{"a zero byte", strings.Replace(whole, "localhost", "local\x00host", 1), false},
		{"a line without a colon", upgradeRequest("/deepstream", "x\r\n"), false},
	} {
		r, d, early := f.upgrade([]byte(tc.bytes))
		if got := r != nil; got != tc.want {
			t.Errorf("%s: taken = %v, want %v", tc.name, got, tc.want)
			continue
		}
		if !tc.want {
			continue
		}
		if d == nil || r.URL.RequestURI() != "/deepstream?a=b" || r.Host != "localhost" || r.Header.Get("X-Custom") != "é,\tx" {
			t.Errorf("%s: got dialect %v, request %+v", tc.name, d, r)
		}
		if want := tc.bytes[len(whole):]; string(early) != want {
			t.Errorf("%s: behind it %q, want %q", tc.name, early, want)
		}
	}
}

// Wherever the first bytes of a client are cut, the HTTP server or front serve it, and
// nothing is lost between them.
func TestTheFirstBytesOfAClientMayComeInTwoPieces(t *testing.T) {
	var handed sync.Map // the addresses of clients whom the HTTP server has
	ts := serveWith(t, testConfig(), func(s *Server) {
		s.http.ConnState = func(nc net.Conn, state http.ConnState) {
			handed.Store(nc.RemoteAddr().String(), true)
			s.gate.connState(nc, state)
		}
	})
	b := bytes.Join([][]byte{
		[]byte(upgradeRequest("/deepstream")),
		clientFrame(websocket.BinaryMessage, protocol.Append(nil, challenge())),
		clientFrame(websocket.BinaryMessage, protocol.Append(nil, request(`{}`))),
	}, nil)
	head := bytes.Index(b, endOfHead) + len(endOfHead)
	for _, cut := range []int{1, 20, head - 1, head, head + 1, head + 10, len(b) - 1} {
		c := ts.rawDial(t)
		c.write(b[:cut])
		eventually(t, "the first piece is read", func() bool {
			addr := c.LocalAddr().String()
			_, ok := handed.Load(addr)
			return ok || ts.heard(addr)
		})
		c.write(b[cut:])
		c.upgraded()
		c.want("CONNECTION.ACCEPT")
		c.want("AUTH.AUTH_SUCCESSFUL")
		c.write(clientFrame(websocket.BinaryMessage, protocol.Append(nil, ping())))
		c.want("CONNECTION.PONG")
	}
}

// heard says whether a request that came from an address was read.
func (ts *testServer) heard(addr string) bool {
	ts.gate.mu.Lock()
	defer ts.gate.mu.Unlock()
	for nc, u := range ts.gate.guests {
		if nc.RemoteAddr().String() == addr {
			return !u.mute
		}
	}
	return false
}

func TestAPanicOfAGuardEndsOneRequestOnly(t *testing.T) {
	ts := serveWith(t, testConfig(), func(s *Server) {
		s.Guard(func(_ http.ResponseWriter, r *http.Request, _ *auth.Attempt) bool {
			if r.URL.RawQuery != "" {
				panic("a bug")
			}
			return true
		})
	})
	c := ts.rawDial(t)
	c.write([]byte(upgradeRequest("/deepstream?panic")))
	ended(t, "the request", c)
	if n := ts.Stats().Panics; n != 1 {
		t.Errorf("%d panics were counted, want 1", n)
	}
	eventually(t, "the socket is forgotten", func() bool { sockets, _ := ts.gate.stats(); return sockets == 0 })
	ts.login()
}
