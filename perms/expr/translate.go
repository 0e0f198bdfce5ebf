package expr

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// translation is what is known of a regular expression of JavaScript.
type translation struct {
	// text is the same for Go's engine, over ASCII text; only if linear.
	text   string
	linear bool
	empty  bool     // it may match no text at all
	stale  bool     // see pattern
	names  []string // of its groups, empty for those without one
}

// translate reads the structure of an expression. It refuses what the slow engine
// would take for something of its own, which JavaScript does not have; the rest
// of the grammar it leaves to that engine. Where the structure, or one detail, has
// no sure equivalent in Go's engine, the result is not linear.
//
// The two engines agree on what they prefer, leftmost and first alternative. They
// differ in repetitions: JavaScript gives up a round that matched nothing, and
// forgets the groups inside at the begin of each round. So what is repeated here
// must match something, and hold no group.
func translate(source, flags string) (translation, error) {
	t := translator{s: source, linear: true, fold: strings.Contains(flags, "i"), dotAll: strings.Contains(flags, "s")}
	t.linear = !strings.ContainsAny(flags, "mu")
	t.unicode = strings.Contains(flags, "u")
	p, err := t.alternatives(0)
	if err != nil {
		return translation{}, err
	}
	if t.pos < len(source) {
		return translation{}, errors.New("a ) has no partner: write \\)")
	}
	if t.stale && t.backward {
		return translation{}, errStale
	}
	if t.fold && (t.unicode || t.beyond) {
		return translation{}, errors.New("the flag i stands for ASCII and Latin-1 letters, which have to be written as such, and without the flag u: write other letters in both cases")
	}
	prefix := ""
	if t.fold {
		prefix = "(?i)"
	}
	return translation{text: prefix + p.text, linear: t.linear, empty: p.empty, stale: t.stale, names: t.names}, nil
}

// translator is a recursive descent over the expression.
type translator struct {
	s                     string
	pos                   int
	linear, stale         bool
	backward              bool // it refers back to a group
	beyond                bool // it has characters that are not looked for without case alike
	fold, dotAll, unicode bool
	names                 []string
}

// part is a part of the expression.
type part struct {
	text   string
	empty  bool // it may match nothing
	groups int  // it has inside
	group  bool // it is one itself
	fixed  bool // an assertion, which may not be repeated
}

func (t *translator) more() bool { return t.pos < len(t.s) }

func (t *translator) have(prefix string) bool {
	if strings.HasPrefix(t.s[t.pos:], prefix) {
		t.pos += len(prefix)
		return true
	}
	return false
}

func (t *translator) alternatives(depth int) (part, error) {
	if depth > 50 {
		return part{}, errors.New("its groups nest too deep")
	}
	var all part
	var b strings.Builder
	for {
		p, err := t.sequence(depth)
		if err != nil {
			return part{}, err
		}
		b.WriteString(p.text)
		all.empty = all.empty || p.empty
		all.groups += p.groups
		if !t.have("|") {
			all.text = b.String()
			return all, nil
		}
		b.WriteByte('|')
	}
}

func (t *translator) sequence(depth int) (part, error) {
	all := part{empty: true}
	var b strings.Builder
	for t.more() && t.s[t.pos] != '|' && t.s[t.pos] != ')' {
		p, err := t.term(depth)
		if err != nil {
			return part{}, err
		}
		if p, err = t.quantified(p); err != nil {
			return part{}, err
		}
		b.WriteString(p.text)
		all.empty = all.empty && p.empty
		all.groups += p.groups
	}
	all.text = b.String()
	return all, nil
}

// quantified reads the quantifier behind p, if there is one.
func (t *translator) quantified(p part) (part, error) {
	if !t.more() {
		return p, nil
	}
	q, least, most := "", 0, -1
	switch t.s[t.pos] {
	case '*':
		q = "*"
	case '+':
		q, least = "+", 1
	case '?':
		q, most = "?", 1
	case '{':
		m := braces.FindStringSubmatch(t.s[t.pos:])
		if m == nil {
			t.linear = false // an ordinary character, or a mistake
			return p, nil
		}
		q = m[0]
		var err error
		if least, err = strconv.Atoi(m[1]); err != nil || least > 1000 {
			t.linear = false
		}
		switch {
		case m[2] == "":
			most = least
		case m[3] != "":
			if most, err = strconv.Atoi(m[3]); err != nil || most > 1000 {
				t.linear = false
			}
		}
	default:
		return p, nil
	}
	t.pos += len(q)
	if t.have("?") {
		q += "?"
	}
	if t.more() && strings.IndexByte("*+?", t.s[t.pos]) >= 0 {
		return part{}, fmt.Errorf("%c has nothing to repeat: write \\%c for the character", t.s[t.pos], t.s[t.pos])
	}
	once := least == 0 && most == 1 || least == 1 && most == 1
	if p.empty || p.fixed {
		t.linear = false
	}
	// A group that is repeated as a whole is set anew in each round.
	if p.groups > 1 && !once || p.groups > 0 && !once && !p.group || p.group && p.empty {
		t.linear, t.stale = false, true
	}
	p.text += q
	p.empty = p.empty || least == 0
	p.group, p.fixed = false, false
	return p, nil
}

var braces = regexp.MustCompile(`^\{(\d+)(,(\d*))?\}`)

