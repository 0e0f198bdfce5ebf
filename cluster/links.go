package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Formats of what goes over a link. Two nodes speak the highest that both know, so
// that a cluster can be upgraded node by node.
const (
	linkFormatMin = 1
	linkFormatMax = 1
)

// LinksConfig configures Links. A zero field stands for its default.
type LinksConfig struct {
	// Queue is how many bytes may wait for one peer; 64 MiB. Over it the link ends.
	Queue int
	// MaxMessage is how large a payload may be, in bytes, sent or received; 40 MiB.
	MaxMessage int
	// Keepalive is after how long an idle link is tried, and how often; 1 s. A peer of which
	// nothing comes for three times that, or that takes nothing, is given up.
	Keepalive time.Duration
	// Backoff is the shortest and the longest wait between attempts to connect; 50 ms
	// and 1 s.
	BackoffMin, BackoffMax time.Duration
}

// LinkSelf is what a node tells its peers about itself.
type LinkSelf struct {
	ID, Name    string
	Incarnation uint64
	ClusterID   string
}

// PeerAddr is a member to have a link with.
type PeerAddr struct {
	ID, Name string
	// Addr is the host and port of the member's Port.
	Addr string
	// Incarnation is the latest that the table knows of.
	Incarnation uint64
}

// LinksStats are counts since Links were made.
type LinksStats struct {
	// Links is how many there are now.
	Links int
	// Sent and Received are of all links that there were.
	Sent, Received Traffic
	// Unhandled are messages of a kind that nobody here handles.
	Unhandled uint64
	// Queued is how many bytes wait for peers now.
	Queued int64
	// Ends are links that ended, by reason.
	Ends map[string]uint64
	// Refused are peers that came and were refused, by reason.
	Refused map[string]uint64
	// FailedDials are attempts to connect that came to nothing.
	FailedDials uint64
}

// Traffic is what went one way.
type Traffic struct{ Messages, Bytes uint64 }

// Links are the links of this node with its peers: the half of a Bus that loses
// nothing unnoticed.
//
// For each member there is one goroutine as long as it is a member. On the node with
// the smaller id it dials, on the other it waits; both say hello, and then the same
// goroutine tells the rooms Up, reads until the link ends, tells them Down, and
// begins anew. That is why Up, Hear and Down come in order and from one goroutine. A second one
// writes what Send has queued, a third watches that there is life.
//
// A peer that dials again while its old link seems to live here has lost it: the old
// one ends, and the new one is answered when every room has heard Down.
//
// The locks: mu for who is a peer, then a link's own for its queue.
type Links struct {
	cfg      LinksConfig
	self     LinkSelf
	min, max int // formats
	dial     func(ctx context.Context, address string) (net.Conn, error)
	log      *slog.Logger
	handlers [kinds]Handler // set before Run

	// linked is who can be sent to; replaced as a whole, under mu.
	linked atomic.Pointer[map[string]*link]

	mu    sync.Mutex
	peers map[string]*linkPeer // guarded by mu
	ctx   context.Context      // of Run, nil before and after; guarded by mu
	wg    sync.WaitGroup       // the peers' goroutines

	sent, received         counter
	unhandled, failedDials atomic.Uint64
	ends, refused          tally
}

// counter counts traffic.
type counter struct{ messages, bytes atomic.Uint64 }

func (c *counter) traffic() Traffic {
	return Traffic{Messages: c.messages.Load(), Bytes: c.bytes.Load()}
}

// linkPeer is a member and its goroutine.
type linkPeer struct {
	id       string
	cancel   context.CancelFunc // nil until its goroutine runs; guarded by Links.mu
	done     chan struct{}      // closed when its goroutine is gone
	incoming chan *caller       // of capacity 1: who has dialled last
	changed  chan struct{}      // of capacity 1: the address may be another one
	before   <-chan struct{}    // closed when the goroutine of an earlier membership is gone, or nil

	addr        PeerAddr // guarded by Links.mu
	incarnation uint64   // the latest known from anywhere; guarded by Links.mu
	gone        bool     // no more incoming; guarded by Links.mu
	current     *link    // guarded by Links.mu
}

// caller is a connection whose hello is good and waits for its answer.
type caller struct {
	conn  net.Conn
	hello hello
}

