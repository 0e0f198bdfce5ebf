package node

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hadal/auth"
	"hadal/protocol"
)

// speaking is a configuration with MQTT on a free port, where topics under state/ are
// records, and with rules.
func speaking(rules string) func(*Config) {
	return func(c *Config) {
		if rules != "" {
			ruled(rules + restOfRules)(c)
		}
		c.MQTT.Enabled, c.MQTT.Port, c.MQTT.RecordPrefixes = true, 0, []string{"state/"}
	}
}

// thing is a client that speaks MQTT by hand.
type thing struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

// dialThing opens a connection to the MQTT port.
func dialThing(t *testing.T, n *running) *thing {
	t.Helper()
	nc, err := net.Dial("tcp", n.endpoint.PortAddr(0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &thing{t, nc, bufio.NewReader(nc)}
}

// text is a text as MQTT has it.
func text(s string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s
}

// packet is a packet of a type and flags.
func packet(first byte, body string) string {
	return string(binary.AppendUvarint([]byte{first}, uint64(len(body)))) + body
}

// connect is a CONNECT of 3.1.1, clean, with a name and a password.
func connect(id, user string) string {
	return packet(0x10, text("MQTT")+"\x04\xc2\x00\x00"+text(id)+text(user)+text("x"))
}

func subscribe(id byte, filters ...string) string {
	body := "\x00" + string(rune(id))
	for _, f := range filters {
		body += text(f) + "\x01"
	}
	return packet(0x82, body)
}

func publish(topic, payload string) string { return packet(0x30, text(topic)+payload) }

// publishAck is a PUBLISH of QoS 1.
func publishAck(id byte, topic, payload string) string {
	return packet(0x32, text(topic)+"\x00"+string(rune(id))+payload)
}

func (c *thing) say(p string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, p); err != nil {
		c.t.Fatal(err)
	}
}

// read reads a packet.
func (c *thing) read() (string, error) {
	if err := c.nc.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return "", err
	}
	first, err := c.r.ReadByte()
	if err != nil {
		return "", err
	}
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(c.r, b)
	return packet(first, string(b)), err
}

// hear reads the next packet, which must be this one.
func (c *thing) hear(want string) {
	c.t.Helper()
	got, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for %q: %v", want, err)
	}
	if got != want {
		c.t.Fatalf("got %q, want %q", got, want)
	}
}

// hearEnd reads until the server has closed.
func (c *thing) hearEnd() {
	c.t.Helper()
	for {
		p, err := c.read()
		switch {
		case err == nil:
			c.t.Logf("before the end: %q", p)
		case strings.Contains(err.Error(), "i/o timeout"):
			c.t.Fatal("the server did not close")
		default:
			return
		}
	}
}

// joinAs connects as a user.
func joinAs(t *testing.T, n *running, user string) *thing {
	t.Helper()
	c := dialThing(t, n)
	c.say(connect("", user))
	c.hear("\x20\x02\x00\x00")
	return c
}

const (
	pingreq  = "\xc0\x00"
	pingresp = "\xd0\x00"
)

// settle returns when all that c has sent was handled.
func (c *thing) settle() {
	c.t.Helper()
	c.say(pingreq)
	c.hear(pingresp)
}

func TestMQTTEventsMeetThoseOfOtherClients(t *testing.T) {
	n := run(t, speaking(""))
	a, b := joinAs(t, n, "a"), login(t, n, "b")
	a.say(subscribe(7, "t/1"))
	a.hear("\x90\x03\x00\x07\x00") // QoS 0, whatever was asked for
	b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"t/1"}, CorrelationID: "0", Has: protocol.HasCorrelationID})
	b.hear(protocol.TopicEvent, protocol.EventSubscribe)
	b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "t/1", Data: `{"x":1}`})
	a.hear(publish("t/1", `{"x":1}`))
	a.say(publishAck(9, "t/1", "h<i"))
	a.hear("\x40\x02\x00\x09")
	if m := b.hear(protocol.TopicEvent, protocol.EventEmit); m.Data != `"h<i"` {
		t.Errorf("the event carries %s", m.Data)
	}
	a.say(packet(0xa2, "\x00\x08"+text("t/1")))
	a.hear("\xb0\x02\x00\x08")
	b.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "t/1", Data: "1"})
	a.settle() // and nothing before it
}

