package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"

	"hadal/store"
)

// A tombstone stands in the place of a removed record. It may not simply be
// deleted: the versions of the record before it are gone from the server's
// memory and not from its files, and a server that reads its files again after a
// crash keeps the newest message of each subject that it finds. With the
// tombstone gone that is the removed record, back from the dead. The same holds
// for a tombstone with a time to live.
//
// So tombstones go the way of a log: when there may be as many as half of all
// messages, and at least compactAt, every live record is appended once more, the
// fence moves to the end and says where that began, and everything up to there
// is purged. What the fence names is the floor: no message at or below it counts,
// whatever the server finds again, and a new owner purges anew. A removal costs no
// more than two writes that way, and what the stream holds beside live records
// is bounded by them.
//
// How many tombstones there may be is the number of removals since; the last
// message of the stream carries it, so that it outlives the owner.

// compactAt is the least number of removals that is worth a compaction.
const compactAt = 10_000

// Compaction appends this many records or bytes at a time, so that the owner's
// own appends wait for little.
const (
	compactOps   = 256
	compactBytes = 256 << 10
)

// How long the compactor rests after an error, the first time and at most.
const (
	compactRest    = 10 * time.Second
	compactMaxRest = 5 * time.Minute
)

// due says whether a compaction is worth its while. The caller holds state.
func (s *Store) due() bool {
	return s.ready && s.dead >= s.compactAt && s.dead >= s.info.Messages/2
}

// wake tells the compactor to look.
func (s *Store) wake() {
	select {
	case s.compacts <- struct{}{}:
	default:
	}
}

// compactor compacts whenever it is due, until the store is closed.
func (s *Store) compactor(ctx context.Context) {
	rest := compactRest
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.compacts:
		}
		s.Stats(ctx) // the number of messages
		s.state.Lock()
		due, again, floor := s.due(), s.ready && s.floor > 0 && s.info.FirstSeq <= s.floor, s.floor
		s.state.Unlock()
		var err error
		if again {
			err = s.purge(ctx, floor)
		}
		if due && err == nil {
			err = s.compact(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("removed records could not be compacted away, trying again", "stream", s.stream, "in", rest, "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(rest):
			}
			rest = min(2*rest, compactMaxRest)
			s.wake()
		} else {
			rest = compactRest
		}
	}
}

// compact appends every live record once more and purges what was before.
func (s *Store) compact(ctx context.Context) error {
	if s.room != nil {
		s.state.Lock()
		size := s.info.Bytes
		s.state.Unlock()
		if err := s.room(int64(size)); err != nil {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
	}
	sc, until, err := s.beginScan("")
	if err != nil {
		return err
	}
	defer s.dropScan(sc)
	var ops []store.Op
	size := 0
	flush := func() error {
		err := s.again(ctx, sc, ops)
		ops, size = ops[:0], 0
		return err
	}
	err = s.scan(ctx, sc, until, func(r store.Record) error {
		ops = append(ops, store.Op{Record: r})
		if size += len(r.Data) + len(r.Name); len(ops) >= compactOps || size >= compactBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	base, err := s.current(sc)
	if err != nil {
		return err
	}
	s.state.Lock()
	epoch, left := s.epoch, s.dead-sc.dead
	s.state.Unlock()
	// The fence moves too. It tells as well that nobody wrote in between.
	ctx, cancel := within(ctx)
	defer cancel()
	if _, err := s.moveFence(ctx, base, &entry{fence: true, epoch: epoch, floor: until, dead: left}); err != nil {
		return err
	}
	s.state.Lock()
	s.floor = until
	s.purges++
	s.state.Unlock()
	if err := s.purge(ctx, until); err != nil {
		return err
	}
	s.state.Lock()
	s.dead = left
	s.state.Unlock()
	s.log.Debug("removed records compacted away", "stream", s.stream, "sequence", until)
	return nil
}

// moveFence puts this owner's fence behind sequence base, the stream's last. The
// caller holds mu.
func (s *Store) moveFence(ctx context.Context, base uint64, e *entry) (uint64, error) {
	msg := nats.Msg{
		Subject: s.fenceAt, Header: nats.Header{headerLastSeq: {strconv.FormatUint(base, 10)}},
		Data: appendEntry(nil, e),
	}
	seq, err := s.publishWatched(ctx, &msg)
	if err != nil {
		s.fail()
		return 0, err
	}
	s.setMark(seq)
	s.state.Lock()
	s.base = seq
	s.state.Unlock()
	return seq, nil
}

// again appends records as they are, except for those that changed since the
// scan read them.
func (s *Store) again(ctx context.Context, sc *scan, ops []store.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// After a failed append the notes may lack what happened all the same.
	if _, err := s.current(sc); err != nil {
		return err
	}
	s.state.Lock()
	ops = slices.DeleteFunc(ops, func(op store.Op) bool {
		_, changed := sc.changed[op.Name]
		return changed
	})
	s.state.Unlock()
	return s.append(ctx, ops)
}

// purge removes all messages up to a sequence. Nothing live is among them.
func (s *link) purge(ctx context.Context, until uint64) error {
	ctx, cancel := s.asking(ctx)
	defer cancel()
	reply, err := s.request(ctx, "$JS.API.STREAM.PURGE."+s.stream, fmt.Appendf(nil, `{"seq":%d}`, until+1))
	if err != nil {
		return err
	}
	answer := gjson.ParseBytes(reply.Data)
	if err := errorIn(answer); err != nil {
		return err
	}
	if !answer.Get("success").Bool() {
		return errors.New("the purge had no success")
	}
	return nil
}
