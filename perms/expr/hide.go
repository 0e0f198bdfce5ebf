package expr

import "strings"

// Hidden stands for a value that is not shown.
const Hidden = `"***"`

// Hide is a JSON text in which the values of keys that secret names are Hidden, and
// that stands in one line. Text that is no JSON cannot be looked through, and is
// not shown at all: then it is not ok.
func Hide(raw string, secret func(key string) bool) (text string, ok bool) {
	raw = trimBlank(raw)
	if !validJSON(raw) {
		return "", false
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, hide(raw, secret)), true
}

// hide is Hide of valid JSON without white space around it.
func hide(raw string, secret func(key string) bool) string {
	if secret == nil || raw[0] != '{' && raw[0] != '[' {
		return raw
	}
	var b strings.Builder
	done := 0
	for s := scan(raw); s.next(); {
		with := s.value()
		if s.object && secret(string(appendUnescaped(nil, s.key))) {
			with = Hidden
		} else {
			with = hide(with, secret)
		}
		b.WriteString(raw[done:s.start])
		b.WriteString(with)
		done = s.end
	}
	b.WriteString(raw[done:])
	return b.String()
}

// hidden says of each part whether its value is not shown: because it is read from
// a secret key, or is made of what is. Only true and false may be told of a secret,
// and that there is none.
func (t *tracedRule) hidden(notes []note, secret func(key string) bool) []bool {
	hidden := make([]bool, len(t.parts))
	if secret == nil {
		return hidden
	}
	carries := make([]bool, len(t.parts))
	for i := len(t.parts) - 1; i >= 0; i-- { // children stand behind their parents
		p, n := t.parts[i], notes[i]
		if !n.done || n.failure != nil || n.value.nullish() {
			continue
		}
		read := false
		if p.member {
			key := p.key
			if last := notes[p.children[len(p.children)-1]]; key == "" && last.value.kind == kindString {
				key = last.value.str
			}
			read = secret(key)
		}
		made := false
		for j, child := range p.children {
			if p.operator == 0 || j > 0 || len(p.children) == 2 { // but the test of ?:
				made = made || carries[child]
			}
		}
		carries[i] = (read || made) && n.value.kind != kindBoolean
		hidden[i] = read || carries[i] || p.hidden && len(p.children) == 1 && hidden[p.children[0]]
	}
	return hidden
}
