package auth

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// CheckName says why nobody can log in under a name, or nil: for those who make users
// beforehand. Who is anonymous has no name, and names under hadal/ are the server's.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxUserName:
		return fmt.Errorf("the name is over %d bytes", maxUserName)
	case !utf8.ValidString(name):
		return errors.New("the name is not UTF-8")
	case isAnonymous(name):
		return fmt.Errorf("%s and OPEN are the names of clients that have none: choose another", Anonymous)
	case reserved(name):
		return errors.New("names that begin with hadal/ belong to the server: choose another")
	}
	return nil
}
