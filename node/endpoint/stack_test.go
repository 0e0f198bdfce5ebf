//go:build !race

// With the race detector frames are half as large again.

package endpoint

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

// An idle connection is two goroutines of melody's. Go gives a new goroutine a stack of
// 2 KiB as long as those there are use 1120 bytes each on average, and 4 KiB beyond that;
// what a connection is given it keeps. Most goroutines of a busy node are these.
func TestWhatWaitsForIdleClientsNeedsLittleStack(t *testing.T) {
	const (
		clients = 100
		most    = 2 * (2048 - 928) // of the reader and the write pump; 928 is what Go keeps free
		margin  = 100              // for other goroutines, which need more
	)
	ts := serve(t, testConfig(), anybody, &funcReceiver{})
	ts.login() // what the first one starts is there
	before := scannedStacks()
	for range clients {
		ts.login()
	}
	// The last readers are on their way back from the login.
	each, began := 0, time.Now()
	for {
		if each = (scannedStacks() - before) / clients; each <= most-margin {
			return
		}
		if time.Since(began) > patience/2 {
			t.Fatalf("a connection that waits uses %d bytes of stack, want at most %d: what has grown in Conn.run or wire.Read?", each, most-margin)
		}
		runtime.Gosched()
	}
}

// scannedStacks is how many bytes of stack all goroutines use.
func scannedStacks() int {
	runtime.GC()
	s := []metrics.Sample{{Name: "/gc/scan/stack:bytes"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}
