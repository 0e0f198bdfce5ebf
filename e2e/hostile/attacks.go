package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// attack is something that strangers or clients do to harm others.
type attack struct {
	name  string
	crowd int // how many do it at once
	run   func(ctx context.Context, a *attacker)
	// memory is by how many MiB the node may grow, for the tests.
	memory int64
	// full says that the attack takes every place there is, so that nobody else can
	// log in; those who are logged in are served.
	full bool
	// counts is the metric in which the node says that it has refused some of it.
	counts string
}

var attacks = []attack{
	{name: "none"},
	{name: "mute", crowd: 8, run: mute, memory: 128},
	{name: "unlogged", crowd: 8, run: unlogged, memory: 256},
	{name: "trickle", crowd: 8, run: trickle, memory: 128},
	{name: "addresses", crowd: 8, run: addresses, memory: 256},
	{name: "logins", crowd: 32, run: guess, memory: 256},
	{name: "flood", crowd: 32, run: flood, memory: 256},
	{name: "full", crowd: 8, run: fill, memory: 256, full: true, counts: "hadal_sockets_refused_total"},
	{name: "requests", crowd: 16, run: requests, memory: 128},
	{name: "pings", crowd: 8, run: pings, memory: 128},
	{name: "fragments", crowd: 8, run: fragments, memory: 128},
	{name: "random", crowd: 8, run: random, memory: 256},
	{name: "names", crowd: 4, run: manyNames, memory: 512},
	{name: "million", crowd: 1, run: million, memory: 256, counts: "hadal_subscriptions_refused_total"},
	{name: "patterns", crowd: 4, run: patterns, memory: 512},
	{name: "deaf", crowd: 4, run: deaf, memory: 768},
	{name: "league", crowd: 1, run: league, memory: 1024},
}

func names() []string {
	var list []string
	for _, a := range attacks {
		list = append(list, a.name)
	}
	return list
}

// attacker is one of a crowd. What fails is nothing to it: it goes on.
type attacker struct {
	*victim
	n   int
	rnd *rand.Rand
}

// dial opens a socket from the attackers' address.
func (a *attacker) dial(ctx context.Context) (net.Conn, error) {
	return a.dialFrom(ctx, from(66))
}

func (a *attacker) dialFrom(ctx context.Context, d *net.Dialer) (net.Conn, error) {
	u, err := url.Parse(a.node.URL)
	if err != nil {
		return nil, err
	}
	nc, err := d.DialContext(ctx, "tcp", u.Host)
	if err == nil {
		context.AfterFunc(ctx, func() { _ = nc.Close() }) // ends every wait
	}
	return nc, err
}

// login is a client that the attacker has logged in, from an address of which the node knows
// nothing bad: logins from the attackers' own would wait behind everybody's.
func (a *attacker) login(ctx context.Context) (*target.Client, error) {
	d := from(66)
	if d.LocalAddr != nil {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 201, 0, byte(1+a.n))} // which anywhere never gives
	}
	c, err := login(ctx, d, a.node.URL, "eve"+strconv.Itoa(a.n))
	if err == nil {
		context.AfterFunc(ctx, func() { _ = c.Close() })
	}
	return c, err
}

const upgrade = "GET /deepstream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGFkYWwgbG9hZCB0ZXN0IQ==\r\n\r\n"

// frame is a WebSocket frame, masked with zeros.
func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// hold opens sockets one after the other, does something on each, and keeps the
// last few hundred of them.
func (a *attacker) hold(ctx context.Context, dialer func() *net.Dialer, do func(net.Conn) error) {
	var held [400]net.Conn
	for i := 0; ctx.Err() == nil; i = (i + 1) % len(held) {
		if held[i] != nil {
			_ = held[i].Close()
		}
		nc, err := a.dialFrom(ctx, dialer())
		if err != nil {
			continue // there is no room, for the moment
		}
		held[i] = nc
		_ = do(nc)
	}
}

func here() *net.Dialer { return from(66) }

// mute opens connections and says nothing.
func mute(ctx context.Context, a *attacker) {
	a.hold(ctx, here, func(net.Conn) error { return nil })
}

// unlogged upgrades and does not log in; half a login waits in each connection.
func unlogged(ctx context.Context, a *attacker) {
	half := string(frame(0x82, strings.Repeat("x", 30_000))[:20_000])
	a.hold(ctx, here, func(nc net.Conn) error {
		_, err := io.WriteString(nc, upgrade+half)
		return err
	})
}

// addresses is unlogged from very many addresses.
func addresses(ctx context.Context, a *attacker) {
	a.hold(ctx, a.anywhere, func(nc net.Conn) error {
		_, err := io.WriteString(nc, upgrade)
		return err
	})
}

