package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hadal/auth"
	"hadal/node/admin"
	"hadal/node/endpoint"
	"hadal/node/listen"
	"hadal/node/record"
	"hadal/node/rpc"
	"hadal/perms"
)

// Config is the whole configuration of a node: the rooms' Configs added up in
// the shape of deepstream's config.yml (spec 13 §2). Default is complete; what a
// file, the environment and flags change is read by LoadConfig. A Config is a
// value: it may be copied, and nothing in it is changed after loading.
type Config struct {
	// ServerName names this node in logs and in answers to operators; it must
	// be unique among the nodes of a cluster. "UUID" has LoadConfig make one up
	// for this run.
	ServerName string `yaml:"serverName"`
	// ShowLogo prints Hadal's name and version as a first line at start.
	ShowLogo bool `yaml:"showLogo"`
	// LogLevel is the least level that is logged: debug (0), info (1), warn (2),
	// error (3) or off (100).
	LogLevel LogLevel `yaml:"logLevel"`
	// Logger says how log lines look.
	Logger LoggerConfig `yaml:"logger"`
	// DependencyInitializationTimeout is how long a part of the node may take to
	// become ready at start; at least one second.
	DependencyInitializationTimeout time.Duration `yaml:"dependencyInitializationTimeout"`
	// EnabledFeatures switches features off; one that is off answers
	// PARSER UNKNOWN_TOPIC.
	EnabledFeatures FeaturesConfig `yaml:"enabledFeatures"`
	// DataDir is the directory that holds records and the admin socket. In a
	// file it is relative to the file, else to the working directory.
	DataDir string `yaml:"dataDir"`
	// ConnectionEndpoints lists how clients connect. This version serves one
	// entry, of type ws-binary.
	ConnectionEndpoints []EndpointConfig `yaml:"connectionEndpoints"`
	// HTTPServer is the port that clients connect to.
	HTTPServer HTTPServerConfig `yaml:"httpServer"`
	// TrustedProxies lists addresses or CIDR ranges whose forwarding headers are
	// believed when a client's address is determined.
	TrustedProxies []string `yaml:"trustedProxies"`
	// RPC configures remote procedure calls.
	RPC rpc.Config `yaml:"rpc"`
	// Record configures records, with deepstream's keys.
	Record record.Config `yaml:"record"`
	// Records says how records are kept; its keys are Hadal's own.
	Records record.KeepConfig `yaml:"records"`
	// Listen configures pattern listening.
	Listen listen.Config `yaml:"listen"`
	// Auth lists the strategies that are asked, in this order, who a client is.
	Auth []auth.Config `yaml:"auth"`
	// AllowOpenAuth permits a node that lets clients in without credentials to
	// listen elsewhere than on loopback.
	AllowOpenAuth bool `yaml:"allowOpenAuth"`
	// AllowOpenFallback permits a "none" strategy behind another one, which lets
	// in those whom the other one refused.
	AllowOpenFallback bool `yaml:"allowOpenFallback"`
	// Permission says who may do what.
	Permission perms.Config `yaml:"permission"`
	// Admin configures the operator's listener.
	Admin admin.Config `yaml:"admin"`
}

// LoggerConfig configures the log.
type LoggerConfig struct {
	// Type is "text" (deepstream's name for it, "default", is accepted) or
	// "json": one line an entry, on standard error.
	Type string `yaml:"type"`
}

// FeaturesConfig switches features on and off.
type FeaturesConfig struct {
	// Record serves records and lists.
	Record bool `yaml:"record"`
	// Event serves events.
	Event bool `yaml:"event"`
	// RPC serves remote procedure calls.
	RPC bool `yaml:"rpc"`
	// Presence serves presence.
	Presence bool `yaml:"presence"`
}

// EndpointConfig is one entry of connectionEndpoints.
type EndpointConfig struct {
	// Type is the dialect: "ws-binary".
	Type string `yaml:"type"`
	// Options are those of the endpoint.
	Options endpoint.WebSocketConfig `yaml:"options"`
}

// HTTPServerConfig configures the port that clients connect to.
type HTTPServerConfig struct {
	// Type is "default"; deepstream's "uws" is accepted and means the same.
	Type string `yaml:"type"`
	// Options are those of the listener.
	Options endpoint.HTTPConfig `yaml:"options"`
}

// LogLevel is a level as deepstream counts them.
type LogLevel int

