package node

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// source is a text that values come from: a file or an environment variable.
type source struct {
	// name is shown to the reader: a path, or "environment variable X".
	name string
	// dir is what relative paths in the text start from.
	dir string
	// text is the source itself, for excerpts.
	text string
	// variables says that ${NAME} is replaced in it, loads that file(X) and
	// fileLoad(X) are.
	variables, loads bool
}

// value is a piece of YAML or JSON with its place. It is as it was written:
// nothing is substituted in it before it is decoded, so that a key that is
// ignored cannot fail.
type value struct {
	src       *source
	line, col int // from 1; 0 when the source has no lines
	kind      kind
	text      string // scalar
	plain     bool   // scalar without quotes
	items     []*value
	entries   []entry
	// made says that text holds what a variable, a file or a flag gave. Nothing is
	// substituted in it any more, and it is taken for a number or boolean where
	// one is expected, even in quotes.
	made bool
}

type entry struct {
	key   *value // a scalar
	value *value
}

type kind uint8

const (
	scalarKind kind = iota
	listKind
	dictKind
)

// placeError is a mistake at a place in a source.
type placeError struct {
	at      *value
	text    string
	excerpt bool
}

// Error is the place, the mistake, and the line it is in.
func (e *placeError) Error() string {
	s := e.at.place() + ": " + e.text
	if e.excerpt {
		s += e.at.excerpt()
	}
	return s
}

// place is file:line:col, or what comes nearest.
func (v *value) place() string {
	if v.line == 0 {
		return v.src.name
	}
	return fmt.Sprintf("%s:%d:%d", v.src.name, v.line, v.col)
}

// secretLine finds lines that may hold something nobody should see in a log.
var secretLine = regexp.MustCompile(`(?i)pass|secret|token|key|credential|connectionString|://\S*@|-----BEGIN`)

// excerpt is the line of v with a mark below its column, on lines of their own.
// It is empty for lines that are long or may hold a secret.
func (v *value) excerpt() string {
	if v.line == 0 {
		return ""
	}
	line := v.src.text
	for range v.line - 1 {
		_, line, _ = strings.Cut(line, "\n")
	}
	line, _, _ = strings.Cut(line, "\n")
	line = strings.TrimRight(line, "\r")
	if line == "" || len(line) > 160 || secretLine.MatchString(line) {
		return ""
	}
	// The mark is set behind the same tabs, so that it stands below its column.
	var pad strings.Builder
	for i, r := range []rune(line) {
		if i >= v.col-1 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		pad.WriteRune(r)
	}
	return fmt.Sprintf("\n%6d | %s\n       | %s^", v.line, line, pad.String())
}

// fail is a mistake at v, with its line.
func (v *value) fail(format string, args ...any) error {
	return &placeError{v, fmt.Sprintf(format, args...), true}
}

// The characters of ${NAME} mean something in YAML and JSON ({port: ${PORT}}
// ends early). They are hidden from the parser behind this many code points,
// and shown again in the scalars it finds: a substitution can therefore stand
// wherever deepstream's textual one could, and still not change the structure.
const hide = 0xF0000

var (
	variable       = regexp.MustCompile(`\$?\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}\n]*)?\}`)
	hiddenVariable = regexp.MustCompile(`[\x{F0000}-\x{F007F}]+`)
)

func hideVariables(text string) string {
	return variable.ReplaceAllStringFunc(text, func(s string) string {
		return strings.Map(func(r rune) rune {
			if r < utf8.RuneSelf {
				r += hide
			}
			return r
		}, s)
	})
}

func showVariables(text string) string {
	return hiddenVariable.ReplaceAllStringFunc(text, func(s string) string {
		return strings.Map(func(r rune) rune { return r - hide }, s)
	})
}

// aliasBudget bounds how many values aliases may stand for, because ten lines of
// aliases to aliases are billions of values.
const aliasBudget = 100_000

// parseSource reads YAML, or JSON, which is nearly a part of it. An empty text
// is null.
func parseSource(src *source) (v *value, err error) {
	// The parser is not ours: should it panic on some text, that text is not a
	// configuration.
	defer func() {
		if p := recover(); p != nil {
			v, err = nil, fmt.Errorf("%s: cannot be read as YAML (%v)", src.name, p)
		}
	}()
	if !utf8.ValidString(src.text) {
		return nil, fmt.Errorf("%s: is not UTF-8 text", src.name)
	}
	text := strings.TrimPrefix(src.text, "\ufeff")
	if src.variables {
		text = hideVariables(text)
	}
	file, err := parser.ParseBytes([]byte(text), 0)
	if err != nil {
		at := &value{src: src}
		var se yaml.Error
		if !errors.As(err, &se) {
			return nil, at.fail("%v", err)
		}
		if t := se.GetToken(); t != nil {
			at.line, at.col = t.Position.Line, t.Position.Column
		}
		return nil, at.fail("%s", showVariables(se.GetMessage()))
	}
	b := builder{src: src, anchors: make(map[string]anchored)}
	v = &value{src: src, plain: true}
	found := false
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if _, ok := d.Body.(*ast.DirectiveNode); ok {
			continue
		}
		if found {
			return nil, b.at(d.Body).fail("a second document begins here: a configuration is one document")
		}
		found = true
		if v, err = b.build(d.Body); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// builder makes values of a syntax tree.
type builder struct {
	src     *source
	anchors map[string]anchored
	// size counts the values so far, each as often as aliases stand for it, and
	// aliased is the part of it that only aliases make.
	size, aliased int
}

// anchored is a value that aliases may stand for, and the number of values in it.
type anchored struct {
	value *value
	size  int
}

// at is an empty value at the place of n.
func (b *builder) at(n ast.Node) *value {
	v := &value{src: b.src, plain: true}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0] // a block has no sign of its own to point at
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		v.line, v.col = t.Position.Line, t.Position.Column
	}
	return v
}

