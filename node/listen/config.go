package listen

import "time"

// Config configures pattern listening for events and records alike. The keys
// are deepstream's, but for the last.
type Config struct {
	// ShuffleProviders asks matching providers in random order instead of the
	// order in which they registered. In a cluster that order is kept among the providers
	// of one node; which node's are asked first is another matter: those of the node
	// that owns the name, and then node by node in random order.
	ShuffleProviders bool `yaml:"shuffleProviders"`
	// ResponseTimeout is how long a provider may take to accept or reject.
	ResponseTimeout time.Duration `yaml:"responseTimeout"`
	// RematchInterval is how often names without a provider are offered again;
	// 1000 or less switches that off.
	RematchInterval time.Duration `yaml:"rematchInterval"`
	// MatchCooldown is how long a name that nobody accepted rests before it is
	// offered again.
	MatchCooldown time.Duration `yaml:"matchCooldown"`
	// MaxPatterns is how many patterns one client may listen to, of records and of events
	// each. They count among its maxSubscriptions too, a short one as ten.
	MaxPatterns int `yaml:"maxPatterns"`
	// MaxPatternsPerUser is MaxPatterns for all connections that a user has on one node
	// together. Clients without a name have no bound but their own. 0 is without bound.
	MaxPatternsPerUser int `yaml:"maxPatternsPerUser"`
}

// DefaultConfig is complete.
func DefaultConfig() Config {
	return Config{
		ShuffleProviders: true,
		ResponseTimeout:  500 * time.Millisecond,
		RematchInterval:  30 * time.Second,
		MatchCooldown:    10 * time.Second,
		MaxPatterns:      1000,
	}
}
