package expr

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dop251/goja/ast"
	"github.com/dop251/goja/token"
)

// maxShown is how many characters of a value a trace shows.
const maxShown = 200

// Trace is an evaluation, told. The same rule and the same Env give the same
// trace.
type Trace struct {
	// Allowed and Err are what Eval returns.
	Allowed bool
	Err     error
	// Steps are the parts of the rule but for literals, each before its own parts,
	// in the order of the text.
	Steps []Step
}

// Step is a part of a rule in a trace.
type Step struct {
	Text         string
	Line, Column int
	// Depth is how many parts it stands in.
	Depth int
	// Evaluated says whether it was reached, and ended with Value or Failed.
	Evaluated bool
	// Value is shown as JSON, with undefined, NaN and the like as in a rule, cut
	// after some 200 characters.
	Value string
	// Failed is the reason of the failure that happened right here.
	Failed string
	// Decides marks the one step that made the result what it is: what failed, or
	// the operand of && || ?? ?: that the result came from.
	Decides bool
}

// Explain is Eval with every step of it. The rule is compiled a second time, from
// the same text by the same code, with each closure wrapped in one that takes
// notes; what is shortened for speed is not shortened there. It counts no hits.
func (r *Rule) Explain(env *Env) *Trace { return r.ExplainHiding(env, nil) }

// ExplainHiding is Explain for people who are not to see the values of keys that
// secret names, nor what is made of them, but for whether it is so: they stand as
// Hidden. A nil secret hides nothing.
func (r *Rule) ExplainHiding(env *Env, secret func(key string) bool) *Trace {
	traced := r.traced()
	notes := &recorder{notes: make([]note, len(traced.parts))}
	hits := env.Hits
	env.Hits, env.trace = nil, notes
	env.begin()
	v, failure := traced.run(env)
	t := &Trace{}
	t.Allowed, t.Err = env.decide(v, failure)
	env.Hits, env.trace = hits, nil
	decisive := traced.decisive(0, notes.notes)
	hidden := traced.hidden(notes.notes, secret)
	depth := make([]int, len(traced.parts))
	for i, p := range traced.parts {
		for _, child := range p.children {
			depth[child] = depth[i] + 1
		}
		if p.hidden && i > 0 {
			continue
		}
		n := notes.notes[i]
		line, column := place(r.text, p.from)
		s := Step{
			Text: spot{&r.text, p.from, p.to}.text(), Line: line, Column: column,
			Depth: depth[i], Evaluated: n.done, Decides: i == decisive,
		}
		switch {
		case n.failure != nil && !traced.failedBelow(p, notes.notes):
			s.Failed = n.failure.Reason
		case n.done && n.failure == nil && hidden[i]:
			s.Value = Hidden
		case n.done && n.failure == nil:
			s.Value = env.show(n.value, secret)
		}
		t.Steps = append(t.Steps, s)
	}
	return t
}

// tracedRule is a rule that takes notes.
type tracedRule struct {
	run   eval
	parts []tracedPart
}

// tracedPart is a node of the rule, in the order of the text.
type tracedPart struct {
	from, to int
	operator token.Token // of && || ??, and QUESTION_MARK
	children []int
	hidden   bool // a literal
	// member says that the part reads a member, and key of which name; an empty one
	// is what the last child gives.
	member bool
	key    string
}

// recorder holds the notes of one evaluation, by part.
type recorder struct{ notes []note }

type note struct {
	done    bool
	value   value
	failure *Failure
}

func compileTraced(text string, scope Scope) *tracedRule {
	tree, err := parse(text)
	if err != nil {
		panic("expr: a compiled rule does not parse: " + err.Error())
	}
	c := newCompiler(text, scope)
	c.tracing = &tracing{}
	root, err := c.expression(tree, false)
	if err != nil {
		panic("expr: a compiled rule does not compile: " + err.Error())
	}
	return &tracedRule{run: root.run, parts: c.tracing.parts}
}

// tracing is what the compiler keeps for a rule that takes notes. Nil, it does
// nothing.
type tracing struct {
	parts []tracedPart
	stack []int // parts that are being compiled
}

// open begins a part and returns its number.
func (t *tracing) open(e ast.Expression) int {
	if t == nil {
		return 0
	}
	p := tracedPart{}
	switch e := e.(type) {
	case *ast.BinaryExpression:
		switch e.Operator {
		case token.LOGICAL_AND, token.LOGICAL_OR, token.COALESCE:
			p.operator = e.Operator
		}
	case *ast.ConditionalExpression:
		p.operator = token.QUESTION_MARK
	case *ast.DotExpression:
		p.member, p.key = true, fromUnistring(e.Identifier.Name)
	case *ast.BracketExpression:
		p.member = true
		if s, ok := e.Member.(*ast.StringLiteral); ok {
			p.key = fromUnistring(s.Value)
		}
	case *ast.StringLiteral, *ast.NumberLiteral, *ast.BooleanLiteral, *ast.NullLiteral:
		p.hidden = true
	case *ast.OptionalChain:
		p.hidden = true // its inside stands at the same place
	}
	t.parts = append(t.parts, p)
	i := len(t.parts) - 1
	if len(t.stack) > 0 {
		parent := t.stack[len(t.stack)-1]
		t.parts[parent].children = append(t.parts[parent].children, i)
	}
	t.stack = append(t.stack, i)
	return i
}

