package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/bcrypt"

	"hadal/auth/hasher"
)

// Bounds of what a stored hash may ask for. A login must end in bounded time,
// and a slip of the pen in a users file must not take the machine's memory.
const (
	maxIterations   = 10_000_000
	maxKeyLength    = 1024
	maxBcryptCost   = 16
	maxArgon2Memory = 1 << 20 // KiB
	maxArgon2Rounds = 64
)

// HashArgon2id makes the hash that new passwords get, as a PHC string. Its
// cost is what OWASP asks for with the least memory (19 MiB, two passes, one
// lane), because after a restart all clients log in at once.
func HashArgon2id(password string) (string, error) {
	return hasher.NewArgon2id(password, newParams)
}

var newParams = argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// HashBcrypt makes a bcrypt hash of cost 12. Passwords of more than 72 bytes
// are refused, because bcrypt would ignore the rest.
func HashBcrypt(password string) (string, error) {
	b, err := hasher.NewBcrypt([]byte(password), 12)
	if err != nil {
		return "", fmt.Errorf("bcrypt: %w", err)
	}
	return string(b), nil
}

// Weakness says what is wrong with a password that somebody is about to give
// to a user, or nothing. It knows only the plainest mistakes.
func Weakness(password string) string {
	const common = " password passw0rd password1 12345678 123456789 1234567890 qwertyui qwertyuiop " +
		"iloveyou sunshine princess football baseball welcome1 letmein1 trustno1 superman deepstream "
	switch {
	case len([]rune(password)) < 8:
		return "shorter than 8 characters"
	case strings.Count(password, password[:1]) == len(password):
		return "one character, repeated"
	case !strings.Contains(password, " ") && strings.Contains(common, " "+strings.ToLower(password)+" "):
		return "among the first that anybody tries"
	}
	return ""
}

// Digest is deepstream's way to hash passwords: PBKDF2-HMAC with a digest of
// the operator's choice (spec 06 §5.2). New passwords are better off with
// HashArgon2id.
type Digest struct {
	// Name is md5, sha1, sha224, sha256, sha384 or sha512.
	Name string
	// Iterations is PBKDF2's count.
	Iterations int
	// KeyLength is the length of the key, in bytes.
	KeyLength int
}

// check joins what is wrong with the setting, each mistake opening with prefix
// and the key it has in the options.
func (d Digest) check(prefix string) error {
	var errs []error
	if hasher.Digest(d.Name) == nil {
		errs = append(errs, fmt.Errorf("%shash: there is no digest %q: use md5, sha1, sha224, sha256, sha384 or sha512", prefix, d.Name))
	}
	if d.Iterations < 1 || d.Iterations > maxIterations {
		errs = append(errs, fmt.Errorf("%siterations: %d is not between 1 and %d; hash needs it", prefix, d.Iterations, maxIterations))
	}
	if d.KeyLength < 1 || d.KeyLength > maxKeyLength {
		errs = append(errs, fmt.Errorf("%skeyLength: %d is not between 1 and %d; hash needs it", prefix, d.KeyLength, maxKeyLength))
	}
	return errors.Join(errs...)
}

// keyText is how many characters of a stored hash are the key in base64.
func (d Digest) keyText() int { return base64.StdEncoding.EncodedLen(d.KeyLength) }

// Hash makes a stored hash as deepstream's hash command does: the key in
// base64, then a fresh salt.
func (d Digest) Hash(password string) (string, error) {
	if err := d.check(""); err != nil {
		return "", err
	}
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("salt: %w", err)
	}
	// The salt is this text, not the bytes it stands for (spec 15, trap 27).
	salt := base64.StdEncoding.EncodeToString(raw)
	key, err := d.key(password, salt)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key) + salt, nil
}

func (d Digest) key(password, salt string) ([]byte, error) {
	return hasher.PBKDF2(d.Name, password, salt, d.Iterations, d.KeyLength)
}

// secret is what is stored of one password.
type secret interface {
	// matches compares in constant time.
	matches(password string) bool
	// cost is what matches takes; of what is not zero only few may run.
	cost() Cost
	kind() secretKind
}

type secretKind uint8

const (
	kindClear secretKind = iota
	kindPBKDF2
	kindBcrypt
	kindArgon2id
	secretKinds
)

// parseSecret reads a password as it is stored. PHC strings say themselves
// what they are; all else is a hash of digest, or clear text without one.
// Whatever no password could ever match is an error.
func parseSecret(stored string, digest Digest) (secret, error) {
	switch {
	case strings.HasPrefix(stored, "$argon2"):
		return parseArgon2id(stored)
	case strings.HasPrefix(stored, "$2a$"), strings.HasPrefix(stored, "$2b$"), strings.HasPrefix(stored, "$2y$"):
		return parseBcrypt(stored)
	case digest.Name != "":
		return parsePBKDF2(stored, digest)
	}
	return clearSecret(sha256.Sum256([]byte(stored))), nil
}

