package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hadal/auth/tokens"
	"hadal/node"
	"hadal/node/admin"
)

func newToken() *cobra.Command {
	t := &target{}
	cmd := group(&cobra.Command{
		Use:   "token",
		Short: "Make, check and revoke the tokens that clients log in with",
		Long: "Make, check and revoke the tokens that clients log in with. A running node is\n" +
			"reached through its admin socket or its admin.listen, and needs no API secret.\n" +
			"With --offline the configuration alone is used, its keys included.",
	}, newTokenMake(t), newTokenCheck(t), newTokenRevoke(t))
	t.flags(cmd)
	return cmd
}

// tokenRequest is the body of POST /auth/token.
type tokenRequest struct {
	ID         string          `json:"id"`
	Role       string          `json:"role,omitempty"`
	ServerData json.RawMessage `json:"serverData,omitempty"`
	ClientData json.RawMessage `json:"clientData,omitempty"`
	TTL        string          `json:"ttl,omitempty"`
}

func newTokenMake(t *target) *cobra.Command {
	var q tokenRequest
	var server, client string
	var offline, whole bool
	online := withNode(t, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		answer, err := c.Post(cmd.Context(), tokens.PathToken, q)
		if err != nil {
			return err
		}
		var made struct {
			Token string `json:"token"`
		}
		if err := json.Unmarshal(answer, &made); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return printToken(cmd, made.Token, answer, whole)
	})
	cmd := &cobra.Command{
		Use:   "make USER",
		Short: "Print a token by which a client logs in as a user",
		Long: "Print a token by which a client logs in as a user, and nothing else; with --json the\n" +
			"refresh token and the expiry, too. With --offline there is no refresh token.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.ID = args[0]
			for flag, text := range map[string]string{"server-data": server, "client-data": client} {
				if text != "" && !json.Valid([]byte(text)) {
					return usagef("--%s is not JSON", flag)
				}
			}
			q.ServerData, q.ClientData = json.RawMessage(server), json.RawMessage(client)
			if !offline {
				return online(cmd, args)
			}
			return makeOffline(cmd, t, q, whole)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Role, "role", "", "`role` of the user, which rules see as user.data.role")
	f.StringVar(&q.TTL, "ttl", "", "how `long` the token is good (15m), instead of tokens.accessTTL")
	f.StringVar(&server, "server-data", "", "`JSON` that rules see as user.data")
	f.StringVar(&client, "client-data", "", "`JSON` that the client gets at its login")
	f.BoolVar(&offline, "offline", false, "use the configuration, not a node")
	f.BoolVar(&whole, "json", false, "print all of the answer, as JSON")
	return cmd
}

// offlineTokens is the configuration of tokens, and who makes them.
func offlineTokens(t *target) (cfg tokens.Config, issuer string, err error) {
	if t.socket+t.url+t.dataDir != "" {
		return cfg, "", usagef("--offline reads the configuration: name its file with --config")
	}
	all, _, err := node.LoadConfig(t.config, node.Overrides{})
	return all.Tokens, node.TokenIssuer(all), exitWith(exitConfig, err)
}

func makeOffline(cmd *cobra.Command, t *target, q tokenRequest, whole bool) error {
	cfg, issuer, err := offlineTokens(t)
	if err != nil {
		return err
	}
	request, err := json.Marshal(q)
	if err != nil {
		return err
	}
	token, expires, err := tokens.Make(cfg, issuer, request)
	if err != nil {
		return err
	}
	answer, err := json.Marshal(map[string]any{"token": token, "expiresAt": expires.UnixMilli()})
	if err != nil {
		return err
	}
	return printToken(cmd, token, answer, whole)
}

func printToken(cmd *cobra.Command, token string, answer json.RawMessage, whole bool) error {
	if whole {
		return printJSON(cmd, answer)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), token)
	return err
}

// errNotValid is the end of a check that found a token that is not good.
var errNotValid = errors.New("the token is not good")

