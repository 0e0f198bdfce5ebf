package record

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
)

// link is a link to another node. It is used both ways: for what clients here ask of
// owners there, and the other way round.
type link struct {
	room  *Room
	peer  string
	down  atomic.Bool              // changed under mu
	dirty atomic.Bool              // out is not empty
	heads atomic.Pointer[[]string] // of the peer's filters: see needs.go
	// under is how many bytes were sent and not yet taken by the peer; clogged says that
	// somebody waits for that to become less.
	under   atomic.Int64
	clogged atomic.Bool

	mu  sync.Mutex
	out []byte // a payload that was not sent yet; guarded by mu
	// introduced are the clients here that the peer has been told of, each with the user
	// that it was told. Guarded by mu.
	introduced map[uint64]*auth.User

	// The peer's clients, by their ids there, and its lane for what no client asks. Only
	// the goroutine that hears of the peer uses them.
	clients map[uint64]*peerClient
	others  *lane
	heard   int // bytes that the peer was not told of; likewise
}

// What may be under way on a link, in bytes. What an update adds is not held back: its
// order matters to others. The link has room for several times as much.
const (
	linkWindow = 16 << 20
	// linkTaken is after how many bytes the other end is told that they were taken.
	linkTaken = 256 << 10
)

// full says whether what can wait should, and has whoever asks woken when it is over.
func (l *link) full() bool {
	if l.under.Load() <= linkWindow || l.down.Load() {
		return false
	}
	l.clogged.Store(true)
	return l.under.Load() > linkWindow
}

// taken is told how many bytes the peer has taken.
func (l *link) taken(n uint64) {
	if left := l.under.Add(-int64(min(n, 1<<40))); left > linkWindow/2 || !l.clogged.Swap(false) {
		return
	}
	for _, s := range l.room.seats() {
		s.move()
		if o := s.owner.Load(); o != nil {
			o.mail.post(l.room.operators, &request{kind: kindCall, trip: &trip{call: func() { o.unstick(l) }}})
		}
	}
}

var _ cluster.Handler = (*Room)(nil)

// Up implements cluster.Handler.
func (r *Room) Up(peer string) {
	l := &link{room: r, peer: peer, introduced: make(map[uint64]*auth.User), clients: make(map[uint64]*peerClient), others: newLane()}
	l.heads.Store(new([]string))
	r.changeLinks(func(links map[string]*link) {
		links[peer] = l
		if heads := *r.heads.Load(); len(heads) > 0 {
			l.tellHeads(heads)
			l.flush()
		}
	})
	r.look()
}

// Down implements cluster.Handler.
func (r *Room) Down(peer string) {
	l := r.linkTo(peer)
	if l == nil {
		return
	}
	l.mu.Lock()
	l.down.Store(true)
	l.out = nil
	l.mu.Unlock()
	r.changeLinks(func(links map[string]*link) { delete(links, peer) })
	r.peerHeads(l, nil)
	for _, s := range r.seats() {
		if o := s.owner.Load(); o != nil {
			o.mail.post(r.operators, &request{kind: kindPeerGone, trip: &trip{peer: l}})
		}
	}
	r.scans.drop(l)
	r.look()
}

// Hear implements cluster.Handler.
func (r *Room) Hear(peer string, payload []byte) {
	l := r.linkTo(peer)
	if l == nil {
		return
	}
	if l.heard += len(payload); l.heard >= linkTaken {
		l.emit(&frame{kind: frameTaken, bytes: uint64(l.heard)})
		l.flush()
		l.heard = 0
	}
	if err := eachFrame(string(payload), l.hear); err != nil {
		r.log.Error("a message about records from a peer was not understood: do all nodes run the same version?", "peer", peer, "err", err)
	}
}

// Published implements cluster.Handler: records use no slots.
func (r *Room) Published(string, uint16, []byte) {}

