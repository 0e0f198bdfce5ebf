package perms

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func lintFile(t *testing.T, name string) []Finding {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return Lint(string(text))
}

func TestLintFindsEveryDefectOfTheSample(t *testing.T) {
	found := lintFile(t, "testdata/valve-sample.permissions.yml")
	for _, c := range []struct {
		defect string // as the end of the file numbers them
		id     string
		where  string // line:column, section, path, rule types
		says   string // in problem, effect or cure
	}{
		{"1", "missing-section", `1:1 presence`, `presence: {"*": {allow: false}}`},
		{"2 open", "quotes-in-path", `20:3 event "open/\"*\""`, `"open/*"`},
		{"2 forbidden", "quotes-in-path", `21:3 event "forbidden/\"*\""`, `"forbidden/*"`},
		{"2 a-to-b", "quotes-in-path", `22:3 event "a-to-b/\"*\""`, `"a-to-b/*"`},
		{"3", "fall-through", `5:3 record "public-read-private-write/$userid" delete, listen, notify`, `Any client may delete records`},
		{"4 fall-through", "fall-through", `9:3 record "only-increment" delete, listen, notify`, `delete, listen: "*" allows that`},
		{"4 reset", "delete-resets", `10:5 record "only-increment" create, write, delete`, "creates it again"},
		{"4 null", "missing-old-data", `10:14 record "only-increment" write`, "oldData is null"},
		{"5", "fall-through", `13:3 record "only-delete-egon-miller/$firstname/$lastname" create, read, write, listen, notify`, "Any client may create records, read records, change records"},
		{"6 fall-through", "fall-through", `15:3 record "only-allows-purchase-of-products-in-stock/$purchaseId" read, delete, listen, notify`, "delete records"},
		{"6 missing item", "missing-reference", `17:13 record "only-allows-purchase-of-products-in-stock/$purchaseId" write`, "MESSAGE_PERMISSION_ERROR"},
		{"7 news", "fall-through", `25:3 event "news/$topic" subscribe, listen`, "receive events"},
		{"7 number", "fall-through", `26:3 event "number" subscribe, listen`, "receive events"},
		{"7 place", "fall-through", `27:3 event "place/$city" subscribe, listen`, "receive events"},
		{"8", "fall-through", `22:3 event "a-to-b/\"*\"" listen`, "learn what is subscribed to"},
		{"9 record", "open-star", `4:3 record "*" create, read, write, delete, listen`, "Any client may create records"},
		{"9 event", "open-star", `19:3 event "*" publish, subscribe, listen`, "Any client may publish"},
		{"9 rpc", "open-star", `29:3 rpc "*" provide, request`, "Any client may answer calls"},
		{"10", "missing-member", `27:51 event "place/$city" publish`, "data.address may be missing"},
	} {
		if !slices.ContainsFunc(found, func(f Finding) bool {
			return f.ID == c.id && fmt.Sprintf("%d:%d %s", f.Line, f.Column, f.Where()) == c.where && f.Severity != Note &&
				strings.Contains(f.Problem+" "+f.Effect+" "+f.Cure, c.says)
		}) {
			t.Errorf("defect %s: no %s at %s that says %q", c.defect, c.id, c.where, c.says)
		}
	}
	for _, f := range found {
		if !slices.Contains(FindingIDs(), f.ID) {
			t.Errorf("%s is no kind of finding", f.ID)
		}
		if f.Problem == "" || f.Effect == "" || f.Cure == "" {
			t.Errorf("says too little: %+v", f)
		}
	}
}

func TestLintHasNothingAgainstCarefulRules(t *testing.T) {
	const name = "testdata/corrected.permissions.yml"
	for _, f := range lintFile(t, name) {
		if f.Severity != Note {
			t.Errorf("%d:%d: %s: %s: %s: %s", f.Line, f.Column, f.Severity, f.ID, f.Where(), f.Problem)
		}
	}
	if _, err := New(Config{Type: "config", Options: Options{Path: name}}); err != nil {
		t.Error(err)
	}
}

