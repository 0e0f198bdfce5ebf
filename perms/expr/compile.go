package expr

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/file"
	"github.com/dop251/goja/unistring"
)

// eval is a compiled expression.
type eval func(*Env) (value, *Failure)

// node is a compiled part of a rule.
type node struct {
	run      eval
	from, to int    // where it stands in the text
	constant bool   // it depends on nothing
	branchy  bool   // it counts branches, so it is run every time
	known    bool   // it was run already, with the result
	result   value  // of a known one
	path     string // what it reads, as data.address.city
	// text is set where the result is always text that is at hand.
	text func(*Env) string
	// typeOf is the operand of a typeof.
	typeOf eval
}

// compiler turns the tree of one rule into closures.
type compiler struct {
	text     string
	source   *string // the text, for the spots; without the compiler behind it
	scope    Scope
	uses     uses
	reads    map[string]int
	branches []Branch
	nodes    int
	depth    int
	tracing  *tracing // nil when the rule is compiled to decide
}

func newCompiler(text string, scope Scope) *compiler {
	c := &compiler{text: text, source: &text, scope: scope, reads: map[string]int{}}
	c.branch(0, len(text))
	return c
}

// What is refused in several places.
const (
	noFunctions  = "a rule cannot define functions: write the condition itself"
	noAssignment = "a rule cannot assign: compare with ==="
	noComma      = "a rule is one expression, without commas: join conditions with && or ||"
	noSpread     = "a rule has no spread: name the elements"
)

// refuse is the error at an offset of the text.
func (c *compiler) refuse(offset int, format string, args ...any) error {
	line, column := place(c.text, offset)
	return &Error{Line: line, Column: column, Reason: fmt.Sprintf(format, args...)}
}

// at is the offset of a position of the parser.
func (c *compiler) at(i file.Idx) int {
	return min(max(int(i)-1-len(lead), 0), len(c.text))
}

func (c *compiler) spot(n node) spot { return spot{c.source, n.from, n.to} }

// branch registers a branch and returns its number.
func (c *compiler) branch(from, to int) int {
	c.branches = append(c.branches, c.branchAt(from, to))
	return len(c.branches) - 1
}

func (c *compiler) branchAt(from, to int) Branch {
	line, column := place(c.text, from)
	return Branch{
		Text: spot{c.source, from, to}.text(), Line: line, Column: column,
		Length: utf8.RuneCountInString(c.text[from:to]),
	}
}

// expression compiles any expression. With truth, only whether the result is
// truthy counts.
func (c *compiler) expression(e ast.Expression, truth bool) (node, error) {
	c.nodes++
	c.depth++
	defer func() { c.depth-- }()
	switch {
	case c.nodes > maxNodes:
		return node{}, c.refuse(c.at(e.Idx0()), "the rule has more than %d parts: keep lists in a record, and refer to it with _()", maxNodes)
	case c.depth > maxDepth:
		return node{}, c.refuse(c.at(e.Idx0()), "the rule nests deeper than %d: write it flatter, such as ['a', 'b'].includes(x)", maxDepth)
	}
	step := c.tracing.open(e)
	n, err := c.dispatch(e, truth)
	if err != nil {
		return node{}, err
	}
	if c.tracing != nil {
		c.tracing.close(step, &n)
		return n, nil
	}
	if n.constant && !n.branchy && !n.known {
		if v, failure := n.run(&Env{}); failure == nil {
			n.result, n.known = v, true
			n.run = func(*Env) (value, *Failure) { return v, nil }
		}
	}
	return n, nil
}

