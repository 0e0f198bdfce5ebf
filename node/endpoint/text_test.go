package endpoint

import (
	"context"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// speaker is a client of a dialect whose frames are text.
type speaker struct {
	t  *testing.T
	ws *websocket.Conn
}

// speaking serves a dialect besides the binary protocol, and says how to connect.
func speaking(t *testing.T, make func(*WebSocketConfig) Dialect, a auth.Authenticator, to Receiver, change func(*WebSocketConfig)) (*testServer, func() *speaker) {
	t.Helper()
	cfg := testConfig()
	options := cfg.WebSocket
	options.URLPath = "/dialect"
	change(&options)
	cfg.Dialects = []Dialect{make(&options)}
	ts := serve(t, cfg, a, to)
	return ts, func() *speaker {
		t.Helper()
		ws, resp, err := websocket.DefaultDialer.Dial("ws://"+ts.Addr().String()+"/dialect", nil)
		if err != nil {
			t.Fatalf("dial: %v (%v)", err, resp)
		}
		t.Cleanup(func() { _ = ws.Close() })
		return &speaker{t, ws}
	}
}

// Lines are written as in spec 02: ¦ between words, + at the end.
var (
	toWire   = strings.NewReplacer("¦", "\x1f", "+", "\x1e")
	fromWire = strings.NewReplacer("\x1f", "¦", "\x1e", "+")
)

func (s *speaker) say(text string) {
	s.t.Helper()
	if err := s.ws.WriteMessage(websocket.TextMessage, []byte(toWire.Replace(text))); err != nil {
		s.t.Fatal(err)
	}
}

func (s *speaker) want(texts ...string) {
	s.t.Helper()
	for _, want := range texts {
		_ = s.ws.SetReadDeadline(time.Now().Add(patience))
		kind, b, err := s.ws.ReadMessage()
		got := fromWire.Replace(string(b))
		for got == "C¦PI+" && want != got { // comes when it comes
			kind, b, err = s.ws.ReadMessage()
			got = fromWire.Replace(string(b))
		}
		if err != nil || kind != websocket.TextMessage || got != want {
			s.t.Fatalf("got %s %v, want %s", got, err, want)
		}
	}
}

func (s *speaker) wantClose(code int) {
	s.t.Helper()
	_ = s.ws.SetReadDeadline(time.Now().Add(patience))
	for {
		_, b, err := s.ws.ReadMessage()
		if err == nil && fromWire.Replace(string(b)) == "C¦PI+" {
			continue
		}
		if !websocket.IsCloseError(err, code) {
			s.t.Fatalf("got %q %v, want close code %d", b, err, code)
		}
		_ = s.ws.Close() // as a browser does, or the server lingers
		return
	}
}

// knows lets lisa in with data, and nobody else.
var knows = funcAuth(func(_ context.Context, a *auth.Attempt) (auth.Verdict, error) {
	if username(a.Params) != "lisa" {
		return auth.Verdict{Opinion: auth.Refused, Reason: `{"reason":"who?"}`}, nil
	}
	return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "lisa", ClientData: `{"a":1}`}}, nil
})

func same(*WebSocketConfig) {}

// echo sends an EMIT back as a broadcast.
var echo = &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
	c.Send(&protocol.Outbound{Message: protocol.Message{
		Topic: m.Topic, Action: m.Action, Has: m.Has, Name: strings.Clone(m.Name), Data: strings.Clone(m.Data),
	}})
}}

// Clients of this dialect do not say what they are, so what is asked of all is asked of them.
func TestAClientThatSaysNoVersionIsBelowEveryOne(t *testing.T) {
	cfg := testConfig()
	cfg.Clients.RefuseBelow = map[string]string{"*": "7.0.0"}
	options := cfg.WebSocket
	options.URLPath = "/dialect"
	cfg.Dialects = []Dialect{Text(&options)}
	ts := serve(t, cfg, knows, echo)
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+ts.Addr().String()+"/dialect", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	s := &speaker{t, ws}
	s.want("C¦A+", "C¦PI+")
	s.say(`A¦REQ¦{"username":"lisa"}+`)
	s.want(`A¦E¦INVALID_AUTH_DATA¦O{"error":"CLIENT_NOT_SUPPORTED","message":"clients of type \"\" need version 7.0.0 or later"}+`,
		"A¦E¦TOO_MANY_AUTH_ATTEMPTS+")
	s.wantClose(websocket.ClosePolicyViolation)
	if got := ts.Stats().Outdated["refused"]; got != 1 {
		t.Errorf("%d clients counted as refused, want 1", got)
	}
}

