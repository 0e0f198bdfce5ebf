package endpoint

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hadal/auth"
)

const (
	// httpSpare is how many sockets are taken beyond maxConnections. They get
	// answers of HTTP, so that health can be asked of a full node, and no WebSocket.
	httpSpare = 32
	// complainEvery is how often the log hears that clients are turned away.
	complainEvery = 10 * time.Second
)

// Why a socket was turned away.
const (
	refusedFull    = iota // maxConnections
	refusedCrowded        // maxUnauthenticated or maxUnauthenticatedPerAddress
	refusedHasty          // connectionRate.perAddress
	refusedRush           // connectionRate.global
	refusals
)

var refusalNames = [refusals]string{"too many connections", "too many without login", "too fast from an address", "too fast"}

// gate counts the sockets of the port and says whom to turn away. It knows each
// from accept to close as a guest; a guest that has not logged in, be it that it
// has not even sent a request, is a newcomer. See the package comment.
type gate struct {
	max, newcomersMax, perAddress int // 0: without bound
	trusted                       func(netip.Addr) bool
	log                           *slog.Logger

	refused    [refusals]atomic.Uint64
	complained [refusals]atomic.Int64 // when the log heard of it, in Unix nanoseconds

	mu        sync.Mutex
	left      sync.Cond             // some guest that was turned away has left
	leaving   int                   // guests that were turned away; guarded by mu
	guests    map[net.Conn]*guest   // by TCP connection; guarded by mu
	newcomers int                   // guarded by mu
	waiting   list.List             // newcomers that may have to go, the oldest first; guarded by mu
	crowds    map[netip.Addr]*crowd // newcomers by address; guarded by mu
}

// crowd is the newcomers of one address. Guarded by gate.mu.
type crowd struct {
	n       int
	waiting list.List // as gate.waiting
}

// guest is one socket of the port. Its fields are guarded by gate.mu.
type guest struct {
	nc   net.Conn // the TCP connection
	conn *Conn    // nil before an upgrade
	addr netip.Addr
	// crowd is nil for who logged in, was turned away, or came through a trusted
	// proxy and has not said for whom.
	crowd    *crowd
	newcomer bool
	leaving  bool // was turned away
	mute     bool // has sent no request

	home     func() // called when it leaves; nil unless a request has logged a user in
	counted  bool   // a request without a name has logged in, and counted as a connection
	failures int    // of logins by requests

	inAll, inCrowd *list.Element // places in the two lists; nil during a login
}

func newGate(cfg *HTTPConfig, trusted func(netip.Addr) bool, log *slog.Logger) *gate {
	g := &gate{
		max: cfg.MaxConnections, newcomersMax: cfg.MaxUnauthenticated, perAddress: cfg.MaxUnauthenticatedPerAddress,
		trusted: trusted, log: log,
		guests: make(map[net.Conn]*guest), crowds: make(map[netip.Addr]*crowd),
	}
	g.left.L = &g.mu
	if g.max > 0 { // strangers never have more than half of what there is
		half := max(1, g.max/2)
		g.newcomersMax = lower(g.newcomersMax, half)
		g.perAddress = lower(g.perAddress, max(1, half/2))
	}
	return g
}

// lower is the lower one of two limits, of which limit may be 0 for none.
func lower(limit, other int) int {
	if limit == 0 {
		return other
	}
	return min(limit, other)
}

// listener is a listener whose connections have passed the gate.
type listener struct {
	net.Listener
	gate *gate
}

// Accept waits for the next socket that may stay.
func (l listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.gate.admit(nc) {
			return nc, nil
		}
		reset(nc)
	}
}

