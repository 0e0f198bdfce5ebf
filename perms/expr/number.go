package expr

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// formatNumber is Number.prototype.toString.
func formatNumber(f float64) string {
	if f == 0 {
		return "0" // also of -0
	}
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return strconv.FormatInt(int64(f), 10)
	}
	return string(appendNumber(nil, f))
}

func appendNumber(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	case f == 0:
		return append(b, '0')
	case f < 0:
		b, f = append(b, '-'), -f
	}
	// The shortest digits, as d.ddde±xx; ECMAScript lays them out in its own way.
	var buf [32]byte
	short := strconv.AppendFloat(buf[:0], f, 'e', -1, 64)
	mantissa, exponent, _ := strings.Cut(string(short), "e")
	e, _ := strconv.Atoi(exponent) // of our own making: it is a number
	digits := strings.Replace(mantissa, ".", "", 1)
	switch point := e + 1; { // where the point is, counted from the first digit
	case point >= len(digits) && point <= 21:
		b = append(b, digits...)
		return append(b, zeros(point-len(digits))...)
	case point > 0 && point <= 21:
		b = append(b, digits[:point]...)
		b = append(b, '.')
		return append(b, digits[point:]...)
	case point > -6 && point <= 0:
		b = append(b, "0."...)
		b = append(b, zeros(-point)...)
		return append(b, digits...)
	}
	b = append(b, digits[0])
	if len(digits) > 1 {
		b = append(b, '.')
		b = append(b, digits[1:]...)
	}
	b = append(b, 'e')
	if e > 0 {
		b = append(b, '+')
	}
	return strconv.AppendInt(b, int64(e), 10)
}

func zeros(n int) string { return "000000000000000000000"[:n] }

// parseNumber is ToNumber of text: white space around it does not count, and what
// is no number is NaN.
func parseNumber(s string) float64 {
	s = trim(s)
	if s == "" {
		return 0
	}
	if len(s) > 2 && s[0] == '0' {
		switch s[1] | 0x20 {
		case 'x':
			return parseDigits(s[2:], 16)
		case 'o':
			return parseDigits(s[2:], 8)
		case 'b':
			return parseDigits(s[2:], 2)
		}
	}
	switch s {
	case "Infinity", "+Infinity":
		return math.Inf(1)
	case "-Infinity":
		return math.Inf(-1)
	}
	for i := range len(s) { // strconv knows more notations than JavaScript
		switch c := s[i]; {
		case c >= '0' && c <= '9', c == '.', c == 'e', c == 'E', c == '+', c == '-':
		default:
			return math.NaN()
		}
	}
	return parseDecimal(s)
}

// parseDecimal reads decimal notation; too large is infinite.
func parseDecimal(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return math.NaN()
	}
	return f
}

// parseDigits reads an integer of another base.
func parseDigits(s string, base int) float64 {
	for i := range len(s) {
		if d, err := strconv.ParseUint(s[i:i+1], base, 8); err != nil || d >= uint64(base) {
			return math.NaN()
		}
	}
	s = strings.TrimLeft(s, "0")
	switch {
	case s == "":
		return 0
	case len(s) > 1024: // binary digits; others are larger still
		return math.Inf(1)
	}
	n, _ := new(big.Int).SetString(s, base) // of digits of that base
	f, _ := n.Float64()
	return f
}

// power is **, which differs from math.Pow where the result is undecided.
func power(x, y float64) float64 {
	if math.IsNaN(y) || math.IsInf(y, 0) && math.Abs(x) == 1 {
		return math.NaN()
	}
	return math.Pow(x, y)
}
