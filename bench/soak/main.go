// Command soak uses a node as a long time would, and fails when what that leaves
// behind is more than a stated band: memory, goroutines, descriptors, the data
// directory, and what the node itself counts.
//
//	soak --node bin/hadal
//
// It starts the node with a small cache for records, so that the cache is full
// from the start on and does not look like a leak, and uses it a little before
// anything is measured. Three phases follow, and after each the node has to come
// back to where it was:
//
//   - clients that log in and go, a million of them, some at a time: half of them
//     with subscriptions, patterns and procedures that they leave behind; a third
//     with a close frame, a third just closing, a third by a reset. They come
//     from 250 addresses, because a closed connection keeps its port for a
//     minute.
//   - records that are created and deleted, in rounds, so that the log is purged
//     and tombstones are compacted away, around others that stay and must all be
//     there in the end.
//   - subscriptions that are made and dropped, half of them by going.
//
// What comes back by and by, such as the block caches of the embedded server, is
// waited for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"hadal/bench/target"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// settings say how much is done.
type settings struct {
	node          string
	connects      int
	records       int
	subscriptions int
	rounds        int
	workers       int
	rest          time.Duration
	limit         time.Duration
}

func parse(args []string) (settings, error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	var s settings
	flags.StringVar(&s.node, "node", "", "the hadal binary to start")
	flags.IntVar(&s.connects, "connects", 1_000_000, "logins")
	flags.IntVar(&s.records, "records", 100_000, "records created and deleted in each round")
	flags.IntVar(&s.subscriptions, "subscriptions", 1_000_000, "subscriptions made and dropped in each round")
	flags.IntVar(&s.rounds, "rounds", 4, "rounds of records and of subscriptions")
	flags.IntVar(&s.workers, "workers", 32, "clients at a time")
	flags.DurationVar(&s.rest, "rest", 15*time.Second, "how long the node rests before it is measured first; later it has eight times that to come back")
	flags.DurationVar(&s.limit, "limit", time.Hour, "fail after this time")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	switch {
	case s.node == "":
		return s, errors.New("say --node")
	case min(s.connects, s.records, s.subscriptions, s.rounds, s.workers) < 1:
		return s, errors.New("at least one of everything")
	}
	return s, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	s, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not done in %v", s.limit))
	defer cancel()
	n, err := target.StartNode(ctx, s.node, "", "HADAL_RECORDS_CACHEBYTES=1048576")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	err = soak(ctx, s, n, out)
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	return err
}

// phase is one kind of use.
type phase struct {
	name string
	do   func(ctx context.Context, s settings, n *target.Node, p *progress) error
}

var phases = []phase{{"connects", connects}, {"records", records}, {"subscriptions", subscriptions}}

// soak does all phases, reads in between, and prints what it read.
func soak(ctx context.Context, s settings, n *target.Node, out io.Writer) error {
	if err := keep(ctx, s, n); err != nil {
		return fmt.Errorf("create what stays: %w", err)
	}
	warm := s
	warm.connects, warm.records = min(s.connects, 20_000), min(s.records, 20_000)
	warm.subscriptions, warm.rounds = min(s.subscriptions, 20_000), 1
	for _, ph := range phases {
		if err := use(ctx, warm, n, ph, "warm-up: "+ph.name); err != nil {
			return err
		}
	}
	before, err := lowest(ctx, n, s.rest)
	if err != nil {
		return err
	}
	var over error
	readings := []reading{before}
	for _, ph := range phases {
		peak := watch(ctx, n)
		err := use(ctx, s, n, ph, ph.name)
		top, watchErr := peak()
		if err = errors.Join(err, watchErr); err != nil {
			return err
		}
		after, err := settle(ctx, n, before, 8*s.rest)
		if err != nil {
			return err
		}
		top.when, after.when = "during "+ph.name, "after "+ph.name
		readings = append(readings, top, after)
		over = errors.Join(over, before.compare(after), before.compareDir(top))
	}
	return errors.Join(printReadings(out, before, readings), over, checkKept(ctx, s, n))
}

func use(ctx context.Context, s settings, n *target.Node, ph phase, name string) error {
	p := newProgress(name, os.Stderr)
	err := ph.do(ctx, s, n, p)
	p.end()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
