package admin

// Config configures the operator's listener.
type Config struct {
	// Listen is a TCP address for the admin API, beside the unix socket in the
	// data directory. Empty is none. Anything but loopback needs Token.
	Listen string `yaml:"listen"`
	// Token must be sent as a bearer token to the TCP address.
	Token string `yaml:"token"`
}
