package jsonpath

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// steps spells a path for comparison: keys quoted, indexes not.
func steps(p Path) string {
	var b []string
	for _, t := range p.tokens {
		if t.isIndex {
			b = append(b, t.key)
		} else {
			b = append(b, quote(t.key))
		}
	}
	return strings.Join(b, ",")
}

func TestPathsSplitAsInTheClient(t *testing.T) {
	tests := []struct{ path, want string }{
		{"a", `"a"`},
		{"a.b", `"a","b"`},
		{"a[2].c", `"a",2,"c"`},
		{"a[1][0]", `"a",1,0`},
		{"a[ 1 ]", `"a",1`},
		{"a[01]", `"a",1`},
		{"a.0", `"a","0"`},
		{"[0]", `"",0`},
		{"a..b", `"a","b"`},
		{" a . b ", `"a","b"`},
		{"a [0]", `"a ",0`}, // only segments are trimmed
		{"a]0[", `"a",0`},   // brackets of either kind split
		{"a[]", `"a"`},
		{"a[1.5]", `"a",1,"5"`}, // dots split first, there is no fraction
		{"[", `""`},
		{"\ufeffa\u00a0", `"a"`},
		{"a\u0085", `"a` + "\u0085" + `"`}, // white space in Go, not in JavaScript
		{"straße.日本", `"straße","日本"`},
		{"__proto__x.prototype2", `"__proto__x","prototype2"`},
		{"toString.length", `"toString","length"`},
		{"a[100000]", `"a",100000`},
	}
	for _, tt := range tests {
		p, err := Parse(tt.path)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.path, err)
			continue
		}
		if got := steps(p); got != tt.want {
			t.Errorf("Parse(%q) = %s, want %s", tt.path, got, tt.want)
		}
	}
}

func TestBadPathsAreRefused(t *testing.T) {
	tests := []struct {
		path string
		want error
	}{
		{"", ErrEmpty},
		{".", ErrEmpty},
		{" . .. ", ErrEmpty},
		{"__proto__", ErrForbidden},
		{"a.__proto__.b", ErrForbidden},
		{"a. constructor .b", ErrForbidden},
		{"prototype[0]", ErrForbidden},
		{`a["x"]`, ErrIndex},
		{"a[x]", ErrIndex},
		{"a[-1]", ErrIndex},
		{"a[1e2]", ErrIndex},
		{"a[0x10]", ErrIndex},
		{"a[+1]", ErrIndex},
		{"a[ ]", ErrIndex},
		{"a[NaN]", ErrIndex},
		{"a[0]b", ErrIndex},
		{"a[__proto__]", ErrIndex},
		{"a[100001]", ErrIndex},
		{"a[99999999999999999999]", ErrIndex},
		{"a\xff", ErrUTF8},
		{strings.Repeat("a.", MaxTokens+1), ErrDeep},
		{"a" + strings.Repeat("[0]", MaxTokens), ErrDeep},
	}
	for _, tt := range tests {
		if p, err := Parse(tt.path); !errors.Is(err, tt.want) {
			t.Errorf("Parse(%.40q) = %s, %v, want %v", tt.path, steps(p), err, tt.want)
		}
	}
	if _, err := Parse(strings.Repeat("a.", MaxTokens)); err != nil {
		t.Errorf("Parse of the longest path: %v", err)
	}
}

