package api

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"hadal/auth/vault"
	"hadal/auth/web"
)

const (
	// headerKey names a request, so that it can be sent again without being carried out
	// again (draft-ietf-httpapi-idempotency-key-header).
	headerKey = "Idempotency-Key"
	// maxKey is the length in bytes of the longest key.
	maxKey = 255
	// keySpace is where answers are in the vault: below it stands the hash of who asked and
	// of the key.
	keySpace = "idem/"
	// maxKept is the length in bytes of the longest answer that is kept.
	maxKept = 64 << 10
	// claimSpare is for how long beyond RequestTimeout a request counts as under way, when
	// its node does not say that it has ended.
	claimSpare = time.Minute
	// keepTime is how long it may take to keep an answer.
	keepTime = 10 * time.Second
)

// kept is what the vault has of a request with a key.
type kept struct {
	// Commands is the hash of what was asked for.
	Commands []byte `json:"commands"`
	// Done says that the request has ended; before that it is under way.
	Done bool `json:"done,omitempty"`
	// Answer is its answer; nil when that was too long to be kept.
	Answer []byte `json:"answer,omitempty"`
}

// claim is a request's right to be carried out. The zero one is that of a request without a
// key.
type claim struct {
	answer []byte // of the same request before, which is not carried out again

	s        *Server
	key      string
	revision uint64
	commands []byte
	place    *list.Element // in keys
}

// idempotencyKey is the key of a request, or empty; false for one that cannot be used.
func idempotencyKey(h http.Header) (string, bool) {
	values := h.Values(headerKey)
	if len(values) == 0 {
		return "", true
	}
	key := values[0]
	if len(values) > 1 || key == "" || len(key) > maxKey {
		return "", false
	}
	for _, c := range []byte(key) {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return key, true
}

// claim finds out whether a request was made before. It is about requests with a key that
// do more than read.
func (s *Server) claim(ctx context.Context, r *http.Request, caller *Caller, b *request) (*claim, *web.Problem) {
	key, ok := idempotencyKey(r.Header)
	if !ok {
		return nil, problem(http.StatusBadRequest, "INVALID_IDEMPOTENCY_KEY", fmt.Sprintf("%s: must be one text of 1 to %d printable characters", headerKey, maxKey))
	}
	if key == "" || s.cfg.IdempotencyTTL == 0 || b.reads() {
		return &claim{}, nil
	}
	commands := sha256.Sum256([]byte(b.body.Raw))
	who := sha256.Sum256([]byte(caller.owner() + "\x00" + key))
	c := &claim{s: s, key: keySpace + base64.RawURLEncoding.EncodeToString(who[:]), commands: commands[:]}
	running := s.cfg.RequestTimeout + claimSpare
	c.place = s.keys.take(caller.whose(), time.Now(), s.cfg.IdempotencyTTL+running)
	if c.place != nil && s.deps.Crowded != nil && s.deps.Crowded(ctx) {
		s.keys.give(c.place)
		c.place = nil
	}
	if c.place == nil { // but one that was made before is answered
		e, err := s.deps.Vault.Get(ctx, c.key)
		switch {
		case err == nil:
			return c.again(e.Value)
		case errors.Is(err, vault.ErrNotFound):
			return nil, problem(http.StatusTooManyRequests, "TOO_MANY_IDEMPOTENCY_KEYS",
				"as many answers are kept as may be (maxIdempotencyKeys, or what there is room for): send fewer requests with a key, or without one")
		}
		return nil, s.unnoted(err)
	}
	value := c.value(kept{})
	// An entry may end between the two calls, once.
	for range 3 {
		var err error
		if c.revision, err = s.deps.Vault.Create(ctx, c.key, value, running); err == nil {
			return c, nil
		}
		var e vault.Entry
		if errors.Is(err, vault.ErrExists) {
			if e, err = s.deps.Vault.Get(ctx, c.key); err == nil {
				s.keys.give(c.place)
				return c.again(e.Value)
			}
		}
		if !errors.Is(err, vault.ErrNotFound) {
			s.keys.give(c.place)
			return nil, s.unnoted(err)
		}
	}
	s.keys.give(c.place)
	return nil, problem(http.StatusConflict, "IDEMPOTENCY_KEY_IN_USE", "a request with this Idempotency-Key is under way: try again")
}

// owner is whom a key and its answer belong to. Callers without a name are many, and told
// apart by their networks and by what their logins say of them.
func (c *Caller) owner() string {
	if c.User.IsAnonymous() {
		return "\x00" + networkOf(c.RemoteAddr) + "\x00" + c.User.ServerData
	}
	return c.User.ID
}

// unnoted is what a request is told whose key the vault does not take.
func (s *Server) unnoted(err error) *web.Problem {
	s.log.Error("a request with an Idempotency-Key cannot be noted, and is not carried out", "err", err)
	return problem(http.StatusServiceUnavailable, "UNAVAILABLE", "the Idempotency-Key cannot be noted now, so nothing was done: try again")
}

// value is what is kept, with the hash of the commands.
func (c *claim) value(k kept) []byte {
	k.Commands = c.commands
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // bytes and a flag always marshal
	}
	return b
}

