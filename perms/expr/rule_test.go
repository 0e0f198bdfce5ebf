package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// all has every variable.
var all = Scope{Data: true, OldData: true, Vars: []string{"$userid", "$topic"}}

func compile(t testing.TB, rule string, scope Scope) *Rule {
	t.Helper()
	r, err := Compile(rule, scope)
	if err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	return r
}

// ada writes data over oldData to her own record.
func ada(data, oldData string) *Env {
	env := &Env{
		User: User{ID: "ada", Authenticated: true, Data: Unchecked(`{"role":"editor","groups":["a","b"]}`)},
		Now:  1700000000000, Action: 18, Name: "users/ada", Vars: []string{"ada", "tea-cup-pigs"},
	}
	if data != "" {
		env.Data = Unchecked(data)
	}
	if env.OldData = Null(); oldData != "" {
		env.OldData = Unchecked(oldData)
	}
	return env
}

func TestValues(t *testing.T) {
	data := `{"n":5,"s":"12","e":"","nil":null,"list":[1,"a",null,[2]],"half":"\ud83d","pair":"\ud83d\ude00","a":{"b":{"c":true}},
		"constructor":"ferrari","match":{"score":3},"dup":1,"dup":2,"k.e*y":7,"@this":8,"neg":-0,"big":1e999,
		"z53":"` + strings.Repeat("0", 53) + `","z1100":"` + strings.Repeat("0", 1100) + `","esc":"\b\f\n\r\t\/\"\u00E9"}`
	for _, c := range []struct{ rule, want string }{
		// Literals and folding.
		{"true", "true"}, {"''", `""`}, {"1 === 1", "true"}, {"`a${1}b`", `"a1b"`}, {"undefined", "undefined"}, {"NaN", "NaN"}, {"-Infinity", "-Infinity"},
		{"0x1F", "31"}, {"0b11", "3"}, {"1_000", "1000"}, {`"\u{1F600}".length`, "2"}, {"true;", "true"}, {"true // why", "true"}, {"\n  true\n", "true"},
		{"{a:1}.a", "1"}, {"({})", "{}"}, {"[1,'a',[null]]", `[1,"a",[null]]`}, {"({name, 'x y': 1, 2: 3, ['q']: 4})", `{"name":"users/ada","x y":1,"2":3,"q":4}`},
		{"({a:1, a:2}).a", "2"},
		// Variables.
		{"user.id", `"ada"`}, {"user['id']", `"ada"`}, {"user.isAuthenticated", "true"}, {"user.data.role", `"editor"`}, {"user.nothing", "undefined"},
		{"user", `{"id":"ada","isAuthenticated":true,"data":{"role":"editor","groups":["a","b"]}}`}, {"typeof user", `"object"`}, {"user + ''", `"[object Object]"`},
		{"'id' in user", "true"}, {"'x' in user", "false"}, {"user === user", "true"},
		{"now", "1700000000000"}, {"action", "18"}, {"action === 'write'", "false"}, {"name", `"users/ada"`}, {"$topic", `"tea-cup-pigs"`}, {"oldData", "null"},
		// Members.
		{"data.n", "5"}, {"data['s']", `"12"`}, {"data.a.b.c", "true"}, {"data.list[3][0]", "2"}, {"data.list['1']", `"a"`}, {"data.list.length", "4"}, {"data.list[9]", "undefined"},
		{"data.list['01']", "undefined"}, {"data.nothing", "undefined"}, {"data.nothing?.x.y.z", "undefined"}, {"data?.n", "5"}, {"oldData?.x", "undefined"}, {"oldData?.[data.nothing.x]", "undefined"},
		{"(oldData?.x) === undefined", "true"}, {"oldData?.x.startsWith('a')", "undefined"}, {"data.s?.startsWith('1')", "true"},
		{"data.dup", "2"}, {"data['k.e*y']", "7"}, {"data['@this']", "8"}, {"data['k.*']", "undefined"}, {"data['constructor']", `"ferrari"`}, {"data.match.score > 2", "true"},
		{"'abc'[1]", `"b"`}, {"'abc'[3]", "undefined"}, {"'abc'.length", "3"}, {"(5).x", "undefined"}, {"true.x", "undefined"},
		{"'n' in data", "true"}, {"'q' in data", "false"}, {"0 in data.list", "true"}, {"4 in data.list", "false"}, {"'length' in data.list", "true"},
		// Identity of objects.
		{"data.a === data.a", "true"}, {"data.a == data['a']", "true"}, {"data.a === data.a.b", "false"}, {"[] === []", "false"}, {"({}) == ({})", "false"}, {"user.data === user.data", "true"},
		// Equality.
		{"null == undefined", "true"}, {"null === undefined", "false"}, {"null == 0", "false"}, {"'' == 0", "true"}, {"'-0' == 0", "true"}, {"'1' == 1", "true"}, {"true == 1", "true"}, {"true == '1'", "true"},
		{"[1] == 1", "true"}, {"[1,2] == '1,2'", "true"}, {"({}) == '[object Object]'", "true"}, {"NaN == NaN", "false"}, {"0 === -0", "true"}, {"'a' != 'b'", "true"}, {"[] == ''", "true"}, {"[] == ![]", "true"}, {"[null] == ''", "true"},
		{"undefined == 0", "false"}, {"'\\ud83d' + '\\ude00' === '😀'", "true"}, {"data.pair === '😀'", "true"},
		// Order.
		{"'12' > 10", "true"}, {"'b' > 'a'", "true"}, {"'10' < '9'", "true"}, {"undefined > 10", "false"}, {"null >= 0", "true"}, {"NaN <= NaN", "false"}, {"'😀' < '\\uffff'", "true"}, {"'\\ud83d' < '😀'", "true"}, {"[2] > 1", "true"},
		{"'a' < 1", "false"}, {"true > false", "true"}, {"'' < 'a'", "true"},
		// Arithmetic and text.
		{"[] + {}", `"[object Object]"`}, {"1 + '2'", `"12"`}, {"'3' * '4'", "12"}, {"1 + null", "1"}, {"1 + undefined", "NaN"}, {"[1] + [2]", `"12"`}, {"true + true", "2"}, {"data.list + ''", `"1,a,,2"`},
		{"-7 % 3", "-1"}, {"7 % -3", "1"}, {"-1 % 1", "-0"}, {"5 % 0", "NaN"}, {"2 ** 3 ** 2", "512"}, {"1 ** NaN", "NaN"}, {"(-1) ** Infinity", "NaN"}, {"NaN ** 0", "1"}, {"1 / -0", "-Infinity"}, {"-''", "-0"}, {"+' 7\\n'", "7"}, {"+'\\ufeff3\\u00a0'", "3"},
		{"+'0x10'", "16"}, {"+'0b101'", "5"}, {"+'0o17'", "15"}, {"+'-0x10'", "NaN"}, {"+'1e3'", "1000"}, {"+'1_0'", "NaN"}, {"+'Infinity'", "Infinity"}, {"+'inf'", "NaN"}, {"+'nan'", "NaN"}, {"+'.5'", "0.5"}, {"+'5.'", "5"}, {"+'.'", "NaN"},
		{"+'0x1fffffffffffff1'", "144115188075855860"}, {"+('0b1' + '0'.length + '1')", "7"}, {"+'0xg'", "NaN"}, {"+'0x+1'", "NaN"}, {"+'0x00'", "0"}, {"+'0b1' * 1", "1"}, {"+`0b${'1'}${data.z53}1`", "18014398509481984"}, {"+`0o7${data.z53}`", "5.11525573065816e+48"}, {"+`0x${data.z53}${data.z53}1`", "1"}, {"+('0b1' + data.z1100)", "Infinity"}, {"+'0x'", "NaN"}, {"+'1e999'", "Infinity"},
		{"'' + 1e21", `"1e+21"`}, {"'' + 123456789012345680000", `"123456789012345680000"`}, {"'' + 1e-7", `"1e-7"`}, {"'' + 0.000001", `"0.000001"`}, {"'' + -0", `"0"`}, {"'' + 0.1", `"0.1"`}, {"'' + 1.5e300", `"1.5e+300"`}, {"'' + 5e-324", `"5e-324"`},
		{"'' + (0.1 + 0.2)", `"0.30000000000000004"`}, {"'' + 100", `"100"`}, {"'' + -1.25", `"-1.25"`},
		{"data.neg", "-0"}, {"data.big", "Infinity"}, {"`${[1,[2,null]]}|${null}|${undefined}`", `"1,2,|null|undefined"`},
		// Logic.
		{"'' || 'x'", `"x"`}, {"0 && 1", "0"}, {"0 ?? 1", "0"}, {"null ?? 1", "1"}, {"data.n ? 'y' : 'n'", `"y"`}, {"!data.e", "true"}, {"!!data.list", "true"}, {"![]", "false"}, {"1 && 2 || 3", "2"},
		{"typeof undefined", `"undefined"`}, {"typeof null", `"object"`}, {"typeof data.list", `"object"`}, {"typeof data.n", `"number"`}, {"typeof (data.s)", `"string"`}, {"typeof !1", `"boolean"`},
		{"typeof data.list === 'object'", "true"}, {"typeof data.nil === 'object'", "true"}, {"typeof data.n !== 'number'", "false"}, {"typeof data?.nil?.x === 'undefined'", "true"},
		{"typeof data.n === 'anything'", "false"}, {"typeof user === 'object'", "true"}, {"typeof ({}) === 'object'", "true"}, {"typeof !data.n === 'boolean'", "true"}, {"typeof data.s === 's' + 'tring'", "true"},
		{"data.n < 6", "true"}, {"data.n < 5", "false"}, {"data.s < 13", "true"}, {"data.e < 1", "true"}, {"data.missing < 1", "false"}, {"data.nil < 1", "true"}, {"data.list < 1", "false"}, {"data.big < 1", "false"},
		{"'12345678ü'.length", "9"}, {"'12345678😀x'.length", "11"}, {"data.pair.length", "2"}, {"data.half.length", "1"}, {"data.z1100.length < 1101", "true"}, {"data.list.length", "4"}, {"data.n.length", "undefined"},
		// Methods.
		{"'abc'.startsWith('b', 1)", "true"}, {"'abc'.endsWith('b', 2)", "true"}, {"'abc'.endsWith('c', undefined)", "true"}, {"'abc'.endsWith('c', null)", "false"}, {"'abc'.includes('')", "true"}, {"'abc'.includes('a', -5)", "true"}, {"'abc'.includes('a', NaN)", "true"}, {"'abc'.indexOf('c', 9)", "-1"}, {"'abc'.indexOf('', 9)", "3"},
		{"'undefined'.includes()", "true"}, {"'1null'.includes(null)", "true"}, {"'a1'.indexOf(1)", "1"}, {"'abcabc'.indexOf('a', 1)", "3"}, {"'a'['startsWith']('a')", "true"}, {"'abc'.indexOf('a', '\\u00a03')", "-1"},
		{"'😀b'.indexOf('b')", "2"}, {"'😀'.length", "2"}, {"'😀'[0] === '\\ud83d'", "true"}, {"'😀'[1]", `"\ude00"`}, {"'😀'.indexOf('\\ude00')", "1"}, {"'😀'.startsWith('\\ud83d')", "true"}, {"'😀'.endsWith('\\ude00')", "true"}, {"'😀'.startsWith('\\ude00', 1)", "true"}, {"'😀a'.startsWith('a', 1)", "false"}, {"'😀'.endsWith('\\ud83d', 1)", "true"},
		{"'a😀'.includes('😀', 2)", "false"}, {"data.half", `"\ud83d"`}, {"data.half + '\\ude00' === data.pair", "true"},
		{"[1,NaN].includes(NaN)", "true"}, {"[1,NaN].indexOf(NaN)", "-1"}, {"['a','b'].includes(user.id)", "false"}, {"data.list.includes('a')", "true"}, {"data.list.includes('1')", "false"}, {"data.list.indexOf(null)", "2"}, {"[1,2,1].indexOf(1, -1)", "2"}, {"[1,2,1].includes(2, 2)", "false"}, {"[0].includes(-0)", "true"}, {"[].indexOf(1, {})", "-1"},
		{"'straße'.toUpperCase()", `"STRASSE"`}, {"'ΑΣ'.toLowerCase()", `"ας"`}, {"'İ'.toLowerCase().length", "2"}, {"'aB\\ud83dÜ'.toLowerCase()", `"ab\ud83dü"`}, {"'abc'.toUpperCase()", `"ABC"`}, {"'\\ufeff\\u00a0 a\\ud83d \\u2029'.trim()", `"a\ud83d"`}, {"'\\u0085a'.trim().length", "2"},
		// match.
		{"'abc'.match(/b/)[0]", `"b"`}, {"'abc'.match(/(a)(x)?/)", `["a","a",undefined]`}, {"'abc'.match(/x/)", "null"}, {"'abab'.match(/a/g)", `["a","a"]`}, {"'abc'.match(/c/).index", "2"}, {"'abc'.match(/(?<l>c)/).groups.l", `"c"`}, {"'abc'.match(/c/).input", `"abc"`}, {"'abc'.match(/c/).groups", "undefined"},
		{"'a.c'.match('.')[0]", `"a"`}, {"'abc'.match()", `[""]`}, {"'null'.match(null)[0]", `"null"`}, {"'ABC'.match(/b/i)[0]", `"B"`}, {"'a\\nb'.match(/^b/m)[0]", `"b"`}, {"'a\\nb'.match(/a.b/s) !== null", "true"}, {"'a\\nb'.match(/a.b/)", "null"}, {"'a\\rb'.match(/a.b/)", "null"},
		{"'😀'.match(/^.$/)", "null"}, {"'😀'.match(/^.$/u)[0]", `"😀"`}, {"'😀'.match(/^..$/) !== null", "true"}, {"'baac'.match(/a*/g)", `["","aa","",""]`}, {"!'aa'.match(/^(|a)*$/)", "false"}, {"'ab'.match(/a(?=b)/)[0]", `"a"`}, {"'aa'.match(/(a)\\1/)[0]", `"aa"`}, {"'\u212a\u212aK'.match(/k/i).index", "2"}, {"'İ'.match(/[^i]/i)[0]", `"İ"`}, {"'MÜ'.match(/mü/i)[0]", `"MÜ"`}, {"'ẞß'.match(/ß/gi)", `["ß"]`},
		{"'users/ada'.match(/^users\\/(\\w+)$/)[1] === user.id", "true"}, {"'ünix'.match(/n(i)/).index", "1"}, {"'ab'.match(/(?<b>b)|(?<a>a)/).groups", `{"b":undefined,"a":"a"}`}, {"'xay'.match(/(x)(?<n>a)(y)/)", `["xay","x","a","y"]`}, {"'üxay'.match(/(x)(?<n>a)(y)/)", `["xay","x","a","y"]`},
		{"!'ab'.match(/(?:(a)|b)*/)", "false"}, {"'-'.match(/[\\w-]/)[0]", `"-"`}, {"']'.match(/[\\]]/)[0]", `"]"`}, {"'a{'.match(/a{/)[0]", `"a{"`}, {"'aaa'.match(/a{2}/)[0]", `"aa"`}, {"'abc'.match(/B/gi)", `["b"]`},
		{`'a b'.match(/\S\s\S/)[0]`, `"a b"`}, {`'ab'.match(/\Bb/)[0]`, `"b"`}, {`'ab'.match(/\bb/)`, "null"}, {`'1x'.match(/[\D]/)[0]`, `"x"`}, {`'a\t'.match(/[\s]/)[0]`, `"\u0009"`}, {`'xA'.match(/\x41/).index`, "1"}, {`'xA'.match(/\u0041/).index`, "1"},
		{`'\x01'.match(/\cA/).index`, "0"}, {`'a\b'.match(/[\b]/).index`, "1"}, {`'1é'.match(/\p{L}/u)[0]`, `"é"`}, {`'aa'.match(/(?<a>a)\k<a>/)[0]`, `"aa"`}, {`'\0'.match(/\0/) !== null`, "true"}, {`'a.b'.match(/[.][^\w.]?/)[0]`, `"."`}, {`'\u00a0'.match(/\s/) !== null`, "true"}, {`'a-z'.match(/[a\-z]+/)[0]`, `"a-z"`},
		{`'😀'.match(/😀/)[0]`, `"😀"`}, {`'a😀'.match(/\u{1F600}/u).index`, "1"}, {`data.half.match(/\ud83d/)[0] === data.half`, "true"}, {`data.half.match(/./u)[0] === data.half`, "true"}, {`'x'.match('\ud83d')`, "null"},
		{`data.esc === '\b\f\n\r\t/"é'`, "true"},
	} {
		r := compile(t, c.rule, all)
		env := ada(data, "")
		env.begin()
		v, failure := r.traced().run(env)
		if failure != nil {
			t.Errorf("%s failed: %v", c.rule, failure)
			continue
		}
		if got := env.show(v, nil); got != c.want {
			t.Errorf("%s: got %s, want %s", c.rule, got, c.want)
		}
		if allowed, err := r.Eval(env); err != nil || allowed != v.truthy() {
			t.Errorf("%s: Eval = %v, %v", c.rule, allowed, err)
		}
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		rule   string
		column int
		want   string
	}{
		{"oldData.value > 1", 1, "oldData.value: cannot read a member of null"},
		{"true && data.a.b", 9, "data.a.b: cannot read a member of undefined"},
		{"undefined[oldData.x]", 11, "oldData.x: cannot read a member of null"},
		{"data.nothing.startsWith('a')", 1, "cannot call startsWith of undefined"},
		{"data.n.startsWith('a')", 1, "a number has no method startsWith"},
		{"data.list.startsWith('a')", 1, "an array has no method startsWith"},
		{"data.includes('a')", 1, "an object has no method includes"},
		{"'a' in data.n", 1, "in looks into an object or array, this is a number"},
		{"data.own + ''", 1, "an object with a member toString has no text"},
		{"'x'.match(/x/).groups.y", 1, "cannot read a member of undefined"},
		{"'' + 'x'.match(/(?<x>x)/).groups", 1, "has no text"},
		// Inherited, or misspelt.
		{"data.toString", 1, "toString is no member of its own"},
		{"data.s.startsWith", 1, "startsWith is no member of its own"},
		{"data.list.map", 1, "map is no member of its own"},
		{"data.n.toFixed", 1, "toFixed is no member"},
		{"data['constructor']", 1, "constructor is no member"},
		{"data['__proto__']", 1, "__proto__ is no member"},
		{"data['proto'.length && '__proto__']", 1, "__proto__ is no member"},
		{"user.toString", 1, "toString is no member"},
		{"'constructor' in data", 1, "JavaScript finds the name constructor in everything"},
		{"user.data.groups.map", 1, "map is no member"},
		// References.
		{"_(5)", 1, "the name of a record is text, this is a number"},
		{"_(null)", 1, "this is null"},
		{"_(data)", 1, "this is an object"},
		{"_('a' + 'x😀'[1])", 1, "half a surrogate pair"},
		// Patterns out of data.
		{"'a'.match(data.pattern)", 1, "this is no regular expression: a ( has no partner"},
		{"'a'.match(data.stale)[0]", 1, "a group inside of a repetition"},
		{"'a'.match(data.long)", 1, "longer than 1000 bytes"},
		{"\n  data.x.y", 3, "cannot read"},
	} {
		r := compile(t, c.rule, all)
		env := ada(`{"n":5,"s":"x","list":[1],"own":{"toString":1},"pattern":"(","stale":"(?:(a)|b)*","long":"`+strings.Repeat("a", 1001)+`"}`, "")
		allowed, err := r.Eval(env)
		var failure *Failure
		if allowed || !errors.As(err, &failure) {
			t.Errorf("%s: got %v, %v, want a failure", c.rule, allowed, err)
			continue
		}
		if !strings.Contains(failure.Reason, c.want) || failure.Column != c.column || failure.Line != 1+strings.Count(c.rule, "\n") {
			t.Errorf("%s: got %v, want column %d and %q", c.rule, failure, c.column, c.want)
		}
	}
}

