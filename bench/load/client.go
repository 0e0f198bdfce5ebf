package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"hadal/protocol"
)

// client is one logged-in connection. One goroutine writes, one reads.
type client struct {
	nc  net.Conn
	in  *bufio.Reader
	out []byte // the frames written next
	buf []byte // the frame read last
	msg protocol.Message
}

// connect upgrades, passes the challenge and logs in without a password.
func connect(ctx context.Context, address, user string) (*client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	c := &client{nc: nc, in: bufio.NewReaderSize(nc, 4096)}
	if err := c.login(u, user); err != nil {
		return nil, errors.Join(fmt.Errorf("log in: %w", err), nc.Close())
	}
	return c, nil
}

func (c *client) login(u *url.URL, user string) error {
	_, err := fmt.Fprintf(c.nc, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGFkYWwgbG9hZCB0ZXN0IQ==\r\n\r\n", u.RequestURI(), u.Host)
	if err != nil {
		return err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade answered %s", res.Status)
	}
	for _, m := range []protocol.Message{
		{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: u.String(), ProtocolVersion: "0.1a", SDKVersion: "7.1.0", SDKType: "javascript"},
		{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: fmt.Sprintf(`{"username":%q}`, user)},
	} {
		if err := c.say(&m); err != nil {
			return err
		}
		got, err := c.hear()
		if err != nil {
			return err
		}
		if got.Action != protocol.ConnectionAccept && got.Action != protocol.AuthAuthSuccessful {
			return fmt.Errorf("heard %s %s", got.Topic, got.Action.Name(got.Topic))
		}
	}
	return nil
}

// queue adds a message to the next write. Frames are masked with zeros, which
// is allowed and leaves the payload as it is.
func (c *client) queue(m *protocol.Message) {
	n := protocol.Size(m)
	c.out = append(c.out, 0x82)
	switch {
	case n < 126:
		c.out = append(c.out, 0x80|byte(n))
	case n < 1<<16:
		c.out = binary.BigEndian.AppendUint16(append(c.out, 0x80|126), uint16(n))
	default:
		c.out = binary.BigEndian.AppendUint64(append(c.out, 0x80|127), uint64(n))
	}
	c.out = append(c.out, 0, 0, 0, 0)
	c.out = protocol.Append(c.out, m)
}

// flush writes what was queued.
func (c *client) flush() error {
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *client) say(m *protocol.Message) error {
	c.queue(m)
	return c.flush()
}

// hear reads the next message; it is valid until the next call.
func (c *client) hear() (*protocol.Message, error) {
	var h [10]byte
	if _, err := io.ReadFull(c.in, h[:2]); err != nil {
		return nil, err
	}
	n := uint64(h[1] & 0x7f)
	switch n {
	case 126:
		if _, err := io.ReadFull(c.in, h[2:4]); err != nil {
			return nil, err
		}
		n = uint64(binary.BigEndian.Uint16(h[2:4]))
	case 127:
		if _, err := io.ReadFull(c.in, h[2:10]); err != nil {
			return nil, err
		}
		n = binary.BigEndian.Uint64(h[2:10])
	}
	if n > 1<<26 {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if uint64(cap(c.buf)) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	if _, err := io.ReadFull(c.in, c.buf); err != nil {
		return nil, err
	}
	if h[0]&0x0f != 2 {
		return nil, fmt.Errorf("closed by the server: %q", c.buf)
	}
	if err := protocol.Decode(c.buf, &c.msg); err != nil {
		return nil, err
	}
	return &c.msg, nil
}

// until reads until a message of that action comes.
func (c *client) until(a protocol.Action) error {
	for {
		m, err := c.hear()
		if err != nil {
			return err
		}
		if m.IsError {
			return fmt.Errorf("heard %s %s for %q", m.Topic, m.Action.Name(m.Topic), m.Name)
		}
		if m.Action == a {
			return nil
		}
	}
}
