package record

import (
	"context"
	"slices"
	"sync"
	"time"
)

// This file has the owners of a node append by turns while they are busy. An append costs,
// on three nodes, about the same whatever is in it: a millisecond of CPU and more. An owner that
// appends without a rest finds but half of what its clients have in flight each time, as the
// other half waits for the append under way. One that rests while another's append is under way
// finds all of it. So there are half as many appends, and what is written waits for as many as
// before: for one of another owner in the place of one of its own.

const (
	// busyFrom is how many requests there are in the last append and in the next one when an
	// owner is busy. One that is not waits for nobody.
	busyFrom = 16
	// turnTime is how long a turn lasts at most: a store that does not answer shall not
	// hold up those of other partitions.
	turnTime = 100 * time.Millisecond
)

// submit starts the append of the open batch if none is under way and the owners of this
// node, if they are busy, have left it to this one.
func (o *owner) submit(ctx context.Context) {
	ready := o.flying == nil && !o.open.empty() && o.fault == nil
	end := func() {}
	if ready && o.yields() {
		// At most half of the owners append at once, rounded up.
		turn, ok := o.room.turns.take(o, int(o.room.owned.Load()+1)/2)
		if o.awaits = !ok; !ok {
			return
		}
		end = turn
	} else if o.awaits {
		o.awaits = false
		o.room.turns.leave(o)
	}
	if ready {
		b := o.open
		o.open = &batch{}
		o.append(ctx, b, end)
	}
}

// yields says whether the open batch may wait for those of other owners.
func (o *owner) yields() bool {
	busy := o.answered+len(o.open.served) >= busyFrom
	return busy && !o.open.full() && !o.losing && !o.closing && o.room.owned.Load() > 1
}

// append makes a batch durable, beside the owner, and then ends its turn.
func (o *owner) append(ctx context.Context, b *batch, end func()) {
	o.flying = b
	o.helpers.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, appendTimeout)
		defer cancel()
		err := o.store.Append(ctx, b.ops)
		end()
		o.appended <- err
	})
}

// turns are those of a node's owners.
type turns struct {
	mu      sync.Mutex
	taken   int      // guarded by mu
	waiting []*owner // guarded by mu; who is next first
}

// take takes a turn for o, unless most are taken or others wait: then o waits behind them, and
// o.turn is rung when it should try again. A turn lasts until end is called, by anybody, and
// turnTime at most.
func (t *turns) take(o *owner, most int) (end func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	place := slices.Index(t.waiting, o)
	if t.taken >= most || place > 0 || place < 0 && len(t.waiting) > 0 {
		if place < 0 {
			t.waiting = append(t.waiting, o)
		}
		return nil, false
	}
	if place == 0 {
		t.waiting = slices.Delete(t.waiting, 0, 1)
	}
	if t.taken++; t.taken < most {
		t.ring()
	}
	over := sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.taken--
		t.ring()
	})
	timer := time.AfterFunc(turnTime, over)
	return func() {
		timer.Stop()
		over()
	}, true
}

// leave ends the waiting of o, if it waits.
func (t *turns) leave(o *owner) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, o); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
		t.ring()
	}
}

// ring has the next one try. The caller holds mu.
func (t *turns) ring() {
	if len(t.waiting) > 0 {
		select {
		case t.waiting[0].turn <- struct{}{}:
		default: // it was rung before
		}
	}
}
