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
	// Permissions holds the rules themselves, usually fileLoad(permissions.yml):
	// a yaml.MapSlice, which keeps their order, a map, or the text of a file.
	Permissions any `yaml:"permissions"`
	// Path names a file with the rules, as an alternative to Permissions.
	Path string `yaml:"path"`
	// Watch reloads, as SIGHUP does, when the text of the file that holds the rules
	// changes.
	Watch bool `yaml:"watch"`
	// MaxRuleIterations bounds how often a rule is run while it loads the
	// records it refers to.
	MaxRuleIterations int `yaml:"maxRuleIterations"`
	// Coverage counts from the start which rules, and which branches of them, are
	// ever judged, for `hadal rules coverage`, which can also switch it.
	Coverage bool `yaml:"coverage"`
	// CacheEvacuationInterval is how long the peer keeps an unused path look-up.
	// Here look-ups are kept in a table of fixed size, so nothing reads it.
	CacheEvacuationInterval time.Duration `yaml:"cacheEvacuationInterval"`
}

// DefaultConfig allows everything, as deepstream does without a file.
func DefaultConfig() Config {
	return Config{Type: "none", Options: Options{Watch: true, MaxRuleIterations: 3, CacheEvacuationInterval: time.Minute}}
}
