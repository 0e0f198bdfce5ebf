package endpoint

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/auth"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"
)

// forever is what melody's own timers are set to: liveness is the sweep's.
const forever = time.Duration(math.MaxInt64)

// controlFrame is room for any control frame in one piece, so that gorilla
// never hands the wire half of one.
const controlFrame = 128

// newMelody makes the WebSocket engine, whose events go to the Conn below each
// session.
func newMelody(speak map[string]*Dialect, log *slog.Logger) *melody.Melody {
	m := melody.New()
	var spoken []string
	m.Config.MaxMessageSize = maxLoginMessage // until wire.trust
	for _, d := range speak {
		m.Config.MaxMessageSize = min(m.Config.MaxMessageSize, d.Options.MaxMessageSize)
		if d.Subprotocol != "" {
			spoken = append(spoken, d.Subprotocol)
		}
	}
	m.Config.PingPeriod = forever
	m.Config.PongWait = forever
	m.Config.WriteWait = forever
	// Up to two close frames wait at once; all else is written by writers and pumps.
	m.Config.MessageBufferSize = 2
	m.Upgrader = &websocket.Upgrader{
		// The wire buffers reads, and writes little through gorilla.
		ReadBufferSize:  controlFrame,
		WriteBufferSize: controlFrame,
		Subprotocols:    spoken,
		CheckOrigin:     func(*http.Request) bool { return true }, // checked before
		// No compression: frames are shared between clients, so they are not
		// made by gorilla.
	}
	m.HandleConnect(func(s *melody.Session) { wireOf(s).conn.connected(s) })
	m.HandleMessageBinary(func(s *melody.Session, b []byte) { wireOf(s).conn.receive(b, true) })
	m.HandleMessage(func(s *melody.Session, b []byte) { wireOf(s).conn.receive(b, false) })
	m.HandleError(func(s *melody.Session, err error) {
		if errors.Is(err, melody.ErrMessageBufferFull) {
			log.Error("melody's buffer is full although only goodbyes go through it", "conn", wireOf(s).conn.id)
		}
		if errors.Is(err, melody.ErrWriteClosed) || errors.Is(err, melody.ErrMessageBufferFull) {
			return
		}
		wireOf(s).end(reasonOf(err))
	})
	return m
}

// sessionRequest stands for every session's request.
var sessionRequest = &http.Request{}

// reasonOf says why a pump ended.
func reasonOf(err error) Reason {
	var (
		closed *websocket.CloseError
		netErr net.Error
	)
	switch {
	case errors.Is(err, websocket.ErrReadLimit):
		return MessageTooBig
	case errors.As(err, &closed):
		if closed.Code == websocket.CloseAbnormalClosure {
			return ConnectionLost // gorilla's word for EOF
		}
		return ClientClosed
	case errors.Is(err, websocket.ErrCloseSent):
		return ClientClosed // gorilla answered the client's close before our pump wrote again
	case errors.As(err, &netErr), errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ConnectionLost
	case strings.HasPrefix(err.Error(), "websocket: "):
		return ProtocolError
	}
	return ConnectionLost
}

// serveWebSocket answers a request for the WebSocket path: it takes the socket
// over and returns, so that everything the HTTP server holds for it is freed.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, d *Dialect) {
	if status, text := s.checkUpgrade(w, r, d); status != 0 {
		http.Error(w, text, status)
		return
	}
	visit := s.Attempt(r)
	if s.guard != nil && !s.guard(w, r, visit) {
		return
	}
	nc, early, err := s.take(w)
	if err != nil {
		s.log.Error("cannot take over a connection", "remote", visit.RemoteAddr, "err", err)
		http.Error(w, "cannot upgrade this connection", http.StatusInternalServerError)
		return
	}
	s.start(nc, early, visit, d)
}

// take takes the socket of a request over, with what was read of it behind the request.
func (s *Server) take(w http.ResponseWriter) (net.Conn, []byte, error) {
	if a, ok := w.(*answer); ok {
		a.taken = true
		return a.nc, a.early, nil
	}
	nc, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	buffered, _ := brw.Reader.Peek(brw.Reader.Buffered()) // as many as there are
	var early []byte
	if r, ok := nc.(*replayed); ok {
		nc, early = r.Conn, r.read
	}
	if early = slices.Concat(buffered, early); len(early) == 0 {
		early = nil
	}
	return nc, early, nil
}

// start serves an upgrade that was checked and whose socket is ours, on a new
// goroutine.
func (s *Server) start(nc net.Conn, early []byte, visit *auth.Attempt, d *Dialect) {
	c := s.newConn(nc, early, visit, d, false)
	if c == nil {
		s.decline(nc) // shutting down
		return
	}
	s.gate.upgraded(c)
	go c.run()
}

// decline closes a socket that is ours and to which nothing was promised yet.
func (s *Server) decline(nc net.Conn) {
	_ = nc.Close()
	s.gate.leave(tcpOf(nc))
}

