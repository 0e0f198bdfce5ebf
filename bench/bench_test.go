package bench

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// node is the built program; TestMain makes it.
var node string

func TestMain(m *testing.M) { os.Exit(withNode(m)) }

func withNode(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hadal-bench-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	node = filepath.Join(dir, "hadal")
	if out, err := exec.Command("go", "build", "-o", node, "hadal/cmd/hadal").CombinedOutput(); err != nil {
		panic("build the node: " + err.Error() + "\n" + string(out))
	}
	return m.Run()
}

// short are settings of a second.
func short(scenario string) Settings {
	s := Default()
	s.Time, s.WarmUp, s.Scale, s.Binary = time.Second, 100*time.Millisecond, 0.03, node
	s.Scenarios = []string{scenario}
	return s
}

// silent is a view of nothing.
type silent struct{ samples int }

func (*silent) Begin(*Scenario, string, int, int, int) {}
func (*silent) Phase(string, time.Duration)            {}
func (v *silent) Sample(Sample)                        { v.samples++ }
func (*silent) Done(*Run)                              {}

// attempts is how often a measurement is tried: a machine that does much else may starve a
// node, or leave nothing to measure in so short a time, which then gets longer.
const attempts = 3

func measure(t *testing.T, s Settings) *Result {
	t.Helper()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	for range attempts {
		res, err := Measure(t.Context(), s, Program{Version: "test"}, &silent{})
		if err != nil {
			t.Fatal(err)
		}
		failed := slices.IndexFunc(res.Runs, func(r Run) bool { return r.Failed() })
		if failed < 0 {
			return res
		}
		t.Logf("%s on %s: %s", res.Runs[failed].Scenario, res.Runs[failed].Target, res.Runs[failed].Error)
		s.Time *= 4
	}
	t.Fatalf("failed in %d attempts", attempts)
	return nil
}

// The numbers are for people. That every kind of load runs through against real nodes, and that
// nothing is lost on them, is for the tests.
func TestEveryKindOfLoadRuns(t *testing.T) {
	for _, name := range []string{
		"idle", "fanout/100", "fanout/1000-paced", "cluster-fanout", "pairs/4", "many/1000-paced",
		"record-write", "record-write-ack/uniform", "record-create/10000", "cluster-write", "record-hot", "record-conflict", "record-read",
		"rpc", "presence", "listen", "reconnect", "permissions/reference", "failover",
	} {
		t.Run(name, func(t *testing.T) {
			s := short(name)
			if strings.HasPrefix(name, "cluster-") {
				// On a busy machine nodes are silent for longer than failures should last.
				s.Env = []string{"HADAL_CLUSTER_FAILURETIMEOUT=5000"}
			} else {
				t.Parallel()
			}
			res := measure(t, s)
			r := res.Runs[0]
			if r.Messages == 0 || r.Latency.Count == 0 || r.Latency.Max <= 0 {
				t.Errorf("measured nothing: %+v", r)
			}
			// A provider that a busy machine keeps from answering is asked, and told of, again.
			if g := r.Ledger; !g.Clean() && name != "listen" {
				t.Errorf("lost, twice or out of order on a node: %+v", g)
			}
			if r.Memory == 0 {
				t.Error("the node has no memory")
			}
		})
	}
	families := map[string]bool{}
	for _, name := range Names() {
		families[Family(name)] = true
	}
	// Those that are named above; a new family has to be, too.
	if want := 18; len(families) != want {
		t.Errorf("there are %d families, and %d are tested: %v", len(families), want, families)
	}
}

func TestTargetsTakeTurns(t *testing.T) {
	t.Parallel()
	s := short("fanout/100")
	s.Rounds, s.Time, s.Bare = 2, 200*time.Millisecond, true
	s.Peers = []Peer{{Name: "peer", Command: node + " bench " + BareCommand}}
	var order []string
	for _, r := range measure(t, s).Runs {
		order = append(order, r.Target)
	}
	if want := []string{"hadal", "peer", "bare", "hadal", "peer", "bare"}; !slices.Equal(order, want) {
		t.Errorf("measured %v, want %v", order, want)
	}
}

