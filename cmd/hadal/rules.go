package main

import "github.com/spf13/cobra"

func newRules() *cobra.Command {
	t := &target{}
	cmd := group(&cobra.Command{
		Use:   "rules",
		Short: "Watch the permission rules of a running node at work",
	}, newRulesCoverage(t), newRulesShadow(t))
	t.flags(cmd)
	return cmd
}