func TestMQTTRecordsAreRetained(t *testing.T) {
	n := run(t, speaking(""))
	a, b := joinAs(t, n, "a"), login(t, n, "b")
	a.say(publishAck(1, "state/lamp", `{"on":true}`))
	a.hear("\x40\x02\x00\x01")
	a.say(subscribe(2, "state/lamp", "state/none"))
	a.hear(packet(0x31, text("state/lamp")+`{"on":true}`))
	a.hear("\x90\x04\x00\x02\x00\x00")
	b.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeCreateAndRead, Names: []string{"state/lamp"}, CorrelationID: "0", Has: protocol.HasCorrelationID})
	b.hear(protocol.TopicRecord, protocol.RecordSubscribeCreateAndRead)
	b.hear(protocol.TopicRecord, protocol.RecordReadResponse)
	// A change of a part arrives as the whole.
	b.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordPatch, Name: "state/lamp", Path: "dim", Data: "3", Version: 2, Has: protocol.HasVersion | protocol.HasPath})
	a.hear(publish("state/lamp", `{"on":true,"dim":3}`))
	b.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordErase, Name: "state/lamp", Path: "on", Version: 3, Has: protocol.HasVersion | protocol.HasPath})
	a.hear(publish("state/lamp", `{"dim":3}`))
	// It can be deleted, and comes again.
	b.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordDelete, Name: "state/lamp"})
	b.hear(protocol.TopicRecord, protocol.RecordDeleteSuccess)
	a.hear(publish("state/lamp", ""))
	b.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "state/lamp", Data: `{"new":1}`, Version: -1, Has: protocol.HasVersion})
	// Before it has subscribed again it is told what there is, after that what changes.
	if got, err := a.read(); err != nil || got[1:] != publish("state/lamp", `{"new":1}`)[1:] {
		t.Fatalf("after the record came again: %q, %v", got, err)
	}
	// Retained and empty deletes.
	a.say(packet(0x33, text("state/lamp")+"\x00\x05"))
	a.hear("\x40\x02\x00\x05")
	c := joinAs(t, n, "c")
	c.say(subscribe(1, "state/lamp"))
	c.hear("\x90\x03\x00\x01\x00")
}

func TestMQTTIsBoundByTheRules(t *testing.T) {
	n := run(t, speaking(`record:
  "*": {create: false, read: false, write: false}
  "state/open/$x": {create: true, read: true, write: true}
  "state/own/$u": {create: true, read: "user.id === $u", write: "oldData === null || oldData.by === user.id"}
`))
	a := joinAs(t, n, "a")
	a.say(subscribe(1, "state/open/1", "state/closed", "state/own/b", "state/own/a", "$SYS/x", "a/#/b"))
	a.hear("\x90\x08\x00\x01\x00\x80\x80\x00\x80\x80")
	// 3.1.1 has no word for a refusal; nothing was written.
	a.say(publishAck(2, "state/closed", `{}`))
	a.hear("\x40\x02\x00\x02")
	a.say(publishAck(3, "state/open/1", `not json`))
	a.hear("\x40\x02\x00\x03")
	a.say(publishAck(9, "$SYS/x", "x") + publishAck(10, "t", "x"))
	a.hear("\x40\x02\x00\x09")
	a.hear("\x40\x02\x00\x0a")
	a.say(subscribe(4, "state/open/1"))
	a.hear("\x90\x03\x00\x04\x00")
	// MQTT 5 has.
	five := dialThing(t, n)
	five.say(packet(0x10, text("MQTT")+"\x05\xc2\x00\x00\x00"+text("")+text("v")+text("x")))
	if got, err := five.read(); err != nil || got[0] != 0x20 || got[3] != 0 {
		t.Fatalf("CONNACK: %q, %v", got, err)
	}
	five.say(packet(0x32, text("state/closed")+"\x00\x02\x00{}"))
	five.hear("\x40\x03\x00\x02\x87")
	five.say(packet(0x32, text("state/open/1")+"\x00\x03\x00{"))
	five.hear("\x40\x03\x00\x03\x99")
	five.say(packet(0x32, text("$sys")+"\x00\x05\x00x"))
	five.hear("\x40\x03\x00\x05\x87")
	five.say(packet(0x82, "\x00\x04\x00"+text("state/closed")+"\x00"))
	five.hear("\x90\x04\x00\x04\x00\x87")
}

