package endpoint

import (
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"hadal/protocol"
)

func TestAClientThatDoesNotReadHoldsUpNobodyOfItsWriter(t *testing.T) {
	cfg := testConfig()
	cfg.WebSocket.QueueHardLimit, cfg.WebSocket.QueueStall = 1<<30, time.Hour
	ts, stuck, conn := connected(t, cfg, &funcReceiver{})
	stuck.narrow()
	large := broadcast("n", `"`+strings.Repeat("x", largeFrame/2)+`"`)
	for waiting(conn) < 8<<20 {
		conn.Send(large)
	}
	// Connections take turns with the writers, so one of these has the writer of the first.
	for range ts.writers {
		other := ts.login()
		for _, c := range ts.Conns() {
			if c != conn {
				c.Send(broadcast("n", "1"))
			}
		}
		other.want("EVENT.EMIT 1")
	}
	if conn.Gone() {
		t.Error("the client that does not read was cut off, so it held up nobody")
	}
}

func TestABroadcastIsQueuedAndWrittenWithoutGarbage(t *testing.T) {
	_, client, conn := connected(t, testConfig(), &funcReceiver{})
	go func() { _, _ = io.Copy(io.Discard, client.ws.NetConn()) }() // ends with the client
	for name, o := range map[string]*protocol.Outbound{"by the writer": broadcast("n", "1"), "at once": alone("n", "1")} {
		o.Frame(conn.form) // the first one to ask has it made
		idle(t, conn)
		if n := testing.AllocsPerRun(1000, func() {
			conn.Send(o)
			for waiting(conn) > 0 {
				runtime.Gosched()
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
