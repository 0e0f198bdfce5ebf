package tokens

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"hadal/auth/vault"
)

const (
	// retryWindow is how long after its exchange a refresh token gets the same answer again.
	retryWindow = 10 * time.Second

	familyPrefix  = "family/"
	refreshPrefix = "hr1"
	secretSize    = 32
	tagSize       = 16
)

var (
	// errNoFamily is a refresh token that is none, or whose family is over.
	errNoFamily = errors.New("there is no such refresh token")
	// errReplayed is one that was exchanged before; its family has been ended.
	errReplayed = errors.New("the refresh token was used before")
)

// family is the entry family/<id> of the vault.
type family struct {
	User       string          `json:"user"`
	ServerData json.RawMessage `json:"serverData,omitempty"`
	ClientData json.RawMessage `json:"clientData,omitempty"`
	// TTL is the life of its access tokens, Created when it was made and Issued when the last
	// exchange was, in milliseconds (since 1970).
	TTL     int64 `json:"ttl"`
	Created int64 `json:"created"`
	Issued  int64 `json:"issued"`
	// N is the number of the access token of the last exchange.
	N uint64 `json:"n"`
	// Current and Previous are the digests of two refresh tokens' secrets; Salt leads from
	// the previous secret to the current one.
	Current  []byte `json:"current"`
	Previous []byte `json:"previous,omitempty"`
	Salt     []byte `json:"salt,omitempty"`
	// TagKey makes the tags.
	TagKey []byte `json:"tagKey"`
}

// pair is what a mint and an exchange answer.
type pair struct {
	Token        string `json:"token"`
	RefreshToken string `json:"refreshToken,omitempty"`
	// ExpiresAt is when the access token expires, in milliseconds since 1970.
	ExpiresAt int64 `json:"expiresAt"`
}

// refreshToken is one as it is sent.
type refreshToken struct {
	family string
	secret []byte
	tag    []byte
}

// String is the text of the token.
func (t refreshToken) String() string {
	return refreshPrefix + "." + t.family + "." + base64.RawURLEncoding.EncodeToString(append(t.secret[:secretSize:secretSize], t.tag...))
}

// parseRefresh reads one. What cannot be one is known without asking the vault.
func parseRefresh(text string) (refreshToken, bool) {
	prefix, rest, _ := strings.Cut(text, ".")
	id, secret, _ := strings.Cut(rest, ".")
	if prefix != refreshPrefix || len(id) != idLen || !vault.ValidKey(id) {
		return refreshToken{}, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || len(b) != secretSize+tagSize {
		return refreshToken{}, false
	}
	return refreshToken{id, b[:secretSize], b[secretSize:]}, true
}

// idLen is the length of what newID makes.
const idLen = 22

// newID is a name that nobody can guess, fit to be a segment of a key.
func newID() string { return base64.RawURLEncoding.EncodeToString(random(16)) }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails: the program ends where there is no randomness
	return b
}