func TestLintFindings(t *testing.T) {
	const closed = `"*": {create: false, read: false, write: false, delete: false, listen: false, notify: false}`
	record := func(paths string) string {
		return "record:\n  " + closed + "\n  " + paths + "\n" +
			"event: {'*': {publish: false, subscribe: false, listen: false}}\nrpc: {'*': {provide: false, request: false}}\npresence: {'*': {allow: false}}\n"
	}
	for _, c := range []struct {
		name, text string
		want       []string // severity id line:column, in order
	}{
		{"nothing", record("a: {read: true, create: false, write: false, delete: false, listen: false, notify: false}"), nil},
		{"syntax", "record: [\n", []string{"error syntax 1:9"}},
		{"duplicate", "record: {'*': {read: true, read: false}}\n", []string{"error syntax 1:28"}},
		{"no mapping", "- a", []string{"error refused 1:1"}},
		{"unknown section", record("") + "recrod: {}\n", []string{"error refused 7:1"}},
		{"no star", strings.Replace(record(""), `"*"`, "a", 1), []string{"error missing-star 1:1"}},
		{"bad path", record("/a: {}"), []string{"error refused 3:3"}},
		{"unknown rule", record("a: {publish: true}"), []string{"warning no-rules 3:3", "error refused 3:7"}},
		{"data in read", record(`a: {read: "data.x === 1"}`), []string{"warning no-rules 3:3", "error field-not-allowed 3:14"}},
		{"oldData in create", record(`a: {create: "true && oldData?.x"}`), []string{"warning no-rules 3:3", "error field-not-allowed 3:24"}},
		{"unknown variable", record(`a/$id: {read: "user.id === $ib"}`), []string{"warning no-rules 3:3", "error refused 3:30"}},
		{"pattern", record(`u/.*: {read: true}`), []string{"warning pattern-in-path 3:3", "note fall-through 3:3"}},
		{"colon", record(`u/:id: {read: true}`), []string{"warning no-variable 3:3", "note fall-through 3:3"}},
		{"braces", record(`"u/{id}": {read: true}`), []string{"warning no-variable 3:3", "note fall-through 3:3"}},
		{"blank", record(`"u ": {read: true}`), []string{"error blank-in-path 3:3", "note fall-through 3:3"}},
		{"server's", record(`hadal/a: {read: true, write: true, create: false, delete: false, listen: false, notify: false}`), []string{"warning reserved-path 3:3"}},
		{"longer variable", record("users/me: {read: true}\n  users/$userid: {read: false}"), []string{"warning unreachable 3:3", "note fall-through 3:3", "note fall-through 4:3"}},
		{"same length", record("users/$a: {read: true}\n  users/$b: {read: false}"), []string{"warning unreachable 3:3", "note fall-through 3:3", "note fall-through 4:3"}},
		{"partly", record("users/me: {read: true, write: false}\n  users/$userid: {read: false}"), []string{"warning unreachable 3:3", "note fall-through 3:3", "note fall-through 4:3"}},
		{"not unreachable", record("users/me/too: {read: true}\n  users/$userid: {read: false}\n  'users/*x': {read: false}"), []string{"note fall-through 3:3", "note fall-through 4:3", "note fall-through 5:3"}},
		{"left to a rule", record("a/*: {read: 'user.id === name', create: false, write: false, delete: false, listen: false, notify: false}\n  a/b*: {write: 'user.id === name'}"), []string{"note fall-through 4:3"}},
		{"unused", record(`a/$x: {read: "user.id === 'a'", create: false, write: false, delete: false, listen: false, notify: false}`), []string{"note unused-variable 3:3"}},
		{"always", record(`a: {read: "'false'", create: false, write: false, delete: false, listen: false, notify: false}`), []string{"error always-true 3:14"}},
		{"or text", record(`a: {read: "user.id === 'a' || 'b'", create: false, write: false, delete: false, listen: false, notify: false}`), []string{"error always-true 3:33"}},
		{"loose", record(`a/$x: {read: "user.id == $x", create: false, write: false, delete: false, listen: false, notify: false}`), []string{"note loose 3:17"}},
		{"user data", record(`a: {read: "user.data.x === 1", create: false, write: false, delete: false, listen: false, notify: false}`), []string{"warning missing-user-data 3:14"}},
		{"self-assigned", record(`a: {write: "data.owner === user.id", create: true, read: true, delete: false, listen: false, notify: false}`), []string{"warning self-assigned 3:15"}},
		{"delete of nothing", record(`a: {delete: "oldData.owner === user.id", create: true, read: true, write: false, listen: false, notify: false}`), []string{"note missing-old-data 3:16"}},
		{"block text", record("a:\n    read: |\n      user.data.x === 1\n    create: false\n    write: false\n    delete: false\n    listen: false\n    notify: false"), []string{"warning missing-user-data 4:11"}},
		{"anchors", record("a: &r {read: 'user.data.x', create: false, write: false, delete: false, listen: false, notify: false}\n  b: *r"), []string{"warning missing-user-data 3:17", "warning missing-user-data 3:17"}},
	} {
		var got []string
		for _, f := range Lint(c.text) {
			if !slices.Contains(FindingIDs(), f.ID) {
				t.Errorf("%s is no kind of finding", f.ID)
			}
			got = append(got, fmt.Sprintf("%s %s %d:%d", f.Severity, f.ID, f.Line, f.Column))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q, for\n%s", c.name, got, c.want, c.text)
		}
	}
}

