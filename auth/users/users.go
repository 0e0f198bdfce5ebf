// Package users keeps users of the storage strategy, and the roles of all users: in the
// vault of this cluster, or in PostgreSQL. It knows what is stored and not what a
// password is; hashing and comparing is auth's.
//
// What is stored of a user has the shape that deepstream gives it (spec 06 §5.3), in both
// backends, so that its users can be taken over as they are.
package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"
)

// MaxName is the length in bytes of the longest user name and role.
const MaxName = 1024

// Errors of a Store. Others mean that it could not be asked, or that the outcome of a
// write is unknown; they name the backend, and are for operators only.
var (
	// ErrNotFound says that there is no such user.
	ErrNotFound = errors.New("there is no such user")
	// ErrExists says that there is one already.
	ErrExists = errors.New("the user exists already")
	// ErrConflict says that the user was changed or removed since it was read.
	ErrConflict = errors.New("the user has been changed meanwhile")
)

// User is one stored user.
type User struct {
	// Name is what the user logs in with.
	Name string
	// Password is the hash, which says itself what it is, or one of deepstream's. It is
	// never clear text.
	Password string
	// ClientData is a JSON object that is sent to the client at login. Its id, a text, is
	// the user's id as rules and presence see it (spec 15, trap 30): a UUID.
	ClientData string
	// ServerData is JSON text that only permission rules see.
	ServerData string
	// Revision is of the store: it rises with every change, and none comes twice, not even
	// when a user was removed and made again.
	Revision uint64
}

// New makes a user with an id of its own, as deepstream does.
func New(name, hash string) (User, error) {
	u := User{Name: name, Password: hash, ServerData: fmt.Sprintf(`{"created":%d}`, time.Now().UnixMilli())}
	var err error
	u.ClientData, err = withID("{}", "")
	return u, err
}

// ID is the user's id, or empty when ClientData has none: such a user is damaged.
func (u User) ID() string {
	if id := gjson.Get(u.ClientData, "id"); id.Type == gjson.String {
		return id.Str
	}
	return ""
}

// SetClientData replaces what clients are sent, but for the id, which stays.
func (u *User) SetClientData(text string) error {
	data, err := withID(text, u.ID())
	if err != nil {
		return err
	}
	u.ClientData = data
	return nil
}

// withID is a JSON object with that id, or a new one, as its first key.
func withID(object, id string) (string, error) {
	if !gjson.Valid(object) || !gjson.Parse(object).IsObject() {
		return "", errors.New("clientData is not a JSON object: it holds the user's id")
	}
	if id == "" {
		fresh, err := uuid.NewRandom()
		if err != nil {
			return "", fmt.Errorf("make an id: %w", err)
		}
		id = fresh.String()
	}
	text, err := json.Marshal(id)
	if err != nil {
		return "", fmt.Errorf("write an id: %w", err)
	}
	var b strings.Builder
	b.WriteString(`{"id":` + string(text))
	gjson.Parse(object).ForEach(func(key, value gjson.Result) bool {
		if key.String() != "id" {
			b.WriteString("," + key.Raw + ":" + value.Raw)
		}
		return true
	})
	b.WriteString("}")
	return b.String(), nil
}

// check is what is wrong with a user that is to be stored, or nil.
func (u *User) check() error {
	switch {
	case ValidName(u.Name) != nil:
		return ValidName(u.Name)
	case u.Password == "":
		return errors.New("the user has no password")
	case u.ID() == "":
		return errors.New("clientData has no id")
	case !gjson.Valid(u.ServerData):
		return errors.New("serverData is not JSON")
	}
	return nil
}

// ValidName says why name can be no user's name, or nothing.
func ValidName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("the name is longer than %d bytes", MaxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the name holds control characters, or is not UTF-8")
	}
	return nil
}

// Store is one table of users. It is safe for many callers at once. Each call ends soon
// after its context does, and by itself after some seconds.
type Store interface {
	// Find reads a user, or returns ErrNotFound.
	Find(ctx context.Context, name string) (User, error)
	// Create stores a new user, or returns ErrExists: of several that race, on whichever
	// nodes, exactly one succeeds. It returns the user with its Revision.
	Create(ctx context.Context, u User) (User, error)
	// Update replaces the user of u's Name that has u's Revision, or returns ErrConflict.
	Update(ctx context.Context, u User) (User, error)
	// Remove removes a user, or returns ErrNotFound.
	Remove(ctx context.Context, name string) error
	// List calls each for every user, until it returns an error, which List returns. A
	// large table is read in pages: users that change meanwhile may be missing.
	List(ctx context.Context, each func(User) error) error
}

// Change has change make a user different, and stores it. It begins again when somebody
// else was faster.
func Change(ctx context.Context, s Store, name string, change func(*User) error) (User, error) {
	for {
		u, err := s.Find(ctx, name)
		if err != nil {
			return User{}, err
		}
		if err := change(&u); err != nil {
			return User{}, err
		}
		if u, err = s.Update(ctx, u); !errors.Is(err, ErrConflict) {
			return u, err
		}
		if err := ctx.Err(); err != nil {
			return User{}, err
		}
	}
}

// Import stores a user as it is, id and data included. Where there is one of that name it
// is left alone, unless replace says that it is to be replaced. It says whether u was
// stored.
func Import(ctx context.Context, s Store, u User, replace bool) (bool, error) {
	for {
		_, err := s.Create(ctx, u)
		if !errors.Is(err, ErrExists) {
			return err == nil, err
		}
		if !replace {
			return false, nil
		}
		_, err = Change(ctx, s, u.Name, func(old *User) error {
			old.Password, old.ClientData, old.ServerData = u.Password, u.ClientData, u.ServerData
			return nil
		})
		if !errors.Is(err, ErrNotFound) { // else it was removed just now
			return err == nil, err
		}
	}
}
