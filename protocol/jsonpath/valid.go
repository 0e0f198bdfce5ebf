package jsonpath

import (
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects of a document may nest. Readers that
// recurse (most do, here and in clients) are safe below it.
const MaxDepth = 1000

// What Kind returns.
const (
	None   byte = 0 // no text
	Object byte = '{'
	Array  byte = '['
	Scalar byte = 's'
)

// Kind says what the JSON text s is, by its first character; s is not checked.
func Kind(s string) byte {
	i := blank(s, 0)
	switch {
	case i == len(s):
		return None
	case s[i] == Object || s[i] == Array:
		return s[i]
	}
	return Scalar
}

// Unquote is the text that the JSON string s stands for. Half of a surrogate pair,
// which no text can hold, becomes U+FFFD, as when JavaScript sends it. It is false if
// s is no JSON string. A string without escapes is a view into s.
func Unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' || validString(s, 0) != len(s) {
		return "", false
	}
	s = s[1 : len(s)-1]
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s, true
	}
	text := make([]byte, 0, len(s))
	for ; i >= 0; i = strings.IndexByte(s, '\\') {
		r, n := unescape(s[i:])
		text = utf8.AppendRune(append(text, s[:i]...), r)
		s = s[i+n:]
	}
	return string(append(text, s...)), true
}

// depth is how deep the containers of value nest: 0 for a scalar. It is
// ErrInvalid for text that cannot be JSON, not for all that is not.
func depth(value string) (int, error) {
	i := blank(value, 0)
	end, err := skip(value, i)
	if err != nil || blank(value, end) != len(value) {
		return 0, ErrInvalid
	}
	if Kind(value) == Scalar {
		return 0, nil
	}
	open, most := 0, 0
	for ; i < end; i++ {
		switch value[i] {
		case '"':
			i = skipString(value, i) - 1
		case '{', '[':
			open++
			most = max(most, open)
		case '}', ']':
			open--
		}
	}
	return most, nil
}

// ValidJSON says whether s is one JSON value as RFC 8259 has it (what
// JSON.parse takes), in UTF-8 and nested at most MaxDepth. It does not recurse.
func ValidJSON(s string) bool {
	var objects [(MaxDepth + 63) / 64]uint64 // one bit a level: object or array
	level := 0
	i := blank(s, 0)
	for {
		// A value begins at i.
		if i >= len(s) {
			return false
		}
		switch c := s[i]; c {
		case '{', '[':
			if level == MaxDepth {
				return false
			}
			bit := uint64(1) << (level % 64)
			objects[level/64] &^= bit
			if c == '{' {
				objects[level/64] |= bit
			}
			level++
			i = blank(s, i+1)
			if i < len(s) && s[i] == c+2 { // the brackets are two apart in ASCII
				break // empty: the loop below closes it
			}
			if c == '{' {
				if i = validKey(s, i); i < 0 {
					return false
				}
			}
			continue
		case '"':
			i = validString(s, i)
		case 't':
			i = validWord(s, i, "true")
		case 'f':
			i = validWord(s, i, "false")
		case 'n':
			i = validWord(s, i, "null")
		default:
			i = validNumber(s, i)
		}
		if i < 0 {
			return false
		}
		// A value, or an opening bracket without members, ended at i.
		for {
			i = blank(s, i)
			if level == 0 {
				return i == len(s)
			}
			if i == len(s) {
				return false
			}
			object := objects[(level-1)/64]>>((level-1)%64)&1 == 1
			if s[i] == ',' {
				i = blank(s, i+1)
				if object {
					if i = validKey(s, i); i < 0 {
						return false
					}
				}
				break
			}
			if object && s[i] != '}' || !object && s[i] != ']' {
				return false
			}
			level--
			i++
		}
	}
}

// The valid functions return where the text after theirs begins, or -1.

func validKey(s string, i int) int {
	if i >= len(s) || s[i] != '"' {
		return -1
	}
	if i = validString(s, i); i < 0 {
		return -1
	}
	if i = blank(s, i); i == len(s) || s[i] != ':' {
		return -1
	}
	return blank(s, i+1)
}

func validString(s string, i int) int {
	start := i
	ascii := true
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if !ascii && !utf8.ValidString(s[start:i]) {
				return -1
			}
			return i + 1
		case c < 0x20:
			return -1
		case c == '\\':
			_, n := unescape(s[i:])
			if n == 0 {
				return -1
			}
			i += n - 1
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return -1
}

func validWord(s string, i int, word string) int {
	if len(s)-i < len(word) || s[i:i+len(word)] != word {
		return -1
	}
	return i + len(word)
}

func validNumber(s string, i int) int {
	if i < len(s) && s[i] == '-' {
		i++
	}
	start := i
	if i = digits(s, i); i == start || s[start] == '0' && i > start+1 {
		return -1
	}
	if i < len(s) && s[i] == '.' {
		start = i + 1
		if i = digits(s, start); i == start {
			return -1
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		start = i
		if i = digits(s, i); i == start {
			return -1
		}
	}
	return i
}

func digits(s string, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}
