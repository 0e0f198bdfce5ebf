package endpoint

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/olahol/melody"
)

const (
	// writeChunk is the most that small frames are copied together for one write.
	// More does not pay, and it bounds the pooled buffers.
	writeChunk = 32 << 10
	// largeFrame is the size from which a frame is written as it stands: copying
	// it would cost more than the write it saves.
	largeFrame = 16 << 10
	// largePiece is how much of a large frame goes into one write, so that a slow
	// reader of a very large frame is seen to make progress.
	largePiece = 256 << 10
	// answersWatched and answersLimit are how many times queueHardLimit the answers
	// that wait may be before their client has to take some all the time, and ever.
	// The reader is held back by a client's own requests, of which a hundred or two
	// with a whole record each may be under way; but an answer may come long after
	// its request, from another client: a caller and a provider of rpcs in league
	// could else fill the memory.
	answersWatched, answersLimit = 4, 16
	// framesWatched is the same for the number of frames, as small ones cost more than
	// their bytes.
	framesWatched = 1 << 16
	// lingerTime is how long a connection is kept half closed after a close
	// frame, for what was written to arrive.
	lingerTime = 2 * time.Second
)

// frame is one complete WebSocket frame that waits in a wire. The bytes are
// shared with other connections and never changed.
type frame struct {
	b []byte
	// answer tells what the client asked for from what was broadcast.
	answer bool
}

var (
	// chunks holds buffers of writeChunk bytes.
	chunks = sync.Pool{New: func() any { b := make([]byte, 0, writeChunk); return &b }}
	// queues holds emptied queues, so that an idle connection owns none.
	queues = sync.Pool{New: func() any { q := make([]frame, 0, 16); return &q }}
)

// keptQueue is the longest queue that goes back to the pool.
const keptQueue = 4096

// wire is the net.Conn that gorilla and melody believe to be the socket. It
// holds what waits for the client, which a writer writes, or a pump, a goroutine
// that lives while something waits: see the package comment.
//
// Locks: writing is held over socket writes, mu never; writing before mu.
type wire struct {
	conn *Conn    // whom it belongs to
	nc   net.Conn // TCP, TLS above TCP, or a test's own

	// plain says that there is no WebSocket and so no melody.
	plain bool
	// open says that frames can be written: the upgrade was answered, where there is one.
	open atomic.Bool
	// upgraded is false while gorilla writes the HTTP answer through Write.
	upgraded bool
	// lent is what melody was given for the upgrade; nil after it.
	lent *handover

	writing  sync.Mutex
	deadline time.Duration // guarded by writing: the socket's, on the server's clock

	mu sync.Mutex
	// queue is what waits, nil while nothing does. Guarded by mu, like all below.
	queue *[]frame
	// answers and broadcasts are the bytes that wait, those included that were
	// taken from the queue and are not yet written.
	answers, broadcasts int
	// rung says that somebody is about to write what waits: the writer or a pump.
	rung bool
	// watched is the server's clock when the queue was last seen to move while it
	// was crowded, or while goodbye is being said; 0
	// while there is nothing to watch.
	watched time.Duration
	// space is closed when the answers that wait are few again, or on gone.
	space chan struct{}
	// why is the reason the connection ended for; set together with gone.
	why Reason
	// saidGoodbye says that a close frame was written.
	saidGoodbye bool
	closed      bool
	cancel      func() // ends the login under way

	// gone is set under mu, so that nothing is queued after it, and read anywhere.
	gone atomic.Bool

	// The rest belongs to the reader.
	in reader
}

// push queues a frame and rings if nobody has, or writes a frame
// that is alone itself. It never blocks.
func (w *wire) push(b []byte, answer, alone bool) {
	if alone && w.writeNow(frame{b, answer}) {
		return
	}
	limits := w.conn.dialect.Options
	w.mu.Lock()
	if w.gone.Load() {
		w.mu.Unlock()
		return
	}
	if answer {
		w.answers += len(b)
	} else {
		w.broadcasts += len(b)
	}
	if w.crowded() {
		now := w.conn.srv.now()
		if w.watched == 0 {
			w.watched = now
		}
		if w.broadcasts > limits.QueueHardLimit || w.answers > answersLimit*limits.QueueHardLimit || now-w.watched > limits.QueueStall {
			w.mu.Unlock()
			w.conn.drop(SlowConsumer)
			return
		}
	}
	ring := w.enqueue(frame{b, answer}, false)
	w.mu.Unlock()
	if ring {
		w.ring()
	}
}

