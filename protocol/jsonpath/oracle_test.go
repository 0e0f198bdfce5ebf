package jsonpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// decode reads JSON into maps and slices, numbers as they are written.
func decode(t rapid.TB, doc string) any {
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return v
}

// put is spec 08 §6 said plainly, on decoded values: it returns root with value
// at the tokens; a nil value removes.
func put(root any, tokens []token, value *any) (any, error) {
	if len(tokens) == 0 {
		return *value, nil
	}
	t, rest := tokens[0], tokens[1:]
	remove := value == nil && len(rest) == 0
	fresh := false
	switch root.(type) {
	case map[string]any, []any:
	default:
		fresh = true
		if root = any(map[string]any{}); t.isIndex {
			root = []any{}
		}
	}
	switch c := root.(type) {
	case map[string]any:
		if remove {
			delete(c, t.key)
			return c, nil
		}
		v, err := put(c[t.key], rest, value)
		c[t.key] = v
		return c, err
	case []any:
		n, err := strconv.Atoi(t.key)
		if err != nil || n < 0 || strconv.Itoa(n) != t.key {
			if value == nil {
				return c, nil
			}
			return c, ErrArray
		}
		if remove && n >= len(c) && !fresh {
			return c, nil
		}
		for len(c) < n {
			c = append(c, nil)
		}
		if remove {
			if n < len(c) {
				c[n] = nil
			}
			return c, nil
		}
		if n == len(c) {
			c = append(c, nil)
		}
		c[n], err = put(c[n], rest, value)
		return c, err
	}
	panic("unreachable")
}

// keys are few, so that paths hit; some need escapes.
var keys = []string{"a", "b", "0", "1", "01", "", "ß", `q"\`, "length", "🦊"}

// documents draws JSON text in odd but valid spellings.
func documents(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		space := rapid.SampledFrom([]string{"", "", " ", "\n\t"})
		most := 3
		if depth == 0 {
			most = 1
		}
		switch rapid.IntRange(0, most).Draw(t, "kind") {
		case 0, 1:
			return rapid.SampledFrom([]string{
				"1", "-1.50e+2", "12345678901234567890", "true", "null", `""`, `"x\"}]\\"`, `"\u00e9"`, "[]", "{}", "[ ]", "{ }",
			}).Draw(t, "leaf")
		case 2:
			var b bytes.Buffer
			b.WriteByte('[')
			for i := range rapid.IntRange(0, 3).Draw(t, "n") {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(space.Draw(t, "space") + documents(depth-1).Draw(t, "element") + space.Draw(t, "space"))
			}
			return b.String() + "]"
		default:
			var b bytes.Buffer
			b.WriteByte('{')
			for i := range rapid.IntRange(0, 4).Draw(t, "n") {
				if i > 0 {
					b.WriteByte(',')
				}
				key := quote(rapid.SampledFrom(keys).Draw(t, "key"))
				if key == `"a"` && rapid.Bool().Draw(t, "escape") {
					key = `"\u0061"`
				}
				b.WriteString(space.Draw(t, "space") + key + space.Draw(t, "space") + ":" + space.Draw(t, "space") +
					documents(depth-1).Draw(t, "member") + space.Draw(t, "space"))
			}
			return b.String() + "}"
		}
	})
}

func paths() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		for i := range rapid.IntRange(1, 4).Draw(t, "segments") {
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(rapid.SampledFrom(keys).Draw(t, "key"))
			for range rapid.IntRange(0, 2).Draw(t, "indexes") {
				fmt.Fprintf(&b, "[%d]", rapid.IntRange(0, 4).Draw(t, "index"))
			}
		}
		return b.String()
	})
}

func TestEditsMeanWhatTheSpecSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := documents(4).Draw(t, "doc")
		if !ValidJSON(doc) {
			t.Fatalf("ValidJSON(%s) = false", doc)
		}
		path := paths().Draw(t, "path")
		p, err := Parse(path)
		if errors.Is(err, ErrEmpty) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // again, on the result
			value := ""
			var want any
			var wantErr error
			var got string
			if rapid.Bool().Draw(t, "set") {
				value = documents(1).Draw(t, "value")
				v := decode(t, value)
				want, wantErr = put(decode(t, doc), p.tokens, &v)
				got, err = Set(doc, p, value)
			} else {
				want, wantErr = put(decode(t, doc), p.tokens, nil)
				got, err = Delete(doc, p)
			}
			if !errors.Is(err, wantErr) {
				t.Fatalf("%s, %s := %s: %v, want %v", doc, path, value, err, wantErr)
			}
			if err != nil {
				return
			}
			if !ValidJSON(got) {
				t.Fatalf("%s, %s := %s gives invalid %s", doc, path, value, got)
			}
			if v := decode(t, got); !reflect.DeepEqual(v, want) {
				t.Fatalf("%s, %s := %s gives %s, want %v", doc, path, value, got, want)
			}
			if value != "" {
				if v, ok := Get(got, p); !ok || v != value {
					t.Fatalf("Get(%s, %s) = %s, %v, want what was set, %s", got, path, v, ok, value)
				}
			}
			doc = got
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("a.b[2]", `{"a":{"b":[1]}}`, "7")
	f.Add("[0]", "", "{}")
	f.Add("a[1][0].c", `{"a":[null,[{"c":"\u0061"}],"a":1}`, "")
	f.Add("__proto__", `[`, `"`)
	f.Fuzz(func(t *testing.T, path, doc, value string) {
		valid := ValidJSON(doc)
		if valid != json.Valid([]byte(doc)) && len(doc) < MaxDepth && bytes.Equal([]byte(doc), bytes.ToValidUTF8([]byte(doc), nil)) {
			t.Fatalf("ValidJSON(%q) = %v, encoding/json disagrees", doc, valid)
		}
		p, err := Parse(path)
		if err != nil {
			return
		}
		Get(doc, p) // on invalid text too: any answer, but no panic
		removed, err := Delete(doc, p)
		if valid && err == nil && !ValidJSON(removed) {
			t.Fatalf("Delete(%q, %q) = %q", doc, path, removed)
		}
		set, err := Set(doc, p, value)
		if !valid || !ValidJSON(value) || err != nil {
			return
		}
		if !ValidJSON(set) {
			t.Fatalf("Set(%q, %q, %q) = %q", doc, path, value, set)
		}
		if got, ok := Get(set, p); !ok || got != strings.Trim(value, " \t\r\n") {
			t.Fatalf("Get(%q, %q) = %q, %v after setting %q", set, path, got, ok, value)
		}
	})
}

const record200 = `{"name":"Anna Example","address":{"street":"Long Street 17","city":"Berlin","zip":"10115"},` +
	`"tags":["a","b","c"],"visits":[{"at":1700000000,"ms":12},{"at":1700000060,"ms":7}],"active":true,"n":1234}`

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("visits[1].ms"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	p := parse(b, "visits[1].ms")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Get(record200, p); !ok {
			b.Fatal("not found")
		}
	}
}

func BenchmarkSet(b *testing.B) {
	p := parse(b, "visits[1].ms")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Set(record200, p, "8"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSetNewMember(b *testing.B) {
	p := parse(b, "address.country")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Set(record200, p, `"DE"`); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDelete(b *testing.B) {
	p := parse(b, "address.city")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Delete(record200, p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidJSON(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(record200)))
	for b.Loop() {
		if !ValidJSON(record200) {
			b.Fatal("not valid")
		}
	}
}
