package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"hadal/auth"
	"hadal/auth/vault"
)

// The keys of revocations. What follows token/, user/ and kick/ is a vault.Segment, what
// follows family/ the id of one.
const (
	revokedPrefix  = "revoked/"
	revokedAll     = revokedPrefix + "all"
	revokedTokens  = revokedPrefix + "token/"
	revokedUsers   = revokedPrefix + "user/"
	revokedFamily  = revokedPrefix + "family/"
	revokedKick    = revokedPrefix + "kick/"
	clockTolerance = time.Minute // by which nodes' clocks may differ
)

// revocation is the value of an entry.
type revocation struct {
	// Before is the time, in milliseconds since 1970, up to which tokens are void that were
	// issued then or earlier.
	Before int64 `json:"before"`
}

// noted is a revocation as this node knows it.
type noted struct {
	before   int64
	revision uint64
	// round is that of the watch in which it was told last: one that is not told any more
	// after the watch began anew has gone.
	round uint64
}

// revocations are those of the cluster as far as this node knows them.
type revocations struct {
	mu    sync.RWMutex
	byKey map[string]noted // by the key of the entry, kicks included; guarded by mu
	round uint64           // guarded by mu
}

func newRevocations() *revocations { return &revocations{byKey: make(map[string]noted)} }

// void says whether a token is revoked.
func (r *revocations) void(user string, s *auth.Session) bool {
	if s == nil || !s.Ours {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.byKey) == 0 {
		return false
	}
	issued := s.Issued.UnixMilli()
	covers := func(key string) bool {
		n, ok := r.byKey[key]
		return ok && issued <= n.before
	}
	return covers(revokedAll) || covers(revokedUsers+vault.Segment(user)) || covers(revokedTokens+vault.Segment(s.ID)) ||
		s.Family != "" && covers(revokedFamily+s.Family)
}

// note takes over a change of the vault, or of this node's own that it is about to hear
// of, and says whether it is news that may end connections.
func (r *revocations) note(c vault.Change) (news bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Gone {
		// One that this node has just made again may be known before the end of the former.
		if c.Revision == 0 || c.Revision >= r.byKey[c.Key].revision {
			delete(r.byKey, c.Key)
		}
		return false, nil
	}
	var v revocation
	if err := json.Unmarshal(c.Value, &v); err != nil {
		return false, fmt.Errorf("revocation %s: %w", c.Key, err)
	}
	was, known := r.byKey[c.Key]
	if known && was.revision >= c.Revision {
		was.round = r.round
		r.byKey[c.Key] = was
		return false, nil
	}
	r.byKey[c.Key] = noted{v.Before, c.Revision, r.round}
	return true, nil
}

// begin is called when all entries will be told again.
func (r *revocations) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.round++
}

// caughtUp is called when all have been told: what was not has gone.
func (r *revocations) caughtUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, n := range r.byKey {
		if n.round != r.round {
			delete(r.byKey, key)
		}
	}
}

// count is how many there are.
func (r *revocations) count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byKey)
}

// put writes a revocation that lives for a time, or extends one that is there: both what
// it covered and what it is to cover are void. It returns the change as every node will
// hear of it.
func put(ctx context.Context, v vault.Vault, key string, before time.Time, ttl time.Duration) (vault.Change, error) {
	until := before.UnixMilli()
	for try := 0; ; try++ {
		if err := yield(ctx, try); err != nil {
			return vault.Change{}, fmt.Errorf("keep revocation %s: %w", key, err)
		}
		value, err := json.Marshal(revocation{until})
		if err != nil {
			return vault.Change{}, err
		}
		revision, err := v.Create(ctx, key, value, ttl)
		if errors.Is(err, vault.ErrExists) {
			entry, getErr := v.Get(ctx, key)
			if errors.Is(getErr, vault.ErrNotFound) {
				continue // it has just expired
			}
			if getErr != nil {
				return vault.Change{}, getErr
			}
			var was revocation
			if err := json.Unmarshal(entry.Value, &was); err != nil {
				return vault.Change{}, fmt.Errorf("revocation %s: %w", key, err)
			}
			if until = max(until, was.Before); until == was.Before && !strings.HasPrefix(key, revokedKick) {
				// It lives long enough for what it covers.
				return vault.Change{Entry: entry}, nil
			}
			if value, err = json.Marshal(revocation{until}); err != nil {
				return vault.Change{}, err
			}
			revision, err = v.Update(ctx, key, value, entry.Revision, ttl)
			if errors.Is(err, vault.ErrConflict) {
				continue
			}
		}
		if err != nil {
			return vault.Change{}, fmt.Errorf("keep a revocation: %w", err)
		}
		return vault.Change{Entry: vault.Entry{Key: key, Value: value, Revision: revision}}, nil
	}
}
