package jsonpath

import (
	"unicode/utf16"
	"unicode/utf8"
)

// scanner walks the members of an object or the elements of an array in valid
// JSON text. On other text it ends with an error or with nonsense, but it ends.
type scanner struct {
	doc    string
	object bool
	pos    int // where the next member, or the end, is looked for

	key        string // of the member, raw, without its quotes
	start, end int    // of the value
	after      int    // where a new member would be put
	close      int    // of the comma or bracket behind the value
	count      int    // of the members seen
	err        error
}

// scan begins at the bracket at i.
func scan(doc string, i int) scanner {
	return scanner{doc: doc, object: doc[i] == '{', pos: i + 1, after: i + 1}
}

// next moves to the next member and says whether there is one.
func (s *scanner) next() bool {
	if s.err != nil || s.pos < 0 {
		return false
	}
	i := blank(s.doc, s.pos)
	if s.count == 0 && i < len(s.doc) && s.doc[i] == s.bracket() {
		s.close, s.pos = i, -1
		return false
	}
	if s.object {
		if i = s.readKey(i); s.err != nil {
			return false
		}
	}
	end, err := skip(s.doc, i)
	if err != nil {
		s.err = err
		return false
	}
	s.start, s.end, s.after = i, end, end
	s.count++
	s.close = blank(s.doc, end)
	switch {
	case s.close < len(s.doc) && s.doc[s.close] == ',':
		s.pos = s.close + 1
	case s.close < len(s.doc) && s.doc[s.close] == s.bracket():
		s.pos = -1
	default:
		s.err = ErrInvalid
		return false
	}
	return true
}

// readKey reads the key at i and its colon, and returns where the value is.
func (s *scanner) readKey(i int) int {
	if i >= len(s.doc) || s.doc[i] != '"' {
		s.err = ErrInvalid
		return i
	}
	end := skipString(s.doc, i)
	if end < 0 {
		s.err = ErrInvalid
		return i
	}
	s.key = s.doc[i+1 : end-1]
	i = blank(s.doc, end)
	if i >= len(s.doc) || s.doc[i] != ':' {
		s.err = ErrInvalid
		return i
	}
	return blank(s.doc, i+1)
}

func (s *scanner) bracket() byte {
	if s.object {
		return '}'
	}
	return ']'
}

// blank steps over JSON white space.
func blank(doc string, i int) int {
	for i < len(doc) && (doc[i] == ' ' || doc[i] == '\n' || doc[i] == '\t' || doc[i] == '\r') {
		i++
	}
	return i
}

// skip returns the end of the value at i.
func skip(doc string, i int) (int, error) {
	if i >= len(doc) {
		return 0, ErrInvalid
	}
	switch doc[i] {
	case '"':
		if end := skipString(doc, i); end >= 0 {
			return end, nil
		}
	case '{', '[':
		if end := skipContainer(doc, i); end >= 0 {
			return end, nil
		}
	default:
		end := i
		for end < len(doc) && !endsScalar(doc[end]) {
			end++
		}
		if end > i {
			return end, nil
		}
	}
	return 0, ErrInvalid
}

func endsScalar(c byte) bool {
	switch c {
	case ',', ']', '}', ':', ' ', '\n', '\t', '\r':
		return true
	}
	return false
}

// skipString returns the end of the string at i, or -1.
func skipString(doc string, i int) int {
	for i++; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// skipContainer returns the end of the object or array at i, or -1.
func skipContainer(doc string, i int) int {
	for open := 0; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			end := skipString(doc, i)
			if end < 0 {
				return -1
			}
			i = end - 1
		case '{', '[':
			open++
		case '}', ']':
			if open--; open == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// same says whether raw, the inside of a JSON string, spells key.
func same(raw, key string) bool {
	if len(raw) < len(key) {
		return false // an escape is never shorter than what it spells
	}
	i := 0
	for ; i < len(raw); i++ {
		if raw[i] == '\\' {
			return sameEscaped(raw[i:], key[i:])
		}
		if i >= len(key) || raw[i] != key[i] {
			return false
		}
	}
	return i == len(key)
}

// sameEscaped is same for text with escapes. Half a surrogate pair spells
// nothing that a path can name.
func sameEscaped(raw, key string) bool {
	for raw != "" {
		if key == "" {
			return false
		}
		if raw[0] != '\\' {
			if raw[0] != key[0] {
				return false
			}
			raw, key = raw[1:], key[1:]
			continue
		}
		r, n := unescape(raw)
		if n == 0 {
			return false
		}
		k, size := utf8.DecodeRuneInString(key)
		if r != k || utf16.IsSurrogate(r) {
			return false
		}
		raw, key = raw[n:], key[size:]
	}
	return key == ""
}

// unescape reads the escape that s begins with; n is 0 when it is none.
func unescape(s string) (r rune, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(s[2:])
		if !ok {
			return 0, 0
		}
		if utf16.IsSurrogate(r) && len(s) >= 8 && s[6] == '\\' && s[7] == 'u' {
			if low, ok := hex4(s[8:]); ok {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					return pair, 12
				}
			}
		}
		return r, 6
	}
	return 0, 0
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
