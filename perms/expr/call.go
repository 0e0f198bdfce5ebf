package expr

import (
	"fmt"
	"strings"

	"github.com/dop251/goja/ast"
)

// noPrototype refuses the names through which JavaScript's prototypes are reached.
func noPrototype(name string) string {
	return fmt.Sprintf("%s belongs to JavaScript's prototypes, not to data: if the data has such a member, write ['%s']", name, name)
}

func (c *compiler) dot(e *ast.DotExpression) (node, error) {
	name := fromUnistring(e.Identifier.Name)
	switch name {
	case "__proto__", "constructor", "prototype":
		return node{}, c.refuse(c.at(e.Identifier.Idx), "%s", noPrototype(name))
	}
	return c.member(e.Left, name, min(c.at(e.Identifier.Idx)+len(name), len(c.text)))
}

func (c *compiler) bracket(e *ast.BracketExpression) (node, error) {
	to := min(c.at(e.RightBracket)+1, len(c.text))
	if s, ok := e.Member.(*ast.StringLiteral); ok {
		return c.member(e.Left, fromUnistring(s.Value), to)
	}
	object, optional, err := c.receiver(e.Left)
	if err != nil {
		return node{}, err
	}
	index, err := c.expression(e.Member, false)
	if err != nil {
		return node{}, err
	}
	n := node{to: to, constant: object.constant && index.constant, branchy: object.branchy || index.branchy}
	n.from, _ = c.outer(object)
	at, run, computed := c.spot(n), object.run, index.run
	n.run = func(env *Env) (value, *Failure) {
		v, failure := run(env)
		if failure != nil {
			return undefined, failure
		}
		if v.kind == kindSkip || optional && v.nullish() {
			return value{kind: kindSkip}, nil
		}
		i, failure := computed(env)
		if failure != nil {
			return undefined, failure
		}
		if v.nullish() {
			return env.get(v, key{}, at) // which fails
		}
		k, failure := env.property(i, at)
		if failure != nil {
			return undefined, failure
		}
		return env.get(v, k, at)
	}
	return n, nil
}

// receiver compiles what a member is read of, and says whether with ?.
func (c *compiler) receiver(e ast.Expression) (n node, optional bool, err error) {
	if o, ok := e.(*ast.Optional); ok {
		e, optional = o.Expression, true
	}
	n, err = c.expression(e, false)
	return n, optional, err
}

// member reads a member whose name is known.
func (c *compiler) member(left ast.Expression, name string, to int) (node, error) {
	object, optional, err := c.receiver(left)
	if err != nil {
		return node{}, err
	}
	n := node{to: to, constant: object.constant, branchy: object.branchy}
	n.from, _ = c.outer(object)
	if object.path != "" {
		n.path = object.path + "." + name
		if strings.ContainsAny(name, ".'[] ") || name == "" {
			n.path = object.path + "['" + name + "']"
		}
		c.read(n.path, object.path)
	}
	at, run, k := c.spot(n), object.run, keyOf(name)
	switch {
	case n.path == "user.id" && c.tracing == nil: // a trace wants a value of user, too
		n.text = func(env *Env) string { return env.User.ID }
		n.run = func(env *Env) (value, *Failure) { return text(env.User.ID), nil }
	case optional:
		n.run = func(env *Env) (value, *Failure) {
			v, failure := run(env)
			if failure != nil {
				return undefined, failure
			}
			if v.nullish() {
				return value{kind: kindSkip}, nil
			}
			return env.get(v, k, at)
		}
	case name == "length": // mostly of text
		n.run = func(env *Env) (value, *Failure) {
			v, failure := run(env)
			switch {
			case failure != nil:
				return undefined, failure
			case v.kind == kindString:
				return number(float64(length(v.str))), nil
			}
			return env.get(v, k, at)
		}
	default:
		n.run = func(env *Env) (value, *Failure) {
			v, failure := run(env)
			if failure != nil {
				return undefined, failure
			}
			return env.get(v, k, at)
		}
	}
	return n, nil
}

// chain compiles an expression with ?. in it, which ends where one finds nothing.
func (c *compiler) chain(e *ast.OptionalChain, truth bool) (node, error) {
	n, err := c.expression(e.Expression, truth)
	if err != nil {
		return node{}, err
	}
	run := n.run
	n.known, n.text = false, nil
	n.run = func(env *Env) (value, *Failure) {
		v, failure := run(env)
		if v.kind == kindSkip {
			return undefined, failure
		}
		return v, failure
	}
	return n, nil
}

