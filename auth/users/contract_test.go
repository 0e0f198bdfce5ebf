package users

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hadal/auth/users/pgtest"
	"hadal/auth/vault"
)

// TestEmbedded holds the embedded backend to the contract.
func TestEmbedded(t *testing.T) {
	t.Parallel()
	v := vault.NewMemory()
	contract(t, func(t *testing.T, table string) (a, b *Stores, src Source) {
		return NewStores(v), NewStores(v), Source{Table: table}
	})
}

// TestPostgres holds PostgreSQL to the contract, and to what is its own.
func TestPostgres(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	open := func(t *testing.T, table string) (a, b *Stores, src Source) {
		a, b = NewStores(vault.NewMemory()), NewStores(vault.NewMemory())
		t.Cleanup(a.Close)
		t.Cleanup(b.Close)
		return a, b, Source{Backend: Postgres, Table: table, ConnectionString: server.URL()}
	}
	contract(t, open)
	t.Run("migrations", func(t *testing.T) { testMigrations(t, server, open) })
	t.Run("outage", func(t *testing.T) { testOutage(t, server, open) }) // the last: it stops the server
}

// opener makes the stores of two nodes that share everything.
type opener func(t *testing.T, table string) (a, b *Stores, src Source)

// must is v, or the end of the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func contract(t *testing.T, open opener) {
	t.Run("users", func(t *testing.T) {
		a, b, src := open(t, "contract_users")
		here, there := must(a.Open(src))(t), must(b.Open(src))(t)
		testUsers(t, here, there)
		src.Table = "contract_others"
		if _, err := must(a.Open(src))(t).Find(t.Context(), "ada"); !errors.Is(err, ErrNotFound) {
			t.Errorf("in another table: got %v, want ErrNotFound", err)
		}
	})
	t.Run("names", func(t *testing.T) {
		a, _, src := open(t, "contract_names")
		testNames(t, must(a.Open(src))(t))
	})
	t.Run("races", func(t *testing.T) {
		a, b, src := open(t, "contract_races")
		testRaces(t, must(a.Open(src))(t), must(b.Open(src))(t))
	})
	t.Run("list", func(t *testing.T) {
		a, _, src := open(t, "contract_list")
		testList(t, must(a.Open(src))(t))
	})
	t.Run("roles", func(t *testing.T) {
		a, b, src := open(t, "contract_roles")
		testRoles(t, must(a.Roles(src))(t), must(b.Roles(src))(t))
	})
}

func testUsers(t *testing.T, here, there Store) {
	ctx := t.Context()
	u := must(New("ada", "$argon2id$one"))(t)
	u.ServerData = `{"created":1500000000000,  "n":1.50,"s":"<ü>"}`
	if _, err := here.Find(ctx, "ada"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("before it is there: got %v, want ErrNotFound", err)
	}
	made := must(here.Create(ctx, u))(t)
	if made.Revision == 0 {
		t.Error("a created user has no revision")
	}
	if _, err := there.Create(ctx, u); !errors.Is(err, ErrExists) {
		t.Errorf("a second time: got %v, want ErrExists", err)
	}
	found := must(there.Find(ctx, "ada"))(t)
	if compact(found.ServerData) != compact(u.ServerData) || found.ClientData != u.ClientData ||
		found.Password != u.Password || found.Name != "ada" || found.Revision != made.Revision || found.ID() != u.ID() {
		t.Errorf("got %+v, want %+v", found, made)
	}

	changed := must(Change(ctx, there, "ada", func(u *User) error { u.Password = "$argon2id$two"; return nil }))(t)
	if changed.Revision <= made.Revision {
		t.Errorf("revision %d after %d, want that it rises", changed.Revision, made.Revision)
	}
	made.Password = "$argon2id$stale"
	if _, err := here.Update(ctx, made); !errors.Is(err, ErrConflict) {
		t.Errorf("with an old revision: got %v, want ErrConflict", err)
	}
	if got := must(here.Find(ctx, "ada"))(t); got.Password != "$argon2id$two" {
		t.Errorf("the password is %s, want the newer one", got.Password)
	}
	refusal := errors.New("no")
	if _, err := Change(ctx, here, "ada", func(*User) error { return refusal }); !errors.Is(err, refusal) {
		t.Errorf("a change that its caller refuses: got %v", err)
	}

	// What was read of a user that is gone does not change one of the same name.
	if err := here.Remove(ctx, "ada"); err != nil {
		t.Fatal(err)
	}
	if err := there.Remove(ctx, "ada"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a second removal: got %v, want ErrNotFound", err)
	}
	if _, err := there.Update(ctx, changed); !errors.Is(err, ErrConflict) {
		t.Errorf("an update of a removed user: got %v, want ErrConflict", err)
	}
	again := must(here.Create(ctx, must(New("ada", "$argon2id$three"))(t)))(t)
	if _, err := there.Update(ctx, changed); !errors.Is(err, ErrConflict) || again.Revision <= changed.Revision {
		t.Errorf("an update of the one before: got %v, revisions %d and %d, want ErrConflict", err, changed.Revision, again.Revision)
	}

	if did := must(Import(ctx, here, u, false))(t); did {
		t.Error("an import wrote over a user")
	}
	if did := must(Import(ctx, here, u, true))(t); !did || must(there.Find(ctx, "ada"))(t).ID() != u.ID() {
		t.Error("an import that replaces did not")
	}
}

