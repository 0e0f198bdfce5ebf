package jetstream

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"time"

	"hadal/store"
)

// That a record does not exist is asked before each creation, and costs two requests,
// the second of which, for the stream's list of subjects, is the dearest that there is.
// So once a record was missed the owner reads the subjects of the whole stream, beside
// everything else, and keeps a hash of each; from then on it knows what is not there. Of a
// stream that was empty at the Fence it knows that at once.
//
// Why a record is never missed that is there:
//
//   - Between two Fences nobody but this owner writes. What it appends is noted before
//     it is sent. A Fence throws the hashes away.
//   - Nothing is taken out: a tombstone stays until a compaction, after which its hash
//     stays for nothing. Two subjects with one hash are both asked for.
//   - The list counts when it is whole, and only then: at one moment between two
//     appends the stream's leader has as many subjects as there are hashes, and is at the
//     sequence that this owner knows as the last. A message that the server lists and cannot
//     read is passed over by the reading, as is what a replica lacks; then the numbers
//     differ and all misses are asked for as before.
//   - An owner that was deposed and does not know it yet may say of a new record that
//     there is none, just as it tells the old state of one that it has in memory. That
//     is what its lease is for.
//
// It costs memory: 8 bytes for each record and tombstone, and what a map needs beside
// them, 10 to 20 bytes in all.

const (
	// listBytes is how much of the stream is read at a time, some 1 000 subjects, and listPause
	// how long the reading rests after that, so that a million take half a minute and
	// little of the machine.
	listBytes = 128 << 10
	listPause = 20 * time.Millisecond
	// listRest is how long the lister rests after an error.
	listRest = 10 * time.Second
)

// hashSeed makes it impossible to choose names whose hashes are the same.
var hashSeed = maphash.MakeSeed()

// listed are the subjects of records and tombstones that a stream has. A nil one
// knows nothing. It is guarded by Store.state.
type listed struct {
	whole  bool // it has all of them
	hashes map[uint64]struct{}
}

// lacks says that a record is certainly not there.
func (l *listed) lacks(subjects, name string) bool {
	if l == nil || !l.whole {
		return false
	}
	_, there := l.hashes[subjectHash(subjects, name)]
	return !there
}

// note is told of every append, before it is made.
func (l *listed) note(subjects string, ops []store.Op) {
	if l == nil {
		return
	}
	for i := range ops {
		l.hashes[subjectHash(subjects, ops[i].Name)] = struct{}{}
	}
}

// subjectHash is the hash of the subject that begins with subjects and stands for name.
func subjectHash(subjects, name string) uint64 {
	var buf [128]byte
	return maphash.Bytes(hashSeed, appendSubject(append(buf[:0], subjects...), name))
}

// Lacks implements store.Knower.
func (s *Store) Lacks(name string) bool {
	s.state.Lock()
	defer s.state.Unlock()
	return s.usableLocked() == nil && name != "" && s.listed.lacks(s.subjects, name)
}

// missed wakes the lister.
func (s *Store) missed() {
	select {
	case s.misses <- struct{}{}:
	default:
	}
}

// lister makes the list when a record was missed and there is none, until the store
// is closed.
func (s *Store) lister(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.misses:
		}
		s.state.Lock()
		wanted := s.ready && (s.listed == nil || !s.listed.whole)
		s.state.Unlock()
		if !wanted {
			continue
		}
		begun := time.Now()
		n, err := s.list(ctx)
		if err == nil {
			s.log.Debug("what records there are is known", "stream", s.stream, "records", n, "took", time.Since(begun))
			continue
		}
		if ctx.Err() != nil {
			return
		}
		level := slog.LevelWarn
		if errors.Is(err, store.ErrFenced) { // the next owner begins anew
			level = slog.LevelDebug
		}
		s.log.Log(ctx, level, "what records there are could not be read; until it is, each creation asks the stream", "stream", s.stream, "in", listRest, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(listRest):
		}
	}
}

// list reads which subjects the stream has, and says how many.
func (s *Store) list(ctx context.Context) (int, error) {
	known := &listed{hashes: make(map[uint64]struct{})}
	sc := &scan{}
	// Between two appends, so that each is read or noted.
	s.mu.Lock()
	s.state.Lock()
	err, end := s.usableLocked(), s.base
	sc.fences = s.fences
	if err == nil {
		s.listed = known
	}
	s.state.Unlock()
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	rest := time.NewTicker(listPause)
	defer rest.Stop()
	heard := 0
	sc.subject = func(subject string) {
		hash := maphash.String(hashSeed, subject)
		s.state.Lock()
		known.hashes[hash] = struct{}{}
		s.state.Unlock()
		if heard += len(subject) + messageRoom; heard >= listBytes {
			heard = 0
			select {
			case <-ctx.Done():
			case <-rest.C:
			}
		}
	}
	if n, err := s.holds(ctx, sc, known); err == nil { // there were none, or few and all new
		return n, nil
	}
	if err := s.read(ctx, sc, end, nil); err != nil {
		return 0, err
	}
	return s.holds(ctx, sc, known)
}

// holds makes the list count if it is whole, and says how many subjects there are.
func (s *Store) holds(ctx context.Context, sc *scan, known *listed) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	base, err := s.current(sc)
	if err != nil {
		return 0, err
	}
	s.state.Lock()
	n := len(known.hashes)
	s.state.Unlock()
	err = s.retry(ctx, patience, func(ctx context.Context) error {
		info, err := s.streamInfo(ctx)
		switch {
		case err != nil:
			return err
		case !info.Led:
			return errNotLed
		case info.LastSeq != base:
			return fmt.Errorf("the stream is at sequence %d, this owner at %d: %w", info.LastSeq, base, store.ErrFenced)
		case info.Subjects != n+1: // and the fence
			return fmt.Errorf("the stream has %d subjects, of which %d were read", info.Subjects, n+1)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	s.state.Lock()
	defer s.state.Unlock()
	known.whole = true
	return n, nil
}
