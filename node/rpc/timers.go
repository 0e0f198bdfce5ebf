package rpc

import "time"

// idle is how long Run waits when no timer runs: any start then wakes it.
const idle = time.Hour

// timer is a place in a list of timers; the zero value is one that is not running.
type timer struct {
	prev, next *timer
	call       *running
	deadline   time.Time
}

// timers are running timers of one and the same length, so by start and by end
// alike. It is a ring through root.
type timers struct {
	root timer
	n    int
}

func (l *timers) init() { l.root.prev, l.root.next = &l.root, &l.root }

// start runs t for d and says whether it is the only one.
func (l *timers) start(t *timer, c *running, d time.Duration) (only bool) {
	t.call, t.deadline = c, time.Now().Add(d)
	t.prev, t.next = l.root.prev, &l.root
	t.prev.next, l.root.prev = t, t
	l.n++
	return l.n == 1
}

// stop takes t out of the list if it runs.
func (l *timers) stop(t *timer) {
	if t.call == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	*t = timer{}
	l.n--
}

// due returns the call of the first timer if its time has come, or else how long
// that will take.
func (l *timers) due(now time.Time) (*running, time.Duration) {
	if l.n == 0 {
		return nil, idle
	}
	t := l.root.next
	if wait := t.deadline.Sub(now); wait > 0 {
		return nil, wait
	}
	return t.call, 0
}
