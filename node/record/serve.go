package record

import (
	"context"
	"errors"
	"strings"
	"time"

	"hadal/protocol"
)

// This file serves requests whose record is at hand. All of it runs on the
// owner; every answer that depends on a state goes through after.

// read serves READ, HEAD and the three subscriptions that read.
func (o *owner) read(e *entry, r *request) {
	s := e.state
	if r.kind == kindSubscribeCreateAndRead && !s.exists {
		if refusal := o.judge(r, protocol.RecordCreate, "", s); refusal != 0 {
			o.deny(e, r, refusal)
			return
		}
		created := state{version: 0, data: emptyRecord, exists: true}
		if refusal := o.judge(r, protocol.RecordRead, "", created); refusal != 0 {
			o.deny(e, r, refusal)
			return
		}
		if o.refusing && !e.volatile {
			r.answer(&protocol.Message{Action: protocol.RecordRecordCreateError, Name: r.name, OriginalAction: r.action})
			r.group.finish()
			return
		}
		o.apply(e, created)
		s = created
	} else if refusal := o.judge(r, r.readAs(), "", s); refusal != 0 {
		o.deny(e, r, refusal)
		return
	}
	o.after(e, r, func(err error) {
		defer r.group.finish()
		if err != nil {
			r.answerLoadError(err)
			return
		}
		o.answerRead(e, r, s)
	})
}

// answerRead subscribes the client if that was asked, and tells it the state.
func (o *owner) answerRead(e *entry, r *request, s state) {
	m := protocol.Message{Action: protocol.RecordReadResponse, Has: protocol.HasVersion, Name: r.name, Version: s.version, Data: s.data}
	switch r.kind {
	case kindRead:
		if !s.exists {
			m = protocol.Message{Action: protocol.RecordRecordNotFound, Name: r.name, OriginalAction: r.action, IsError: true}
		}
	case kindHead:
		m.Action, m.Data = protocol.RecordHeadResponse, ""
		if !s.exists {
			m.Version = missingVersion
		}
	case kindSubscribeAndHeadOne:
		if !o.subscribe(r, protocol.RecordSubscribeAndHead, s, true) {
			return
		}
		m.Action, m.Data = protocol.RecordHeadResponse, ""
		if !s.exists {
			m.Version = missingVersion
		}
	case kindSubscribeAndRead, kindSubscribeCreateAndRead:
		if !o.subscribe(r, protocol.RecordSubscribe, s, true) {
			return
		}
		if !s.exists {
			m.Version, m.Data = missingVersion, emptyRecord
		}
	}
	if m.Action == protocol.RecordReadResponse && len(m.Data) >= sharedSize {
		r.client.AnswerShared(e.response(&m))
		return
	}
	r.answer(&m)
}

// missingVersion is what clients are told of a record that does not exist.
const missingVersion int32 = -1

// subscribe adds the client to the record's subscribers (see Room.subscribe), or has
// its own node do so, which gets the updates from now on. It is false if the client
// may have no more, which it is told. s is the record as the client will know it, if
// that is known.
func (o *owner) subscribe(r *request, action protocol.Action, s state, known bool) bool {
	if r.remote == nil {
		return o.room.subscribe(r, action)
	}
	o.register(r.name, r.remote.link, r.remote.id, r.client.(*asker).whole)
	f := frame{kind: frameSubscribed, partition: o.partition, id: r.remote.id}
	if known {
		f.known = s.knowledge()
	}
	r.remote.link.emit(&f)
	return true
}

// subscription serves SUBSCRIBE and UNSUBSCRIBE of one name. They wait for what
// the same client asked before, which may be a subscription in a batch.
func (o *owner) subscription(e *entry, r *request) {
	s := state{}
	if e != nil {
		s = e.state
	}
	if r.kind == kindSubscribe {
		if refusal := o.judge(r, protocol.RecordSubscribe, "", s); refusal != 0 {
			o.deny(e, r, refusal)
			return
		}
	}
	o.after(e, r, func(error) {
		defer r.group.finish()
		if r.kind == kindSubscribe {
			o.subscribe(r, protocol.RecordSubscribe, s, e != nil)
			return
		}
		if r.remote != nil {
			r.remote.tell(frameUnsubscribed, 0)
			return
		}
		if _, last := o.subs.Remove(r.name, r.client); last {
			o.listen.Changed(r.name)
		}
	})
}