// admit takes a socket in, perhaps at the cost of another one, or refuses it.
func (g *gate) admit(nc net.Conn) bool {
	u := &guest{nc: nc, newcomer: true, mute: true}
	addr := addressOf(nc)
	g.mu.Lock()
	// Those that were turned away have their sockets for a moment more: the next one
	// may wait that long, or a flood would shut others out by the pace it is refused.
	for g.max > 0 && len(g.guests) >= g.max+httpSpare && g.leaving > 0 {
		g.left.Wait()
	}
	if g.max > 0 && len(g.guests) >= g.max+httpSpare {
		g.mu.Unlock()
		g.count(refusedFull)
		return false
	}
	g.guests[nc] = u
	g.newcomers++
	u.inAll = g.waiting.PushBack(u)
	var gone []*guest
	if addr.IsValid() && !g.trusted(addr) {
		gone = g.join(u, addr)
	}
	if g.newcomersMax > 0 && g.newcomers > g.newcomersMax {
		gone = append(gone, g.turnAway(&g.waiting, u))
	}
	g.mu.Unlock()
	return g.dismiss(gone, u)
}

// join counts u among the newcomers of an address and returns who has to go.
// The caller holds mu.
func (g *gate) join(u *guest, addr netip.Addr) (gone []*guest) {
	u.addr = auth.Network(addr)
	c := g.crowds[u.addr]
	if c == nil {
		c = &crowd{}
		g.crowds[u.addr] = c
	}
	u.crowd = c
	c.n++
	u.inCrowd = c.waiting.PushBack(u)
	if g.perAddress > 0 && c.n > g.perAddress {
		gone = append(gone, g.turnAway(&c.waiting, u))
	}
	return gone
}

// turnAway takes the oldest of a list, or u if that is empty, out of all books
// but guests, where it stays until its socket is closed. The caller holds mu.
func (g *gate) turnAway(from *list.List, u *guest) *guest {
	if first := from.Front(); first != nil {
		u = first.Value.(*guest)
	}
	g.settle(u)
	u.leaving = true
	g.leaving++
	return u
}

// settle ends u's time as a newcomer. The caller holds mu.
func (g *gate) settle(u *guest) {
	if !u.newcomer {
		return
	}
	u.newcomer = false
	g.newcomers--
	g.hold(u)
	g.part(u)
}

// part takes u out of its crowd. The caller holds mu.
func (g *gate) part(u *guest) {
	if u.crowd == nil {
		return
	}
	if u.crowd.n--; u.crowd.n == 0 {
		delete(g.crowds, u.addr)
	}
	u.crowd = nil
}

// hold takes u off the lists of those that may have to go. The caller holds mu.
func (g *gate) hold(u *guest) {
	if u.inAll != nil {
		g.waiting.Remove(u.inAll)
	}
	if u.inCrowd != nil {
		u.crowd.waiting.Remove(u.inCrowd)
	}
	u.inAll, u.inCrowd = nil, nil
}

// dismiss closes those that were turned away, and says whether u is not one.
func (g *gate) dismiss(gone []*guest, u *guest) bool {
	stays := true
	for _, v := range gone {
		g.count(refusedCrowded)
		g.mu.Lock()
		conn := v.conn
		g.mu.Unlock()
		switch {
		case conn != nil:
			conn.drop(Crowded)
		case v == u:
			g.leave(v.nc)
		default:
			reset(v.nc)
		}
		stays = stays && v != u
	}
	return stays
}

// upgraded notes that a guest speaks WebSocket, and for whom, which a trusted
// proxy says only now. It does nothing for a connection that is no guest.
func (g *gate) upgraded(c *Conn) {
	addr, err := netip.ParseAddr(c.remote)
	g.mu.Lock()
	u := c.guest
	if u == nil {
		g.mu.Unlock()
		return
	}
	u.conn = c
	late := u.leaving // turned away a moment ago, and counted
	var gone []*guest
	if u.newcomer && u.crowd == nil && err == nil && !g.trusted(addr) {
		gone = g.join(u, addr)
	}
	g.mu.Unlock()
	if late {
		c.drop(Crowded)
	}
	g.dismiss(gone, u)
}

