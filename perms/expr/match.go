package expr

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
	"github.com/dop251/goja/ast"
)

const (
	// matchTimeout bounds one search. What takes longer is a failure.
	matchTimeout = 50 * time.Millisecond
	// maxPattern bounds patterns, which may also come out of data.
	maxPattern = 1000
	// maxLinear bounds what is searched in linear time, which nothing interrupts:
	// instructions of the program times length of the text.
	maxLinear = 2 << 20
	// sizeOfMatch is what an element of a result counts as built text.
	sizeOfMatch = 64
)

// pattern is a compiled regular expression of JavaScript.
type pattern struct {
	// slow runs every pattern, over UTF-16 units (characters, with the flag u).
	slow *regexp2.Regexp
	// fast finds the same in linear time, in ASCII text; nil if it cannot be said.
	fast    *regexp.Regexp
	size    int // of fast's program
	all     bool
	unicode bool
	fold    bool
	// names are those of the groups, which some have; index 0 is the whole match.
	names []string
	named bool
	// stale says that a group could still hold what an earlier round of a
	// repetition found, where JavaScript has forgotten it.
	stale bool
}

var errStale = errors.New("a group inside of a repetition: begin it with (?: instead of (")

// match compiles a call of match; with truth, only whether there is a match counts.
func (c *compiler) match(e *ast.CallExpression, truth bool) (method, error) {
	source, flags, constant := "", "", true
	where := c.at(e.LeftParenthesis)
	if len(e.ArgumentList) > 0 {
		where = c.at(e.ArgumentList[0].Idx0())
		switch a := e.ArgumentList[0].(type) {
		case *ast.RegExpLiteral:
			source, flags = a.Pattern, a.Flags
		case *ast.StringLiteral:
			source = fromUnistring(a.Value)
		default:
			constant = false
		}
	}
	if !constant {
		return func(env *Env, this, a, _ value, at spot) (value, *Failure) {
			source, failure := "", (*Failure)(nil)
			if a.kind != kindUndefined {
				if source, failure = env.asText(a, at); failure != nil {
					return undefined, failure
				}
			}
			p, err := newPattern(source, "", true)
			if err == nil && p.stale && !truth {
				err = errStale
			}
			if err != nil {
				return undefined, at.fail(thrown, "%s: this is no regular expression: %v", at.text(), err)
			}
			return p.find(env, this.str, truth, at)
		}, nil
	}
	p, err := newPattern(source, flags, false)
	if err == nil && p.stale && !truth {
		err = errStale
	}
	if err != nil {
		return nil, c.refuse(where, "this regular expression cannot be used: %v", err)
	}
	return func(env *Env, this, _, _ value, at spot) (value, *Failure) {
		return p.find(env, this.str, truth, at)
	}, nil
}

// newPattern compiles what stands between the slashes, and behind them. A passing
// one is made of data for one evaluation, so it must not be costly to compile:
// Go's engine writes counted repetitions out.
func newPattern(source, flags string, passing bool) (p *pattern, err error) {
	if len(source) > maxPattern {
		return nil, fmt.Errorf("it is longer than %d bytes", maxPattern)
	}
	p = &pattern{}
	options := regexp2.ECMAScript
	for i, f := range flags {
		if strings.ContainsRune(flags[:i], f) {
			return nil, fmt.Errorf("the flag %c stands there twice", f)
		}
		switch f {
		case 'g':
			p.all = true
		case 'i':
			options |= regexp2.IgnoreCase
			p.fold = true
		case 'm':
			options |= regexp2.Multiline
		case 's':
			options |= regexp2.Singleline
		case 'u':
			options |= regexp2.Unicode
			p.unicode = true
		default:
			return nil, fmt.Errorf("there is no flag %c: use g, i, m, s or u", f)
		}
	}
	t, err := translate(source, flags)
	if err != nil {
		return nil, err
	}
	defer func() { // the engine is large, and patterns may come from strangers
		if x := recover(); x != nil {
			p, err = nil, errors.New("the engine cannot read it")
		}
	}()
	if p.slow, err = regexp2.Compile(spellUnits(source, p.unicode), options); err != nil {
		return nil, fmt.Errorf("it is not valid: %w", err)
	}
	p.slow.MatchTimeout = matchTimeout
	p.stale = t.stale
	p.names = append([]string{""}, t.names...)
	for _, name := range t.names {
		p.named = p.named || name != ""
	}
	// With g, Go finds no empty match right behind another one; JavaScript does.
	if t.linear && !(p.all && t.empty) && !(passing && strings.Contains(source, "{")) {
		if p.fast, err = regexp.Compile(t.text); err != nil { // too large for it: the other engine has the word
			p.fast, err = nil, nil
		} else {
			p.size = programSize(t.text)
		}
	}
	return p, nil
}

// programSize is how many instructions an expression compiles to.
func programSize(text string) int {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return maxLinear
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return maxLinear
	}
	return len(program.Inst)
}

// spellUnits rewrites what the engine could not read: half a surrogate pair, and
// without the flag u characters of two units.
func spellUnits(source string, unicode bool) string {
	var b strings.Builder
	for i := 0; i < len(source); {
		size, units := step(source, i)
		switch {
		case units == 2 && !unicode:
			high, low := surrogates(source[i : i+4])
			fmt.Fprintf(&b, `\u%04X\u%04X`, high, low)
		case torn(source[i : i+size]):
			fmt.Fprintf(&b, `\u%04X`, unitsOf(source[i : i+size])[0])
		default:
			b.WriteString(source[i : i+size])
		}
		i += size
	}
	return b.String()
}

