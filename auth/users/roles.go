package users

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hadal/auth/vault"
)

// Roles says which role a user has, whichever strategy let him in; the key is the
// user's id. It is safe for many callers at once.
type Roles interface {
	// Role is the user's role, or empty when he has none here.
	Role(ctx context.Context, id string) (string, error)
	// Set gives a user a role in the place of the one he has.
	Set(ctx context.Context, id, role string) error
	// Remove takes a user's role away, or returns ErrNotFound.
	Remove(ctx context.Context, id string) error
	// List calls each for every user with a role, until it returns an error.
	List(ctx context.Context, each func(id, role string) error) error
	// Run keeps what is remembered of roles up to date, until ctx ends. Without it Role
	// asks the store each time.
	Run(ctx context.Context) error
}

// validRole says what is wrong with an id or a role, or nothing.
func validRole(id, role string) error {
	if err := ValidName(id); err != nil {
		return fmt.Errorf("user id: %w", err)
	}
	if err := ValidName(role); err != nil {
		return fmt.Errorf("role: %w", err)
	}
	return nil
}

const rolePrefix = "role/"

// vaultRoles keeps roles in the vault, under role/<id>, and all of them in memory, so
// that a login waits for nobody.
type vaultRoles struct {
	vault vault.Vault

	mu     sync.RWMutex
	synced bool              // roles is all there is, but for what is on its way; guarded by mu
	roles  map[string]string // by key; guarded by mu
	told   map[string]string // what Watch tells before it has told all; guarded by mu
}

func newVaultRoles(v vault.Vault) *vaultRoles { return &vaultRoles{vault: v} }

var _ Roles = (*vaultRoles)(nil)

func roleKey(id string) string { return rolePrefix + vault.Segment(id) }

// Role implements Roles.
func (r *vaultRoles) Role(ctx context.Context, id string) (string, error) {
	if ValidName(id) != nil {
		return "", nil // nobody can have given him one
	}
	key := roleKey(id)
	r.mu.RLock()
	role, synced := r.roles[key], r.synced
	r.mu.RUnlock()
	if synced {
		return role, nil
	}
	entry, err := r.vault.Get(ctx, key)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("role of %q: %w", id, err)
	}
	return string(entry.Value), nil
}

// Set implements Roles.
func (r *vaultRoles) Set(ctx context.Context, id, role string) error {
	if err := validRole(id, role); err != nil {
		return err
	}
	for {
		entry, err := r.vault.Get(ctx, roleKey(id))
		switch {
		case err == nil:
			_, err = r.vault.Update(ctx, roleKey(id), []byte(role), entry.Revision, 0)
		case errors.Is(err, vault.ErrNotFound):
			_, err = r.vault.Create(ctx, roleKey(id), []byte(role), 0)
		}
		switch {
		case err == nil:
			return nil
		case (errors.Is(err, vault.ErrConflict) || errors.Is(err, vault.ErrExists)) && ctx.Err() == nil:
			continue
		}
		return fmt.Errorf("set role of %q: %w", id, err)
	}
}

// Remove implements Roles.
func (r *vaultRoles) Remove(ctx context.Context, id string) error {
	if ValidName(id) != nil {
		return ErrNotFound
	}
	return removeEntry(ctx, r.vault, roleKey(id), func(err error) error {
		if errors.Is(err, vault.ErrNotFound) {
			return ErrNotFound
		}
		return fmt.Errorf("remove role of %q: %w", id, err)
	})
}

// List implements Roles.
func (r *vaultRoles) List(ctx context.Context, each func(id, role string) error) error {
	return r.vault.List(ctx, rolePrefix, func(entry vault.Entry) error {
		id, err := vault.Text(entry.Key[len(rolePrefix):])
		if err != nil {
			return fmt.Errorf("stored role %s: %w", entry.Key, err)
		}
		return each(id, string(entry.Value))
	})
}

// Run implements Roles.
func (r *vaultRoles) Run(ctx context.Context) error {
	defer r.lost(nil)
	return r.vault.Watch(ctx, rolePrefix, vault.Watcher{Told: r.hear, Synced: r.complete, Lost: r.lost})
}

// hear takes one change over.
func (r *vaultRoles) hear(c vault.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	into := r.roles
	if !r.synced {
		if r.told == nil {
			r.told = make(map[string]string)
		}
		into = r.told
	}
	if c.Gone {
		delete(into, c.Key)
		return
	}
	into[c.Key] = string(c.Value)
}

// complete makes what was told all there is.
func (r *vaultRoles) complete() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.synced { // told twice: what came between were changes
		return
	}
	r.roles, r.told, r.synced = r.told, nil, true
	if r.roles == nil {
		r.roles = make(map[string]string)
	}
}

// lost has every role asked for until all are told again.
func (r *vaultRoles) lost(error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.told)
	r.roles, r.told, r.synced = nil, nil, false
}
