package api

import (
	"strconv"
	"sync"
	"sync/atomic"

	"hadal/auth"
	"hadal/node/sub"
	"hadal/protocol"
)

// firstID is above every id of a connection, and below those that rooms give stand-ins.
const firstID = 1 << 62

// lastID is the last id of a Client of this process.
var lastID atomic.Uint64

// Client is who one command is from: a client that lives for one message (spec 04 §9). It
// never subscribes and provides nothing, so that broadcasts do not reach it. All methods
// may be called from anywhere.
type Client struct {
	id     uint64
	caller *Caller
	gone   atomic.Bool

	command *command
	mu      sync.Mutex
	ended   bool          // result is final; guarded by mu
	result  outcome       // guarded by mu
	done    chan struct{} // closed when ended
}

var _ sub.Client = (*Client)(nil)

// Caller is who has logged in for one request.
type Caller struct {
	// User is who it is, RemoteAddr the address, as far as the operator's trustedProxies let
	// it be known.
	User       *auth.User
	RemoteAddr string
	// Tied is what the node ties to the caller in Deps.Opened.
	Tied any
}

func newClient(caller *Caller, c *command) *Client {
	return &Client{id: firstID + lastID.Add(1), caller: caller, command: c, done: make(chan struct{})}
}

// ID is unique among all connections this process has had.
func (c *Client) ID() uint64 { return c.id }

// User is who is asking.
func (c *Client) User() *auth.User { return c.caller.User }

// Attached is what was tied to the caller.
func (c *Client) Attached() any { return c.caller.Tied }

// Gone says that the command is over.
func (c *Client) Gone() bool { return c.gone.Load() }

// Answer takes what the node has to say about the command. What comes after its end is
// dropped.
func (c *Client) Answer(m *protocol.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	if result, ok := c.command.kind.answer(c.command, m); ok {
		c.end(result)
	}
}

// AnswerShared is Answer.
func (c *Client) AnswerShared(o *protocol.Outbound) { c.Answer(&o.Message) }

// Send takes broadcasts, of which there are none for who is subscribed to nothing.
func (c *Client) Send(*protocol.Outbound) {}

// Pace does not wait: each command has one answer, which is kept.
func (c *Client) Pace() {}

// Reserve is false: nothing is kept for the time after the command.
func (c *Client) Reserve(int) bool { return false }

// Release implements sub.Client.
func (c *Client) Release(int) {}

// end makes a result final. The caller holds mu.
func (c *Client) end(result outcome) {
	c.ended, c.result = true, result
	close(c.done)
}

// receive hands the command to the node. It returns when the node has taken it, which may
// take as long as it likes.
func (c *Client) receive(to Node) {
	m := c.command.message
	if m.Topic == protocol.TopicRPC || m.IsWriteAck {
		m.CorrelationID, m.Has = strconv.FormatUint(c.id, 36), m.Has|protocol.HasCorrelationID
	}
	to.Receive(c, &m)
	if c.command.kind.of == protocol.TopicEvent {
		// Who may not is told at once, so who was not told may.
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			c.end(done)
		}
	}
}