// subscribeAndHead serves a resubscription. Versions that are at hand go out
// together with the subscriptions, in one turn, so that no update can come in
// between; each other name is answered on its own (spec 08 §2.3).
func (o *owner) subscribeAndHead(ctx context.Context, r *request) {
	bulk := protocol.Message{Action: protocol.RecordHeadResponseBulk, Has: protocol.HasVersions}
	var later []*request
	for _, name := range r.names {
		one := &request{kind: kindSubscribeAndHeadOne, client: r.client, name: name, action: r.action, correlationID: r.correlationID, has: r.has}
		e := o.cache.get(name)
		if e == nil || !e.loaded || len(e.queue) > 0 || e.parked != nil || o.bearer(e) != nil || !e.state.exists {
			later = append(later, one)
			continue
		}
		switch refusal := o.judge(one, r.action, "", e.state); refusal {
		case 0:
		case awaiting:
			later = append(later, one)
			continue
		default:
			o.deny(e, one, refusal)
			continue
		}
		if !o.subscribe(one, protocol.RecordSubscribeAndHead, e.state, true) {
			continue
		}
		bulk.Versions = append(bulk.Versions, protocol.NameVersion{Name: name, Version: e.state.version})
	}
	r.answer(&bulk)
	if r.last {
		r.answer(r.ack())
	}
	if r.group != nil {
		r.group.left.Add(int64(len(later)))
	}
	for _, one := range later {
		one.group = r.group
		o.dispatch(ctx, one)
	}
	r.group.finish()
}

// write serves every action that changes a record.
func (o *owner) write(e *entry, r *request) {
	s := e.state
	create := r.action == protocol.RecordCreateAndUpdate || r.action == protocol.RecordCreateAndPatch
	// A write with an ack creates what is missing, as clients expect (spec 15,
	// trap 11); unlike the peer we then ask the create rule.
	creates := create || (r.writeAck && !s.exists)
	if o.refusing && !e.volatile {
		o.refuseWrite(e, r, s, errRefusing)
		return
	}
	data, err := outcome(s, r, o.maxSize)
	if err != nil {
		o.refuseWrite(e, r, s, err)
		return
	}
	if creates {
		if refusal := o.judge(r, protocol.RecordCreate, "", s); refusal != 0 {
			o.deny(e, r, refusal)
			return
		}
	}
	if refusal := o.judge(r, r.judgedAs(), data, s); refusal != 0 {
		o.deny(e, r, refusal)
		return
	}
	if !s.exists && !creates {
		o.refuseWrite(e, r, s, errMissing)
		return
	}
	version := int32(0)
	if r.action != protocol.RecordCreateAndUpdate || !hasPrefix(r.name, o.cfg.StorageHotPathPrefixes) {
		if version, err = step(s, r.version); err != nil {
			if tells(err) {
				// The answer says what the record is: to those only who may read it.
				if refusal := o.judge(r, protocol.RecordRead, "", s); refusal != 0 {
					if refusal != awaiting {
						o.stats.refused.Add(1)
					}
					o.deny(e, r, refusal)
					return
				}
			}
			o.refuseWrite(e, r, s, err)
			return
		}
	}
	// The data may be a view into a frame; what is kept must not keep the frame.
	next := state{version: version, data: strings.Clone(data), exists: true}
	o.apply(e, next)
	o.stats.writes.Add(1)
	o.after(e, r, func(err error) {
		if err != nil {
			r.answerUpdateError(err)
			return
		}
		o.relay(r, next)
		if r.writeAck {
			r.answer(&protocol.Message{Action: protocol.RecordWriteAcknowledgement, Name: r.name, CorrelationID: r.correlationID, Has: r.has & protocol.HasCorrelationID, IsWriteAck: true})
		}
		o.observe(time.Since(r.came))
	})
}

// relay tells the other subscribers of a write: known fields only, the final
// version, ERASE as a PATCH without data (spec 08 §3.3).
func (o *owner) relay(r *request, s state) {
	if !o.heard(r.name) {
		return
	}
	out := &protocol.Outbound{Message: protocol.Message{
		Topic: protocol.TopicRecord, Action: r.normalised(), Has: protocol.HasVersion,
		Name: r.name, Version: s.version, Data: r.data,
	}}
	switch out.Action {
	case protocol.RecordPatch:
		out.Has |= protocol.HasPath
		out.Path, out.Result = r.path, s.data
	case protocol.RecordPatchMulti:
		out.Result = s.data
	}
	mended := o.mended(r.name, out, s)
	o.subs.Deliver(r.name, r.client, mended)
	if _, owed := o.owed[r.name]; owed {
		out = mended
	}
	o.tellPeers(r, true, out, s)
}

