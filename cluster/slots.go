package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// SlotBus is the half of the Bus that broadcasts: what is published in a slot of a kind
// goes to all other nodes that have joined it, on the subject hadal.slot.<kind>.<slot>.
// Who has joined is known to the embedded servers, which tell each other and send
// nothing where nobody listens.
//
// Publish gathers what comes for a slot while the one goroutine that sends is at work,
// so that under load one message carries many. That goroutine and its one connection
// are what keeps the order; the connection does not get back what it sent (NoEcho). What
// comes in goes through one channel and one goroutine for each kind.
//
// Everything that waits is bounded, and what does not fit is dropped and counted.
type SlotBus struct {
	server *Server
	self   string // this node's id
	log    *slog.Logger
	kinds  [kinds]*slotKind // set by Handle

	mu      sync.Mutex
	ready   []*slotBatch // guarded by mu; to be sent, in this order
	queued  int          // guarded by mu; bytes in ready
	changed []*slot      // guarded by mu; joined or left
	wake    chan struct{}

	published, sent, sentBytes, heard atomic.Uint64
	dropped, missed, malformed        atomic.Uint64
	told                              atomic.Int64 // when drops were logged last, Unix time in ns
}

// Limits of a SlotBus.
const (
	// slotsQueue is how many bytes may wait to be sent.
	slotsQueue = 16 << 20
	// slotBatchSize is how large a message gets with more than one payload.
	slotBatchSize = 64 << 10
	// slotsBacklog is how many messages of a kind may wait to be heard.
	slotsBacklog = 1024
	// slotsTell is the time from one log line about drops to the next.
	slotsTell = 10 * time.Second
	// slotsFlush bounds a round trip to the embedded server.
	slotsFlush = 2 * time.Second
)

// slotSubject begins the subjects of slots.
const slotSubject = "hadal.slot."

// SlotHandler hears what other nodes publish, as Handler says.
type SlotHandler interface {
	Published(peer string, slot uint16, payload []byte)
}

// SlotStats is what a SlotBus counts.
type SlotStats struct {
	// Published counts payloads that somebody else had joined for, Sent the messages that
	// carried them, with SentBytes. Heard counts payloads of others that were handed on.
	Published, Sent, SentBytes, Heard uint64
	// Dropped counts payloads that were not sent: the queue was full, the server was away,
	// they were too large. Missed counts messages that were not heard, as the kind's handler
	// was too slow, Malformed those that nobody could read.
	Dropped, Missed, Malformed uint64
	// Joined is the number of slots that this node has joined, Queued the bytes that wait.
	Joined, Queued int
}

// slotKind is a kind that somebody handles.
type slotKind struct {
	kind    Kind
	handler SlotHandler
	in      chan *nats.Msg
	slots   []slot // as many as Slots
}

// slot is one slot of a kind.
type slot struct {
	of      *slotKind
	subject string
	open    *slotBatch  // guarded by SlotBus.mu; the last in ready, takes more; or nil
	joined  atomic.Bool // as Join and Leave say
	// counted says that our own subscription is among those that the server counts.
	counted atomic.Bool
	sub     atomic.Pointer[nats.Subscription] // changed by Run's goroutine
}

// slotBatch is a message being gathered.
type slotBatch struct {
	to    *slot
	data  []byte
	count int
}

var slotBatches = sync.Pool{New: func() any { return new(slotBatch) }}

// NewSlotBus returns the slots of a node, whose id the server has.
func NewSlotBus(s *Server, log *slog.Logger) *SlotBus {
	return &SlotBus{server: s, self: s.opts.Dir.NodeID(), log: log, wake: make(chan struct{}, 1)}
}

// Handle says who hears of a kind, once for each, before Run, Publish and Join.
func (s *SlotBus) Handle(k Kind, h SlotHandler) {
	sk := &slotKind{kind: k, handler: h, in: make(chan *nats.Msg, slotsBacklog), slots: make([]slot, Slots)}
	for i := range sk.slots {
		sk.slots[i].of = sk
		sk.slots[i].subject = slotSubject + strconv.Itoa(int(k)) + "." + strconv.Itoa(i)
	}
	s.kinds[k] = sk
}

