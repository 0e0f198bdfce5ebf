package endpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
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

// bothWays runs a test without and with TLS.
func bothWays(t *testing.T, test func(t *testing.T, cfg Config)) {
	t.Run("ws", func(t *testing.T) { test(t, testConfig()) })
	t.Run("wss", func(t *testing.T) { test(t, secure(t)) })
}

// connected logs a client in and hands both ends over.
func connected(t *testing.T, cfg Config, to *funcReceiver) (*testServer, *testClient, *Conn) {
	t.Helper()
	conns := make(chan *Conn, 1)
	opened := to.opened
	to.opened = func(c *Conn) {
		if opened != nil {
			opened(c)
		}
		select {
		case conns <- c:
		default: // a later client
		}
	}
	ts := serve(t, cfg, anybody, to)
	client := ts.login()
	return ts, client, await(t, "opened", conns)
}

func broadcast(name, data string) *protocol.Outbound {
	return &protocol.Outbound{Message: *emit(name, data)}
}

func TestManyPublishersEachInOrder(t *testing.T) {
	const publishers, each = 32, 1000
	sizes := []int{8, 30, 64, 200, 126, 1 << 10, 65536 - 40, 100 << 10}
	bothWays(t, func(t *testing.T, cfg Config) {
		cfg.WebSocket.QueueHardLimit = 1 << 30
		cfg.WebSocket.QueueStall = time.Hour
		_, client, conn := connected(t, cfg, &funcReceiver{})
		for p := range publishers {
			go func() { // ends when its frames are queued
				for i := range each {
					size := sizes[i%6]
					if i%200 == 199 {
						size = sizes[6+i/200%2]
					}
					o := broadcast(fmt.Sprintf("%d/%d", p, i), `"`+strings.Repeat("x", size)+`"`)
					o.Alone = i%3 != 0 // written at once, if it can be
					conn.Send(o)
				}
			}()
		}
		// Pings cross the batches.
		var pongs sync.WaitGroup
		pongs.Go(func() {
			for range 100 {
				if err := client.ws.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(patience)); err != nil {
					t.Errorf("ping: %v", err)
				}
			}
		})
		defer pongs.Wait()
		var next [publishers]int
		for range publishers * each {
			m, err := client.next()
			if err != nil {
				t.Fatal(err)
			}
			var p, i int
			if _, err := fmt.Sscanf(m.Name, "%d/%d", &p, &i); err != nil {
				t.Fatalf("name %q: %v", m.Name, err)
			}
			if i != next[p] {
				t.Fatalf("publisher %d: got frame %d, want %d", p, i, next[p])
			}
			next[p]++
		}
	})
}

func TestAFrameIsEncodedOnceForAllClientsOfAForm(t *testing.T) {
	conns := make(chan *Conn, 2)
	ts := serve(t, testConfig(), anybody, &funcReceiver{opened: func(c *Conn) { conns <- c }})
	a, b := ts.login(), ts.login()
	o := broadcast("n", "1")
	for range 2 {
		(<-conns).Send(o)
	}
	a.want("EVENT.EMIT 1")
	b.want("EVENT.EMIT 1")
	var out uint64
	for _, n := range ts.Stats().Out {
		if n.Topic == protocol.TopicEvent && n.Action == protocol.EventEmit {
			out = n.N
		}
	}
	if out != 2 {
		t.Errorf("counted %d events out, want 2", out)
	}
}

