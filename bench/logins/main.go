// Command logins floods a node with logins that cost an argon2id each, and prints how
// others are served meanwhile: a subscriber who gets 50 events a second, and users who
// log in for the first time, two a second, one from an address from which others have
// logged in before, one from an address that was never seen.
//
//	logins --node bin/hadal
//	logins --node bin/hadal --time 1m --clients 1000 --only storage
//
// Every strategy that hashes passwords gets a node of its own, on which nobody logs in at
// first, then newcomers alone, and then two floods, one after the other, of attempts with
// wrong passwords and right ones in turn: from as many addresses as there are flooding
// clients, and from a new address for each attempt. The flood is a process that yields to
// the others, as it would be elsewhere; still all share the machine, so its load belongs
// to the numbers: it is printed too.
//
// At last three nodes in a cluster, and how long connections on two of them outlive the
// revocation of their tokens at the third.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	do := func() error { return run(ctx, os.Args[1:], os.Stdout) }
	if len(os.Args) > 1 && os.Args[1] == crowdCommand {
		do = func() error { return runCrowd(ctx, os.Args[2:], os.Stdin, os.Stdout) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "logins:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	node    string
	time    time.Duration
	clients int
}

// settle is how long a flood may take until it is measured.
const settle = 3 * time.Minute

const (
	head = "%-9s%-22s%6s%10s%10s%8s%12s%12s%12s%12s%10s\n"
	row  = "%-9s%-22s%6s%10.2f%10.2f%8s%12s%12s%12s%12s%10d\n"
)

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("logins", flag.ContinueOnError)
	var s settings
	var only string
	flags.StringVar(&s.node, "node", "bin/hadal", "the hadal binary to flood")
	flags.DurationVar(&s.time, "time", 20*time.Second, "how long each of the four states is measured")
	flags.IntVar(&s.clients, "clients", 200, "how many clients flood, at most 50000")
	flags.StringVar(&only, "only", "", "one part alone: file or storage, which are strategies, or revocation")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case s.time <= 0:
		return fmt.Errorf("--time is %v: it must be above zero", s.time)
	case s.clients < 1 || s.clients > 50_000:
		return fmt.Errorf("--clients is %d: it must be from 1 to 50000", s.clients)
	}
	known, told := false, false
	for _, strategy := range []string{"file", "storage", "revocation"} {
		if only != "" && only != strategy {
			continue
		}
		known = true
		if strategy == "revocation" {
			if err := revocations(ctx, s, out); err != nil {
				return fmt.Errorf("%s: %w", strategy, err)
			}
			continue
		}
		if !told {
			fmt.Fprintf(out, head, "strategy", "flood", "load", "event p50", "p99 ms", "ratio", "known p50", "max ms", "new p50", "max ms", "attempts")
		}
		told = true
		if err := measure(ctx, s, strategy, out); err != nil {
			return fmt.Errorf("%s: %w", strategy, err)
		}
	}
	if !known {
		return fmt.Errorf("--only is %q: it is file, storage or revocation", only)
	}
	return nil
}

// measure runs one strategy: nobody but the subscriber, newcomers as well, then both floods.
func measure(ctx context.Context, s settings, strategy string, out io.Writer) (err error) {
	v, err := start(ctx, s, strategy)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.stop()) }()
	var idle float64
	for i, f := range []flood{
		{name: "idle", idle: true},
		{name: "none"},
		{name: fmt.Sprintf("%d addresses", s.clients), clients: s.clients, from: "own"},
		{name: "a new address each", clients: s.clients, from: "another"},
	} {
		r, err := v.suffer(ctx, f, s.time)
		if err != nil {
			return fmt.Errorf("flood from %s: %w", f.name, err)
		}
		p99, ratio := ms(r.events, 99), ""
		if i == 0 {
			idle = p99
		} else {
			ratio = fmt.Sprintf("%.1f", p99/idle)
		}
		fmt.Fprintf(out, row, strategy, f.name, load(), ms(r.events, 50), p99, ratio,
			r.known.cell(50), r.known.cell(100), r.fresh.cell(50), r.fresh.cell(100), r.attempts)
	}
	return nil
}

// load is what the kernel says of the last minute: how many processes wanted to run.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
