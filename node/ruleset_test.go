package node

import (
	"bytes"
	"testing"

	"github.com/goccy/go-yaml"

	"hadal/auth"
	"hadal/perms"
	"hadal/protocol"
)

func TestRulesMeanTheSameOnEveryNode(t *testing.T) {
	text := `
record:
  '*': {read: false}
  'b/*': {read: "user.id === 'ada'"}
  'a/*': {read: true}
  'a/$id': {read: "$id === user.id"}
event: {'*': {publish: true}}
presence: {'*': {allow: true}}
rpc: {'*': {request: true}}
`
	var ordered yaml.MapSlice
	if err := yaml.UnmarshalWithOptions([]byte(text), &ordered, yaml.UseOrderedMap()); err != nil {
		t.Fatal(err)
	}
	for name, rules := range map[string]any{"a text": text, "a tree in order": ordered} {
		cfg := perms.Config{Type: "config", Options: perms.Options{Permissions: rules, MaxRuleIterations: 3}}
		shared, err := encodeRules(cfg)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if again, err := encodeRules(cfg); err != nil || !bytes.Equal(again, shared) {
			t.Errorf("%s: the same rules give another text", name)
		}
		there, err := decodeRules(shared, perms.DefaultConfig())
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, shared)
		}
		here, err := perms.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a, b := perms.NewLive(here, nil, nil), perms.NewLive(there, nil, nil)
		for _, record := range []string{"a/ada", "a/eve", "b/x", "c"} {
			for _, user := range []string{"ada", "eve"} {
				u := &auth.User{ID: user}
				want := a.Door(u, protocol.TopicRecord, protocol.RecordRead, record, "")
				if got := b.Door(u, protocol.TopicRecord, protocol.RecordRead, record, ""); got != want {
					t.Errorf("%s: %s reads %s: %v there, %v here", name, user, record, got, want)
				}
			}
		}
	}
	open, err := encodeRules(perms.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeRules(open, perms.DefaultConfig()); err != nil {
		t.Errorf("rules that are open: %v", err)
	}
	if _, err := decodeRules([]byte("type: later\n"), perms.DefaultConfig()); err == nil {
		t.Error("rules of a later version are taken for some")
	}
}
