// Command hadal runs a node, makes what a node needs (password hashes,
// certificates, configurations), and speaks to a running node for its operator.
// Every subcommand has a file; what they do is done by other rooms.
package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the program: it carries out args and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	begun := false // what goes wrong before is a mistake in args
	note(root, &begun)
	cmd, err := root.ExecuteContextC(context.Background())
	return report(stderr, cmd, err, begun)
}

// note has cmd and all below it set begun when they begin.
func note(cmd *cobra.Command, begun *bool) {
	if do := cmd.RunE; do != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*begun = true
			return do(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		note(sub, begun)
	}
}

func newRoot() *cobra.Command {
	start := newStart()
	root := &cobra.Command{
		Use:   "hadal",
		Short: "A realtime server for records, events, rpc and presence",
		Long: "Hadal is a realtime server that any deepstream client can log in to.\n" +
			"Without a command it starts a node, as `hadal start` does.",
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          start.RunE,
	}
	root.SetVersionTemplate("hadal {{.Version}}\n")
	root.Flags().AddFlagSet(start.Flags())
	root.AddCommand(start, newVersion(), newInfo(), newHash(), newHasher(), newCert(), newConfig(), newRecords(), newCluster(), newRules(), newUser(), newToken(), newKick(), newMigrate(), newBench(), newExitCodes())
	return root
}

// group is a command that only holds others.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("there is no command %q", cmd.CommandPath()+" "+args[0])
		}
		return usagef("which one? %s has commands of its own", cmd.CommandPath())
	}
	cmd.AddCommand(subs...)
	return cmd
}
