package expr

import "strings"

// key is the name of a property. index is at least 0 when the text is that of an
// array index; text may then be missing.
type key struct {
	text  string
	index int
}

// keyOf is the key that a text names.
func keyOf(s string) key { return key{text: s, index: arrayIndex(s)} }

// arrayIndex reads a canonical index ("0", "12", not "012"), or returns -1.
// Longer ones than nine digits are beyond every array here.
func arrayIndex(s string) int {
	if s == "" || len(s) > 9 || s[0] == '0' && len(s) > 1 {
		return -1
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// property is ToPropertyKey.
func (env *Env) property(v value, at spot) (key, *Failure) {
	if v.kind == kindNumber && v.num >= 0 && v.num < 1e9 && v.num == float64(int(v.num)) {
		return key{text: formatNumber(v.num), index: int(v.num)}, nil
	}
	s, failure := env.asText(v, at)
	return keyOf(s), failure
}

// get reads a property.
func (env *Env) get(v value, k key, at spot) (value, *Failure) {
	switch v.kind {
	case kindUndefined, kindNull:
		return undefined, at.fail(thrown, "%s: cannot read a member of %s", at.text(), v.describe())
	case kindSkip:
		return v, nil
	case kindJSONObject: // most often
		if raw, ok := env.find(v, k.text); ok {
			if v, ok = env.view(raw, int(v.num)); !ok {
				return undefined, at.tooMuch()
			}
			return v, nil
		}
	case kindUser:
		switch k.text {
		case "id":
			return text(env.User.ID), nil
		case "isAuthenticated":
			return boolean(env.User.Authenticated), nil
		case "data":
			if env.User.Data.state == docUndefined {
				return null, nil
			}
			return env.document(&env.User.Data, inUser, at)
		}
	default:
		if ok, v := env.own(v, k); ok {
			if v.kind == kindSkip {
				return undefined, at.tooMuch()
			}
			return v, nil
		}
	}
	if inherits(v, k.text) {
		return undefined, at.fail(inherited, "%s: %s is no member of its own; rules read data only", at.text(), k.text)
	}
	return undefined, nil
}

// own looks for a property that v has itself. What is too long to be built is
// found as kindSkip.
func (env *Env) own(v value, k key) (bool, value) {
	switch v.kind {
	case kindJSONObject:
		_, ok := env.find(v, k.text)
		return ok, undefined
	case kindJSONArray:
		if k.index >= 0 {
			raw, ok := element(v.str, k.index)
			if !ok {
				return false, undefined
			}
			if v, ok = env.view(raw, int(v.num)); !ok {
				v.kind = kindSkip
			}
			return true, v
		}
		if k.text == "length" {
			return true, number(float64(count(v.str)))
		}
	case kindList:
		if k.index >= 0 {
			if k.index < len(v.lit.elements) {
				return true, v.lit.elements[k.index]
			}
			return false, undefined
		}
		if k.text == "length" {
			return true, number(float64(len(v.lit.elements)))
		}
		return v.lit.member(k.text)
	case kindObject:
		return v.lit.member(k.text)
	case kindString:
		if k.index >= 0 {
			unit, ok := unitAt(v.str, k.index)
			return ok, text(unit)
		}
		if k.text == "length" {
			return true, number(float64(length(v.str)))
		}
	case kindUser:
		return k.text == "id" || k.text == "isAuthenticated" || k.text == "data", undefined
	}
	return false, undefined
}

func (c *composite) member(name string) (bool, value) {
	for _, m := range c.members {
		if m.key == name {
			return true, m.value
		}
	}
	return false, undefined
}

// What JavaScript's prototypes have: names that a value there has without having
// them. A rule that reads one would work with a function, so it fails instead.
var (
	ofObjects = names(`constructor __proto__ toString toLocaleString valueOf hasOwnProperty isPrototypeOf
		propertyIsEnumerable __defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__`)
	ofStrings = names(`anchor at big blink bold charAt charCodeAt codePointAt concat endsWith fixed fontcolor fontsize
		includes indexOf isWellFormed italics lastIndexOf link localeCompare match matchAll normalize padEnd padStart
		repeat replace replaceAll search slice small split startsWith strike sub substr substring sup
		toLocaleLowerCase toLocaleUpperCase toLowerCase toUpperCase toWellFormed trim trimEnd trimLeft trimRight trimStart`)
	ofArrays = names(`at concat copyWithin entries every fill filter find findIndex findLast findLastIndex flat flatMap
		forEach includes indexOf join keys lastIndexOf map pop push reduce reduceRight reverse shift slice some sort
		splice toReversed toSorted toSpliced unshift values with`)
	ofNumbers = names(`toExponential toFixed toPrecision`)
)

func names(list string) map[string]bool {
	m := map[string]bool{}
	for _, name := range strings.Fields(list) {
		m[name] = true
	}
	return m
}

func inherits(v value, name string) bool {
	switch {
	case v.kind == kindObject && v.lit.bare:
		return false
	case v.kind == kindString && ofStrings[name], v.isArray() && ofArrays[name], v.kind == kindNumber && ofNumbers[name]:
		return true
	}
	return ofObjects[name]
}

// has is the operator in.
func (env *Env) has(v value, k key, at spot) (bool, *Failure) {
	if !v.isObject() {
		return false, at.fail(thrown, "%s: in looks into an object or array, this is %s", at.text(), v.describe())
	}
	if ok, _ := env.own(v, k); ok {
		return true, nil
	}
	if inherits(v, k.text) {
		return false, at.fail(inherited, "%s: JavaScript finds the name %s in everything; rules read data only", at.text(), k.text)
	}
	return false, nil
}
