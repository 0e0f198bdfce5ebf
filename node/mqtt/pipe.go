package mqtt

import (
	"errors"
	"net"
	"time"

	"hadal/node/endpoint"
)

// pipe is what the broker believes to be the socket.
type pipe struct {
	session *session
	conn    *endpoint.Conn
	nc      net.Conn
}

var _ net.Conn = (*pipe)(nil)

// Read implements net.Conn.
func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.conn.Read(b)
	if bad := p.session.guard.pass(b[:n]); bad != nil {
		why := endpoint.ProtocolError
		if errors.Is(bad, errTooLarge) {
			why = endpoint.MessageTooBig
			p.session.sayBye(0x95)
		}
		p.session.ended(why)
		return 0, bad
	}
	if err != nil {
		p.session.ended(endpoint.ConnectionLost)
	}
	return n, err
}

// Write implements net.Conn: each call is a whole packet.
func (p *pipe) Write(b []byte) (int, error) { return p.conn.Write(b) }

// Close implements net.Conn. What was written still goes out.
func (p *pipe) Close() error {
	p.session.ended(endpoint.ProtocolError) // unless there is another reason
	p.conn.End(p.session.reason())
	return nil
}

// LocalAddr implements net.Conn.
func (p *pipe) LocalAddr() net.Addr { return p.nc.LocalAddr() }

// RemoteAddr implements net.Conn.
func (p *pipe) RemoteAddr() net.Addr { return p.nc.RemoteAddr() }

// SetDeadline does nothing: the sweep of the endpoint says who is silent for too long.
func (p *pipe) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing; see SetDeadline.
func (p *pipe) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing; see SetDeadline.
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
