//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"hadal/protocol"
)

// node is a hadal process.
type node struct {
	cmd    *exec.Cmd
	client string // address for clients
	web    string // address for HTTP
	ended  chan struct{}
	err    error // how it ended

	mu  sync.Mutex
	log []string // guarded by mu
}

var (
	clientURL = regexp.MustCompile(`url=(ws://\S+)`)
	started   = regexp.MustCompile(`msg=started`)
)

// startNode starts a node with its data in dir, and hardly a record in memory.
func startNode(ctx context.Context, s *settings, dir string) (*node, error) {
	config := filepath.Join(s.work, "config.yml")
	// JSON is YAML, and quotes the directory.
	err := os.WriteFile(config, fmt.Appendf(nil, `{
		"dataDir": %q, "logLevel": "info",
		"httpServer": {"type": "default", "options": {"host": "127.0.0.1", "port": 0}},
		"connectionEndpoints": [{"type": "ws-binary", "options": {"heartbeatInterval": 3600000}}],
		"auth": [{"type": "none"}], "permission": {"type": "none"},
		"records": {"cacheBytes": 262144}
	}`, dir), 0o600)
	if err != nil {
		return nil, err
	}
	n := &node{cmd: exec.Command(s.node, "start", "--config", config, "--log-format", "text"), ended: make(chan struct{})}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := n.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	up := make(chan struct{})
	go func() {
		defer close(n.ended)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			line := lines.Text()
			n.mu.Lock()
			n.log = append(n.log, line)
			n.mu.Unlock()
			if m := clientURL.FindStringSubmatch(line); m != nil {
				n.client = m[1]
			}
			if started.MatchString(line) {
				close(up)
			}
		}
		n.err = n.cmd.Wait()
	}()
	select {
	case <-up:
		u, err := url.Parse(n.client)
		if err != nil {
			return nil, errors.Join(err, n.end(syscall.SIGKILL))
		}
		n.web = "http://" + u.Host
		return n, nil
	case <-n.ended:
		return nil, n.wrong("the node did not start")
	case <-time.After(patience):
		return nil, errors.Join(n.wrong("the node did not start in %v", patience), n.end(syscall.SIGKILL))
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), n.end(syscall.SIGKILL))
	}
}

// end stops or kills the node and waits until it is gone.
func (n *node) end(by syscall.Signal) error {
	if err := n.cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.ended:
	case <-time.After(patience):
		return errors.Join(n.wrong("the node does not stop"), n.cmd.Process.Kill())
	}
	if by == syscall.SIGTERM && n.err != nil {
		return n.wrong("the node stopped with %v", n.err)
	}
	return nil
}

// wrong is an error of the node, with the end of its log.
func (n *node) wrong(format string, args ...any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := n.log[max(len(n.log)-15, 0):]
	return violation(fmt.Sprintf(format, args...) + "; its log ends:\n    " + strings.Join(last, "\n    "))
}

// ready is what /readyz answers.
func (n *node) ready(ctx context.Context) (status int, why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.web+"/readyz", nil)
	if err != nil {
		return 0, "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

// answerIn is how long an answer of the node may take, whatever the disk does.
const answerIn = 15 * time.Second

// socket is a logged-in client that asks one thing at a time.
type socket struct {
	ws    *websocket.Conn
	heard chan *protocol.Message
	ended chan struct{}
	err   error // why it ended
}

// dial connects and logs in.
func (n *node) dial(ctx context.Context) (*socket, error) {
	ws, res, err := websocket.DefaultDialer.DialContext(ctx, n.client, nil)
	if err != nil {
		return nil, err
	}
	if err := res.Body.Close(); err != nil {
		return nil, err
	}
	c := &socket{ws: ws, heard: make(chan *protocol.Message, 64), ended: make(chan struct{})}
	go c.hear()
	for _, m := range []protocol.Message{
		{Topic: protocol.TopicConnection, Action: protocol.ConnectionChallenge, URL: n.client, ProtocolVersion: "0.1a", SDKVersion: "7.0.5", SDKType: "javascript"},
		{Topic: protocol.TopicAuth, Action: protocol.AuthRequest, Data: `{}`},
	} {
		got, err := c.ask(ctx, &m)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		if got.Action != protocol.ConnectionAccept && got.Action != protocol.AuthAuthSuccessful {
			return nil, errors.Join(fmt.Errorf("a client is not let in: %s %s", got.Topic, got.Action.Name(got.Topic)), c.close())
		}
	}
	return c, nil
}

func (c *socket) close() error {
	err := c.ws.Close()
	<-c.ended
	return err
}

// hear reads until the connection ends, and answers pings.
func (c *socket) hear() {
	defer close(c.ended)
	for {
		_, frame, err := c.ws.ReadMessage()
		if err != nil {
			c.err = err
			return
		}
		m := new(protocol.Message) // it aliases the frame, which is its own
		if err := protocol.Decode(frame, m); err != nil {
			c.err = err
			return
		}
		if m.Topic == protocol.TopicConnection && m.Action == protocol.ConnectionPing {
			if c.err = c.say(&protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPong}); c.err != nil {
				return
			}
			continue
		}
		c.heard <- m
	}
}

func (c *socket) say(m *protocol.Message) error {
	return c.ws.WriteMessage(websocket.BinaryMessage, protocol.Append(nil, m))
}

// ask sends a message and returns the answer.
func (c *socket) ask(ctx context.Context, m *protocol.Message) (*protocol.Message, error) {
	if err := c.say(m); err != nil {
		return nil, err
	}
	return c.next(ctx)
}

// next is the next message.
func (c *socket) next(ctx context.Context) (*protocol.Message, error) {
	select {
	case m := <-c.heard:
		return m, nil
	case <-c.ended:
		return nil, fmt.Errorf("the connection ended: %w", c.err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(answerIn):
		return nil, violation(fmt.Sprintf("no answer in %v", answerIn))
	}
}
