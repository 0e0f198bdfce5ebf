package bench

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Settings are what a run is asked for. They stand in its result; what is secret in them
// does not.
type Settings struct {
	Scenarios []string      `json:"scenarios,omitempty"` // names or families; none is all
	Time      time.Duration `json:"time"`                // that is measured
	WarmUp    time.Duration `json:"warmUp"`
	Rounds    int           `json:"rounds"`
	Seed      uint64        `json:"seed"`
	Size      int           `json:"size"` // of the data of a message, in bytes

	// What replaces that of the scenarios, where it is not 0.
	Clients int     `json:"clients,omitempty"`
	Window  int     `json:"window,omitempty"`
	Rate    float64 `json:"rate,omitempty"` // makes every loop an open one
	// Scale makes the scenarios' numbers of clients smaller: a tenth of them with 0.1.
	Scale float64 `json:"scale"`

	// What is measured. Without any of the others, nodes that are started.
	URLs   []string `json:"urls,omitempty"`
	PIDs   []int    `json:"pids,omitempty"` // of the server behind the URLs, if it is here
	Nodes  int      `json:"nodes"`          // to start, in scenarios that do not say how many
	Binary string   `json:"-"`              // hadal, which is started
	Env    []string `json:"env,omitempty"`  // of the nodes started
	Peers  []Peer   `json:"peers,omitempty"`
	Bare   bool     `json:"bare,omitempty"` // the bare writer as well

	User     string `json:"-"`
	Password string `json:"-"`
	Token    string `json:"-"`
}

// Peer is another server to measure, started by a command of its own: see targetpeer.go.
type Peer struct {
	Name    string `json:"name"`
	Command string `json:"command"`
}

// Default are the settings of a run that nothing was said of.
func Default() Settings {
	return Settings{Time: 5 * time.Second, WarmUp: time.Second, Rounds: 1, Seed: 1, Size: 64, Scale: 1, Nodes: 1}
}

// secretNames are parts of the names of variables whose values are nobody's business.
var secretNames = []string{"SECRET", "PASSWORD", "TOKEN", "KEY"}

// shown are the settings as results have them: without what is secret.
func (s Settings) shown() Settings {
	s.Env = slices.Clone(s.Env)
	for i, v := range s.Env {
		name, _, _ := strings.Cut(v, "=")
		if slices.ContainsFunc(secretNames, func(part string) bool { return strings.Contains(strings.ToUpper(name), part) }) {
			s.Env[i] = name + "=(not shown)"
		}
	}
	s.URLs = slices.Clone(s.URLs)
	for i, raw := range s.URLs {
		if u, err := url.Parse(raw); err == nil {
			u.RawQuery = ""
			s.URLs[i] = u.Redacted()
		}
	}
	return s
}

// minSize is the shortest data, a record with a stamp and nothing else.
const minSize = stampSize + len(`{"`+recordField+`":""}`)

// Validate joins what is wrong with the settings, each mistake with the name of its flag.
func (s *Settings) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Time <= 0 {
		wrong("--time: %v is no time to measure", s.Time)
	}
	if s.WarmUp < 0 {
		wrong("--warm-up: %v is before the beginning", s.WarmUp)
	}
	if s.Rounds < 1 {
		wrong("--rounds: %d is not at least one", s.Rounds)
	}
	if s.Size < minSize || s.Size > 1<<20 {
		wrong("--size: %d is not between %d, what the checks need, and 1048576", s.Size, minSize)
	}
	if s.Nodes != 1 && s.Nodes != 3 {
		wrong("--nodes: %d is neither 1 nor 3", s.Nodes)
	}
	if s.Clients < 0 || s.Window < 0 || s.Rate < 0 {
		wrong("--clients, --window, --rate: below 0")
	}
	if s.Rate > 0 && s.Window > 0 {
		wrong("--rate, --window: a loop is either open, with a rate, or closed, with a window")
	}
	if s.Scale <= 0 || s.Scale > 1 {
		wrong("--scale: %v is not above 0 and at most 1", s.Scale)
	}
	for _, u := range s.URLs {
		parsed, err := url.Parse(u)
		if err != nil || parsed.Host == "" || parsed.Scheme != "ws" && parsed.Scheme != "wss" {
			wrong("--url: %q is not like ws://127.0.0.1:6020/deepstream", u)
		}
	}
	if len(s.PIDs) > 0 && len(s.URLs) == 0 {
		wrong("--pid: it is that of a server behind --url")
	}
	for _, name := range s.Scenarios {
		if len(choose([]string{name})) == 0 {
			wrong("--scenario: there is no %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	return errors.Join(errs...)
}
