package users

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"hadal/auth/users/pgtest"
)

func testMigrations(t *testing.T, server *pgtest.Server, open opener) {
	a, b, src := open(t, "migrated")
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := 0
	for i := range 8 { // nodes that start at the same time
		s := []*Stores{a, b}[i%2]
		wg.Go(func() {
			m, err := s.Migrate(t.Context(), src)
			if err != nil || m.To != 1 {
				t.Errorf("got %+v, %v, want version 1", m, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if m.From == 0 {
				made++
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("%d made the table, want one", made)
	}

	t.Run("a user who may not make tables", func(t *testing.T) {
		server.Exec(`CREATE ROLE reader LOGIN PASSWORD 'pw'; GRANT SELECT, INSERT, UPDATE, DELETE ON migrated TO reader;
			GRANT SELECT ON hadal_schema TO reader; GRANT USAGE ON migrated_revisions TO reader`)
		c, _, low := open(t, "migrated")
		low.ConnectionString = strings.Replace(low.ConnectionString, "hadal:"+pgtest.Password, "reader:pw", 1)
		s := must(c.Open(low))(t)
		if _, err := s.Create(t.Context(), must(New("ada", "x"))(t)); err != nil {
			t.Errorf("create: %v", err)
		}
		low.Table = "forbidden"
		if _, err := must(c.Open(low))(t).Find(t.Context(), "ada"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("a table that is not there: got %v, want what is missing", err)
		}
	})
	t.Run("a schema of its own", func(t *testing.T) {
		c, _, own := open(t, "logins.people")
		if _, err := c.Migrate(t.Context(), own); err == nil || !strings.Contains(err.Error(), "schema of table logins.people is not there") &&
			!strings.Contains(err.Error(), `schema "logins" does not exist`) {
			t.Errorf("without the schema: got %v", err)
		}
		server.Exec("CREATE SCHEMA logins")
		s := must(c.Open(own))(t)
		if _, err := s.Create(t.Context(), must(New("ada", "x"))(t)); err != nil {
			t.Errorf("create: %v", err)
		}
		server.Exec("SELECT name FROM logins.people_roles, logins.hadal_schema")
	})
	t.Run("a newer version", func(t *testing.T) {
		server.Exec("UPDATE hadal_schema SET version = 99 WHERE name = 'migrated'")
		c, _, newer := open(t, "migrated")
		if _, err := must(c.Open(newer))(t).Find(t.Context(), "ada"); err == nil || errors.Is(err, ErrNotFound) ||
			!strings.Contains(err.Error(), "migrated by a newer one") {
			t.Errorf("got %v, want that the program is too old", err)
		}
	})
	t.Run("a table of somebody else", func(t *testing.T) {
		server.Exec("CREATE TABLE theirs (name text)")
		c, _, theirs := open(t, "theirs")
		if _, err := must(c.Open(theirs))(t).Find(t.Context(), "ada"); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want an error: the table is not ours", err)
		}
	})
	t.Run("a row of somebody else", func(t *testing.T) {
		c, _, rows := open(t, "rows")
		s := must(c.Open(rows))(t)
		if _, err := s.Create(t.Context(), must(New("ada", "x"))(t)); err != nil {
			t.Fatal(err)
		}
		server.Exec(`UPDATE rows SET client_data = '{}'`)
		if _, err := s.Find(t.Context(), "ada"); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "no id") {
			t.Errorf("got %v, want that the user is damaged", err)
		}
	})
}

func testOutage(t *testing.T, server *pgtest.Server, open opener) {
	a, _, src := open(t, "outage")
	s := must(a.Open(src))(t)
	if _, err := s.Create(t.Context(), must(New("ada", "x"))(t)); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	for range 2 {
		_, err := s.Find(t.Context(), "ada")
		if err == nil || errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), pgtest.Password) {
			t.Errorf("without the server: got %v, want an error that is not ErrNotFound, without the password", err)
		}
	}
	server.Run()
	if u, err := s.Find(t.Context(), "ada"); u.Name != "ada" || err != nil {
		t.Errorf("when it is back: got %+v, %v", u, err)
	}
	a.Keep([]Source{src})
	if _, err := s.Find(t.Context(), "ada"); err != nil {
		t.Errorf("after Keep of its source: %v", err)
	}
	a.Keep(nil)
	if _, err := s.Find(t.Context(), "ada"); !errors.Is(err, errClosed) {
		t.Errorf("after Keep of nothing: got %v, want errClosed", err)
	}
	if _, err := must(a.Open(src))(t).Find(t.Context(), "ada"); err != nil {
		t.Errorf("opened again: %v", err)
	}
}
