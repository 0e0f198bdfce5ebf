package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hadal/cluster"
	"hadal/protocol"
)

// Bounds of a seat's work.
const (
	// seatBytes bounds what waits in a seat or is under way to another node; more
	// blocks the readers of this node's clients.
	seatBytes = 16 << 20
	// seatTick is how often a seat looks at what waits too long.
	seatTick = 50 * time.Millisecond
	// payloadBytes is about how much is sent in one message between nodes.
	payloadBytes = 64 << 10
	// drainTime is how long an owner that has lost the partition may take to say what
	// became of what it was sent. Nobody is served meanwhile.
	drainTime = 500 * time.Millisecond
	// silence is how long another node may keep a request without a word, when there
	// is a link to it. Its owner bounds everything to less.
	silence = appendTimeout + 2*holdTime
)

// errNoOwner means that a partition had no owner for longer than requests wait.
var errNoOwner = errors.New("nobody serves this record at the moment; try again later")

// seat is where requests for one partition wait for its owner, and from where they
// are sent to it when it is on another node. It keeps their order, whoever the owner
// is.
//
// It is in one of four states: an owner of this node serves (owner is set); this node
// is taking over, or is ending its ownership (busy); requests go to another node
// (link is set), maybe no more of them until all that were sent have come back
// (draining); or there is nobody, and requests wait.
type seat struct {
	room      *Room
	partition int
	owner     atomic.Pointer[owner] // changed under mu
	bell      chan struct{}         // wakes run

	mu     sync.Mutex
	space  *sync.Cond
	ended  bool              // guarded by mu, like all below; the room has stopped
	table  cluster.Ownership // as it was last seen
	busy   bool
	mine   uint64        // while busy: the epoch
	lost   chan struct{} // while busy: closed when the ownership ends
	isLost bool

	queue  []*request // waits, in order
	bytes  int        // of all requests that are here or were sent
	turns  uint64
	waits  []*waiter
	guests []*guest // requests of other nodes for an epoch that is not here yet

	link     *link
	epoch    uint64 // of the owner there
	sent     map[uint64]*request
	refused  []*request // came back unserved, to be sorted by id
	draining bool
	since    time.Time // of draining
	pause    time.Time // nothing is sent to the same owner before
	pauseFor cluster.Ownership

	asking  map[string]int      // subscriptions under way, by name
	known   map[string]*knowing // what subscribers here know, while the owner is elsewhere
	unknown []string            // names of known that the present owner has not been told
	rest    time.Time           // it is not told before
}

// guest is a request of another node.
type guest struct {
	lane  *lane
	req   *request
	epoch uint64
	since time.Time
}

func newSeat(r *Room, partition int) *seat {
	s := &seat{
		room: r, partition: partition, bell: make(chan struct{}, 1),
		sent: make(map[uint64]*request), asking: make(map[string]int), known: make(map[string]*knowing),
	}
	s.space = sync.NewCond(&s.mu)
	return s
}

func (s *seat) ring() {
	select {
	case s.bell <- struct{}{}:
	default: // already ringing
	}
}

// put hands requests of one lane to the owner, wherever it is, when there is room for
// them. It is false when the room has stopped.
func (s *seat) put(l *lane, reqs ...*request) bool {
	if o := s.owner.Load(); o != nil {
		err := o.mail.put(l, reqs...)
		if err == nil {
			return true
		}
		if err == errStopped {
			return false
		}
	}
	s.mu.Lock()
	for !s.ended && s.bytes >= seatBytes {
		s.space.Wait()
	}
	return s.enter(l, reqs)
}

// hold is put for what may not wait.
func (s *seat) hold(l *lane, reqs ...*request) bool {
	s.mu.Lock()
	return s.enter(l, reqs)
}

// enter takes requests in. The caller has locked mu; enter unlocks it.
func (s *seat) enter(l *lane, reqs []*request) bool {
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if o := s.owner.Load(); o != nil {
		switch o.mail.force(l, reqs...) {
		case nil:
			return true
		case errStopped:
			return false
		}
	}
	now := time.Now()
	for _, r := range reqs {
		s.admit(r, now)
		s.queue = append(s.queue, r)
	}
	s.room.stats.waited.Add(int64(len(reqs)))
	s.pump()
	if len(s.queue) > 0 {
		s.ring()
	}
	return true
}

// admit counts a request that is in the seat from now on.
func (s *seat) admit(r *request, now time.Time) {
	if r.trip == nil {
		r.trip = &trip{}
	}
	if r.trip.since.IsZero() {
		r.trip.since = now
	}
	s.turns++
	r.trip.turn = s.turns
	s.bytes += r.size()
}

// release counts a request that is not in the seat any more.
func (s *seat) release(r *request) {
	before := s.bytes
	s.bytes -= r.size()
	if before >= seatBytes {
		s.space.Broadcast()
	}
	for i := 0; i < len(s.waits); {
		w := s.waits[i]
		if r.trip.turn <= w.turn {
			w.left--
		}
		if w.over() {
			close(w.done)
			s.waits = slices.Delete(s.waits, i, i+1)
			continue
		}
		i++
	}
}