// crowded says whether so much waits that it has to be seen to move. The caller
// holds mu.
func (w *wire) crowded() bool {
	limits := w.conn.dialect.Options
	return w.broadcasts > limits.QueueSoftLimit || w.answers > answersWatched*limits.QueueHardLimit ||
		w.queue != nil && len(*w.queue) > framesWatched
}

// enqueue puts a frame at the end of the queue, or in front, and says whether to
// ring. The caller holds mu.
func (w *wire) enqueue(f frame, front bool) (ring bool) {
	if w.queue == nil {
		w.queue = queues.Get().(*[]frame)
	}
	if front {
		*w.queue = slices.Insert(*w.queue, 0, f)
	} else {
		*w.queue = append(*w.queue, f)
	}
	ring, w.rung = !w.rung, true
	return ring
}

// writeNow writes a frame to an idle plain socket on the caller's goroutine, as
// much of it as the socket takes at once, which saves waking the pump; what is
// left goes to the queue. It does not block, and reports false, having done
// nothing, when the frame must be queued.
func (w *wire) writeNow(f frame) bool {
	// sock is nil above TLS.
	if w.in.sock == nil || len(f.b) >= largeFrame || !w.open.Load() || !w.writing.TryLock() {
		return false
	}
	defer w.writing.Unlock()
	// As nobody is writing, an empty queue means that no byte waits anywhere:
	// there is nothing on the books, and watched is 0.
	w.mu.Lock()
	idle := w.queue == nil && !w.gone.Load()
	w.mu.Unlock()
	if !idle {
		return false
	}
	n := tryWrite(w.in.sock, f.b)
	w.conn.counters.bytesOut.Add(uint64(n))
	if n < len(f.b) {
		w.putBack(frame{f.b[n:], f.answer})
	}
	return true
}

// putBack queues the rest of a frame before what was pushed meanwhile, also when
// the connection is gone by now: a goodbye must not follow half a frame. The
// caller holds writing.
func (w *wire) putBack(f frame) {
	w.mu.Lock()
	if f.answer {
		w.answers += len(f.b)
	} else {
		w.broadcasts += len(f.b)
	}
	ring := w.enqueue(f, true)
	w.mu.Unlock()
	if ring {
		w.ring()
	}
}

// ring has what waits written, by the connection's writer or a pump. It does not
// block. There is one of them at a time, until nothing waits; connected rings again
// when the upgrade was not answered yet.
func (w *wire) ring() {
	switch {
	case !w.open.Load():
	case w.in.sock == nil:
		go w.pump() // it ends when nothing waits
	default:
		w.conn.srv.writerOf(w.conn).add(w)
	}
}

// pace blocks while more bytes of answers wait than limit, or until gone. Only
// one goroutine may call it.
func (w *wire) pace(limit int) {
	w.mu.Lock()
	for w.answers > limit && !w.gone.Load() {
		if w.space == nil {
			w.space = make(chan struct{})
		}
		space := w.space
		w.mu.Unlock()
		<-space
		w.mu.Lock()
	}
	w.mu.Unlock()
}

// end marks the connection as gone, for reason why; the first reason stands.
// It says whether it was the first. What waits is still written.
func (w *wire) end(why Reason) bool {
	w.mu.Lock()
	if w.gone.Load() {
		w.mu.Unlock()
		return false
	}
	w.gone.Store(true)
	w.why = why
	w.watched = w.conn.srv.now()
	w.wakeReader()
	cancel := w.cancel
	w.cancel = nil
	w.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	w.conn.srv.closes[why].Add(1)
	return true
}

// reason is why the connection ended, once it has.
func (w *wire) reason() Reason {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why
}

