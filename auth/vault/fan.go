package vault

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

const (
	// fanBehind is how many changes wait for one watcher before it begins anew.
	fanBehind = 1 << 16
	// fanPause is how long after a failure the entries are asked for again.
	fanPause = 250 * time.Millisecond
)

// errBehind is what a watcher is told who was too slow.
var errBehind = errors.New("the watcher was too slow to hear of every change")

// Fan is the watchers of a Vault: it hears of every change and tells those who want to
// know. It is for those who implement a Vault; nothing in it runs by itself.
type Fan struct {
	mu       sync.Mutex
	at       uint64               // guarded by mu; the revision that it has heard of last
	watchers map[*fanWatcher]bool // guarded by mu
	behind   int                  // the constant, less in tests
}

// fanWatcher is one Watch.
type fanWatcher struct {
	prefix string
	more   chan struct{} // holds a token while there is something in queue or lost
	queue  []Change      // guarded by the fan's mu
	lost   error         // guarded by the fan's mu; not nil: queue is not all
}

// Lister is Vault.List.
type Lister func(ctx context.Context, prefix string, each func(Entry) error) error

// NewFan makes one that has heard of all changes up to a revision.
func NewFan(at uint64) *Fan {
	return &Fan{at: at, watchers: make(map[*fanWatcher]bool), behind: fanBehind}
}

// At is the revision that the fan has heard of last.
func (f *Fan) At() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// Reset has the fan have heard of all changes up to a revision, whatever it was.
func (f *Fan) Reset(at uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = at
}

// Tell tells of a change. Changes come in the order of their revisions; one that was
// told already is only told again when it says that the entry has gone.
func (f *Fan) Tell(c Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = max(f.at, c.Revision)
	for w := range f.watchers {
		if !strings.HasPrefix(c.Key, w.prefix) || w.lost != nil {
			continue
		}
		if len(w.queue) >= f.behind {
			w.loseLocked(errBehind)
			continue
		}
		w.queue = append(w.queue, c)
		w.wakeLocked()
	}
}

// Lose tells every watcher that changes may have been missed, so that it begins anew.
func (f *Fan) Lose(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		w.loseLocked(err)
	}
}

func (w *fanWatcher) loseLocked(err error) {
	w.queue, w.lost = nil, cmp.Or(w.lost, err)
	w.wakeLocked()
}

func (w *fanWatcher) wakeLocked() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// Watch implements Vault.Watch. list is asked on the caller's goroutine, again and again
// while it fails; it lists at least what the fan had heard of when it was called.
func (f *Fan) Watch(ctx context.Context, prefix string, w Watcher, list Lister) error {
	if err := CheckPrefix(ctx, prefix); err != nil {
		return err
	}
	watcher := &fanWatcher{prefix: prefix, more: make(chan struct{}, 1)}
	defer func() {
		f.mu.Lock()
		delete(f.watchers, watcher)
		f.mu.Unlock()
	}()
	for {
		told, err := f.begin(ctx, watcher, w, list)
		if err != nil && ctx.Err() == nil {
			select {
			case <-time.After(fanPause):
				continue
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.Synced()
		if err = f.follow(ctx, watcher, w, told); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.Lost(err)
	}
}

// recent are the revisions of entries that were told while the fan may not yet have heard
// of them.
type recent struct {
	of   map[string]uint64
	last uint64
}

// covers says whether a change is in what was told, or older.
func (r *recent) covers(c *Change) bool {
	if c.Revision > r.last {
		r.of, r.last = nil, 0 // all others come later still
		return false
	}
	told, ok := r.of[c.Key]
	return ok && (c.Revision < told || c.Revision == told && !c.Gone)
}

// begin tells of the entries as they are.
func (f *Fan) begin(ctx context.Context, watcher *fanWatcher, w Watcher, list Lister) (recent, error) {
	f.mu.Lock()
	watcher.queue, watcher.lost = nil, nil
	f.watchers[watcher] = true
	heard := f.at
	f.mu.Unlock()
	told := recent{of: make(map[string]uint64)}
	err := list(ctx, watcher.prefix, func(e Entry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.Revision > heard {
			told.of[e.Key], told.last = e.Revision, max(told.last, e.Revision)
		}
		w.Told(Change{Entry: e})
		return nil
	})
	return told, err
}

// follow tells of changes until ctx ends, or some are missing, and says why.
func (f *Fan) follow(ctx context.Context, watcher *fanWatcher, w Watcher, told recent) error {
	for {
		select {
		case <-watcher.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		f.mu.Lock()
		queue, lost := watcher.queue, watcher.lost
		watcher.queue = nil
		f.mu.Unlock()
		if lost != nil {
			return lost
		}
		for i := range queue {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !told.covers(&queue[i]) {
				w.Told(queue[i])
			}
		}
	}
}
