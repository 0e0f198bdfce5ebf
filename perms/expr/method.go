package expr

import (
	"math"
)

// method is a method of text, or of arrays if they have one of that name. What is
// missing of its two arguments is undefined.
type method func(env *Env, this, a, b value, at spot) (value, *Failure)

// methods are those that a rule may call; match is compiled (match.go).
var methods = map[string]method{
	"startsWith":  startsWith,
	"endsWith":    endsWith,
	"includes":    includes,
	"indexOf":     indexOf,
	"match":       nil,
	"toUpperCase": mapped(upper),
	"toLowerCase": mapped(lower),
	"trim":        mapped(trim),
}

// methodNames are their names, for people.
var methodNames = []string{"startsWith", "endsWith", "includes", "indexOf", "match", "toUpperCase", "toLowerCase", "trim"}

// asInteger is ToIntegerOrInfinity, within what an int holds on all machines.
func (env *Env) asInteger(v value, at spot) (int, *Failure) {
	f, failure := env.asNumber(v, at)
	if failure != nil || math.IsNaN(f) {
		return 0, failure
	}
	return int(max(math.MinInt32, min(math.MaxInt32, math.Trunc(f)))), nil
}

// search reads the text that is looked for, and a position.
func (env *Env) search(a, b value, at spot) (sub string, pos int, failure *Failure) {
	if sub, failure = env.asText(a, at); failure != nil {
		return "", 0, failure
	}
	pos, failure = env.asInteger(b, at)
	return sub, pos, failure
}

func startsWith(env *Env, this, a, b value, at spot) (value, *Failure) {
	sub, pos, failure := env.search(a, b, at)
	return boolean(failure == nil && startsText(this.str, sub, max(0, pos))), failure
}

func endsWith(env *Env, this, a, b value, at spot) (value, *Failure) {
	sub, pos, failure := env.search(a, b, at)
	if b.kind == kindUndefined {
		pos = math.MaxInt32
	}
	return boolean(failure == nil && endsText(this.str, sub, max(0, pos))), failure
}

func includes(env *Env, this, a, b value, at spot) (value, *Failure) {
	if this.isArray() {
		i, failure := env.indexIn(this, a, b, sameValueZero, at)
		return boolean(i >= 0), failure
	}
	sub, pos, failure := env.search(a, b, at)
	return boolean(failure == nil && indexText(this.str, sub, max(0, pos)) >= 0), failure
}

func indexOf(env *Env, this, a, b value, at spot) (value, *Failure) {
	if this.isArray() {
		i, failure := env.indexIn(this, a, b, strictEquals, at)
		return number(float64(i)), failure
	}
	sub, pos, failure := env.search(a, b, at)
	if failure != nil {
		return undefined, failure
	}
	return number(float64(indexText(this.str, sub, max(0, pos)))), nil
}

// indexIn finds an element of an array, from a position on.
func (env *Env) indexIn(array, wanted, position value, equal func(a, b value) bool, at spot) (int, *Failure) {
	n := 0
	if array.kind == kindList {
		n = len(array.lit.elements)
	} else {
		n = count(array.str)
	}
	if n == 0 {
		return -1, nil
	}
	from, failure := env.asInteger(position, at)
	if failure != nil {
		return -1, failure
	}
	if from < 0 {
		from = max(0, n+from)
	}
	i, found := 0, -1
	if !env.each(array, func(element value) bool {
		if i >= from && equal(element, wanted) {
			found = i
		}
		i++
		return found < 0
	}) {
		return -1, at.tooMuch()
	}
	return found, nil
}

// mapped makes a method of a function of text.
func mapped(f func(string) string) method {
	return func(env *Env, this, _, _ value, at spot) (value, *Failure) {
		if !env.spend(len(this.str)) {
			return undefined, at.tooMuch()
		}
		return text(f(this.str)), nil
	}
}