func (c *compiler) dispatch(e ast.Expression, truth bool) (node, error) {
	switch e := e.(type) {
	case *ast.BooleanLiteral:
		return c.literal(e.Idx, len(e.Literal), boolean(e.Value)), nil
	case *ast.NullLiteral:
		return c.literal(e.Idx, len(e.Literal), null), nil
	case *ast.StringLiteral:
		return c.literal(e.Idx, len(e.Literal), text(fromUnistring(e.Value))), nil
	case *ast.NumberLiteral:
		return c.number(e)
	case *ast.Identifier:
		return c.identifier(e)
	case *ast.TemplateLiteral:
		return c.template(e)
	case *ast.ArrayLiteral:
		return c.array(e)
	case *ast.ObjectLiteral:
		return c.object(e)
	case *ast.UnaryExpression:
		return c.unary(e, truth)
	case *ast.BinaryExpression:
		return c.binary(e, truth)
	case *ast.ConditionalExpression:
		return c.conditional(e, truth)
	case *ast.DotExpression:
		return c.dot(e)
	case *ast.BracketExpression:
		return c.bracket(e)
	case *ast.OptionalChain:
		return c.chain(e, truth)
	case *ast.CallExpression:
		return c.call(e, truth)
	}
	return node{}, c.forbidden(e)
}

// forbidden says why there is no such thing in a rule.
func (c *compiler) forbidden(e ast.Expression) error {
	reason, at := "this is not possible in a rule", c.at(e.Idx0())
	switch e.(type) {
	case *ast.FunctionLiteral, *ast.ArrowFunctionLiteral:
		reason = noFunctions
	case *ast.ClassLiteral:
		reason = "a rule cannot define classes: write the condition itself"
	case *ast.AssignExpression:
		reason = noAssignment
	case *ast.SequenceExpression:
		reason = noComma
	case *ast.SpreadElement:
		reason, at = noSpread, strings.LastIndex(c.text[:at], "...")
	case *ast.NewExpression:
		reason = "a rule has no new: it works with its variables only, and the time is now"
	case *ast.ThisExpression:
		reason = "a rule has no this: who asks is user"
	case *ast.AwaitExpression, *ast.YieldExpression:
		reason = "a rule does not wait: _() does so by itself"
	case *ast.RegExpLiteral:
		reason = "a regular expression can only be given to match: write text.match(/…/)"
	case *ast.Optional:
		reason = "a rule calls methods by their names: leave out the ?. before the parenthesis"
	}
	return c.refuse(at, "%s", reason)
}

func (c *compiler) literal(i file.Idx, size int, v value) node {
	from := c.at(i)
	return node{
		run:  func(*Env) (value, *Failure) { return v, nil },
		from: from, to: min(from+size, len(c.text)),
		constant: true, known: true, result: v,
	}
}

// fromUnistring is the text of a string of the parser.
func fromUnistring(s unistring.String) string {
	units := s.AsUtf16()
	if units == nil {
		return string(s)
	}
	wide := make([]rune, 0, len(units))
	for _, u := range units[1:] { // behind the mark
		wide = append(wide, rune(u))
	}
	return fromUnits(wide)
}

func (c *compiler) number(e *ast.NumberLiteral) (node, error) {
	if l := e.Literal; len(l) > 1 && l[0] == '0' && l[1] >= '0' && l[1] <= '9' {
		return node{}, c.refuse(c.at(e.Idx), "%s begins with 0, which JavaScript may read as octal: leave out the 0", l)
	}
	var f float64
	switch n := e.Value.(type) {
	case int64:
		f = float64(n)
	case float64:
		f = n
	default:
		return node{}, c.refuse(c.at(e.Idx), "%s is no number here: leave out the n", e.Literal)
	}
	return c.literal(e.Idx, len(e.Literal), number(f)), nil
}

// read notes that the rule reads path, reached over from.
func (c *compiler) read(path, from string) {
	if path == "" {
		return
	}
	if from != "" {
		if c.reads[from]--; c.reads[from] == 0 {
			delete(c.reads, from)
		}
	}
	c.reads[path]++
}

