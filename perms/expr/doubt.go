package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/token"
)

// DoubtKind says what is doubtful.
type DoubtKind string

// The kinds of doubts.
const (
	// MissingOldData, MissingUserData, MissingReference, MissingData and MissingMember:
	// a member is read of what may be null or undefined, which fails.
	MissingOldData   DoubtKind = "missing-old-data"
	MissingUserData  DoubtKind = "missing-user-data"
	MissingReference DoubtKind = "missing-reference"
	MissingData      DoubtKind = "missing-data"
	MissingMember    DoubtKind = "missing-member"
	// AlwaysTrue and AlwaysFalse: a part decides alone, whatever is asked.
	AlwaysTrue  DoubtKind = "always-true"
	AlwaysFalse DoubtKind = "always-false"
	// LooseData: == compares what a client sent with what the server knows, and turns
	// the one into the other's type. Loose: == where === says the same.
	LooseData DoubtKind = "loose-data"
	Loose     DoubtKind = "loose"
	// SelfAssigned: a write is allowed to whom the new data names, whoever owned the
	// old one.
	SelfAssigned DoubtKind = "self-assigned"
)

// Doubt is a part of a rule that can be read, and that probably means something
// else than its author meant.
type Doubt struct {
	Kind DoubtKind
	// Line and Column are in the rule, as those of an Error.
	Line, Column int
	// Reason says what is doubtful, and Cure what to write instead.
	Reason, Cure string
}

