package perms

import (
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// places say where in a rules file things stand.
type places struct {
	keys   map[spot]*token.Position
	values map[spot]*token.Token // of rules
}

// placesOf reads the places of a text. One that is no YAML has none.
func placesOf(text string) places {
	p := places{map[spot]*token.Position{}, map[spot]*token.Token{}}
	file, err := parser.ParseBytes([]byte(text), 0)
	if err != nil || len(file.Docs) == 0 {
		return p // who reads the rules tells
	}
	w := &placeWalker{places: p, anchors: map[string]ast.Node{}, left: 1 << 20}
	w.walk(file.Docs[0].Body, spot{}, 0)
	return p
}

// of is the line and column of something, or of what it stands in.
func (p places) of(at spot) (line, column int) {
	for _, s := range []spot{at, {section: at.section, path: at.path}, {section: at.section}} {
		if found, ok := p.keys[s]; ok {
			return found.Line, found.Column
		}
	}
	return 1, 1
}

// inside is a place in the text of a rule, where that is one line as in the rule
// itself; else it is the rule's begin.
func (p places) inside(at spot, line, column int) (int, int) {
	t, ok := p.values[at]
	if !ok {
		return p.of(at)
	}
	begin := t.Position
	quoted := t.Type == token.DoubleQuoteType || t.Type == token.SingleQuoteType
	switch plain := t.Type == token.StringType; {
	case line > 1, !quoted && !plain, strings.ContainsAny(t.Value, "\n\\"), quoted && strings.Contains(t.Value, "'") && t.Type == token.SingleQuoteType:
		return begin.Line, begin.Column
	case quoted:
		column++
	}
	return begin.Line, begin.Column + column - 1
}

// placeWalker notes the keys of the first three levels.
type placeWalker struct {
	places
	anchors map[string]ast.Node
	left    int // entries to look at: aliases of aliases can be very many
}

func (w *placeWalker) walk(n ast.Node, at spot, depth int) {
	const deepest = 8 // aliases may stand in themselves
	if depth > deepest {
		return
	}
	switch n := n.(type) {
	case *ast.AnchorNode:
		w.anchors[n.Name.GetToken().Value] = n.Value
		w.walk(n.Value, at, depth+1)
	case *ast.AliasNode:
		w.walk(w.anchors[n.Value.GetToken().Value], at, depth+1)
	case *ast.TagNode:
		w.walk(n.Value, at, depth+1)
	case *ast.MappingNode:
		for _, v := range n.Values {
			w.entry(v, at, depth)
		}
	case *ast.MappingValueNode:
		w.entry(n, at, depth)
	}
}

func (w *placeWalker) entry(n *ast.MappingValueNode, at spot, depth int) {
	if w.left--; w.left < 0 {
		return
	}
	if _, merge := n.Key.(*ast.MergeKeyNode); merge {
		w.walk(n.Value, at, depth+1)
		return
	}
	t := n.Key.GetToken()
	below := at
	switch {
	case at.section == "":
		below.section = t.Value
	case at.path == "":
		below.path = t.Value
	default:
		below.rule = t.Value
	}
	if _, ok := w.keys[below]; ok {
		return // what stands here goes before what is merged in
	}
	w.keys[below] = t.Position
	if below.rule == "" {
		w.walk(n.Value, below, depth+1)
		return
	}
	if v := n.Value; v != nil && v.GetToken() != nil && utf8.ValidString(v.GetToken().Value) {
		w.values[below] = v.GetToken()
	}
}
