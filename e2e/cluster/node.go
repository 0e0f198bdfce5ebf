//go:build linux

package main

import (
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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hadal/bench/target"
	"hadal/node/admin"
)

// patience is how long a node may take to start or stop.
const patience = 60 * time.Second

// node is one process of the cluster, or the place of one. Its log goes to a file, one
// life after the other.
type node struct {
	name     string
	index    int
	host     string
	port     int    // for clients
	peerPort int    // for the other nodes; the next one is raft's
	netns    string // or empty
	dir      string
	logFile  string
	args     []string
	env      []string
	config   string

	mu     sync.Mutex
	cmd    *exec.Cmd     // guarded by mu
	ended  chan struct{} // guarded by mu: closed when the process is gone
	exit   error         // guarded by mu: how it ended
	paused bool          // guarded by mu
}

// clockFile says how many seconds off the clock of a node is that was built for it.
func (n *node) clockFile() string { return n.dir + ".clock" }

// setClock moves the node's clock on the wall.
func (n *node) setClock(off time.Duration) error {
	return os.WriteFile(n.clockFile(), strconv.AppendInt(nil, int64(off/time.Second), 10), 0o600)
}

func (n *node) url() string { return fmt.Sprintf("ws://%s:%d/deepstream", n.host, n.port) }
func (n *node) web() string { return fmt.Sprintf("http://%s:%d", n.host, n.port) }

// peerAddress is where its routes are.
func (n *node) peerAddress() string { return net.JoinHostPort(n.host, strconv.Itoa(n.peerPort)) }

func (n *node) socket() string { return filepath.Join(n.dir, admin.SocketName) }

// start begins a life. It does not wait until the node is ready.
func (n *node) start(binary string) error {
	log, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	args := append([]string{binary, "start", "--config", n.config, "--host", n.host, "--port", strconv.Itoa(n.port),
		"--data-dir", n.dir, "--log-format", "text"}, n.args...)
	if n.netns != "" {
		args = append([]string{"ip", "netns", "exec", n.netns}, args...) // which becomes the node
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// Variables of this program's own caller would be keys of the configuration.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HADAL_") }), n.env...)
	// It ends with this program, and hears no Ctrl-C of its terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = cmd.Start()
	if err := errors.Join(err, log.Close()); err != nil {
		return fmt.Errorf("start node %s: %w", n.name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ended := make(chan struct{})
	n.cmd, n.ended, n.exit, n.paused = cmd, ended, nil, false
	go func() {
		err := cmd.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.exit = err
		close(ended)
	}()
	return nil
}

// life is the process as it is now.
func (n *node) life() (cmd *exec.Cmd, ended chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd, n.ended
}

// pid is that of the process, or 0.
func (n *node) pid() int {
	cmd, _ := n.life()
	if cmd == nil {
		return 0
	}
	return cmd.Process.Pid
}

// running says whether there is a process.
func (n *node) running() bool {
	_, ended := n.life()
	if ended == nil {
		return false
	}
	select {
	case <-ended:
		return false
	default:
		return true
	}
}

// isPaused says whether the process is stopped.
func (n *node) isPaused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.paused
}

func (n *node) signal(s syscall.Signal) error {
	cmd, _ := n.life()
	if cmd == nil {
		return fmt.Errorf("node %s was never started", n.name)
	}
	if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal node %s: %w", n.name, err)
	}
	return nil
}

// pause stops the process where it is, until resume.
func (n *node) pause() error { return n.halt(syscall.SIGSTOP, true) }

// resume lets the process go on.
func (n *node) resume() error { return n.halt(syscall.SIGCONT, false) }

func (n *node) halt(s syscall.Signal, paused bool) error {
	err := n.signal(s)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paused = paused
	return err
}

// kill ends the process at once.
func (n *node) kill() error { return n.end(syscall.SIGKILL) }

// stop has the node end in its own way, and is an error when it does not, or not well.
func (n *node) stop() error {
	err := n.end(syscall.SIGTERM)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil && n.exit != nil {
		err = fmt.Errorf("node %s ended with %w", n.name, n.exit)
	}
	return err
}

func (n *node) end(s syscall.Signal) error {
	if !n.running() {
		return nil
	}
	if err := n.signal(s); err != nil {
		return err
	}
	_, ended := n.life()
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		err := fmt.Errorf("node %s is still there %v after signal %v", n.name, patience, s)
		return errors.Join(err, n.signal(syscall.SIGQUIT)) // its goroutines go to its log
	}
}

