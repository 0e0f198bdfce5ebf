//go:build unix

package nonblock

import (
	"bytes"
	"syscall"
	"testing"
)

func TestCallsReturnAtOnceAndSayWhatTheyDid(t *testing.T) {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Close(ends[1]); err != nil {
			t.Error(err)
		}
	}()
	for _, fd := range ends {
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	from, to := uintptr(ends[0]), uintptr(ends[1])
	b := make([]byte, 100)
	if n, errno := Recv(to, b); n != 0 || errno != syscall.EAGAIN {
		t.Errorf("reading where nothing is: %d, %v, want EAGAIN", n, errno)
	}
	if n, errno := Send(from, []byte("deep")); n != 4 || errno != 0 {
		t.Errorf("sending: %d, %v", n, errno)
	}
	if n, errno := Recv(to, b); errno != 0 || !bytes.Equal(b[:n], []byte("deep")) {
		t.Errorf("reading: %q, %v", b[:n], errno)
	}
	piece := make([]byte, 32<<10)
	full := false
	for range 10_000 {
		n, errno := Send(from, piece)
		if full = errno == syscall.EAGAIN && n == 0; full {
			break
		}
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	if !full {
		t.Error("a socket that nobody reads takes everything")
	}
	if err := syscall.Close(ends[0]); err != nil {
		t.Fatal(err)
	}
	for range 1_000_000 {
		n, errno := Recv(to, piece)
		if n == 0 {
			if errno != 0 {
				t.Errorf("at the end: %v", errno)
			}
			break
		}
	}
	if n, errno := Send(to, piece); n != 0 || errno != syscall.EPIPE {
		t.Errorf("sending to nobody: %d, %v, want EPIPE", n, errno)
	}
	if n, errno := Send(^uintptr(0), piece); n != 0 || errno != syscall.EBADF {
		t.Errorf("no descriptor: %d, %v, want EBADF", n, errno)
	}
}
