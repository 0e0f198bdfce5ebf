//go:build linux

// Command cluster holds a cluster of real node processes to what it promises, while they
// are killed, paused and parted from each other:
//
//   - jepsen: clients on all nodes write, patch, delete and read a few records under a
//     seeded nemesis. What they were told must be linearizable for each record (porcupine
//     decides); no version may be acknowledged twice, nothing acknowledged may be lost,
//     what subscribers are shown never runs backwards and ends at the newest state.
//   - mutant: the same of nodes that are built to be wrong, which must be found out.
//   - control: the same of nodes that only do what brings such a mistake to light, which must
//     pass, and must have needed what the mutant lacks.
//   - rolling: drain, stop and start each node under that load; not even an error other
//     than a lost connection may reach a client.
//   - joins: nodes come one by one, again and again, without their data, all at once.
//   - ordeals: a node's data copied to another machine, a removed node that returns, one that
//     was away while much changed, one that is cut off with clients logged in, a full disk,
//     certificates that are renewed and expire, all killed and started in every order; under
//     load, and judged as jepsen is.
//   - idle: what nodes take that nobody uses.
//   - gaps: kill, pause and part the owner of records, and measure how long they and others
//     cannot be written.
//   - soak: many clients come, subscribe, write and go; memory and goroutines of the nodes
//     return to where they were.
//
// With root each node has a network namespace of its own, so that networks can be cut, in
// one direction or both; without, or with HADAL_NO_ROOT_TESTS=1, the nodes share the loopback
// device and are killed and paused only. With --clocks the nodes are of a build whose clock
// on the wall can be moved (clock.sh): libfaketime cannot be put between a Go program and the
// kernel's vDSO, and a time namespace shifts only the clocks that count from the start of
// the machine, once, before the process starts. What a jump of those does to a
// process is what a pause does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"hadal/store"
)

// settings are what a check runs with.
type settings struct {
	node, mutant string // binaries
	fault        string // of the mutant
	nodes        int
	seed         uint64
	time         time.Duration
	rounds       int
	only         string // the one fault that gaps measures, or the one of the ordeals; empty for all
	full         bool   // ordeals however long they take
	logLevel     string // of the nodes
	work         string // a directory of this run's own
	parted       bool
	clocks       bool
}

// checks are the program's checks. Each returns its summary.
var checks = map[string]func(ctx context.Context, s *settings) (string, error){
	"jepsen": jepsen, "mutant": mutants, "control": control, "rolling": rolling, "gaps": gaps, "soak": soak,
	"joins": joins, "idle": rest, "ordeals": runOrdeals,
}

