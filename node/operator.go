package node

import (
	"context"
	"errors"

	"hadal/node/admin"
	"hadal/node/record"
	"hadal/store"
)

// operator is the record room as the admin API sees it.
type operator struct{ node *Node }

var errNotServing = errors.New("records are not served yet, or any more: see /readyz")

func (o operator) room() (*record.Room, error) {
	if r := o.node.serving(); r != nil {
		return r, nil
	}
	return nil, errNotServing
}

// Get reads one record, or admin.ErrNotFound.
func (o operator) Get(ctx context.Context, name string) (admin.Record, error) {
	r, err := o.room()
	if err != nil {
		return admin.Record{}, err
	}
	rec, err := r.Get(ctx, name)
	return admin.Record(rec), translate(err)
}

// Set writes a record as its next version and returns that.
func (o operator) Set(ctx context.Context, name, data string) (int32, error) {
	r, err := o.room()
	if err != nil {
		return 0, err
	}
	version, err := r.Set(ctx, name, data)
	return version, translate(err)
}

// Delete removes a record, or returns admin.ErrNotFound.
func (o operator) Delete(ctx context.Context, name string) error {
	r, err := o.room()
	if err != nil {
		return err
	}
	return translate(r.Delete(ctx, name))
}

// Restore writes a record with its version.
func (o operator) Restore(ctx context.Context, rec admin.Record) error {
	r, err := o.room()
	if err != nil {
		return err
	}
	return translate(r.Restore(ctx, store.Record(rec)))
}

// Check says whether a record could be written.
func (o operator) Check(rec admin.Record) error {
	r, err := o.room()
	if err != nil {
		return err
	}
	return translate(r.Check(store.Record(rec)))
}

// Names lists the names that begin with prefix.
func (o operator) Names(ctx context.Context, prefix string, fn func(string) error) error {
	r, err := o.room()
	if err != nil {
		return err
	}
	return r.Names(ctx, prefix, fn)
}

// Scan lists the records whose names begin with prefix.
func (o operator) Scan(ctx context.Context, prefix string, fn func(admin.Record) error) error {
	r, err := o.room()
	if err != nil {
		return err
	}
	return r.Scan(ctx, prefix, func(rec store.Record) error { return fn(admin.Record(rec)) })
}

// translate says an error of the record room in the admin API's words.
func translate(err error) error {
	switch {
	case errors.Is(err, record.ErrNotFound):
		return admin.ErrNotFound
	case errors.Is(err, record.ErrInvalid):
		return invalid{err}
	}
	return err
}

// invalid is an error of the record room that is admin.ErrInvalid as well.
type invalid struct{ error }

// Is says so; the room's words are enough.
func (invalid) Is(target error) bool { return target == admin.ErrInvalid }

// references are the records that rules at the door refer to.
type references struct{ node *Node }

// Read implements perms.Records.
func (r references) Read(ctx context.Context, name string) (data string, exists bool, err error) {
	room := r.node.serving()
	if room == nil {
		return "", false, errNotServing
	}
	return room.Snapshot(ctx, name)
}
