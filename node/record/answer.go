package record

import (
	"context"
	"encoding/json"
	"errors"

	"hadal/protocol"
)

// Carries says whether the request came with the field.
func (r *request) Carries(f protocol.Fields) bool { return r.has&f == f }

// answer sends m to whoever asked.
func (r *request) answer(m *protocol.Message) {
	if r.client == nil {
		return
	}
	m.Topic = protocol.TopicRecord
	r.client.Answer(m)
}

// ack is the acknowledgement of a bulk request: action and correlation id only.
func (r *request) ack() *protocol.Message {
	return &protocol.Message{Action: r.action, IsAck: true, CorrelationID: r.correlationID, Has: r.has & protocol.HasCorrelationID}
}

// normalised is the action a write is known by in relays and complaints.
func (r *request) normalised() protocol.Action {
	switch r.action {
	case protocol.RecordCreateAndUpdate:
		return protocol.RecordUpdate
	case protocol.RecordCreateAndPatch, protocol.RecordErase:
		return protocol.RecordPatch
	}
	return r.action
}

// readAs is the action whose rule decides over a read (spec 07 §3).
func (r *request) readAs() protocol.Action {
	if r.kind == kindSubscribeCreateAndRead {
		return protocol.RecordRead
	}
	return r.action
}

// judgedAs is the action whose rule decides over a write: removing a path needs
// the delete rule (spec 15, trap 6).
func (r *request) judgedAs() protocol.Action {
	if r.action == protocol.RecordErase {
		return protocol.RecordErase
	}
	return r.normalised()
}

// deny answers what a rule refused, or has the request wait for the records that
// the rule refers to.
func (o *owner) deny(e *entry, r *request, refusal protocol.Action) {
	switch {
	case refusal == awaiting:
		o.park(e, r)
		return
	case r.kind == kindRejudge:
		o.evict(r)
		r.group.finish()
		return
	}
	o.stats.denied.Add(1)
	o.after(e, r, func(error) {
		defer r.group.finish()
		r.answer(&protocol.Message{
			Action: refusal, Name: r.name, OriginalAction: r.action, IsError: true,
			IsWriteAck: r.writeAck, CorrelationID: r.correlationID, Has: r.has & protocol.HasCorrelationID,
		})
	})
}

// actionOf is where an error of the store becomes protocol.
func actionOf(err error) protocol.Action {
	if errors.Is(err, context.DeadlineExceeded) {
		return protocol.RecordStorageRetrievalTimeout
	}
	return protocol.RecordRecordLoadError
}

// refuse answers a request for which there was no record, or nobody to serve it.
func (r *request) refuse(err error) {
	defer r.group.finish()
	defer r.leave()
	switch r.kind {
	case kindWrite:
		r.answerUpdateError(err)
	case kindDelete:
		r.answerDeleteError()
	case kindOperatorGet, kindOperatorSet, kindOperatorDelete, kindSnapshot:
		r.reply(result{err: err})
	case kindSubscribeAndHead:
		for _, name := range r.names {
			r.answer(&protocol.Message{Action: actionOf(err), Name: name, OriginalAction: r.action, IsError: true})
		}
		if r.last {
			r.answer(r.ack())
		}
	case kindResync:
	default:
		r.answerLoadError(err)
	}
}

func (r *request) answerLoadError(err error) {
	r.answer(&protocol.Message{Action: actionOf(err), Name: r.name, OriginalAction: r.action, IsError: true, IsWriteAck: r.writeAck})
}

// answerUpdateError ends a write that was not made. What the client can act on
// is said in words too.
func (r *request) answerUpdateError(err error) {
	m := &protocol.Message{
		Action: protocol.RecordRecordUpdateError, Name: r.name, IsError: true,
		IsWriteAck: r.writeAck, CorrelationID: r.correlationID, Has: r.has & protocol.HasCorrelationID,
	}
	for _, known := range []error{errMissing, errTooLarge, errVersionsSpent, errTooMuch, errRefusing, errFull, errUnknown, errNoLease, errNoOwner} {
		if errors.Is(err, known) {
			text, _ := json.Marshal(known.Error()) // a string always marshals
			m.Data = string(text)
		}
	}
	r.answer(m)
}

func (r *request) answerDeleteError() {
	r.answer(&protocol.Message{Action: protocol.RecordRecordDeleteError, Name: r.name})
}