// compact is JSON without blanks outside of texts; good enough for what is tested.
func compact(text string) string { return strings.ReplaceAll(text, " ", "") }

func testNames(t *testing.T, s Store) {
	ctx := t.Context()
	for _, name := range []string{"a/b", "A", "a", "ü", "a b", "%_'\"\\", "*.>", strings.Repeat("n", MaxName), "constructor", "__proto__", "-"} {
		u := must(New(name, "$argon2id$x"))(t)
		if _, err := s.Create(ctx, u); err != nil {
			t.Errorf("%.20q: %v", name, err)
			continue
		}
		if got, err := s.Find(ctx, name); got.Name != name || got.ID() != u.ID() || err != nil {
			t.Errorf("%.20q: found %q, %v", name, got.Name, err)
		}
	}
	for _, name := range []string{"", "a\x00", "a\n", "\xff", strings.Repeat("n", MaxName+1)} {
		if _, err := s.Create(ctx, User{Name: name, Password: "x", ClientData: `{"id":"1"}`, ServerData: "null"}); err == nil {
			t.Errorf("%.20q was taken as a name", name)
		}
		if _, err := s.Find(ctx, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%.20q: got %v, want ErrNotFound", name, err)
		}
		if err := s.Remove(ctx, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("remove %.20q: got %v, want ErrNotFound", name, err)
		}
	}
}

func testRaces(t *testing.T, here, there Store) {
	ctx := t.Context()
	const racers, rounds = 8, 5
	for round := range rounds {
		name := fmt.Sprint("racer", round)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range racers {
			s := []Store{here, there}[i%2]
			u := must(New(name, "$argon2id$0"))(t)
			wg.Go(func() {
				switch _, err := s.Create(ctx, u); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ErrExists):
					t.Errorf("create: %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of %d created %s, want one", won.Load(), racers, name)
		}
		for i := range racers {
			s := []Store{here, there}[i%2]
			wg.Go(func() {
				if _, err := Change(ctx, s, name, func(u *User) error { u.Password += "0"; return nil }); err != nil {
					t.Errorf("change: %v", err)
				}
			})
		}
		wg.Wait()
		if got := must(here.Find(ctx, name))(t).Password; strings.Count(got, "0") != racers+1 {
			t.Errorf("%s after %d changes: one was lost", got, racers)
		}
	}
}

func testList(t *testing.T, s Store) {
	ctx := t.Context()
	var want []string
	for i := range page + 17 {
		name := fmt.Sprintf("user %05d", i)
		want = append(want, name)
		if _, err := s.Create(ctx, User{Name: name, Password: "x", ClientData: fmt.Sprintf(`{"id":"%d"}`, i), ServerData: "null"}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	if err := s.List(ctx, func(u User) error { got = append(got, u.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d are listed, want each of %d once", len(got), len(want))
	}
	enough := errors.New("enough")
	if err := s.List(ctx, func(User) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want the error of the caller", err)
	}
}

func testRoles(t *testing.T, here, there Roles) {
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	expect := func(r Roles, id, want string) {
		t.Helper()
		for ctx := t.Context(); ; { // what the other node did is on its way
			got, err := r.Role(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if got == want {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("role of %s is %q, want %q", id, got, want)
			}
		}
	}
	expect(here, "ada", "")
	if err := here.Set(ctx, "ada", "admin"); err != nil {
		t.Fatal(err)
	}
	expect(there, "ada", "admin") // without Run
	running.Go(func() {
		if err := here.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want that its context ended", err)
		}
	})
	expect(here, "ada", "admin")
	for _, role := range []string{"moderator", "ü/<role>", "guest"} {
		if err := there.Set(ctx, "ada", role); err != nil {
			t.Fatal(err)
		}
		expect(here, "ada", role)
	}
	if err := there.Set(ctx, "b/ü", "x"); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := here.List(ctx, func(id, role string) error { got[id] = role; return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got["ada"] != "guest" || got["b/ü"] != "x" {
		t.Errorf("listed %v, want ada and b/ü", got)
	}
	if err := there.Remove(ctx, "ada"); err != nil {
		t.Fatal(err)
	}
	expect(here, "ada", "")
	if err := here.Remove(ctx, "ada"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a second removal: got %v, want ErrNotFound", err)
	}
	for _, c := range [][2]string{{"", "x"}, {"ada", ""}, {"a\x00", "x"}, {"ada", strings.Repeat("r", MaxName+1)}} {
		if err := here.Set(ctx, c[0], c[1]); err == nil {
			t.Errorf("%.20q has the role %.20q", c[0], c[1])
		}
	}
	stop()
	running.Wait()
	// Nothing is remembered that nobody keeps up to date.
	if err := there.Set(t.Context(), "ada", "late"); err != nil {
		t.Fatal(err)
	}
	if got, err := here.Role(t.Context(), "ada"); got != "late" || err != nil {
		t.Errorf("after Run: got %q, %v, want late", got, err)
	}
}
