package endpoint

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// upgradeRequest is a request as it stands on the wire.
func upgradeRequest(path string, extra ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
		strings.Join(extra, "") + "\r\n"
}

// clientFrame is a masked frame as a client sends it.
func clientFrame(opcode byte, payload []byte) []byte {
	b := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 0x80|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// serverFrame reads one unmasked frame.
func serverFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	var h [2]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(h[1])
	switch n {
	case 126:
		var b [2]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0, nil, err
		}
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return h[0] & 0x0f, payload, err
}

// rawClient is a client without a library: what it sends is up to the test.
type rawClient struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (ts *testServer) rawDial(t testing.TB) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", ts.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if ts.tls != nil {
		nc = tls.Client(nc, ts.tls)
	}
	t.Cleanup(func() { _ = nc.Close() }) // a test may have closed it
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &rawClient{t, nc, bufio.NewReader(nc)}
}

func (c *rawClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// upgraded reads the answer to the upgrade.
func (c *rawClient) upgraded() {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("upgrade: %v, %v", resp, err)
	}
	if ext := resp.Header.Get("Sec-WebSocket-Extensions") + resp.Header.Get("Sec-WebSocket-Protocol"); ext != "" {
		c.t.Fatalf("the server chose %q, want no extension and no subprotocol", ext)
	}
}

func (c *rawClient) want(want string) {
	c.t.Helper()
	op, b, err := serverFrame(c.r)
	var m protocol.Message
	if err == nil && op == websocket.BinaryMessage {
		err = protocol.Decode(b, &m)
	}
	if err != nil || op != websocket.BinaryMessage || name(&m) != want {
		c.t.Fatalf("got opcode %d %s, %v, want %s", op, name(&m), err, want)
	}
}

func TestWhatIsNoUpgradeGetsAnHTTPAnswer(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.Origins = []string{"https://good.example"}
	ts := serve(t, cfg, anybody, &funcReceiver{})
	for _, tc := range []struct {
		name, request string
		want          int
	}{
		{"upgrade", upgradeRequest("/deepstream"), 101},
		{"query string is ignored", upgradeRequest("/deepstream?token=1&x=2"), 101},
		{"offered extensions and subprotocols are declined", upgradeRequest("/deepstream",
			"Sec-WebSocket-Extensions: permessage-deflate\r\n", "Sec-WebSocket-Protocol: mqtt\r\n"), 101},
		{"allowed origin", upgradeRequest("/deepstream", "Origin: https://GOOD.example\r\n"), 101},
		{"other origin", upgradeRequest("/deepstream", "Origin: https://evil.example\r\n"), 403},
		{"no page's origin", upgradeRequest("/deepstream", "Origin: null\r\n"), 403},
		{"trailing slash", upgradeRequest("/deepstream/"), 404},
		{"other path", upgradeRequest("/other"), 404},
		{"a route", "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"unknown path", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404},
		{"plain GET", "GET /deepstream HTTP/1.1\r\nHost: x\r\n\r\n", 426},
		{"POST", "POST /deepstream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405},
		{"HTTP/1.0", strings.Replace(upgradeRequest("/deepstream"), "HTTP/1.1", "HTTP/1.0", 1), 426},
		{"old version", strings.Replace(upgradeRequest("/deepstream"), "Version: 13", "Version: 8", 1), 426},
		{"bad key", strings.Replace(upgradeRequest("/deepstream"), "dGhl", "", 1), 400},
		{"body", upgradeRequest("/deepstream", "Content-Length: 3\r\n") + "abc", 400},
		{"large cookies", upgradeRequest("/deepstream", "Cookie: a="+strings.Repeat("x", 12<<10)+"\r\n"), 101},
		{"a head that is too large", upgradeRequest("/deepstream", "Cookie: a="+strings.Repeat("x", 32<<10)+"\r\n"), 431},
		{"very many headers", upgradeRequest("/deepstream", strings.Repeat("A: b\r\n", 10_000)), 431},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := ts.rawDial(t)
			c.write([]byte(tc.request))
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.want {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.want)
			}
			if h := resp.Header; h.Get("Sec-WebSocket-Extensions") != "" || h.Get("Sec-WebSocket-Protocol") != "" {
				t.Errorf("headers %v choose an extension or a subprotocol", h)
			}
		})
	}
}

