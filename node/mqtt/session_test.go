package mqtt

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"hadal/auth"
	"hadal/node/endpoint"
	"hadal/node/sub"
	"hadal/protocol"
)

// anybody lets everybody in.
type anybody struct{}

func (anybody) Authenticate(context.Context, *auth.Attempt) (auth.Verdict, error) {
	return auth.Verdict{Opinion: auth.Accepted, User: &auth.User{ID: "u"}}, nil
}

// yes acknowledges everything.
type yes struct{}

func (yes) Opened(*endpoint.Conn) {}
func (yes) Receive(c *endpoint.Conn, m *protocol.Message) {
	c.Answer(&protocol.Message{Topic: m.Topic, Action: m.Action, IsAck: true})
}
func (yes) Closed(*endpoint.Conn) {}

// nobody is a node without rooms.
type nobody struct{}

func (nobody) Watch(protocol.Topic, string, *sub.Watcher) sub.Added   { return sub.Refused }
func (nobody) Unwatch(protocol.Topic, string, *sub.Watcher)           {}
func (nobody) MayHear(*auth.User, *protocol.Outbound) (ok, keep bool) { return false, false }
func (nobody) Generation() uint64                                     { return 0 }
func (nobody) Whole(int)                                              {}

// serve serves MQTT on a port of its own. end ends it, and every session.
func serve(t *testing.T) (s *Server, addr string, end func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := endpoint.DefaultConfig()
	cfg.HTTP.Port = 0
	port, err := endpoint.New(cfg, anybody{}, yes{}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	mine := DefaultConfig()
	mine.Enabled, mine.Port = true, 0
	if s, err = New(mine, port, nobody{}, log); err != nil {
		t.Fatal(err)
	}
	if err := port.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- port.Serve(ctx) }()
	return s, port.PortAddr(0).String(), func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// packet is a packet of a type and flags.
func packet(first byte, body string) string {
	return string(binary.AppendUvarint([]byte{first}, uint64(len(body)))) + body
}

// connect5 is a CONNECT of MQTT 5 with properties.
func connect5(properties string) string {
	return packet(0x10, "\x00\x04MQTT\x05\xc2\x00\x00"+string(rune(len(properties)))+properties+"\x00\x00\x00\x01u\x00\x01x")
}

// dial connects and says something.
func dial(t *testing.T, addr, words string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(nc, words); err != nil {
		t.Fatal(err)
	}
	return nc
}

func TestTheBrokerForgetsWhoTakesNoConnack(t *testing.T) {
	s, addr, end := serve(t)
	nc := dial(t, addr, connect5("\x27\x00\x00\x00\x02")) // it takes packets of two bytes
	defer nc.Close()
	if err := nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(nc); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v, want the end of the connection", b, err)
	}
	end()
	if n := s.broker.Clients.Len(); n != 0 {
		t.Errorf("the broker knows %d clients that have gone", n)
	}
}

// The broker's own tree of filters costs about a kilobyte a level.
func TestTheBrokerKeepsAFilterInOneLevel(t *testing.T) {
	s, addr, end := serve(t)
	defer end()
	deep := "a" + strings.Repeat("/b", 1000)
	nc := dial(t, addr, connect5(""))
	defer nc.Close()
	hear := func(want string) {
		t.Helper()
		if err := nc.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	size := string(binary.BigEndian.AppendUint16(nil, uint16(len(deep))))
	ask := func(words string) {
		t.Helper()
		if _, err := io.WriteString(nc, words); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() (all []string) {
		for _, cl := range s.broker.Clients.GetAll() {
			for filter := range cl.State.Subscriptions.GetAll() {
				all = append(all, filter)
			}
		}
		return all
	}
	if b, err := readPacket(nc); err != nil || b[0] != 0x20 {
		t.Fatalf("got %q, %v, want a CONNACK", b, err)
	}
	ask(packet(0x82, "\x00\x01\x00"+size+deep+"\x00"))
	hear("\x90\x04\x00\x01\x00\x00")
	if all := kept(); len(all) != 1 || strings.Contains(all[0], "/") {
		t.Errorf("the broker keeps %q", all)
	}
	ask(packet(0xa2, "\x00\x02\x00"+size+deep))
	hear("\xb0\x04\x00\x02\x00\x00")
	if all := kept(); len(all) != 0 {
		t.Errorf("then the broker keeps %q", all)
	}
}

// readPacket reads a packet of less than 128 bytes.
func readPacket(r io.Reader) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	body := make([]byte, head[1])
	_, err := io.ReadFull(r, body)
	return append(head, body...), err
}
