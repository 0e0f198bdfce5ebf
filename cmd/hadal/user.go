package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"hadal/auth"
	"hadal/node/admin"
)

// userFlags are those of all commands about stored users.
type userFlags struct {
	target
	table string
}

func newUser() *cobra.Command {
	t := &userFlags{}
	cmd := group(&cobra.Command{
		Use:   "user",
		Short: "Stored users (auth type storage) and roles, at a running node",
		Long: "Stored users (auth type storage) and the roles of all users, at a running node. What is\n" +
			"changed at one node holds on every node. Passwords are typed, or read as one line from\n" +
			"standard input; the node is sent their hash only.",
	}, newUserAdd(t), newUserPasswd(t), newUserRemove(t), newUserList(t), newUserImport(t), newUserExport(t), newUserRole(t))
	t.flags(cmd)
	cmd.PersistentFlags().StringVar(&t.table, "table", "", "`table` of users, when the configuration has several")
	return cmd
}

// hashTyped is the hash of a password that is typed or piped in.
func hashTyped(cmd *cobra.Command) (string, error) {
	password, err := readPassword(cmd, nil)
	if err != nil {
		return "", err
	}
	if weak := auth.Weakness(password); weak != "" {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "hadal: this password is weak: it is %s\n", weak); err != nil {
			return "", err
		}
	}
	return auth.HashArgon2id(password)
}

func newUserAdd(t *userFlags) *cobra.Command {
	var clientData, serverData, role string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Store a new user, and print the id that rules and presence know it by",
		Args:  cobra.ExactArgs(1),
		RunE: withNode(&t.target, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			u := admin.NewUser{Name: args[0]}
			for flag, into := range map[string]*json.RawMessage{"client-data": &u.ClientData, "server-data": &u.ServerData} {
				text := map[string]string{"client-data": clientData, "server-data": serverData}[flag]
				if text != "" && !json.Valid([]byte(text)) {
					return usagef("--%s is not JSON", flag)
				}
				*into = json.RawMessage(text)
			}
			var err error
			if u.Password, err = hashTyped(cmd); err != nil {
				return err
			}
			id, err := c.AddUser(cmd.Context(), t.table, u)
			if err != nil {
				return err
			}
			if role != "" {
				if _, err := c.SetRole(cmd.Context(), admin.RoleOwner{ID: id}, role); err != nil {
					return fmt.Errorf("the user is stored, without the role: %w", err)
				}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), id)
			return err
		}),
	}
	cmd.Flags().StringVar(&clientData, "client-data", "", "what the client is sent at login, a JSON `object`; its id is the user's")
	cmd.Flags().StringVar(&serverData, "server-data", "", "what rules see as user.data, as `JSON`")
	cmd.Flags().StringVar(&role, "role", "", "the user's `role`, user.data.role in rules")
	return cmd
}

// stays is what becomes of those who are logged in.
const stays = "Connections that are logged in as the user stay so until they end."

func newUserPasswd(t *userFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "passwd NAME",
		Short: "Give a stored user another password",
		Long:  "Give a stored user another password. " + stays,
		Args:  cobra.ExactArgs(1),
		RunE: withNode(&t.target, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			hash, err := hashTyped(cmd)
			if err != nil {
				return err
			}
			return c.SetPassword(cmd.Context(), t.table, args[0], hash)
		}),
	}
}

func newUserRemove(t *userFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a stored user",
		Long:  "Remove a stored user. " + stays,
		Args:  cobra.ExactArgs(1),
		RunE: withNode(&t.target, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			return c.RemoveUser(cmd.Context(), t.table, args[0])
		}),
	}
}

func newUserList(t *userFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the stored users: name, id, role",
		Args:  cobra.NoArgs,
		RunE: withNode(&t.target, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				return c.ListUsers(cmd.Context(), t.table, func(u admin.User) error { return out.Encode(u) })
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			err := c.ListUsers(cmd.Context(), t.table, func(u admin.User) error {
				_, err := fmt.Fprintf(out, "%s\t%s\t%s\n", u.Name, u.ID, u.Role)
				return err
			})
			return errors.Join(err, out.Flush())
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "an object a line, with clientData and serverData")
	return cmd
}

func newUserImport(t *userFlags) *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Store users from an export, or from deepstream's storage",
		Long: "Store users from an export, or from deepstream's storage: one a line, as JSON, with the\n" +
			"hash of the password, the id and the data they have there; without a file, from standard\n" +
			"input. deepstream's hashes verify when the node has their hash, iterations and keyLength.\n" +
			"It stops at the first line that is wrong, and may be run again.",
		Args: cobra.MaximumNArgs(1),
		RunE: withNode(&t.target, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			from := cmd.InOrStdin()
			if file := prefix(args); file != "" && file != "-" {
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				from = f
			}
			// Else the client would close what is not ours.
			done, err := c.ImportUsers(cmd.Context(), t.table, io.NopCloser(from), replace)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "stored %d users; %d were there already\n", done.Stored, done.Kept)
			return err
		}),
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "write over users of the same name, instead of leaving them as they are")
	return cmd
}

func newUserExport(t *userFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Write all stored users as JSON lines, with the hashes of their passwords",
		Args:  cobra.NoArgs,
		RunE: withNode(&t.target, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
			return c.ExportUsers(cmd.Context(), t.table, func(line []byte) error {
				_, err := cmd.OutOrStdout().Write(line)
				return err
			})
		}),
	}
}

func newUserRole(t *userFlags) *cobra.Command {
	var byID, remove, list bool
	cmd := &cobra.Command{
		Use:   "role NAME [ROLE]",
		Short: "Give a user a role, take it away, or list all roles",
		Long: "Give a user a role, which rules see as user.data.role from the next login on. NAME is\n" +
			"that of a stored user, or with --id the id that rules know a user of any strategy by.\n" +
			"Whether it goes before a role that the strategy gives is roles.wins of the configuration.",
		Args: func(_ *cobra.Command, args []string) error {
			want := 2
			switch {
			case list && remove:
				return usagef("--list and --remove do not go together")
			case list:
				want = 0
			case remove:
				want = 1
			}
			if len(args) != want {
				return usagef("name a user and a role, or a user with --remove, or nobody with --list")
			}
			return nil
		},
		RunE: withNode(&t.target, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			if list {
				out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				err := c.ListRoles(cmd.Context(), func(r admin.Role) error {
					_, err := fmt.Fprintf(out, "%s\t%s\n", r.ID, r.Role)
					return err
				})
				return errors.Join(err, out.Flush())
			}
			of, role := admin.RoleOwner{Table: t.table, Name: args[0]}, ""
			if byID {
				of = admin.RoleOwner{ID: args[0]}
			}
			if !remove {
				if role = args[1]; role == "" {
					return usagef("the role is empty: --remove takes one away")
				}
			}
			_, err := c.SetRole(cmd.Context(), of, role)
			return err
		}),
	}
	cmd.Flags().BoolVar(&byID, "id", false, "NAME is a user id, of any strategy")
	cmd.Flags().BoolVar(&remove, "remove", false, "take the role away")
	cmd.Flags().BoolVar(&list, "list", false, "list the ids and roles of all users that have one")
	return cmd
}
