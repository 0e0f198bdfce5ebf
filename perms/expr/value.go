package expr

import (
	"math"
	"strings"
	"unsafe"
)

// value is a JavaScript value. It is passed around in registers, so it stays small
// and never points at what would have to be allocated for it.
type value struct {
	kind kind
	num  float64    // a number; 0 or 1 of a boolean; which document, of a view
	str  string     // text; the raw JSON of a view
	lit  *composite // of list and object
}

type kind uint8

const (
	kindUndefined kind = iota
	kindNull
	kindBoolean
	kindNumber
	kindString
	kindJSONObject // a view: str is the raw text
	kindJSONArray
	kindList   // an array that the rule made
	kindObject // an object that the rule made
	kindUser   // the variable user
	kindSkip   // inside an optional chain: the rest of it is skipped
	allKinds   // how many there are
)

// composite is what a rule's own arrays and objects hold. It does not change.
type composite struct {
	elements []value
	members  []member // of an object; of a match result its index, input and groups
	bare     bool     // without a prototype: the groups of a match
}

type member struct {
	key   string
	value value
}

var (
	undefined = value{}
	null      = value{kind: kindNull}
	notNumber = number(math.NaN())
)

func boolean(b bool) value {
	if b {
		return value{kind: kindBoolean, num: 1}
	}
	return value{kind: kindBoolean}
}

func number(f float64) value { return value{kind: kindNumber, num: f} }

func text(s string) value { return value{kind: kindString, str: s} }

func (v value) truthy() bool {
	switch v.kind {
	case kindUndefined, kindNull:
		return false
	case kindBoolean:
		return v.num != 0
	case kindNumber:
		return v.num != 0 && !math.IsNaN(v.num)
	case kindString:
		return v.str != ""
	}
	return true
}

// nullish says whether v is undefined or null.
func (v value) nullish() bool { return v.kind <= kindNull }

func (v value) isObject() bool { return v.kind >= kindJSONObject }

func (v value) isArray() bool { return v.kind == kindJSONArray || v.kind == kindList }

// typeOf is JavaScript's typeof.
func (v value) typeOf() string {
	switch v.kind {
	case kindUndefined:
		return "undefined"
	case kindBoolean:
		return "boolean"
	case kindNumber:
		return "number"
	case kindString:
		return "string"
	}
	return "object"
}

// kindsOf are the kinds whose typeof is name, as bits.
func kindsOf(name string) (kinds uint) {
	for k := range allKinds {
		if (value{kind: k}).typeOf() == name {
			kinds |= 1 << k
		}
	}
	return kinds
}

// describe says what v is, for people, without its content.
func (v value) describe() string {
	switch {
	case v.kind == kindNull:
		return "null"
	case v.isArray():
		return "an array"
	case v.isObject():
		return "an object"
	case v.kind == kindUndefined:
		return "undefined"
	}
	return "a " + v.typeOf()
}

// strictEquals is ===.
func strictEquals(a, b value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case kindUndefined, kindNull, kindUser:
		return true
	case kindBoolean, kindNumber:
		return a.num == b.num
	case kindString:
		return a.str == b.str
	case kindJSONObject, kindJSONArray:
		return a.num == b.num && unsafe.StringData(a.str) == unsafe.StringData(b.str)
	}
	return a.lit == b.lit
}

// sameValueZero is what Array.prototype.includes compares with.
func sameValueZero(a, b value) bool {
	if a.kind == kindNumber && b.kind == kindNumber && math.IsNaN(a.num) && math.IsNaN(b.num) {
		return true
	}
	return strictEquals(a, b)
}

// looseEquals is ==.
func (env *Env) looseEquals(a, b value, at spot) (bool, *Failure) {
	if a.isObject() && !b.isObject() && !b.nullish() {
		var failure *Failure
		if a, failure = env.primitive(a, at); failure != nil {
			return false, failure
		}
	} else if b.isObject() && !a.isObject() && !a.nullish() {
		var failure *Failure
		if b, failure = env.primitive(b, at); failure != nil {
			return false, failure
		}
	}
	switch {
	case a.nullish() || b.nullish():
		return a.nullish() && b.nullish(), nil
	case a.kind == b.kind || a.isObject():
		return strictEquals(a, b), nil
	}
	return primitiveNumber(a) == primitiveNumber(b), nil // text, numbers and booleans mixed
}

