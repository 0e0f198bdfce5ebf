package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hadal/auth"
	"hadal/cluster"
)

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

// clustered is a change to the valid configuration of a node in a cluster.
func clustered(change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.Cluster.Name, c.Cluster.Secret, c.Cluster.Join = "c", "0123456789abcdef", []string{"a:6222"}
		change(c)
	}
}

func TestValidateNamesTheKeyOfEachMistake(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"serverName: must not be empty":                             func(c *Config) { c.ServerName = "" },
		`logLevel: "4" is not a log level`:                          func(c *Config) { c.LogLevel = 4 },
		"logger.type: ":                                             func(c *Config) { c.Logger.Type = "default" },
		"dataDir: must not be empty":                                func(c *Config) { c.DataDir = "" },
		"connectionEndpoints[3].options.authPath: ":                 func(c *Config) { c.ConnectionEndpoints[3].API.AuthPath = "/api/" },
		"connectionEndpoints[3].options.getPath: ":                  func(c *Config) { c.ConnectionEndpoints[3].API.GetPath = "api" },
		`connectionEndpoints[3].options.postPath: "/deepstream" is`: func(c *Config) { c.ConnectionEndpoints[3].API.PostPath = "/deepstream" },
		`connectionEndpoints[3].options.postPath: "/auth" is`:       func(c *Config) { c.ConnectionEndpoints[3].API.PostPath = "/auth" },
		`connectionEndpoints[3].options.postPath: "/" stands for`:   func(c *Config) { c.ConnectionEndpoints[3].API.PostPath = "/" },
		"connectionEndpoints[3].options.requestTimeout: ":           func(c *Config) { c.ConnectionEndpoints[3].API.RequestTimeout = 0 },
		"connectionEndpoints[3].options.maxMessageSize: ":           func(c *Config) { c.ConnectionEndpoints[3].API.MaxMessageSize = 1 << 40 },
		"connectionEndpoints[3].options.maxCommands: ":              func(c *Config) { c.ConnectionEndpoints[3].API.MaxCommands = 0 },
		"connectionEndpoints[3].options.idempotencyTTL: ":           func(c *Config) { c.ConnectionEndpoints[3].API.IdempotencyTTL = -1 },
		`mqtt.urlPath: "/api" is a path of the HTTP API`:            func(c *Config) { c.MQTT.Enabled, c.MQTT.URLPath = true, "/api" },
		`mqtt.urlPath: "/auth/token" is below /auth/`: func(c *Config) {
			c.MQTT.Enabled, c.MQTT.URLPath, c.Tokens.SigningKeys, c.AllowOpenFallback = true, "/auth/token", aKey, true
		},
		`mqtt.port: 6020 is that of httpServer`:                  func(c *Config) { c.MQTT.Enabled, c.MQTT.Port = true, 6020 },
		`mqtt.port: 6020 is that of httpServer, too`:             func(c *Config) { c.MQTT.Enabled, c.MQTT.Port, c.MQTT.Host = true, 6020, "0.0.0.0" },
		`sse.urlPath: "/openapi.json" is a path of the HTTP API`: func(c *Config) { c.SSE.URLPath = "/openapi.json" },
		`sse.urlPath: "/register" is where clients register`:     func(c *Config) { c.SSE.URLPath, c.Registration.Mode, c.AllowOpenFallback = "/register", "open", true },
		"apiKeys[0].hash: ":                                      func(c *Config) { c.APIKeys = []auth.APIKey{{ID: "billing", Hash: "secret"}} },

		"connectionEndpoints: no endpoint is left":                    func(c *Config) { c.ConnectionEndpoints = nil },
		"connectionEndpoints[0].type: ":                               func(c *Config) { c.ConnectionEndpoints[0].Type = "ws" },
		"connectionEndpoints[4].type: a second":                       func(c *Config) { c.ConnectionEndpoints = append(c.ConnectionEndpoints, c.ConnectionEndpoints[0]) },
		"connectionEndpoints[0].options.urlPath: ":                    func(c *Config) { c.ConnectionEndpoints[0].Options.URLPath = "x" },
		`connectionEndpoints[0].options.urlPath: "/healthz" is taken`: func(c *Config) { c.ConnectionEndpoints[0].Options.URLPath = "/healthz" },
		"connectionEndpoints[0].options.heartbeatInterval: ":          func(c *Config) { c.ConnectionEndpoints[0].Options.HeartbeatInterval = 0 },
		"connectionEndpoints[0].options.unauthenticatedClientTimeout": func(c *Config) { c.ConnectionEndpoints[0].Options.UnauthenticatedClientTimeout = -1 },
		"connectionEndpoints[0].options.maxAuthAttempts: ":            func(c *Config) { c.ConnectionEndpoints[0].Options.MaxAuthAttempts = 0 },
		"connectionEndpoints[0].options.maxMessageSize: ":             func(c *Config) { c.ConnectionEndpoints[0].Options.MaxMessageSize = 0 },
		"connectionEndpoints[0].options.queueHardLimit: ":             func(c *Config) { c.ConnectionEndpoints[0].Options.QueueHardLimit = 5 },
		"httpServer.type: ":                                           func(c *Config) { c.HTTPServer.Type = "uws" },
		"httpServer.options.host: must not be empty":                  func(c *Config) { c.HTTPServer.Options.Host = "" },
		"httpServer.options.host: \"192.0.2.1\" is not loopback":      func(c *Config) { c.HTTPServer.Options.Host = "192.0.2.1" },
		"httpServer.options.host: \"example.com\" is not loopback":    func(c *Config) { c.HTTPServer.Options.Host = "example.com" },
		"httpServer.options.host: \"::\" is not loopback":             func(c *Config) { c.HTTPServer.Options.Host = "::" },
		"httpServer.options.port: -1":                                 func(c *Config) { c.HTTPServer.Options.Port = -1 },
		"httpServer.options.port: 65536":                              func(c *Config) { c.HTTPServer.Options.Port = 65536 },
		"httpServer.options.healthCheckPath: ":                        func(c *Config) { c.HTTPServer.Options.HealthCheckPath = "x" },
		"httpServer.options.healthCheckPath: must not be empty":       func(c *Config) { c.HTTPServer.Options.HealthCheckPath = "" },
		"httpServer.options.origins: is empty":                        func(c *Config) { c.HTTPServer.Options.AllowAllOrigins = false },
		"httpServer.options.origins[0]: ":                             func(c *Config) { c.HTTPServer.Options.Origins = []string{"example.com"} },
		"httpServer.options.ssl.cert: ":                               func(c *Config) { c.HTTPServer.Options.SSL.Key = "x" },
		"httpServer.options.ssl.key: ":                                func(c *Config) { c.HTTPServer.Options.SSL.Cert = "x" },
		"httpServer.options.ssl.ca: ":                                 func(c *Config) { c.HTTPServer.Options.SSL.CA = "x" },
		"trustedProxies: ":                                            func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/99"} },
		"rpc.ackTimeout: ":                                            func(c *Config) { c.RPC.AckTimeout = 0 },
		"rpc.responseTimeout: ":                                       func(c *Config) { c.RPC.ResponseTimeout = 0 },
		"record.cacheRetrievalTimeout: ":                              func(c *Config) { c.Record.CacheRetrievalTimeout = 0 },
		"record.storageRetrievalTimeout: ":                            func(c *Config) { c.Record.StorageRetrievalTimeout = 0 },
		"record.storageExclusionPrefixes[1]: is empty":                func(c *Config) { c.Record.StorageExclusionPrefixes = []string{"a", ""} },
		"record.storageHotPathPrefixes[0]: is empty":                  func(c *Config) { c.Record.StorageHotPathPrefixes = []string{""} },
		"cluster.name: must be set where cluster.join is":             func(c *Config) { c.Cluster.Join = []string{"a:1"} },
		"cluster.name: \"a b\" is not a name":                         clustered(func(c *Config) { c.Cluster.Name = "a b" }),
		"cluster.listen: ":                                            clustered(func(c *Config) { c.Cluster.Listen = "a" }),
		"cluster.advertise: ":                                         clustered(func(c *Config) { c.Cluster.Advertise = ":1" }),
		"cluster.join: is empty":                                      clustered(func(c *Config) { c.Cluster.Join = nil }),
		"cluster.join[1]: \"b:65535\": the port must be between":      clustered(func(c *Config) { c.Cluster.Join = []string{"a:1", "b:65535"} }),
		"cluster.bootstrapExpect: 1 core nodes are no cluster":        clustered(func(c *Config) { c.Cluster.BootstrapExpect = 1 }),
		"cluster.secret: must be set, or cluster.tls":                 clustered(func(c *Config) { c.Cluster.Secret = "" }),
		"cluster.secret: is too short":                                clustered(func(c *Config) { c.Cluster.Secret = "short" }),
		"cluster.secret: is set as well as cluster.tls":               clustered(func(c *Config) { c.Cluster.TLS = cluster.TLSFiles{CertFile: "a", KeyFile: "b", CAFile: "c"} }),
		"cluster.tls: needs certFile, keyFile and caFile":             clustered(func(c *Config) { c.Cluster.TLS.KeyFile = "k" }),
		"cluster.role: ":                                              clustered(func(c *Config) { c.Cluster.Role = "x" }),
		"cluster.partitions: 0":                                       clustered(func(c *Config) { c.Cluster.Partitions = 0 }),
		"cluster.replicas: 2":                                         clustered(func(c *Config) { c.Cluster.Replicas = 2 }),
		"cluster.failureTimeout: ":                                    clustered(func(c *Config) { c.Cluster.FailureTimeout = time.Millisecond }),
		"cluster.drainTime: ":                                         clustered(func(c *Config) { c.Cluster.DrainTime = -1 }),
		"cluster.publicUrl: ":                                         clustered(func(c *Config) { c.Cluster.PublicURL = "https://a" }),
		"records.store: \"memory\": a cluster keeps":                  clustered(func(c *Config) { c.Records.Store = "memory" }),
		"records.store: ":                                             func(c *Config) { c.Records.Store = "redis" },
		"records.sync: ":                                              func(c *Config) { c.Records.Sync = "never" },
		"records.syncInterval: ":                                      func(c *Config) { c.Records.SyncInterval = 0 },
		"records.durability: ":                                        func(c *Config) { c.Records.Durability = "none" },
		"records.cacheBytes: ":                                        func(c *Config) { c.Records.CacheBytes = -1 },
		"records.maxSize: ":                                           func(c *Config) { c.Records.MaxSize = 0 },
		"listen.responseTimeout: ":                                    func(c *Config) { c.Listen.ResponseTimeout = 0 },
		"listen.rematchInterval: ":                                    func(c *Config) { c.Listen.RematchInterval = -1 },
		"listen.matchCooldown: ":                                      func(c *Config) { c.Listen.MatchCooldown = -1 },
		"auth: ":                                                      func(c *Config) { c.Auth = nil },
		"auth[0]: none, which is also what is there without":          func(c *Config) { c.Tokens.SigningKeys = aKey },
		"auth[0]: none, which is":                                     func(c *Config) { c.Registration.Mode = "open" },
		"auth[0].type: ":                                              func(c *Config) { c.Auth[0].Type = "ldap" },
		"auth[0].options.users: ":                                     func(c *Config) { c.Auth[0].Type = "file" },
		"permission.type: ":                                           func(c *Config) { c.Permission.Type = "x" },
		"permission.options.permissions: ":                            func(c *Config) { c.Permission.Type = "config" },
		"permission.options.maxRuleIterations: ":                      func(c *Config) { c.Permission.Options.MaxRuleIterations = 0 },
		"permission.options.cacheEvacuationInterval: ":                func(c *Config) { c.Permission.Options.CacheEvacuationInterval = 0 },
		"admin.listen: \"localhost\" is not":                          func(c *Config) { c.Admin.Listen = "localhost" },
		"admin.listen: \"localhost:99999\" is not":                    func(c *Config) { c.Admin.Listen = "localhost:99999" },
		"admin.token: must be set, because admin.listen":              func(c *Config) { c.Admin.Listen = ":6021" },
		"admin.token: holds a space or a character":                   func(c *Config) { c.Admin.Listen, c.Admin.Token = "localhost:1", "x\n" },
	} {
		t.Run(want, func(t *testing.T) {
			c := Default()
			change(&c)
			err := c.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("Validate = %v, want %s", err, want)
			}
		})
	}
}

