package perms

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"hadal/auth"
	"hadal/protocol"
)

var someone = &auth.User{ID: "someone"}

// load compiles the text of a rules file.
func load(t testing.TB, text string) *Rules {
	t.Helper()
	r, err := New(Config{Type: "config", Options: Options{Permissions: text}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rest are sections for tests that care about one.
const (
	restRecord   = "record: {'*': {}}\n"
	restEvent    = "event: {'*': {}}\n"
	restRPC      = "rpc: {'*': {}}\n"
	restPresence = "presence: {'*': {}}\n"
)

func TestRulesComeFromAFileATextOrATree(t *testing.T) {
	const path = "testdata/permissions.yml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var ordered yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(text, &ordered, yaml.UseOrderedMap()); err != nil {
		t.Fatal(err)
	}
	var plain map[string]any
	if err := yaml.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	loose := map[any]any{}
	for k, v := range plain {
		loose[k] = v
	}
	for name, o := range map[string]Options{
		"path":        {Path: path},
		"text":        {Permissions: string(text)},
		"ordered map": {Permissions: ordered},
		"map":         {Permissions: plain},
		"loose map":   {Permissions: loose},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := New(Config{Type: "config", Options: o})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				topic  protocol.Topic
				action protocol.Action
				name   string
				want   Verdict
			}{
				{protocol.TopicRecord, protocol.RecordRead, "public", Allow},
				{protocol.TopicRecord, protocol.RecordRead, "private/egon", Deny},
				{protocol.TopicRecord, protocol.RecordUpdate, "private/egon", Deny},
				{protocol.TopicRecord, protocol.RecordNotify, "private/egon", Allow},
				{protocol.TopicRecord, protocol.RecordDelete, "private/egon", Deny},
				{protocol.TopicRecord, protocol.RecordRead, "private/egon/x", Allow},
				{protocol.TopicEvent, protocol.EventEmit, "e", Allow},
				{protocol.TopicEvent, protocol.EventListen, "e", Deny},
				{protocol.TopicRPC, protocol.RPCRequest, "r", Allow},
				{protocol.TopicRPC, protocol.RPCProvide, "r", Deny},
				{protocol.TopicPresence, protocol.PresenceQuery, "egon", Allow},
			} {
				if got := r.Door(someone, c.topic, c.action, c.name, ""); got != c.want {
					t.Errorf("%v %s %q: got %v, want %v", c.topic, c.action.Name(c.topic), c.name, got, c.want)
				}
			}
		})
	}
}

