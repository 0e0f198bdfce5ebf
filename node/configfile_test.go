package node

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hadal/auth"
	"hadal/node/endpoint"
)

// files writes files into a new directory and returns it.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load reads a file in an environment.
func load(path string, environ []string, o Overrides) (Config, Loaded, error) {
	l := newLoader(environ, nil)
	c, err := l.load(path, o)
	return c, l.loaded, err
}

// loadText reads text as config.yml, with files beside it.
func loadText(t *testing.T, text string, beside map[string]string, environ ...string) (Config, Loaded, error) {
	t.Helper()
	content := map[string]string{"config.yml": text}
	maps.Copy(content, beside)
	return load(filepath.Join(files(t, content), "config.yml"), environ, Overrides{})
}

// binaryOnly leaves one endpoint, and returns its options.
func binaryOnly(c *Config) *endpoint.WebSocketConfig {
	c.ConnectionEndpoints = c.ConnectionEndpoints[:1]
	return &c.ConnectionEndpoints[0].Options
}

func TestFileChangesWhatItNames(t *testing.T) {
	for name, tc := range map[string]struct {
		text   string
		beside map[string]string
		env    []string
		want   func(*Config)
	}{
		"an empty file changes nothing":            {text: "", want: func(*Config) {}},
		"comments alone change nothing":            {text: "# a\n#b\n", want: func(*Config) {}},
		"a section without content keeps defaults": {text: "rpc:\n  # ackTimeout: 1\nauth:\nconnectionEndpoints: null\n", want: func(*Config) {}},
		"names and numbers both are levels":        {text: "logLevel: WARN", want: func(c *Config) { c.LogLevel = LogWarn }},
		"level 0 is debug":                         {text: "logLevel: 0", want: func(c *Config) { c.LogLevel = LogDebug }},
		"level 100 is off":                         {text: "logLevel: 100", want: func(c *Config) { c.LogLevel = LogOff }},
		"the logger's level goes first":            {text: "logger: {options: {logLevel: 3}}\nlogLevel: 0", want: func(c *Config) { c.LogLevel = LogError }},
		"pino is JSON":                             {text: "logger: {name: pino}", want: func(c *Config) { c.Logger.Type = "json" }},
		"durations are milliseconds":               {text: "rpc: {ackTimeout: 1500}", want: func(c *Config) { c.RPC.AckTimeout = 1500 * time.Millisecond }},
		"durations may have units":                 {text: "rpc: {ackTimeout: 1m30s}", want: func(c *Config) { c.RPC.AckTimeout = 90 * time.Second }},
		"sizes may have units":                     {text: "records: {cacheBytes: 2MiB, maxSize: 3 kB}", want: func(c *Config) { c.Records.CacheBytes, c.Records.MaxSize = 2<<20, 3<<10 }},
		"addresses may stand in one text": {
			text: "cluster: {name: c, secret: 0123456789abcdef, join: 'a:1, b:2'}", env: []string{"HADAL_NODE_NAME=n"}, want: func(c *Config) {
				c.ServerName, c.Cluster.Name, c.Cluster.Secret, c.Cluster.Join = "n", "c", "0123456789abcdef", []string{"a:1", "b:2"}
			},
		},
		"addresses may come from the environment": {
			text: "cluster: {name: c, join: ['a:1']}", env: []string{"HADAL_CLUSTER_SECRET=0123456789abcdef", "HADAL_CLUSTER_JOIN=b:2,c:3"}, want: func(c *Config) {
				c.Cluster.Name, c.Cluster.Secret, c.Cluster.Join = "c", "0123456789abcdef", []string{"b:2", "c:3"}
			},
		},
		"limits are read": {
			text: "rateLimits: [{topic: EVENT, action: EMIT, perSecond: 5, role: guest}, {topic: RPC, perSecond: 1, burst: 9}]\nclients: {refuseBelow: {javascript: '7.0.0', '*': '*'}}\nconnectionRate: {global: 5}",
			env:  []string{"HADAL_CLIENTS_WARNBELOW={javascript: '7.0.5'}", "HADAL_MAXCONNECTIONSPERUSER=3"},
			want: func(c *Config) {
				c.RateLimits = []RateLimit{{Topic: "EVENT", Action: "EMIT", PerSecond: 5, Role: "guest"}, {Topic: "RPC", PerSecond: 1, Burst: 9}}
				c.Clients.RefuseBelow = map[string]string{"javascript": "7.0.0", "*": "*"}
				c.Clients.WarnBelow = map[string]string{"javascript": "7.0.5"}
				c.ConnectionRate.Global, c.MaxConnectionsPerUser = 5, 3
			},
		},
		"a hash in quotes is no comment":          {text: "serverName: 'a#b' # c", want: func(c *Config) { c.ServerName = "a#b" }},
		"a hash without a space is no comment":    {text: "serverName: a#b", want: func(c *Config) { c.ServerName = "a#b" }},
		"a file may begin with a byte order mark": {text: "\ufeffserverName: a", want: func(c *Config) { c.ServerName = "a" }},
		"lines may end as on Windows":             {text: "serverName: a\r\nlogLevel: 2\r\n", want: func(c *Config) { c.ServerName, c.LogLevel = "a", LogWarn }},
		"a login timeout of false is for ever":    {text: "connectionEndpoints: [{type: ws-binary, options: {unauthenticatedClientTimeout: false}}]", want: func(c *Config) { binaryOnly(c).UnauthenticatedClientTimeout = 0 }},
		"a login timeout of null is for ever":     {text: "connectionEndpoints: [{type: ws-binary, options: {unauthenticatedClientTimeout: null}}]", want: func(c *Config) { binaryOnly(c).UnauthenticatedClientTimeout = 0 }},
		"an entry of a list keeps its defaults":   {text: "connectionEndpoints:\n  - null\n  - type: ws-binary\n    options: {urlPath: /x}\n", want: func(c *Config) { binaryOnly(c).URLPath = "/x" }},
		"the HTTP API has options of its own": {text: "connectionEndpoints: [{type: ws-binary}, {type: http, options: {postPath: /v1, getPath: '', requestTimeout: 5s, maxMessageSize: 2MiB, allowAuthData: false}}]", want: func(c *Config) {
			c.ConnectionEndpoints = []EndpointConfig{c.ConnectionEndpoints[0], c.ConnectionEndpoints[3]}
			a := &c.ConnectionEndpoints[1].API
			a.PostPath, a.GetPath, a.RequestTimeout, a.MaxMessageSize, a.AllowAuthData = "/v1", "", 5*time.Second, 2<<20, false
		}},
		"the list says which endpoints there are": {text: "connectionEndpoints: [{type: ws-json}, {type: ws-text, options: {urlPath: /old}}]", want: func(c *Config) {
			e := c.ConnectionEndpoints
			e[1].Options.URLPath = "/old"
			c.ConnectionEndpoints = []EndpointConfig{e[2], e[1]}
		}},
		"lists replace":                             {text: "trustedProxies: [10.0.0.0/8, '::1']", want: func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/8", "::1"} }},
		"a variable may be a number":                {text: "httpServer: {options: {port: ${PORT}}}", env: []string{"PORT=7000"}, want: func(c *Config) { c.HTTPServer.Options.Port = 7000 }},
		"a variable in quotes may be a number":      {text: "httpServer: {options: {port: '${PORT}'}}", env: []string{"PORT=7000"}, want: func(c *Config) { c.HTTPServer.Options.Port = 7000 }},
		"a variable may be a boolean":               {text: "rpc: {provideRequestorName: ${YES}}", env: []string{"YES=true"}, want: func(c *Config) { c.RPC.ProvideRequestorName = true }},
		"a variable may be a duration":              {text: "rpc:\n  ackTimeout: ${T:-2s}\n", want: func(c *Config) { c.RPC.AckTimeout = 2 * time.Second }},
		"a number may be a name":                    {text: "serverName: ${NAME}", env: []string{"NAME=42"}, want: func(c *Config) { c.ServerName = "42" }},
		"a default counts when not set":             {text: "serverName: n-${NAME:-a: b, {c}}", want: func(c *Config) { c.ServerName = "n-a: b, {c}" }},
		"a default counts when empty":               {text: "serverName: ${NAME:-x}", env: []string{"NAME="}, want: func(c *Config) { c.ServerName = "x" }},
		"an empty variable leaves the default":      {text: "logger: {type: ${NAME}}", env: []string{"NAME="}, want: func(*Config) {}},
		"a variable stands in the middle":           {text: "serverName: \"a ${NAME} c\"", env: []string{"NAME=b"}, want: func(c *Config) { c.ServerName = "a b c" }},
		"two dollars are one":                       {text: "serverName: $${NAME}", want: func(c *Config) { c.ServerName = "${NAME}" }},
		"a dollar without braces stays":             {text: "serverName: $NAME", env: []string{"NAME=b"}, want: func(c *Config) { c.ServerName = "$NAME" }},
		"a variable cannot add keys":                {text: "serverName: ${NAME}", env: []string{"NAME=a\nallowOpenAuth: true"}, want: func(c *Config) { c.ServerName = "a\nallowOpenAuth: true" }},
		"a variable's value is not read for others": {text: "serverName: ${NAME}", env: []string{"NAME=${OTHER} fileLoad(x)"}, want: func(c *Config) { c.ServerName = "${OTHER} fileLoad(x)" }},
		"a variable is not a call":                  {text: "serverName: ${NAME}", env: []string{"NAME=fileLoad(x)"}, want: func(c *Config) { c.ServerName = "fileLoad(x)" }},
		"a variable in a comment is not needed":     {text: "serverName: a # ${NAME}", want: func(c *Config) { c.ServerName = "a" }},
		"a variable in an ignored key is not":       {text: "serverName: a\nplugins: {x: ${NAME}, y: fileLoad(z)}", want: func(c *Config) { c.ServerName = "a" }},
		"other text is loaded as it is":             {text: "admin: {token: fileLoad(token)}", beside: map[string]string{"token": "${x}"}, want: func(c *Config) { c.Admin.Token = "${x}" }},
		"a path is taken from the file":             {text: "serverName: file(/a/b)", want: func(c *Config) { c.ServerName = "/a/b" }},
		"anchors, aliases and merges work": {text: "rpc: &t {responseTimeout: 700}\nlisten: {<<: *t, matchCooldown: 1}", want: func(c *Config) {
			c.RPC.ResponseTimeout, c.Listen.ResponseTimeout, c.Listen.MatchCooldown = 700e6, 700e6, 1e6
		}},
		"what stands there goes before a merge": {text: "rpc: &t {responseTimeout: 700}\nlisten: {responseTimeout: 800, <<: [*t]}", want: func(c *Config) { c.RPC.ResponseTimeout, c.Listen.ResponseTimeout = 700e6, 800e6 }},
		"uws is default":                        {text: "httpServer: {type: uws}", want: func(*Config) {}},
		"default is text":                       {text: "logger: {type: default}", want: func(*Config) {}},
		"null stands for a key of deepstream's": {text: "clusterNode: null", want: func(*Config) {}},
		"an open node elsewhere can be meant":   {text: "allowOpenAuth: true\nhttpServer: {options: {host: 0.0.0.0}}", want: func(c *Config) { c.AllowOpenAuth, c.HTTPServer.Options.Host = true, "0.0.0.0" }},
		"an open fallback can be meant": {
			text: "allowOpenFallback: true\nauth: [{type: file, options: {users: {ann: {password: secret}}}}, {type: none}]",
			want: func(c *Config) {
				c.AllowOpenFallback = true
				c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "secret"}}}}, {Type: "none"}}
			},
		},
		"users are loaded, with their variables": {
			text: "auth: [{type: file, options: {users: fileLoad(d/users.yml)}}]", env: []string{"WHO=bob", "PW=12"},
			beside: map[string]string{"d/users.yml": "${WHO}: {password: '${PW}', clientData: {b: 1, a: {y: file(x), x: [null, true, 1.5, 1e3]}}}"},
			want: func(c *Config) {
				c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"bob": {Password: "12", ClientData: yaml.MapSlice{
					{Key: "b", Value: int64(1)}, {Key: "a", Value: yaml.MapSlice{{Key: "y", Value: "file(x)"}, {Key: "x", Value: []any{nil, true, 1.5, 1000.0}}}},
				}}}}}}
			},
		},
		"the older path is read as well": {
			text:   "auth: [null, {type: file, options: {path: users.json}}]",
			beside: map[string]string{"users.json": "{\"ann\":\t{\n\t\t\"password\": \"secret\"}}"},
			want: func(c *Config) {
				c.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "secret"}}}}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := loadText(t, tc.text, tc.beside, tc.env...)
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			tc.want(&want)
			if want.ServerName == "UUID" {
				want.ServerName = got.ServerName
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMistakesInAFileAreToldWithTheirPlace(t *testing.T) {
	for name, tc := range map[string]struct {
		text   string
		beside map[string]string
		env    []string
		want   []string // in this order, each within the error
	}{
		"unknown key":                       {text: "rpc: {}\nlogLevle: 1", want: []string{"config.yml:2:1: logLevle: there is no such key: did you mean logLevel?", "     2 | logLevle: 1\n       | ^"}},
		"unknown key in a section":          {text: "rpc:\n  ackTimout: 1", want: []string{"config.yml:2:3: rpc.ackTimout: there is no such key: did you mean ackTimeout?"}},
		"unknown key in a list":             {text: "auth:\n  - type: none\n    options:\n      has: md5", want: []string{"config.yml:4:7: auth[0].options.has: ", "did you mean hash?"}},
		"unknown key like no other":         {text: "xyzzyxyzzy: 1", want: []string{"config.yml:1:1: xyzzyxyzzy: there is no such key\n"}},
		"unknown key near an ignored one":   {text: "plugin: {}", want: []string{"did you mean plugins?"}},
		"unknown key of a user":             {text: "auth: [{type: file, options: {users: fileLoad(u.yml)}}]", beside: map[string]string{"u.yml": "a:\n  password: b\n  serverdata: {}"}, want: []string{"u.yml:3:3: auth[0].options.users.a.serverdata: ", "did you mean serverData?"}},
		"all mistakes at once":              {text: "logLevel: 4\nrpc: 5\nhttpServer: {options: {port: x}}", want: []string{"config.yml:1:11: logLevel: ", `config.yml:2:6: rpc: a mapping is expected here, but this is the number 5`, `config.yml:3:30: httpServer.options.port: a whole number is expected here, but this is "x"`}},
		"a key twice":                       {text: "rpc: {}\nrpc: {}", want: []string{"config.yml:2:1: "}},
		"broken YAML":                       {text: "rpc: [1", want: []string{"config.yml:1:6: "}},
		"two documents":                     {text: "rpc: {}\n---\nrpc: {}", want: []string{"config.yml:3:1: a second document"}},
		"a list instead of a mapping":       {text: "- a", want: []string{"a mapping is expected here, but this is a list"}},
		"a boolean in quotes":               {text: "rpc: {provideRequestorName: 'true'}", want: []string{`config.yml:1:29: rpc.provideRequestorName: true or false is expected here, but this is "true"`}},
		"yes is no boolean":                 {text: "rpc: {provideRequestorName: yes}", want: []string{`true or false is expected here, but this is "yes"`}},
		"a number as a name":                {text: "serverName: 12", want: []string{"serverName: a text (in quotes, if it looks like a number) is expected here, but this is the number 12"}},
		"a fraction of a byte":              {text: "records: {maxSize: 1.5}", want: []string{"records.maxSize: a number of bytes"}},
		"a unit where there is none":        {text: "httpServer: {options: {port: 6k}}", want: []string{`a whole number is expected here, but this is "6k"`}},
		"a duration without unit":           {text: "rpc: {ackTimeout: '5'}", want: []string{`rpc.ackTimeout: a duration, in milliseconds (500) or with a unit (30s, 5m) is expected here, but this is "5"`}},
		"an endless duration":               {text: "rpc: {ackTimeout: 99999999999999999}", want: []string{"more than can be counted"}},
		"endless bytes":                     {text: "records: {cacheBytes: 99999999999g}", want: []string{"more bytes than can be counted"}},
		"a secret is not shown":             {text: "admin: {token: [hunter2]}", want: []string{"admin.token: a text is expected here, but this is something else"}},
		"a variable not set":                {text: "rpc: {}\nserverName: ${NAME}", want: []string{"config.yml:2:13: the environment variable NAME is not set: set it, or give a default with ${NAME:-default}"}},
		"no name of a variable":             {text: "serverName: ${MY-NAME}", want: []string{"config.yml:1:13: ${MY-NAME} is not a variable"}},
		"a brace not closed":                {text: "serverName: '${NAME'", want: []string{"is not a variable"}},
		"a file not there":                  {text: "permission:\n  type: config\n  options:\n    permissions: fileLoad(none.yml)", want: []string{"config.yml:4:18: ", "none.yml cannot be read: no such file or directory"}},
		"a broken file":                     {text: "permission: {type: config, options: {permissions: fileLoad(p.yml)}}", beside: map[string]string{"p.yml": "a: b\nc: d: e"}, want: []string{"p.yml:2:"}},
		"a script":                          {text: "permission: {type: config, options: {permissions: fileLoad(p.js)}}", beside: map[string]string{"p.js": "x"}, want: []string{"p.js: JavaScript is not run here: save what it exports as YAML or JSON"}},
		"no file":                           {text: "permission: {options: {permissions: fileLoad( )}}", want: []string{"config.yml:1:37: fileLoad() names no file"}},
		"a certificate not there":           {text: "httpServer: {options: {ssl: {\nkey: fileLoad(k.pem),\ncert: c.pem}}}", want: []string{"config.yml:2:6: ", "k.pem cannot be read", "config.yml:3:7: ", "c.pem cannot be read"}},
		"a key without certificate":         {text: "httpServer:\n  options:\n    ssl:\n      key: fileLoad(k.pem)", beside: map[string]string{"k.pem": "x"}, want: []string{"config.yml:4:7: httpServer.options.ssl.cert: "}},
		"a key with a passphrase":           {text: "httpServer: {options: {ssl: {passphrase: x}}}", want: []string{"config.yml:1:30: httpServer.options.ssl.passphrase: keys with a passphrase are not read: decrypt"}},
		"a cluster without a name":          {text: "cluster: {secret: x}", want: []string{"cluster.name: must be set where cluster.secret is"}},
		"a cluster with a short secret":     {text: "cluster: {name: c, secret: xyzzy, join: 'a:1'}", want: []string{"config.yml:1:28: cluster.secret: is too short"}},
		"auth by http":                      {text: "auth: [{type: http, options: {endpointUrl: x}}]", want: []string{"config.yml:1:44: auth[0].options.endpointUrl: does not begin with https"}},
		"auth by http that may fail":        {text: "auth: [{type: http, options: {endpointUrl: 'https://x/', permittedStatusCodes: [200, 503]}}]", want: []string{"auth[0].options.permittedStatusCodes: 503 means that the webhook failed"}},
		"auth by jwt without keys":          {text: "auth: [{type: jwt, options: {issuer: x}}]", want: []string{"auth[0].options.keys: is empty"}},
		"auth by jwt with a short secret":   {text: "auth: [{type: jwt, options: {keys: [{alg: HS256, secret: xyzzy}]}}]", want: []string{"auth[0].options.keys[0].secret: is shorter than the 32 bytes"}},
		"a cookie for every page":           {text: "upgrade: {cookie: sid}", want: []string{"upgrade.origins: is empty"}},
		"an origin with a path":             {text: "upgrade: {origins: ['https://a.example/x']}", want: []string{"config.yml:1:21: upgrade.origins[0]: "}},
		"auth by plugin":                    {text: "auth: [{name: my-auth, options: {}}]", want: []string{"auth[0].name: Hadal loads no plugins: use type none, file"}},
		"auth of no type":                   {text: "auth: [{options: {}}]", want: []string{"auth[0]: has no type"}},
		"auth of an unknown type":           {text: "auth: [{type: nona}]", want: []string{`auth[0].type: "nona" is not a strategy: use none, file`}},
		"auth as a mapping":                 {text: "auth: {type: none}", want: []string{"auth: a list is expected here, but this is a mapping"}},
		"auth for nobody":                   {text: "auth: []", want: []string{"config.yml:1:7: auth: "}},
		"anybody as a user of tokens":       {text: "tokens: {signingKeys: [{id: a, alg: HS256, secret: a secret of thirty-two characters}]}", want: []string{"auth[0]: ", "any user of tokens: write auth: [] if only these"}},
		"auth with path and users":          {text: "auth: [{type: file, options: {path: a, users: {a: {password: b}}}}]", want: []string{"auth[0].options.path: users is set as well: keep one of them"}},
		"auth with a wrong path":            {text: "auth:\n  - null\n  - {type: file, options: {path: a.yml}}", want: []string{"config.yml:3:34: ", "a.yml cannot be read"}},
		"auth where none follows file":      {text: "auth: [{type: file, options: {users: {a: {password: b}}}}, {type: none}]", want: []string{"allowOpenFallback: true"}},
		"a password that is a number":       {text: "auth: [{type: file, options: {users: {a: {password: 271828182845}}}}]", want: []string{"auth[0].options.users.a.password: a text (in quotes, if it looks like a number) is expected here, but this is something else"}},
		"permissions by plugin":             {text: "permission: {name: x}", want: []string{"permission.name: Hadal loads no plugins: use type config or none"}},
		"a rule of no sense":                {text: "permission: {type: config, options: {permissions: fileLoad(p.yml)}}", beside: map[string]string{"p.yml": "record: {\"*\": {}}\nevent:\n  \"*\": {}\n  \"a/$b\":\n    subscribe: true\n    publish: treu\nrpc: {\"*\": {}}\npresence: {\"*\": {}}"}, want: []string{`p.yml:6:5: permission.options.permissions: event: path "a/$b": rule publish: line 1, column 1: there is no treu in a rule`}},
		"a rule that is not there":          {text: "permission: {type: config, options: {permissions: fileLoad(p.yml)}}", beside: map[string]string{"p.yml": "record: {\"*\": {}}\nevent:\n  \"*\": {}\n  \"a/$b\":\n    subscribe: true\n    publsh: true\nrpc: {\"*\": {}}\npresence: {\"*\": {}}"}, want: []string{`p.yml:6:5: permission.options.permissions: event: path "a/$b": there is no rule "publsh" here`}},
		"a section that is missing":         {text: "permission: {type: config, options: {permissions: fileLoad(p.yml)}}", beside: map[string]string{"p.yml": "record: {\"*\": {}}"}, want: []string{`p.yml:1:1: permission.options.permissions: section "event" is missing`}},
		"a path in a rules file of its own": {text: "permission: {type: config, options: {path: p.yml}}", beside: map[string]string{"p.yml": "record: {\"*\": {}}\nevent:\n  \"*\": {}\n  \"a/$b\":\n    subscribe: true\n    publish: treu\nrpc: {\"*\": {}}\npresence: {\"*\": {}}"}, want: []string{`p.yml:6:5: permission`}},
		"a rule in the file itself":         {text: "permission:\n  type: config\n  options:\n    permissions:\n      record: {'*': {raed: true}}", want: []string{`config.yml:5:22: permission.options.permissions: record: path "*": there is no rule "raed"`}},
		"permissions of no sense":           {text: "permission: {type: config, options: {permissions: {record: {}}}}", want: []string{"permission.options.permissions: "}},
		"a logger by plugin":                {text: "logger: {name: winston}", want: []string{"logger.name: Hadal loads no plugins: use type text or json"}},
		"an endpoint by plugin":             {text: "connectionEndpoints: [{path: ./x}]", want: []string{"connectionEndpoints[0].path: Hadal loads no plugins: use type ws-binary"}},
		"an endpoint of unknown type":       {text: "connectionEndpoints: [{type: ws}]", want: []string{`connectionEndpoints[0].type: "ws" is not a type of endpoint: use ws-binary`}},
		"two endpoints on one path":         {text: "connectionEndpoints:\n  - type: ws-binary\n  - type: ws-text\n    options: {urlPath: /deepstream}", want: []string{"config.yml:4:24: connectionEndpoints[1].options.urlPath: \"/deepstream\" is that of another endpoint"}},
		"an endpoint on the health path":    {text: "connectionEndpoints: [{type: ws-json, options: {urlPath: /health-check}}]", want: []string{"connectionEndpoints[0].options.urlPath: \"/health-check\" is the healthCheckPath too"}},
		"an endpoint of no type":            {text: "connectionEndpoints: [{options: {}}]", want: []string{"connectionEndpoints[0]: has no type"}},
		"no endpoint that is served":        {text: "connectionEndpoints: [{type: mqtt}]", want: []string{"config.yml:1:22: connectionEndpoints: no endpoint is left that this version serves"}},
		"an option of the HTTP API":         {text: "connectionEndpoints:\n  - type: ws-text\n  - type: ws-binary\n  - type: http\n    options:\n      maxCommands: 0", want: []string{"config.yml:6:20: connectionEndpoints[2].options.maxCommands: "}},
		"no option of the HTTP API":         {text: "connectionEndpoints: [{type: ws-binary}, {type: http, options: {postpath: /x}}]", want: []string{"connectionEndpoints[1].options.postpath: there is no such key: did you mean postPath?"}},
		"two endpoints":                     {text: "connectionEndpoints:\n  - type: http\n  - type: ws-binary\n  - type: ws-binary", want: []string{"config.yml:4:11: connectionEndpoints[2].type: a second ws-binary endpoint"}},
		"two endpoints of MQTT":             {text: "connectionEndpoints:\n  - type: mqtt\n  - type: ws-binary\n  - type: mqtt", want: []string{"config.yml:4:11: connectionEndpoints[2].type: a second mqtt endpoint"}},
		"an endpoint with a wrong limit":    {text: "connectionEndpoints:\n  - type: mqtt\n  - type: ws-binary\n    options:\n      maxAuthAttempts: 0", want: []string{"config.yml:5:24: connectionEndpoints[1].options.maxAuthAttempts: "}},
		"an open node elsewhere":            {text: "httpServer:\n  options:\n    host: 0.0.0.0", want: []string{"config.yml:3:11: httpServer.options.host: ", "use another auth type (file, storage), or set allowOpenAuth: true"}},
		"an alias of nothing":               {text: "rpc: *x", want: []string{"config.yml:1:6: alias *x: there is no anchor &x before it"}},
		"an alias within itself":            {text: "rpc: &x {a: *x}", want: []string{"there is no anchor"}},
		"aliases without end":               {text: "plugins:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n  b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n  c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n  d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n  e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]", want: []string{"aliases stand for more than"}},
		"a tag":                             {text: "serverName: !!js/function x", want: []string{"the tag !!js/function is not supported"}},
		"no text":                           {text: "serverName: \xff", want: []string{"config.yml: is not UTF-8 text"}},
		"an unknown variable of ours":       {env: []string{"HADAL_RECORDS_SYNK=x"}, want: []string{"environment variable HADAL_RECORDS_SYNK: there is no such key: did you mean HADAL_RECORDS_SYNC?"}},
		"a variable of ours cut short":      {env: []string{"HADAL_PORT=1"}, want: []string{"HADAL_PORT: there is no such key: did you mean HADAL_HTTPSERVER_OPTIONS_PORT?"}},
		"a key in the wrong section":        {text: "port: 1", want: []string{"config.yml:1:1: port: there is no such key: did you mean httpServer.options.port?"}},
		"a wrong variable of ours":          {env: []string{"HADAL_HTTPSERVER_OPTIONS_PORT=x"}, want: []string{`environment variable HADAL_HTTPSERVER_OPTIONS_PORT: httpServer.options.port: a whole number is expected here, but this is "x"`}},
		"a variable out of range":           {env: []string{"HADAL_HTTPSERVER_OPTIONS_PORT=70000"}, want: []string{"environment variable HADAL_HTTPSERVER_OPTIONS_PORT: httpServer.options.port: 70000"}},
		"a broken list in a variable":       {env: []string{"HADAL_TRUSTEDPROXIES=[a"}, want: []string{"environment variable HADAL_TRUSTEDPROXIES:1:1: "}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := loadText(t, tc.text, tc.beside, tc.env...)
			if err == nil {
				t.Fatal("no error")
			}
			rest := err.Error() + "\n"
			for _, want := range tc.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("error is\n%s\nwant %q in it (the parts in order)", err, want)
				}
				rest = after
			}
			for _, secret := range []string{"hunter2", "271828182845"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error shows the secret: %s", err)
				}
			}
		})
	}
}

