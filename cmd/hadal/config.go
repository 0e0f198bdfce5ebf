package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"hadal/node"
)

func newConfig() *cobra.Command {
	return group(&cobra.Command{
		Use:   "config",
		Short: "Check, show, or begin a configuration",
	}, newConfigCheck(), newConfigShow(), newConfigDefault())
}

func newConfigCheck() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "check [file]",
		Short: "Check the configuration, the users, the rules and the certificates",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, loaded, err := f.load(cmd, args)
			if err != nil {
				return err
			}
			if err := check(cfg, cmd.ErrOrStderr()); err != nil {
				return exitWith(exitConfig, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", source(loaded))
			return err
		},
	}
	f.add(cmd)
	return cmd
}

func newConfigShow() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "show [file]",
		Short: "Print the configuration as a node would use it, without its secrets",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, loaded, err := f.load(cmd, args)
			if err != nil {
				return err
			}
			text, err := cfg.Show()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "# From %s.\n%s", source(loaded), text)
			return err
		},
	}
	f.add(cmd)
	return cmd
}

func newConfigDefault() *cobra.Command {
	return &cobra.Command{
		Use:   "default",
		Short: "Print a configuration file with every key at its default, explained",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(node.DefaultYAML())
			return err
		},
	}
}

// source says in words where a configuration came from.
func source(l node.Loaded) string {
	if l.File == "" {
		return "the built-in configuration (no file was found)"
	}
	return l.File
}
