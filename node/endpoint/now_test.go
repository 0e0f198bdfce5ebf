package endpoint

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
)

// alone is a broadcast that may be written at once.
func alone(name, data string) *protocol.Outbound {
	o := broadcast(name, data)
	o.Alone = true
	return o
}

// idle waits until nothing waits and nobody writes.
func idle(t *testing.T, c *Conn) {
	t.Helper()
	eventually(t, "the connection is idle", func() bool {
		if !c.wire.writing.TryLock() {
			return false
		}
		defer c.wire.writing.Unlock()
		return waiting(c) == 0
	})
}

// waiting is the number of bytes on the books of a connection.
func waiting(c *Conn) int {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	n := 0
	if c.wire.queue != nil {
		for _, f := range *c.wire.queue {
			n += len(f.b)
		}
	}
	return max(n, c.wire.answers+c.wire.broadcasts)
}

func TestOnlyAPlainIdleSocketIsWrittenAtOnce(t *testing.T) {
	small := frame{b: broadcast("n", "1").Frame(protocol.FormBinary)}
	bothWays(t, func(t *testing.T, cfg Config) {
		ts, client, conn := connected(t, cfg, &funcReceiver{})
		idle(t, conn)
		w := &conn.wire
		plain := !ts.Secure()
		before := conn.counters.bytesOut.Load()
		if got := w.writeNow(small); got != plain {
			t.Fatalf("writeNow = %v, want %v", got, plain)
		}
		if plain {
			if got := conn.counters.bytesOut.Load() - before; got != uint64(len(small.b)) {
				t.Errorf("counted %d bytes out, want %d", got, len(small.b))
			}
			client.want("EVENT.EMIT 1")
		}
		if n := waiting(conn); n != 0 {
			t.Errorf("%d bytes wait", n)
		}

		large := alone("n", `"`+strings.Repeat("x", largeFrame)+`"`)
		if w.writeNow(frame{b: large.Frame(protocol.FormBinary)}) {
			t.Error("a large frame is written at once")
		}
		w.writing.Lock()
		if w.writeNow(small) {
			t.Error("a frame is written while another is")
		}
		conn.Send(alone("n", "2"))
		w.writing.Unlock()
		client.want("EVENT.EMIT 2")

		idle(t, conn)
		w.mu.Lock()
		w.queue = &[]frame{}
		w.mu.Unlock()
		if w.writeNow(small) {
			t.Error("a frame overtakes the queue")
		}
		w.mu.Lock()
		w.queue = nil
		w.mu.Unlock()
		conn.Disconnect()
		if w.writeNow(small) {
			t.Error("a frame is written to a connection that is gone")
		}
		client.wantClose(1008)
	})
}