func TestEverythingQueuedBeforeACloseArrives(t *testing.T) {
	bothWays(t, func(t *testing.T, cfg Config) {
		ts, client, conn := connected(t, cfg, &funcReceiver{})
		// A client that goes on sending gets a reset from a socket that is closed
		// too early, and loses what it has not read.
		stop := make(chan struct{})
		var talking sync.WaitGroup
		talking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if client.ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, ping())) != nil {
						return // closed: what this test is about
					}
				}
			}
		})
		const frames = 900
		for i := range frames {
			conn.Send(broadcast(fmt.Sprint(i), `"`+strings.Repeat("x", 1000)+`"`))
		}
		conn.Disconnect()
		conn.Send(broadcast("too late", "1"))
		eventually(t, "the server has said goodbye", func() bool {
			conn.wire.mu.Lock()
			defer conn.wire.mu.Unlock()
			return conn.wire.saidGoodbye
		})
		for i := 0; i < frames; {
			m, err := client.next()
			if err != nil {
				t.Fatalf("after %d frames: %v", i, err)
			}
			if m.Topic != protocol.TopicEvent {
				continue // a pong
			}
			if m.Name != fmt.Sprint(i) {
				t.Fatalf("got frame %s, want %d", m.Name, i)
			}
			i++
		}
		for {
			m, err := client.next()
			if err == nil && m.Topic == protocol.TopicConnection {
				continue
			}
			if !websocket.IsCloseError(err, 1008) {
				t.Errorf("ended with %v, want close code 1008", err)
			}
			break
		}
		close(stop)
		talking.Wait()
		if err := client.ws.Close(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connection is gone", func() bool { return ts.Stats().Open == 0 })
	})
}

func TestASlowConsumerIsCutOffAndTheOthersGoOn(t *testing.T) {
	for _, tc := range []struct {
		name      string
		configure func(*WebSocketConfig)
	}{
		{"over the hard limit", func(w *WebSocketConfig) { w.QueueStall = time.Hour }},
		{"over the soft limit without progress", func(w *WebSocketConfig) { w.QueueHardLimit, w.QueueStall = 1<<40, time.Millisecond }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, cfg Config) {
				cfg.WebSocket.QueueSoftLimit = 64 << 10
				cfg.WebSocket.QueueHardLimit = 1 << 20
				tc.configure(&cfg.WebSocket)
				closed := make(chan *Conn, 1)
				ts, client, slow := connected(t, cfg, &funcReceiver{closed: func(c *Conn) { closed <- c }})
				client.narrow()
				reader := ts.login()
				var other *Conn
				for _, c := range ts.Conns() {
					if c != slow {
						other = c
					}
				}
				o := broadcast("n", `"`+strings.Repeat("x", 32<<10)+`"`)
				for !slow.Gone() {
					slow.Send(o)
				}
				if got := await(t, "Closed", closed); got != slow {
					t.Fatal("another client was closed")
				}
				other.Send(broadcast("n", "1"))
				reader.want("EVENT.EMIT 1")
				if got := ts.Stats().Closed["slow consumer"]; got != 1 {
					t.Errorf("slow consumers = %d, want 1", got)
				}
			})
		})
	}
}

func TestAnswersHoldBackTheReaderWithoutLoss(t *testing.T) {
	bothWays(t, func(t *testing.T, cfg Config) {
		cfg.WebSocket.QueueSoftLimit = 64 << 10
		cfg.WebSocket.QueueHardLimit = 128 << 10 // of broadcasts: answers may exceed it
		const requests, size = 200, 100 << 10
		data := `"` + strings.Repeat("x", size) + `"`
		most := 0
		_, client, conn := connected(t, cfg, &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
			c.Answer(&protocol.Message{Topic: m.Topic, Action: m.Action, Has: protocol.HasName | protocol.HasData, Name: m.Name, Data: data})
			c.wire.mu.Lock()
			most = max(most, c.wire.answers)
			c.wire.mu.Unlock()
		}})
		for i := range requests {
			client.send(emit(fmt.Sprint(i), "1")) // fits the kernel's buffers: nobody reads yet
		}
		eventually(t, "the reader is held back", func() bool {
			conn.wire.mu.Lock()
			defer conn.wire.mu.Unlock()
			return conn.wire.space != nil
		})
		conn.Send(broadcast("a broadcast does not count answers", "2"))
		got := 0
		for range requests + 1 {
			m, err := client.next()
			if err != nil {
				t.Fatalf("after %d answers: %v", got, err)
			}
			if m.Data == "2" {
				continue
			}
			if m.Name != fmt.Sprint(got) || len(m.Data) != size+2 {
				t.Fatalf("got answer %s of %d bytes, want %d", m.Name, len(m.Data), got)
			}
			got++
		}
		if limit := cfg.WebSocket.QueueSoftLimit + 2*size; most > limit {
			t.Errorf("up to %d bytes of answers waited, want at most one over the limit: %d", most, limit)
		}
	})
}

