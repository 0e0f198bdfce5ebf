package expr

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dop251/goja"
)

// The oracle is goja's virtual machine: a generated rule, with generated data,
// must have the same value there and here, or throw there and fail here.
//
// Where the two may part:
//
//   - What JavaScript inherits (data.constructor, 'x'.big) is a failure here.
//   - Bounds are ours alone.
//   - goja reads a < b < c as a < (b < c); such rules are refused here.
//   - goja's JSON.parse replaces half surrogate pairs, so that data with escapes
//     is given to it as a literal; and its toLowerCase, toUpperCase and trim do,
//     so that the generator has no halves there.
//   - goja takes (a) && b ?? c, and so do we; JavaScript wants parentheses there.
//   - goja finds '-0' == 0 false; it is true.
//   - goja takes a position in text with spaces beyond ASCII, such as '\u00a03', for
//     0; it is 3.
//   - Regular expressions: goja keeps groups of earlier rounds of a repetition,
//     against ECMAScript; they are refused here when the groups are asked for. And
//     escapes that ECMAScript takes only for compatibility (\a) are refused here.

// world is one set of variables, in both worlds.
type world struct {
	env  Env
	args []goja.Value
	text string
}

// oracle holds the virtual machine and the worlds.
type oracle struct {
	vm     *goja.Runtime
	worlds []world
	refs   map[string]string
	parsed map[string]goja.Value
	asked  []string
	under  goja.Value
}

// oracleDocs are values at the edges of JavaScript.
var oracleDocs = []string{
	`null`, `true`, `false`, `0`, `-0`, `1`, `12`, `-1.5`, `1e21`, `1e-7`, `123456789012345680000`, `0.1`, `9007199254740993`, `1.7976931348623157e308`, `5e-324`,
	`""`, `"12"`, `"a"`, `"abc"`, `" 7 "`, `"0x10"`, `"undefined"`, `"NaN"`, `"a,b"`, `"[object Object]"`, `"ü"`, `"😀"`, `"\ud83d"`, `"\ude00x"`, `"a\ud83d\ude00b"`, `"z\uffff"`, `"ß"`, `"ΑΣ"`, `"\u0000"`, `"a\"b\\c\n"`, `"\t3 "`, `"abcdefgh😀ij"`, `"abcdefghijklmnopü"`,
	`[]`, `[1]`, `["12"]`, `[null]`, `[[],[1,[2]]]`, `["a","b","a",null,0,-0,"😀"]`, `[1,2,3]`, `[{"a":1}]`,
	`{}`, `{"a":1}`, `{"a":1,"a":"last"}`, `{"\u0061":"escaped","b":{"c":[1,{"d":null}]}}`, `{"length":3,"0":"zero","match":1}`,
	`{"value":5,"owner":"a","list":["a","b"],"a":{"b":{"c":1}}}`, `{"value":"12","owner":null,"list":"abc","a":[{"b":2}]}`, `{"toString":1}`, `{"valueOf":1,"value":-0}`,
	` { "value" : 7 , "list" : [ 1 , 2 ] , "owner" : "b" } `, `{"value":null,"list":[],"😀":"key","\ud83d":"half"}`, `[" a ","B","c😀"]`,
}

func newOracle(t testing.TB, worlds int) *oracle {
	o := &oracle{vm: goja.New(), refs: map[string]string{}, parsed: map[string]goja.Value{}}
	for i, name := range []string{"a", "b", "abc", "r/a", "r/12", "😀", "12", "r/", "ü"} {
		o.refs[name] = oracleDocs[(i*7+50)%len(oracleDocs)]
		o.parsed[name] = o.parse(t, o.refs[name])
	}
	err := o.vm.Set("load", func(call goja.FunctionCall) goja.Value {
		name := call.Argument(0).String()
		o.asked = append(o.asked, name)
		if v, ok := o.parsed[name]; ok {
			return v
		}
		return goja.Null()
	})
	if err != nil {
		t.Fatal(err)
	}
	if o.under, err = o.vm.RunString(`(function(name) {
		if (name === undefined) return undefined;
		if (typeof name !== 'string') throw new TypeError('name');
		if (name.indexOf('undefined') >= 0) return undefined;
		for (var i = 0; i < name.length; i++) {
			var c = name.charCodeAt(i) & 0xfc00, next = name.charCodeAt(i + 1) & 0xfc00;
			if (c === 0xdc00 || c === 0xd800 && next !== 0xdc00) throw new TypeError('half a pair');
			if (c === 0xd800) i++;
		}
		return load(name);
	})`); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range worlds {
		o.worlds = append(o.worlds, o.world(t, random))
	}
	return o
}