func TestInvalidDataIsAFailureWhereItIsRead(t *testing.T) {
	r := compile(t, "user.id === 'ada' && data.x === 1 || oldData === null", all)
	for _, raw := range []string{"{", "", "nope", `{"x":01}`, `"\x00"`, "[1,]", "\"\xff\"", "{}{}"} {
		env := ada("", "")
		env.Data = Unchecked(raw)
		_, err := r.Eval(env)
		if err == nil || !strings.Contains(err.Error(), "line 1, column 22: data is not JSON") {
			t.Errorf("%q: got %v", raw, err)
		}
		env.User.ID = "bob"
		if ok, err := r.Eval(env); !ok || err != nil {
			t.Errorf("%q unread: got %v, %v", raw, ok, err)
		}
	}
	env := ada(" { \"x\" : 1 } ", "")
	if ok, err := r.Eval(env); !ok || err != nil {
		t.Errorf("white space: got %v, %v", ok, err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		rule         string
		line, column int
		want         string
	}{
		{"", 1, 1, "the rule is empty: write true or false"},
		{" \n;", 1, 1, "the rule is empty"},
		{"/* nothing */", 1, 14, "ends too early"},
		{"true; false", 1, 7, "a rule is one expression: join"},
		{"true\nfalse", 2, 1, "a rule is one expression: join"},
		{"true, false", 1, 7, "without commas"},
		{"(true, false)", 1, 2, "without commas"},
		{"data.a &&", 1, 10, "ends too early"},
		{"(data.a", 1, 8, "ends too early"},
		{"data.a\r\n  && ü )", 2, 8, ") does not belong here"},
		{"data.a\n\n && * 1", 3, 5, "* does not belong here"},
		{"data.a)", 1, 7, ") does not belong here"},
		{"true) || (true", 1, 5, ") does not belong here"},
		{"'abc", 1, 1, "no JavaScript"},
		{"data.a data.b", 1, 8, "unexpected identifier"},
		{"user.id = 'x'", 1, 1, "a rule cannot assign: compare with ==="},
		{"user.id += 'x'", 1, 1, "a rule cannot assign"},
		{"'a' = user.id", 1, 1, "a rule cannot assign"},
		{"action++", 1, 1, "cannot change a value"},
		{"--action", 1, 1, "cannot change a value"},
		{"function() { return true }", 1, 1, "cannot define functions"},
		{"data.list.includes(x => x)", 1, 20, "cannot define functions"},
		{"x=>x=>x=>x=>x", 1, 2, "cannot define functions"},
		{"({a() { return 1 }}).a", 1, 3, "cannot define functions"},
		{"({get a() { return 1 }}).a", 1, 7, "cannot define functions"},
		{"class {}", 1, 1, "cannot define classes"},
		{"new Date()", 1, 1, "a rule has no new"},
		{"this.user", 1, 1, "a rule has no this"},
		{"if (data) true", 1, 1, "a rule is an expression, and if is none"},
		{"return true", 1, 1, "a rule is an expression, and return is none"},
		{"var x", 1, 1, "and var is none"},
		{"delete data.x", 1, 1, "there is no delete in a rule"},
		{"void 0", 1, 1, "there is no void in a rule"},
		{"[...data.list]", 1, 2, "a rule has no spread"},
		{"({...data})", 1, 3, "a rule has no spread"},
		{"'a'.includes(...data.list)", 1, 14, "a rule has no spread"},
		{"[1,,2]", 1, 1, "an element of the array is missing"},
		{"user.id.trim`x`", 1, 1, "cannot tag a template"},
		{"data.a & data.b", 1, 7, "did you mean &&?"},
		{"data.a | data.b", 1, 7, "did you mean ||?"},
		{"data.a ^ data.b", 1, 7, "a power is **"},
		{"data.a >> 1", 1, 7, ">> works on bits"},
		{"~data.a", 1, 1, "~ works on bits"},
		{"data instanceof user", 1, 5, "no instanceof"},
		{"1 < data.a < 3", 1, 5, "two comparisons in a row"},
		{"1 < (data.a < 3)", 1, 6, "two comparisons in a row"},
		{"-1 ** 2", 1, 4, "a sign before ** is unclear"},
		{"data && name ?? true", 1, 14, "put one of them in parentheses"},
		{"010", 1, 1, "leave out the 0"},
		{"10n", 1, 1, "leave out the n"},
		{"Date.now() > 1", 1, 1, "the time is now"},
		{"Math.abs(1)", 1, 1, "there is no Math in a rule: it has user, data, oldData, now, action, name, _. Text"},
		{"Math.PI", 1, 1, "there is no Math in a rule"},
		{"constructor", 1, 1, "there is no constructor in a rule"},
		{"globalThis", 1, 1, "there is no globalThis in a rule"},
		{"usr.id === 'a'", 1, 1, "there is no usr in a rule: did you mean user?"},
		{"olddata === 1", 1, 1, "did you mean oldData?"},
		{"$userId === user.id", 1, 1, "there is no $userId: the path has $userid, $topic"},
		{"user.id === ada", 1, 13, "Text stands in quotes"},
		{"_ === 1", 1, 1, "_ is called with the name of a record"},
		{"eval('1')", 1, 1, "a rule cannot call eval"},
		{"data.toLowercase()", 1, 6, "did you mean toLowerCase?"},
		{"data['constructor']('x')", 1, 6, "a rule cannot call constructor"},
		{"data[name]('x')", 1, 5, "calls methods by their names"},
		{"data()", 1, 1, "a rule cannot call data"},
		{"(1)()", 1, 2, "this cannot be called"},
		{"_?.('x')", 1, 1, "this cannot be called"},
		{"data.trim?.()", 1, 1, "this cannot be called"},
		{"data.__proto__", 1, 6, "prototypes"},
		{"data.constructor", 1, 6, "if the data has such a member, write ['constructor']"},
		{"data?.prototype", 1, 7, "prototypes"},
		{"({__proto__: data})", 1, 3, "prototypes"},
		{"/a/", 1, 1, "can only be given to match"},
		{"'a'.includes(/a/)", 1, 14, "can only be given to match"},
		{"'a'.match(/(/)", 1, 11, "a ( has no partner"},
		{"'a'.match('(')", 1, 11, "a ( has no partner"},
		{"'a'.match(/a/y)", 1, 11, "there is no flag y"},
		{"'a'.match(/a/gg)", 1, 11, "stands there twice"},
		{"'a'.match(/(?>a)/)", 1, 11, "unknown to JavaScript"},
		{"'a'.match(/(?i)a/)", 1, 11, "unknown to JavaScript"},
		{"'a'.match(/\\Aa/)", 1, 11, "leave out the backslash"},
		{"'a'.match(/\\u212a/i)", 1, 11, "the flag i stands for ASCII"},
		{"'a'.match(/σ/i)", 1, 11, "the flag i stands for ASCII"},
		{"'a'.match(/[a-ÿ]/i)", 1, 11, "the flag i stands for ASCII"},
		{"'a'.match(/a/iu)", 1, 11, "without the flag u"},
		{"'a'.match(/a**/)", 1, 11, "has nothing to repeat"},
		{"'a'.match(/(?:(a)|b)*/)[1]", 1, 11, "a group inside of a repetition"},
		{"'a'.match(/(?:(a)|b\\1)*/)", 1, 11, "a group inside of a repetition"},
		{"user.\n  id === üx", 2, 10, "there is no üx in a rule"},
		{"'ü' === )", 1, 9, ") does not belong"},
		{"'\xff'", 1, 2, "not UTF-8"},
		{strings.Repeat("(", 300), 1, 201, "nest deeper than 200"},
		{strings.Repeat("!", 600) + "1", 1, 501, "nests deeper than 500"},
		{"1" + strings.Repeat(" + 1", 499) + strings.Repeat(" + 1", 10), 1, 1, "nests deeper"},
		{"[" + strings.Repeat("1,", 4001) + "1]", 1, 8000, "more than 4000 parts"},
		{strings.Repeat("x", 20000), 1, 16385, "longer than 16384 bytes"},
		{"await data", 1, 1, ""},
		{"yield", 1, 1, "there is no yield"},
		{"import('x')", 1, 1, ""},
		{"data.#x", 1, 1, ""},
		{"new.target", 1, 1, ""},
		{"super.x", 1, 1, ""},
		{"async x => 1", 1, 1, "cannot define functions"},
	} {
		r, err := Compile(c.rule, all)
		if err == nil {
			t.Errorf("%.80s: got a rule that reads %v, want %q", c.rule, r.Reads(), c.want)
			continue
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.80s: got %T", c.rule, err)
			continue
		}
		if !strings.Contains(e.Reason, c.want) || c.want != "" && (e.Line != c.line || e.Column != c.column) {
			t.Errorf("%.80s: got %v, want line %d, column %d: %s", c.rule, err, c.line, c.column, c.want)
		}
	}
}

func TestRulesThatThePeerRefusesByAccidentAreAllowed(t *testing.T) {
	for _, rule := range []string{"'a new function'.length > 0", "typeof (data) === 'object'", "'=>' === name || true", "!(data)"} {
		compile(t, rule, all)
	}
}

func TestScopeDecidesWhichVariablesThereAre(t *testing.T) {
	for _, c := range []struct {
		rule  string
		scope Scope
		want  string
	}{
		{"data.x", Scope{OldData: true}, "this rule has no data"},
		{"user.data.data", Scope{}, ""},
		{"'data' === name", Scope{}, ""},
		{"oldData", Scope{Data: true}, "this rule has no oldData"},
		{"$x", Scope{}, "there is no $x: the path has no variables"},
		{"$x", Scope{Vars: []string{"$x"}}, ""},
	} {
		_, err := Compile(c.rule, c.scope)
		if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %v, want %q", c.rule, err, c.want)
		}
	}
}