func TestPaceLetsABulkHandlerWait(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.QueueSoftLimit = 64 << 10
	const parts, size = 300, 100 << 10
	_, client, _ := connected(t, cfg, &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
		for range parts {
			c.Answer(&protocol.Message{Topic: m.Topic, Action: m.Action, Has: protocol.HasData, Data: `"` + strings.Repeat("x", size) + `"`})
			c.Pace()
			c.wire.mu.Lock()
			waiting := c.wire.answers
			c.wire.mu.Unlock()
			if waiting > cfg.WebSocket.QueueSoftLimit {
				t.Errorf("Pace returned while %d bytes wait", waiting)
			}
		}
	}})
	client.send(emit("bulk", "1"))
	for i := range parts {
		if m, err := client.next(); err != nil || len(m.Data) != size+2 {
			t.Fatalf("part %d: %v", i, err)
		}
	}
}

func TestAHeldReaderIsReleasedWhenItsClientIsCutOff(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.QueueSoftLimit = 1
	closed := make(chan *Conn, 1)
	ts, client, conn := connected(t, cfg, &funcReceiver{
		receive: func(c *Conn, m *protocol.Message) {
			for range 200 { // more than the kernel takes
				c.Answer(&protocol.Message{Topic: m.Topic, Action: m.Action, Has: protocol.HasData, Data: `"` + strings.Repeat("x", 100<<10) + `"`})
			}
			c.Pace()
		},
		closed: func(c *Conn) { closed <- c },
	})
	client.narrow().send(emit("a", "1"))
	eventually(t, "the reader waits", func() bool {
		conn.wire.mu.Lock()
		defer conn.wire.mu.Unlock()
		return conn.wire.space != nil
	})
	conn.drop(SlowConsumer)
	await(t, "Closed", closed)
	eventually(t, "it is gone", func() bool { return ts.Stats().Open == 0 })
	conn.Answer(emit("a", "1")) // does nothing
	conn.Pace()                 // does not wait
}

func TestAClientThatStopsReadingIsEndedByTheSweep(t *testing.T) {
	// Only answers wait, which cut nobody off; but the goodbye cannot be said.
	cfg := testConfig()
	cfg.WebSocket.QueueStall = 50 * time.Millisecond
	ts, client, conn := connected(t, cfg, &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
		for range 200 {
			c.Answer(&protocol.Message{Topic: m.Topic, Action: m.Action, Has: protocol.HasData, Data: `"` + strings.Repeat("x", 100<<10) + `"`})
		}
	}})
	client.narrow().send(emit("a", "1"))
	eventually(t, "the answers wait", func() bool {
		conn.wire.mu.Lock()
		defer conn.wire.mu.Unlock()
		return conn.wire.answers > cfg.WebSocket.QueueSoftLimit
	})
	conn.Disconnect()
	eventually(t, "it is gone", func() bool { return ts.Stats().Open == 0 })
	if got := ts.Stats().Closed["disconnected by the operator"]; got != 1 {
		t.Errorf("the first reason does not stand: %v", ts.Stats().Closed)
	}
}

