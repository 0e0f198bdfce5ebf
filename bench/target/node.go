package target

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"hadal/node/admin"
)

// Node is a node that we started.
type Node struct {
	URL     string // where clients connect
	PID     int
	DataDir string
	Socket  string // of its admin listener

	cmd    *exec.Cmd
	dir    string // removed by Stop
	killed bool

	mu         sync.Mutex
	complaints []string // guarded by mu
	drained    sync.WaitGroup
}

var urlInLog = regexp.MustCompile(`url=(ws://\S+)`)

// StartNode starts a node and waits until it says that it has started. Its data
// lies in dataDir, or with "" in a temporary directory that Stop removes. env
// adds to its environment, as in HADAL_RECORDS_STORE=memory.
func StartNode(ctx context.Context, binary, dataDir string, env ...string) (*Node, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	n := &Node{DataDir: dataDir}
	if dataDir == "" {
		if n.dir, err = os.MkdirTemp("", "hadal-"); err != nil {
			return nil, err
		}
		n.DataDir = filepath.Join(n.dir, "data")
	}
	if err := n.start(ctx, binary, nil, append(os.Environ(), env...)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.dir))
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, binary string, args, env []string) error {
	n.Socket = filepath.Join(n.DataDir, admin.SocketName)
	args = append([]string{"start", "--port", "0", "--data-dir", n.DataDir, "--log-format", "text", "--log-level", "info"}, args...)
	n.cmd = exec.CommandContext(ctx, binary, args...)
	n.cmd.Dir = n.dir
	n.cmd.Env = env
	n.cmd.Cancel = func() error { return n.cmd.Process.Signal(syscall.SIGTERM) }
	log, err := n.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	n.PID = n.cmd.Process.Pid
	lines := bufio.NewScanner(log)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if m := urlInLog.FindStringSubmatch(lines.Text()); m != nil && n.URL == "" {
			n.URL = m[1]
		}
		if n.URL != "" && strings.Contains(lines.Text(), "msg=started") {
			n.drained.Go(func() {
				for lines.Scan() { // keeps the pipe empty
					n.heed(lines.Text())
				}
			})
			return nil
		}
	}
	return fmt.Errorf("the node did not start: %w\n%s", n.cmd.Wait(), strings.Join(said, "\n"))
}

// heed keeps a line of the node's log, if it is a warning or worse.
func (n *Node) heed(line string) {
	if !strings.Contains(line, "level=WARN") && !strings.Contains(line, "level=ERROR") {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.complaints = append(n.complaints, line); len(n.complaints) > mostComplaints {
		n.complaints = slices.Delete(n.complaints, 0, 1)
	}
}

// mostComplaints is how many warnings of a node are kept.
const mostComplaints = 5

// Complaints are the last warnings and errors of the node's log. Anybody may ask at any time.
func (n *Node) Complaints() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.complaints)
}

// Ask gets a path from the node's admin socket.
func (n *Node) Ask(ctx context.Context, path string) (_ []byte, err error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", n.Socket)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node"+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", path, res.Status)
	}
	return body, err
}

// Metrics is what the node counts, by name, labels added up.
func (n *Node) Metrics(ctx context.Context) (map[string]float64, error) {
	text, err := n.Ask(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read /metrics: %w", err)
	}
	sums := make(map[string]float64, len(families))
	for name, f := range families {
		for _, m := range f.GetMetric() {
			sums[name] += m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return sums, nil
}

// Kill ends the node at once, with SIGKILL. What it was is left where it is.
func (n *Node) Kill() error {
	err := n.cmd.Process.Kill()
	n.drained.Wait()
	if state := (*exec.ExitError)(nil); err == nil && !errors.As(n.cmd.Wait(), &state) {
		err = errors.New("the node had ended by itself")
	}
	n.killed = true
	return err
}

// Stop has the node end in its own way, and returns when it has. How it ended is
// the error. A node that was killed leaves its directory to Stop.
func (n *Node) Stop() error {
	if n.killed {
		return os.RemoveAll(n.dir)
	}
	err := n.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil // Wait says how
	}
	n.drained.Wait()
	err = errors.Join(err, n.cmd.Wait())
	if n.dir != "" {
		err = errors.Join(err, os.RemoveAll(n.dir))
	}
	return err
}