func TestNothingIsWrittenAtOnceBeforeTheUpgradeIsAnswered(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	nc, err := net.Dial("tcp", ts.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := ts.newConn(nc, nil, &auth.Attempt{RemoteAddr: "127.0.0.1"}, ts.speak[ts.cfg.WebSocket.URLPath], false)
	defer ts.removed(c)
	defer c.wire.finish()
	if c.wire.writeNow(frame{b: []byte("x")}) {
		t.Error("a frame is written into the answer to the upgrade")
	}
}

func TestAClientThatStopsReadingGetsEverythingInOrderLater(t *testing.T) {
	for name, make := range map[string]func(name, data string) *protocol.Outbound{"alone": alone, "not alone": broadcast} {
		t.Run(name, func(t *testing.T) { stopReading(t, make) })
	}
}

func stopReading(t *testing.T, make func(name, data string) *protocol.Outbound) {
	cfg := testConfig()
	cfg.WebSocket.QueueStall = time.Hour
	cfg.WebSocket.QueueHardLimit = 1 << 30
	_, client, conn := connected(t, cfg, &funcReceiver{})
	idle(t, conn)
	if err := conn.wire.raw().(*net.TCPConn).SetWriteBuffer(8 << 10); err != nil {
		t.Fatal(err)
	}
	before := conn.counters.bytesOut.Load()
	data := `"` + strings.Repeat("x", 15<<10) + `"`
	var sent uint64
	i, after := 0, 0
	for ; after < 20; i++ {
		o := make(fmt.Sprint(i), data)
		conn.Send(o)
		sent += uint64(len(o.Frame(protocol.FormBinary)))
		if after > 0 || waiting(conn) > 8<<20 || o.Alone && waiting(conn) > 0 {
			after++ // the socket is full, and these wait behind
		}
	}
	for n := range i {
		m, err := client.next()
		if err != nil {
			t.Fatalf("after %d frames: %v", n, err)
		}
		if m.Name != fmt.Sprint(n) || m.Data != data {
			t.Fatalf("got frame %s with %d bytes of data, want %d with %d", m.Name, len(m.Data), n, len(data))
		}
	}
	idle(t, conn)
	if got := conn.counters.bytesOut.Load() - before; got != sent {
		t.Errorf("counted %d bytes out, want %d", got, sent)
	}
	conn.Send(make("again", "1"))
	client.want("EVENT.EMIT 1")
}

func TestTheRestOfAFrameGoesBeforeWhatCameMeanwhile(t *testing.T) {
	for _, answer := range []bool{false, true} {
		_, client, conn := connected(t, testConfig(), &funcReceiver{})
		idle(t, conn)
		w := &conn.wire
		first := broadcast("n", "1").Frame(protocol.FormBinary)
		w.writing.Lock() // as writeNow does
		if n := tryWrite(w.in.sock, first[:5]); n != 5 {
			t.Fatalf("wrote %d bytes, want 5", n)
		}
		conn.Send(alone("n", "2"))
		conn.Disconnect()
		conn.Send(alone("n", "too late"))
		w.putBack(frame{first[5:], answer})
		w.writing.Unlock()
		client.want("EVENT.EMIT 1")
		client.want("EVENT.EMIT 2")
		client.wantClose(1008)
		if n := waiting(conn); n != 0 {
			t.Errorf("%d bytes are left on the books", n)
		}
	}
}

func TestADeadlineOfLongAgoStopsNoFrame(t *testing.T) {
	_, client, conn := connected(t, testConfig(), &funcReceiver{})
	idle(t, conn)
	conn.wire.writing.Lock()
	conn.wire.deadline = -time.Hour // so that write sets another one
	if err := conn.wire.nc.SetWriteDeadline(time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	conn.wire.writing.Unlock()
	conn.Send(alone("n", "1"))
	client.want("EVENT.EMIT 1")
}

func TestNothingFollowsACloseFrame(t *testing.T) {
	for range 20 {
		_, client, conn := connected(t, testConfig(), &funcReceiver{})
		var senders sync.WaitGroup
		for range 4 {
			senders.Go(func() {
				for i := 0; !conn.Gone(); i++ {
					conn.Send(alone("n", "1"))
				}
				for range 100 {
					conn.Send(alone("n", "2"))
				}
			})
		}
		nc := client.ws.NetConn()
		if err := nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 100)
		if _, err := io.ReadFull(nc, got); err != nil { // they are at it
			t.Fatal(err)
		}
		conn.Disconnect()
		rest, err := io.ReadAll(nc)
		if err != nil {
			t.Fatal(err)
		}
		senders.Wait()
		got = append(got, rest...)
		for len(got) > 0 && got[0] == 0x82 && len(got) >= 2 && len(got) >= 2+int(got[1]) {
			got = got[2+int(got[1]):]
		}
		want := websocket.FormatCloseMessage(1008, Disconnected.String())
		want = slices.Concat([]byte{0x88, byte(len(want))}, want)
		if string(got) != string(want) {
			t.Fatalf("the stream ends with %q, want the close frame %q", got, want)
		}
		if err := client.ws.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAReaderKnowsWhenMessagesComeOneByOne(t *testing.T) {
	got := make(chan bool, 10)
	_, client, _ := connected(t, testConfig(), &funcReceiver{
		receive: func(_ *Conn, m *protocol.Message) { got <- m.Alone },
	})
	short := clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("a", "1")))
	long := clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("a", `"`+strings.Repeat("x", 300)+`"`)))
	ping := clientFrame(websocket.PingMessage, nil)
	send := func(frames ...[]byte) {
		if _, err := client.ws.NetConn().Write(slices.Concat(frames...)); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		frames [][]byte
		want   []bool
	}{
		{[][]byte{short, short}, []bool{false, false}},
		{[][]byte{short}, []bool{false}},
		{[][]byte{short}, []bool{true}},
		{[][]byte{long}, []bool{true}},
		{[][]byte{long, short, long, long, short, short}, []bool{false, false, false, false, false, false}},
		{[][]byte{long}, []bool{false}}, // may be the first of a burst
		{[][]byte{long, long}, []bool{false, false}},
		{[][]byte{long}, []bool{false}},
		{[][]byte{long}, []bool{true}},
		{[][]byte{ping, short}, []bool{true}},
		{[][]byte{short, ping}, []bool{false}}, // more came behind it
		{[][]byte{short}, []bool{false}},
		{[][]byte{short}, []bool{false}},
		{[][]byte{short, short[:1]}, []bool{false}}, // the first byte of the next
		{[][]byte{short[1:]}, []bool{false}},
		{[][]byte{short}, []bool{false}},
		{[][]byte{short}, []bool{true}},
	} {
		send(step.frames...)
		for j, want := range step.want {
			if got := await(t, "message", got); got != want {
				t.Errorf("step %d, message %d: alone = %v, want %v", i, j, got, want)
			}
		}
	}
}