// at is the slot, or nil when nobody handles the kind.
func (s *SlotBus) at(k Kind, number uint16) *slot {
	if int(k) >= len(s.kinds) || s.kinds[k] == nil || int(number) >= len(s.kinds[k].slots) {
		return nil
	}
	return &s.kinds[k].slots[number]
}

// Publish implements Bus. With nobody interested it costs some hundred nanoseconds.
func (s *SlotBus) Publish(k Kind, number uint16, payload []byte) {
	to := s.at(k, number)
	if to == nil || !s.wanted(to) {
		return
	}
	if len(payload) > s.server.opts.MaxMessage-slotOverhead {
		s.drop(1, fmt.Errorf("it has %d bytes", len(payload)))
		return
	}
	size := len(payload) + slotPayloadOverhead
	s.mu.Lock()
	if s.queued+size > slotsQueue {
		s.mu.Unlock()
		s.drop(1, errSlotsFull)
		return
	}
	b := to.open
	if b == nil || len(b.data)+size > slotBatchSize {
		b = slotBatches.Get().(*slotBatch)
		b.to, b.count, b.data = to, 0, appendSlotHeader(b.data[:0], s.self)
		to.open = b
		s.ready = append(s.ready, b)
	}
	b.data = appendSlotPayload(b.data, payload)
	b.count++
	s.queued += size
	s.mu.Unlock()
	s.published.Add(1)
	s.signal()
}

var errSlotsFull = errors.New("too much waits to be sent")

// wanted says whether any other node has joined the slot, as far as the embedded server
// has heard.
func (s *SlotBus) wanted(to *slot) bool {
	app := s.server.app.Load()
	if app == nil {
		return false
	}
	// First: a subscription of ours that is counted in between makes one too many, which
	// costs a message, not one too few.
	own := 0
	if to.counted.Load() {
		own = 1
	}
	return app.Interest(to.subject) > own
}

// Join implements Bus.
func (s *SlotBus) Join(k Kind, number uint16) { s.change(k, number, true) }

// Leave implements Bus.
func (s *SlotBus) Leave(k Kind, number uint16) { s.change(k, number, false) }

func (s *SlotBus) change(k Kind, number uint16, join bool) {
	to := s.at(k, number)
	if to == nil || to.joined.Swap(join) == join {
		return
	}
	s.mu.Lock()
	s.changed = append(s.changed, to)
	s.mu.Unlock()
	s.signal()
}

func (s *SlotBus) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run connects, sends and hears until ctx ends.
func (s *SlotBus) Run(ctx context.Context) error {
	nc, err := s.server.dial("slots", userApp, nats.NoEcho(), nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if !errors.Is(err, nats.ErrSlowConsumer) { // which Stats counts
				s.log.Warn("connection to the embedded server failed", "conn", "slots", "err", err)
			} else {
				s.tell("messages of other nodes were not heard, as they came too fast", err)
			}
		}))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hearing sync.WaitGroup
	for _, sk := range s.kinds {
		if sk != nil {
			hearing.Go(func() { s.hear(ctx, sk) })
		}
	}
	s.send(ctx, nc)
	nc.Close()
	cancel()
	hearing.Wait()
	return nil
}

// send joins, leaves and sends until ctx ends.
func (s *SlotBus) send(ctx context.Context, nc *nats.Conn) {
	var batches []*slotBatch
	var changed, unsure []*slot
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		s.ready, batches = batches[:0], s.ready
		s.changed, changed = changed[:0], s.changed
		s.queued = 0
		for _, b := range batches {
			b.to.open = nil
		}
		s.mu.Unlock()
		for _, to := range changed {
			unsure = s.subscribe(nc, to, unsure)
		}
		if len(unsure) > 0 && nc.FlushTimeout(slotsFlush) == nil {
			for _, to := range unsure {
				to.counted.Store(to.sub.Load() != nil)
			}
			unsure = unsure[:0]
		}
		for i, b := range batches {
			if err := nc.Publish(b.to.subject, b.data); err != nil {
				s.drop(b.count, err)
			} else {
				s.sent.Add(1)
				s.sentBytes.Add(uint64(len(b.data)))
			}
			if cap(b.data) <= 2*slotBatchSize {
				b.to = nil
				slotBatches.Put(b)
			}
			batches[i] = nil
		}
	}
}

