package auth

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
)

// Config is one entry of the file's `auth` list: a strategy and its options.
type Config struct {
	// Type is the strategy: "none" or "file".
	Type string `yaml:"type"`
	// Options are the strategy's own.
	Options Options `yaml:"options"`
}

// Options are the options of all strategies; which one reads which stands at
// the key. The keys are deepstream's.
type Options struct {
	// Users maps a user name to its entry (file), usually fileLoad(users.yml).
	Users map[string]Entry `yaml:"users"`
	// Path names a file with the users, as an alternative to Users (file).
	Path string `yaml:"path"`
	// Hash is the digest of PBKDF2 password hashes as deepstream writes them:
	// md5, sha1, sha256 or sha512. Without it, passwords stand in clear text or
	// as argon2id and bcrypt hashes, which say so themselves (file).
	Hash string `yaml:"hash"`
	// Iterations is PBKDF2's iteration count (file, with hash).
	Iterations int `yaml:"iterations"`
	// KeyLength is PBKDF2's key length in bytes (file, with hash).
	KeyLength int `yaml:"keyLength"`
	// ReportInvalidParameters makes a wrong password a refusal rather than "no
	// opinion". Default: true when the strategy stands alone.
	ReportInvalidParameters *bool `yaml:"reportInvalidParameters"`
}

// Digest is the PBKDF2 setting of these options; its Name is empty when they
// have none.
func (o *Options) Digest() Digest {
	return Digest{Name: o.Hash, Iterations: o.Iterations, KeyLength: o.KeyLength}
}

// Entry is one user of the file strategy.
type Entry struct {
	// Password is clear text or a hash.
	Password string `yaml:"password"`
	// ClientData is sent to the client at login.
	ClientData any `yaml:"clientData"`
	// ServerData is seen by permission rules only.
	ServerData any `yaml:"serverData"`
}

// UnmarshalYAML reads an entry and insists on a password in quotes or letters:
// YAML takes an unquoted 0123 for the number 83, and nobody could log in with
// what was meant. Keys that no user has are refused, because a misspelt
// serverData would quietly change what rules see.
func (e *Entry) UnmarshalYAML(decode func(any) error) error {
	var raw yaml.MapSlice
	if err := decode(&raw); err != nil {
		return err
	}
	*e = Entry{}
	for _, item := range raw {
		switch item.Key {
		case "password":
			s, ok := item.Value.(string)
			if !ok {
				return errors.New("password is not a string: put it in quotes")
			}
			e.Password = s
		case "clientData":
			e.ClientData = item.Value
		case "serverData":
			e.ServerData = item.Value
		default:
			return fmt.Errorf("unknown key %v: a user has password, clientData and serverData", item.Key)
		}
	}
	return nil
}
