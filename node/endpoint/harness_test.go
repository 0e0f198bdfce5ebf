package endpoint

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// client is node/sub's Client, which this room may not import.
type client interface {
	ID() uint64
	User() *auth.User
	Gone() bool
	Answer(m *protocol.Message)
	Send(o *protocol.Outbound)
	Pace()
	Reserve(n int) bool
	Release(n int)
}

var _ client = (*Conn)(nil)

// patience is how long a test waits for what must happen before it calls it
// missing; nothing depends on its length.
const patience = time.Minute

// funcReceiver is a Receiver of three functions, each of which may be nil.
type funcReceiver struct {
	opened  func(*Conn)
	receive func(*Conn, *protocol.Message)
	closed  func(*Conn)
}

func (r *funcReceiver) Opened(c *Conn) {
	if r.opened != nil {
		r.opened(c)
	}
}

func (r *funcReceiver) Receive(c *Conn, m *protocol.Message) {
	if r.receive != nil {
		r.receive(c, m)
	}
}

func (r *funcReceiver) Closed(c *Conn) {
	if r.closed != nil {
		r.closed(c)
	}
}

// funcAuth is an Authenticator of one function.
type funcAuth func(context.Context, *auth.Attempt) (auth.Verdict, error)

func (f funcAuth) Authenticate(ctx context.Context, a *auth.Attempt) (auth.Verdict, error) {
	return f(ctx, a)
}

// anybody lets everybody in as u.
var anybody = funcAuth(func(context.Context, *auth.Attempt) (auth.Verdict, error) {
	return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "u"}}, nil
})

// waitingAuth closes started and lets nobody in until the login is given up.
func waitingAuth(started chan struct{}) funcAuth {
	return func(ctx context.Context, _ *auth.Attempt) (auth.Verdict, error) {
		close(started)
		<-ctx.Done()
		return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "u"}}, nil
	}
}

// logBuffer is a log to read in a test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testServer is a running Server.
type testServer struct {
	*Server
	t    testing.TB
	logs *logBuffer
	url  string
	tls  *tls.Config
}

// testConfig listens on any port of loopback.
func testConfig() Config {
	cfg := DefaultConfig()
	cfg.HTTP.Port = 0
	return cfg
}

// serve runs a Server until the test ends, and then checks that it ends.
func serve(t testing.TB, cfg Config, a auth.Authenticator, to Receiver) *testServer {
	t.Helper()
	return serveChanged(t, cfg, a, to, func(*Server) {})
}

// serveWith is serve for a Server that is changed before it starts.
func serveWith(t testing.TB, cfg Config, change func(*Server)) *testServer {
	t.Helper()
	return serveChanged(t, cfg, anybody, &funcReceiver{}, change)
}

func serveChanged(t testing.TB, cfg Config, a auth.Authenticator, to Receiver, change func(*Server)) *testServer {
	t.Helper()
	logs := new(logBuffer)
	s, err := New(cfg, a, to, map[string]http.Handler{
		"/hello": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hi")) }),
	}, slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	change(s)
	if err := s.Listen(t.Context()); err != nil {
		t.Fatalf("Listen: %v", err)
	}
	ts := &testServer{Server: s, t: t, logs: logs, url: "ws://" + s.Addr().String() + cfg.WebSocket.URLPath}
	if s.Secure() {
		ts.url = "wss" + strings.TrimPrefix(ts.url, "ws")
		ts.tls = &tls.Config{InsecureSkipVerify: true}
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := len(s.Conns()); n != 0 {
			t.Errorf("%d connections are left after Shutdown", n)
		}
	})
	return ts
}

// testClient is a client on a real socket.
type testClient struct {
	t  testing.TB
	ws *websocket.Conn
}

func (ts *testServer) dial() *testClient {
	ts.t.Helper()
	d := websocket.Dialer{TLSClientConfig: ts.tls}
	ws, resp, err := d.Dial(ts.url, nil)
	if err != nil {
		ts.t.Fatalf("dial %s: %v (%v)", ts.url, err, resp)
	}
	ts.t.Cleanup(func() { _ = ws.Close() }) // a test may have closed it
	return &testClient{ts.t, ws}
}

// narrow keeps the kernel from taking much for a client that does not read.
func (c *testClient) narrow() *testClient {
	c.t.Helper()
	nc := c.ws.NetConn()
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if err := nc.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// login is dial, challenge and login.
func (ts *testServer) login() *testClient {
	ts.t.Helper()
	c := ts.dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	c.send(request(`{}`))
	c.want("AUTH.AUTH_SUCCESSFUL")
	return c
}

func challenge() *protocol.Message {
	return &protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge,
		SDKType: "javascript", SDKVersion: "7.1.2", ProtocolVersion: "0.1a", URL: "ws://x"}
}

func request(data string) *protocol.Message {
	return &protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Has: protocol.HasData, Data: data}
}

func emit(name, data string) *protocol.Message {
	return &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit,
		Has: protocol.HasName | protocol.HasData, Name: name, Data: data}
}

func ping() *protocol.Message {
	return &protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing}
}

func (c *testClient) send(m *protocol.Message) {
	c.t.Helper()
	c.sendBytes(protocol.Append(nil, m))
}

func (c *testClient) sendBytes(b []byte) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// next is the next message; an error when the connection ends first.
func (c *testClient) next() (*protocol.Message, error) {
	if err := c.ws.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	kind, b, err := c.ws.ReadMessage()
	if err != nil {
		return nil, err
	}
	if kind != websocket.BinaryMessage {
		return nil, errors.New("not a binary frame")
	}
	m := new(protocol.Message)
	return m, protocol.Decode(b, m)
}

// name is a message as "TOPIC.ACTION", with its data if it has any.
func name(m *protocol.Message) string {
	s := m.Topic.String() + "." + m.Action.Name(m.Topic)
	if m.Carries(protocol.HasData) {
		s += " " + m.Data
	}
	return s
}

func (c *testClient) want(want string) *protocol.Message {
	c.t.Helper()
	m, err := c.next()
	if err != nil {
		c.t.Fatalf("got error %v, want %s", err, want)
	}
	if got := name(m); got != want {
		c.t.Fatalf("got %s, want %s", got, want)
	}
	return m
}

// wantClose wants a close frame with the code to be next.
func (c *testClient) wantClose(code int) {
	c.t.Helper()
	m, err := c.next()
	if err == nil {
		c.t.Fatalf("got %s, want a close frame", name(m))
	}
	if !websocket.IsCloseError(err, code) {
		c.t.Fatalf("ended with %v, want close code %d", err, code)
	}
	if err := c.ws.Close(); err != nil { // as a browser does, or the server lingers
		c.t.Fatal(err)
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// await waits for a channel.
func await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

// newPair is a self-signed certificate and its key, both PEM.
func newPair(t testing.TB, commonName string, until time.Time) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: commonName},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// secure is testConfig with TLS.
func secure(t testing.TB) Config {
	cfg := testConfig()
	cfg.HTTP.SSL.Cert, cfg.HTTP.SSL.Key = newPair(t, "first", time.Now().Add(time.Hour))
	return cfg
}
