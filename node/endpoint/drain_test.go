package endpoint

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"hadal/protocol"

	"github.com/gorilla/websocket"
)

func TestADrainSaysGoodbyeAndSendsWhoComesElsewhere(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	var clients []*testClient
	for range 10 {
		clients = append(clients, ts.login())
	}
	waiting := ts.dial() // and says its challenge later
	if err := ts.Drain(t.Context(), 50*time.Millisecond, []string{"ws://b/deepstream", "ws://c/deepstream"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		c.wantClose(websocket.CloseGoingAway)
	}
	waiting.wantClose(websocket.CloseGoingAway)
	for _, want := range []string{"ws://b/deepstream", "ws://c/deepstream", "ws://b/deepstream"} {
		c := ts.dial()
		c.send(challenge())
		if m := c.want("CONNECTION.REDIRECT"); m.URL != want {
			t.Errorf("sent to %q, want %q", m.URL, want)
		}
		c.wantClose(websocket.CloseGoingAway)
	}
	if !ts.Draining() {
		t.Error("it does not say that it drains")
	}
	ts.Refill()
	ts.login()
}

func TestADrainWithoutOtherURLsRefusesTheUpgrade(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	if err := ts.Drain(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	_, resp, err := websocket.DefaultDialer.Dial("ws://"+ts.Addr().String()+ts.cfg.WebSocket.URLPath, nil)
	if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("got %v, %v, want a 503", resp, err)
	}
	ts.Refill()
	c := ts.login()
	c.send(&protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
	c.want("CONNECTION.PONG")
}

func TestADrainEndsWithItsContext(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	c := ts.login()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ts.Drain(ctx, time.Hour, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	c.send(ping())
	c.want("CONNECTION.PONG")
}
