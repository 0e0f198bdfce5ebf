package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hadal/auth"
	"hadal/auth/register"
	"hadal/auth/tokens"
	"hadal/cluster"
	"hadal/node/admin"
	"hadal/node/api"
	"hadal/node/endpoint"
	"hadal/node/listen"
	"hadal/node/mqtt"
	"hadal/node/record"
	"hadal/node/rpc"
	"hadal/node/sse"
	"hadal/perms"
)

// Config is the whole configuration of a node: the rooms' Configs added up in
// the shape of deepstream's config.yml (spec 13 §2). Default is complete; what a
// file, the environment and flags change is read by LoadConfig. A Config is a
// value: it may be copied, and nothing in it is changed after loading.
type Config struct {
	// ServerName names this node in logs and to operators; no two nodes of a
	// cluster may share one. "UUID" has a name made up for each run.
	ServerName string `yaml:"serverName"`
	// LogLevel is the least level that is logged: debug (0), info (1), warn (2),
	// error (3) or off (100).
	LogLevel LogLevel `yaml:"logLevel"`
	// Logger says how log lines look.
	Logger LoggerConfig `yaml:"logger"`
	// EnabledFeatures switches features off; one that is off answers
	// PARSER UNKNOWN_TOPIC.
	EnabledFeatures FeaturesConfig `yaml:"enabledFeatures"`
	// DataDir is the directory that holds records and the admin socket. In a
	// file it is relative to the file, else to the working directory.
	DataDir string `yaml:"dataDir"`
	// ConnectionEndpoints lists how clients connect, each way once. What the list of a
	// file leaves out is switched off.
	ConnectionEndpoints []EndpointConfig `yaml:"connectionEndpoints"`
	// HTTPServer is the port that clients connect to.
	HTTPServer HTTPServerConfig `yaml:"httpServer"`
	// MQTT configures MQTT. An entry of connectionEndpoints of type mqtt, as deepstream has
	// it, has these keys as its options, and switches it on.
	MQTT mqtt.Config `yaml:"mqtt"`
	// SSE configures server-sent events, for places where WebSocket is blocked.
	SSE sse.Config `yaml:"sse"`
	// ConnectionRate bounds how fast clients connect to this node.
	ConnectionRate endpoint.ConnectionRateConfig `yaml:"connectionRate"`
	// MaxConnectionsPerUser is how many connections a user may have on one node; the
	// login of one more is refused, and told why. A client that lost its connection may
	// come back before the node notices that, so leave some to spare. Clients without a
	// name have no bound. 0 is without bound.
	MaxConnectionsPerUser int `yaml:"maxConnectionsPerUser"`
	// MaxSubscriptionsPerUser is maxSubscriptions for all connections that a user has on one
	// node together. Clients without a name have no bound but their own. 0 is without bound.
	MaxSubscriptionsPerUser int `yaml:"maxSubscriptionsPerUser"`
	// Clients says which clients are too old.
	Clients endpoint.ClientsConfig `yaml:"clients"`
	// TrustedProxies lists addresses or CIDR ranges whose forwarding headers are
	// believed when a client's address is determined.
	TrustedProxies []string `yaml:"trustedProxies"`
	// Upgrade says which credentials count that come with the request for a connection.
	Upgrade endpoint.UpgradeConfig `yaml:"upgrade"`
	// RPC configures remote procedure calls.
	RPC rpc.Config `yaml:"rpc"`
	// Record configures records, with deepstream's keys.
	Record record.Config `yaml:"record"`
	// Records says how records are kept; its keys are Hadal's own.
	Records record.KeepConfig `yaml:"records"`
	// Listen configures pattern listening.
	Listen listen.Config `yaml:"listen"`
	// Auth lists the strategies that are asked, in this order, who a client is. The list may
	// be empty where there are tokens or registrations: then only their users log in.
	Auth []auth.Config `yaml:"auth"`
	// APIKeys lists the keys of backends, which send them as Authorization: Bearer to the
	// HTTP API, or log in with them as token, and are looked for before the strategies of
	// Auth. Its keys are Hadal's own.
	APIKeys []auth.APIKey `yaml:"apiKeys"`
	// Tokens says how tokens are made that clients log in with: client.login({token}). Its keys
	// are Hadal's own.
	Tokens tokens.Config `yaml:"tokens"`
	// Registration lets clients register themselves, and log in as registered clients,
	// beside the strategies of auth. Its keys are Hadal's own.
	Registration register.Config `yaml:"registration"`
	// AllowOpenAuth permits a node that lets clients in without credentials to
	// listen elsewhere than on loopback.
	AllowOpenAuth bool `yaml:"allowOpenAuth"`
	// AllowOpenFallback permits a "none" strategy behind another one, which lets
	// in those whom the other one refused, and beside tokens or registration, whose
	// users everybody may then be.
	AllowOpenFallback bool `yaml:"allowOpenFallback"`
	// Roles says where the roles of users come from.
	Roles auth.RolesConfig `yaml:"roles"`
	// RateLimits lists how many messages a user may send, by topic and action. What is
	// beyond is denied, as by a rule. Each node counts for itself; all connections of a
	// user count together, and those of clients without a name by address.
	RateLimits []RateLimit `yaml:"rateLimits"`
	// Permission says who may do what.
	Permission perms.Config `yaml:"permission"`
	// Admin configures the operator's listener.
	Admin admin.Config `yaml:"admin"`
	// Cluster makes the node one of several; its keys are Hadal's own.
	Cluster cluster.Config `yaml:"cluster"`
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

// EndpointConfig is one entry of connectionEndpoints: what it has for options depends on
// its type.
type EndpointConfig struct {
	// Type is the dialect: "ws-binary" for the clients of today, "ws-text" for those of
	// 2.x and 3.x, "ws-json" for one JSON object a message, "http" for the HTTP API.
	Type string `yaml:"type"`
	// Options are those of the endpoint.
	Options endpoint.WebSocketConfig `yaml:"options"`
	// API is the options of an entry of type http, in the place of Options.
	API api.Config `yaml:"-"`
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
// and complete, except that its ServerName is still "UUID", which only LoadConfig
// resolves.
func Default() Config {
	e := endpoint.DefaultConfig()
	return Config{
		ServerName:          "UUID",
		LogLevel:            LogInfo,
		Logger:              LoggerConfig{Type: "text"},
		EnabledFeatures:     FeaturesConfig{Record: true, Event: true, RPC: true, Presence: true},
		DataDir:             "hadal-data",
		ConnectionEndpoints: defaultEndpoints(),
		MQTT:                mqtt.DefaultConfig(),
		SSE:                 sse.DefaultConfig(),
		HTTPServer:          HTTPServerConfig{Type: "default", Options: e.HTTP},
		Upgrade:             e.Upgrade,
		RPC:                 rpc.DefaultConfig(),
		Record:              record.DefaultConfig(),
		Records:             record.DefaultKeepConfig(),
		Listen:              listen.DefaultConfig(),
		Auth:                []auth.Config{{Type: "none"}},
		Tokens:              tokens.DefaultConfig(),
		Roles:               auth.DefaultRolesConfig(),
		Registration:        register.DefaultConfig(),
		Permission:          perms.DefaultConfig(),
		Cluster:             cluster.DefaultConfig(),
	}
}

// Endpoint is what the endpoint room needs of c. c must be valid.
func (c Config) Endpoint() endpoint.Config {
	e := endpoint.Config{
		ConnectionRate:          c.ConnectionRate,
		MaxConnectionsPerUser:   c.MaxConnectionsPerUser,
		MaxSubscriptionsPerUser: c.MaxSubscriptionsPerUser,
		Clients:                 c.Clients,

		HTTP:           c.HTTPServer.Options,
		TrustedProxies: c.TrustedProxies,
		Upgrade:        c.Upgrade,
	}
	c.addDialects(&e)
	return e
}

// mistakes gathers what is wrong with a Config. Each opens with its key, as in a
// file; items of lists are auth[0].
type mistakes []error

func (m *mistakes) add(key, format string, args ...any) {
	*m = append(*m, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

// atLeast complains when a duration is too short.
func (m *mistakes) atLeast(key string, got, least time.Duration) {
	if got < least {
		m.add(key, "%v is too short: it must be at least %v", got, least)
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

// prefixes complains about a beginning that all names have.
func (m *mistakes) prefixes(key string, list []string) {
	if i := slices.Index(list, ""); i >= 0 {
		m.add(fmt.Sprintf("%s[%d]", key, i), "is empty, which every name begins with")
	}
}

// Validate joins every mistake in c, each opening with its key as it stands in
// a file, the users and the rules included. It opens no port, and reads no file
// but the keys and certificates of auth, and those that auth's or permission's Path
// names (LoadConfig leaves none).
func (c Config) Validate() error {
	var m mistakes
	if c.ServerName == "" {
		m.add("serverName", "must not be empty: give a name, or UUID to have one made up")
	}
	if _, err := ParseLogLevel(c.LogLevel.String()); err != nil {
		m.add("logLevel", "%v", err)
	}
	m.oneOf("logger.type", c.Logger.Type, "text", "json")
	if c.DataDir == "" {
		m.add("dataDir", "must not be empty")
	}
	c.validateEndpoints(&m)
	c.validateMQTT(&m)
	c.validateSSE(&m)
	c.validateHTTP(&m)
	m.atLeast("rpc.ackTimeout", c.RPC.AckTimeout, time.Millisecond)
	m.atLeast("rpc.responseTimeout", c.RPC.ResponseTimeout, time.Millisecond)
	m.atLeast("listen.responseTimeout", c.Listen.ResponseTimeout, time.Millisecond)
	m.atLeast("listen.rematchInterval", c.Listen.RematchInterval, 0)
	m.atLeast("listen.matchCooldown", c.Listen.MatchCooldown, 0)
	m.min("listen.maxPatterns", int64(c.Listen.MaxPatterns), 1)
	m.min("listen.maxPatternsPerUser", int64(c.Listen.MaxPatternsPerUser), 0)
	c.validateRecords(&m)
	c.validateAuth(&m)
	for _, err := range flatten(c.Tokens.Validate()) {
		m = append(m, fmt.Errorf("tokens.%w", err))
	}
	c.validateRegistration(&m)
	c.validatePaths(&m)
	c.validatePermission(&m)
	c.validateRateLimits(&m)
	m = append(m, flatten(c.Admin.Validate())...)
	m = append(m, flatten(c.Cluster.Validate())...)
	if c.Cluster.Enabled() && c.Records.Store != "disk" {
		m.add("records.store", "%q: a cluster keeps records on disk", c.Records.Store)
	}
	return errors.Join(m...)
}

// path complains about what cannot be the path of a URL on the public port.
func (m *mistakes) path(key, got string) {
	switch {
	case strings.ContainsAny(got, " \t\r\n"):
		m.add(key, "%q holds a character that no path has", got)
	case got == "/healthz" || got == "/readyz":
		m.add(key, "%q is taken: the node answers it itself", got)
	}
}

// validatePaths complains about paths of the configuration where something else of the
// public port is asked for: what stands first would hide it.
func (c Config) validatePaths(m *mistakes) {
	health := [2]string{"httpServer.options.healthCheckPath", c.HTTPServer.Options.HealthCheckPath}
	set := [][2]string{health}
	for i, e := range c.ConnectionEndpoints {
		if e.Type == typeHTTP {
			continue // validateAPI looks at its paths
		}
		key := fmt.Sprintf("connectionEndpoints[%d].options.urlPath", i)
		if set = append(set, [2]string{key, e.Options.URLPath}); e.Options.URLPath == health[1] {
			m.add(key, "%q is that of %s, too: choose another path", health[1], health[0])
		}
	}
	set = append(set, c.validateBeside(m)...)
	for _, s := range set {
		key, path := s[0], s[1]
		if c.Registration.Enabled() && slices.Contains(register.Paths, path) {
			m.add(key, "%q is where clients register: choose another path, or set registration.mode: off", path)
		}
		if c.Tokens.Enabled() && strings.HasPrefix(path, "/auth/") {
			m.add(key, "%q is below /auth/, where tokens are asked for: choose another path, or remove tokens.signingKeys", path)
		}
	}
}

func (c Config) validateHTTP(m *mistakes) {
	m.oneOf("httpServer.type", c.HTTPServer.Type, "default")
	o := c.HTTPServer.Options
	if o.Host == "" {
		m.add("httpServer.options.host", "must not be empty: 0.0.0.0 is every address")
	}
	if o.HealthCheckPath == "" {
		m.add("httpServer.options.healthCheckPath", "must not be empty")
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
}

func (c Config) validateRecords(m *mistakes) {
	m.atLeast("record.cacheRetrievalTimeout", c.Record.CacheRetrievalTimeout, time.Millisecond)
	m.atLeast("record.storageRetrievalTimeout", c.Record.StorageRetrievalTimeout, time.Millisecond)
	m.prefixes("record.storageExclusionPrefixes", c.Record.StorageExclusionPrefixes)
	m.prefixes("record.storageHotPathPrefixes", c.Record.StorageHotPathPrefixes)
	k := c.Records
	m.oneOf("records.store", k.Store, "disk", "memory")
	m.oneOf("records.sync", k.Sync, "always", "interval")
	m.atLeast("records.syncInterval", k.SyncInterval, time.Millisecond)
	m.oneOf("records.durability", k.Durability, "quorum", "fast")
	m.min("records.logBytes", k.LogBytes, 16<<20)
	if m.min("records.checkpointBytes", k.CheckpointBytes, 1<<20); k.CheckpointBytes > k.LogBytes/4 {
		m.add("records.checkpointBytes", "%d is more than a quarter of records.logBytes, %d", k.CheckpointBytes, k.LogBytes)
	}
	m.atLeast("records.checkpointAge", k.CheckpointAge, 10*time.Millisecond)
	m.min("records.diskReserve", k.DiskReserve, 0)
	m.min("records.cacheBytes", k.CacheBytes, 0)
	m.min("records.maxSize", int64(k.MaxSize), 1)
	// A batch that the store cannot take holds up all writes until it is given up.
	switch message := int64(record.MaxBatch(k.MaxSize, maxName) + messageRoom); {
	case k.Store != "disk":
	case message > cluster.MaxMessage:
		m.add("records.maxSize", "%d is too large for the store, which takes records of up to %d", k.MaxSize, cluster.MaxMessage-message+int64(k.MaxSize))
	case message > k.LogBytes/4:
		m.add("records.logBytes", "%d is less than four times the largest batch, of %d with this records.maxSize", k.LogBytes, message)
	}
}

func (c Config) validateAuth(m *mistakes) {
	_, err := auth.New(c.Auth, c.AllowOpenFallback, auth.Deps{APIKeys: c.APIKeys, Beside: c.besideAuth()})
	*m = append(*m, flatten(err)...)
	m.oneOf("roles.wins", c.Roles.Wins, auth.RoleOfStore, auth.RoleOfClaim)
	open := slices.ContainsFunc(c.Auth, func(a auth.Config) bool { return a.Type == "none" })
	if open && !c.AllowOpenAuth && !isLoopback(c.HTTPServer.Options.Host) {
		m.add("httpServer.options.host", `%q is not loopback, and auth type "none" lets anybody in: `+
			"use another auth type (file, storage), or set allowOpenAuth: true if an open node is meant", c.HTTPServer.Options.Host)
	}
	if open && !c.AllowOpenAuth && c.MQTT.Enabled && c.MQTT.Port >= 0 && !isLoopback(c.MQTT.Host) {
		m.add("mqtt.host", `%q is not loopback, and auth type "none" lets anybody in: `+
			"use another auth type (file, storage), or set allowOpenAuth: true if an open node is meant", c.MQTT.Host)
	}
}

// besideAuth are the keys of the ways in that are on beside the strategies of auth.
func (c Config) besideAuth() (keys []string) {
	if len(c.APIKeys) > 0 {
		keys = append(keys, "apiKeys")
	}
	if c.Tokens.Enabled() {
		keys = append(keys, "tokens")
	}
	if c.Registration.Enabled() {
		keys = append(keys, "registration")
	}
	return keys
}

func (c Config) validatePermission(m *mistakes) {
	_, err := perms.New(c.Permission)
	*m = append(*m, flatten(err)...)
	m.min("permission.options.maxRuleIterations", int64(c.Permission.Options.MaxRuleIterations), 1)
	m.atLeast("permission.options.cacheEvacuationInterval", c.Permission.Options.CacheEvacuationInterval, time.Millisecond)
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
