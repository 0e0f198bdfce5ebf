package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"hadal/node"
	"hadal/node/admin"
)

// target is the running node that a command speaks to.
type target struct {
	config, dataDir, socket, url, token string
}

func (t *target) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVarP(&t.config, "config", "c", "", "configuration `file` of the node")
	f.StringVar(&t.dataDir, "data-dir", "", "data `directory` of the node")
	f.StringVar(&t.socket, "admin-socket", "", "`path` of the node's admin socket")
	f.StringVar(&t.url, "admin-url", "", "`URL` of the node's admin.listen")
	f.StringVar(&t.token, "admin-token", "", "the node's admin.token, better given as HADAL_ADMIN_TOKEN")
	cmd.MarkFlagsMutuallyExclusive("config", "data-dir", "admin-socket", "admin-url")
}

// named says whether a flag names the node.
func (t *target) named() bool { return t.config+t.dataDir+t.socket+t.url != "" }

// open makes a client of the node that the flags name, or else of the one whose
// configuration is found where a node would find it.
func (t *target) open() (*admin.Client, error) {
	if t.url != "" {
		token := t.token
		if token == "" {
			token = os.Getenv("HADAL_ADMIN_TOKEN")
		}
		client, err := admin.OverTCP(t.url, token)
		return client, exitWith(exitUsage, err)
	}
	if t.socket == "" {
		if err := t.findDir(); err != nil {
			return nil, err
		}
		t.socket = filepath.Join(t.dataDir, admin.SocketName)
	}
	return admin.OverSocket(t.socket), nil
}

// findDir sets dataDir from the configuration when no flag has.
func (t *target) findDir() error {
	if t.dataDir != "" {
		return nil
	}
	cfg, _, err := node.LoadConfig(t.config, node.Overrides{})
	if err != nil {
		return exitWith(exitConfig, fmt.Errorf("to find the node's data directory: %w", err))
	}
	t.dataDir = cfg.DataDir
	return nil
}

// offline finds the data directory for a command that reads it without a node.
func (t *target) offline() error {
	if t.socket+t.url != "" {
		return usagef("this reads the files of a node that does not run: name its --data-dir")
	}
	return t.findDir()
}

// explain adds to an error of the client what a person should look at.
func (t *target) explain(err error) error {
	dial := (*net.OpError)(nil)
	switch nobody := errors.As(err, &dial) && dial.Op == "dial" &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)); {
	case nobody && t.url == "":
		return fmt.Errorf("no node answers on %s: start one, or name its --data-dir", t.socket)
	case nobody:
		return fmt.Errorf("no node answers on %s: start one, with admin.listen set", t.url)
	case dial != nil && errors.Is(err, fs.ErrPermission) && t.url == "":
		return fmt.Errorf("%s may be opened only by the user that the node runs as: use that one, or admin.listen with a token", t.socket)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	}
	return err
}

// interruptible is a context that ends when the user has had enough. The second
// interrupt ends the program as usual.
func interruptible(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
