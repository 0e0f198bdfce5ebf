//go:build linux

package main

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketIn opens a UDP socket in a namespace.
func socketIn(t *testing.T, netns, host string) *net.UDPConn {
	t.Helper()
	type result struct {
		conn *net.UDPConn
		err  error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its goroutine
		f, err := os.Open("/run/netns/" + netns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			made <- result{err: err}
			return
		}
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(host)})
		_ = f.Close()
		made <- result{conn, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	return r.conn
}

// arrives sends until something arrives, or long enough.
func arrives(t *testing.T, from, to *net.UDPConn, within time.Duration) bool {
	t.Helper()
	b := make([]byte, 16)
	for give := time.Now().Add(within); time.Now().Before(give); {
		if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := to.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := to.ReadFrom(b); err == nil {
			return true
		}
	}
	return false
}

func TestCutLosesOneDirectionUntilHealed(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv(noRootEnv) == "1" {
			t.Logf("left out, because it needs root and %s=1 is set", noRootEnv)
			return
		}
		t.Fatalf("this test needs root; %s=1 leaves it out", noRootEnv)
	}
	w, err := newNetwork(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	var at [3]*net.UDPConn
	for i := range at {
		at[i] = socketIn(t, w.netns(i), w.host(i))
	}
	const long = 10 * time.Second
	if !arrives(t, at[0], at[1], long) || !arrives(t, at[1], at[0], long) {
		t.Fatal("nothing arrives in a network that is whole")
	}
	if err := w.cut(0, 1); err != nil {
		t.Fatal(err)
	}
	if arrives(t, at[0], at[1], 300*time.Millisecond) {
		t.Error("something arrives where the network is cut")
	}
	if !arrives(t, at[1], at[0], long) || !arrives(t, at[0], at[2], long) {
		t.Error("nothing arrives where the network is whole")
	}
	if err := w.heal(); err != nil {
		t.Fatal(err)
	}
	if !arrives(t, at[0], at[1], long) {
		t.Error("nothing arrives in a network that is healed")
	}
}
