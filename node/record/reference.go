package record

import (
	"context"
	"slices"
	"strings"
	"time"

	"hadal/protocol"
)

// This file lets rules refer to other records (spec 07 §7). A rule is judged in
// the record's turn, on the state that the request lands on; when it wants records
// that are not at hand, the request is parked, and with it whatever else is asked
// about that record. The others are fetched, and the request is served again
// from its beginning. All of it runs on the owner.
//
// What is fetched are snapshots: the newest committed state, which waits for a
// load or a commit and for no queue. So two records whose rules refer to each
// other cannot block each other.

// awaiting is what judge returns while a rule wants records.
const awaiting protocol.Action = -1

// referenceTime is how long one request may wait for records that its rules refer
// to, before it counts as one whose rule failed.
const referenceTime = 5 * time.Second

// judge asks the rules about an action on the record as it is. It returns 0 when
// the user may, awaiting, or the refusing action. The operator is above the rules.
func (o *owner) judge(r *request, a protocol.Action, data string, s state) protocol.Action {
	if r.client == nil {
		return protocol.ActionUnknown
	}
	var known func(string) (string, bool, bool)
	if r.references != nil {
		known = r.reference
	}
	refused, wanted := o.rules.Judge(r.client.User(), a, r.name, data, s.data, s.exists, known)
	if len(wanted) == 0 {
		return refused
	}
	r.wanted = wanted
	return awaiting
}

// reference is a record that was fetched for the request.
func (r *request) reference(name string) (data string, exists, known bool) {
	s, known := r.references[name]
	return s.data, s.exists, known
}

// park holds back a request, and all behind it, until the records that its rule
// wants are there.
func (o *owner) park(e *entry, r *request) {
	if r.until.IsZero() {
		r.until = time.Now().Add(referenceTime)
		r.references = make(map[string]state)
	} else if time.Now().After(r.until) {
		o.deny(e, r, protocol.RecordMessagePermissionError)
		return
	}
	r.waits = true
	if e == nil { // the rules were reloaded since it was decided that no record is needed
		e = o.enter(r.name)
		e.queue = append(e.queue, r)
		if e.loaded {
			o.makeReady(e)
		} else {
			o.load(o.work, e)
		}
		return
	}
	e.parked = r
	o.parked++
	names := slices.Clone(r.wanted)
	left := len(names)
	var failed error
	for _, name := range names {
		o.refer(name, func(s state, err error) {
			if err != nil {
				failed = err
			} else {
				r.references[name] = s
			}
			if left--; left == 0 {
				o.unpark(e, r, failed)
			}
		})
	}
}

// unpark has a request served again, or refused when a record could not be fetched.
func (o *owner) unpark(e *entry, r *request, err error) {
	o.parked--
	if o.losing {
		return // it waits elsewhere
	}
	e.parked = nil
	switch {
	case err != nil:
		o.log.Debug("a rule refers to a record that could not be read", "name", r.name, "err", err)
		o.deny(e, r, protocol.RecordMessagePermissionError)
		o.finish(e, r)
		if len(e.queue) > 0 && e.loaded {
			o.makeReady(e)
		}
	case o.cache.entries[e.name] != e: // it was given up meanwhile
		o.dispatch(o.work, r)
	default:
		e.queue = slices.Insert(e.queue, 0, r)
		if e.loaded {
			o.makeReady(e)
		}
	}
}

// refer calls back, on the owner, with a snapshot of a record that a rule refers to,
// which may be another owner's.
func (o *owner) refer(name string, then func(state, error)) {
	if o.room.partition(name) == o.partition {
		o.snapshot(o.work, name, then)
		return
	}
	name = strings.Clone(name)
	req := &request{kind: kindSnapshot, name: name}
	req.reply = func(res result) {
		o.mail.post(o.room.operators, &request{kind: kindCall, trip: &trip{call: func() { then(res.state, res.err) }}})
	}
	if !o.room.seat(name).hold(o.room.operators, req) {
		req.reply(result{err: errStopped})
	}
}

// snapshot calls back with the newest committed state of a record, on the owner,
// at once or later.
func (o *owner) snapshot(ctx context.Context, name string, then func(state, error)) {
	e := o.cache.get(name)
	if e == nil {
		e = o.enter(name)
		if !e.loaded {
			e.snapshots = append(e.snapshots, then)
			o.load(ctx, e)
			return
		}
	}
	if !e.loaded {
		e.snapshots = append(e.snapshots, then)
		return
	}
	s := e.state
	o.after(e, nil, func(err error) { then(s, err) })
}

// tell gives those who wait for a snapshot what the load has brought.
func (e *entry) tell(err error) {
	snapshots := e.snapshots
	e.snapshots = nil
	for _, then := range snapshots {
		then(e.state, err)
	}
}

// Snapshot reads the newest committed state of a record, for rules that are judged
// elsewhere. It waits for a load or a commit, and for nobody's rule. It may be
// called from anywhere while Run runs.
func (r *Room) Snapshot(ctx context.Context, name string) (data string, exists bool, err error) {
	s, err := r.ask(ctx, &request{kind: kindSnapshot, name: name})
	return s.data, s.exists, err
}
