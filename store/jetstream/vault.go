package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/auth/vault"
	"hadal/store"
)

// Vault is a vault.Vault in one JetStream stream, laid out as a key-value bucket: one
// message for each key, the last one counts, and its sequence is the revision.
//
//   - Reads ask the stream's leader, as everywhere in this package; nothing is read from
//     a replica. A leader that was cut off together with the node that asks may answer
//     from what it had until it steps down, up to four seconds after the cut (twenty with
//     stock timers): it looks once a second whether a majority has answered it in the
//     last three (once in ten, in the last ten).
//   - A write names the sequence that the key's message must have, so it happens once,
//     and after what its caller knew, or not at all; also when it is sent again because
//     nobody answered. Every message holds a random number, by which the writer of one
//     that was sent twice knows its own.
//   - An entry with a time to live is deleted by the server, which leaves a marker for an
//     hour. Nothing else is ever deleted, since older messages of a key may come back
//     when a server reads its files again after a crash (compact.go): a removal is a
//     message that says so, and it stays for as long as any earlier message of its key
//     might come back. Where one had no time to live that is for good, at some 150 bytes.
//     For the same reason each message knows until when its key's history may come back,
//     and one that is to end before that is ended by whoever reads it (vaultMessage.early).
//   - Watchers hear what the stream's leader repeats of what it has committed, over plain
//     subjects, numbered without gaps; what is missing is read from the leader
//     (vaultwatch.go).
//
// Entries are bounded by VaultBytes: a write for which there is no room is vault.ErrFull. What
// needs no more than what it replaces, removals most of all, may use a reserve beyond that, so
// that a full vault can be emptied (spare).
type Vault struct {
	link
	room func(bytes int64) error
	most int64 // bytes of the stream for entries
	fan  *vault.Fan
	open context.Context // ends with Close
	stop context.CancelFunc

	mu       sync.Mutex
	closed   bool      // guarded by mu
	watchers int       // guarded by mu
	hub      *vaultHub // guarded by mu; runs while there are watchers
	looked   time.Time // guarded by mu; when the leader was asked how much the stream holds
	held     int64     // guarded by mu; bytes: what it said, and what was written here since
	hubs     sync.WaitGroup
}

var _ vault.Vault = (*Vault)(nil)

const (
	// VaultName is the name of the stream.
	VaultName = "HADAL_VAULT"
	// VaultBytes is how much the stream may hold for entries to be written.
	VaultBytes = 4 << 30

	// vaultReserve is how much more it takes of what makes it no fuller: what all nodes write
	// between two looks at it, and removals, which may be some bytes longer than their entries.
	vaultReserve = 64 << 20

	vaultSubjects = "hadal.v."
	vaultRepeats  = "hadal.vc."
	// vaultMarkers is how long the server's marker of an entry that has expired stays.
	vaultMarkers = time.Hour
	// vaultPatience bounds a call whose context has no deadline.
	vaultPatience = 5 * time.Second
)

// VaultOptions configures a Vault.
type VaultOptions struct {
	// Replicas is the number of servers that keep the stream, if it is made now: 0 or 1,
	// 3, 5.
	Replicas int
	// Room is as in Options; it is asked before every write.
	Room func(bytes int64) error
	// Log hears of what goes wrong in the background. nil discards it.
	Log *slog.Logger

	bytes, reserve int64 // for tests, instead of VaultBytes and vaultReserve
}

// OpenVault finds or creates the stream. In a cluster it waits twenty seconds for one that
// can be used. The connection remains the caller's; it must stay open longer than the
// vault.
func OpenVault(ctx context.Context, nc *nats.Conn, opts VaultOptions) (*Vault, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", VaultName, err)
	}
	most := cmp.Or(opts.bytes, VaultBytes)
	cfg := jetstream.StreamConfig{
		Name:              VaultName,
		Description:       "Hadal: what logins need",
		Subjects:          []string{vaultSubjects + ">"},
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew, // a full one refuses, and forgets nothing
		MaxMsgsPerSubject: 1,
		MaxMsgs:           -1,
		MaxBytes:          most + cmp.Or(opts.reserve, vaultReserve),
		Replicas:          max(opts.Replicas, 1),
		Duplicates:        100 * time.Millisecond, // we send no message ids
		AllowMsgTTL:       true, SubjectDeleteMarkerTTL: vaultMarkers,
		AllowRollup: true, // which markers ask for
		RePublish:   &jetstream.RePublish{Source: vaultSubjects + ">", Destination: vaultRepeats + ">"},
	}
	found, err := ensure(ctx, js, cfg)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", VaultName, err)
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	background, stop := context.WithCancel(context.Background())
	v := &Vault{
		link: link{nc: nc, js: js, stream: VaultName, subjects: vaultSubjects, log: log, stopCh: background.Done()},
		room: opts.Room, most: most, fan: vault.NewFan(0), open: background, stop: stop,
	}
	v.replicated.Store(found.Replicas > 1)
	return v, nil
}