func newKick() *cobra.Command {
	t := &target{}
	cmd := &cobra.Command{
		Use:   "kick USER",
		Short: "Close the connections of a user on every node",
		Long: "Close the connections of a user, by the id that rules know, on every node, whatever it\n" +
			"logged in with. The nodes need tokens.signingKeys, which a reload takes over. It is no\n" +
			"ban: who can still log in comes back, so remove the user or revoke its tokens first.",
		Args: cobra.ExactArgs(1),
		RunE: withNode(t, func(cmd *cobra.Command, c *admin.Client, args []string) error {
			return c.Kick(cmd.Context(), tokens.PathSessions, args[0])
		}),
	}
	t.flags(cmd)
	return cmd
}

func newTokenCheck(t *target) *cobra.Command {
	var offline bool
	var token string
	finish := func(cmd *cobra.Command, found tokens.Checked) error {
		if err := printJSON(cmd, found); err != nil {
			return err
		}
		if !found.Valid {
			return fmt.Errorf("%w: %s", errNotValid, found.Reason)
		}
		return nil
	}
	online := withNode(t, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		answer, err := c.Post(cmd.Context(), tokens.PathCheck, map[string]string{"token": token})
		if err != nil {
			return err
		}
		var found tokens.Checked
		if err := json.Unmarshal(answer, &found); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return finish(cmd, found)
	})
	cmd := &cobra.Command{
		Use:   "check [TOKEN]",
		Short: "Say what a token says, and whether it is good",
		Long: "Say what a token says, and whether it is good; if not, the exit code is 1. Without\n" +
			"an argument the token is read from standard input, and so leaves no trace in the\n" +
			"history of a shell. With --offline it cannot be known whether it was revoked.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if token, err = tokenArgument(cmd, args); err != nil {
				return err
			}
			if !offline {
				return online(cmd, args)
			}
			cfg, issuer, err := offlineTokens(t)
			if err != nil {
				return err
			}
			found, err := tokens.Check(cfg, issuer, token)
			if err != nil {
				return err
			}
			return finish(cmd, found)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "use the configuration, not a node")
	return cmd
}

// tokenArgument is the argument, or a line of standard input.
func tokenArgument(cmd *cobra.Command, args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", usagef("no token: give it as an argument or on standard input")
	}
	return line, nil
}

func newTokenRevoke(t *target) *cobra.Command {
	var q struct {
		JTI    string `json:"jti,omitempty"`
		ID     string `json:"id,omitempty"`
		Before string `json:"before,omitempty"`
		Undo   bool   `json:"undo,omitempty"`
	}
	var everybody bool
	online := withNode(t, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
		_, err := c.Post(cmd.Context(), tokens.PathRevoke, q)
		return err
	})
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Make tokens void on every node, or take that back",
		Long: "Make tokens void on every node: one (--jti), those of a user (--user, with --before\n" +
			"those issued up to a time), or those of everybody issued up to a time (--everybody\n" +
			"--before). Connections that logged in with them are closed. With --undo the\n" +
			"revocation is taken back, as long as a token may live that it concerns.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case everybody && q.Before == "" && !q.Undo:
				return usagef("--everybody needs --before: the time up to which tokens become void, such as 2026-01-31T12:00:00Z")
			case !everybody && q.JTI+q.ID == "":
				return usagef("whose? say --jti, --user, or --everybody with --before")
			}
			if q.Before != "" {
				if _, err := time.Parse(time.RFC3339, q.Before); err != nil {
					return usagef("--before %q is not a time: write it as 2026-01-31T12:00:00Z", q.Before)
				}
			}
			return online(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.JTI, "jti", "", "`id` of the token (check prints it)")
	f.StringVar(&q.ID, "user", "", "`name` of the user")
	f.BoolVar(&everybody, "everybody", false, "tokens of all users")
	f.StringVar(&q.Before, "before", "", "`time` of issue up to which tokens become void, instead of now")
	f.BoolVar(&q.Undo, "undo", false, "take the revocation back")
	cmd.MarkFlagsMutuallyExclusive("jti", "user", "everybody")
	cmd.MarkFlagsMutuallyExclusive("jti", "before")
	return cmd
}
