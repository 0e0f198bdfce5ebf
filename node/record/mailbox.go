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

// mailbox hands requests from many readers to the one owner. Each client has a
// lane of its own, and the owner takes a few from each in turn, so that nobody
// waits behind the many requests of somebody else. put may block; take never does,
// and bell rings after something was put.
type mailbox struct {
	bell chan struct{}

	mu      sync.Mutex
	space   *sync.Cond
	waiting []*lane // guarded by mu; those in which something waits, next first
	bytes   int     // guarded by mu
	stopped bool    // guarded by mu
}

func newMailbox() *mailbox {
	m := &mailbox{bell: make(chan struct{}, 1)}
	m.space = sync.NewCond(&m.mu)
	return m
}

// put appends reqs to a lane, in order, waiting for space before the first of
// them.
func (m *mailbox) put(l *lane, reqs ...*request) error {
	m.mu.Lock()
	for !m.stopped && m.bytes >= mailboxBytes {
		m.space.Wait()
	}
	if m.stopped {
		m.mu.Unlock()
		return errStopped
	}
	m.append(l, reqs...)
	m.mu.Unlock()
	m.ring()
	return nil
}

// putBehindAll appends r to every lane in which something waits and to l, and
// counts in r.group how often that is.
func (m *mailbox) putBehindAll(l *lane, r *request) error {
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		return errStopped
	}
	lanes := slices.Clone(m.waiting)
	if !slices.Contains(lanes, l) {
		lanes = append(lanes, l)
	}
	r.group = &group{left: len(lanes)}
	for _, l := range lanes {
		m.append(l, r)
	}
	m.mu.Unlock()
	m.ring()
	return nil
}

// append puts reqs into a lane. The caller holds mu.
func (m *mailbox) append(l *lane, reqs ...*request) {
	if len(l.items) == 0 {
		m.waiting = append(m.waiting, l)
	}
	l.items = append(l.items, reqs...)
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
		l := m.waiting[0]
		m.waiting[0], m.waiting = nil, m.waiting[1:]
		n := min(laneTurn, len(l.items), turn-len(reqs))
		for _, r := range l.items[:n] {
			m.bytes -= r.size()
		}
		reqs = append(reqs, l.items[:n]...)
		clear(l.items[:n])
		if l.items = l.items[n:]; len(l.items) > 0 {
			m.waiting = append(m.waiting, l)
		} else {
			l.items = nil
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

// stop refuses everything from now on and wakes the waiting senders.
func (m *mailbox) stop() {
	m.mu.Lock()
	m.stopped = true
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

// lane is the way of one client's requests to the owner: what waits there, and how
// much is under way. The client's reader enters, the owner leaves.
type lane struct {
	items []*request // guarded by mailbox.mu

	mu    sync.Mutex
	space *sync.Cond // only the client's reader waits for it
	used  int        // guarded by mu
	bytes int        // guarded by mu
	heavy int        // guarded by mu
}

func newLane() *lane {
	l := &lane{}
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

// leave gives the room of a request back, when it has been answered.
func (r *request) leave() {
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
