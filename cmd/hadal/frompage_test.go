package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"hadal/auth/users/pgtest"
	"hadal/node/admin"
)

// ofConnector is what deepstream's PostgreSQL connector has written, in effect.
const ofConnector = `
	CREATE SCHEMA ds;
	CREATE TABLE ds."default" (id text NOT NULL, version int DEFAULT 0, val text NOT NULL, PRIMARY KEY (id));
	CREATE TABLE ds."cars" (LIKE ds."default" INCLUDING ALL);
	CREATE TABLE ds."users" (LIKE ds."default" INCLUDING ALL);
	INSERT INTO ds."default" VALUES ('cars', 5, '["cars/bmw"]'), ('settings', 1, '{}');
	INSERT INTO ds."cars" VALUES ('bmw', 3, '{"make":"BMW","wheels":4}'), ('trabant', 1, '{}');
	INSERT INTO ds."users" VALUES ('ada', 1, '{"username":"ada","password":"` +
	// What deepstream makes of the password "secret": sha512, 100 iterations, 32 bytes; and the salt.
	`kRYQzhYNxL8VTknFN8sASJmHSkXHNzCqttTWTqNi5Y0=c2FsdHNhbHRzYWx0c2FsdA==` +
	`","clientData":{"id":"7c0b8c4e-1f1c-4b8e-8d0a-3a4c7b2d9e11"},"serverData":{"created":1}}');
`

// The page about coming from deepstream is a script, as the pages about tools are. Its
// console blocks are for a shell, in a folder with a dump of redis, against a real PostgreSQL.
func TestThePageAboutDeepstreamIsTrue(t *testing.T) {
	server := pgtest.Start(t)
	server.Exec(ofConnector)
	page, err := os.ReadFile("../../docs/from-deepstream.md")
	if err != nil {
		t.Fatal(err)
	}
	dump, err := filepath.Abs("../../store/deepstream/testdata/dump.rdb")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "cp $DUMP dump.rdb\n" + shellScriptOf(string(page), server.URL())
	if err := os.WriteFile(filepath.Join(dir, "page.txtar"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: dir,
			Setup: func(e *testscript.Env) error {
				e.Values[nodeKey{}] = &background{}
				e.Setenv("GORACE", "atexit_sleep_ms=0")
				e.Setenv("DUMP", dump)
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"node": nodeCommand, "printed": expectPrinted},
		})
	})
	// Back in deepstream's table is what the node had: its own records, and those of the dump.
	got := kept(t, server)
	want := `audi 3 {"make": "Audi", "wheels": 4}
bmw 3 {"make": "BMW", "wheels": 4}
ünique 1 {"text": "🦑 \"quoted\" \\ ` + "\u2028" + `"}`
	if got != want {
		t.Errorf("back in the table is\n%s\nwant\n%s", got, want)
	}
}

// kept is what stands in ds.cars.
func kept(t *testing.T, server *pgtest.Server) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `SELECT id || ' ' || version || ' ' || (val::jsonb)::text FROM ds.cars ORDER BY id COLLATE "C"`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, "\n")
}

