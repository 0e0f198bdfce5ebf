package expr

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+7,true,false,null,"x\u00e9\"\\"]}`, `"\ud83d\ude00"`, "[]", " {} ", "01", "1.", "-", `"a`, `{"a":1,}`, "[1 2]", "tru", "\"0123456\x01\"", "\"01234567ü\\n\"", `{"a\u0062":1,"ab":2}`} {
		f.Add(s, "ab")
	}
	f.Fuzz(func(t *testing.T, s, name string) {
		valid := json.Valid([]byte(s)) && utf8.ValidString(s)
		if got := validJSON(s); got != valid && !(valid && strings.Count(s, "[")+strings.Count(s, "{") > maxJSONDepth) {
			t.Fatalf("validJSON(%q) = %v, want %v", s, got, valid)
		}
		if !valid || strings.Contains(s, `\u`) || strings.Contains(name, "\uFFFD") || !utf8.ValidString(name) {
			return // encoding/json replaces half surrogate pairs
		}
		var want any
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			return // a number out of its range
		}
		env := &Env{}
		v, ok := env.view(trimBlank(s), 0)
		if !ok {
			t.Fatalf("%q is too much", s)
		}
		if got := decoded(env, v); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: got %v, want %v", s, got, want)
		}
		if object, ok := want.(map[string]any); ok {
			raw, found := find(v.str, name)
			member, exists := object[name]
			if found != exists {
				t.Fatalf("find(%q, %q) = %v, want %v", s, name, found, exists)
			}
			if !found {
				return
			}
			v.num = inData
			env.indexes[inData].fill(v.str)
			if indexed, ok := env.find(v, name); !ok || indexed != raw {
				t.Fatalf("find(%q, %q) = %s with an index, want %s", s, name, indexed, raw)
			}
			if v, _ := env.view(raw, 0); !reflect.DeepEqual(decoded(env, v), member) {
				t.Fatalf("find(%q, %q) = %s, want %v", s, name, raw, member)
			}
		}
	})
}

// decoded is a view as encoding/json has it.
func decoded(env *Env, v value) any {
	switch v.kind {
	case kindBoolean:
		return v.num != 0
	case kindNumber:
		return v.num
	case kindString:
		return v.str
	case kindJSONArray:
		list := []any{}
		env.each(v, func(element value) bool { list = append(list, decoded(env, element)); return true })
		return list
	case kindJSONObject:
		object := map[string]any{}
		for s := scan(v.str); s.next(); {
			child, _ := env.view(s.value(), 0)
			object[string(appendUnescaped(nil, s.key))] = decoded(env, child)
		}
		return object
	}
	return nil
}