func TestAClientOfTheTextDialectLogsIn(t *testing.T) {
	ts, dial := speaking(t, Text, knows, echo, func(o *WebSocketConfig) { o.MaxAuthAttempts = 3 })
	s := dial()
	s.want("C¦A+", "C¦PI+")
	for range maxStrays + 10 { // no login, and no stray
		s.say("C¦PO+")
	}
	s.say("C¦PI+")      // not answered before login
	s.say("E¦EVT¦a¦T+") // nor is this
	s.say("A¦REQ¦{}+")
	s.want(`A¦E¦INVALID_AUTH_DATA¦O{"reason":"who?"}+`)
	// What follows a login in its frame waits for the verdict.
	s.say(`A¦REQ¦{"username":"lisa"}+E¦EVT¦a¦T+E¦EVT¦b¦U+C¦PI+C¦PO+`)
	s.want(`A¦A¦O{"a":1}+`, "E¦EVT¦a¦T+", "E¦EVT¦b¦U+", "C¦PO+")
	s.say("C¦CHR¦ws://x+Q¦Q¦Q+\x00+") // skipped
	s.say("E¦EVT¦c¦Sx+")
	s.want("E¦EVT¦c¦Sx+")
	if st := ts.Stats().Dialects["ws-text"]; st.Open != 1 || st.Connections != 1 {
		t.Errorf("%+v of one connection", st)
	}
	if err := s.ws.WriteMessage(websocket.TextMessage, []byte("E\x1fEVT\x1f\xff\x1e")); err != nil {
		t.Fatal(err)
	}
	s.wantClose(websocket.CloseProtocolError)
}

func TestLoginsOfTheTextDialectThatFail(t *testing.T) {
	_, dial := speaking(t, Text, knows, echo, func(o *WebSocketConfig) { o.MaxAuthAttempts = 2 })
	s := dial()
	s.want("C¦A+")
	s.say("A¦REQ¦{}+")
	s.want(`A¦E¦INVALID_AUTH_DATA¦O{"reason":"who?"}+`)
	s.say("A¦REQ¦{}+")
	s.want(`A¦E¦INVALID_AUTH_DATA¦O{"reason":"who?"}+`, "A¦E¦TOO_MANY_AUTH_ATTEMPTS+")
	s.wantClose(websocket.ClosePolicyViolation)
	for _, no := range []string{"A¦REQ+", "A¦REQ¦+", "A¦REQ¦5+", "A¦REQ¦{+"} {
		s = dial()
		s.want("C¦A+")
		s.say(no)
		s.want("A¦E¦INVALID_AUTH_DATA¦U+")
		s.wantClose(websocket.ClosePolicyViolation)
	}
}

func TestTheTextDialectPingsAndTellsOfTimeouts(t *testing.T) {
	_, dial := speaking(t, Text, knows, echo, func(o *WebSocketConfig) {
		o.HeartbeatInterval = time.Second
		o.UnauthenticatedClientTimeout = 4 * time.Second
	})
	s := dial()
	s.want("C¦A+", "C¦PI+", "C¦PI+")
	s.say("C¦PO+") // else it would be silent
	s.want("C¦PI+")
	for {
		s.say("C¦PO+")
		_ = s.ws.SetReadDeadline(time.Now().Add(patience))
		_, b, err := s.ws.ReadMessage()
		if err != nil {
			t.Fatalf("the connection ends with %v, want the word of the timeout first", err)
		}
		if got := fromWire.Replace(string(b)); got == "C¦E¦CONNECTION_AUTHENTICATION_TIMEOUT+" {
			break
		} else if got != "C¦PI+" {
			t.Fatalf("got %s", got)
		}
	}
	s.wantClose(websocket.ClosePolicyViolation)
}