func (t *translator) term(depth int) (part, error) {
	r, size := utf8.DecodeRuneInString(t.s[t.pos:])
	t.pos += size
	switch r {
	case '^':
		return part{text: `\A`, empty: true, fixed: true}, nil
	case '$':
		return part{text: `\z`, empty: true, fixed: true}, nil
	case '.':
		if t.dotAll {
			return part{text: `(?s:.)`}, nil
		}
		return part{text: `[^\n\r]`}, nil
	case '(':
		return t.group(depth)
	case '[':
		return t.class()
	case '\\':
		return t.escape(false)
	case '*', '+', '?':
		return part{}, fmt.Errorf("%c has nothing to repeat: write \\%c for the character", r, r)
	case '{', '}', ']':
		t.linear = false
		return part{}, nil
	}
	return part{text: t.quote(r, size)}, nil
}

// quote is an ordinary character.
func (t *translator) quote(r rune, size int) string {
	if r >= utf8.RuneSelf && (t.fold || r == utf8.RuneError && size == 1) {
		t.linear = false
		t.beyond = t.beyond || r < 0xC0 || r > 0xFF
		return ""
	}
	return regexp.QuoteMeta(string(r))
}

func (t *translator) group(depth int) (part, error) {
	open, empty, capture := "(?:", false, false
	switch {
	case !strings.HasPrefix(t.s[t.pos:], "?"):
		open, capture = "(", true
		t.names = append(t.names, "")
	case t.have("?:"):
	case t.have("?="), t.have("?!"), t.have("?<="), t.have("?<!"):
		t.linear, empty = false, true
	case t.have("?<"):
		end := strings.IndexByte(t.s[t.pos:], '>')
		if end < 1 || !groupName.MatchString(t.s[t.pos:t.pos+end]) {
			return part{}, errors.New("the name of a group is missing or has signs in it: write (?<name>…)")
		}
		open, capture = "(", true
		t.names = append(t.names, t.s[t.pos:t.pos+end])
		t.pos += end + 1
	default:
		return part{}, errors.New("what follows (? is unknown to JavaScript: write (?:…), (?=…), (?!…), (?<=…), (?<!…) or (?<name>…)")
	}
	p, err := t.alternatives(depth + 1)
	if err != nil {
		return part{}, err
	}
	if !t.have(")") {
		return part{}, errors.New("a ( has no partner: write \\( for the character")
	}
	p.text = open + p.text + ")"
	p.empty = p.empty || empty
	p.group = capture
	if capture {
		p.groups++
	}
	return p, nil
}

var groupName = regexp.MustCompile(`^[A-Za-z_$][A-Za-z0-9_$]*$`)

// escape reads what follows a backslash, inside of a class or not.
func (t *translator) escape(class bool) (part, error) {
	if !t.more() {
		return part{}, errors.New("it ends in a backslash: write \\\\ for the character")
	}
	r, size := utf8.DecodeRuneInString(t.s[t.pos:])
	t.pos += size
	switch r {
	case 'd', 'D', 'w', 'W':
		if class && r < 'a' || t.fold {
			t.linear = false
		}
		return part{text: `\` + string(r)}, nil
	case 's', 'S':
		if class {
			t.linear = false
		}
		text := `[\t\n\v\f\r ]`
		if r == 'S' {
			text = `[^\t\n\v\f\r ]`
		}
		return part{text: text}, nil
	case 'b', 'B':
		if class {
			t.linear = false
		}
		return part{text: `\` + string(r), empty: true, fixed: true}, nil
	case 'f', 'n', 'r', 't', 'v':
		return part{text: `\` + string(r)}, nil
	case 'k':
		t.linear, t.backward = false, true
		return part{empty: true}, nil
	case 'p', 'P':
		if !t.unicode {
			return part{}, errors.New("\\p needs the flag u")
		}
		t.linear = false
		return part{}, nil
	case 'c', 'u', 'x', '0':
		t.linear, t.beyond = false, true
		return part{}, nil
	}
	switch {
	case r >= '1' && r <= '9':
		t.linear, t.backward = false, true
		return part{empty: true}, nil
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return part{}, fmt.Errorf("\\%c means nothing in JavaScript: leave out the backslash", r)
	}
	return part{text: t.quote(r, size)}, nil
}

// class reads a class of characters behind its opening bracket.
func (t *translator) class() (part, error) {
	var b strings.Builder
	b.WriteByte('[')
	if t.have("^") {
		b.WriteByte('^')
	}
	members, ranged := 0, false // ranged: the last member ended a range
	for t.more() {
		if t.have("]") {
			if members == 0 {
				t.linear = false // all characters, or none
			}
			b.WriteByte(']')
			return part{text: b.String()}, nil
		}
		members++
		r, size := utf8.DecodeRuneInString(t.s[t.pos:])
		t.pos += size
		switch {
		case r == '\\':
			p, err := t.escape(true)
			if err != nil {
				return part{}, err
			}
			if p.text == "-" {
				p.text = `\-`
			}
			b.WriteString(p.text)
			ranged = false
			if strings.HasPrefix(t.s[t.pos:], "-") && !strings.HasPrefix(t.s[t.pos:], "-]") {
				t.linear = false // a range of escapes
			}
		case r == '-':
			next := byte(0)
			if t.more() {
				next = t.s[t.pos]
			}
			switch {
			case members == 1 || next == ']': // the character
				b.WriteString(`\-`)
			case ranged || !plain(next) || !plain(t.s[t.pos-2]) || t.s[t.pos-2] > next:
				t.linear = false
				t.beyond = t.beyond || next >= utf8.RuneSelf
			default:
				b.WriteByte('-')
				b.WriteByte(next)
				t.pos++
				ranged = true
			}
		case r == '[' || r == '&' || r == '^':
			b.WriteString(`\` + string(r))
			ranged = false
		default:
			b.WriteString(t.quote(r, size))
			ranged = false
		}
	}
	return part{}, errors.New("a [ has no partner: write \\[ for the character")
}

// plain are the characters that begin and end ranges.
func plain(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