// mended is what subscribers here get of an update: all of the record instead of a
// patch, while nobody has looked yet what they know of it.
func (o *owner) mended(name string, out *protocol.Outbound, s state) *protocol.Outbound {
	if _, unsure := o.repair[name]; !unsure || out.Action == protocol.RecordUpdate || mutantRepair {
		return out
	}
	return updateTo(name, s)
}

// tells says whether the answer to a refused write carries something of the
// record itself: its data or its version.
func tells(why error) bool {
	return errors.Is(why, errVersionExists) || errors.Is(why, errVersionAhead)
}

// refuseWrite answers a write that was not accepted.
func (o *owner) refuseWrite(e *entry, r *request, s state, why error) {
	o.stats.refused.Add(1)
	m := protocol.Message{
		Name: r.name, Version: s.version, OriginalAction: r.normalised(),
		CorrelationID: r.correlationID, IsWriteAck: r.writeAck,
		Has: protocol.HasVersion | r.has&protocol.HasCorrelationID,
	}
	switch {
	case errors.Is(why, errVersionExists):
		o.stats.conflicts.Add(1)
		m.Action, m.Data = protocol.RecordVersionExists, s.data
		if !s.exists {
			m.Data = emptyRecord
		}
	case errors.Is(why, errVersionAhead):
		m.Action, m.IsError = protocol.RecordInvalidVersion, true
		m.Data, m.Path, m.Has = r.data, r.path, m.Has|r.has&protocol.HasPath
	case errors.Is(why, errBadPatch):
		m.Action, m.IsError = protocol.RecordInvalidMessageData, true
		m.Version, m.Data, m.Path, m.Has = r.version, r.data, r.path, m.Has|r.has&protocol.HasPath
	default:
		o.after(e, r, func(error) { r.answerUpdateError(why) })
		return
	}
	o.after(e, r, func(err error) {
		if err != nil {
			r.answerUpdateError(err)
			return
		}
		r.answer(&m)
	})
}

// delete serves DELETE: the requester learns of its success, all others that
// the record is gone, and nobody is subscribed any more (spec 08 §4).
func (o *owner) delete(e *entry, r *request) {
	s := e.state
	if refusal := o.judge(r, protocol.RecordDelete, "", s); refusal != 0 {
		o.deny(e, r, refusal)
		return
	}
	if s.exists {
		if o.refusing && !e.volatile {
			r.answerDeleteError()
			return
		}
		o.apply(e, state{})
	}
	o.after(e, r, func(err error) {
		if err != nil {
			r.answerDeleteError()
			return
		}
		o.announceDeleted(r)
		r.answer(&protocol.Message{Action: protocol.RecordDeleteSuccess, Name: r.name})
	})
}

// announceDeleted unsubscribes everybody and tells all but the requester.
func (o *owner) announceDeleted(r *request) {
	except := uint64(0)
	if r.kind != kindNotify && r.client != nil {
		except = r.client.ID()
	}
	delete(o.repair, r.name)
	delete(o.owed, r.name)
	o.tellPeersDeleted(r, except != 0)
	o.room.tellDeleted(r.name, except)
}

// notify tells all subscribers, the notifier included, what the record is now
// (spec 08 §5): the operator's writes are silent until then.
func (o *owner) notify(e *entry, r *request) {
	s := e.state
	o.after(e, r, func(err error) {
		defer r.group.finish()
		switch {
		case err != nil:
			r.answerLoadError(err)
		case !s.exists:
			o.announceDeleted(r)
		case o.heard(r.name):
			out := updateTo(r.name, s)
			o.subs.Deliver(r.name, nil, out)
			o.tellPeers(r, false, out, s)
		}
	})
}

// operator serves the admin API. Its writes are the owner's own: no rule, and
// no word to subscribers before a NOTIFY.
func (o *owner) operator(e *entry, r *request) {
	s := e.state
	if r.kind != kindOperatorGet && o.refusing && !e.volatile {
		r.reply(result{err: errRefusing})
		return
	}
	switch {
	case r.kind == kindOperatorSet:
		version := r.version
		if !r.Carries(protocol.HasVersion) {
			var err error
			if version, err = step(s, anyVersion); err != nil {
				r.reply(result{err: err})
				return
			}
		}
		if len(r.data) > o.maxSize {
			r.reply(result{err: errTooLarge})
			return
		}
		s = state{version: version, data: r.data, exists: true}
		o.apply(e, s)
	case r.kind == kindOperatorDelete && s.exists:
		o.apply(e, state{})
	}
	o.after(e, r, func(err error) { r.reply(result{state: s, err: err}) })
}