// wakeReader ends a wait in pace. The caller holds mu.
func (w *wire) wakeReader() {
	if w.space != nil {
		close(w.space)
		w.space = nil
	}
}

// stalled says whether nothing has moved for longer than limit although it
// should: a full queue, or a goodbye.
func (w *wire) stalled(now, limit time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watched != 0 && now-w.watched > limit
}

// abort closes the socket at once; what the kernel holds for the client is
// thrown away with it.
func (w *wire) abort() {
	reset(w.raw()) // the reader learns of it and reports why the client went
}

// raw is the connection below TLS.
func (w *wire) raw() net.Conn { return tcpOf(w.nc) }

// Write takes what gorilla believes to write to the socket: the HTTP answer,
// then control frames. gorilla does not call it twice at once.
func (w *wire) Write(p []byte) (int, error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	if !w.upgraded {
		n := 0
		if w.in.sock != nil {
			// It goes out at once, if ever; so most connections need no deadline, which
			// is a timer.
			n = tryWrite(w.in.sock, p)
			w.conn.counters.bytesOut.Add(uint64(n))
		}
		if n == len(p) {
			return n, nil
		}
		return len(p), w.write(p[n:])
	}
	// A pong or a close frame goes behind what was queued before it.
	if err := w.flush(); err != nil {
		return 0, err
	}
	if err := w.write(p); err != nil {
		return 0, err
	}
	if p[0]&opcodeBits == opClose {
		w.mu.Lock()
		w.saidGoodbye = true
		w.mu.Unlock()
	}
	return len(p), nil
}

// more says whether something has come meanwhile, which must be written too.
func (w *wire) more() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rung = w.queue != nil
	return w.rung
}

// pump writes what waits until nothing does, and waits for the client where a writer
// cannot.
func (w *wire) pump() {
	for {
		w.writing.Lock()
		err := w.flush()
		if err != nil {
			_ = w.Close() // before anybody writes behind half a frame; whoever reads learns of it
		}
		w.writing.Unlock()
		if err != nil {
			return
		}
		if !w.more() {
			return
		}
	}
}

// goodbye ends a connection without melody: what waits is written, then the sending side
// is closed.
func (w *wire) goodbye() {
	w.writing.Lock()
	defer w.writing.Unlock()
	err := w.flush()
	w.mu.Lock()
	w.saidGoodbye = err == nil && (!w.closed || w.saidGoodbye)
	w.mu.Unlock()
	_ = w.Close() // the reader closes the rest
}

// flush writes everything that waits. The caller holds writing.
func (w *wire) flush() error {
	w.mu.Lock()
	batch := w.queue
	w.queue = nil
	w.mu.Unlock()
	if batch == nil {
		return nil
	}
	err := w.writeAll(*batch)
	clear(*batch) // the frames must not live as long as the pool
	if cap(*batch) <= keptQueue {
		*batch = (*batch)[:0]
		queues.Put(batch)
	}
	return err
}

// writeAll writes the frames in as few writes as possible.
func (w *wire) writeAll(frames []frame) error {
	if len(frames) == 1 {
		return w.writeFrame(frames[0])
	}
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	chunk := (*buf)[:0]
	answers, broadcasts := 0, 0
	send := func() error {
		if len(chunk) == 0 {
			return nil
		}
		if err := w.write(chunk); err != nil {
			return err
		}
		w.wrote(answers, broadcasts)
		chunk, answers, broadcasts = chunk[:0], 0, 0
		return nil
	}
	for _, f := range frames {
		if len(chunk)+len(f.b) > writeChunk || len(f.b) >= largeFrame {
			if err := send(); err != nil {
				return err
			}
		}
		if len(f.b) >= largeFrame {
			if err := w.writeFrame(f); err != nil {
				return err
			}
			continue
		}
		chunk = append(chunk, f.b...)
		if f.answer {
			answers += len(f.b)
		} else {
			broadcasts += len(f.b)
		}
	}
	return send()
}

// writeFrame writes one frame without copying it.
func (w *wire) writeFrame(f frame) error {
	for b := f.b; len(b) > 0; {
		n := min(len(b), largePiece)
		if err := w.write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		if f.answer {
			w.wrote(n, 0)
		} else {
			w.wrote(0, n)
		}
	}
	return nil
}

