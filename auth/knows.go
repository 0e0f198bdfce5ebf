package auth

import (
	"context"
	"errors"
	"fmt"

	"hadal/auth/users"
)

// Knower is an Authenticator that can say whether a name belongs to one of its users, so
// that nobody else is given it.
type Knower interface {
	Knows(ctx context.Context, name string) (bool, error)
}

// Knows implements Knower: it asks the strategies that can tell.
func (c Chain) Knows(ctx context.Context, name string) (bool, error) {
	for _, strategy := range c {
		k, ok := strategy.(Knower)
		if !ok {
			continue
		}
		if known, err := k.Knows(ctx, name); known || err != nil {
			return known, err
		}
	}
	return false, nil
}

// Knows implements Knower.
func (l *Live) Knows(ctx context.Context, name string) (bool, error) {
	k, ok := (*l.current.Load()).(Knower)
	if !ok {
		return false, nil
	}
	return k.Knows(ctx, name)
}

// Knows implements Knower.
func (f *file) Knows(_ context.Context, name string) (bool, error) {
	_, known := f.users[name]
	return known, nil
}

// Special says whether nobody may be registered under a name: it is empty, one of those
// that clients without a name have, or the server's own.
func Special(name string) bool { return name == "" || isAnonymous(name) || reserved(name) }

// Knows implements Knower.
func (s *storage) Knows(ctx context.Context, name string) (bool, error) {
	switch _, err := s.store.Find(ctx, name); {
	case err == nil:
		return true, nil
	case errors.Is(err, users.ErrNotFound):
		return false, nil
	default:
		return false, fmt.Errorf("%s: look for a user: %w", s.key, err)
	}
}
