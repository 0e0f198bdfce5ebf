package tokens

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"hadal/auth/vault"
)

// livesPrefix is where the vault has how long tokens live, in milliseconds.
const livesPrefix = "life/"

// lives are entries of the vault, one for each longest life of tokens by which some were
// handed out that may still be good. So a revocation is remembered for as long as what it
// concerns, when the configuration of that time had longer lives than that of now.
type lives struct {
	vault vault.Vault

	mu    sync.Mutex
	noted time.Duration // the last one of this node; guarded by mu
	at    time.Time     // when; guarded by mu
}

// note is called before tokens are handed out that may live so long. It asks the vault
// once in such a time.
func (l *lives) note(ctx context.Context, life time.Duration) error {
	now := time.Now()
	l.mu.Lock()
	known := l.noted == life && now.Sub(l.at) < life
	l.mu.Unlock()
	if known {
		return nil
	}
	key := livesPrefix + strconv.FormatInt(life.Milliseconds(), 10)
	// What is handed out until the next note outlives that one by a life.
	ttl := 2*life + clockTolerance
	for try := 0; ; try++ {
		if err := yield(ctx, try); err != nil {
			return fmt.Errorf("note how long tokens live: %w", err)
		}
		_, err := l.vault.Create(ctx, key, []byte("{}"), ttl)
		if errors.Is(err, vault.ErrExists) {
			var entry vault.Entry
			if entry, err = l.vault.Get(ctx, key); err == nil {
				_, err = l.vault.Update(ctx, key, entry.Value, entry.Revision, ttl)
			}
		}
		switch {
		case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrConflict):
			continue // it has just expired, or another node notes it
		case err != nil:
			return fmt.Errorf("note how long tokens live: %w", err)
		}
		l.mu.Lock()
		l.noted, l.at = life, now
		l.mu.Unlock()
		return nil
	}
}

// longest is the longest life of tokens that may be good, own being that of this node's
// configuration.
func (l *lives) longest(ctx context.Context, own time.Duration) (time.Duration, error) {
	err := l.vault.List(ctx, livesPrefix, func(e vault.Entry) error {
		ms, err := strconv.ParseInt(strings.TrimPrefix(e.Key, livesPrefix), 10, 64)
		own = max(own, time.Duration(ms)*time.Millisecond)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look how long tokens live: %w", err)
	}
	return own, nil
}