// finish ends a request that was served elsewhere.
func (s *seat) finish(r *request) {
	s.release(r)
	r.group.finish()
	r.leave()
}

// fail ends a request that nobody serves.
func (s *seat) fail(r *request, err error) {
	s.release(r)
	if r.trip.answered {
		r.group.finish()
		r.leave()
		return
	}
	switch r.kind {
	case kindUnsubscribe: // which needs nobody's consent
		s.unsubscribe(r)
		r.group.finish()
		r.leave()
	default:
		r.refuse(err)
	}
}

// patience is how long a request waits for an owner.
func (s *seat) patience(r *request) time.Duration {
	if r.kind.again() {
		return s.room.cfg.StorageRetrievalTimeout
	}
	return holdTime
}

// run moves the seat with the table until ctx ends.
func (s *seat) run(ctx context.Context) error {
	tick := time.NewTicker(seatTick)
	tick.Stop()
	defer tick.Stop()
	ticking := false
	for ctx.Err() == nil {
		if epoch, ok := s.move(); ok {
			if err := s.serve(ctx, epoch); err != nil {
				return err
			}
			continue
		}
		if busy := s.waiting(); busy != ticking {
			if ticking = busy; busy {
				tick.Reset(seatTick)
			} else {
				tick.Stop()
			}
		}
		select {
		case <-ctx.Done():
		case <-s.bell:
		case <-tick.C:
			s.expire()
		}
	}
	return nil
}

// waiting says whether time passes for somebody.
func (s *seat) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)+len(s.guests) > 0 || s.draining || len(s.unknown) > 0 || s.link == nil && !s.pause.IsZero()
}

// move looks at the table and at the links. It is ok when this node shall serve.
func (s *seat) move() (epoch uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settle()
}

// settle is move. The caller holds mu.
func (s *seat) settle() (epoch uint64, ok bool) {
	if now := s.room.table.Owner(s.partition); now.Epoch >= s.table.Epoch {
		s.table = now
	}
	s.dismiss()
	if s.link != nil {
		stays := s.table.Owner == s.link.peer && s.table.Epoch == s.epoch && !s.link.down.Load()
		if stays && !s.draining {
			s.pump()
			return 0, false
		}
		if !s.draining {
			s.draining, s.since = true, time.Now()
		}
		if s.link.down.Load() {
			s.lose()
		}
		if len(s.sent) == 0 {
			s.detach()
		}
	}
	switch {
	case s.busy:
		if !s.isLost && (!s.table.Here || s.table.Epoch != s.mine) {
			s.isLost = true
			close(s.lost)
		}
	case s.ended:
	case s.table.Here:
		return s.table.Epoch, true // a fence makes the one before give back what we have sent
	}
	if s.busy {
		return 0, false
	}
	s.notTaking()
	switch {
	case s.ended:
	case s.link != nil || s.table.Owner == "" || s.table == s.pauseFor && time.Now().Before(s.pause):
	default:
		if l := s.room.linkTo(s.table.Owner); l != nil && !l.down.Load() {
			s.attach(l)
		}
	}
	return 0, false
}

// attach sends requests to the owner behind a link from now on. What it may not know
// of, our interest, comes first.
func (s *seat) attach(l *link) {
	s.link, s.epoch, s.pause = l, s.table.Epoch, time.Time{}
	s.unknown = s.unknown[:0]
	for name, k := range s.known {
		k.synced = false
		s.unknown = append(s.unknown, name)
	}
	s.sync()
	s.pump()
}

// detach ends that; nothing that was sent is without an answer.
func (s *seat) detach() {
	slices.SortFunc(s.refused, func(a, b *request) int { return cmp.Compare(a.trip.id, b.trip.id) })
	s.room.stats.resent.Add(int64(len(s.refused)))
	s.queue = append(s.refused, s.queue...)
	s.refused, s.link, s.draining = nil, nil, false
}

// lose gives up what was sent over a link that is gone, or to an owner that does not
// speak any more.
func (s *seat) lose() {
	for _, id := range slices.Sorted(maps.Keys(s.sent)) {
		r := s.take(id)
		switch {
		case r.kind == kindResync:
			s.release(r)
		case r.trip.answered, !r.kind.again():
			s.fail(r, fmt.Errorf("%w: %w", errUnknown, errMoved))
		default:
			if r.trip.added && r.kind != kindSubscribe {
				// It would hear of changes before it has heard of what they change.
				r.trip.added, r.trip.subscribed = false, false
				s.unsubscribe(r)
			}
			s.refused = append(s.refused, r)
		}
	}
}

// take removes a request from those that were sent.
func (s *seat) take(id uint64) *request {
	r := s.sent[id]
	if r == nil {
		return nil
	}
	delete(s.sent, id)
	if r.kind.subscribes() {
		if s.asking[r.name]--; s.asking[r.name] == 0 {
			delete(s.asking, r.name)
		}
	}
	return r
}

