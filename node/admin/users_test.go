package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeUsers is users and roles in maps; the one table that there is has the name people.
type fakeUsers struct {
	mu     sync.Mutex
	users  map[string]NewUser // guarded by mu
	roles  map[string]string  // guarded by mu
	broken error              // what lists end in; guarded by mu
}

func newFakeUsers() *fakeUsers {
	return &fakeUsers{users: make(map[string]NewUser), roles: make(map[string]string)}
}

// in locks the table, or says that there is no such one.
func (f *fakeUsers) in(table string) (unlock func(), err error) {
	if table != "" && table != "people" {
		return nil, fmt.Errorf("%w: there is no table %q", ErrInvalid, table)
	}
	f.mu.Lock()
	return f.mu.Unlock, nil
}

func (f *fakeUsers) AddUser(_ context.Context, table string, u NewUser) (string, error) {
	unlock, err := f.in(table)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, ok := f.users[u.Name]; ok {
		return "", fmt.Errorf("add %q: %w", u.Name, ErrUserExists)
	}
	if u.Name == "explode" {
		return "", errors.New("disk on fire")
	}
	f.users[u.Name] = u
	return "id of " + u.Name, nil
}

func (f *fakeUsers) SetPassword(_ context.Context, table, name, hash string) error {
	unlock, err := f.in(table)
	if err != nil {
		return err
	}
	defer unlock()
	u, ok := f.users[name]
	if !ok {
		return ErrNoUser
	}
	u.Password = hash
	f.users[name] = u
	return nil
}

func (f *fakeUsers) RemoveUser(_ context.Context, table, name string) error {
	unlock, err := f.in(table)
	if err != nil {
		return err
	}
	defer unlock()
	if _, ok := f.users[name]; !ok {
		return ErrNoUser
	}
	delete(f.users, name)
	return nil
}

func (f *fakeUsers) ListUsers(_ context.Context, table string, each func(User) error) error {
	unlock, err := f.in(table)
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range slices.Sorted(maps.Keys(f.users)) {
		u := f.users[name]
		id := "id of " + name
		if err := each(User{Name: name, ID: id, Role: f.roles[id], ClientData: u.ClientData, ServerData: u.ServerData}); err != nil {
			return err
		}
	}
	return f.broken
}

func (f *fakeUsers) ImportUser(_ context.Context, table string, line []byte, replace bool) (bool, error) {
	var u NewUser
	if err := json.Unmarshal(line, &u); err != nil {
		return false, fmt.Errorf("%w: not a user", ErrInvalid)
	}
	unlock, err := f.in(table)
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, ok := f.users[u.Name]; ok && !replace {
		return false, nil
	}
	f.users[u.Name] = u
	return true, nil
}

func (f *fakeUsers) ExportUsers(_ context.Context, table string, each func(line []byte) error) error {
	unlock, err := f.in(table)
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range slices.Sorted(maps.Keys(f.users)) {
		line, err := json.Marshal(f.users[name])
		if err == nil {
			err = each(line)
		}
		if err != nil {
			return err
		}
	}
	return f.broken
}

func (f *fakeUsers) UserID(_ context.Context, table, name string) (string, error) {
	unlock, err := f.in(table)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, ok := f.users[name]; !ok {
		return "", ErrNoUser
	}
	return "id of " + name, nil
}

func (f *fakeUsers) SetRole(_ context.Context, id, role string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if role != "" {
		f.roles[id] = role
		return nil
	}
	if _, ok := f.roles[id]; !ok {
		return ErrNoUser
	}
	delete(f.roles, id)
	return nil
}

func (f *fakeUsers) ListRoles(_ context.Context, each func(Role) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.roles)) {
		if err := each(Role{ID: id, Role: f.roles[id]}); err != nil {
			return err
		}
	}
	return f.broken
}