// primitive is ToPrimitive. There are no methods to be called, so that the hint
// makes no difference: it is the text of an array, and a fixed text of an object,
// unless a member of the object is in the way.
func (env *Env) primitive(v value, at spot) (value, *Failure) {
	if !v.isObject() {
		return v, nil
	}
	b, ok, failure := env.appendText(nil, v, at)
	switch {
	case failure != nil:
		return undefined, failure
	case !ok || !env.spend(len(b)):
		return undefined, at.tooMuch()
	}
	return text(string(b)), nil
}

const objectText = "[object Object]"

// appendText appends ToString of v. It is not ok when there is too much.
func (env *Env) appendText(b []byte, v value, at spot) ([]byte, bool, *Failure) {
	var s string
	switch v.kind {
	case kindUndefined:
		s = "undefined"
	case kindNull:
		s = "null"
	case kindBoolean:
		s = "false"
		if v.num != 0 {
			s = "true"
		}
	case kindNumber:
		return appendNumber(b, v.num), true, nil
	case kindString:
		s = v.str
	case kindUser:
		s = objectText
	case kindJSONObject, kindObject:
		if own, _ := env.own(v, key{text: "toString", index: -1}); own || v.lit != nil && v.lit.bare {
			return b, true, at.fail(thrown, "%s: an object with a member toString has no text", at.text())
		}
		s = objectText
	case kindJSONArray, kindList:
		return env.appendJoined(b, v, at)
	}
	if len(b)+len(s) > maxBuilt {
		return b, false, nil
	}
	return joinText(b, s), true, nil
}

// appendJoined appends the text of an array: its elements, with commas.
func (env *Env) appendJoined(b []byte, v value, at spot) ([]byte, bool, *Failure) {
	first, ok := true, true
	var failure *Failure
	if !env.each(v, func(element value) bool {
		if !first {
			b = append(b, ',')
		}
		first = false
		if !element.nullish() {
			b, ok, failure = env.appendText(b, element, at)
		}
		return ok && failure == nil && len(b) <= maxBuilt
	}) {
		ok = false
	}
	return b, ok && len(b) <= maxBuilt, failure
}

// each calls f with each element of an array until f is false. It is false when
// an element was too long to be built.
func (env *Env) each(v value, f func(value) bool) bool {
	if v.kind == kindList {
		for _, element := range v.lit.elements {
			if !f(element) {
				break
			}
		}
		return true
	}
	for s := scan(v.str); s.next(); {
		element, ok := env.view(s.value(), int(v.num))
		if !ok {
			return false
		}
		if !f(element) {
			break
		}
	}
	return true
}

// asText is ToString.
func (env *Env) asText(v value, at spot) (string, *Failure) {
	switch v.kind {
	case kindString:
		return v.str, nil
	case kindUndefined:
		return "undefined", nil
	case kindNull:
		return "null", nil
	case kindBoolean:
		if v.num != 0 {
			return "true", nil
		}
		return "false", nil
	case kindNumber:
		return formatNumber(v.num), nil
	}
	p, failure := env.primitive(v, at)
	return p.str, failure
}

// asNumber is ToNumber.
func (env *Env) asNumber(v value, at spot) (float64, *Failure) {
	if v.kind == kindNumber {
		return v.num, nil
	}
	p, failure := env.primitive(v, at)
	if failure != nil {
		return 0, failure
	}
	return primitiveNumber(p), nil
}

// primitiveNumber is ToNumber of what is no object.
func primitiveNumber(v value) float64 {
	switch v.kind {
	case kindBoolean, kindNumber:
		return v.num
	case kindNull:
		return 0
	case kindString:
		return parseNumber(v.str)
	}
	return math.NaN()
}

// concat is + of text.
func (env *Env) concat(a, b string, at spot) (value, *Failure) {
	switch {
	case a == "":
		return text(b), nil
	case b == "":
		return text(a), nil
	case !env.spend(len(a) + len(b)):
		return undefined, at.tooMuch()
	}
	if splitPair(a, b) {
		return text(string(joinText([]byte(a), b))), nil
	}
	var s strings.Builder
	s.Grow(len(a) + len(b))
	s.WriteString(a)
	s.WriteString(b)
	return text(s.String()), nil
}
