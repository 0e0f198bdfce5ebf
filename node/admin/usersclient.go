package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// sends sends v as JSON and reads the answer into into.
func (c *Client) sends(ctx context.Context, method, path string, query url.Values, v, into any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.decode(ctx, method, path, query, bytes.NewReader(body), into)
}

// AddUser stores a user, whose Password is a hash, and returns his id.
func (c *Client) AddUser(ctx context.Context, table string, u NewUser) (string, error) {
	var made idOf
	err := c.sends(ctx, http.MethodPost, "/user", url.Values{"table": {table}}, u, &made)
	return made.ID, err
}

// SetPassword gives a user another hash.
func (c *Client) SetPassword(ctx context.Context, table, name, hash string) error {
	return c.sends(ctx, http.MethodPut, "/user/password", url.Values{"table": {table}, "name": {name}},
		map[string]string{"password": hash}, &struct{}{})
}

// RemoveUser removes a user; connections of his stay.
func (c *Client) RemoveUser(ctx context.Context, table, name string) error {
	return c.decode(ctx, http.MethodDelete, "/user", url.Values{"table": {table}, "name": {name}}, nil, &struct{}{})
}

// ListUsers calls each for every user.
func (c *Client) ListUsers(ctx context.Context, table string, each func(User) error) error {
	return c.lines(ctx, "/users", url.Values{"table": {table}}, func(line []byte) error {
		var u User
		if err := json.Unmarshal(line, &u); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return each(u)
	})
}

// ImportUsers stores users, a line of JSON each. Those who are there already stay as they
// are, unless replace.
func (c *Client) ImportUsers(ctx context.Context, table string, lines io.Reader, replace bool) (ImportedUsers, error) {
	var done ImportedUsers
	query := url.Values{"table": {table}, "replace": {strconv.FormatBool(replace)}}
	err := c.decode(ctx, http.MethodPost, "/users/import", query, lines, &done)
	return done, err
}

// ExportUsers calls each with a line for every user, its end included, as ImportUsers
// takes them: with the hashes of their passwords.
func (c *Client) ExportUsers(ctx context.Context, table string, each func(line []byte) error) error {
	return c.lines(ctx, "/users/export", url.Values{"table": {table}}, func(line []byte) error { return each(append(line, '\n')) })
}

// RoleOwner is whose role is meant: the user with an ID, or else the stored user of a
// Name in a Table.
type RoleOwner struct{ ID, Table, Name string }

func (o RoleOwner) query() url.Values {
	if o.ID != "" {
		return url.Values{"id": {o.ID}}
	}
	return url.Values{"table": {o.Table}, "name": {o.Name}}
}

// SetRole gives a user a role, or takes it away when it is empty, and returns his id.
func (c *Client) SetRole(ctx context.Context, of RoleOwner, role string) (string, error) {
	var done idOf
	if role == "" {
		err := c.decode(ctx, http.MethodDelete, "/role", of.query(), nil, &done)
		return done.ID, err
	}
	err := c.sends(ctx, http.MethodPut, "/role", of.query(), map[string]string{"role": role}, &done)
	return done.ID, err
}

// ListRoles calls each for every user with a role.
func (c *Client) ListRoles(ctx context.Context, each func(Role) error) error {
	return c.lines(ctx, "/roles", nil, func(line []byte) error {
		var role Role
		if err := json.Unmarshal(line, &role); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return each(role)
	})
}
