package sse

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"hadal/node/endpoint"
)

// Config configures server-sent events. The keys are Hadal's own.
type Config struct {
	// Enabled serves them.
	Enabled bool `yaml:"enabled"`
	// URLPath is the path of the stream on the port of httpServer.
	URLPath string `yaml:"urlPath"`
	// HeartbeatInterval is how often a comment is sent, so that nobody on the way closes a
	// quiet stream.
	HeartbeatInterval time.Duration `yaml:"heartbeatInterval"`
	// MaxNames is how many events and records one stream may have.
	MaxNames int `yaml:"maxNames"`
}

// DefaultConfig is complete.
func DefaultConfig() Config {
	return Config{Enabled: true, URLPath: "/sse", HeartbeatInterval: 15 * time.Second, MaxNames: 100}
}

// Validate reports every mistake, each opening with its key.
func (c Config) Validate() error {
	if !c.Enabled {
		return nil
	}
	var errs []error
	if !strings.HasPrefix(c.URLPath, "/") || strings.ContainsAny(c.URLPath, "?# \t\r\n") {
		errs = append(errs, fmt.Errorf("urlPath: %q is no path: write it as /sse", c.URLPath))
	}
	if c.HeartbeatInterval < time.Second {
		errs = append(errs, fmt.Errorf("heartbeatInterval: %v is too short: it must be at least 1s", c.HeartbeatInterval))
	}
	if c.MaxNames < 1 {
		errs = append(errs, fmt.Errorf("maxNames: %d is below one", c.MaxNames))
	}
	return errors.Join(errs...)
}

// options are the times and limits as the endpoint room has them.
func (c Config) options() *endpoint.WebSocketConfig {
	o := endpoint.DefaultConfig().WebSocket
	o.URLPath = ""
	o.HeartbeatInterval = c.HeartbeatInterval
	return &o
}
