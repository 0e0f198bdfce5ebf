package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"
)

// This file is the dialects of FuzzPipeline whose bytes are more than messages: they go in
// where a socket's do, and what comes out is looked at as bytes.

// mqttSeeds are packets after the CONNECT of a version.
func mqttSeeds(version string) []string {
	none := "" // the properties of a packet, which only MQTT 5 has
	if version == "\x05" {
		none = "\x00"
	}
	ask := func(id string, filters ...string) string {
		body := "\x00" + id + none
		for _, f := range filters {
			body += text(f) + "\x01"
		}
		return packet(0x82, body)
	}
	say := func(flags byte, topic, id, payload string) string {
		return packet(0x30|flags, text(topic)+id+none+payload)
	}
	return []string{
		ask("\x01", "#", "+/x", "state/#", "closed/x", "state/closed", "a", "state/a", "$SYS/x", "a/#/b", "$share/g/a"),
		ask("\x02", "a", "state/a"), ask("\x03", "state/a", "+"),
		say(0, "a", "", "hello"), say(2, "a", "\x00\x04", "{}"), say(3, "state/a", "\x00\x05", `{"b":1}`),
		say(2, "state/a", "\x00\x06", "{oops"), say(3, "state/a", "\x00\x07", ""), say(1, "b", "", `[1]`),
		say(2, "state/closed", "\x00\x08", `{}`), say(2, "$SYS/x", "\x00\x09", "x"), say(2, "a", "\x00\x0a", "\xff"),
		packet(0xa2, "\x00\x0b"+none+text("#")+text("state/a")), pingreq, packet(0x40, "\x00\x01"), packet(0x62, "\x00\x01"),
		packet(0xf0, ""), packet(0xe0, ""), say(4, "a", "\x00\x0c", "QoS 2"), connect("", "again"), "\x30\xff\xff\xff\x7f",
	}
}

// apiSeeds are bodies of POST /api.
var apiSeeds = []string{
	`{"body":[{"topic":"record","action":"write","recordName":"a","data":{"b":1}},{"topic":"record","action":"read","recordName":"a"},` +
		`{"topic":"record","action":"write","recordName":"a","path":"c[2].d","data":null,"version":2},{"topic":"record","action":"head","recordName":"a"},` +
		`{"topic":"record","action":"notify","recordNames":["a","state/closed"]},{"topic":"record","action":"delete","recordName":"a"}]}`,
	`{"body":[{"topic":"record","action":"read","recordName":"state/closed"},{"topic":"record","action":"head","recordName":"state/closed"},` +
		`{"topic":"record","action":"write","recordName":"state/closed","data":{},"version":1},{"topic":"record","action":"delete","recordName":"state/closed"}]}`,
	`{"body":[{"topic":"event","action":"emit","eventName":"a","data":[1]},{"topic":"rpc","action":"make","rpcName":"a","data":{}},` +
		`{"topic":"list","action":"write","listName":"l","data":["a"]},{"topic":"list","action":"read","listName":"l"},` +
		`{"topic":"presence","action":"query"},{"topic":"presence","action":"query","names":["ada"]}]}`,
	`{"authData":{"username":"ada"},"body":[{"topic":"presence","action":"query"}]}`, `{"authData":[[[[]]]],"body":[{}]}`, `{"body":[]}`, `{"body":`, `7`,
}

// fuzzAddress is where attacks come from.
const fuzzAddress = "192.0.2.1"