// expire ends what has waited too long.
func (s *seat) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	wait := s.queue[:0]
	var over []*request
	for _, r := range s.queue {
		if now.Sub(r.trip.since) >= s.patience(r) {
			over = append(over, r)
		} else {
			wait = append(wait, r)
		}
	}
	clear(s.queue[len(wait):])
	s.queue = wait
	for _, r := range over {
		s.fail(r, errNoOwner)
	}
	s.guests = slices.DeleteFunc(s.guests, func(g *guest) bool {
		if now.Sub(g.since) < holdTime {
			return false
		}
		g.req.remote.moved(s.table.Epoch)
		g.req.free()
		return true
	})
	s.room.flushLinks()
	if s.link == nil {
		return
	}
	s.sync()
	if s.draining && now.Sub(s.since) >= drainTime {
		s.lose()
	}
}

// listen gives up an owner that says nothing, though there is a link to it.
func (s *seat) listen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return
	}
	now := time.Now()
	for _, r := range s.sent {
		if now.Sub(r.trip.since) >= silence {
			s.room.log.Warn("a peer keeps requests for records without a word", "peer", s.link.peer, "partition", s.partition)
			s.draining, s.since = true, now
			s.lose()
			s.ring()
			return
		}
	}
}

// dismiss sends the requests of other nodes away that will not be served under their
// epoch any more.
func (s *seat) dismiss() {
	kept := s.guests[:0]
	for _, g := range s.guests {
		if g.epoch > s.table.Epoch || g.epoch == s.table.Epoch && s.table.Here {
			kept = append(kept, g)
			continue
		}
		g.req.remote.moved(s.table.Epoch)
		g.req.free()
	}
	if len(kept) < len(s.guests) {
		clear(s.guests[len(kept):])
		s.guests = kept
		s.room.flushLinks()
	}
}

// accept takes a request of another node, which thinks that this one is the owner
// under the epoch. It waits for nothing.
func (s *seat) accept(l *lane, r *request, epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.owner.Load(); o != nil && o.epoch == epoch && o.mail.force(l, r) == nil {
		return
	}
	if now := s.room.table.Owner(s.partition); now.Epoch >= s.table.Epoch && now != s.table {
		s.settle() // before the room is told of the change
		s.ring()
	}
	taking := s.busy && s.mine == epoch && !s.isLost && s.owner.Load() == nil
	if !s.ended && (epoch > s.table.Epoch || epoch == s.table.Epoch && s.table.Here && (taking || !s.busy || s.mine < epoch)) {
		s.guests = append(s.guests, &guest{l, r, epoch, time.Now()})
		s.ring()
		return
	}
	r.remote.moved(s.table.Epoch)
	r.free()
	s.room.flushLinks()
}

// end refuses all that waits: the room has stopped.
func (s *seat) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.link != nil {
		s.lose()
		s.detach()
	}
	queue := s.queue
	s.queue = nil
	for _, r := range queue {
		s.fail(r, errStopped)
	}
	for _, g := range s.guests {
		g.req.remote.moved(s.table.Epoch)
		g.req.free()
	}
	s.guests = nil
	s.room.flushLinks()
	s.wake()
}

// pump sends what waits to the owner's node.
func (s *seat) pump() {
	l := s.link
	if l == nil || s.draining || len(s.queue) == 0 || l.down.Load() {
		return
	}
	s.expand()
	for len(s.queue) > 0 && !l.down.Load() {
		n := l.forward(s, s.queue)
		if n == 0 {
			return // the link has ended, or is full, and we will be told
		}
		clear(s.queue[:n])
		if s.queue = s.queue[n:]; len(s.queue) == 0 {
			s.queue = nil
		}
	}
}

// depart notes a request that is being sent.
func (s *seat) depart(r *request) {
	r.trip.id = s.room.ids.Add(1)
	s.sent[r.trip.id] = r
	if r.kind.subscribes() {
		s.asking[r.name]++
	}
}

// expand makes one request a name of the parts of SUBSCRIBEANDHEAD that wait: each
// name is answered on its own (spec 08 §2.3).
func (s *seat) expand() {
	if !slices.ContainsFunc(s.queue, func(r *request) bool { return r.kind == kindSubscribeAndHead }) {
		return
	}
	var queue []*request
	for _, r := range s.queue {
		if r.kind != kindSubscribeAndHead {
			queue = append(queue, r)
			continue
		}
		g := newGroup(len(r.names)+1, func() {
			if r.last {
				r.answer(r.ack())
			}
			r.group.finish()
			r.leave()
		})
		// The client waits for one of these for each request, even if it is empty.
		r.answer(&protocol.Message{Action: protocol.RecordHeadResponseBulk, Has: protocol.HasVersions})
		for _, w := range s.waits {
			if r.trip.turn <= w.turn {
				w.left += len(r.names)
			}
		}
		place := r.trip.turn
		s.release(r)
		for _, name := range r.names {
			one := &request{
				kind: kindSubscribeAndHeadOne, client: r.client, name: name, action: r.action, correlationID: r.correlationID,
				has: r.has, group: g,
			}
			s.admit(one, r.trip.since)
			one.trip.turn = place
			queue = append(queue, one)
		}
		g.finish()
	}
	s.queue = queue
}