func TestRulesSayWhatTheyUse(t *testing.T) {
	for _, c := range []struct {
		rule                string
		data, old, refs     bool
		constant, isAllowed bool
		reads               []string
	}{
		{"true", false, false, false, true, true, nil},
		{"''", false, false, false, true, false, nil},
		{"1 === 1 && 'a'.includes('a')", false, false, false, true, true, nil},
		{"null.x", false, false, false, false, false, nil},
		{"user.id === $userid", false, false, false, false, false, []string{"$userid", "user.id"}},
		{"user.data.role === 'x'", false, false, false, false, false, []string{"user.data.role"}},
		{"data.value > oldData.value", true, true, false, false, false, []string{"data.value", "oldData.value"}},
		{"data[name].x || data['a b'].c", true, false, false, false, false, []string{"data", "data['a b'].c", "name"}},
		{"_('item/' + data.itemId).stock > 0", true, false, true, false, false, []string{"data.itemId"}},
		{"data?.a?.b && data.a", true, false, false, false, false, []string{"data.a", "data.a.b"}},
		{"'oldData' === name", false, false, false, false, false, []string{"name"}},
	} {
		r := compile(t, c.rule, all)
		allowed, constant := r.Constant()
		if r.UsesData() != c.data || r.UsesOldData() != c.old || r.UsesReferences() != c.refs || constant != c.constant || allowed != c.isAllowed || !slices.Equal(r.Reads(), c.reads) {
			t.Errorf("%s: got %v %v %v %v %v %q", c.rule, r.UsesData(), r.UsesOldData(), r.UsesReferences(), constant, allowed, r.Reads())
		}
		if r.Text() != c.rule {
			t.Errorf("Text = %q, want %q", r.Text(), c.rule)
		}
	}
}

