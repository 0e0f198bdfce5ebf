package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"hadal/auth/hasher"
)

// hasherCommand is what a node runs this program with to hash passwords elsewhere.
const hasherCommand = "hasher"

func newHasher() *cobra.Command {
	return &cobra.Command{
		Use:    hasherCommand,
		Short:  "Hash passwords for the node that started it",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What stops all processes of a terminal or a service is for the node, which
			// hashes until it has stopped; this one ends with its input.
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			return hasher.Serve(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
