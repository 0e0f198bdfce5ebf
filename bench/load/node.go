package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
)

// nodeProcess is a node that we started.
type nodeProcess struct {
	url  string
	pid  int
	stop func()
}

var urlInLog = regexp.MustCompile(`url=(ws://\S+)`)

// startNode starts a node with its data in a temporary directory and waits
// until it says that it has started.
func startNode(ctx context.Context, binary, store string) (*nodeProcess, error) {
	dir, err := os.MkdirTemp("", "hadal-load-")
	if err != nil {
		return nil, err
	}
	binary, err = filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "start", "--port", "0", "--data-dir", filepath.Join(dir, "data"), "--log-format", "text", "--log-level", "info")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HADAL_RECORDS_STORE="+store)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	p := &nodeProcess{pid: cmd.Process.Pid}
	drained := make(chan struct{})
	p.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		<-drained
		_ = cmd.Wait() // its exit code is nothing to us
		_ = os.RemoveAll(dir)
	}
	lines := bufio.NewScanner(log)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if m := urlInLog.FindStringSubmatch(lines.Text()); m != nil {
			p.url = m[1]
		}
		if p.url != "" && regexp.MustCompile(`msg=started`).MatchString(lines.Text()) {
			go func() {
				defer close(drained)
				for lines.Scan() { // keep the pipe empty
				}
			}()
			return p, nil
		}
	}
	close(drained)
	p.stop()
	return nil, fmt.Errorf("the node did not start:\n%s", said)
}
