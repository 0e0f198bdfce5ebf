package target

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"hadal/protocol"
)

// The opcodes of WebSocket frames that a Client meets.
const (
	opBinary = 0x2
	opClose  = 0x8
)

// ErrClosed is what Hear returns when the server has sent a close frame.
var ErrClosed = errors.New("closed by the server")

// Client is one logged-in connection. One goroutine writes, one reads.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte // the frames written next
	buf  []byte // the frame read last
	msg  protocol.Message
}

// Connect upgrades, passes the challenge and logs in without a password. The
// dialer decides where from.
func Connect(ctx context.Context, d *net.Dialer, address, user string) (*Client, error) {
	return Login(ctx, d, address, fmt.Sprintf(`{"username":%q}`, user))
}

// Login is Connect with all that a login needs, as JSON. The deadline of ctx, if it
// has one, bounds all of it.
func Login(ctx context.Context, d *net.Dialer, address, params string) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, d, u)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, in: bufio.NewReaderSize(conn, 4096)}
	deadline, _ := ctx.Deadline() // none is the zero time, which is none to SetDeadline
	err = c.SetDeadline(deadline)
	if err == nil {
		err = c.login(u, params)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("log in: %w", err), conn.Close())
	}
	return c, nil
}

// From is a dialer with the loopback address of client i, for servers on loopback. A port
// that a connection had stays taken for a minute after it was closed, and one address has
// 28 000 of them.
func From(i int) *net.Dialer {
	const addresses = 250
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%addresses))}}
}

// dial connects to where a URL points, with TLS if it is one of wss.
func dial(ctx context.Context, d *net.Dialer, u *url.URL) (net.Conn, error) {
	port := u.Port()
	switch {
	case port == "" && u.Scheme == "wss":
		port = "443"
	case port == "":
		port = "80"
	}
	address := net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "wss" {
		return (&tls.Dialer{NetDialer: d}).DialContext(ctx, "tcp", address)
	}
	return d.DialContext(ctx, "tcp", address)
}

// SetDeadline has what waits for the server fail at t; the zero time is never.
func (c *Client) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

func (c *Client) login(u *url.URL, params string) error {
	_, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
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
		{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: params},
	} {
		if err := c.Say(&m); err != nil {
			return err
		}
		got, err := c.Hear()
		if err != nil {
			return err
		}
		want := protocol.ConnectionAccept
		if m.Topic == protocol.TopicAuth {
			want = protocol.AuthAuthSuccessful // whose refusal has the number of the other
		}
		if got.Topic != m.Topic || got.Action != want {
			return fmt.Errorf("heard %s %s", got.Topic, got.Action.Name(got.Topic))
		}
	}
	return nil
}

// Queue adds a message to the next write. Frames are masked with zeros, which
// is allowed and leaves the payload as it is.
func (c *Client) Queue(m *protocol.Message) {
	c.header(opBinary, protocol.Size(m))
	c.out = protocol.Append(c.out, m)
}

// header queues that of a frame of n bytes.
func (c *Client) header(opcode byte, n int) { c.out = appendHeader(c.out, opcode, n) }

func appendHeader(to []byte, opcode byte, n int) []byte {
	to = append(to, 0x80|opcode)
	switch {
	case n < 126:
		to = append(to, 0x80|byte(n))
	case n < 1<<16:
		to = binary.BigEndian.AppendUint16(append(to, 0x80|126), uint16(n))
	default:
		to = binary.BigEndian.AppendUint64(append(to, 0x80|127), uint64(n))
	}
	return append(to, 0, 0, 0, 0)
}

// Frame is a message as it goes over the wire, for QueueFrame.
func Frame(m *protocol.Message) []byte {
	return protocol.Append(appendHeader(nil, opBinary, protocol.Size(m)), m)
}

// QueueFrame adds a copy of a frame to the next write. The copy is returned, to be
// changed before the next call of anything.
func (c *Client) QueueFrame(frame []byte) []byte {
	n := len(c.out)
	c.out = append(c.out, frame...)
	return c.out[n:]
}

