package endpoint

import (
	"errors"
	"net"
	"net/http"
	"strings"

	"hadal/auth"
	"hadal/protocol"
)

// Dialect is one way to speak with clients: the binary protocol over WebSocket or another.
type Dialect struct {
	// Name is its type in the configuration, such as "ws-binary", and its label in metrics.
	Name string
	// Options are its path, times and limits. What is not WebSocket has no path here.
	Options *WebSocketConfig
	// Codec makes the codec of one connection; nil is the binary protocol.
	Codec func() Codec
	// Greets says that the server speaks first: it accepts the connection without a
	// challenge, and from then on pings every heartbeat (spec 02 §3).
	Greets bool
	// Subprotocol is what WebSocket clients must offer, and are answered; empty is none.
	Subprotocol string
	// Binary says that WebSocket clients send binary messages, not text.
	Binary bool
}

// Codec is what one connection speaks in place of the binary protocol. Decode and Frame may
// be called at the same time.
type Codec interface {
	// Form is what broadcasts are put into.
	Form() protocol.Form
	// Decode takes a frame, which is the codec's from then on, and hands on each message in
	// it. A message is reused when the call returns. An error ends the connection: it is for
	// frames that no client sends by mistake, and is logged.
	Decode(frame []byte, hand func(*protocol.Message)) error
	// Frame is an answer to the client's own request, complete as it goes to the socket. It
	// is nil when the dialect has no words for it.
	Frame(m *protocol.Message) []byte
}

// Listener is a Codec that wants to know what goes to its client. Hear is called with each
// message before it is queued, maybe under a lock of a room: it blocks not and calls no room.
type Listener interface {
	Hear(m *protocol.Message)
}

// Chooser is a Codec for whose client some answers are not what others get in the same
// form. Distinct says so of an answer that could be shared; it goes through Frame then.
type Chooser interface {
	Distinct(m *protocol.Message) bool
}

// Follower is a Codec that adds something behind messages. Behind is called after each one
// was queued, as Hear before, and queues what it likes, without a wait. It may be called for
// several messages at once: what must keep its order is queued under a lock of its own.
type Follower interface {
	Behind(m *protocol.Message, queue func([]byte))
}

// dialects are those of WebSocket by their path.
func dialects(list []Dialect) map[string]*Dialect {
	byPath := make(map[string]*Dialect, len(list))
	for i := range list {
		if d := &list[i]; d.Options.URLPath != "" {
			byPath[d.Options.URLPath] = d
		}
	}
	return byPath
}

// answers puts an answer into the words of the client, as a complete frame, or nil.
func (c *Conn) answer(m *protocol.Message) []byte {
	if c.codec != nil {
		return c.codec.Frame(m)
	}
	return protocol.EncodeFrame(c.form, m, "")
}

// decode takes a frame of a client whose dialect is not the binary one.
func (c *Conn) decode(b []byte) {
	alone := c.wire.in.alone(len(b))
	err := c.codec.Decode(b, func(m *protocol.Message) {
		c.awaitVerdict() // each message is judged by the state that those before it led to
		if c.Gone() {
			return
		}
		c.counters.received(m)
		m.Alone, alone = alone, false // what shares a frame is not alone
		c.handle(m)
		c.Pace()
	})
	if err != nil {
		c.counters.undecodable.Add(1)
		c.srv.log.Debug("undecodable frame", "conn", c.id, "dialect", c.dialect.Name, "err", err)
		c.close(ProtocolError)
	}
}

// greet says the first words of a dialect in which the server has them.
func (c *Conn) greet() {
	if !c.dialect.Greets || !c.state.CompareAndSwap(uint32(stateNew), uint32(stateChallenged)) {
		return
	}
	c.age("", "") // it does not say what it is
	if c.sentElsewhere() {
		return
	}
	c.say(protocol.TopicConnection, protocol.ConnectionAccept)
	c.ping(c.srv.clock.Load())
}

// ping asks the client whether it is there, and notes when.
func (c *Conn) ping(clock int64) {
	c.pinged.Store(clock)
	c.say(protocol.TopicConnection, protocol.ConnectionPing)
}

