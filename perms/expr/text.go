package expr

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// Text is WTF-8: half a surrogate pair takes three bytes, as UTF-8 would write its
// number, and two halves that meet are one character of four bytes. Everything
// here counts UTF-16 units, as JavaScript does, and takes any bytes: one that is
// no part of a character is a unit.

// step is the size of the character at s[i], and its UTF-16 units.
func step(s string, i int) (size, units int) {
	switch c := s[i]; {
	case c < 0xC0:
		return 1, 1
	case c < 0xE0:
		size, units = 2, 1
	case c < 0xF0:
		size, units = 3, 1
	default:
		size, units = 4, 2
	}
	if size > len(s)-i { // cut short
		return 1, 1
	}
	return size, units
}

// leadingASCII is how many bytes s begins with that are characters of one byte.
func leadingASCII(s string) int {
	const tops = 0x8080808080808080
	b, i := unsafe.Slice(unsafe.StringData(s), len(s)), 0
	for ; i+8 <= len(b); i += 8 {
		if m := binary.LittleEndian.Uint64(b[i:]) & tops; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for i < len(b) && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

func isASCII(s string) bool { return leadingASCII(s) == len(s) }

// length is how many units s has.
func length(s string) int {
	n := leadingASCII(s) // most text is nothing else
	for i := n; i < len(s); {
		size, units := step(s, i)
		i, n = i+size, n+units
	}
	return n
}

// offset is where unit n of s begins, at most len(s). Inside of a pair it is where
// the pair ends, and split.
func offset(s string, n int) (at int, split bool) {
	for at < len(s) && n > 0 {
		size, units := step(s, at)
		at, n = at+size, n-units
	}
	return at, n < 0
}

// unitAt is the text of one unit.
func unitAt(s string, n int) (string, bool) {
	at, split := offset(s, n)
	switch {
	case split:
		_, low := surrogates(s[at-4 : at])
		return half(low), true
	case at == len(s):
		return "", false
	}
	size, units := step(s, at)
	if units == 2 {
		high, _ := surrogates(s[at : at+4])
		return half(high), true
	}
	return s[at : at+size], true
}

// surrogates are the two units of a character of four bytes.
func surrogates(s string) (high, low rune) {
	r := rune(s[0]&7)<<18 | rune(s[1]&0x3F)<<12 | rune(s[2]&0x3F)<<6 | rune(s[3]&0x3F)
	r -= 0x10000
	return 0xD800 + r>>10&0x3FF, 0xDC00 + r&0x3FF
}

// half writes a surrogate.
func half(r rune) string { return string(appendHalf(nil, r)) }

func appendHalf(b []byte, r rune) []byte {
	return append(b, 0xED, 0x80|byte(r>>6&0x3F), 0x80|byte(r&0x3F))
}

func startsLow(s string) bool { return len(s) >= 3 && s[0] == 0xED && s[1] >= 0xB0 }

func endsHigh[T string | []byte](s T) bool {
	n := len(s)
	return n >= 3 && s[n-3] == 0xED && s[n-2] >= 0xA0 && s[n-2] < 0xB0
}

// splitPair says whether the halves of a pair meet where a and b do.
func splitPair(a, b string) bool { return startsLow(b) && endsHigh(a) }

// joinText appends s to b; halves that meet become one character.
func joinText(b []byte, s string) []byte {
	if startsLow(s) && endsHigh(b) {
		n := len(b)
		high := rune(b[n-2]&0xF)<<6 | rune(b[n-1]&0x3F)
		low := rune(s[1]&0xF)<<6 | rune(s[2]&0x3F)
		return append(utf8.AppendRune(b[:n-3], 0x10000+high<<10+low), s[3:]...)
	}
	return append(b, s...)
}

// unitsOf spells s out in UTF-16.
func unitsOf(s string) []uint16 {
	u := make([]uint16, 0, len(s))
	for i := 0; i < len(s); {
		size, units := step(s, i)
		switch {
		case size == 1:
			u = append(u, uint16(s[i]))
		case size == 2:
			u = append(u, uint16(s[i]&0x1F)<<6|uint16(s[i+1]&0x3F))
		case units == 1:
			u = append(u, uint16(s[i]&0xF)<<12|uint16(s[i+1]&0x3F)<<6|uint16(s[i+2]&0x3F))
		default:
			high, low := surrogates(s[i : i+4])
			u = append(u, uint16(high), uint16(low))
		}
		i += size
	}
	return u
}

// fromUnits is the text of UTF-16 units, here as runes.
func fromUnits(units []rune) string {
	b := make([]byte, 0, len(units))
	for _, r := range units {
		if r >= 0xD800 && r < 0xE000 {
			b = joinText(b, half(r))
		} else {
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

// torn says whether a search for sub may begin or end inside of a pair.
func torn(sub string) bool { return startsLow(sub) || endsHigh(sub) }

// indexText is String.prototype.indexOf, from a unit on that is at least 0.
func indexText(s, sub string, from int) int {
	if sub == "" {
		return min(from, length(s))
	}
	if torn(sub) {
		return indexUnits(unitsOf(s), unitsOf(sub), from)
	}
	at, _ := offset(s, from)
	i := strings.Index(s[at:], sub)
	if i < 0 {
		return -1
	}
	return length(s[:at+i])
}

func indexUnits(s, sub []uint16, from int) int {
	for i := from; i+len(sub) <= len(s); i++ {
		if startsUnits(s[i:], sub) {
			return i
		}
	}
	return -1
}

func startsUnits(s, sub []uint16) bool {
	if len(sub) > len(s) {
		return false
	}
	for i, u := range sub {
		if s[i] != u {
			return false
		}
	}
	return true
}

// startsText is String.prototype.startsWith at a unit.
func startsText(s, sub string, from int) bool {
	if sub == "" {
		return true
	}
	if torn(sub) {
		u := unitsOf(s)
		return startsUnits(u[min(from, len(u)):], unitsOf(sub))
	}
	at, split := offset(s, from)
	return !split && strings.HasPrefix(s[at:], sub)
}

// endsText is String.prototype.endsWith of the first end units.
func endsText(s, sub string, end int) bool {
	if sub == "" {
		return true
	}
	if torn(sub) {
		u, w := unitsOf(s), unitsOf(sub)
		u = u[:min(end, len(u))]
		return len(w) <= len(u) && startsUnits(u[len(u)-len(w):], w)
	}
	at, split := offset(s, end)
	return !split && strings.HasSuffix(s[:at], sub)
}

// compareText orders by UTF-16 units.
func compareText(a, b string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	switch {
	case i == len(a) || i == len(b):
		return len(a) - len(b)
	case a[i] < 0xED && b[i] < 0xED:
		return int(a[i]) - int(b[i])
	}
	// Above that, pairs come before U+E000 and behind single surrogates or not:
	// compare the units from the character on that differs.
	for i > 0 && a[i]&0xC0 == 0x80 {
		i--
	}
	u, w := unitsOf(a[i:]), unitsOf(b[i:])
	for k := range min(len(u), len(w)) {
		if u[k] != w[k] {
			return int(u[k]) - int(w[k])
		}
	}
	return len(u) - len(w)
}

// isSpace says what String.prototype.trim takes away.
func isSpace(r rune) bool {
	switch r {
	case '\t', '\n', '\v', '\f', '\r', ' ', 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF:
		return true
	}
	return r >= 0x2000 && r <= 0x200A
}

func trim(s string) string { return strings.TrimFunc(s, isSpace) }

// lower and upper are toLowerCase and toUpperCase: the full mappings of Unicode,
// in no language.
func lower(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return mapCase(s, cases.Lower(language.Und))
}

func upper(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return mapCase(s, cases.Upper(language.Und))
}

// mapCase maps s but for its single surrogates, which the library would replace.
func mapCase(s string, c cases.Caser) string {
	if utf8.ValidString(s) {
		return c.String(s)
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		end := i
		for end < len(s) {
			r, size := utf8.DecodeRuneInString(s[end:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			end += size
		}
		b.WriteString(c.String(s[i:end]))
		for i = end; i < len(s); i++ {
			if r, size := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size != 1 {
				break
			}
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
