package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// Users is the stored users of this cluster, and the roles of all users, as operators use
// them. A table is named as in the configuration; empty is the only one there is.
type Users interface {
	// AddUser stores a user and returns his id, or ErrUserExists.
	AddUser(ctx context.Context, table string, u NewUser) (id string, err error)
	// SetPassword gives a user another hash, or returns ErrNoUser.
	SetPassword(ctx context.Context, table, name, hash string) error
	// RemoveUser removes a user, or returns ErrNoUser. Connections of his stay.
	RemoveUser(ctx context.Context, table, name string) error
	// ListUsers calls each for every user, until it fails.
	ListUsers(ctx context.Context, table string, each func(User) error) error
	// ImportUser stores a user as a line of ExportUsers or of deepstream's storage has
	// him, and says whether it did: one who is there already stays, unless replace.
	ImportUser(ctx context.Context, table string, line []byte, replace bool) (bool, error)
	// ExportUsers calls each with a line of JSON, without its end, for every user.
	ExportUsers(ctx context.Context, table string, each func(line []byte) error) error
	// UserID is the id of a stored user, or ErrNoUser.
	UserID(ctx context.Context, table, name string) (string, error)
	// SetRole gives a user a role; an empty one takes it away, which is ErrNoUser where
	// there is none.
	SetRole(ctx context.Context, id, role string) error
	// ListRoles calls each for every user with a role, until it fails.
	ListRoles(ctx context.Context, each func(Role) error) error
}

// Errors of Users. The text around them says more.
var (
	ErrNoUser     = errors.New("there is no such user")
	ErrUserExists = errors.New("the user exists already")
)

// NewUser is a user to be stored. Password is a hash; the node never sees the password.
type NewUser struct {
	Name       string          `json:"name"`
	Password   string          `json:"password"`
	ClientData json.RawMessage `json:"clientData,omitempty"`
	ServerData json.RawMessage `json:"serverData,omitempty"`
}

// User is a stored user, as a list has him: without his hash.
type User struct {
	Name       string          `json:"name"`
	ID         string          `json:"id"`
	Role       string          `json:"role,omitempty"`
	ClientData json.RawMessage `json:"clientData"`
	ServerData json.RawMessage `json:"serverData"`
}

// Role is the role of one user.
type Role struct {
	ID   string `json:"id"`
	Role string `json:"role"`
}

// ImportedUsers is what became of the lines of an import.
type ImportedUsers struct {
	// Stored were stored, Kept were there already and stay as they are.
	Stored int `json:"stored"`
	Kept   int `json:"kept"`
}

// maxUser is the length in bytes of the longest body about one user.
const maxUser = 1 << 20

// usersAPI answers the requests about users.
type usersAPI struct {
	answers
	users Users
}

func (a *usersAPI) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /users", a.list)
	mux.HandleFunc("POST /user", a.add)
	mux.HandleFunc("PUT /user/password", a.setPassword)
	mux.HandleFunc("DELETE /user", a.remove)
	mux.HandleFunc("POST /users/import", a.imports)
	mux.HandleFunc("GET /users/export", a.export)
	mux.HandleFunc("GET /roles", a.listRoles)
	mux.HandleFunc("PUT /role", a.setRole)
	mux.HandleFunc("DELETE /role", a.removeRole)
}

// read reads a body into v, and says whether it could: else the request is answered. What
// is wrong is not quoted, because a password may be in it.
func (a *usersAPI) read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxUser))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		refuse(w, http.StatusBadRequest, "the body is not the JSON object of this request")
		return false
	}
	return true
}

// done answers what was done, or why it was not.
func (a *usersAPI) done(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		a.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, v)
}

func table(r *http.Request) string { return r.URL.Query().Get("table") }
func name(r *http.Request) string  { return r.URL.Query().Get("name") }

func (a *usersAPI) add(w http.ResponseWriter, r *http.Request) {
	var u NewUser
	if a.read(w, r, &u) {
		id, err := a.users.AddUser(r.Context(), table(r), u)
		a.done(w, r, idOf{id}, err)
	}
}

type idOf struct {
	ID string `json:"id"`
}

func (a *usersAPI) setPassword(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Password string `json:"password"`
	}
	if a.read(w, r, &body) {
		a.done(w, r, struct{}{}, a.users.SetPassword(r.Context(), table(r), name(r), body.Password))
	}
}

func (a *usersAPI) remove(w http.ResponseWriter, r *http.Request) {
	a.done(w, r, struct{}{}, a.users.RemoveUser(r.Context(), table(r), name(r)))
}

func (a *usersAPI) list(w http.ResponseWriter, r *http.Request) {
	a.stream(w, r, func(to io.Writer) error {
		out := json.NewEncoder(to)
		return a.users.ListUsers(r.Context(), table(r), func(u User) error { return out.Encode(u) })
	})
}

func (a *usersAPI) export(w http.ResponseWriter, r *http.Request) {
	a.stream(w, r, func(to io.Writer) error {
		return a.users.ExportUsers(r.Context(), table(r), func(line []byte) error {
			_, err := to.Write(append(line, '\n'))
			return err
		})
	})
}

// imports stores the users of the body, line by line, and stops at the first mistake; what
// was stored until then stays.
func (a *usersAPI) imports(w http.ResponseWriter, r *http.Request) {
	replace := false
	if text := r.URL.Query().Get("replace"); text != "" {
		var err error
		if replace, err = strconv.ParseBool(text); err != nil {
			refuse(w, http.StatusBadRequest, "replace is true or false")
			return
		}
	}
	var done ImportedUsers
	line := 0
	err := eachLine(r.Body, func(text []byte) error {
		line++
		if len(bytes.TrimSpace(text)) == 0 {
			return nil
		}
		stored, err := a.users.ImportUser(r.Context(), table(r), text, replace)
		switch {
		case err != nil:
			return fmt.Errorf("line %d: %w; %d users before it are stored, and the import may be repeated", line, err, done.Stored)
		case stored:
			done.Stored++
		default:
			done.Kept++
		}
		return nil
	})
	a.done(w, r, done, err)
}

// whose is the id that a request about a role names, directly or by a stored user.
func (a *usersAPI) whose(r *http.Request) (string, error) {
	if id := r.URL.Query().Get("id"); id != "" {
		return id, nil
	}
	return a.users.UserID(r.Context(), table(r), name(r))
}

func (a *usersAPI) setRole(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Role string `json:"role"`
	}
	if !a.read(w, r, &body) {
		return
	}
	if body.Role == "" {
		refuse(w, http.StatusBadRequest, "the role is empty: DELETE takes one away")
		return
	}
	id, err := a.whose(r)
	if err == nil {
		err = a.users.SetRole(r.Context(), id, body.Role)
	}
	a.done(w, r, idOf{id}, err)
}

func (a *usersAPI) removeRole(w http.ResponseWriter, r *http.Request) {
	id, err := a.whose(r)
	if err == nil {
		err = a.users.SetRole(r.Context(), id, "")
	}
	a.done(w, r, idOf{id}, err)
}

func (a *usersAPI) listRoles(w http.ResponseWriter, r *http.Request) {
	a.stream(w, r, func(to io.Writer) error {
		out := json.NewEncoder(to)
		return a.users.ListRoles(r.Context(), func(role Role) error { return out.Encode(role) })
	})
}
