package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hadal/auth/users/pgtest"
)

func TestMigrateSaysWhatItDid(t *testing.T) {
	server := pgtest.Start(t)
	config := filepath.Join(t.TempDir(), "config.yml")
	migrate := func(connection string, want int) string {
		t.Helper()
		text := fmt.Sprintf("auth:\n"+
			"  - {type: storage, options: {backend: postgres, connectionString: %q, table: people}}\n"+
			"  - {type: storage}\n", connection)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if code := run([]string{"migrate", "-c", config}, strings.NewReader(""), &out, &out); code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, out.String())
		}
		if strings.Contains(out.String(), pgtest.Password) {
			t.Errorf("the password is shown: %s", out.String())
		}
		return out.String()
	}
	if got, want := migrate(server.URL(), 0), "table people: version 1, was 0\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := migrate(server.URL(), 0), "table people: version 1, as it should be\n"; got != want {
		t.Errorf("a second time: got %q, want %q", got, want)
	}
	if got := migrate(strings.Replace(server.URL(), "hadal:", "stranger:", 1), exitFailure); !strings.Contains(got, "stranger") {
		t.Errorf("with a user who is not there: got %q, want who it is", got)
	}
	if got := migrate("postgres://h:"+pgtest.Password+"@h:nowhere/x", exitConfig); !strings.Contains(got, "auth[0].options.connectionString: is no connection string") {
		t.Errorf("with a mistake: got %q", got)
	}
	// Nor does `hadal config show` show it.
	migrate(server.URL(), 0)
	var out bytes.Buffer
	if code := run([]string{"config", "show", "-c", config}, strings.NewReader(""), &out, &out); code != 0 ||
		strings.Contains(out.String(), pgtest.Password) || !strings.Contains(out.String(), "connectionString") {
		t.Errorf("config show: %d, %s", code, out.String())
	}
}
