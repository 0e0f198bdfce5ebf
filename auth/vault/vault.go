// Package vault keeps what logins need on disk: users, registrations, roles,
// families of refresh tokens, revocations. It is a small table of keys and values
// with compare-and-set, the same on every node of a cluster, and holds thousands to
// millions of small entries, not records of clients.
//
// Keys are paths of segments, such as user/ann; who uses the vault owns the first
// segment. A segment that comes from a client (a user name) goes through Segment.
//
// Create, Update and Delete are linearizable, and Get sees what any node was told is done.
// Only on a node that was cut off from the majority together with the one that answers may
// Get and List find what was: until that one notices, up to four seconds after the cut (twenty
// without cluster.fastFailover). A write that rests on it fails. So what must not be passed by
// such a read, such as the exchange of a refresh token, is a write.
//
// Watch is for what a node must know without asking, such as revocations. It hears of a
// change as soon as that is committed; of one whose message was lost on the way, as when the
// node that had to send it died, within five seconds. Lost comes up to nine seconds after the last
// answer of a leader, so up to thirteen after a cut like the one above (29 without
// cluster.fastFailover).
package vault

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Errors of a Vault. Others mean that it could not be asked, or that the outcome of a
// write is unknown.
var (
	// ErrNotFound says that there is no entry.
	ErrNotFound = errors.New("there is no such entry")
	// ErrExists says that Create found an entry.
	ErrExists = errors.New("the entry exists already")
	// ErrConflict says that the entry is not of the revision that was named, or gone.
	ErrConflict = errors.New("the entry has been changed meanwhile")
	// ErrNotReady says that the vault is not open yet, or not any more.
	ErrNotReady = errors.New("the store of logins is not open")
	// ErrFull says that nothing was written, because the disk or the vault is full.
	ErrFull = errors.New("the store of logins is full")
	// ErrInvalid says that a key, a prefix or a value is none that a vault takes.
	ErrInvalid = errors.New("the store of logins cannot hold that")
)

const (
	// MaxKey is the length of the longest key in bytes.
	MaxKey = 2048
	// MaxValue is the length of the longest value in bytes.
	MaxValue = 512 << 10
)

// Entry is one key with its value. Nobody changes Value.
type Entry struct {
	Key   string
	Value []byte
	// Revision rises with every change of the vault; it is above zero.
	Revision uint64
	// Ends is when it goes by itself, or zero: by the clock of who wrote it, for people
	// and for copies.
	Ends time.Time
}

// Change is what a watcher is told: an entry as it is now, or that it has gone.
type Change struct {
	Entry
	// Gone says that the entry was deleted or has expired; Value is nil.
	Gone bool
}

// Vault is the table. It is safe for many callers at once. Each call ends soon after its
// context does; one without a deadline is given a few seconds, List as long as it takes.
type Vault interface {
	// Get finds an entry, or ErrNotFound.
	Get(ctx context.Context, key string) (Entry, error)
	// Create makes an entry and returns its revision, or ErrExists. With a ttl above zero
	// (whole seconds, rounded up) the entry is deleted by itself after that long.
	Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error)
	// Update replaces an entry that has that revision, or ErrConflict. ttl is as in Create
	// and counts anew.
	Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error)
	// Delete removes an entry that has that revision, or ErrConflict. Revision 0 removes
	// it whatever it is; then it is no error that there is none.
	Delete(ctx context.Context, key string, revision uint64) error
	// List calls each for every entry whose key begins with the prefix, a whole number of
	// segments with the slash at the end (or empty: all), until each returns an error,
	// which List returns. Entries that change meanwhile may or may not be among them.
	List(ctx context.Context, prefix string, each func(Entry) error) error
	// Watch calls told for every entry below the prefix as it is now, then, with synced,
	// when these have been told, and from then on for every change, in order. When the
	// connection to the cluster was lost and is there again it begins anew: lost is called
	// when it is noticed, and then all entries and synced come again; what told hears may
	// repeat. All are called on one goroutine, not at the same time. Watch returns when
	// ctx ends, with its error.
	Watch(ctx context.Context, prefix string, w Watcher) error
}

// Watcher is who is told by Watch. Every field is set.
type Watcher struct {
	Told   func(Change)
	Synced func()
	Lost   func(error)
}