// wrote takes written bytes off the books.
func (w *wire) wrote(answers, broadcasts int) {
	w.mu.Lock()
	w.relieve(answers, broadcasts)
	w.mu.Unlock()
}

// relieve is wrote for a caller who holds mu.
func (w *wire) relieve(answers, broadcasts int) {
	limits := w.conn.dialect.Options
	w.answers -= answers
	w.broadcasts -= broadcasts
	if w.answers <= limits.QueueSoftLimit {
		w.wakeReader()
	}
	if w.watched != 0 {
		if w.crowded() || w.gone.Load() {
			w.watched = w.conn.srv.now()
		} else {
			w.watched = 0
		}
	}
}

// write is every write to the socket that may wait. It ends when the client has taken nothing
// for two heartbeats: then it is as dead as a silent one. gorilla's own deadline,
// set anew for each frame, is not passed on (see SetWriteDeadline).
func (w *wire) write(p []byte) error {
	srv := w.conn.srv
	limit := 2 * w.conn.dialect.Options.HeartbeatInterval
	// Moving a deadline costs a timer; so it moves in steps of a quarter.
	if until := srv.now() + limit; until-w.deadline > limit/4 {
		w.deadline = until
		if err := w.nc.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
	}
	n, err := w.nc.Write(p)
	w.conn.counters.bytesOut.Add(uint64(n))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.end(SlowConsumer)
	}
	return err
}

// Close is called by melody when one of its pumps has ended. After a close
// frame only the sending side is closed here, and the reader woken: the kernel
// answers data that arrives at a closed socket with a reset, which would throw
// away what is still on its way to the client. finish closes the rest.
func (w *wire) Close() error {
	w.end(ConnectionLost) // unless there is a reason already
	w.mu.Lock()
	first, linger := !w.closed, w.saidGoodbye
	w.closed = true
	w.watched = 0
	w.mu.Unlock()
	if !first {
		return nil
	}
	if !linger {
		return w.nc.Close()
	}
	if t, ok := w.nc.(interface{ CloseWrite() error }); ok && w.nc != w.raw() {
		_ = t.CloseWrite() // TLS's goodbye; a client that is gone does not need it
	}
	if t, ok := w.raw().(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite() // fails if the client was faster
	}
	return w.nc.SetReadDeadline(time.Now())
}

// finish closes the socket for good, after giving the client time to receive
// what was written. The reader calls it last.
func (w *wire) finish() {
	w.mu.Lock()
	linger := w.saidGoodbye
	w.mu.Unlock()
	raw := w.raw()
	if linger {
		if err := raw.SetReadDeadline(time.Now().Add(lingerTime)); err == nil {
			_, _ = io.Copy(io.Discard, raw) // ends with the client's own close, or the time
		}
	}
	_ = raw.Close() // mostly closed already
}

// LocalAddr is the socket's.
func (w *wire) LocalAddr() net.Addr { return w.nc.LocalAddr() }

// RemoteAddr is the socket's.
func (w *wire) RemoteAddr() net.Addr { return w.nc.RemoteAddr() }

// SetDeadline clears the deadlines that the HTTP server left; gorilla calls it
// for nothing else.
func (w *wire) SetDeadline(t time.Time) error { return w.nc.SetDeadline(t) }

// SetReadDeadline does nothing: melody sets one for its own pings, while here
// the server's heartbeat sweep decides who is too silent.
func (w *wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: gorilla means it for one frame, while one
// write here may be a whole queue. See write.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*wire)(nil)

// newWire makes the wire of a connection that was taken from the HTTP server,
// with what the server had read too much.
func newWire(c *Conn, nc net.Conn, early []byte) {
	w := &c.wire
	w.conn, w.nc, w.in.early = c, nc, early
	if t, ok := nc.(*net.TCPConn); ok {
		w.in.prepare(t)
	}
}

// wireOf is the wire below a session.
func wireOf(s *melody.Session) *wire { return s.WebsocketConnection().NetConn().(*wire) }
