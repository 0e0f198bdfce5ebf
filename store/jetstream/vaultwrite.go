package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"hadal/auth/vault"
	"hadal/store"
)

// Headers of the vault's messages beside those of appends.
const (
	headerTTL = "Nats-TTL"
	// headerKind keeps the server from leaving a marker of a removal that it deletes.
	headerKind = "KV-Operation"
)

// Answers to a write for which there is no room. The first is also given for other
// failures of the store, with another text.
const (
	codeStoreFailed = 10077
	codeNoStorage   = 10047
	textNoBytes     = "maximum bytes exceeded"
)

// vaultAttempt is how long a write may go without an answer until it is sent again.
const vaultAttempt = 500 * time.Millisecond

// errVaultMoved means that the key's message is not the expected one.
var errVaultMoved = errors.New("the entry has another revision")

// Create implements vault.Vault.
func (v *Vault) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	if err := vault.CheckEntry(ctx, key, value); err != nil {
		return 0, err
	}
	ctx, cancel := vaultWithin(ctx)
	defer cancel()
	var was vaultMessage // what is there in the place of the entry; nothing, most often
	for {
		seq, err := v.put(ctx, entryOf(key, value, ttl, &was))
		if err == nil {
			return seq, nil
		}
		if errors.Is(err, errVaultMoved) {
			before := was.Revision
			was, err = v.latest(ctx, key)
			switch {
			case err == nil && was.live():
				err = vault.ErrExists
			case err == nil && was.Revision == before:
				err = v.rest(ctx) // a write before this one is still under way
			case errors.Is(err, store.ErrNotFound):
				was, err = vaultMessage{}, v.rest(ctx)
			}
		}
		if err != nil {
			return 0, v.failed("create", err)
		}
	}
}

// Update implements vault.Vault.
func (v *Vault) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	if err := vault.CheckEntry(ctx, key, value); err != nil {
		return 0, err
	}
	ctx, cancel := vaultWithin(ctx)
	defer cancel()
	was, err := v.latest(ctx, key)
	if err == nil && (!was.live() || was.Revision != revision) || errors.Is(err, store.ErrNotFound) {
		err = vault.ErrConflict
	}
	var seq uint64
	if err == nil {
		seq, err = v.put(ctx, entryOf(key, value, ttl, &was))
	}
	if errors.Is(err, errVaultMoved) {
		err = vault.ErrConflict
	}
	if err != nil {
		return 0, v.failed("update", err)
	}
	return seq, nil
}

// Delete implements vault.Vault.
func (v *Vault) Delete(ctx context.Context, key string, revision uint64) error {
	if err := vault.CheckKey(ctx, key); err != nil {
		return err
	}
	ctx, cancel := vaultWithin(ctx)
	defer cancel()
	for {
		was, err := v.latest(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound), err == nil && !was.live():
			if revision == 0 {
				return nil
			}
			err = vault.ErrConflict
		case err == nil && revision != 0 && was.Revision != revision:
			err = vault.ErrConflict
		case err == nil:
			removal := vaultMessage{Entry: vault.Entry{Key: key}, gone: true, until: was.until, replaced: was.Revision, before: was.nonce}
			if _, err = v.put(ctx, removal); err == nil {
				return nil
			}
			if errors.Is(err, errVaultMoved) {
				if revision == 0 {
					if err = v.rest(ctx); err == nil {
						continue
					}
				} else {
					err = vault.ErrConflict
				}
			}
		}
		return v.failed("delete", err)
	}
}

// entryOf is an entry that takes the place of another message of its key.
func entryOf(key string, value []byte, ttl time.Duration, was *vaultMessage) vaultMessage {
	m := vaultMessage{Entry: vault.Entry{Key: key, Value: value}, ends: forever, replaced: was.Revision, before: was.nonce}
	m.grows = was.Revision == 0 || len(value) > len(was.Value)
	if ttl = vault.WholeSeconds(ttl); ttl > 0 {
		m.ends = time.Now().Add(ttl).Unix()
	}
	m.until = max(m.ends, was.until)
	return m
}