// Segment makes one segment of a key out of any text, different texts different
// segments, in base64url, without slashes and other characters that keys lack. That of
// the empty text is empty, which no key takes.
func Segment(text string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// Text is what Segment was given, or an error.
func Text(segment string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(segment)
	return string(b), err
}

// ValidKey says whether a key is one: segments of letters, digits, '-', '_' and '=',
// none empty, joined by slashes, at most MaxKey bytes.
func ValidKey(key string) bool {
	if key == "" || len(key) > MaxKey {
		return false
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" {
			return false
		}
		for _, c := range []byte(segment) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '=':
			default:
				return false
			}
		}
	}
	return true
}

// validPrefix says whether List and Watch take it.
func validPrefix(prefix string) bool {
	key, ok := strings.CutSuffix(prefix, "/")
	return prefix == "" || ok && ValidKey(key)
}

// CheckKey says why a Vault does not begin a call about a key: the context has ended, or
// the key is none. It is for those who implement one.
func CheckKey(ctx context.Context, key string) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !ValidKey(key):
		return fmt.Errorf("a key of %d bytes: %w", len(key), ErrInvalid)
	}
	return nil
}

// CheckEntry is CheckKey for a write.
func CheckEntry(ctx context.Context, key string, value []byte) error {
	if err := CheckKey(ctx, key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return fmt.Errorf("a value of %d bytes, at most %d: %w", len(value), MaxValue, ErrInvalid)
	}
	return nil
}

// CheckPrefix is CheckKey for List and Watch.
func CheckPrefix(ctx context.Context, prefix string) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !validPrefix(prefix):
		return fmt.Errorf("the prefix %q is not whole segments with a slash at the end: %w", prefix, ErrInvalid)
	}
	return nil
}

// WholeSeconds is how long an entry with a ttl is kept: rounded up. It is for those who
// implement a Vault.
func WholeSeconds(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return 0
	}
	if over := ttl % time.Second; over > 0 {
		return ttl - over + time.Second
	}
	return ttl
}

// Slot is a Vault that is not there yet: strategies are made before the node has opened
// its stores. Every call fails with ErrNotReady until Put; Watch waits.
type Slot struct {
	vault atomic.Pointer[Vault]
	put   chan struct{}
}

var _ Vault = (*Slot)(nil)

// NewSlot makes an empty one.
func NewSlot() *Slot { return &Slot{put: make(chan struct{})} }

// Put fills the slot, once.
func (s *Slot) Put(v Vault) {
	if s.vault.CompareAndSwap(nil, &v) {
		close(s.put)
	}
}

// Filled is closed when the vault can be used.
func (s *Slot) Filled() <-chan struct{} { return s.put }

func (s *Slot) get() (Vault, error) {
	if v := s.vault.Load(); v != nil {
		return *v, nil
	}
	return nil, ErrNotReady
}

// Get implements Vault.
func (s *Slot) Get(ctx context.Context, key string) (Entry, error) {
	v, err := s.get()
	if err != nil {
		return Entry{}, err
	}
	return v.Get(ctx, key)
}

// Create implements Vault.
func (s *Slot) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	v, err := s.get()
	if err != nil {
		return 0, err
	}
	return v.Create(ctx, key, value, ttl)
}

// Update implements Vault.
func (s *Slot) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	v, err := s.get()
	if err != nil {
		return 0, err
	}
	return v.Update(ctx, key, value, revision, ttl)
}

// Delete implements Vault.
func (s *Slot) Delete(ctx context.Context, key string, revision uint64) error {
	v, err := s.get()
	if err != nil {
		return err
	}
	return v.Delete(ctx, key, revision)
}

// List implements Vault.
func (s *Slot) List(ctx context.Context, prefix string, each func(Entry) error) error {
	v, err := s.get()
	if err != nil {
		return err
	}
	return v.List(ctx, prefix, each)
}

// Watch implements Vault.
func (s *Slot) Watch(ctx context.Context, prefix string, w Watcher) error {
	select {
	case <-s.put:
		return (*s.vault.Load()).Watch(ctx, prefix, w)
	case <-ctx.Done():
		return ctx.Err()
	}
}
