package perms

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hadal/protocol"
)

func TestTheLongestPathThatDefinesTheRuleDecides(t *testing.T) {
	r := load(t, `
record:
  "*": {read: true, write: true}
  "v/$any": {read: false}
  "v/x*": {read: true, write: false}
  "tie/$a": {read: true}
  "tie/*b": {read: false}
  "tie/b*": {read: true}
  "sum/*𝄞": {read: false}
  "sum/$a": {read: true}
`+restEvent+restRPC+restPresence)
	for _, c := range []struct {
		action protocol.Action
		name   string
		want   Verdict
		why    string
	}{
		{protocol.RecordRead, "other", Allow, "only * matches"},
		{protocol.RecordRead, "v/xy", Deny, "v/$any has more characters than v/x*"},
		{protocol.RecordRead, "v/x/y", Allow, "v/$any does not match, v/x* does"},
		{protocol.RecordUpdate, "v/xy", Deny, "v/$any does not say write, v/x* does"},
		{protocol.RecordUpdate, "v/y", Allow, "v/$any does not say write and v/x* does not match"},
		{protocol.RecordRead, "tie/ab", Deny, "of equally long paths the later decides"},
		{protocol.RecordRead, "tie/bb", Allow, "of three equally long paths the last decides"},
		{protocol.RecordRead, "tie/c", Allow, "only one matches"},
		{protocol.RecordRead, "sum/a𝄞", Deny, "the sign counts as two characters, as in JavaScript"},
		{protocol.RecordDelete, "other", Deny, "no path says delete"},
	} {
		if got := r.Door(someone, protocol.TopicRecord, c.action, c.name, ""); got != c.want {
			t.Errorf("%s %q: got %v, want %v: %s", c.action.Name(protocol.TopicRecord), c.name, got, c.want, c.why)
		}
	}
}

// TestSearchFindsWhatLookingAtEveryPathFinds compares the index and its memory
// with the rule of spec 07 §2 carried out word by word.
func TestSearchFindsWhatLookingAtEveryPathFinds(t *testing.T) {
	piece := rapid.SampledFrom([]string{"a", "b", "/", "*", "$v", "$w", "ab", "/a"})
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(piece, 1, 5).Draw(t, "pieces"), "")
		}), rapid.ID[string]).Draw(t, "paths")
		var nodes []*node
		for _, text := range texts {
			p, err := compilePath(text)
			if err != nil {
				continue
			}
			n := &node{path: p}
			for slot := range n.rules {
				if rapid.Bool().Draw(t, "defined") {
					n.rules[slot] = &rule{}
				}
			}
			nodes = append(nodes, n)
		}
		inFile := append([]*node(nil), nodes...)
		s := newSection(nodes)
		names := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "/", "ab"}), 0, 6).Draw(t, "name"), "")
		}), 1, 20).Draw(t, "names")
		for range 2 { // the second time from memory
			for _, name := range names {
				var want [maxSlots]*rule
				for slot := range want {
					longest := 0
					for _, n := range inFile {
						if n.rules[slot] != nil && n.matches(name) && n.length >= longest {
							want[slot], longest = n.rules[slot], n.length
						}
					}
				}
				for slot, got := range s.find(name).rules {
					if got.rule != want[slot] {
						t.Fatalf("name %q, rule type %d: got %v, want %v", name, slot, got.rule, want[slot])
					}
				}
			}
		}
	})
}

func TestMemoryOfNamesStaysBounded(t *testing.T) {
	r := load(t, "record: {'*': {read: true}, 'no/$x': {read: false}}\n"+restEvent+restRPC+restPresence)
	for i := range 3 * remembered {
		for name, want := range map[string]Verdict{fmt.Sprint("yes/", i): Allow, fmt.Sprint("no/", i): Deny} {
			if got := r.Door(someone, protocol.TopicRecord, protocol.RecordRead, name, ""); got != want {
				t.Fatalf("%q: got %v, want %v", name, got, want)
			}
		}
	}
	long := "no/" + strings.Repeat("x", longName)
	if got := r.Door(someone, protocol.TopicRecord, protocol.RecordRead, long, ""); got != Deny {
		t.Errorf("a long name: got %v, want deny", got)
	}
	s := r.sections[secRecord]
	for i := range s.memory {
		if f := s.memory[i].Load(); f != nil && len(f.name) >= longName {
			t.Errorf("a name of %d bytes is remembered", len(f.name))
		}
	}
}