// judging says that a login of u is under way, during which it is not turned
// away, or has failed.
func (g *gate) judging(u *guest, underWay bool) {
	if u == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !u.newcomer:
	case underWay:
		g.hold(u)
	case u.inAll == nil:
		u.inAll = g.waiting.PushBack(u)
		if u.crowd != nil {
			u.inCrowd = u.crowd.waiting.PushBack(u)
		}
	}
}

// loggedIn makes u a client.
func (g *gate) loggedIn(u *guest) {
	if u == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settle(u)
}

// leave forgets a socket that is closed.
func (g *gate) leave(nc net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.guests[nc]
	if u == nil {
		return
	}
	g.settle(u)
	delete(g.guests, nc)
	if u.home != nil {
		u.home()
	}
	if u.leaving {
		g.leaving--
		g.left.Signal() // to Accept, which nobody else calls
	}
}

// full says whether there are so many sockets that no more may become WebSocket
// connections.
func (g *gate) full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.max > 0 && len(g.guests) > g.max
}

// guestOf is the guest behind a connection, if there is one.
func (g *gate) guestOf(nc net.Conn) *guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.guests[tcpOf(nc)]
}

// connState follows the connections of the HTTP server.
func (g *gate) connState(nc net.Conn, state http.ConnState) {
	switch state {
	case http.StateClosed:
		g.leave(tcpOf(nc))
	case http.StateActive, http.StateHijacked:
		g.mu.Lock()
		if u := g.guests[tcpOf(nc)]; u != nil {
			u.mute = false
		}
		g.mu.Unlock()
	case http.StateNew, http.StateIdle:
	}
}

// closeMute closes the connections that have not sent a request yet:
// http.Server.Shutdown would wait five seconds for each of them.
func (g *gate) closeMute() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for nc, u := range g.guests {
		if u.mute {
			_ = nc.Close() // nothing was said yet
		}
	}
}

// count counts a socket that is turned away; the log hears of it now and then.
func (g *gate) count(why int) {
	n := g.refused[why].Add(1)
	now := time.Now().UnixNano()
	last := g.complained[why].Load()
	if last != 0 && now-last < int64(complainEvery) || !g.complained[why].CompareAndSwap(last, now) {
		return
	}
	switch why {
	case refusedFull:
		g.log.Warn("clients are turned away: there are too many connections. Raise maxConnections, and the limit of open files "+
			"(ulimit -n, LimitNOFILE=), or add nodes", "limit", g.max, "total", n)
	case refusedCrowded:
		g.log.Warn("connections without a login are closed, the oldest first: there are too many. If they are your users', raise "+
			"maxUnauthenticated and maxUnauthenticatedPerAddress, or name the proxy before the node in trustedProxies",
			"limit", g.newcomersMax, "limitPerAddress", g.perAddress, "total", n)
	case refusedHasty:
		g.log.Warn("clients are refused because their address connects too often. If they are your users, raise connectionRate.perAddress "+
			"and perAddressBurst, or name the proxy before the node in trustedProxies", "total", n)
	case refusedRush:
		g.log.Warn("clients are refused because too many connect at once. If the node can take more, raise connectionRate.global and "+
			"globalBurst, or add nodes", "total", n)
	}
}

// stats counts the sockets and the newcomers among them.
func (g *gate) stats() (sockets, newcomers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.guests), g.newcomers
}

// addressOf is the IP address of a socket's peer; not valid if it has none.
func addressOf(nc net.Conn) netip.Addr {
	if t, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return t.AddrPort().Addr()
	}
	return netip.Addr{}
}

// tcpOf is the connection below TLS.
func tcpOf(nc net.Conn) net.Conn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return nc
}

// reset closes a socket at once; what the kernel holds for the peer is thrown
// away with it.
func reset(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // fails only on a socket that is closed already
	}
	_ = nc.Close() // whoever reads from it learns of it
}
