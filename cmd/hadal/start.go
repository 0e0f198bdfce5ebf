package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"hadal/auth/hasher"
	"hadal/node"
)

func newStart() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Run a node",
		Long: `Run a node until it is told to stop.

  SIGTERM, SIGINT  stop in order: accept nobody any more, make durable and answer
                   what was asked, say goodbye to the clients; a second one stops
                   the node at once
  SIGHUP           read the configuration again and take over its rules, users
                   and certificates; if anything is wrong, all stays as it was

The same as on SIGHUP is done when the text of the rules file changes, unless
permission.options.watch is false.

Without a configuration file the node listens on loopback only and lets everybody
in. Every key of the configuration can also be set by an environment variable:
see ` + "`hadal config default`" + `.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return f.start(cmd, args) },
	}
	f.add(cmd)
	return cmd
}

// startFlags are the flags that change a configuration.
type startFlags struct {
	config, host, dataDir, logLevel, logFormat string
	nodeName, clusterName, clusterListen       string
	clusterAdvertise, join, role               string
	port, bootstrapExpect                      int
	disableAuth, disablePermissions            bool
}

func (f *startFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "configuration `file`")
	flags.StringVar(&f.host, "host", "", "`address` that clients connect to")
	flags.IntVar(&f.port, "port", 0, "`port` that clients connect to; 0 takes a free one")
	flags.StringVar(&f.dataDir, "data-dir", "", "`directory` for records and the admin socket")
	flags.StringVar(&f.logLevel, "log-level", "", "debug, info, warn, error or off")
	flags.StringVar(&f.logFormat, "log-format", "", "text or json")
	flags.StringVar(&f.nodeName, "node-name", "", "`name` of this node, its own in its cluster")
	flags.StringVar(&f.clusterName, "cluster-name", "", "`name` of the cluster; without one the node runs alone")
	flags.StringVar(&f.clusterListen, "cluster-listen", "", "`host:port` for the other nodes, which use the next port too")
	flags.StringVar(&f.clusterAdvertise, "cluster-advertise", "", "`host:port` at which the others reach it, if it is another")
	flags.StringVar(&f.join, "join", "", "`host:port,...` of nodes to meet, this one among them or not")
	flags.IntVar(&f.bootstrapExpect, "bootstrap-expect", 0, "`number` of core nodes that make a new cluster; 0 is as many as --join lists")
	flags.StringVar(&f.role, "role", "", "core, or edge for a node that carries clients only")
	flags.BoolVar(&f.disableAuth, "disable-auth", false, "let everybody in")
	flags.BoolVar(&f.disablePermissions, "disable-permissions", false, "let everybody do everything")
}

// overrides are the flags that were given.
func (f *startFlags) overrides(cmd *cobra.Command) node.Overrides {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	o := node.Overrides{DisableAuth: f.disableAuth, DisablePermissions: f.disablePermissions}
	for name, to := range map[string]struct {
		value *string
		set   **string
	}{
		"host": {&f.host, &o.Host}, "data-dir": {&f.dataDir, &o.DataDir},
		"log-level": {&f.logLevel, &o.LogLevel}, "log-format": {&f.logFormat, &o.LogFormat},
		"node-name": {&f.nodeName, &o.NodeName}, "cluster-name": {&f.clusterName, &o.ClusterName},
		"cluster-listen": {&f.clusterListen, &o.ClusterListen}, "cluster-advertise": {&f.clusterAdvertise, &o.ClusterAdvertise},
		"join": {&f.join, &o.Join}, "role": {&f.role, &o.Role},
	} {
		if given(name) {
			*to.set = to.value
		}
	}
	if given("port") {
		o.Port = &f.port
	}
	if given("bootstrap-expect") {
		o.BootstrapExpect = &f.bootstrapExpect
	}
	return o
}

// load reads the configuration and tells its warnings on standard error. The
// file may also be an argument.
func (f *startFlags) load(cmd *cobra.Command, args []string) (node.Config, node.Loaded, error) {
	cfg, loaded, err := f.read(cmd, args)
	for _, w := range loaded.Warnings {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "hadal: warning: %s\n", w); err != nil {
			return cfg, loaded, err
		}
	}
	return cfg, loaded, err
}

// read is load that leaves the warnings to the caller.
func (f *startFlags) read(cmd *cobra.Command, args []string) (node.Config, node.Loaded, error) {
	if len(args) > 0 {
		if cmd.Flags().Changed("config") {
			return node.Config{}, node.Loaded{}, usagef("the file is named twice: %s and --config", args[0])
		}
		f.config = args[0]
	}
	cfg, loaded, err := node.LoadConfig(f.config, f.overrides(cmd))
	return cfg, loaded, exitWith(exitConfig, err)
}

// check finds what is wrong with what the configuration names: users, rules,
// certificates. Warnings, such as that of a certificate that has expired, are
// told on stderr.
func check(cfg node.Config, stderr io.Writer) error {
	cfg.LogLevel = node.LogWarn
	_, err := node.New(cfg, node.NewLogger(cfg, stderr))
	return err
}

func (f *startFlags) start(cmd *cobra.Command, args []string) error {
	node.Version = buildVersion()
	cfg, loaded, err := f.read(cmd, args)
	if err != nil {
		return err
	}
	log := node.NewLogger(cfg, cmd.ErrOrStderr())
	log.Info("starting", "version", node.Version, "config", source(loaded))
	for _, w := range loaded.Warnings {
		log.Warn(w)
	}
	err = f.serve(cmd, cfg, loaded, log)
	if err != nil && cfg.Logger.Type == "json" {
		// For programs: report would write text between lines of JSON.
		for _, e := range split(err) {
			log.Error("failed", "err", headline(e))
		}
		err = exitWith(codeOf(err), errTold)
	}
	return err
}

// serve runs a node until it ends.
func (f *startFlags) serve(cmd *cobra.Command, cfg node.Config, loaded node.Loaded, log *slog.Logger) error {
	defer ballast()()
	n, err := node.New(cfg, log)
	if err != nil {
		return exitWith(exitConfig, err)
	}
	defer hasher.Start(log, hasherCommand)()
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	var listening sync.WaitGroup
	defer listening.Wait()
	// Reloads have a goroutine of their own: a signal to stop does not wait for one.
	reloads, endReloads := context.WithCancel(ctx)
	defer endReloads()
	due := make(chan struct{}, 1)
	reload := func() {
		select {
		case due <- struct{}{}:
		default: // one that has not begun is enough
		}
	}
	watch := node.NewWatch(log, reload)
	listening.Go(func() { watch.Run(reloads) })
	listening.Go(func() {
		watch.Follow(reloads, loaded.Watched(cfg))
		for {
			select {
			case <-due:
				f.reload(reloads, cmd, n, watch, log)
			case <-reloads.Done():
				return
			}
		}
	})
	over := make(chan struct{})
	defer close(over)
	listening.Go(func() {
		attend(signals, over,
			reload,
			func(sig os.Signal) { cancel(stopped{sig}) },
			func(sig os.Signal) {
				log.Warn("stopping at once", "signal", sig)
				os.Exit(exitSignal + int(sig.(syscall.Signal)))
			})
	})
	err = n.Run(ctx)
	select {
	case <-n.Started():
		return err
	default:
	}
	if asked := (stopped{}); errors.As(err, &asked) {
		log.Info("stopped before it had started", "cause", asked)
		return nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w: choose another (that of httpServer with --port), or stop who has it", err)
	}
	return exitWith(exitCannotStart, err)
}

// reload takes over what can be taken over from the configuration as it is now.
func (f *startFlags) reload(ctx context.Context, cmd *cobra.Command, n *node.Node, watch *node.Watch, log *slog.Logger) {
	cfg, loaded, err := node.LoadConfig(f.config, f.overrides(cmd))
	watch.Seen(ctx, loaded.Rules)
	if err == nil {
		err = n.Reload(ctx, cfg)
	}
	if errors.Is(err, node.ErrUnjudged) || errors.Is(err, node.ErrUnconfirmed) {
		log.Error("reload not finished", "err", headline(err))
		return
	}
	if err != nil {
		for _, e := range split(err) {
			log.Error("reload refused, all stays as it was", "err", headline(e))
		}
		return
	}
	watch.Follow(ctx, loaded.Watched(cfg))
	for _, w := range loaded.Warnings {
		log.Warn(w)
	}
}

// headline is an error without the excerpt of a file below it: a line of a log.
func headline(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
