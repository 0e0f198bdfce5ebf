package expr

import (
	"math"

	"github.com/dop251/goja/token"
)

// operator works on two values.
type operator func(env *Env, a, b value, at spot) (value, *Failure)

// operators are those that evaluate both of their operands.
var operators = map[token.Token]operator{
	token.STRICT_EQUAL: func(_ *Env, a, b value, _ spot) (value, *Failure) {
		return boolean(strictEquals(a, b)), nil
	},
	token.STRICT_NOT_EQUAL: func(_ *Env, a, b value, _ spot) (value, *Failure) {
		return boolean(!strictEquals(a, b)), nil
	},
	token.EQUAL: func(env *Env, a, b value, at spot) (value, *Failure) {
		equal, failure := env.looseEquals(a, b, at)
		return boolean(equal), failure
	},
	token.NOT_EQUAL: func(env *Env, a, b value, at spot) (value, *Failure) {
		equal, failure := env.looseEquals(a, b, at)
		return boolean(!equal), failure
	},
	token.LESS:             compare(func(o order) bool { return o == before }),
	token.GREATER:          compare(func(o order) bool { return o == after }),
	token.LESS_OR_EQUAL:    compare(func(o order) bool { return o == before || o == same }),
	token.GREATER_OR_EQUAL: compare(func(o order) bool { return o == after || o == same }),
	token.PLUS:             plus,
	token.MINUS:            arithmetic(func(a, b float64) float64 { return a - b }),
	token.MULTIPLY:         arithmetic(func(a, b float64) float64 { return a * b }),
	token.SLASH:            arithmetic(func(a, b float64) float64 { return a / b }),
	token.REMAINDER:        arithmetic(math.Mod),
	token.EXPONENT:         arithmetic(power),
	token.IN: func(env *Env, a, b value, at spot) (value, *Failure) {
		k, failure := env.property(a, at)
		if failure != nil {
			return undefined, failure
		}
		found, failure := env.has(b, k, at)
		return boolean(found), failure
	},
}

// bounds are the operators that compare, for two numbers. A rule holds most values against a
// number that it names.
var bounds = map[token.Token]func(a, b float64) bool{
	token.LESS:             func(a, b float64) bool { return a < b },
	token.GREATER:          func(a, b float64) bool { return a > b },
	token.LESS_OR_EQUAL:    func(a, b float64) bool { return a <= b },
	token.GREATER_OR_EQUAL: func(a, b float64) bool { return a >= b },
}

func arithmetic(f func(a, b float64) float64) operator {
	return func(env *Env, a, b value, at spot) (value, *Failure) {
		x, failure := env.asNumber(a, at)
		if failure != nil {
			return undefined, failure
		}
		y, failure := env.asNumber(b, at)
		return number(f(x, y)), failure
	}
}

// plus adds numbers, and puts text together when one of the operands is text.
func plus(env *Env, a, b value, at spot) (value, *Failure) {
	a, failure := env.primitive(a, at)
	if failure != nil {
		return undefined, failure
	}
	if b, failure = env.primitive(b, at); failure != nil {
		return undefined, failure
	}
	if a.kind != kindString && b.kind != kindString {
		return number(primitiveNumber(a) + primitiveNumber(b)), nil
	}
	x, failure := env.asText(a, at)
	if failure != nil {
		return undefined, failure
	}
	y, failure := env.asText(b, at)
	if failure != nil {
		return undefined, failure
	}
	return env.concat(x, y, at)
}

// order is how two values compare. NaN has none.
type order uint8

const (
	unordered order = iota
	before
	same
	after
)

// compare orders two texts by their units, and everything else as numbers.
func compare(holds func(order) bool) operator {
	return func(env *Env, a, b value, at spot) (value, *Failure) {
		if a.kind != kindNumber || b.kind != kindNumber {
			var failure *Failure
			if a, failure = env.primitive(a, at); failure != nil {
				return undefined, failure
			}
			if b, failure = env.primitive(b, at); failure != nil {
				return undefined, failure
			}
			if a.kind == kindString && b.kind == kindString {
				return boolean(holds(sign(compareText(a.str, b.str)))), nil
			}
		}
		x, y := primitiveNumber(a), primitiveNumber(b)
		switch {
		case x < y:
			return boolean(holds(before)), nil
		case x > y:
			return boolean(holds(after)), nil
		case x == y:
			return boolean(holds(same)), nil
		}
		return boolean(holds(unordered)), nil
	}
}

func sign(n int) order {
	switch {
	case n < 0:
		return before
	case n > 0:
		return after
	}
	return same
}
