package bench

import (
	"errors"
	"net"
	"testing"

	"hadal/bench/target"
	"hadal/protocol"
)

// testLoad is a load without a server.
func testLoad() *load {
	s := Default()
	return newLoad(s, &Scenario{}, newServer(TargetFacts{}, nil, nil, func() error { return nil }))
}

var event = &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: "e", Data: `"` + placeholder + `"`}

func TestTheLedgerKnowsWhatWasLostTwiceAndLate(t *testing.T) {
	for name, c := range map[string]struct {
		loose bool
		sent  uint64
		heard []uint64
		want  Ledger
	}{
		"all in order":    {false, 4, []uint64{0, 1, 2, 3}, Ledger{Sent: 4, Due: 4, Delivered: 4}},
		"a hole":          {false, 4, []uint64{0, 3}, Ledger{Sent: 4, Due: 4, Delivered: 2, Lost: 2}},
		"the end is lost": {false, 4, []uint64{0, 1}, Ledger{Sent: 4, Due: 4, Delivered: 2, Lost: 2}},
		"nothing came":    {false, 4, nil, Ledger{Sent: 4, Due: 4, Lost: 4}},
		"twice":           {false, 3, []uint64{0, 1, 1, 2, 0}, Ledger{Sent: 3, Due: 3, Delivered: 3, Duplicated: 2}},
		"late":            {false, 3, []uint64{0, 2, 1}, Ledger{Sent: 3, Due: 3, Delivered: 3, OutOfOrder: 1}},
		"late, and twice": {false, 3, []uint64{2, 1, 1, 0}, Ledger{Sent: 3, Due: 3, Delivered: 3, OutOfOrder: 2, Duplicated: 1}},
		"loose":           {true, 3, []uint64{2, 0, 1, 1}, Ledger{Sent: 3, Due: 3, Delivered: 3, Duplicated: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := testLoad()
			st := l.newStream(l.newSender(nil), event)
			r := l.newReceiver(nil)
			r.expect(st)
			r.seen[st.id].loose = c.loose
			st.sent.Store(c.sent)
			for _, seq := range c.heard {
				if err := r.got(stamp{st.id, seq, 0}); err != nil {
					t.Fatal(err)
				}
			}
			if got := l.ledger(); got != c.want {
				t.Errorf("ledger = %+v, want %+v", got, c.want)
			}
			if err := r.publish(); err != nil {
				t.Fatal(err)
			}
			if got := l.messages(); got != c.want.Delivered {
				t.Errorf("counted %d messages, want %d", got, c.want.Delivered)
			}
		})
	}
}

func TestAMessageOfAnotherStreamIsAnError(t *testing.T) {
	r := testLoad().newReceiver(nil)
	if err := r.got(stamp{stream: 3}); !errors.Is(err, errStranger) {
		t.Errorf("got = %v, want %v", err, errStranger)
	}
}

// loggedIn is a client whose server takes whatever it says.
func loggedIn(t *testing.T) *target.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		w := &bareWriter{subscribers: map[string][]net.Conn{}, conns: map[net.Conn]struct{}{}}
		_ = w.serve(conn)
	}()
	c, err := target.Connect(t.Context(), &net.Dialer{}, "ws://"+listener.Addr().String()+"/", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestALostMessageDoesNotEndAClosedLoop(t *testing.T) {
	l := testLoad()
	l.window = 2
	s := l.newSender(loggedIn(t))
	st := l.newStream(s, event)
	st.shared(2)
	r := [2]*receiver{l.newReceiver(nil), l.newReceiver(nil)}
	for _, r := range r {
		r.expect(st)
	}
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
	hear := func(receiver int, seq uint64, sent uint64) {
		t.Helper()
		if err := r[receiver].got(stamp{st.id, seq, 0}); err != nil {
			t.Fatal(err)
		}
		if got := st.sent.Load(); got != sent {
			t.Fatalf("after message %d at %d: %d are sent, want %d", seq, receiver, got, sent)
		}
	}
	hear(0, 0, 2)
	hear(0, 1, 2)
	hear(1, 1, 4) // 0 will not come any more, and 1 is everywhere
	hear(1, 2, 4)
	hear(0, 2, 5)
	s.stop()
	hear(1, 3, 5)
	hear(0, 3, 5) // stopped
}

func TestWhatArrivesCostsNoAllocation(t *testing.T) {
	l := testLoad()
	st := l.newStream(l.newSender(nil), event)
	r := l.newReceiver(nil)
	r.expect(st)
	hear := r.hears(protocol.TopicEvent, protocol.EventEmit)
	text := []byte(event.Data)
	seq := uint64(0)
	m := &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit}
	stamp{st.id, 0, 0}.put(text[1:])
	m.Data = string(text)
	if err := hear(m); err != nil {
		t.Fatal(err)
	}
	got := testing.AllocsPerRun(1000, func() {
		seq++
		if err := r.got(stamp{st.id, seq, 0}); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations a message, want none", got)
	}
}

func BenchmarkReceive(b *testing.B) {
	l := testLoad()
	st := l.newStream(l.newSender(nil), event)
	r := l.newReceiver(nil)
	r.expect(st)
	hear := r.hears(protocol.TopicEvent, protocol.EventEmit)
	text := []byte(event.Data)
	m := &protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit}
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		stamp{st.id, i, 0}.put(text[1:])
		m.Data = string(text)
		if err := hear(m); err != nil {
			b.Fatal(err)
		}
	}
}
