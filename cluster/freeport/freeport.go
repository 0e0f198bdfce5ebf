// Package freeport finds ports for tests that must name a port before it is listened on, or
// that listen on one again after a while.
//
// Port 0 does not do for those: it gives a port out of the range from which the system takes
// the ports of outgoing connections, so that while nobody listens, a connection of any
// process may come to sit on it, or one that is dialed to it may be connected to itself.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// first and count are the range that ports are taken from, below the one for outgoing
// connections.
const first, count = 20000, 12000

// attempts is how many ports are tried for each that is wanted.
const attempts = 200

// Claim returns addresses on loopback, "127.0.0.1:PORT", that nobody listens on by TCP,
// neither on the port nor on the next one. Until release is called no other Claim, of
// any process, returns either.
func Claim(n int) (addrs []string, release func(), err error) {
	var claims []net.PacketConn
	release = func() {
		for _, c := range claims {
			c.Close()
		}
	}
	for range n * attempts {
		if len(addrs) == n {
			break
		}
		port := first + rand.IntN(count-1)
		pair, err := claimPair(port)
		if err != nil {
			continue // in use
		}
		claims = append(claims, pair...)
		addrs = append(addrs, address(port))
	}
	if len(addrs) < n {
		release()
		return nil, nil, errors.New("no free port found")
	}
	return addrs, release, nil
}

func address(port int) string { return fmt.Sprint("127.0.0.1:", port) }

// claimPair claims a port and the next. What tells other processes so is a socket for
// datagrams: it has a port of that number to itself, and leaves the one for TCP alone.
func claimPair(port int) (claims []net.PacketConn, err error) {
	defer func() {
		if err != nil {
			for _, c := range claims {
				c.Close()
			}
		}
	}()
	for _, p := range []int{port, port + 1} {
		c, err := net.ListenPacket("udp", address(p))
		if err != nil {
			return claims, err
		}
		claims = append(claims, c)
		l, err := net.Listen("tcp", address(p))
		if err != nil {
			return claims, err
		}
		if err := l.Close(); err != nil {
			return claims, err
		}
	}
	return claims, nil
}
