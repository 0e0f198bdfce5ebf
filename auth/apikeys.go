package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tidwall/gjson"
)

const (
	// apiKeyPrefix is what every key begins with, so that it is known for what it is, by
	// us and by those who search repositories for secrets.
	apiKeyPrefix = "hadal_"
	// apiKeyHash is what the hash of one begins with. A plain digest does: nobody guesses a
	// key of 256 random bits, and it is looked at with every request.
	apiKeyHash = "sha256:"
)

// NewAPIKey makes a key and its hash. The key is for the backend, and shown once; the
// hash is for the configuration.
func NewAPIKey() (key, hash string) {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails: it ends the program instead
	key = apiKeyPrefix + base64.RawURLEncoding.EncodeToString(raw)
	sum := sha256.Sum256([]byte(key))
	return key, apiKeyHash + base64.RawURLEncoding.EncodeToString(sum[:])
}

// apiKeys knows backends by their keys.
type apiKeys map[[sha256.Size]byte]*User

// newAPIKeys makes an Authenticator that lets in who has one of the keys: in the
// parameters as token, else as one that came with the request (Attempt.Token). It has no
// opinion of others, and refuses what looks like a key and is none of them; so it stands
// before the configured strategies. All mistakes are joined, each opening with its key.
func newAPIKeys(cfgs []APIKey) (apiKeys, error) {
	keys := make(apiKeys, len(cfgs))
	var errs []error
	for i, c := range cfgs {
		at := fmt.Sprintf("apiKeys[%d]", i)
		if err := CheckName(c.ID); err != nil {
			errs = append(errs, fmt.Errorf("%s.id: %w", at, err))
		}
		sum, err := parseAPIKeyHash(c.Hash)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.hash: %w", at, err))
			continue
		}
		if keys[sum] != nil {
			errs = append(errs, fmt.Errorf("%s.hash: stands here twice: make a key for each backend", at))
		}
		u := &User{ID: c.ID, Key: &c}
		if c.Role != "" {
			data, err := json.Marshal(map[string]string{"role": c.Role})
			if err != nil {
				panic(err) // texts always marshal
			}
			u.ServerData = string(data)
		}
		keys[sum] = u
	}
	return keys, errors.Join(errs...)
}

// parseAPIKeyHash reads a hash. Its error does not quote it: it may be the key itself.
func parseAPIKeyHash(text string) (sum [sha256.Size]byte, err error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, apiKeyHash))
	if err != nil || len(b) != len(sum) || !strings.HasPrefix(text, apiKeyHash) {
		return sum, errors.New("is no hash of a key: make both with `hadal hash --api-key`")
	}
	return [sha256.Size]byte(b), nil
}

// Authenticate implements Authenticator.
func (k apiKeys) Authenticate(_ context.Context, a *Attempt) (Verdict, error) {
	key := param(a.Params, "token")
	text := key.Str
	if !present(key) && !has(a.Params, []string{"password", "jwt", "authKey"}) {
		text = a.Token // what a client sends itself goes before what it came with
	}
	if key.Type != gjson.String && present(key) || !strings.HasPrefix(text, apiKeyPrefix) {
		return Verdict{}, nil
	}
	u := k[sha256.Sum256([]byte(text))]
	name := param(a.Params, "username")
	if u == nil || present(name) && name.Str != u.ID { // a key is for its backend alone
		return Verdict{Opinion: Refused}, nil
	}
	return Verdict{Opinion: Accepted, User: u}, nil
}

// Knows implements Knower.
func (k apiKeys) Knows(_ context.Context, name string) (bool, error) {
	for _, u := range k {
		if u.ID == name {
			return true, nil
		}
	}
	return false, nil
}
