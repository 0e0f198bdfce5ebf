package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/store"
)

// The LOG stands in front of STATE. STATE keeps one message a record, and
// writing it costs some milliseconds a batch; the LOG takes a whole group commit
// as one message, with one fsync. What is in the LOG and not yet in STATE is in
// memory as well, the dirty records, so that nothing ever reads the LOG but a
// Fence. A checkpoint carries the dirty records over to STATE, each name once,
// and purges the LOG behind it.
//
// What is true at every moment, and why nothing is lost:
//
//   - An owner's appends name the LOG's last sequence, as in STATE, so that they
//     form a chain without holes, and end with the first message of anybody else.
//   - STATE is written from acknowledged messages of the LOG only. A checkpoint
//     takes S, the last acknowledged sequence, and the dirty records up to S in one
//     step.
//   - The floor is the highest S of which every change is acknowledged by STATE. It
//     is written down in the LOG, durably, before the purge of S begins. Every
//     message carries the floor that its owner knew.
//   - So whatever a crash makes of a purge, of all, some or none of the messages at
//     or below the floor, none of them counts: a replay begins behind the floor
//     and finds every single message from there to its fence, or the LOG is
//     corrupt. The message that tells of the floor is above it and outlives the
//     purge. A message above the floor is never purged, also not by an owner
//     that was deposed and does not know it yet: it wrote its floor down before it
//     lost the LOG, or else could not.
//   - What a replay finds wins over STATE. It is never older: what STATE has of a
//     name was taken from the LOG, from a message at or below the floor or from
//     one that the replay finds, after which, in order, only newer ones come. A
//     checkpoint that ended half way has put records into STATE which are all
//     above the floor, and the replay covers every one of them.
//   - A fence does not know which batch it will follow, but it knows the floor: fences
//     and floors share a subject, and each fence names the last message of that
//     subject. If a floor slips in between, the fence is refused and tried again.
//   - Both streams are fenced, STATE first: an old owner's checkpoint that is late
//     finds STATE closed, its append finds the LOG closed. An old owner's second
//     fence of STATE under its old epoch is refused.
//
// Locks are taken in the order checkpoint, mu, state. checkpoint is held through
// a checkpoint, mu through an Append or Fence, state for moments only.

// Defaults of LogOptions.
const (
	defaultLogBytes          = 512 << 20
	defaultCheckpointBytes   = 64 << 20
	defaultCheckpointAge     = 5 * time.Second
	defaultCheckpointRecords = 200_000
	// defaultCheckpointRate leaves the rest of the machine to the appends.
	defaultCheckpointRate = 20_000
	// Append waits as well when so many times CheckpointRecords names are dirty: in
	// memory one takes some 170 bytes beside its JSON, and in the LOG perhaps 14 in all.
	mostCheckpoints = 10
)

// messageRoom is what a message of the LOG occupies beside its payload.
const messageRoom = 128

// LogOptions configures a Logged.
type LogOptions struct {
	// Options are those of the STATE stream and, where they mean both, of the
	// LOG: Partition, Replicas, MaxRecord, Log.
	Options
	// LogMark is for the LOG what Options.Mark is for STATE, another file.
	LogMark string
	// Leader is the name of the server that shall lead both streams, when they have
	// replicas: this node's. The store sees to it while it is this owner's. Empty means
	// whichever does.
	Leader string
	// Current says whether that server has made all that it has of a stream its own, which the
	// stream's leader cannot know. One that still catches up is not made the leader: it could
	// not lead, and who leads meanwhile would be gone before it has caught up. nil asks nobody. It may block.
	Current func(stream string) bool
	// AllowHoles has a replay go on behind messages of the LOG that are missing, though
	// it has replicas. Set it when servers do not sync what they acknowledge, and a power
	// cut of most of them may take it. A LOG without replicas and mark allows holes.
	AllowHoles bool
	// StateConn is a connection of STATE's own, so that the LOG's appends do not
	// stand behind a checkpoint's batches. nil has STATE use the LOG's.
	StateConn *nats.Conn
	// LogBytes is how large the LOG may become. At three quarters of it Append
	// waits for a checkpoint; the rest is for fences. Memory is bounded by it
	// too. 0 means 512 MiB. The server sets that much of its disk aside.
	LogBytes int64
	// A checkpoint begins when the LOG has grown by CheckpointBytes, or
	// CheckpointRecords names are dirty, or the first of them is CheckpointAge old,
	// whichever is first. 0 means 64 MiB, 200 000 and 5 seconds. CheckpointBytes is at most a
	// quarter of LogBytes.
	CheckpointBytes   int64
	CheckpointRecords int
	CheckpointAge     time.Duration
	// CheckpointRate is how many records a second a checkpoint writes while the LOG
	// is small; it goes faster as the LOG grows. 0 means 20 000.
	CheckpointRate int
	// SyncDelay is how long it takes, after an append was acknowledged, until it is
	// on the disk at the latest: 0 when the server has SyncAlways, else twice its
	// SyncInterval. A checkpoint waits that long before it gives up the LOG's copy,
	// so that a power cut loses no more than the interval.
	SyncDelay time.Duration
	// Failing is told of every Fence that fails although nobody else owns the
	// partition and nothing is corrupt: the server may have stopped. nil tells
	// nobody.
	Failing func(error)
}

