package expr

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// told is a trace in a form that can be compared: what decides begins with a star.
func told(t *Trace) []string {
	var lines []string
	for _, s := range t.Steps {
		line := strings.Repeat("  ", s.Depth) + s.Text
		switch {
		case s.Decides:
			line = "*" + line
		default:
			line = " " + line
		}
		switch {
		case s.Failed != "":
			line += " failed: " + s.Failed
		case s.Value != "":
			line += " = " + s.Value
		case !s.Evaluated:
			line += " not reached"
		default:
			line += " failed below"
		}
		lines = append(lines, line)
	}
	return append(lines, fmt.Sprint(t.Allowed, " ", t.Err))
}

func TestTracesTellEachStep(t *testing.T) {
	for _, c := range []struct {
		rule string
		want []string
	}{
		{"user.id === $userid", []string{
			`*user.id === $userid = true`, `   user.id = "ada"`, `     user = {"id":"ada","isAuthenticated":true,"data":{"role":"editor","groups":["a","b"]}}`, `   $userid = "ada"`, `true <nil>`}},
		{"user.id === 'bob' && data.x > 1", []string{
			` user.id === 'bob' && data.x > 1 = false`, `*  user.id === 'bob' = false`, `     user.id = "ada"`, `       user = {"id":"ada","isAuthenticated":true,"data":{"role":"editor","groups":["a","b"]}}`,
			`   data.x > 1 not reached`, `     data.x not reached`, `       data not reached`, `false <nil>`}},
		{"(data.x || data.y) && !(data.x)", []string{
			` (data.x || data.y) && !(data.x) = false`, `   data.x || data.y = 1`, `     data.x = 1`, `       data = {"x":1, "y":"\u00e9"}`, `     data.y not reached`, `       data not reached`,
			`*  !(data.x) = false`, `     data.x = 1`, `       data = {"x":1, "y":"\u00e9"}`, `false <nil>`}},
		{"true && data.z.name === 'a'", []string{
			` true && data.z.name === 'a' failed below`, `   data.z.name === 'a' failed below`, `*    data.z.name failed: data.z.name: cannot read a member of undefined`, `       data.z = undefined`, `         data = {"x":1, "y":"\u00e9"}`,
			`false line 1, column 9: data.z.name: cannot read a member of undefined`}},
		{"data.x > 5 || data.x < 0", []string{
			`*data.x > 5 || data.x < 0 = false`, `   data.x > 5 = false`, `     data.x = 1`, `       data = {"x":1, "y":"\u00e9"}`, `   data.x < 0 = false`, `     data.x = 1`, `       data = {"x":1, "y":"\u00e9"}`, `false <nil>`}},
		{"data.x === 1 ? name : 0", []string{
			` data.x === 1 ? name : 0 = "users/ada"`, `   data.x === 1 = true`, `     data.x = 1`, `       data = {"x":1, "y":"\u00e9"}`, `*  name = "users/ada"`, `true <nil>`}},
		{"data?.z?.q ?? 'd'", []string{
			` data?.z?.q ?? 'd' = "d"`, `     data?.z?.q = undefined`, `       data?.z = undefined`, `         data = {"x":1, "y":"\u00e9"}`, `true <nil>`}},
		{"_('a').x", []string{`*_('a').x failed: _('a').x: cannot read a member of undefined`, `   _('a') = undefined`, `false expr: waiting for records`}},
		{"name.match(/^users\\/(\\w+)/)", []string{`*name.match(/^users\/(\w+)/) = ["users/ada","ada"]`, `   name = "users/ada"`, `true <nil>`}},
		{"[data.y, NaN, -0, 'a\"\\n\\u0001\\ud83d', undefined].length", []string{
			`*[data.y, NaN, -0, 'a"\n\u0001\ud83d', undefined].length = 5`, `   [data.y, NaN, -0, 'a"\n\u0001\ud83d', undefined] = ["é",NaN,-0,"a\"\n\u0001\ud83d",undefined]`, `     data.y = "é"`, `       data = {"x":1, "y":"\u00e9"}`, `     NaN = NaN`, `     -0 = -0`, `     undefined = undefined`, `true <nil>`}},
	} {
		env := ada("{\"x\":1,\n\"y\":\"\\u00e9\"}", "")
		r := compile(t, c.rule, all)
		trace := r.Explain(env)
		got := told(trace)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n%s\nwant\n%s", c.rule, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
		if again := r.Explain(env); !reflect.DeepEqual(again, trace) {
			t.Errorf("%s: told differently the second time: %v", c.rule, told(again))
		}
	}
}

func TestTracesHaveAPlaceForEachStep(t *testing.T) {
	r := compile(t, "user.id === 'x'\n  || (data.ü\n    .b) === name", Scope{Data: true})
	var got []string
	for _, s := range r.Explain(ada(`{"ü":{"b":1}}`, "")).Steps {
		got = append(got, fmt.Sprintf("%d:%d %s", s.Line, s.Column, strings.Join(strings.Fields(s.Text), " ")))
	}
	want := []string{"1:1 user.id === 'x' || (data.ü .b) === name", "1:1 user.id === 'x'", "1:1 user.id", "1:1 user", "2:6 (data.ü .b) === name", "2:7 data.ü .b", "2:7 data.ü", "2:7 data", "3:13 name"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q,\nwant %q", got, want)
	}
}

func TestTracesCutWhatIsLong(t *testing.T) {
	long := strings.Repeat("é", 100_000)
	for _, doc := range []string{`"` + long + `"`, `["` + long + `"]`, `{"a":"` + long + `"}`} {
		for _, s := range compile(t, "[data, [data], ({a: data})] && data", all).Explain(ada(doc, "")).Steps {
			if n := len([]rune(s.Value)); n > maxShown+1 || n == 0 {
				t.Errorf("%s is shown with %d characters", s.Text, n)
			}
		}
	}
}
