package endpoint

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/protocol"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"
)

// Receiver takes what logged-in clients send. node is it.
//
// For one connection the calls come one after another: Opened, any number of
// Receive, Closed. A panic in any of them ends that client only, and is logged.
type Receiver interface {
	// Opened is called when a client has logged in; AUTH_SUCCESSFUL is queued.
	// The client's reader waits until it returns.
	Opened(c *Conn)
	// Receive is called with each message of topic EVENT, RECORD, RPC or PRESENCE,
	// in the order sent, on the client's reader: blocking here is back-pressure
	// on this client alone. m and its Names are reused after the call; its strings
	// may be kept.
	Receive(c *Conn, m *protocol.Message)
	// Closed is called exactly once for a connection that was Opened, after Gone
	// has become true and the last Receive has returned.
	Closed(c *Conn)
}

// state is how far a connection has come (spec 06 §1).
type state uint32

const (
	stateNew state = iota
	stateChallenged
	stateOpen
	stateExpired // the login timeout has struck
)

// Conn is one client's connection. Its methods may be called from anywhere
// unless they say otherwise.
type Conn struct {
	id       uint64
	srv      *Server
	counters *counters
	remote   string
	since    time.Time
	started  int64  // since, by Server.clock
	guest    *guest // at the gate; nil for a socket that did not come through it

	session atomic.Pointer[melody.Session] // nil until the upgrade is answered
	state   atomic.Uint32
	user    atomic.Pointer[auth.User] // nil until login
	heardAt atomic.Int64              // Server.clock at the last read
	atLimit atomic.Bool               // it was refused by Reserve before
	busy    atomic.Bool               // the reader handles a message: it cannot hear
	kept    atomic.Int64              // see Reserve
	seat    *seat                     // its user's, once it is Opened; nil where nothing is bounded
	sdk     atomic.Pointer[string]
	tied    any                     // see Attach
	dialect *Dialect                // what it speaks
	codec   Codec                   // how, unless that is the binary protocol
	hear    func(*protocol.Message) // of a codec that is a Listener; else nil
	follow  Follower                // the codec, if it is one
	pinged  atomic.Int64            // Server.clock at the last ping, where the server pings
	quiet   atomic.Int64            // how long it may be silent, in nanoseconds: see Patience
	form    protocol.Form           // of broadcasts; set before login, by the reader
	most    int                     // see Takes; likewise

	// Of the reader alone:

	login     sync.WaitGroup // the login under way, if there is one, which ends with its verdict
	visit     *auth.Attempt  // what the upgrade request says, until login and but for one under way; not to be changed
	strays    int            // messages before login that should not be
	attempts  int            // of the login goroutine, one of which runs at a time
	uncounted int            // refusals that were no attempt; likewise

	unwanted string // why it may not log in, as JSON text; empty if it may. The reader's too

	wire wire
}

// ID is unique among all connections this process has had.
func (c *Conn) ID() uint64 { return c.id }

// User is who logged in; nil before login. After it only Renew changes it, and never
// its ID.
func (c *Conn) User() *auth.User { return c.user.Load() }

// Renew has what the client may do follow from u, who has the ID of User: from its next
// message on, and for what rules are asked meanwhile. It says false, and does nothing,
// when the client has not logged in, or as somebody else.
func (c *Conn) Renew(u *auth.User) bool {
	was := c.user.Load()
	return was != nil && was.ID == u.ID && c.user.CompareAndSwap(was, u)
}

// RemoteAddr is the client's IP address, as far as the operator's trustedProxies
// let it be known.
func (c *Conn) RemoteAddr() string { return c.remote }

// Since is when the client connected.
func (c *Conn) Since() time.Time { return c.since }

// Attach ties something of the receiver's to the connection. It is for Opened only.
func (c *Conn) Attach(v any) { c.tied = v }

// Attached is what Attach was given; only from within Receive and Closed.
func (c *Conn) Attached() any { return c.tied }

// SDK is the client's own word on what it is, such as "javascript/7.0.5"; empty
// before its challenge.
func (c *Conn) SDK() string {
	if s := c.sdk.Load(); s != nil {
		return *s
	}
	return ""
}

// WantsWhole says that the client hears whole records only (sub.WantsWhole). It is so from the
// login on.
func (c *Conn) WantsWhole() bool { return c.form.WantsWhole() }

// Gone says that the connection has ended: from the moment it is true nothing
// new reaches the client.
func (c *Conn) Gone() bool { return c.wire.gone.Load() }

// Answer queues a reply to something this client asked for. It never blocks,
// and does nothing after the client has gone. m is encoded before it returns.
func (c *Conn) Answer(m *protocol.Message) {
	if c.Gone() {
		return
	}
	c.counters.sent(m)
	if c.hear != nil {
		c.hear(m)
	}
	c.push(c.answer(m), true, m.Alone)
	c.behind(m, true)
}

