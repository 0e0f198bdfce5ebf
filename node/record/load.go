package record

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"hadal/protocol"
	"hadal/store"
)

// This file fetches records that are not in the owner's memory.

type loadResult struct {
	entry  *entry
	record store.Record
	err    error
}

// enter makes an entry, which is loaded if there is nothing to look for: of a volatile
// record, or when the store knows at once that there is none.
func (o *owner) enter(name string) *entry {
	e := &entry{name: strings.Clone(name), volatile: hasPrefix(name, o.cfg.StorageExclusionPrefixes)}
	if _, absent := o.absent[name]; absent {
		delete(o.absent, name)
		e.was.sure = true
	}
	o.cache.add(e)
	if e.loaded = e.volatile; !e.loaded && len(o.doubt) == 0 && o.knower != nil && o.knower.Lacks(name) {
		e.loaded, e.was = true, recollection{}
	}
	return e
}

// overwrites says whether r will make the record what it says, whatever it was, so
// that it need not be loaded: a restore. It is then an entry that nobody looks at
// before apply.
func (o *owner) overwrites(r *request) bool {
	return r.kind == kindOperatorSet && r.Carries(protocol.HasVersion) && len(r.data) <= o.maxSize && !o.refusing
}

// load fetches the state of e beside the owner.
func (o *owner) load(ctx context.Context, e *entry) {
	if _, doubtful := o.doubt[e.name]; doubtful {
		if o.refusing {
			o.abandon(e, errRefusing)
		} else {
			o.stalled = append(o.stalled, e)
		}
		return
	}
	if o.loads == loadsAtOnce {
		o.toLoad = append(o.toLoad, e)
		return
	}
	o.loads++
	o.stats.loads.Add(1)
	o.helpers.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, o.cfg.StorageRetrievalTimeout)
		defer cancel()
		rec, err := o.store.Load(ctx, e.name)
		o.loaded <- loadResult{e, rec, err}
	})
}

// arrive takes in the result of a load.
func (o *owner) arrive(ctx context.Context, l loadResult) {
	o.loads--
	if o.losing {
		return // whoever waited for it waits elsewhere
	}
	for o.loads < loadsAtOnce && len(o.toLoad) > 0 {
		e := o.toLoad[0]
		o.toLoad[0], o.toLoad = nil, o.toLoad[1:]
		o.load(ctx, e)
	}
	switch e := l.entry; {
	case l.err == nil:
		o.cache.put(e, state{version: l.record.Version, data: l.record.Data, exists: true})
		e.loaded, e.was = true, recollection{}
		e.tell(nil)
		o.drain(e)
	case errors.Is(l.err, store.ErrNotFound):
		e.loaded, e.was = true, recollection{}
		e.tell(nil)
		o.drain(e)
	case errors.Is(l.err, store.ErrFenced) && (o.flying == nil || o.fault != nil) && !o.refusing:
		// By no append of ours, which would have the store fenced: so nobody else will.
		// Nothing is in the open batch then, or it would be under way.
		o.stalled = append(o.stalled, e)
		if o.fault == nil {
			o.log.Error("record store is fenced off", "name", e.name, "err", l.err)
			o.hold.Reset(holdTime)
			o.setFault(l.err)
			o.helpers.Go(func() { o.fence(ctx, false) })
		}
	default:
		level := slog.LevelError
		if errors.Is(l.err, store.ErrFenced) { // why, the log has heard; this comes for every record
			level = slog.LevelDebug
		}
		o.log.Log(ctx, level, "record not loaded", "name", e.name, "err", l.err)
		o.stats.loadErrors.Add(1)
		o.abandon(e, l.err)
	}
}
