package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/store"
)

// Fence implements store.Store: it fences STATE, then the LOG, and reads what of
// the LOG is above the floor. While a stream has no leader it tries for twenty
// seconds.
func (l *Logged) Fence(ctx context.Context, epoch uint64) error {
	l.state.Lock()
	l.ready = false
	closed := l.closed
	if l.interrupt != nil {
		l.interrupt()
	}
	l.state.Unlock()
	l.checkpoints.Lock()
	defer l.checkpoints.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if closed {
		return fmt.Errorf("fence under epoch %d: %w", epoch, store.ErrClosed)
	}
	l.fail() // a checkpoint does not make it ready, but be sure
	begun := time.Now()
	err := l.states.Fence(ctx, epoch)
	if err == nil {
		l.log.Debug("state is fenced", "stream", l.stream, "epoch", epoch, "took", time.Since(begun))
		if err = l.fence(ctx, epoch); err != nil {
			err = fmt.Errorf("fence under epoch %d: %w", epoch, err)
		}
	}
	if err != nil {
		final := errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrClosed) ||
			errors.Is(ctx.Err(), context.Canceled) // who asked does not want it any more, as another node owns the partition now
		if l.opts.Failing != nil && !final {
			l.opts.Failing(err)
		}
		return err
	}
	l.kick()
	l.kickLead()
	return nil
}

// fence fences the LOG and replays it. The caller holds checkpoints and mu.
func (l *Logged) fence(ctx context.Context, epoch uint64) error {
	var f taken
	begun := time.Now()
	err := l.retry(ctx, fencePatience, func(ctx context.Context) (err error) {
		f, err = l.takeOver(ctx, epoch)
		return err
	})
	if err != nil {
		return err
	}
	fenced := time.Now()
	l.log.Debug("log is fenced", "stream", l.stream, "epoch", epoch, "took", fenced.Sub(begun))
	acked, err := l.acknowledged()
	if err != nil {
		return err
	}
	lossy := acked == 0 && (!l.replicated.Load() || l.opts.AllowHoles)
	r := replay{lossy: lossy, owner: epoch, next: f.floor + 1, end: f.seq, floor: f.floor, dirty: make(map[string]store.Op)}
	if err := l.replay(ctx, &r); err != nil {
		return err
	}
	l.log.Debug("log is replayed", "stream", l.stream, "epoch", epoch, "messages", f.seq-f.floor, "took", time.Since(fenced))
	l.setMark(f.seq)
	l.state.Lock()
	defer l.state.Unlock()
	if l.closed {
		return store.ErrClosed
	}
	l.ready, l.down, l.epoch, l.base, l.floor = true, false, epoch, f.seq, f.floor
	l.purged, l.torn = 0, r.torn
	if f.first > 0 {
		l.purged = min(f.first-1, f.floor)
	}
	l.dirty, l.dirtyBytes, l.since = r.dirty, r.bytes, time.Now()
	l.writing, l.writingBytes, l.until = nil, 0, 0
	close(l.drained)
	l.drained = make(chan struct{})
	l.fences++
	return nil
}

// taken is the LOG as a fence found it.
type taken struct {
	seq   uint64 // of the fence
	floor uint64
	first uint64 // the first sequence
}

