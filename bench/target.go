package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/procfs"

	"hadal/bench/target"
)

// subject is something that can be measured.
type subject interface {
	name() string
	// fits is why a scenario cannot be run here, or empty.
	fits(sc *Scenario) string
	// start starts it for one measurement.
	start(ctx context.Context, sc *Scenario) (*server, error)
}

// server is a subject that runs.
type server struct {
	facts TargetFacts
	urls  []string
	nodes []*target.Node // those that were started as nodes
	stop  func() error

	mu  sync.Mutex
	cpu map[int]time.Duration // of each process, when it was seen last; guarded by mu
}

// newServer is one whose processes are known, or none.
func newServer(facts TargetFacts, urls []string, pids []int, stop func() error) *server {
	s := &server{facts: facts, urls: urls, stop: stop, cpu: map[int]time.Duration{}}
	for _, pid := range pids {
		s.cpu[pid] = target.CPU(pid)
	}
	return s
}

// usage is the CPU time that all processes have used so far, those that have ended too, and
// the memory that they have.
func (s *server) usage() (cpu time.Duration, memory int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid, before := range s.cpu {
		s.cpu[pid] = max(before, target.CPU(pid))
		cpu += s.cpu[pid]
		memory += target.RSS(pid)
	}
	return cpu, memory
}

// blame adds to an error what the nodes said.
func (s *server) blame(err error) error {
	if err == nil {
		return nil
	}
	for i, n := range s.nodes {
		for _, line := range n.Complaints() {
			err = fmt.Errorf("%w\n  node %d: %s", err, i+1, line)
		}
	}
	return err
}

// known says whether the processes of the server are.
func (s *server) known() bool { return len(s.cpu) > 0 }

// subjects are what the settings ask for.
func (s *Settings) subjects() []subject {
	var all []subject
	if len(s.URLs) > 0 {
		all = append(all, running{s})
	} else {
		all = append(all, nodes{s})
	}
	for _, p := range s.Peers {
		all = append(all, launched{p})
	}
	if s.Bare {
		all = append(all, bare{s.Binary})
	}
	return all
}

// nodes are nodes of this program, started for each measurement.
type nodes struct{ s *Settings }

// openConfig lets everybody in.
const openConfig = `logLevel: info
allowOpenAuth: true
auth: [{type: none}]
`

// rulesFile lies beside the configuration.
const rulesFile = "rules.yml"

func (n nodes) name() string { return "hadal" }

func (n nodes) fits(*Scenario) string { return "" }

func (n nodes) start(ctx context.Context, sc *Scenario) (*server, error) {
	spec := target.Spec{Binary: n.s.Binary, Nodes: max(n.s.Nodes, sc.Nodes), Env: n.s.Env, Config: openConfig}
	if sc.Rules == "" {
		spec.Config += "permission: {type: none}\n"
	} else {
		spec.Config += "permission: {type: config, options: {permissions: fileLoad(" + rulesFile + ")}}\n"
		spec.Files = map[string]string{rulesFile: sc.Rules}
	}
	if sc.Config != "" {
		spec.Config += sc.Config
	}
	started, err := target.StartNodes(ctx, spec)
	if err != nil {
		return nil, err
	}
	var urls []string
	var pids []int
	for _, node := range started {
		urls, pids = append(urls, node.URL), append(pids, node.PID)
	}
	about := "one node, started for each measurement"
	if len(started) > 1 {
		about = fmt.Sprintf("%d nodes, started for each measurement", len(started))
	}
	srv := newServer(TargetFacts{Name: n.name(), About: about, Config: spec.Config}, urls, pids, func() error { return target.StopNodes(started) })
	srv.nodes = started
	return srv, nil
}

// running is a server that somebody else has started.
type running struct{ s *Settings }

func (r running) name() string { return "server" }

func (r running) fits(sc *Scenario) string {
	switch {
	case sc.own:
		return "it kills nodes, and needs its own"
	case sc.Rules != "":
		return "it needs nodes with its own rules"
	case sc.Nodes > len(r.s.URLs):
		return fmt.Sprintf("it needs the URLs of %d nodes", sc.Nodes)
	case sc.Config != "":
		return "it needs a node with its own configuration"
	}
	return ""
}

func (r running) start(context.Context, *Scenario) (*server, error) {
	pids := r.s.PIDs
	if len(pids) == 0 {
		pids = listeners(r.s.URLs)
	}
	about := strings.Join(r.s.shown().URLs, " ")
	if len(pids) == 0 {
		about += ", whose processes are not here or not to be seen: no CPU, no memory (say --pid)"
	}
	return newServer(TargetFacts{Name: r.name(), About: about}, r.s.URLs, pids, func() error { return nil }), nil
}

// listeners are the processes on this machine that listen where URLs on loopback point.
func listeners(urls []string) []int {
	ports := map[uint64]bool{}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			continue
		}
		if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
			ports[port] = true
		}
	}
	sockets, err := listening(ports)
	if err != nil || len(sockets) == 0 {
		return nil
	}
	procs, err := procfs.AllProcs()
	if err != nil {
		return nil
	}
	found := map[int]bool{}
	for _, p := range procs {
		links, err := p.FileDescriptorTargets()
		if err != nil {
			continue // somebody else's
		}
		if slices.ContainsFunc(links, func(l string) bool { return sockets[l] }) {
			found[p.PID] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// listening are the sockets that listen on the ports, as links in /proc name them.
func listening(ports map[uint64]bool) (map[string]bool, error) {
	four, err4 := os.ReadFile("/proc/net/tcp")
	six, err6 := os.ReadFile("/proc/net/tcp6")
	if err4 != nil && err6 != nil {
		return nil, errors.Join(err4, err6)
	}
	// Of the columns of proc_net_tcp(5) these are read.
	const local, state, inode, listen = 1, 3, 9, "0A"
	sockets := map[string]bool{}
	for line := range strings.Lines(string(four) + string(six)) {
		f := strings.Fields(line)
		if len(f) <= inode || f[state] != listen {
			continue
		}
		_, hex, _ := strings.Cut(f[local], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil && ports[port] {
			sockets["socket:["+f[inode]+"]"] = true
		}
	}
	return sockets, nil
}
