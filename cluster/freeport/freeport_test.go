package freeport

import (
	"net"
	"strconv"
	"testing"
)

func TestNobodyElseGetsWhatIsClaimed(t *testing.T) {
	seen := map[int]bool{}
	for range 20 {
		addrs, release, err := Claim(10)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		for _, a := range addrs {
			port := portOf(t, a)
			if seen[port] || seen[port+1] {
				t.Fatalf("%d is given away twice", port)
			}
			seen[port], seen[port+1] = true, true
			if _, err := claimPair(port); err == nil {
				t.Fatalf("%d can be claimed once more", port)
			}
			for _, p := range []int{port, port + 1} {
				l, err := net.Listen("tcp", address(p))
				if err != nil {
					t.Fatalf("what was claimed cannot be listened on: %v", err)
				}
				l.Close()
			}
		}
	}
}

func TestAPortInUseIsNotClaimed(t *testing.T) {
	addrs, release, err := Claim(1)
	if err != nil {
		t.Fatal(err)
	}
	release()
	port := portOf(t, addrs[0])
	l, err := net.Listen("tcp", address(port+1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := claimPair(port); err == nil {
		t.Error("a pair is claimed whose second port is in use")
	}
	c, err := net.ListenPacket("udp", addrs[0])
	if err != nil {
		t.Fatalf("a claim that failed left its first port claimed: %v", err)
	}
	c.Close()
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return number
}
