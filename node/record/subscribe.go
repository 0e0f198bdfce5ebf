package record

import (
	"hadal/node/sub"
	"hadal/protocol"
)

// This file subscribes and unsubscribes clients of this node, wherever the owner is.

// unsubscribe ends a subscription at the client's wish.
func (s *seat) unsubscribe(r *request) {
	if _, last := s.room.subs.Remove(r.name, r.client); last {
		s.room.listen.Changed(r.name)
		s.mayForget(r.name)
	}
}

// subscribe adds the client to the record's subscribers, and tells it if the record has a
// provider. action is the original action that a complaint about a second subscription
// names (spec 08 §2). It is false if the client may have no more, which it is told.
func (r *Room) subscribe(req *request, action protocol.Action) bool {
	if req.client.Gone() {
		return true // nobody would remove it
	}
	return r.listen.Subscribe(req.name, func() bool { return r.add(req, action) }, func() {
		req.answer(&protocol.Message{Action: protocol.RecordSubscriptionHasProvider, Name: req.name})
	})
}

// add is subscribe without the provider.
func (r *Room) add(req *request, action protocol.Action) bool {
	added := r.subs.Add(req.name, req.client)
	switch added {
	case sub.Full:
		req.answer(sub.TooMany(&protocol.Message{
			Topic: protocol.TopicRecord, Action: req.action, CorrelationID: req.correlationID, Has: req.has,
		}, req.name))
		return false
	case sub.Already:
		if req.trip == nil || !req.trip.subscribed {
			req.answer(&protocol.Message{Action: protocol.RecordMultipleSubscriptions, Name: req.name, OriginalAction: action})
		}
	case sub.First:
		r.listen.Changed(req.name)
	}
	if req.trip != nil {
		req.trip.subscribed = true
		req.trip.added = req.trip.added || added != sub.Already
	}
	return true
}
