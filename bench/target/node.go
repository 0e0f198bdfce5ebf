package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"hadal/node/admin"
)

// Node is a node that we started.
type Node struct {
	URL     string // where clients connect
	PID     int
	DataDir string
	Socket  string // of its admin listener

	cmd     *exec.Cmd
	dir     string // removed by Stop
	drained sync.WaitGroup
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
	if err := n.start(ctx, binary, env); err != nil {
		return nil, errors.Join(err, os.RemoveAll(n.dir))
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, binary string, env []string) error {
	n.Socket = filepath.Join(n.DataDir, admin.SocketName)
	n.cmd = exec.CommandContext(ctx, binary, "start", "--port", "0", "--data-dir", n.DataDir, "--log-format", "text", "--log-level", "info")
	n.cmd.Dir = n.dir
	n.cmd.Env = append(os.Environ(), env...)
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
				for lines.Scan() { // keep the pipe empty
				}
			})
			return nil
		}
	}
	return fmt.Errorf("the node did not start: %w\n%s", n.cmd.Wait(), strings.Join(said, "\n"))
}

// Stop has the node end in its own way, and returns when it has. How it ended is
// the error.
func (n *Node) Stop() error {
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
