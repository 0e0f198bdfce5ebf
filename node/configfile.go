package node

// Overrides are the flags of the command line; they win over everything else.
// A nil pointer leaves the key alone.
type Overrides struct {
	// Host and Port set httpServer.options.
	Host *string
	Port *int
	// DataDir sets dataDir, relative to the working directory.
	DataDir *string
	// LogLevel sets logLevel, by name or number; LogFormat sets logger.type.
	LogLevel, LogFormat *string
	// DisableAuth puts the one strategy "none" in place of auth.
	DisableAuth bool
	// DisablePermissions sets permission.type to "none".
	DisablePermissions bool
}

// Loaded says where a configuration came from.
type Loaded struct {
	// File is the configuration file, or empty for the built-in defaults.
	File string
	// Warnings are sentences for the operator, each with its place.
	Warnings []string
	// Sources are all files that were read or, for certificates, named.
	Sources []Source
}

// Source is a file that a configuration was made from.
type Source struct {
	// Key is the key whose value the file holds; empty for File itself.
	Key string
	// Path is absolute.
	Path string
}

// LoadConfig reads, joins and validates the configuration.
func LoadConfig(path string, o Overrides) (Config, Loaded, error) {
	c := Default()
	return c, Loaded{}, c.Validate()
}
