package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"hadal/protocol"
)

// running is a node under test.
type running struct {
	*Node
	log   *logBuffer
	ended chan struct{} // closed when Run has returned
	stop  func() error  // ends it and returns what Run returned
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
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

// begin is run without waiting until clients can log in.
func begin(t *testing.T, change func(*Config)) *running {
	t.Helper()
	cfg := Default()
	cfg.DataDir = t.TempDir()
	cfg.HTTPServer.Options.Port = 0
	cfg.ConnectionEndpoints[0].Options.HeartbeatInterval = time.Hour // clients of tests do not ping
	// Nor does anybody always answer at once: on a busy machine nobody could.
	cfg.RPC.AckTimeout, cfg.RPC.ResponseTimeout, cfg.Listen.ResponseTimeout = time.Minute, time.Minute, time.Minute
	cfg.Record.StorageRetrievalTimeout = time.Minute
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	out := &logBuffer{}
	n, err := New(cfg, slog.New(slog.NewTextHandler(out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var runErr error
	go func() {
		defer close(ended)
		runErr = n.Run(ctx)
	}()
	stop := func() error {
		cancel()
		<-ended
		return runErr
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run = %v", err)
		}
		if t.Failed() {
			t.Log(out)
		}
	})
	return &running{n, out, ended, stop}
}

// run starts a node on a free port; it is stopped when the test ends.
func run(t *testing.T, change func(*Config)) *running {
	t.Helper()
	n := begin(t, change)
	n.await(t)
	return n
}

// await waits until clients can log in.
func (n *running) await(t *testing.T) {
	t.Helper()
	select {
	case <-n.Started():
	case <-n.ended:
		t.Fatalf("the node ended at once: %v\n%s", n.stop(), n.log)
	}
}

// peer is a client that speaks the wire.
type peer struct {
	t  *testing.T
	ws *websocket.Conn
}

// dial opens a connection, up to its login.
func dial(t *testing.T, n *running) *peer {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.Addr().String()+"/deepstream", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	p := &peer{t, ws}
	p.say(protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: "x", SDKVersion: "7.0.5", SDKType: "javascript"})
	p.hear(protocol.TopicConnection, protocol.ConnectionAccept)
	return p
}

// login opens a connection and logs in as name.
func login(t *testing.T, n *running, name string) *peer {
	t.Helper()
	p := dial(t, n)
	p.say(protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: fmt.Sprintf(`{"username":%q,"password":"x"}`, name)})
	p.hear(protocol.TopicAuth, protocol.AuthAuthSuccessful)
	return p
}

func (p *peer) say(m protocol.Message) {
	p.t.Helper()
	if err := p.ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, &m)); err != nil {
		p.t.Fatal(err)
	}
}

// hear reads the next message, which must be of that topic and action.
func (p *peer) hear(topic protocol.Topic, action protocol.Action) protocol.Message {
	p.t.Helper()
	m, err := p.read()
	if err != nil {
		p.t.Fatalf("waiting for %s %s: %v", topic, action.Name(topic), err)
	}
	if m.Topic != topic || m.Action != action {
		p.t.Fatalf("heard %s %s (%+v), want %s %s", m.Topic, m.Action.Name(m.Topic), m, topic, action.Name(topic))
	}
	return m
}

const versioned = protocol.HasVersion | protocol.HasCorrelationID

func TestARecordOutlivesTheNode(t *testing.T) {
	dir := t.TempDir()
	in := func(c *Config) { c.DataDir = dir }
	first := run(t, in)
	c := login(t, first, "ada")
	c.say(protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "notes/1", Version: -1, Data: `{"a":1}`,
		CorrelationID: "1", IsWriteAck: true, Has: versioned,
	})
	c.hear(protocol.TopicRecord, protocol.RecordWriteAcknowledgement)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(first.log.String(), "stopped") {
		t.Errorf("the log does not say that the node stopped:\n%s", first.log)
	}
	d := login(t, run(t, in), "ada")
	d.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "notes/1"})
	m := d.hear(protocol.TopicRecord, protocol.RecordReadResponse)
	if m.Version != 1 || m.Data != `{"a":1}` {
		t.Errorf("read version %d data %s, want 1 and {\"a\":1}", m.Version, m.Data)
	}
}

func TestEveryFeatureAnswersThroughTheSocket(t *testing.T) {
	n := run(t, func(c *Config) { c.Records.Store = "memory" })
	a, b := login(t, n, "a"), login(t, n, "b")
	b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"e"}, CorrelationID: "0"})
	b.hear(protocol.TopicEvent, protocol.EventSubscribe)
	a.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "e", Data: "1"})
	if m := b.hear(protocol.TopicEvent, protocol.EventEmit); m.Data != "1" {
		t.Errorf("event data %q", m.Data)
	}
	b.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"add"}, CorrelationID: "0"})
	b.hear(protocol.TopicRPC, protocol.RPCProvide)
	a.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: "add", CorrelationID: "x", Data: "1"})
	b.hear(protocol.TopicRPC, protocol.RPCRequest)
	b.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCResponse, Name: "add", CorrelationID: "x", Data: "2"})
	a.hear(protocol.TopicRPC, protocol.RPCResponse)
	a.say(protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceQueryAll})
	if m := a.hear(protocol.TopicPresence, protocol.PresenceQueryAllResponse); len(m.Names) != 1 || m.Names[0] != "b" {
		t.Errorf("online: %q, want b", m.Names)
	}
	a.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordHead, Name: "r"})
	if m := a.hear(protocol.TopicRecord, protocol.RecordHeadResponse); m.Version != -1 {
		t.Errorf("version of a missing record %d, want -1", m.Version)
	}
	a.say(protocol.Message{Topic: protocol.TopicRecord, Action: 99})
	a.hear(protocol.TopicParser, protocol.ParserUnknownAction)
}

