package endpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// knock opens a socket that says nothing, and waits until the gate has seen it.
func (ts *testServer) knock() net.Conn {
	ts.t.Helper()
	nc, err := net.Dial("tcp", ts.Addr().String())
	if err != nil {
		ts.t.Fatal(err)
	}
	ts.t.Cleanup(func() { _ = nc.Close() })
	eventually(ts.t, "the gate sees a socket", func() bool { return ts.gate.knows(nc.LocalAddr()) })
	return nc
}

// knows says whether a guest comes from addr.
func (g *gate) knows(addr net.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for nc := range g.guests {
		if nc.RemoteAddr().String() == addr.String() {
			return true
		}
	}
	return false
}

// ended waits until the server has closed a socket on which it says nothing.
func ended(t *testing.T, what string, nc net.Conn) {
	t.Helper()
	if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var netErr net.Error
	if n, err := nc.Read(make([]byte, 1)); n > 0 || err == nil || errors.As(err, &netErr) && netErr.Timeout() {
		t.Errorf("%s: read %d bytes, %v, want the end", what, n, err)
	}
}

// alive says that a socket has not been closed, by sending a request on it.
func alive(t *testing.T, what string, nc net.Conn) {
	t.Helper()
	if _, err := fmt.Fprintf(nc, "GET /hello HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	res, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v, want 200", what, res.Status, err)
	}
}

func TestTheOldestWithoutALoginMakesRoom(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.MaxUnauthenticated = 3
	ts := serve(t, cfg, anybody, &funcReceiver{})
	client := ts.login() // is none of them any more
	first, second, third := ts.knock(), ts.knock(), ts.knock()
	alive(t, "the second", second)
	upgraded := ts.dial() // from here on first is one too many
	ended(t, "the first", first)
	fifth := ts.knock()
	ended(t, "the second, though it spoke", second)
	sixth := ts.knock()
	ended(t, "the third", third)
	ts.knock()
	if _, err := upgraded.next(); err == nil || websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the one that was upgraded: %v, want that it was cut off", err)
	}
	alive(t, "the fifth", fifth)
	alive(t, "the sixth", sixth)
	client.send(ping())
	client.want("CONNECTION.PONG")
	if got := ts.Stats(); got.Refused["too many without login"] != 4 || got.Closed["too many without login"] != 1 || got.NotLoggedIn != 3 {
		t.Errorf("refused %v, closed %v, %d have not logged in; want 4, 1 and 3", got.Refused, got.Closed, got.NotLoggedIn)
	}
	if !strings.Contains(ts.logs.String(), "raise maxUnauthenticated") {
		t.Error("the log does not name the cure")
	}
}

func TestOneAddressCannotTakeEverybodysRoom(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.MaxUnauthenticatedPerAddress = 2
	cfg.TrustedProxies = []string{"127.0.0.1"}
	ts := serve(t, cfg, anybody, &funcReceiver{})
	dial := func(addr string) *testClient {
		ws, _, err := websocket.DefaultDialer.Dial(ts.url, http.Header{"X-Forwarded-For": {addr}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.Close() })
		return &testClient{t, ws}
	}
	for range 5 {
		ts.knock() // nobody yet but the proxy, which is not bounded
	}
	other := dial("10.0.0.1")
	first := dial("2001:db8::1")
	dial("2001:db8::2")
	dial("2001:db8::3:4:5") // the same network
	if _, err := first.next(); err == nil {
		t.Error("the first of three from one network was heard, want it cut off")
	}
	other.send(challenge())
	other.want("CONNECTION.ACCEPT")
	if got := ts.Stats().Refused["too many without login"]; got != 1 {
		t.Errorf("%d were turned away, want 1", got)
	}
}

func TestALoginUnderWayIsNotTurnedAway(t *testing.T) {
	started, judge := make(chan struct{}), make(chan struct{})
	slow := funcAuth(func(context.Context, *auth.Attempt) (auth.Verdict, error) {
		close(started)
		<-judge
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "u"}}, nil
	})
	cfg := testConfig()
	cfg.HTTP.MaxUnauthenticated = 2
	ts := serve(t, cfg, slow, &funcReceiver{})
	c := ts.dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	c.send(request(`{}`))
	await(t, "the login runs", started)
	idle := ts.knock()
	ts.knock()
	ended(t, "the idle one", idle)
	close(judge)
	c.want("AUTH.AUTH_SUCCESSFUL")
}

