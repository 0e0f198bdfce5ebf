// Package jetstream keeps the records of one partition in a JetStream stream,
// the STATE stream: one message a record, on a subject made of its name.
//
//   - An Append is one atomic batch of the stream, or a plain publish when it
//     holds one record; either way one answer, after the fsync where the server
//     has SyncAlways. This is the first step of the write path; a log in front
//     of the stream comes later behind the same store.Store.
//   - Every append names the stream's last sequence as its owner knows it, so the
//     first append after a message of somebody else is refused by the stream.
//     Fence puts such a message, with the epoch, at the end.
//   - An append whose outcome is not known (a timeout, a lost connection, an
//     unexpected sequence) leaves the sequence unknown: the store refuses
//     everything until Fence has found it out.
//   - A batch cannot delete, so a removal is a tombstone in the record's place,
//     compacted away later: compact.go.
//   - Reads ask the stream's leader (STREAM.MSG.GET), never a replica. A stream
//     without replicas has a cheaper way to do that, the direct get, which is
//     switched off when it gets some. Each payload is checked: format, checksum,
//     name. The server answers "no message
//     found" also for a message that it cannot read, so a miss is believed only
//     when the stream does not list the subject either. After the first miss an
//     owner learns which subjects the stream has, and then asks nobody: listed.go.
//
// Locks: mu is held through a whole Append or Fence; state guards the fields and
// is taken inside it and never held across a request.
package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/store"
)

// How long a call goes on trying while the stream has no leader, unless its
// context ends earlier, and how long one attempt of a read may take.
const (
	patience = 2 * time.Second
	// A fence stands between the node and all its records, so a busy disk is
	// waited for longer.
	fencePatience = 20 * time.Second
	firstAttempt  = 250 * time.Millisecond
	retryPause    = 50 * time.Millisecond
	// appendPatience bounds an Append whose context has no deadline. A commit
	// that takes longer is not slow, it is lost.
	appendPatience = 10 * time.Second
)

// What a message needs beside the JSON: its headers, and a name of usual length.
const (
	headerRoom = 512
	nameRoom   = 4096
)

// Options configures a Store.
type Options struct {
	// Partition is the number of the partition, from 0.
	Partition int
	// Replicas is the number of servers that keep the stream: 0 or 1, 3, 5. A stream
	// that exists keeps the number that it has, see Logged.SetReplicas.
	Replicas int
	// MaxRecord is the largest record in bytes of JSON; a larger one is
	// store.ErrRefused. The server's MaxPayload must be 8 KiB above it. 0 means as large as the server's MaxPayload allows.
	MaxRecord int
	// Mark names a file of this store's own, in which it notes how far the stream
	// was acknowledged, so that Fence finds out when the server lost the end of
	// it. Set it when the server has SyncAlways; without, a power cut may take
	// what was acknowledged, and that is no error. Empty means no check. With replicas
	// it counts for the stream that it was written for: a stream of that name that was
	// made since begins a new one.
	Mark string
	// Room says whether so many bytes more may be written to the disk now: nil,
	// or an error that says what is short. It is asked before a compaction, and by a
	// Logged before every append, and must be quick. nil means that there always is
	// room.
	Room func(bytes int64) error
	// shortReplay replaces the constant in tests.
	shortReplay uint64
	// leaderReads has tests of one server read as with replicas.
	leaderReads bool
	// compactAt replaces the constant in tests.
	compactAt uint64
	// Log hears of what goes wrong in the background. nil discards it.
	Log *slog.Logger
}

// Stats is what a Store counts.
type Stats struct {
	// Messages is the number of stored messages: records, tombstones, a fence.
	Messages uint64
	// Bytes is what they occupy on disk, without what is yet to be compacted.
	Bytes uint64
	// Tombstones is the number of removals since the last compaction: as many of
	// the messages may be tombstones.
	Tombstones uint64
	// LastSequence is the stream sequence of the last successful append.
	LastSequence uint64
	// Epoch is what this store fenced under last; Fenced is true when it may not
	// be used before the next Fence.
	Epoch  uint64
	Fenced bool
	// Appends and Failures count the calls of Append that changed something and
	// those that failed; Ops counts records stored or removed.
	Appends, Failures, Ops uint64
}

