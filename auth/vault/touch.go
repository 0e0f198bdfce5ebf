package vault

import (
	"context"
	"sync"
	"time"
)

// graceLook is how often a node that is cut off looks at its grace again, which may be
// another one by then.
const graceLook = time.Minute

// Touch is whether a node knows what others change in the table, as far as one watch of
// it tells. A node whose watch is lost goes on with what it knew for a grace; after that
// it does not know any more, until the watch has caught up. Its methods may be called
// from anywhere; Synced and Lost are a Watcher's.
type Touch struct {
	look chan struct{} // has a token when the watch was lost

	mu    sync.Mutex
	knows bool          // guarded by mu
	began bool          // the watch has caught up once; guarded by mu
	lost  time.Time     // when it was lost, or zero; guarded by mu
	ready chan struct{} // closed while knows; guarded by mu
}

// NewTouch is the one of a watch that has not begun. knows says whether the node may go
// on nevertheless, as after a loss.
func NewTouch(knows bool) *Touch {
	t := &Touch{look: make(chan struct{}, 1), knows: knows, ready: make(chan struct{})}
	if knows {
		close(t.ready)
	}
	return t
}

// Synced notes that the watch has caught up, and returns for how long it had been lost.
func (t *Touch) Synced() (away time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.lost.IsZero() {
		away = time.Since(t.lost)
	}
	t.lost, t.began = time.Time{}, true
	if !t.knows {
		t.knows = true
		close(t.ready)
	}
	return away
}

// Lost notes that the watch is lost, and says whether that is news.
func (t *Touch) Lost() (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if news = t.lost.IsZero(); news {
		t.lost = time.Now()
	}
	select {
	case t.look <- struct{}{}:
	default:
	}
	return news
}

// Knows says whether the node knows enough to go on.
func (t *Touch) Knows() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.knows
}

// Began says whether the watch has caught up at least once.
func (t *Touch) Began() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.began
}

// Gone says whether the node was cut off for longer than its grace.
func (t *Touch) Gone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.knows && !t.lost.IsZero()
}

// Await returns when the node knows, and says so; or false after a time, or when ctx ends.
func (t *Touch) Await(ctx context.Context, most time.Duration) bool {
	t.mu.Lock()
	ready := t.ready
	t.mu.Unlock()
	select {
	case <-ready:
		return true
	default:
	}
	wait := time.NewTimer(most)
	defer wait.Stop()
	select {
	case <-ready:
		return true
	case <-wait.C:
	case <-ctx.Done():
	}
	return false
}

// Run ends the grace of a node that is cut off, and calls over then, on its goroutine,
// when Knows has become false. It returns when ctx ends.
func (t *Touch) Run(ctx context.Context, grace func() time.Duration, over func()) {
	timer := time.NewTimer(graceLook)
	defer timer.Stop()
	for {
		wait, ended := t.spend(grace())
		if ended {
			over()
		}
		timer.Reset(wait)
		select {
		case <-t.look:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// spend ends the grace if it is over, and returns when to look again.
func (t *Touch) spend(grace time.Duration) (wait time.Duration, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lost.IsZero() || !t.knows {
		return graceLook, false
	}
	if left := grace - time.Since(t.lost); left > 0 {
		return min(left, graceLook), false
	}
	t.knows, t.ready = false, make(chan struct{})
	return graceLook, true
}