// NewLinks makes the links of a node and serves them on its port. Handle and SetPeers
// tell whom for and whom with; Run makes them.
func NewLinks(cfg LinksConfig, self LinkSelf, port *Port, log *slog.Logger) *Links {
	l := newLinks(cfg, self, log)
	l.dial = func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := port.dial(ctx, protocolLink, address)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	port.handle(protocolLink, func(ctx context.Context, conn *tls.Conn) { l.accept(ctx, conn) })
	return l
}

func newLinks(cfg LinksConfig, self LinkSelf, log *slog.Logger) *Links {
	setDefault(&cfg.Queue, 64<<20)
	setDefault(&cfg.MaxMessage, 40<<20)
	setDefault(&cfg.Keepalive, time.Second)
	setDefault(&cfg.BackoffMin, 50*time.Millisecond)
	setDefault(&cfg.BackoffMax, time.Second)
	cfg.Queue = max(cfg.Queue, cfg.MaxMessage+frameHead) // or the largest could never be sent
	l := &Links{cfg: cfg, self: self, min: linkFormatMin, max: linkFormatMax, log: log, peers: make(map[string]*linkPeer)}
	l.linked.Store(&map[string]*link{})
	return l
}

// setDefault gives a field that is not set its default.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Handle implements Bus, before Run.
func (l *Links) Handle(k Kind, h Handler) {
	if k == kindControl || k >= kinds || l.handlers[k] != nil {
		panic(fmt.Sprintf("cluster: Handle of kind %d: it does not exist or is handled", k))
	}
	l.handlers[k] = h
}

// Send implements Bus. Nothing is allocated but what the queue needs. Of a new link it
// is false until Up of the kind has been called: a goroutine that sends while Up is about to
// begin may be in time or not, and its message may come before those that Up sends.
func (l *Links) Send(peer string, k Kind, payload []byte) bool {
	link := (*l.linked.Load())[peer]
	return link != nil && link.send(k, payload)
}

// Offer implements Bus.
func (l *Links) Offer(peer string, k Kind, payload []byte) bool {
	link := (*l.linked.Load())[peer]
	return link != nil && link.offer(k, payload)
}

// Linked implements Bus.
func (l *Links) Linked(peer string) bool { return (*l.linked.Load())[peer] != nil }

// Format is the format that is spoken with a peer, or 0 when there is no link.
func (l *Links) Format(peer string) int {
	if link := (*l.linked.Load())[peer]; link != nil {
		return link.format
	}
	return 0
}

// SetPeers says who the members are; this node among them is ignored. Links to others
// end. It never blocks, and may be called before Run and at any time after.
func (l *Links) SetPeers(peers []PeerAddr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	members := make(map[string]bool, len(peers))
	for _, addr := range peers {
		if addr.ID == l.self.ID {
			continue
		}
		members[addr.ID] = true
		p := l.peers[addr.ID]
		if p == nil || p.gone {
			p = l.newPeer(addr.ID, p)
			l.peers[addr.ID] = p
		}
		if p.addr != addr {
			p.addr = addr
			select {
			case p.changed <- struct{}{}:
			default:
			}
		}
		p.incarnation = max(p.incarnation, addr.Incarnation)
		if p.current != nil && p.current.incarnation < p.incarnation {
			p.current.end(endOlder)
		}
		l.start(p)
	}
	for id, p := range l.peers {
		if members[id] || p.gone {
			continue
		}
		if p.current != nil {
			p.current.end(endRemoved) // first, or its goodbye comes before the reason
		}
		l.dismiss(p)
		if p.cancel == nil {
			delete(l.peers, id)
		}
	}
}

// newPeer makes a peer. One that has just been removed and still tells its rooms so is
// waited for. Under mu.
func (l *Links) newPeer(id string, before *linkPeer) *linkPeer {
	p := &linkPeer{id: id, done: make(chan struct{}), incoming: make(chan *caller, 1), changed: make(chan struct{}, 1)}
	if before != nil {
		p.incarnation, p.before = before.incarnation, before.done
	}
	return p
}

// start starts a peer's goroutine, if Run runs and it does not. Under mu.
func (l *Links) start(p *linkPeer) {
	if l.ctx == nil || p.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	p.cancel = cancel
	l.wg.Go(func() { l.attend(ctx, p) })
}

// dismiss ends a peer: nobody reaches it any more. Under mu.
func (l *Links) dismiss(p *linkPeer) {
	p.gone = true
	if p.cancel != nil {
		p.cancel()
	}
	select {
	case c := <-p.incoming:
		hangUp(c.conn)
	default:
	}
}