// ready says whether the node answers that it is.
func (n *node) ready(ctx context.Context) bool {
	ok, _ := n.readiness(ctx)
	return ok
}

// readiness is what the node answers when it is asked whether it is ready, and why not.
func (n *node) readiness(ctx context.Context) (ok bool, why string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.web()+"/readyz", nil)
	if err != nil {
		return false, err.Error()
	}
	// No connection is kept: the node may be another one by the next time.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}}
	res, err := client.Do(req)
	if err != nil {
		return false, err.Error()
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return false, err.Error()
	}
	return res.StatusCode == http.StatusOK, strings.TrimSpace(string(text))
}

// awaitReady waits until the node says that it is ready.
func (n *node) awaitReady(ctx context.Context, within time.Duration) error {
	give := time.After(within)
	for !n.ready(ctx) {
		_, ended := n.life()
		select {
		case <-ended:
			return fmt.Errorf("node %s has ended instead of getting ready: its log is %s", n.name, n.logFile)
		case <-give:
			_, why := n.readiness(ctx)
			err := fmt.Errorf("node %s is not ready after %v, and says %q: its log is %s", n.name, within, why, n.logFile)
			return errors.Join(err, n.signal(syscall.SIGQUIT)) // its goroutines go to its log
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// cluster is what the node says of its cluster.
func (n *node) cluster(ctx context.Context) (admin.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := admin.OverSocket(n.socket())
	defer c.Close()
	return c.Cluster(ctx)
}

// drain is `hadal cluster drain`.
func (n *node) drain(ctx context.Context, binary string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, "cluster", "drain", "--data-dir", n.dir, "--wait", "60s")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("drain node %s: %w: %s", n.name, err, said.Bytes())
	}
	return nil
}

// metrics is what the node counts.
func (n *node) metrics(ctx context.Context) (map[string]float64, error) {
	return (&target.Node{Socket: n.socket()}).Metrics(ctx)
}

// ends waits until the process has ended by itself, and returns the last it wrote to
// its log since that was so long.
func (n *node) ends(ctx context.Context, within time.Duration, since int64) (said string, err error) {
	_, ended := n.life()
	select {
	case <-ended:
	case <-time.After(within):
		return "", violation(fmt.Sprintf("node %s still runs after %v", n.name, within))
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	return n.saidSince(since)
}

// logged is how long the node's log is.
func (n *node) logged() int64 {
	info, err := os.Stat(n.logFile)
	if err != nil {
		return 0 // there is none yet
	}
	return info.Size()
}

// saidSince is what the node has written to its log since that was so long.
func (n *node) saidSince(length int64) (string, error) {
	b, err := os.ReadFile(n.logFile)
	if err != nil {
		return "", err
	}
	return string(b[min(length, int64(len(b))):]), nil
}

// awaitSaid waits until the node has written all the words to its log, each somewhere.
func (n *node) awaitSaid(ctx context.Context, within time.Duration, since int64, words ...string) error {
	give := time.Now().Add(within)
	for {
		said, err := n.saidSince(since)
		if err != nil {
			return err
		}
		missing := ""
		for _, w := range words {
			if !strings.Contains(said, w) {
				missing = w
			}
		}
		if missing == "" {
			return nil
		}
		if time.Now().After(give) {
			return violation(fmt.Sprintf("node %s does not say %q in %v: its log is %s", n.name, missing, within, n.logFile))
		}
		if err := target.Pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// ask has a client of the node's admin API do something.
func (n *node) ask(ctx context.Context, do func(ctx context.Context, c *admin.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := admin.OverSocket(n.socket())
	defer c.Close()
	return do(ctx, c)
}
