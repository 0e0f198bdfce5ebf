package presence

import (
	"context"
	"sync"
	"time"
)

// leaving are users who have left as far as this node knows, in the order in which
// that is to be announced. One who turns up meanwhile stays in the list and is passed
// over: its number is not that of the entry any more.
type leaving struct {
	mu   sync.Mutex
	list []departure // guarded by mu
	last uint64      // number given; guarded by mu

	wake chan struct{} // says to runLeaving that the list is not empty any more
}

type departure struct {
	name   string
	number uint64
	at     time.Time
}

// put has a user's end announced after a while, the same for all, and returns its
// number.
func (l *leaving) put(name string, wait time.Duration) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.list = append(l.list, departure{name, l.last, time.Now().Add(wait)})
	if len(l.list) == 1 {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return l.last
}

// due takes out those whose time has come, and says how long that of the next will
// take, or 0 when there is none.
func (l *leaving) due(now time.Time) (due []departure, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for n < len(l.list) && !l.list[n].at.After(now) {
		n++
	}
	if n == len(l.list) {
		due, l.list = l.list, nil
		return due, 0
	}
	due, l.list = l.list[:n:n], l.list[n:]
	return due, l.list[0].at.Sub(now)
}

// runLeaving announces the ends of users when their time has come, until ctx ends.
func (r *Room) runLeaving(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.leaving.wake:
		}
		due, wait := r.leaving.due(time.Now())
		for _, d := range due {
			r.endIfGone(d)
		}
		if wait > 0 {
			timer.Reset(wait)
		}
	}
}

// endIfGone ends a user who has not turned up since the departure was noted.
func (r *Room) endIfGone(d departure) {
	s := r.shard(d.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if is := s.online[d.name]; is != nil && is.leaves == d.number {
		r.left(s, d.name)
	}
}