// Queued is how many bytes wait to be written.
func (c *Client) Queued() int { return len(c.out) }

// Buffered is how many bytes have been read from the connection and not been heard: with
// none, Hear waits.
func (c *Client) Buffered() int { return c.in.Buffered() }

// ping is a heartbeat as it goes over the wire.
var ping = Frame(&protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})

// Ping writes a heartbeat, at once and around what is queued: anybody may call it at any time.
func (c *Client) Ping() error {
	_, err := c.conn.Write(ping)
	return err
}

// Flush writes what was queued.
func (c *Client) Flush() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// Say queues a message and flushes.
func (c *Client) Say(m *protocol.Message) error {
	c.Queue(m)
	return c.Flush()
}

// Hear reads the next message; it is valid until the next call.
func (c *Client) Hear() (*protocol.Message, error) {
	opcode, err := c.frame()
	switch {
	case err != nil:
		return nil, err
	case opcode == opClose:
		return nil, fmt.Errorf("%w: %q", ErrClosed, c.buf)
	case opcode != opBinary:
		return nil, fmt.Errorf("heard a frame of type %d", opcode)
	}
	if err := protocol.Decode(c.buf, &c.msg); err != nil {
		return nil, err
	}
	return &c.msg, nil
}

// frame reads the next frame into buf.
func (c *Client) frame() (opcode byte, err error) {
	var h [10]byte
	if _, err := io.ReadFull(c.in, h[:2]); err != nil {
		return 0, err
	}
	n := uint64(h[1] & 0x7f)
	switch n {
	case 126:
		if _, err := io.ReadFull(c.in, h[2:4]); err != nil {
			return 0, err
		}
		n = uint64(binary.BigEndian.Uint16(h[2:4]))
	case 127:
		if _, err := io.ReadFull(c.in, h[2:10]); err != nil {
			return 0, err
		}
		n = binary.BigEndian.Uint64(h[2:10])
	}
	if n > 1<<26 {
		return 0, fmt.Errorf("a frame of %d bytes", n)
	}
	if uint64(cap(c.buf)) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	_, err = io.ReadFull(c.in, c.buf)
	return h[0] & 0x0f, err
}

// Until reads until a message of that action comes.
func (c *Client) Until(a protocol.Action) (*protocol.Message, error) {
	for {
		m, err := c.Hear()
		if err != nil {
			return nil, err
		}
		if m.IsError {
			return nil, fmt.Errorf("heard %s %s for %q", m.Topic, m.Action.Name(m.Topic), m.Name)
		}
		if m.Action == a {
			return m, nil
		}
	}
}

// Exchange asks n questions, or with 0 for ever, window of them in flight: when some
// have been answered, as many follow, in one write. ask queues question i, and
// heard learns of the answer to question i, answers being taken in the order
// of the questions; it may be nil.
func (c *Client) Exchange(n, window int, answer protocol.Action, ask, heard func(i int)) error {
	asked := 0
	for answered := 0; n == 0 || answered < n; {
		for ; asked < answered+window && (n == 0 || asked < n); asked++ {
			ask(asked)
		}
		if err := c.Flush(); err != nil {
			return err
		}
		for first := true; answered < asked && (first || c.in.Buffered() > 0); first = false {
			if _, err := c.Until(answer); err != nil {
				return err
			}
			if heard != nil {
				heard(answered)
			}
			answered++
		}
	}
	return nil
}

// Close ends the connection without a word.
func (c *Client) Close() error { return c.conn.Close() }

// Reset ends the connection so that the server gets an error instead of an end.
func (c *Client) Reset() error {
	conn := c.conn
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	return errors.Join(conn.(*net.TCPConn).SetLinger(0), conn.Close())
}

// Leave ends the connection as WebSocket has it: a close frame, and the server's
// in return.
func (c *Client) Leave() error {
	c.header(opClose, 2)
	c.out = append(c.out, 0x03, 0xe8) // 1000, normal
	err := c.Flush()
	for err == nil {
		var opcode byte
		if opcode, err = c.frame(); opcode == opClose {
			break
		}
	}
	return errors.Join(err, c.conn.Close())
}
