package users

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// page is how many users a list reads at once.
const page = 1000

// postgres keeps users in a table of PostgreSQL (migrations/).
type postgres struct {
	db    *database
	table string
	names tables
}

var _ Store = (*postgres)(nil)

// do calls PostgreSQL, with a table that is ready, and for so long only.
func (p *postgres) do(ctx context.Context, what string, call func(context.Context, *pgxpool.Pool) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pool, err := p.db.table(ctx, p.table)
	if err != nil {
		return err
	}
	switch err := call(ctx, pool); {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrConflict):
		return err
	default:
		return fmt.Errorf("postgres: %s: %w", what, err)
	}
}

const columns = "name, password, client_data::text, server_data::text, revision"

func scan(row pgx.Row) (User, error) {
	var u User
	var revision int64
	err := row.Scan(&u.Name, &u.Password, &u.ClientData, &u.ServerData, &revision)
	u.Revision = uint64(revision)
	return u, err
}

// checked is a user that was read, or what is wrong with it: somebody else may have
// written the row.
func checked(u User) (User, error) {
	if err := u.check(); err != nil {
		return User{}, fmt.Errorf("stored user %q: %w", u.Name, err)
	}
	return u, nil
}

// Find implements Store.
func (p *postgres) Find(ctx context.Context, name string) (u User, err error) {
	if ValidName(name) != nil {
		return User{}, ErrNotFound
	}
	err = p.do(ctx, "find user", func(ctx context.Context, pool *pgxpool.Pool) error {
		u, err = scan(pool.QueryRow(ctx, "SELECT "+columns+" FROM "+p.names.users+" WHERE name = $1", name))
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	if err != nil {
		return User{}, err
	}
	return checked(u)
}

// Create implements Store.
func (p *postgres) Create(ctx context.Context, u User) (User, error) {
	return p.write(ctx, "create user", u, ErrExists,
		"INSERT INTO "+p.names.users+" (name, password, client_data, server_data) VALUES ($1, $2, $3, $4) "+
			"ON CONFLICT (name) DO NOTHING RETURNING revision")
}

// Update implements Store.
func (p *postgres) Update(ctx context.Context, u User) (User, error) {
	return p.write(ctx, "update user", u, ErrConflict,
		"UPDATE "+p.names.users+" SET password = $2, client_data = $3, server_data = $4, "+
			"revision = DEFAULT, changed = now() WHERE name = $1 AND revision = $5 RETURNING revision", int64(u.Revision))
}

// write stores u by a statement that returns the new revision, or no row: then the error
// is missed.
func (p *postgres) write(ctx context.Context, what string, u User, missed error, statement string, more ...any) (User, error) {
	if err := u.check(); err != nil {
		return User{}, fmt.Errorf("user %q: %w", u.Name, err)
	}
	args := append([]any{u.Name, u.Password, []byte(u.ClientData), []byte(u.ServerData)}, more...)
	var revision int64
	err := p.do(ctx, what, func(ctx context.Context, pool *pgxpool.Pool) error {
		err := pool.QueryRow(ctx, statement, args...).Scan(&revision)
		if errors.Is(err, pgx.ErrNoRows) {
			return missed
		}
		return err
	})
	if err != nil {
		return User{}, err
	}
	u.Revision = uint64(revision)
	return u, nil
}

// Remove implements Store.
func (p *postgres) Remove(ctx context.Context, name string) error {
	if ValidName(name) != nil {
		return ErrNotFound
	}
	return p.remove(ctx, "remove user", "DELETE FROM "+p.names.users+" WHERE name = $1", name)
}

func (p *postgres) remove(ctx context.Context, what, statement, key string) error {
	return p.do(ctx, what, func(ctx context.Context, pool *pgxpool.Pool) error {
		tag, err := pool.Exec(ctx, statement, key)
		if err == nil && tag.RowsAffected() == 0 {
			return ErrNotFound
		}
		return err
	})
}

// List implements Store.
func (p *postgres) List(ctx context.Context, each func(User) error) error {
	statement := "SELECT " + columns + " FROM " + p.names.users + " WHERE name > $1 ORDER BY name LIMIT $2"
	return pages(func(after string) (users []User, err error) {
		err = p.do(ctx, "list users", func(ctx context.Context, pool *pgxpool.Pool) error {
			rows, err := pool.Query(ctx, statement, after, page)
			if err != nil {
				return err
			}
			users, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (User, error) { return scan(row) })
			return err
		})
		return users, err
	}, func(u User) (string, error) {
		u, err := checked(u)
		if err == nil {
			err = each(u)
		}
		return u.Name, err
	})
}

// pages reads page after page, each beginning after the last key of the one before, and
// hands out what is in them.
func pages[T any](read func(after string) ([]T, error), each func(T) (key string, err error)) error {
	after := ""
	for {
		items, err := read(after)
		if err != nil {
			return err
		}
		for _, item := range items {
			if after, err = each(item); err != nil {
				return err
			}
		}
		if len(items) < page {
			return nil
		}
	}
}

// postgresRoles keeps roles in a table beside that of users. It remembers nothing: where
// users are in PostgreSQL a login asks it anyway.
type postgresRoles struct{ postgres }

var _ Roles = (*postgresRoles)(nil)

// Role implements Roles.
func (r *postgresRoles) Role(ctx context.Context, id string) (role string, err error) {
	if ValidName(id) != nil {
		return "", nil
	}
	err = r.do(ctx, "find role", func(ctx context.Context, pool *pgxpool.Pool) error {
		err := pool.QueryRow(ctx, "SELECT role FROM "+r.names.roles+" WHERE id = $1", id).Scan(&role)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return role, err
}

// Set implements Roles.
func (r *postgresRoles) Set(ctx context.Context, id, role string) error {
	if err := validRole(id, role); err != nil {
		return err
	}
	return r.do(ctx, "set role", func(ctx context.Context, pool *pgxpool.Pool) error {
		_, err := pool.Exec(ctx, "INSERT INTO "+r.names.roles+" (id, role) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET role = $2", id, role)
		return err
	})
}

// Remove implements Roles.
func (r *postgresRoles) Remove(ctx context.Context, id string) error {
	if ValidName(id) != nil {
		return ErrNotFound
	}
	return r.remove(ctx, "remove role", "DELETE FROM "+r.names.roles+" WHERE id = $1", id)
}

// List implements Roles.
func (r *postgresRoles) List(ctx context.Context, each func(id, role string) error) error {
	type row struct{ ID, Role string }
	return pages(func(after string) (rows []row, err error) {
		err = r.do(ctx, "list roles", func(ctx context.Context, pool *pgxpool.Pool) error {
			found, err := pool.Query(ctx, "SELECT id, role FROM "+r.names.roles+" WHERE id > $1 ORDER BY id LIMIT $2", after, page)
			if err != nil {
				return err
			}
			rows, err = pgx.CollectRows(found, pgx.RowToStructByPos[row])
			return err
		})
		return rows, err
	}, func(found row) (string, error) { return found.ID, each(found.ID, found.Role) })
}

// Run implements Roles: there is nothing to do.
func (r *postgresRoles) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
