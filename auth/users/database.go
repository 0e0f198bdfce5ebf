package users

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// patience is how long one call to PostgreSQL may take, and how long connecting may.
const patience = 5 * time.Second

// errClosed is the error of a database that a reload has left behind.
var errClosed = errors.New("the connections to this database have been closed")

// parseConnection reads a connection string. Its error does not quote it: a password is
// in it.
func parseConnection(text string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, errors.New("is no connection string: write postgres://user:password@host:5432/database, " +
			"and what the password holds of :/?#[]@ as %3A and so on")
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = patience
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "hadal"
	}
	return cfg, nil
}

// database is the connections to one PostgreSQL, made when they are first asked for.
type database struct {
	cfg *pgxpool.Config

	mu     sync.Mutex
	pool   *pgxpool.Pool       // guarded by mu
	ready  map[string]Migrated // tables that are as this program needs them; guarded by mu
	closed bool                // guarded by mu
}

func openDatabase(text string) (*database, error) {
	cfg, err := parseConnection(text)
	if err != nil {
		return nil, err
	}
	return &database{cfg: cfg, ready: make(map[string]Migrated)}, nil
}

// connect is the pool. It waits for nobody: connections are made when they are used.
func (d *database) connect(ctx context.Context) (*pgxpool.Pool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if d.pool != nil {
		return d.pool, nil
	}
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), d.cfg.Copy())
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	d.pool = pool
	return pool, nil
}

// table is the pool, with a table in it as this program needs it.
func (d *database) table(ctx context.Context, name string) (*pgxpool.Pool, error) {
	pool, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	_, ready := d.ready[name]
	d.mu.Unlock()
	if !ready {
		_, err = d.migrate(ctx, name)
	}
	return pool, err
}

// migrate brings a table up to date. The calls of several logins at once are made good by
// the lock in the database.
func (d *database) migrate(ctx context.Context, name string) (Migrated, error) {
	pool, err := d.connect(ctx)
	if err != nil {
		return Migrated{}, err
	}
	m, err := migrate(ctx, pool, name)
	if err != nil {
		return Migrated{}, fmt.Errorf("postgres: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready[name] = m
	return m, nil
}

// close lets nobody use it any more. What it returns waits for the calls under way, which
// are bounded, and ends the connections.
func (d *database) close() (wait func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pool := d.pool
	d.pool, d.closed = nil, true
	if pool == nil {
		return func() {}
	}
	return pool.Close
}
