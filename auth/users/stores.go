package users

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"hadal/auth/vault"
)

// The backends.
const (
	Embedded = "embedded"
	Postgres = "postgres"
)

// DefaultTable is the table of a Source that names none.
const DefaultTable = "users"

// Source says where a table of users is.
type Source struct {
	// Backend is Embedded, which is also what empty means, or Postgres.
	Backend string
	// Table is the table's name; in PostgreSQL it may have a schema in front.
	Table string
	// ConnectionString is for Postgres, and a secret.
	ConnectionString string
}

// filled is s with its defaults.
func (s Source) filled() Source {
	s.Backend = cmp.Or(s.Backend, Embedded)
	s.Table = cmp.Or(s.Table, DefaultTable)
	return s
}

// Name is the table's name, also when it was left out.
func (s Source) Name() string { return s.filled().Table }

// Check joins what is wrong with a source, each mistake opening with the key it has in
// the options of the strategy.
func (s Source) Check() error {
	s = s.filled()
	var errs []error
	switch s.Backend {
	case Embedded:
		if s.ConnectionString != "" {
			errs = append(errs, errors.New("connectionString: is for backend postgres: set that, or remove this"))
		}
		if err := ValidName(s.Table); err != nil {
			errs = append(errs, fmt.Errorf("table: %w", err))
		}
	case Postgres:
		if s.ConnectionString == "" {
			errs = append(errs, errors.New("connectionString: is missing: write postgres://user:password@host:5432/database"))
		} else if _, err := parseConnection(s.ConnectionString); err != nil {
			errs = append(errs, fmt.Errorf("connectionString: %w", err))
		}
		if !tableName.MatchString(s.Table) {
			errs = append(errs, fmt.Errorf("table: %q is no name of a table: use letters, digits and _, up to 41 of them, with or without a schema in front", s.Table))
		}
	default:
		errs = append(errs, fmt.Errorf("backend: %q is not one of %s, %s", s.Backend, Embedded, Postgres))
	}
	return errors.Join(errs...)
}

// Stores opens tables of users, and shares the connections of those in one database. New
// makes it, Close ends it. It is safe for many callers at once.
type Stores struct {
	vault vault.Vault

	mu        sync.Mutex
	databases map[string]*database // by connection string; guarded by mu
	closing   sync.WaitGroup
}

// NewStores makes one whose embedded tables are in v, which need not be open yet.
func NewStores(v vault.Vault) *Stores {
	return &Stores{vault: v, databases: make(map[string]*database)}
}

// Open is the store of a table. It connects to nothing: a PostgreSQL that cannot be
// reached makes calls fail until it can.
func (s *Stores) Open(src Source) (Store, error) {
	if err := src.Check(); err != nil {
		return nil, err
	}
	src = src.filled()
	if src.Backend == Embedded {
		return newEmbedded(s.vault, src.Table), nil
	}
	return s.postgres(src)
}

// Roles is the role store that stands beside a table.
func (s *Stores) Roles(src Source) (Roles, error) {
	if err := src.Check(); err != nil {
		return nil, err
	}
	src = src.filled()
	if src.Backend == Embedded {
		return newVaultRoles(s.vault), nil
	}
	p, err := s.postgres(src)
	if err != nil {
		return nil, err
	}
	return &postgresRoles{*p}, nil
}

func (s *Stores) postgres(src Source) (*postgres, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	db := s.databases[src.ConnectionString]
	if db == nil {
		var err error
		if db, err = openDatabase(src.ConnectionString); err != nil {
			return nil, err
		}
		s.databases[src.ConnectionString] = db
	}
	return &postgres{db, src.Table, tablesOf(src.Table)}, nil
}

// Migrate makes or changes the table of a source in PostgreSQL as this program needs it,
// and says which version it had. An embedded table needs nothing.
func (s *Stores) Migrate(ctx context.Context, src Source) (Migrated, error) {
	src = src.filled()
	if err := src.Check(); err != nil || src.Backend != Postgres {
		return Migrated{}, err
	}
	p, err := s.postgres(src)
	if err != nil {
		return Migrated{}, err
	}
	return p.db.migrate(ctx, p.table)
}

// Keep closes the connections of databases that none of the sources names: a reload has
// left them behind. Calls under way end first; it does not wait for them.
func (s *Stores) Keep(sources []Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text, db := range s.databases {
		if slices.ContainsFunc(sources, func(src Source) bool { return src.ConnectionString == text }) {
			continue
		}
		delete(s.databases, text)
		s.closing.Go(db.close())
	}
}

// Close ends all connections, and returns when nothing is left.
func (s *Stores) Close() {
	s.Keep(nil)
	s.closing.Wait()
}
