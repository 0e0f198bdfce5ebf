package register

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"hadal/auth/vault"
)

const (
	// prefix is where the vault has the clients.
	prefix = "client/"
	// minKey and maxKey are the lengths in bytes of keys that are taken. bcrypt ignores
	// what is behind the longest.
	minKey, maxKey = 32, 72
	// maxID is the length of the longest id in bytes.
	maxID = 256
	// tokenScheme begins every bearer token. '~' is in no JWT.
	tokenScheme = "hb~"
	// secretBytes is how many random bytes a token has, idBytes how many the id of a login.
	secretBytes, idBytes = 32, 16
)

// client is what the vault has of one registration.
type client struct {
	// Login is the id of this registration, made up when it was made: another one of the
	// same client has another.
	Login string `json:"login"`
	// Hash is bcrypt's of the key.
	Hash string `json:"hash"`
	// Created is in seconds of Unix time.
	Created int64 `json:"created"`
	// Bearer is the one token of the client; nil without one.
	Bearer *bearer `json:"bearer,omitempty"`
}

// bearer is what the vault has of a token. Issued and Expires are in seconds of Unix time.
type bearer struct {
	Login   string `json:"login"`
	Hash    string `json:"hash"` // SHA-256's of the token, base64url
	Issued  int64  `json:"issued"`
	Expires int64  `json:"expires"`
}

func (b *bearer) issued() time.Time  { return time.Unix(b.Issued, 0) }
func (b *bearer) expires() time.Time { return time.Unix(b.Expires, 0) }

// vouches says whether the client may still be logged in by a login of that id.
func (c *client) vouches(login string, now time.Time) bool {
	return c.Login == login || c.Bearer != nil && c.Bearer.Login == login && now.Before(c.Bearer.expires())
}

// keyOf is where the vault has a client.
func keyOf(id string) string { return prefix + vault.Segment(id) }

// parseClient reads an entry of the vault.
func parseClient(e vault.Entry) (*client, error) {
	c := &client{}
	if err := json.Unmarshal(e.Value, c); err != nil {
		return nil, fmt.Errorf("registration %s cannot be read: %w", e.Key, err)
	}
	return c, nil
}

// text is c as the vault has it.
func (c *client) text() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("register: client cannot be written as JSON: %v", err)) // texts and numbers
	}
	return b
}

// newToken makes a bearer token of a client, which is told once, and what is kept of it.
func newToken(id string, now time.Time, ttl time.Duration) (token string, b *bearer) {
	token = tokenScheme + vault.Segment(id) + "~" + random(secretBytes)
	expires := now.Add(ttl + time.Second - 1) // the seconds are rounded up
	return token, &bearer{Login: random(idBytes), Hash: digest(token), Issued: now.Unix(), Expires: expires.Unix()}
}

// isToken says whether a token is meant to be one of ours.
func isToken(token string) bool { return strings.HasPrefix(token, tokenScheme) }

// clientOf is the client that a token names, whether or not the token is right.
func clientOf(token string) (id string, ok bool) {
	segment, secret, ok := strings.Cut(strings.TrimPrefix(token, tokenScheme), "~")
	if !ok || !isToken(token) || secret == "" || len(segment) > base64.RawURLEncoding.EncodedLen(maxID) {
		return "", false
	}
	id, err := vault.Text(segment)
	return id, err == nil && id != ""
}

// matches says whether a token is the client's present one, expired or not.
func (b *bearer) matches(token string) bool {
	return b != nil && subtle.ConstantTimeCompare([]byte(b.Hash), []byte(digest(token))) == 1
}

// digest is what is kept of a token: it has too many random bytes to be guessed, so one
// fast hash is enough.
func digest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// random is that many random bytes as text.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// printable says whether a text is valid and without control characters.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// wrongID says what is wrong with the id of a new client, or nothing.
func wrongID(id string) string {
	switch {
	case id == "":
		return "clientID: is missing"
	case len(id) > maxID:
		return fmt.Sprintf("clientID: has %d bytes, at most %d are possible", len(id), maxID)
	case !printable(id):
		return "clientID: has control characters"
	case strings.Contains(id, ":"):
		return "clientID: has a colon, with which it could not be sent as HTTP Basic"
	}
	return ""
}

// wrongKey says what is wrong with the key of a new client, or nothing. It does not quote
// the key.
func wrongKey(key string) string {
	switch {
	case key == "":
		return fmt.Sprintf("authKey: is missing: make up a random one of %d to %d bytes", minKey, maxKey)
	case len(key) < minKey:
		return fmt.Sprintf("authKey: has %d bytes, at least %d are needed", len(key), minKey)
	case len(key) > maxKey:
		return fmt.Sprintf("authKey: has %d bytes, at most %d are possible", len(key), maxKey)
	case !printable(key):
		return "authKey: has control characters"
	}
	return ""
}
