package tokens

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"hadal/auth"
)

// End is why a connection ends.
type End uint8

// The ends.
const (
	// Expired: its token has expired, and the grace is over.
	Expired End = iota
	// Revoked: its token was revoked.
	Revoked
	// Kicked: its user was.
	Kicked
	// Unknown: nobody here knows whether its token is revoked.
	Unknown
)

// Client is a connection that is logged in, as this room sees it. Its methods never block.
type Client interface {
	// ID is unique among all connections this process has had.
	ID() uint64
	// User is who logged in.
	User() *auth.User
	// RemoteAddr is the client's address, as in auth.Attempt.
	RemoteAddr() string
	// Renew replaces the user by another one with the same ID; false says that it did not.
	Renew(*auth.User) bool
	// Expiring tells the client that its token expires at a time and it will be disconnected
	// at another.
	Expiring(expires, closes time.Time)
	// End closes the connection.
	End(End)
}

const (
	// noticeMost is how long before its token's expiry a client is told, at the most; of
	// shorter lives it is the last quarter.
	noticeMost = time.Minute
	// longestWait is how long the timer runs at the most: clocks are set at times.
	longestWait = time.Minute
)

// session is one connection with a token.
type session struct {
	client Client
	token  *auth.Session
	// next is when something is to be done about it: told, ended, or (zero) nothing.
	next  time.Time
	told  bool
	index int // in the heap, or -1
}

// sessions are the connections with a token, by when something is to be done about them.
type sessions struct {
	grace func() time.Duration
	wake  chan struct{} // has a token when the head of the heap has changed

	mu   sync.Mutex
	byID map[uint64]*session // guarded by mu
	heap sessionHeap         // guarded by mu
}

func newSessions(grace func() time.Duration) *sessions {
	return &sessions{grace: grace, wake: make(chan struct{}, 1), byID: make(map[uint64]*session)}
}

// enter begins to look after a connection, or goes on with its new token. One without a
// token is not looked after.
func (s *sessions) enter(c Client) {
	u := c.User()
	if u == nil || u.Session == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byID[c.ID()]
	if e == nil {
		e = &session{client: c, index: -1}
		s.byID[c.ID()] = e
	}
	e.token, e.told, e.next = u.Session, false, time.Time{}
	if t := u.Session; !t.Expires.IsZero() {
		e.next = t.Expires.Add(-notice(t, time.Now()))
	}
	s.place(e)
}

// notice is how long before its expiry a token's owner is told.
func notice(t *auth.Session, now time.Time) time.Duration {
	begin := t.Issued
	if begin.IsZero() || begin.After(now) {
		begin = now
	}
	return max(0, min(noticeMost, t.Expires.Sub(begin)/4))
}

// place puts a session where it belongs in the heap. The caller holds mu.
func (s *sessions) place(e *session) {
	switch {
	case e.next.IsZero() && e.index >= 0:
		heap.Remove(&s.heap, e.index)
	case e.next.IsZero():
	case e.index >= 0:
		heap.Fix(&s.heap, e.index)
	default:
		heap.Push(&s.heap, e)
	}
	if len(s.heap) > 0 && s.heap[0] == e {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// leave forgets a connection that has gone.
func (s *sessions) leave(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil {
		delete(s.byID, id)
		e.next = time.Time{}
		s.place(e)
	}
}

// count is how many connections have a token.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}

// client is the connection with an id that has a token, or nil.
func (s *sessions) client(id uint64) Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil {
		return e.client
	}
	return nil
}

// ours are the connections with a token made here.
func (s *sessions) ours() []Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Client, 0, len(s.byID))
	for _, e := range s.byID {
		if e.token.Ours {
			list = append(list, e.client)
		}
	}
	return list
}

// remind tells a client once more that its token expires, if it was told.
func (s *sessions) remind(id uint64) {
	s.mu.Lock()
	e := s.byID[id]
	if e == nil || !e.told {
		s.mu.Unlock()
		return
	}
	c, expires := e.client, e.token.Expires
	s.mu.Unlock()
	c.Expiring(expires, expires.Add(s.grace()))
}

// run does what is due, until ctx ends.
func (s *sessions) run(ctx context.Context) {
	timer := time.NewTimer(longestWait)
	defer timer.Stop()
	for {
		timer.Reset(s.due(time.Now()))
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// due does what is due and returns how long there is nothing to do.
func (s *sessions) due(now time.Time) time.Duration {
	grace := s.grace()
	var tell, end []*session
	s.mu.Lock()
	for len(s.heap) > 0 && !s.heap[0].next.After(now) {
		e := s.heap[0]
		closes := e.token.Expires.Add(grace)
		switch {
		case !closes.After(now):
			e.next = time.Time{} // it stays known until it has gone
			end = append(end, e)
		default:
			e.next = closes
			if !e.told {
				e.told = true
				tell = append(tell, &session{client: e.client, token: e.token})
			}
		}
		s.place(e)
	}
	wait := longestWait
	if len(s.heap) > 0 {
		wait = min(wait, s.heap[0].next.Sub(now))
	}
	s.mu.Unlock()
	for _, e := range tell {
		e.client.Expiring(e.token.Expires, e.token.Expires.Add(grace))
	}
	for _, e := range end {
		e.client.End(Expired)
	}
	return wait
}

// sessionHeap is a container/heap by next.
type sessionHeap []*session

// The methods of heap.Interface.

func (h sessionHeap) Len() int           { return len(h) }
func (h sessionHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h sessionHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *sessionHeap) Push(x any) {
	e := x.(*session)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *sessionHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.index = -1
	return e
}
