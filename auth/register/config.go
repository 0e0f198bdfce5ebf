package register

import (
	"errors"
	"fmt"
	"time"
)

// The modes.
const (
	// Off has no registrations, and lets none of those in that are there.
	Off = "off"
	// Authenticated lets those register clients who are one, or the operator.
	Authenticated = "authenticated"
	// Open lets everybody register.
	Open = "open"
)

const (
	// minBearerTTL is the shortest life of a bearer token.
	minBearerTTL = time.Second
	// maxBearerTTL is the longest one.
	maxBearerTTL = 10 * 365 * 24 * time.Hour
)

// Config configures self-registration.
type Config struct {
	// Mode says who may register a client: nobody ("off", and then registered clients
	// cannot log in either), a registered client or who has the API secret of tokens or
	// the admin token ("authenticated"), or everybody ("open").
	Mode string `yaml:"mode"`
	// BearerTTL is how long a bearer token of POST /login lives.
	BearerTTL time.Duration `yaml:"bearerTTL"`
	// PerMinute is how many clients one address (of IPv6, one /64 network) may register in
	// a minute, the operator excepted. 0 is without bound.
	PerMinute int `yaml:"perMinute"`
	// MaxClients is how many clients may be registered at once; 0 is without bound. Nodes
	// that register at the same moment may exceed it by a few.
	MaxClients int `yaml:"maxClients"`
	// UserPrefix is put before the id of a client to make its user id. With a prefix that
	// no user of another strategy has, such as client/, nobody can register as one of them.
	UserPrefix string `yaml:"userPrefix"`
	// Role is the role that registered clients have, as user.data.role in rules. Empty is
	// none.
	Role string `yaml:"role"`
}

// DefaultConfig is complete: registration is off.
func DefaultConfig() Config {
	return Config{Mode: Off, BearerTTL: 24 * time.Hour, PerMinute: 120, MaxClients: 1_000_000}
}

// Enabled says whether there are registrations at all.
func (c Config) Enabled() bool { return c.Mode != Off }

// Validate joins what is wrong with c, each mistake opening with its key.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.Mode {
	case Off, Authenticated, Open:
	default:
		bad("registration.mode: %q is not one of %s, %s, %s", c.Mode, Off, Authenticated, Open)
	}
	if c.BearerTTL < minBearerTTL || c.BearerTTL > maxBearerTTL {
		bad("registration.bearerTTL: %v is not between %v and %v", c.BearerTTL, minBearerTTL, maxBearerTTL)
	}
	if c.PerMinute < 0 {
		bad("registration.perMinute: %d is below zero: 0 is without bound", c.PerMinute)
	}
	if c.MaxClients < 0 {
		bad("registration.maxClients: %d is below zero: 0 is without bound", c.MaxClients)
	}
	if !printable(c.UserPrefix) {
		bad("registration.userPrefix: %q has control characters", c.UserPrefix)
	}
	return errors.Join(errs...)
}
