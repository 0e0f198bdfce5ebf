package cluster

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// maxHello bounds a hello in bytes.
const maxHello = 4 << 10

// hello is what both ends of a link say first, as JSON behind four bytes of length.
// Fields may be added in any version; what a version does not know it ignores.
type hello struct {
	Cluster     string `json:"cluster"`
	ID          string `json:"id"`
	Name        string `json:"name"`
	Incarnation uint64 `json:"incarnation"`
	// To is whom the caller believes to call.
	To string `json:"to,omitempty"`
	// Min and Max are the formats that the node speaks.
	Min int `json:"minFormat"`
	Max int `json:"maxFormat"`
	// Refused is a reason, in an answer that is none; Why says it in words.
	Refused string `json:"refused,omitempty"`
	Why     string `json:"why,omitempty"`
}

// Reasons to refuse a link.
const (
	refusedClusterID   = "other cluster id"
	refusedMember      = "unknown member"
	refusedIncarnation = "older incarnation"
	refusedFormat      = "no common format"
	refusedOtherNode   = "other node"
	refusedHello       = "bad hello"
	refusedDirection   = "wrong direction"
	refusedStopping    = "stopping"
)

// writeJSON writes a short message.
func writeJSON(w io.Writer, v any, limit int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > limit {
		return fmt.Errorf("message of %d bytes, at most %d are allowed", len(b), limit)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// readJSON reads a short message, and no byte more.
func readJSON(r io.Reader, v any, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if uint64(n) > uint64(limit) {
		return refuse(refusedHello, "message of %d bytes, at most %d are allowed", n, limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return refuse(refusedHello, "message is not understood: %v", err)
	}
	return nil
}

// hello is this node's.
func (l *Links) hello() hello {
	return hello{
		Cluster: l.self.ClusterID, ID: l.self.ID, Name: l.self.Name, Incarnation: l.self.Incarnation,
		Min: l.min, Max: l.max,
	}
}

// helloTime is how long a hello may take.
func (l *Links) helloTime() time.Duration { return 3 * l.cfg.Keepalive }

// format is the highest that both speak.
func (l *Links) format(h hello) (int, error) {
	format := min(l.max, h.Max)
	if format < l.min || format < h.Min {
		return 0, refuse(refusedFormat, "node %s (%s) speaks formats %d to %d, this one %d to %d; upgrade node by node, one version at a time",
			h.Name, h.ID, h.Min, h.Max, l.min, l.max)
	}
	return format, nil
}

// certifiedNode is the node id in the certificate behind a connection, or empty.
func certifiedNode(conn net.Conn) string {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return ""
	}
	if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
		return peerOf(certs[0]).node
	}
	return ""
}

// check is what both ends hold against a hello.
func (l *Links) check(conn net.Conn, h hello) error {
	if id := certifiedNode(conn); id != "" && id != h.ID {
		return refuse(refusedOtherNode, "node %q shows the certificate of node %q", h.ID, id)
	}
	if h.Cluster != l.self.ClusterID {
		return refuse(refusedClusterID, "node %s (%s) belongs to cluster id %q, this one to %q", h.Name, h.ID, h.Cluster, l.self.ClusterID)
	}
	_, err := l.format(h)
	return err
}

// call dials a peer.
func (l *Links) call(ctx context.Context, p *linkPeer) (*link, error) {
	l.mu.Lock()
	addr, known := p.addr, p.incarnation
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, l.helloTime())
	defer cancel()
	conn, err := l.dial(ctx, addr.Addr)
	if err != nil {
		return nil, err
	}
	// While we say hello, the end of ctx ends the connection.
	stop := context.AfterFunc(ctx, func() { hangUp(conn) })
	h, err := l.greet(conn, p.id, known)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		hangUp(conn)
		return nil, err
	}
	return l.newLink(p, conn, h)
}

// greet says hello and hears the answer.
func (l *Links) greet(conn net.Conn, to string, known uint64) (hello, error) {
	mine := l.hello()
	mine.To = to
	var h hello
	if err := writeJSON(conn, mine, maxHello); err != nil {
		return h, remoteAlert(err)
	}
	if err := readJSON(conn, &h, maxHello); err != nil {
		return h, fmt.Errorf("no answer to hello: %w", remoteAlert(err))
	}
	if h.Refused != "" {
		return h, refuse(h.Refused, "the peer refuses the link: %s", h.Why)
	}
	if h.ID != to {
		return h, refuse(refusedOtherNode, "node %s (%s) answers at the address of node %s", h.Name, h.ID, to)
	}
	if err := l.check(conn, h); err != nil {
		return h, err
	}
	if h.Incarnation < known {
		return h, refuse(refusedIncarnation, "node %s (%s) answers as its start %d, and start %d is known", h.Name, h.ID, h.Incarnation, known)
	}
	return h, nil
}

