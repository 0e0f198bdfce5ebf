package endpoint

import (
	"sync"
	"sync/atomic"
)

// crew runs the short tasks of a connection's beginning, each on a goroutine of its own
// as far as anybody can tell. In fact the goroutines stay for the next task: a new one
// starts with a small stack, and to copy that two or three times as it grows is a
// twentieth of what a login costs.
type crew struct {
	tasks   chan func()  // nil ends who takes it
	resting atomic.Int32 // goroutines that wait for a task
	spare   atomic.Int32 // the fewest that did since thin was called, about
	running sync.WaitGroup
	stopped <-chan struct{}
}

// crewRests is how many goroutines stay, until the next thin, although there is no task for them.
const crewRests = 64

func newCrew(stopped <-chan struct{}) *crew {
	return &crew{tasks: make(chan func()), stopped: stopped}
}

// do has a task run at once. It does not wait for it, and may not be called after wait.
func (c *crew) do(task func()) {
	select {
	case c.tasks <- task:
	default:
		c.running.Go(func() { c.work(task) })
	}
}

// work runs a task, then others, until there are none and enough others wait for them.
func (c *crew) work(task func()) {
	for {
		task()
		task = nil // it holds a connection
		if c.resting.Add(1) > crewRests {
			c.resting.Add(-1)
			return
		}
		select {
		case task = <-c.tasks:
			if n := c.resting.Add(-1); n < c.spare.Load() {
				c.spare.Store(n)
			}
			if task == nil {
				return
			}
		case <-c.stopped:
			return
		}
	}
}

// thin ends the goroutines that had no task since it was called last. One caller at a time.
func (c *crew) thin() {
	for range c.spare.Load() {
		select {
		case c.tasks <- nil:
		default: // they have tasks now
		}
	}
	c.spare.Store(c.resting.Load())
}

// wait returns when all tasks have ended, once stopped is closed.
func (c *crew) wait() { c.running.Wait() }
