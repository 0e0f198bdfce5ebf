package record

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hadal/protocol"
	"hadal/store"
)

// This file is what an owner does about a store that fails. All of it runs on the owner but
// fence.

// fail ends an append that was not acknowledged. Either nothing was written, and
// those who wait are told, or nobody knows: then the batch is held, and appended
// once more when the store has been fenced. What it holds is results, and nobody
// else can have written in between, so twice is as good as once. A batch that was
// acknowledged before is held in either case.
func (o *owner) fail(ctx context.Context, failed *batch, err error) {
	o.stats.appendErrors.Add(1)
	full := errors.Is(err, store.ErrFull)
	if (full || errors.Is(err, store.ErrRefused)) && o.fault == nil && !o.fast {
		if full { // which whoever watches the disk has told already
			err = fmt.Errorf("%w: %w", errFull, err)
			o.log.Debug("record writes refused", "err", err, "records", len(failed.ops))
		} else {
			o.log.Error("record writes refused", "err", err, "records", len(failed.ops))
		}
		o.giveUp(ctx, err, failed)
		return
	}
	o.log.Error("record append failed", "err", err, "records", len(failed.ops))
	if o.fault == nil {
		o.hold.Reset(holdTime)
	}
	o.setFault(err)
	if !errors.Is(err, store.ErrFenced) {
		failed.doubtful = true
	}
	if o.held = failed; o.refusing {
		o.drop(ctx)
	}
	o.helpers.Go(func() { o.fence(ctx, full) })
}

// drop ends the patience with a batch that is held: those who wait are told that it
// failed. What was acknowledged is dropped at the end of the process only.
func (o *owner) drop(ctx context.Context) {
	held := o.held
	if held == nil || o.fast && !o.ending {
		return
	}
	if o.fast {
		o.log.Error("acknowledged writes are lost: the store did not take them (records.durability: fast)", "records", len(held.ops)+len(o.open.ops), "err", o.fault)
	}
	o.held = nil
	o.giveUp(ctx, fmt.Errorf("%w: %w", errUnknown, o.fault), held)
}

// giveUp forgets what a batch and the open one, which builds on it, changed, and
// tells those who wait.
func (o *owner) giveUp(ctx context.Context, err error, failed *batch) {
	open := o.open
	o.open = &batch{}
	var queued []*entry
	for _, b := range []*batch{failed, open} {
		for _, e := range b.entries {
			if e.batch != b {
				continue
			}
			if o.fault != nil {
				o.doubt[e.name] = struct{}{}
				o.owe(e)
			}
			e.batch, e.loaded = nil, false
			o.cache.put(e, state{})
			if len(e.queue) == 0 && e.parked == nil {
				o.cache.remove(e)
			} else {
				queued = append(queued, e)
			}
		}
	}
	failed.end(err)
	open.end(err)
	for _, e := range queued {
		o.load(ctx, e)
	}
}

// owe notes what subscribers know of a record of which nobody knows what it is: its last
// write may have been made. When the store is back they are told what differs, and
// until then nothing that builds on what they do not have.
func (o *owner) owe(e *entry) {
	_, unsure := o.repair[e.name] // since a takeover, or an earlier failure
	if !unsure && !o.subs.Has(e.name) && len(o.interest[e.name]) == 0 {
		return
	}
	known := knowledge{}
	if told := o.told(e); told.sure && !unsure {
		known = told.knowledge()
	}
	o.repair[e.name] = known
	o.owed[e.name] = struct{}{}
	o.toMend = append(o.toMend, e.name)
}

// fence tries until the store has been taken over again or ctx ends. A store that
// was full only wants a rest. It runs beside the owner.
func (o *owner) fence(ctx context.Context, full bool) {
	if full {
		select {
		case <-ctx.Done():
		case <-time.After(fullPause):
			o.refenced <- struct{}{}
		}
		return
	}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		// The store says how long it waits for an answer. What it has to read back takes as
		// long as it takes, and an attempt that is cut short begins anew.
		err := o.store.Fence(ctx, o.epoch)
		if err == nil {
			o.refenced <- struct{}{}
			return
		}
		o.log.Warn("store is not back yet", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// resume goes on after the store was fenced: first with the batch that is held.
func (o *owner) resume(ctx context.Context) {
	if o.losing {
		return
	}
	if b := o.held; b != nil {
		o.held = nil
		o.append(ctx, b, func() {})
		return
	}
	o.back(ctx)
}

// back ends a failure.
func (o *owner) back(ctx context.Context) {
	o.log.Info("store is back")
	o.setFault(nil)
	o.refusing = false
	o.hold.Stop()
	clear(o.doubt)
	stalled := o.stalled
	o.stalled = nil
	for _, e := range stalled {
		o.load(ctx, e)
	}
	o.mend()
}

// refuse ends the patience with a failing store: from now on requests are
// answered, writes with an error.
func (o *owner) refuse(ctx context.Context) {
	if o.fault == nil || o.refusing || o.losing {
		return
	}
	o.refusing = true
	o.drop(ctx)
	stalled := o.stalled
	o.stalled = nil
	for _, e := range stalled {
		o.abandon(e, errRefusing)
	}
}

// abandon answers everything that waits for an entry that cannot be loaded.
func (o *owner) abandon(e *entry, err error) {
	queue := e.queue
	e.queue = nil
	o.cache.remove(e)
	e.tell(err)
	for _, r := range queue {
		if r.kind == kindResync {
			o.resyncLater(r)
			r.group.finish()
			continue
		}
		// A subscription must not be judged as if there were no record.
		unjudged := r.kind == kindSubscribe && o.rules.ReadsRecord(protocol.RecordSubscribe, r.name)
		if r.kind.needsState() || unjudged {
			r.refuse(err)
		} else {
			o.handle(nil, r)
		}
	}
}

func (o *owner) setFault(err error) {
	switch {
	case o.fault == nil && err != nil:
		o.stats.faults.Add(1)
	case o.fault != nil && err == nil:
		o.stats.faults.Add(-1)
	}
	o.fault = err
}