// subscribe does what Join or Leave asked for. It adds to unsure what the server is yet to
// hear of.
func (s *SlotBus) subscribe(nc *nats.Conn, to *slot, unsure []*slot) []*slot {
	want, sub := to.joined.Load(), to.sub.Load()
	switch {
	case want && sub == nil:
		sub, err := nc.ChanSubscribe(to.subject, to.of.in)
		if err != nil { // the connection is closed
			s.log.Warn("slot cannot be joined", "subject", to.subject, "err", err)
			return unsure
		}
		to.sub.Store(sub)
		return append(unsure, to)
	case !want && sub != nil:
		to.counted.Store(false)
		to.sub.Store(nil)
		s.missed.Add(missedBy(sub))
		if err := sub.Unsubscribe(); err != nil {
			s.log.Warn("slot cannot be left", "subject", to.subject, "err", err)
		}
	}
	return unsure
}

// missedBy is how many messages did not fit into the kind's channel.
func missedBy(sub *nats.Subscription) uint64 {
	n, err := sub.Dropped()
	if err != nil {
		return 0 // it has ended
	}
	return uint64(max(n, 0))
}

// hear hands on what comes for a kind until ctx ends.
func (s *SlotBus) hear(ctx context.Context, sk *slotKind) {
	peers := make(map[string]string) // one string for each, few of them
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-sk.in:
			if err := s.open(sk, m, peers); err != nil {
				s.malformed.Add(1)
				s.tell("a message of another node cannot be read", err)
			}
		}
	}
}

// open reads a message.
func (s *SlotBus) open(sk *slotKind, m *nats.Msg, peers map[string]string) error {
	number, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 16)
	if err != nil || number >= uint64(len(sk.slots)) {
		return fmt.Errorf("its subject is %.100q", m.Subject)
	}
	sender, rest, err := cutSlotHeader(m.Data)
	if err != nil {
		return err
	}
	peer, ok := peers[string(sender)]
	if !ok {
		if len(peers) > 1000 { // nodes come and go
			clear(peers)
		}
		peer = string(sender)
		peers[peer] = peer
	}
	if peer == s.self {
		return nil
	}
	for len(rest) > 0 {
		var payload []byte
		if payload, rest, err = cutSlotPayload(rest); err != nil {
			return err
		}
		if !sk.slots[number].joined.Load() {
			return nil // what was under way when it left
		}
		s.heard.Add(1)
		sk.handler.Published(peer, uint16(number), payload)
	}
	return nil
}

// drop counts payloads that are not sent.
func (s *SlotBus) drop(n int, err error) {
	s.dropped.Add(uint64(n))
	s.tell("messages for other nodes were dropped", err)
}

// tell logs what was lost, now and then.
func (s *SlotBus) tell(what string, err error) {
	now, last := time.Now().UnixNano(), s.told.Load()
	if now-last < int64(slotsTell) || !s.told.CompareAndSwap(last, now) {
		return
	}
	s.log.Warn(what, "dropped", s.dropped.Load(), "malformed", s.malformed.Load(), "err", err)
}

// Stats returns what was counted.
func (s *SlotBus) Stats() SlotStats {
	st := SlotStats{
		Published: s.published.Load(), Sent: s.sent.Load(), SentBytes: s.sentBytes.Load(), Heard: s.heard.Load(),
		Dropped: s.dropped.Load(), Malformed: s.malformed.Load(), Missed: s.missed.Load(),
	}
	s.mu.Lock()
	st.Queued = s.queued
	s.mu.Unlock()
	for _, sk := range s.kinds {
		if sk == nil {
			continue
		}
		for i := range sk.slots {
			if sk.slots[i].joined.Load() {
				st.Joined++
			}
			if sub := sk.slots[i].sub.Load(); sub != nil {
				st.Missed += missedBy(sub)
			}
		}
	}
	return st
}
