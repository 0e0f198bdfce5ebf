package bench

import (
	"errors"
	"fmt"
	"sync/atomic"

	"hadal/bench/target"
	"hadal/protocol"
)

// receiver is a client that hears. Its fields are of the goroutine that reads, but for the
// counters.
type receiver struct {
	l      *load
	client *target.Client
	shard  *shard
	seen   map[uint32]*seen
	last   *seen // the one that was asked for last

	now     int64     // when the bytes that are being read came
	waiting []*sender // who has something queued because of what was read

	messages, arrivals int64 // since they were published
	counted            atomic.Int64
	arrived            atomic.Int64

	duplicated, outOfOrder int64 // read when the goroutine has ended
}

// seen is what a receiver has heard of a stream.
type seen struct {
	*stream
	next    uint64              // one behind the highest number so far
	missing map[uint64]struct{} // below next
	loose   bool                // order means nothing
	beside  bool                // of no account for the scenario: neither counted nor waited for
	heard   bool                // a probe
}

// newReceiver makes a receiver of a client.
func (l *load) newReceiver(c *target.Client) *receiver {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &receiver{l: l, client: c, shard: &l.meter.latency[len(l.receivers)%shards], seen: map[uint32]*seen{}}
	l.receivers = append(l.receivers, r)
	return r
}

// expect says that all messages of the streams are due here.
func (r *receiver) expect(streams ...*stream) {
	for _, st := range streams {
		r.seen[st.id] = &seen{stream: st}
		st.unheard.Add(1)
	}
}

// expectLoose is expect for messages that may overtake each other.
func (r *receiver) expectLoose(st *stream) { r.seen[st.id] = &seen{stream: st, loose: true} }

// expectBeside is expect for messages that are no messages of the scenario: that all
// come, once and in order, is all that matters.
func (r *receiver) expectBeside(st *stream) { r.seen[st.id] = &seen{stream: st, beside: true} }

// listen reads until the connection ends, and gives every message but heartbeats to hear.
// It is for the load's own goroutines.
func (r *receiver) listen(hear func(m *protocol.Message) error) error {
	for {
		fresh := r.client.Buffered() == 0
		if fresh {
			if err := r.publish(); err != nil {
				return err
			}
		}
		m, err := r.client.Hear()
		if err != nil {
			return err
		}
		if fresh {
			r.now = clock()
		}
		switch {
		case m.IsError:
			return fmt.Errorf("heard %s %s for %q", m.Topic, m.Action.Name(m.Topic), m.Name)
		case m.Topic == protocol.TopicConnection:
			continue // the answer to a heartbeat
		}
		if err := hear(m); err != nil {
			return err
		}
	}
}

// publish is done before the goroutine waits: it lets others see what was counted, and
// writes what is due because of it.
func (r *receiver) publish() error {
	if r.messages > 0 {
		r.counted.Add(r.messages)
	}
	if r.arrivals > 0 {
		r.arrived.Add(r.arrivals)
	}
	r.messages, r.arrivals = 0, 0
	for i, s := range r.waiting {
		r.waiting[i] = nil
		if err := s.flush(); err != nil {
			return err
		}
	}
	r.waiting = r.waiting[:0]
	return nil
}

// ignore is a listener for clients whose answers mean nothing, unless they are errors.
func ignore(*protocol.Message) error { return nil }

// hears is a listener for messages of an action whose data has the stamp.
func (r *receiver) hears(topic protocol.Topic, actions ...protocol.Action) func(*protocol.Message) error {
	return func(m *protocol.Message) error {
		if m.Topic != topic {
			return nil
		}
		for _, a := range actions {
			if m.Action == a && !m.IsAck {
				st, err := stampOf(m.Data)
				if err != nil {
					return fmt.Errorf("heard %s %s for %q: %w", m.Topic, m.Action.Name(m.Topic), m.Name, err)
				}
				return r.got(st)
			}
		}
		return nil
	}
}

var errStranger = errors.New("a message of a stream that is not due here")

// got takes a stamp that has arrived.
func (r *receiver) got(s stamp) error {
	at := r.last
	if at == nil || at.id != s.stream {
		at = r.seen[s.stream]
		if at == nil {
			return fmt.Errorf("%w: %d", errStranger, s.stream)
		}
		r.last = at
	}
	if s.seq == probe {
		if !at.heard {
			at.heard = true
			at.unheard.Add(-1)
		}
		return nil
	}
	if s.seq != at.next && !r.unexpected(at, s.seq) {
		return nil
	}
	late := s.seq < at.next
	at.next = max(at.next, s.seq+1)
	r.arrivals++
	if !at.beside {
		r.messages++
		r.shard.record(r.now - s.due)
	}
	if !late || at.loose {
		r.room(at, s.seq)
	}
	return nil
}

// room sends another message if there is room for one.
func (r *receiver) room(at *seen, seq uint64) {
	if at.beside || at.sender.window == 0 {
		return
	}
	s := at.arrived(seq)
	if s == nil {
		return
	}
	s.more(r.now)
	for _, w := range r.waiting {
		if w == s {
			return
		}
	}
	r.waiting = append(r.waiting, s)
}

// unexpected notes that a message is not the next one of its stream. It says whether it
// has not come before.
func (r *receiver) unexpected(at *seen, seq uint64) bool {
	if seq < at.next {
		if _, late := at.missing[seq]; !late {
			r.duplicated++
			return false
		}
		delete(at.missing, seq)
		if !at.loose {
			r.outOfOrder++
		}
		return true
	}
	if at.missing == nil {
		at.missing = map[uint64]struct{}{}
	}
	for n := at.next; n < seq; n++ {
		at.missing[n] = struct{}{}
		if !at.loose {
			r.room(at, n) // nobody waits for it, or one lost message would end a closed loop
		}
	}
	return true
}
