package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hadal/store"
)

// A checkpoint appends this many records or bytes to STATE at a time. The server
// makes a temporary store for each batch, so few large ones are cheaper; they have a
// connection of their own, so appends to the LOG do not stand behind them.
const (
	checkpointOps   = store.MaxOps
	checkpointBytes = 1 << 20
)

// How long the checkpointer rests after an error, the first time and at most.
const (
	checkpointRest    = 100 * time.Millisecond
	checkpointMaxRest = 2 * time.Second
)

// tidyAfter is how many messages without a change, which are fences, may stand
// above the floor before a checkpoint raises it.
const tidyAfter = 64

// checkpointer begins a checkpoint whenever one is due, until the store is closed.
// A store to which nobody writes has no timer.
func (l *Logged) checkpointer(ctx context.Context) {
	rest := checkpointRest
	for {
		wait, pending := l.untilDue(time.Now())
		if !pending || wait > 0 {
			var timer <-chan time.Time
			if pending {
				timer = time.After(wait)
			}
			select {
			case <-ctx.Done():
				return
			case <-l.kicks:
			case <-timer:
			}
			continue
		}
		err := l.Checkpoint(ctx)
		if err == nil {
			rest = checkpointRest
			continue
		}
		if ctx.Err() != nil {
			return
		}
		l.log.Warn("the log could not be carried over to the state, trying again", "stream", l.stream, "in", rest, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
		rest = min(2*rest, checkpointMaxRest)
	}
}

// untilDue says how long it is until the next checkpoint; pending is false when
// there is nothing to do.
func (l *Logged) untilDue(now time.Time) (wait time.Duration, pending bool) {
	l.state.Lock()
	defer l.state.Unlock()
	switch {
	case !l.ready:
		return 0, false
	case l.writing != nil || l.down || l.torn || l.purged < l.floor || l.base-l.floor > tidyAfter && len(l.dirty) == 0:
		return 0, true
	case len(l.dirty) == 0:
		return 0, false
	case l.dirtyBytes >= l.opts.CheckpointBytes || len(l.dirty) >= l.opts.CheckpointRecords:
		return 0, true
	}
	return max(l.since.Add(l.opts.CheckpointAge).Sub(now), 0), true
}

// Checkpoint writes everything that was acknowledged before the call to STATE, and
// purges the LOG. The store does so by itself; an operator may want it at once.
// When one is under way Checkpoint first waits for its end. After an error nothing
// is lost, and the next one goes on.
func (l *Logged) Checkpoint(ctx context.Context) error {
	l.checkpoints.Lock()
	defer l.checkpoints.Unlock()
	// What an earlier one could not finish comes first.
	l.state.Lock()
	left := l.writing != nil
	l.state.Unlock()
	err := l.checkpoint(ctx)
	if err == nil && left {
		err = l.checkpoint(ctx)
	}
	if err != nil {
		l.checkpointFailures.Add(1)
		return fmt.Errorf("checkpoint of stream %s: %w", l.stream, err)
	}
	return nil
}

// checkpoint finishes the checkpoint that is begun, or a new one. The caller holds
// checkpoints.
func (l *Logged) checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.state.Lock()
	err := l.usableLocked()
	if err == nil {
		l.interrupt = cancel
		if l.writing == nil && (len(l.dirty) > 0 || l.torn || l.base-l.floor > tidyAfter) {
			l.writing, l.until = l.dirty, l.base
			l.writingBytes += l.dirtyBytes
			l.dirty, l.dirtyBytes = make(map[string]store.Op), 0
		}
	}
	writing, until, epoch, fences, down := l.writing, l.until, l.epoch, l.fences, l.down
	l.state.Unlock()
	if err != nil {
		return err
	}
	if down {
		if err := l.refence(ctx, epoch); err != nil {
			return err
		}
	}
	if mutantPurge && writing != nil {
		if err := l.raiseFloor(ctx, until, fences); err != nil {
			return err
		}
		// Nobody but a crash shall notice.
		l.state.Lock()
		l.writing = writing
		l.state.Unlock()
		if err := l.purge(ctx, until); err != nil {
			return err
		}
		err := l.carry(ctx, writing)
		l.state.Lock()
		l.writing, l.purged, l.writingBytes = nil, until, 0
		l.state.Unlock()
		return err
	}
	if writing != nil {
		if err := l.carry(ctx, writing); err != nil {
			l.state.Lock()
			l.down = true
			l.state.Unlock()
			// Reads of STATE wait for it to be fenced, so at once if possible.
			if ctx.Err() == nil {
				err = errors.Join(err, l.refence(ctx, epoch))
			}
			return err
		}
		if err := l.synced(ctx); err != nil {
			return err
		}
		if err := l.raiseFloor(ctx, until, fences); err != nil {
			return err
		}
	}
	l.state.Lock()
	purge, floor := l.purged < l.floor, l.floor
	l.state.Unlock()
	if !purge {
		return nil
	}
	// The removal of a block may reach the disk before the floor does.
	if err := l.synced(ctx); err != nil {
		return err
	}
	pctx, pcancel := within(ctx)
	defer pcancel()
	if err := l.purge(pctx, floor); err != nil {
		return fmt.Errorf("purge up to sequence %d: %w", floor, err)
	}
	l.state.Lock()
	l.purged, l.writingBytes = floor, 0
	close(l.drained)
	l.drained = make(chan struct{})
	l.state.Unlock()
	return nil
}

