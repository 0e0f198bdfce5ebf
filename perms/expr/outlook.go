package expr

import (
	"slices"
	"strings"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/token"
)

// Outlook is what a rule says to a user as far as that follows from the user alone.
type Outlook uint8

// The outlooks.
const (
	// Sometimes: it depends on what is asked for, sent or stored, on the time, or on who
	// exactly the user is.
	Sometimes Outlook = iota
	// Never: the rule denies, or fails, whatever else is so.
	Never
	// Always: the rule allows, whatever else is so.
	Always
)

// Outlook says what the rule says to a user of that data, of whatever id if anyID, without
// knowing the rest. Never and Always are certain; Sometimes is also said of what only a
// closer look at values would tell. scope is the one that the rule was compiled with.
func (r *Rule) Outlook(user User, anyID bool, scope Scope) Outlook {
	tree, err := parse(r.text)
	if err != nil {
		panic("expr: a compiled rule does not parse: " + err.Error())
	}
	l := looker{text: r.text, scope: scope, user: user, anyID: anyID}
	switch l.look(tree) {
	case isTrue:
		return Always
	case isFalse, isFailure, isRefusal:
		return Never
	}
	return Sometimes
}

// sight is what is known of a part.
type sight uint8

const (
	unseen    sight = iota
	isTrue          // truthy
	isFalse         // falsy
	isFailure       // fails
	isRefusal       // one of the two
)

func (s sight) refuses() bool { return s == isFalse || s == isFailure || s == isRefusal }

// looker is one Outlook.
type looker struct {
	text  string
	scope Scope
	user  User
	anyID bool
}

// look follows what decides about going on. A part that is unseen may fail, and then what
// stands behind it does not help; so nothing behind one is certain but a refusal.
func (l *looker) look(e ast.Expression) sight {
	switch e := bare(e).(type) {
	case *ast.UnaryExpression:
		if e.Operator == token.NOT {
			switch s := l.look(e.Operand); s {
			case isTrue:
				return isFalse
			case isFalse:
				return isTrue
			case isFailure:
				return isFailure
			}
			return unseen
		}
	case *ast.BinaryExpression:
		switch e.Operator {
		case token.LOGICAL_AND:
			return l.and(l.look(e.Left), e.Right)
		case token.LOGICAL_OR:
			return l.or(l.look(e.Left), e.Right)
		}
	case *ast.ConditionalExpression:
		return l.choose(l.look(e.Test), e.Consequent, e.Alternate)
	}
	return l.leaf(e)
}

func (l *looker) and(left sight, right ast.Expression) sight {
	switch {
	case left.refuses():
		return left
	case left == isTrue:
		return l.look(right)
	case l.look(right).refuses():
		return isRefusal
	}
	return unseen
}

func (l *looker) or(left sight, right ast.Expression) sight {
	switch {
	case left == isTrue, left == isFailure:
		return left
	case left == isFalse:
		return l.look(right)
	case left == isRefusal && l.look(right).refuses():
		return isRefusal
	}
	return unseen
}

func (l *looker) choose(test sight, yes, no ast.Expression) sight {
	switch test {
	case isTrue:
		return l.look(yes)
	case isFalse:
		return l.look(no)
	case isFailure:
		return isFailure
	case isRefusal: // false, or no answer
		if l.look(no).refuses() {
			return isRefusal
		}
		return unseen
	}
	if l.look(yes).refuses() && l.look(no).refuses() {
		return isRefusal
	}
	return unseen
}

// leaf evaluates a part that reads nothing but what is known of the user.
func (l *looker) leaf(e ast.Expression) sight {
	c := newCompiler(l.text, l.scope)
	n, err := c.expression(e, true)
	if err != nil {
		panic("expr: a part of a compiled rule does not compile: " + err.Error())
	}
	if c.uses.references {
		return unseen
	}
	for path := range c.reads {
		if !l.known(path) {
			return unseen
		}
	}
	env := &Env{User: l.user}
	env.begin()
	v, failure := n.run(env)
	switch {
	case failure != nil:
		return isFailure
	case v.truthy():
		return isTrue
	}
	return isFalse
}

// known says whether what stands at a path is known.
func (l *looker) known(path string) bool {
	name, rest, _ := strings.Cut(path, ".")
	if name != "user" {
		return false
	}
	member, _, _ := strings.Cut(rest, ".")
	member, _, _ = strings.Cut(member, "[")
	switch member {
	case "data", "isAuthenticated":
		return true
	}
	return member == "id" && !l.anyID
}

// Compared are the texts that a rule compares what stands at a path with, by === or ==, or
// by includes of a list, in the order of the rule, each once. path is such as
// user.data.role. The error is that of Compile.
func Compared(text string, scope Scope, path string) ([]string, error) {
	if _, err := Compile(text, scope); err != nil {
		return nil, err
	}
	tree, err := parse(text)
	if err != nil {
		return nil, err
	}
	var found []string
	note := func(e ast.Expression) {
		if s, ok := bare(e).(*ast.StringLiteral); ok && !slices.Contains(found, fromUnistring(s.Value)) {
			found = append(found, fromUnistring(s.Value))
		}
	}
	var walk func(ast.Expression)
	walk = func(e ast.Expression) {
		if b, ok := bare(e).(*ast.BinaryExpression); ok {
			switch b.Operator {
			case token.EQUAL, token.STRICT_EQUAL, token.NOT_EQUAL, token.STRICT_NOT_EQUAL:
				switch path {
				case canon(b.Left):
					note(b.Right)
				case canon(b.Right):
					note(b.Left)
				}
			}
		}
		if of, method, args, ok := callOf(e); ok && method == "includes" && len(args) > 0 && canon(args[0]) == path {
			if list, ok := bare(of).(*ast.ArrayLiteral); ok {
				for _, item := range list.Value {
					note(item)
				}
			}
		}
		for _, part := range parts(e) {
			walk(part)
		}
	}
	walk(tree)
	return found, nil
}
