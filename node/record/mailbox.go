package record

import (
	"errors"
	"slices"
	"sync"
)

// mailboxBytes bounds what waits for the owner in all; more blocks the senders.
const mailboxBytes = 64 << 20

// laneTurn is how many requests of one lane are served before those of the next.
const laneTurn = 32

// errStopped means that the room has ended.
var errStopped = errors.New("record room has stopped")

// errMoved means that the owner has lost its partition: ask the next one.
var errMoved = errors.New("the record's owner has changed")

// mailbox hands requests from many readers to the one owner. Each client has a
// lane of its own, and the owner takes a few from each in turn, so that nobody
// waits behind the many requests of somebody else. put may block; take never does,
// and bell rings after something was put.
type mailbox struct {
	bell chan struct{}

	mu      sync.Mutex
	space   *sync.Cond
	waiting []*queue // guarded by mu; those in which something waits, next first
	// others are the queues of lanes that have none of their own for this owner.
	// Guarded by mu; nil when there is one owner only.
	others  map[*lane]*queue
	bytes   int   // guarded by mu
	stopped error // why nothing is taken any more, or nil; guarded by mu
}

// queue is what waits in one lane for one owner. It is guarded by the mu of the
// mailbox that it belongs to.
type queue struct {
	lane  *lane
	items []*request
}

// newMailbox makes the mailbox of an owner, which may be the only one.
func newMailbox(only bool) *mailbox {
	m := &mailbox{bell: make(chan struct{}, 1)}
	if !only {
		m.others = make(map[*lane]*queue)
	}
	m.space = sync.NewCond(&m.mu)
	return m
}

// put appends reqs to a lane, in order, waiting for space before the first of
// them.
func (m *mailbox) put(l *lane, reqs ...*request) error {
	m.mu.Lock()
	for m.stopped == nil && m.bytes >= mailboxBytes {
		m.space.Wait()
	}
	if err := m.stopped; err != nil {
		m.mu.Unlock()
		return err
	}
	m.append(l, reqs...)
	m.mu.Unlock()
	m.ring()
	return nil
}

// force is put for what was let in elsewhere: it waits for nothing.
func (m *mailbox) force(l *lane, reqs ...*request) error {
	m.mu.Lock()
	if err := m.stopped; err != nil {
		m.mu.Unlock()
		return err
	}
	m.append(l, reqs...)
	m.mu.Unlock()
	m.ring()
	return nil
}

// post is force for what the owner itself waits for: it is taken as long as the
// owner runs.
func (m *mailbox) post(l *lane, r *request) {
	m.mu.Lock()
	m.append(l, r)
	m.mu.Unlock()
	m.ring()
}

// putBehindAll appends r to every lane in which something waits and to l, and
// counts in r.group how often that is.
func (m *mailbox) putBehindAll(l *lane, r *request) error {
	m.mu.Lock()
	if err := m.stopped; err != nil {
		m.mu.Unlock()
		return err
	}
	var lanes []*lane
	for _, q := range m.waiting {
		lanes = append(lanes, q.lane)
	}
	if !slices.Contains(lanes, l) {
		lanes = append(lanes, l)
	}
	r.group = newGroup(len(lanes), nil)
	for _, l := range lanes {
		m.append(l, r)
	}
	m.mu.Unlock()
	m.ring()
	return nil
}

// append puts reqs into a lane. The caller holds mu.
func (m *mailbox) append(l *lane, reqs ...*request) {
	q := &l.only
	if m.others != nil {
		if q = m.others[l]; q == nil {
			q = &queue{lane: l}
			m.others[l] = q
		}
	}
	if len(q.items) == 0 {
		m.waiting = append(m.waiting, q)
	}
	q.items = append(q.items, reqs...)
	for _, r := range reqs {
		m.bytes += r.size()
	}
}

func (m *mailbox) ring() {
	select {
	case m.bell <- struct{}{}:
	default: // already ringing
	}
}

