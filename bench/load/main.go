// Command load puts load on a deepstream-protocol server and prints what it
// costs there: messages a second, server CPU for each message, latencies.
//
// It speaks the binary dialect through the project's own codec, on a lean
// client of its own, so that the generator takes as little as possible of the
// machine it shares with the server. Loops are closed: a fixed number of
// messages is in flight, so latency includes the queueing that this makes.
//
//	load --node bin/hadal                 starts a node in a temporary directory
//	load --url ws://host:6020/deepstream --pid 123
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"hadal/bench/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// settings are what the scenarios run with.
type settings struct {
	url   string
	pid   int // of the server; 0 when it is elsewhere
	time  time.Duration
	idle  int
	count int
	names int
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	var s settings
	var node, only, memory string
	flags.StringVar(&node, "node", "", "start this hadal binary in a temporary directory, and load it")
	flags.StringVar(&memory, "store", "disk", "records.store of that node: disk or memory")
	flags.StringVar(&s.url, "url", "", "load the server at this address instead, ws://host:port/path")
	flags.IntVar(&s.pid, "pid", 0, "process id of that server, for its CPU and memory")
	flags.DurationVar(&s.time, "time", 5*time.Second, "measured time of each scenario, after at most a second of warm-up")
	flags.IntVar(&s.idle, "idle", 10_000, "connections of the idle scenario")
	flags.IntVar(&s.count, "subscribers", 1000, "subscribers of the fanout scenario")
	flags.IntVar(&s.names, "names", 100_000, "names of the scenarios with many")
	flags.StringVar(&only, "only", "", "run these scenarios only: "+strings.Join(names(), ","))
	if err := flags.Parse(args); err != nil {
		return err
	}
	var chosen []scenario
	for _, sc := range scenarios {
		if only == "" || slices.Contains(strings.Split(only, ","), sc.name) {
			chosen = append(chosen, sc)
		}
	}
	switch {
	case len(chosen) == 0:
		return fmt.Errorf("no scenario %q; there are %s", only, strings.Join(names(), ", "))
	case (node == "") == (s.url == ""):
		return errors.New("say either --node or --url")
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "scenario\tmessages\t/s\tserver CPU us each\tp50 ms\tp99 ms\tload CPU us each\t")
	for _, sc := range chosen {
		fmt.Fprintf(os.Stderr, "%s: %s\n", sc.name, sc.text)
		if err := runOne(ctx, s, sc, node, memory, out); err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
	}
	return out.Flush()
}

// runOne runs one scenario, on a fresh node if we start it.
func runOne(ctx context.Context, s settings, sc scenario, node, store string, out *tabwriter.Writer) (err error) {
	if node != "" {
		n, err := target.StartNode(ctx, node, "", append(sc.env, "HADAL_RECORDS_STORE="+store)...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.Stop()) }()
		s.url, s.pid = n.URL, n.PID
	}
	m := newMeter(s)
	if err := sc.run(ctx, s, m); err != nil {
		return err
	}
	m.print(out, sc.name)
	return nil
}

func names() []string {
	var all []string
	for _, sc := range scenarios {
		all = append(all, sc.name)
	}
	return all
}