// The levels.
const (
	LogDebug LogLevel = 0
	LogInfo  LogLevel = 1
	LogWarn  LogLevel = 2
	LogError LogLevel = 3
	LogOff   LogLevel = 100
)

// levelNames is in the order in which levels are listed to a reader.
var levelNames = []struct {
	level LogLevel
	name  string
	slog  slog.Level
}{
	{LogDebug, "debug", slog.LevelDebug},
	{LogInfo, "info", slog.LevelInfo},
	{LogWarn, "warn", slog.LevelWarn},
	{LogError, "error", slog.LevelError},
	{LogOff, "off", slog.Level(1 << 20)},
}

// String is the level's name, or its number when it has none.
func (l LogLevel) String() string {
	for _, n := range levelNames {
		if n.level == l {
			return n.name
		}
	}
	return strconv.Itoa(int(l))
}

// ParseLogLevel understands a level's name, in any case, or its number.
func ParseLogLevel(s string) (LogLevel, error) {
	for _, n := range levelNames {
		if strings.EqualFold(s, n.name) || s == strconv.Itoa(int(n.level)) {
			return n.level, nil
		}
	}
	return 0, fmt.Errorf("%q is not a log level: use debug (0), info (1), warn (2), error (3) or off (100)", s)
}

// Default is the configuration of a node without a file: safe (loopback only)
// and complete, except that its ServerName is still "UUID".
func Default() Config {
	e := endpoint.DefaultConfig()
	return Config{
		ServerName:                      "UUID",
		LogLevel:                        LogInfo,
		Logger:                          LoggerConfig{Type: "text"},
		DependencyInitializationTimeout: 30 * time.Second,
		EnabledFeatures:                 FeaturesConfig{Record: true, Event: true, RPC: true, Presence: true},
		DataDir:                         "hadal-data",
		ConnectionEndpoints:             []EndpointConfig{{Type: "ws-binary", Options: e.WebSocket}},
		HTTPServer:                      HTTPServerConfig{Type: "default", Options: e.HTTP},
		RPC:                             rpc.DefaultConfig(),
		Record:                          record.DefaultConfig(),
		Records:                         record.DefaultKeepConfig(),
		Listen:                          listen.DefaultConfig(),
		Auth:                            []auth.Config{{Type: "none"}},
		Permission:                      perms.DefaultConfig(),
	}
}

// Endpoint is what the endpoint room needs of c. c must be valid.
func (c Config) Endpoint() endpoint.Config {
	return endpoint.Config{
		HTTP:           c.HTTPServer.Options,
		WebSocket:      c.ConnectionEndpoints[0].Options,
		TrustedProxies: c.TrustedProxies,
	}
}

// keyError is a mistake in the value of one key.
type keyError struct {
	key  string // as in a file, list items as auth[0]
	text string
}

// Error begins with the key.
func (e *keyError) Error() string { return e.key + ": " + e.text }

// mistakes gathers what is wrong with a Config.
type mistakes []error

func (m *mistakes) add(key, format string, args ...any) {
	*m = append(*m, &keyError{key, fmt.Sprintf(format, args...)})
}

// atLeast complains when a duration is too short.
func (m *mistakes) atLeast(key string, got, least time.Duration) {
	if got < least {
		m.add(key, "%d ms is too short: it must be at least %d ms", got.Milliseconds(), least.Milliseconds())
	}
}

// min complains when a number is too small.
func (m *mistakes) min(key string, got, least int64) {
	if got < least {
		m.add(key, "%d is too small: it must be at least %d", got, least)
	}
}

// oneOf complains when a word is not among those allowed.
func (m *mistakes) oneOf(key, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		m.add(key, "%q is not one of %s", got, strings.Join(allowed, ", "))
	}
}

