package record

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"hadal/protocol"
	"hadal/protocol/jsonpath"
	"hadal/store"
)

// This file is the operator's way in, through the admin API. Its writes go
// through the owner like all others, but no rule applies to them and no
// subscriber hears of them until a client sends NOTIFY, as if an outside system
// had written (spec 08 §5). All methods may be called from anywhere while Run
// runs.

// maxName is the longest name in bytes, for the operator as for clients: a longer one
// may make a batch that the store refuses, with what others wrote in it.
const maxName = 4096

// Get reads one record, or ErrNotFound.
func (r *Room) Get(ctx context.Context, name string) (store.Record, error) {
	s, err := r.ask(ctx, &request{kind: kindOperatorGet, name: name})
	if err != nil {
		return store.Record{}, fmt.Errorf("read record %q: %w", name, err)
	}
	if !s.exists {
		return store.Record{}, ErrNotFound
	}
	return store.Record{Name: name, Version: s.version, Data: s.data}, nil
}

// Set makes data the content of the record, as its next version, and returns
// that version.
func (r *Room) Set(ctx context.Context, name, data string) (int32, error) {
	return r.set(ctx, &request{kind: kindOperatorSet, name: name, data: data})
}

// Restore sets a record with its version, whatever is there now.
func (r *Room) Restore(ctx context.Context, rec store.Record) error {
	_, err := r.set(ctx, &request{kind: kindOperatorSet, name: rec.Name, data: rec.Data, version: rec.Version, has: protocol.HasVersion})
	return err
}

// Check returns an ErrInvalid if Restore would, whatever is there now.
func (r *Room) Check(rec store.Record) error {
	if err := shape(rec.Name, rec.Data, rec.Version); err != nil {
		return err
	}
	if len(rec.Data) > r.keep.MaxSize {
		return fmt.Errorf("%w: record %q: %w", ErrInvalid, rec.Name, errTooLarge)
	}
	return nil
}

// shape says what is wrong with a record, whoever owns it.
func shape(name, data string, version int32) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: a record needs a name", ErrInvalid)
	case len(name) > maxName:
		return fmt.Errorf("%w: the name of a record has at most %d bytes, %.100q… has %d", ErrInvalid, maxName, name, len(name))
	case !jsonpath.ValidJSON(data):
		return fmt.Errorf("%w: record %q: %w", ErrInvalid, name, errNotJSON)
	case version < 0:
		return fmt.Errorf("%w: record %q: version %d is negative", ErrInvalid, name, version)
	}
	return nil
}

func (r *Room) set(ctx context.Context, req *request) (int32, error) {
	if err := shape(req.name, req.data, req.version); err != nil {
		return 0, err
	}
	s, err := r.ask(ctx, req)
	switch {
	case errors.Is(err, errTooLarge):
		return 0, fmt.Errorf("%w: record %q: %w", ErrInvalid, req.name, err)
	case err != nil:
		return 0, fmt.Errorf("write record %q: %w", req.name, err)
	}
	return s.version, nil
}

// Delete removes a record, or returns ErrNotFound.
func (r *Room) Delete(ctx context.Context, name string) error {
	s, err := r.ask(ctx, &request{kind: kindOperatorDelete, name: name})
	switch {
	case err != nil:
		return fmt.Errorf("delete record %q: %w", name, err)
	case !s.exists:
		return ErrNotFound
	}
	return nil
}

// Flush returns when everything asked before is durable and answered, and the
// partitions that are this node's are taken over.
func (r *Room) Flush(ctx context.Context) error {
	r.opened(ctx)
	for _, s := range r.seats() {
		if err := r.flush(ctx, s); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *Room) flush(ctx context.Context, s *seat) error {
	for {
		if err := s.flush(ctx); err != nil {
			return err
		}
		o := s.owner.Load()
		if o == nil {
			return nil
		}
		answer := make(chan result, 1)
		req := &request{kind: kindFlush, reply: func(res result) {
			select {
			case answer <- res:
			default: // it has been said
			}
		}}
		switch err := o.mail.putBehindAll(r.operators, req); err {
		case nil:
		case errMoved:
			if err := s.left(ctx, o); err != nil {
				return err
			}
			continue
		default:
			return err
		}
		select {
		case res := <-answer:
			if res.err == nil {
				return nil
			}
			if err := s.left(ctx, o); err != nil { // what was asked went on to the next
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ask puts a request to the owner and waits for its result.
func (r *Room) ask(ctx context.Context, req *request) (state, error) {
	req.name = strings.Clone(req.name)
	answer := make(chan result, 1)
	req.reply = func(res result) { answer <- res }
	if !r.put(req) {
		return state{}, errStopped
	}
	select {
	case res := <-answer:
		return res.state, res.err
	case <-ctx.Done():
		return state{}, ctx.Err()
	}
}