// anywhere dials from an address that hardly anybody had before.
func (a *attacker) anywhere() *net.Dialer {
	d := from(66)
	if d.LocalAddr != nil {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, byte(1+a.rnd.IntN(200)), byte(a.rnd.IntN(256)), byte(1+a.rnd.IntN(250)))}
	}
	return d
}

// trickle sends the heads of requests byte by byte, on many connections in turn.
func trickle(ctx context.Context, a *attacker) {
	var held [100]net.Conn
	for i := 0; ctx.Err() == nil; i++ {
		nc := held[i%len(held)]
		if nc != nil {
			if _, err := io.WriteString(nc, "X"); err == nil {
				continue
			}
		}
		nc, err := a.dial(ctx)
		if err != nil {
			continue
		}
		held[i%len(held)] = nc
		_, _ = io.WriteString(nc, "POST /health-check HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nX")
	}
}

// guess tries passwords, from one address, which the node has wait soon.
func guess(ctx context.Context, a *attacker) {
	a.guessFrom(ctx, func() *net.Dialer { return from(66) })
}

// flood tries passwords from everywhere, so that only what the node spends on slow
// hashes at all holds it back.
func flood(ctx context.Context, a *attacker) { a.guessFrom(ctx, a.anywhere) }

func (a *attacker) guessFrom(ctx context.Context, dialer func() *net.Dialer) {
	for ctx.Err() == nil {
		nc, err := a.dialFrom(ctx, dialer())
		if err != nil {
			continue
		}
		msgs := string(frame(0x82, string(protocol.Append(nil, &protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: "x"}))))
		for range 3 {
			msgs += string(frame(0x82, string(protocol.Append(nil, &protocol.Message{
				Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Has: protocol.HasData,
				Data: fmt.Sprintf(`{"username":"ada","password":"%d"}`, a.rnd.Uint64()),
			}))))
		}
		_, _ = io.WriteString(nc, upgrade+msgs)
		_, _ = io.Copy(io.Discard, nc) // until the server has had enough
		_ = nc.Close()
	}
}

// fill logs in until there is no more room.
func fill(ctx context.Context, a *attacker) {
	for ctx.Err() == nil {
		c, err := target.Login(ctx, from(66), a.node.URL, fmt.Sprintf(`{"username":"ada","password":%q}`, password))
		if err != nil {
			_ = target.Pause(ctx, 10*time.Millisecond)
			continue
		}
		context.AfterFunc(ctx, func() { _ = c.Close() })
	}
}

// requests asks for health, many times in one write, and reads late.
func requests(ctx context.Context, a *attacker) {
	many := strings.Repeat("GET /health-check HTTP/1.1\r\nHost: x\r\n\r\n", 200)
	for ctx.Err() == nil {
		nc, err := a.dial(ctx)
		if err != nil {
			continue
		}
		for ctx.Err() == nil {
			if _, err := io.WriteString(nc, many); err != nil {
				break
			}
			if _, err := io.CopyN(io.Discard, nc, 20_000); err != nil {
				break
			}
		}
		_ = nc.Close()
	}
}

// flood writes the same bytes on an upgraded connection for as long as it is taken,
// reading what comes.
func (a *attacker) flood(ctx context.Context, b []byte) {
	for ctx.Err() == nil {
		nc, err := a.dial(ctx)
		if err != nil {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, nc) }() // ends with nc
		_, err = io.WriteString(nc, upgrade)
		for err == nil {
			_, err = nc.Write(b)
		}
		_ = nc.Close()
	}
}

// pings sends nothing but pings and pongs.
func pings(ctx context.Context, a *attacker) {
	one := string(frame(0x89, strings.Repeat("p", 125))) + string(frame(0x8a, ""))
	a.flood(ctx, []byte(strings.Repeat(one, 200)))
}

// fragments sends a message in fragments that never ends, most of them empty.
func fragments(ctx context.Context, a *attacker) {
	one := strings.Repeat(string(frame(0x00, "")), 100) + string(frame(0x00, "x"))
	nc := string(frame(0x02, "x")) + strings.Repeat(one, 50)
	for ctx.Err() == nil {
		a.flood(ctx, []byte(strings.Repeat(one, 50)))
		a.flood(ctx, []byte(nc))
	}
}

// random sends frames of anything, logged in.
func random(ctx context.Context, a *attacker) {
	for ctx.Err() == nil {
		c, err := a.login(ctx)
		if err != nil {
			continue
		}
		a.drain(c)
		for err == nil {
			for range 50 {
				m := protocol.Message{
					Topic: protocol.TopicEvent + protocol.Topic(a.rnd.IntN(4)), Action: protocol.Action(a.rnd.IntN(40)), Has: protocol.Fields(a.rnd.Uint32()),
					Name: fmt.Sprint("x/", a.rnd.IntN(1000)), Names: []string{fmt.Sprint("x/", a.rnd.IntN(1000)), "y"},
					Data: `{"a":1}`, Path: "a.b", CorrelationID: strconv.Itoa(a.rnd.IntN(100)), Version: -1, IsWriteAck: a.rnd.IntN(2) == 0,
				}
				c.Queue(&m)
			}
			err = c.Flush()
		}
	}
}