// Validate joins every mistake in c, each opening with its key as it stands in
// a file. It does not look at the file system or the network.
func (c Config) Validate() error {
	var m mistakes
	if c.ServerName == "" {
		m.add("serverName", "must not be empty: give a name, or UUID to have one made up")
	}
	if !slices.ContainsFunc(levelNames, func(n struct {
		level LogLevel
		name  string
		slog  slog.Level
	}) bool {
		return n.level == c.LogLevel
	}) {
		m.add("logLevel", "%d is not a log level: use debug (0), info (1), warn (2), error (3) or off (100)", int(c.LogLevel))
	}
	m.oneOf("logger.type", c.Logger.Type, "text", "json")
	m.atLeast("dependencyInitializationTimeout", c.DependencyInitializationTimeout, time.Second)
	if c.DataDir == "" {
		m.add("dataDir", "must not be empty")
	}
	c.validateEndpoints(&m)
	c.validateHTTP(&m)
	for i, p := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(p); err == nil {
			continue
		}
		if _, err := netip.ParseAddr(p); err != nil {
			m.add(fmt.Sprintf("trustedProxies[%d]", i), "%q is neither an address nor a CIDR range", p)
		}
	}
	m.atLeast("rpc.ackTimeout", c.RPC.AckTimeout, time.Millisecond)
	m.atLeast("rpc.responseTimeout", c.RPC.ResponseTimeout, time.Millisecond)
	m.atLeast("listen.responseTimeout", c.Listen.ResponseTimeout, time.Millisecond)
	m.atLeast("listen.rematchInterval", c.Listen.RematchInterval, 0)
	m.atLeast("listen.matchCooldown", c.Listen.MatchCooldown, 0)
	c.validateRecords(&m)
	c.validateAuth(&m)
	c.validatePermission(&m)
	c.validateAdmin(&m)
	return errors.Join(m...)
}

func (c Config) validateEndpoints(m *mistakes) {
	if len(c.ConnectionEndpoints) == 0 {
		m.add("connectionEndpoints", "no endpoint is left that this version serves: add one of type ws-binary")
	}
	for i, e := range c.ConnectionEndpoints {
		at := fmt.Sprintf("connectionEndpoints[%d].", i)
		m.oneOf(at+"type", e.Type, "ws-binary")
		if i > 0 {
			m.add(at+"type", "a second ws-binary endpoint: a node has one")
		}
		o, at := e.Options, at+"options."
		m.path(at+"urlPath", o.URLPath)
		m.atLeast(at+"heartbeatInterval", o.HeartbeatInterval, time.Millisecond)
		m.atLeast(at+"unauthenticatedClientTimeout", o.UnauthenticatedClientTimeout, 0)
		m.min(at+"maxAuthAttempts", int64(o.MaxAuthAttempts), 1)
		m.min(at+"maxMessageSize", o.MaxMessageSize, 1)
		m.min(at+"queueSoftLimit", int64(o.QueueSoftLimit), 1)
		m.min(at+"queueHardLimit", int64(o.QueueHardLimit), int64(o.QueueSoftLimit))
		m.atLeast(at+"queueStall", o.QueueStall, time.Millisecond)
		if o.URLPath == c.HTTPServer.Options.HealthCheckPath {
			m.add(at+"urlPath", "%q is also httpServer.options.healthCheckPath", o.URLPath)
		}
	}
}

// path complains about what cannot be the path of a URL on the public port.
func (m *mistakes) path(key, got string) {
	switch {
	case !strings.HasPrefix(got, "/"):
		m.add(key, "%q does not begin with /", got)
	case strings.ContainsAny(got, "?# \t\r\n"):
		m.add(key, "%q holds a character that no path has", got)
	case got == "/healthz" || got == "/readyz":
		m.add(key, "%q is taken: the node answers it itself", got)
	}
}

func (c Config) validateHTTP(m *mistakes) {
	m.oneOf("httpServer.type", c.HTTPServer.Type, "default")
	o := c.HTTPServer.Options
	if o.Host == "" {
		m.add("httpServer.options.host", "must not be empty: 0.0.0.0 is every address")
	}
	if o.Port < 0 || o.Port > 65535 {
		m.add("httpServer.options.port", "%d is not a port: use 1 to 65535, or 0 for a free one", o.Port)
	}
	m.path("httpServer.options.healthCheckPath", o.HealthCheckPath)
	if !o.AllowAllOrigins && len(o.Origins) == 0 {
		m.add("httpServer.options.origins", "is empty while allowAllOrigins is false, so that no page could connect: list origins or allow all")
	}
	for i, s := range o.Origins {
		u, err := url.Parse(s)
		if err != nil || u.Scheme == "" || u.Host == "" {
			m.add(fmt.Sprintf("httpServer.options.origins[%d]", i), "%q is not an origin: write it as https://example.com", s)
		}
	}
	if (o.SSL.Key == "") != (o.SSL.Cert == "") {
		missing, given := "key", "cert"
		if o.SSL.Cert == "" {
			missing, given = given, missing
		}
		m.add("httpServer.options.ssl."+missing, "is missing while ssl.%s is set: TLS needs both", given)
	} else if o.SSL.CA != "" && o.SSL.Key == "" {
		m.add("httpServer.options.ssl.ca", "is set without ssl.key and ssl.cert")
	}
}