// synced returns when what was acknowledged before is on the disk.
func (l *Logged) synced(ctx context.Context) error {
	if l.opts.SyncDelay == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(l.opts.SyncDelay):
		return nil
	}
}

// carry appends records to STATE, at a pace that leaves room for others.
func (l *Logged) carry(ctx context.Context, records map[string]store.Op) error {
	var ops []store.Op
	size := 0
	flush := func() error {
		begun := time.Now()
		if err := l.states.Append(ctx, ops); err != nil {
			return err
		}
		pause := l.pace(len(ops)) - time.Since(begun)
		ops, size = ops[:0], 0
		if pause <= 0 {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
			return nil
		}
	}
	for _, op := range records {
		if n := len(op.Name) + len(op.Data); len(ops) > 0 && (len(ops) >= checkpointOps || size+n > checkpointBytes) {
			if err := flush(); err != nil {
				return err
			}
		}
		ops = append(ops, op)
		size += len(op.Name) + len(op.Data)
	}
	if len(ops) == 0 {
		return nil
	}
	return l.states.Append(ctx, ops)
}

// pace is how long n records should take: the longer the LOG, the shorter.
func (l *Logged) pace(n int) time.Duration {
	l.state.Lock()
	pending, names := l.dirtyBytes+l.writingBytes, len(l.dirty)+len(l.writing)
	l.state.Unlock()
	if pending >= l.opts.LogBytes/2 || names >= mostCheckpoints/2*l.opts.CheckpointRecords {
		return 0
	}
	rate := int64(l.opts.CheckpointRate) * (1 + max(pending/l.opts.CheckpointBytes, int64(names/l.opts.CheckpointRecords)))
	return time.Duration(int64(n) * int64(time.Second) / rate)
}

// raiseFloor writes down in the LOG that everything up to until is in STATE.
func (l *Logged) raiseFloor(ctx context.Context, until, fences uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Lock()
	err := l.usableLocked()
	if err == nil && l.fences != fences {
		err = store.ErrFenced
	}
	l.state.Unlock()
	if err != nil {
		return err
	}
	// Not with the context that a Fence ends: an unknown outcome would fence off.
	wctx, cancel := within(context.WithoutCancel(ctx))
	defer cancel()
	if err := l.send(wctx, l.fenceAt, &logEntry{kind: logFloor, floor: until}); err != nil {
		return fmt.Errorf("raise the floor to sequence %d: %w", until, err)
	}
	l.checkpointed.Add(1)
	l.state.Lock()
	l.floor, l.writing, l.torn, l.last = until, nil, false, time.Now()
	l.state.Unlock()
	return nil
}

// refence fences STATE anew after it failed. Under a higher epoch than ours it
// belongs to somebody else, and so does the LOG.
func (l *Logged) refence(ctx context.Context, epoch uint64) error {
	err := l.states.Fence(ctx, epoch)
	if errors.Is(err, store.ErrFenced) {
		l.fail()
	}
	if err != nil {
		return fmt.Errorf("fence the state anew: %w", err)
	}
	l.state.Lock()
	l.down = false
	l.refences++
	l.state.Unlock()
	return nil
}
