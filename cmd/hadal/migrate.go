package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"hadal/auth"
	"hadal/auth/users"
	"hadal/auth/vault"
	"hadal/node"
)

func newMigrate() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Make the tables in PostgreSQL that the configuration names, or bring them up to date",
		Long: "Make the tables in PostgreSQL that the configuration names, or bring them up to date. A\n" +
			"node does it at its start as well, if its user may; this is for another user, who has the\n" +
			"right to make tables. It speaks to the database and to no node.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := node.LoadConfig(config, node.Overrides{})
			if err != nil {
				return exitWith(exitConfig, err)
			}
			ctx, done := interruptible(cmd)
			defer done()
			stores := users.NewStores(vault.NewSlot())
			defer stores.Close()
			none := true
			for _, src := range auth.Sources(cfg.Auth) {
				if src.Backend != users.Postgres {
					continue
				}
				none = false
				m, err := stores.Migrate(ctx, src)
				if err != nil {
					return err
				}
				text := fmt.Sprintf("table %s: version %d, as it should be", src.Name(), m.To)
				if m.From != m.To {
					text = fmt.Sprintf("table %s: version %d, was %d", src.Name(), m.To, m.From)
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), text); err != nil {
					return err
				}
			}
			if none {
				return exitWith(exitConfig, errors.New("the configuration names no PostgreSQL: {type: storage, options: {backend: postgres, connectionString: …}} in auth does"))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration `file`")
	return cmd
}
