package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// patience bounds whatever a test waits for.
const patience = time.Minute

// contextOf is a context that a test may end itself.
func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// lines collects what is written to a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) has(s string) bool { return strings.Contains(l.String(), s) }

// until waits for a condition that nothing announces.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-ticker.C
	}
}

// listenPort makes a port on loopback; the caller runs it.
func listenPort(t testing.TB, cfg PortConfig, id *Identity) *Port {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	p := NewPort(cfg, id, quiet())
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs something until the test ends.
func run(t testing.TB, what string, f func(ctx context.Context) error) context.CancelFunc {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: Run = %v", what, err)
				}
			case <-time.After(patience):
				t.Errorf("%s does not end", what)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// echo serves a protocol by sending back what comes.
func echo(p *Port) {
	p.handle(protocolLink, func(ctx context.Context, conn *tls.Conn) {
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { hangUp(conn) })
		defer stop()
		io.Copy(conn, conn)
	})
}

// pings checks that a peer gets through.
func pings(t *testing.T, from *Port, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.dial(ctx, protocolLink, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestRaftConnectsOverThePort(t *testing.T) {
	a, b := listenPort(t, PortConfig{}, secretIdentity(t, "a")), listenPort(t, PortConfig{}, secretIdentity(t, "b"))
	run(t, "a", a.Run)
	run(t, "b", b.Run)
	ta := raft.NewNetworkTransport(a.Raft(), 3, patience, io.Discard)
	tb := raft.NewNetworkTransport(b.Raft(), 3, patience, io.Discard)
	t.Cleanup(func() { ta.Close(); tb.Close() })
	go func() {
		rpc := <-tb.Consumer()
		rpc.Respond(&raft.RequestVoteResponse{Term: 7}, nil)
	}()
	var answer raft.RequestVoteResponse
	if err := ta.RequestVote("b", tb.LocalAddr(), &raft.RequestVoteRequest{Term: 7}, &answer); err != nil || answer.Term != 7 {
		t.Errorf("RequestVote = %+v, %v", answer, err)
	}
	if got := b.Stats().Accepted[protocolRaft]; got != 1 {
		t.Errorf("accepted = %d", got)
	}
}

func TestAThousandSilentConnectionsDoNotKeepAPeerOut(t *testing.T) {
	p := listenPort(t, PortConfig{MaxHandshakes: 16, HandshakeTimeout: patience}, secretIdentity(t, "a"))
	echo(p)
	run(t, "port", p.Run)
	peer := listenPort(t, PortConfig{}, secretIdentity(t, "b"))
	run(t, "peer", peer.Run)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for n := range 1000 {
		conn, err := net.Dial("tcp", p.Address())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if n%3 == 0 { // some begin to speak
			if _, err := conn.Write([]byte{22, 3, 1}); err != nil {
				t.Logf("crowded out already: %v", err)
			}
		}
	}
	pings(t, peer, p.Address())
	until(t, "the silent ones are counted", func() bool { return p.Stats().Refused[refusedCrowded] >= 1000-16 })
	if got := p.Stats().Handshakes; got > 16 {
		t.Errorf("%d handshakes are under way", got)
	}
}

func TestASlowHandshakeAndGarbageAreRefusedAndCounted(t *testing.T) {
	p := listenPort(t, PortConfig{HandshakeTimeout: 2 * time.Second}, secretIdentity(t, "a"))
	echo(p)
	run(t, "port", p.Run)
	// A byte now and then, for ever.
	slow, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	go func() {
		hello := append([]byte{22, 3, 1, 1, 0}, make([]byte, 256)...)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for _, b := range hello {
			<-ticker.C
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
		}
	}()
	garbage, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	if _, err := fmt.Fprintf(garbage, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	until(t, "garbage is counted", func() bool { return p.Stats().Refused[refusedNotTLS] == 1 })
	until(t, "the slow one is counted", func() bool { return p.Stats().Refused[refusedTimeout] == 1 })
	// Nothing hangs on them.
	slow.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, slow); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the slow connection is still open: %v", err)
	}

	stranger := NewPort(PortConfig{}, identityOf(t, IdentityConfig{Cluster: "prod", Node: "s", Secret: strings.Repeat("s", 16)}), quiet())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := stranger.dial(ctx, protocolLink, p.Address()); err == nil || !strings.Contains(err.Error(), "cluster.secret") {
		t.Errorf("dial with the wrong secret = %v", err)
	}
	other := tls.Client(dialTCP(t, p.Address()), secretIdentity(t, "c").ClientConfig("http/1.1"))
	defer other.Close()
	if err := other.Handshake(); err == nil {
		t.Error("an unknown protocol is accepted")
	}
	none := tls.Client(dialTCP(t, p.Address()), secretIdentity(t, "c").ClientConfig())
	defer none.Close()
	if err := none.Handshake(); err != nil {
		t.Error(err)
	}
	until(t, "unknown protocols are counted", func() bool { return p.Stats().Refused[refusedProtocol] == 2 })
}

func dialTCP(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestAPortThatTellsOthersNoAddressIsRefused(t *testing.T) {
	p := NewPort(PortConfig{Listen: "0.0.0.0:0"}, secretIdentity(t, "a"), quiet())
	if err := p.Listen(); err == nil || !strings.Contains(err.Error(), "--cluster-advertise") {
		t.Errorf("Listen = %v", err)
	}
	p = NewPort(PortConfig{Listen: "127.0.0.1:0", Advertise: "host-a:6223"}, secretIdentity(t, "a"), quiet())
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	if got := p.Raft().Addr().String(); got != "host-a:6223" {
		t.Errorf("Addr = %q", got)
	}
	run(t, "port", p.Run)
	for in, want := range map[string]string{"h:6222": "h:6223", "[::1]:1": "[::1]:2"} {
		if got, err := NextPort(in); got != want || err != nil {
			t.Errorf("NextPort(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"h", "h:0", "h:65535", "h:x", ""} {
		if got, err := NextPort(in); err == nil {
			t.Errorf("NextPort(%q) = %q", in, got)
		}
	}
}