// Store is a store.Store on one stream. Open makes it.
type Store struct {
	link
	fenceAt    string      // subject of the fence
	direct     atomic.Bool // the stream has no replicas
	maxRecord  int         // bytes of JSON
	maxMessage int         // bytes of JSON and name

	mu    sync.Mutex     // held through Append and Fence
	buf   []byte         // guarded by mu; the payload being sent
	names map[string]int // guarded by mu; of fold
	batch string         // beginning of batch ids, unique to this store
	sent  uint64         // guarded by mu; number of batches so far

	state  sync.Mutex
	ready  bool               // guarded by state; fenced, and no append failed since
	closed bool               // guarded by state
	epoch  uint64             // guarded by state
	base   uint64             // guarded by state; the stream's last sequence
	floor  uint64             // guarded by state; no message up to here counts
	dead   uint64             // guarded by state; how many tombstones there may be
	purges uint64             // guarded by state; how often the compactor purged
	fences uint64             // guarded by state; how often Fence succeeded
	scans  map[*scan]struct{} // guarded by state; those under way
	info   streamState        // guarded by state; as last heard
	listed *listed            // guarded by state; nil until a record was missed

	appends, failures, ops atomic.Uint64

	compactAt uint64 // the constant, less in tests
	room      func(int64) error
	compacts  chan struct{} // wakes the compactor
	misses    chan struct{} // wakes the lister
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// link is one stream and the way to it, which STATE and LOG have in common.
type link struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	stream   string // name of the stream
	subjects string // beginning of the subjects of records or batches, with its dot
	mark     *mark  // nil when none is kept
	log      *slog.Logger
	stopCh   <-chan struct{} // closed when the store is
	// replicated says that the stream has replicas: see replicas.go.
	replicated atomic.Bool
	// term is the time in office of the stream's leader at the last fence, as termOf.
	// Guarded by the store's mu.
	term string
}

var _ store.Store = (*Store)(nil)

// Name is the name of the stream that keeps a partition.
func Name(partition int) string { return fmt.Sprintf("HADAL_STATE_%d", partition) }

// PartitionOf is the reverse of Name and LogName: the partition that a stream belongs to,
// and whether it is one of these.
func PartitionOf(stream string) (partition int, ok bool) {
	name := strings.TrimPrefix(strings.TrimPrefix(stream, "HADAL_STATE_"), "HADAL_LOG_")
	partition, err := strconv.Atoi(name)
	if err != nil || stream != Name(partition) && stream != LogName(partition) {
		return 0, false
	}
	return partition, true
}