// put writes the message of a key if the one that is there is the one that it replaces,
// and returns its sequence, or errVaultMoved. It tries until ctx ends. Where it cannot tell
// whether the message was written, the error says so.
func (v *Vault) put(ctx context.Context, m vaultMessage) (uint64, error) {
	m.nonce = rand.Uint64()
	msg := &nats.Msg{Subject: v.subject(m.Key), Data: appendVault(nil, &m), Header: nats.Header{
		headerLastSubject: {strconv.FormatUint(m.replaced, 10)},
	}}
	if keep := m.keep(time.Now()); keep > 0 {
		msg.Header.Set(headerTTL, strconv.FormatInt(int64(keep/time.Second), 10))
	}
	if m.gone {
		msg.Header.Set(headerKind, "DEL")
	}
	size := int64(len(msg.Data) + len(msg.Subject) + headerRoom)
	if v.room != nil {
		if err := v.room(size); err != nil {
			return 0, fmt.Errorf("%w: %w", vault.ErrFull, err)
		}
	}
	if m.grows {
		if err := v.spare(ctx, size); err != nil {
			return 0, err
		}
	}
	sent := false // an attempt may have been stored without an answer
	for attempt := vaultAttempt; ; attempt = min(2*attempt, replicaMaxAttempt) {
		actx, cancel := context.WithTimeout(ctx, attempt)
		seq, err := v.publish(actx, msg)
		cancel()
		if err != nil {
			seq, err = v.unsure(ctx, &m, err, &sent)
		}
		if err == nil {
			return seq, nil
		}
		if again := passing(err) && !fullVault(err) && ctx.Err() == nil; again {
			err = v.rest(ctx)
			if err == nil {
				continue
			}
		} else if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if fullVault(err) {
			err = fmt.Errorf("%w: %w", vault.ErrFull, err)
		}
		if sent && !errors.Is(err, errVaultMoved) {
			err = fmt.Errorf("it is not known whether it was written: %w", err)
		}
		return 0, err
	}
}

// vaultLook is how old what is known of the stream's size may be.
const vaultLook = 10 * time.Second

// spare takes so many bytes of what there is for entries, or says that there are none
// (vault.ErrFull). The server's own bound would not do: in a cluster it refuses whatever comes
// beyond it, removals too. When the leader cannot be asked the write goes on, and meets that itself.
func (v *Vault) spare(ctx context.Context, bytes int64) error {
	v.mu.Lock()
	known := time.Since(v.looked) < vaultLook && v.held+bytes <= v.most
	if known {
		v.held += bytes
	}
	v.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, vaultAttempt)
	defer cancel()
	st, err := v.Stream(ctx)
	if err != nil {
		v.log.Debug("size of the store of logins not known", "err", err)
		return nil
	}
	held := int64(st.Bytes) + bytes
	if held > v.most {
		return fmt.Errorf("%w: it holds %d of %d bytes: remove users, registrations or tokens", vault.ErrFull, st.Bytes, v.most)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.looked, v.held = time.Now(), held
	return nil
}

// unsure makes of an attempt's error what is known of all attempts: a sequence when one of
// them was stored.
func (v *Vault) unsure(ctx context.Context, m *vaultMessage, err error, sent *bool) (uint64, error) {
	switch {
	case !isWrongSequence(err):
		// Nobody has it who did not answer, or the answer is a refusal.
		_, refused := errors.AsType[*apiError](err)
		*sent = *sent || !refused && !errors.Is(err, nats.ErrNoResponders)
		return 0, err
	case !*sent:
		return 0, errVaultMoved
	}
	now, err := v.latest(ctx, m.Key)
	switch {
	case errors.Is(err, store.ErrNotFound) && m.replaced == 0, err == nil && now.Revision == m.replaced:
		return 0, errMoved // it is under way still: passing
	case err == nil && now.nonce == m.nonce:
		return now.Revision, nil
	case err == nil && !now.marker && now.before == m.nonce:
		return now.replaced, nil // and somebody else was next
	case err == nil && !now.marker && now.replaced == m.replaced:
		*sent = false // and will never be, as somebody else was first
		return 0, errVaultMoved
	case err == nil, errors.Is(err, store.ErrNotFound):
		return 0, errors.New("others have written the entry since")
	}
	return 0, err
}

// fullVault says whether a write was refused for want of room.
func fullVault(err error) bool {
	api, ok := errors.AsType[*apiError](err)
	return ok && (api.ErrCode == codeNoStorage || api.ErrCode == codeStoreFailed && strings.Contains(api.Description, textNoBytes))
}