// accept hears the hello of a connection that was made to us, and gives it to the
// peer's goroutine.
func (l *Links) accept(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { hangUp(conn) })
	defer stop()
	var h hello
	err := conn.SetDeadline(time.Now().Add(l.helloTime()))
	if err == nil {
		err = readJSON(conn, &h, maxHello)
	}
	if err == nil {
		err = l.admit(conn, h)
	}
	if err == nil {
		return // the peer's goroutine has it
	}
	var refused *refusal
	if errors.As(err, &refused) {
		answer := l.hello()
		answer.Refused, answer.Why = refused.reason, refused.text
		if werr := writeJSON(conn, answer, maxHello); werr != nil {
			err = errors.Join(err, werr)
		}
	}
	closeSoftly(conn)
	if ctx.Err() != nil {
		return
	}
	reason := refusedHungUp
	switch {
	case refused != nil:
		reason = refused.reason
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = refusedTimeout
	}
	if tell, n := l.refused.add(reason); tell {
		l.log.Warn("link refused", "peer", conn.RemoteAddr().String(), "reason", reason, "count", n, "err", err)
	}
}

// admit hands a caller to its peer's goroutine, if it may have a link.
func (l *Links) admit(conn net.Conn, h hello) error {
	if h.ID == "" || h.To != l.self.ID {
		return refuse(refusedOtherNode, "node %s (%s) calls node %s, this is %s (%s)", h.Name, h.ID, h.To, l.self.Name, l.self.ID)
	}
	if err := l.check(conn, h); err != nil {
		return err
	}
	if h.ID >= l.self.ID {
		return refuse(refusedDirection, "node %s (%s) calls, and the node with the smaller id should", h.Name, h.ID)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[h.ID]
	switch {
	case p == nil || p.gone:
		return refuse(refusedMember, "node %s (%s) is no member of the cluster that this node knows of", h.Name, h.ID)
	case h.Incarnation < p.incarnation:
		return refuse(refusedIncarnation, "node %s (%s) calls as its start %d, and start %d is known; was its data directory copied or restored?",
			h.Name, h.ID, h.Incarnation, p.incarnation)
	case p.cancel == nil:
		return refuse(refusedStopping, "%v", errNotNow)
	}
	p.incarnation = h.Incarnation
	select {
	case old := <-p.incoming:
		hangUp(old.conn)
	default:
	}
	p.incoming <- &caller{conn: conn, hello: h} // has room: only filled under mu
	if p.current != nil {
		p.current.end(endReplaced)
	}
	return nil
}

// welcome answers a caller.
func (l *Links) welcome(p *linkPeer, c *caller) (*link, error) {
	err := c.conn.SetDeadline(time.Now().Add(l.helloTime()))
	if err == nil {
		err = writeJSON(c.conn, l.hello(), maxHello)
	}
	if err != nil {
		hangUp(c.conn)
		return nil, err
	}
	return l.newLink(p, c.conn, c.hello)
}

// newLink makes a link of a connection on which both have said hello.
func (l *Links) newLink(p *linkPeer, conn net.Conn, h hello) (*link, error) {
	format, err := l.format(h)
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		hangUp(conn)
		return nil, err
	}
	return &link{
		peer: p.id, conn: conn, incarnation: h.Incarnation, format: format,
		limit: l.cfg.Queue, largest: l.cfg.MaxMessage, keepalive: l.cfg.Keepalive,
		sent: &l.sent, received: &l.received,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}, nil
}

// hangUp closes a connection at once. Close of a TLS connection would wait to say
// goodbye to a peer that reads nothing.
func hangUp(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	conn.Close()
}

// closeSoftly closes a connection so that the peer reads what was written last. The
// connection has a deadline.
func closeSoftly(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok && t.CloseWrite() == nil {
		// It closes when it has read the answer, or the deadline ends it.
		io.Copy(io.Discard, io.LimitReader(conn, maxHello))
	}
	hangUp(conn)
}