// attackMQTT sends what two clients say after their CONNECT, of a version, while a third one
// has subscribed to everything. tell is called when all is said.
func attackMQTT(t *testing.T, n *Node, version string, frames [][]byte, tell func()) {
	var all []*tap
	var served sync.WaitGroup
	for _, user := range []string{"ada", "bob", "good"} {
		c := newTap()
		served.Go(func() { n.mqtt.Serve(c.server, &auth.Attempt{RemoteAddr: fuzzAddress}) })
		v := version
		if user == "good" {
			v = "\x04"
		}
		properties := ""
		if v == "\x05" {
			properties = "\x00"
		}
		c.say(packet(0x10, text("MQTT")+v+"\xc2\x00\x00"+properties+text("")+text(user)+text("x")))
		all = append(all, c)
	}
	good := all[2]
	good.say(subscribe(1, "#"))
	good.await(t, "\x90\x03\x00\x01\x00")
	said := 0
	for i, frame := range frames {
		all[i%2].say(string(frame))
		said += len(frame)
	}
	tell()
	// What comes by a filter is judged beside: when this one's has come so far, so have
	// others, mostly.
	n.pipe.receive(&witness{t: t, id: 1 << 33, user: &auth.User{ID: "last"}}, &protocol.Message{
		Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "last", Data: `"word"`, Has: protocol.HasName | protocol.HasData,
	})
	good.await(t, publish("last", `"word"`))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.endpoint.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
	served.Wait()
	for i, c := range all {
		heard := c.end()
		if strings.Contains(heard, secret) {
			t.Errorf("client %d was told what the rules keep from it: %q", i, heard)
		}
		// Each packet of a client has two bytes at the least and is worth one answer.
		// Besides there are the CONNACK and the DISCONNECT, which may be said twice.
		if got := answersIn(heard); got > said/2+3 {
			t.Errorf("client %d was answered %d packets, and %d bytes were said", i, got, said)
		}
	}
}

// tap is the client's end of a connection whose other end a server has. What comes is taken
// at once and kept.
type tap struct {
	server net.Conn
	client net.Conn
	taken  chan struct{} // closed when nothing comes any more
	bound  *time.Timer   // ends the connection, and with it all that waits

	mu    sync.Mutex
	news  *sync.Cond
	heard []byte // guarded by mu
	over  bool   // likewise
}

// halfPipe is a server's end of a pipe, with which the client ends the other one as soon as
// the server has said all.
type halfPipe struct {
	net.Conn
	client net.Conn
}

// CloseWrite ends the client: it has taken everything, as the pipe has no buffer.
func (p halfPipe) CloseWrite() error { return p.client.Close() }

func newTap() *tap {
	server, client := net.Pipe()
	c := &tap{server: halfPipe{server, client}, client: client, taken: make(chan struct{})}
	c.news = sync.NewCond(&c.mu)
	c.bound = time.AfterFunc(2*time.Minute, func() { _ = client.Close() })
	go func() {
		defer close(c.taken)
		b := make([]byte, 4096)
		for {
			n, err := client.Read(b)
			c.mu.Lock()
			c.heard = append(c.heard, b[:n]...)
			c.over = err != nil
			c.news.Broadcast()
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

// say sends bytes, of which the server may take none: the connection may have ended.
func (c *tap) say(b string) { _, _ = io.WriteString(c.client, b) }

// await returns when want was heard.
func (c *tap) await(t *testing.T, want string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for !bytes.Contains(c.heard, []byte(want)) {
		if c.over {
			t.Fatalf("the connection has ended before %q, after %q", want, c.heard)
		}
		c.news.Wait()
	}
}

// end ends the connection and returns what was heard.
func (c *tap) end() string {
	c.bound.Stop()
	_ = c.client.Close() // it has ended, mostly
	<-c.taken
	return string(c.heard)
}

// answersIn counts the packets that are no PUBLISH; what is left at the end is cut off.
func answersIn(heard string) int {
	n := 0
	for len(heard) > 1 {
		size, at := binary.Uvarint([]byte(heard[1:]))
		if at <= 0 || uint64(len(heard)-1-at) < size {
			break
		}
		if heard[0]>>4 != 3 {
			n++
		}
		heard = heard[1+at+int(size):]
	}
	return n
}

// attackAPI has each frame be the body of a request.
func attackAPI(t *testing.T, n *Node, frames [][]byte) {
	h := n.api.Routes()["/api"]
	for _, frame := range frames {
		r := httptest.NewRequest(http.MethodPost, "/api", bytes.NewReader(frame))
		r.Header.Set("Content-Type", "application/json")
		r.RemoteAddr = fuzzAddress
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK && (w.Code < 400 || w.Code > 499) {
			t.Errorf("%q is answered %d %s", frame, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), secret) {
			t.Errorf("%q is told what the rules keep from it: %s", frame, w.Body)
		}
		// A command has two bytes at the least, and an error repeats its name.
		if most := 1024 + 512*len(frame); w.Body.Len() > most {
			t.Errorf("%d bytes are answered to %d", w.Body.Len(), len(frame))
		}
	}
}
