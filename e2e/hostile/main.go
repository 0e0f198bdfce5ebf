// Command hostile attacks a node and measures, beside each attack, how others are
// served: a few well-behaved clients send events, record writes with acks and rpcs
// at a steady rate, log in anew, and ask for health, whatever the answers take. A
// table says how many of their requests were answered and how fast, with no attack
// and under each, and how much memory the node took.
//
//	hostile --node bin/hadal
//	hostile --node bin/hadal --time 30s --only mute,logins
//
// The node runs with few open files (--files), so that what is derived from them is
// tried too. Attackers and clients share the machine with it: an attack that takes
// processors takes them from everybody, so look at what is lost, at the memory, and
// at the latencies of one attack beside those of another.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hadal/auth"
	"hadal/bench/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("hostile", flag.ContinueOnError)
	binary := flags.String("node", "bin/hadal", "the hadal binary to attack")
	files := flags.Int("files", 1024, "how many open files the node may have")
	length := flags.Duration("time", 10*time.Second, "how long each attack lasts")
	only := flags.String("only", "", "run these attacks only: "+strings.Join(names(), ","))
	if err := flags.Parse(args); err != nil {
		return err
	}
	victim, err := start(ctx, *binary, *files)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, victim.stop()) }()

	fmt.Fprintf(out, "%-10s", "attack")
	for _, kind := range kinds {
		fmt.Fprintf(out, cells, kind, "p50 ms", "p99 ms")
	}
	fmt.Fprintf(out, "%6s%8s\n", "MiB", "at most")
	for _, a := range attacks {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), a.name) {
			continue
		}
		res, err := victim.suffer(ctx, a, *length)
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		res.print(out, a.name)
	}
	return nil
}

// password is ada's, the only user who has one.
const password = "a long secret"

// victim is the node under attack.
type victim struct {
	node *target.Node
	dir  string
}

// start starts a node that may open few files, with a user whose password costs
// what a new one does; everybody else needs none. env is for its configuration.
func start(ctx context.Context, binary string, files int, env ...string) (*victim, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hadal-hostile-")
	if err != nil {
		return nil, err
	}
	v := &victim{dir: dir}
	script := filepath.Join(dir, "hadal")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec %q \"$@\"\n", files, binary)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		return nil, errors.Join(err, v.remove())
	}
	hash, err := auth.HashArgon2id(password)
	if err != nil {
		return nil, errors.Join(err, v.remove())
	}
	users := fmt.Sprintf("[{type: file, options: {users: {ada: {password: %q}}, reportInvalidParameters: true}}, {type: none}]", hash)
	v.node, err = target.StartNode(ctx, script, filepath.Join(dir, "data"), append(env, "HADAL_AUTH="+users, "HADAL_LOGLEVEL=warn")...)
	if err != nil {
		return nil, errors.Join(err, v.remove())
	}
	return v, nil
}

func (v *victim) remove() error { return os.RemoveAll(v.dir) }

func (v *victim) stop() error { return errors.Join(v.node.Stop(), v.remove()) }

// result is how an attack went.
type result struct {
	streams      []*stream
	before, most int64 // memory
}

// suffer has a crew served while an attack goes on.
func (v *victim) suffer(ctx context.Context, a attack, length time.Duration) (*result, error) {
	c, err := newCrew(ctx, v.node.URL)
	if err != nil {
		return nil, err
	}
	res := &result{streams: c.streams, before: target.RSS(v.node.PID)}
	attacking, stop := context.WithTimeout(ctx, length)
	defer stop()
	var wg sync.WaitGroup
	for i := range a.crowd {
		wg.Go(func() { a.run(attacking, &attacker{victim: v, n: i, rnd: rand.New(rand.NewPCG(1, uint64(i)))}) })
	}
	c.begin()
	for attacking.Err() == nil {
		res.most = max(res.most, target.RSS(v.node.PID))
		if err := target.Pause(attacking, 50*time.Millisecond); err != nil {
			break // the time is over
		}
	}
	err = c.end() // all is answered while the attackers still hold what they have
	wg.Wait()
	res.most = max(res.most, target.RSS(v.node.PID))
	return res, errors.Join(err, ctx.Err())
}

// cells are those of one stream: how many were answered, less the lost ones, and
// how fast.
const cells = "%12s%8s%8s"

func (r *result) print(w io.Writer, name string) {
	fmt.Fprintf(w, "%-10s", name)
	for _, s := range r.streams {
		answered := fmt.Sprint(len(s.took))
		if lost := s.sent - len(s.took); lost > 0 {
			answered += fmt.Sprintf(" -%d", lost)
		}
		fmt.Fprintf(w, cells, answered, s.quantile(0.5), s.quantile(0.99))
	}
	fmt.Fprintf(w, "%6d%8d\n", r.before>>20, r.most>>20)
}

// login connects a client that has a password like any other, but one that nobody
// checks: only what it costs to find that there is no such user.
func login(ctx context.Context, d *net.Dialer, url, user string) (*target.Client, error) {
	return target.Login(ctx, d, url, fmt.Sprintf(`{"username":%q,"password":"x"}`, user))
}

// from is a dialer that comes from an address of this machine, so that the server
// can tell attackers from others. Where there is only one, it is that.
func from(last byte) *net.Dialer {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, last)}
	probe, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return &net.Dialer{Timeout: answerTime}
	}
	_ = probe.Close() // nothing was sent
	return &net.Dialer{Timeout: answerTime, LocalAddr: addr}
}
