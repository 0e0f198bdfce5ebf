// Package jsonpath reads and changes places inside a record: the paths of spec
// 08 §6, applied to raw JSON text.
//
// # Meaning
//
// A path means here what it means in the JavaScript client, because a patch is
// relayed as it came and every subscriber applies it for itself: what we would
// read differently drives clients apart for good. So keys and indexes mean what
// they would on a JavaScript value, scalars and null in the way are replaced,
// and removing a place creates its parents, as client and peer do. What the
// client would lose, spread over a giant array, or take for something else is
// refused instead, and a refused patch is relayed to nobody.
//
// # Text
//
// A change touches the bytes of its own place and no others: members keep their
// order, numbers their digits. Nothing here recurses, and paths and documents
// have a greatest depth, so no input can exhaust a stack. Of members of one name
// the last counts, as in JSON.parse.
package jsonpath

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Why a path is no path, or cannot be applied to a document. All but ErrInvalid
// are the writer's mistakes.
var (
	// ErrEmpty is a path of no keys at all ("", "."): the peer would write a
	// member named undefined.
	ErrEmpty = errors.New("jsonpath: empty path")
	// ErrForbidden is a key that names the prototype of a JavaScript object.
	ErrForbidden = errors.New("jsonpath: forbidden key")
	// ErrIndex is an index that is no plain decimal number, or greater than
	// MaxIndex.
	ErrIndex = errors.New("jsonpath: bad index")
	// ErrArray is a key on an array: JavaScript sets a property there, which is
	// lost as soon as the array is written as JSON (or, for "length", cuts it).
	ErrArray = errors.New("jsonpath: key on an array")
	// ErrDeep is a path of more than MaxTokens, or a value that would lie
	// deeper than MaxDepth.
	ErrDeep = errors.New("jsonpath: too deep")
	// ErrUTF8 is a path that is not UTF-8.
	ErrUTF8 = errors.New("jsonpath: path is not UTF-8")
	// ErrInvalid is a document or value that is not JSON.
	ErrInvalid = errors.New("jsonpath: invalid JSON")
)

// The bounds. A change of one place makes a document longer by at most the
// value, the keys of the path and five bytes for each of MaxIndex filled gaps.
const (
	// MaxIndex is the greatest index, and the most gaps that one change fills.
	MaxIndex = 100_000
	// MaxTokens is the most keys and indexes of a path. It bounds the work too:
	// each of them is a walk over the container it selects in.
	MaxTokens = 128
)

// Path is a parsed path. The zero Path is none and must not be applied.
type Path struct{ tokens []token }

// token is one step: a key, or an index when isIndex.
type token struct {
	key     string // of an index, its decimal: the member it names on an object
	index   int
	isIndex bool
}

// Parse reads a path (spec 08 §6). The error wraps ErrEmpty, ErrForbidden,
// ErrIndex, ErrDeep or ErrUTF8.
//
// The peer turns whatever stands in brackets into a JavaScript number. Here it
// must be decimal digits, blanks around them allowed: negative and non-numeric
// indexes are lost on arrays, and what is left of JavaScript's numbers (`[1e3]`,
// `[0x10]`, `[ ]`) nobody means. Fractions there are none: dots split first.
func Parse(path string) (Path, error) {
	if !utf8.ValidString(path) {
		return Path{}, ErrUTF8
	}
	tokens := make([]token, 0, 4)
	for segment := range strings.SplitSeq(path, ".") {
		segment = strings.TrimFunc(segment, isBlank)
		if segment == "" {
			continue
		}
		key, rest := cutBracket(segment)
		switch key {
		case "__proto__", "constructor", "prototype":
			return Path{}, fmt.Errorf("%w: %s", ErrForbidden, key)
		}
		tokens = append(tokens, token{key: key})
		for rest != "" {
			var piece string
			if piece, rest = cutBracket(rest); piece == "" {
				continue
			}
			t, err := parseIndex(piece)
			if err != nil {
				return Path{}, err
			}
			tokens = append(tokens, t)
		}
		if len(tokens) > MaxTokens {
			return Path{}, fmt.Errorf("%w: more than %d keys", ErrDeep, MaxTokens)
		}
	}
	if len(tokens) == 0 {
		return Path{}, ErrEmpty
	}
	return Path{tokens}, nil
}

// Len is how many keys and indexes the path has.
func (p Path) Len() int { return len(p.tokens) }

// cutBracket cuts s at its first bracket, of either kind.
func cutBracket(s string) (before, after string) {
	i := strings.IndexAny(s, "[]")
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func parseIndex(piece string) (token, error) {
	digits := strings.TrimFunc(piece, isBlank)
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return token{}, fmt.Errorf("%w: %q is not a plain number", ErrIndex, piece)
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n > MaxIndex {
		return token{}, fmt.Errorf("%w: %s is greater than %d", ErrIndex, digits, MaxIndex)
	}
	return token{key: strconv.Itoa(n), index: n, isIndex: true}, nil
}

// isBlank says whether JavaScript's trim removes r.
func isBlank(r rune) bool {
	return r == '\ufeff' || r != '\u0085' && unicode.IsSpace(r)
}

// element is the index that t selects on an array that is there: a key counts
// when it is an index in decimal (`pets.0`), as property access has it.
func (t *token) element() (int, bool) {
	if t.isIndex {
		return t.index, true
	}
	if t.key == "" || t.key[0] == '0' && t.key != "0" || strings.Trim(t.key, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(t.key)
	if err != nil {
		n = MaxIndex + 1 // an index, but none that is allowed
	}
	return n, true
}