func TestTokensAndRegistrationsStandAloneOrBesideStrategiesThatAsk(t *testing.T) {
	file := []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "pw"}}}}}
	for name, change := range map[string]func(*Config){
		"tokens alone":              func(c *Config) { c.Auth, c.Tokens.SigningKeys = []auth.Config{}, aKey },
		"registration alone":        func(c *Config) { c.Auth, c.Registration.Mode = nil, "authenticated" },
		"tokens beside a file":      func(c *Config) { c.Auth, c.Tokens.SigningKeys = file, aKey },
		"tokens beside none":        func(c *Config) { c.Tokens.SigningKeys, c.AllowOpenFallback = aKey, true },
		"registration beside none":  func(c *Config) { c.Registration.Mode, c.AllowOpenFallback = "open", true },
		"none of them, beside none": func(*Config) {},
	} {
		c := Default()
		if change(&c); c.Validate() != nil {
			t.Errorf("%s: %v", name, c.Validate())
		}
	}
}

func TestWhatAReloadDoesNotTakeOverIsNamed(t *testing.T) {
	n := &Node{cfg: Default()}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) {
			c.ServerName, c.Auth, c.AllowOpenFallback, c.Tokens.SigningKeys = "x", nil, true, aKey
		}},
		{"mqtt", func(c *Config) { c.MQTT.Enabled = true }},
		{"connectionEndpoints", func(c *Config) {
			c.ConnectionEndpoints = c.ConnectionEndpoints[1:]
			c.APIKeys = []auth.APIKey{{ID: "billing", Hash: "x"}}
		}},
	} {
		now := Default()
		c.change(&now)
		if got := strings.Join(n.stale(now), ", "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestValidateJoinsAllMistakes(t *testing.T) {
	c := Default()
	c.ServerName, c.RPC.AckTimeout, c.Admin.Listen = "", 0, "x"
	var joined interface{ Unwrap() []error }
	if err := c.Validate(); !errors.As(err, &joined) || len(joined.Unwrap()) != 3 {
		t.Errorf("Validate = %v, want three mistakes", err)
	}
}

func TestLoopbackNeedsNoCredentials(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "::1", "::ffff:127.0.0.1"} {
		c := Default()
		c.HTTPServer.Options.Host, c.Admin.Listen = host, "localhost:1"
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestShownIsReadAgain(t *testing.T) {
	for name, environ := range map[string][]string{
		"default":    nil,
		"deepstream": {"HADAL_CONFIG=testdata/config/deepstream/config.yml", "DS_PORT=1"},
		"odd": {
			"HADAL_SERVERNAME=$${a} # b: ${c}", "HADAL_RPC_ACKTIMEOUT=90s", "HADAL_RECORD_STORAGEHOTPATHPREFIXES=['true', '1', '${x}']",
			"HADAL_CONNECTIONENDPOINTS=[{type: ws-binary, options: {unauthenticatedClientTimeout: false}}]", "HADAL_LOGLEVEL=off",
		},
		"http": {"HADAL_AUTH=[{type: http, options: {endpointUrl: 'https://x/', permittedStatusCodes: [200], requestTimeout: 1000, " +
			"retryStatusCodes: [], retryAttempts: 0, retryInterval: 0, forwardHeaders: [], forwardCookies: [sid]}}]"},
		"jwt": {
			"HADAL_AUTH=[{type: jwt, options: {jwksUrl: 'https://x/', jwksRefresh: 5s, leeway: 0, requiredClaims: [], reportInvalidParameters: false, " +
				"audience: [a], claims: {serverData: {b: a, a: b}, clientData: [x]}}}]",
			"HADAL_UPGRADE_BASIC=false", "HADAL_UPGRADE_COOKIE=sid", "HADAL_UPGRADE_ORIGINS=['https://a.example']",
		},
	} {
		t.Run(name, func(t *testing.T) {
			want, _, err := load("", environ, Overrides{})
			if err != nil {
				t.Fatal(err)
			}
			// Paths in the second file stand for themselves.
			want.DataDir = "/data"
			if ssl := &want.HTTPServer.Options.SSL; ssl.Key != "" {
				ssl.Key, _ = filepath.Abs(ssl.Key)
				ssl.Cert, _ = filepath.Abs(ssl.Cert)
			}
			text, err := want.Show()
			if err != nil {
				t.Fatal(err)
			}
			for i := range want.Auth {
				for name, e := range want.Auth[i].Options.Users {
					if strings.Contains(string(text), e.Password) {
						t.Errorf("the password of %s is shown", name)
					}
				}
			}
			if strings.Contains(string(text), hidden) {
				return // cannot be read again as it was
			}
			got, _, err := loadText(t, string(text), nil)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, text)
			}
			// Of these, none is not the same as not set.
			for i, a := range want.Auth {
				if o, p := a.Options, got.Auth[i].Options; (o.ForwardHeaders == nil) != (p.ForwardHeaders == nil) || (o.RequiredClaims == nil) != (p.RequiredClaims == nil) {
					t.Errorf("an empty list was lost:\n%s", text)
				}
			}
		})
	}
}

func TestShowHidesSecrets(t *testing.T) {
	c := Default()
	c.Admin.Token = "hunter2"
	c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {
		Password: "hunter2", ClientData: yaml.MapSlice{{Key: "colour", Value: "${blue}"}},
	}}}}}
	c.Auth = append(c.Auth, auth.Config{Type: "jwt", Options: auth.Options{
		Keys: []auth.JWTKey{{ID: "one", Alg: "HS256", Secret: "hunter2"}}, Headers: map[string]string{"x-key": "hunter2"},
	}})
	c.HTTPServer.Options.SSL.Key = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
	c.HTTPServer.Options.SSL.Cert = "cert.pem"
	got, err := c.Show()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), "hunter2") {
		t.Errorf("a secret is shown:\n%s", got)
	}
	for _, want := range []string{"ann:\n", "password: '" + hidden, "token: '" + hidden, "key: '" + hidden, "secret: '" + hidden, "x-key: '" + hidden, "cert: cert.pem", "colour: $${blue}"} {
		if !strings.Contains(strings.ReplaceAll(string(got), `"`, "'"), want) {
			t.Errorf("%q is not shown in\n%s", want, got)
		}
	}
	c.HTTPServer.Options.SSL.Key = "key.pem"
	if got, err = c.Show(); err != nil || !strings.Contains(string(got), "key: key.pem") {
		t.Errorf("the path of the key is not shown (%v):\n%s", err, got)
	}
}