func TestWithoutAllOriginsOnlyPagesAreRefused(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.AllowAllOrigins = false
	s := &Server{cfg: cfg}
	if s.originAllowed([]string{"https://any.example"}) {
		t.Error("a page of an origin that is not listed may connect")
	}
	if !s.originAllowed(nil) {
		t.Error("a client that is no page may not connect")
	}
}

func TestWhatArrivesWithTheUpgradeRequestIsNotLost(t *testing.T) {
	for name, cfg := range map[string]Config{"ws": testConfig(), "wss": secure(t)} {
		t.Run(name, func(t *testing.T) {
			ts := serve(t, cfg, anybody, &funcReceiver{receive: func(c *Conn, m *protocol.Message) { c.Answer(m) }})
			c := ts.rawDial(t)
			b := []byte(upgradeRequest("/deepstream"))
			b = append(b, clientFrame(websocket.BinaryMessage, protocol.Append(nil, challenge()))...)
			b = append(b, clientFrame(websocket.BinaryMessage, protocol.Append(nil, request(`{}`)))...)
			b = append(b, clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("a", `"`+strings.Repeat("x", 2000)+`"`)))...)
			c.write(b)
			c.upgraded()
			c.want("CONNECTION.ACCEPT")
			c.want("AUTH.AUTH_SUCCESSFUL")
			c.want(`EVENT.EMIT "` + strings.Repeat("x", 2000) + `"`)
			c.write(clientFrame(websocket.BinaryMessage, protocol.Append(nil, ping())))
			c.want("CONNECTION.PONG")
		})
	}
}

func TestAMessageCutAtEveryByteLeavesTheConnectionUsable(t *testing.T) {
	var received atomic.Int64
	ts := serve(t, testConfig(), anybody, &funcReceiver{receive: func(*Conn, *protocol.Message) { received.Add(1) }})
	c := ts.login()
	whole := protocol.Append(nil, &protocol.Message{
		Topic: protocol.TopicEvent, Action: protocol.EventEmit, Has: protocol.HasName | protocol.HasData | protocol.HasCorrelationID,
		Name: "weather/berlin", Data: `{"t":[1,2,3]}`, CorrelationID: "17", Names: []string{"a", "b"},
	})
	for n := range whole {
		c.sendBytes(whole[:n])
		c.want("PARSER.UNKNOWN_TOPIC")
	}
	if n := received.Load(); n != 0 {
		t.Errorf("%d cut messages were received", n)
	}
	c.sendBytes(whole)
	c.send(ping())
	c.want("CONNECTION.PONG")
	if n := received.Load(); n != 1 {
		t.Errorf("received %d messages, want the whole one", n)
	}
	if got := ts.Stats().Undecodable; got != uint64(len(whole)) {
		t.Errorf("undecodable = %d, want %d", got, len(whole))
	}
}

func TestAWebSocketFrameMayArriveInAnyPieces(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{receive: func(c *Conn, m *protocol.Message) { c.Answer(m) }})
	c := ts.rawDial(t)
	c.write([]byte(upgradeRequest("/deepstream")))
	c.upgraded()
	c.write(clientFrame(websocket.BinaryMessage, protocol.Append(nil, challenge())))
	c.want("CONNECTION.ACCEPT")
	c.write(clientFrame(websocket.BinaryMessage, protocol.Append(nil, request(`{}`))))
	c.want("AUTH.AUTH_SUCCESSFUL")
	f := clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("name", `"data"`)))
	for cut := 1; cut < len(f); cut++ {
		c.write(f[:cut])
		c.write(f[cut:])
		c.want(`EVENT.EMIT "data"`)
	}
}