func FuzzLintFindsWhatNewRefuses(f *testing.F) {
	for _, name := range []string{"permissions.yml", "valve-sample.permissions.yml", "corrected.permissions.yml"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("record: &a {'*': {<<: *b}}\nevent: *a\nrpc: [*a]\npresence: {? x : y}\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := New(Config{Type: "config", Options: Options{Permissions: text}})
		refused := slices.ContainsFunc(Lint(text), func(f Finding) bool { return f.Effect == refusedFile })
		if refused != (err != nil) {
			t.Errorf("lint says refused: %v, and New says: %v", refused, err)
		}
	})
}

func TestAPathThatCoversAnotherMatchesItsNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([a-b/]|\*|\$[xy]/?){1,6}`)
		names := rapid.StringMatching(`[a-b/]{0,6}`)
		p, err := compilePath(strings.TrimLeft(text.Draw(t, "path"), "/") + "a")
		if err != nil {
			t.Fatal(err)
		}
		q, err := compilePath(strings.TrimLeft(text.Draw(t, "other"), "/") + "a")
		if err != nil {
			t.Fatal(err)
		}
		if name := names.Draw(t, "name"); q.matches(name) && p.covers(q) && !p.matches(name) {
			t.Fatalf("%s does not match %q, though it covers %s, which does", p.text, name, q.text)
		}
		if !q.matches(q.sample()) {
			t.Fatalf("%s does not match its sample", q.text)
		}
	})
	for _, c := range []struct {
		path, other string
		want        bool
	}{
		{"users/$userid", "users/me", true},
		{"users/$userid", "users/me/x", false},
		{"users/$userid", "users/$a", true},
		{"users/$userid", "users/*", false},
		{"users/*", "users/$a/b", true},
		{"$a$b", "xy", true},
		{"$a$b", "x", false},
		{"*", "", true},
	} {
		p, err := compilePath(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.covers(&path{text: c.other, prefix: c.other}); got != c.want && !strings.ContainsAny(c.other, "$*") {
			t.Errorf("%s covers %s: got %v", c.path, c.other, got)
		}
		if q, err := compilePath(c.other); err == nil {
			if got := p.covers(q); got != c.want {
				t.Errorf("%s covers %s: got %v", c.path, c.other, got)
			}
		}
	}
}
