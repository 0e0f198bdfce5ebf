package record

import (
	"errors"
	"fmt"
	"time"

	"hadal/store"
)

// This file ends an ownership. What is being appended, and what builds on it, is
// completed if the store still takes it; everything else goes back to the seat, as
// it came, and from there to the next owner.

// lose begins it: nothing new is served.
func (o *owner) lose() {
	o.losing = true
	o.mail.stop(errMoved)
	// Within a record: what is parked came before what is queued, and that before what
	// is in the backlog or the mailbox.
	for _, e := range o.cache.entries {
		if r := e.parked; r != nil {
			e.parked = nil
			o.handBack(r)
		}
		queue := e.queue
		e.queue = nil
		for _, r := range queue {
			o.handBack(r)
		}
		e.tell(errMoved)
	}
	for _, stuck := range o.stuck {
		for _, r := range stuck {
			o.handBack(r)
		}
	}
	clear(o.stuck)
	for _, r := range o.backlog[o.next:] {
		o.handBack(r)
	}
	o.backlog, o.next = nil, 0
	for left := o.mail.take(nil); len(left) > 0; left = o.mail.take(nil) {
		for _, r := range left {
			o.handBack(r)
		}
	}
	o.hold.Reset(holdTime)
	switch {
	case o.held != nil:
		b := o.held
		o.held = nil
		o.fall(b, store.ErrFenced) // or, if it is doubtful, nobody knows
	case o.fault != nil && o.flying == nil:
		o.fall(&batch{}, store.ErrFenced)
	}
}

// settled says that nothing is under way any more.
func (o *owner) settled() bool { return o.flying == nil && o.held == nil && o.open.empty() }

// fall ends a batch that the store has not taken, or nobody knows whether it has; and
// with it the open one, which has not been tried.
func (o *owner) fall(b *batch, err error) {
	open := o.open
	o.open = &batch{}
	if o.fast && len(b.ops)+len(open.ops) > 0 {
		o.log.Error("acknowledged writes are lost: the partition has another owner (records.durability: fast)",
			"partition", o.partition, "records", len(b.ops)+len(open.ops), "err", err)
	}
	nothing := !b.doubtful && (errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrRefused))
	o.unwind(b, nothing)
	o.unwind(open, true)
}

// unwind hands back what waits for a batch, but the writes that may have been made.
func (o *owner) unwind(b *batch, nothing bool) {
	for _, e := range b.entries {
		if e.batch == b {
			e.batch, e.loaded = nil, false
		}
	}
	for _, effect := range b.effects {
		if effect.of == nil {
			effect.do(errMoved)
		}
	}
	later := o.returned
	o.returned = nil
	for _, r := range b.served {
		if nothing || r.kind.again() {
			o.handBack(r)
		} else {
			r.refuse(fmt.Errorf("%w: %w", errUnknown, errMoved))
		}
	}
	o.early = append(o.early, o.returned...)
	o.returned = later
}

// handBack gives up a request that was not begun, or had no effect.
func (o *owner) handBack(r *request) {
	r.references, r.wanted, r.until, r.waits = nil, nil, time.Time{}, false
	switch r.kind {
	case kindFlush, kindMarker:
		r.reply(result{err: errMoved})
		return
	case kindRejudge, kindRejudgeMany:
		r.trip.astray(r)
		r.group.finish()
		return
	case kindCall, kindPeerGone, kindForget:
		return
	case kindResync:
		if r.trip.astray != nil { // else it is still in repair
			r.trip.astray(r)
			r.group.finish()
		}
		return
	}
	if r.remote != nil {
		r.remote.moved(o.epoch)
		r.free()
		return
	}
	o.returned = append(o.returned, r)
}