// linkTo is the link to a peer, or nil.
func (r *Room) linkTo(peer string) *link { return (*r.links.Load())[peer] }

// changeLinks changes the links. Links of several peers come and go at once.
func (r *Room) changeLinks(change func(map[string]*link)) {
	r.linking.Lock()
	defer r.linking.Unlock()
	links := maps.Clone(*r.links.Load())
	change(links)
	r.links.Store(&links)
}

// flushLinks sends what was emitted.
func (r *Room) flushLinks() {
	for _, l := range *r.links.Load() {
		if l.dirty.Load() {
			l.flush()
		}
	}
}

// emit adds a frame to what will be sent with the next flush. It never blocks. What
// is emitted for one partition is emitted by one goroutine, or under the seat's lock,
// wherever its order matters.
func (l *link) emit(f *frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down.Load() {
		return
	}
	if l.out = appendFrame(l.out, f); len(l.out) >= payloadBytes {
		l.send()
		return
	}
	l.dirty.Store(true)
}

func (l *link) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.send()
}

// send sends out. When the link takes nothing any more it ends, and we are told. The
// caller holds mu.
func (l *link) send() bool {
	sent := true
	if len(l.out) > 0 && !l.down.Load() {
		l.under.Add(int64(len(l.out)))
		sent = l.room.bus.Send(l.peer, cluster.KindRecord, l.out)
	}
	if l.out = l.out[:0]; cap(l.out) > 4*payloadBytes {
		l.out = nil
	}
	l.dirty.Store(false)
	return sent
}

// forward sends the first requests of a seat's queue and returns how many; none when
// the link has ended, or is full. The caller holds the seat's mu.
func (l *link) forward(s *seat, queue []*request) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down.Load() || l.full() || !l.send() {
		return 0
	}
	n := 0
	for n < len(queue) && len(l.out) < payloadBytes {
		r := queue[n]
		n++
		s.depart(r)
		f := frame{
			kind: frameRequest, partition: s.partition, id: r.trip.id, epoch: s.epoch, request: kind(wireOf[r.kind]),
			message: protocol.Message{
				Action: r.action, Has: r.has, IsWriteAck: r.writeAck, Version: r.version, CorrelationID: r.correlationID,
				Name: r.name, Data: r.data, Path: r.path,
			},
		}
		if r.client != nil {
			f.client = r.client.ID()
			l.introduce(r.client)
		}
		l.out = appendFrame(l.out, &f)
	}
	for _, r := range queue[:n] {
		if r.client != nil && r.client.Gone() { // its Closed may have been here before
			l.leave(r.client.ID())
		}
	}
	if !l.send() {
		for _, r := range queue[:n] {
			s.take(r.trip.id)
		}
		return 0
	}
	l.room.stats.forwarded.Add(int64(n))
	return n
}

// introduce tells the peer of a client, unless it was told the same before. The caller
// holds mu.
func (l *link) introduce(c sub.Client) {
	u := c.User()
	if l.introduced[c.ID()] == u {
		return
	}
	l.introduced[c.ID()] = u
	l.out = appendFrame(l.out, &frame{kind: frameUser, client: c.ID(), user: u.ID, serverData: u.ServerData, clientData: u.ClientData})
	if sub.WantsWhole(c) {
		l.out = appendFrame(l.out, &frame{kind: frameWhole, client: c.ID()})
	}
}

// leave tells the peer that a client has gone. The caller holds mu.
func (l *link) leave(client uint64) {
	if _, known := l.introduced[client]; !known {
		return
	}
	delete(l.introduced, client)
	l.out = appendFrame(l.out, &frame{kind: frameClosed, client: client})
	l.dirty.Store(true)
}

// closed is leave.
func (l *link) closed(client uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave(client)
	l.send()
}

