package node

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"hadal/auth/register"
	"hadal/auth/tokens"
	"hadal/node/api"
	"hadal/node/endpoint"
)

// typeHTTP is the type of connectionEndpoints that is the HTTP API.
const typeHTTP = "http"

// webSocketEndpoint and httpEndpoint are how entries stand in a file.
type webSocketEndpoint struct {
	// Type is the dialect: "ws-binary" for the clients of today, "ws-text" for those of
	// 2.x and 3.x, "ws-json" for one JSON object a message, "http" for the HTTP API.
	Type string `yaml:"type"`
	// Options are those of the endpoint.
	Options endpoint.WebSocketConfig `yaml:"options"`
}

type httpEndpoint struct {
	// Type is the dialect: this is the HTTP API.
	Type string `yaml:"type"`
	// Options are those of the endpoint.
	Options api.Config `yaml:"options"`
}

// view is the entry as it stands in a file: a struct with the keys that it has there.
func (e EndpointConfig) view() reflect.Value {
	if e.Type == typeHTTP {
		return reflect.ValueOf(httpEndpoint{e.Type, e.API})
	}
	return reflect.ValueOf(webSocketEndpoint{e.Type, e.Options})
}

// api is the options of the HTTP API; false where there is none.
func (c Config) api() (api.Config, bool) {
	for _, e := range c.ConnectionEndpoints {
		if e.Type == typeHTTP {
			return e.API, true
		}
	}
	return api.Config{}, false
}

// validateAPI checks the options of the HTTP API, whose keys begin with at, and that
// nobody else has its paths.
func (c Config) validateAPI(m *mistakes, at string, a api.Config) {
	for _, err := range flatten(a.Validate()) {
		*m = append(*m, fmt.Errorf("%s%w", at, err))
	}
	taken := []string{api.PathOpenAPI, c.HTTPServer.Options.HealthCheckPath, tokens.PathToken, tokens.PathRefresh, tokens.PathRevoke, tokens.PathSessions}
	if c.Registration.Enabled() {
		taken = append(taken, register.Paths...)
	}
	for _, e := range c.ConnectionEndpoints {
		if e.Type != typeHTTP {
			taken = append(taken, e.Options.URLPath)
		}
	}
	paths := a.Paths()
	for _, key := range slices.Sorted(maps.Keys(paths)) {
		path := paths[key]
		m.path(at+key, path)
		if slices.Contains(taken, path) || strings.HasPrefix(tokens.PathSessions, strings.TrimRight(path, "/")+"/") {
			m.add(at+key, "%q is taken: something else of this server is there: choose another path", path)
		}
	}
}
