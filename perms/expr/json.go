package expr

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// maxJSONDepth is how deep arrays and objects of a document may nest; deeper is
// no JSON to us.
const maxJSONDepth = 1000

// view is the value of valid JSON text without white space around it. It is not
// ok when its text is too long to be built.
func (env *Env) view(raw string, document int) (value, bool) {
	switch raw[0] {
	case '{':
		return value{kind: kindJSONObject, num: float64(document), str: raw}, true
	case '[':
		return value{kind: kindJSONArray, num: float64(document), str: raw}, true
	case '"':
		inside := raw[1 : len(raw)-1]
		if strings.IndexByte(inside, '\\') < 0 {
			return text(inside), true
		}
		if !env.spend(len(inside)) {
			return undefined, false
		}
		return text(string(appendUnescaped(nil, inside))), true
	case 't':
		return boolean(true), true
	case 'f':
		return boolean(false), true
	case 'n':
		return null, true
	}
	return number(parseDecimal(raw)), true
}

// scanner walks the members of an object or the elements of an array in valid
// JSON text.
type scanner struct {
	raw        string
	object     bool
	pos        int    // where the next begins
	key        string // of the member, raw, without its quotes
	keyStart   int
	start, end int // of the value
}

// scan begins at the bracket that raw begins with.
func scan(raw string) scanner {
	return scanner{raw: raw, object: raw[0] == '{', pos: 1}
}

// next moves to the next member or element and says whether there is one. In
// valid JSON, what is not above a space is white space.
func (s *scanner) next() bool {
	raw, i := s.raw, s.pos
	for raw[i] <= ' ' || raw[i] == ',' {
		i++
	}
	if c := raw[i]; c == '}' || c == ']' {
		s.pos = i
		return false
	}
	if s.object {
		end := skipString(raw, i)
		s.keyStart = i + 1
		s.key = raw[i+1 : end-1]
		for i = end; raw[i] <= ' ' || raw[i] == ':'; i++ {
		}
	}
	s.start = i
	s.end = skipValue(raw, i)
	s.pos = s.end
	return true
}

// value is the raw text of the value.
func (s *scanner) value() string { return s.raw[s.start:s.end] }

// find is the raw text of the last member of an object that has a name.
func find(raw, name string) (string, bool) {
	found, start, end := false, 0, 0
	for s := scan(raw); s.next(); {
		if spells(s.key, name) {
			found, start, end = true, s.start, s.end
		}
	}
	return raw[start:end], found
}

// element is the raw text of an array's element.
func element(raw string, index int) (string, bool) {
	s := scan(raw)
	for ; s.next(); index-- {
		if index == 0 {
			return s.value(), true
		}
	}
	return "", false
}

// count is how many elements an array has.
func count(raw string) int {
	n := 0
	for s := scan(raw); s.next(); {
		n++
	}
	return n
}

// spells says whether raw, the inside of a JSON string, is text.
func spells(raw, text string) bool {
	switch {
	case len(raw) == len(text):
		return raw == text // an escape is longer than what it spells
	case len(raw) < len(text), len(raw) > 6*len(text), strings.IndexByte(raw, '\\') < 0:
		return false
	}
	var room [64]byte
	return string(appendUnescaped(room[:0], raw)) == text
}

// appendUnescaped appends what raw, the inside of a valid JSON string, spells.
func appendUnescaped(b []byte, raw string) []byte {
	for {
		i := strings.IndexByte(raw, '\\')
		if i < 0 {
			return append(b, raw...)
		}
		b = append(b, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, _ := hex(raw) // valid
			if raw = raw[4:]; utf16.IsSurrogate(r) {
				b = joinText(b, half(r))
			} else {
				b = utf8.AppendRune(b, r)
			}
		default:
			b = append(b, c)
		}
	}
}

// hex reads the four digits of \u.
func hex(s string) (r rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for i := range 4 {
		r <<= 4
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			r |= rune(c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r |= rune(c|0x20-'a') + 10
		default:
			return 0, false
		}
	}
	return r, true
}

