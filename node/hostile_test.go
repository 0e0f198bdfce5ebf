package node

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hadal/node/sub"
	"hadal/protocol"
)

// One client's subscriptions are counted together, whichever room keeps them.
func TestSubscriptionsOfOneClientAreBoundedOverAllTopics(t *testing.T) {
	n := run(t, func(c *Config) { c.ConnectionEndpoints[0].Options.MaxSubscriptions = 6 })
	p := login(t, n, "ada")
	ask := func(topic protocol.Topic, action protocol.Action, names ...string) {
		t.Helper()
		p.say(protocol.Message{Topic: topic, Action: action, Names: names, CorrelationID: "1", Has: protocol.HasCorrelationID})
	}
	denied := func(topic protocol.Topic, action protocol.Action, name string) {
		t.Helper()
		if m := p.hear(topic, protocol.Denied(topic)); m.Name != name || m.OriginalAction != action || !m.IsError || m.CorrelationID != "1" {
			t.Errorf("got %+v, want %s of %q denied", m, action.Name(topic), name)
		}
	}
	ask(protocol.TopicEvent, protocol.EventSubscribe, "a", "b")
	p.hear(protocol.TopicEvent, protocol.EventSubscribe)
	ask(protocol.TopicPresence, protocol.PresenceSubscribe, "ada")
	p.hear(protocol.TopicPresence, protocol.PresenceSubscribe)
	ask(protocol.TopicRPC, protocol.RPCProvide, "f")
	p.hear(protocol.TopicRPC, protocol.RPCProvide)
	ask(protocol.TopicRecord, protocol.RecordSubscribeCreateAndRead, "r/1", "r/2", "r/3")
	p.hear(protocol.TopicRecord, protocol.RecordSubscribeCreateAndRead)
	got := map[protocol.Action]int{} // in the order in which they are loaded
	for range 3 {
		got[hear(t, p.ws).Action]++
	}
	if got[protocol.RecordReadResponse] != 2 || got[protocol.RecordMessageDenied] != 1 {
		t.Errorf("three reads were answered %v, want two of them and one denied", got)
	}

	ask(protocol.TopicEvent, protocol.EventSubscribe, "c")
	denied(protocol.TopicEvent, protocol.EventSubscribe, "c")
	p.hear(protocol.TopicEvent, protocol.EventSubscribe)
	ask(protocol.TopicPresence, protocol.PresenceSubscribe, "bob")
	denied(protocol.TopicPresence, protocol.PresenceSubscribe, "bob")
	p.hear(protocol.TopicPresence, protocol.PresenceSubscribe)
	ask(protocol.TopicRPC, protocol.RPCProvide, "g")
	denied(protocol.TopicRPC, protocol.RPCProvide, "g")
	p.hear(protocol.TopicRPC, protocol.RPCProvide)
	ask(protocol.TopicRecord, protocol.RecordSubscribe, "r/4")
	denied(protocol.TopicRecord, protocol.RecordSubscribe, "r/4")
	p.hear(protocol.TopicRecord, protocol.RecordSubscribe)
	ask(protocol.TopicRecord, protocol.RecordSubscribeAndHead, "r/5")
	p.hear(protocol.TopicRecord, protocol.RecordHeadResponseBulk)
	p.hear(protocol.TopicRecord, protocol.RecordSubscribeAndHead)
	denied(protocol.TopicRecord, protocol.RecordSubscribeAndHead, "r/5")

	ask(protocol.TopicRPC, protocol.RPCUnprovide, "f")
	p.hear(protocol.TopicRPC, protocol.RPCUnprovide)
	ask(protocol.TopicEvent, protocol.EventSubscribe, "c")
	p.hear(protocol.TopicEvent, protocol.EventSubscribe)

	other := login(t, n, "bob")
	other.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"c"}})
	other.hear(protocol.TopicEvent, protocol.EventSubscribe)
	if log := n.log.String(); strings.Count(log, "raise maxSubscriptions") != 1 {
		t.Errorf("the log does not name the cure exactly once:\n%s", log)
	}
}

