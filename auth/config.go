package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/goccy/go-yaml"

	"hadal/auth/users"
)

// Config is one entry of the file's `auth` list: a strategy and its options.
type Config struct {
	// Type is the strategy: "none", "file", "storage", "http" or "jwt".
	Type string `yaml:"type"`
	// Options are the strategy's own.
	Options Options `yaml:"options"`
}

// TakesPasswords says whether the strategy judges a name and a password, which HTTP Basic
// carries, too.
func (c Config) TakesPasswords() bool {
	return c.Type == "file" || c.Type == "storage" || c.Type == "http"
}

// Options are the options of all strategies; which one reads which stands at
// the key. The keys are deepstream's.
type Options struct {
	// Users maps a user name to its entry (file), usually fileLoad(users.yml).
	Users map[string]Entry `yaml:"users"`
	// Path names a file with the users, as an alternative to Users (file).
	Path string `yaml:"path"`
	// Hash is the digest of PBKDF2 password hashes as deepstream writes them:
	// md5, sha1, sha256 or sha512. Without it, passwords stand as argon2id and bcrypt
	// hashes, which say so themselves, or in clear text (file only). What storage
	// writes is always argon2id, also over an old hash when its user logs in (file,
	// storage).
	Hash string `yaml:"hash"`
	// Iterations is PBKDF2's iteration count (file, storage, with hash).
	Iterations int `yaml:"iterations"`
	// KeyLength is PBKDF2's key length in bytes (file, storage, with hash).
	KeyLength int `yaml:"keyLength"`
	// Backend is where users are: "embedded" (the default), replicated with the
	// cluster, or "postgres" (storage).
	Backend string `yaml:"backend"`
	// ConnectionString says which PostgreSQL, such as
	// postgres://user:password@host:5432/database; with backend postgres (storage).
	ConnectionString string `yaml:"connectionString"`
	// Table is the table of users; users when nothing is said. In PostgreSQL a schema
	// may stand before it (storage).
	Table string `yaml:"table"`
	// CreateUser makes a user of everybody who logs in with a name that is not there
	// yet (storage).
	CreateUser bool `yaml:"createUser"`
	// ReportInvalidParameters makes a wrong password a refusal rather than "no
	// opinion". Default: true when the strategy stands alone.
	ReportInvalidParameters *bool `yaml:"reportInvalidParameters"`

	// EndpointURL is the webhook, which is asked by POST who a client is (http;
	// required).
	EndpointURL string `yaml:"endpointUrl"`
	// PermittedStatusCodes are the status codes that let a client in (http; required;
	// none of 300 and above).
	PermittedStatusCodes []int `yaml:"permittedStatusCodes"`
	// RequestTimeout is how long one request may take, from connecting to the last
	// byte of the answer (http; required).
	RequestTimeout time.Duration `yaml:"requestTimeout"`
	// RetryStatusCodes are the status codes after which the webhook is asked again
	// (http; required, may be empty).
	RetryStatusCodes []int `yaml:"retryStatusCodes"`
	// RetryAttempts is how often it is asked again, also after a request that failed
	// (http; required).
	RetryAttempts *int `yaml:"retryAttempts"`
	// RetryInterval is the pause before that (http; required).
	RetryInterval *time.Duration `yaml:"retryInterval"`
	// PromoteToHeader lists keys of the auth data that are sent as headers of the
	// request too (http).
	PromoteToHeader []string `yaml:"promoteToHeader"`
	// ForwardHeaders lists the client's headers that the webhook is told. Without it,
	// these are all but those that hold credentials (http).
	ForwardHeaders []string `yaml:"forwardHeaders"`
	// ForwardCookies lists the client's cookies that the webhook is told; without it,
	// none (http).
	ForwardCookies []string `yaml:"forwardCookies"`
	// Headers are sent with every request, such as what the webhook knows this server
	// by (http).
	Headers map[string]string `yaml:"headers"`
	// MaxConcurrent is how many requests are under way at once; more logins wait for
	// their turn, address by address. Default: 64 (http).
	MaxConcurrent int `yaml:"maxConcurrent"`
	// TLS is for an EndpointURL or JWKSURL with https (http, jwt).
	TLS ClientTLS `yaml:"tls"`

	// Keys are the keys that tokens may be signed with, all valid at once (jwt).
	Keys []JWTKey `yaml:"keys"`
	// JWKSURL is where a set of public keys is, which is loaded in the background; while
	// it could not be, its tokens are refused (jwt).
	JWKSURL string `yaml:"jwksUrl"`
	// JWKSRefresh is how often that is loaded again. Default: ten minutes (jwt).
	JWKSRefresh time.Duration `yaml:"jwksRefresh"`
	// Algorithms are those that keys of JWKSURL may be for which do not say it
	// themselves. Default: RS256, PS256, ES256, ES384, ES512 and EdDSA (jwt).
	Algorithms []string `yaml:"algorithms"`
	// Audience lists audiences of which a token must name one (aud). Without it, none
	// is asked for (jwt).
	Audience []string `yaml:"audience"`
	// Issuer is who must have issued the token (iss). Without it, anybody who has the
	// key (jwt).
	Issuer string `yaml:"issuer"`
	// Leeway is how far clocks may be apart. Default: five seconds (jwt).
	Leeway *time.Duration `yaml:"leeway"`
	// RequiredClaims lists claims that a token must have. Default: exp (jwt).
	RequiredClaims []string `yaml:"requiredClaims"`
	// TokenKey is the key of the auth data that holds the token. Default: token, or
	// else jwt (jwt).
	TokenKey string `yaml:"tokenKey"`
	// Claims says which claims become what (jwt).
	Claims ClaimsConfig `yaml:"claims"`
}

// APIKey is one entry of the file's `apiKeys` list: a key by which a backend is known.
type APIKey struct {
	// ID is who the backend is: the user of its requests and connections.
	ID string `yaml:"id"`
	// Hash is the hash of the key, as hadal hash --api-key prints it.
	Hash string `yaml:"hash"`
	// Role is the role of the backend, user.data.role in rules; without it, it has none.
	Role string `yaml:"role"`
}

// Source is where the users of a storage strategy are.
func (o *Options) Source() users.Source {
	return users.Source{Backend: o.Backend, Table: o.Table, ConnectionString: o.ConnectionString}
}

// Sources are those of all storage strategies in a list.
func Sources(cfgs []Config) []users.Source {
	var all []users.Source
	for i := range cfgs {
		if cfgs[i].Type == "storage" {
			all = append(all, cfgs[i].Options.Source())
		}
	}
	return all
}

// RolesConfig says what counts as the role of a user, serverData.role in rules.
type RolesConfig struct {
	// Wins says which role counts when the strategy gave one and the role store (hadal
	// user role) has another: "store" or "claim", the strategy's. Where one has none the
	// other counts.
	Wins string `yaml:"wins"`
}

// DefaultRolesConfig lets the role store win.
func DefaultRolesConfig() RolesConfig { return RolesConfig{Wins: RoleOfStore} }

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