// close ends a part: from now on it takes notes.
func (t *tracing) close(i int, n *node) {
	t.stack = t.stack[:len(t.stack)-1]
	t.parts[i].from, t.parts[i].to = n.from, n.to
	run := n.run
	n.run = func(env *Env) (value, *Failure) {
		v, failure := run(env)
		if env.trace != nil {
			env.trace.notes[i] = note{true, v, failure}
		}
		return v, failure
	}
	n.known, n.text = false, nil
}

func (t *tracedRule) failedBelow(p tracedPart, notes []note) bool {
	for _, child := range p.children {
		if notes[child].failure != nil {
			return true
		}
	}
	return false
}

// decisive is the part that made part i what it is.
func (t *tracedRule) decisive(i int, notes []note) int {
	p := t.parts[i]
	if notes[i].failure != nil {
		for _, child := range p.children {
			if notes[child].failure != nil {
				return t.decisive(child, notes)
			}
		}
		return i
	}
	if p.hidden && len(p.children) > 0 {
		return t.decisive(p.children[0], notes)
	}
	if p.operator == 0 {
		return i
	}
	c := p.children
	switch last := c[len(c)-1]; p.operator {
	case token.LOGICAL_AND:
		switch {
		case !notes[c[0]].value.truthy():
			return t.decisive(c[0], notes)
		case !notes[last].value.truthy():
			return t.decisive(last, notes)
		}
		return i // all of it
	case token.LOGICAL_OR:
		switch {
		case notes[c[0]].value.truthy():
			return t.decisive(c[0], notes)
		case notes[last].value.truthy():
			return t.decisive(last, notes)
		}
		return i // none of it
	case token.COALESCE:
		if notes[last].done {
			return t.decisive(last, notes)
		}
		return t.decisive(c[0], notes)
	}
	if notes[c[1]].done {
		return t.decisive(c[1], notes)
	}
	return t.decisive(c[2], notes)
}

// show is a value for people.
func (env *Env) show(v value, secret func(key string) bool) string {
	var b strings.Builder
	env.write(&b, v, secret)
	s := []rune(b.String())
	if len(s) > maxShown {
		return string(s[:maxShown]) + "…"
	}
	return b.String()
}

func (env *Env) write(b *strings.Builder, v value, secret func(key string) bool) {
	if b.Len() > 4*maxShown { // enough to be cut
		return
	}
	switch v.kind {
	case kindUndefined, kindSkip:
		b.WriteString("undefined")
	case kindNull:
		b.WriteString("null")
	case kindBoolean:
		b.WriteString(strconv.FormatBool(v.num != 0))
	case kindNumber:
		if v.num == 0 && 1/v.num < 0 {
			b.WriteByte('-')
		}
		b.WriteString(formatNumber(v.num))
	case kindString:
		writeQuoted(b, v.str)
	case kindJSONObject, kindJSONArray:
		raw := v.str
		if secret != nil {
			raw = hide(raw, secret)
		}
		b.WriteString(strings.Map(func(r rune) rune {
			if r < ' ' { // a line break between members
				return ' '
			}
			return r
		}, raw[:min(len(raw), 4*maxShown)]))
	case kindList:
		b.WriteByte('[')
		for i, element := range v.lit.elements {
			if i > 0 {
				b.WriteByte(',')
			}
			env.write(b, element, secret)
		}
		b.WriteByte(']')
	case kindObject:
		b.WriteByte('{')
		for i, m := range v.lit.members {
			if i > 0 {
				b.WriteByte(',')
			}
			writeQuoted(b, m.key)
			b.WriteByte(':')
			if secret != nil && secret(m.key) {
				b.WriteString(Hidden)
				continue
			}
			env.write(b, m.value, secret)
		}
		b.WriteByte('}')
	case kindUser:
		b.WriteString(`{"id":`)
		writeQuoted(b, env.User.ID)
		b.WriteString(`,"isAuthenticated":` + strconv.FormatBool(env.User.Authenticated) + `,"data":`)
		if data, failure := env.get(v, key{text: "data"}, spot{new(string), 0, 0}); failure == nil {
			env.write(b, data, secret)
		}
		b.WriteByte('}')
	}
}

// writeQuoted writes text as JSON does, with half pairs as escapes.
func writeQuoted(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := 0; i < len(s) && b.Len() <= 4*maxShown; {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r < 0x20:
			b.WriteString(`\u00` + strconv.FormatInt(0x100+int64(r), 16)[1:])
		case r == utf8.RuneError && size == 1 && i+3 <= len(s) && torn(s[i:i+3]):
			size = 3
			b.WriteString(`\u` + strconv.FormatUint(uint64(unitsOf(s[i : i+3])[0]), 16))
		default:
			b.WriteRune(r)
		}
		i += size
	}
	b.WriteByte('"')
}