// What a user keeps is counted over its connections, and given back with each of them by
// every room.
func TestSubscriptionsOfOneUserAreBoundedOverAllConnections(t *testing.T) {
	const most, pattern = 16, 10 // what a short pattern counts for
	n := run(t, func(c *Config) { c.MaxSubscriptionsPerUser = most })
	subscribe := func(p *peer, names ...string) (denied int) {
		t.Helper()
		p.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: names})
		for {
			switch m, err := p.read(); {
			case err != nil:
				t.Fatal(err)
			case m.Topic == protocol.TopicEvent && m.Action == protocol.EventMessageDenied:
				denied++
			case m.Topic == protocol.TopicEvent && m.Action == protocol.EventSubscribe:
				return denied
			}
		}
	}
	first, second := login(t, n, "ada"), login(t, n, "ada")
	subscribe(first, "a")
	first.say(protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribe, Names: []string{"ada"}})
	first.hear(protocol.TopicPresence, protocol.PresenceSubscribe)
	first.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"f"}})
	first.hear(protocol.TopicRPC, protocol.RPCProvide)
	first.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribe, Names: []string{"r"}})
	first.hear(protocol.TopicRecord, protocol.RecordSubscribe)
	first.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventListen, Name: "p", Has: protocol.HasName})
	first.hear(protocol.TopicEvent, protocol.EventListen)
	var left []string
	for i := range most - 4 - pattern {
		left = append(left, fmt.Sprint("b", i))
	}
	if denied := subscribe(second, append(left, "c")...); denied != 1 {
		t.Errorf("of one more than is left %d were denied", denied)
	}
	if denied := subscribe(login(t, n, "bob"), "c", "d"); denied != 0 {
		t.Error("another user was denied something")
	}
	if log := n.log.String(); strings.Count(log, "raise maxSubscriptionsPerUser") != 1 {
		t.Errorf("the log does not name the cure exactly once:\n%s", log)
	}

	if err := first.ws.Close(); err != nil {
		t.Fatal(err)
	}
	// The node learns a moment later that it has gone, and then all of it is given back.
	var names []string
	for i := range most - len(left) {
		names = append(names, fmt.Sprint("e", i))
	}
	for began := time.Now(); subscribe(second, names...) > 0; {
		if time.Since(began) > 30*time.Second {
			t.Fatal("what a connection kept that has gone is not given back")
		}
	}
	if denied := subscribe(second, "f"); denied != 1 {
		t.Errorf("more than is left was allowed: too much has been given back")
	}
}

// Whatever takes JSON refuses what is nested beyond reason, by name, and the
// goroutines' stacks stay as they were.
func TestDeepJSONIsRefusedEverywhere(t *testing.T) {
	n := run(t, nil)
	p := login(t, n, "ada")
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	object := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	path := strings.Repeat("a.", 100_000) + "a"
	p.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"f"}})
	p.hear(protocol.TopicRPC, protocol.RPCProvide)
	record := func(a protocol.Action, path, data string) protocol.Message {
		m := protocol.Message{Topic: protocol.TopicRecord, Action: a, Name: "r", Version: -1, Path: path, Data: data,
			CorrelationID: "w", IsWriteAck: true, Has: versioned | protocol.HasData}
		if path != "" {
			m.Has |= protocol.HasPath
		}
		return m
	}
	p.say(record(protocol.RecordCreateAndUpdate, "", `{"a":{}}`))
	p.hear(protocol.TopicRecord, protocol.RecordWriteAcknowledgement)

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i, data := range []string{deep, object, deep[:100_000], object[:300_000]} {
		p.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "e", Data: data, Has: protocol.HasData})
		p.hear(protocol.TopicEvent, protocol.EventInvalidMessageData)
		p.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: "f", CorrelationID: "c", Data: data, Has: protocol.HasData})
		p.hear(protocol.TopicRPC, protocol.RPCRequestError)
		for _, m := range []protocol.Message{
			record(protocol.RecordCreateAndUpdate, "", data),
			record(protocol.RecordCreateAndPatch, "a", data),
			record(protocol.RecordPatchMulti, "", data),
			record(protocol.RecordPatchMulti, "", `[{"path":"a","data":`+data+`}]`),
			record(protocol.RecordCreateAndPatch, path, "1"),
		} {
			p.say(m)
			if got := p.hear(protocol.TopicRecord, protocol.RecordInvalidMessageData); got.Name != "r" || got.CorrelationID != "w" || !got.IsError {
				t.Errorf("%s: answered %+.80v", m.Action.Name(m.Topic), got)
			}
		}
		p.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventListen, Name: fmt.Sprint(i) + data[:4000], CorrelationID: "l", Has: protocol.HasCorrelationID})
		if _, _, err := p.ws.ReadMessage(); err != nil { // refused, or a pattern like any other
			t.Fatal(err)
		}
	}
	// A provider's answer.
	p.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: "f", CorrelationID: "d"})
	p.hear(protocol.TopicRPC, protocol.RPCRequest)
	p.say(protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCResponse, Name: "f", CorrelationID: "d", Data: deep, Has: protocol.HasData})
	p.hear(protocol.TopicRPC, protocol.RPCInvalidMessageData)
	p.hear(protocol.TopicRPC, protocol.RPCRequestError)
	runtime.ReadMemStats(&after)
	if grown := int64(after.StackInuse) - int64(before.StackInuse); grown > 8<<20 {
		t.Errorf("stacks have grown by %d bytes", grown)
	}

	// A login, which is bounded before it is read.
	for _, data := range []string{deep[:10_000] + deep[len(deep)-10_000:], deep[:15_000]} {
		ws := challenge(t, n)
		say(t, ws, &protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: data, Has: protocol.HasData})
		if m := hear(t, ws); data[len(data)-1] == '[' && m.Action != protocol.AuthInvalidMessageData {
			t.Errorf("a deep login was answered %s", m.Action.Name(m.Topic))
		}
	}
}