func TestMQTTLoginComesFirst(t *testing.T) {
	n := run(t, func(c *Config) {
		speaking("")(c)
		c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "pw"}}}}}
	})
	for name, first := range map[string]string{
		"a PUBLISH": publish("t", "x"), "a SUBSCRIBE": subscribe(1, "t"), "a ping": pingreq,
		"no packet": "GET / HTTP/1.1\r\n\r\n", "a CONNECT too large": "\x10\xff\xff\xff\x7f", "a length without end": "\x10\xff\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			c := dialThing(t, n)
			c.say(first)
			if got, err := c.read(); err == nil {
				t.Errorf("it was answered by %q", got)
			}
		})
	}
	c := dialThing(t, n)
	c.say(connect("", "nobody"))
	c.hear("\x20\x02\x00\x05")
	c.hearEnd()
	five := dialThing(t, n)
	five.say(packet(0x10, text("MQTT")+"\x05\xc2\x00\x00\x00"+text("")+text("v")+text("x")))
	if got, err := five.read(); err != nil || got[0] != 0x20 || got[3] != 0x86 {
		t.Errorf("CONNACK: %q, %v", got, err)
	}
}

func TestMQTTWills(t *testing.T) {
	n := run(t, speaking(`record:
  "*": {create: true, read: true, write: true}
  "state/closed": {create: false, read: true, write: false}
`))
	w := joinAs(t, n, "w")
	w.say(subscribe(1, "bye", "state/gone", "state/closed"))
	w.hear("\x90\x05\x00\x01\x00\x00\x00")
	leave := func(topic, payload, last string) {
		c := dialThing(t, n)
		c.say(packet(0x10, text("MQTT")+"\x04\xc6\x00\x00"+text("")+text(topic)+text(payload)+text("u")+text("x")))
		c.hear("\x20\x02\x00\x00")
		c.say(last)
		if last == "" {
			c.nc.Close()
		} else {
			c.hearEnd()
		}
	}
	leave("bye", "1", "\xe0\x00") // a DISCONNECT leaves no will
	leave("state/closed", "{}", "")
	leave("bye", "2", "")
	w.hear(publish("bye", `"2"`))
	leave("state/gone", `{"a":1}`, "\xf0\x00") // a packet that is none
	w.hear(publish("state/gone", `{"a":1}`))
	w.settle()
}

func TestMQTTTakesTheOlderSessionsPlace(t *testing.T) {
	n := run(t, speaking(""))
	one, other := dialThing(t, n), dialThing(t, n)
	one.say(connect("same", "u"))
	one.hear("\x20\x02\x00\x00")
	other.say(connect("same", "v")) // another user
	other.hear("\x20\x02\x00\x00")
	one.settle()
	two := dialThing(t, n)
	two.say(connect("same", "u"))
	two.hear("\x20\x02\x00\x00")
	one.hearEnd()
	two.settle()
	other.settle()
}

func TestMQTTWildcardsHearWhatTheUserMay(t *testing.T) {
	n := run(t, func(c *Config) {
		speaking(`record:
  "*": {create: true, read: true, write: true}
  "state/own/$u": {create: true, read: "user.id === $u", write: true}
  "state/deep/$x": {create: true, read: "oldData === null || !oldData.secret", write: true}
`)(c)
		c.MQTT.MaxWildcards = 2
		c.Permission.Options.Permissions = strings.Replace(c.Permission.Options.Permissions.(string),
			`event: {"*": {publish: true, subscribe: true, listen: true}}`,
			`event: {"*": {publish: true, subscribe: true, listen: true}, "own/$u": {publish: true, subscribe: "user.id === $u"}}`, 1)
	})
	a, b := joinAs(t, n, "a"), joinAs(t, n, "b")
	a.say(subscribe(1, "#", "+/own/a", "+"))
	a.hear("\x90\x05\x00\x01\x00\x00\x80") // two are all it may have
	for _, p := range []string{
		publish("x", "1"), publish("own/b", "2"), publish("own/a", "3"), publish("$x", "4"),
		publish("state/own/b", `{"v":5}`), publish("state/own/a", `{"v":6}`),
		publish("state/deep/1", `{"v":7}`), publish("state/deep/1", `{"secret":1}`), publish("state/deep/1", `{"v":8}`),
	} {
		b.say(p)
	}
	// What depends on the record is judged on what it is when that is delivered, so one that
	// has become secret since is not told either. Different records come in any order.
	b.settle()
	var got []string
	for !slices.Contains(got, publish("state/own/a", `{"v":6}`)) || !slices.Contains(got, publish("state/deep/1", `{"v":8}`)) {
		p, err := a.read()
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, p)
	}
	for _, p := range got {
		if strings.Contains(p, "secret") || strings.Contains(p, "own/b") || strings.Contains(p, "$") {
			t.Errorf("it was told %q", p)
		}
	}
	if events := slices.DeleteFunc(got, func(p string) bool { return strings.Contains(p, "state/") }); !slices.Equal(events, []string{publish("x", `"1"`), publish("own/a", `"3"`)}) {
		t.Errorf("it was told %q", events)
	}
	a.say(packet(0xa2, "\x00\x02"+text("#")+text("+/own/a")))
	a.hear("\xb0\x02\x00\x02")
	b.say(publish("x", "9"))
	b.settle()
	a.settle()
}

