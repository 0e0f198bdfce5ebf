package perms

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func matrixOf(t *testing.T, text string, users ...MatrixUser) *Matrix {
	t.Helper()
	r, err := New(Config{Type: "config", Options: Options{Permissions: text, MaxRuleIterations: 3}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Matrix(users)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const fourSections = `
record:
  '*': {create: "user.data?.role === 'b'", read: true, write: false, delete: "user.isAuthenticated"}
  own/$id/*: {write: "user.data.role === 'b' && user.id === $id", delete: "user.id === 'open'"}
event:
  '*': {publish: "['a', 'b'].includes(user.data?.role)"}
rpc: {'*': {request: "data?.x === 1"}}
presence: {'*': {allow: "user.data?.role !== 'c'"}}
`

func TestAMatrixSaysWhatFollowsFromTheUserAlone(t *testing.T) {
	m := matrixOf(t, fourSections, MatrixUser{Name: "anonymous", Anonymous: true}, RoleUser("a"), RoleUser("b"),
		MatrixUser{Name: "d", Data: json.RawMessage(`{"role":"d","team":1}`)})
	var got []string
	for _, r := range m.Rows {
		got = append(got, strings.Join(append([]string{r.Topic, r.Path, r.Action, r.By}, r.Cells...), " "))
	}
	want := []string{
		"record * create  deny deny allow deny",
		"record * read  allow allow allow allow",
		"record * write  deny deny deny deny",
		"record * delete  deny allow allow allow",
		"record * listen  deny deny deny deny",
		"record * notify  deny deny deny deny",
		"record own/$id/* create * deny deny allow deny",
		"record own/$id/* read * allow allow allow allow",
		"record own/$id/* write  deny deny sometimes deny",
		"record own/$id/* delete  allow sometimes sometimes sometimes",
		"record own/$id/* listen  deny deny deny deny",
		"record own/$id/* notify  deny deny deny deny",
		"event * publish  deny allow allow deny",
		"event * subscribe  deny deny deny deny",
		"event * listen  deny deny deny deny",
		"rpc * provide  deny deny deny deny",
		"rpc * request  sometimes sometimes sometimes sometimes",
		"presence * allow  allow allow allow allow",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRolesAreThoseThatRulesCompareWith(t *testing.T) {
	r, err := New(Config{Type: "config", Options: Options{Permissions: fourSections, MaxRuleIterations: 3}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Roles(), []string{"b", "a", "c"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAMatrixForPeopleNumbersTheRulesItRefersTo(t *testing.T) {
	m := matrixOf(t, fourSections, RoleUser("b"))
	for name, c := range map[string]struct{ text, want string }{
		"text":     {m.Text(), "  own/$id/*  write   if 1\n  own/$id/*  delete  if 2\n"},
		"notes":    {m.Text(), "  if 1: user.data.role === 'b' && user.id === $id\n  if 2: user.id === 'open'\n\nevent\n"},
		"markdown": {m.Markdown(), "| name | action | b |\n|---|---|---|\n| `*` | create | yes |\n| `*` | read | yes |\n| `*` | write | no |\n"},
		"page":     {m.Markdown(), "\n1. `user.data.role === 'b' && user.id === $id`\n2. `user.id === 'open'`\n\n### event\n"},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("%s: got\n%s\nwant in it\n%s", name, c.text, c.want)
		}
	}
}

func TestNoRulesHaveNoMatrix(t *testing.T) {
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Matrix(nil); !errors.Is(err, errOpen) {
		t.Errorf("got %v, want that there are no rules", err)
	}
	if got := r.Roles(); len(got) != 0 {
		t.Errorf("got roles %v of no rules", got)
	}
	r, err = New(Config{Type: "config", Options: Options{Permissions: fourSections, MaxRuleIterations: 3}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Matrix([]MatrixUser{{Name: "x", Data: json.RawMessage(`role`)}}); err == nil || !strings.Contains(err.Error(), "data of x") {
		t.Errorf("got %v, want an error that names x", err)
	}
}
