package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hadal/bench/target"
)

// crowdCommand is the first argument of the process that floods.
const crowdCommand = "crowd"

// flood is clients that log in as fast as they are answered.
type flood struct {
	name    string // of the state, in the table
	idle    bool   // not even newcomers log in
	clients int
	// from is the name of where their attempts come from, in addresses.
	from string
}

// addresses are where the attempts of clients may come from.
var addresses = map[string]func(client, attempt int) net.IP{
	// One address for each client.
	"own": func(client, _ int) net.IP { return net.IPv4(127, 1, byte(client/250), byte(1+client%250)) },
	// One that no attempt had before, until there have been millions.
	"another": func(client, attempt int) net.IP {
		n := client*9973 + attempt
		return net.IPv4(127, byte(50+n/250/250%150), byte(n/250%250), byte(1+n%250))
	},
}

// crowd is a process that floods. It is one of its own, and yields to everybody else: who
// floods a real node is on other machines, and what a program that measures shares with it
// is no property of the node.
type crowd struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Scanner
}

// startCrowd returns when the flood goes on. One without clients is none.
func startCrowd(ctx context.Context, url string, f flood) (_ *crowd, err error) {
	if f.clients == 0 {
		return nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &crowd{cmd: exec.CommandContext(ctx, "nice", "-n", "19", self, crowdCommand,
		"--url", url, "--clients", strconv.Itoa(f.clients), "--from", f.from)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a flood: %w", err)
	}
	if !c.out.Scan() {
		return nil, errors.Join(errors.New("the flood did not begin"), c.out.Err(), c.in.Close(), c.cmd.Wait())
	}
	return c, nil
}

// stop ends it, and says how many attempts it has made since startCrowd returned.
func (c *crowd) stop() (int64, error) {
	if c == nil {
		return 0, nil
	}
	err := c.in.Close()
	var last string
	for c.out.Scan() {
		last = c.out.Text()
	}
	err = errors.Join(err, c.out.Err(), c.cmd.Wait())
	n, bad := strconv.ParseInt(strings.TrimSpace(last), 10, 64)
	return n, errors.Join(err, bad)
}

// runCrowd is that process: it says when each client has been answered twice, which is
// when a flood goes on, and, when there is no more input, how many attempts came after.
func runCrowd(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("logins "+crowdCommand, flag.ContinueOnError)
	url := flags.String("url", "", "where to log in")
	clients := flags.Int("clients", 0, "how many flood")
	name := flags.String("from", "", "which addresses they have: own or another")
	if err := flags.Parse(args); err != nil {
		return err
	}
	from, ok := addresses[*name]
	if !ok || *clients < 1 {
		return fmt.Errorf("no flood of %d clients from %q", *clients, *name)
	}
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	var attempts, begun atomic.Int64
	for i := range *clients {
		all.Go(func() { attack(ctx, *url, func(attempt int) net.IP { return from(i, attempt) }, &attempts, &begun) })
	}
	for began := time.Now(); begun.Load() < int64(*clients); {
		if time.Since(began) > settle {
			return fmt.Errorf("after %v only %d of %d clients have been answered: let fewer flood", settle, begun.Load(), *clients)
		}
		if err := target.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	before := attempts.Load()
	if _, err := fmt.Fprintln(out, "going on"); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, attempts.Load()-before)
	return err
}

// attack is one client of a flood: a wrong password, a right one, and so on. What becomes
// of them is nothing to it. It counts its attempts, and itself once it goes on.
func attack(ctx context.Context, url string, from func(attempt int) net.IP, attempts, begun *atomic.Int64) {
	for i := 0; ctx.Err() == nil; i++ {
		secret := password
		if i%2 == 0 {
			secret = "wrong " + strconv.Itoa(i)
		}
		conn, err := target.Login(ctx, dialer(from(i)), url, params(mallory, secret))
		if err == nil {
			_ = conn.Close() // the flood goes on whatever it says
		}
		attempts.Add(1)
		if i == 1 {
			begun.Add(1)
		}
	}
}