// challenge opens a connection that has not logged in.
func challenge(t testing.TB, n *running) *websocket.Conn {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.Addr().String()+"/deepstream", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	say(t, ws, &protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: "x"})
	hear(t, ws)
	return ws
}

func say(t testing.TB, ws *websocket.Conn, m *protocol.Message) {
	t.Helper()
	if err := ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, m)); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, ws *websocket.Conn) *protocol.Message {
	t.Helper()
	_, b, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	m := new(protocol.Message)
	if err := protocol.Decode(b, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// A frame that is anything at all, or nearly a message.
func anyFrame(rnd *rand.Rand) []byte {
	if rnd.IntN(4) == 0 {
		b := make([]byte, rnd.IntN(200))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	text := func() string {
		switch rnd.IntN(8) {
		case 0:
			return ""
		case 1:
			return strings.Repeat("x", rnd.IntN(6000))
		case 2:
			return string([]byte{byte(rnd.Uint32()), 0, byte(rnd.Uint32())})
		case 3:
			return `{"a":[1,{"b":"` + strings.Repeat("[", rnd.IntN(50)) + `"}]}`
		case 4:
			return "(a+)+$"
		case 5:
			return "hadal/x"
		default:
			return fmt.Sprint("n/", rnd.IntN(50))
		}
	}
	m := protocol.Message{
		Topic: protocol.Topic(1 + rnd.IntN(10)), Action: protocol.Action(rnd.IntN(40)),
		Name: text(), Data: text(), CorrelationID: text(), Path: text(), Subscription: text(),
		Version: int32(rnd.IntN(5)) - 1, IsWriteAck: rnd.IntN(2) == 0, IsAck: rnd.IntN(4) == 0, IsError: rnd.IntN(4) == 0,
		OriginalAction: protocol.Action(rnd.IntN(300) - 10), Has: protocol.Fields(rnd.Uint32()),
	}
	if rnd.IntN(8) > 0 { // mostly where the rooms are
		m.Topic = protocol.TopicEvent + protocol.Topic(rnd.IntN(4))
	}
	for range rnd.IntN(4) {
		m.Names = append(m.Names, text())
	}
	b := protocol.Append(nil, &m)
	switch rnd.IntN(6) {
	case 0:
		b = b[:rnd.IntN(len(b)+1)]
	case 1:
		for range 1 + rnd.IntN(3) {
			if len(b) > 0 {
				b[rnd.IntN(len(b))] = byte(rnd.Uint32())
			}
		}
	}
	return b
}

// settled is the memory in use when nothing is left to collect.
func settled() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// 100 000 frames of anything, half of them from sockets that have not logged in,
// while others are served: no mistake of ours comes to light, nothing is kept of it
// all, and the others get the right answers.
func TestRandomFramesHarmNobody(t *testing.T) {
	const (
		seed    = 20250601
		senders = 8
		frames  = 100_000 / senders / 2
		band    = 32 << 20
	)
	n := run(t, func(c *Config) {
		c.LogLevel = LogOff
		c.Records.Store = "memory" // how fast a disk is is not the question
	})
	good := newServed(t, n)
	before := settled()
	attack := func(rounds int) {
		var wg sync.WaitGroup
		for i := range senders {
			wg.Go(func() { sendAnything(t, n, rand.New(rand.NewPCG(seed, uint64(i))), false, rounds) })
			wg.Go(func() { sendAnything(t, n, rand.New(rand.NewPCG(seed, uint64(1000+i))), true, rounds) })
		}
		wg.Wait()
	}
	attack(frames)
	good.stop()
	if t.Failed() {
		t.Logf("the seed is %d", seed)
	}
	if got := n.endpoint.Stats().Panics; got != 0 {
		t.Errorf("%d panics (seed %d):\n%s", got, seed, n.log)
	}
	waitFor(t, "the senders have gone", func() bool { return n.endpoint.Stats().Open == 2 })
	waitFor(t, "their subscriptions have gone", func() bool {
		return n.eventSubs.Stats() == (sub.Stats{Names: 1, Subscriptions: 1, Refused: n.eventSubs.Stats().Refused}) && n.rpc.Stats().Providers == 0
	})
	if grown := settled() - before; grown > band {
		t.Errorf("memory has grown by %d bytes, want at most %d (seed %d)", grown, band, seed)
	}
	t.Logf("%d requests of others were answered meanwhile; memory grew by %d KiB", good.answered, (settled()-before)>>10)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// sendAnything sends that many frames, on as many connections as that takes.
func sendAnything(t *testing.T, n *running, rnd *rand.Rand, loggedIn bool, frames int) {
	for frames > 0 {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+n.Addr().String()+"/deepstream", nil)
		if err != nil {
			t.Error(err)
			return
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			for {
				if _, _, err := ws.NextReader(); err != nil {
					return
				}
			}
		}()
		if loggedIn || rnd.IntN(2) == 0 {
			for _, m := range []protocol.Message{
				{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: "x"},
				{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: `{"username":"eve"}`, Has: protocol.HasData},
			} {
				if !loggedIn && m.Topic == protocol.TopicAuth {
					break
				}
				if err := ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, &m)); err != nil {
					t.Error(err)
				}
			}
		}
		for sent := 0; frames > 0 && sent < 2000; sent++ {
			if ws.WriteMessage(websocket.BinaryMessage, anyFrame(rnd)) != nil {
				break // the server has had enough of this one
			}
			frames--
		}
		_ = ws.Close() // the next one comes
		<-drained
	}
}

// served are two clients that do what clients do, and check every answer.
type served struct {
	t        *testing.T
	over     chan struct{}
	ended    sync.WaitGroup
	answered int
}

func newServed(t *testing.T, n *running) *served {
	s := &served{t: t, over: make(chan struct{})}
	in, out := login(t, n, "ann"), login(t, n, "ben")
	in.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"good"}})
	in.hear(protocol.TopicEvent, protocol.EventSubscribe)
	s.ended.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-s.over:
				return
			default:
			}
			data, _ := json.Marshal(map[string]int{"i": i})
			out.say(protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "good", Data: string(data), Has: protocol.HasData})
			if m := in.hear(protocol.TopicEvent, protocol.EventEmit); m.Data != string(data) {
				t.Errorf("heard %s, want %s", m.Data, data)
				return
			}
			out.say(protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "good/" + fmt.Sprint(i%10),
				Version: -1, Data: string(data), CorrelationID: fmt.Sprint(i), IsWriteAck: true, Has: versioned | protocol.HasData})
			if m := out.hear(protocol.TopicRecord, protocol.RecordWriteAcknowledgement); m.CorrelationID != fmt.Sprint(i) {
				t.Errorf("acknowledged %s, want %d", m.CorrelationID, i)
				return
			}
			s.answered += 2
		}
	})
	return s
}

func (s *served) stop() {
	close(s.over)
	s.ended.Wait()
}

// Prometheus refuses numbers that have the same labels, all of them.
func TestMadeUpActionsDoNotBreakTheMetrics(t *testing.T) {
	n := run(t, nil)
	p := login(t, n, "ada")
	for _, a := range []protocol.Action{70, 71, 90} {
		p.say(protocol.Message{Topic: protocol.TopicEvent, Action: a, Name: "x"})
		p.hear(protocol.TopicParser, protocol.ParserUnknownAction)
	}
	metricsHave(t, n, `hadal_messages_in_total{action="UNKNOWN",topic="EVENT"} 3`)
}

// metricsHave says which of these lines the metrics do not have.
func metricsHave(t *testing.T, n *running, lines ...string) {
	t.Helper()
	w := httptest.NewRecorder()
	n.metrics.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range lines {
		if w.Code != http.StatusOK || !strings.Contains("\n"+w.Body.String(), "\n"+want+"\n") {
			name, _, _ := strings.Cut(want, "{")
			t.Errorf("/metrics answered %d without %s", w.Code, want)
			for line := range strings.Lines(w.Body.String()) {
				if strings.HasPrefix(line, name) {
					t.Log(line)
				}
			}
		}
	}
}
