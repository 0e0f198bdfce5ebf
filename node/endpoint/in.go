package endpoint

import (
	"math"
	"sync"
	"syscall"
)

// readChunk is the size of the pooled buffers that sockets are read into.
const readChunk = 8 << 10

var readChunks = sync.Pool{New: func() any { return new([readChunk]byte) }}

// reader is the reading half of a wire. It reads the socket in large pieces
// although an idle connection owns no buffer: it takes one from the pool only
// when the socket has something to read (on systems where that can be told).
//
// Most of what clients send is messages of one frame that are read whole. Those it
// takes out of the stream and hands to the connection itself, which spares them gorilla's
// and melody's readers and their garbage. All else is gorilla's as it came, frame by frame:
// control frames, messages in fragments or longer than a buffer, and whatever is against the
// protocol, from which point on gorilla gets everything. Both run on the
// one goroutine that reads, so the order stays.
type reader struct {
	// buf[from:to] was read and not yet handed on; nil when there is nothing.
	buf      *[readChunk]byte
	from, to int
	// early is what arrived behind the upgrade request, in the same segment.
	early []byte

	sock   syscall.RawConn // nil where only a plain Read will do, and gorilla gets all
	readFn func(fd uintptr) bool
	err    error // readFn's

	// rest is how many bytes gorilla gets before a frame begins again.
	rest int64
	// fragments says that gorilla is within a message of several frames.
	fragments bool
	// half[:halves] is a header that has not come whole, so that it needs no buffer.
	half   [longestHeader - 1]byte
	halves uint8

	// ahead is how many bytes gorilla was given since the socket was last read,
	// less those of the messages it made of them, where it gets all. See alone.
	ahead int
	// trusted says that messages may be as large as those of a logged-in client.
	trusted bool
	// singles counts the latest messages that nothing was read behind.
	singles int
}

// everything is reader.rest when no frame begins again.
const everything = math.MaxInt64

// Read hands gorilla what the client sent and is not taken. Connections spend their lives in
// it, so it keeps little on the stack; see the package comment.
func (w *wire) Read(p []byte) (n int, err error) {
	r := &w.in
	if r.sock == nil {
		return w.readPlain(p)
	}
	for {
		if r.buf == nil {
			if r.rest > 0 && len(p) >= readChunk {
				n, err = w.nc.Read(p[:min(int64(len(p)), r.rest)])
				w.heard(n)
				r.passed(n)
				return n, err
			}
			if err = r.fill(); err != nil {
				return 0, err
			}
			w.heard(r.to - r.from)
			r.from = 0 // before it stands what was half
		}
		if r.rest == 0 {
			w.take()
		}
		if !r.trusted {
			w.trust() // a message that was taken may have waited for the login
		}
		if r.rest > 0 && r.buf != nil {
			n = copy(p[:min(int64(len(p)), r.rest)], r.buf[r.from:r.to])
			r.passed(n)
			r.skip(n)
			return n, nil
		}
	}
}

// readPlain is Read where gorilla gets everything, from a plain Read.
func (w *wire) readPlain(p []byte) (n int, err error) {
	r := &w.in
	if len(r.early) > 0 {
		n = copy(p, r.early)
		if r.early = r.early[n:]; len(r.early) == 0 {
			r.early = nil
		}
	} else {
		n, err = w.nc.Read(p)
		w.heard(n)
	}
	r.ahead += n
	if !r.trusted {
		w.trust()
	}
	return n, err
}

// passed notes that gorilla was given n bytes.
func (r *reader) passed(n int) {
	if r.rest != everything {
		r.rest -= int64(n)
	}
}

// skip goes past n bytes, and gives a buffer back that has nothing more.
func (r *reader) skip(n int) {
	if r.from += n; r.from == r.to {
		r.release()
	}
}

// take hands on the messages that begin what was read, and says in rest what of the
// remainder is gorilla's.
//
//go:noinline
func (w *wire) take() { // not on Read's stack
	r := &w.in
	for r.buf != nil {
		b := r.buf[r.from:r.to]
		f, ok := parseHeader(b, r.fragments)
		switch {
		case !ok:
			r.halves = uint8(copy(r.half[:], b))
			r.release()
			return
		case f.strange:
			r.rest = everything
			return
		case f.opcode >= opControl:
			r.rest = f.header + f.size
			return
		case r.fragments || !f.final || f.header+f.size > int64(len(b)) || f.size > w.longest():
			r.fragments = !f.final
			r.rest = f.header + f.size
			return
		}
		message := make([]byte, f.size) // whose text may be kept
		unmask(message, b[f.header:], b[f.header-4:])
		r.skip(int(f.header + f.size))
		w.conn.receive(message, f.opcode == opBinary)
	}
}

// longest is how long a message may be.
func (w *wire) longest() int64 {
	if w.in.trusted {
		return w.conn.dialect.Options.MaxMessageSize
	}
	return w.conn.srv.melody.Config.MaxMessageSize
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
// one of n bytes that is handed on now, nor behind those before. It is called once for
// each message. Where gorilla gets all, control frames and fragments make it a guess,
// until the socket is read again.
func (r *reader) alone(n int) bool {
	if r.sock == nil { // what is in gorilla's own buffer can only be reckoned
		head := 6 // with the mask
		switch {
		case n >= 1<<16:
			head = 14
		case n >= 126:
			head = 8
		}
		r.ahead -= head + n
	}
	if r.ahead > 0 || r.buf != nil || r.halves > 0 || r.early != nil {
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

// release gives the buffer back.
func (r *reader) release() {
	if r.buf != nil {
		readChunks.Put(r.buf)
		r.buf = nil
	}
}