func TestASocketThatEndsInsideAFrameIsLost(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{receive: func(*Conn, *protocol.Message) { t.Error("received half a frame") }})
	f := clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("name", `"data"`)))
	for cut := range f {
		c := ts.rawDial(t)
		c.write([]byte(upgradeRequest("/deepstream")))
		c.upgraded()
		c.write(f[:cut])
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are gone", func() bool {
		st := ts.Stats()
		return st.Open == 0 && st.Closed["connection lost"] == uint64(len(f))
	})
}

func TestTextFramesAndRubbishAndOversizeClose(t *testing.T) {
	for name, cfg := range map[string]Config{"ws": testConfig(), "wss": secure(t)} {
		t.Run(name, func(t *testing.T) {
			cfg.WebSocket.MaxMessageSize = 1000
			ts := serve(t, cfg, anybody, &funcReceiver{})

			text := ts.login()
			if err := text.ws.WriteMessage(websocket.TextMessage, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			text.wantClose(1003)

			big := ts.login()
			big.send(emit("a", `"`+strings.Repeat("x", 100_000)+`"`))
			big.wantClose(1009)

			early := ts.dial()
			early.sendBytes(make([]byte, 1001))
			early.wantClose(1009)

			fits := ts.login()
			fits.sendBytes(make([]byte, 1000))
			fits.want("PARSER.UNKNOWN_TOPIC")

			rubbish := ts.rawDial(t)
			rubbish.write([]byte(upgradeRequest("/deepstream")))
			rubbish.upgraded()
			rubbish.write([]byte{0x82, 0x01, 0x00}) // not masked
			if op, b, err := serverFrame(rubbish.r); err != nil || op != 8 || binary.BigEndian.Uint16(b) != 1002 {
				t.Errorf("rubbish: got opcode %d %q, %v, want close code 1002", op, b, err)
			}
			eventually(t, "the reasons are counted", func() bool {
				closed := ts.Stats().Closed
				return closed["text frame"] == 1 && closed["message too big"] == 2 && closed["protocol error"] == 1
			})
		})
	}
}

// What a raw socket may try is answered by what ends it, and takes no memory.
func TestFramesThatNoClientSendsCloseAtOnce(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	mask := "\x00\x00\x00\x00"
	for _, tc := range []struct {
		name, bytes string
		want        uint16 // 0: it ends without a word
	}{
		{"a length of many exabytes", "\x82\xff\x3f\xff\xff\xff\xff\xff\xff\xff" + mask, 1009},
		{"a length with the highest bit", "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + mask, 0},
		{"fragments that are too much together", "\x02\xfe\x7f\xff" + mask + strings.Repeat("x", 0x7fff) +
			"\x00\xfe\x7f\xff" + mask + strings.Repeat("x", 0x7fff), 1009},
		{"a compressed frame", "\xc2\x81" + mask + "x", 1002},
		{"a fragmented ping", "\x09\x80" + mask, 1002},
		{"a long ping", "\x89\xfe\x00\x7e" + mask + strings.Repeat("x", 126), 1002},
		{"an opcode that is none", "\x83\x80" + mask, 1002},
		{"a continuation of nothing", "\x80\x80" + mask, 1002},
		{"a message within another", "\x02\x80" + mask + "\x82\x80" + mask, 1002},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := ts.rawDial(t)
			c.write([]byte(upgradeRequest("/deepstream")))
			c.upgraded()
			c.write([]byte(tc.bytes))
			op, b, err := serverFrame(c.r)
			if tc.want == 0 && errors.Is(err, io.EOF) {
				return
			}
			if err != nil || op != opClose || len(b) < 2 || binary.BigEndian.Uint16(b) != tc.want {
				t.Errorf("got opcode %d %q, %v, want close code %d", op, b, err, tc.want)
			}
		})
	}
}