func TestAFullNodeAnswersHealthAndNothingElse(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.MaxConnections = 4
	ts := serve(t, cfg, anybody, &funcReceiver{})
	clients := []*testClient{ts.login(), ts.login(), ts.login(), ts.login()}
	_, res, err := websocket.DefaultDialer.Dial(ts.url, nil)
	if err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Fatalf("the fifth client: %v (%v), want 503 and a time to try again", err, res)
	}
	alive(t, "health", ts.knock())

	var crowd []net.Conn // of which two at most may be there at once
	for range httpSpare + 10 {
		crowd = append(crowd, ts.knock())
	}
	ended(t, "the oldest of a crowd", crowd[0])
	alive(t, "health beside a crowd", crowd[len(crowd)-1])
	for _, c := range clients {
		c.send(ping())
		c.want("CONNECTION.PONG")
	}
	if err := clients[0].ws.Close(); err != nil {
		t.Fatal(err)
	}
	for _, nc := range crowd {
		_ = nc.Close()
	}
	eventually(t, "there is room again", func() bool { return !ts.gate.full() })
	ts.login()
	if got := ts.Stats().Refused["too many connections"]; got != 1 {
		t.Errorf("%d were refused, want 1", got)
	}
}

func TestNobodyIsAcceptedBeyondTheSpareSockets(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.MaxConnections = 2*httpSpare + 4
	cfg.TrustedProxies = []string{"127.0.0.1"}
	ts := serve(t, cfg, anybody, &funcReceiver{})
	for range cfg.HTTP.MaxConnections {
		ts.login()
	}
	for range httpSpare {
		ts.knock()
	}
	if nc, err := net.Dial("tcp", ts.Addr().String()); err == nil { // else it was reset at once
		defer nc.Close()
		ended(t, "one too many", nc)
	}
	if got := ts.Stats().Refused["too many connections"]; got != 1 {
		t.Errorf("%d were refused, want 1", got)
	}
}

// trickle sends one byte after the other until the server closes, and says
// after how long it did.
func trickle(t *testing.T, nc net.Conn, text string) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, nc) // the end is what counts
	}()
	for {
		select {
		case <-gone:
			return time.Since(began)
		case <-tick.C:
			if text == "" {
				text = "x"
			}
			if _, err := nc.Write([]byte(text[:1])); err != nil {
				<-gone
				return time.Since(began)
			}
			text = text[1:]
		case <-time.After(patience):
			t.Fatal("the server waits for ever")
		}
	}
}

func TestWhatTricklesInHasATimeAllTogether(t *testing.T) {
	const limit = 200 * time.Millisecond
	for _, tc := range []struct {
		name, first, rest string
		secure            bool
	}{
		{"the head of a request", "", "GET /deepstream HTTP/1.1\r\nX: ", false},
		{"the body of a request", "POST /hello HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n", "", false},
		{"a chunked body", "POST /hello HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n", "", false},
		{"the greeting of TLS", "", "\x16\x03\x01\x02\x00", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig()
			if tc.secure {
				cfg = secure(t)
			}
			ts := serveWith(t, cfg, func(s *Server) {
				s.http.ReadTimeout, s.http.WriteTimeout = limit, limit
			})
			nc := ts.knock()
			if _, err := io.WriteString(nc, tc.first); err != nil {
				t.Fatal(err)
			}
			if took := trickle(t, nc, tc.rest); took > patience/2 {
				t.Errorf("it took %v", took)
			}
			eventually(t, "the socket is forgotten", func() bool { sockets, _ := ts.gate.stats(); return sockets == 0 })
		})
	}
}

