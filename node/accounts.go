package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidwall/gjson"

	"hadal/auth"
	"hadal/auth/users"
	"hadal/auth/vault"
	"hadal/node/admin"
)

// accounts is what strategies stand on, and outlives them: a reload makes others. It is the
// stored users and the roles as the admin API sees them.
type accounts struct {
	vault  vault.Vault
	stores *users.Stores
	roles  users.Roles
	beside users.Source // the table beside which roles are
	turns  *auth.Turnstile
	asked  asked
	// crowded says that logins shall make no more users in the vault.
	crowded func(context.Context) bool
	log     *slog.Logger
	basic   atomic.Bool // a strategy is asked about names and passwords

	mu      sync.Mutex
	tables  []users.Source // of the storage strategies; guarded by mu
	digests []auth.Digest  // for those tables; guarded by mu
}

// newAccounts opens nothing yet.
func newAccounts(cfg Config, v vault.Vault, crowded func(context.Context) bool, log *slog.Logger) (*accounts, error) {
	l := &accounts{vault: v, stores: users.NewStores(v), turns: auth.NewTurnstile(), asked: newAsked(), crowded: crowded, log: log}
	// Roles are where the first table of users is. That needs a restart to change: a role
	// that is suddenly somewhere else would be nobody's.
	if sources := auth.Sources(cfg.Auth); len(sources) > 0 {
		l.beside = sources[0]
	}
	var err error
	if l.roles, err = l.stores.Roles(l.beside); err != nil {
		return nil, fmt.Errorf("roles: %w", err)
	}
	l.keep(cfg)
	return l, nil
}

// strategies makes those of a configuration.
func (l *accounts) strategies(cfg Config) (auth.Authenticator, error) {
	return auth.New(cfg.Auth, cfg.AllowOpenFallback, auth.Deps{
		Vault: l.vault, Users: l.stores, Turnstile: l.turns, APIKeys: cfg.APIKeys, Log: l.log, Beside: cfg.besideAuth(), Crowded: l.crowded, Observer: l.asked.observer(),
	})
}

// keep has the strategies of a configuration, and their tables, be those that there are.
func (l *accounts) keep(cfg Config) {
	l.basic.Store(slices.ContainsFunc(cfg.Auth, auth.Config.TakesPasswords))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables, l.digests = nil, nil
	for i := range cfg.Auth {
		if cfg.Auth[i].Type == "storage" {
			l.tables = append(l.tables, cfg.Auth[i].Options.Source())
			l.digests = append(l.digests, cfg.Auth[i].Options.Digest())
		}
	}
	l.stores.Keep(append([]users.Source{l.beside}, l.tables...))
}

// run makes tables in PostgreSQL as they must be, and keeps roles in mind, until ctx ends.
func (l *accounts) run(ctx context.Context) error {
	l.mu.Lock()
	tables := l.tables
	l.mu.Unlock()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, src := range tables {
		if src.Backend != users.Postgres {
			continue
		}
		wg.Go(func() {
			switch m, err := l.stores.Migrate(ctx, src); {
			case ctx.Err() != nil:
			case err != nil:
				// Each login tries it again.
				l.log.Error("PostgreSQL cannot be used: stored users cannot log in until it can", "table", src.Name(), "err", err)
			case m.From != m.To:
				l.log.Info("table of users migrated", "table", src.Name(), "from", m.From, "to", m.To)
			default:
				l.log.Info("stored users are in PostgreSQL", "table", src.Name(), "version", m.To)
			}
		})
	}
	return l.roles.Run(ctx)
}

// table is the store of a table, as an operator names it.
func (l *accounts) table(name string) (users.Store, auth.Digest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []int
	var names []string
	for i, src := range l.tables {
		names = append(names, src.Name())
		if name == "" || src.Name() == name {
			found = append(found, i)
		}
	}
	switch {
	case len(names) == 0:
		return nil, auth.Digest{}, invalid{errors.New("this node stores no users: add {type: storage} to auth in its configuration")}
	case len(found) == 0:
		return nil, auth.Digest{}, invalid{fmt.Errorf("there is no table %q: there is %s", name, strings.Join(names, ", "))}
	case len(found) > 1:
		return nil, auth.Digest{}, invalid{fmt.Errorf("which table? There is %s: name one", strings.Join(names, ", "))}
	}
	store, err := l.stores.Open(l.tables[found[0]])
	return store, l.digests[found[0]], err
}

// userError says an error of the stores in the admin API's words.
func userError(err error) error {
	switch {
	case errors.Is(err, users.ErrNotFound):
		return admin.ErrNoUser
	case errors.Is(err, users.ErrExists):
		return admin.ErrUserExists
	}
	return err
}

