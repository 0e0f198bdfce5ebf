package jsonpath

import (
	"fmt"
	"strings"
)

// Get returns the raw JSON text at p in doc, and whether there is any. doc must
// be valid JSON.
func Get(doc string, p Path) (string, bool) {
	i := blank(doc, 0)
	for k := range p.tokens {
		at, err := find(doc, i, &p.tokens[k])
		if err != nil || !at.found {
			return "", false
		}
		i = at.start
	}
	end, err := skip(doc, i)
	if err != nil {
		return "", false
	}
	return doc[i:end], true
}

// Set returns doc with value, raw JSON text, at p. doc and value must be valid
// JSON; an empty doc is an empty object. Missing parents are created: an array
// where an index follows, else an object; scalars and null in the way are
// replaced; gaps in arrays are filled with null. The error wraps ErrArray,
// ErrIndex, ErrDeep or ErrInvalid.
func Set(doc string, p Path, value string) (string, error) {
	deep, err := depth(value)
	if err != nil {
		return "", fmt.Errorf("value: %w", err)
	}
	if len(p.tokens)+deep > MaxDepth {
		return "", fmt.Errorf("%w: %d levels", ErrDeep, len(p.tokens)+deep)
	}
	return edit(doc, p, value)
}

// Delete returns doc without what is at p: a member goes, an element becomes
// null. What is not there cannot go, but its missing parents are created and
// scalars in the way replaced all the same: so do the clients to whom the
// removal is relayed. A key on an array is never there. The error wraps ErrIndex
// or ErrInvalid.
func Delete(doc string, p Path) (string, error) { return edit(doc, p, "") }

// edit is Set, or Delete when value is empty, which no JSON is.
func edit(doc string, p Path, value string) (string, error) {
	if len(p.tokens) == 0 {
		return "", ErrEmpty
	}
	i := blank(doc, 0)
	if i == len(doc) {
		doc, i = "{}", 0
	}
	for k := range p.tokens {
		t, rest := &p.tokens[k], p.tokens[k+1:]
		remove := value == "" && len(rest) == 0
		switch doc[i] {
		case '{':
			if remove {
				return removeMember(doc, i, t.key)
			}
		case '[':
			if _, ok := t.element(); !ok && value == "" {
				return doc, nil
			}
		default: // a scalar in the way
			end, err := skip(doc, i)
			if err != nil {
				return "", err
			}
			return splice(doc, i, end, "", 0, p.tokens[k:], value)
		}
		at, err := find(doc, i, t)
		switch {
		case err != nil:
			return "", err
		case at.found && remove:
			return doc[:at.start] + "null" + doc[at.end:], nil
		case at.found && len(rest) == 0:
			return doc[:at.start] + value + doc[at.end:], nil
		case at.found:
			i = at.start
		case remove:
			return doc, nil
		default:
			before := ""
			if at.count > 0 {
				before = ","
			}
			gap := 0
			if doc[i] == '{' {
				before += quote(t.key) + ":"
			} else {
				n, _ := t.element()
				gap = n - at.count
			}
			return splice(doc, at.start, at.start, before, gap, rest, value)
		}
	}
	panic("jsonpath: a path ended without an edit") // its last token always returns
}

// splice replaces doc[start:end] by the text before, gap nulls and value inside
// the new containers that tokens ask for.
func splice(doc string, start, end int, before string, gap int, tokens []token, value string) (string, error) {
	nulls, size := gap, len(doc)+len(before)+len(value)
	for _, t := range tokens {
		nulls += t.index
		size += len(t.key) + len(`{"":}`)
	}
	if nulls > MaxIndex { // all of them, or many indexes would multiply
		return "", fmt.Errorf("%w: more than %d gaps to fill", ErrIndex, MaxIndex)
	}
	var b strings.Builder
	b.Grow(size + nulls*len("null,"))
	b.WriteString(doc[:start])
	b.WriteString(before)
	for range gap {
		b.WriteString("null,")
	}
	for k, t := range tokens {
		last := k == len(tokens)-1
		switch {
		case t.isIndex && last && value == "" && t.index > 0:
			// A removal inside a new array leaves the gap before it, in the client.
			b.WriteString("[null" + strings.Repeat(",null", t.index-1))
		case t.isIndex:
			b.WriteByte('[')
			for range t.index {
				b.WriteString("null,")
			}
		case last && value == "":
			b.WriteByte('{')
		default:
			b.WriteString("{" + quote(t.key) + ":")
		}
	}
	b.WriteString(value)
	for k := len(tokens) - 1; k >= 0; k-- {
		if tokens[k].isIndex {
			b.WriteByte(']')
		} else {
			b.WriteByte('}')
		}
	}
	b.WriteString(doc[end:])
	return b.String(), nil
}

// place is where a token points in a container.
type place struct {
	found      bool
	start, end int // of the value; when not found, start is where it would be put
	count      int // of the container's members, when not found
}

// find looks for t in the container at i. On a scalar nothing is found.
func find(doc string, i int, t *token) (place, error) {
	if i >= len(doc) {
		return place{}, ErrInvalid
	}
	switch doc[i] {
	case '{':
		return findMember(doc, i, t.key)
	case '[':
		n, ok := t.element()
		switch {
		case !ok:
			return place{}, fmt.Errorf("%w: %q", ErrArray, t.key)
		case n > MaxIndex:
			return place{}, fmt.Errorf("%w: %s is greater than %d", ErrIndex, t.key, MaxIndex)
		}
		return findElement(doc, i, n)
	}
	return place{}, nil
}

func findMember(doc string, i int, key string) (place, error) {
	var at place
	members := scan(doc, i)
	for members.next() {
		if same(members.key, key) {
			at = place{found: true, start: members.start, end: members.end}
		}
	}
	if !at.found {
		at = place{start: members.after, count: members.count}
	}
	return at, members.err
}

func findElement(doc string, i, n int) (place, error) {
	elements := scan(doc, i)
	for elements.next() {
		if elements.count-1 == n {
			return place{found: true, start: elements.start, end: elements.end}, nil
		}
	}
	return place{start: elements.after, count: elements.count}, elements.err
}

// removeMember takes every member of that name out of the object at i.
func removeMember(doc string, i int, key string) (string, error) {
	var b strings.Builder
	from := i + 1 // of the text of the next member, blanks included
	kept, removed := 0, 0
	members := scan(doc, i)
	for members.next() {
		text := doc[from:members.close]
		from = members.close + 1
		if same(members.key, key) {
			if removed == 0 { // what stands before it stays as it is
				b.Grow(len(doc))
				b.WriteString(doc[:i+1])
				if kept > 0 {
					b.WriteString(doc[i+1 : members.close-len(text)-1])
				}
			}
			removed++
			continue
		}
		if removed > 0 {
			if kept > 0 {
				b.WriteByte(',')
			}
			b.WriteString(text)
		}
		kept++
	}
	if members.err != nil {
		return "", members.err
	}
	if removed == 0 {
		return doc, nil
	}
	b.WriteString(doc[members.close:])
	return b.String(), nil
}

// quote is key as a JSON string.
func quote(key string) string {
	const hex = "0123456789abcdef"
	b := make([]byte, 0, len(key)+2)
	b = append(b, '"')
	for i := range len(key) {
		switch c := key[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