// wireKinds are the kinds of requests that go from node to node. Their places are part
// of the format.
var wireKinds = [...]kind{
	1: kindRead, 2: kindHead, 3: kindSubscribeAndRead, 4: kindSubscribeCreateAndRead, 5: kindSubscribeAndHeadOne,
	6: kindWrite, 7: kindDelete, 8: kindNotify, 9: kindSubscribe, 10: kindUnsubscribe,
	11: kindOperatorGet, 12: kindOperatorSet, 13: kindOperatorDelete, 14: kindSnapshot,
}

// wireOf is the other way round.
var wireOf = func() (of [256]byte) {
	for i, k := range wireKinds {
		if i > 0 {
			of[k] = byte(i)
		}
	}
	return of
}()

// byOperator says whether requests of the kind come from no client.
func (k kind) byOperator() bool {
	switch k {
	case kindOperatorGet, kindOperatorSet, kindOperatorDelete, kindSnapshot:
		return true
	}
	return false
}

// peerClient is a client of another node.
type peerClient struct {
	id    uint64 // here
	there uint64 // its id on its own node
	user  *auth.User
	link  *link
	lane  *lane
	whole bool // wants whole records
}

// remote is where the answer to a request of another node goes.
type remote struct {
	link      *link
	id        uint64
	partition int
}

func (r *remote) tell(k frameKind, epoch uint64) {
	r.link.emit(&frame{kind: k, partition: r.partition, id: r.id, epoch: epoch})
}

// done says that the request is over; moved that it was not begun, and that the epoch
// is another one; refused that it was not begun and cannot be served.
func (r *remote) done()              { r.tell(frameDone, 0) }
func (r *remote) moved(epoch uint64) { r.tell(frameMoved, epoch); r.link.room.stats.moved.Add(1) }
func (r *remote) refused()           { r.tell(frameRefused, 0); r.link.flush() }

// asker is a client of another node for the time of one request.
type asker struct {
	*peerClient
	*remote
	link *link
}

var _ sub.Client = (*asker)(nil)

// ID implements sub.Client. No client of this node has that id.
func (a *asker) ID() uint64 { return a.peerClient.id }

// User implements sub.Client.
func (a *asker) User() *auth.User { return a.user }

// Gone implements sub.Client.
func (a *asker) Gone() bool { return a.link.down.Load() }

// Answer implements sub.Client.
func (a *asker) Answer(m *protocol.Message) {
	a.link.emit(&frame{kind: frameAnswer, partition: a.partition, id: a.remote.id, message: *m})
}

// AnswerShared implements sub.Client.
func (a *asker) AnswerShared(o *protocol.Outbound) { a.Answer(&o.Message) }

// Send implements sub.Client; such a client is in no registry.
func (a *asker) Send(*protocol.Outbound) {}

// Pace implements sub.Client: its own node does that.
func (a *asker) Pace() {}

// Reserve implements sub.Client: its own node counts.
func (a *asker) Reserve(int) bool { return true }

// Release implements sub.Client.
func (a *asker) Release(int) {}

