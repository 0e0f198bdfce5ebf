package expr

import (
	"strings"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/token"
)

// outer is where a part stands with the parentheses around it, which the tree
// does not have.
func (c *compiler) outer(n node) (from, to int) {
	from, to = n.from, n.to
	for {
		left := len(strings.TrimRight(c.text[:from], " \t\r\n"))
		right := len(c.text) - len(strings.TrimLeft(c.text[to:], " \t\r\n"))
		if left == 0 || right == len(c.text) || c.text[left-1] != '(' || c.text[right] != ')' {
			return from, to
		}
		from, to = left-1, right+1
	}
}

func (c *compiler) unary(e *ast.UnaryExpression, truth bool) (node, error) {
	switch e.Operator {
	case token.NOT, token.MINUS, token.PLUS, token.TYPEOF:
	case token.INCREMENT, token.DECREMENT:
		return node{}, c.refuse(c.at(e.Idx0()), "a rule cannot change a value: write + 1 or - 1")
	case token.BITWISE_NOT:
		return node{}, c.refuse(c.at(e.Idx), "~ works on bits, which rules do not: did you mean !?")
	default:
		return node{}, c.refuse(c.at(e.Idx), "there is no %s in a rule", e.Operator)
	}
	operand, err := c.expression(e.Operand, e.Operator == token.NOT)
	if err != nil {
		return node{}, err
	}
	n := node{from: c.at(e.Idx), constant: operand.constant, branchy: operand.branchy}
	_, n.to = c.outer(operand)
	at, run := c.spot(n), operand.run
	switch e.Operator {
	case token.NOT:
		n.run = func(env *Env) (value, *Failure) {
			v, failure := run(env)
			return boolean(!v.truthy()), failure
		}
	case token.TYPEOF:
		n.typeOf = run
		n.run = func(env *Env) (value, *Failure) {
			v, failure := run(env)
			return text(v.typeOf()), failure
		}
	default:
		sign := 1.0
		if e.Operator == token.MINUS {
			sign = -1
		}
		n.run = func(env *Env) (value, *Failure) {
			v, failure := run(env)
			if failure != nil {
				return undefined, failure
			}
			f, failure := env.asNumber(v, at)
			return number(sign * f), failure
		}
	}
	return n, nil
}

// pair compiles both operands.
func (c *compiler) pair(left, right ast.Expression, truth bool) (n, l, r node, err error) {
	if l, err = c.expression(left, truth); err != nil {
		return
	}
	if r, err = c.expression(right, truth); err != nil {
		return
	}
	n = node{constant: true}
	n.take(l)
	n.take(r)
	n.from, _ = c.outer(l)
	_, n.to = c.outer(r)
	return
}

func (c *compiler) binary(e *ast.BinaryExpression, truth bool) (node, error) {
	switch e.Operator {
	case token.LOGICAL_AND, token.LOGICAL_OR, token.COALESCE:
		return c.logical(e, truth)
	}
	op, ok := operators[e.Operator]
	if !ok {
		return node{}, c.noOperator(e)
	}
	if relational(e.Operator) {
		// The parser groups a < b < c to the right, against JavaScript, and does
		// not tell parentheses. Neither means what it looks like.
		if right, ok := e.Right.(*ast.BinaryExpression); ok && relational(right.Operator) {
			return node{}, c.refuse(c.at(right.Idx0()), "two comparisons in a row compare true or false with a value: join them with &&")
		}
	}
	n, l, r, err := c.pair(e.Left, e.Right, false)
	if err != nil {
		return node{}, err
	}
	at, left, right := c.spot(n), l.run, r.run
	strict, equal := e.Operator == token.STRICT_EQUAL || e.Operator == token.STRICT_NOT_EQUAL, e.Operator == token.STRICT_EQUAL
	switch {
	case strict && l.text != nil && r.text != nil: // the rules that are evaluated most
		a, b := l.text, r.text
		n.run = func(env *Env) (value, *Failure) { return boolean((a(env) == b(env)) == equal), nil }
	case strict && l.typeOf != nil && r.known && r.result.kind == kindString && c.tracing == nil:
		of, kinds := l.typeOf, kindsOf(r.result.str)
		n.run = func(env *Env) (value, *Failure) {
			v, failure := of(env)
			return boolean((kinds>>v.kind&1 == 1) == equal), failure
		}
	case strict && r.known:
		with := r.result
		n.run = func(env *Env) (value, *Failure) {
			v, failure := left(env)
			return boolean(strictEquals(v, with) == equal), failure
		}
	case bounds[e.Operator] != nil && r.known && r.result.kind == kindNumber:
		holds, with := bounds[e.Operator], r.result
		n.run = func(env *Env) (value, *Failure) {
			v, failure := left(env)
			switch {
			case failure != nil:
				return undefined, failure
			case v.kind == kindNumber:
				return boolean(holds(v.num, with.num)), nil
			}
			return op(env, v, with, at)
		}
	default:
		n.run = func(env *Env) (value, *Failure) {
			a, failure := left(env)
			if failure != nil {
				return undefined, failure
			}
			b, failure := right(env)
			if failure != nil {
				return undefined, failure
			}
			return op(env, a, b, at)
		}
	}
	return n, nil
}

