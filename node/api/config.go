package api

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Config configures the HTTP API: the options of an entry of connectionEndpoints with the
// type http. The keys are deepstream's, but for the last five.
type Config struct {
	// AllowAuthData lets a request bring the parameters of a login, authData, in its body
	// (http).
	AllowAuthData bool `yaml:"allowAuthData"`
	// EnableAuthEndpoint serves AuthPath (http).
	EnableAuthEndpoint bool `yaml:"enableAuthEndpoint"`
	// AuthPath is where a login is answered with a token, if the strategy gives one (http).
	AuthPath string `yaml:"authPath"`
	// PostPath is where batches of commands go. It and the other paths stand for all that
	// is below them, too (http).
	PostPath string `yaml:"postPath"`
	// GetPath is where what only reads can be asked for in the query; empty switches that
	// off (http).
	GetPath string `yaml:"getPath"`
	// RequestTimeout is how long the login and the commands of one request may take (http).
	RequestTimeout time.Duration `yaml:"requestTimeout"`
	// LogInvalidAuthData logs the user name, never the password, of refused logins (http).
	LogInvalidAuthData bool `yaml:"logInvalidAuthData"`
	// MaxMessageSize is the largest body of a request in bytes, unpacked (http).
	MaxMessageSize int64 `yaml:"maxMessageSize"`
	// MaxCommands is how many commands one request may have (http).
	MaxCommands int `yaml:"maxCommands"`
	// MaxConcurrent is how many requests run at once; a user may have a quarter of them.
	// More are refused (http).
	MaxConcurrent int `yaml:"maxConcurrent"`
	// IdempotencyTTL is how long the answer of a request with an Idempotency-Key is kept;
	// 0 ignores such keys (http).
	IdempotencyTTL time.Duration `yaml:"idempotencyTTL"`
	// MaxIdempotencyKeys is how many of them are kept for requests to one node, of which a
	// user may have a quarter (http).
	MaxIdempotencyKeys int `yaml:"maxIdempotencyKeys"`
}

// DefaultConfig is complete.
func DefaultConfig() Config {
	return Config{
		AllowAuthData: true, EnableAuthEndpoint: true,
		AuthPath: "/api/auth", PostPath: "/api", GetPath: "/api",
		RequestTimeout: 20 * time.Second,
		MaxMessageSize: 1 << 20, MaxCommands: 10_000, MaxConcurrent: 1024,
		IdempotencyTTL: 24 * time.Hour, MaxIdempotencyKeys: 100_000,
	}
}

// maxTimeout is the longest RequestTimeout: somebody waits for the answer.
const maxTimeout = 10 * time.Minute

// Validate joins every mistake, each opening with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, p := range []struct {
		key, path string
		optional  bool
	}{{"authPath", c.AuthPath, !c.EnableAuthEndpoint}, {"postPath", c.PostPath, false}, {"getPath", c.GetPath, true}} {
		switch {
		case p.path == "" && p.optional:
		case !strings.HasPrefix(p.path, "/"):
			bad("%s: %q does not begin with /", p.key, p.path)
		case strings.ContainsAny(p.path, "?#"):
			bad("%s: %q contains a query or a fragment", p.key, p.path)
		case strings.Trim(p.path, "/") == "":
			bad("%s: %q stands for every path: name one, such as /api", p.key, p.path)
		}
	}
	if c.EnableAuthEndpoint && c.AuthPath != "" && below(c.AuthPath) == below(c.PostPath) {
		bad("authPath: %q is the postPath too", c.AuthPath)
	}
	if c.RequestTimeout < time.Millisecond || c.RequestTimeout > maxTimeout {
		bad("requestTimeout: %v is not between 1ms and %v", c.RequestTimeout, maxTimeout)
	}
	if c.MaxMessageSize < 1 || c.MaxMessageSize > memory {
		bad("maxMessageSize: %d is not between one and %d", c.MaxMessageSize, int64(memory))
	}
	for _, n := range []struct {
		key   string
		value int
	}{{"maxCommands", c.MaxCommands}, {"maxConcurrent", c.MaxConcurrent}, {"maxIdempotencyKeys", c.MaxIdempotencyKeys}} {
		if n.value < 1 {
			bad("%s: %d is below one", n.key, n.value)
		}
	}
	if c.IdempotencyTTL < 0 {
		bad("idempotencyTTL: %v is below zero", c.IdempotencyTTL)
	}
	return errors.Join(errs...)
}

// Paths are those that the API answers, each with all that is below it, but for
// PathOpenAPI, by the key that sets them.
func (c Config) Paths() map[string]string {
	paths := map[string]string{"postPath": c.PostPath}
	if c.EnableAuthEndpoint {
		paths["authPath"] = c.AuthPath
	}
	if c.GetPath != "" {
		paths["getPath"] = c.GetPath
	}
	return paths
}

// below is a path with one slash at its end: what is below it begins so.
func below(path string) string { return strings.TrimRight(path, "/") + "/" }