func (c Config) validateRecords(m *mistakes) {
	m.atLeast("record.cacheRetrievalTimeout", c.Record.CacheRetrievalTimeout, time.Millisecond)
	m.atLeast("record.storageRetrievalTimeout", c.Record.StorageRetrievalTimeout, time.Millisecond)
	for key, list := range map[string][]string{
		"record.storageExclusionPrefixes": c.Record.StorageExclusionPrefixes,
		"record.storageHotPathPrefixes":   c.Record.StorageHotPathPrefixes,
	} {
		if i := slices.Index(list, ""); i >= 0 {
			m.add(fmt.Sprintf("%s[%d]", key, i), "is empty, which every name begins with")
		}
	}
	k := c.Records
	m.oneOf("records.store", k.Store, "disk", "memory")
	m.oneOf("records.sync", k.Sync, "always", "interval")
	m.atLeast("records.syncInterval", k.SyncInterval, time.Millisecond)
	m.oneOf("records.durability", k.Durability, "quorum")
	m.min("records.cacheBytes", k.CacheBytes, 0)
	m.min("records.maxSize", int64(k.MaxSize), 1)
}

func (c Config) validateAuth(m *mistakes) {
	if len(c.Auth) == 0 {
		m.add("auth", "no strategy: nobody could log in")
	}
	open := -1
	for i, a := range c.Auth {
		at := fmt.Sprintf("auth[%d].", i)
		switch a.Type {
		case "none":
			open = i
		case "file":
			validateUsers(m, at+"options.", a.Options)
		default:
			m.add(at+"type", "%q is not one of none, file", a.Type)
		}
	}
	if open > 0 && !c.AllowOpenFallback {
		m.add(fmt.Sprintf("auth[%d].type", open), `"none" behind another strategy lets in everybody whom that one refused: `+
			"remove it, or set allowOpenFallback: true if that is meant")
	}
	if open >= 0 && !c.AllowOpenAuth && !isLoopback(c.HTTPServer.Options.Host) {
		m.add("httpServer.options.host", `%q is not loopback, and auth type "none" lets anybody in: `+
			"use another auth type (file), or set allowOpenAuth: true if an open node is meant", c.HTTPServer.Options.Host)
	}
}

func validateUsers(m *mistakes, at string, o auth.Options) {
	if len(o.Users) == 0 && o.Path == "" {
		m.add(at+"users", "no users: write users: fileLoad(users.yml)")
	}
	for name, u := range o.Users {
		if u.Password == "" {
			m.add(at+"users."+name+".password", "must not be empty")
		}
	}
	if o.Hash == "" {
		return
	}
	m.oneOf(at+"hash", strings.ToLower(o.Hash), "md5", "sha1", "sha256", "sha512")
	m.min(at+"iterations", int64(o.Iterations), 1)
	m.min(at+"keyLength", int64(o.KeyLength), 1)
}

func (c Config) validatePermission(m *mistakes) {
	p := c.Permission
	m.oneOf("permission.type", p.Type, "none", "config")
	m.min("permission.options.maxRuleIterations", int64(p.Options.MaxRuleIterations), 1)
	m.atLeast("permission.options.cacheEvacuationInterval", p.Options.CacheEvacuationInterval, time.Millisecond)
	if p.Type == "config" && p.Options.Permissions == nil && p.Options.Path == "" {
		m.add("permission.options.permissions", "no rules: write permissions: fileLoad(permissions.yml)")
	}
}

func (c Config) validateAdmin(m *mistakes) {
	if c.Admin.Listen == "" {
		return
	}
	host, port, err := net.SplitHostPort(c.Admin.Listen)
	if n, perr := strconv.ParseUint(port, 10, 16); cmp.Or(err, perr) != nil || n > 65535 {
		m.add("admin.listen", "%q is not an address with a port: write it as 127.0.0.1:6021", c.Admin.Listen)
		return
	}
	if c.Admin.Token == "" && !isLoopback(host) {
		m.add("admin.token", "must be set, because admin.listen (%s) is not loopback", c.Admin.Listen)
	}
}

// isLoopback says whether only this machine can reach host. A name other than
// localhost may resolve to anything, so it counts as not loopback.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.Unmap().IsLoopback()
}
