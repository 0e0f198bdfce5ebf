// Package expr is the language of permission rules: it compiles one JavaScript
// expression into closures that decide about one message after the other.
//
// # Shape
//
// goja's parser reads the text (parse.go). compile.go walks the tree once: a node
// that is not on its list is refused with line, column and cure, and what remains
// becomes one Go closure a node. So nothing interprets at run time, no rule can
// loop, and a rule reaches nothing but its variables: data, oldData, user, now,
// action, name, the path's $names and other records through _().
//
// # Meaning
//
// A rule means what it means in JavaScript, or it is refused, or it fails, which
// denies. It never quietly means something else. goja's virtual machine is the
// oracle that the tests hold us to; known differences are listed there. The one
// point where we part from JavaScript on purpose is inheritance: only what a
// value has itself can be read, and what JavaScript would inherit there
// (constructor, toString, an uncalled startsWith) is a failure. Members of one
// name count as in JSON.parse: the last.
//
// # Values
//
// A value is a small struct, and data is a view of the JSON text that came in: a
// member is found by scanning, nothing is decoded on the way to it, and nothing
// is allocated. Text is WTF-8: UTF-8 that may also hold half a surrogate pair,
// because JavaScript's strings may, with whole pairs always joined; so equal text
// has equal bytes. Lengths and positions count UTF-16 units (text.go).
//
// # Bounds
//
// Length, nesting and nodes of a rule are bounded when it is compiled; what one
// evaluation builds (maxBuilt) and how long a regular expression runs
// (matchTimeout) when it is evaluated. Each node runs at most once an evaluation
// and reads a document at most once, so an evaluation takes at most nodes times
// size of the documents.
package expr

import (
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"
)

// The bounds of a rule. All are far beyond rules that people can still read.
const (
	maxText    = 16 << 10
	maxNodes   = 4000
	maxDepth   = 500
	maxNesting = 200 // of brackets, which the parser recurses for
)

// Scope says which variables a rule may use.
type Scope struct {
	// Data and OldData say whether rules of this type have them.
	Data, OldData bool
	// Vars are the variables of the path, with their $, in the order of Env.Vars.
	Vars []string
}

// Rule is a compiled rule. It does not change, and any number of goroutines may
// evaluate it, each with an Env of its own.
type Rule struct {
	text     string
	run      eval
	constant bool // and then allowed is the result
	allowed  bool
	uses     uses
	reads    []string
	branches []Branch
	traced   func() *tracedRule
}

// uses are the variables that a rule mentions.
type uses struct{ user, data, oldData, now, references bool }

// Error says why a text is no rule, where in it, and what to do.
type Error struct {
	// Line and Column begin at 1; columns count characters.
	Line, Column int
	Reason       string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
}

// Compile reads a rule. The error is an *Error.
func Compile(text string, scope Scope) (*Rule, error) {
	tree, err := parse(text)
	if err != nil {
		return nil, err
	}
	c := newCompiler(text, scope)
	root, err := c.expression(tree, true)
	if err != nil {
		return nil, err
	}
	r := &Rule{text: text, run: root.run, uses: c.uses, branches: c.branches}
	for path := range c.reads {
		r.reads = append(r.reads, path)
	}
	slices.Sort(r.reads)
	if root.constant {
		if v, failure := root.run(&Env{}); failure == nil {
			r.constant, r.allowed, r.branches = true, v.truthy(), c.branches[:1]
		}
	}
	// Few rules are ever explained, so what that needs is made when it is.
	scope.Vars = slices.Clone(scope.Vars)
	r.traced = sync.OnceValue(func() *tracedRule { return compileTraced(text, scope) })
	return r, nil
}

// Text is the rule as it was written.
func (r *Rule) Text() string { return r.text }

// Constant says what the rule decides, if that depends on nothing.
func (r *Rule) Constant() (allowed, ok bool) { return r.allowed, r.constant }

// UsesData says whether the rule mentions data.
func (r *Rule) UsesData() bool { return r.uses.data }

// UsesOldData says whether the rule mentions oldData.
func (r *Rule) UsesOldData() bool { return r.uses.oldData }

// UsesUser says whether the rule mentions user.
func (r *Rule) UsesUser() bool { return r.uses.user }

// UsesNow says whether the rule mentions now.
func (r *Rule) UsesNow() bool { return r.uses.now }

// UsesReferences says whether the rule calls _().
func (r *Rule) UsesReferences() bool { return r.uses.references }

// Reads are the paths the rule reads, such as data.address.city, sorted; where a
// rule computes a key, the path ends before it.
func (r *Rule) Reads() []string { return r.reads }

// Branches are the parts of the rule whose evaluations Env.Hits counts: the rule
// itself, then each operand of && || ?? and ?: in the order of the text.
func (r *Rule) Branches() []Branch { return r.branches }

// Branch is a part of a rule that may or may not be evaluated, with its place.
type Branch struct {
	Text         string // cut where it is long
	Line, Column int
	Length       int // of all of it, in characters
}

// Eval says whether the rule allows what env describes: whether its value is
// truthy. The error is ErrPending when it needs records that env lacks
// (Env.Wanted names them; answer and evaluate again), else a *Failure. With an
// error, the answer is no.
func (r *Rule) Eval(env *Env) (bool, error) {
	if r.constant {
		env.wanted = env.wanted[:0]
		env.count(0, boolean(r.allowed))
		return r.allowed, nil
	}
	env.begin()
	v, failure := r.run(env)
	return env.decide(v, failure)
}

// place is line and column of an offset in text.
func place(text string, offset int) (line, column int) {
	offset = min(max(offset, 0), len(text))
	line, start := 1, 0
	for i := range offset {
		if text[i] == '\n' {
			line, start = line+1, i+1
		}
	}
	return line, utf8.RuneCountInString(text[start:offset]) + 1
}
