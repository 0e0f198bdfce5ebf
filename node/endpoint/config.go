package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config configures the public port: HTTP and, on the same port, WebSocket.
type Config struct {
	// ConnectionRate bounds how fast clients connect.
	ConnectionRate ConnectionRateConfig `yaml:"connectionRate"`
	// MaxConnectionsPerUser is how many connections a user may have here; 0 is without
	// bound.
	MaxConnectionsPerUser int `yaml:"maxConnectionsPerUser"`
	// MaxSubscriptionsPerUser bounds what Conn.Reserve counts for all connections of a user
	// together; 0 is without bound.
	MaxSubscriptionsPerUser int `yaml:"maxSubscriptionsPerUser"`
	// Clients says which clients are too old.
	Clients ClientsConfig `yaml:"clients"`
	// HTTP is the file's httpServer.options.
	HTTP HTTPConfig
	// WebSocket is the options of the ws-binary entry of connectionEndpoints; without a
	// path there is none.
	WebSocket WebSocketConfig
	// Dialects are the others that are spoken on the port, over WebSocket.
	Dialects []Dialect
	// TrustedProxies lists addresses or CIDR ranges whose forwarding headers
	// are believed when the client's address is determined.
	TrustedProxies []string `yaml:"trustedProxies"`
	// Upgrade says which credentials count that come with the upgrade request.
	Upgrade UpgradeConfig `yaml:"upgrade"`
}

// HTTPConfig configures the listener. The keys are deepstream's, but for the three
// limits.
type HTTPConfig struct {
	// Host is the address to listen on.
	Host string `yaml:"host"`
	// Port is the TCP port; 0 picks a free one.
	Port int `yaml:"port"`
	// HealthCheckPath answers 200 once clients can log in.
	HealthCheckPath string `yaml:"healthCheckPath"`
	// AllowAllOrigins lets pages of every origin connect; with false only Origins may.
	AllowAllOrigins bool `yaml:"allowAllOrigins"`
	// Origins lists the origins that may connect when it is not empty.
	Origins []string `yaml:"origins"`
	// MaxConnections is how many connections clients may have; more are refused. 0
	// is as many as the system's limit of open files allows, with a reserve for the
	// node's own files.
	MaxConnections int `yaml:"maxConnections"`
	// MaxUnauthenticated is how many connections may be there that have not logged
	// in; more close the oldest of them. It is never more than half of
	// MaxConnections; 0 is no other limit.
	MaxUnauthenticated int `yaml:"maxUnauthenticated"`
	// MaxUnauthenticatedPerAddress is the same for the connections of one address
	// (of IPv6, one /64 network). Of a trusted proxy the addresses count that it
	// forwards. 0 is no other limit than a quarter of MaxConnections.
	MaxUnauthenticatedPerAddress int `yaml:"maxUnauthenticatedPerAddress"`
	// SSL switches the port to TLS.
	SSL SSLConfig `yaml:"ssl"`
}

// SSLConfig names the certificate. Each value is the path of a PEM file, which
// is watched for changes, or PEM text itself.
type SSLConfig struct {
	// Key is the private key.
	Key string `yaml:"key"`
	// Cert is the certificate, followed by its chain.
	Cert string `yaml:"cert"`
	// CA holds further certificates that are sent after Cert.
	CA string `yaml:"ca"`
}

// WebSocketConfig configures a WebSocket endpoint. The keys are deepstream's, but for the
// last four.
type WebSocketConfig struct {
	// URLPath is the path clients connect to; a query string after it is ignored. That
	// of ws-text is /deepstream-v3 by default, and that of ws-json /deepstream-json.
	URLPath string `yaml:"urlPath"`
	// HeartbeatInterval is how often clients ping or, with ws-text, are pinged. A client
	// that was silent for two intervals is closed.
	HeartbeatInterval time.Duration `yaml:"heartbeatInterval"`
	// UnauthenticatedClientTimeout is how long a client may take to log in; 0 or
	// false is for ever.
	UnauthenticatedClientTimeout time.Duration `yaml:"unauthenticatedClientTimeout"`
	// MaxAuthAttempts is the number of failed logins that closes a connection.
	MaxAuthAttempts int `yaml:"maxAuthAttempts"`
	// LogInvalidAuthData logs the user name, never the password, of refused logins.
	LogInvalidAuthData bool `yaml:"logInvalidAuthData"`
	// MaxMessageSize is the largest WebSocket message a client may send, in bytes.
	MaxMessageSize int64 `yaml:"maxMessageSize"`
	// MaxSubscriptions is how many names one client may be subscribed to or provide
	// in all (events, records, presence, rpc); each 256 bytes of a long name count
	// for one more. More are answered MESSAGE_DENIED. 0 is without bound.
	MaxSubscriptions int `yaml:"maxSubscriptions"`
	// QueueSoftLimit is how many bytes may wait for a client: more answers hold
	// back its reader; more broadcasts, with no progress for QueueStall, close it.
	QueueSoftLimit int `yaml:"queueSoftLimit"`
	// QueueHardLimit is how many bytes of broadcasts may ever wait for a client; of
	// answers, sixteen times as many.
	QueueHardLimit int `yaml:"queueHardLimit"`
	// QueueStall is how long a client may leave a full queue without reading.
	QueueStall time.Duration `yaml:"queueStall"`
}

