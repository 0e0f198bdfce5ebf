package users

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// schemaTable holds the version of every table of users in its schema.
const schemaTable = "hadal_schema"

// codeNoTable and codeNoSchema are PostgreSQL's codes (SQLSTATE) for what is not there.
const (
	codeNoTable  = "42P01"
	codeNoSchema = "3F000"
)

// tableName is a name of a table, with or without its schema, that needs no thought about
// quotes: letters, digits and _.
var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,40}\.)?[A-Za-z_][A-Za-z0-9_]{0,40}$`)

// tables are the names, quoted, that belong to one table of users.
type tables struct{ users, roles, revisions, schema string }

func tablesOf(table string) tables {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		schema, name = "", table
	}
	quoted := func(name string) string {
		if schema == "" {
			return pgx.Identifier{name}.Sanitize()
		}
		return pgx.Identifier{schema, name}.Sanitize()
	}
	return tables{quoted(name), quoted(name + "_roles"), quoted(name + "_revisions"), quoted(schemaTable)}
}

// statements are the migrations in their order, for these tables.
func (t tables) statements() ([]string, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	fill := strings.NewReplacer("{users}", t.users, "{roles}", t.roles, "{revisions}", t.revisions)
	all := make([]string, len(names))
	for i, name := range names {
		text, err := migrationFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all[i] = fill.Replace(string(text))
	}
	return all, nil
}

// Migrated is what a migration found and left.
type Migrated struct{ From, To int }

// beginner is a connection or a pool of them.
type beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// migrate brings a table to the version of this program, in one transaction: all or
// nothing. Those that try at the same time, on whichever nodes, come one after the other.
func migrate(ctx context.Context, db beginner, table string) (Migrated, error) {
	t := tablesOf(table)
	all, err := t.statements()
	if err != nil {
		return Migrated{}, err
	}
	newest := len(all)
	// Where all is done, no right to make tables is needed.
	found, err := versionOf(ctx, db, t, table)
	if err != nil || found == newest {
		return Migrated{found, newest}, err
	}
	m := Migrated{To: newest}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext($1))", schemaTable); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+t.schema+
			" (name text PRIMARY KEY, version int NOT NULL, changed timestamptz NOT NULL DEFAULT now())"); err != nil {
			return err
		}
		var err error
		if m.From, err = versionOf(ctx, tx, t, table); err != nil {
			return err
		}
		if m.From >= newest {
			return nil
		}
		for _, statement := range all[m.From:] {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, "INSERT INTO "+t.schema+" (name, version) VALUES ($1, $2) "+
			"ON CONFLICT (name) DO UPDATE SET version = $2, changed = now()", table, newest)
		return err
	})
	if err != nil {
		return Migrated{}, fmt.Errorf("migrate table %s: %w", table, err)
	}
	return m, nil
}

// versionOf is the version of a table; 0 when it is not there.
func versionOf(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, t tables, table string) (int, error) {
	var version int
	err := db.QueryRow(ctx, "SELECT version FROM "+t.schema+" WHERE name = $1", table).Scan(&version)
	code := ""
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		code = e.Code
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows), code == codeNoTable:
		return 0, nil
	case code == codeNoSchema:
		return 0, fmt.Errorf("the schema of table %s is not there: create it, and give the user the right to use it", table)
	case err != nil:
		return 0, fmt.Errorf("version of table %s: %w", table, err)
	}
	all, err := t.statements()
	if err == nil && version > len(all) {
		err = fmt.Errorf("table %s has version %d, and this program knows %d: it was migrated by a newer one", table, version, len(all))
	}
	return version, err
}
