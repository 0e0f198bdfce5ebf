package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"hadal/store"
)

// Fence implements store.Store: it puts a message with the epoch at the end of
// the stream, whose sequence is the base of this owner's appends. While the
// stream has no leader it tries for two seconds.
func (s *Store) Fence(ctx context.Context, epoch uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Lock()
	s.ready = false
	closed := s.closed
	s.state.Unlock()
	if closed {
		return fmt.Errorf("fence under epoch %d: %w", epoch, store.ErrClosed)
	}
	if err := s.retry(ctx, func(try context.Context) error { return s.fence(ctx, try, epoch) }); err != nil {
		return fmt.Errorf("fence under epoch %d: %w", epoch, err)
	}
	return nil
}

// fence is one attempt. The short context bounds single requests, ctx the
// search for tombstones, which may take longer after a crash.
func (s *Store) fence(ctx, short context.Context, epoch uint64) error {
	info, err := s.streamInfo(short)
	if err != nil {
		return err
	}
	if info.Lost > 0 {
		return s.corrupt(s.subjects+">", 0, fmt.Sprintf("the server lost %d messages of the stream", info.Lost))
	}
	if err := s.checkMark(info.LastSeq); err != nil {
		return err
	}
	seen, at, err := s.storedEpoch(short)
	if err != nil {
		return err
	}
	if epoch < seen {
		return fmt.Errorf("the stream has seen epoch %d: %w", seen, store.ErrFenced)
	}
	low, err := s.lowMark(short, info)
	if err != nil {
		return err
	}
	msg := nats.Msg{
		Subject: s.fenceAt,
		// Not the stream's last sequence: the old owner may still be writing, and
		// only another fence must keep this one out.
		Header: nats.Header{headerLastSubject: {strconv.FormatUint(at, 10)}},
		Data:   appendEntry(nil, &entry{fence: true, epoch: epoch, low: low}),
	}
	base, err := s.publish(short, &msg)
	if isWrongSequence(err) {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	if err != nil {
		return err
	}
	s.setMark(base)
	tombs, err := s.findTombstones(ctx, low, base)
	if err != nil {
		return err
	}
	s.state.Lock()
	defer s.state.Unlock()
	s.ready, s.epoch, s.base, s.tombs, s.info = true, epoch, base, tombs, info
	s.wake()
	return nil
}

// storedEpoch reads the last fence: its epoch and sequence, or zeroes.
func (s *Store) storedEpoch(ctx context.Context) (epoch, seq uint64, err error) {
	m, err := s.lastMessage(ctx, s.fenceAt)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if !m.fence {
		return 0, 0, s.corrupt(s.fenceAt, m.seq, "it is a record in the place of the fence")
	}
	return m.epoch, m.seq, nil
}

// lowMark returns a sequence below which no tombstone is left. The last message
// of a stream carries it; when it cannot be had, it is the first sequence.
func (s *Store) lowMark(ctx context.Context, info streamState) (uint64, error) {
	if info.LastSeq == 0 {
		return 1, nil
	}
	m, err := s.message(ctx, getBySequence(info.LastSeq))
	switch {
	case err == nil && m.low > 0:
		return m.low, nil
	case err == nil, errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrCorrupt):
		s.log.Warn("the end of the stream does not say where removed records begin, looking through all of it", "stream", s.stream, "sequence", info.LastSeq, "err", err)
		return max(info.FirstSeq, 1), nil
	}
	return 0, err
}