func relational(t token.Token) bool {
	switch t {
	case token.LESS, token.GREATER, token.LESS_OR_EQUAL, token.GREATER_OR_EQUAL, token.IN, token.INSTANCEOF:
		return true
	}
	return false
}

// noOperator refuses an operator.
func (c *compiler) noOperator(e *ast.BinaryExpression) error {
	at := c.at(e.Left.Idx1())
	switch e.Operator {
	case token.AND:
		return c.refuse(at, "& works on bits, which rules do not: did you mean &&?")
	case token.OR:
		return c.refuse(at, "| works on bits, which rules do not: did you mean ||?")
	case token.EXCLUSIVE_OR:
		return c.refuse(at, "^ works on bits, which rules do not: a power is **, and either … or is !==")
	case token.SHIFT_LEFT, token.SHIFT_RIGHT, token.UNSIGNED_SHIFT_RIGHT:
		return c.refuse(at, "%s works on bits, which rules do not: did you mean a comparison?", e.Operator)
	case token.INSTANCEOF:
		return c.refuse(at, "a rule has no instanceof: compare typeof x with a name in quotes")
	}
	return c.refuse(at, "there is no %s in a rule", e.Operator)
}

// logical compiles && || and ??.
func (c *compiler) logical(e *ast.BinaryExpression, truth bool) (node, error) {
	// What decides about going on is truthiness, but for ??, where it is the value.
	lead := truth && e.Operator != token.COALESCE
	first := len(c.branches)
	c.branches = append(c.branches, Branch{}, Branch{}) // in the order of the text, outer ones first
	l, err := c.expression(e.Left, lead)
	if err != nil {
		return node{}, err
	}
	r, err := c.expression(e.Right, truth)
	if err != nil {
		return node{}, err
	}
	n := node{constant: l.constant && r.constant, branchy: true}
	n.from, _ = c.outer(l)
	_, n.to = c.outer(r)
	c.place(first, l)
	c.place(first+1, r)
	left, right := l.run, r.run
	and, or := e.Operator == token.LOGICAL_AND, e.Operator == token.LOGICAL_OR
	n.run = func(env *Env) (value, *Failure) {
		v, failure := left(env)
		if failure != nil {
			return undefined, failure
		}
		env.count(first, v)
		goOn := v.nullish()
		if and || or {
			goOn = v.truthy() == and
		}
		if !goOn {
			return v, nil
		}
		if v, failure = right(env); failure != nil {
			return undefined, failure
		}
		env.count(first+1, v)
		return v, nil
	}
	return n, nil
}

// place fills in a branch.
func (c *compiler) place(i int, n node) {
	c.branches[i] = c.branchAt(n.from, n.to)
}

func (c *compiler) conditional(e *ast.ConditionalExpression, truth bool) (node, error) {
	first := len(c.branches)
	c.branches = append(c.branches, Branch{}, Branch{}, Branch{})
	var parts [3]node
	n := node{constant: true, branchy: true}
	for i, part := range []ast.Expression{e.Test, e.Consequent, e.Alternate} {
		p, err := c.expression(part, truth || i == 0)
		if err != nil {
			return node{}, err
		}
		n.constant = n.constant && p.constant
		c.place(first+i, p)
		parts[i] = p
	}
	n.from, _ = c.outer(parts[0])
	_, n.to = c.outer(parts[2])
	test, yes, no := parts[0].run, parts[1].run, parts[2].run
	n.run = func(env *Env) (value, *Failure) {
		v, failure := test(env)
		if failure != nil {
			return undefined, failure
		}
		env.count(first, v)
		next, branch := yes, first+1
		if !v.truthy() {
			next, branch = no, first+2
		}
		if v, failure = next(env); failure != nil {
			return undefined, failure
		}
		env.count(branch, v)
		return v, nil
	}
	return n, nil
}