// drain reads what comes for a client until that has gone.
func (a *attacker) drain(c *target.Client) {
	go func() { // ends with the attack, which closes the client
		for {
			if _, err := c.Hear(); err != nil {
				return
			}
		}
	}()
}

// manyNames sends lists of as many names as fit in a message.
func manyNames(ctx context.Context, a *attacker) {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	var list []string
	for size := 0; size < 1<<20-1000; {
		name := []byte{letters[a.rnd.IntN(36)], letters[a.rnd.IntN(36)], letters[a.rnd.IntN(36)]}[:1+len(list)%3]
		list = append(list, string(name))
		size += len(name) + 2
	}
	for ctx.Err() == nil {
		c, err := a.login(ctx)
		if err != nil {
			continue
		}
		a.drain(c)
		for i := 0; err == nil; i++ {
			err = c.Say(&[]protocol.Message{
				{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: list},
				{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: list},
				{Topic: protocol.TopicPresence, Action: protocol.PresenceQuery, Names: list},
				{Topic: protocol.TopicRPC, Action: protocol.RPCUnprovide, Names: list},
				{Topic: protocol.TopicEvent, Action: protocol.EventUnsubscribe, Names: list},
				{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribe, Names: list},
			}[i%6])
		}
	}
}

// million subscribes to a million names.
func million(ctx context.Context, a *attacker) {
	c, err := a.login(ctx)
	if err != nil {
		return
	}
	a.drain(c)
	for i := 0; i < 1_000_000 && err == nil; {
		m := protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe}
		if i%2000 == 0 {
			m.Topic, m.Action = protocol.TopicPresence, protocol.PresenceSubscribe
		}
		for range 1000 {
			m.Names = append(m.Names, fmt.Sprint("a name like those that are in use/", i))
			i++
		}
		err = c.Say(&m)
	}
	<-ctx.Done()
}

// patterns listens to expressions that take very long to match, and subscribes to
// names on which they do.
func patterns(ctx context.Context, a *attacker) {
	for ctx.Err() == nil {
		c, err := a.login(ctx)
		if err != nil {
			continue
		}
		a.drain(c)
		for i := 0; err == nil; i++ {
			for j := range 20 {
				c.Queue(&protocol.Message{
					Topic: protocol.TopicEvent, Action: protocol.EventListen, CorrelationID: "1", Has: protocol.HasCorrelationID,
					Name: fmt.Sprintf("(?=%d|a)(%d|a+)+$", a.rnd.Uint32(), i*20+j),
				})
			}
			c.Queue(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{strings.Repeat("a", 100+i%3000) + "!"}})
			err = c.Flush()
			if i > 400 {
				_ = target.Pause(ctx, 50*time.Millisecond)
			}
		}
	}
}

// deaf subscribes, has events sent to itself, and does not read.
func deaf(ctx context.Context, a *attacker) {
	name := fmt.Sprint("deaf/", a.n)
	for ctx.Err() == nil {
		var err error
		for range 10 {
			var c *target.Client
			if c, err = a.login(ctx); err != nil {
				break
			}
			_ = c.Say(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{name}})
		}
		p, err := a.login(ctx)
		if err != nil {
			continue
		}
		for i := 0; i < 2000 && err == nil; i++ {
			err = p.Say(&protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: name, Has: protocol.HasData, Data: `"` + strings.Repeat("x", 60_000) + `"`})
		}
		_ = p.Close() // the others are the server's to end
	}
}

// league is a caller that reads nothing, and a provider that answers all its calls
// at once with as much as goes into a message.
func league(ctx context.Context, a *attacker) {
	for ctx.Err() == nil {
		p, err := a.login(ctx)
		if err != nil {
			continue
		}
		c, err := a.login(ctx)
		if err != nil {
			continue
		}
		if err := p.Say(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"league"}}); err != nil {
			continue
		}
		if _, err := p.Until(protocol.RPCProvide); err != nil {
			continue
		}
		const n = 1000
		for i := range n {
			c.Queue(&protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCRequest, Name: "league", CorrelationID: strconv.Itoa(i), Has: protocol.HasCorrelationID})
		}
		if err := c.Flush(); err != nil {
			continue
		}
		large := `"` + strings.Repeat("x", 1<<20-200) + `"`
		for i := 0; i < n && err == nil; i++ {
			err = p.Say(&protocol.Message{
				Topic: protocol.TopicRPC, Action: protocol.RPCResponse, Name: "league", CorrelationID: strconv.Itoa(i), Data: large,
				Has: protocol.HasCorrelationID | protocol.HasData,
			})
		}
		_, _ = p.Close(), c.Close()
	}
}