// TestRulesOfTheSpecification are the worked examples of the permission pages and
// of the official end-to-end tests, with their intended results.
func TestRulesOfTheSpecification(t *testing.T) {
	bob := func(e *Env) *Env { e.User.ID = "bob"; return e }
	named := func(vars ...string) *Env {
		e := ada("", "")
		e.Vars = vars
		return e
	}
	for _, c := range []struct {
		rule string
		env  *Env
		want string // yes, no or what failed
	}{
		{"user.id === $userid", ada("", ""), "yes"},
		{"user.id === $userid", bob(ada("", "")), "no"},
		{"!oldData.value || data.value > oldData.value", ada(`{"value":2}`, `{"value":1}`), "yes"},
		{"!oldData.value || data.value > oldData.value", ada(`{"value":1}`, `{"value":2}`), "no"},
		{"!oldData.value || data.value > oldData.value", ada(`{"value":1}`, `{}`), "yes"},
		{"!oldData.value || data.value > oldData.value", ada(`{"value":1}`, ""), "cannot read a member of null"},
		{"$userid.toLowerCase() === 'egon' && $topic.toLowerCase() === 'miller'", named("EGON", "Miller"), "yes"},
		{"$userid.toLowerCase() === 'egon' && $topic.toLowerCase() === 'miller'", named("egon", "mueller"), "no"},
		{"$topic === 'tea-cup-pigs'", ada("", ""), "yes"},
		{"typeof data === 'number' && data > 10", ada("12", ""), "yes"},
		{"typeof data === 'number' && data > 10", ada(`"12"`, ""), "no"},
		{"data > 10", ada(`"12"`, ""), "yes"},
		{"data > 10", ada("", ""), "no"}, // no data at all
		{"data > 10", ada("null", ""), "no"},
		{"$userid.toLowerCase() === data.address.city.toLowerCase()", ada(`{"address":{"city":"ADA"}}`, ""), "yes"},
		{"$userid.toLowerCase() === data.address.city.toLowerCase()", ada(`{}`, ""), "data.address.city: cannot read a member of undefined"},
		{"typeof data.firstname === 'string' && typeof data.lastname === 'string'", ada(`{"firstname":"a","lastname":"b"}`, ""), "yes"},
		{"typeof data.firstname === 'string' && typeof data.lastname === 'string'", ada(`{"firstname":"a"}`, ""), "no"},
		{"user.id === 'client-a'", ada("", ""), "no"},
		{"oldData.owner && oldData.owner === user.id", ada("", `{}`), "no"}, // let through by the peer
		{"data.role !== 'admin'", ada(`{"role":"admin"}`, ""), "no"},
		{"user.data.role === 'editor' && data.lastname === 'Bob'", ada(`{"lastname":"Bob"}`, ""), "yes"},
		{"user.isAuthenticated", ada("", ""), "yes"},
		{"name.startsWith('users/') && action === 18", ada("", ""), "yes"},
		{"action === 'UPDATE'", ada("", ""), "no"},
		{"now > 1600000000000 && now < 1800000000000", ada("", ""), "yes"},
		{"0", ada("", ""), "no"}, {"''", ada("", ""), "no"}, {"null", ada("", ""), "no"}, {"undefined", ada("", ""), "no"}, {"NaN", ada("", ""), "no"},
		{"'false'", ada("", ""), "yes"}, {"[]", ada("", ""), "yes"}, {"({})", ada("", ""), "yes"},
		{"user.data.groups.includes('a')", ada("", ""), "yes"},
		{"user.data.groups.indexOf('c') >= 0", ada("", ""), "no"},
		{"name.match(/^users\\/[a-z]+$/)", ada("", ""), "yes"},
		{"'role' in user.data", ada("", ""), "yes"},
	} {
		ok, err := compile(t, c.rule, all).Eval(c.env)
		got := map[bool]string{true: "yes", false: "no"}[ok]
		if err != nil {
			got = err.Error()
		}
		if got != c.want && !(err != nil && strings.Contains(got, c.want)) {
			t.Errorf("%s: got %s, want %s", c.rule, got, c.want)
		}
	}
}