// Every request about users, in this order, on one node.
func TestRequestsAboutUsers(t *testing.T) {
	h := serve(t, Config{})
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string // in the answer
	}{
		{http.MethodGet, "/users", "", 200, ""},
		{http.MethodPost, "/user", `{"name":"ada","password":"a hash","serverData":{"x":1}}`, 200, `{"id":"id of ada"}`},
		{http.MethodPost, "/user?table=people", `{"name":"ada","password":"a hash"}`, 409, "the user exists already"},
		{http.MethodPost, "/user?table=nowhere", `{"name":"bob","password":"a hash"}`, 400, `no table \"nowhere\"`},
		{http.MethodPost, "/user", `{"name":"explode","password":"a hash"}`, 500, "disk on fire"},
		{http.MethodPost, "/user", `{"name":"bob","pasword":"s3cret"}`, 400, "not the JSON object of this request"},
		{http.MethodPost, "/user", `{"name":"bob","password":["s3cret"]}`, 400, "not the JSON object of this request"},
		{http.MethodPost, "/user", `{"name":"` + strings.Repeat("b", maxUser) + `"}`, 400, "not the JSON object of this request"},
		{http.MethodPost, "/user", "", 400, "not the JSON object of this request"},
		{http.MethodPut, "/user/password?name=ada", `{"password":"another hash"}`, 200, "{}"},
		{http.MethodPut, "/user/password?name=bob", `{"password":"another hash"}`, 404, "there is no such user"},
		{http.MethodPut, "/user/password?name=ada", `{"password":1}`, 400, "not the JSON object of this request"},
		{http.MethodGet, "/users/export", "", 200, `{"name":"ada","password":"another hash","serverData":{"x":1}}` + "\n"},
		{http.MethodGet, "/users", "", 200, `{"name":"ada","id":"id of ada","clientData":null,"serverData":{"x":1}}` + "\n"},
		{http.MethodPut, "/role?name=ada", `{"role":"admin"}`, 200, `{"id":"id of ada"}`},
		{http.MethodPut, "/role?id=somebody", `{"role":"guest"}`, 200, `{"id":"somebody"}`},
		{http.MethodPut, "/role?id=somebody", `{"role":""}`, 400, "DELETE takes one away"},
		{http.MethodPut, "/role?name=bob", `{"role":"guest"}`, 404, "there is no such user"},
		{http.MethodGet, "/roles", "", 200, `{"id":"id of ada","role":"admin"}` + "\n" + `{"id":"somebody","role":"guest"}` + "\n"},
		{http.MethodGet, "/users", "", 200, `"role":"admin"`},
		{http.MethodDelete, "/role?name=ada", "", 200, `{"id":"id of ada"}`},
		{http.MethodDelete, "/role?name=ada", "", 404, "there is no such user"},
		{http.MethodDelete, "/role?name=bob", "", 404, "there is no such user"},
		{http.MethodDelete, "/user?name=bob", "", 404, "there is no such user"},
		{http.MethodDelete, "/user?name=ada&table=people", "", 200, "{}"},
		{http.MethodDelete, "/user?name=ada", "", 404, "there is no such user"},
		{http.MethodPost, "/users/import?replace=perhaps", `{"name":"ada"}`, 400, "replace is true or false"},
		{http.MethodPost, "/users/import", `{"name":"ada"}` + "\n\n" + `{"name":"bob"}`, 200, `{"stored":2,"kept":0}`},
		{http.MethodPost, "/users/import", `{"name":"ada","password":"new"}` + "\n" + `{"name":"eve"}`, 200, `{"stored":1,"kept":1}`},
		{http.MethodPost, "/users/import?replace=true", `{"name":"ada","password":"new"}`, 200, `{"stored":1,"kept":0}`},
		{http.MethodPost, "/users/import", `{"name":"fay"}` + "\n{\n" + `{"name":"gus"}`, 400, "line 2: "},
		{http.MethodGet, "/users/export?table=people", "", 200, `{"name":"ada","password":"new"}` + "\n" + `{"name":"bob","password":""}`},
		{http.MethodGet, "/users/export?table=nowhere", "", 400, "no table"},
		{http.MethodGet, "/users?table=nowhere", "", 400, "no table"},
		{http.MethodDelete, "/users", "", 404, "no DELETE /users"},
	} {
		got := h.raw(t, c.method, c.path, strings.NewReader(c.body))
		if got.StatusCode != c.status || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, got.StatusCode, got.body, c.status, c.want)
		}
		if strings.Contains(got.body, "s3cret") {
			t.Errorf("%s %s: the answer quotes a password: %s", c.method, c.path, got.body)
		}
		if c.path == "/users" && strings.Contains(got.body, "hash") {
			t.Errorf("the list of users has a hash: %s", got.body)
		}
	}
	if _, ok := h.users.users["gus"]; ok {
		t.Error("an import went on behind a mistake")
	}
}

func TestAListOfUsersThatBreaksIsNotTakenForWhole(t *testing.T) {
	h := serve(t, Config{})
	h.users.users["ada"], h.users.roles["ada"] = NewUser{Name: "ada"}, "admin"
	h.users.broken = errors.New("disk on fire")
	c := h.client(t)
	for name, list := range map[string]func() error{
		"users":  func() error { return c.ListUsers(t.Context(), "", func(User) error { return nil }) },
		"roles":  func() error { return c.ListRoles(t.Context(), func(Role) error { return nil }) },
		"export": func() error { return c.ExportUsers(t.Context(), "", func([]byte) error { return nil }) },
	} {
		if err := list(); err == nil || !strings.Contains(err.Error(), "disk on fire") {
			t.Errorf("%s: %v, want what went wrong", name, err)
		}
	}
}

func TestClientsMoveUsersToAnotherNode(t *testing.T) {
	from, to := serve(t, Config{}), serve(t, Config{})
	c, d := from.client(t), to.client(t)
	for _, u := range []NewUser{{Name: "ada & co", Password: "a hash"}, {Name: "bob", Password: "b", ClientData: []byte(`{"x":[1]}`)}} {
		if id, err := c.AddUser(t.Context(), "people", u); err != nil || id != "id of "+u.Name {
			t.Fatalf("AddUser = %q, %v", id, err)
		}
	}
	if err := c.SetPassword(t.Context(), "", "ada & co", "another"); err != nil {
		t.Error(err)
	}
	var all bytes.Buffer
	if err := c.ExportUsers(t.Context(), "", func(line []byte) error { all.Write(line); return nil }); err != nil {
		t.Fatal(err)
	}
	if done, err := d.ImportUsers(t.Context(), "", &all, false); err != nil || done != (ImportedUsers{Stored: 2}) {
		t.Errorf("ImportUsers = %+v, %v, want two", done, err)
	}
	if got := to.users.users["ada & co"].Password; got != "another" {
		t.Errorf("the hash is %q, want the new one", got)
	}
	if id, err := d.SetRole(t.Context(), RoleOwner{Name: "ada & co"}, "admin"); err != nil || id != "id of ada & co" {
		t.Errorf("SetRole = %q, %v", id, err)
	}
	if _, err := d.SetRole(t.Context(), RoleOwner{ID: "nobody"}, ""); err == nil || !strings.Contains(err.Error(), ErrNoUser.Error()) {
		t.Errorf("taking a role away that nobody has: %v, want that it says so", err)
	}
	if err := d.RemoveUser(t.Context(), "", "bob"); err != nil {
		t.Error(err)
	}
	if _, ok := to.users.users["bob"]; ok {
		t.Error("bob is still there")
	}
}
