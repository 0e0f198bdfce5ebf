package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"hadal/auth"
	"hadal/bench/target"
	"hadal/node/admin"
)

// password is everybody's.
const password = "a long secret"

// mallory is who floods: he has a password as well.
const mallory = "mallory"

// victim is the node, and the users who have not logged in yet.
type victim struct {
	node *target.Node
	dir  string
	next int // the number of the next user; those before it have logged in
}

// start starts a node with as many users as will be needed, whose passwords cost what new
// ones do.
func start(ctx context.Context, s settings, strategy string) (_ *victim, err error) {
	hash, err := auth.HashArgon2id(password)
	if err != nil {
		return nil, err
	}
	v := &victim{}
	if v.dir, err = os.MkdirTemp("", "hadal-logins-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.stop())
		}
	}()
	names := []string{mallory}
	// Three states with two logins a second, those who see events, and some to spare.
	for i := range 6*int(s.time.Seconds()+2) + 20 {
		names = append(names, user(i))
	}
	config := "[{type: storage}]"
	if strategy == "file" {
		var users strings.Builder
		for _, name := range names {
			fmt.Fprintf(&users, "%s: {password: %q}\n", name, hash)
		}
		file := filepath.Join(v.dir, "users.yml")
		err = os.WriteFile(file, []byte(users.String()), 0o600)
		if err != nil {
			return nil, err
		}
		config = fmt.Sprintf("[{type: file, options: {path: %q}}]", file)
	}
	v.node, err = target.StartNode(ctx, s.node, filepath.Join(v.dir, "data"), "HADAL_AUTH="+config, "HADAL_LOGLEVEL=warn",
		// Those who are logged in say nothing while a flood begins and ends.
		"HADAL_CONNECTIONENDPOINTS=[{type: ws-binary, options: {heartbeatInterval: 600000}}]")
	if err == nil && strategy == "storage" {
		err = v.store(ctx, names, hash)
	}
	return v, err
}

// store has the node store users.
func (v *victim) store(ctx context.Context, names []string, hash string) error {
	c := admin.OverSocket(v.node.Socket)
	defer c.Close()
	var lines strings.Builder
	for _, name := range names {
		fmt.Fprintf(&lines, "{\"username\":%q,\"password\":%q,\"clientData\":null,\"serverData\":null}\n", name, hash)
	}
	done, err := c.ImportUsers(ctx, "", strings.NewReader(lines.String()), false)
	if err == nil && done.Stored != len(names) {
		err = fmt.Errorf("of %d users %d were stored", len(names), done.Stored)
	}
	return err
}

func (v *victim) stop() error {
	var err error
	if v.node != nil {
		err = v.node.Stop()
	}
	return errors.Join(err, os.RemoveAll(v.dir))
}

// user is the name of a well-behaved user.
func user(i int) string { return "user" + strconv.Itoa(i) }

// newcomer is a user who has not logged in yet. Not for two goroutines at once.
func (v *victim) newcomer() string {
	v.next++
	return user(v.next - 1)
}

// params is a login.
func params(name, password string) string {
	return fmt.Sprintf(`{"username":%q,"password":%q}`, name, password)
}