// takeOver is one attempt to put a fence at the end of the LOG.
func (l *Logged) takeOver(ctx context.Context, epoch uint64) (taken, error) {
	acked, err := l.acknowledged()
	if err != nil {
		return taken{}, err
	}
	info, err := l.streamInfo(ctx)
	if err != nil {
		return taken{}, err
	}
	if err := l.checkMark(acked, info.LastSeq); err != nil {
		return taken{}, err
	}
	seq, last, err := l.entry(ctx, getLast(l.fenceAt))
	switch {
	case errors.Is(err, store.ErrNotFound) && info.LastSeq == 0:
	case errors.Is(err, store.ErrNotFound) && info.Messages == 0 && l.mark == nil && (!l.replicated.Load() || l.opts.AllowHoles):
		// A power cut took the end of a LOG that was not synced.
		last.floor = info.LastSeq
	case errors.Is(err, store.ErrNotFound):
		return taken{}, l.doubted(l.fenceAt, info.LastSeq, "the log has no fence that can be read")
	case err != nil:
		return taken{}, fmt.Errorf("read the last fence: %w", err)
	case last.kind == logBatch:
		return taken{}, l.corrupt(l.fenceAt, seq, "it is a batch in the place of the fence")
	case epoch < last.epoch:
		return taken{}, fmt.Errorf("the log has seen epoch %d: %w", last.epoch, store.ErrFenced)
	}
	msg := nats.Msg{
		Subject: l.fenceAt,
		// As in STATE: an old owner who still appends must not keep this one out. But
		// no floor may slip in.
		Header: nats.Header{headerLastSubject: {strconv.FormatUint(seq, 10)}},
		Data:   appendLog(nil, &logEntry{kind: logFence, epoch: epoch, floor: last.floor}),
	}
	seq, err = l.publish(ctx, &msg)
	if isWrongSequence(err) {
		err = fmt.Errorf("%w: %w", errMoved, err)
	}
	if err != nil {
		err = fmt.Errorf("put the fence at sequence %d led by %s: %w", info.LastSeq+1, info.Term, err)
	}
	l.term = info.Term
	return taken{seq: seq, floor: last.floor, first: info.FirstSeq}, err
}

// entry reads one message of the LOG, at its leader.
func (l *Logged) entry(ctx context.Context, request []byte) (uint64, logEntry, error) {
	subject, seq, payload, err := l.raw(ctx, request)
	if err != nil {
		return 0, logEntry{}, err
	}
	e, err := l.decode(subject, seq, payload)
	return seq, e, err
}

// decode checks a message of the LOG as far as it can be checked alone.
func (l *Logged) decode(subject string, seq uint64, payload []byte) (logEntry, error) {
	e, err := decodeLog(payload)
	if err != nil {
		return logEntry{}, l.corrupt(subject, seq, err.Error())
	}
	switch {
	case (subject == l.subjects) != (e.kind == logBatch):
		return logEntry{}, l.corrupt(subject, seq, fmt.Sprintf("it is of kind %d", e.kind))
	case e.kind != logFence && e.follows != seq-1:
		return logEntry{}, l.corrupt(subject, seq, fmt.Sprintf("it was written to follow sequence %d", e.follows))
	case e.floor >= seq:
		return logEntry{}, l.corrupt(subject, seq, fmt.Sprintf("its floor is %d", e.floor))
	}
	return e, nil
}

// replay is the LOG being read back, from the floor to the fence.
type replay struct {
	owner uint64 // the epoch of who reads
	next  uint64 // the sequence to come
	end   uint64 // that of the fence
	floor uint64
	epoch uint64 // of the last message, 0 at first
	dirty map[string]store.Op
	bytes int64
	// lossy says that nothing is known to be on the disk: a power cut may have taken
	// messages, behind which the server went on, and the next owner's fence follows.
	lossy bool
	torn  bool // such a place was found
}

// take applies a message.
func (l *Logged) take(r *replay, subject string, seq uint64, payload []byte) error {
	e, err := l.decode(subject, seq, payload)
	if seq > r.next && err == nil && e.kind == logFence && r.lossy {
		l.log.Warn("messages of the log are lost, as with the power when they are not synced", "stream", l.stream, "from", r.next, "to", seq-1)
		r.next, r.torn = seq, true
	}
	if seq != r.next {
		return l.corrupt(l.subjects, r.next, fmt.Sprintf("the message is missing; the next one is %d, everything up to %d was carried over", seq, r.floor))
	}
	if err != nil {
		return err
	}
	if e.epoch < r.epoch || e.kind != logFence && r.epoch != 0 && e.epoch != r.epoch {
		return l.corrupt(subject, seq, fmt.Sprintf("its epoch is %d after epoch %d", e.epoch, r.epoch))
	}
	r.epoch = e.epoch
	for i := range e.ops {
		op := owned(&e.ops[i])
		r.dirty[op.Name] = op
	}
	r.bytes += int64(len(payload)) + messageRoom
	r.next++
	return nil
}