func TestPingsOfWebSocketAreAnsweredBehindWhatWaits(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
		for range 100 {
			c.Answer(m)
		}
	}})
	c := ts.rawDial(t)
	c.write([]byte(upgradeRequest("/deepstream")))
	c.upgraded()
	c.write(clientFrame(websocket.BinaryMessage, protocol.Append(nil, challenge())))
	c.write(clientFrame(websocket.BinaryMessage, protocol.Append(nil, request(`{}`))))
	c.write(append(clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("a", "1"))),
		clientFrame(websocket.PingMessage, []byte("are you there"))...))
	c.want("CONNECTION.ACCEPT")
	c.want("AUTH.AUTH_SUCCESSFUL")
	for range 100 {
		c.want("EVENT.EMIT 1")
	}
	if op, b, err := serverFrame(c.r); err != nil || op != websocket.PongMessage || string(b) != "are you there" {
		t.Errorf("got opcode %d %q, %v, want the pong", op, b, err)
	}
}

func TestAClientsGoodbyeIsAnswered(t *testing.T) {
	closed := make(chan *Conn, 1)
	ts := serve(t, testConfig(), anybody, &funcReceiver{closed: func(c *Conn) { closed <- c }})
	c := ts.login()
	if err := c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, "bye"), time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c.wantClose(1000)
	if conn := await(t, "Closed", closed); !conn.Gone() {
		t.Error("Closed was called before Gone")
	}
	eventually(t, "the goodbye is counted", func() bool { return ts.Stats().Closed["client closed"] == 1 })
}

func TestClientAddressComesFromTrustedProxiesOnly(t *testing.T) {
	for _, tc := range []struct {
		peer, forwarded, want string
	}{
		{"192.0.2.1:99", "", "192.0.2.1"},
		{"192.0.2.1:99", "1.1.1.1", "192.0.2.1"}, // a stranger's word
		{"10.0.0.1:99", "", "10.0.0.1"},
		{"10.0.0.1:99", "1.1.1.1", "1.1.1.1"},
		{"10.0.0.1:99", "6.6.6.6, 1.1.1.1", "1.1.1.1"},           // what the client forged stands left
		{"10.0.0.1:99", "6.6.6.6, 1.1.1.1, 10.9.9.9", "1.1.1.1"}, // through two proxies
		{"10.0.0.1:99", "10.0.0.7, 10.9.9.9", "10.0.0.7"},        // all are ours
		{"10.0.0.1:99", "1.1.1.1, rubbish", "10.0.0.1"},
		{"10.0.0.1:99", "1.1.1.1:4711", "1.1.1.1"},
		{"[::1]:99", "[2001:db8::1]:4711", "2001:db8::1"},
		{"[::ffff:10.0.0.1]:99", "1.1.1.1", "1.1.1.1"},
	} {
		proxies, err := parseProxies([]string{"10.0.0.0/8", "::1"})
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{proxies: proxies}
		r := &http.Request{RemoteAddr: tc.peer, Header: http.Header{}}
		if tc.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tc.forwarded)
		}
		if got := s.clientAddr(r); got != tc.want {
			t.Errorf("peer %s, forwarded %q: %s, want %s", tc.peer, tc.forwarded, got, tc.want)
		}
	}
}

func FuzzForwardedForNeverYieldsRubbish(f *testing.F) {
	f.Add("1.1.1.1, 10.0.0.1")
	f.Add("[::1%eth0]:1,,")
	s := &Server{proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, forwarded string) {
		got := s.clientAddr(&http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {forwarded}}})
		if _, err := netip.ParseAddr(got); err != nil {
			t.Errorf("%q yields %q", forwarded, got)
		}
	})
}

// FuzzFirstBytesOfAClient sends anything after the upgrade: the server must
// answer or close, and serve the next client.
func FuzzFirstBytesOfAClient(f *testing.F) {
	f.Add(clientFrame(websocket.BinaryMessage, protocol.Append(nil, challenge())))
	f.Add(clientFrame(websocket.CloseMessage, []byte{3}))
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat(clientFrame(websocket.PingMessage, nil), 50))
	ts := serve(f, testConfig(), anybody, &funcReceiver{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := ts.rawDial(t)
		c.write([]byte(upgradeRequest("/deepstream")))
		c.upgraded()
		_, _ = c.Write(b) // fails when the server closes first, as it may
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n := ts.Stats().Panics; n != 0 {
			t.Fatalf("%d panics", n)
		}
	})
}

