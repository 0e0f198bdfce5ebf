package users

import (
	"context"
	"errors"
	"fmt"

	"hadal/auth/vault"
)

// embedded keeps users in the vault, under user/<table>/<name>.
type embedded struct {
	vault  vault.Vault
	prefix string
}

// newEmbedded makes the store of one table.
func newEmbedded(v vault.Vault, table string) *embedded {
	return &embedded{v, "user/" + vault.Segment(table) + "/"}
}

var _ Store = (*embedded)(nil)

func (e *embedded) key(name string) string { return e.prefix + vault.Segment(name) }

// Find implements Store.
func (e *embedded) Find(ctx context.Context, name string) (User, error) {
	if ValidName(name) != nil {
		return User{}, ErrNotFound
	}
	entry, err := e.vault.Get(ctx, e.key(name))
	if err != nil {
		return User{}, e.translate("find", err)
	}
	return e.decode(entry)
}

func (e *embedded) decode(entry vault.Entry) (User, error) {
	u, err := Decode(entry.Value)
	if err != nil {
		return User{}, fmt.Errorf("stored user %s: %w", entry.Key, err)
	}
	u.Revision = entry.Revision
	return u, nil
}

// translate says an error of the vault in the words of Store.
func (e *embedded) translate(what string, err error) error {
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return ErrNotFound
	case errors.Is(err, vault.ErrExists):
		return ErrExists
	case errors.Is(err, vault.ErrConflict):
		return ErrConflict
	}
	return fmt.Errorf("%s user: %w", what, err) // the name may be a password, in the wrong field
}

// Create implements Store.
func (e *embedded) Create(ctx context.Context, u User) (User, error) {
	text, err := Encode(&u)
	if err != nil {
		return User{}, err
	}
	u.Revision, err = e.vault.Create(ctx, e.key(u.Name), text, 0)
	if err != nil {
		return User{}, e.translate("create", err)
	}
	return u, nil
}

// Update implements Store.
func (e *embedded) Update(ctx context.Context, u User) (User, error) {
	text, err := Encode(&u)
	if err != nil {
		return User{}, err
	}
	u.Revision, err = e.vault.Update(ctx, e.key(u.Name), text, u.Revision, 0)
	if err != nil {
		return User{}, e.translate("update", err)
	}
	return u, nil
}

// Remove implements Store.
func (e *embedded) Remove(ctx context.Context, name string) error {
	if ValidName(name) != nil {
		return ErrNotFound
	}
	return removeEntry(ctx, e.vault, e.key(name), func(err error) error { return e.translate("remove", err) })
}

// removeEntry deletes an entry whatever it is, but says so when there is none.
func removeEntry(ctx context.Context, v vault.Vault, key string, translate func(error) error) error {
	for {
		entry, err := v.Get(ctx, key)
		if err == nil {
			err = v.Delete(ctx, key, entry.Revision)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, vault.ErrConflict) && ctx.Err() == nil:
			continue // changed just now: that one is meant as well
		}
		return translate(err)
	}
}

// List implements Store.
func (e *embedded) List(ctx context.Context, each func(User) error) error {
	return e.vault.List(ctx, e.prefix, func(entry vault.Entry) error {
		u, err := e.decode(entry)
		if err != nil {
			return err
		}
		return each(u)
	})
}