// owned is a copy of an op that keeps nothing else in memory, such as the message
// that its strings came in.
func owned(op *store.Op) store.Op {
	if op.Delete {
		return store.Op{Record: store.Record{Name: strings.Clone(op.Name), Version: op.Version}, Delete: true}
	}
	both := op.Name + op.Data
	return store.Op{Record: store.Record{Name: both[:len(op.Name)], Version: op.Version, Data: both[len(op.Name):]}}
}

// replay reads the LOG. When the stream loses its leader it goes on where it was.
func (l *Logged) replay(ctx context.Context, r *replay) error {
	begun := time.Now()
	for {
		from := r.next
		err := l.replaySome(ctx, r)
		if errors.Is(err, store.ErrCorrupt) {
			err = l.purgedBelow(ctx, r, err)
		}
		if err == nil || ctx.Err() != nil || !passing(err) {
			return err
		}
		if r.next > from {
			begun = time.Now()
		} else if waited := time.Since(begun); waited > fencePatience || errors.Is(err, store.ErrCorrupt) && waited > doubtPatience {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.stopCh:
			return store.ErrClosed
		case <-time.After(retryPause):
		}
	}
}

// purgedBelow turns what a replay found missing into ErrFenced, when another owner has
// taken over meanwhile: its checkpoint purges what this one is reading.
func (l *Logged) purgedBelow(ctx context.Context, r *replay, missing error) error {
	ctx, cancel := context.WithTimeout(ctx, firstAttempt)
	defer cancel()
	_, last, err := l.entry(ctx, getLast(l.fenceAt))
	if err != nil || last.epoch <= r.owner {
		return missing
	}
	return fmt.Errorf("the log has seen epoch %d: %w", last.epoch, store.ErrFenced)
}

// replaySome reads in the way that the stream allows.
func (l *Logged) replaySome(ctx context.Context, r *replay) error {
	if l.replicated.Load() && r.end-r.next < l.opts.shortReplay && !r.lossy {
		return l.replayEach(ctx, r)
	}
	return l.replayFrom(ctx, r)
}

// replayFrom reads with one consumer, which the leader feeds, up to the fence or
// an error. A message that the server cannot read is passed over by a consumer,
// and shows as a hole: the fence at the end is there.
func (l *Logged) replayFrom(ctx context.Context, r *replay) error {
	cctx, ccancel := l.asking(ctx)
	defer ccancel()
	consumer, err := l.js.CreateConsumer(cctx, l.stream, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.next,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
		Description: "Hadal: replay",
	})
	if err != nil {
		return translate(err)
	}
	name := consumer.CachedInfo().Name
	defer func() {
		// The caller's context may be what ended the replay. When this fails too,
		// the server drops the consumer after a minute.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := l.js.DeleteConsumer(ctx, l.stream, name); err != nil {
			l.log.Debug("a consumer was left to expire", "stream", l.stream, "err", err)
		}
	}()
	for delivered := uint64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := consumer.FetchBytes(max(scanBytes, 2*int(l.nc.MaxPayload())), jetstream.FetchMaxWait(firstAttempt))
		if err != nil {
			return translate(err)
		}
		got := 0
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			got++
			if delivered++; meta.Sequence.Consumer != delivered {
				return fmt.Errorf("a message was skipped before sequence %d: %w", meta.Sequence.Stream, errMoved)
			}
			if err := l.take(r, m.Subject(), meta.Sequence.Stream, m.Data()); err != nil {
				return err
			}
			if r.next > r.end {
				return nil
			}
		}
		if err := batch.Error(); err != nil {
			return translate(err)
		}
		if got == 0 {
			return fmt.Errorf("no message in %v: %w", firstAttempt, errMoved)
		}
	}
}
