package endpoint

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// UpgradeConfig says which credentials are taken from a client's upgrade request, for
// the login that follows. Those that a login brings itself go before them.
type UpgradeConfig struct {
	// Bearer takes the token of an Authorization header that holds one.
	Bearer bool `yaml:"bearer"`
	// Basic takes the name and password of one that holds them (RFC 7617); of a page
	// in a browser only if its origin is one of Origins.
	Basic bool `yaml:"basic"`
	// Cookie names the cookie that holds a token. It is believed only of a request
	// whose Origin is one of Origins, of which there must be some: browsers send
	// cookies along with whatever a foreign page asks for. Empty is no cookie.
	Cookie string `yaml:"cookie"`
	// Query names the parameter of the URL that holds a token. URLs are written to the
	// logs of proxies, so this is for clients that can do nothing else. Empty is none.
	Query string `yaml:"query"`
	// Origins lists the origins of pages, such as https://app.example.com, for which a
	// browser's cookie and passwords count.
	Origins []string `yaml:"origins"`
}

// validate reports every mistake to bad.
func (u UpgradeConfig) validate(bad func(format string, args ...any)) {
	if u.Cookie != "" {
		if err := (&http.Cookie{Name: u.Cookie, Value: "x"}).Valid(); err != nil {
			bad("upgrade.cookie: %q is not the name of a cookie", u.Cookie)
		}
		if len(u.Origins) == 0 {
			bad("upgrade.origins: is empty, so that no cookie would count: list the origins of your pages, such as https://app.example.com, or remove upgrade.cookie")
		}
	}
	for i, s := range u.Origins {
		o, err := url.Parse(s)
		if err != nil || o.Scheme == "" || o.Host == "" || strings.TrimSuffix(s, "/") != o.Scheme+"://"+o.Host {
			bad("%s: %q is not an origin: write it as https://example.com", fmt.Sprintf("upgrade.origins[%d]", i), s)
		}
	}
}
