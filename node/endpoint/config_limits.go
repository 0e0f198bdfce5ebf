package endpoint

import (
	"fmt"
	"slices"

	"golang.org/x/mod/semver"
)

// ConnectionRateConfig bounds how fast clients may connect. What is refused is the
// request for a connection (429 for an address that asks too often, 503 when too many
// do, both with Retry-After), which costs little; connections that are there stay.
type ConnectionRateConfig struct {
	// PerAddress is how many connections a second one address (of IPv6, one /64 network)
	// may open in the long run. Of a trusted proxy the addresses count that it forwards.
	// 0 is without bound.
	PerAddress int `yaml:"perAddress"`
	// PerAddressBurst is how many it may open at once, after a rest; 0 is as many as in a
	// second.
	PerAddressBurst int `yaml:"perAddressBurst"`
	// Global is how many connections a second all clients of this node together may open.
	// 0 is without bound.
	Global int `yaml:"global"`
	// GlobalBurst is how many at once, after a rest; 0 is as many as in a second.
	GlobalBurst int `yaml:"globalBurst"`
}

// ClientsConfig says which clients are too old, by what they say in their challenge:
// type ("javascript" for the official client) and version. A type may be "*", for all
// that are not named, and a version "*", for every one of that type.
type ClientsConfig struct {
	// WarnBelow maps a type of client to the version below which it is served, counted,
	// and named in the log once.
	WarnBelow map[string]string `yaml:"warnBelow"`
	// RefuseBelow maps a type of client to the version below which it cannot log in. It is
	// told why, and does not come back. A client of that type without a version that can
	// be compared is below every one.
	RefuseBelow map[string]string `yaml:"refuseBelow"`
}

// validateLimits reports what is wrong with those keys.
func (c Config) validateLimits(bad func(format string, args ...any)) {
	for _, limit := range []struct {
		key   string
		value int
	}{
		{"maxConnectionsPerUser", c.MaxConnectionsPerUser},
		{"maxSubscriptionsPerUser", c.MaxSubscriptionsPerUser},
		{"connectionRate.perAddress", c.ConnectionRate.PerAddress},
		{"connectionRate.perAddressBurst", c.ConnectionRate.PerAddressBurst},
		{"connectionRate.global", c.ConnectionRate.Global},
		{"connectionRate.globalBurst", c.ConnectionRate.GlobalBurst},
	} {
		if limit.value < 0 {
			bad("%s: %d is below zero", limit.key, limit.value)
		}
	}
	for key, versions := range map[string]map[string]string{"warnBelow": c.Clients.WarnBelow, "refuseBelow": c.Clients.RefuseBelow} {
		for kind, version := range versions {
			if version != anyOf && !semver.IsValid("v"+version) {
				bad("clients.%s.%s: %q is no version: write it as %s, or as %q for every one", key, kind, version, `"7.0.0"`, anyOf)
			}
		}
	}
}

// anyOf stands for every type of client, or every version.
const anyOf = "*"

// below says whether a client is older than the bound that is set for its type.
func below(bounds map[string]string, kind, version string) (bound string, is bool) {
	bound, named := bounds[kind]
	if !named {
		if bound, named = bounds[anyOf]; !named {
			return "", false
		}
	}
	return bound, bound == anyOf || semver.Compare("v"+version, "v"+bound) < 0
}

// supported says in words what a bound asks for.
func supported(kind, bound string) string {
	if bound == anyOf {
		return fmt.Sprintf("clients of type %q cannot log in here", kind)
	}
	return fmt.Sprintf("clients of type %q need version %s or later", kind, bound)
}

// pairs is a set of texts that never has more than a few.
type pairs []string

// add says whether s is new, and there was room for it.
func (p *pairs) add(s string, most int) bool {
	if len(*p) >= most || slices.Contains(*p, s) {
		return false
	}
	*p = append(*p, s)
	return true
}
