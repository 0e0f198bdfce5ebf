package users

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tidwall/gjson"
)

// stored is a user as it is written: the value that deepstream's storage has under
// <table>/<username>.
type stored struct {
	Username   string          `json:"username"`
	Password   string          `json:"password"`
	ClientData json.RawMessage `json:"clientData"`
	ServerData json.RawMessage `json:"serverData"`
}

// Encode writes a user as Decode reads it: one line of JSON, the password's hash
// included, without an end.
func Encode(u *User) ([]byte, error) {
	if err := u.check(); err != nil {
		return nil, fmt.Errorf("user %q: %w", u.Name, err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(stored{u.Name, u.Password, json.RawMessage(u.ClientData), json.RawMessage(u.ServerData)})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Decode reads a user as Encode or deepstream wrote it. A whole row of deepstream's
// PostgreSQL connector ({"id", "version", "val"}) does as well. What has no id gets one,
// what has no serverData gets null.
func Decode(text []byte) (User, error) {
	// The error of a decoder may quote the text, in which a password may be.
	malformed := errors.New(`not a user as JSON: {"username", "password", "clientData", "serverData"}`)
	if !json.Valid(text) {
		return User{}, malformed
	}
	if val := gjson.GetBytes(text, "val"); val.Exists() && !gjson.GetBytes(text, "username").Exists() {
		text = []byte(val.Raw)
		if val.Type == gjson.String {
			text = []byte(val.Str)
		}
	}
	var s stored
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(&s) != nil {
		return User{}, malformed
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return User{}, malformed
	}
	u := User{Name: s.Username, Password: s.Password, ClientData: orNull(s.ClientData), ServerData: orNull(s.ServerData)}
	if u.ClientData == "null" {
		u.ClientData = "{}"
	}
	if u.ID() == "" {
		var err error
		if u.ClientData, err = withID(u.ClientData, ""); err != nil {
			return User{}, err
		}
	}
	return u, u.check()
}

func orNull(text json.RawMessage) string {
	if len(text) == 0 {
		return "null"
	}
	return string(text)
}