func TestAClientThatTakesNothingForTwoHeartbeatsIsCutOff(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.HeartbeatInterval = 250 * time.Millisecond
	cfg.WebSocket.QueueStall = time.Hour
	ts, client, _ := connected(t, cfg, &funcReceiver{receive: func(c *Conn, m *protocol.Message) {
		for range 200 {
			c.Answer(&protocol.Message{Topic: m.Topic, Action: m.Action, Has: protocol.HasData, Data: `"` + strings.Repeat("x", 100<<10) + `"`})
		}
	}})
	client.narrow().send(emit("a", "1"))
	eventually(t, "it is gone", func() bool { return ts.Stats().Open == 0 })
	if got := ts.Stats().Closed["slow consumer"]; got != 1 {
		t.Errorf("closed %v, want one slow consumer", ts.Stats().Closed)
	}
}

func TestAPanicEndsOneClientOnly(t *testing.T) {
	closed := make(chan *Conn, 3)
	for name, to := range map[string]*funcReceiver{
		"Opened":  {opened: func(c *Conn) { panicFirst(c) }},
		"Receive": {receive: func(c *Conn, _ *protocol.Message) { panicFirst(c) }},
		"Closed":  {},
	} {
		t.Run(name, func(t *testing.T) {
			to.closed = func(c *Conn) {
				closed <- c
				if name == "Closed" {
					panicFirst(c)
				}
			}
			ts := serve(t, testConfig(), anybody, to)
			first := ts.dial()
			first.send(challenge())
			first.want("CONNECTION.ACCEPT")
			other := ts.login()
			first.send(request(`{}`))
			first.want("AUTH.AUTH_SUCCESSFUL")
			switch name {
			case "Receive":
				first.send(emit("a", "1"))
				first.wantClose(1011)
			case "Opened":
				first.wantClose(1011)
			default:
				if err := first.ws.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if c := await(t, "Closed", closed); c.ID() != 1 {
				t.Errorf("closed connection %d, want 1", c.ID())
			}
			eventually(t, "it is counted", func() bool { return ts.Stats().Panics == 1 && ts.Stats().Open == 1 })
			other.send(ping())
			other.want("CONNECTION.PONG")
			if log := ts.logs.String(); !strings.Contains(log, "panicFirst") {
				t.Errorf("the log lacks the stack:\n%s", log)
			}
			select {
			case <-closed:
				t.Error("Closed was called twice")
			default:
			}
			if err := other.ws.Close(); err != nil {
				t.Fatal(err)
			}
			await(t, "the other is closed", closed)
		})
	}
}

func panicFirst(c *Conn) {
	if c.ID() == 1 {
		panic("a bug")
	}
}

func TestOpenedReceiveClosedComeInOrder(t *testing.T) {
	bothWays(t, func(t *testing.T, cfg Config) {
		calls := make(chan string, 100)
		_, client, _ := connected(t, cfg, &funcReceiver{
			opened:  func(c *Conn) { calls <- fmt.Sprint("opened ", c.User().ID, c.Gone()) },
			receive: func(_ *Conn, m *protocol.Message) { calls <- "receive " + m.Name },
			closed:  func(c *Conn) { calls <- fmt.Sprint("closed ", c.Gone()) },
		})
		for i := range 3 {
			client.send(emit(fmt.Sprint(i), "1"))
		}
		client.send(ping())
		client.want("CONNECTION.PONG")
		if err := client.ws.Close(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"opened ufalse", "receive 0", "receive 1", "receive 2", "closed true"} {
			if got := await(t, want, calls); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// sink is a net.Conn in memory: what is written is counted by frames.
type sink struct {
	mu      sync.Mutex
	frames  int
	writes  int
	failing bool
	in      chan struct{} // closed: EOF
	once    sync.Once
	notify  chan struct{}
}

func newSink() *sink { return &sink{in: make(chan struct{}), notify: make(chan struct{}, 1)} }

var errSink = errors.New("sink is closed")

func (s *sink) Read([]byte) (int, error) { <-s.in; return 0, errSink }
func (s *sink) Close() error             { s.once.Do(func() { close(s.in) }); return nil }

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing {
		return 0, errSink
	}
	s.writes++
	s.frames += countFrames(p)
	select {
	case s.notify <- struct{}{}:
	default:
	}
	return len(p), nil
}

// countFrames counts whole unmasked frames of which each write here holds some.
func countFrames(p []byte) (n int) {
	for len(p) >= 2 && p[0] == 0x82 {
		size, head := int(p[1]), 2
		switch size {
		case 126:
			size, head = int(binary.BigEndian.Uint16(p[2:])), 4
		case 127:
			size, head = int(binary.BigEndian.Uint64(p[2:])), 10
		}
		p = p[min(len(p), head+size):]
		n++
	}
	return n
}

// SetReadDeadline is called only to wake the reader.
func (s *sink) SetReadDeadline(time.Time) error { return s.Close() }

func (s *sink) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *sink) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *sink) SetDeadline(time.Time) error      { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// sinkConns are logged-in connections without sockets.
func sinkConns(tb testing.TB, ts *testServer, n int) ([]*Conn, []*sink) {
	tb.Helper()
	conns, sinks := make([]*Conn, n), make([]*sink, n)
	header := map[string][]string{"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	for i := range n {
		sinks[i] = newSink()
		before := ts.Conns()
		seen := make(map[*Conn]bool, len(before))
		for _, c := range before {
			seen[c] = true
		}
		ts.start(sinks[i], nil, &auth.Attempt{RemoteAddr: "127.0.0.1", Header: header}, ts.speak[ts.cfg.WebSocket.URLPath])
		for _, c := range ts.Conns() {
			if !seen[c] {
				conns[i] = c
			}
		}
		eventually(tb, "the upgrade", func() bool { return conns[i].session.Load() != nil })
		conns[i].user.Store(&auth.User{ID: "u"})
		conns[i].state.Store(uint32(stateOpen))
	}
	return conns, sinks
}

func TestManyWaitingFramesLeaveInFewWrites(t *testing.T) {
	cfg := testConfig()
	ts := serve(t, cfg, anybody, &funcReceiver{})
	conns, sinks := sinkConns(t, ts, 1)
	c, s := conns[0], sinks[0]
	eventually(t, "the upgrade is written", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.writes == 1 })

	s.mu.Lock() // the socket is slow
	c.Send(broadcast("first", "1"))
	eventually(t, "the pump is writing", func() bool { c.wire.mu.Lock(); defer c.wire.mu.Unlock(); return c.wire.queue == nil })
	o := broadcast("n", `"`+strings.Repeat("x", 100)+`"`)
	const frames = 1000
	for range frames {
		c.Send(o)
	}
	s.mu.Unlock()
	eventually(t, "everything is written", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.frames == frames+1 })
	total := frames * len(o.Frame(protocol.FormBinary))
	if got, want := s.writes-2, total/writeChunk+2; got > want {
		t.Errorf("%d frames left in %d writes, want at most %d", frames, got, want)
	}
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if c.wire.broadcasts != 0 || c.wire.answers != 0 || c.wire.queue != nil {
		t.Errorf("the books say %d and %d bytes wait, queue %v", c.wire.broadcasts, c.wire.answers, c.wire.queue)
	}
}

func TestAFailedWriteEndsTheConnection(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	conns, sinks := sinkConns(t, ts, 1)
	sinks[0].mu.Lock()
	sinks[0].failing = true
	sinks[0].mu.Unlock()
	conns[0].Send(broadcast("n", "1"))
	eventually(t, "it is gone", func() bool { return ts.Stats().Open == 0 })
	if got := ts.Stats().Closed["connection lost"]; got != 1 {
		t.Errorf("closed %v, want one lost connection", ts.Stats().Closed)
	}
}

// BenchmarkFanOut sends one broadcast to n connections, up to and with the write
// to the socket, of which there is none here. ns/delivery is one subscriber's share.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		for _, burst := range []int{1, 32} {
			b.Run(fmt.Sprintf("conns=%d/waiting=%d", n, burst), func(b *testing.B) {
				cfg := testConfig()
				cfg.WebSocket.HeartbeatInterval = time.Hour
				cfg.WebSocket.QueueHardLimit, cfg.WebSocket.QueueStall = 1<<40, time.Hour
				ts := serve(b, cfg, anybody, &funcReceiver{})
				conns, sinks := sinkConns(b, ts, n)
				out := make([]*protocol.Outbound, burst)
				for i := range out {
					out[i] = broadcast("name", `"`+strings.Repeat("x", 50)+`"`)
				}
				b.ReportAllocs()
				rounds := 0
				for b.Loop() {
					for _, o := range out {
						for _, c := range conns {
							c.Send(o)
						}
					}
					rounds++
					for _, s := range sinks { // a round ends when all is written
						for {
							s.mu.Lock()
							done := s.frames >= rounds*burst
							s.mu.Unlock()
							if done {
								break
							}
							<-s.notify
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rounds*burst*n), "ns/delivery")
			})
		}
	}
}