// hear takes a frame of the peer.
func (l *link) hear(f *frame) error {
	r := l.room
	switch f.kind {
	case frameUser:
		c := &peerClient{there: f.client, link: l, user: &auth.User{ID: f.user, ServerData: f.serverData, ClientData: f.clientData}}
		if was := l.clients[f.client]; was != nil {
			// The same client, whose user has changed: what it asked before stays in order, and
			// is judged as who asked it.
			c.id, c.lane, c.whole = was.id, was.lane, was.whole
		} else {
			c.id, c.lane = 1<<63|r.ids.Add(1), newLane()
		}
		l.clients[f.client] = c
		return nil
	case frameClosed:
		delete(l.clients, f.client)
		return nil
	case frameTaken:
		l.taken(f.bytes)
		return nil
	case frameHeads:
		r.peerHeads(l, f.names)
		return nil
	case frameWhole:
		if was := l.clients[f.client]; was != nil {
			c := *was // others read it
			c.whole = true
			l.clients[f.client] = &c
		}
		return nil
	}
	if f.partition >= len(r.seats()) {
		return errors.New("a partition that does not exist")
	}
	s := r.seats()[f.partition]
	switch f.kind {
	case frameRequest:
		l.asked(s, f)
	case frameForget:
		req := &request{kind: kindForget, name: f.message.Name, trip: &trip{peer: l, id: f.id}}
		if o := s.owner.Load(); o != nil && o.epoch == f.epoch {
			_ = o.mail.force(l.others, req) // an owner that ends forgets everything
		}
	case frameLight:
		if o := s.owner.Load(); o != nil && o.epoch == f.epoch {
			name, id := f.message.Name, f.id
			_ = o.mail.force(l.others, &request{kind: kindCall, trip: &trip{call: func() { o.lighten(name, l, id) }}}) // as above
		}
	case frameResync:
		req := &request{kind: kindResyncMany, names: f.names, trip: &trip{knows: f.knows}, remote: &remote{l, f.id, s.partition}}
		l.accept(s, l.others, req, f.epoch)
	case frameScan, frameMore, frameStop, framePage:
		r.scans.hear(l, s, f)
	default:
		s.hear(l, f)
	}
	return nil
}

// asked takes a request of the peer.
func (l *link) asked(s *seat, f *frame) {
	r := l.room
	r.stats.received.Add(1)
	m := &f.message
	req := &request{
		name: m.Name, action: m.Action, correlationID: m.CorrelationID, has: m.Has, writeAck: m.IsWriteAck,
		version: m.Version, data: m.Data, path: m.Path, remote: &remote{l, f.id, s.partition},
	}
	if int(f.request) >= len(wireKinds) || f.request == 0 || r.partition(req.name) != s.partition {
		req.remote.refused()
		return
	}
	req.kind = wireKinds[f.request]
	lane := l.others
	switch c := l.clients[f.client]; {
	case req.kind.byOperator():
		req.reply = func(res result) { l.reply(req.remote, res) }
	case c == nil:
		req.remote.refused()
		return
	default:
		req.client = &asker{c, req.remote, l}
		lane = c.lane
	}
	if req.kind == kindWrite {
		req.came = time.Now()
		if err := r.parse(req); err != nil { // its own node would have said so
			req.remote.refused()
			l.flush()
			return
		}
	}
	l.accept(s, lane, req, f.epoch)
}

// accept hands a request to the seat if the peer keeps to its bounds.
func (l *link) accept(s *seat, lane *lane, req *request, epoch uint64) {
	if lane != l.others && !lane.tryEnter(req) {
		l.room.log.Warn("a peer has more under way for a client than it may", "peer", l.peer)
		req.remote.refused()
		return
	}
	s.accept(lane, req, epoch)
}

// failures are the errors that have a number between nodes. Only add.
var failures = []error{
	errMissing, errTooLarge, errVersionsSpent, errTooMuch, errRefusing, errFull, errUnknown, errNoLease, errNoOwner, errStopped,
	context.DeadlineExceeded,
}

// reply sends the operator's result.
func (l *link) reply(to *remote, res result) {
	f := frame{
		kind: frameReply, partition: to.partition, id: to.id,
		known: knowledge{version: res.state.version, exists: res.state.exists, sure: true, data: res.state.data},
	}
	if res.err != nil {
		f.text = res.err.Error()
		for i, known := range failures {
			if errors.Is(res.err, known) {
				f.failure = uint64(i + 1)
			}
		}
	}
	l.emit(&f)
}

// result is what a frameReply says.
func (f *frame) replied() result {
	res := result{state: state{version: f.known.version, data: f.known.data, exists: f.known.exists}}
	switch {
	case f.failure > 0 && f.failure <= uint64(len(failures)):
		res.err = failures[f.failure-1]
	case f.text != "":
		res.err = errors.New(f.text)
	}
	return res
}