func TestDialectsAreSentToTheirOwnPlaceElsewhere(t *testing.T) {
	ts, dial := speaking(t, Text, knows, echo, same)
	if err := ts.Drain(t.Context(), 0, []string{"wss://b/x/deepstream"}); err != nil {
		t.Fatal(err)
	}
	s := dial()
	s.want("C¦RED¦wss://b/x/dialect+")
	s.wantClose(websocket.CloseGoingAway)

	text := Text(&WebSocketConfig{URLPath: "/deepstream-v3"})
	for place, want := range map[string]string{
		"ws://b:6020/deepstream": "ws://b:6020/deepstream-v3", "ws://b": "ws://b/deepstream-v3", "ws://b/other?a=b": "ws://b/deepstream-v3?a=b", ":": ":",
	} {
		if got := pathOf(&text, place, "/deepstream"); got != want {
			t.Errorf("%s is %s, want %s", place, got, want)
		}
	}
	// A node without the binary protocol, which is not every place's end.
	for _, place := range []string{"wss://b/deepstream", "wss://b/deepstream/", "wss://b"} {
		if got, want := pathOf(&text, place, ""), "wss://b/deepstream-v3"; got != want {
			t.Errorf("%s is %s without a path of the binary protocol, want %s", place, got, want)
		}
	}
}

func TestAClientOfTheJSONDialectLogsIn(t *testing.T) {
	ts, dial := speaking(t, JSON, knows, echo, same)
	s := dial()
	s.say(`{"topic":2,"action":2,"isAck":false}`) // not answered before login
	s.say(`5`)                                    // a message of no topic, as in the peer
	s.want(`{"topic":2,"action":101}`)
	s.say(`{"topic":2,"action":5,"url":"ws://x","protocolVersion":"0.1a","sdkVersion":"7.0.5","sdkType":"javascript","isAck":false}`)
	s.want(`{"topic":2,"action":4}`)
	s.say(`{"topic":4,"action":2,"name":"a"}`)
	s.want(`{"topic":3,"action":101}`)
	s.say(`{"topic":3,"action":2,"parsedData":{"username":"lisa"},"data":"{\"username\":\"lisa\"}","isAck":false}`)
	s.want(`{"topic":3,"action":3,"parsedData":{"a":1}}`)
	s.say(`{"topic":2,"action":2}`)
	s.want(`{"topic":2,"action":3}`)
	s.say(`{"topic":4,"action":2,"name":"a","parsedData":false,"isAck":false}`)
	s.want(`{"topic":4,"action":2,"name":"a","parsedData":false}`)
	s.say(`{"topic":77}`)
	s.want(`{"topic":1,"action":1,"originalAction":6}`)
	if st := ts.Stats().Dialects["ws-json"]; st.Open != 1 {
		t.Errorf("%+v of one connection", st)
	}
	for _, no := range []string{`null`, `{`, ``, strings.Repeat("[", 20000)} {
		s := dial()
		s.say(no)
		s.wantClose(websocket.CloseProtocolError)
	}
	if err := s.ws.WriteMessage(websocket.BinaryMessage, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	s.wantClose(websocket.CloseUnsupportedData)
}

func TestEndpointsThatAreSwitchedOff(t *testing.T) {
	cfg := testConfig()
	options := cfg.WebSocket
	options.URLPath = "/dialect"
	cfg.WebSocket.URLPath = ""
	cfg.Dialects = []Dialect{JSON(&options)}
	ts := serve(t, cfg, anybody, &funcReceiver{})
	if _, _, err := websocket.DefaultDialer.Dial("ws://"+ts.Addr().String()+"/deepstream", nil); err == nil {
		t.Error("the binary protocol is served without a path")
	}
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+ts.Addr().String()+"/dialect", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = ws.Close()
	cfg.Dialects = append(cfg.Dialects, Text(&options))
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "urlPath: ") {
		t.Errorf("two endpoints on one path: %v", err)
	}
	cfg.Dialects = nil
	if err := cfg.Validate(); err == nil {
		t.Error("a port without any endpoint is valid")
	}
}
