package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"time"
)

// A message of a Set is a format byte, a byte that says what it is, and entries to
// the end. An entry of a delta is a byte, 1 for a name that is there and 0 for one
// that is not, and the name; an entry of a snapshot is a name. A name is its length as
// an unsigned varint, and its bytes.
const (
	setFormat = 1

	setDelta = 0 // entries change what is known
	setPart  = 4 // a part of a snapshot, beside the bits that follow
	setFirst = 1 // the first part of a snapshot
	setLast  = 2 // the last part, which may be the first too

	// setMessage is the size above which a message gets no more entries.
	setMessage = 64 << 10
)

var errSetMessage = errors.New("not a message of a set")

// setEntries calls yield with each entry of a message behind its two first bytes.
func setEntries(b []byte, delta bool, yield func(name []byte, has bool)) error {
	for len(b) > 0 {
		has := true
		if delta {
			if b[0] > 1 {
				return errSetMessage
			}
			has = b[0] == 1
			b = b[1:]
		}
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return errSetMessage
		}
		yield(b[n:n+int(size)], has)
		b = b[n+int(size):]
	}
	return nil
}

// setKind checks the head of a message, and that all of it can be read.
func setKind(payload []byte) (kind byte, entries []byte, err error) {
	if len(payload) < 2 || payload[0] != setFormat {
		return 0, nil, errSetMessage
	}
	kind, entries = payload[1], payload[2:]
	if kind != setDelta && kind&^(setFirst|setLast) != setPart {
		return 0, nil, errSetMessage
	}
	return kind, entries, setEntries(entries, kind == setDelta, func([]byte, bool) {})
}

func appendSetName(b []byte, name string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(name))), name...)
}

// setHandler is the set as the Bus sees it.
type setHandler struct{ *Set }

var _ Handler = setHandler{}

// Up implements Handler: the peer gets a snapshot, and sends one.
func (s setHandler) Up(peer string) {
	s.mu.Lock()
	p := s.peers[peer]
	if p == nil {
		p = &peerNames{id: peer}
		p.alive.Store(s.alive[peer])
		s.peers[peer] = p
	}
	p.linked, p.fresh = true, true
	s.links.Add(1)
	s.mu.Unlock()
	p.turn.Lock()
	p.filling, p.synced = false, false
	p.turn.Unlock()
	s.poke()
}

// Down implements Handler: what is known of the peer stays while the Table counts on it.
func (s setHandler) Down(peer string) {
	s.mu.Lock()
	p := s.peers[peer]
	if p == nil || !p.linked {
		s.mu.Unlock()
		return
	}
	p.linked, p.fresh = false, false
	s.links.Add(-1)
	s.mu.Unlock()
	p.turn.Lock()
	s.forgetIfGone(p)
	p.turn.Unlock()
}

// Hear implements Handler.
func (s setHandler) Hear(peer string, payload []byte) {
	s.heard.Add(1)
	kind, entries, err := setKind(payload)
	s.mu.Lock()
	p := s.peers[peer]
	s.mu.Unlock()
	if err != nil || p == nil {
		s.invalid.Add(1)
		return
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	if kind == setDelta {
		s.delta(p, entries)
		return
	}
	s.part(p, kind, entries)
}

// delta takes in changes. Before the link's snapshot has come they follow one that was
// lost with another link; the snapshot that is to come has them.
func (s setHandler) delta(p *peerNames, entries []byte) {
	if !p.synced {
		return
	}
	_ = setEntries(entries, true, func(name []byte, has bool) { // checked before
		if has {
			s.gain(p, name)
		} else {
			s.lose(p, string(name))
		}
	})
}

// part takes in a part of a snapshot. What the peer had and the snapshot has not goes
// when it is complete.
func (s setHandler) part(p *peerNames, kind byte, entries []byte) {
	if kind&setFirst != 0 {
		p.filling, p.synced = true, true
		p.number++
	}
	if !p.filling {
		return // the first part was lost with another link
	}
	_ = setEntries(entries, false, func(name []byte, _ bool) { s.gain(p, name) }) // checked before
	if kind&setLast == 0 {
		return
	}
	p.filling = false
	defer p.whole.Store(true) // when what it has not is gone
	for name, number := range p.names {
		if number != p.number {
			s.lose(p, name)
		}
	}
}

// Published implements Handler: a set uses links only.
func (s setHandler) Published(string, uint16, []byte) { s.invalid.Add(1) }

// flush sends peers what they do not know. Only Run calls it.
func (s *Set) flush(ctx context.Context) {
	var fresh, linked []string
	s.mu.Lock()
	for id, p := range s.peers {
		if !p.linked {
			continue
		}
		linked = append(linked, id)
		if p.fresh {
			p.fresh = false
			fresh = append(fresh, id)
		}
	}
	s.mu.Unlock()
	if len(fresh) > 0 {
		s.sendSnapshot(ctx, fresh)
	}
	s.sendDeltas(linked)
}

// sendSnapshot sends all own names. What changes while it is written is dirty, and
// goes out behind it as a delta.
func (s *Set) sendSnapshot(ctx context.Context, to []string) {
	b := []byte{setFormat, setPart | setFirst}
	var names []string
	parts := 0
	for i := range s.own {
		o := &s.own[i]
		names = names[:0]
		o.mu.Lock()
		for name := range o.names {
			names = append(names, name)
		}
		o.mu.Unlock()
		for _, name := range names {
			if len(b) >= setMessage {
				if to = s.send(to, b); len(to) == 0 {
					return
				}
				if parts++; parts%setBurst == 0 && !setRest(ctx, burstPause) {
					return
				}
				b = append(b[:0], setFormat, setPart)
			}
			b = appendSetName(b, name)
		}
	}
	b[1] |= setLast
	s.send(to, b)
}

// setRest waits, and is false when ctx ends first.
func setRest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// sendDeltas sends what is true now of the names that have changed.
func (s *Set) sendDeltas(to []string) {
	b := []byte{setFormat, setDelta}
	type state struct {
		name string
		has  bool
	}
	var states []state
	for i := range s.own {
		o := &s.own[i]
		states = states[:0]
		o.mu.Lock()
		for name := range o.dirty {
			_, has := o.names[name]
			states = append(states, state{name, has})
		}
		o.dirty = nil
		o.mu.Unlock()
		for _, st := range states {
			if len(b) >= setMessage {
				to = s.send(to, b)
				b = b[:2]
			}
			if st.has {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
			b = appendSetName(b, st.name)
		}
	}
	if len(b) > 2 {
		s.send(to, b)
	}
}

// send sends a message to peers and returns those that have got it so far. The others
// have no link any more, and will get a snapshot with the next.
func (s *Set) send(to []string, b []byte) []string {
	kept := make([]string, 0, len(to))
	for _, peer := range to {
		if s.bus.Send(peer, s.kind, b) {
			s.sent.Add(1)
			kept = append(kept, peer)
		}
	}
	return kept
}
