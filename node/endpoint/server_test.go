package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"hadal/protocol"
)

func TestShutdownSaysGoodbyeAndLeavesNothingRunning(t *testing.T) {
	bothWays(t, func(t *testing.T, cfg Config) {
		before := runtime.NumGoroutine()
		closed := make(chan struct{}, 10)
		s, err := New(cfg, anybody, &funcReceiver{closed: func(*Conn) { closed <- struct{}{} }}, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		ts := &testServer{Server: s, t: t, url: "ws://" + s.Addr().String() + "/deepstream"}
		if s.Secure() {
			ts.url, ts.tls = "wss"+strings.TrimPrefix(ts.url, "ws"), &tls.Config{InsecureSkipVerify: true}
		}
		in, out := ts.login(), ts.dial()
		mute := ts.rawDial(t) // connected, says nothing
		eventually(t, "the mute one is known", func() bool { sockets, _ := s.gate.stats(); return sockets == 3 })
		var conn *Conn
		for _, c := range s.Conns() {
			if c.User() != nil {
				conn = c
			}
		}
		for range 100 {
			conn.Send(broadcast("n", "1"))
		}
		stop()
		for range 100 {
			in.want("EVENT.EMIT 1")
		}
		in.wantClose(1001)
		out.wantClose(1001)
		if _, err := mute.Read(make([]byte, 1)); err == nil {
			t.Error("the mute connection got an answer")
		}
		if err := await(t, "Serve ends", done); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if len(closed) != 1 {
			t.Errorf("Closed was called %d times, want once", len(closed))
		}
		if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
			t.Error("the port is still open")
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown again: %v", err)
		}
		// What is left of melody's write pumps ends by itself.
		eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
	})
}

func TestShutdownCutsOffWhoDoesNotGo(t *testing.T) {
	cfg := testConfig()
	ts, client, conn := connected(t, cfg, &funcReceiver{})
	client.narrow()
	conn.Send(broadcast("n", `"`+strings.Repeat("x", 15<<20)+`"`)) // stuck
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ts.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown = %v, want context.Canceled", err)
	}
	if n := len(ts.Conns()); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestShutdownEndsALogin(t *testing.T) {
	started := make(chan struct{})
	ts := serve(t, testConfig(), waitingAuth(started), &funcReceiver{})
	c := ts.dial()
	c.send(challenge())
	c.want("CONNECTION.ACCEPT")
	c.send(request(`{}`))
	await(t, "the login runs", started)
	go func() { _ = ts.Shutdown(context.Background()) }() // the cleanup waits for it
	c.wantClose(1001)
}

func TestListenAndServeRefuseToBeMisused(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	if err := ts.Listen(t.Context()); err == nil {
		t.Error("Listen twice: no error")
	}
	cfg := testConfig()
	cfg.HTTP.Port = ts.Addr().(*net.TCPAddr).Port
	s, err := New(cfg, anybody, &funcReceiver{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != nil {
		t.Error("an address before Listen")
	}
	if err := s.Serve(t.Context()); err == nil {
		t.Error("Serve before Listen: no error")
	}
	if err := s.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), ts.Addr().String()) {
		t.Errorf("Listen on a port that is taken = %v, want an error naming it", err)
	}
}

