package endpoint

import (
	"sync"
	"syscall"
)

// readChunk is the size of the pooled buffers that sockets are read into.
const readChunk = 8 << 10

var readChunks = sync.Pool{New: func() any { return new([readChunk]byte) }}

// reader is the reading half of a wire. It reads the socket in large pieces
// although an idle connection owns no buffer: it takes one from the pool only
// when the socket has something to read (on systems where that can be told).
type reader struct {
	// buf[from:to] was read and not yet handed on; nil when there is nothing.
	buf      *[readChunk]byte
	from, to int
	// early is what arrived behind the upgrade request, in the same segment.
	early []byte

	sock   syscall.RawConn // nil where only a plain Read will do
	readFn func(fd uintptr) bool
	err    error // readFn's

	// ahead is how many bytes gorilla was given since the socket was last read,
	// less those of the messages it made of them. See alone.
	ahead int
	// trusted says that messages may be as large as those of a logged-in client.
	trusted bool
	// singles counts the latest messages that nothing was read behind.
	singles int
}

// Read hands gorilla what the client sent. Connections spend their lives in it, so it
// keeps little on the stack; see the package comment.
func (w *wire) Read(p []byte) (n int, err error) {
	r := &w.in
	switch {
	case len(r.early) > 0:
		n = copy(p, r.early)
		if r.early = r.early[n:]; len(r.early) == 0 {
			r.early = nil
		}
	case r.buf == nil && (r.sock == nil || len(p) >= readChunk):
		n, err = w.nc.Read(p)
		w.heard(n)
	default:
		if r.buf == nil {
			if err = r.fill(); err != nil {
				break
			}
			r.ahead = 0
			w.heard(r.to)
		}
		n = copy(p, r.buf[r.from:r.to])
		if r.from += n; r.from == r.to {
			readChunks.Put(r.buf)
			r.buf = nil
		}
	}
	r.ahead += n
	if !r.trusted {
		w.trust()
	}
	return n, err
}

// trust lets a client that has logged in send large messages. The limit is
// gorilla's and belongs to the reader, which is waiting in Read while the login is
// judged; so it is moved when the client's next bytes come.
func (w *wire) trust() {
	c := w.conn
	if s := c.session.Load(); s != nil && state(c.state.Load()) == stateOpen {
		s.WebsocketConnection().SetReadLimit(c.dialect.Options.MaxMessageSize)
		w.in.trusted = true
	}
}

// manySingles is when messages are said to come one by one. The last of a burst
// is a single, and the first of the next often ahead of the rest; so it takes one
// more.
const manySingles = 3

// alone says whether messages come one by one: nothing was read behind the
// message of n bytes that gorilla has just made, be it here or in gorilla's own
// small buffer, nor behind those before. It is called once for each message.
// Control frames, fragments and messages longer than a chunk make it a guess,
// until the socket is read again.
func (r *reader) alone(n int) bool {
	head := 6 // with the mask
	switch {
	case n >= 1<<16:
		head = 14
	case n >= 126:
		head = 8
	}
	r.ahead -= head + n
	if r.ahead > 0 || r.buf != nil || r.early != nil {
		r.singles = 0
		return false
	}
	r.singles++
	return r.singles >= manySingles
}

// heard notes that the client is alive.
func (w *wire) heard(n int) {
	if n > 0 {
		w.conn.counters.bytesIn.Add(uint64(n))
		w.conn.heardAt.Store(w.conn.srv.clock.Load())
	}
}

// release gives the buffer back when the reader has ended.
func (r *reader) release() {
	if r.buf != nil {
		readChunks.Put(r.buf)
		r.buf = nil
	}
}
