package listen

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// linearName is the longest name matched by a linear expression: its time grows
// with pattern times name, and nothing interrupts it.
const linearName = 1024

// linear returns an expression of the standard library that matches the same
// names as the JavaScript one in text, or nil where it cannot be sure. Nearly all
// patterns in use are of this kind (literals, classes, groups, alternatives,
// repetition); they are then matched in linear time, which no author of a pattern
// can spoil. Only whether there is a match counts here, so greediness and
// capturing make no difference. The caller has checked that text is valid.
func linear(text string) *regexp.Regexp {
	if !utf8.ValidString(text) {
		return nil
	}
	var b strings.Builder
	depth, atom := 0, false // atom: a quantifier may follow
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		rest := text[i+size:]
		switch r {
		case '\\':
			s, ok := escape(rest)
			if !ok {
				return nil
			}
			b.WriteString(s)
			size, atom = 2, true
		case '.':
			b.WriteString(`[^\n\r\x{2028}\x{2029}]`)
			atom = true
		case '^', '$':
			b.WriteRune(r)
			atom = false
		case '(':
			if strings.HasPrefix(rest, "?") {
				if !strings.HasPrefix(rest, "?:") {
					return nil
				}
				size = 3
			}
			b.WriteString("(?:")
			depth++
			atom = false
		case ')':
			if depth--; depth < 0 {
				return nil
			}
			b.WriteByte(')')
			atom = true
		case '|':
			b.WriteByte('|')
			atom = false
		case '*', '+', '?':
			if !atom {
				return nil
			}
			b.WriteRune(r)
			if strings.HasPrefix(rest, "?") {
				size = 2
			}
			atom = false
		case '[':
			s, n, ok := class(rest)
			if !ok {
				return nil
			}
			b.WriteString(s)
			size, atom = 1+n, true
		case '{', '}', ']':
			return nil
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
			atom = true
		}
		i += size
	}
	if depth != 0 {
		return nil
	}
	re, err := regexp.Compile(b.String())
	if err != nil { // a nesting it does not like: the other engine has the word
		return nil
	}
	return re
}

// escape translates what follows a backslash; it is always one byte.
func escape(rest string) (string, bool) {
	if rest == "" {
		return "", false
	}
	switch c := rest[0]; c {
	case 'd':
		return "[0-9]", true
	case 'D':
		return "[^0-9]", true
	case 'w':
		return "[0-9A-Za-z_]", true
	case 'W':
		return "[^0-9A-Za-z_]", true
	case '.', '*', '+', '?', '^', '$', '|', '(', ')', '[', ']', '{', '}', '/', '\\', '-':
		return regexp.QuoteMeta(string(c)), true
	}
	return "", false
}

// class translates a character class; rest begins after its opening bracket, n is
// how many bytes it takes up to the closing one.
func class(rest string) (s string, n int, ok bool) {
	var b strings.Builder
	b.WriteByte('[')
	i := 0
	if strings.HasPrefix(rest, "^") {
		b.WriteByte('^')
		i = 1
	}
	members := 0
	for i < len(rest) {
		c := rest[i]
		switch {
		case c == ']':
			if members == 0 {
				return "", 0, false
			}
			b.WriteByte(']')
			return b.String(), i + 1, true
		case alnum(c):
			b.WriteByte(c)
			i++
			if i+1 < len(rest) && rest[i] == '-' && rest[i+1] != ']' {
				hi := rest[i+1]
				if !alnum(hi) || hi < c {
					return "", 0, false
				}
				b.WriteByte('-')
				b.WriteByte(hi)
				i += 2
			}
		case c == '-' && i+1 < len(rest) && rest[i+1] == ']': // the last member
			b.WriteString(`\-`)
			i++
		case strings.IndexByte("_/.:,@+*#%!=~ ", c) >= 0:
			if i+1 < len(rest) && rest[i+1] == '-' && !strings.HasPrefix(rest[i+2:], "]") { // a range from here
				return "", 0, false
			}
			b.WriteString(regexp.QuoteMeta(string(c)))
			i++
		case c == '\\' && i+1 < len(rest):
			if i+2 < len(rest) && rest[i+2] == '-' {
				return "", 0, false
			}
			switch e := rest[i+1]; e {
			case 'd':
				b.WriteString("0-9")
			case 'w':
				b.WriteString("0-9A-Za-z_")
			case '.', '/', '-', ']', '[', '\\', '^', '$':
				b.WriteByte('\\')
				b.WriteByte(e)
			default:
				return "", 0, false
			}
			i += 2
		default:
			return "", 0, false
		}
		members++
	}
	return "", 0, false
}

func alnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
