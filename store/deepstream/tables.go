package deepstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// TableOptions says which tables of a database are read, in the connector's own words.
type TableOptions struct {
	// Schema is the connector's option schema.
	Schema string
	// Default is its option defaultTable: names without a slash are there.
	Default string
	// Only are the names of tables; none means all.
	Only []string
}

// longestIdentifier is where PostgreSQL cuts the name of a table off, in bytes.
const longestIdentifier = 63

// Tables reads the tables that deepstream's PostgreSQL connector has written to, all as they
// are at one moment. The connector keeps a/b/c as id b/c of table a, a name without a slash
// in the default table, and drops " and ; from names. Errors do not quote the connection
// string, which holds a password.
func Tables(ctx context.Context, connection string, o TableOptions, each Each) error {
	cfg, err := pgx.ParseConfig(connection)
	if err != nil {
		return errors.New("this is no connection string: write postgres://user:password@host:5432/database, " +
			"and what the password holds of :/?#[]@ as %3A and so on")
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	// It has only read: how its end goes changes nothing.
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
		return err
	}
	tables, err := tablesOf(ctx, tx, o)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if len(t.name) == longestIdentifier && !slices.Contains(o.Only, t.name) {
			err = each(Record{Name: t.name + "/…"}, fmt.Errorf("the table %q has a name of %d bytes, where PostgreSQL cuts names off: "+
				"if it is whole, name the table", t.name, longestIdentifier))
		} else {
			err = t.read(ctx, tx, o, each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// table is one of the connector's.
type table struct {
	name      string
	versioned bool // it has a column for the version, as from version 3 of the connector
}

// tablesOf finds those that look like the connector's.
func tablesOf(ctx context.Context, tx pgx.Tx, o TableOptions) ([]table, error) {
	const columns = `FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped`
	const connectors = ` HAVING bool_or(a.attname = 'id') AND bool_or(a.attname = 'val') ORDER BY 1`
	rows, err := tx.Query(ctx, `SELECT c.relname, bool_or(a.attname = 'version') `+columns+` AND n.nspname = $1 GROUP BY c.relname`+connectors, o.Schema)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t table, err error) { return t, row.Scan(&t.name, &t.versioned) })
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		rows, err := tx.Query(ctx, `SELECT DISTINCT n.nspname `+columns+` GROUP BY n.nspname, c.relname`+connectors)
		if err != nil {
			return nil, err
		}
		schemas, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("schema %q holds no table of deepstream's connector, with columns id and val; schemas that do: %q", o.Schema, schemas)
	}
	if len(o.Only) == 0 {
		return all, nil
	}
	var chosen []table
	for _, name := range o.Only {
		i := slices.IndexFunc(all, func(t table) bool { return t.name == name })
		if i < 0 {
			var names []string
			for _, t := range all {
				names = append(names, t.name)
			}
			return nil, fmt.Errorf("schema %q holds no table %q of deepstream's connector; it holds %s", o.Schema, name, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// read hands over the rows of a table as they arrive.
func (t table) read(ctx context.Context, tx pgx.Tx, o TableOptions, each Each) error {
	version := "0"
	if t.versioned {
		version = "coalesce(version, 0)"
	}
	// Else what is left of the rows would be read to its end when one cannot be taken.
	ctx, stop := context.WithCancel(ctx)
	// What is too large is not sent at all.
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT id, %s::bigint, octet_length(val::text), CASE WHEN octet_length(val::text) <= $1 THEN val::text END FROM %s`,
		version, pgx.Identifier{o.Schema, t.name}.Sanitize()), MaxData)
	if err != nil {
		stop()
		return err
	}
	defer func() { stop(); rows.Close() }()
	for rows.Next() {
		var name string
		var version, size int64
		var val *string
		if err := rows.Scan(&name, &version, &size, &val); err != nil {
			return fmt.Errorf("table %q: %w", t.name, err)
		}
		if t.name != o.Default {
			name = t.name + "/" + name
		}
		if err := t.row(name, version, size, val, each); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("table %q: %w", t.name, err)
	}
	return nil
}

func (t table) row(name string, version, size int64, val *string, each Each) error {
	switch {
	case val == nil:
		return each(Record{Name: name}, tooLarge(size))
	case t.versioned:
		return each.give(name, version, *val)
	}
	version, data, ok := unwrap(*val)
	if !ok {
		return each(Record{Name: name}, errors.New("its value is none of deepstream 3, with version and data, and there is no column for the version"))
	}
	return each.give(name, version, data)
}