func TestReferencesAreWantedUntilTheyAreAnswered(t *testing.T) {
	type round struct {
		wants   []string
		answers map[string]Doc
	}
	record := func(raw string) Doc { return Unchecked(raw) }
	for _, c := range []struct {
		name, rule string
		rounds     []round
		want       string
	}{
		{"loaded", "_('perm/' + user.id).boolean", []round{{[]string{"perm/ada"}, map[string]Doc{"perm/ada": record(`{"boolean":true}`)}}}, "true <nil>"},
		{"missing is null", "_('x') === null", []round{{[]string{"x"}, map[string]Doc{"x": Null()}}}, "true <nil>"},
		{"missing has no members", "_('x').y", []round{{[]string{"x"}, map[string]Doc{"x": Null()}}}, "false line 1, column 1: _('x').y: cannot read a member of null"},
		{"both at once, each once", "(_('a') || _('a') || _('b')) && true", []round{{[]string{"a", "b"}, map[string]Doc{"a": record("1"), "b": record("2")}}}, "true <nil>"},
		{"a false answer waits, too", "_('a') && false", []round{{[]string{"a"}, map[string]Doc{"a": record("1")}}}, "false <nil>"},
		{"one after the other", "_(_('a').next).ok", []round{
			{[]string{"a"}, map[string]Doc{"a": record(`{"next":"b"}`)}},
			{[]string{"b"}, map[string]Doc{"b": record(`{"ok":1}`)}}}, "true <nil>"},
		{"made of what is not there yet", "_('p/' + (_('a') || {}).id).ok", []round{
			{[]string{"a"}, map[string]Doc{"a": record(`{"id":7}`)}},
			{[]string{"p/7"}, map[string]Doc{"p/7": record(`{"ok":0}`)}}}, "false <nil>"},
		{"undefined", "_(data.nothing) === undefined", nil, "true <nil>"},
		{"text with undefined", "_('x/' + data.nothing) === undefined", nil, "true <nil>"},
		{"no text ends it at once", "_('a') || _(5)", nil, "false line 1, column 11: _(5): the name of a record is text, this is a number"},
		{"not called", "true || _('a')", nil, "true <nil>"},
		{"identity", "_('a') === _('a') && _('a') !== _('b') && _('a').o === _('a').o", []round{
			{[]string{"a", "b"}, map[string]Doc{"a": record(`{"o":{}}`), "b": record(`{"o":{}}`)}}}, "true <nil>"},
		{"broken", "_('a').x", []round{{[]string{"a"}, map[string]Doc{"a": record(`{`)}}}, "false line 1, column 1: _('a') is not JSON"},
	} {
		r := compile(t, c.rule, all)
		env := ada("{}", "")
		for i, round := range c.rounds {
			if ok, err := r.Eval(env); ok || !errors.Is(err, ErrPending) || !slices.Equal(env.Wanted(), round.wants) {
				t.Errorf("%s, round %d: got %v, %v, %q, want %q", c.name, i, ok, err, env.Wanted(), round.wants)
			}
			if trace := r.Explain(env); !errors.Is(trace.Err, ErrPending) || !slices.Equal(env.Wanted(), round.wants) {
				t.Errorf("%s, round %d: explained as %v", c.name, i, trace.Err)
			}
			for name, doc := range round.answers {
				env.Answer(name, doc)
			}
		}
		ok, err := r.Eval(env)
		if got := fmt.Sprint(ok, " ", err); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
		env.Forget()
		if _, err := r.Eval(env); len(c.rounds) > 0 && !errors.Is(err, ErrPending) {
			t.Errorf("%s: still knows the records after Forget: %v", c.name, err)
		}
	}
}