func TestSilentClientsAreClosedAndTalkingOnesStay(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.HeartbeatInterval = 250 * time.Millisecond
	ts := serve(t, cfg, anybody, &funcReceiver{})
	talking, silent := ts.login(), ts.login()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := silent.next()
		if !websocket.IsCloseError(err, 1008) {
			t.Errorf("the silent client ended with %v, want close code 1008", err)
		}
	}()
	for open := true; open; {
		talking.send(ping())
		talking.want("CONNECTION.PONG")
		select {
		case <-done:
			open = false
		default:
		}
	}
	talking.send(ping())
	talking.want("CONNECTION.PONG")
	if got := ts.Stats().Closed["silent"]; got != 1 {
		t.Errorf("closed as silent = %d, want 1", got)
	}
}

func TestABusyReaderIsNoSilentClient(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.HeartbeatInterval = 250 * time.Millisecond
	entered := make(chan struct{})
	release := make(chan struct{})
	ts := serve(t, cfg, anybody, &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
		close(entered)
		<-release
		c.Answer(m)
	}})
	busy := ts.login()
	busy.send(emit("a", "1"))
	await(t, "the reader is busy", entered)
	ts.login().wantClose(1008) // more than two heartbeats have passed
	close(release)
	busy.want("EVENT.EMIT 1")
}

func TestConnectionsAreNumberedAndDescribed(t *testing.T) {
	conns := make(chan *Conn, 2)
	ts := serve(t, testConfig(), anybody, &funcReceiver{opened: func(c *Conn) { conns <- c }})
	first := ts.login()
	a := <-conns
	ts.login()
	b := <-conns
	if a.ID() == b.ID() || a.ID() == 0 {
		t.Errorf("ids %d and %d", a.ID(), b.ID())
	}
	if got := fmt.Sprint(a.RemoteAddr(), " ", a.SDK(), " ", a.User().ID, " ", a.Gone(), " ", a.Since().IsZero()); got != "127.0.0.1 javascript/7.1.2 u false false" {
		t.Errorf("described as %q", got)
	}
	if len(ts.Conns()) != 2 {
		t.Errorf("%d connections listed, want 2", len(ts.Conns()))
	}
	a.Disconnect()
	first.wantClose(1008)
	eventually(t, "a is gone", func() bool { return ts.Stats().Closed["disconnected by the operator"] == 1 && len(ts.Conns()) == 1 })
}

func TestWhyAPumpEnded(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Reason
	}{
		{websocket.ErrCloseSent, ClientClosed}, // its close was answered before our pump wrote again
		{&websocket.CloseError{Code: websocket.CloseNormalClosure}, ClientClosed},
		{&websocket.CloseError{Code: websocket.CloseAbnormalClosure}, ConnectionLost},
		{websocket.ErrReadLimit, MessageTooBig},
		{io.ErrUnexpectedEOF, ConnectionLost},
		{errors.New("websocket: bad MASK"), ProtocolError},
	} {
		if got := reasonOf(tc.err); got != tc.want {
			t.Errorf("%v is %q, want %q", tc.err, got, tc.want)
		}
	}
}

func TestTheOperatorHearsThatNobodyCanBeAccepted(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	w := httpErrors{log}
	for _, line := range []string{
		"http: TLS handshake error from 127.0.0.1:1: EOF\n",
		"http: Accept error: accept tcp 127.0.0.1:6020: accept4: too many open files; retrying in 5ms\n",
	} {
		if _, err := w.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	got := b.String()
	if strings.Contains(got, "handshake") || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "too many open files") {
		t.Errorf("the log says\n%s\nwant a warning of the accept error alone", got)
	}
}
