package tokens

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Config says how the cluster's own tokens are made. All nodes have the same.
type Config struct {
	// SigningKeys are the keys of tokens: the first one signs, all of them verify. To
	// exchange one, add the new one behind the old on every node, then put it first, and
	// remove the old one when the last of its tokens has expired. Without keys there are no
	// tokens.
	SigningKeys []Key `yaml:"signingKeys"`
	// APISecret is what backends send as a bearer token to mint, revoke and kick, at least
	// 32 characters. Without one nobody may.
	APISecret string `yaml:"apiSecret"`
	// AccessTTL is how long a token is good for whose backend does not say.
	AccessTTL time.Duration `yaml:"accessTTL"`
	// RefreshTTL is how long a refresh token is good for that is not used.
	RefreshTTL time.Duration `yaml:"refreshTTL"`
	// Grace is how long a connection may go on after its token has expired.
	Grace time.Duration `yaml:"grace"`
	// OfflineGrace is how long a node that is cut off from the cluster's revocations goes on
	// with the tokens of this cluster, and with registered clients.
	OfflineGrace time.Duration `yaml:"offlineGrace"`
}

// Key is one key of tokens.
type Key struct {
	// ID names the key in the tokens it signs (kid).
	ID string `yaml:"id"`
	// Alg is what the key is for, and for nothing else: HS256, HS384, HS512, RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA.
	Alg string `yaml:"alg"`
	// Secret is the key of HS algorithms, as long as their hash at least: 32 characters for
	// HS256, 48 for HS384, 64 for HS512.
	Secret string `yaml:"secret"`
	// Key is the private key of the other algorithms, in PEM, or the name of its file. One of
	// RSA has at least 2048 bits.
	Key string `yaml:"key"`
}

// minAPISecret is the length of the shortest apiSecret in bytes, minRSA the size of the
// smallest RSA key in bits (RFC 7518 §3.3).
const (
	minAPISecret = 32
	minRSA       = 2048
)

// minSecrets are the lengths in bytes of the shortest secrets: those of the hashes (RFC
// 7518 §3.2).
var minSecrets = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// DefaultConfig has no keys, and so no tokens.
func DefaultConfig() Config {
	return Config{AccessTTL: 15 * time.Minute, RefreshTTL: 30 * 24 * time.Hour, Grace: 10 * time.Second, OfflineGrace: 30 * time.Second}
}

// Enabled says whether there are tokens.
func (c Config) Enabled() bool { return len(c.SigningKeys) > 0 }

// Validate joins every mistake, each opening with its key below tokens. It reads the files
// of keys.
func (c Config) Validate() error {
	_, err := newKeyring(c.SigningKeys)
	errs := []error{err}
	add := func(key, format string, args ...any) { errs = append(errs, fmt.Errorf(key+": "+format, args...)) }
	if c.APISecret != "" && len(c.APISecret) < minAPISecret {
		add("apiSecret", "is too short: use at least %d random characters (openssl rand -hex 32)", minAPISecret)
	}
	if c.APISecret != "" && !c.Enabled() {
		add("apiSecret", "is set, but there are no signingKeys: add one, or remove it")
	}
	if c.AccessTTL < time.Second {
		add("accessTTL", "%v is too short: it must be at least 1s", c.AccessTTL)
	}
	if c.RefreshTTL < c.AccessTTL {
		add("refreshTTL", "%v is shorter than accessTTL, %v", c.RefreshTTL, c.AccessTTL)
	}
	if c.Grace < 0 {
		add("grace", "%v is negative", c.Grace)
	}
	if c.OfflineGrace < 0 {
		add("offlineGrace", "%v is negative", c.OfflineGrace)
	}
	return errors.Join(errs...)
}

// longest is the longest life of any token.
func (c Config) longest() time.Duration { return max(c.AccessTTL, c.RefreshTTL) }

// signingKey is a key that is ready for use.
type signingKey struct {
	id             string
	method         jwt.SigningMethod
	sign, verifies any
}

// keyring is the keys in force. It never changes.
type keyring struct {
	first *signingKey
	byID  map[string]*signingKey
}

func newKeyring(keys []Key) (*keyring, error) {
	ring := &keyring{byID: make(map[string]*signingKey, len(keys))}
	var errs []error
	for i, k := range keys {
		ready, err := k.parse()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("signingKeys[%d].%w", i, err))
			continue
		case ring.byID[k.ID] != nil:
			errs = append(errs, fmt.Errorf("signingKeys[%d].id: %q is that of another key: each has its own", i, k.ID))
			continue
		}
		ring.byID[k.ID] = ready
		if ring.first == nil {
			ring.first = ready
		}
	}
	return ring, errors.Join(errs...)
}

// parse makes the key ready. Errors open with the key of the configuration, and quote
// nothing secret.
func (k Key) parse() (*signingKey, error) {
	ready := &signingKey{id: k.ID, method: jwt.GetSigningMethod(k.Alg)}
	switch {
	case k.ID == "" || len(k.ID) > 64:
		return nil, errors.New("id: is missing or over 64 bytes: give the key a short name")
	case ready.method == nil || ready.method == jwt.SigningMethodNone:
		return nil, fmt.Errorf("alg: %q is not one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA", k.Alg)
	}
	if strings.HasPrefix(k.Alg, "HS") {
		switch {
		case k.Key != "":
			return nil, fmt.Errorf("key: %s has a secret, not a key", k.Alg)
		case len(k.Secret) < minSecrets[k.Alg]:
			return nil, fmt.Errorf("secret: that of key %q is missing or too short: %s needs at least %d random characters (openssl rand -hex 32)",
				k.ID, k.Alg, minSecrets[k.Alg])
		}
		ready.sign, ready.verifies = []byte(k.Secret), []byte(k.Secret)
		return ready, nil
	}
	switch {
	case k.Secret != "":
		return nil, fmt.Errorf("secret: %s has a private key, not a secret: set key", k.Alg)
	case k.Key == "":
		return nil, fmt.Errorf("key: is missing: %s needs a private key in PEM", k.Alg)
	}
	pem := []byte(k.Key)
	if !strings.Contains(k.Key, "-----BEGIN") {
		var err error
		if pem, err = os.ReadFile(k.Key); err != nil {
			// Without the name: what should be one may be a key that lost its first line.
			return nil, fmt.Errorf("key: neither a private key in PEM nor the name of a file that can be read: %w", reasonOf(err))
		}
	}
	if err := ready.readPrivate(pem); err != nil {
		return nil, fmt.Errorf("key: is no private key for %s: %w", k.Alg, err)
	}
	if public, ok := ready.verifies.(*rsa.PublicKey); ok && public.N.BitLen() < minRSA {
		return nil, fmt.Errorf("key: that of key %q has %d bits, which is too few: make one of at least %d (openssl genrsa 3072)", k.ID, public.N.BitLen(), minRSA)
	}
	// A key of the wrong curve or size is found here and not at the first login.
	signature, err := ready.method.Sign("", ready.sign)
	if err == nil {
		err = ready.method.Verify("", signature, ready.verifies)
	}
	if err != nil {
		return nil, fmt.Errorf("key: does not fit %s: %w", k.Alg, err)
	}
	return ready, nil
}

// reasonOf is why a file cannot be read, without its name.
func reasonOf(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