// Doubts looks at the text of a rule, which has to compile, without running it.
// They stand in the order of the text.
func Doubts(text string, scope Scope) ([]Doubt, error) {
	if _, err := Compile(text, scope); err != nil {
		return nil, err
	}
	tree, err := parse(text)
	if err != nil {
		return nil, err
	}
	d := &doubter{compiler: newCompiler(text, scope), told: map[string]bool{}}
	d.walk(tree, nil)
	d.truth(tree, true)
	d.owner(tree)
	slices.SortStableFunc(d.found, func(a, b Doubt) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return d.found, nil
}

// doubter walks the tree of a rule. What is known on the way is which parts
// are neither null nor undefined, by their canonical text.
type doubter struct {
	*compiler
	found []Doubt
	told  map[string]bool
}

func (d *doubter) doubt(kind DoubtKind, e ast.Expression, cure, format string, args ...any) {
	line, column := place(d.text, d.at(e.Idx0()))
	doubt := Doubt{Kind: kind, Line: line, Column: column, Reason: fmt.Sprintf(format, args...), Cure: cure}
	if key := string(kind) + doubt.Reason; !d.told[key] {
		d.told[key] = true
		d.found = append(d.found, doubt)
	}
}

// bare is e without what only marks an optional chain.
func bare(e ast.Expression) ast.Expression {
	for {
		switch inner := e.(type) {
		case *ast.OptionalChain:
			e = inner.Expression
		case *ast.Optional:
			e = inner.Expression
		default:
			return e
		}
	}
}

// memberOf takes apart the reading of a member: what of, and its name, which is
// empty where it is computed.
func memberOf(e ast.Expression) (of ast.Expression, name string, ok bool) {
	switch e := bare(e).(type) {
	case *ast.DotExpression:
		return e.Left, fromUnistring(e.Identifier.Name), true
	case *ast.BracketExpression:
		switch m := e.Member.(type) {
		case *ast.StringLiteral:
			return e.Left, fromUnistring(m.Value), true
		case *ast.NumberLiteral:
			return e.Left, m.Literal, true
		}
		return e.Left, "", true
	}
	return nil, "", false
}

// callOf takes apart a call: of _(), or of a method of something.
func callOf(e ast.Expression) (of ast.Expression, method string, args []ast.Expression, ok bool) {
	call, ok := bare(e).(*ast.CallExpression)
	if !ok {
		return nil, "", nil, false
	}
	if of, method, ok := memberOf(call.Callee); ok {
		return of, method, call.ArgumentList, true
	}
	return nil, "_", call.ArgumentList, true
}

func isOptional(e ast.Expression) bool {
	_, ok := e.(*ast.Optional)
	return ok
}

// chained says whether the reading of e may end at a ?. before it is done.
func chained(e ast.Expression) bool {
	for {
		if isOptional(e) {
			return true
		}
		if of, _, ok := memberOf(e); ok {
			e = of
		} else if of, _, _, ok := callOf(e); ok && of != nil {
			e = of
		} else {
			return false
		}
	}
}

// canon is the text of a variable, a member or a call, the same for all ways to
// write it, and empty for everything else.
func canon(e ast.Expression) string {
	e = bare(e)
	switch e := e.(type) {
	case *ast.Identifier:
		return fromUnistring(e.Name)
	case *ast.StringLiteral:
		return "'" + fromUnistring(e.Value) + "'"
	case *ast.NumberLiteral:
		return e.Literal
	case *ast.BinaryExpression:
		if l, r := canon(e.Left), canon(e.Right); e.Operator == token.PLUS && l != "" && r != "" {
			return l + " + " + r
		}
		return ""
	}
	if of, method, args, ok := callOf(e); ok {
		var list []string
		for _, arg := range args {
			text := canon(arg)
			if text == "" {
				return ""
			}
			list = append(list, text)
		}
		text := method + "(" + strings.Join(list, ", ") + ")"
		if of == nil {
			return text
		}
		if base := canon(of); base != "" {
			return base + "." + text
		}
		return ""
	}
	if of, name, ok := memberOf(e); ok && name != "" {
		if base := canon(of); base != "" {
			return base + "." + name
		}
	}
	return ""
}

// root is the variable, or _, that a part is read from.
func root(e ast.Expression) string {
	for {
		if of, _, ok := memberOf(e); ok {
			e = of
		} else if of, method, _, ok := callOf(e); ok {
			if of == nil {
				return method
			}
			e = of
		} else if id, ok := bare(e).(*ast.Identifier); ok {
			return fromUnistring(id.Name)
		} else {
			return ""
		}
	}
}

// parts are what e is made of.
func parts(e ast.Expression) []ast.Expression {
	e = bare(e)
	switch e := e.(type) {
	case *ast.UnaryExpression:
		return []ast.Expression{e.Operand}
	case *ast.BinaryExpression:
		return []ast.Expression{e.Left, e.Right}
	case *ast.ConditionalExpression:
		return []ast.Expression{e.Test, e.Consequent, e.Alternate}
	case *ast.TemplateLiteral:
		return e.Expressions
	case *ast.ArrayLiteral:
		return e.Value
	case *ast.ObjectLiteral:
		var list []ast.Expression
		for _, p := range e.Value {
			switch p := p.(type) {
			case *ast.PropertyKeyed:
				list = append(list, p.Key, p.Value)
			case *ast.PropertyShort:
				list = append(list, &p.Name)
			}
		}
		return list
	case *ast.BracketExpression:
		return []ast.Expression{e.Left, e.Member}
	case *ast.DotExpression:
		return []ast.Expression{e.Left}
	}
	if of, _, args, ok := callOf(e); ok {
		if of == nil {
			return args
		}
		return append([]ast.Expression{of}, args...)
	}
	return nil
}

// walk finds doubts in e, where the parts in known are there.
func (d *doubter) walk(e ast.Expression, known []string) {
	e = bare(e)
	switch e := e.(type) {
	case *ast.BinaryExpression:
		d.walk(e.Left, known)
		switch e.Operator {
		case token.LOGICAL_AND:
			known = slices.Concat(known, sure(e.Left), whenTrue(e.Left))
		case token.LOGICAL_OR:
			known = slices.Concat(known, sure(e.Left), whenFalse(e.Left))
		case token.COALESCE:
		default:
			d.comparison(e)
			known = slices.Concat(known, sure(e.Left))
		}
		d.walk(e.Right, known)
		return
	case *ast.ConditionalExpression:
		d.walk(e.Test, known)
		known = slices.Concat(known, sure(e.Test))
		d.walk(e.Consequent, slices.Concat(known, whenTrue(e.Test)))
		d.walk(e.Alternate, slices.Concat(known, whenFalse(e.Test)))
		return
	}
	of, _, read := memberOf(e)
	if !read {
		of, _, _, _ = callOf(e)
	}
	if of != nil && !isOptional(of) && d.missing(of, known) {
		d.tellMissing(e, of)
	}
	for _, part := range parts(e) {
		d.walk(part, known)
		known = slices.Concat(known, sure(part))
	}
}

// tellMissing doubts that e can be read of what may be missing.
func (d *doubter) tellMissing(e, of ast.Expression) {
	what := canon(of)
	if what == "" {
		what = "a part of this rule"
	}
	cure := fmt.Sprintf("write %s?. here, or test %s && … first", what, what)
	_, method, _, called := callOf(of)
	switch {
	case what == "oldData":
		d.doubt(MissingOldData, e, "write oldData?. instead of oldData., or begin with !oldData || …", "oldData is null as long as there is no record, and a member of null cannot be read")
	case what == "data":
		d.doubt(MissingData, e, "write data?. instead of data.", "data is undefined when nothing is sent, and a member of it cannot be read")
	case what == "user.data":
		d.doubt(MissingUserData, e, "write user.data?. instead of user.data.", "user.data is null for users without server data, and a member of null cannot be read")
	case called && method == "_":
		d.doubt(MissingReference, e, fmt.Sprintf("write %s?. to deny instead", what), "%s is null when there is no such record, and a member of null cannot be read", what)
	case called && method == "match":
		d.doubt(MissingMember, e, cure, "%s is null when nothing matches, and a member of null cannot be read", what)
	default:
		d.doubt(MissingMember, e, cure, "%s may be missing, and then the rule fails", what)
	}
}

// missing says whether e may be null or undefined.
func (d *doubter) missing(e ast.Expression, known []string) bool {
	e = bare(e)
	if text := canon(e); text != "" && slices.Contains(known, text) {
		return false
	}
	switch e := e.(type) {
	case *ast.NullLiteral:
		return true
	case *ast.Identifier:
		switch e.Name {
		case "data":
			return !d.scope.OldData // a record is always something
		case "oldData", "undefined":
			return true
		}
		return false
	case *ast.BinaryExpression:
		switch e.Operator {
		case token.LOGICAL_OR, token.COALESCE:
			return d.missing(e.Right, known)
		case token.LOGICAL_AND:
			return d.missing(e.Left, known) || d.missing(e.Right, slices.Concat(known, whenTrue(e.Left)))
		}
		return false
	case *ast.ConditionalExpression:
		return d.missing(e.Consequent, slices.Concat(known, whenTrue(e.Test))) ||
			d.missing(e.Alternate, slices.Concat(known, whenFalse(e.Test)))
	}
	if _, method, _, ok := callOf(e); ok {
		return method == "_" || method == "match"
	}
	if _, name, ok := memberOf(e); ok {
		switch text := canon(e); {
		case text == "user.id", text == "user.isAuthenticated", name == "length":
			return false
		}
		return true
	}
	return false
}

// there are the parts that are there when e is: itself, and what it is read of.
func there(e ast.Expression) []string {
	var list []string
	for e != nil {
		if text := canon(e); text != "" {
			list = append(list, text)
		}
		if of, _, ok := memberOf(e); ok {
			e = of
		} else if of, _, _, ok := callOf(e); ok {
			e = of
		} else {
			break
		}
	}
	return list
}

// sure are the parts that are there once e was evaluated without a failure.
func sure(e ast.Expression) []string {
	e = bare(e)
	switch e := e.(type) {
	case *ast.BinaryExpression:
		switch e.Operator {
		case token.LOGICAL_AND, token.LOGICAL_OR, token.COALESCE:
			return sure(e.Left)
		case token.IN:
			return slices.Concat(sure(e.Left), sure(e.Right), there(e.Right))
		}
	case *ast.ConditionalExpression:
		return sure(e.Test)
	}
	of, _, read := memberOf(e)
	if !read {
		of, _, _, _ = callOf(e)
	}
	if of != nil && chained(of) {
		return sure(of)
	}
	var list []string
	if of != nil {
		list = append(list, canon(of))
	}
	for _, part := range parts(e) {
		list = append(list, sure(part)...)
	}
	return list
}

func both(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

// whenTrue are the parts that are there when e is truthy, and whenFalse when it is
// falsy.
func whenTrue(e ast.Expression) []string {
	e = bare(e)
	switch e := e.(type) {
	case *ast.UnaryExpression:
		if e.Operator == token.NOT {
			return whenFalse(e.Operand)
		}
		return nil
	case *ast.BinaryExpression:
		switch e.Operator {
		case token.LOGICAL_AND:
			return slices.Concat(whenTrue(e.Left), whenTrue(e.Right))
		case token.LOGICAL_OR:
			return both(whenTrue(e.Left), whenTrue(e.Right))
		case token.STRICT_EQUAL, token.EQUAL:
			return compared(e, true)
		case token.STRICT_NOT_EQUAL, token.NOT_EQUAL:
			return compared(e, false)
		case token.LESS, token.GREATER, token.LESS_OR_EQUAL, token.GREATER_OR_EQUAL:
			return slices.Concat(there(e.Left), there(e.Right)) // undefined is neither
		case token.IN:
			list := there(e.Right)
			if s, ok := e.Left.(*ast.StringLiteral); ok && canon(e.Right) != "" {
				list = append(list, canon(e.Right)+"."+fromUnistring(s.Value))
			}
			return list
		}
		return nil
	}
	return there(e)
}

func whenFalse(e ast.Expression) []string {
	e = bare(e)
	switch e := e.(type) {
	case *ast.UnaryExpression:
		if e.Operator == token.NOT {
			return whenTrue(e.Operand)
		}
	case *ast.BinaryExpression:
		switch e.Operator {
		case token.LOGICAL_AND:
			return both(whenFalse(e.Left), whenFalse(e.Right))
		case token.LOGICAL_OR:
			return slices.Concat(whenFalse(e.Left), whenFalse(e.Right))
		case token.STRICT_EQUAL, token.EQUAL:
			return compared(e, false)
		case token.STRICT_NOT_EQUAL, token.NOT_EQUAL:
			return compared(e, true)
		}
	}
	return nil
}

// compared are the parts that are there when the two sides of e are equal, or when
// they are not.
func compared(e *ast.BinaryExpression, equal bool) []string {
	var list []string
	for _, sides := range [2][2]ast.Expression{{e.Left, e.Right}, {e.Right, e.Left}} {
		one, other := bare(sides[0]), bare(sides[1])
		if u, ok := one.(*ast.UnaryExpression); ok && u.Operator == token.TYPEOF {
			if s, ok := other.(*ast.StringLiteral); ok && (s.Value != "undefined") == equal {
				list = append(list, there(u.Operand)...)
			}
			continue
		}
		if isNothing(other) != equal && (!equal || isSomething(other)) {
			list = append(list, there(one)...)
		}
	}
	return list
}

func isNothing(e ast.Expression) bool {
	if id, ok := e.(*ast.Identifier); ok {
		return id.Name == "undefined"
	}
	_, ok := e.(*ast.NullLiteral)
	return ok
}

// isSomething says whether e is never null or undefined, whatever the message.
func isSomething(e ast.Expression) bool {
	return literalType(e) != "" || staticType(e) != ""
}

// literalType is the type of a literal that is neither null nor undefined.
func literalType(e ast.Expression) string {
	switch bare(e).(type) {
	case *ast.StringLiteral, *ast.TemplateLiteral:
		return "text"
	case *ast.NumberLiteral:
		return "a number"
	case *ast.BooleanLiteral:
		return "true or false"
	case *ast.ArrayLiteral, *ast.ObjectLiteral:
		return "an array or object of its own"
	}
	return ""
}

// staticType is the type of a variable, as far as it is always the same.
func staticType(e ast.Expression) string {
	text := canon(e)
	switch id, ok := bare(e).(*ast.Identifier); {
	case ok && (text == "name" || strings.HasPrefix(text, "$")), text == "user.id":
		return "text"
	case ok && (id.Name == "now" || id.Name == "action"):
		return "a number"
	case text == "user.isAuthenticated":
		return "true or false"
	}
	return ""
}

// comparison doubts comparisons that always come out the same, and loose ones.
func (d *doubter) comparison(e *ast.BinaryExpression) {
	equal, strict := true, true
	switch e.Operator {
	case token.STRICT_EQUAL:
	case token.STRICT_NOT_EQUAL:
		equal = false
	case token.EQUAL:
		strict = false
	case token.NOT_EQUAL:
		equal, strict = false, false
	default:
		return
	}
	kind, result := AlwaysFalse, "false"
	if !equal {
		kind, result = AlwaysTrue, "true"
	}
	for _, sides := range [2][2]ast.Expression{{e.Left, e.Right}, {e.Right, e.Left}} {
		one, other := bare(sides[0]), bare(sides[1])
		u, ok := one.(*ast.UnaryExpression)
		s, isText := other.(*ast.StringLiteral)
		if ok && u.Operator == token.TYPEOF && isText {
			types := []string{"undefined", "object", "boolean", "number", "string"}
			if !slices.Contains(types, fromUnistring(s.Value)) {
				d.doubt(kind, e, "compare with one of '"+strings.Join(types, "', '")+"'", "typeof never gives '%s', so this is always %s", s.Value, result)
			}
			return
		}
		if id, ok := other.(*ast.Identifier); ok && id.Name == "NaN" {
			d.doubt(kind, e, "write x !== x, or compare with a number", "nothing equals NaN, so this is always %s", result)
			return
		}
		if literalType(other) == "an array or object of its own" {
			d.doubt(kind, e, "compare its members, or use includes", "an array or object that the rule writes down equals no other, so this is always %s", result)
			return
		}
		if a, b := staticType(one), literalType(other); a != "" && b != "" && a != b && strict {
			cure := fmt.Sprintf("compare with %s", a)
			if canon(one) == "action" {
				cure = "compare with the number of the action, such as 18 for a record update"
			}
			d.doubt(kind, e, cure, "%s is %s and never %s, so this is always %s", canon(one), a, b, result)
			return
		}
	}
	if l, r := canon(e.Left), canon(e.Right); l != "" && l == r {
		if equal {
			d.doubt(AlwaysTrue, e, "compare with what was meant", "%s is compared with itself", l)
		}
		return
	}
	if strict || isNothing(bare(e.Left)) || isNothing(bare(e.Right)) {
		return
	}
	sign, better := "==", "==="
	if !equal {
		sign, better = "!=", "!=="
	}
	sent := func(e ast.Expression) bool { return slices.Contains([]string{"data", "oldData", "_"}, root(e)) }
	text := func(e ast.Expression) bool { return staticType(e) == "text" || literalType(e) == "text" }
	if sent(e.Left) && text(e.Right) || sent(e.Right) && text(e.Left) {
		d.doubt(LooseData, e, "write "+better, "%s takes other types for equal: the array [\"ada\"] passes for the text 'ada'", sign)
		return
	}
	d.doubt(Loose, e, "write "+better, "%s takes values of different types for equal", sign)
}

// truth doubts parts of which only matters whether they are truthy, when that is
// known beforehand. root says that the part is the whole rule.
func (d *doubter) truth(e ast.Expression, whole bool) {
	e = bare(e)
	switch e := e.(type) {
	case *ast.UnaryExpression:
		if e.Operator == token.NOT {
			d.truth(e.Operand, false)
		}
		return
	case *ast.ConditionalExpression:
		d.truth(e.Test, false)
		return
	case *ast.BinaryExpression:
		switch e.Operator {
		case token.LOGICAL_AND, token.LOGICAL_OR:
			d.operand(e, e.Left)
			d.operand(e, e.Right)
		}
		return
	}
	if _, method, _, ok := callOf(e); ok && method == "indexOf" {
		d.doubt(AlwaysTrue, e, "write .includes(…), or compare with >= 0", "indexOf gives -1 for what is not found, which is truthy, and 0 for the first, which is not")
		return
	}
	if !whole {
		return
	}
	switch value, known := truthOf(e); {
	case !known, isBoolean(e):
	case value:
		d.doubt(AlwaysTrue, e, "write true, or without the inner quotes", "the rule is %s, which is truthy: everybody may", kindOf(e))
	default:
		d.doubt(AlwaysFalse, e, "write false, or what was meant", "the rule is %s, which is falsy: nobody may", kindOf(e))
	}
}

// operand doubts an operand of && or || that makes the other one idle.
func (d *doubter) operand(of *ast.BinaryExpression, e ast.Expression) {
	value, known := truthOf(e)
	or := of.Operator == token.LOGICAL_OR
	switch {
	case !known:
		d.truth(e, false)
	case value && or:
		cure := "remove it"
		if c, ok := bare(of.Left).(*ast.BinaryExpression); ok && literalType(e) != "" && !isBoolean(e) {
			if left := canon(c.Left); left != "" {
				cure = fmt.Sprintf("write %s === %s", left, canon(e))
			}
		}
		d.doubt(AlwaysTrue, e, cure, "%s is truthy, so everything with || before it is allowed to everybody", kindOf(e))
	case !value && !or:
		d.doubt(AlwaysFalse, e, "remove it, or write false alone", "%s is falsy, so && lets nobody through", kindOf(e))
	}
}

func isBoolean(e ast.Expression) bool {
	_, ok := bare(e).(*ast.BooleanLiteral)
	return ok
}

// truthOf is whether a literal is truthy.
func truthOf(e ast.Expression) (value, known bool) {
	switch e := bare(e).(type) {
	case *ast.StringLiteral:
		return e.Value != "", true
	case *ast.NumberLiteral:
		f, err := strconv.ParseFloat(e.Literal, 64)
		return err != nil || f != 0, true
	case *ast.BooleanLiteral:
		return e.Value, true
	case *ast.NullLiteral:
		return false, true
	case *ast.ArrayLiteral, *ast.ObjectLiteral:
		return true, true
	case *ast.Identifier:
		switch e.Name {
		case "undefined", "NaN":
			return false, true
		case "Infinity":
			return true, true
		}
	}
	return false, false
}

// kindOf is a literal in words.
func kindOf(e ast.Expression) string {
	switch e := bare(e).(type) {
	case *ast.StringLiteral:
		return fmt.Sprintf("the text '%s'", e.Value)
	case *ast.ArrayLiteral:
		return "an array"
	case *ast.ObjectLiteral:
		return "an object"
	case *ast.NullLiteral:
		return "null"
	case *ast.BooleanLiteral:
		return e.Literal
	case *ast.NumberLiteral:
		return "the number " + e.Literal
	}
	return canon(e)
}

// owner doubts a write rule that lets a client in for what it writes itself.
func (d *doubter) owner(tree ast.Expression) {
	if !d.scope.Data || !d.scope.OldData {
		return
	}
	var claim ast.Expression
	other := false // something else is compared
	var look func(e ast.Expression)
	look = func(e ast.Expression) {
		switch text := canon(e); {
		case text == "oldData", text == "user.data", strings.HasPrefix(text, "$"), strings.HasPrefix(text, "_("):
			other = true
		}
		if b, ok := bare(e).(*ast.BinaryExpression); ok && (b.Operator == token.STRICT_EQUAL || b.Operator == token.EQUAL) {
			l, r := b.Left, b.Right
			if canon(l) == "user.id" {
				l, r = r, l
			}
			if canon(r) == "user.id" && root(l) == "data" {
				claim = b
			}
		}
		for _, part := range parts(e) {
			look(part)
		}
	}
	look(tree)
	if claim != nil && !other {
		d.doubt(SelfAssigned, claim, "compare oldData as well: (!oldData || oldData.owner === user.id) && …",
			"only the new data says whose it is, which the client writes itself")
	}
}