// call compiles _() and the methods.
func (c *compiler) call(e *ast.CallExpression, truth bool) (node, error) {
	n := node{to: min(c.at(e.RightParenthesis)+1, len(c.text)), constant: true}
	var left ast.Expression
	var name string
	var nameAt int
	switch callee := e.Callee.(type) {
	case *ast.Identifier:
		if callee.Name != "_" {
			return node{}, c.noCall(c.at(callee.Idx), fromUnistring(callee.Name))
		}
		n.from = c.at(callee.Idx)
		return c.reference(n, e.ArgumentList)
	case *ast.DotExpression:
		left, name, nameAt = callee.Left, fromUnistring(callee.Identifier.Name), c.at(callee.Identifier.Idx)
	case *ast.BracketExpression:
		s, ok := callee.Member.(*ast.StringLiteral)
		if !ok {
			return node{}, c.refuse(c.at(callee.LeftBracket), "a rule calls methods by their names: write .%s()", strings.Join(methodNames, "(), ."))
		}
		left, name, nameAt = callee.Left, fromUnistring(s.Value), c.at(s.Idx)
	default:
		return node{}, c.refuse(c.at(e.Callee.Idx0()), "this cannot be called: a rule calls _() and .%s()", strings.Join(methodNames, "(), ."))
	}
	m, ok := methods[name]
	object, optional, err := c.receiver(left)
	if err != nil {
		return node{}, err
	}
	if !ok {
		return node{}, c.noCall(nameAt, name)
	}
	n.from, _ = c.outer(object)
	n.take(object)
	if name == "match" {
		if m, err = c.match(e, truth); err != nil {
			return node{}, err
		}
		if len(e.ArgumentList) > 0 {
			if _, ok := e.ArgumentList[0].(*ast.RegExpLiteral); ok {
				e = &ast.CallExpression{ArgumentList: e.ArgumentList[1:]}
			}
		}
	}
	args, err := c.list(&n, e.ArgumentList)
	if err != nil {
		return node{}, err
	}
	at, run := c.spot(n), object.run
	n.run = func(env *Env) (value, *Failure) {
		this, failure := run(env)
		switch {
		case failure != nil:
			return undefined, failure
		case this.kind == kindSkip || optional && this.nullish():
			return value{kind: kindSkip}, nil
		case this.nullish():
			return undefined, at.fail(thrown, "%s: cannot call %s of %s", at.text(), name, this.describe())
		}
		var given [2]value
		for i, arg := range args {
			v, failure := arg(env)
			if failure != nil {
				return undefined, failure
			}
			if i < len(given) {
				given[i] = v
			}
		}
		if this.kind != kindString && (!this.isArray() || !ofArrays[name]) {
			return undefined, at.fail(thrown, "%s: %s has no method %s", at.text(), this.describe(), name)
		}
		return m(env, this, given[0], given[1], at)
	}
	return n, nil
}

// noCall refuses a call of anything else.
func (c *compiler) noCall(offset int, name string) error {
	if best := closest(name, append([]string{"_"}, methodNames...)); best != "" {
		return c.refuse(offset, "a rule cannot call %s: did you mean %s?", name, best)
	}
	return c.refuse(offset, "a rule cannot call %s: it can call _() and .%s()", name, strings.Join(methodNames, "(), ."))
}

// reference compiles _().
func (c *compiler) reference(n node, arguments []ast.Expression) (node, error) {
	args, err := c.list(&n, arguments)
	if err != nil {
		return node{}, err
	}
	n.constant = false
	c.uses.references = true
	at := c.spot(n)
	n.run = func(env *Env) (value, *Failure) {
		var name value
		for i, arg := range args {
			v, failure := arg(env)
			if failure != nil {
				return undefined, failure
			}
			if i == 0 {
				name = v
			}
		}
		switch {
		case name.kind == kindUndefined, name.kind == kindString && strings.Contains(name.str, "undefined"):
			return undefined, nil // made of what is not loaded yet, or does not exist
		case name.kind != kindString:
			return undefined, at.fail(badReference, "%s: the name of a record is text, this is %s", at.text(), name.describe())
		case firstBad(name.str) >= 0:
			return undefined, at.fail(badReference, "%s: half a surrogate pair cannot be part of a name", at.text())
		}
		d, number := env.lookup(name.str)
		if d == nil {
			return undefined, nil
		}
		return env.document(d, number, at)
	}
	return n, nil
}