func TestAnswersAreReplaced(t *testing.T) {
	r := compile(t, "_('a') === 2", all)
	env := ada("", "")
	env.Answer("a", Unchecked("1"))
	if ok, err := r.Eval(env); ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
	env.Answer("a", Unchecked("2"))
	if ok, err := r.Eval(env); !ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
}

func TestObjectsOfDifferentDocumentsDifferEvenInOneText(t *testing.T) {
	env := ada("", "")
	raw := `{"o":{}}`
	env.Data, env.OldData = Unchecked(raw), Unchecked(raw)
	for rule, want := range map[string]bool{"data === oldData": false, "data.o === oldData.o": false, "data === data": true} {
		if ok, err := compile(t, rule, all).Eval(env); ok != want || err != nil {
			t.Errorf("%s: got %v, %v", rule, ok, err)
		}
	}
}

func TestBoundsHold(t *testing.T) {
	long := `"` + strings.Repeat("a", 1<<20) + `"`
	many := `"` + strings.Repeat("a", 100_000) + `"`
	double := "data.s"
	for range 6 {
		double = "(" + double + " + " + double + ")"
	}
	escaped := `"` + strings.Repeat(`\n`, 1<<20) + `"`
	for _, c := range []struct{ name, rule, data, want string }{
		{"text that doubles", double + " === ''", `{"s":` + long + `}`, "builds more than"},
		{"templates", "`" + strings.Repeat("${data.s}", 20) + "` === ''", `{"s":` + long + `}`, "builds more than"},
		{"arrays", "[" + strings.Repeat("data.s, ", 20) + "1] + ''", `{"s":` + long + `}`, "builds more than"},
		{"escapes", strings.Repeat("data.s === '' || ", 5) + "false", `{"s":` + escaped + `}`, "builds more than"},
		{"elements with escapes", strings.Repeat("data.s.includes('') || ", 5) + "false", `{"s":[` + escaped + `]}`, "builds more than"},
		{"case", strings.Repeat("data.s.toUpperCase() === '' || ", 5) + "false", `{"s":` + long + `}`, "builds more than"},
		{"matches", "data.s.match(/a/g).length === 1", `{"s":` + many + `}`, "builds more than"},
		{"backtracking", "data.s.match(/^(a+)+(?=c)b$/)", `{"s":"` + strings.Repeat("a", 60) + `"}`, "takes more than 50ms"},
		{"patterns of data", "data.s.match(data.p)", `{"s":"` + strings.Repeat("a", 60) + `","p":"^(?=(a+)+b)"}`, "takes more than 50ms"},
	} {
		r := compile(t, c.rule, all)
		env := ada(c.data, "")
		if ok, err := r.Eval(env); ok || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v, want %q", c.name, ok, err, c.want)
		}
	}
	for rule, data := range map[string]string{
		"data.s.length === 1048576 && data.s + 'x' !== data.s": `{"s":` + long + `}`,
		"data.s.toUpperCase().startsWith('AAA')":               `{"s":` + long + `}`,
		"data.s.match(/a+$/)":                                  `{"s":` + many + `}`,
		"data.s.match(/^(a+)+b$/) === null":                    `{"s":"` + strings.Repeat("a", 60) + `"}`, // in linear time
		"data" + strings.Repeat("[0]", 400) + " === undefined": strings.Repeat("[", 300) + strings.Repeat("]", 300),
	} {
		env := ada(data, "")
		ok, err := compile(t, rule, all).Eval(env)
		if strings.HasPrefix(rule, "data[") {
			if err == nil {
				t.Errorf("%.40s: got %v", rule, ok)
			}
		} else if !ok || err != nil {
			t.Errorf("%.60s: got %v, %v", rule, ok, err)
		}
	}
	if validJSON(strings.Repeat("[", maxJSONDepth+1) + strings.Repeat("]", maxJSONDepth+1)) {
		t.Error("a document nests deeper than the bound")
	}
}

