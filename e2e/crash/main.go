//go:build linux

// Command crash proves that an acknowledged write is never lost, by taking the
// process, the power or the disk away from it, and by three mistakes made on
// purpose that the same checks must find.
//
//	crash --mutant bin/crash-mutant --node bin/hadal [--full] [--only kill,power]
//
// # How it looks
//
// A victim is this program once more: a data directory, the embedded server, a LOG
// in front of STATE, and the record room with a cache that holds a tenth of the
// records, so that hardly a record is in memory when it is asked for. A checkpoint
// begins every 100 ms. 64 clients write, delete and read, half of the time 64 hot
// records, else any of 2048; each write names the version that it must become, so
// they compete. One more client is subscribed to the hot records.
//
// Everything a client is told is told to the parent through a pipe, on the owner's
// goroutine, in the order in which it happened; what it asks for is told before.
// What is in the pipe outlives the victim. The parent holds all of it against a
// ledger (ledger.go), in which a record has one state, and the only next one is the
// next version or none. At each start the victim tells what it finds, by a scan and
// by reading each record.
//
// # What happens to it
//
//   - kill: SIGKILL at a random moment, while it starts or within a second of load.
//   - fence: a second owner takes the records over while the first one goes on.
//   - power: the data lies on an ext4 file system in a file. The victim is stopped in
//     the middle of its work and the file is copied, without what the kernel has in
//     memory for that file system. The copy is the disk after a power cut: it is
//     mounted, which replays its journal, and the next victim lives there. What the
//     disk itself would lose of what it was given is not in this test.
//   - sync, purge, fenceless: the mutants, in a build with the tag "mutant". The
//     check passes when the ledger finds them out.
//   - full, readonly: a whole node on a small volume (node.go, full.go).
//
// Moments come from a seed, which is printed; the machine adds its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "victim" {
		if err := runVictim(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
		return
	}
	// The victims die with the thread that began them: it must be the process's.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

// settings are what the checks run with.
type settings struct {
	full   bool
	self   string // this program
	mutant string // this program, built with the tag "mutant"
	node   string // the hadal binary
	work   string // a directory of this run's own
	rand   *rand.Rand
}

// rounds is how many there are of something.
func (s *settings) rounds(short, full int) int {
	if s.full {
		return full
	}
	return short
}

// within is a random time.
func (s *settings) within(d time.Duration) time.Duration {
	return time.Duration(s.rand.Int64N(int64(d)))
}

// say reports progress.
func say(format string, args ...any) { fmt.Printf("    "+format+"\n", args...) }

// check is one of the program's checks. It returns its summary.
type check struct {
	name string
	run  func(ctx context.Context, s *settings) (string, error)
	root bool // needs root and loop devices
}

var checks = []check{
	{"kill", killed, false},
	{"fence", fenced, false},
	{"power", powerless, true},
	{"purge", mutantPurge, false},
	{"fenceless", mutantFence, false},
	{"sync", mutantSync, true},
	{"full", diskFull, true},
	{"readonly", diskReadOnly, true},
}

// noRootEnv leaves out the checks that need root.
const noRootEnv = "HADAL_NO_ROOT_TESTS"

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("crash", flag.ContinueOnError)
	var s settings
	var only string
	seed := flags.Uint64("seed", rand.Uint64(), "of the moments and the writes")
	flags.BoolVar(&s.full, "full", false, "many rounds instead of few")
	flags.StringVar(&s.mutant, "mutant", "bin/crash-mutant", "this program, built with the tag mutant")
	flags.StringVar(&s.node, "node", "bin/hadal", "the hadal binary")
	flags.StringVar(&only, "only", "", "run these checks only: "+strings.Join(names(), ","))
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	if s.self, err = os.Executable(); err != nil {
		return err
	}
	s.rand = rand.New(rand.NewPCG(*seed, 0))
	work, done, err := openWork()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	s.work = work
	fmt.Printf("seed %d\n", *seed)
	for _, c := range chosen {
		if c.root && os.Getenv(noRootEnv) == "1" {
			fmt.Printf("%s: left out, because it needs root and %s=1 is set\n", c.name, noRootEnv)
			continue
		}
		fmt.Printf("%s:\n", c.name)
		began := time.Now()
		summary, err := c.run(ctx, &s)
		if err != nil {
			return fmt.Errorf("%s: %w\n(seed %d)", c.name, err, *seed)
		}
		fmt.Printf("%s (%v)\n", summary, time.Since(began).Round(time.Second))
	}
	return nil
}

func names() []string {
	var all []string
	for _, c := range checks {
		all = append(all, c.name)
	}
	return all
}

// choose finds the checks of a list of names.
func choose(only string) ([]check, error) {
	if only == "" {
		return checks, nil
	}
	var chosen []check
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no check %q, only %s", name, strings.Join(names(), ", "))
		}
		chosen = append(chosen, checks[i])
	}
	return chosen, nil
}