func (c *compiler) identifier(e *ast.Identifier) (node, error) {
	name := fromUnistring(e.Name)
	n := c.literal(e.Idx, len(name), undefined)
	switch name {
	case "undefined":
		return n, nil
	case "NaN":
		return c.literal(e.Idx, len(name), notNumber), nil
	case "Infinity":
		return c.literal(e.Idx, len(name), number(math.Inf(1))), nil
	}
	n.constant, n.known = false, false
	at := c.spot(n)
	switch name {
	case "user":
		c.uses.user = true
		n.run = func(*Env) (value, *Failure) { return value{kind: kindUser}, nil }
	case "data":
		if !c.scope.Data {
			return node{}, c.refuse(n.from, "this rule has no data: only write, publish, subscribe and request rules see what is sent")
		}
		c.uses.data = true
		n.run = func(env *Env) (value, *Failure) { return env.document(&env.Data, inData, at) }
	case "oldData":
		if !c.scope.OldData {
			return node{}, c.refuse(n.from, "this rule has no oldData: only read, write and delete rules of records see what is stored")
		}
		c.uses.oldData = true
		n.run = func(env *Env) (value, *Failure) { return env.document(&env.OldData, inOldData, at) }
	case "now":
		c.uses.now = true
		n.run = func(env *Env) (value, *Failure) { return number(float64(env.Now)), nil }
	case "action":
		n.run = func(env *Env) (value, *Failure) { return number(float64(env.Action)), nil }
	case "name":
		n.text = func(env *Env) string { return env.Name }
	case "_":
		return node{}, c.refuse(n.from, "_ is called with the name of a record: _('some/record')")
	default:
		i := slices.Index(c.scope.Vars, name)
		if i < 0 {
			return node{}, c.unknown(n.from, name)
		}
		n.text = func(env *Env) string { return env.Vars[i] }
	}
	if get := n.text; get != nil {
		n.run = func(env *Env) (value, *Failure) { return text(get(env)), nil }
	}
	n.path = name
	c.read(name, "")
	return n, nil
}

// unknown says what somebody who wrote name may have meant.
func (c *compiler) unknown(offset int, name string) error {
	switch name {
	case "Date":
		return c.refuse(offset, "there is no Date in a rule: the time is now, in milliseconds")
	case "RegExp":
		return c.refuse(offset, "there is no RegExp in a rule: write text.match(/…/)")
	}
	known := append([]string{"user", "data", "oldData", "now", "action", "name", "_", "undefined"}, c.scope.Vars...)
	if strings.HasPrefix(name, "$") {
		what := "the path has no variables"
		if len(c.scope.Vars) > 0 {
			what = "the path has " + strings.Join(c.scope.Vars, ", ")
		}
		return c.refuse(offset, "there is no %s: %s", name, what)
	}
	if best := closest(name, known); best != "" {
		return c.refuse(offset, "there is no %s in a rule: did you mean %s? Text stands in quotes", name, best)
	}
	return c.refuse(offset, "there is no %s in a rule: it has %s. Text stands in quotes", name, strings.Join(known[:7], ", "))
}

// closest is the one of some names that somebody who wrote name may have meant.
func closest(name string, names []string) string {
	best, distance := "", 3
	for _, n := range names {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(n)); d < distance && 2*d < len(name) {
			best, distance = n, d
		}
	}
	return best
}

func (c *compiler) template(e *ast.TemplateLiteral) (node, error) {
	n := node{from: c.at(e.OpenQuote), to: min(c.at(e.CloseQuote)+1, len(c.text)), constant: true}
	if e.Tag != nil {
		return node{}, c.refuse(c.at(e.Tag.Idx0()), "a rule cannot tag a template: put text and values together with +")
	}
	parts, err := c.list(&n, e.Expressions)
	if err != nil {
		return node{}, err
	}
	texts := make([]string, len(e.Elements))
	for i, element := range e.Elements {
		texts[i] = fromUnistring(element.Parsed)
	}
	at := c.spot(n)
	n.run = func(env *Env) (value, *Failure) {
		s := texts[0]
		for i, part := range parts {
			v, failure := part(env)
			if failure != nil {
				return undefined, failure
			}
			piece, failure := env.asText(v, at)
			if failure != nil {
				return undefined, failure
			}
			for _, piece := range []string{piece, texts[i+1]} {
				if v, failure = env.concat(s, piece, at); failure != nil {
					return undefined, failure
				}
				s = v.str
			}
		}
		return text(s), nil
	}
	return n, nil
}