// push queues a frame, if there is one: not every dialect has words for everything.
func (c *Conn) push(b []byte, answer, alone bool) {
	switch {
	case len(b) == 0:
	case c.most > 0 && len(b) > c.most:
		c.counters.oversize.Add(1)
	default:
		c.wire.push(b, answer, alone)
	}
}

// AnswerShared is Answer for what several clients may ask for: its bytes are
// shared by all of them.
func (c *Conn) AnswerShared(o *protocol.Outbound) {
	if c.Gone() {
		return
	}
	c.counters.sent(&o.Message)
	if c.hear != nil {
		c.hear(&o.Message)
	}
	if chooser, ok := c.codec.(Chooser); ok && chooser.Distinct(&o.Message) {
		c.push(c.answer(&o.Message), true, false)
	} else {
		c.push(o.Frame(c.form), true, false)
	}
	c.behind(&o.Message, true)
}

// Send queues a broadcast. It never blocks and may be called under a lock. A
// client too slow for its broadcasts is cut off.
func (c *Conn) Send(o *protocol.Outbound) {
	if c.Gone() {
		return
	}
	c.counters.sent(&o.Message)
	if c.hear != nil {
		c.hear(&o.Message)
	}
	c.push(o.Frame(c.form), false, o.Alone)
	c.behind(&o.Message, false)
}

// behind queues what the codec adds behind a message.
func (c *Conn) behind(m *protocol.Message, answer bool) {
	if c.follow != nil {
		c.follow.Behind(m, func(b []byte) { c.push(b, answer, false) })
	}
}

// Pace blocks while more bytes of answers wait for the client than
// queueSoftLimit, or until it has gone. Only from within Receive, and for the reader of a
// Plain connection.
func (c *Conn) Pace() { c.wire.pace(c.dialect.Options.QueueSoftLimit) }

// Reserve counts n more of what the server keeps for this client (sub.Client), up
// to maxSubscriptions, and for its user up to maxSubscriptionsPerUser. It never blocks.
func (c *Conn) Reserve(n int) bool {
	most := c.dialect.Options.MaxSubscriptions
	switch {
	case c.kept.Add(int64(n)) > int64(most) && most > 0:
		c.overreached("client is refused more subscriptions: if it needs them, raise maxSubscriptions", int64(most))
	case !c.srv.seats.reserve(c.seat, n):
		c.overreached("client is refused more subscriptions: if its user needs them, raise maxSubscriptionsPerUser", c.srv.seats.kept)
	default:
		return true
	}
	c.kept.Add(-int64(n))
	return false
}

// overreached tells the operator, once for each client.
func (c *Conn) overreached(text string, limit int64) {
	if !c.atLimit.CompareAndSwap(false, true) {
		return
	}
	user := ""
	if u := c.User(); u != nil {
		user = u.ID
	}
	c.srv.log.Warn(text, "conn", c.id, "user", user, "limit", limit)
}

// Release gives back what was reserved.
func (c *Conn) Release(n int) {
	c.kept.Add(-int64(n))
	c.srv.seats.release(c.seat, n)
}

// Disconnect closes the connection on an operator's word, after what waits for
// the client was written.
func (c *Conn) Disconnect() { c.End(Disconnected) }

// End closes the connection for a reason that others than this room have, after what
// waits for the client was written. It never blocks; the first reason counts.
func (c *Conn) End(why Reason) { c.close(why) }

// close says goodbye: what is queued is written, then a close frame.
func (c *Conn) close(why Reason) {
	if !c.wire.end(why) {
		return
	}
	if c.wire.plain {
		go c.wire.goodbye() // ends with the socket
		return
	}
	if s := c.session.Load(); s != nil {
		sayGoodbye(s, why)
	} // else connected does, as soon as there is a session
}

// sayGoodbye sends a close frame behind all that waits.
func sayGoodbye(s *melody.Session, why Reason) {
	// Only melody.ErrSessionClosed: then the pumps are ending by themselves.
	_ = s.CloseWithMsg(websocket.FormatCloseMessage(why.code(), why.String()))
}

// connected is called by melody when the upgrade was answered, before its pumps
// start.
func (c *Conn) connected(s *melody.Session) {
	// The request, with its headers, would live as long as the session.
	s.Request = sessionRequest
	c.wire.upgraded = true
	c.wire.lent.free()
	c.wire.lent = nil
	c.session.Store(s)
	c.wire.open.Store(true)
	if c.wire.more() { // rung in vain, before there was a pump
		c.wire.ring()
	}
	c.greet()
	if c.Gone() { // already: the server is going away
		sayGoodbye(s, c.wire.reason())
	}
}

// drop cuts the client off. It does not block.
func (c *Conn) drop(why Reason) {
	if c.wire.end(why) {
		c.wire.abort()
	}
}

