package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/store"
)

// scanBytes is how much of the stream a scan has under way.
const scanBytes = 4 << 20

// scan reads the stream up to the sequence at which it began; what changed since
// then it loads at the end. A record is told apart from one it has seen by a
// 64-bit hash of its name: a listing of a million names remembers some 30 MB,
// and the chance that it leaves out a record that changes meanwhile is below
// one in 10^9.
type scan struct {
	prefix string
	seen   map[uint64]struct{}
	// expected is how many messages the server had for the scan at its start,
	// and delivered how many came, up to the scan's end.
	expected, delivered uint64
	// tombs is how many tombstones the sweeper might take away meanwhile.
	tombs uint64
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
		sc.tombs = uint64(s.tombs.len())
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
	if err := s.read(ctx, sc, end, visit); err != nil {
		if stopped != nil {
			return stopped
		}
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	if err := s.endScan(ctx, sc); err != nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	maps.DeleteFunc(sc.changed, func(name string, _ struct{}) bool {
		_, ok := sc.seen[xxhash.Sum64String(name)]
		return ok
	})
	// A message that the server cannot read is passed over by a consumer without
	// a word. Only what changed meanwhile, or was swept, may be missing.
	if missing := int64(sc.expected - sc.delivered); missing > int64(uint64(len(sc.changed))+sc.tombs) {
		return fmt.Errorf("scan %q: %w", prefix, s.corrupt(s.subjects+">", 0, fmt.Sprintf("the server counts %d messages for the scan and delivered %d", sc.expected, sc.delivered)))
	}
	for name := range sc.changed {
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

// endScan lets no more changes be noted, and checks that all were: what another
// owner wrote is in no note, and what it replaced was not read.
func (s *Store) endScan(ctx context.Context, sc *scan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Lock()
	delete(s.scans, sc)
	err, base := s.usableLocked(), s.base
	s.state.Unlock()
	if err != nil {
		return err
	}
	return s.retry(ctx, func(ctx context.Context) error {
		info, err := s.streamInfo(ctx)
		if err == nil && info.LastSeq != base {
			err = fmt.Errorf("the stream is at sequence %d, this owner at %d: %w", info.LastSeq, base, store.ErrFenced)
		}
		return err
	})
}

// read visits the records under prefix whose message is at or before end. When
// the stream loses its leader it goes on where it was.
func (s *Store) read(ctx context.Context, sc *scan, end uint64, visit func(store.Record) error) error {
	next := uint64(1)
	give := time.Now().Add(patience)
	for {
		from := next
		err := s.readFrom(ctx, sc, &next, end, visit)
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
func (s *Store) readFrom(ctx context.Context, sc *scan, next *uint64, end uint64, visit func(store.Record) error) error {
	filter := string(appendFilter([]byte(s.subjects), sc.prefix))
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
	if *next == 1 {
		sc.expected = info.NumPending
	}
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
			sc.delivered++
			if !record.Delete && !record.fence && strings.HasPrefix(record.Name, sc.prefix) {
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
	var stopped error               // what fn said
	var removed map[string]struct{} // names that are tombstones on the page
	fetch := func(offset int) (subjects []string, total int, err error) {
		// First, so that a tombstone which the page shows is known.
		removed = s.removed()
		err = s.retryFrom(ctx, listAttempt, func(ctx context.Context) error {
			info, err := s.requestInfo(ctx, filter, offset)
			subjects, total = info.Subjects, info.Total
			return err
		})
		if err == nil {
			err = s.usable()
		}
		return subjects, total, err
	}
	err := pages(fetch, func(subject string) error {
		name, ok := nameOf(s.tokensOf(subject))
		if !ok {
			var err error
			if name, err = s.nameAt(ctx, subject); errors.Is(err, store.ErrNotFound) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if _, gone := removed[name]; gone || !strings.HasPrefix(name, prefix) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		stopped = fn(name)
		return stopped
	})
	if err != nil && stopped == nil {
		return fmt.Errorf("names %q: %w", prefix, err)
	}
	return err
}

// pages visits each subject of a sorted list once that is fetched in pages and
// changes meanwhile. When subjects before a page go away, others move up from
// that page onto the one before, out of sight; so each page begins with the last
// subject of the page before, or lies too far.
func pages(fetch func(offset int) (subjects []string, total int, err error), visit func(subject string) error) error {
	last, offset := "", 0
	for {
		page, total, err := fetch(offset)
		if err != nil {
			return err
		}
		slices.Sort(page)
		if offset > 0 && (len(page) == 0 || page[0] > last) {
			offset /= 2
			continue
		}
		for _, subject := range page {
			if subject <= last {
				continue
			}
			last = subject
			if err := visit(subject); err != nil {
				return err
			}
		}
		if offset+len(page) >= total {
			return nil
		}
		offset += max(1, len(page)-1)
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