// find is String.prototype.match.
func (p *pattern) find(env *Env, s string, truth bool, at spot) (value, *Failure) {
	if p.fast != nil && p.size*len(s) <= maxLinear && isASCII(s) {
		return p.findFast(env, s, truth, at)
	}
	v, err := p.findSlow(env, s, truth)
	switch {
	case errors.Is(err, errTooMuch):
		return undefined, at.tooMuch()
	case err != nil:
		return undefined, at.fail(bounded, "%s: the search takes more than %v, or too much memory", at.text(), matchTimeout)
	}
	return v, nil
}

var errTooMuch = errors.New("too much text")

func (p *pattern) findFast(env *Env, s string, truth bool, at spot) (value, *Failure) {
	if truth {
		return boolean(p.fast.MatchString(s)), nil
	}
	if !p.all {
		where := p.fast.FindStringSubmatchIndex(s)
		if where == nil {
			return null, nil
		}
		if !env.spend(sizeOfMatch * len(where)) {
			return undefined, at.tooMuch()
		}
		groups := make([]value, len(where)/2)
		for i := range groups {
			if from, to := where[2*i], where[2*i+1]; from >= 0 {
				groups[i] = text(s[from:to])
			}
		}
		return p.result(s, where[0], groups), nil
	}
	var found []value
	for _, where := range p.fast.FindAllStringIndex(s, (maxBuilt-env.built)/sizeOfMatch+1) {
		if !env.spend(sizeOfMatch) {
			return undefined, at.tooMuch()
		}
		found = append(found, text(s[where[0]:where[1]]))
	}
	return list(found), nil
}

// list is the array of all matches, or null.
func list(found []value) value {
	if found == nil {
		return null
	}
	return value{kind: kindList, lit: &composite{elements: found}}
}

// result is the array of one match, with what JavaScript adds to it.
func (p *pattern) result(s string, index int, groups []value) value {
	named := undefined
	if p.named {
		c := &composite{bare: true}
		for i, name := range p.names {
			if name != "" {
				c.members = append(c.members, member{name, groups[i]})
			}
		}
		named = value{kind: kindObject, lit: c}
	}
	return value{kind: kindList, lit: &composite{
		elements: groups,
		members:  []member{{"index", number(float64(index))}, {"input", text(s)}, {"groups", named}},
	}}
}

// units are what the slow engine reads: UTF-16 units, or characters.
func (p *pattern) units(s string) []rune {
	if !p.unicode {
		wide := make([]rune, 0, len(s))
		for _, u := range unitsOf(s) {
			wide = append(wide, rune(u))
		}
		return wide
	}
	wide := make([]rune, 0, len(s))
	for i := 0; i < len(s); {
		size, _ := step(s, i)
		if torn(s[i : i+size]) {
			wide = append(wide, rune(unitsOf(s[i : i+size])[0]))
		} else {
			r, _ := utf8.DecodeRuneInString(s[i:])
			wide = append(wide, r)
		}
		i += size
	}
	return wide
}

// unfold replaces those characters that have an ASCII or Latin-1 letter as their
// small letter, and yet are not equal to it in JavaScript, by one without case.
func (p *pattern) unfold(wide []rune) []rune {
	special := func(r rune) bool { return r == 'İ' || r == '\u212A' || r == '\u212B' || r == 'ẞ' }
	if !p.fold || !slices.ContainsFunc(wide, special) {
		return wide
	}
	plain := slices.Clone(wide)
	for i, r := range plain {
		if special(r) {
			plain[i] = '\u2603'
		}
	}
	return plain
}

func (p *pattern) findSlow(env *Env, s string, truth bool) (v value, err error) {
	defer func() { // as in newPattern
		if x := recover(); x != nil {
			v, err = undefined, fmt.Errorf("the engine panicked: %v", x)
		}
	}()
	if !env.spend(len(s)) {
		return undefined, errTooMuch
	}
	wide := p.units(s)
	searched := p.unfold(wide)
	if truth {
		ok, err := p.slow.MatchRunes(searched)
		return boolean(ok), err
	}
	var found []value
	deadline := time.Now().Add(matchTimeout)
	for from := 0; from <= len(wide); {
		m, err := p.slow.FindRunesMatchStartingAt(searched, from)
		switch {
		case err != nil:
			return undefined, err
		case m == nil:
			return list(found), nil
		case !p.all:
			return p.slowResult(env, s, wide, m)
		case !env.spend(sizeOfMatch + m.RuneLength):
			return undefined, errTooMuch
		case time.Now().After(deadline):
			return undefined, errors.New("timeout")
		}
		found = append(found, text(fromUnits(wide[m.RuneIndex:m.RuneIndex+m.RuneLength])))
		from = m.RuneIndex + m.RuneLength
		if m.RuneLength == 0 {
			from++
		}
	}
	return list(found), nil
}

func (p *pattern) slowResult(env *Env, s string, wide []rune, m *regexp2.Match) (value, error) {
	groups := make([]value, len(p.names))
	for i := range groups {
		g := m.GroupByNumber(i)
		if g == nil || len(g.Captures) == 0 {
			continue
		}
		if !env.spend(sizeOfMatch + 3*g.RuneLength) {
			return undefined, errTooMuch
		}
		groups[i] = text(fromUnits(wide[g.RuneIndex : g.RuneIndex+g.RuneLength]))
	}
	return p.result(s, length(fromUnits(wide[:m.RuneIndex])), groups), nil
}