func TestServeReturnsWhatTheListenerDiedOf(t *testing.T) {
	s, err := New(testConfig(), anybody, &funcReceiver{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want net.ErrClosed", err)
	}
}

func TestRoutesAreServedOverTLSToo(t *testing.T) {
	ts := serve(t, secure(t), anybody, &funcReceiver{})
	tr := &http.Transport{TLSClientConfig: ts.tls, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + ts.Addr().String() + "/hello")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || string(b) != "hi" || resp.ProtoMajor != 1 {
		t.Errorf("got %q over %s, %v", b, resp.Proto, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = tls.Dial("tcp", ts.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

// pairFiles writes a certificate and its key to files, renamed into place.
func pairFiles(t *testing.T, dir, commonName string, until time.Time) SSLConfig {
	t.Helper()
	ssl := SSLConfig{Key: filepath.Join(dir, "server.key"), Cert: filepath.Join(dir, "server.crt")}
	cert, key := newPair(t, commonName, until)
	for path, text := range map[string]string{ssl.Key: key, ssl.Cert: cert} {
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	return ssl
}

// served is the name in the certificate that a new client sees.
func (ts *testServer) served() string {
	ts.t.Helper()
	c, err := tls.Dial("tcp", ts.Addr().String(), ts.tls)
	if err != nil {
		ts.t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // only its certificate was asked for
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestANewCertificateIsUsedAndClientsStay(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig()
	cfg.HTTP.SSL = pairFiles(t, dir, "first", time.Now().Add(time.Hour))
	ts := serveWith(t, cfg, func(s *Server) { s.cert.poll = 5 * time.Millisecond })
	c := ts.login()
	if got := ts.served(); got != "first" {
		t.Errorf("serves %q, want the first certificate", got)
	}

	pairFiles(t, dir, "second", time.Now().Add(time.Hour))
	eventually(t, "the second certificate is served", func() bool { return ts.served() == "second" })

	if err := os.WriteFile(cfg.HTTP.SSL.Key, []byte("-----BEGIN RUBBISH"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bad pair is reported", func() bool {
		return strings.Contains(ts.logs.String(), "level=ERROR") && strings.Contains(ts.logs.String(), cfg.HTTP.SSL.Key)
	})
	if got := ts.served(); got != "second" {
		t.Errorf("serves %q after a bad change, want the second certificate", got)
	}
	if err := ts.Reload(); err == nil || !strings.Contains(err.Error(), cfg.HTTP.SSL.Key) {
		t.Errorf("Reload of a bad pair = %v, want an error naming the file", err)
	}

	pairFiles(t, dir, "third", time.Now().Add(time.Hour))
	if err := ts.Reload(); err != nil {
		t.Errorf("Reload: %v", err)
	}
	if got := ts.served(); got != "third" {
		t.Errorf("serves %q after Reload, want the third certificate", got)
	}
	c.send(ping())
	c.want("CONNECTION.PONG")
}

func TestACertificateThatCannotBeUsedStopsTheStartAndIsNamed(t *testing.T) {
	dir := t.TempDir()
	good := pairFiles(t, dir, "good", time.Now().Add(time.Hour))
	other := pairFiles(t, t.TempDir(), "other", time.Now().Add(time.Hour))
	_, keyText := newPair(t, "text", time.Now().Add(time.Hour))
	missing := filepath.Join(dir, "missing.key")
	empty := filepath.Join(dir, "empty.crt")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		ssl  SSLConfig
		want []string
	}{
		{"another pair's key", SSLConfig{Key: other.Key, Cert: good.Cert}, []string{other.Key, good.Cert, "ssl.key"}},
		{"no such file", SSLConfig{Key: missing, Cert: good.Cert}, []string{missing, "ssl.key", "no such file"}},
		{"empty file", SSLConfig{Key: good.Key, Cert: empty}, []string{empty}},
		{"no such CA", SSLConfig{Key: good.Key, Cert: good.Cert, CA: missing}, []string{missing, "ssl.ca"}},
		{"text of another key", SSLConfig{Key: keyText, Cert: good.Cert}, []string{"(text)", good.Cert}},
		{"key without certificate", SSLConfig{Key: good.Key}, []string{"ssl.cert"}},
		{"certificate without key", SSLConfig{Cert: good.Cert}, []string{"ssl.key"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig()
			cfg.HTTP.SSL = tc.ssl
			_, err := New(cfg, anybody, &funcReceiver{}, nil, slog.New(slog.DiscardHandler))
			if err == nil {
				t.Fatal("New: no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("New = %q, want it to name %s", err, want)
				}
			}
			if strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Error("the error holds the key")
			}
		})
	}
}

func TestAnExpiredCertificateIsServedWithAWarning(t *testing.T) {
	cfg := testConfig()
	cfg.HTTP.SSL = pairFiles(t, t.TempDir(), "old", time.Now().Add(-time.Hour))
	ts := serve(t, cfg, anybody, &funcReceiver{})
	if !strings.Contains(ts.logs.String(), `level=WARN msg="certificate has expired"`) {
		t.Errorf("no warning in the log:\n%s", ts.logs)
	}
	ts.login()
}

func TestFurtherCertificatesAreSentAfterTheOwn(t *testing.T) {
	cfg := secure(t)
	cfg.HTTP.SSL.CA, _ = newPair(t, "authority", time.Now().Add(time.Hour))
	ts := serve(t, cfg, anybody, &funcReceiver{})
	c, err := tls.Dial("tcp", ts.Addr().String(), ts.tls)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // only its certificates were asked for
	if got := c.ConnectionState().PeerCertificates; len(got) != 2 || got[1].Subject.CommonName != "authority" {
		t.Errorf("got %d certificates, want the authority's second", len(got))
	}
}

func TestStatsCountWhatHappened(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{receive: func(c *Conn, m *protocol.Message) { c.Answer(m) }})
	c := ts.login()
	for range 3 {
		c.send(emit("a", "1"))
		c.want("EVENT.EMIT 1")
	}
	c.send(&protocol.Message{Topic: protocol.TopicEvent, Action: 4711})
	if m, err := c.next(); err != nil || m.Action != 4711 {
		t.Errorf("got %v, %v, want the unknown action echoed", m, err)
	}
	st := ts.Stats()
	count := func(list []MessageCount, topic protocol.Topic, action protocol.Action) uint64 {
		for _, n := range list {
			if n.Topic == topic && n.Action == action {
				return n.N
			}
		}
		return 0
	}
	for _, tc := range []struct {
		what      string
		got, want uint64
	}{
		{"open", st.Open, 1},
		{"connections", st.Connections, 1},
		{"accepted", st.Logins["accepted"], 1},
		{"in: EMIT", count(st.In, protocol.TopicEvent, protocol.EventEmit), 3},
		{"out: EMIT", count(st.Out, protocol.TopicEvent, protocol.EventEmit), 3},
		{"in: unknown", count(st.In, protocol.TopicEvent, 0), 1},
		{"in: CHALLENGE", count(st.In, protocol.TopicConnection, protocol.ConnectionChallenge), 1},
		{"out: ACCEPT", count(st.Out, protocol.TopicConnection, protocol.ConnectionAccept), 1},
		{"out: AUTH_SUCCESSFUL", count(st.Out, protocol.TopicAuth, protocol.AuthAuthSuccessful), 1},
	} {
		if tc.got != tc.want {
			t.Errorf("%s = %d, want %d", tc.what, tc.got, tc.want)
		}
	}
	if st.BytesIn == 0 || st.BytesOut == 0 {
		t.Errorf("bytes in %d, out %d", st.BytesIn, st.BytesOut)
	}
}

func TestValidateNamesEveryMistake(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
	for _, tc := range []struct {
		want string
		set  func(*Config)
	}{
		{"port", func(c *Config) { c.HTTP.Port = 70000 }},
		{"healthCheckPath", func(c *Config) { c.HTTP.HealthCheckPath = "x" }},
		{"ssl.key", func(c *Config) { c.HTTP.SSL.Cert = "c" }},
		{"ssl.cert", func(c *Config) { c.HTTP.SSL.Key = "k" }},
		{"ssl.ca", func(c *Config) { c.HTTP.SSL.CA = "a" }},
		{"trustedProxies", func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/99"} }},
		{"urlPath", func(c *Config) { c.WebSocket.URLPath = "deepstream" }},
		{"urlPath", func(c *Config) { c.WebSocket.URLPath = "/d?x=1" }},
		{"urlPath", func(c *Config) { c.WebSocket.URLPath = c.HTTP.HealthCheckPath }},
		{"heartbeatInterval", func(c *Config) { c.WebSocket.HeartbeatInterval = 0 }},
		{"unauthenticatedClientTimeout", func(c *Config) { c.WebSocket.UnauthenticatedClientTimeout = -1 }},
		{"maxAuthAttempts", func(c *Config) { c.WebSocket.MaxAuthAttempts = 0 }},
		{"maxMessageSize", func(c *Config) { c.WebSocket.MaxMessageSize = 0 }},
		{"queueSoftLimit", func(c *Config) { c.WebSocket.QueueSoftLimit = 0 }},
		{"queueHardLimit", func(c *Config) { c.WebSocket.QueueHardLimit = 1 }},
		{"queueStall", func(c *Config) { c.WebSocket.QueueStall = 0 }},
	} {
		cfg := DefaultConfig()
		tc.set(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), tc.want+":") || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one mistake of %s", err, tc.want)
		}
	}
	all := DefaultConfig()
	all.HTTP.Port, all.WebSocket.URLPath, all.WebSocket.QueueStall = -1, "", 0
	if err := all.Validate(); err == nil || len(strings.Split(err.Error(), "\n")) != 3 {
		t.Errorf("got %v, want three mistakes", err)
	}
}
