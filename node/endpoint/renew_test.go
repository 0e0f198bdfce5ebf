package endpoint

import (
	"context"
	"io"
	"net/http"
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

func TestARefusalThatIsNoAttemptLeavesTheAttemptsAndIsBounded(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.MaxAuthAttempts = 2
	expired := funcAuth(func(context.Context, *auth.Attempt) (auth.Verdict, error) {
		return auth.Verdict{Opinion: auth.Refused, Reason: `"TOKEN_EXPIRED"`, Uncounted: true}, nil
	})
	c := serve(t, cfg, expired, &funcReceiver{}).dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	for range maxUncounted + cfg.WebSocket.MaxAuthAttempts {
		c.send(request(`{}`))
		c.want(`AUTH.AUTH_UNSUCCESSFUL "TOKEN_EXPIRED"`)
	}
	c.want("AUTH.TOO_MANY_AUTH_ATTEMPTS")
	if _, err := c.next(); err == nil {
		t.Error("the connection is still open")
	}
}

func TestARenewedUserHoldsFromTheNextMessageOn(t *testing.T) {
	conns := make(chan *Conn, 1)
	ts := serve(t, testConfig(), anybody, &funcReceiver{
		opened: func(c *Conn) {
			conns <- c
		},
		receive: func(c *Conn, m *protocol.Message) {
			c.Answer(&protocol.Message{Topic: m.Topic, Action: m.Action, Name: m.Name, Has: protocol.HasName | protocol.HasData, Data: c.User().ServerData})
		},
	})
	c := ts.login()
	conn := <-conns
	if conn.Renew(&auth.User{ID: "somebody else", ServerData: "2"}) {
		t.Error("a connection became somebody else's")
	}
	if !conn.Renew(&auth.User{ID: "u", ServerData: "3"}) {
		t.Error("the user was not renewed")
	}
	c.send(emit("a", "1"))
	c.want("EVENT.EMIT 3")
}

func TestAConnectionEndsForAReasonFromElsewhere(t *testing.T) {
	conns := make(chan *Conn, 1)
	ended := make(chan struct{})
	ts := serve(t, testConfig(), anybody, &funcReceiver{
		opened: func(c *Conn) { conns <- c },
		closed: func(*Conn) { close(ended) },
	})
	c := ts.login()
	(<-conns).End(TokenExpired)
	if _, err := c.next(); err == nil {
		t.Error("the connection is still open")
	}
	<-ended
	if n := ts.Stats().Closed["token expired"]; n != 1 {
		t.Errorf("%d connections ended because a token expired, want 1", n)
	}
}

func TestARouteThatEndsWithASlashStandsForAllBelow(t *testing.T) {
	ts := serveWith(t, testConfig(), func(s *Server) {
		s.routes["/users/"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) })
	})
	for path, want := range map[string]string{
		"/users/a%2Fb": "/users/a/b", "/users/../a": "/users/../a", "/users/": "/users/", "/users": "404 page not found\n", "/hello": "hi",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ts.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // all of it was read
		if string(body) != want {
			t.Errorf("%s: got %q, want %q", path, body, want)
		}
	}
}
