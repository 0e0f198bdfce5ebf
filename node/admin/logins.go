package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Logins is what logins keep (users with the hashes of their passwords, roles,
// registrations, tokens), as operators copy it. It is no record, and nobody reads it here
// but as a whole.
type Logins interface {
	// ScanLogins calls fn for every entry, until it fails.
	ScanLogins(ctx context.Context, fn func(Login) error) error
	// RestoreLogin writes an entry over what is there. One that has ended is left out.
	RestoreLogin(ctx context.Context, l Login) error
}

// Login is one entry of it.
type Login struct {
	Key   string
	Value []byte
	// Ends is when it goes by itself, to the second; zero means never.
	Ends time.Time
}

// appendLine appends the entry as one line of JSON.
func (l Login) appendLine(b []byte) ([]byte, error) {
	b, err := appendJSON(append(b, `{"login":`...), l.Key)
	if err != nil {
		return nil, err
	}
	b = append(b, `,"value64":"`...)
	b = append(base64.StdEncoding.AppendEncode(b, l.Value), '"')
	if !l.Ends.IsZero() {
		b = strconv.AppendInt(append(b, `,"ends":`...), l.Ends.Unix(), 10)
	}
	return append(b, '}', '\n'), nil
}

// login is the entry that a line holds.
func (l *exportLine) login() (e Login, err error) {
	switch {
	case *l.Login == "":
		return e, errors.New("has no key")
	case l.Name != nil || l.Name64 != nil || l.Version != nil || l.Data != nil || l.Data64 != nil:
		return e, errors.New("is a record and an entry of logins")
	case l.Value64 == nil:
		return e, fmt.Errorf("login %q: value64 is missing", *l.Login)
	}
	e = Login{Key: *l.Login, Value: *l.Value64}
	if l.Ends != nil {
		if *l.Ends <= 0 {
			return e, fmt.Errorf("login %q: ends is no time", *l.Login)
		}
		e.Ends = time.Unix(*l.Ends, 0)
	}
	return e, nil
}
