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
	if err := s.retry(ctx, fencePatience, func(try context.Context) error { return s.fence(try, epoch) }); err != nil {
		return fmt.Errorf("fence under epoch %d: %w", epoch, err)
	}
	return nil
}

// fence is one attempt.
func (s *Store) fence(ctx context.Context, epoch uint64) error {
	acked, err := s.acknowledged()
	if err != nil {
		return err
	}
	info, err := s.streamInfo(ctx)
	if err != nil {
		return err
	}
	if info.Lost > 0 {
		return s.corrupt(s.subjects+">", 0, fmt.Sprintf("the server lost %d messages of the stream", info.Lost))
	}
	if err := s.checkMark(acked, info.LastSeq); err != nil {
		return err
	}
	last, err := s.lastFence(ctx)
	if err != nil {
		return err
	}
	if epoch < last.epoch {
		return fmt.Errorf("the stream has seen epoch %d: %w", last.epoch, store.ErrFenced)
	}
	dead, err := s.deadCount(ctx, info)
	if err != nil {
		return err
	}
	msg := nats.Msg{
		Subject: s.fenceAt,
		// Not the stream's last sequence: the old owner may still be writing, and
		// only another fence must keep this one out.
		Header: nats.Header{headerLastSubject: {strconv.FormatUint(last.seq, 10)}},
		Data:   appendEntry(nil, &entry{fence: true, epoch: epoch, floor: last.floor, dead: dead}),
	}
	base, err := s.publish(ctx, &msg)
	if isWrongSequence(err) {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	if err != nil {
		return err
	}
	s.setMark(base)
	s.term = info.Term
	s.state.Lock()
	defer s.state.Unlock()
	s.ready, s.epoch, s.base, s.floor, s.dead, s.info = true, epoch, base, last.floor, dead, info
	s.listed = nil // somebody else may have written
	fences := 0
	if last.seq > 0 {
		fences = 1
	}
	if base == info.LastSeq+1 && info.Subjects == fences && info.Led {
		s.listed = &listed{whole: true, hashes: make(map[uint64]struct{})} // of no record
	}
	s.fences++
	s.wake()
	return nil
}

// lastFence reads the last fence, or a zero message when there is none yet.
func (s *Store) lastFence(ctx context.Context) (message, error) {
	m, err := s.lastMessage(ctx, s.fenceAt)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return message{}, nil
	case err == nil && !m.fence:
		return m, s.corrupt(s.fenceAt, m.seq, "it is a record in the place of the fence")
	}
	return m, err
}

// deadCount returns how many tombstones the last message of the stream tells of.
func (s *Store) deadCount(ctx context.Context, info streamState) (uint64, error) {
	if info.LastSeq == 0 {
		return 0, nil
	}
	m, err := s.message(ctx, getBySequence(info.LastSeq))
	missing := errors.Is(err, store.ErrNotFound)
	if missing {
		// A newer message of its subject is in its place, if the old owner, or what carries
		// its log over, has written meanwhile.
		now, err := s.streamInfo(ctx)
		if err == nil && now.LastSeq > info.LastSeq {
			err = fmt.Errorf("the stream grew from sequence %d to %d: %w", info.LastSeq, now.LastSeq, errMoved)
		}
		if err != nil {
			return 0, err
		}
		if err := s.missingEnd(info.LastSeq); err != nil {
			return 0, err
		}
	}
	if missing || errors.Is(err, store.ErrCorrupt) {
		// Then they are counted anew. Whoever loads the record will be told.
		s.log.Error("the end of the stream cannot be read", "stream", s.stream, "sequence", info.LastSeq, "err", err)
		return 0, nil
	}
	return m.dead, err
}