func TestMQTTWildcardsForgetVerdictsOfOldRules(t *testing.T) {
	const rules = "record: {\"*\": {create: true, read: true, write: true}}\n"
	n := run(t, speaking(rules))
	a, b := joinAs(t, n, "a"), joinAs(t, n, "b")
	a.say(subscribe(1, "#"))
	a.hear("\x90\x03\x00\x01\x00")
	b.say(publish("x", "1"))
	a.hear(publish("x", `"1"`))
	cfg := n.cfg
	ruled(rules + strings.Replace(restOfRules, "subscribe: true", "subscribe: 'user.id !== \"a\"'", 1))(&cfg)
	if err := n.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	b.say(publish("x", "2"))
	b.settle()
	a.settle()
}

func TestMQTTOverWebSocket(t *testing.T) {
	n := run(t, speaking(""))
	url := "ws://" + n.Addr().String() + "/mqtt"
	if _, res, err := websocket.DefaultDialer.Dial(url, nil); err == nil || res.StatusCode != http.StatusBadRequest {
		t.Errorf("without its subprotocol: %v", err)
	}
	ws, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	all := connect("", "w") + subscribe(1, "t") + pingreq
	for half := range 2 { // packets need not be messages
		if err := ws.WriteMessage(websocket.BinaryMessage, []byte(all[half*20:half*(len(all)-20)+20])); err != nil {
			t.Fatal(err)
		}
	}
	var got bytes.Buffer
	want := "\x20\x02\x00\x00\x90\x03\x00\x01\x00" + pingresp
	for got.Len() < len(want) {
		_, b, err := ws.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		got.Write(b)
	}
	if got.String() != want {
		t.Errorf("got %q, want %q", &got, want)
	}
}

func TestMQTTHostileClientsHarmNobody(t *testing.T) {
	n := run(t, speaking(""))
	good := joinAs(t, n, "good")
	for name, attack := range map[string]func(c *thing){
		"10 000 topics": func(c *thing) {
			var names []string
			for i := range 5000 {
				names = append(names, fmt.Sprintf("t/%d", i), fmt.Sprintf("state/%d", i))
			}
			c.say(subscribe(1, names...))
			got, err := c.read()
			const head = "\x90\x92\x4e\x00\x01" // a SUBACK of 10 002 bytes
			// A node that has no time to read so many records refuses some.
			if codes, ok := strings.CutPrefix(got, head); err != nil || !ok || strings.Trim(strings.ReplaceAll(codes, "\x80", "\x00"), "\x00") != "" {
				c.t.Errorf("%d bytes that begin %.20q, %v, want a SUBACK with a code for each topic", len(got), got, err)
			}
		},
		"a packet too large": func(c *thing) {
			c.say("\x30\xff\xff\xff\x7f")
			c.hearEnd()
		},
		"a cut packet": func(c *thing) {
			c.say(publish("t", "xxxx")[:5])
			c.nc.Close()
		},
		"a second CONNECT": func(c *thing) {
			c.say(connect("", "other"))
			c.hearEnd()
		},
		"QoS 2": func(c *thing) {
			c.say(packet(0x34, text("t")+"\x00\x01x"))
			c.hearEnd()
		},
		"a topic with a wildcard": func(c *thing) {
			c.say(publish("t/#", "x"))
			c.hearEnd()
		},
		"a SUBSCRIBE without topics": func(c *thing) {
			c.say(packet(0x82, "\x00\x01"))
			c.hearEnd()
		},
		"a flood of SUBSCRIBEs": func(c *thing) {
			c.say(strings.Repeat(subscribe(1, "a", "b", "state/c", "d/#"), 1000))
			for range 1000 {
				c.hear("\x90\x06\x00\x01\x00\x00\x00\x00")
			}
		},
		"a payload that is no text": func(c *thing) {
			c.say(publishAck(1, "t", "\xff\xfe"))
			c.hear("\x40\x02\x00\x01")
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := joinAs(t, n, "bad")
			c.t = t
			attack(c)
			good.settle()
		})
	}
}