// Open finds or creates the stream of a partition and returns its store, which
// is fenced off until Fence. The connection remains the caller's; it must stay
// open longer than the store.
func Open(ctx context.Context, nc *nats.Conn, opts Options) (*Store, error) {
	name := Name(opts.Partition)
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	root := fmt.Sprintf("hadal.s%d.", opts.Partition)
	cfg := jetstream.StreamConfig{
		Name:               name,
		Description:        "Hadal: one message per record",
		Subjects:           []string{root + ">"},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardOld, // of a subject's two messages; nothing else limits the stream
		MaxMsgsPerSubject:  1,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		Replicas:           max(opts.Replicas, 1),
		AllowAtomicPublish: true,
		// The dedupe window would remember message ids, which we do not send.
		Duplicates: 100 * time.Millisecond,
		// A direct get is answered by any replica, the leader or one that lags.
		AllowDirect: opts.Replicas <= 1 && !opts.leaderReads,
	}
	found, err := ensure(ctx, js, cfg)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	maxMessage := int(min(nc.MaxPayload(), math.MaxInt32)) - overhead - headerRoom
	maxRecord := opts.MaxRecord
	if maxRecord == 0 {
		maxRecord = maxMessage - nameRoom
	}
	if maxRecord > maxMessage-nameRoom {
		return nil, fmt.Errorf("open stream %s: the server's MaxPayload of %d bytes is too small for records of %d", name, nc.MaxPayload(), maxRecord)
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var m *mark
	if opts.Mark != "" {
		if m, err = openMark(opts.Mark); err != nil {
			return nil, fmt.Errorf("open stream %s: %w", name, err)
		}
		m.born = found.born()
	}
	background, stop := context.WithCancel(context.Background())
	s := &Store{
		link:    link{nc: nc, js: js, stream: name, subjects: root + "r.", mark: m, log: log, stopCh: background.Done()},
		fenceAt: root + "fence", maxRecord: maxRecord, maxMessage: maxMessage,
		batch: rand.Text(), names: make(map[string]int), scans: make(map[*scan]struct{}),
		compactAt: compactAt, room: opts.Room, compacts: make(chan struct{}, 1), misses: make(chan struct{}, 1), stop: stop,
	}
	s.direct.Store(found.AllowDirect)
	s.replicated.Store(found.Replicas > 1)
	if opts.compactAt > 0 {
		s.compactAt = opts.compactAt
	}
	s.done.Go(func() { s.compactor(background) })
	s.done.Go(func() { s.lister(background) })
	return s, nil
}

// Close implements store.Store. It waits for an append under way and ends a
// compaction; the next owner begins it again.
func (s *Store) Close() error {
	s.stop()
	s.mu.Lock()
	s.state.Lock()
	again := s.closed
	s.ready, s.closed = false, true
	s.state.Unlock()
	s.mu.Unlock()
	s.done.Wait()
	if s.mark == nil || again {
		return nil
	}
	if err := s.mark.f.Close(); err != nil {
		return fmt.Errorf("close stream %s: %w", s.stream, err)
	}
	return nil
}

// Stats returns what is known now. It asks the stream for its size, and gives
// the last known one when there is no answer within ctx or a second.
func (s *Store) Stats(ctx context.Context) Stats {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s.state.Lock()
	closed := s.closed
	s.state.Unlock()
	if !closed {
		// An error means old numbers, which is what Stats promises.
		if info, err := s.streamInfo(ctx); err == nil {
			s.state.Lock()
			s.info = info
			s.state.Unlock()
		}
	}
	s.state.Lock()
	defer s.state.Unlock()
	return Stats{
		Messages: s.info.Messages, Bytes: s.info.Bytes,
		Tombstones: s.dead, LastSequence: s.base, Epoch: s.epoch, Fenced: !s.ready,
		Appends: s.appends.Load(), Failures: s.failures.Load(), Ops: s.ops.Load(),
	}
}

// usableLocked says whether the store may be used now. The caller holds state.
func (s *Store) usableLocked() error {
	switch {
	case s.closed:
		return store.ErrClosed
	case !s.ready:
		return store.ErrFenced
	}
	return nil
}

// subject is where a record lives.
func (s *Store) subject(name string) string {
	return string(appendSubject(append(make([]byte, 0, len(s.subjects)+len(name)+8), s.subjects...), name))
}

// CorruptError says which message is not what was written. It is
// store.ErrCorrupt to errors.Is.
type CorruptError struct {
	Stream   string
	Subject  string
	Sequence uint64 // 0 when the server cannot read it either
	Reason   string
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: stream %s, subject %s, sequence %d: %s", store.ErrCorrupt, e.Stream, e.Subject, e.Sequence, e.Reason)
}

// Unwrap makes the error store.ErrCorrupt.
func (e *CorruptError) Unwrap() error { return store.ErrCorrupt }

func (s *link) corrupt(subject string, seq uint64, reason string) error {
	return &CorruptError{Stream: s.stream, Subject: subject, Sequence: seq, Reason: reason}
}

// retry calls try until it succeeds, fails for good, or patience and ctx end.
// Each attempt has twice the time of the one before; with replicas see
// retryReplicated.
func (s *link) retry(ctx context.Context, patience time.Duration, try func(context.Context) error) error {
	if s.replicated.Load() {
		return s.retryReplicated(ctx, patience, try)
	}
	give := time.Now().Add(patience)
	for attempt := firstAttempt; ; attempt *= 2 {
		tctx, cancel := context.WithTimeout(ctx, attempt)
		err := try(tctx)
		cancel()
		if err == nil || ctx.Err() != nil || !passing(err) || time.Now().After(give) {
			if err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.stopCh:
			return store.ErrClosed
		case <-time.After(retryPause):
		}
	}
}

// passing says whether an error may be gone in a moment: no leader, no answer,
// a connection being made again.
func passing(err error) bool {
	if errors.Is(err, errMoved) { // wraps the server's refusal, which as such would be final
		return true
	}
	if api, ok := errors.AsType[*apiError](err); ok {
		return api.Code == 503 || api.Code == 500
	}
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrDisconnected)
}

// errMoved means that the stream changed between two requests.
var errMoved = errors.New("the stream changed meanwhile")

// apiError is how the JetStream API says no.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// Error implements error.
func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.ErrCode) }

// The codes this driver decides on.
const (
	codeNoMessage    = 10037 // or an unreadable one
	codeWrongLast    = 10071 // expected sequence is not the last, with the last one named
	codeWrongLastAny = 10164 // the same, when the server cannot tell which
)

// isWrongSequence says whether somebody else wrote since the expected sequence.
func isWrongSequence(err error) bool {
	api, ok := errors.AsType[*apiError](err)
	return ok && (api.ErrCode == codeWrongLast || api.ErrCode == codeWrongLastAny)
}