// again answers a request whose key was there.
func (c *claim) again(value []byte) (*claim, *web.Problem) {
	var was kept
	if err := json.Unmarshal(value, &was); err != nil {
		c.s.log.Error("what is kept of a request with an Idempotency-Key cannot be read", "err", err)
		return nil, problem(http.StatusConflict, "IDEMPOTENCY_KEY_IN_USE", "a request with this Idempotency-Key was made, and its answer cannot be read")
	}
	switch {
	case string(was.Commands) != string(c.commands):
		return nil, problem(http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED", "this Idempotency-Key was used for a request with other commands: use a new one")
	case !was.Done:
		return nil, problem(http.StatusConflict, "IDEMPOTENCY_KEY_IN_USE", "the request with this Idempotency-Key is under way: try again")
	case was.Answer == nil:
		return nil, problem(http.StatusConflict, "IDEMPOTENT_ANSWER_TOO_LARGE", "the request with this Idempotency-Key was carried out, and its answer was too large to be kept")
	}
	return &claim{answer: was.Answer}, nil
}

// drop takes back a claim of which nothing was carried out.
func (c *claim) drop() {
	if c.s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), keepTime)
	defer cancel()
	if err := c.s.deps.Vault.Delete(ctx, c.key, c.revision); err != nil {
		c.s.log.Warn("a request with an Idempotency-Key was not carried out, and counts as under way for a while", "err", err)
		return
	}
	c.s.keys.give(c.place)
}

// keep keeps the answer, before anybody gets it.
func (c *claim) keep(answer []byte) {
	if c.s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), keepTime)
	defer cancel()
	k := kept{Done: true}
	if len(answer) <= maxKept {
		k.Answer = answer
	}
	if _, err := c.s.deps.Vault.Update(ctx, c.key, c.value(k), c.revision, c.s.cfg.IdempotencyTTL); err != nil {
		c.s.log.Error("the answer of a request with an Idempotency-Key could not be kept: sent again, it may be carried out again", "err", err)
	}
}

// keys counts the keys that this node has noted, in all and for each user, so that nobody
// fills the vault. What a node noted before it was started again ends by itself.
type keys struct {
	most, mostOf int

	mu    sync.Mutex
	order list.List      // of noted, the first to end first; guarded by mu
	of    map[string]int // by user; guarded by mu
}

// noted is one key.
type noted struct {
	who  string
	ends time.Time
}

func newKeys(most int) *keys {
	return &keys{most: most, mostOf: max(1, most/4), of: make(map[string]int)}
}

// take counts one more that ends after a time, which is the same for all; nil if there are
// as many as may be.
func (k *keys) take(who string, now time.Time, life time.Duration) *list.Element {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := k.order.Front(); e != nil && !now.Before(e.Value.(*noted).ends); e = k.order.Front() {
		k.remove(e)
	}
	if k.order.Len() >= k.most || k.of[who] >= k.mostOf {
		return nil
	}
	k.of[who]++
	return k.order.PushBack(&noted{who, now.Add(life)})
}

// give takes one out, if it is still there.
func (k *keys) give(e *list.Element) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remove(e)
}

// remove is give; the caller holds mu.
func (k *keys) remove(e *list.Element) {
	n := e.Value.(*noted)
	if n.who == "" {
		return // it has ended by itself
	}
	k.order.Remove(e)
	if k.of[n.who]--; k.of[n.who] == 0 {
		delete(k.of, n.who)
	}
	n.who = ""
}

// number is how many there are, those included that have ended and were not noticed yet.
func (k *keys) number() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.order.Len()
}