func isBlank(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func skipBlank(s string, i int) int {
	for i < len(s) && isBlank(s[i]) {
		i++
	}
	return i
}

func trimBlank(s string) string {
	s = s[skipBlank(s, 0):]
	for s != "" && isBlank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// skipValue is the end of the value that begins at i, in valid JSON.
func skipValue(s string, i int) int {
	switch s[i] {
	case '"':
		return skipString(s, i)
	case '{', '[':
		for open := 0; ; {
			c := s[i]
			i++
			switch c {
			case '"':
				i = skipString(s, i-1)
			case '{', '[':
				open++
			case '}', ']':
				if open--; open == 0 {
					return i
				}
			}
		}
	}
	for i < len(s) && s[i] > ' ' && s[i] != ',' && s[i] != '}' && s[i] != ']' {
		i++
	}
	return i
}

// skipString is the end of the string that begins at i, in valid JSON.
func skipString(s string, i int) int {
	const short = 8 // most keys are; a call costs more than to look at so many bytes
	start := i + 1
	for i = start; i < start+short; i++ {
		switch s[i] {
		case '"':
			return i + 1
		case '\\':
			return skipEscaped(s, i)
		}
	}
	end := i + strings.IndexByte(s[i:], '"')
	if s[end-1] != '\\' {
		return end + 1
	}
	return skipEscaped(s, i)
}

// skipEscaped is skipString from a character inside of the string on.
func skipEscaped(s string, i int) int {
	for ; s[i] != '"'; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// index is where the members of a document are, so that a rule that reads several
// of them walks it once. Documents with more members have none.
type index struct {
	root *byte // the document's first byte
	n    int   // of members; -1 for too many
	list [16]struct{ key, keyEnd, from, to uint32 }
}

// add notes a member.
func (x *index) add(key, keyEnd, from, to int) {
	switch {
	case x == nil || x.n < 0:
		return
	case x.n == len(x.list) || uint64(to) > math.MaxUint32:
		x.n = -1
		return
	}
	e := &x.list[x.n]
	e.key, e.keyEnd, e.from, e.to = uint32(key), uint32(keyEnd), uint32(from), uint32(to)
	x.n++
}

// fill notes the members of the valid object raw.
func (x *index) fill(raw string) {
	x.root, x.n = unsafe.StringData(raw), 0
	for s := scan(raw); x.n >= 0 && s.next(); {
		x.add(s.keyStart, s.keyStart+len(s.key), s.start, s.end)
	}
}

// find is find in the view v, with the index of its document if that has one.
func (env *Env) find(v value, name string) (string, bool) {
	if document := int(v.num); document < len(env.indexes) {
		x := &env.indexes[document]
		if x.root == unsafe.StringData(v.str) && x.n >= 0 {
			for i := x.n - 1; i >= 0; i-- { // the last counts
				if e := &x.list[i]; spells(v.str[e.key:e.keyEnd], name) {
					return v.str[e.from:e.to], true
				}
			}
			return "", false
		}
	}
	return find(v.str, name)
}

// validJSON says whether s is what JSON.parse takes, in UTF-8.
func validJSON(s string) bool { return checkDocument(trimBlank(s), nil) }

// checkDocument is validJSON of text without white space around it, which fills
// the index on the way.
func checkDocument(s string, x *index) bool {
	if x != nil {
		x.root, x.n = unsafe.StringData(s), 0
	}
	i, ok := checkValue(s, 0, 0, x)
	return ok && i == len(s)
}

// The check functions return the end of what they check, which begins at i.

func checkValue(s string, i, depth int, x *index) (end int, ok bool) {
	if i >= len(s) {
		return i, false
	}
	switch s[i] {
	case '{', '[':
		return checkContainer(s, i, depth, x)
	case '"':
		return checkString(s, i)
	case 't':
		return checkWord(s, i, "true")
	case 'f':
		return checkWord(s, i, "false")
	case 'n':
		return checkWord(s, i, "null")
	}
	return checkNumber(s, i)
}

func checkContainer(s string, i, depth int, x *index) (end int, ok bool) {
	if depth == maxJSONDepth {
		return i, false
	}
	object := s[i] == '{'
	close := s[i] + 2 // '}' and ']' are two behind their partners
	i = skipBlank(s, i+1)
	if i < len(s) && s[i] == close {
		return i + 1, true
	}
	for {
		key, keyEnd := i+1, 0
		if object {
			if i >= len(s) || s[i] != '"' {
				return i, false
			}
			if i, ok = checkString(s, i); !ok {
				return i, false
			}
			keyEnd = i - 1
			if i = skipBlank(s, i); i >= len(s) || s[i] != ':' {
				return i, false
			}
			i = skipBlank(s, i+1)
		}
		from := i
		if i, ok = checkValue(s, i, depth+1, nil); !ok {
			return i, false
		}
		if object {
			x.add(key, keyEnd, from, i)
		}
		switch i = skipBlank(s, i); {
		case i >= len(s):
			return i, false
		case s[i] == close:
			return i + 1, true
		case s[i] != ',':
			return i, false
		}
		i = skipBlank(s, i+1)
	}
}

func checkString(s string, i int) (end int, ok bool) {
	start, ascii := i, true
	for i = skipPlain(s, i+1); i < len(s); i = skipPlain(s, i+1) {
		switch c := s[i]; {
		case c == '"':
			return i + 1, ascii || utf8.ValidString(s[start:i])
		case c >= utf8.RuneSelf:
			ascii = false
		case c < 0x20:
			return i, false
		case c == '\\':
			if i++; i == len(s) {
				return i, false
			}
			switch s[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex(s[i+1:]); !ok {
					return i, false
				}
				i += 4
			default:
				return i, false
			}
		}
	}
	return i, false
}

// skipPlain is where the first byte from i on is that matters in a string: a
// quote, a backslash, a control character, or one that is not ASCII. It reads
// eight bytes at a time.
func skipPlain(s string, i int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^'"'*ones, w^'\\'*ones
		// A top bit where a byte was 0 (of quote and slash), below 0x20, or above 0x7F.
		// Borrows can only add bits above the first one, which is all that counts.
		if m := ((quote-ones)&^quote | (slash-ones)&^slash | (w-0x20*ones)&^w | w) & tops; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
	}
	return i
}

func checkWord(s string, i int, word string) (end int, ok bool) {
	return i + len(word), strings.HasPrefix(s[i:], word)
}

func checkNumber(s string, i int) (end int, ok bool) {
	if s[i] == '-' {
		i++
	}
	whole := i
	if i = skipDigits(s, i); i == whole || s[whole] == '0' && i > whole+1 {
		return i, false
	}
	if i < len(s) && s[i] == '.' {
		fraction := i + 1
		if i = skipDigits(s, fraction); i == fraction {
			return i, false
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		exponent := i
		if i = skipDigits(s, i); i == exponent {
			return i, false
		}
	}
	return i, true
}

func skipDigits(s string, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}
