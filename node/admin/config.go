package admin

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Config configures the operator's listener.
type Config struct {
	// Listen is a TCP address for the admin API, beside the unix socket in the
	// data directory. Empty is none. Anything but loopback needs Token.
	Listen string `yaml:"listen"`
	// Token must be sent as a bearer token to the TCP address. With registrations the public
	// port takes it as well, to register and unregister anybody; then it has at least 32
	// characters.
	Token string `yaml:"token"`
}

// Validate joins every mistake, each opening with its key.
func (c Config) Validate() error {
	if c.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.Listen)
	_, portErr := strconv.ParseUint(port, 10, 16)
	if cmp.Or(err, portErr) != nil {
		return fmt.Errorf("admin.listen: %q is not an address with a port: write it as 127.0.0.1:6021", c.Listen)
	}
	if c.Token == "" && !isLoopback(host) {
		return fmt.Errorf("admin.token: must be set, because admin.listen (%s) is not loopback", c.Listen)
	}
	if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("admin.token: holds a space or a character that no HTTP header can carry")
	}
	return nil
}

// isLoopback says whether only this machine can reach host. A name other than
// localhost may resolve to anything, so it counts as not loopback.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.Unmap().IsLoopback()
}