func TestHitsCountBranchesByWay(t *testing.T) {
	r := compile(t, "user.id === 'ada' && (data.x || data.y) ? data.n ?? 1 : 0", all)
	var texts []string
	for _, b := range r.Branches() {
		texts = append(texts, b.Text)
	}
	want := []string{r.Text(), "user.id === 'ada' && (data.x || data.y)", "data.n ?? 1", "0", "user.id === 'ada'", "data.x || data.y", "data.x", "data.y", "data.n", "1"}
	if !slices.Equal(texts, want) {
		t.Fatalf("got branches\n%q, want\n%q", texts, want)
	}
	hits := make([]atomic.Uint64, 2*len(want))
	run := func(env *Env) {
		env.Hits = hits
		if _, err := r.Eval(env); err != nil {
			t.Fatal(err)
		}
	}
	run(ada(`{"x":1}`, ""))
	run(ada(`{"y":2,"n":0}`, ""))
	bob := ada(`{}`, "")
	bob.User.ID = "bob"
	run(bob)
	var got []uint64
	for i := range hits {
		got = append(got, hits[i].Load())
	}
	if want := []uint64{2, 1, 1, 2, 1, 1, 1, 0, 1, 2, 0, 2, 1, 1, 0, 1, 2, 0, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("got hits %v, want %v", got, want)
	}
	constant := compile(t, "true || false", all)
	hits = make([]atomic.Uint64, 2)
	if ok, err := constant.Eval(&Env{Hits: hits}); !ok || err != nil || hits[1].Load() != 1 || len(constant.Branches()) != 1 {
		t.Errorf("constant: got %v, %v, %d branches", ok, err, len(constant.Branches()))
	}
	short := compile(t, "data.a && data.b", all)
	if _, err := short.Eval(&Env{Data: Unchecked(`{"a":1}`), Hits: make([]atomic.Uint64, 1)}); err != nil {
		t.Error(err)
	}
}