// Close ends calls under way and watches, which fail with vault.ErrNotReady, and returns
// when nothing of the vault runs.
func (v *Vault) Close() {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.stop()
	v.hubs.Wait()
}

// SetReplicas changes how many servers keep the stream, as Logged.SetReplicas.
func (v *Vault) SetReplicas(ctx context.Context, n int) error {
	if n > 1 {
		v.replicated.Store(true)
	}
	if err := v.setReplicas(ctx, n); err != nil {
		return fmt.Errorf("stream %s shall have %d replicas: %w", v.stream, n, err)
	}
	return nil
}

// Stream is how the stream is replicated, and what it holds.
func (v *Vault) Stream(ctx context.Context) (StreamStatus, error) {
	st, err := statusOf(ctx, &v.link)
	if err != nil {
		return StreamStatus{}, fmt.Errorf("ask for stream %s: %w", v.stream, err)
	}
	// Nodes that did not change the number hear of it here.
	v.replicated.Store(st.Wanted > 1)
	return st, nil
}

// Room says why nothing can be written, or nil.
func (v *Vault) Room() error {
	if v.room == nil {
		return nil
	}
	return v.room(0)
}

// subject is where a key's message lies; prefix may end with a slash.
func (v *Vault) subject(key string) string { return v.subjects + strings.ReplaceAll(key, "/", ".") }

// key is the key of a subject.
func (v *Vault) key(subject string) string {
	return strings.ReplaceAll(strings.TrimPrefix(subject, v.subjects), ".", "/")
}

// vaultWithin bounds a call, and says what its caller may know of an error.
func vaultWithin(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, vaultPatience, errVaultSilent)
}

// errVaultSilent ends a call without a deadline.
var errVaultSilent = fmt.Errorf("the store of logins has not answered within %v: too few nodes see each other, or the disk is too slow", vaultPatience)

// failed is err in the words of package vault.
func (v *Vault) failed(what string, err error) error {
	switch {
	case errors.Is(err, store.ErrClosed), v.open.Err() != nil && errors.Is(err, nats.ErrConnectionClosed):
		err = vault.ErrNotReady
	case errors.Is(err, store.ErrNotFound):
		err = vault.ErrNotFound
	}
	return fmt.Errorf("%s in the store of logins: %w", what, err)
}

// Get implements vault.Vault.
func (v *Vault) Get(ctx context.Context, key string) (vault.Entry, error) {
	if err := vault.CheckKey(ctx, key); err != nil {
		return vault.Entry{}, err
	}
	ctx, cancel := vaultWithin(ctx)
	defer cancel()
	m, err := v.latest(ctx, key)
	if err == nil && !m.live() {
		err = store.ErrNotFound
	}
	if err != nil {
		return vault.Entry{}, v.failed("look", err)
	}
	return m.Entry, nil
}

// latest reads the message of a key, whatever it says, or store.ErrNotFound.
func (v *Vault) latest(ctx context.Context, key string) (vaultMessage, error) {
	var m vaultMessage
	subject := v.subject(key)
	err := v.retry(ctx, patience, func(ctx context.Context) (err error) {
		m, err = v.message(ctx, getLast(subject))
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		// The server also says so of a message that it cannot read.
		info, infoErr := v.requestInfo(ctx, subject)
		switch {
		case infoErr != nil:
			return infoErr
		case !info.Listed:
			return err
		}
		if m, err = v.message(ctx, getLast(subject)); !errors.Is(err, store.ErrNotFound) {
			return err // it came into being between the requests
		}
		if info, infoErr = v.requestInfo(ctx, subject); infoErr != nil || !info.Listed {
			return errors.Join(infoErr, err)
		}
		return v.doubted(subject, 0, "the server lists it and cannot read it")
	})
	return m, err
}

// message sends a request for one message and reads the answer.
func (v *Vault) message(ctx context.Context, request []byte) (vaultMessage, error) {
	subject, seq, payload, err := v.raw(ctx, request)
	if err != nil {
		return vaultMessage{}, err
	}
	return v.decode(subject, seq, payload)
}

// decode reads a payload, which it may keep.
func (v *Vault) decode(subject string, seq uint64, payload []byte) (vaultMessage, error) {
	m, err := decodeVault(payload)
	if err != nil {
		return vaultMessage{}, v.corrupt(subject, seq, err.Error())
	}
	m.Key, m.Revision = v.key(subject), seq
	return m, nil
}
