package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"hadal/auth"
	"hadal/node"
)

func newHash() *cobra.Command {
	var bcrypt, deepstream, apiKey bool
	var config string
	cmd := &cobra.Command{
		Use:   "hash [password]",
		Short: "Print the hash of a password, for a users file",
		Long: "Print the hash of a password, for a users file. Without an argument the password\n" +
			"is asked for, or read as one line from standard input, and so leaves no trace in\n" +
			"the history of a shell.\n\n" +
			"With --api-key, a key for a backend is made and printed together with its hash, for\n" +
			"apiKeys in the configuration. The key is nowhere else.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if apiKey {
				if len(args) > 0 {
					return usagef("--api-key makes the key itself: give none")
				}
				key, hash := auth.NewAPIKey()
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "key:  %s\nhash: %s\n", key, hash)
				return err
			}
			password, err := readPassword(cmd, args)
			if err != nil {
				return err
			}
			hash := auth.HashArgon2id
			switch {
			case bcrypt:
				hash = auth.HashBcrypt
			case deepstream:
				digest, err := configuredDigest(config)
				if err != nil {
					return exitWith(exitConfig, err)
				}
				hash = digest.Hash
			}
			text, err := hash(password)
			if err != nil {
				return err
			}
			if weak := auth.Weakness(password); weak != "" {
				if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "hadal: this password is weak: it is %s\n", weak); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().BoolVar(&bcrypt, "bcrypt", false, "make a bcrypt hash instead of an argon2id one")
	cmd.Flags().BoolVar(&deepstream, "deepstream", false, "make a hash as deepstream does, with the hash settings of the configuration")
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration `file` for --deepstream")
	cmd.Flags().BoolVar(&apiKey, "api-key", false, "make a key for a backend, and print it and its hash")
	cmd.MarkFlagsMutuallyExclusive("bcrypt", "deepstream", "api-key")
	return cmd
}

// configuredDigest is the hash setting of the configuration's first strategy that has one.
func configuredDigest(path string) (auth.Digest, error) {
	cfg, loaded, err := node.LoadConfig(path, node.Overrides{})
	if err != nil {
		return auth.Digest{}, err
	}
	where := loaded.File
	if where == "" {
		where = "the built-in configuration (no file was found)"
	}
	for _, a := range cfg.Auth {
		if a.Options.Hash != "" {
			return a.Options.Digest(), nil
		}
	}
	return auth.Digest{}, fmt.Errorf("%s has no auth strategy of type file or storage with a hash setting", where)
}

// readPassword is the argument, or what is typed or piped in.
func readPassword(cmd *cobra.Command, args []string) (string, error) {
	if len(args) == 1 {
		if args[0] == "" {
			return "", usagef("the password is empty")
		}
		return args[0], nil
	}
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return askPassword(cmd, int(f.Fd()))
	}
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", usagef("no password: it is typed, or one line of standard input")
	}
	return line, nil
}

// askPassword asks twice on a terminal that does not show what is typed.
func askPassword(cmd *cobra.Command, fd int) (string, error) {
	var typed [2]string
	for i, prompt := range []string{"Password: ", "Once more: "} {
		if _, err := fmt.Fprint(cmd.ErrOrStderr(), prompt); err != nil {
			return "", err
		}
		b, err := term.ReadPassword(fd)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		if _, err := fmt.Fprintln(cmd.ErrOrStderr()); err != nil {
			return "", err
		}
		typed[i] = string(b)
	}
	switch {
	case typed[0] == "":
		return "", usagef("the password is empty")
	case typed[0] != typed[1]:
		return "", errors.New("the two passwords differ")
	}
	return typed[0], nil
}
