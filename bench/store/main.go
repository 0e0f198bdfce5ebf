// Command store measures the record store alone, without sockets and protocol:
// what a group commit costs, how long a writer waits for it, and how fast a
// store starts again.
//
//	store                             LOG and STATE, every cell, beside the reference
//	store --stores log-only,state     what the checkpoint costs; STATE without LOG
//	store --writers 512 --names hot --cpu-profile cpu.out
//	store --start                     fill, kill -9, start again
//	store --start --node bin/hadal    the same, and a whole node on the filled directory
//
// A cell is a store, a set of names and a number of writers. Each writer changes
// a name picked at random, waits for its own change to be durable, and goes on.
// In between stands an owner that does what the owner of a partition in
// node/record does (owner.go). Loops are closed, so a latency includes the
// queueing that the other writers make.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

// settings are what the command line says.
type settings struct {
	dir           string
	stores, names []string
	writers       []int
	sync          string
	time, warmUp  time.Duration
	checkpointAge time.Duration
	json, start   bool
	records, tail int
	limit         time.Duration
	node, child   string
	cpu, allocs   string
}

func parse(args []string) (settings, error) {
	flags := flag.NewFlagSet("store", flag.ContinueOnError)
	var s settings
	var stores, names, writers string
	flags.StringVar(&s.dir, "dir", "", "make the data directories in here; a disk, not tmpfs (default: where temporary files go)")
	flags.StringVar(&stores, "stores", "log", "of "+strings.Join(storeNames(), ",")+": what to measure")
	flags.StringVar(&names, "names", "hot,uniform", "sets of names: hot (100), uniform (100 000)")
	flags.StringVar(&writers, "writers", "1,64,512,4096", "numbers of writers")
	flags.StringVar(&s.sync, "sync", "always", "always (fsync every commit) or interval (every second)")
	flags.DurationVar(&s.time, "time", 10*time.Second, "measured time of each cell: longer than the time between checkpoints")
	flags.DurationVar(&s.warmUp, "warm-up", 2*time.Second, "time of each cell before that")
	flags.DurationVar(&s.checkpointAge, "checkpoint-age", 0, "time between checkpoints, instead of the store's own")
	flags.BoolVar(&s.json, "json", false, "print a JSON object a line instead of a table")
	flags.BoolVar(&s.start, "start", false, "measure a start after kill -9 instead")
	flags.IntVar(&s.records, "records", 1_000_000, "records of 200 bytes in STATE, for --start")
	flags.IntVar(&s.tail, "tail", 200_000, "changes in the LOG, for --start")
	flags.DurationVar(&s.limit, "limit", 0, "fail when a start takes longer, for --start")
	flags.StringVar(&s.node, "node", "", "start this hadal binary as well, for --start")
	flags.StringVar(&s.child, "child", "", "what a process does that --start has started: fill or serve")
	flags.StringVar(&s.cpu, "cpu-profile", "", "write a CPU profile of all cells, or of the start, to this file")
	flags.StringVar(&s.allocs, "alloc-profile", "", "write a profile of all allocations to this file")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("what is %q?", flags.Arg(0))
	}
	for word := range strings.SplitSeq(writers, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return s, fmt.Errorf("--writers: %q is no number of writers", word)
		}
		s.writers = append(s.writers, n)
	}
	s.stores, s.names = strings.Split(stores, ","), strings.Split(names, ",")
	for _, name := range s.stores {
		if !slices.Contains(storeNames(), name) {
			return s, fmt.Errorf("--stores: there is no %q; there are %s", name, strings.Join(storeNames(), ", "))
		}
	}
	for _, name := range s.names {
		if namesOf(name) == nil {
			return s, fmt.Errorf("--names: there is no %q; there are hot, uniform", name)
		}
	}
	switch {
	case s.sync != "always" && s.sync != "interval":
		return s, fmt.Errorf("--sync: %q is neither always nor interval", s.sync)
	case s.time <= 0 || s.warmUp < 0:
		return s, errors.New("--time and --warm-up: there is nothing to measure")
	case s.records < 1 || s.tail < 1:
		return s, errors.New("--records and --tail: at least one of each")
	}
	return s, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	s, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case s.child != "":
		return runChild(ctx, s, out)
	case s.start:
		return measureStart(ctx, s, out)
	}
	if err := profiled(s.cpu, func() error { return measureCells(ctx, s, out) }); err != nil {
		return err
	}
	if s.allocs == "" {
		return nil
	}
	f, err := os.Create(s.allocs)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close())
}

// profiled runs do under a CPU profile, if there is a file for it.
func profiled(file string, do func() error) error {
	if file == "" {
		return do()
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = do()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

// measureCells runs every cell on a fresh store and prints it.
func measureCells(ctx context.Context, s settings, out io.Writer) error {
	var t *table
	if !s.json {
		t = newTable(out)
	}
	for _, kind := range s.stores {
		for _, names := range s.names {
			for _, writers := range s.writers {
				c := cell{Store: kind, Names: names, Writers: writers, Sync: s.sync}
				if err := c.measure(ctx, s); err != nil {
					return fmt.Errorf("%s, %s, %d writers: %w", kind, names, writers, err)
				}
				if s.json {
					if err := json.NewEncoder(out).Encode(c); err != nil {
						return err
					}
					continue
				}
				t.row(&c)
			}
		}
	}
	return nil
}
