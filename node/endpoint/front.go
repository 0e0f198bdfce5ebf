package endpoint

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// front stands before the HTTP server of a port without TLS and takes what most
// sockets bring: a whole upgrade request in one piece. Such a one is parsed with
// buffers from a pool and served at once. The HTTP server would make two buffers of
// 4 KiB that are garbage when the socket is taken over, start a goroutine to see
// whether the client goes, and stop it again: a quarter of what a login costs.
//
// Whatever is not exactly that goes to the HTTP server with the bytes that were read,
// as if nothing had happened, so front need not be able to refuse: what is not
// understood, or is not strictly a request, is the HTTP server's to judge.
type front struct {
	net.Listener // of sockets that have passed the gate
	srv          *Server
	to           *handed
}

// Accept implements net.Listener for the HTTP server. It returns no connection, only
// errors, for which the HTTP server waits a while and calls again: its connections come
// by way of handed.
func (f *front) Accept() (net.Conn, error) {
	for {
		nc, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		f.srv.crew.do(func() { f.meet(nc) })
	}
}

// handed is the listener of the sockets that front hands on.
type handed struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newHanded(addr net.Addr) *handed {
	return &handed{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handed) Addr() net.Addr { return h.addr }

// replayed is a socket of which something was read already.
type replayed struct {
	net.Conn
	read []byte
}

// Read implements net.Conn.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(p, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// NetConn is the socket.
func (r *replayed) NetConn() net.Conn { return r.Conn }

// meet reads what a socket brings first and says who serves it.
func (f *front) meet(nc net.Conn) {
	s := f.srv
	if s.closing() { // Shutdown closes those that the gate knew when it began
		f.dismiss(nc)
		return
	}
	// As the HTTP server has it, which begins again with what is handed to it.
	if err := nc.SetReadDeadline(time.Now().Add(s.http.ReadTimeout)); err != nil {
		f.dismiss(nc)
		return
	}
	buf := readChunks.Get().(*[readChunk]byte)
	defer readChunks.Put(buf)
	n, err := nc.Read(buf[:])
	if err != nil {
		f.dismiss(nc)
		return
	}
	if r, d, early := f.upgrade(buf[:n]); r != nil {
		r.RemoteAddr = nc.RemoteAddr().String()
		s.gate.connState(nc, http.StateActive)
		f.serve(nc, r, d, early)
		return
	}
	select {
	case f.to.conns <- &replayed{Conn: nc, read: bytes.Clone(buf[:n])}:
	case <-f.to.closed:
		f.dismiss(nc)
	}
}

// dismiss closes a socket that nothing was said to.
func (f *front) dismiss(nc net.Conn) {
	_ = nc.Close() // it may be closed
	f.srv.gate.leave(nc)
}

// headReader is what a head is parsed with.
type headReader struct {
	bytes bytes.Reader
	buf   *bufio.Reader
}

var headReaders = sync.Pool{New: func() any { return &headReader{buf: bufio.NewReaderSize(nil, readChunk)} }}

var endOfHead = []byte("\r\n\r\n")

// upgrade is the upgrade request that b begins with, the dialect of its path, and what
// follows it. There is none if b is anything else, or only nearly one.
func (f *front) upgrade(b []byte) (*http.Request, *Dialect, []byte) {
	end := bytes.Index(b, endOfHead)
	if end < 0 || !bytes.HasPrefix(b, []byte("GET /")) {
		return nil, nil, nil
	}
	head, rest := b[:end+len(endOfHead)], b[end+len(endOfHead):]
	for i, c := range head {
		switch {
		case c == '\n' && head[i-1] == '\r', c == '\r' && head[i+1] == '\n':
		case c < ' ' && c != '\t', c == 0x7f:
			return nil, nil, nil
		}
	}
	h := headReaders.Get().(*headReader)
	defer headReaders.Put(h)
	h.bytes.Reset(head)
	h.buf.Reset(&h.bytes)
	r, err := http.ReadRequest(h.buf)
	if err != nil || h.buf.Buffered() > 0 || h.bytes.Len() > 0 {
		return nil, nil, nil
	}
	d := f.srv.speak[r.URL.Path]
	switch {
	case d == nil, r.Host == "", r.ProtoMajor != 1, r.ProtoMinor != 1, r.ContentLength != 0, len(r.TransferEncoding) > 0, r.Header["Expect"] != nil,
		!hasToken(r.Header["Connection"], "upgrade"), !hasToken(r.Header["Upgrade"], "websocket"):
		return nil, nil, nil
	}
	var early []byte
	if len(rest) > 0 {
		early = bytes.Clone(rest)
	}
	return r, d, early
}

// serve is what the HTTP server does with a request.
func (f *front) serve(nc net.Conn, r *http.Request, d *Dialect, early []byte) {
	a := &answer{nc: nc, early: early}
	defer func() {
		if p := recover(); p != nil {
			f.srv.panics.Add(1)
			f.srv.log.Error("panic while serving a request", "remote", r.RemoteAddr, "err", p, "stack", string(debug.Stack()))
			if !a.taken {
				f.dismiss(nc)
			}
		}
	}()
	f.srv.serveWebSocket(a, r, d)
	if !a.taken {
		a.send(r)
		f.dismiss(nc)
	}
}

// answer is the ResponseWriter of a request that front serves. It keeps what it is told,
// which is little: why there is no upgrade.
type answer struct {
	nc     net.Conn
	early  []byte
	header http.Header
	status int
	body   bytes.Buffer
	taken  bool
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = make(http.Header)
	}
	return a.header
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// goodbyeTime is how long a client may take to read why it is refused, before the socket
// is closed: what it still sends would have the kernel throw the answer away.
const goodbyeTime = 500 * time.Millisecond

// send writes the answer and waits until it has been read.
func (a *answer) send(r *http.Request) {
	a.WriteHeader(http.StatusOK)
	a.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	res := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Request: r, Close: true,
		Header: a.header, Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()),
	}
	if a.nc.SetDeadline(time.Now().Add(answerTimeout)) != nil || res.Write(a.nc) != nil {
		return // the client has gone
	}
	if t, ok := a.nc.(*net.TCPConn); ok && t.CloseWrite() == nil && t.SetReadDeadline(time.Now().Add(goodbyeTime)) == nil {
		_, _ = io.Copy(io.Discard, t) // ends with the client's own close, or the time
	}
}
