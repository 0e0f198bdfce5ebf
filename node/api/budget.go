package api

import (
	"sync"
	"sync/atomic"
)

// memory is how many bytes bodies and answers may take in all, beside what each may have
// for nothing.
const memory = 256 << 20

// budget is what is left of a number of bytes.
type budget struct{ left atomic.Int64 }

// take takes n bytes if there are so many.
func (b *budget) take(n int64) bool {
	if b.left.Add(-n) >= 0 {
		return true
	}
	b.left.Add(n)
	return false
}

// share is what one request has taken of a budget. It may be used from anywhere.
type share struct {
	of *budget

	mu    sync.Mutex
	free  int64 // of what it may have for nothing; guarded by mu
	taken int64 // guarded by mu
	given bool  // guarded by mu
}

// freeShare is how many bytes a request may take that are none of the budget's: as many
// as there are sockets may do so at once.
const freeShare = 16 << 10

// newShare is one of which nothing was taken.
func (s *Server) newShare() *share { return &share{of: &s.budget, free: freeShare} }

// take takes n bytes more, or says that there are not so many, or that the share was given
// back.
func (s *share) take(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := min(s.free, int64(n))
	if s.given || !s.of.take(int64(n)-free) {
		return false
	}
	s.free -= free
	s.taken += int64(n) - free
	return true
}

// give gives everything back, for good.
func (s *share) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of.left.Add(s.taken)
	s.taken, s.given = 0, true
}

// seats are the requests that run, in all and of each user.
type seats struct {
	most, mostOf int

	mu    sync.Mutex
	taken int            // guarded by mu
	of    map[string]int // by whom; guarded by mu
}

func newSeats(most int) *seats {
	return &seats{most: most, mostOf: max(1, most/4), of: make(map[string]int)}
}

// What a request is told that has no seat.
const (
	seated = iota
	allTaken
	ownTaken
)

// take takes a seat for somebody, or says why there is none.
func (s *seats) take(who string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.taken >= s.most:
		return allTaken
	case s.of[who] >= s.mostOf:
		return ownTaken
	}
	s.taken++
	s.of[who]++
	return seated
}

// leave gives it back.
func (s *seats) leave(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.of[who]--; s.of[who] == 0 {
		delete(s.of, who)
	}
}

// number is how many are taken.
func (s *seats) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}
