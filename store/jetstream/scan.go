package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	// purges and fences are the Store's at the start.
	purges, fences uint64
	// floor and dead are the Store's at the start.
	floor, dead uint64
	// fenced says that the fence is the last message at the start.
	fenced bool
	// changed are the names that were appended meanwhile. Guarded by Store.state.
	changed map[string]struct{}
	// around is a beginning of all names that the server's filter may let through
	// beside those under prefix; others counts appends of them. Guarded by
	// Store.state.
	around string
	others int64
	// subject, if it is set, is told of every message, tombstones among them, instead of
	// anybody of the records. The payloads are not read then.
	subject func(string)
}

// note is told of every append. The caller holds Store.state.
func (sc *scan) note(ops []store.Op) {
	for i := range ops {
		if strings.HasPrefix(ops[i].Name, sc.prefix) {
			sc.changed[ops[i].Name] = struct{}{}
		} else if strings.HasPrefix(ops[i].Name, sc.around) {
			sc.others++
		}
	}
}

// Scan implements store.Store. fn may take its time and call the store.
func (s *Store) Scan(ctx context.Context, prefix string, fn func(store.Record) error) error {
	var stopped error // what fn said
	sc, end, err := s.beginScan(prefix)
	if err == nil {
		defer s.dropScan(sc)
		err = s.scan(ctx, sc, end, func(r store.Record) error {
			stopped = fn(r)
			return stopped
		})
	}
	if err != nil && stopped == nil {
		return fmt.Errorf("scan %q: %w", prefix, err)
	}
	return err
}

// Names implements store.Store. It reads the records too: a tombstone can be
// told from a record by its payload only.
func (s *Store) Names(ctx context.Context, prefix string, fn func(name string) error) error {
	return s.Scan(ctx, prefix, func(r store.Record) error { return fn(r.Name) })
}

// beginScan notes changes from here on, and says where the stream ends now. With
// replicas it puts the fence there: whichever replica the scan is read from, it is not
// read to its end before that message has come.
func (s *Store) beginScan(prefix string) (*scan, uint64, error) {
	around := ""
	if len(prefix) < 100 { // a longer one may not be in the filter up to its last slash
		around = prefix[:strings.LastIndexByte(prefix, '/')+1]
	}
	sc := &scan{prefix: prefix, around: around, seen: make(map[uint64]struct{}), changed: make(map[string]struct{})}
	// Between two appends, so that each is before the scan or noted in it.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replicated.Load() {
		if err := s.endHere(); err != nil {
			return nil, 0, err
		}
		sc.fenced = true
	}
	s.state.Lock()
	defer s.state.Unlock()
	if err := s.usableLocked(); err != nil {
		return nil, 0, err
	}
	s.scans[sc] = struct{}{}
	sc.purges, sc.fences, sc.floor, sc.dead = s.purges, s.fences, s.floor, s.dead
	return sc, s.base, nil
}

func (s *Store) dropScan(sc *scan) {
	s.state.Lock()
	defer s.state.Unlock()
	delete(s.scans, sc)
}

// scan visits every record under the scan's prefix once.
func (s *Store) scan(ctx context.Context, sc *scan, end uint64, fn func(store.Record) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	visit := func(r store.Record) error {
		hash := xxhash.Sum64String(r.Name)
		if _, ok := sc.seen[hash]; ok {
			return nil
		}
		sc.seen[hash] = struct{}{}
		return fn(r)
	}
	if err := s.read(ctx, sc, end, visit); err != nil {
		return err
	}
	if err := s.endScan(ctx, sc); err != nil {
		return err
	}
	s.state.Lock()
	unseen, others, purged := maps.Clone(sc.changed), sc.others, s.purges != sc.purges
	s.state.Unlock()
	maps.DeleteFunc(unseen, func(name string, _ struct{}) bool {
		_, ok := sc.seen[xxhash.Sum64String(name)]
		return ok
	})
	// A message that the server cannot read is passed over by a consumer without
	// a word. Only what changed meanwhile may be missing.
	if missing := int64(sc.expected - sc.delivered); missing > int64(len(unseen))+others && !purged {
		return s.corrupt(s.subjects+">", 0, fmt.Sprintf("the server counts %d messages for a scan and delivered %d", sc.expected, sc.delivered))
	}
	for name := range unseen {
		r, err := s.Load(ctx, name)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

// endScan checks that all changes were noted: what another owner wrote, or an
// append without an answer, is in no note, and what it replaced was not read.
func (s *Store) endScan(ctx context.Context, sc *scan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	base, err := s.current(sc)
	if err != nil {
		return err
	}
	return s.retry(ctx, patience, func(ctx context.Context) error {
		info, err := s.streamInfo(ctx)
		if err == nil && info.LastSeq != base {
			err = fmt.Errorf("the stream is at sequence %d, this owner at %d: %w", info.LastSeq, base, store.ErrFenced)
		}
		return err
	})
}

// current says whether all changes since the scan began are noted, as far as
// this owner knows, and where the stream ends. The caller holds mu.
func (s *Store) current(sc *scan) (base uint64, err error) {
	s.state.Lock()
	defer s.state.Unlock()
	if err := s.usableLocked(); err != nil {
		return 0, err
	}
	if s.fences != sc.fences {
		return 0, fmt.Errorf("fenced anew meanwhile: %w", store.ErrFenced)
	}
	return s.base, nil
}

// read visits the records under prefix whose message is at or before end. When
// the stream loses its leader it goes on where it was.
func (s *Store) read(ctx context.Context, sc *scan, end uint64, visit func(store.Record) error) error {
	next := sc.floor + 1
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
	filter, filters, bytes := string(appendFilter([]byte(s.subjects), sc.prefix)), []string(nil), max(scanBytes, 2*int(s.nc.MaxPayload()))
	if sc.subject != nil {
		bytes = listBytes
	}
	if sc.fenced {
		filter, filters = "", []string{filter, s.fenceAt}
	}
	cctx, ccancel := s.asking(ctx)
	defer ccancel()
	consumer, err := s.js.CreateConsumer(cctx, s.stream, jetstream.ConsumerConfig{
		FilterSubject: filter, FilterSubjects: filters, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *next,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute, HeadersOnly: sc.subject != nil,
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
	if *next == sc.floor+1 {
		sc.expected = info.NumPending
	}
	if info.NumPending == 0 && !sc.fenced {
		return nil
	}
	delivered := uint64(0)
	// A replica that lags has to get what is to be read first.
	wait := firstAttempt
	if sc.fenced {
		wait = replicaScanWait
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := consumer.FetchBytes(bytes, jetstream.FetchMaxWait(wait))
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
			if sc.subject != nil {
				sc.subject(m.Subject())
				*next = meta.Sequence.Stream + 1
				if meta.NumPending == 0 {
					return nil
				}
				continue
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
			if sc.fenced && meta.Sequence.Stream == end || !sc.fenced && meta.NumPending == 0 {
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
			if !sc.fenced && info.NumPending == 0 && info.Delivered.Consumer == delivered {
				return nil
			}
			return fmt.Errorf("no message in %v: %w", wait, errMoved)
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