// BenchmarkSendQueued is what a broadcast costs the publisher for a connection
// that is about to be written: until the frame is queued.
func BenchmarkSendQueued(b *testing.B) {
	cfg := testConfig()
	cfg.WebSocket.HeartbeatInterval = time.Hour
	cfg.WebSocket.QueueSoftLimit, cfg.WebSocket.QueueHardLimit, cfg.WebSocket.QueueStall = 1<<40, 1<<40, time.Hour
	ts := serve(b, cfg, anybody, &funcReceiver{})
	conns, _ := sinkConns(b, ts, 1)
	c := conns[0]
	o := broadcast("name", `"`+strings.Repeat("x", 50)+`"`)
	b.ReportAllocs()
	for b.Loop() {
		c.Send(o)
	}
}

// stuckConn is a logged-in connection whose socket, the sink, takes nothing
// while sink.mu is held, which it is: one frame is being written.
func stuckConn(t *testing.T, cfg Config) (*testServer, *Conn, *sink) {
	t.Helper()
	ts := serve(t, cfg, anybody, &funcReceiver{})
	conns, sinks := sinkConns(t, ts, 1)
	c, s := conns[0], sinks[0]
	eventually(t, "the upgrade is written", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.writes == 1 })
	s.mu.Lock()
	c.Send(broadcast("first", "1"))
	eventually(t, "the pump is writing", func() bool { c.wire.mu.Lock(); defer c.wire.mu.Unlock(); return c.wire.queue == nil })
	return ts, c, s
}

