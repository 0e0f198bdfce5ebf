package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hadal/bench"
)

func newBench() *cobra.Command {
	f := benchFlags{Settings: bench.Default()}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a server: nodes of this program, one that runs, or others beside it",
		Long: `Measure a server that speaks deepstream's binary protocol.

Without --url nodes are started for it, a fresh one for each measurement, and
stopped again. With --url a server that runs is measured; its CPU and memory are
read too when its processes are on this machine and may be seen.

Every message carries a number, so what is lost, comes twice or out of order is
counted. With --rate messages go out at a rate and latencies count from the moment at
which a message was due; without, each sender keeps a window of messages in flight.

The numbers are worth something on a machine that does nothing else. The load average
stands in every result.

  hadal bench --scenario fanout,rpc
  hadal bench --json result.json --report result.html
  hadal bench --url ws://127.0.0.1:6020/deepstream --scenario pairs/paced --rate 5000
  hadal bench compare before.json after.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.add(cmd)
	cmd.AddCommand(newBenchList(), newBenchCompare(), newBenchReport(), newBareWriter())
	return cmd
}

// benchFlags are the flags of a run.
type benchFlags struct {
	bench.Settings
	scenarios, peers []string
	json, report     string
}

func (f *benchFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.scenarios, "scenario", nil, "`names` or families of scenarios (see `hadal bench list`); all without")
	flags.DurationVar(&f.Time, "time", f.Time, "how long each is measured")
	flags.DurationVar(&f.WarmUp, "warm-up", f.WarmUp, "how long the load runs before that")
	flags.IntVar(&f.Rounds, "rounds", f.Rounds, "how often each is measured; targets take turns")
	flags.Uint64Var(&f.Seed, "seed", f.Seed, "of what is left to chance")
	flags.IntVar(&f.Size, "size", f.Size, "`bytes` of data in a message")
	flags.IntVar(&f.Clients, "clients", 0, "`number` of clients instead of the scenario's")
	flags.IntVar(&f.Window, "window", 0, "closed loop: `number` of messages in flight of each sender")
	flags.Float64Var(&f.Rate, "rate", 0, "open loop: `messages` sent a second, by all senders together")
	flags.Float64Var(&f.Scale, "scale", f.Scale, "make the scenarios' numbers of clients smaller, as in 0.1")
	flags.StringArrayVar(&f.URLs, "url", nil, "`URL` of a server that runs; several for a cluster")
	flags.IntSliceVar(&f.PIDs, "pid", nil, "`processes` of that server, if they are not found by its port")
	flags.IntVar(&f.Nodes, "nodes", f.Nodes, "start 1 node, or a cluster of 3")
	flags.StringVar(&f.Binary, "node", "", "the hadal `program` to start; this one without")
	flags.StringArrayVar(&f.Env, "env", nil, "`NAME=VALUE` in the environment of nodes that are started, as in HADAL_RECORDS_STORE=memory")
	flags.StringArrayVar(&f.peers, "peer", nil, "`NAME=COMMAND` that starts another server to measure beside it (see bench/peers)")
	flags.BoolVar(&f.Bare, "bare", false, "measure a bare socket writer beside it: the limit")
	flags.StringVar(&f.User, "user", "", "`name` that all clients log in with; without, each has one of its own")
	flags.StringVar(&f.Password, "password", "", "its password, better given as HADAL_BENCH_PASSWORD")
	flags.StringVar(&f.Token, "token", "", "token to log in with, better given as HADAL_BENCH_TOKEN")
	flags.StringVar(&f.json, "json", "", "write the result to a `file`; - is standard output, instead of the table")
	flags.StringVar(&f.report, "report", "", "write the result to a `file` as a page with plots, readable without a network")
}

// settings are what the flags say, all of it.
func (f *benchFlags) settings() (bench.Settings, error) {
	s := f.Settings
	s.Scenarios = f.scenarios
	for _, p := range f.peers {
		name, command, ok := strings.Cut(p, "=")
		if !ok || name == "" || command == "" {
			return s, usagef("--peer: %q is not NAME=COMMAND", p)
		}
		s.Peers = append(s.Peers, bench.Peer{Name: name, Command: command})
	}
	if s.Password == "" {
		s.Password = os.Getenv("HADAL_BENCH_PASSWORD")
	}
	if s.Token == "" {
		s.Token = os.Getenv("HADAL_BENCH_TOKEN")
	}
	if s.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return s, fmt.Errorf("find this program, to start it: %w (say --node)", err)
		}
		s.Binary = self
	}
	return s, exitWith(exitUsage, s.Validate())
}

func (f *benchFlags) run(cmd *cobra.Command) error {
	s, err := f.settings()
	if err != nil {
		return err
	}
	ctx, done := interruptible(cmd)
	defer done()
	// One more than cores: who paces an open loop sleeps in the kernel, and the runtime takes a
	// while to notice that the processor that it holds is free.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	res, stopped := bench.Measure(ctx, s, benchProgram(), bench.NewView(cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr())))
	if len(res.Runs) == 0 {
		return stopped
	}
	if err := f.write(cmd.OutOrStdout(), cmd, res); err != nil {
		return errors.Join(stopped, err)
	}
	if stopped != nil {
		return fmt.Errorf("stopped before the end: %w", stopped)
	}
	return failures(res)
}

// write puts the result where the flags say.
func (f *benchFlags) write(out io.Writer, cmd *cobra.Command, res *bench.Result) error {
	var errs []error
	switch f.json {
	case "-":
		errs = append(errs, printJSON(cmd, res))
	case "":
		errs = append(errs, res.Table(out))
	default:
		errs = append(errs, res.Table(out), res.Write(f.json))
	}
	if f.report != "" {
		errs = append(errs, res.WriteReport(f.report))
	}
	return errors.Join(errs...)
}

// failures is an error when a measurement failed.
func failures(res *bench.Result) error {
	failed := 0
	for i := range res.Runs {
		if res.Runs[i].Failed() {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d measurements failed, see above", failed, len(res.Runs))
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// benchProgram is what measures.
func benchProgram() bench.Program {
	p := bench.Program{Version: buildVersion(), Go: runtime.Version()}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, s := range build.Settings {
			switch s.Key {
			case "vcs.revision":
				p.Commit = s.Value
			case "vcs.modified":
				p.Modified = s.Value == "true"
			}
		}
	}
	return p
}

func newBenchList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Print the scenarios",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, sc := range bench.All() {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-26s %s\n", sc.Name, sc.Text); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newBenchCompare() *cobra.Command {
	var against string
	cmd := &cobra.Command{
		Use:   "compare BEFORE.json [AFTER.json]",
		Short: "Print how two results differ, as ratios with their spread",
		Long: `Print how two results differ: for each scenario the ratio of the medians, and in
brackets the least and the most that any two rounds give. Where those are on both sides
of 1 there may be no difference at all: measure with more --rounds.

With one file, compare the targets in it with one of them: --against NAME.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := bench.Read(args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return compareTargets(cmd, a, against)
			}
			b, err := bench.Read(args[1])
			if err != nil {
				return err
			}
			all := bench.Compare(a, b)
			if len(all) == 0 {
				return errors.New("the files have no scenario in common that was measured on the same target")
			}
			return bench.WriteComparison(cmd.OutOrStdout(), all, func(c bench.Comparison) string { return c.B.Target })
		},
	}
	cmd.Flags().StringVar(&against, "against", "", "`target` that the others in a file are compared with")
	return cmd
}

func compareTargets(cmd *cobra.Command, r *bench.Result, against string) error {
	all := r.Against(against)
	if len(all) == 0 {
		var names []string
		for _, t := range r.Targets {
			names = append(names, t.Name)
		}
		return usagef("with one file say --against and a target that it has beside others: it has %s", strings.Join(names, ", "))
	}
	return bench.WriteComparison(cmd.OutOrStdout(), all, func(c bench.Comparison) string { return c.B.Target + " / " + c.A.Target })
}

func newBareWriter() *cobra.Command {
	return &cobra.Command{
		Use:    bench.BareCommand,
		Short:  "Copy what is published to its subscribers, and do nothing else: the limit",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, done := interruptible(cmd)
			defer done()
			return bench.BareWriter(ctx, cmd.OutOrStdout())
		},
	}
}

func newBenchReport() *cobra.Command {
	return &cobra.Command{
		Use:   "report RESULT.json PAGE.html",
		Short: "Make a page with plots of a result",
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := bench.Read(args[0])
			if err != nil {
				return err
			}
			return r.WriteReport(args[1])
		},
	}
}
