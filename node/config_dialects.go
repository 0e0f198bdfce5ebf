package node

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"hadal/node/api"
	"hadal/node/endpoint"
)

// webSockets are the types of connectionEndpoints that are spoken over WebSocket, each with
// the path that it has by default (spec 13 §2). The first is the protocol of today's clients.
var webSockets = []struct {
	kind, path string
	dialect    func(*endpoint.WebSocketConfig) endpoint.Dialect
}{
	{"ws-binary", "/deepstream", nil}, // what the endpoint room speaks by itself
	{"ws-text", "/deepstream-v3", endpoint.Text},
	{"ws-json", "/deepstream-json", endpoint.JSON},
}

// endpointTypes are those that this version serves.
func endpointTypes() []string {
	var types []string
	for _, w := range webSockets {
		types = append(types, w.kind)
	}
	return append(types, typeHTTP)
}

// defaultEndpoint is an entry of a type with the defaults of that type; false if there is
// no such type.
func defaultEndpoint(kind string) (EndpointConfig, bool) {
	for _, w := range webSockets {
		if w.kind == kind {
			e := EndpointConfig{Type: kind, Options: endpoint.DefaultConfig().WebSocket}
			e.Options.URLPath = w.path
			return e, true
		}
	}
	return EndpointConfig{Type: typeHTTP, API: api.DefaultConfig()}, kind == typeHTTP
}

// defaultEndpoints has one of each: the list of a file decides which there are.
func defaultEndpoints() []EndpointConfig {
	var list []EndpointConfig
	for _, kind := range endpointTypes() {
		e, _ := defaultEndpoint(kind)
		list = append(list, e)
	}
	return list
}

// addDialects gives the endpoint room the options of each endpoint.
func (c Config) addDialects(e *endpoint.Config) {
	e.WebSocket = endpoint.DefaultConfig().WebSocket
	e.WebSocket.URLPath = ""
	for _, entry := range c.ConnectionEndpoints {
		for _, w := range webSockets {
			switch {
			case w.kind != entry.Type:
			case w.dialect == nil:
				e.WebSocket = entry.Options
			default:
				e.Dialects = append(e.Dialects, w.dialect(&entry.Options))
			}
		}
	}
}

func (c Config) validateEndpoints(m *mistakes) {
	if len(c.ConnectionEndpoints) == 0 {
		m.add("connectionEndpoints", "no endpoint is left that this version serves: add one of type %s", strings.Join(endpointTypes(), ", "))
		return
	}
	for i, e := range c.ConnectionEndpoints {
		at := fmt.Sprintf("connectionEndpoints[%d].", i)
		m.oneOf(at+"type", e.Type, endpointTypes()...)
		before := c.ConnectionEndpoints[:i]
		switch {
		case slices.ContainsFunc(before, func(o EndpointConfig) bool { return o.Type == e.Type }):
			m.add(at+"type", "a second %s endpoint: a node has one", e.Type)
		case e.Type == typeHTTP:
		case slices.ContainsFunc(before, func(o EndpointConfig) bool { return o.Options.URLPath == e.Options.URLPath }):
			m.add(at+"options.urlPath", "%q is that of another endpoint: each needs its own", e.Options.URLPath)
		case e.Options.URLPath == c.HTTPServer.Options.HealthCheckPath:
			m.add(at+"options.urlPath", "%q is the healthCheckPath too", e.Options.URLPath)
		}
		if e.Type == typeHTTP {
			c.validateAPI(m, at+"options.", e.API)
			continue
		}
		m.path(at+"options.urlPath", e.Options.URLPath)
		for _, err := range flatten(e.Options.Validate()) {
			*m = append(*m, fmt.Errorf("%soptions.%w", at, err))
		}
	}
	// The room knows its limits; its keys stand in two places of the file.
	port := c.Endpoint()
	port.WebSocket, port.Dialects = endpoint.DefaultConfig().WebSocket, nil // judged above
	port.WebSocket.URLPath = c.ConnectionEndpoints[0].Options.URLPath
	for _, err := range flatten(port.Validate()) {
		key, text, _ := strings.Cut(err.Error(), ": ")
		first, _, _ := strings.Cut(key, ".")
		switch {
		case fieldOf(reflect.TypeFor[endpoint.HTTPConfig](), first).Index != nil:
			key = "httpServer.options." + key
		case fieldOf(reflect.TypeFor[endpoint.WebSocketConfig](), first).Index != nil:
			continue // said above
		}
		m.add(key, "%s", text)
	}
}

func (c Config) validateMQTT(m *mistakes) {
	for _, err := range flatten(c.MQTT.Validate()) {
		*m = append(*m, fmt.Errorf("mqtt.%w", err))
	}
	if http := c.HTTPServer.Options; c.MQTT.Enabled && c.MQTT.Port > 0 && c.MQTT.Port == http.Port && (c.MQTT.Host == http.Host || isEvery(c.MQTT.Host) || isEvery(http.Host)) {
		m.add("mqtt.port", "%d is that of httpServer, too: choose another one, such as 1883", c.MQTT.Port)
	}
	if !c.MQTT.Enabled || c.MQTT.URLPath == "" {
		return
	}
	m.path("mqtt.urlPath", c.MQTT.URLPath)
	if c.MQTT.URLPath == c.HTTPServer.Options.HealthCheckPath || slices.ContainsFunc(c.ConnectionEndpoints, func(e EndpointConfig) bool {
		return e.Options.URLPath == c.MQTT.URLPath
	}) {
		m.add("mqtt.urlPath", "%q is taken: each way to connect needs its own", c.MQTT.URLPath)
	}
}

// isEvery says whether a host is every address.
func isEvery(host string) bool { return host == "0.0.0.0" || host == "::" }

// validateBeside complains about paths of MQTT and of server-sent events that the HTTP API
// has, and returns both by their keys.
func (c Config) validateBeside(m *mistakes) (set [][2]string) {
	if c.MQTT.Enabled && c.MQTT.URLPath != "" {
		set = append(set, [2]string{"mqtt.urlPath", c.MQTT.URLPath})
	}
	if c.SSE.Enabled {
		set = append(set, [2]string{"sse.urlPath", c.SSE.URLPath})
	}
	a, ok := c.api()
	if !ok {
		return set
	}
	taken := []string{api.PathOpenAPI}
	for _, path := range a.Paths() {
		taken = append(taken, strings.TrimRight(path, "/"), path)
	}
	for _, s := range set {
		if slices.Contains(taken, s[1]) {
			m.add(s[0], "%q is a path of the HTTP API: choose another path", s[1])
		}
	}
	return set
}

func (c Config) validateSSE(m *mistakes) {
	for _, err := range flatten(c.SSE.Validate()) {
		*m = append(*m, fmt.Errorf("sse.%w", err))
	}
	if !c.SSE.Enabled {
		return
	}
	m.path("sse.urlPath", c.SSE.URLPath)
	if c.SSE.URLPath == c.HTTPServer.Options.HealthCheckPath || c.MQTT.Enabled && c.SSE.URLPath == c.MQTT.URLPath ||
		slices.ContainsFunc(c.ConnectionEndpoints, func(e EndpointConfig) bool { return e.Options.URLPath == c.SSE.URLPath }) {
		m.add("sse.urlPath", "%q is taken: each way to connect needs its own", c.SSE.URLPath)
	}
}
