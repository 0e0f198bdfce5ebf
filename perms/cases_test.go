package perms

import (
	"fmt"
	"strings"
	"testing"
)

const tested = `
record:
  "*": {read: true, write: false}
  users/$id: {write: "user.id === $id", delete: "user.data?.role === 'admin'", create: "_('open').on"}
event: {"*": {publish: "data > now"}}
rpc: {"*": {}}
presence: {"*": {}}
`

func TestCasesAreRun(t *testing.T) {
	cases, err := ParseCases(`
rules: permissions.yml
users:
  root: {role: admin}
defaults: {user: ada, action: record.update, oldData: {}, expect: deny}
cases:
- {name: users/ada, data: {b: 1, a: [2, null]}, expect: allow, by: users/$id}
- {name: users/bob, data: 1, title: not others}

- title: nobody else
  user: [bob, root]
  name: [users/ada, other]
  data: {}
- {user: root, action: record.delete, name: users/x, expect: allow}
- {user: root, userData: null, action: record.delete, name: users/x}
- {action: record.create, name: users/x, oldData: null, refs: {open: {on: true}}, expect: allow}
- {action: record.create, name: users/x, oldData: null, expect: error}
- {action: event.emit, name: e, data: 5, now: 4, expect: allow}
- {action: record.patch, name: users/ada, path: a.b, data: 1, expect: allow}
- {name: users/ada, data: {}, expect: deny}
- {name: users/ada, data: {}, expect: allow, by: "*"}
- {action: record.notify, name: users/ada, by: "*"}
- {name: users/bob}
`)
	if err != nil {
		t.Fatal(err)
	}
	if cases.Rules != "permissions.yml" {
		t.Errorf("got rules %q", cases.Rules)
	}
	r := load(t, tested)
	var got []string
	for _, c := range cases.List {
		result := r.Test(t.Context(), c)
		got = append(got, strings.TrimSpace(fmt.Sprintf("%d %s %s %s %s %s", result.Line, result.Title, result.User, result.Action, result.Name, result.Problem)))
		if result.Passed != (result.Problem == "") || result.Passed && result.Explanation != nil {
			t.Errorf("%+v", result)
		}
	}
	want := []string{
		"7  ada record.update users/ada", "8 not others ada record.update users/bob",
		"10 nobody else bob record.update users/ada", "10 nobody else bob record.update other",
		"10 nobody else root record.update users/ada", "10 nobody else root record.update other",
		"14  root record.delete users/x", "15  root record.delete users/x",
		"16  ada record.create users/x", "17  ada record.create users/x", "18  ada event.emit e", "19  ada record.patch users/ada",
		"20  ada record.update users/ada expected deny, got allow",
		`21  ada record.update users/ada expected the path "*" to decide, and "users/$id" does`,
		`22  ada record.notify users/ada expected the path "*" to decide, and none does`,
		"23  ada record.update users/bob",
	}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
	if raw := string(cases.List[0].Data); raw != `{"b":1,"a":[2,null]}` {
		t.Errorf("data: got %s", raw)
	}
	if result := r.Test(t.Context(), Case{Query: Query{Action: "event.emit"}, Expect: "deny"}); result.Passed || !strings.Contains(result.Problem, "a name is missing") {
		t.Errorf("no name: %+v", result)
	}
}

func TestMistakesInCasesNameTheirLineAndCure(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"- a", []string{"is not a mapping: it needs cases"}},
		{"cases: [", []string{"["}},
		{"cases: []", []string{"there are no cases"}},
		{"cases: {}", []string{"cases: is no list"}},
		{"case: []", []string{`there is no key "case": there are rules, users, defaults and cases`}},
		{"rules: [1]\nusers: 1\ndefaults: 1\ncases: [1]", []string{"rules: is no text", "users: is not a mapping", "defaults is not a mapping", "line 4: a case is not a mapping"}},
		{"cases:\n- {action: record.update, expect: allow}\n- action: record.drop\n  expect: maybe\n  nmae: x", []string{
			`line 3: there is no key "nmae" in a case`, `line 3: expect: is "maybe": use allow, deny or error`, `line 3: this cannot be explained: the action "record.drop"`}},
		{"defaults: {action: event.emit, expect: deny}\ncases: [{now: soon}, {name: []}, {title: []}, {refs: 1}, {data: .nan}]",
			[]string{"line 2: now: soon is no time", "line 2: name: is an empty list", "line 2: title: is no text", "line 2: refs: is not a mapping", "line 2: data: cannot be JSON"}},
	} {
		_, err := ParseCases(c.text)
		rest := fmt.Sprint(err)
		for _, want := range c.want {
			_, after, ok := strings.Cut(rest, want)
			if !ok {
				t.Errorf("%s: got %v, want %q in it, in this order", c.text, err, c.want)
				break
			}
			rest = after
		}
	}
}

func FuzzAnyCasesAreReadOrRefused(f *testing.F) {
	f.Add("cases: [{action: record.update, name: [a, 1], data: {a: [1.5, ~]}, expect: allow}]")
	f.Add("defaults: &d {action: event.emit}\nusers: {a: 1}\ncases:\n- <<: *d\n  now: 5\n  expect: deny\n")
	r := load(f, tested)
	f.Fuzz(func(t *testing.T, text string) {
		cases, err := ParseCases(text)
		if err != nil {
			return
		}
		for _, c := range cases.List {
			r.Test(t.Context(), c)
		}
	})
}