func (o *LogOptions) setDefaults() {
	o.LogBytes = orDefault(o.LogBytes, defaultLogBytes)
	o.CheckpointBytes = min(orDefault(o.CheckpointBytes, defaultCheckpointBytes), o.LogBytes/4)
	o.CheckpointRecords = orDefault(o.CheckpointRecords, defaultCheckpointRecords)
	o.CheckpointAge = orDefault(o.CheckpointAge, defaultCheckpointAge)
	o.CheckpointRate = orDefault(o.CheckpointRate, defaultCheckpointRate)
	o.shortReplay = orDefault(o.shortReplay, shortReplay)
}

func orDefault[T int | int64 | uint64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// LogStats is what a Logged counts.
type LogStats struct {
	// State is what STATE counts.
	State Stats
	// Messages and Bytes are what the LOG stream holds.
	Messages, Bytes uint64
	// Dirty is the number of names whose last change is not in STATE, each counted
	// again while a checkpoint writes an earlier change of it; Pending is the size
	// of the LOG's messages above the floor.
	Dirty   int
	Pending int64
	// LastSequence is that of the LOG's last acknowledged message. Everything up
	// to Floor is in STATE; everything up to Purged is gone from the LOG.
	LastSequence, Floor, Purged uint64
	// Epoch is what this store fenced under last; Fenced is true when it may not
	// be used before the next Fence.
	Epoch  uint64
	Fenced bool
	// Appends and Failures count as in Stats; Ops counts what went into the LOG.
	Appends, Failures, Ops uint64
	// Checkpoints counts those that ended well, the last one at LastCheckpoint.
	Checkpoints, CheckpointFailures uint64
	LastCheckpoint                  time.Time
}

// stateStore is what Logged needs of STATE.
type stateStore interface {
	store.Store
	store.Knower
	Stats(ctx context.Context) Stats
}

// Logged is a store.Store of two streams, a LOG in front of a Store. OpenLogged
// makes it.
type Logged struct {
	link
	states     stateStore
	statesLink *Store // the same, as a stream
	opts       LogOptions
	fenceAt    string // subject of fences and floors
	maxRecord  int    // bytes of JSON
	maxMessage int    // bytes of JSON and name
	maxPayload int    // bytes of a batch

	checkpoints sync.Mutex // held through a checkpoint, and by Fence

	mu    sync.Mutex     // held through Append and Fence
	buf   []byte         // guarded by mu; the payload being sent
	names map[string]int // guarded by mu; of fold

	state  sync.Mutex
	ready  bool   // guarded by state; fenced, and no append failed since
	closed bool   // guarded by state
	down   bool   // guarded by state; STATE wants to be fenced anew
	epoch  uint64 // guarded by state
	base   uint64 // guarded by state; the LOG's last sequence
	floor  uint64 // guarded by state; up to here everything is in STATE
	purged uint64 // guarded by state; up to here the LOG is purged
	fences uint64 // guarded by state; how often Fence succeeded
	torn   bool   // guarded by state; messages are missing above the floor, lost with the power
	// refences is how often STATE alone was fenced anew.
	refences uint64 // guarded by state
	// dirty are the changes since the last checkpoint began. writing are those that
	// the checkpoint under way writes, up to the sequence until; the map is not
	// changed any more. nil when there is no checkpoint.
	dirty   map[string]store.Op // guarded by state
	writing map[string]store.Op // guarded by state
	until   uint64              // guarded by state
	since   time.Time           // guarded by state; when the first of dirty came
	// The sizes of the messages that brought dirty, and of those before them that are
	// not purged.
	dirtyBytes, writingBytes int64              // guarded by state
	drained                  chan struct{}      // guarded by state; closed when the LOG is purged
	interrupt                context.CancelFunc // guarded by state; ends the checkpoint under way, or nil
	info                     streamState        // guarded by state; as last heard
	last                     time.Time          // guarded by state; of the last checkpoint

	appends, failures, ops, checkpointed, checkpointFailures atomic.Uint64

	kicks chan struct{} // wakes the checkpointer
	leads chan struct{} // wakes keepLead
	// looking holds a token while LogOptions.Current is asked: one that is never answered is not asked again.
	looking chan struct{}
	stop    context.CancelFunc
	done    sync.WaitGroup
}

var (
	_ store.Store  = (*Logged)(nil)
	_ store.Knower = (*Logged)(nil)
)

// LogName is the name of the stream that logs the changes of a partition.
func LogName(partition int) string { return fmt.Sprintf("HADAL_LOG_%d", partition) }

// OpenLogged finds or creates both streams of a partition and returns their
// store, which is fenced off until Fence. The connection remains the caller's; it
// must stay open longer than the store.
func OpenLogged(ctx context.Context, nc *nats.Conn, opts LogOptions) (*Logged, error) {
	opts.setDefaults()
	name := LogName(opts.Partition)
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	root := fmt.Sprintf("hadal.l%d.", opts.Partition)
	cfg := jetstream.StreamConfig{
		Name:        name,
		Description: "Hadal: one message per group commit",
		Subjects:    []string{root + ">"},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		MaxMsgs:     -1,
		MaxBytes:    opts.LogBytes,
		Replicas:    max(opts.Replicas, 1),
		Duplicates:  100 * time.Millisecond, // we send no message ids
	}
	// A LOG that is larger than it may become has room for its fence all the same,
	// and shrinks with the checkpoint after it.
	found, err := ensure(ctx, js, cfg)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	// What the LOG has taken STATE must take, also after the limit was lowered.
	inner := opts.Options
	inner.MaxRecord = 0
	stateConn := opts.StateConn
	if stateConn == nil {
		stateConn = nc
	}
	states, err := Open(ctx, stateConn, inner)
	if err != nil {
		return nil, err
	}
	l, err := newLogged(nc, js, states, opts, found)
	if err != nil {
		return nil, errors.Join(err, states.Close())
	}
	return l, nil
}

func newLogged(nc *nats.Conn, js jetstream.JetStream, states *Store, opts LogOptions, found foundStream) (*Logged, error) {
	name, root := LogName(opts.Partition), fmt.Sprintf("hadal.l%d.", opts.Partition)
	maxRecord := opts.MaxRecord
	if maxRecord == 0 {
		maxRecord = states.maxRecord
	}
	if maxRecord > states.maxRecord {
		return nil, fmt.Errorf("open stream %s: the server's MaxPayload of %d bytes is too small for records of %d", name, nc.MaxPayload(), maxRecord)
	}
	var m *mark
	if opts.LogMark != "" {
		var err error
		if m, err = openMark(opts.LogMark); err != nil {
			return nil, fmt.Errorf("open stream %s: %w", name, err)
		}
		m.born = found.born()
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	background, stop := context.WithCancel(context.Background())
	l := &Logged{
		link:   link{nc: nc, js: js, stream: name, subjects: root + "b", mark: m, log: log, stopCh: background.Done()},
		states: states, statesLink: states, opts: opts, fenceAt: root + "fence", maxRecord: maxRecord, maxMessage: states.maxMessage,
		// The single largest record fits, with its name.
		maxPayload: int(min(nc.MaxPayload(), math.MaxInt32)) - headerRoom + logOverhead,
		names:      make(map[string]int), dirty: make(map[string]store.Op), drained: make(chan struct{}),
		kicks: make(chan struct{}, 1), stop: stop, leads: make(chan struct{}, 1), looking: make(chan struct{}, 1),
	}
	l.replicated.Store(found.Replicas > 1)
	l.done.Go(func() { l.checkpointer(background) })
	if opts.Leader != "" {
		l.done.Go(func() { l.keepLead(background) })
	}
	return l, nil
}

// MaxBatch is how many bytes of names and JSON one Append takes at least,
// besides 32 for each op; more is store.ErrRefused. It follows from the server's
// MaxPayload.
func (l *Logged) MaxBatch() int { return l.maxPayload - logOverhead }

// Append implements store.Store: one message, whatever the number of ops. An
// ended context leaves the outcome unknown like any other error; without a
// deadline it waits ten seconds. While the LOG is full it waits for a checkpoint,
// and is refused with ErrFull, nothing written, when none comes in time; when the
// disk is full it is refused at once.
func (l *Logged) Append(ctx context.Context, ops []store.Op) error {
	ctx, cancel := within(ctx)
	defer cancel()
	// Before mu is taken, which the checkpoint needs.
	if err := l.room(ctx, ops); err != nil {
		return fmt.Errorf("append of %d records: %w", len(ops), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Lock()
	err := l.usableLocked()
	l.state.Unlock()
	if err == nil {
		ops, err = fold(ops, l.maxRecord, l.maxMessage, l.names)
	}
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if len(ops) == 0 {
		return nil
	}
	if err = ctx.Err(); err != nil {
		l.fail()
	} else {
		held := stall(ctx)
		err = l.send(ctx, l.subjects, &logEntry{kind: logBatch, ops: ops})
		if held {
			l.log.Warn("a batch was held on purpose", "stream", l.stream, "err", err)
		}
	}
	if err != nil {
		if !errors.Is(err, store.ErrRefused) {
			l.failures.Add(1)
		}
		return fmt.Errorf("append of %d records, the first is %.100q: %w", len(ops), ops[0].Name, err)
	}
	l.appends.Add(1)
	l.ops.Add(uint64(len(ops)))
	return nil
}

// takeLocked makes ops dirty, and says whether the checkpointer should look. The
// caller holds state.
func (l *Logged) takeLocked(ops []store.Op, size int64) (due bool) {
	if len(l.dirty) == 0 {
		l.since = time.Now()
		due = true
	}
	l.dirtyBytes += size
	for _, op := range ops {
		if op.Delete {
			op.Data = ""
		}
		l.dirty[op.Name] = op
	}
	return due || l.dirtyBytes >= l.opts.CheckpointBytes || len(l.dirty) >= l.opts.CheckpointRecords
}

// room waits until the LOG may take more, or the store takes nothing at all, and
// sees that the disk has room for ops and for what a checkpoint will write.
func (l *Logged) room(ctx context.Context, ops []store.Op) error {
	high := l.opts.LogBytes / 4 * 3
	size := int64(messageRoom)
	for i := range ops {
		size += int64(len(ops[i].Name)+len(ops[i].Data)) + messageRoom
	}
	for {
		l.state.Lock()
		pending, drained, usable := l.dirtyBytes+l.writingBytes, l.drained, l.usableLocked() == nil
		names := len(l.dirty) + len(l.writing)
		l.state.Unlock()
		if !usable {
			return nil // the caller finds out why
		}
		if pending < high && names < mostCheckpoints*l.opts.CheckpointRecords {
			// Each change goes to the disk twice: into the LOG now, and into STATE.
			return l.roomFor(pending + 2*size)
		}
		l.kick()
		select {
		case <-drained:
		case <-l.stopCh:
			return store.ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("%d bytes of the log, with %d names, wait for a checkpoint: %w", pending, names, store.ErrFull)
		}
	}
}

// roomFor asks whether the disk has room.
func (l *Logged) roomFor(bytes int64) error {
	if l.opts.Room == nil {
		return nil
	}
	if err := l.opts.Room(bytes); err != nil {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return nil
}

// Room is nil when the disk has room for what a checkpoint has still to write and
// for a record of the largest size, or ErrFull. It may be called from anywhere.
func (l *Logged) Room() error {
	l.state.Lock()
	pending := l.dirtyBytes + l.writingBytes
	l.state.Unlock()
	return l.roomFor(pending + 2*int64(l.maxRecord))
}

// send puts a message at the end of the LOG and fills in all but its kind, its
// ops, and the floor that it raises. After an error the store is fenced off, unless
// that is ErrRefused. The caller holds mu.
func (l *Logged) send(ctx context.Context, subject string, e *logEntry) error {
	l.state.Lock()
	base := l.base
	e.follows, e.epoch = base, l.epoch
	if e.kind == logBatch {
		e.floor = l.floor
	}
	l.state.Unlock()
	l.buf = appendLog(l.buf[:0], e)
	size := len(l.buf)
	if size > l.maxPayload {
		return fmt.Errorf("it has %d bytes, at most %d fit: %w", size, l.maxPayload, store.ErrRefused)
	}
	// nats.go copies the message before it returns.
	msg := nats.Msg{Subject: subject, Header: nats.Header{headerLastSeq: {strconv.FormatUint(base, 10)}}, Data: l.buf}
	if mutantFence {
		msg.Header = nil
	}
	seq, err := l.publishWatched(ctx, &msg)
	if cap(l.buf) > 1<<20 {
		l.buf = nil
	}
	if mutantFence && err == nil {
		base = seq - 1
	}
	if err == nil && seq != base+1 {
		err = fmt.Errorf("the last sequence is %d, want %d", seq, base+1)
	}
	if err != nil {
		l.fail()
		if isWrongSequence(err) {
			err = fmt.Errorf("after sequence %d: %w: %w", base, store.ErrFenced, err)
		}
		return err
	}
	l.setMark(seq)
	// In one step: a checkpoint takes everything up to base.
	l.state.Lock()
	l.base = seq
	due := e.kind == logBatch && l.takeLocked(e.ops, int64(size)+messageRoom)
	l.state.Unlock()
	if due {
		l.kick()
	}
	return nil
}

// fail fences the store off: it does not know what the LOG holds.
func (l *Logged) fail() {
	l.state.Lock()
	l.ready = false
	l.state.Unlock()
}

// usableLocked says whether the store may be used now. The caller holds state.
func (l *Logged) usableLocked() error {
	switch {
	case l.closed:
		return store.ErrClosed
	case !l.ready:
		return store.ErrFenced
	}
	return nil
}

// kick tells the checkpointer to look.
func (l *Logged) kick() {
	select {
	case l.kicks <- struct{}{}:
	default:
	}
}

// Close implements store.Store. It ends a checkpoint under way; the next owner's
// Fence finds in the LOG what is not yet in STATE.
func (l *Logged) Close() error {
	l.stop()
	l.state.Lock()
	again := l.closed
	l.ready, l.closed = false, true
	if l.interrupt != nil {
		l.interrupt()
	}
	l.state.Unlock()
	err := l.states.Close() // which ends what is waiting for it
	l.done.Wait()
	l.checkpoints.Lock()
	defer l.checkpoints.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mark != nil && !again {
		err = errors.Join(err, l.mark.f.Close())
	}
	if err != nil {
		return fmt.Errorf("close stream %s: %w", l.stream, err)
	}
	return nil
}

// Stats returns what is known now. It asks the streams for their sizes, and gives
// the last known ones when there is no answer within ctx or a second.
func (l *Logged) Stats(ctx context.Context) LogStats {
	states := l.states.Stats(ctx)
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l.state.Lock()
	closed := l.closed
	l.state.Unlock()
	if !closed {
		// An error means old numbers, which is what Stats promises.
		if info, err := l.streamInfo(ctx); err == nil {
			l.state.Lock()
			l.info = info
			l.state.Unlock()
		}
	}
	l.state.Lock()
	defer l.state.Unlock()
	return LogStats{
		State: states, Messages: l.info.Messages, Bytes: l.info.Bytes,
		Dirty: len(l.dirty) + len(l.writing), Pending: l.dirtyBytes + l.writingBytes,
		LastSequence: l.base, Floor: l.floor, Purged: l.purged, Epoch: l.epoch, Fenced: !l.ready,
		Appends: l.appends.Load(), Failures: l.failures.Load(), Ops: l.ops.Load(),
		Checkpoints: l.checkpointed.Load(), CheckpointFailures: l.checkpointFailures.Load(), LastCheckpoint: l.last,
	}
}