func TestMistakesInTheRulesNameTheirPlaceAndCure(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.yml")
	if err := os.WriteFile(broken, []byte("record: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rules := func(text string) Config { return Config{Type: "config", Options: Options{Permissions: text}} }
	for _, c := range []struct {
		name string
		cfg  Config
		want []string // parts of the error, in this order
	}{
		{"no type", Config{}, []string{"permission.type: is missing"}},
		{"unknown type", Config{Type: "valve"}, []string{`permission.type: there is no type "valve"`}},
		{"no rules", Config{Type: "config"}, []string{"permission.options.permissions: is missing"}},
		{"rules twice", Config{Type: "config", Options: Options{Permissions: "x", Path: "y"}},
			[]string{"permission.options.path: permissions is set as well"}},
		{"no file", Config{Type: "config", Options: Options{Path: filepath.Join(dir, "none.yml")}},
			[]string{"permission.options.path: ", "none.yml"}},
		{"broken file", Config{Type: "config", Options: Options{Path: broken}}, []string{"permission.options.path: ", "broken.yml: "}},
		{"1: no mapping", rules("- a"), []string{"permission.options.permissions: is not a mapping: it needs the sections record, event, rpc and presence"}},
		{"1: empty", rules(""), []string{"is not a mapping"}},
		{"1: a number", Config{Type: "config", Options: Options{Permissions: 1}}, []string{"is not a mapping"}},
		{"2: sections missing", rules(restRecord + restRPC), []string{`section "event" is missing`, `section "presence" is missing`}},
		{"2: section of another type", rules("record: true\n" + restEvent + restRPC + restPresence), []string{`section "record" is not a mapping`}},
		{"2 before 3", rules("recrod: {}\n" + restEvent + restRPC + restPresence),
			[]string{`section "record" is missing`, `section "recrod" does not exist`}},
		{"section twice", Config{Type: "config", Options: Options{Permissions: yaml.MapSlice{
			{Key: "record", Value: yaml.MapSlice{}}, {Key: "record", Value: yaml.MapSlice{}}}}},
			[]string{`section "record" stands there twice`}},
		{"4: empty section", rules("record: {}\n" + restEvent + restRPC + restPresence), []string{`section "record" is empty`}},
		{"4: bad paths, before 5", rules("record: {'': {}, /a: {}, a$: {}}\n" + restEvent + restRPC + restPresence),
			[]string{`record: path "" is empty`, `record: path "/a" begins`, `record: path "a$" has a $`, `section "record" has no path "*"`}},
		{"5: no star", rules(restRecord + restEvent + "rpc: {a: {}}\n" + restPresence), []string{`section "rpc" has no path "*": add it`}},
		{"path twice", Config{Type: "config", Options: Options{Permissions: yaml.MapSlice{
			{Key: "record", Value: yaml.MapSlice{{Key: "*", Value: yaml.MapSlice{}}, {Key: "*", Value: yaml.MapSlice{}}}}}}},
			[]string{`path "*" stands there twice`}},
		{"rules of another type", rules(restRecord + "event: {'*': true}\n" + restRPC + restPresence),
			[]string{`event: path "*" is not a mapping: it needs rules, such as publish: true`}},
		{"6: unknown rule", rules(restRecord + "event: {'*': {read: true}}\n" + restRPC + restPresence),
			[]string{`event: path "*": there is no rule "read" here: use publish, subscribe, listen`}},
		{"6: expression", rules("record: {'*': {}, u/$id: {read: 'user.id === $ib'}}\n" + restEvent + restRPC + restPresence),
			[]string{`record: path "u/$id": rule read: line 1, column 13: `, "$ib"}},
		{"6: data where there is none", rules("record: {'*': {read: 'data.x'}}\n" + restEvent + restRPC + restPresence),
			[]string{`record: path "*": rule read: line 1, column 1: `, "data"}},
		{"6: empty rule", rules(restRecord + restEvent + restRPC + "presence: {'*': {allow: ' '}}\n"), []string{`presence: path "*": rule allow: line 1, column 1: the rule is empty`}},
		{"6: a number", rules(restRecord + restEvent + restRPC + "presence: {'*': {allow: 1}}\n"), []string{"1 is neither true nor false"}},
		{"6: nothing", rules(restRecord + restEvent + restRPC + "presence: {'*': {allow: }}\n"), []string{"rule allow: <nil> is neither"}},
		{"rule twice", Config{Type: "config", Options: Options{Permissions: yaml.MapSlice{
			{Key: "presence", Value: yaml.MapSlice{{Key: "*", Value: yaml.MapSlice{{Key: "allow", Value: true}, {Key: "allow", Value: true}}}}}}}},
			[]string{`presence: path "*": rule allow stands there twice`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := New(c.cfg)
			if err == nil {
				t.Fatalf("got rules %+v, want an error", r)
			}
			rest := err.Error()
			for _, want := range c.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("got %q, want %q in it, in this order", err, c.want)
				}
				rest = after
			}
		})
	}
}

func FuzzAnyRulesFileIsReadOrRefused(f *testing.F) {
	text, err := os.ReadFile("testdata/permissions.yml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text), "private/egon")
	f.Add(restRecord+restEvent+restRPC+restPresence, "")
	f.Add(`{"record":{"*":{"read":"true"},"$a/$b":{}},"event":{"*":{}},"rpc":{"*":{}},"presence":{"*":{"allow":true}}}`, "a/b")
	f.Fuzz(func(t *testing.T, text, name string) {
		r, err := New(Config{Type: "config", Options: Options{Permissions: text}})
		if err != nil {
			return
		}
		for a := range protocol.Action(40) {
			door := r.Door(someone, protocol.TopicRecord, a, name, "")
			if door == Fail || door > NeedRecord {
				t.Errorf("action %d: got %v from constant rules", a, door)
			}
		}
	})
}
