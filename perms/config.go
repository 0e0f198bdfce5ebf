package perms

import "time"

// Config configures permissions: the file's `permission`.
type Config struct {
	// Type is "none" (everybody may do everything) or "config" (rules).
	Type string `yaml:"type"`
	// Options apply to type "config".
	Options Options `yaml:"options"`
}

// Options are the options of type "config". The keys are deepstream's.
type Options struct {
	// Permissions holds the rules themselves, usually fileLoad(permissions.yml).
	Permissions any `yaml:"permissions"`
	// Path names a file with the rules, as an alternative to Permissions.
	Path string `yaml:"path"`
	// MaxRuleIterations bounds how often a rule is run while it loads the
	// records it refers to.
	MaxRuleIterations int `yaml:"maxRuleIterations"`
	// CacheEvacuationInterval is how long an unused path look-up is kept.
	CacheEvacuationInterval time.Duration `yaml:"cacheEvacuationInterval"`
}

// DefaultConfig allows everything, as deepstream does without a file.
func DefaultConfig() Config {
	return Config{Type: "none", Options: Options{MaxRuleIterations: 3, CacheEvacuationInterval: time.Minute}}
}