func TestAPeerThatDoesNotStartIsNamed(t *testing.T) {
	t.Parallel()
	s := short("fanout/1")
	s.URLs = []string{"ws://127.0.0.1:1/"}
	s.Peers = []Peer{{Name: "true", Command: "true"}}
	res, err := Measure(t.Context(), s, Program{}, &silent{})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Runs[0].Error; !strings.Contains(got, "refused") {
		t.Errorf("the run of a server that is not there has the error %q", got)
	}
	if got := res.Runs[1].Error; !strings.Contains(got, "start the peer true: it ended without saying its URL") {
		t.Errorf("the run of a peer that ends has the error %q", got)
	}
}

// bareServer is a server that can be stopped for a while.
func bareServer(t *testing.T) *server {
	t.Helper()
	srv, err := bare{node}.start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.stop(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

func (s *server) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	for pid := range s.cpu {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
}

// stalled measures 100 events a second, or with a window one after the other, while the
// server stands still for a third of the time.
func stalled(t *testing.T, window int) Run {
	t.Helper()
	srv := bareServer(t)
	s := short("fanout/1")
	s.Scale, s.Time, s.URLs = 1, 1500*time.Millisecond, srv.urls
	if window > 0 {
		s.Window = window
	} else {
		s.Rate = 100
	}
	v := &stalling{stall: func() {
		srv.signal(t, syscall.SIGSTOP)
		time.AfterFunc(500*time.Millisecond, func() { srv.signal(t, syscall.SIGCONT) })
	}}
	res, err := Measure(t.Context(), s, Program{}, v)
	if err != nil {
		t.Fatal(err)
	}
	if r := res.Runs[0]; r.Failed() {
		t.Fatal(r.Error)
	}
	return res.Runs[0]
}

// stalling stalls at the second sample.
type stalling struct {
	silent
	stall func()
}

func (v *stalling) Sample(s Sample) {
	if v.silent.Sample(s); v.samples == 2 {
		v.stall()
	}
}

func TestAStallIsChargedToAllThatWasDue(t *testing.T) {
	t.Parallel()
	for range attempts {
		open, closed := stalled(t, 0), stalled(t, 1)
		if !open.Ledger.Clean() {
			t.Fatalf("ledger %+v", open.Ledger)
		}
		// A third of what was due came late, by half the stall on average.
		if open.Latency.P90 >= 200_000 && closed.Latency.Max >= 400_000 {
			return
		}
		t.Logf("p90 of the open loop = %v µs, want at least 200 000; max of the closed = %v µs, want the stall of 500 000", open.Latency.P90, closed.Latency.Max)
	}
	t.Errorf("in %d attempts a stall was not charged", attempts)
}

func TestTheProcessBehindAURLIsFound(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, host := range []string{listener.Addr().String(), strings.Replace(listener.Addr().String(), "127.0.0.1", "localhost", 1)} {
		if got := listeners([]string{"ws://" + host + "/x"}); !slices.Equal(got, []int{os.Getpid()}) {
			t.Errorf("listeners of %s = %v, want this process, %d", host, got, os.Getpid())
		}
	}
	if got := listeners([]string{"ws://example.org:80/x"}); len(got) > 0 {
		t.Errorf("listeners elsewhere = %v", got)
	}
}

func TestARunThatIsStoppedHasWhatWasMeasured(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := short("fanout")
	s.Time = 200 * time.Millisecond
	v := &stopping{stop: cancel}
	res, err := Measure(ctx, s, Program{}, v)
	if err == nil || len(res.Runs) != 1 {
		t.Errorf("Measure = %d runs, %v, want one and an error", len(res.Runs), err)
	}
}

// stopping stops after the first measurement.
type stopping struct {
	silent
	stop func()
}

func (v *stopping) Done(*Run) { v.stop() }