func TestOnlyAFullQueueThatDoesNotMoveIsASlowConsumer(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.QueueSoftLimit = 1000
	cfg.WebSocket.QueueStall = time.Hour
	_, c, s := stuckConn(t, cfg)
	defer s.mu.Unlock()
	w := &c.wire
	age := func() { // the queue has been seen full for more than an hour
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.watched == 0 {
			t.Error("a full queue is not watched")
		}
		w.watched -= 2 * time.Hour
	}
	small, large := broadcast("n", "1"), broadcast("n", `"`+strings.Repeat("x", 2000)+`"`)

	c.Answer(&large.Message)
	c.Send(small)
	if w.watched != 0 {
		t.Error("answers count as broadcasts")
	}
	c.Send(large)
	age()
	w.wrote(0, 10) // it moves, though the queue stays full
	c.Send(small)
	if c.Gone() {
		t.Fatal("a client that takes its broadcasts slowly was cut off")
	}
	w.wrote(0, len(large.Frame(protocol.FormBinary))-10) // and is nearly empty again
	if w.watched != 0 {
		t.Error("a queue that is not full is watched")
	}
	c.Send(large)
	age()
	c.Send(small)
	if !c.Gone() || w.reason() != SlowConsumer {
		t.Error("a client that takes nothing was not cut off")
	}
}

func TestWhatCameMeanwhileIsWrittenToo(t *testing.T) {
	_, c, s := stuckConn(t, testConfig())
	c.Send(broadcast("second", "1")) // rings not again
	s.mu.Unlock()
	eventually(t, "both are written", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.frames == 2 })
	eventually(t, "nobody is about to write", func() bool { c.wire.mu.Lock(); defer c.wire.mu.Unlock(); return !c.wire.rung })
}