func TestAFeatureThatIsOffHasNoTopic(t *testing.T) {
	n := run(t, func(c *Config) {
		c.Records.Store = "memory"
		c.EnabledFeatures = FeaturesConfig{}
	})
	a := login(t, n, "a")
	for _, topic := range []protocol.Topic{protocol.TopicEvent, protocol.TopicRecord, protocol.TopicRPC, protocol.TopicPresence} {
		a.say(protocol.Message{Topic: topic, Action: 2, Name: "x"})
		a.hear(protocol.TopicParser, protocol.ParserUnknownTopic)
	}
}

func TestAReloadIsAllOrNothing(t *testing.T) {
	n := run(t, func(c *Config) { c.Records.Store = "memory" })
	a := login(t, n, "a")
	cfg := n.cfg
	cfg.Permission.Type = "config"
	closed := map[string]any{
		"record":   map[string]any{"*": map[string]any{"read": false}},
		"event":    map[string]any{"*": map[string]any{"publish": true}},
		"rpc":      map[string]any{"*": map[string]any{"provide": true}},
		"presence": map[string]any{"*": map[string]any{"allow": true}},
	}
	bad := map[string]any{"record": closed["record"]}
	cfg.Permission.Options.Permissions = bad
	if err := n.Reload(t.Context(), cfg); err == nil {
		t.Fatal("rules without all their sections were taken")
	}
	read := protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "r"}
	a.say(read)
	a.hear(protocol.TopicRecord, protocol.RecordRecordNotFound)
	cfg.Permission.Options.Permissions = closed
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	a.say(read)
	a.hear(protocol.TopicRecord, protocol.RecordMessageDenied)
}

func TestTwoNodesDoNotShareADataDirectory(t *testing.T) {
	first := run(t, nil)
	cfg := first.cfg
	cfg.HTTPServer.Options.Port = 0
	second, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Run = %v, want that the data directory is in use", err)
	}
	login(t, first, "still served")
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	first := run(t, nil)
	cfg := first.cfg
	cfg.DataDir = t.TempDir()
	_, port, err := net.SplitHostPort(first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(port, &cfg.HTTPServer.Options.Port); err != nil {
		t.Fatal(err)
	}
	second, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("Run = %v, want an error that names port %s", err, port)
	}
}

func TestMetricsAreWellFormedAndNameNobody(t *testing.T) {
	n := run(t, func(c *Config) { c.Records.Store = "memory" })
	a := login(t, n, "secret-user")
	a.say(protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "secret-name", Version: -1, Data: `{}`,
		CorrelationID: "1", IsWriteAck: true, Has: versioned,
	})
	a.hear(protocol.TopicRecord, protocol.RecordWriteAcknowledgement)
	text := metricsOf(t, n)
	for _, want := range []string{
		"hadal_connections 1\n", `hadal_logins_total{result="accepted"} 1`, "hadal_record_write_seconds_count 1\n",
		`hadal_messages_in_total{action="CREATEANDUPDATE",topic="RECORD"} 1`, `hadal_record_writes_total{result="accepted"} 1`, "hadal_ready 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("metrics tell a name")
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "hadal_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestAddressesThatAreToldCanBeConnectedTo(t *testing.T) {
	for _, tt := range []struct{ addr, first string }{
		{"127.0.0.1:6020", "127.0.0.1:6020"},
		{"[::1]:6020", "[::1]:6020"},
		{"0.0.0.0:6020", "127.0.0.1:6020"},
		{"[::]:6020", "127.0.0.1:6020"},
	} {
		addr, err := net.ResolveTCPAddr("tcp", tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		got := reachable(addr)
		if got[0] != tt.first {
			t.Errorf("reachable(%s) = %v, want %s first", tt.addr, got, tt.first)
		}
		for _, a := range got {
			if a, err := netip.ParseAddrPort(a); err != nil || a.Addr().IsUnspecified() || a.Port() != 6020 {
				t.Errorf("reachable(%s) = %v, which has %v (%v)", tt.addr, got, a, err)
			}
		}
	}
}

func TestALowLimitOfOpenFilesIsToldAtTheStart(t *testing.T) {
	var b bytes.Buffer
	n := &Node{log: slog.New(slog.NewTextHandler(&b, nil))}
	n.warnOfFewFiles(fewFiles)
	if b.Len() != 0 {
		t.Errorf("a sufficient limit is told: %s", &b)
	}
	n.warnOfFewFiles(1024)
	if !strings.Contains(b.String(), "limit=1024") {
		t.Errorf("got %q", &b)
	}
}
