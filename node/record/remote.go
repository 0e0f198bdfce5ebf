package record

import (
	"strings"
	"time"

	"hadal/node/sub"
	"hadal/protocol"
)

// This file is what a node hears from the owners on other nodes: answers for its
// clients, and updates for its subscribers. It runs on the goroutine that hears of
// the peer, under the seat's lock, so that an answer that comes too late, when another
// owner has been asked, is not passed on, and that what two owners say does not mix.

// without is the client of an id that an update is not for. Nothing but its id is
// ever asked.
type without struct {
	sub.Client
	id uint64
}

func (w without) ID() uint64 { return w.id }

// hear takes a frame of the owner behind the link.
func (s *seat) hear(l *link, f *frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != l {
		return
	}
	switch f.kind {
	case frameUpdate, frameDeleted, frameState:
		if f.epoch == s.epoch {
			s.told(f)
		}
		return
	}
	r := s.sent[f.id]
	if r == nil {
		return // it was given up
	}
	switch f.kind {
	case frameAnswer:
		r.trip.answered = true
		if !r.trip.mute && r.client != nil {
			r.client.Answer(&f.message)
		}
	case frameSubscribed:
		s.joined(r, f.known)
	case frameUnsubscribed:
		r.trip.answered = true // asked again it could end a later subscription
		s.unsubscribe(r)
	case frameReply:
		if !r.trip.answered && r.reply != nil {
			r.trip.answered = true
			res := f.replied()
			res.state.data = strings.Clone(res.state.data)
			r.reply(res)
		}
	case frameDone:
		s.done(r)
	case frameMoved:
		s.moved(r, f.epoch)
	case frameRefused:
		s.take(r.trip.id)
		s.room.log.Warn("a peer refused a request for a record", "peer", l.peer, "name", r.name)
		s.fail(r, errNoOwner)
		s.drained()
	}
}

// joined subscribes the client of r, as its owner says, and notes what it will know.
func (s *seat) joined(r *request, k knowledge) {
	if r.client == nil {
		return
	}
	action := protocol.RecordSubscribe
	if r.kind == kindSubscribeAndHeadOne {
		action = protocol.RecordSubscribeAndHead
	}
	if !s.room.subscribe(r, action) {
		r.trip.mute = true
	}
	// Also for a client that was not added: done takes it back.
	if _, there := s.known[r.name]; !there {
		s.known[strings.Clone(r.name)] = &knowing{knowledge: k, synced: true}
	}
}

// done ends a request that the owner has served.
func (s *seat) done(r *request) {
	s.take(r.trip.id)
	if r.kind == kindResync {
		s.release(r)
		for _, name := range r.names {
			if k := s.known[name]; k != nil {
				k.synced, k.failed = !k.failed, false
			}
		}
		s.sync()
	} else {
		s.finish(r)
		if r.kind.subscribes() {
			s.mayForget(r.name)
		}
	}
	s.drained()
}

// moved takes a request back that the peer does not serve. Nothing more is sent until
// all that was sent is back, so that nothing overtakes it.
func (s *seat) moved(r *request, epoch uint64) {
	s.take(r.trip.id)
	if r.kind == kindResync {
		s.release(r)
	} else {
		s.refused = append(s.refused, r)
	}
	now := time.Now()
	if !s.draining {
		s.draining, s.since = true, now
	}
	s.pauseFor, s.pause = s.table, now.Add(seatTick)
	s.drained()
}

// drained goes on when the last request is back.
func (s *seat) drained() {
	if s.draining && len(s.sent) == 0 {
		s.ring()
	}
}

// told passes on what all subscribers are told.
func (s *seat) told(f *frame) {
	name := f.message.Name
	k := s.known[name]
	switch f.kind {
	case frameUpdate:
		if k == nil && s.asking[name] == 0 && !s.room.subs.Has(name) {
			if s.room.watches(name) {
				s.room.subs.DeliverWild(name, without{id: f.client}, &protocol.Outbound{Message: f.message, Result: f.result})
			} else {
				s.forget(name) // it has crossed an earlier one
			}
			return
		}
		if f.result != "" && !f.message.NeedsWhole() && s.asking[name] == 0 && !s.room.subs.WantsWhole(name) && !s.room.watches(name) {
			s.say(frameLight, name)
		}
		if k != nil {
			patch := f.message.Action != protocol.RecordUpdate
			if patch && !k.synced && (!k.sure || f.message.Version != k.version+1) {
				return // over a gap: the owner has yet to compare, and will tell all of it
			}
			k.knowledge = knowledge{version: f.message.Version, exists: true, sure: true, hash: f.known.hash}
		}
		var except sub.Client
		if f.client != 0 {
			except = without{id: f.client}
		}
		s.room.subs.Deliver(name, except, &protocol.Outbound{Message: f.message, Result: f.result})
	case frameDeleted:
		delete(s.known, name)
		s.room.tellDeleted(name, f.client)
	case frameState:
		switch {
		case k == nil: // forgotten meanwhile
		case !f.known.sure:
			k.failed = true
			s.unknown = append(s.unknown, strings.Clone(name))
			s.rest = time.Now().Add(resyncPause)
		default:
			now := state{version: f.known.version, data: f.known.data, exists: f.known.exists}
			knew := k.knowledge
			k.knowledge, k.synced = now.knowledge(), true
			s.room.tellState(name, knew, now)
			s.mayForget(name) // nobody hears of a record that is gone, but who has asked since
		}
	}
}

// mayForget tells the owner that nobody here is interested in the name any more, if
// that is so.
func (s *seat) mayForget(name string) {
	if s.asking[name] > 0 || s.room.subs.Has(name) {
		return
	}
	if _, known := s.known[name]; known {
		delete(s.known, name)
		s.forget(name)
	}
}

// forget says so.
func (s *seat) forget(name string) { s.say(frameForget, name) }

// say tells the owner that something has ended that subscriptions to a name have caused.
// The id is newer than that of any subscription that is over.
func (s *seat) say(what frameKind, name string) {
	if s.link == nil {
		return
	}
	s.link.emit(&frame{kind: what, partition: s.partition, id: s.room.ids.Add(1), epoch: s.epoch, message: protocol.Message{Name: name}})
	s.link.flush()
}

// sync asks the owner about the next names that it does not know our interest in.
func (s *seat) sync() {
	if s.link == nil || s.draining || len(s.unknown) == 0 || time.Now().Before(s.rest) {
		return
	}
	for _, r := range s.sent {
		if r.kind == kindResync {
			return // its end calls
		}
	}
	req := &request{kind: kindResync, trip: &trip{}}
	for len(s.unknown) > 0 && len(req.names) < resyncNames {
		name := s.unknown[len(s.unknown)-1]
		s.unknown = s.unknown[:len(s.unknown)-1]
		if k := s.known[name]; k != nil && !k.synced {
			knows := k.knowledge
			knows.whole = s.room.subs.WantsWhole(name)
			req.names, req.trip.knows = append(req.names, name), append(req.trip.knows, knows)
		}
	}
	if len(req.names) == 0 {
		return
	}
	s.admit(req, time.Now())
	s.depart(req)
	s.room.stats.resyncs.Add(1)
	s.link.emit(&frame{kind: frameResync, partition: s.partition, id: req.trip.id, epoch: s.epoch, names: req.names, knows: req.trip.knows})
	s.link.flush()
}