// checkUpgrade says with which status, if any, to refuse an upgrade. All that
// gorilla would refuse is refused here, while HTTP can still say so.
func (s *Server) checkUpgrade(w http.ResponseWriter, r *http.Request, d *Dialect) (status int, text string) {
	switch {
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		return http.StatusMethodNotAllowed, "this path is for WebSocket connections"
	case !hasToken(r.Header["Connection"], "upgrade") || !hasToken(r.Header["Upgrade"], "websocket") || !r.ProtoAtLeast(1, 1):
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		return http.StatusUpgradeRequired, "this path is for WebSocket connections"
	case !hasToken(r.Header["Sec-Websocket-Version"], "13"):
		w.Header().Set("Sec-WebSocket-Version", "13")
		return http.StatusUpgradeRequired, "only WebSocket version 13 is spoken here"
	case !validKey(r.Header["Sec-Websocket-Key"]):
		return http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64"
	case r.ContentLength != 0:
		return http.StatusBadRequest, "an upgrade has no body"
	case d.Subprotocol != "" && !offers(r, d.Subprotocol):
		return http.StatusBadRequest, "clients of this path offer the subprotocol " + d.Subprotocol
	case !s.originAllowed(r.Header["Origin"]):
		return http.StatusForbidden, "origin not allowed"
	case s.closing():
		return http.StatusServiceUnavailable, "the server is going away"
	case s.turnsAway():
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Connection", "close")
		return http.StatusServiceUnavailable, "this server takes no clients now: see /readyz"
	case s.gate.full():
		s.gate.count(refusedFull)
		w.Header().Set("Retry-After", "10")
		w.Header().Set("Connection", "close")
		return http.StatusServiceUnavailable, "too many connections"
	}
	return s.hurry(w, r)
}

// turnsAway says whether nobody is let in, and where else to go is not known.
func (s *Server) turnsAway() bool {
	d := s.draining.Load()
	return s.held.Load() || d != nil && len(d.urls) == 0
}

// originAllowed judges the Origin header. Browsers send it always; a client that
// sends none is no page that somebody was lured to.
func (s *Server) originAllowed(origin []string) bool {
	switch len(origin) {
	case 0:
		return true
	case 1:
		return s.cfg.HTTP.AllowsOrigin(origin[0])
	}
	return s.cfg.HTTP.AllowsOrigin("")
}

// hasToken says whether a comma-separated header holds a token.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

func validKey(values []string) bool {
	if len(values) != 1 {
		return false
	}
	key, err := base64.StdEncoding.DecodeString(values[0])
	return err == nil && len(key) == 16
}

// clientAddr is the IP address of the client: the socket's peer, or, as long as
// that is a proxy the operator trusts, who it says it speaks for.
func (s *Server) clientAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || !s.trusted(addr) {
		return host
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		next, ok := parseHop(strings.TrimSpace(hops[i]))
		if !ok {
			break // what stands left of rubbish is rubbish
		}
		addr = next
		if !s.trusted(addr) {
			break
		}
	}
	return addr.WithZone("").Unmap().String()
}

// parseHop reads one entry of X-Forwarded-For, which may carry a port.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a, true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr(), true
	}
	return netip.Addr{}, false
}

func (s *Server) trusted(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range s.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// handover is what melody is given for an upgrade and nobody needs after it: the
// request, as far as gorilla looks at it, and the ResponseWriter that gives gorilla our wire
// for a socket. It is lent from a pool until there is a session.
type handover struct {
	wire    *wire
	request http.Request
	header  http.Header // of the answer: nothing
	buffers *bufio.ReadWriter
}

var handovers = sync.Pool{New: func() any {
	return &handover{
		request: http.Request{Method: http.MethodGet, Header: http.Header{
			"Connection":            {"Upgrade"},
			"Upgrade":               {"websocket"},
			"Sec-Websocket-Version": {"13"},
		}},
		header:  make(http.Header),
		buffers: bufio.NewReadWriter(bufio.NewReaderSize(nil, 16), bufio.NewWriterSize(nil, 512)),
	}
}}

// newHandover prepares the upgrade of a connection whose request was checked.
func newHandover(c *Conn) *handover {
	h := handovers.Get().(*handover)
	h.wire = &c.wire
	h.wire.lent = h
	h.buffers.Reader.Reset(h.wire)
	h.buffers.Writer.Reset(h.wire)
	h.request.Header["Sec-Websocket-Key"] = c.visit.Header["Sec-Websocket-Key"]
	if c.dialect.Subprotocol != "" {
		h.request.Header["Sec-Websocket-Protocol"] = []string{c.dialect.Subprotocol}
	}
	return h
}

// free takes it back.
func (h *handover) free() {
	h.wire = nil
	h.buffers.Reader.Reset(nil)
	h.buffers.Writer.Reset(nil)
	delete(h.request.Header, "Sec-Websocket-Key")
	delete(h.request.Header, "Sec-Websocket-Protocol")
	handovers.Put(h)
}

// Hijack implements http.Hijacker.
func (h *handover) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.wire, h.buffers, nil }

// Header implements http.ResponseWriter.
func (h *handover) Header() http.Header { return h.header }

// Write implements http.ResponseWriter. gorilla would report a request that it
// refuses; checkUpgrade has seen to it that there is none.
func (h *handover) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter; see Write.
func (h *handover) WriteHeader(int) {}