func TestAClientThatIsClosedDuringItsUpgradeHearsAGoodbye(t *testing.T) {
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	s := newSink()
	s.mu.Lock() // the answer to the upgrade hangs
	ts.start(s, nil, &auth.Attempt{RemoteAddr: "127.0.0.1", Header: http.Header{"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}}, ts.speak[ts.cfg.WebSocket.URLPath])
	c := ts.Conns()[0]
	c.close(GoingAway)
	s.mu.Unlock()
	eventually(t, "it is gone", func() bool { return ts.Stats().Open == 0 })
	if !c.wire.saidGoodbye {
		t.Error("the client was left without a close frame")
	}
}

func TestNothingIsReceivedFromAClientThatWasClosed(t *testing.T) {
	received := make(chan string, 10)
	closed := make(chan *Conn, 1)
	ts, client, _ := connected(t, testConfig(), &funcReceiver{
		receive: func(c *Conn, m *protocol.Message) {
			received <- m.Name
			c.Disconnect()
		},
		closed: func(c *Conn) { closed <- c },
	})
	// Both arrive together: the second is read before the socket is closed.
	a := clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("first", "1")))
	b := clientFrame(websocket.BinaryMessage, protocol.Append(nil, emit("second", "1")))
	if _, err := client.ws.NetConn().Write(append(a, b...)); err != nil {
		t.Fatal(err)
	}
	client.wantClose(1008)
	await(t, "Closed", closed)
	eventually(t, "it is gone", func() bool { return ts.Stats().Open == 0 })
	if len(received) != 1 || <-received != "first" {
		t.Error("a message was received after the connection was closed")
	}
}

// BenchmarkReceive is what a message costs from melody's hands to the Receiver
// and back, and a ping until its PONG is queued.
func BenchmarkReceive(b *testing.B) {
	cfg := testConfig()
	cfg.WebSocket.HeartbeatInterval = time.Hour
	for name, m := range map[string]*protocol.Message{"event": emit("name", `"data"`), "ping": ping()} {
		b.Run(name, func(b *testing.B) {
			ts := serve(b, cfg, anybody, &funcReceiver{})
			conns, _ := sinkConns(b, ts, 1)
			frame := protocol.Append(nil, m)
			b.ReportAllocs()
			for b.Loop() {
				conns[0].receive(frame, true)
			}
		})
	}
}

// Answers that other clients bring about cannot be held back by the reader.
func TestAnswersOfOthersCannotFillTheMemory(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.QueueSoftLimit, cfg.WebSocket.QueueHardLimit = 64<<10, 64<<10
	ts, client, conn := connected(t, cfg, &funcReceiver{})
	client.narrow()
	answer := emit("rpc", `"`+strings.Repeat("x", 100<<10)+`"`)
	sent := 0
	for ; !conn.Gone() && sent < 1000; sent++ {
		conn.Answer(answer)
	}
	if sent < 10 || sent == 1000 {
		t.Errorf("%d answers of 100 KiB were kept for a client that reads nothing, want a MiB and what the system takes", sent)
	}
	eventually(t, "it is counted", func() bool { return ts.Stats().Closed["slow consumer"] == 1 })
}

func TestAnswersThatDoNotMoveEndTheConnection(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.QueueSoftLimit, cfg.WebSocket.QueueHardLimit = 64<<10, 1<<20
	cfg.WebSocket.QueueStall = 50 * time.Millisecond
	ts, client, conn := connected(t, cfg, &funcReceiver{})
	client.narrow()
	for range 14 { // above the four, below the sixteen
		conn.Answer(emit("rpc", `"`+strings.Repeat("x", 1<<20)+`"`))
	}
	eventually(t, "the sweep cuts it off", func() bool { return ts.Stats().Closed["slow consumer"] == 1 })
}
