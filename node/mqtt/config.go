package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"hadal/node/endpoint"
)

// Config configures MQTT. deepstream's keys are those of an entry of connectionEndpoints
// with type mqtt, which are these and switch it on.
type Config struct {
	// Enabled serves MQTT.
	Enabled bool `yaml:"enabled"`
	// Host is the address to listen on.
	Host string `yaml:"host"`
	// Port is the TCP port; 0 picks a free one, and -1 opens none.
	Port int `yaml:"port"`
	// SSL switches the port to TLS.
	SSL endpoint.SSLConfig `yaml:"ssl"`
	// URLPath is the path of MQTT over WebSocket on the port of httpServer. Empty is none.
	URLPath string `yaml:"urlPath"`
	// IdleTimeout is how long a client may be silent that asks for no keep-alive time of its
	// own. Of one that does it is half as much again as that.
	IdleTimeout time.Duration `yaml:"idleTimeout"`
	// UnauthenticatedClientTimeout is how long a client may take to send its CONNECT; 0 or
	// false is for ever.
	UnauthenticatedClientTimeout time.Duration `yaml:"unauthenticatedClientTimeout"`
	// LogInvalidAuthData logs the user name, never the password, of refused logins.
	LogInvalidAuthData bool `yaml:"logInvalidAuthData"`
	// RecordPrefixes lists beginnings of topics that are records: what is published there is
	// kept, and a subscription gets it. All other topics are events.
	RecordPrefixes []string `yaml:"recordPrefixes"`
	// MaxMessageSize is the largest packet that a client may send, in bytes.
	MaxMessageSize int64 `yaml:"maxMessageSize"`
	// MaxWildcards is how many subscriptions with + or # one client may have.
	MaxWildcards int `yaml:"maxWildcards"`
	// MaxWildcardsInAll is how many all clients of the node may have together. While there
	// is one, the node takes the events of the whole cluster, and the changes of records if
	// it may be for them. A user may have a quarter of them, or as many as one client.
	MaxWildcardsInAll int `yaml:"maxWildcardsInAll"`
}

// DefaultConfig is complete, and switched off.
func DefaultConfig() Config {
	return Config{
		Host: "127.0.0.1", Port: 1883, URLPath: "/mqtt",
		IdleTimeout: 180 * time.Second, UnauthenticatedClientTimeout: 180 * time.Second,
		MaxMessageSize: 1 << 20, MaxWildcards: 32, MaxWildcardsInAll: 4096,
	}
}

// Validate reports every mistake, each opening with its key.
func (c Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Port < -1 || c.Port > 65535 {
		bad("port: %d is not between -1 and 65535", c.Port)
	}
	if c.Port >= 0 && c.Host == "" {
		bad("host: must not be empty: 0.0.0.0 is every address")
	}
	switch ssl := c.SSL; {
	case ssl.Key != "" && ssl.Cert == "":
		bad("ssl.cert: missing, but ssl.key is set")
	case ssl.Key == "" && ssl.Cert != "":
		bad("ssl.key: missing, but ssl.cert is set")
	case ssl.CA != "" && ssl.Cert == "":
		bad("ssl.ca: needs ssl.key and ssl.cert")
	}
	if c.URLPath != "" && !strings.HasPrefix(c.URLPath, "/") || strings.ContainsAny(c.URLPath, "?# \t\r\n") {
		bad("urlPath: %q is no path: write it as /mqtt", c.URLPath)
	}
	if c.Port < 0 && c.URLPath == "" {
		bad("port: there is neither a port nor a urlPath: set one, or enabled: false")
	}
	if c.IdleTimeout < time.Second {
		bad("idleTimeout: %v is too short: it must be at least 1s", c.IdleTimeout)
	}
	if c.UnauthenticatedClientTimeout < 0 {
		bad("unauthenticatedClientTimeout: %v is below zero", c.UnauthenticatedClientTimeout)
	}
	for i, p := range c.RecordPrefixes {
		if p == "" || strings.ContainsAny(p, "+#") || strings.HasPrefix(p, "$") {
			bad("recordPrefixes[%d]: %q is not the beginning of topics: write it as state/", i, p)
		}
	}
	if c.MaxMessageSize < 1 || c.MaxMessageSize > 1<<28-1 {
		bad("maxMessageSize: %d is not between 1 and 268435455", c.MaxMessageSize)
	}
	if c.MaxWildcards < 0 {
		bad("maxWildcards: %d is below zero", c.MaxWildcards)
	}
	if c.MaxWildcardsInAll < 0 {
		bad("maxWildcardsInAll: %d is below zero", c.MaxWildcardsInAll)
	}
	return errors.Join(errs...)
}

// options are the times and limits as the endpoint room has them.
func (c Config) options() *endpoint.WebSocketConfig {
	o := endpoint.DefaultConfig().WebSocket
	o.URLPath = ""
	o.HeartbeatInterval = c.IdleTimeout / 2
	o.UnauthenticatedClientTimeout = c.UnauthenticatedClientTimeout
	o.MaxAuthAttempts = 2 // a client has one, and closes with the answer
	o.LogInvalidAuthData = c.LogInvalidAuthData
	o.MaxMessageSize = c.MaxMessageSize
	return &o
}

// isRecord says whether a topic is a record.
func (c *Config) isRecord(topic string) bool {
	for _, p := range c.RecordPrefixes {
		if strings.HasPrefix(topic, p) {
			return true
		}
	}
	return false
}

// share is how many subscriptions with wildcards one user may have.
func (c *Config) share() int { return max(c.MaxWildcards, c.MaxWildcardsInAll/4) }

// Heads are beginnings of the names of all records that a filter may match.
func (c *Config) Heads(filter string) []string {
	head := filter[:strings.IndexAny(filter, "+#")]
	if strings.HasSuffix(filter, "#") {
		head = strings.TrimSuffix(head, "/") // "a/#" matches "a", too
	}
	if c.isRecord(head) {
		return []string{head}
	}
	var heads []string
	for _, p := range c.RecordPrefixes {
		if strings.HasPrefix(p, head) {
			heads = append(heads, p)
		}
	}
	return heads
}

// mayMatch says whether a filter may match topics that are records, and others.
func (c *Config) mayMatch(filter string) (records, events bool) {
	head := filter[:strings.IndexAny(filter, "+#")]
	if c.isRecord(head) {
		return true, false
	}
	for _, p := range c.RecordPrefixes {
		if strings.HasPrefix(p, head) {
			return true, true
		}
	}
	return c.isRecord(strings.TrimSuffix(head, "/")), true // "a/#" matches "a", too
}