// list compiles operands of n.
func (c *compiler) list(n *node, expressions []ast.Expression) ([]eval, error) {
	runs := make([]eval, 0, len(expressions))
	for _, e := range expressions {
		part, err := c.expression(e, false)
		if err != nil {
			return nil, err
		}
		n.take(part)
		runs = append(runs, part.run)
	}
	return runs, nil
}

// take notes that part is an operand of n.
func (n *node) take(part node) {
	n.constant = n.constant && part.constant
	n.branchy = n.branchy || part.branchy
}

func (c *compiler) array(e *ast.ArrayLiteral) (node, error) {
	n := node{from: c.at(e.LeftBracket), to: min(c.at(e.RightBracket)+1, len(c.text)), constant: true}
	if slices.Contains(e.Value, nil) {
		return node{}, c.refuse(n.from, "an element of the array is missing: remove the comma, or write undefined")
	}
	elements, err := c.list(&n, e.Value)
	if err != nil {
		return node{}, err
	}
	n.run = func(env *Env) (value, *Failure) {
		values, failure := evalAll(env, elements)
		return value{kind: kindList, lit: &composite{elements: values}}, failure
	}
	return n, nil
}

func evalAll(env *Env, runs []eval) ([]value, *Failure) {
	values := make([]value, len(runs))
	for i, run := range runs {
		var failure *Failure
		if values[i], failure = run(env); failure != nil {
			return nil, failure
		}
	}
	return values, nil
}

func (c *compiler) object(e *ast.ObjectLiteral) (node, error) {
	n := node{from: c.at(e.LeftBrace), to: min(c.at(e.RightBrace)+1, len(c.text)), constant: true}
	var parts []ast.Expression // keys and values in turns, as JavaScript evaluates them
	for _, p := range e.Value {
		switch p := p.(type) {
		case *ast.PropertyKeyed:
			if p.Kind != ast.PropertyKindValue {
				return node{}, c.refuse(c.at(p.Key.Idx0()), "%s", noFunctions)
			}
			if s, ok := p.Key.(*ast.StringLiteral); ok && !p.Computed && s.Value == "__proto__" {
				return node{}, c.refuse(c.at(s.Idx), "%s", noPrototype(s.Value.String()))
			}
			parts = append(parts, p.Key, p.Value)
		case *ast.PropertyShort:
			if p.Initializer != nil {
				return node{}, c.refuse(c.at(p.Name.Idx), "%s", noAssignment)
			}
			parts = append(parts, &ast.StringLiteral{Idx: p.Name.Idx, Value: p.Name.Name}, &p.Name)
		default:
			return node{}, c.forbidden(p)
		}
	}
	runs, err := c.list(&n, parts)
	if err != nil {
		return node{}, err
	}
	at := c.spot(n)
	n.run = func(env *Env) (value, *Failure) {
		made := &composite{members: make([]member, 0, len(runs)/2)}
		for i := 0; i < len(runs); i += 2 {
			v, failure := runs[i](env)
			if failure != nil {
				return undefined, failure
			}
			name, failure := env.asText(v, at)
			if failure != nil {
				return undefined, failure
			}
			if v, failure = runs[i+1](env); failure != nil {
				return undefined, failure
			}
			same := func(m member) bool { return m.key == name }
			if k := slices.IndexFunc(made.members, same); k >= 0 {
				made.members[k].value = v // the last counts
			} else {
				made.members = append(made.members, member{name, v})
			}
		}
		return value{kind: kindObject, lit: made}, nil
	}
	return n, nil
}