func TestEndpointTakesItsParts(t *testing.T) {
	c := Default()
	c.TrustedProxies = []string{"::1"}
	e := c.Endpoint()
	if e.HTTP.Port != 6020 || e.WebSocket.URLPath != "/deepstream" || len(e.TrustedProxies) != 1 {
		t.Errorf("got %+v", e)
	}
	var spoken []string
	for _, d := range e.Dialects {
		spoken = append(spoken, d.Name+" "+d.Options.URLPath)
	}
	if want := []string{"ws-text /deepstream-v3", "ws-json /deepstream-json"}; !slices.Equal(spoken, want) {
		t.Errorf("dialects %q, want %q", spoken, want)
	}
	c.ConnectionEndpoints = c.ConnectionEndpoints[2:]
	if e := c.Endpoint(); e.WebSocket.URLPath != "" || len(e.Dialects) != 1 || e.Dialects[0].Name != "ws-json" || c.Validate() != nil {
		t.Errorf("with the last one alone: %+v %v", e, c.Validate())
	}
}

func ExampleParseLogLevel() {
	for _, s := range []string{"warn", "OFF", "0", "4"} {
		fmt.Println(ParseLogLevel(s))
	}
	// Output:
	// warn <nil>
	// off <nil>
	// debug <nil>
	// debug "4" is not a log level: use debug (0), info (1), warn (2), error (3) or off (100)
}