func (b *builder) build(n ast.Node) (*value, error) {
	v := b.at(n)
	b.size++
	switch n := n.(type) {
	case *ast.StringNode:
		v.text = showVariables(n.Value)
		t := n.GetToken().Type
		v.plain = t != token.SingleQuoteType && t != token.DoubleQuoteType
		return v, nil
	case *ast.LiteralNode:
		v.text, v.plain = showVariables(n.Value.Value), false
		return v, nil
	case *ast.MappingNode:
		return v, b.dict(v, n.Values)
	case *ast.MappingValueNode:
		return v, b.dict(v, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		v.kind = listKind
		for _, item := range n.Values {
			child, err := b.build(item)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, child)
		}
		return v, nil
	case *ast.AnchorNode:
		// The name is known only behind the anchor, so that no alias can stand
		// for something it is a part of.
		before := b.size
		child, err := b.build(n.Value)
		b.anchors[n.Name.GetToken().Value] = anchored{child, b.size - before}
		return child, err
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		target, ok := b.anchors[name]
		if !ok {
			return nil, v.fail("alias *%s: there is no anchor &%s before it", name, name)
		}
		b.size += target.size
		if b.aliased += target.size; b.aliased > aliasBudget {
			return nil, v.fail("aliases stand for more than %d values", aliasBudget)
		}
		return target.value, nil
	case *ast.TagNode:
		tag := n.GetToken().Value
		if tag != "!!str" || n.Value == nil {
			return nil, v.fail("the tag %s is not supported", tag)
		}
		child, err := b.build(n.Value)
		if err == nil {
			child.plain = false
		}
		return child, err
	case ast.ScalarNode: // null, booleans and numbers: decided by resolve, from the text
		if t := n.GetToken(); t.Type != token.ImplicitNullType {
			v.text = t.Value
		}
		return v, nil
	default:
		return nil, v.fail("%s is not supported here", n.Type())
	}
}

// dict fills v with entries. Merged ones (<<) stand behind the others, and only
// those whose keys are not given directly.
func (b *builder) dict(v *value, nodes []*ast.MappingValueNode) error {
	v.kind = dictKind
	seen := make(map[string]bool, len(nodes))
	var merged []*value
	for _, n := range nodes {
		if n.Key.IsMergeKey() {
			from, err := b.build(n.Value)
			if err != nil {
				return err
			}
			if from.kind == listKind {
				merged = append(merged, from.items...)
			} else {
				merged = append(merged, from)
			}
			continue
		}
		keyNode := ast.Node(n.Key)
		if k, ok := keyNode.(*ast.MappingKeyNode); ok {
			keyNode = k.Value
		}
		key, err := b.build(keyNode)
		if err != nil {
			return err
		}
		if key.kind != scalarKind {
			return key.fail("a key must be a word")
		}
		if seen[key.text] {
			return key.fail("the key %q stands here twice", key.text)
		}
		seen[key.text] = true
		child, err := b.build(n.Value)
		if err != nil {
			return err
		}
		v.entries = append(v.entries, entry{key, child})
	}
	for _, from := range merged {
		if from.kind != dictKind {
			return from.fail("<< takes a mapping or a list of mappings")
		}
		for _, e := range from.entries {
			if !seen[e.key.text] {
				seen[e.key.text] = true
				v.entries = append(v.entries, e)
			}
		}
	}
	return nil
}

// get is the value at a key of v, or nil.
func (v *value) get(key string) *value {
	for _, e := range v.entries {
		if e.key.text == key {
			return e.value
		}
	}
	return nil
}

// isNull says whether v is nothing: null, ~, or no text at all.
func (v *value) isNull() bool {
	return v.kind == scalarKind && v.resolve() == nil
}

var (
	integer = regexp.MustCompile(`^[-+]?[0-9]+$`)
	decimal = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
)

// resolve is what a scalar means: nil, bool, int64, uint64, float64 or string,
// by the core schema of YAML 1.2. In quotes it is a string.
func (v *value) resolve() any {
	if !v.plain {
		return v.text
	}
	switch s := v.text; s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	case ".nan", ".NaN", ".NAN":
		return math.NaN()
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF":
		return math.Inf(1)
	case "-.inf", "-.Inf", "-.INF":
		return math.Inf(-1)
	default:
		base, digits := 10, s
		switch {
		case strings.HasPrefix(s, "0x"):
			base, digits = 16, s[2:]
		case strings.HasPrefix(s, "0o"):
			base, digits = 8, s[2:]
		case !integer.MatchString(s):
			if f, err := strconv.ParseFloat(s, 64); err == nil && decimal.MatchString(s) {
				return f
			}
			return s
		}
		if i, err := strconv.ParseInt(digits, base, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(digits, base, 64); err == nil {
			return u
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil && base == 10 {
			return f
		}
		return s
	}
}

// describe says what v is, for a reader who expected something else.
func (v *value) describe() string {
	switch v.kind {
	case listKind:
		return "a list"
	case dictKind:
		return "a mapping"
	}
	switch x := v.resolve().(type) {
	case nil:
		return "nothing"
	case bool:
		return v.text
	case string:
		if len(x) > 40 {
			return "a text"
		}
		return strconv.Quote(x)
	default:
		return "the number " + v.text
	}
}