func TestAnswersThatNobodyReadsEnd(t *testing.T) {
	ts := serveWith(t, testConfig(), func(s *Server) {
		s.http.WriteTimeout = 100 * time.Millisecond
		s.routes["/large"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 64<<20)) // fails: nobody reads
		})
	})
	nc := ts.knock()
	if _, err := io.WriteString(nc, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket is forgotten", func() bool { sockets, _ := ts.gate.stats(); return sockets == 0 })
}

func TestTooManyMessagesBeforeLoginEndTheConnection(t *testing.T) {
	for _, challenged := range []bool{false, true} {
		ts := serve(t, testConfig(), anybody, &funcReceiver{})
		c := ts.dial()
		want := "CONNECTION.INVALID_MESSAGE"
		if challenged {
			c.send(challenge())
			c.want("CONNECTION.ACCEPT")
			want = "AUTH.INVALID_MESSAGE"
		}
		for range 2 * maxStrays {
			c.send(ping()) // may come as often as it likes
		}
		for i := range maxStrays {
			if i%2 == 0 {
				c.sendBytes([]byte{0xff})
			} else {
				c.send(emit("a", "1"))
			}
			c.want(want)
		}
		c.wantClose(1008)
		eventually(t, "it is counted", func() bool { return ts.Stats().Closed["too many messages before login"] == 1 })
		if strings.Contains(ts.logs.String(), "level=WARN") {
			t.Errorf("a stranger fills the log:\n%s", ts.logs)
		}
	}
}

func TestOnlyClientsThatLoggedInSendLargeMessages(t *testing.T) {
	got := make(chan int, 1)
	ts := serve(t, testConfig(), anybody, &funcReceiver{receive: func(_ *Conn, m *protocol.Message) { got <- len(m.Data) }})
	large := `"` + strings.Repeat("x", 1<<20-100) + `"`
	c := ts.login()
	c.send(emit("a", large))
	if n := await(t, "the message", got); n != len(large) {
		t.Errorf("got %d bytes, want %d", n, len(large))
	}
	stranger := ts.dial()
	stranger.send(challenge())
	stranger.want("CONNECTION.ACCEPT")
	stranger.send(request(`{"a":"` + strings.Repeat("x", maxLoginMessage) + `"}`))
	stranger.wantClose(1009)
}

func TestALoginThatCannotWaitIsToldToComeAgain(t *testing.T) {
	busy := funcAuth(func(context.Context, *auth.Attempt) (auth.Verdict, error) {
		return auth.Verdict{}, fmt.Errorf("file: %w", auth.ErrBusy)
	})
	ts := serve(t, testConfig(), busy, &funcReceiver{})
	c := ts.dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	c.send(request(`{}`))
	c.wantClose(1013)
	if got := ts.Stats().Logins["busy"]; got != 1 {
		t.Errorf("%d busy logins, want 1", got)
	}
}

func TestTheGateKeepsItsBooks(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.MaxUnauthenticated, cfg.HTTP.MaxUnauthenticatedPerAddress = 5, 3
	ts := serve(t, cfg, stranger, &funcReceiver{})
	for i := range 40 {
		switch i % 4 {
		case 0:
			ts.knock()
		case 1:
			ts.dial()
		case 2:
			c := ts.dial()
			c.send(challenge())
			c.want("CONNECTION.ACCEPT")
			c.send(request(`{"u":"none"}`))
			c.want("AUTH.AUTH_UNSUCCESSFUL")
		default:
			c := ts.dial()
			c.send(challenge())
			c.want("CONNECTION.ACCEPT")
			c.send(request(`{"u":"ann"}`))
			c.want(`AUTH.AUTH_SUCCESSFUL {"likes":"red"}`)
		}
	}
	g := ts.gate
	eventually(t, "those turned away have gone", func() bool {
		sockets, newcomers := g.stats() // the last of three has logged in
		return sockets == 12 && newcomers == 2
	})
	if err := ts.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have gone", func() bool { sockets, newcomers := g.stats(); return sockets == 0 && newcomers == 0 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting.Len() != 0 || len(g.crowds) != 0 {
		t.Errorf("%d wait and %d addresses are known, want none", g.waiting.Len(), len(g.crowds))
	}
}
