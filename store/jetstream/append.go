package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"

	"hadal/store"
)

// Headers of JetStream for which nats.go has no call.
const (
	headerBatchID     = "Nats-Batch-Id"
	headerBatchSeq    = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
	headerLastSeq     = "Nats-Expected-Last-Sequence"
	headerLastSubject = "Nats-Expected-Last-Subject-Sequence"
)

// Append implements store.Store. An ended context leaves the outcome unknown
// like any other error; without a deadline it waits ten seconds.
func (s *Store) Append(ctx context.Context, ops []store.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.append(ctx, ops)
}

// append is Append. The caller holds mu.
func (s *Store) append(ctx context.Context, ops []store.Op) error {
	s.state.Lock()
	err, base, dead := s.usableLocked(), s.base, s.dead
	s.state.Unlock()
	if err == nil {
		ops, err = s.fold(ops)
	}
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if len(ops) == 0 {
		return nil
	}
	before := dead
	for i := range ops {
		if ops[i].Delete {
			dead++
		}
	}
	ctx, cancel := within(ctx)
	defer cancel()
	s.state.Lock()
	s.listed.note(s.subjects, ops) // first, so that nobody misses what is on its way
	s.state.Unlock()
	if err := s.send(ctx, base, dead, ops); err != nil {
		s.failures.Add(1)
		s.fail()
		if isWrongSequence(err) {
			return fmt.Errorf("append after sequence %d: %w: %w", base, store.ErrFenced, err)
		}
		return fmt.Errorf("append of %d records, the first is %q: %w", len(ops), ops[0].Name, err)
	}
	s.setMark(base + uint64(len(ops)))
	s.appends.Add(1)
	s.ops.Add(uint64(len(ops)))
	s.state.Lock()
	defer s.state.Unlock()
	s.base, s.dead = base+uint64(len(ops)), dead
	for sc := range s.scans {
		sc.note(ops)
	}
	if dead > before && dead >= s.compactAt {
		s.wake()
	}
	return nil
}

// fail fences the store off: it does not know what the stream holds.
func (s *Store) fail() {
	s.state.Lock()
	s.ready = false
	s.state.Unlock()
}

// within bounds a context that has no deadline.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, appendPatience)
}

// fold keeps the last op of each name, in order, or says why the batch cannot
// be stored. It does not change ops.
func (s *Store) fold(ops []store.Op) ([]store.Op, error) {
	return fold(ops, s.maxRecord, s.maxMessage, s.names)
}

// fold uses the map names for its work and leaves it empty.
func fold(ops []store.Op, maxRecord, maxMessage int, names map[string]int) ([]store.Op, error) {
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	for i := range ops {
		size := len(ops[i].Data)
		if size > maxRecord || size+len(ops[i].Name) > maxMessage {
			return nil, fmt.Errorf("record %.100q has %d bytes, at most %d fit: %w", ops[i].Name, size, maxRecord, store.ErrRefused)
		}
	}
	if len(ops) < 2 {
		return ops, nil
	}
	defer clear(names)
	for i := range ops {
		names[ops[i].Name] = i
	}
	if len(names) == len(ops) {
		return ops, nil
	}
	folded := make([]store.Op, 0, len(names))
	for i := range ops {
		if names[ops[i].Name] == i {
			folded = append(folded, ops[i])
		}
	}
	return folded, nil
}

// send publishes the ops after sequence base and returns when all are stored.
// The caller holds mu.
func (s *Store) send(ctx context.Context, base, dead uint64, ops []store.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// nats.go copies the message before it returns, so one does for all.
	number := [1]string{}
	msg := nats.Msg{Header: nats.Header{headerLastSeq: {strconv.FormatUint(base, 10)}}}
	if len(ops) > 1 {
		s.sent++
		msg.Header[headerBatchID] = []string{s.batch + "-" + strconv.FormatUint(s.sent, 10)}
		msg.Header[headerBatchSeq] = number[:]
	}
	for i := range ops {
		e := entry{Op: ops[i]}
		number[0] = strconv.Itoa(i + 1)
		last := i == len(ops)-1
		if last {
			e.dead = dead
		}
		s.buf = appendEntry(s.buf[:0], &e)
		msg.Subject, msg.Data = s.subject(e.Name), s.buf
		if last {
			break
		}
		if err := s.nc.PublishMsg(&msg); err != nil {
			return err
		}
		delete(msg.Header, headerLastSeq) // only the first message may carry it
	}
	if len(ops) > 1 {
		msg.Header[headerBatchCommit] = []string{"1"}
	}
	seq, err := s.publishWatched(ctx, &msg)
	if cap(s.buf) > 1<<20 {
		s.buf = nil
	}
	if err == nil && seq != base+uint64(len(ops)) {
		err = fmt.Errorf("the last sequence is %d, want %d", seq, base+uint64(len(ops)))
	}
	return err
}

// publish sends a message, waits for the stream to have stored it, and returns
// its sequence.
func (s *link) publish(ctx context.Context, msg *nats.Msg) (uint64, error) {
	ctx, cancel := s.each(ctx)
	defer cancel()
	reply, err := s.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return 0, err
	}
	ack := gjson.ParseBytes(reply.Data)
	if err := errorIn(ack); err != nil {
		return 0, err
	}
	seq := ack.Get("seq").Uint()
	if seq == 0 || ack.Get("stream").Str != s.stream {
		return 0, errors.New("the answer is no acknowledgement of stream " + s.stream)
	}
	return seq, nil
}

// errorIn is the error of an API answer, or nil.
func errorIn(answer gjson.Result) error {
	e := answer.Get("error")
	if !e.Exists() {
		return nil
	}
	return &apiError{Code: int(e.Get("code").Int()), ErrCode: int(e.Get("err_code").Int()), Description: e.Get("description").Str}
}
