package record

import (
	"errors"
	"sync"
)

// Bounds of a mailbox: whichever is reached first blocks the senders.
const (
	mailboxRequests = 8192
	mailboxBytes    = 64 << 20
)

// errStopped means that the room has ended.
var errStopped = errors.New("record room has stopped")

// mailbox hands requests from many readers to the one owner. put blocks while
// it is full; take never blocks, and bell rings after something was put.
type mailbox struct {
	bell chan struct{}

	mu      sync.Mutex
	space   *sync.Cond
	items   []*request // guarded by mu
	bytes   int        // guarded by mu
	stopped bool       // guarded by mu
}

func newMailbox() *mailbox {
	m := &mailbox{bell: make(chan struct{}, 1)}
	m.space = sync.NewCond(&m.mu)
	return m
}

// put appends reqs in order, waiting for space before the first of them. A
// group that is larger than the mailbox is taken whole: its sender was bounded
// by the size of a message.
func (m *mailbox) put(reqs ...*request) error {
	m.mu.Lock()
	for !m.stopped && (len(m.items) >= mailboxRequests || m.bytes >= mailboxBytes) {
		m.space.Wait()
	}
	if m.stopped {
		m.mu.Unlock()
		return errStopped
	}
	m.items = append(m.items, reqs...)
	for _, r := range reqs {
		m.bytes += r.size()
	}
	m.mu.Unlock()
	select {
	case m.bell <- struct{}{}:
	default: // already ringing
	}
	return nil
}

// take swaps the waiting requests for the empty slice it is given.
func (m *mailbox) take(empty []*request) []*request {
	m.mu.Lock()
	items := m.items
	m.items, m.bytes = empty[:0], 0
	m.mu.Unlock()
	m.space.Broadcast()
	return items
}

// stop refuses everything from now on and wakes the waiting senders.
func (m *mailbox) stop() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.space.Broadcast()
}