// messages holds the structs that messages are decoded into.
var messages = sync.Pool{New: func() any { return new(protocol.Message) }}

// receive is called by melody's read pump for each message; binary is its kind.
func (c *Conn) receive(b []byte, binary bool) {
	defer c.recovered("message")
	c.busy.Store(true)
	defer c.busy.Store(false)
	c.awaitVerdict()
	if c.Gone() {
		return
	}
	if binary != c.dialect.Binary {
		c.close(map[bool]Reason{false: TextFrame, true: BinaryFrame}[binary])
		return
	}
	if c.codec != nil {
		c.decode(b)
		return
	}
	m := messages.Get().(*protocol.Message)
	if err := protocol.Decode(b, m); err != nil {
		c.counters.undecodable.Add(1)
		c.undecodable(err)
	} else {
		c.counters.received(m)
		m.Alone = c.wire.in.alone(len(b))
		c.handle(m)
	}
	// Empty, or the pool would keep the frame alive; but with room for names.
	clear(m.Names)
	*m = protocol.Message{Names: m.Names[:0]}
	messages.Put(m)
	c.Pace()
}

// handle is the table of spec 06 §1.
func (c *Conn) handle(m *protocol.Message) {
	switch state(c.state.Load()) {
	case stateOpen:
		switch {
		case m.Topic >= protocol.TopicEvent && m.Topic <= protocol.TopicPresence:
			c.srv.to.Receive(c, m)
		case m.Topic == protocol.TopicConnection && m.Action == protocol.ConnectionPing:
			c.tell(protocol.TopicConnection, protocol.ConnectionPong, m.Alone)
		case c.pongs(m):
		default:
			c.unknownTopic(m.Action)
		}
	case stateChallenged:
		switch {
		case m.Topic == protocol.TopicAuth:
			c.handleAuth(m)
		case m.Topic == protocol.TopicConnection && m.Action == protocol.ConnectionPing:
			// No answer before login (spec 15, trap 23).
		case c.pongs(m):
		default:
			c.say(protocol.TopicAuth, protocol.AuthInvalidMessage)
			c.stray()
		}
	case stateNew:
		switch {
		case m.Topic != protocol.TopicConnection:
			c.say(protocol.TopicConnection, protocol.ConnectionInvalidMessage)
			c.stray()
		case m.Action == protocol.ConnectionChallenge:
			c.challenged(m)
		case m.Action == protocol.ConnectionPing:
		default:
			c.srv.log.Debug("connection message before the challenge", "conn", c.id,
				"action", m.Action.Name(m.Topic))
			c.stray()
		}
	}
}

// pongs says whether m answers a ping of ours: it was heard, which is all.
func (c *Conn) pongs(m *protocol.Message) bool {
	return c.dialect.Greets && m.Topic == protocol.TopicConnection && m.Action == protocol.ConnectionPong
}

// undecodable answers a frame that is no message: as a message of a topic that
// nobody expects (spec 01 §2).
func (c *Conn) undecodable(err error) {
	c.srv.log.Debug("undecodable frame", "conn", c.id, "err", err)
	switch state(c.state.Load()) {
	case stateOpen:
		c.say(protocol.TopicParser, protocol.ParserUnknownTopic)
	case stateChallenged:
		c.say(protocol.TopicAuth, protocol.AuthInvalidMessage)
		c.stray()
	case stateNew:
		c.say(protocol.TopicConnection, protocol.ConnectionInvalidMessage)
		c.stray()
	}
}

// unknownTopic answers what no room is there for.
//
//go:noinline
func (c *Conn) unknownTopic(a protocol.Action) { // a Message is large: not on handle's stack
	c.Answer(&protocol.Message{
		Topic: protocol.TopicParser, Action: protocol.ParserUnknownTopic,
		Has: protocol.HasOriginalAction, OriginalAction: a,
	})
}

// say answers with a message that has nothing but its name, one of those below. It is
// written at once, if it can be: most are steps of a login, which come one by one.
func (c *Conn) say(t protocol.Topic, a protocol.Action) { c.tell(t, a, true) }

// tell is say for a message that is alone, or not.
func (c *Conn) tell(t protocol.Topic, a protocol.Action, alone bool) {
	if c.Gone() {
		return
	}
	if c.codec != nil {
		c.Answer(&protocol.Message{Topic: t, Action: a, Alone: alone})
		return
	}
	c.counters.out.cell(t, a).Add(1)
	c.wire.push(notices[notice{t, a}], true, alone)
}

type notice struct {
	topic  protocol.Topic
	action protocol.Action
}