func parse(t testing.TB, path string) Path {
	t.Helper()
	p, err := Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The corners of spec 08 §6, and what the published client makes of them.
func TestSetCorners(t *testing.T) {
	tests := []struct{ doc, path, value, want string }{
		{`{}`, "a", `7`, `{"a":7}`},
		{``, "a", `7`, `{"a":7}`},
		{" \n", "a[0]", `7`, `{"a":[7]}`},
		{`{}`, "a.b", `7`, `{"a":{"b":7}}`},
		{`{"a":1}`, "a", `7`, `{"a":7}`},
		{`{"a":1}`, "b", `7`, `{"a":1,"b":7}`},
		{`{"a":1}`, "a.b", `7`, `{"a":{"b":7}}`},
		{`{"a":true}`, "a.b.c", `7`, `{"a":{"b":{"c":7}}}`},
		{`{"a":null}`, "a.b", `7`, `{"a":{"b":7}}`},
		{`{"a":"str"}`, "a[0]", `7`, `{"a":[7]}`},
		{`{"a":"str"}`, "a.0", `7`, `{"a":{"0":7}}`},
		{`{"a":[null]}`, "a[0].b", `7`, `{"a":[{"b":7}]}`},
		{`{}`, "a[2]", `7`, `{"a":[null,null,7]}`},
		{`{"a":[1,2,3]}`, "a[1]", `7`, `{"a":[1,7,3]}`},
		{`{"a":[1,2,3]}`, "a[3]", `7`, `{"a":[1,2,3,7]}`},
		{`{"a":[1,2,3]}`, "a[5]", `7`, `{"a":[1,2,3,null,null,7]}`},
		{`{"a":[1]}`, "a[3].x", `7`, `{"a":[1,null,null,{"x":7}]}`},
		{`{"a":[]}`, "a[2].b[1]", `7`, `{"a":[null,null,{"b":[null,7]}]}`},
		{`{"a":[[1],[2]]}`, "a[1][3]", `7`, `{"a":[[1],[2,null,null,7]]}`},
		{`{}`, "a[1][0]", `7`, `{"a":[null,[7]]}`},
		{`{"a":[1,2]}`, "a.1", `7`, `{"a":[1,7]}`},
		{`{"a":[]}`, "a.3.b", `7`, `{"a":[null,null,null,{"b":7}]}`},
		{`{"pets":[{"name":"x"}]}`, "pets.0.name", `"y"`, `{"pets":[{"name":"y"}]}`},
		{`{}`, "pets.0.name", `"y"`, `{"pets":{"0":{"name":"y"}}}`},
		{`{"a":{}}`, "a[0]", `7`, `{"a":{"0":7}}`},
		{`{"a":{"0":{"b":1}}}`, "a[0].b", `7`, `{"a":{"0":{"b":7}}}`},
		{`[1,2]`, "0", `7`, `[7,2]`},
		{`[1,2]`, "1.x", `7`, `[1,{"x":7}]`},
		{`{}`, "[0]", `7`, `{"":[7]}`},
		{`5`, "a", `7`, `{"a":7}`},
		{`{}`, "a", `{"x":[1,{}]}`, `{"a":{"x":[1,{}]}}`},
		{`{}`, "a", `null`, `{"a":null}`},
		{`{}`, `say "hi"\` + "\n", `1`, `{"say \"hi\"\\":1}`},
		{`{}`, "a\u0001b", `1`, `{"a\u0001b":1}`},
	}
	for _, tt := range tests {
		got, err := Set(tt.doc, parse(t, tt.path), tt.value)
		if err != nil || got != tt.want {
			t.Errorf("Set(%s, %s, %s) = %s, %v, want %s", tt.doc, tt.path, tt.value, got, err, tt.want)
		}
	}
}

func TestDeleteCorners(t *testing.T) {
	tests := []struct{ doc, path, want string }{
		{`{"a":1}`, "a", `{}`},
		{`{"a":1,"b":2,"c":3}`, "a", `{"b":2,"c":3}`},
		{`{"a":1,"b":2,"c":3}`, "b", `{"a":1,"c":3}`},
		{`{"a":1,"b":2,"c":3}`, "c", `{"a":1,"b":2}`},
		{`{"a":1}`, "b", `{"a":1}`},
		{``, "a", `{}`},
		{`{"a":{"b":1}}`, "a.b", `{"a":{}}`},
		{`{"a":[1,2,3]}`, "a[1]", `{"a":[1,null,3]}`},
		{`{"a":[1,2,3]}`, "a[2]", `{"a":[1,2,null]}`},
		{`{"a":[1,2,3]}`, "a[5]", `{"a":[1,2,3]}`},
		{`{"a":[1,2]}`, "a.1", `{"a":[1,null]}`},
		{`{"a":[1,2]}`, "a.length", `{"a":[1,2]}`},
		{`{"a":[1]}`, "a.foo.x", `{"a":[1]}`},
		{`{"a":{"0":1}}`, "a[0]", `{"a":{}}`},
		// Parents are made even for a removal, as client and peer do.
		{`{}`, "a.b", `{"a":{}}`},
		{`{"a":1}`, "a.b", `{"a":{}}`},
		{`{"a":null}`, "a.b.c", `{"a":{"b":{}}}`},
		{`{}`, "a[0]", `{"a":[]}`},
		{`{}`, "a[2]", `{"a":[null,null]}`},
		{`{"a":[1]}`, "a[3].x", `{"a":[1,null,null,{}]}`},
		{`{"a":[]}`, "a[2].b[1]", `{"a":[null,null,{"b":[null]}]}`},
		{`5`, "a", `{}`},
	}
	for _, tt := range tests {
		got, err := Delete(tt.doc, parse(t, tt.path))
		if err != nil || got != tt.want {
			t.Errorf("Delete(%s, %s) = %s, %v, want %s", tt.doc, tt.path, got, err, tt.want)
		}
	}
}

func TestGetCorners(t *testing.T) {
	tests := []struct {
		doc, path, want string
		found           bool
	}{
		{`{"a":{"b": [1, {"c":"x"} ] }}`, "a.b[1].c", `"x"`, true},
		{`{"a":{"b": [1, {"c":"x"} ] }}`, "a.b", `[1, {"c":"x"} ]`, true},
		{`{"a":[5,6]}`, "a.1", `6`, true},
		{`{"a":{"1":6}}`, "a[1]", `6`, true},
		{`{"a":[5,6]}`, "a[2]", "", false},
		{`{"a":[5,6]}`, "a.length", "", false},
		{`{"a":[5,6]}`, "a.01", "", false},
		{`{"a":[5,6]}`, "a.100001", "", false},
		{`{"a":"x"}`, "a[0]", "", false},
		{`{"a":null}`, "a.b", "", false},
		{`{"a":null}`, "a", "null", true},
		{`{}`, "a", "", false},
		{``, "a", "", false},
		{`{"a":1,"a":2}`, "a", "2", true},
		{`{"\u0061\n":1}`, "a", "", false},
		{`{"\u0061":1}`, "a", "1", true},
		{`{"\ud83e\udd8a\/\\":1}`, `🦊/\`, "1", true},
		{`{"\ud83e":1,"\ufffd":2}`, "\ufffd", "2", true},
		{`{"\ud83e":1}`, "\ufffd", "", false},
		{`{"\ud83e\ud83e":1}`, "\ufffd\ufffd", "", false},
		{`{"\uD83E\uDD8A":1}`, "🦊", "1", true},
		{`{"x\ty\bz\f\r\"":1}`, "x\ty\bz\f\r\"", "1", true},
		{`{"\u0061b":1}`, "ab", "1", true},
		{`{"\u0061c":1}`, "ab", "", false},
		{`{"\u0061b":1}`, "abc", "", false},
		{`{"a\u0062c":1}`, "ab", "", false},
	}
	for _, tt := range tests {
		got, found := Get(tt.doc, parse(t, tt.path))
		if got != tt.want || found != tt.found {
			t.Errorf("Get(%s, %s) = %s, %v, want %s, %v", tt.doc, tt.path, got, found, tt.want, tt.found)
		}
	}
}

func TestEditsKeepAllOtherBytes(t *testing.T) {
	const doc = "{ \"b\" : 1.50e+2 ,\n\t\"\\u0061\": [ 1 , \"x\\/\" ] , \"big\":12345678901234567890, \"c\":{ } }\n"
	tests := []struct{ path, value, want string }{
		{"a[0]", `9`, strings.Replace(doc, "[ 1 ,", "[ 9 ,", 1)},
		{"a[2]", `9`, strings.Replace(doc, `"x\/" ]`, `"x\/",9 ]`, 1)},
		{"b", `{}`, strings.Replace(doc, "1.50e+2", "{}", 1)},
		{"c.d", `1`, strings.Replace(doc, "{ }", `{"d":1 }`, 1)},
		{"z", `1`, strings.Replace(doc, "{ } }", `{ },"z":1 }`, 1)},
		{"a", "", strings.Replace(doc, "\n\t\"\\u0061\": [ 1 , \"x\\/\" ] ,", "", 1)},
		{"b", "", strings.Replace(doc, ` "b" : 1.50e+2 ,`, "", 1)},
		{"c", "", strings.Replace(doc, `, "c":{ } `, "", 1)},
		{"a[1]", "", strings.Replace(doc, `"x\/"`, "null", 1)},
		{"nothing", "", doc},
	}
	for _, tt := range tests {
		got, err := edit(doc, parse(t, tt.path), tt.value)
		if err != nil || got != tt.want {
			t.Errorf("%s := %s gives\n%s, %v, want\n%s", tt.path, tt.value, got, err, tt.want)
		}
	}
}

func TestOfMembersWithOneNameTheLastCounts(t *testing.T) {
	const doc = `{"a":{"x":1},"b":0,"\u0061":{"x":2}}`
	if got, err := Set(doc, parse(t, "a.x"), `3`); err != nil || got != `{"a":{"x":1},"b":0,"\u0061":{"x":3}}` {
		t.Errorf("Set = %s, %v", got, err)
	}
	if got, err := Delete(doc, parse(t, "a")); err != nil || got != `{"b":0}` {
		t.Errorf("Delete = %s, %v: an older one must not come back", got, err)
	}
}

func TestRefusedEdits(t *testing.T) {
	tests := []struct {
		doc, path, value string
		want             error
	}{
		{`{"a":[1]}`, "a.b", `7`, ErrArray},
		{`{"a":[1]}`, "a.length", `7`, ErrArray},
		{`{"a":[1]}`, "a.foo.x", `7`, ErrArray},
		{`{"a":[1]}`, "a.01", `7`, ErrArray},
		{`[]`, "[0]", `7`, ErrArray}, // the first token is the empty key
		{`{"a":[]}`, "a.100001", `7`, ErrIndex},
		{`{"a":[]}`, "a.99999999999999999999", `7`, ErrIndex},
		{`{}`, "a[60000][60000]", `7`, ErrIndex},
		{`{"a":[]}`, "a[60000][60000]", `7`, ErrIndex},
		{`{}`, "a", strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), ErrDeep},
		{`{}`, "a", ``, ErrInvalid},
		{`{}`, "a", `1 2`, ErrInvalid},
		{`{}`, "a", `[1`, ErrInvalid},
		{`{"a"}`, "a", `1`, ErrInvalid},
		{`{"a":1`, "a", `1`, ErrInvalid},
		{`{"a":1]`, "b", `1`, ErrInvalid},
		{`{a:1}`, "b", `1`, ErrInvalid},
		{`{"a`, "b", `1`, ErrInvalid},
		{`{"a":[1`, "a[0]", `1`, ErrInvalid},
		{`,`, "a", `1`, ErrInvalid},
	}
	for _, tt := range tests {
		if got, err := Set(tt.doc, parse(t, tt.path), tt.value); !errors.Is(err, tt.want) {
			t.Errorf("Set(%s, %s, %.20s) = %.40s, %v, want %v", tt.doc, tt.path, tt.value, got, err, tt.want)
		}
	}
	if _, err := Delete(`{"a"}`, parse(t, "a")); !errors.Is(err, ErrInvalid) {
		t.Errorf("Delete = %v, want %v", err, ErrInvalid)
	}
	if _, err := Set("{}", Path{}, "1"); !errors.Is(err, ErrEmpty) {
		t.Errorf("Set at no path = %v, want %v", err, ErrEmpty)
	}
}

func TestDeepestResultIsValid(t *testing.T) {
	value := strings.Repeat("[", MaxDepth-2) + strings.Repeat("]", MaxDepth-2)
	doc, err := Set("{}", parse(t, "a.b"), value)
	if err != nil {
		t.Fatal(err)
	}
	if !ValidJSON(doc) {
		t.Error("the deepest result is not valid")
	}
	if _, err := Set(doc, parse(t, "a.b.c"), value); !errors.Is(err, ErrDeep) {
		t.Errorf("one level more: %v, want %v", err, ErrDeep)
	}
}

func TestHundredThousandLevelsDoNoHarm(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000)
	if ValidJSON(deep) {
		t.Error("ValidJSON accepts 100 000 levels")
	}
	if _, err := Set("{}", parse(t, "a"), deep); !errors.Is(err, ErrDeep) {
		t.Errorf("Set = %v, want %v", err, ErrDeep)
	}
	path := parse(t, strings.Repeat("a.", MaxTokens))
	if _, ok := Get(deep, path); !ok {
		t.Error("Get finds nothing")
	}
	if _, err := Set(deep, path, "2"); err != nil {
		t.Errorf("Set in a deep document: %v", err)
	}
}

func TestValidJSON(t *testing.T) {
	valid := []string{
		`{}`, `[]`, `""`, `0`, `-0`, `-1.5e+10`, `1E5`, `0.1`, `10`, `true`, `false`, `null`, " \t\r\n[ 1 , { \"a\" : [ ] } ] ",
		`"\"\\\/\b\f\n\r\t\u00e9\ud83e\udd8a\ud800"`, `"straße 🦊"`, "\"\x7f\u2028\"", `{"a":1,"a":2}`, `[[],{},""]`,
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth),
		strings.Repeat(`{"":`, MaxDepth) + "0" + strings.Repeat("}", MaxDepth),
	}
	for _, s := range valid {
		if !ValidJSON(s) {
			t.Errorf("ValidJSON(%.60q) = false", s)
		}
	}
	invalid := []string{
		``, ` `, `{`, `[`, `}`, `]`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `[1}`, `{"a":1]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`,
		`{a:1}`, `{1:1}`, `{"a" 1}`, `{"a":1 "b":2}`, `{}{}`, `1 2`, `[]]`, `01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `0x1`, `NaN`,
		`Infinity`, `undefined`, `True`, `tru`, `nul`, `truex`, `'a'`, `"`, `"a`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, "\"\n\"", "\"\x00\"",
		"\"\xff\"", "\"\xed\xa0\x80\"", "{\"\xc3\":1}", "\ufeff{}", "[1]\x00", "\u00a0[]", `[1]x`, "//c\n1", `"a"b`,
		strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
	}
	for _, s := range invalid {
		if ValidJSON(s) {
			t.Errorf("ValidJSON(%.60q) = true", s)
		}
	}
}

func TestUnquote(t *testing.T) {
	for s, want := range map[string]string{
		`""`: "", `"a"`: "a", `"straße 🦊"`: "straße 🦊", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t",
		`"x\u00e9y\ud83e\udd8a"`: "xéy🦊", `"\ud800"`: "\ufffd", `"\udd8aa"`: "\ufffda", `"\u0000"`: "\x00",
	} {
		if got, ok := Unquote(s); !ok || got != want {
			t.Errorf("Unquote(%s) = %q %v, want %q", s, got, ok, want)
		}
	}
	for _, s := range []string{``, `"`, `a`, `"a`, `a"`, `"a"b"`, `"a" `, ` "a"`, `"\"`, `"\x"`, `"\u12"`, "\"\n\"", "\"\xff\"", `1`, `{}`} {
		if got, ok := Unquote(s); ok {
			t.Errorf("Unquote(%s) = %q, want none", s, got)
		}
	}
}

func TestKind(t *testing.T) {
	for s, want := range map[string]byte{
		`{}`: Object, " \n[1]": Array, `"x"`: Scalar, `1`: Scalar, `null`: Scalar, ``: None, ` `: None,
	} {
		if got := Kind(s); got != want {
			t.Errorf("Kind(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestBlanksAreThoseOfJavaScript(t *testing.T) {
	// ECMAScript: WhiteSpace and LineTerminator.
	want := []rune{'\t', '\n', '\v', '\f', '\r', ' ', 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000, 0xfeff}
	for r := rune(0x2000); r <= 0x200a; r++ {
		want = append(want, r)
	}
	for r := rune(0); r <= 0xffff; r++ {
		if isBlank(r) != slices.Contains(want, r) {
			t.Errorf("isBlank(%U) = %v", r, isBlank(r))
		}
	}
}