// take appends to reqs what is next, a turn at most.
func (m *mailbox) take(reqs []*request) []*request {
	m.mu.Lock()
	defer m.mu.Unlock()
	full := m.bytes >= mailboxBytes
	for len(m.waiting) > 0 && len(reqs) < turn {
		q := m.waiting[0]
		m.waiting[0], m.waiting = nil, m.waiting[1:]
		n := min(laneTurn, len(q.items), turn-len(reqs))
		for _, r := range q.items[:n] {
			m.bytes -= r.size()
		}
		reqs = append(reqs, q.items[:n]...)
		clear(q.items[:n])
		if q.items = q.items[n:]; len(q.items) > 0 {
			m.waiting = append(m.waiting, q)
		} else {
			q.items = nil
			if m.others != nil {
				delete(m.others, q.lane)
			}
		}
	}
	if len(m.waiting) == 0 {
		m.waiting = nil
	}
	if full {
		m.space.Broadcast()
	}
	return reqs
}

// stop refuses everything from now on, with why, and wakes the waiting senders.
func (m *mailbox) stop(why error) {
	m.mu.Lock()
	if m.stopped == nil {
		m.stopped = why
	}
	m.mu.Unlock()
	m.space.Broadcast()
}

// What one client may have under way at the owner. Its reader waits when there is
// more.
const (
	// laneWidth is the number of requests.
	laneWidth = 2 * bulkPart
	// laneBytes is what they may hold, one larger request excepted.
	laneBytes = 4 << 20
	// laneHeavy is the number of those whose answers may carry a record: they are
	// as large as records, and the client's reader sees that it should wait for
	// them to be taken (sub.Client.Pace) only when they have been given. Patches
	// cost the owner as much, so they count too. Whole records of the version -1 do
	// not.
	laneHeavy = 128
)

// lane is the way of one client's requests to the owners: what waits there, and how
// much is under way. The client's reader enters, the owner leaves.
type lane struct {
	only queue // what waits for the only owner

	mu    sync.Mutex
	space *sync.Cond // only the client's reader waits for it
	used  int        // guarded by mu
	bytes int        // guarded by mu
	heavy int        // guarded by mu
}

func newLane() *lane {
	l := &lane{}
	l.only.lane = l
	l.space = sync.NewCond(&l.mu)
	return l
}

// enter waits for room for requests of one kind, no more than the lane is wide,
// and takes it. The owner serves everything it has been given, so the wait ends.
func (l *lane) enter(reqs []*request) {
	bytes, heavy := 0, 0
	for _, r := range reqs {
		r.lane = l
		bytes += r.size()
		if r.heavy() {
			heavy++
		}
	}
	l.mu.Lock()
	for l.used > 0 && (l.used+len(reqs) > laneWidth || l.bytes+bytes > laneBytes || heavy > 0 && l.heavy+heavy > laneHeavy) {
		l.space.Wait()
	}
	l.used += len(reqs)
	l.bytes += bytes
	l.heavy += heavy
	l.mu.Unlock()
}

// tryEnter is enter for a request of another node, which bounds its clients itself:
// it waits for nothing, and is false when there is twice as much as there may be.
func (l *lane) tryEnter(r *request) bool {
	bytes := r.size()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used > 0 && (l.used >= 2*laneWidth || l.bytes+bytes > 2*laneBytes) {
		return false
	}
	r.lane = l
	l.used++
	l.bytes += bytes
	if r.heavy() {
		l.heavy++
	}
	return true
}

// leave ends a request: it has been answered, and its room is given back.
func (r *request) leave() {
	if r.remote != nil {
		r.remote.done()
	}
	r.free()
}

// free gives the room of a request back.
func (r *request) free() {
	l := r.lane
	if l == nil {
		return
	}
	l.mu.Lock()
	l.used--
	l.bytes -= r.size()
	if r.heavy() {
		l.heavy--
	}
	l.mu.Unlock()
	l.space.Signal()
}
