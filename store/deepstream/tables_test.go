package deepstream

import (
	"errors"
	"strings"
	"testing"

	"hadal/auth/users/pgtest"
)

// connectors is what the connectors write: the statements are theirs in effect, those of
// version 3 in schema ds (with useJsonb in jsonb), those of deepstream 3 in schema old. The
// e2e tests run the connector itself.
const connectors = `
	CREATE SCHEMA ds; CREATE SCHEMA jsonb; CREATE SCHEMA old; CREATE SCHEMA other;
	CREATE TABLE ds."default" (id text NOT NULL, version int DEFAULT 0, val text NOT NULL, PRIMARY KEY (id));
	CREATE TABLE ds."cars" (LIKE ds."default");
	CREATE TABLE ds."with space" (LIKE ds."default");
	CREATE TABLE ds."users" (LIKE ds."default");
	CREATE TABLE ds."not a connector's" (id text, value text);
	INSERT INTO ds."default" VALUES ('plain', 3, '{"a":1.50}'), ('list', 70000, '["cars/bmw","plain"]'), ('null', NULL, 'null');
	INSERT INTO ds."cars" VALUES ('bmw', 1, '{"text":"ü \"quoted\" it''s"}'), ('bmw/wheels/1', 2, '{}'), ('bad', 1, '{"cut":'), ('negative', -1, '{}');
	INSERT INTO ds."with space" VALUES ('', 4, '{}');
	INSERT INTO ds."users" VALUES ('ada', 1, '{"username":"ada","password":"hash","clientData":{"id":"1"},"serverData":{"created":1}}');

	CREATE TABLE jsonb."things" (id text NOT NULL, version int DEFAULT 0, val jsonb NOT NULL, PRIMARY KEY (id));
	INSERT INTO jsonb."things" VALUES ('a', 5, '{"b":[1,2.50],"a":"x"}');

	CREATE TABLE old."default" (id text NOT NULL, val text NOT NULL, PRIMARY KEY (id));
	CREATE TABLE old."cars" (id text NOT NULL, val jsonb NOT NULL, PRIMARY KEY (id));
	INSERT INTO old."default" VALUES ('plain', '{"_v":3,"_d":{"a":1.50}}'), ('bare', '{"a":1}');
	INSERT INTO old."cars" VALUES ('bmw', '{"_v":2,"_d":["x"]}'), ('audi', '{"__ds":{"_v":6},"doors":4}');
`

func TestTablesHaveTheRecordsOfTheConnector(t *testing.T) {
	server := pgtest.Start(t)
	server.Exec(connectors)
	tests := []struct {
		name    string
		options TableOptions
		want    []Record
		left    map[string]string
	}{
		{"all", TableOptions{Schema: "ds", Default: "default"}, []Record{
			{"plain", 3, `{"a":1.50}`}, {"list", 70000, `["cars/bmw","plain"]`}, {"null", 0, `null`},
			{"cars/bmw", 1, `{"text":"ü \"quoted\" it's"}`}, {"cars/bmw/wheels/1", 2, `{}`}, {"with space/", 4, `{}`},
		}, map[string]string{"cars/bad": "its data is not JSON", "cars/negative": "version -1 is none", "users/ada": ErrUser.Error()}},
		{"some", TableOptions{Schema: "ds", Default: "cars", Only: []string{"with space", "cars"}}, []Record{
			{"bmw", 1, `{"text":"ü \"quoted\" it's"}`}, {"bmw/wheels/1", 2, `{}`}, {"with space/", 4, `{}`},
		}, map[string]string{"bad": "its data is not JSON", "negative": "version -1 is none"}},
		{"jsonb", TableOptions{Schema: "jsonb", Default: "default"}, []Record{{"things/a", 5, `{"a": "x", "b": [1, 2.50]}`}}, nil},
		{"deepstream 3", TableOptions{Schema: "old", Default: "default"}, []Record{
			{"plain", 3, `{"a":1.50}`}, {"cars/bmw", 2, `["x"]`}, {"cars/audi", 6, `{"doors":4}`},
		}, map[string]string{"bare": "its value is none of deepstream 3, with version and data, and there is no column for the version"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := read(t, func(each Each) error { return Tables(t.Context(), server.URL(), tt.options, each) })
			want := map[string]Record{}
			for _, r := range tt.want {
				want[r.Name] = r
			}
			differ(t, got.records, want)
			differ(t, got.reasons(), tt.left)
		})
	}
	for want, options := range map[string]TableOptions{
		`schema "nowhere" holds no table of deepstream's connector, with columns id and val; schemas that do: ["ds" "jsonb" "old"]`: {Schema: "nowhere"},
		`schema "jsonb" holds no table "cars" of deepstream's connector; it holds things`:                                           {Schema: "jsonb", Only: []string{"cars"}},
	} {
		if err := Tables(t.Context(), server.URL(), options, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Tables = %v, want %s", err, want)
		}
	}
	for _, connection := range []string{
		strings.Replace(server.URL(), "hadal:", "stranger:", 1),
		strings.Replace(server.URL(), "/postgres?", "/nothing?", 1),
		"postgres://h:" + pgtest.Password + "@h:nowhere/x",
	} {
		if err := Tables(t.Context(), connection, TableOptions{Schema: "ds"}, nil); err == nil || strings.Contains(err.Error(), pgtest.Password) {
			t.Errorf("Tables = %v, want an error without the password", err)
		}
	}
}

func TestTablesAreReadToTheirEndOrNotAtAll(t *testing.T) {
	server := pgtest.Start(t)
	long := strings.Repeat("t", longestIdentifier)
	server.Exec(`CREATE SCHEMA ds;
		CREATE TABLE ds.many (id text NOT NULL, version int DEFAULT 0, val text NOT NULL, PRIMARY KEY (id));
		INSERT INTO ds.many SELECT i, i, '{"i":' || i || '}' FROM generate_series(1, 100000) i;
		CREATE TABLE ds.large (LIKE ds.many);
		INSERT INTO ds.large VALUES ('one', 1, '"' || repeat('x', 64 * 1024 * 1024) || '"');
		CREATE TABLE ds.` + long + ` (LIKE ds.many);
		INSERT INTO ds.` + long + ` VALUES ('a', 1, '{}')`)
	count := 0
	var refused []string
	options := TableOptions{Schema: "ds", Default: "default"}
	if err := Tables(t.Context(), server.URL(), options, func(r Record, reason error) error {
		if reason != nil {
			refused = append(refused, r.Name+": "+reason.Error())
		} else {
			count++
		}
		return nil
	}); err != nil || count != 100000 {
		t.Errorf("Tables = %v, %d records", err, count)
	}
	if len(refused) != 2 || refused[0] != "large/one: it has 67108866 bytes, and at most 67108864 are read" || !strings.HasPrefix(refused[1], long+"/…: the table") {
		t.Errorf("refused: %q", refused)
	}
	options.Only = []string{long}
	if got := read(t, func(each Each) error { return Tables(t.Context(), server.URL(), options, each) }); got.records[long+"/a"].Version != 1 {
		t.Errorf("of the table that is named there is %v", got.records)
	}
	enough := errors.New("enough")
	options.Only = []string{"many"}
	if err := Tables(t.Context(), server.URL(), options, func(Record, error) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Tables = %v", err)
	}
}