// notices are the messages that say sends, as frames, which are the same in
// every form. They are made once because a PONG is all that most connections
// are sent most of the time: it costs no garbage, and needs so little stack that
// an idle connection's stays small.
var notices = func() map[notice][]byte {
	m := make(map[notice][]byte)
	for _, n := range []notice{
		{protocol.TopicParser, protocol.ParserUnknownTopic},
		{protocol.TopicConnection, protocol.ConnectionPong},
		{protocol.TopicConnection, protocol.ConnectionAccept},
		{protocol.TopicConnection, protocol.ConnectionInvalidMessage},
		{protocol.TopicConnection, protocol.ConnectionAuthenticationTimeout},
		{protocol.TopicAuth, protocol.AuthInvalidMessage},
		{protocol.TopicAuth, protocol.AuthInvalidMessageData},
		{protocol.TopicAuth, protocol.AuthTooManyAuthAttempts},
		{protocol.TopicAuth, protocol.AuthAuthSuccessful},
	} {
		m[n] = protocol.EncodeFrame(protocol.FormBinary, &protocol.Message{Topic: n.topic, Action: n.action}, "")
	}
	return m
}()

// challenged takes the client's challenge, which says what it is.
func (c *Conn) challenged(m *protocol.Message) {
	sdk := clip(m.SDKType, 32) + "/" + clip(m.SDKVersion, 32)
	c.sdk.Store(&sdk)
	if c.codec == nil {
		c.form = formFor(m.SDKType, m.SDKVersion)
	}
	c.age(m.SDKType, m.SDKVersion)
	if !c.state.CompareAndSwap(uint32(stateNew), uint32(stateChallenged)) {
		return // the login timeout was faster
	}
	if c.sentElsewhere() {
		return
	}
	c.say(protocol.TopicConnection, protocol.ConnectionAccept)
}

// clip bounds a text that anybody can choose, for the log.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// formFor chooses what a client is spoken to in. Only a JavaScript client of
// 7.1 or later is known to understand PATCH_MULTI; everybody else, and who does
// not say, gets the older form, which all understand.
func formFor(sdkType, version string) protocol.Form {
	if sdkType != "javascript" {
		return protocol.FormBinary70
	}
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, ok := number(major)
	if !ok {
		return protocol.FormBinary70
	}
	b, ok := number(minor)
	if !ok {
		return protocol.FormBinary70
	}
	if a > 7 || a == 7 && b >= 1 {
		return protocol.FormBinary
	}
	return protocol.FormBinary70
}

// number reads a short decimal number; what follows its digits ("1-beta") is
// not looked at.
func number(s string) (int, bool) {
	n, digits := 0, 0
	for ; digits < len(s) && digits < 6 && s[digits] >= '0' && s[digits] <= '9'; digits++ {
		n = n*10 + int(s[digits]-'0')
	}
	return n, digits > 0
}

// recovered, deferred, keeps a panic of a room from ending the process: the
// client is closed, the operator told, and the others go on.
func (c *Conn) recovered(during string) {
	p := recover()
	if p == nil {
		return
	}
	c.srv.panics.Add(1)
	c.srv.log.Error("panic while serving a client", "conn", c.id, "during", during,
		"err", p, "stack", string(debug.Stack()))
	c.close(Panicked)
}

// run lets melody serve the connection until it ends, and leaves nothing
// running but, for a moment, melody's write pump, whose socket is closed.
//
// All that is on the stack here stays there as long as the client does, and counts for
// every connection: see the package comment.
func (c *Conn) run() {
	defer c.srv.removed(c) // Shutdown waits for it
	c.logStart()
	h := newHandover(c)
	if err := c.srv.melody.HandleRequest(h, &h.request); err != nil {
		c.notUpgraded(err)
	}
	c.ended()
}

// notUpgraded notes that there is no session.
//
//go:noinline
func (c *Conn) notUpgraded(err error) { // not on run's stack
	c.wire.end(ConnectionLost)
	c.srv.log.Debug("upgrade failed", "conn", c.id, "err", err)
}

// logStart says who came.
//
//go:noinline
func (c *Conn) logStart() { // not on run's stack
	if log := c.srv.log; log.Enabled(context.Background(), slog.LevelDebug) {
		log.Debug("client connected", "event", "INCOMING_CONNECTION", "conn", c.id, "remote", c.remote, "dialect", c.dialect.Name)
	}
}

// closed tells the receiver.
func (c *Conn) closed() {
	defer c.recovered("close")
	c.srv.to.Closed(c)
}

// logEnd says who went and why.
func (c *Conn) logEnd() {
	why := c.wire.reason()
	level := why.level()
	user := ""
	if u := c.user.Load(); u != nil {
		user = u.ID
	} else if why != Panicked {
		level = slog.LevelDebug // strangers must not fill the log
	}
	log := c.srv.log
	if log.Enabled(context.Background(), level) {
		log.Log(context.Background(), level, "client disconnected", "event", "CLIENT_DISCONNECTED",
			"conn", c.id, "user", user, "remote", c.remote, "reason", why.String())
	}
}