// The way back empties no table by mistake, and brings every record, whatever an export has to
// make of it and whichever type deepstream's connector keeps it in.
func TestTheWayBackIsAllOrNothing(t *testing.T) {
	page, err := os.ReadFile("../../docs/from-deepstream.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```sql\n(-- back.sql\n.*?)```").FindSubmatch(page)
	command := regexp.MustCompile(`(?m)^\$ (psql .* -f back.sql) `).FindSubmatch(page)
	if script == nil || command == nil {
		t.Fatal("the page has no back.sql, or no psql that runs it")
	}
	server := pgtest.Start(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "back.sql"), script[1], 0o600); err != nil {
		t.Fatal(err)
	}
	export := func(records ...admin.Record) string {
		var b strings.Builder
		e := admin.NewExporter(&b)
		for _, r := range records {
			if err := e.Add(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.End(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	whole := export(
		admin.Record{Name: "cars/bmw", Version: 4, Data: `{"a":"\"\\ü"}`}, admin.Record{Name: "cars/lines", Version: 5, Data: "{\n\"b\": 2}"},
		admin.Record{Name: "cars/text", Version: 6, Data: `"it's"`}, admin.Record{Name: "cars/null", Version: 7, Data: `null`})
	const before = "bmw 3 {}\nlines 3 {}\ntrabant 1 {}"
	for _, column := range []string{"text", "jsonb"} {
		for _, tt := range []struct{ name, lines, want, refused string }{
			{"whole", whole, "bmw 4 {\"a\": \"\\\"\\\\ü\"}\nlines 5 {\"b\": 2}\nnull 7 null\ntext 6 \"it's\"", ""},
			{"no records", export(), before, "cars.ndjson has 0 records"},
			{"nothing", "", before, "cars.ndjson has 0 records"},
			{"another prefix", export(admin.Record{Name: "boats/x", Version: 1, Data: `{}`}), before, "cars.ndjson has 0 records"},
			{"no end", whole[:strings.Index(whole, `{"end"`)], before, "cars.ndjson has 4 records"},
			{"a line less", whole[strings.Index(whole, "\n")+1:], before, "cars.ndjson has 3 records of cars/, and its end line says 4"},
			{"the middle cannot be taken", export(admin.Record{Name: "cars/bmw", Version: 9, Data: `{}`}, admin.Record{Name: "cars/b", Version: 1, Data: "{}\n\xff"}), before, "UTF8"},
		} {
			t.Run(column+" "+tt.name, func(t *testing.T) {
				server.Exec(`DROP SCHEMA IF EXISTS ds CASCADE; CREATE SCHEMA ds;
					CREATE TABLE ds.cars (id text NOT NULL, version int DEFAULT 0, val ` + column + ` NOT NULL, PRIMARY KEY (id));
					INSERT INTO ds.cars VALUES ('bmw', 3, '{}'), ('lines', 3, '{}'), ('trabant', 1, '{}');`)
				if err := os.WriteFile(filepath.Join(dir, "cars.ndjson"), []byte(tt.lines), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), "sh", "-c", string(command[1])+" '"+server.URL()+"'")
				cmd.Dir = dir
				out, err := cmd.CombinedOutput()
				if refused := err != nil; refused != (tt.refused != "") || !strings.Contains(string(out), tt.refused) {
					t.Errorf("psql: %v, want %q:\n%s", err, tt.refused, out)
				}
				if got := kept(t, server); got != tt.want {
					t.Errorf("the table has\n%s\nwant\n%s", got, tt.want)
				}
			})
		}
	}
}

// shellScriptOf makes a script of the page: its blocks are files, and commands with what they
// print, in order. The node is started as it stands there, but on a port of its own.
func shellScriptOf(page, database string) string {
	var script, files strings.Builder
	for i, m := range pagePart.FindAllStringSubmatch(page, -1) {
		switch language, body := m[1], m[2]; language {
		case "yaml", "sql":
			name, _, _ := strings.Cut(strings.TrimLeft(body, "-# "), "\n")
			fmt.Fprintf(&files, "-- %s --\n%s", name, body)
		case "jsonl":
			fmt.Fprintf(&files, "-- records.jsonl --\n%s", body)
		case "console":
			for j, part := range strings.Split("\n"+body, "\n$ ")[1:] {
				command, printed, _ := strings.Cut(part, "\n")
				if command == "hadal start -c config.yml &" {
					script.WriteString("node start -c config.yml --port 0\nnode await 'msg=started'\n")
					continue
				}
				if strings.HasPrefix(command, "hadal records export") { // meanwhile, a client
					script.WriteString("exec hadal records delete cars/trabant -c config.yml\n")
				}
				fails := ""
				if strings.Contains(printed, " were refused\n") || strings.Contains(printed, " warning, ") {
					fails = "! "
				}
				if printed != "" && !strings.HasSuffix(printed, "\n") {
					printed += "\n"
				}
				fmt.Fprintf(&script, "%sexec sh command%d.%d\nprinted printed%d.%d\n", fails, i, j, i, j)
				fmt.Fprintf(&files, "-- command%d.%d --\n%s\n-- printed%d.%d --\n%s", i, j,
					strings.ReplaceAll(command, "postgres://deepstream@db.internal/app", "'"+database+"'"), i, j, printed)
			}
		}
	}
	return script.String() + files.String()
}
