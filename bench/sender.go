package bench

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hadal/bench/target"
	"hadal/protocol"
)

// stream is a series of messages in an order: those of one sender for one name.
type stream struct {
	id     uint32
	sender *sender
	frame  []byte // with the last stamp, or the placeholder
	at     []int  // where in frame stamps are

	// copies is how many receivers must have a message before it makes room in the window. It
	// is set before the first message goes.
	copies int32
	left   []atomic.Int32 // copies that are still due, by number modulo the length; nil if there is one copy

	sent    atomic.Uint64
	unheard atomic.Int32 // receivers that have not heard a probe
}

// probe is the number of messages that only find out whether a stream arrives.
const probe = 1<<(4*seqDigits) - 1

// newStream registers a stream whose messages are like m, with the placeholder where stamps go.
func (l *load) newStream(s *sender, m *protocol.Message) *stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := &stream{id: uint32(len(l.streams)), sender: s, copies: 1}
	l.streams = append(l.streams, st)
	s.streams = append(s.streams, st)
	st.like(m)
	return st
}

// like has the messages of the stream be like m from now on.
func (st *stream) like(m *protocol.Message) {
	st.frame, st.at = target.Frame(m), nil
	for from := 0; ; from += stampSize {
		i := bytes.Index(st.frame[from:], []byte(placeholder))
		if i < 0 {
			return
		}
		from += i
		st.at = append(st.at, from)
	}
}

// shared says that n receivers must have each message.
func (st *stream) shared(n int) {
	st.copies = int32(n)
	if n > 1 {
		ring := 1
		for ring < 4*max(st.sender.window, 1) {
			ring *= 2
		}
		st.left = make([]atomic.Int32, ring)
	}
}

// arrived tells the stream that a receiver has message seq, or will never have it. It
// returns the sender if there is room for another one.
func (st *stream) arrived(seq uint64) *sender {
	if st.left != nil && st.left[seq%uint64(len(st.left))].Add(-1) != 0 {
		return nil
	}
	return st.sender
}

// sender is a client that sends, in turn for each of its streams.
type sender struct {
	l      *load
	client *target.Client
	window int // 0 in an open loop

	mu      sync.Mutex
	streams []*stream // fixed before the first message goes
	next    int       // guarded by mu: whose turn it is
	running bool      // guarded by mu
}

// newSender makes a sender of a client.
func (l *load) newSender(c *target.Client) *sender {
	s := &sender{l: l, client: c, window: l.window}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.senders = append(l.senders, s)
	return s
}

// queue adds the next message to the next write. The caller has mu.
func (s *sender) queue(due int64) {
	st := s.streams[s.next]
	if s.next++; s.next == len(s.streams) {
		s.next = 0
	}
	seq := st.sent.Load()
	if st.left != nil {
		st.left[seq%uint64(len(st.left))].Store(st.copies)
	}
	s.put(st, stamp{st.id, seq, due})
	st.sent.Store(seq + 1)
}

// put adds a message with that stamp to the next write.
func (s *sender) put(st *stream, mark stamp) {
	frame := s.client.QueueFrame(st.frame)
	for _, at := range st.at {
		mark.put(frame[at:])
	}
}

// probes sends messages that do not count until every receiver has heard one of each of its
// streams: a node learns a little later than a subscriber of another one that it has
// subscribed.
func (l *load) probes(ctx context.Context) error {
	give := time.Now().Add(comesIn)
	for {
		waiting := 0
		for _, s := range l.senders {
			for _, st := range s.streams {
				if n := st.unheard.Load(); n > 0 {
					waiting += int(n)
					s.put(st, stamp{st.id, probe, clock()})
				}
			}
			if err := s.client.Flush(); err != nil {
				return err
			}
		}
		switch {
		case waiting == 0:
			return nil
		case time.Now().After(give):
			return fmt.Errorf("%d subscribers hear nothing in %v", waiting, comesIn)
		}
		if err := target.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// begin fills the window.
func (s *sender) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = true
	now := clock()
	for range s.window {
		s.queue(now)
	}
	return s.client.Flush()
}

// more queues a message for one that has arrived everywhere; flush writes it.
func (s *sender) more(due int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running {
		s.queue(due)
	}
}

func (s *sender) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client.Queued() == 0 {
		return nil
	}
	return s.client.Flush()
}

func (s *sender) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
}

// closed drives the senders until ctx ends: who hears the last copy of a message sends the
// next.
func (l *load) closed(ctx context.Context) error {
	for _, s := range l.senders {
		if err := s.begin(); err != nil {
			return err
		}
	}
	<-ctx.Done()
	for _, s := range l.senders {
		s.stop()
	}
	return nil
}

// mostQueued is how many bytes an open loop that is late writes at once.
const mostQueued = 32 << 10

// open drives the senders at the rate of the load, in turn, until ctx ends. Moments that
// have passed are sent for as fast as they can be.
func (l *load) open(ctx context.Context) error {
	interval := float64(time.Second) / l.rate
	began := clock()
	lag := &l.meter.lag[0]
	var dirty []*sender
	flush := func() error {
		for _, s := range dirty {
			if err := s.client.Flush(); err != nil {
				return err
			}
		}
		dirty = dirty[:0]
		return nil
	}
	n := len(l.senders)
	for k := 0; ctx.Err() == nil; k++ {
		due := began + int64(float64(k)*interval)
		now := clock()
		if due > now {
			if err := flush(); err != nil {
				return err
			}
			sleepUntil(ctx, due)
			if ctx.Err() != nil {
				break
			}
			now = clock()
		}
		lag.record(now - due)
		s := l.senders[k%n]
		s.mu.Lock()
		if s.client.Queued() == 0 {
			dirty = append(dirty, s)
		}
		s.queue(due)
		full := s.client.Queued() >= mostQueued
		s.mu.Unlock()
		l.dueSent.Add(1)
		if full {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// sleepUntil sleeps until a moment of our clock, or the end of ctx, to within some hundredths
// of a millisecond: the runtime's own timers are a millisecond late when nothing else runs.
func sleepUntil(ctx context.Context, due int64) {
	const coarse = 3 * time.Millisecond
	if left := time.Duration(due - clock()); left > coarse {
		if target.Pause(ctx, left-coarse) != nil {
			return
		}
	}
	for {
		left := time.Duration(due - clock())
		if left <= 0 {
			return
		}
		nap(left)
	}
}