// Run keeps the links until ctx ends. Then what is queued is still written, for up to
// a second, and every room hears Down.
func (l *Links) Run(ctx context.Context) error {
	l.mu.Lock()
	l.ctx = ctx
	for _, p := range l.peers {
		l.start(p)
	}
	l.mu.Unlock()
	<-ctx.Done()
	l.mu.Lock()
	l.ctx = nil
	l.mu.Unlock()
	l.wg.Wait()
	return nil
}

// attend is a peer's goroutine.
func (l *Links) attend(ctx context.Context, p *linkPeer) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.dismiss(p)
		if l.peers[p.id] == p {
			delete(l.peers, p.id)
		}
		close(p.done)
	}()
	if p.before != nil {
		<-p.before
	}
	var wait time.Duration
	var failing, told time.Time
	for ctx.Err() == nil {
		link, err := l.connect(ctx, p, wait)
		if err == nil {
			failing = time.Time{}
			began := time.Now()
			l.session(ctx, p, link)
			// One that ends as soon as it is there must not spin.
			if time.Since(began) > l.cfg.BackoffMax {
				wait = 0
			}
		} else if ctx.Err() == nil {
			l.failedDials.Add(1)
			now := time.Now()
			if failing.IsZero() {
				failing = now
			}
			// A peer that starts with us is no news.
			if now.Sub(failing) >= l.cfg.BackoffMax && now.Sub(told) >= tallyEvery {
				told = now
				l.log.Warn("no link with peer", "peer", l.nameOf(p), "since", failing.UTC(), "err", err)
			}
		}
		wait = min(max(2*wait, l.cfg.BackoffMin), l.cfg.BackoffMax)
	}
}

// nameOf is a peer for the log.
func (l *Links) nameOf(p *linkPeer) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%s (%s, %s)", p.addr.Name, p.id, p.addr.Addr)
}

// connect makes the next link: by dialling, after a wait, or by being dialled.
func (l *Links) connect(ctx context.Context, p *linkPeer, wait time.Duration) (*link, error) {
	if l.self.ID > p.id {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case c := <-p.incoming:
			return l.welcome(p, c)
		}
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.changed:
	case <-timer.C:
	}
	return l.call(ctx, p)
}

// session is the life of one link.
func (l *Links) session(ctx context.Context, p *linkPeer, k *link) {
	if !l.enter(ctx, p, k) {
		k.end(endRemoved)
		return
	}
	l.log.Info("link up", "peer", l.nameOf(p), "incarnation", k.incarnation, "format", k.format)
	var wg sync.WaitGroup
	wg.Go(k.write)
	wg.Go(func() { k.watch(ctx) })
	for kind, h := range l.handlers {
		if h != nil {
			k.up.Or(1 << kind)
			h.Up(p.id)
		}
	}
	k.end(k.read(l))
	wg.Wait()
	l.leave(p, k)
	for _, h := range l.handlers {
		if h != nil {
			h.Down(p.id)
		}
	}
	_, n := l.ends.add(k.reason())
	l.log.Info("link down", "peer", l.nameOf(p), "reason", k.reason(), "count", n)
}

// enter lets a link be sent on, unless its peer is gone.
func (l *Links) enter(ctx context.Context, p *linkPeer, k *link) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.gone || ctx.Err() != nil || k.incarnation < p.incarnation {
		return false
	}
	p.incarnation = k.incarnation
	p.current = k
	linked := maps.Clone(*l.linked.Load())
	linked[p.id] = k
	l.linked.Store(&linked)
	return true
}

// leave ends enter.
func (l *Links) leave(p *linkPeer, k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.current = nil
	linked := maps.Clone(*l.linked.Load())
	delete(linked, p.id)
	l.linked.Store(&linked)
}

// Stats are the counts so far.
func (l *Links) Stats() LinksStats {
	s := LinksStats{
		Sent: l.sent.traffic(), Received: l.received.traffic(),
		Unhandled: l.unhandled.Load(), FailedDials: l.failedDials.Load(),
		Ends: l.ends.all(), Refused: l.refused.all(),
	}
	for _, k := range *l.linked.Load() {
		s.Links++
		k.mu.Lock()
		s.Queued += int64(k.waiting)
		k.mu.Unlock()
	}
	return s
}

// errNotNow is for a caller that came while we end.
var errNotNow = errors.New("the node is stopping")