// Plain makes the connection of a client that does not speak WebSocket, over a socket that
// is the caller's no more. visit says who comes, as Attempt does; early is what was read of
// the socket already. Whoever calls it reads with Read, logs the client in with Login or
// Admit, hands on its messages with Receive and calls Leave last, all on one goroutine;
// d's Codec makes the frames that go out, and its Decode is not used. It is nil, and the
// socket closed, when the server is ending or has no place for the client.
func (s *Server) Plain(d *Dialect, nc net.Conn, early []byte, visit *auth.Attempt) *Conn {
	c := s.newConn(nc, early, visit, d, true)
	if c == nil {
		_ = nc.Close() // nothing was said
		return nil
	}
	s.gate.upgraded(c)
	if t, ok := tcpOf(nc).(*net.TCPConn); ok {
		// It may be one that never says anything. It fails on a socket that has gone.
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
	}
	return c
}

// Read reads what the client of a Plain connection sent; it ends when the connection does.
// Nothing is read of a client that does not take its answers (see Pace).
func (c *Conn) Read(p []byte) (int, error) {
	c.busy.Store(true) // while we wait it is us who do not listen
	c.Pace()
	c.busy.Store(false)
	return c.wire.Read(p)
}

// Write queues words of the dialect's own on a Plain connection, such as its
// acknowledgements, in the order of everything else that goes to the client. It does not
// block, and p may be used again: Read holds back a client that does not take them.
func (c *Conn) Write(p []byte) (int, error) {
	if c.Gone() {
		return 0, net.ErrClosed
	}
	c.wire.push(append([]byte(nil), p...), true, false)
	return len(p), nil
}

// Login has a client of a Plain connection log in with parameters, as JSON text, and waits
// for the verdict. It says whether the client is in; if not, it may be asked again unless
// the connection has ended.
func (c *Conn) Login(params string) bool {
	if c.Gone() || state(c.state.Load()) != stateChallenged {
		return false
	}
	c.handleAuth(&protocol.Message{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Has: protocol.HasData, Data: params})
	c.awaitVerdict()
	return state(c.state.Load()) == stateOpen && !c.Gone()
}

// Admit logs in a client of a Plain connection whose login was judged before there was one.
func (c *Conn) Admit(u *auth.User) bool {
	if c.Gone() || state(c.state.Load()) != stateChallenged {
		return false
	}
	defer c.recovered("login")
	c.open(u)
	c.visit = nil
	return state(c.state.Load()) == stateOpen && !c.Gone()
}

// errNotOpen is a message of a client that has not logged in.
var errNotOpen = errors.New("the client has not logged in")

// Receive takes a message of a client of a Plain connection. An error is one of the reader,
// who has asked before the login or after the end.
func (c *Conn) Receive(m *protocol.Message) error {
	if c.Gone() {
		return net.ErrClosed
	}
	if state(c.state.Load()) != stateOpen {
		return errNotOpen
	}
	defer c.recovered("message")
	c.busy.Store(true)
	defer c.busy.Store(false)
	c.counters.received(m)
	c.handle(m)
	c.Pace()
	return nil
}

// Leave ends a Plain connection for good: its reader has ended. What waits for the client
// is written first.
func (c *Conn) Leave() {
	defer c.srv.removed(c)
	c.ended()
}

// ended is what there is to do when a connection's reader has ended.
func (c *Conn) ended() {
	c.wire.end(ConnectionLost) // unless there is a reason already
	c.awaitVerdict()
	c.wire.in.release()
	if user := c.user.Load(); user != nil {
		c.closed()
		c.srv.seats.leave(user, c.seat)
	}
	c.logEnd()
	if c.wire.plain {
		c.wire.goodbye() // or waits for the one that is being said
	}
	c.wire.finish()
}

// offers says whether a WebSocket client offers a subprotocol.
func offers(r *http.Request, subprotocol string) bool {
	for _, v := range r.Header["Sec-Websocket-Protocol"] {
		for part := range strings.SplitSeq(v, ",") {
			if strings.TrimSpace(part) == subprotocol {
				return true
			}
		}
	}
	return false
}