// parse is JSON.parse that keeps half surrogate pairs.
func (o *oracle) parse(t testing.TB, raw string) goja.Value {
	v, err := o.vm.RunString("(" + raw + "\n)")
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return v
}

func (o *oracle) world(t testing.TB, random *rand.Rand) world {
	pick := func() string { return oracleDocs[random.IntN(len(oracleDocs))] }
	w := world{}
	doc := func(raw string) (Doc, goja.Value) {
		switch random.IntN(12) {
		case 0:
			return Doc{}, goja.Undefined()
		case 1:
			return Null(), goja.Null()
		case 2, 3, 4:
			return Checked(raw), o.parse(t, raw)
		}
		return Unchecked(raw), o.parse(t, raw)
	}
	data, gojaData := doc(pick())
	old, gojaOld := doc(pick())
	userRaw := pick()
	w.env = Env{
		User: User{ID: []string{"a", "open", "", "ü"}[random.IntN(4)], Authenticated: random.IntN(2) == 0, Data: Unchecked(userRaw)},
		Data: data, OldData: old, Now: 1700000000000, Action: random.IntN(40),
		Name: []string{"a/b", "r/12", ""}[random.IntN(3)],
		Vars: []string{[]string{"a", "12", "abc"}[random.IntN(3)], []string{"😀", "constructor", "length", "0"}[random.IntN(4)]},
	}
	user := o.vm.NewObject()
	for k, v := range map[string]any{"id": w.env.User.ID, "isAuthenticated": w.env.User.Authenticated, "data": o.parse(t, userRaw)} {
		if err := user.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	w.args = []goja.Value{
		o.under, user, gojaData, gojaOld, o.vm.ToValue(w.env.Now), o.vm.ToValue(w.env.Action), o.vm.ToValue(w.env.Name),
		o.vm.ToValue(w.env.Vars[0]), o.vm.ToValue(w.env.Vars[1]),
	}
	w.text = fmt.Sprintf("data %v %s, oldData %v %s, user %s %s, $a %q, $b %q", data.state, data.raw, old.state, old.raw, w.env.User.ID, userRaw, w.env.Vars[0], w.env.Vars[1])
	return w
}

var oracleScope = Scope{Data: true, OldData: true, Vars: []string{"$a", "$b"}}

// late says that a search ran out of its time, which is the clock's.
func late(err error) bool {
	return err != nil && strings.Contains(err.Error(), "the search takes more than")
}

// compare evaluates one rule in some worlds, both ways.
func (o *oracle) compare(t testing.TB, rule string, worlds []world) {
	r, err := Compile(rule, oracleScope)
	if err != nil {
		t.Fatalf("%s\nis refused: %v", rule, err)
	}
	program, err := o.vm.RunString("(function(_, user, data, oldData, now, action, name, $a, $b) { return (" + rule + "\n) })")
	if err != nil {
		t.Fatalf("%s\ngoja refuses it: %v", rule, err)
	}
	f, ok := goja.AssertFunction(program)
	if !ok {
		t.Fatalf("%s\nis no function", rule)
	}
	for i := range worlds {
		w := &worlds[i]
		o.asked = o.asked[:0]
		theirs, theirErr := f(goja.Undefined(), w.args...)
		w.env.Forget()
		for _, name := range o.asked {
			if raw, ok := o.refs[name]; ok {
				w.env.Answer(name, Unchecked(raw))
			} else {
				w.env.Answer(name, Null())
			}
		}
		allowed, ourErr := r.Eval(&w.env)
		w.env.begin()
		ours, failure := r.traced().run(&w.env)
		trace := r.Explain(&w.env)
		if late(ourErr) || late(trace.Err) {
			continue // the machine was busy with something else for that long
		}
		if trace.Allowed != allowed || (trace.Err == nil) != (ourErr == nil) || ourErr != nil && trace.Err.Error() != ourErr.Error() {
			t.Fatalf("%s\n%s\nEval = %v, %v but Explain = %v, %v", rule, w.text, allowed, ourErr, trace.Allowed, trace.Err)
		}
		decides := 0
		for _, s := range trace.Steps {
			if s.Decides {
				decides++
			}
		}
		if decides > 1 {
			t.Fatalf("%s\n%s\n%d steps decide", rule, w.text, decides)
		}
		if failure != nil {
			if failure.kind == inherited || failure.kind == bounded || strings.Contains(failure.Reason, "no regular expression") {
				continue
			}
			if theirErr == nil {
				t.Fatalf("%s\n%s\ngot failure %v, want %s", rule, w.text, failure, canonicalGoja(theirs))
			}
			continue
		}
		if theirErr != nil {
			t.Fatalf("%s\n%s\ngot %s, want a failure: %v", rule, w.text, canonical(&w.env, ours), theirErr)
		}
		if got, want := canonical(&w.env, ours), canonicalGoja(theirs); got != want {
			t.Fatalf("%s\n%s\ngot %s, want %s", rule, w.text, got, want)
		}
		if allowed != theirs.ToBoolean() {
			t.Fatalf("%s\n%s\nEval = %v, want %v", rule, w.text, allowed, !allowed)
		}
	}
}

// canonical spells a value out.
func canonical(env *Env, v value) string {
	switch {
	case v.kind == kindSkip:
		return "a skip that escaped"
	case v.kind == kindNumber:
		return canonicalNumber(v.num)
	case v.kind == kindString:
		return canonicalUnits(unitsOf(v.str))
	case v.isArray():
		var b strings.Builder
		env.each(v, func(element value) bool { b.WriteString(canonical(env, element) + ","); return true })
		if v.lit != nil {
			for _, m := range v.lit.members {
				b.WriteString(m.key + "=" + canonical(env, m.value) + ",")
			}
		}
		return "[" + b.String() + "]"
	case v.kind == kindJSONObject:
		members := map[string]string{}
		for s := scan(v.str); s.next(); {
			if strings.Contains(s.key, `\ud83d`) && !strings.Contains(s.key, `\ude00`) {
				continue // as in canonicalGoja
			}
			child, _ := env.view(s.value(), int(v.num))
			members[canonicalUnits(unitsOf(string(appendUnescaped(nil, s.key))))] = canonical(env, child)
		}
		return canonicalMembers(members)
	case v.kind == kindObject:
		members := map[string]string{}
		for _, m := range v.lit.members {
			if firstBad(m.key) >= 0 {
				continue // as in canonicalGoja
			}
			members[canonicalUnits(unitsOf(m.key))] = canonical(env, m.value)
		}
		return canonicalMembers(members)
	case v.kind == kindUser:
		data, _ := env.document(&env.User.Data, inUser, spot{})
		return canonicalMembers(map[string]string{
			`"id"`: canonical(env, text(env.User.ID)), `"isAuthenticated"`: canonical(env, boolean(env.User.Authenticated)), `"data"`: canonical(env, data),
		})
	}
	s, _ := env.asText(v, spot{})
	return s
}

func canonicalNumber(f float64) string {
	if math.IsNaN(f) {
		return "NaN"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func canonicalUnits(units []uint16) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, u := range units {
		if u < 0x20 || u > 0x7E {
			fmt.Fprintf(&b, "<%X>", u)
		} else {
			b.WriteByte(byte(u))
		}
	}
	return b.String() + `"`
}

func canonicalMembers(members map[string]string) string {
	var list []string
	for k, v := range members {
		list = append(list, k+":"+v)
	}
	slices.Sort(list)
	return "{" + strings.Join(list, ",") + "}"
}

func canonicalGoja(v goja.Value) string {
	switch v := v.(type) {
	case *goja.Object:
		if v.ClassName() == "Array" {
			var b strings.Builder
			for i := range int(v.Get("length").ToInteger()) {
				b.WriteString(canonicalGoja(v.Get(strconv.Itoa(i))) + ",")
			}
			if v.Get("input") != nil {
				for _, extra := range []string{"index", "input", "groups"} {
					b.WriteString(extra + "=" + canonicalGoja(v.Get(extra)) + ",")
				}
			}
			return "[" + b.String() + "]"
		}
		members := map[string]string{}
		for _, k := range v.Keys() {
			if strings.Contains(k, "\uFFFD") {
				continue // half a pair, which cannot be asked for in UTF-8
			}
			members[canonicalUnits(unitsOf(k))] = canonicalGoja(v.Get(k))
		}
		return canonicalMembers(members)
	case goja.String:
		units := make([]uint16, v.Length())
		for i := range units {
			units[i] = v.CharAt(i)
		}
		return canonicalUnits(units)
	}
	if v == nil || goja.IsUndefined(v) {
		return "undefined"
	}
	switch x := v.Export().(type) {
	case int64:
		return canonicalNumber(float64(x))
	case float64:
		return canonicalNumber(x)
	}
	return v.String()
}

// generator writes rules.
type generator struct {
	*rand.Rand
	budget int
}

func (g *generator) oneOf(list ...string) string { return list[g.IntN(len(list))] }

// rule is any rule of the language.
func (g *generator) rule() string {
	g.budget = 2 + g.IntN(14)
	return g.any()
}

func (g *generator) any() string {
	g.budget--
	if g.budget <= 0 {
		return g.leaf()
	}
	switch g.IntN(25) {
	case 0, 1, 2:
		return g.leaf()
	case 3, 4, 5:
		return g.path()
	case 6, 7, 8:
		return fmt.Sprintf("(%s %s %s)", g.any(), g.oneOf("===", "!==", "==", "!=", "==", "==="), g.any())
	case 9:
		if g.IntN(2) == 0 {
			return fmt.Sprintf("(typeof (%s) %s %s)", g.any(), g.oneOf("===", "!=="), g.oneOf("'string'", "'object'", "'number'", "'undefined'", "'boolean'", "'x'"))
		}
		return fmt.Sprintf("(%s %s %s)", g.any(), g.oneOf("<", ">", "<=", ">="), g.oneOf("0", "1", "12", "0.5", "NaN"))
	case 10:
		return fmt.Sprintf("(%s %s (%s))", g.any(), g.oneOf("<", ">", "<=", ">="), g.arithmetic())
	case 11, 12, 13:
		return fmt.Sprintf("(%s %s %s)", g.any(), g.oneOf("&&", "||", "&&", "||", "??"), g.any())
	case 14:
		return fmt.Sprintf("(%s ? %s : %s)", g.any(), g.any(), g.any())
	case 15:
		return g.oneOf("!", "-", "+", "typeof ", "!") + "(" + g.any() + ")"
	case 16, 17:
		return g.arithmetic()
	case 18, 19:
		if g.IntN(5) == 0 {
			return "(" + g.any() + ").length"
		}
		return g.method()
	case 20:
		return "`" + g.oneOf("", "a", "ü", `\ud83d`) + "${" + g.any() + "}" + g.oneOf("", "b", `\ude00`) + "`"
	case 21:
		return fmt.Sprintf("(%s in %s)", g.key(), g.oneOf("data", "oldData", "user", "user.data", "[1,2]", "({a:1,'b':2})", g.path()))
	case 22:
		return fmt.Sprintf("[%s, %s]%s", g.any(), g.any(), g.oneOf("", "[0]", "[1]", ".length", "["+g.any()+"]"))
	case 23:
		return fmt.Sprintf("({a: %s, [%s]: %s, 'a b': 1})%s", g.any(), g.key(), g.any(), g.oneOf("", ".a", ".b", "['a b']", "["+g.key()+"]"))
	}
	return "_(" + g.oneOf("'a'", "'r/a'", "'r/' + "+g.path(), g.path(), g.any()) + ")" + g.oneOf("", ".value", ".a", "?.a")
}

func (g *generator) arithmetic() string {
	if g.IntN(12) == 0 {
		return fmt.Sprintf("((%s) ** %s)", g.any(), g.oneOf("2", "0", "-1", "0.5", "NaN", "Infinity"))
	}
	return fmt.Sprintf("(%s %s %s)", g.any(), g.oneOf("+", "+", "+", "-", "*", "/", "%"), g.any())
}

func (g *generator) leaf() string {
	if g.IntN(3) > 0 {
		return g.oneOf("data", "oldData", "user.id", "user.data", "$a", "$b", "name", "action", "data.value", "oldData.value", "data.list", "user", "now", "data.owner")
	}
	return g.oneOf("true", "false", "null", "undefined", "NaN", "Infinity", "0", "1", "-0", "12", "1e21", "0.5", "0xff", "1e-7",
		"''", "'a'", "'12'", "'abc'", "' 7\\n'", "'😀'", "'\\ud83d'", "'\\ude00'", "'ü'", "'-1'", "'1,2'", "'z'", `"\uffff"`, "'[object Object]'")
}

func (g *generator) key() string {
	return g.oneOf("'a'", "'value'", "'length'", "0", "1", "'0'", "'00'", "'list'", "-1", "1.5", "$a", "$b", "'😀'", "null", "'\\ud83d'", "true", g.leaf())
}

func (g *generator) path() string {
	s := g.oneOf("data", "oldData", "user.data", "data", "$a", "name", "_('a')", "'aü😀'")
	for range 1 + g.IntN(3) {
		s += g.oneOf(".a", ".value", ".list", ".owner", ".b", ".length", "[0]", "[1]", "?.a", "?.[0]", "?.value", "["+g.key()+"]", "?.["+g.key()+"]", ".match")
	}
	return s
}

func (g *generator) method() string {
	receiver := g.oneOf("'abcabc'", "'aü😀b'", "' a '", "$a", "$b", "data", "data.list", "user.id", "["+g.any()+", 'a', NaN, 0]", "("+g.any()+" + '')", g.path())
	dot := g.oneOf(".", ".", ".", "?.")
	switch g.IntN(8) {
	case 0, 1, 2, 3:
		args := g.oneOf("", g.any(), g.any(), "'a', "+g.any(), "'', "+g.oneOf("1", "-1", "100", "Infinity", "3"), "'b', "+g.oneOf("1", "-1", "2.9", "'1'"), "'\\ud83d'", "'\\ude00', "+g.oneOf("2", "3", "4"))
		return receiver + dot + g.oneOf("startsWith", "endsWith", "includes", "indexOf", "includes", "indexOf") + "(" + args + ")"
	case 4:
		return "('aÜß' + $a)" + dot + g.oneOf("toUpperCase", "toLowerCase") + "()"
	case 5:
		return g.oneOf("' a '", "$a", "('\\ufeff😀 ' + $b)", "data.list", "oldData.list[0]", "user.id", "(1)", "null") + dot + "trim()"
	}
	return receiver + dot + "match(" + g.oneOf(
		"/a/", "/(a)(b)?/", "/a/g", "/x*/", "/x*/g", "/^a|c$/", "/[a-c]+/i", "/\\d+/", "/(?<first>a)(?<second>z)?/", "/./g", "/./gu", "/^.$/u",
		"/\\s/", "/[^a]/", "/😀/", "/b{1,2}/", "/B/gi", "/a(?=b)/", "/(a)\\1/", "/$/g", "/\\b/g", "/a+?/", "/(?:a|ab)c?/", "/[\\w-]+/", "/\\W/g",
		"/^/m", "/[\\ud83d]/", "/\\u{1F600}/u", "/[]/", "/[^]/", "/\\//", "/[/]/",
		"'b'", "'(b)'", "$a", "", "null", "12", g.path()) + ")" + g.oneOf("", "[0]", "[1]", ".index", ".groups", ".length", "?.[0]", ".input")
}

func TestRulesAgreeWithTheOracle(t *testing.T) {
	const rules, each = 13_000, 8
	o := newOracle(t, 128)
	g := &generator{Rand: rand.New(rand.NewPCG(20, 26))}
	for range rules {
		from := g.IntN(len(o.worlds) - each)
		o.compare(t, g.rule(), o.worlds[from:from+each])
	}
}

func FuzzOracle(f *testing.F) {
	o := newOracle(f, 64)
	for seed := range uint64(20) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		g := &generator{Rand: rand.New(rand.NewPCG(a, b))}
		from := g.IntN(len(o.worlds) - 4)
		o.compare(t, g.rule(), o.worlds[from:from+4])
	})
}