// noRootEnv leaves out what needs root.
const noRootEnv = "HADAL_NO_ROOT_TESTS"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	var s settings
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.StringVar(&s.node, "node", "bin/hadal", "the hadal binary")
	flags.StringVar(&s.mutant, "mutant", "bin/hadal-mutant", "the hadal binary, built with the tag mutant")
	flags.StringVar(&s.fault, "fault", "fence,stall", "what is wrong with the mutant: HADAL_MUTANT, or NAME=VALUE of its environment")
	flags.IntVar(&s.nodes, "nodes", 3, "how many nodes; 1 is a node that runs alone")
	flags.Uint64Var(&s.seed, "seed", rand.Uint64(), "of the nemesis and of what clients ask")
	flags.DurationVar(&s.time, "time", time.Minute, "how long the nemesis works, in jepsen, mutant and control")
	flags.IntVar(&s.rounds, "rounds", 20, "how often each fault is measured, in gaps")
	flags.StringVar(&s.only, "only", "", "the one fault that gaps measures, such as \"kill -9\", or the one of the ordeals; all by default")
	flags.BoolVar(&s.full, "full", false, "ordeals that take long, too")
	flags.StringVar(&s.logLevel, "log-level", "info", "of the nodes: debug has them say when records change hands")
	flags.BoolVar(&s.clocks, "clocks", false, "move clocks too: the node is one that clock.sh has built")
	keep := flags.Bool("keep", false, "keep logs and data although nothing is wrong")
	flags.Usage = func() {
		names := make([]string, 0, len(checks))
		for name := range checks {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(flags.Output(), "usage: cluster [flags] %s\n", strings.Join(names, "|"))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	check, ok := checks[flags.Arg(0)]
	if !ok || flags.NArg() != 1 {
		flags.Usage()
		return errors.New("name one check")
	}
	s.parted = os.Getuid() == 0 && os.Getenv(noRootEnv) != "1"
	if !s.parted && s.nodes > 1 {
		fmt.Println("networks are not cut, which needs root: nodes are killed and paused only")
	}
	if s.work, err = os.MkdirTemp("", "hadal-cluster-"); err != nil {
		return err
	}
	fmt.Printf("%s: seed %d\n", flags.Arg(0), s.seed)
	began := time.Now()
	summary, err := check(ctx, &s)
	if summary != "" {
		fmt.Printf("%s: %s (%v)\n", flags.Arg(0), summary, time.Since(began).Round(time.Second))
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n  seed %d; logs and data are in %s", flags.Arg(0), err, s.seed, s.work)
	}
	if *keep {
		fmt.Println("logs and data are in", s.work)
		return nil
	}
	return os.RemoveAll(s.work)
}

// say reports progress.
func say(format string, args ...any) {
	fmt.Printf("    %s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// withRig starts a cluster, has it used, and ends it.
func withRig(ctx context.Context, s *settings, binary, name, fault string, use func(r *rig) error) (err error) {
	r, err := newRig(binary, filepath.Join(s.work, name), s.nodes, s.parted, fault)
	if err != nil {
		return err
	}
	r.clocks = s.clocks
	for _, n := range r.nodes {
		n.args = append(n.args, "--log-level", s.logLevel)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.start(ctx); err != nil {
		return err
	}
	if r.net != nil && !r.net.netem {
		say("this kernel has no netem: nothing is delayed")
	}
	return use(r)
}

// jepsen is one trial under a nemesis.
func jepsen(ctx context.Context, s *settings) (summary string, err error) {
	return hunt(ctx, s, s.node, "nodes", "", s.seed, false)
}

func hunt(ctx context.Context, s *settings, binary, name, fault string, seed uint64, depose bool) (summary string, err error) {
	err = withRig(ctx, s, binary, name, fault, func(r *rig) error {
		t := newTrial(r, seed, false)
		if fault != "" {
			t.hasty = true
			t.writers *= 2 // so that whoever is stopped is writing
		}
		m := &nemesis{
			rig: r, rand: rand.New(rand.NewPCG(seed, 1<<32)), names: t.names, done: map[string]int{}, depose: depose,
			log: func(format string, args ...any) {
				say("%8.3fs %s", time.Since(t.history.began).Seconds(), fmt.Sprintf(format, args...))
			},
		}
		var err error
		summary, err = t.run(ctx, func(ctx context.Context) error {
			ctx, done := context.WithTimeout(ctx, s.time)
			defer done()
			return m.run(ctx)
		})
		summary += "; faults: " + m.summary()
		return err
	})
	return summary, err
}

// mutantRounds is how many trials a mutant may survive at most.
const mutantRounds = 15

// mutants holds nodes that are built to be wrong to the same promises.
func mutants(ctx context.Context, s *settings) (string, error) {
	for i := range mutantRounds {
		summary, err := hunt(ctx, s, s.mutant, fmt.Sprintf("mutant-%d", i+1), s.fault, s.seed+uint64(i), s.nodes > 1)
		broken := violation("")
		switch {
		case errors.As(err, &broken):
			say("%v", err)
			return fmt.Sprintf("%s: caught in trial %d", s.fault, i+1), nil
		case err != nil:
			return "", err
		}
		say("trial %d noticed nothing: %s", i+1, summary)
	}
	return "", fmt.Errorf("nodes with the fault %s were not found out in %d trials", s.fault, mutantRounds)
}

// control holds the nodes that a mutant was made of, without the mistake, to the same
// promises, until the fence has refused a batch of an owner that was replaced.
func control(ctx context.Context, s *settings) (string, error) {
	for i := range mutantRounds {
		name := fmt.Sprintf("control-%d", i+1)
		summary, err := hunt(ctx, s, s.mutant, name, s.fault, s.seed+uint64(i), s.nodes > 1)
		if err != nil {
			return summary, err
		}
		late, err := refusedLate(filepath.Join(s.work, name))
		if err != nil {
			return "", err
		}
		if late > 0 {
			return fmt.Sprintf("%s; batches that came too late, and were refused: %d", summary, late), nil
		}
		say("trial %d had no need of a fence: %s", i+1, summary)
	}
	return "", fmt.Errorf("nodes with the fault %s had no need of a fence in %d trials: that proves nothing", s.fault, mutantRounds)
}

// refusedLate counts, in the logs of a trial, the batches that were held on purpose and then
// refused by the fence (stall, in store/jetstream).
func refusedLate(dir string) (int, error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return 0, err
	}
	late := 0
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "a batch was held on purpose") && strings.Contains(line, store.ErrFenced.Error()) {
				late++
			}
		}
	}
	return late, nil
}

// rolling restarts every node in good order, under load.
func rolling(ctx context.Context, s *settings) (summary string, err error) {
	err = withRig(ctx, s, s.node, "nodes", "", func(r *rig) error {
		t := newTrial(r, s.seed, true)
		var took []string
		var err error
		summary, err = t.run(ctx, func(ctx context.Context) error {
			for _, n := range r.nodes {
				wait(ctx, 2*time.Second)
				began := time.Now()
				if s.nodes > 1 {
					if err := n.drain(ctx, r.binary); err != nil {
						return violation(err.Error())
					}
				}
				drained := time.Since(began)
				if err := n.stop(); err != nil {
					return violation(err.Error())
				}
				stopped := time.Since(began) - drained
				if err := n.start(r.binary); err != nil {
					return err
				}
				if err := r.awaitReady(ctx, patience); err != nil {
					return violation(err.Error())
				}
				took = append(took, fmt.Sprintf("%s drained in %v, stopped in %v, ready again after %v in all", n.name,
					drained.Round(time.Millisecond), stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond)))
				say("%s", took[len(took)-1])
			}
			return nil
		})
		summary += fmt.Sprintf("; %d errors besides lost connections", t.errors.Load())
		return err
	})
	return summary, err
}
