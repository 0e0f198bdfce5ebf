package expr

import (
	"fmt"
	"strings"
	"testing"
)

func TestDoubtsAreFound(t *testing.T) {
	write, publish, read := Scope{Data: true, OldData: true, Vars: []string{"$id"}}, Scope{Data: true, Vars: []string{"$city"}}, Scope{OldData: true}
	for _, c := range []struct {
		rule  string
		scope Scope
		want  string // kind at line:column, in order
	}{
		// What may be missing.
		{"data.value > oldData.value", write, "missing-old-data 1:14"},
		{"!oldData.value || data.value > oldData.value", write, "missing-old-data 1:2"},
		{"oldData.owner === user.id", read, "missing-old-data 1:1"},
		{"user.data.role === 'x'", read, "missing-user-data 1:1"},
		{"_('item/' + data.itemId).stock > 0", write, "missing-reference 1:1"},
		{"typeof data.firstname === 'string'", publish, "missing-data 1:8"},
		{"$city.toLowerCase() === data.address.city.toLowerCase()", publish, "missing-member 1:25 missing-member 1:25 missing-data 1:25"},
		{"oldData?.a.b", read, "missing-member 1:1"},
		{"name.match(/a(b)/)[1] === 'b'", read, "missing-member 1:1"},
		{"(data && oldData).x", write, "missing-member 1:2"},
		{"(data.a ? oldData : data).x", write, "missing-member 1:2"},
		{"user.data.groups.includes('a')", read, "missing-member 1:1 missing-user-data 1:1"},
		// What is tested first.
		{"!oldData || data.value > oldData.value", write, ""},
		{"oldData && data.value > oldData.value", write, ""},
		{"data.value > oldData?.value", write, ""},
		{"oldData === null || oldData.x", read, ""},
		{"oldData == null || oldData.x", read, ""},
		{"oldData !== null && oldData.x", read, ""},
		{"oldData ? oldData.x : true", read, ""},
		{"!oldData ? true : oldData.x", read, ""},
		{"user.data && user.data.role === 'x'", read, ""},
		{"user.data?.role === 'x' && user.data.level > 3", read, ""},
		{"typeof data?.city === 'string' && data.city.toLowerCase() === $city", publish, ""},
		{"typeof data?.city !== 'string' || data.city.toLowerCase() === $city", publish, ""},
		{"data && 'list' in data && data.list.includes('x')", publish, ""},
		{"data.address && data.address.city && data.address.city.trim()", write, ""},
		{"(data.tags || []).includes('a')", write, ""},
		{"(data.tags ?? 'x').includes('a')", write, ""},
		{"_('a/' + $id) && _('a/' + $id).x", write, ""},
		{"_('a')?.x > 0", write, ""},
		{"!(oldData == null || oldData.x == null) && oldData.x.y", read, ""},
		{"data.a.b > 1 && data.a.c", write, "missing-member 1:1"}, // told once
		// What always comes out the same.
		{"'false'", read, "always-true 1:1"},
		{"user.id === 'a' || 'b'", read, "always-true 1:20"},
		{"user.id === 'a' || true", read, "always-true 1:20"},
		{"user.id === 'a' && false", read, "always-false 1:20"},
		{"[]", read, "always-true 1:1"},
		{"0", read, "always-false 1:1"},
		{"undefined", read, "always-false 1:1"},
		{"action === 'UPDATE'", read, "always-false 1:1"},
		{"'UPDATE' !== action", read, "always-true 1:1"},
		{"$id === 5", write, "always-false 1:1"},
		{"user.id === 17", read, "always-false 1:1"},
		{"user.isAuthenticated === 'true'", read, "always-false 1:1"},
		{"typeof data.x === 'array'", write, "always-false 1:1"},
		{"data.x === NaN", write, "always-false 1:1"},
		{"data.x !== ['a']", write, "always-true 1:1"},
		{"user.id === user.id", read, "always-true 1:1"},
		{"name.indexOf('a')", read, "always-true 1:1"},
		{"name.indexOf('a') && user.id === 'b'", read, "always-true 1:1"},
		{"name.indexOf('a') >= 0", read, ""},
		{"true", read, ""},
		{"'a' === $id", write, ""},
		{"user.id === 'a' || user.id === 'b'", read, ""},
		// Comparisons.
		{"user.id == $id", write, "loose 1:1"},
		{"data?.to != user.id", publish, "loose-data 1:1"},
		{"data.x == null", write, ""},
		// Whose it is.
		{"data.owner === user.id", write, "self-assigned 1:1"},
		{"data.owner === user.id && data.x > 1", write, "self-assigned 1:1"},
		{"data.owner === user.id && $id === user.id", write, ""},
		{"data.owner === user.id && (!oldData || oldData.owner === user.id)", write, ""},
		{"data?.owner === user.id", publish, ""},
	} {
		doubts, err := Doubts(c.rule, c.scope)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		var got []string
		for _, d := range doubts {
			got = append(got, fmt.Sprintf("%s %d:%d", d.Kind, d.Line, d.Column))
			if d.Reason == "" || d.Cure == "" {
				t.Errorf("%s: %+v says too little", c.rule, d)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: got %q, want %q", c.rule, s, c.want)
		}
	}
}

func FuzzDoubtsOfAnyRule(f *testing.F) {
	for _, rule := range []string{"!oldData?.value || data['a'][0].b > 1", "`${data.x}` in {a: 1, name} ? _('x').y : [1].includes($id)", "1 < 2 == name.match(/x/)[0]"} {
		f.Add(rule)
	}
	f.Fuzz(func(t *testing.T, rule string) {
		scope := Scope{Data: true, OldData: true, Vars: []string{"$id"}}
		_, refused := Compile(rule, scope)
		if _, err := Doubts(rule, scope); (err == nil) != (refused == nil) {
			t.Errorf("%q: %v, though Compile says %v", rule, err, refused)
		}
	})
}