// CheckStored says why a password as it is stored can be verified by nobody, or nothing.
// Clear text is never one: who reads a store of users must not be able to log in.
func CheckStored(stored string, digest Digest) error {
	_, err := parseStored(stored, digest)
	return err
}

// parseStored is parseSecret for what is never clear text. Its error does not quote it.
func parseStored(stored string, digest Digest) (secret, error) {
	s, err := parseSecret(stored, digest)
	if err == nil && s.kind() == kindClear {
		return nil, errors.New("is neither an argon2id nor a bcrypt hash: for deepstream's, set hash, iterations and keyLength of the strategy")
	}
	return s, err
}

// clearSecret is the SHA-256 of a clear-text password, so that neither the
// time to compare nor what lies in memory tells its length.
type clearSecret [sha256.Size]byte

func (s clearSecret) matches(password string) bool {
	sum := sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(sum[:], s[:]) == 1
}

func (clearSecret) cost() Cost       { return Cost{} }
func (clearSecret) kind() secretKind { return kindClear }

type pbkdf2Secret struct {
	digest Digest
	key    []byte
	salt   string
}

func parsePBKDF2(stored string, d Digest) (secret, error) {
	bad := fmt.Errorf("is no %s hash with keyLength %d: make one with `hadal hash`", d.Name, d.KeyLength)
	n := d.keyText()
	if len(stored) < n {
		return nil, bad
	}
	key, err := base64.StdEncoding.DecodeString(stored[:n])
	if err != nil || len(key) != d.KeyLength {
		return nil, bad
	}
	return pbkdf2Secret{digest: d, key: key, salt: stored[n:]}, nil
}

func (s pbkdf2Secret) matches(password string) bool {
	key, err := s.digest.key(password, s.salt)
	return err == nil && subtle.ConstantTimeCompare(key, s.key) == 1
}

func (pbkdf2Secret) cost() Cost       { return Cost{Threads: 1} }
func (pbkdf2Secret) kind() secretKind { return kindPBKDF2 }

// dummyOf is checked for a name that nobody has: it takes as long as a hash of d.
func dummyOf(d Digest) secret {
	return pbkdf2Secret{digest: d, key: make([]byte, d.KeyLength), salt: "AAAAAAAAAAAAAAAAAAAAAA=="}
}

type bcryptSecret []byte

func parseBcrypt(stored string) (secret, error) {
	cost, err := bcrypt.Cost([]byte(stored))
	if err != nil {
		return nil, fmt.Errorf("looks like a bcrypt hash, but: %w", err)
	}
	if cost > maxBcryptCost {
		return nil, fmt.Errorf("bcrypt cost %d is above %d: a login would take too long", cost, maxBcryptCost)
	}
	if len(stored) != 60 {
		return nil, fmt.Errorf("looks like a bcrypt hash, but has %d characters, not 60", len(stored))
	}
	return bcryptSecret(stored), nil
}

func (s bcryptSecret) matches(password string) bool {
	return hasher.MatchesBcrypt(s, []byte(password))
}

func (bcryptSecret) cost() Cost       { return BcryptCost }
func (bcryptSecret) kind() secretKind { return kindBcrypt }

type argon2idSecret struct {
	params    argon2id.Params
	salt, key []byte
}

func parseArgon2id(stored string) (secret, error) {
	p, salt, key, err := argon2id.DecodeHash(stored)
	switch {
	case err != nil:
		return nil, fmt.Errorf("looks like an argon2 hash, but: %w", err)
	case p.Memory < 1 || p.Memory > maxArgon2Memory, p.Iterations < 1 || p.Iterations > maxArgon2Rounds, p.Parallelism < 1:
		return nil, fmt.Errorf("argon2id with m=%d,t=%d,p=%d is out of bounds (m 1 to %d, t 1 to %d, p from 1)",
			p.Memory, p.Iterations, p.Parallelism, maxArgon2Memory, maxArgon2Rounds)
	case len(key) < 16 || len(key) > maxKeyLength || len(salt) == 0:
		return nil, errors.New("argon2id hash has no salt, or a key that is too short or too long")
	}
	return argon2idSecret{params: *p, salt: salt, key: key}, nil
}

// newDummy is dummyOf for hashes of HashArgon2id.
func newDummy() secret {
	return argon2idSecret{params: newParams, salt: make([]byte, newParams.SaltLength), key: make([]byte, newParams.KeyLength)}
}

// isNew says whether a hash is as strong as those of HashArgon2id.
func isNew(s secret) bool {
	a, ok := s.(argon2idSecret)
	return ok && a.params.Memory >= newParams.Memory && a.params.Iterations >= newParams.Iterations
}

func (s argon2idSecret) matches(password string) bool {
	return subtle.ConstantTimeCompare(hasher.Argon2id(password, s.salt, s.params), s.key) == 1
}

func (s argon2idSecret) cost() Cost {
	return Cost{Memory: int(s.params.Memory), Threads: int(s.params.Parallelism)}
}
func (argon2idSecret) kind() secretKind { return kindArgon2id }
