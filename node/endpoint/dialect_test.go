package endpoint

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// shout is a dialect for tests. A frame holds messages, one in a line: "login NAME" and
// "emit NAME". What goes out is the topic and the action in capitals, but for what it has
// no words for.
type shout struct{ plain bool }

func (shout) Form() protocol.Form { return protocol.FormBinary }

func (shout) Decode(b []byte, hand func(*protocol.Message)) error {
	for line := range strings.Lines(string(b)) {
		what, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch what {
		case "login":
			hand(&protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: `{"username":"` + name + `"}`})
		case "emit":
			hand(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: name})
		default:
			return errors.New("no message")
		}
	}
	return nil
}

func (s shout) Frame(m *protocol.Message) []byte {
	if m.Topic == protocol.TopicPresence {
		return nil
	}
	text := m.Topic.String() + " " + m.Action.Name(m.Topic) + "\n"
	if s.plain {
		return []byte(text)
	}
	return append([]byte{0x81, byte(len(text))}, text...)
}

// shouted is the dialect over WebSocket.
func shouted(o *WebSocketConfig) Dialect {
	return Dialect{Name: "shout", Options: o, Codec: func() Codec { return shout{} }, Greets: true, Subprotocol: "shout.v1"}
}

func TestAnotherDialectIsSpokenOnItsPath(t *testing.T) {
	cfg := testConfig()
	options := cfg.WebSocket
	options.URLPath, options.HeartbeatInterval = "/shout", 200*time.Millisecond
	cfg.Dialects = []Dialect{shouted(&options)}
	got := make(chan string, 4)
	ts := serve(t, cfg, anybody, &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
		got <- m.Name
		c.Answer(&protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceQueryAllResponse})
		c.Answer(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventMessageDenied})
	}})
	url := "ws://" + ts.Addr().String() + "/shout"

	if _, resp, err := websocket.DefaultDialer.Dial(url, nil); err == nil || resp.StatusCode != 400 {
		t.Errorf("a client that does not offer the subprotocol is let in: %v %v", resp, err)
	}
	dialer := websocket.Dialer{Subprotocols: []string{"other", "shout.v1"}}
	ws, resp, err := dialer.Dial(url, nil)
	if err != nil {
		t.Fatalf("%v %v", resp, err)
	}
	defer ws.Close()
	if ws.Subprotocol() != "shout.v1" {
		t.Errorf("subprotocol %q, want shout.v1", ws.Subprotocol())
	}
	next := func() string {
		t.Helper()
		if err := ws.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		kind, b, err := ws.ReadMessage()
		if err != nil || kind != websocket.TextMessage {
			t.Fatalf("%d %q %v, want a text message", kind, b, err)
		}
		return strings.TrimSpace(string(b))
	}
	want := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			said := next()
			for said == "CONNECTION PING" && text != said {
				said = next()
			}
			if said != text {
				t.Fatalf("got %q, want %q", said, text)
			}
		}
	}
	want("CONNECTION ACCEPT", "CONNECTION PING")
	// One frame logs in and goes on at once; the second message waits for the verdict.
	if err := ws.WriteMessage(websocket.TextMessage, []byte("login lisa\nemit a\nemit b")); err != nil {
		t.Fatal(err)
	}
	want("AUTH AUTH_SUCCESSFUL", "EVENT MESSAGE_DENIED", "EVENT MESSAGE_DENIED")
	if a, b := <-got, <-got; a != "a" || b != "b" {
		t.Errorf("got %q and %q, want a and b", a, b)
	}
	want("CONNECTION PING") // by the server, while the client is silent
	if st := ts.Stats().Dialects["shout"]; st.Open != 1 || st.Connections != 1 {
		t.Errorf("%+v of one connection", st)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("emit c")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return ts.Stats().Closed["binary frame"] == 1 })
}

func TestAFrameThatIsNoMessageEndsTheConnection(t *testing.T) {
	cfg := testConfig()
	options := cfg.WebSocket
	options.URLPath = "/shout"
	cfg.Dialects = []Dialect{shouted(&options)}
	ts := serve(t, cfg, anybody, &funcReceiver{})
	dialer := websocket.Dialer{Subprotocols: []string{"shout.v1"}}
	ws, _, err := dialer.Dial("ws://"+ts.Addr().String()+"/shout", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if err := ws.WriteMessage(websocket.TextMessage, []byte("?")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return ts.Stats().Closed["protocol error"] == 1 })
	if n := ts.Stats().Undecodable; n != 1 {
		t.Errorf("%d undecodable frames, want 1", n)
	}
}