// AllowsOrigin says whether a page of an origin may speak to the port.
func (c HTTPConfig) AllowsOrigin(origin string) bool {
	if len(c.Origins) == 0 {
		return c.AllowAllOrigins
	}
	return slices.ContainsFunc(c.Origins, func(a string) bool { return strings.EqualFold(strings.TrimSuffix(a, "/"), origin) })
}

// DefaultConfig is complete. It listens on loopback only.
func DefaultConfig() Config {
	return Config{
		HTTP: HTTPConfig{
			Host:            "127.0.0.1",
			Port:            6020,
			HealthCheckPath: "/health-check",
			AllowAllOrigins: true,

			MaxUnauthenticated:           8192,
			MaxUnauthenticatedPerAddress: 2048,
		},
		Upgrade: UpgradeConfig{Bearer: true, Basic: true},
		WebSocket: WebSocketConfig{
			URLPath:                      "/deepstream",
			HeartbeatInterval:            30 * time.Second,
			UnauthenticatedClientTimeout: 180 * time.Second,
			MaxAuthAttempts:              3,
			MaxMessageSize:               1 << 20,
			MaxSubscriptions:             100_000,
			QueueSoftLimit:               1 << 20,
			QueueHardLimit:               16 << 20,
			QueueStall:                   5 * time.Second,
		},
	}
}

// Validate reports every mistake in the configuration, each opening with its key.
// It reads no file: whether key and certificate fit is found out by New.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.HTTP.Port < 0 || c.HTTP.Port > 65535 {
		bad("port: %d is not between 0 and 65535", c.HTTP.Port)
	}
	if p := c.HTTP.HealthCheckPath; p != "" && !strings.HasPrefix(p, "/") {
		bad("healthCheckPath: %q does not begin with /", p)
	}
	for _, limit := range []struct {
		key   string
		value int
	}{
		{"maxConnections", c.HTTP.MaxConnections},
		{"maxUnauthenticated", c.HTTP.MaxUnauthenticated},
		{"maxUnauthenticatedPerAddress", c.HTTP.MaxUnauthenticatedPerAddress},
	} {
		if limit.value < 0 {
			bad("%s: %d is below zero", limit.key, limit.value)
		}
	}
	switch ssl := c.HTTP.SSL; {
	case ssl.Key != "" && ssl.Cert == "":
		bad("ssl.cert: missing, but ssl.key is set")
	case ssl.Key == "" && ssl.Cert != "":
		bad("ssl.key: missing, but ssl.cert is set")
	case ssl.CA != "" && ssl.Cert == "":
		bad("ssl.ca: needs ssl.key and ssl.cert")
	}
	if _, err := parseProxies(c.TrustedProxies); err != nil {
		errs = append(errs, err)
	}
	c.Upgrade.validate(bad)

	c.validateLimits(bad)

	paths := make(map[string]bool)
	for _, d := range append([]Dialect{{Options: &c.WebSocket}}, c.Dialects...) {
		if d.Options.URLPath == "" && d.Name == "" && len(c.Dialects) > 0 {
			continue // no binary protocol
		}
		errs = append(errs, d.Options.Validate())
		switch p := d.Options.URLPath; {
		case p == "":
		case p == c.HTTP.HealthCheckPath:
			bad("urlPath: %q is the healthCheckPath too", p)
		case paths[p]:
			bad("urlPath: %q is that of two endpoints", p)
		default:
			paths[p] = true
		}
	}
	return errors.Join(errs...)
}

// Validate reports every mistake in the options of one endpoint.
func (w WebSocketConfig) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !strings.HasPrefix(w.URLPath, "/") {
		bad("urlPath: %q does not begin with /", w.URLPath)
	} else if strings.ContainsAny(w.URLPath, "?#") {
		bad("urlPath: %q contains a query or a fragment", w.URLPath)
	}
	if w.HeartbeatInterval <= 0 {
		bad("heartbeatInterval: %v is not above zero", w.HeartbeatInterval)
	}
	if w.UnauthenticatedClientTimeout < 0 {
		bad("unauthenticatedClientTimeout: %v is below zero", w.UnauthenticatedClientTimeout)
	}
	if w.MaxAuthAttempts < 1 {
		bad("maxAuthAttempts: %d is below one", w.MaxAuthAttempts)
	}
	if w.MaxMessageSize < 1 {
		bad("maxMessageSize: %d is below one", w.MaxMessageSize)
	}
	if w.MaxSubscriptions < 0 {
		bad("maxSubscriptions: %d is below zero", w.MaxSubscriptions)
	}
	if w.QueueSoftLimit < 1 {
		bad("queueSoftLimit: %d is below one", w.QueueSoftLimit)
	}
	if w.QueueHardLimit < w.QueueSoftLimit {
		bad("queueHardLimit: %d is below queueSoftLimit", w.QueueHardLimit)
	}
	if w.QueueStall <= 0 {
		bad("queueStall: %v is not above zero", w.QueueStall)
	}
	return errors.Join(errs...)
}

// parseProxies reads trustedProxies: addresses and CIDR ranges.
func parseProxies(list []string) ([]netip.Prefix, error) {
	var (
		out  []netip.Prefix
		errs []error
	)
	for _, s := range list {
		if addr, err := netip.ParseAddr(s); err == nil {
			addr = addr.Unmap()
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("trustedProxies: %q is neither an address nor a CIDR range", s))
			continue
		}
		out = append(out, p.Masked())
	}
	return out, errors.Join(errs...)
}
