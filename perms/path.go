package perms

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// path is a compiled path pattern (spec 07 §2): `*` is any text, `$name` is
// some text without a slash, and all else is itself.
type path struct {
	text string
	// length is what paths are compared by: characters as JavaScript counts them.
	length int
	// prefix and suffix are the literals around the wildcards. Without a
	// wildcard, prefix is the whole path.
	prefix, suffix string
	wild           wildness
	// full matches paths with several wildcards; it runs in time proportional to
	// the name, whatever the path.
	full *regexp.Regexp
	// vars are the variables with their $, each once, and groups says which
	// of the path's captures each one is: the last of that name.
	vars   []string
	groups []int
}

type wildness uint8

const (
	wildNone wildness = iota
	wildStar          // one *
	wildVar           // one $name
	wildMany
)

// compilePath checks and compiles a path. The errors say what to do.
func compilePath(text string) (*path, error) {
	switch {
	case text == "":
		return nil, errors.New(`is empty: "*" matches every name`)
	case !utf8.ValidString(text):
		return nil, errors.New("is not UTF-8 text")
	case text[0] == '/':
		return nil, errors.New("begins with a slash: leave it out, names have none there")
	}
	p := &path{text: text, length: len(utf16.Encode([]rune(text)))}
	var expr strings.Builder
	expr.WriteString(`\A`)
	wildcards, captures, literal := 0, 0, 0 // literal: where the current one began
	flush := func(end int) {
		if wildcards == 0 {
			p.prefix = text[:end]
		}
		expr.WriteString(regexp.QuoteMeta(text[literal:end]))
	}
	for i := 0; i < len(text); {
		switch text[i] {
		case '*':
			flush(i)
			p.wild = wildStar
			expr.WriteString(`(?s:.*)`)
			i++
		case '$':
			n := 1
			for i+n < len(text) && isVarChar(text[i+n]) {
				n++
			}
			if n == 1 {
				return nil, fmt.Errorf("has a $ at character %d that no letter or digit follows: name the variable, such as $id",
					utf8.RuneCountInString(text[:i])+1)
			}
			flush(i)
			p.wild = wildVar
			p.capture(text[i:i+n], captures)
			captures++
			expr.WriteString(`([^/]+)`)
			i += n
		default:
			i++
			continue
		}
		wildcards++
		literal = i
	}
	flush(len(text))
	if wildcards > 0 {
		p.suffix = text[literal:]
	}
	if wildcards > 1 {
		p.wild = wildMany
		expr.WriteString(`\z`)
		var err error
		if p.full, err = regexp.Compile(expr.String()); err != nil {
			return nil, fmt.Errorf("has too many wildcards: %w", err)
		}
	}
	return p, nil
}

// capture notes that the nth capture is a variable.
func (p *path) capture(name string, n int) {
	if i := slices.Index(p.vars, name); i >= 0 {
		p.groups[i] = n
		return
	}
	p.vars, p.groups = append(p.vars, name), append(p.groups, n)
}

// values are what the variables stand for in a name that matches, as pieces of it.
func (p *path) values(name string) []string {
	switch {
	case len(p.vars) == 0:
		return nil
	case p.wild == wildVar:
		return []string{name[len(p.prefix) : len(name)-len(p.suffix)]}
	}
	captured := p.full.FindStringSubmatch(name)
	values := make([]string, len(p.vars))
	for i, group := range p.groups {
		values[i] = captured[1+group]
	}
	return values
}

func isVarChar(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// matches says whether the whole name fits the path.
func (p *path) matches(name string) bool {
	if p.wild == wildNone {
		return name == p.text
	}
	if len(name) < len(p.prefix)+len(p.suffix) || !strings.HasPrefix(name, p.prefix) || !strings.HasSuffix(name, p.suffix) {
		return false
	}
	switch p.wild {
	case wildStar:
		return true
	case wildVar:
		middle := name[len(p.prefix) : len(name)-len(p.suffix)]
		return middle != "" && !strings.Contains(middle, "/")
	}
	return p.full.MatchString(name)
}

// covers says whether p surely matches every name that other matches.
func (p *path) covers(other *path) bool {
	if !strings.HasPrefix(other.prefix, p.prefix) { // most often
		return false
	}
	a, b := p.pieces(), other.pieces()
	// fits[i][j]: the pieces of p from i on match those of other from j on.
	fits := make([][]bool, len(a)+1)
	for i := range fits {
		fits[i] = make([]bool, len(b)+1)
	}
	for i := len(a); i >= 0; i-- {
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a):
				fits[i][j] = j == len(b)
			case a[i] == "*":
				fits[i][j] = fits[i+1][j] || j < len(b) && fits[i][j+1]
			case j == len(b) || b[j] == "*":
			case a[i][0] == '$' && len(a[i]) > 1:
				fits[i][j] = b[j] != "/" && (fits[i+1][j+1] || fits[i][j+1])
			default:
				fits[i][j] = a[i] == b[j] && fits[i+1][j+1]
			}
		}
	}
	return fits[0][0]
}

// pieces are the path's wildcards, and the bytes between them.
func (p *path) pieces() []string {
	var list []string
	for i := 0; i < len(p.text); {
		n := 1
		if p.text[i] == '$' {
			for i+n < len(p.text) && isVarChar(p.text[i+n]) {
				n++
			}
		}
		list = append(list, p.text[i:i+n])
		i += n
	}
	return list
}

// sample is a name that matches the path, with text that no other path would spell
// out where the wildcards are.
func (p *path) sample() string {
	var b strings.Builder
	for _, piece := range p.pieces() {
		if piece == "*" || len(piece) > 1 {
			piece = "\u00b7"
		}
		b.WriteString(piece)
	}
	return b.String()
}
