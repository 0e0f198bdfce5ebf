package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hadal/auth"
	"hadal/perms"
	"hadal/protocol"
)

func TestPiecesOfARuleHaveTheColourOfTheInnermostBranch(t *testing.T) {
	long := "'" + strings.Repeat("x", 120) + "' === name" // longer than a branch shows
	rules, err := perms.New(perms.Config{Type: "config", Options: perms.Options{Permissions: map[string]any{
		"record": map[string]any{"*": map[string]any{}}, "rpc": map[string]any{"*": map[string]any{}},
		"presence": map[string]any{"*": map[string]any{"allow": true}},
		"event": map[string]any{"*": map[string]any{
			"publish": "user.id === 'ü' &&\n (data.a || data.b\n  ? data.c : " + long + ")",
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c := rules.StartCoverage()
	for _, data := range []string{`{"a":1,"c":1}`, `{"b":2,"c":0}`} {
		rules.Door(&auth.User{ID: "ü"}, protocol.TopicEvent, protocol.EventEmit, "e", data)
	}
	report := c.Report()
	got := coveragePieces(report.Rules[0])
	want := []coveragePiece{
		{"user.id === 'ü'", "some", "true 2, never false"},
		{" &&\n (", "all", "true 1, false 1"},
		{"data.a", "all", "true 1, false 1"},
		{" || ", "some", "true 2, never false"},
		{"data.b", "some", "true 1, never false"},
		{"\n  ? ", "all", "true 1, false 1"},
		{"data.c", "all", "true 1, false 1"},
		{" : ", "all", "true 1, false 1"},
		{long, "none", "never evaluated"},
		{")", "all", "true 1, false 1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var text strings.Builder
	for _, p := range got {
		text.WriteString(p.Text)
	}
	if text.String() != report.Rules[0].Text {
		t.Errorf("the pieces are %q", text.String())
	}
	if got := coveragePieces(report.Rules[1]); len(got) != 1 || got[0].Class != "none" || got[0].Text != "true" {
		t.Errorf("constant: %+v", got)
	}
}

func TestTheCandidateIsSentAsItIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yml")
	const text = `
event:
  'z': {publish: false}
  '*': {publish: "name !== '${UNSET:-a: b #1}'"}
  "1":
    publish: |
      name === 'a: b' &&
        data !== '\u2028 # no comment'
  'a b/$x': {publish: "'true' === data", subscribe: 'false'}
record: {'*': {}}
rpc: {'*': {}}
presence: {'*': {}}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sent, err := candidate(path)
	if err != nil {
		t.Fatal(err)
	}
	load := func(permissions any) []perms.RuleCoverage {
		r, err := perms.New(perms.Config{Type: "config", Options: perms.Options{Permissions: permissions}})
		if err != nil {
			t.Fatalf("%v\n%s", err, sent)
		}
		return r.StartCoverage().Report().Rules
	}
	rules := load(sent)
	var paths []string
	for _, r := range rules {
		paths = append(paths, r.Path)
	}
	if got := strings.Join(paths, ","); got != "z,*,1,a b/$x,a b/$x" {
		t.Errorf("paths in the order %s", got)
	}
	if diff := cmp.Diff("name === 'a: b' &&\n  data !== '\\u2028 # no comment'\n", rules[2].Text); diff != "" {
		t.Error(diff)
	}
	if rules[1].Text != "name !== 'a: b #1'" {
		t.Errorf("the variable gives %q", rules[1].Text)
	}
	if rules[3].Text != "'true' === data" || rules[4].Text != "false" {
		t.Errorf("got %q, %q", rules[3].Text, rules[4].Text)
	}
}