// plainly connects a client that speaks the dialect without WebSocket, and gives the
// connection to read as its reader.
func plainly(t *testing.T, ts *testServer, read func(*Conn)) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	options := ts.cfg.WebSocket
	options.URLPath = ""
	d := &Dialect{Name: "plain", Options: &options, Codec: func() Codec { return shout{plain: true} }}
	c := ts.Plain(d, nc, []byte("early "), &auth.Attempt{RemoteAddr: "127.0.0.1"})
	if c == nil {
		t.Fatal("there is no connection")
	}
	go func() {
		defer c.Leave()
		read(c)
	}()
	if err := client.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestAConnectionWithoutWebSocket(t *testing.T) {
	closed := make(chan struct{})
	ts := serve(t, testConfig(), anybody, &funcReceiver{
		receive: func(c *Conn, m *protocol.Message) {
			c.Send(&protocol.Outbound{Message: protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit}})
		},
		closed: func(*Conn) { close(closed) },
	})
	read := make(chan string, 1)
	client := plainly(t, ts, func(c *Conn) {
		if err := c.Receive(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit}); err == nil {
			t.Error("a message before the login is taken")
		}
		if !c.Login(`{"username":"lisa"}`) {
			t.Error("the login is refused")
		}
		if _, err := c.Write([]byte("words of its own\n")); err != nil {
			t.Error(err)
		}
		if err := c.Receive(&protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead}); err != nil {
			t.Error(err)
		}
		c.Answer(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCAccept})
		b := make([]byte, 9)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Error(err)
		}
		read <- string(b)
		c.End(Kicked)
		if _, err := c.Read(b); err == nil {
			t.Error("reading goes on after the end")
		}
	})
	if _, err := client.Write([]byte("lat")); err != nil {
		t.Fatal(err)
	}
	if got := <-read; got != "early lat" {
		t.Errorf("read %q, want what came early first", got)
	}
	frame := string(protocol.EncodeFrame(protocol.FormBinary, &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit}, ""))
	b, err := io.ReadAll(client)
	if want := "AUTH AUTH_SUCCESSFUL\nwords of its own\n" + frame + "RPC ACCEPT\n"; err != nil || string(b) != want {
		t.Errorf("got %q %v, want all that was said before the end, in order: %q", b, err, want)
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Closed is not called")
	}
	eventually(t, "the end", func() bool { return len(ts.Conns()) == 0 })
	if n := ts.Stats().Closed["kicked"]; n != 1 {
		t.Errorf("%d were kicked, want 1", n)
	}
}

func TestAConnectionWithoutWebSocketWhoseLoginIsKnown(t *testing.T) {
	opened := make(chan string, 1)
	ts := serve(t, testConfig(), strangersOnly, &funcReceiver{opened: func(c *Conn) { opened <- c.User().ID }})
	client := plainly(t, ts, func(c *Conn) {
		if c.Login(`{}`) {
			t.Error("a login that the chain refuses lets in")
		}
		if !c.Admit(&auth.User{ID: "lisa"}) {
			t.Error("not admitted")
		}
		_, _ = io.Copy(io.Discard, c) // until the client goes
	})
	if id := <-opened; id != "lisa" {
		t.Errorf("user %q, want lisa", id)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return len(ts.Conns()) == 0 })
}

func TestConnectionsWithoutWebSocketEndWithTheServer(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	client := plainly(t, ts, func(c *Conn) {
		c.Admit(&auth.User{ID: "lisa"})
		_, _ = io.Copy(io.Discard, c)
	})
	if err := ts.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(client); err != nil {
		t.Errorf("the client is cut off, %v, instead of told", err)
	}
	l, r := net.Pipe()
	defer l.Close()
	if c := ts.Plain(&Dialect{Name: "plain", Options: &ts.cfg.WebSocket}, r, nil, &auth.Attempt{}); c != nil {
		t.Error("a connection is made after the end")
	}
}

// strangersOnly lets nobody in.
var strangersOnly = funcAuth(func(context.Context, *auth.Attempt) (auth.Verdict, error) {
	return auth.Verdict{Opinion: auth.Refused}, nil
})

func TestLastWordsWithoutWebSocketArrive(t *testing.T) {
	for name, leave := range map[string]func(*Conn){
		"after the end":           func(c *Conn) { c.End(Kicked) },
		"when the reader is done": func(*Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			ts := serve(t, testConfig(), anybody, &funcReceiver{})
			client := plainly(t, ts, func(c *Conn) {
				if !c.Login(`{}`) {
					t.Error("the login is refused")
				}
				for range 1000 {
					c.Answer(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCAccept})
				}
				leave(c)
			})
			want := "AUTH AUTH_SUCCESSFUL\n" + strings.Repeat("RPC ACCEPT\n", 1000)
			if b, err := io.ReadAll(client); err != nil || string(b) != want {
				t.Errorf("%d bytes and %v, want all %d", len(b), err, len(want))
			}
		})
	}
}

func TestNobodyIsPingedBeforeTheUpgrade(t *testing.T) {
	cfg := testConfig()
	options := cfg.WebSocket
	options.URLPath = "/shout"
	cfg.Dialects = []Dialect{shouted(&options)}
	ts := serve(t, cfg, anybody, &funcReceiver{})
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := ts.newConn(ours, nil, &auth.Attempt{RemoteAddr: "127.0.0.1"}, ts.speak["/shout"], false)
	defer ts.removed(c)
	ts.clock.Add(int64(2 * time.Minute)) // more than a heartbeat, less than the login may take
	c.heardAt.Store(ts.clock.Load())
	ts.sweep(ts.now(), time.Second)
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if c.wire.queue != nil || c.wire.rung {
		t.Error("it was pinged, and rung in vain")
	}
}
