package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidwall/gjson"

	"hadal/store"
)

// A tombstone stands in the place of a removed record until the sweeper deletes
// that message, by its sequence: when the record came back meanwhile, its new
// message has another sequence and is not touched.
//
// The sweeper leaves the stream's last message alone. So the last message is
// always there, and it carries the low mark: the lowest sequence that a
// tombstone had when it was written. A new owner looks for tombstones from
// there on, so what a crash leaves behind is found again at little cost, and
// listings never show a removed record.
//
// The server's own means, a time to live on the message, would also take the
// last one away. The server then finds the middle of a batch at the end of its
// stream at the next start, and takes it for a torn write.

// maxTombstones bounds how many removed records wait for the sweeper. An append
// with removals waits for it beyond that.
const maxTombstones = 10_000

// sweepRest is how long the sweeper rests after an error.
const sweepRest = time.Second

// tombstones knows the messages to sweep. The lock is Store.state.
type tombstones struct {
	at    map[string]uint64 // name to sequence
	queue []tombstone       // by sequence; entries that at does not confirm are gone
}

type tombstone struct {
	name string
	seq  uint64
}

func (t *tombstones) len() int { return len(t.at) }

// add notes a tombstone; seq is above all earlier ones.
func (t *tombstones) add(name string, seq uint64) {
	if t.at == nil {
		t.at = make(map[string]uint64)
	}
	t.at[name] = seq
	t.queue = append(t.queue, tombstone{name, seq})
}

// drop forgets the tombstone of a name, if it has one.
func (t *tombstones) drop(name string) { delete(t.at, name) }

// first returns the tombstone with the lowest sequence.
func (t *tombstones) first() (tombstone, bool) {
	for len(t.queue) > 0 {
		head := t.queue[0]
		if seq, ok := t.at[head.name]; ok && seq == head.seq {
			return head, true
		}
		t.queue = t.queue[1:]
	}
	t.queue = nil
	return tombstone{}, false
}

// low is the sequence below which there is no tombstone, when next is the
// sequence of the next message.
func (t *tombstones) low(next uint64) uint64 {
	if head, ok := t.first(); ok {
		return head.seq
	}
	return next
}

// wake tells the sweeper to look.
func (s *Store) wake() {
	select {
	case s.sweep <- struct{}{}:
	default:
	}
}

// sweepTombstones deletes tombstones until the store is closed.
func (s *Store) sweepTombstones(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.sweep:
		}
		for {
			s.state.Lock()
			head, ok := s.tombs.first()
			ok = ok && s.ready && head.seq < s.base
			s.state.Unlock()
			if !ok || ctx.Err() != nil {
				break
			}
			if err := s.deleteMessage(ctx, head.seq); err != nil {
				if ctx.Err() != nil {
					return
				}
				s.log.Warn("a removed record could not be swept", "stream", s.stream, "sequence", head.seq, "err", err)
				select {
				case <-ctx.Done():
					return
				case <-time.After(sweepRest):
				}
				continue
			}
			s.state.Lock()
			if s.tombs.at[head.name] == head.seq {
				s.tombs.drop(head.name)
			}
			close(s.changed)
			s.changed = make(chan struct{})
			s.state.Unlock()
		}
	}
}

// roomForTombstones waits until the tombstones of ops may be added.
func (s *Store) roomForTombstones(ctx context.Context, ops []store.Op) error {
	deletes := false
	for i := range ops {
		deletes = deletes || ops[i].Delete
	}
	for deletes {
		s.state.Lock()
		n, changed := s.tombs.len(), s.changed
		s.state.Unlock()
		if n < maxTombstones {
			return nil
		}
		s.wake()
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d removed records to be swept: %w", n, context.Cause(ctx))
		case <-s.stopCh:
			return store.ErrClosed
		case <-changed:
		}
	}
	return nil
}

// deleteMessage deletes the message with a sequence. That there is none is fine.
func (s *Store) deleteMessage(ctx context.Context, seq uint64) error {
	return s.retry(ctx, func(ctx context.Context) error {
		reply, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+s.stream, fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq))
		if err != nil {
			return err
		}
		err = errorIn(gjson.ParseBytes(reply.Data))
		if api, ok := errors.AsType[*apiError](err); ok && api.ErrCode != codeSeqNotFound {
			// Some servers say only that it failed. Look.
			if _, missing := s.message(ctx, getBySequence(seq)); errors.Is(missing, store.ErrNotFound) {
				return nil
			}
			return err
		}
		return nil
	})
}

// findTombstones looks through the records from sequence low to base.
func (s *Store) findTombstones(ctx context.Context, low, base uint64) (tombstones, error) {
	var found tombstones
	for low < base {
		var m message
		err := s.retry(ctx, func(ctx context.Context) (err error) {
			m, err = s.message(ctx, s.getNext(low))
			return err
		})
		switch {
		case errors.Is(err, store.ErrNotFound):
			return found, nil
		case errors.Is(err, store.ErrCorrupt):
			// Whoever loads it will be told. It may not keep the others away.
			c, _ := errors.AsType[*CorruptError](err)
			if c.Sequence < low {
				return found, err
			}
			s.log.Error("a stored record is corrupt", "stream", s.stream, "err", err)
			low = c.Sequence + 1
			continue
		case err != nil:
			return found, err
		}
		if m.Delete && m.seq < base {
			found.add(m.Name, m.seq)
		}
		low = m.seq + 1
	}
	return found, nil
}
