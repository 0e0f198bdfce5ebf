package endpoint

import (
	"runtime"
	"slices"
	"sync"
)

// writer is one of a few goroutines that write what waits for plain sockets. A
// broadcast puts all its subscribers on the writers' lists and wakes each writer
// once: to wake a goroutine for each of them would cost as much as the protocol
// does. A writer waits for nobody: what a socket does not take at once is left to
// a pump, as is all that is not a plain socket.
//
// Each connection has one writer for good (Server.writerOf), so two never want the
// same socket.
type writer struct {
	mu    sync.Mutex
	due   []*wire // guarded by mu
	awake bool    // run will look at due again; guarded by mu

	wake chan struct{}

	// Of run alone:

	chunk []byte
	try   *attempt
}

// respite is after how many connections a writer lets others run: readers, which
// may have more to add to what waits.
const respite = 64

// keptDue is the longest list that a writer keeps.
const keptDue = 1 << 16

// newWriters makes one writer for each processor.
func newWriters() []*writer {
	all := make([]*writer, runtime.GOMAXPROCS(0))
	for i := range all {
		all[i] = &writer{wake: make(chan struct{}, 1)}
	}
	return all
}

// writerOf is the writer of a connection.
func (s *Server) writerOf(c *Conn) *writer { return s.writers[c.id%uint64(len(s.writers))] }

// add has what waits for w written soon. It does not block.
func (r *writer) add(w *wire) {
	r.mu.Lock()
	r.due = append(r.due, w)
	asleep := !r.awake
	r.awake = true
	r.mu.Unlock()
	if asleep {
		r.wake <- struct{}{} // has room: run has taken the last one before it fell asleep
	}
}

// run writes until stopped is closed.
func (r *writer) run(stopped <-chan struct{}) {
	r.chunk = make([]byte, 0, writeChunk)
	r.try = newAttempt()
	var now []*wire
	for {
		r.mu.Lock()
		now, r.due = r.due, now[:0]
		r.awake = len(now) > 0
		r.mu.Unlock()
		if len(now) == 0 {
			select {
			case <-r.wake:
				continue
			case <-stopped:
				return
			}
		}
		for i, w := range now {
			w.writeOut(r)
			if i%respite == respite-1 {
				runtime.Gosched()
			}
		}
		clear(now) // or connections that are gone would live on
		if cap(now) > keptDue {
			now = nil
		}
	}
}

// writeOut writes what waits for w, as far as the socket takes it at once.
func (w *wire) writeOut(r *writer) {
	if !w.writing.TryLock() {
		go w.pump() // somebody writes, maybe for long
		return
	}
	all := w.tryFlush(r)
	w.writing.Unlock()
	if !all {
		go w.pump()
	}
}

// tryFlush writes what waits without waiting itself. It reports false when something
// is left that takes a pump. The caller holds writing.
func (w *wire) tryFlush(r *writer) bool {
	w.mu.Lock()
	batch := w.queue
	w.queue = nil
	w.rung = batch != nil
	w.mu.Unlock()
	if batch == nil {
		return true
	}
	left := *batch
	answers, broadcasts := 0, 0
	for len(left) > 0 {
		b, n := left[0].b, 1
		if len(left) > 1 {
			b, n = r.gather(left)
		}
		if n == 0 || len(b) >= largeFrame && n == 1 {
			break // large: it is not written as others are
		}
		wrote := r.try.once(w.in.sock, b)
		w.conn.counters.bytesOut.Add(uint64(wrote))
		whole := wrote == len(b)
		for wrote > 0 {
			f := &left[0]
			k := min(wrote, len(f.b))
			if f.answer {
				answers += k
			} else {
				broadcasts += k
			}
			wrote -= k
			if f.b = f.b[k:]; len(f.b) > 0 {
				break
			}
			left = left[1:]
		}
		if !whole {
			break
		}
	}
	return w.settle(r, batch, left, answers, broadcasts)
}

// gather copies frames together, as many as go into one write, and says how many; 0
// when the first one is too large for that.
func (r *writer) gather(frames []frame) (b []byte, n int) {
	b = r.chunk[:0]
	for _, f := range frames {
		if len(f.b) >= largeFrame || len(b)+len(f.b) > writeChunk {
			break
		}
		b = append(b, f.b...)
		n++
	}
	return b, n
}

// settle takes what was written off the books and puts back what is left of a batch. It
// reports false when that is something, for which there must be a pump.
func (w *wire) settle(r *writer, batch *[]frame, left []frame, answers, broadcasts int) bool {
	done := len(left) == 0
	w.mu.Lock()
	if answers+broadcasts > 0 {
		w.relieve(answers, broadcasts)
	}
	if !done {
		var later []frame // what came meanwhile
		if w.queue != nil {
			later = *w.queue
		}
		rest := slices.Concat(left, later)
		w.queue = &rest
	}
	again := done && w.queue != nil
	w.rung = !done || again
	w.mu.Unlock()
	clear(*batch) // the frames must not live as long as the pool
	if cap(*batch) <= keptQueue {
		*batch = (*batch)[:0]
		queues.Put(batch)
	}
	if again {
		r.add(w) // behind the others
	}
	return done
}