func digest(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

func mac(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// token is the refresh token of a secret of the family.
func (f *family) token(id string, secret []byte) refreshToken {
	return refreshToken{id, secret, mac(f.TagKey, secret)[:tagSize]}
}

// claims are those of the access token of the last exchange.
func (f *family) claims(id string) claims {
	expires := time.UnixMilli(f.Issued).Add(time.Duration(f.TTL) * time.Millisecond)
	return claims{
		Subject: f.User, ID: id + "." + strconv.FormatUint(f.N, 10), Family: id,
		IssuedAt: f.Issued / 1000, IssuedMillis: f.Issued, Expires: (expires.UnixMilli() + 999) / 1000,
		ServerData: f.ServerData, ClientData: f.ClientData,
	}
}

// families keeps families in the vault.
type families struct {
	vault vault.Vault
	lives *lives
}

// create makes a family with its first two tokens.
func (s families) create(ctx context.Context, m *maker, f family) (pair, error) {
	id, secret := newID(), random(secretSize)
	f.Created, f.N, f.Current, f.TagKey = f.Issued, 1, digest(secret), random(secretSize)
	answer, err := f.pair(m, id, secret)
	if err != nil {
		return pair{}, err
	}
	value, err := json.Marshal(&f)
	if err != nil {
		return pair{}, err
	}
	if err := s.lives.note(ctx, m.cfg.longest()); err != nil {
		return pair{}, err
	}
	if _, err := s.vault.Create(ctx, familyPrefix+id, value, m.cfg.RefreshTTL); err != nil {
		return pair{}, fmt.Errorf("keep a family of tokens: %w", err)
	}
	return answer, nil
}

// pair is the answer of the last exchange; secret is the current one.
func (f *family) pair(m *maker, id string, secret []byte) (pair, error) {
	c := f.claims(id)
	token, err := m.sign(c)
	return pair{token, f.token(id, secret).String(), c.Expires * 1000}, err
}

// exchanged is what an exchange was.
type exchanged struct {
	pair
	id     string
	user   string
	access time.Duration // the life of the family's access tokens
	again  bool          // it is the answer of an exchange before
}

// exchange gives a refresh token's owner the next two. judge says why the family may not,
// by the claims of its last access token and when it was made. With errReplayed the
// caller ends the family that it is told of.
func (s families) exchange(ctx context.Context, m *maker, t refreshToken, judge func(last claims, created time.Time) error) (exchanged, error) {
	for try := 0; ; try++ {
		if err := yield(ctx, try); err != nil {
			return exchanged{}, fmt.Errorf("exchange a refresh token: %w", err)
		}
		entry, err := s.vault.Get(ctx, familyPrefix+t.family)
		switch {
		case errors.Is(err, vault.ErrNotFound):
			return exchanged{}, errNoFamily
		case err != nil:
			return exchanged{}, fmt.Errorf("read a family of tokens: %w", err)
		}
		var f family
		if err := json.Unmarshal(entry.Value, &f); err != nil {
			return exchanged{}, fmt.Errorf("family %s of tokens: %w", t.family, err)
		}
		if !hmac.Equal(t.tag, mac(f.TagKey, t.secret)[:tagSize]) {
			return exchanged{}, errNoFamily
		}
		out := exchanged{id: t.family, user: f.User, access: time.Duration(f.TTL) * time.Millisecond}
		if err := judge(f.claims(t.family), time.UnixMilli(f.Created)); err != nil {
			return out, err
		}
		now, sum := time.Now(), digest(t.secret)
		switch {
		case hmac.Equal(sum, f.Current):
			next := f.next(t.secret, now)
			out.pair, err = f.pair(m, t.family, next)
			if err != nil {
				return out, err
			}
			value, err := json.Marshal(&f)
			if err != nil {
				return out, err
			}
			if err := s.lives.note(ctx, m.cfg.longest()); err != nil {
				return out, err
			}
			_, err = s.vault.Update(ctx, entry.Key, value, entry.Revision, m.cfg.RefreshTTL)
			switch {
			case errors.Is(err, vault.ErrConflict):
				continue // somebody else exchanged it, or ended the family
			case err != nil:
				return out, fmt.Errorf("keep a family of tokens: %w", err)
			}
			return out, nil
		case f.Previous != nil && hmac.Equal(sum, f.Previous) && now.Before(time.UnixMilli(f.Issued).Add(retryWindow)):
			out.again = true
			out.pair, err = f.pair(m, t.family, mac(t.secret, f.Salt))
			return out, err
		}
		return out, errReplayed
	}
}

// yield waits before a try that is not the first: others were faster, and what they have
// written may be on its way for a moment in which it can be neither read nor replaced.
func yield(ctx context.Context, try int) error {
	if try == 0 {
		return nil
	}
	wait := time.NewTimer(min(time.Millisecond<<min(try, 7), 100*time.Millisecond) + mathrand.N(10*time.Millisecond))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("others are always faster: %w", ctx.Err())
	}
}

// next makes the exchange, and returns the secret that is current after it.
func (f *family) next(secret []byte, now time.Time) []byte {
	f.Previous, f.Salt = f.Current, random(secretSize)
	next := mac(secret, f.Salt)
	f.Current, f.N, f.Issued = digest(next), f.N+1, now.UnixMilli()
	return next
}

// end removes a family.
func (s families) end(ctx context.Context, id string) error {
	return s.vault.Delete(ctx, familyPrefix+id, 0)
}