func TestRulesAreSafeForConcurrentUse(t *testing.T) {
	r := compile(t, "user.id === $userid && data.value > oldData.value && name.match(/^users\\/(\\w+)$/)[1] === $userid && _('a').x", all)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			env := ada(`{"value":2}`, `{"value":1}`)
			env.Answer("a", Unchecked(`{"x":1}`))
			for range 200 {
				if ok, err := r.Eval(env); !ok || err != nil {
					t.Errorf("got %v, %v", ok, err)
				}
				if trace := r.Explain(env); !trace.Allowed {
					t.Errorf("got %+v", trace)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzAnyTextIsCompiledOrRefused(f *testing.F) {
	for _, rule := range []string{"user.id === $userid", "data?.a[0] ?? `x${1}`", "'a'.match(/(?<x>a){2,}?[^\\d-]/gi)", "({a:1,[name]:2}) in [,]", "0,(", "x=>", "async (a=(a=1)=>1)=>1", "//# sourceMappingURL=/etc/passwd", "\u2028a", "<!-- x", "a?.`x`"} {
		f.Add(rule, `{"a":[1,"\ud83d"]}`)
	}
	f.Fuzz(func(t *testing.T, rule, data string) {
		r, err := Compile(rule, all)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Reason == "" {
				t.Fatalf("got %#v", err)
			}
			return
		}
		env := ada("", `{"value":1}`)
		env.Data = Unchecked(data)
		allowed, err := r.Eval(env)
		if allowed && err != nil {
			t.Fatalf("allowed in spite of %v", err)
		}
		trace := r.Explain(env)
		if trace.Allowed != allowed || fmt.Sprint(trace.Err) != fmt.Sprint(err) {
			t.Fatalf("Eval = %v, %v, Explain = %v, %v", allowed, err, trace.Allowed, trace.Err)
		}
	})
}
