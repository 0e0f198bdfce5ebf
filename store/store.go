// Package store is what is kept: the contract between the record room, which
// decides, and the drivers, which keep. A driver holds the records of one
// partition for one owner at a time.
//
// An owner appends batches. A batch is accepted whole or not at all; when
// Append returns nil it is as durable as the driver promises. When it returns
// an error other than ErrFenced the outcome is unknown, and the driver refuses
// everything with ErrFenced until Fence has been called: the owner must forget
// what it held in memory, fence, and load again. The exceptions are ErrRefused,
// the batch could never be stored, and ErrFull, there is no room for it now:
// nothing was written, and the owner goes on.
//
// A store begins fenced off, and is fenced off again by a Fence that fails.
//
// Every driver passes storetest.Run.
package store

import (
	"context"
	"errors"
)

// ErrNotFound means that no record of that name exists.
var ErrNotFound = errors.New("record not found")

// ErrFenced means that this owner may not write: another one has taken over,
// or an earlier Append failed. Fence again before going on.
var ErrFenced = errors.New("store is fenced off")

// ErrClosed means that the store was closed.
var ErrClosed = errors.New("store is closed")

// ErrRefused means that a batch cannot be stored as it is: more than MaxOps
// names, an empty name, or a record above the driver's limit. Nothing was
// written and the store is as before.
var ErrRefused = errors.New("batch cannot be stored")

// ErrFull means that there is no room for a batch at the moment: on the disk,
// above what is kept free, or in the driver. Nothing was written and the store is
// as before; the same batch may be accepted later. The error says where room is
// missing.
var ErrFull = errors.New("store has no room")

// ErrCorrupt means that what the driver read back is not what was written: a
// wrong checksum, an unknown format, a record under another one's name. The
// driver's error says where. What is corrupt is never served.
var ErrCorrupt = errors.New("stored record is corrupt")

// MaxOps is the number of different names that one Append may hold. Later ops
// of the same name replace earlier ones and do not count.
const MaxOps = 1000

// Record is the state of one record. Data is JSON text.
type Record struct {
	Name    string
	Version int32
	Data    string
}

// Op is one change: the record as it shall be afterwards, or its removal.
type Op struct {
	Record
	Delete bool
}

// Store keeps the records of one partition. Load and Scan may be called from
// anywhere at any time and see only what was appended successfully. Append and
// Fence are the owner's: one call at a time.
type Store interface {
	// Fence takes the partition over under epoch: from its return on, appends of
	// every earlier owner fail. An epoch lower than the last one seen is
	// ErrFenced.
	Fence(ctx context.Context, epoch uint64) error
	// Append makes all ops happen, in order, or none. Later ops of the same name
	// win; removing what does not exist is no error. It returns when the result
	// is durable. At most MaxOps names. The ops are the caller's again afterwards;
	// the store may keep their strings, which must not be views of memory that
	// changes, or that is much larger.
	Append(ctx context.Context, ops []Op) error
	// Load reads one record, or ErrNotFound.
	Load(ctx context.Context, name string) (Record, error)
	// Scan calls fn for every record whose name begins with prefix, in no
	// promised order, until fn returns an error, which Scan then returns. A
	// record that changes meanwhile is seen before or after its change, once.
	Scan(ctx context.Context, prefix string, fn func(Record) error) error
	// Names is Scan without the data, for listings.
	Names(ctx context.Context, prefix string, fn func(name string) error) error
	// Close releases what the store holds. Appended data stays.
	Close() error
}

// Knower is a Store that may know at once that there is no record of a name.
type Knower interface {
	// Lacks says that Load would return ErrNotFound now. False says nothing. It may
	// be called from anywhere at any time and waits for nothing.
	Lacks(name string) bool
}
