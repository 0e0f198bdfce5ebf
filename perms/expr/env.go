package expr

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

// maxBuilt bounds the text that one evaluation builds: by +, by templates, by
// changing case, by reading JSON strings with escapes. It is several times the
// greatest message.
const maxBuilt = 4 << 20

// ErrPending is the answer of a rule that refers to records that its Env lacks.
var ErrPending = errors.New("expr: waiting for records")

// Env is what one evaluation of a rule sees. It may be used again and again, by
// one goroutine at a time; nothing in it is changed but by its owner, except that
// documents remember that they were checked.
type Env struct {
	User    User
	Data    Doc
	OldData Doc
	// Now is the time in milliseconds.
	Now int64
	// Action is the number of the action that is checked.
	Action int
	// Name is the record, event, rpc or user that is asked for.
	Name string
	// Vars are the values of the path's variables, in the order of Scope.Vars.
	Vars []string
	// Hits, if there are any, count evaluations of each of the rule's branches:
	// branch i that was falsy at 2i, and truthy at 2i+1.
	Hits []atomic.Uint64

	references []reference
	wanted     []string
	built      int
	indexes    [inReferences]index // of the documents by their numbers
	trace      *recorder
}

// User is who asks.
type User struct {
	ID            string
	Authenticated bool
	// Data is what the login says of the user: null when it says nothing.
	Data Doc
}

// reference is the answer to one _().
type reference struct {
	name string
	doc  Doc
}

// Doc is a document that a rule may read. The zero Doc is undefined.
type Doc struct {
	state docState
	ready bool // value is made
	raw   string
	value value
}

type docState uint8

const (
	docUndefined docState = iota
	docNull
	docUnchecked
	docChecked
)

// Null is the document of what does not exist, such as oldData of a record that
// is created.
func Null() Doc { return Doc{state: docNull} }

// Unchecked is a document of any text. If it is not JSON, reading it is a failure.
func Unchecked(raw string) Doc { return Doc{state: docUnchecked, raw: raw} }

// Checked is a document that is known to be valid JSON in UTF-8, which saves the
// check.
func Checked(raw string) Doc { return Doc{state: docChecked, raw: raw} }

// Which document a view of JSON belongs to: objects are equal only to themselves,
// even when two documents are one text in memory.
const (
	inUser = iota
	inData
	inOldData
	inReferences // and the index of the reference
)

// Answer gives the content of a record that a rule wanted; Null if there is none.
// It is kept until Forget.
func (env *Env) Answer(name string, d Doc) {
	i := slices.IndexFunc(env.references, func(r reference) bool { return r.name == name })
	if i < 0 {
		env.references = append(env.references, reference{name, d})
		return
	}
	env.references[i].doc = d
}

// Forget drops all answers, for another message.
func (env *Env) Forget() {
	clear(env.references)
	env.references = env.references[:0]
	env.wanted = env.wanted[:0]
}

// Wanted are the names of the records that the last evaluation asked for in vain,
// each once, in the order in which it did. The next evaluation overwrites them.
func (env *Env) Wanted() []string { return env.wanted }

func (env *Env) begin() {
	env.wanted = env.wanted[:0]
	env.built = 0
}

// decide turns the result of an evaluation into its decision.
func (env *Env) decide(v value, failure *Failure) (bool, error) {
	switch {
	case failure != nil && failure.kind == badReference:
		return false, failure
	case len(env.wanted) > 0:
		return false, ErrPending // what failed may have failed for want of them
	case failure != nil:
		return false, failure
	}
	env.count(0, v)
	return v.truthy(), nil
}

// count counts a branch.
func (env *Env) count(branch int, v value) {
	if len(env.Hits) == 0 {
		return
	}
	i := 2 * branch
	if v.truthy() {
		i++
	}
	if i < len(env.Hits) {
		env.Hits[i].Add(1)
	}
}

// spend takes n bytes from what an evaluation may build.
func (env *Env) spend(n int) bool {
	env.built += n
	return env.built <= maxBuilt
}

// lookup is what _(name) finds.
func (env *Env) lookup(name string) (d *Doc, number int) {
	for i := range env.references {
		if env.references[i].name == name {
			return &env.references[i].doc, inReferences + i
		}
	}
	if !slices.Contains(env.wanted, name) {
		env.wanted = append(env.wanted, name)
	}
	return nil, 0
}

// document is the value of a document.
func (env *Env) document(d *Doc, number int, at spot) (value, *Failure) {
	if d.ready {
		return d.value, nil
	}
	switch d.state {
	case docUndefined:
		return undefined, nil
	case docNull:
		return null, nil
	}
	raw := trimBlank(d.raw)
	var x *index
	if number < len(env.indexes) {
		x = &env.indexes[number]
	}
	switch {
	case d.state == docUnchecked && !checkDocument(raw, x):
		return undefined, at.fail(thrown, "%s is not JSON", at.text())
	case d.state == docChecked && x != nil && raw[0] == '{':
		x.fill(raw)
	}
	v, ok := env.view(raw, number)
	if !ok {
		return undefined, at.tooMuch()
	}
	d.value, d.ready = v, true
	return v, nil
}

// Failure is a rule that ended in an error instead of a value: JavaScript would
// have thrown, or the rule went over a bound. It denies.
type Failure struct {
	// Line and Column are of the part of the rule that failed.
	Line, Column int
	// Reason says what failed. It holds no data, only words of the rule.
	Reason string
	kind   failureKind
}

func (f *Failure) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", f.Line, f.Column, f.Reason)
}

type failureKind uint8

const (
	thrown       failureKind = iota // JavaScript throws, too
	inherited                       // JavaScript would have read something inherited
	bounded                         // more than a bound allows
	badReference                    // _() of something that is no text; ends the evaluation at once
)

// spot is a part of a rule, for what fails there.
type spot struct {
	rule     *string
	from, to int
}

// text is the part as it was written, cut where it is long.
func (s spot) text() string {
	const most = 100
	t := []rune((*s.rule)[s.from:s.to])
	if len(t) > most {
		return string(t[:most]) + "…"
	}
	return string(t)
}

func (s spot) fail(kind failureKind, format string, args ...any) *Failure {
	line, column := place(*s.rule, s.from)
	return &Failure{Line: line, Column: column, Reason: fmt.Sprintf(format, args...), kind: kind}
}

func (s spot) tooMuch() *Failure {
	return s.fail(bounded, "%s: the rule builds more than %d bytes of text", s.text(), maxBuilt)
}