// AddUser implements admin.Users.
func (l *accounts) AddUser(ctx context.Context, table string, n admin.NewUser) (string, error) {
	store, digest, err := l.table(table)
	if err != nil {
		return "", err
	}
	if err := errors.Join(users.ValidName(n.Name), auth.CheckName(n.Name), checkHash(n.Password, digest)); err != nil {
		return "", invalid{err}
	}
	u, err := users.New(n.Name, n.Password)
	if err != nil {
		return "", err
	}
	if len(n.ClientData) > 0 {
		if err := u.SetClientData(string(n.ClientData)); err != nil {
			return "", invalid{err}
		}
	}
	if len(n.ServerData) > 0 {
		u.ServerData = string(n.ServerData)
	}
	u, err = store.Create(ctx, u)
	return u.ID(), userError(err)
}

// checkID says why nobody can be known to rules and presence by the id of a user, which an
// import brings along in clientData.
func checkID(u *users.User) error {
	ids := 0
	gjson.Parse(u.ClientData).ForEach(func(key, _ gjson.Result) bool {
		if key.String() == "id" {
			ids++
		}
		return true
	})
	if ids > 1 {
		return errors.New("clientData.id stands there twice, so that its client would not have the id that rules know")
	}
	for _, err := range []error{auth.CheckName(u.ID()), users.ValidName(u.ID())} {
		if err != nil {
			return fmt.Errorf("clientData.id, by which rules and presence know the user: %w", err)
		}
	}
	return nil
}

func checkHash(hash string, digest auth.Digest) error {
	if err := auth.CheckStored(hash, digest); err != nil {
		return fmt.Errorf("password: %w", err)
	}
	return nil
}

// SetPassword implements admin.Users.
func (l *accounts) SetPassword(ctx context.Context, table, name, hash string) error {
	store, digest, err := l.table(table)
	if err != nil {
		return err
	}
	if err := checkHash(hash, digest); err != nil {
		return invalid{err}
	}
	_, err = users.Change(ctx, store, name, func(u *users.User) error { u.Password = hash; return nil })
	return userError(err)
}

// RemoveUser implements admin.Users.
func (l *accounts) RemoveUser(ctx context.Context, table, name string) error {
	store, _, err := l.table(table)
	if err != nil {
		return err
	}
	return userError(store.Remove(ctx, name))
}

// ListUsers implements admin.Users.
func (l *accounts) ListUsers(ctx context.Context, table string, each func(admin.User) error) error {
	store, _, err := l.table(table)
	if err != nil {
		return err
	}
	return store.List(ctx, func(u users.User) error {
		role, err := l.roles.Role(ctx, u.ID())
		if err != nil {
			return err
		}
		return each(admin.User{Name: u.Name, ID: u.ID(), Role: role, ClientData: json.RawMessage(u.ClientData), ServerData: json.RawMessage(u.ServerData)})
	})
}

// ImportUser implements admin.Users.
func (l *accounts) ImportUser(ctx context.Context, table string, line []byte, replace bool) (bool, error) {
	store, digest, err := l.table(table)
	if err != nil {
		return false, err
	}
	u, err := users.Decode(line)
	if err == nil {
		err = errors.Join(auth.CheckName(u.Name), checkID(&u), checkHash(u.Password, digest))
	}
	if err != nil {
		return false, invalid{err}
	}
	return users.Import(ctx, store, u, replace)
}

// ExportUsers implements admin.Users.
func (l *accounts) ExportUsers(ctx context.Context, table string, each func([]byte) error) error {
	store, _, err := l.table(table)
	if err != nil {
		return err
	}
	return store.List(ctx, func(u users.User) error {
		line, err := users.Encode(&u)
		if err != nil {
			return err
		}
		return each(line)
	})
}

// UserID implements admin.Users.
func (l *accounts) UserID(ctx context.Context, table, name string) (string, error) {
	store, _, err := l.table(table)
	if err != nil {
		return "", err
	}
	u, err := store.Find(ctx, name)
	return u.ID(), userError(err)
}

// SetRole implements admin.Users.
func (l *accounts) SetRole(ctx context.Context, id, role string) error {
	if role == "" {
		err := l.roles.Remove(ctx, id)
		if errors.Is(err, users.ErrNotFound) {
			return fmt.Errorf("%w with a role", admin.ErrNoUser)
		}
		return err
	}
	if err := errors.Join(users.ValidName(id), users.ValidName(role)); err != nil {
		return invalid{err}
	}
	return l.roles.Set(ctx, id, role)
}

// ListRoles implements admin.Users.
func (l *accounts) ListRoles(ctx context.Context, each func(admin.Role) error) error {
	return l.roles.List(ctx, func(id, role string) error { return each(admin.Role{ID: id, Role: role}) })
}
