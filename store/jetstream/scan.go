package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/store"
)

// scanBytes is how much of the stream a scan has under way.
const scanBytes = 4 << 20

// namesPage is how many subjects the server names in one answer.
const namesPage = 100_000

// scan reads the stream up to the sequence at which it began; what changed since
// then it loads at the end. A record is told apart from one it has seen by a
// 64-bit hash of its name: a listing of a million names remembers some 30 MB,
// and the chance that it leaves out a record that changes meanwhile is below
// one in 10^9.
type scan struct {
	prefix string
	seen   map[uint64]struct{}
	// changed are the names that were appended meanwhile. Guarded by Store.state.
	changed map[string]struct{}
}

// note is told of every append. The caller holds Store.state.
func (sc *scan) note(ops []store.Op) {
	for i := range ops {
		if strings.HasPrefix(ops[i].Name, sc.prefix) {
			sc.changed[ops[i].Name] = struct{}{}
		}
	}
}

// Scan implements store.Store. fn may take its time and call the store.
func (s *Store) Scan(ctx context.Context, prefix string, fn func(store.Record) error) error {
	sc := &scan{prefix: prefix, seen: make(map[uint64]struct{}), changed: make(map[string]struct{})}
	// Between two appends, so that each is before the scan or noted in it.
	s.mu.Lock()
	s.state.Lock()
	err, end := s.usableLocked(), s.base
	if err == nil {
		s.scans[sc] = struct{}{}
	}
	s.state.Unlock()
	s.mu.Unlock()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	defer func() {
		s.state.Lock()
		delete(s.scans, sc)
		s.state.Unlock()
	}()

	var stopped error // what fn said
	visit := func(r store.Record) error {
		hash := xxhash.Sum64String(r.Name)
		if _, ok := sc.seen[hash]; ok {
			return nil
		}
		sc.seen[hash] = struct{}{}
		stopped = fn(r)
		return stopped
	}
	if err := s.read(ctx, prefix, end, visit); err != nil {
		if stopped != nil {
			return stopped
		}
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	s.mu.Lock()
	s.state.Lock()
	delete(s.scans, sc)
	err = s.usableLocked()
	s.state.Unlock()
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	for name := range sc.changed {
		if _, ok := sc.seen[xxhash.Sum64String(name)]; ok {
			continue
		}
		r, err := s.Load(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("scan %q: %w", prefix, err)
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

// read visits the records under prefix whose message is at or before end. When
// the stream loses its leader it goes on where it was.
func (s *Store) read(ctx context.Context, prefix string, end uint64, visit func(store.Record) error) error {
	next := uint64(1)
	give := time.Now().Add(patience)
	for {
		from := next
		err := s.readFrom(ctx, prefix, &next, end, visit)
		if err == nil || ctx.Err() != nil || !passing(err) {
			return err
		}
		if next > from {
			give = time.Now().Add(patience)
		} else if time.Now().After(give) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
}

// readFrom makes a consumer at *next and reads until end or an error. It leaves
// in *next where to go on.
func (s *Store) readFrom(ctx context.Context, prefix string, next *uint64, end uint64, visit func(store.Record) error) error {
	filter := string(appendFilter([]byte(s.subjects), prefix))
	consumer, err := s.js.CreateConsumer(ctx, s.stream, jetstream.ConsumerConfig{
		FilterSubject: filter, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *next,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
		Description: "Hadal: scan",
	})
	if err != nil {
		return translate(err)
	}
	info := consumer.CachedInfo()
	defer func() {
		// The caller's context may be what ended the scan. When this fails too,
		// the server drops the consumer after a minute.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := s.js.DeleteConsumer(ctx, s.stream, info.Name); err != nil {
			s.log.Debug("a consumer was left to expire", "stream", s.stream, "err", err)
		}
	}()
	if info.NumPending == 0 {
		return nil
	}
	delivered := uint64(0)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := consumer.FetchBytes(max(scanBytes, 2*int(s.nc.MaxPayload())), jetstream.FetchMaxWait(firstAttempt))
		if err != nil {
			return translate(err)
		}
		got := 0
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			if delivered++; meta.Sequence.Consumer != delivered {
				return fmt.Errorf("a message was skipped before sequence %d: %w", meta.Sequence.Stream, errMoved)
			}
			got++
			if meta.Sequence.Stream > end {
				return nil
			}
			record, err := s.decode(m.Subject(), meta.Sequence.Stream, m.Data())
			if err != nil {
				return err
			}
			*next = meta.Sequence.Stream + 1
			if !record.Delete && !record.fence && strings.HasPrefix(record.Name, prefix) {
				if err := visit(record.Record); err != nil {
					return err
				}
			}
			if meta.NumPending == 0 {
				return nil
			}
		}
		if err := batch.Error(); err != nil {
			return translate(err)
		}
		if got == 0 {
			// Nothing within the wait: what was pending has been replaced, or
			// the leader is gone. The consumer knows.
			info, err := consumer.Info(ctx)
			if err != nil {
				return translate(err)
			}
			if info.NumPending == 0 && info.Delivered.Consumer == delivered {
				return nil
			}
			return fmt.Errorf("no message in %v: %w", firstAttempt, errMoved)
		}
	}
}

// translate turns errors of the jetstream package into those of this one.
func translate(err error) error {
	if js, ok := errors.AsType[jetstream.JetStreamError](err); ok {
		if api := js.APIError(); api != nil {
			return &apiError{Code: api.Code, ErrCode: int(api.ErrorCode), Description: api.Description}
		}
	}
	return err
}

// Names implements store.Store. It asks the stream for its subjects, 100 000 at
// a time, and loads only records whose name is too long for a subject.
func (s *Store) Names(ctx context.Context, prefix string, fn func(name string) error) error {
	if err := s.usable(); err != nil {
		return fmt.Errorf("names %q: %w", prefix, err)
	}
	filter := string(appendFilter([]byte(s.subjects), prefix))
	last, offset := "", 0
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("names %q: %w", prefix, err)
		}
		// First, so that a tombstone which the page shows is known.
		removed := s.removed()
		var page streamState
		err := s.retry(ctx, func(ctx context.Context) (err error) {
			page, err = s.requestInfo(ctx, filter, offset)
			return err
		})
		if err == nil {
			err = s.usable()
		}
		if err != nil {
			return fmt.Errorf("names %q: %w", prefix, err)
		}
		slices.Sort(page.Subjects)
		if offset > 0 && (len(page.Subjects) == 0 || page.Subjects[0] > last) {
			// Subjects before this page went away and others moved up, out of our
			// sight. Go back until the page begins with something seen.
			offset = max(0, offset-namesPage/2)
			continue
		}
		for _, subject := range page.Subjects {
			if subject <= last {
				continue
			}
			last = subject
			name, ok := nameOf(s.tokensOf(subject))
			if !ok {
				m, err := s.nameAt(ctx, subject)
				if errors.Is(err, store.ErrNotFound) {
					continue
				}
				if err != nil {
					return fmt.Errorf("names %q: %w", prefix, err)
				}
				name = m
			}
			if _, gone := removed[name]; gone || !strings.HasPrefix(name, prefix) {
				continue
			}
			if err := fn(name); err != nil {
				return err
			}
		}
		if offset+len(page.Subjects) >= page.Total {
			return nil
		}
		// One of the old page again, to see that nothing moved.
		offset += len(page.Subjects) - 1
	}
}

// removed copies the names that have a tombstone.
func (s *Store) removed() map[string]struct{} {
	s.state.Lock()
	defer s.state.Unlock()
	names := make(map[string]struct{}, s.tombs.len())
	for name := range s.tombs.at {
		names[name] = struct{}{}
	}
	return names
}

// nameAt reads the name of the live record on a subject from its payload.
func (s *Store) nameAt(ctx context.Context, subject string) (name string, err error) {
	err = s.retry(ctx, func(ctx context.Context) error {
		m, err := s.lastMessage(ctx, subject)
		if err == nil && m.Delete {
			err = store.ErrNotFound
		}
		name = m.Name
		return err
	})
	return name, err
}
