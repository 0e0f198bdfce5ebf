package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hadal/perms"
)

// matrixFlags are the columns as they are typed.
type matrixFlags struct {
	roles, users []string
	anonymous    bool
}

func newRulesMatrix() *cobra.Command {
	var from rulesSource
	var ask matrixFlags
	var asJSON, asMarkdown bool
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show what each role may do",
		Long: "Show what each role may do: one row for each path and rule type, one column for\n" +
			"each role. A cell says yes or no where the role alone decides, whatever is sent\n" +
			"and stored, and else names the rule. Nothing is guessed: a rule whose outcome\n" +
			"depends on anything but user.data is no yes and no no.\n\n" +
			"The roles are those that the rules compare user.data.role with, or those that\n" +
			"are named. The rules are those of a file, or of the configuration.",
		Example: `  hadal rules matrix --rules conf/roles.example.yml
  hadal rules matrix --role guest --role admin --user team='{"role": "standard_user", "team": 7}' --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rules, err := from.load()
			if err != nil {
				return err
			}
			columns, err := ask.columns(rules)
			if err != nil {
				return err
			}
			matrix, err := rules.Matrix(columns)
			if err != nil {
				return exitWith(exitUsage, err)
			}
			switch {
			case asJSON:
				return printJSON(cmd, matrix)
			case asMarkdown:
				_, err = fmt.Fprint(cmd.OutOrStdout(), matrix.Markdown())
			default:
				_, err = fmt.Fprint(cmd.OutOrStdout(), matrix.Text())
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&from.file, "rules", "", "rules `file`, instead of the configuration's")
	f.StringVarP(&from.config, "config", "c", "", "configuration `file` with the rules")
	f.StringArrayVar(&ask.roles, "role", nil, "a `role` to show, instead of those found; may be repeated")
	f.StringArrayVar(&ask.users, "user", nil, "more server data to show, as `NAME=JSON`; may be repeated")
	f.BoolVar(&ask.anonymous, "anonymous", false, "show clients too that logged in without a name")
	f.BoolVar(&asJSON, "json", false, "print the matrix as JSON")
	f.BoolVar(&asMarkdown, "markdown", false, "print the matrix as Markdown")
	cmd.MarkFlagsMutuallyExclusive("rules", "config")
	cmd.MarkFlagsMutuallyExclusive("json", "markdown")
	return cmd
}

// columns are the users to show.
func (f *matrixFlags) columns(rules *perms.Rules) ([]perms.MatrixUser, error) {
	var columns []perms.MatrixUser
	if f.anonymous {
		columns = append(columns, perms.MatrixUser{Name: "anonymous", Anonymous: true})
	}
	roles := f.roles
	if len(roles) == 0 && len(f.users) == 0 {
		roles = rules.Roles()
	}
	for _, role := range roles {
		columns = append(columns, perms.RoleUser(role))
	}
	for _, user := range f.users {
		name, text, ok := strings.Cut(user, "=")
		if !ok || text == "" {
			return nil, usagef("--user: %s has no data: write NAME=JSON", user)
		}
		data, err := document("--user", text)
		if err != nil {
			return nil, err
		}
		columns = append(columns, perms.MatrixUser{Name: name, Data: json.RawMessage(data)})
	}
	if len(columns) == 0 {
		return nil, usagef("no rule compares user.data.role with anything, so there is no role to show: name some with --role")
	}
	return columns, nil
}
