package node

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hadal/protocol"
)

// connect5 is a CONNECT of MQTT 5 with properties.
func connect5(properties string) string {
	return packet(0x10, text("MQTT")+"\x05\xc2\x00\x00"+string(packet(0, properties)[1:])+text("")+text("v")+text("x"))
}

// Nothing that is sent before a CONNECT, or instead of one, is carried out: with the peer it is, and an
// UNSUBSCRIBE ends it.
func TestNothingIsDoneBeforeTheCONNECT(t *testing.T) {
	n := run(t, speaking(""))
	b := login(t, n, "b")
	b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"t"}, CorrelationID: "0", Has: protocol.HasCorrelationID})
	b.hear(protocol.TopicEvent, protocol.EventSubscribe)
	for name, first := range map[string]string{
		"a PUBLISH": publish("t", "x"), "one to be acknowledged": publishAck(1, "t", "x"), "a retained one": packet(0x31, text("t")+`{"a":1}`),
		"a SUBSCRIBE": subscribe(1, "t"), "an UNSUBSCRIBE": packet(0xa2, "\x00\x01"+text("t")), "a PUBACK": "\x40\x02\x00\x01",
		"a DISCONNECT": "\xe0\x00", "a CONNACK": "\x20\x02\x00\x00", "a refused CONNECT": packet(0x10, text("MQTT")+"\x09\xc2\x00\x00"+text("")),
	} {
		c := dialThing(t, n)
		// The server may have closed before all of it is written.
		_, _ = io.WriteString(c.nc, first+publish("t", "and on")+publish("state/x", "{}"))
		c.hearEnd()
		t.Log(name)
	}
	b.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordHead, Name: "state/x"})
	if m := b.hear(protocol.TopicRecord, protocol.RecordHeadResponse); m.Version != -1 { // and no event before it
		t.Errorf("the record has version %d", m.Version)
	}
}

// What no client of MQTT and no EventSource sends by mistake is answered or ends the connection.
// Nothing is kept of it, and others are served meanwhile.
func TestHostileThingsAndStreamsHarmNobody(t *testing.T) {
	const many = 100_000
	deep := strings.Repeat("[", many) + strings.Repeat("]", many)
	n := run(t, func(c *Config) {
		speaking("")(c)
		c.LogLevel = LogOff
		c.Records.Store = "memory" // how fast a disk is is not the question
	})
	good := newServed(t, n)
	before := settled()

	joined := func() *thing {
		c := dialThing(t, n)
		c.say(connect5(""))
		if got, err := c.read(); err != nil || got[0] != 0x20 || got[3] != 0 {
			t.Fatalf("CONNACK: %q, %v", got, err)
		}
		return c
	}
	var topics strings.Builder
	for i := range 10_000 {
		topics.WriteString(text(fmt.Sprintf("t/%d", i)))
	}
	for name, attack := range map[string]func(){
		"a CONNECT with a bomb of properties": func() {
			c := dialThing(t, n)
			_, _ = io.WriteString(c.nc, connect5(strings.Repeat("\x26"+text("k")+text("v"), many))) // it may be cut off
			c.hearEnd()
		},
		"deep JSON for a record": func() {
			c := joined()
			c.say(packet(0x32, text("state/deep")+"\x00\x01\x00"+deep))
			c.hear("\x40\x03\x00\x01\x99")
			c.settle()
		},
		"deep JSON, retained": func() { // an event, and no record
			c := joined()
			c.say(packet(0x33, text("t")+"\x00\x01\x00"+deep))
			c.hear("\x40\x02\x00\x01")
			c.say(packet(0x33, text("t")+"\x00\x02\x00{"))
			c.hear("\x40\x02\x00\x02")
			c.settle()
		},
		"an UNSUBSCRIBE from 10 000 topics": func() {
			c := joined()
			c.say(packet(0xa2, "\x00\x01\x00"+topics.String()))
			if got, err := c.read(); err != nil || got[0] != 0xb0 {
				t.Errorf("it was answered %.20q, %v", got, err)
			}
			c.settle()
		},
		"an UNSUBSCRIBE from nothing": func() {
			c := joined()
			c.say(packet(0xa2, "\x00\x01\x00"))
			c.hearEnd()
		},
		"packets that are begun and not ended": func() {
			for range 50 {
				c := joined()
				c.say("\x30\x80\x80\x40half") // of 1 MiB
				_ = c.nc.Close()
			}
		},
	} {
		t.Run("mqtt: "+name, func(*testing.T) { attack() })
	}

	for name, tt := range map[string]struct {
		method, query, header string
		want                  int
	}{
		"10 000 names":            {"GET", "?x" + strings.Repeat("&event=e", 10_000), "", http.StatusRequestHeaderFieldsTooLarge},
		"a thousand names":        {"GET", "?x" + strings.Repeat("&event=e", 1000), "", http.StatusRequestEntityTooLarge},
		"a name that is too long": {"GET", "?record=" + strings.Repeat("x", 4097), "", http.StatusBadRequest},
		"a header bomb":           {"GET", "?event=e", "X-Bomb: " + strings.Repeat("x", 1<<20) + "\r\n", http.StatusRequestHeaderFieldsTooLarge},
		"an id that is none":      {"GET", "?event=e", "Last-Event-ID: " + strings.Repeat("9", 10_000) + "\r\n", http.StatusOK},
		"a body":                  {"POST", "?event=e", "Content-Length: 1000000\r\n", http.StatusMethodNotAllowed},
	} {
		t.Run("sse: "+name, func(t *testing.T) {
			c, err := net.Dial("tcp", n.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// It may be answered, and closed, before all of it is written.
			go func() {
				_, _ = io.WriteString(c, tt.method+" /sse"+tt.query+" HTTP/1.1\r\nHost: x\r\n"+tt.header+"\r\n")
			}()
			_ = c.SetReadDeadline(time.Now().Add(time.Minute)) // the read says it
			status := make([]byte, len("HTTP/1.1 200"))
			if _, err := io.ReadFull(c, status); err != nil || string(status) != fmt.Sprint("HTTP/1.1 ", tt.want) {
				t.Errorf("it was answered %s %v, want %d", status, err, tt.want)
			}
		})
	}

	good.stop()
	if got := n.endpoint.Stats().Panics; got != 0 {
		t.Errorf("%d panics", got)
	}
	waitFor(t, "they have gone", func() bool { return n.endpoint.Stats().Open <= 2+4 }) // those that were joined stay
	if grown := settled() - before; grown > 32<<20 {
		t.Errorf("memory has grown by %d bytes", grown)
	}
	t.Logf("%d requests of others were answered meanwhile", good.answered)
}