func TestDeepstreamsFileStartsWithWarnings(t *testing.T) {
	path := filepath.Join("testdata", "config", "deepstream", "config.yml")
	c, loaded, err := load(path, []string{"DS_PORT=6021"}, Overrides{})
	if err != nil {
		t.Fatal(err)
	}

	// Every key that means nothing here is named, once, with its line; of
	// everything else, nothing is said.
	var got []string
	for _, w := range loaded.Warnings {
		_, text, _ := strings.Cut(w, "config.yml:")
		text = strings.TrimLeft(text, "0123456789:") // the place
		key, _, _ := strings.Cut(strings.TrimSpace(text), ": ")
		got = append(got, key)
	}
	want := []string{
		"showLogo", "dependencyInitializationTimeout", "libDir", "exitOnFatalError", "enabledFeatures.monitoring", "record.cacheRetrievalTimeout", "subscriptions",
		"httpServer.options.hostUrl", "httpServer.options.headers", "httpServer.options.maxMessageSize",
		"connectionEndpoints[1].options.outgoingBufferTimeout",
		"connectionEndpoints[1].options.maxBufferByteSize", "connectionEndpoints[1].options.headers",
		"logger.options.colors",
		"cache", "storage", "monitoring", "telemetry", "locks", "clusterNode", "clusterRegistry", "clusterStates",
		"permission.options.cacheEvacuationInterval", "plugins",
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s\nall: %s", diff, strings.Join(loaded.Warnings, "\n"))
	}
	if first := loaded.Warnings[0]; !strings.HasPrefix(first, path+":5:1: showLogo: ignored: there is no logo to show") {
		t.Errorf("first warning is %q", first)
	}

	dir := filepath.Dir(path)
	wantConfig := Default()
	wantConfig.ServerName = c.ServerName
	wantConfig.LogLevel = LogWarn
	wantConfig.EnabledFeatures.Presence = false
	e := wantConfig.ConnectionEndpoints
	wantConfig.ConnectionEndpoints = []EndpointConfig{e[1], e[0], e[3]}
	wantConfig.MQTT.Enabled, wantConfig.MQTT.Host = true, "0.0.0.0"
	wantConfig.RPC.AckTimeout = 1500 * time.Millisecond
	wantConfig.Record.CacheRetrievalTimeout = 30 * time.Second
	wantConfig.Record.StorageRetrievalTimeout = 30 * time.Second
	wantConfig.Record.StorageExclusionPrefixes = []string{"no-storage/", "temporary-data/"}
	wantConfig.Record.StorageHotPathPrefixes = []string{"analytics/", "metrics/"}
	wantConfig.Listen.RematchInterval = time.Minute
	h := &wantConfig.HTTPServer.Options
	h.Host, h.Port, h.AllowAllOrigins, h.Origins = "0.0.0.0", 6021, false, []string{"https://www.example.com"}
	h.SSL.Key, h.SSL.Cert = filepath.Join(dir, "ssl/key.pem"), filepath.Join(dir, "ssl/cert.pem")
	report := true
	wantConfig.Auth = []auth.Config{{Type: "file", Options: auth.Options{
		Hash: "md5", Iterations: 100, KeyLength: 32, ReportInvalidParameters: &report,
		Users: map[string]auth.Entry{"userA": {
			Password:   "zociFOTzBBNSv3YrZpn6L9vQcZewOlhCjtLPKRUeWGs=AAECAwQFBgcICQoLDA0ODw==",
			ClientData: yaml.MapSlice{{Key: "zeta", Value: int64(1)}, {Key: "alpha", Value: []any{"x", 2.5, nil}}},
			ServerData: yaml.MapSlice{{Key: "role", Value: "admin"}},
		}},
	}}}
	wantConfig.Permission.Type = "config"
	wantConfig.Permission.Options.Permissions = c.Permission.Options.Permissions
	if diff := cmp.Diff(wantConfig, c, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(c.ServerName, "hadal-") {
		t.Errorf("serverName is %q, want one made up", c.ServerName)
	}

	// Rules keep the order of the file, because ties go to the later path.
	rules, _ := c.Permission.Options.Permissions.(yaml.MapSlice)
	if len(rules) != 4 || rules[0].Key != "presence" || rules[3].Key != "rpc" {
		t.Fatalf("permissions are %v, want the four sections in order", rules)
	}
	var paths []string
	for _, p := range rules[1].Value.(yaml.MapSlice) {
		paths = append(paths, p.Key.(string))
	}
	if want := []string{"*", "open/$x", "wide/$y"}; !slices.Equal(paths, want) {
		t.Errorf("paths are %q, want %q", paths, want)
	}

	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantSources := []Source{
		{"", filepath.Join(abs, "config.yml")},
		{"httpServer.options.ssl.key", filepath.Join(abs, "ssl/key.pem")},
		{"httpServer.options.ssl.cert", filepath.Join(abs, "ssl/cert.pem")},
		{"auth[0].options.users", filepath.Join(abs, "users.yml")},
		{"permission.options.permissions", filepath.Join(abs, "permissions.yml")},
	}
	if diff := cmp.Diff(wantSources, loaded.Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestEveryForeignKeyIsIgnoredOrRefused(t *testing.T) {
	for pattern, f := range foreignKeys {
		// {type: none} is one form for all: what is behind the key does not matter.
		path := strings.Split(pattern, ".")
		text := "{" + path[len(path)-1] + ": {type: none}}"
		for i := len(path) - 2; i >= 0; i-- {
			if path[i] == "options" && path[0] == "connectionEndpoints" {
				text = "[{type: ws-binary, options: " + text + "}]"
				i--
			}
			text = "{" + path[i] + ": " + text + "}"
		}
		_, loaded, err := loadText(t, text, nil)
		switch {
		case f.refused && (err == nil || !strings.Contains(err.Error(), f.why)):
			t.Errorf("%s: error is %v, want %q", text, err, f.why)
		case !f.refused && (err != nil || len(loaded.Warnings) != 1 || !strings.Contains(loaded.Warnings[0], f.why)):
			t.Errorf("%s: error is %v, warnings are %q, want %q", text, err, loaded.Warnings, f.why)
		}
	}
}

func TestTablesNameKeysThatExist(t *testing.T) {
	known := make(map[string]bool)
	var walk func(pattern string, typ reflect.Type)
	walk = func(pattern string, typ reflect.Type) {
		known[pattern] = true
		switch typ.Kind() {
		case reflect.Slice:
			walk(pattern, typ.Elem())
		case reflect.Map:
			walk(pattern+".*", typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				f := typ.Field(i)
				key := f.Tag.Get("yaml")
				if key == "" {
					t.Errorf("%s.%s has no yaml key", typ, f.Name)
				}
				walk(strings.TrimPrefix(pattern+"."+key, "."), f.Type)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	tables := slices.Concat(slices.Collect(maps.Keys(byteKeys)), slices.Collect(maps.Keys(secretKeys)),
		slices.Collect(maps.Keys(unreadKeys)), slices.Collect(maps.Keys(specialKeys)))
	for _, key := range tables {
		if !known[key] {
			t.Errorf("a table names %s, which is no key", key)
		}
	}
	for key := range foreignKeys {
		if known[key] {
			t.Errorf("foreignKeys has %s, which is a key of ours", key)
		}
	}
}

func TestEnvironmentAndFlagsWinInTurn(t *testing.T) {
	dir := files(t, map[string]string{
		"config.yml": "httpServer: {options: {port: 1, host: 127.0.0.2}}\nlogLevel: 3\nserverName: file\nauth: [{type: none}]\nrpc: {ackTimeout: 5}",
		"p.yml":      "record: {'*': {read: true}}\nevent: {'*': {publish: true}}\nrpc: {'*': {request: true}}\npresence: {'*': {allow: true}}",
	})
	env := []string{
		"HADAL_HTTPSERVER_OPTIONS_PORT=2", "HADAL_SERVERNAME=123", "HADAL_LOGLEVEL=warn", "HADAL_RPC_ACKTIMEOUT=6s",
		"HADAL_TRUSTEDPROXIES=[10.0.0.1]", "HADAL_ADMIN_TOKEN=${not}", "HADAL_RECORDS_MAXSIZE=2k",
		`HADAL_AUTH=[{"type": "file", "options": {"users": {"ann": {"password": "x"}}}}]`,
		"HADAL_ENABLEDFEATURES_RPC=false", "HADAL_DATADIR=/data", "HADAL_LISTEN_MATCHCOOLDOWN=",
		"HADAL_PERMISSION_TYPE=config", "HADAL_PERMISSION_OPTIONS_PERMISSIONS=fileLoad(" + filepath.Join(dir, "p.yml") + ")",
		"PATH=/bin", "=weird", "HADAL_BIN=x", "HADAL_CONFIG=other.yml", "HADAL_E2E_TRANSPORT=ws",
	}
	c, _, err := load(filepath.Join(dir, "config.yml"), env, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.HTTPServer.Options.Port, want.HTTPServer.Options.Host = 2, "127.0.0.2"
	want.ServerName, want.LogLevel, want.RPC.AckTimeout = "123", LogWarn, 6*time.Second
	want.TrustedProxies, want.Admin.Token, want.Records.MaxSize = []string{"10.0.0.1"}, "${not}", 2048
	want.Auth = []auth.Config{{Type: "file", Options: auth.Options{Users: map[string]auth.Entry{"ann": {Password: "x"}}}}}
	want.EnabledFeatures.RPC, want.DataDir = false, "/data"
	want.Permission.Type, want.Permission.Options.Permissions = "config", c.Permission.Options.Permissions
	if diff := cmp.Diff(want, c, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("environment over file (-want +got):\n%s", diff)
	}
	if rules, _ := c.Permission.Options.Permissions.(yaml.MapSlice); len(rules) != 4 {
		t.Errorf("permissions are %v, want those of the file", rules)
	}

	host, port, data, level, format := "localhost", 3, "here", "0", "json"
	c, _, err = load(filepath.Join(dir, "config.yml"), env, Overrides{
		Host: &host, Port: &port, DataDir: &data, LogLevel: &level, LogFormat: &format, DisableAuth: true, DisablePermissions: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	want.HTTPServer.Options.Port, want.HTTPServer.Options.Host = 3, "localhost"
	want.DataDir, want.LogLevel, want.Logger.Type = "here", LogDebug, "json"
	want.Auth, want.Permission.Type = []auth.Config{{Type: "none"}}, "none"
	if diff := cmp.Diff(want, c, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("flags over environment (-want +got):\n%s", diff)
	}
}

func TestWrongFlagsAreToldByName(t *testing.T) {
	host, port, level, format, empty := "0.0.0.0", 70000, "loud", "xml", ""
	for name, tc := range map[string]struct {
		o    Overrides
		want string
	}{
		"host":   {Overrides{Host: &host}, `flag --host: httpServer.options.host: "0.0.0.0" is not loopback`},
		"port":   {Overrides{Port: &port}, "flag --port: httpServer.options.port: 70000"},
		"level":  {Overrides{LogLevel: &level}, `flag --log-level: logLevel: a log level: debug (0), info (1), warn (2), error (3) or off (100) is expected here, but this is "loud"`},
		"format": {Overrides{LogFormat: &format}, `flag --log-format: logger.type: "xml" is not one of text, json`},
		"empty":  {Overrides{Host: &empty}, `flag --host: httpServer.options.host: must not be empty`},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := load("", nil, tc.o)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("error is %v, want %s", err, tc.want)
			}
		})
	}
}

func TestFileIsFound(t *testing.T) {
	dir := files(t, map[string]string{
		"flag.yml": "serverName: flag", "ours.yml": "serverName: ours", "theirs.json": `{"serverName": "theirs"}`,
		"dir/config.yaml": "serverName: dir", "first/config.json": `{"serverName": "first"}`, "second/config.yml": "serverName: second",
		"js/config.js": "module.exports = {}", "empty/x": "", "first/config.toml": "", "odd.toml": "",
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	bases := []string{in("none/config"), in("first/config"), in("second/config")}
	for name, tc := range map[string]struct {
		path    string
		env     []string
		bases   []string
		want    string // serverName, or the error
		file    string
		warning string
	}{
		"the flag first":               {path: in("flag.yml"), env: []string{"HADAL_CONFIG=" + in("ours.yml")}, bases: bases, want: "flag", file: in("flag.yml")},
		"then our variable":            {env: []string{"HADAL_CONFIG=" + in("ours.yml"), "DEEPSTREAM_CONFIG_DIRECTORY=" + in("theirs.json")}, bases: bases, want: "ours", file: in("ours.yml")},
		"then deepstream's":            {env: []string{"DEEPSTREAM_CONFIG_DIRECTORY=" + in("theirs.json")}, bases: bases, want: "theirs", file: in("theirs.json"), warning: "set HADAL_CONFIG instead"},
		"which may be a directory":     {env: []string{"DEEPSTREAM_CONFIG_DIRECTORY=" + in("dir")}, bases: bases, want: "dir", file: in("dir/config.yaml"), warning: "set HADAL_CONFIG instead"},
		"but not an empty one":         {env: []string{"DEEPSTREAM_CONFIG_DIRECTORY=" + in("empty")}, bases: bases, want: "there is no config.yml in", warning: "set HADAL_CONFIG instead"},
		"then the usual places":        {bases: bases, want: "first", file: in("first/config.json")},
		"and no file is fine":          {bases: bases[:1], want: "hadal-"},
		"a named file must exist":      {path: in("none.yml"), want: "no such file", file: in("none.yml")},
		"a script is refused":          {bases: []string{in("js/config")}, want: "JavaScript is not run here: save what it exports as YAML or JSON", file: in("js/config.js")},
		"another extension is refused": {path: in("odd.toml"), want: "use .yml, .yaml or .json", file: in("odd.toml")},
		"a directory is no file":       {path: in("empty"), want: "known extension", file: in("empty")},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoader(tc.env, tc.bases)
			c, err := l.load(tc.path, Overrides{})
			got := c.ServerName
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if l.loaded.File != tc.file {
				t.Errorf("file is %q, want %q", l.loaded.File, tc.file)
			}
			if all := strings.Join(l.loaded.Warnings, "\n"); !strings.Contains(all, tc.warning) || (tc.warning == "" && all != "") {
				t.Errorf("warnings are %q, want %q", all, tc.warning)
			}
		})
	}
}

func TestJSONIsReadToo(t *testing.T) {
	dir := files(t, map[string]string{"c.json": "{\n\t\"httpServer\": {\n\t\t\"options\": {\"port\": ${PORT}, \"healthCheckPath\": \"/\\u0061\"}\n\t},\n\t\"rpc\": {\"ackTimeout\": \"${T:-700}\"}\n}\n"})
	c, _, err := load(filepath.Join(dir, "c.json"), []string{"PORT=1234"}, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if o := c.HTTPServer.Options; o.Port != 1234 || o.HealthCheckPath != "/a" || c.RPC.AckTimeout != 700*time.Millisecond {
		t.Errorf("got %+v and %v", o, c.RPC.AckTimeout)
	}
}

func TestLoadConfigLooksAtTheEnvironmentOfTheProcess(t *testing.T) {
	dir := files(t, map[string]string{"c.yml": "serverName: ${WHO}"})
	t.Setenv("HADAL_CONFIG", filepath.Join(dir, "c.yml"))
	t.Setenv("WHO", "me")
	c, loaded, err := LoadConfig("", Overrides{})
	if err != nil || c.ServerName != "me" || loaded.File == "" {
		t.Errorf("LoadConfig = %q, %q, %v", c.ServerName, loaded.File, err)
	}
}

func TestRematchingSwitchedOffIsSaid(t *testing.T) {
	_, loaded, err := loadText(t, "listen:\n  rematchInterval: 1000", nil)
	if err != nil || len(loaded.Warnings) != 1 || !strings.Contains(loaded.Warnings[0], "config.yml:2:20: listen.rematchInterval: 1000 ms or less switches rematching off") {
		t.Errorf("warnings are %q, error is %v", loaded.Warnings, err)
	}
}

func TestExamplesAreValid(t *testing.T) {
	c, loaded, err := load(filepath.Join("..", "examples", "config.yml"), nil, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded.Warnings) > 0 {
		t.Errorf("warnings: %q", loaded.Warnings)
	}
	a, err := auth.New(c.Auth, false, auth.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := a.Authenticate(t.Context(), &auth.Attempt{Params: `{"username":"userA","password":"password"}`})
	if err != nil || v.Opinion != auth.Accepted {
		t.Errorf("userA with password: %v, %v, want accepted", v, err)
	}
}

func FuzzLoad(f *testing.F) {
	for _, path := range []string{"testdata/config/deepstream/config.yml", "../examples/config.yml", "config_default.yml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a: &a [*a]\n<<: {b: ${C:-d}}\n? [x]\n: !!str 1\n")
	f.Add("{\"httpServer\": {\"options\": {\"port\": ${PORT}}}}")
	f.Fuzz(func(t *testing.T, text string) {
		l := newLoader([]string{"PORT=1", "X=y: z"}, nil)
		v, err := parseSource(&source{name: "fuzz", dir: "/nowhere", text: text, variables: true, loads: true})
		if err != nil {
			return
		}
		l.decodeRoot(v)
		l.readPaths()
		l.validate()
		for _, err := range l.errs {
			_ = err.Error() // excerpts must hold for any place
		}
		if len(l.errs) > 0 {
			return
		}
		// What is valid can be shown, and what is shown is read again.
		l.config.DataDir = "/data" // a relative one starts elsewhere in a file
		shown, err := l.config.Show()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(shown), hidden) {
			return
		}
		v, err = parseSource(&source{name: "shown", dir: "/nowhere", text: string(shown), variables: true})
		if err != nil {
			t.Fatalf("%v\n%s", err, shown)
		}
		again := newLoader(nil, nil)
		again.decodeRoot(v)
		if len(again.errs) > 0 {
			t.Fatalf("%v\n%s", again.errs, shown)
		}
		if diff := cmp.Diff(l.config, again.config, cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, shown)
		}
	})
}
