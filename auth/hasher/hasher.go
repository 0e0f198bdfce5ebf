// Package hasher computes password hashes, which are made to cost time and memory, and
// keeps that from being felt by whoever is logged in.
//
// A hash of 20 ms that a goroutine computes beside all others makes them wait: the
// scheduler of Go knows no priorities, a collection of garbage asks the goroutine to
// help, and the kernel sees one process that wants more than its share. In a flood of
// logins that made a subscriber's p99 three to four times what it is in an idle hour. A
// thread of a lower priority would not do, as argon2 starts goroutines of its own.
//
//	node                                     hasher (the same program, nice 3)
//	Argon2id ──► client ──stdin──► Serve ──► argon2.IDKey
//	         ◄──        ◄─stdout──       ◄──
//
// So [Start] has this program run once more, with a command that does nothing but [Serve],
// at a lower priority. What is asked goes over its standard input and its answer comes
// over its standard output, by net/rpc, as it may be several at once. The process starts
// with the first hash. It holds no state, is given no environment, listens to nobody, and
// ends when its input does, so also when the node was killed. When it cannot be started,
// or ends, hashes are computed here, as they are without Start, until it is tried again:
// nobody is kept from logging in for it. How many are computed at once is not decided
// here, but by auth.Turnstile.
//
// There is one for the whole program, as it is the program's processors that it spares.
package hasher

import (
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"strings"

	"github.com/alexedwards/argon2id"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Argon2id is the key that argon2id makes of a password.
func Argon2id(password string, salt []byte, p argon2id.Params) []byte {
	key, _ := ask("Argon2id", hashes.Argon2id, Argon2idOf{password, salt, p}) // it has no error
	return key
}

// NewArgon2id makes a hash with a new salt, as a PHC string.
func NewArgon2id(password string, p argon2id.Params) (string, error) {
	return ask("NewArgon2id", hashes.NewArgon2id, Argon2idOf{Password: password, Params: p})
}

// MatchesBcrypt says whether a bcrypt hash is of that password. What is no such hash is
// of none.
func MatchesBcrypt(hash, password []byte) bool {
	ok, _ := ask("MatchesBcrypt", hashes.MatchesBcrypt, BcryptOf{Hash: hash, Password: password}) // it has no error
	return ok
}

// NewBcrypt makes a bcrypt hash of at most 72 bytes.
func NewBcrypt(password []byte, cost int) ([]byte, error) {
	return ask("NewBcrypt", hashes.NewBcrypt, BcryptOf{Password: password, Cost: cost})
}

// PBKDF2 is the key that PBKDF2-HMAC makes of a password, with the digest of that name.
func PBKDF2(digest, password, salt string, iterations, keyLength int) ([]byte, error) {
	return ask("PBKDF2", hashes.PBKDF2, PBKDF2Of{digest, password, salt, iterations, keyLength})
}

// Digest is the digest of a name: md5, sha1, sha224, sha256, sha384 or sha512. It is nil
// for every other name.
func Digest(name string) func() hash.Hash {
	switch strings.ToLower(name) {
	case "md5":
		return md5.New
	case "sha1":
		return sha1.New
	case "sha224":
		return sha256.New224
	case "sha256":
		return sha256.New
	case "sha384":
		return sha512.New384
	case "sha512":
		return sha512.New
	}
	return nil
}

// What is asked. These are exported for net/rpc, which wants it so.
type (
	// Argon2idOf is what argon2id is computed of. A new hash has no Salt yet.
	Argon2idOf struct {
		Password string
		Salt     []byte
		Params   argon2id.Params
	}
	// BcryptOf is a hash and what it may be of, or what a hash of Cost is made of.
	BcryptOf struct {
		Hash, Password []byte
		Cost           int
	}
	// PBKDF2Of is what PBKDF2 is computed of.
	PBKDF2Of struct {
		Digest, Password, Salt string
		Iterations, KeyLength  int
	}
)

// hashes computes. Its methods have the form that net/rpc wants.
type hashes struct{}

func (hashes) Argon2id(in Argon2idOf, key *[]byte) error {
	p := in.Params
	*key = argon2.IDKey([]byte(in.Password), in.Salt, p.Iterations, p.Memory, p.Parallelism, p.KeyLength)
	return nil
}

func (hashes) NewArgon2id(in Argon2idOf, text *string) (err error) {
	*text, err = argon2id.CreateHash(in.Password, &in.Params)
	return err
}

func (hashes) MatchesBcrypt(in BcryptOf, ok *bool) error {
	*ok = bcrypt.CompareHashAndPassword(in.Hash, in.Password) == nil
	return nil
}

func (hashes) NewBcrypt(in BcryptOf, hash *[]byte) (err error) {
	*hash, err = bcrypt.GenerateFromPassword(in.Password, in.Cost)
	return err
}

func (hashes) PBKDF2(in PBKDF2Of, key *[]byte) (err error) {
	digest := Digest(in.Digest)
	if digest == nil {
		return fmt.Errorf("there is no digest %q", in.Digest)
	}
	*key, err = pbkdf2.Key(digest, in.Password, []byte(in.Salt), in.Iterations, in.KeyLength)
	return err
}
