package perms

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"hadal/perms/expr"
)

// New compiles the rules that the configuration holds or names, and joins all
// mistakes it finds, each opening with its key. It reads the rules file, if
// there is one, and starts nothing.
//
// The order of paths matters (of equally long ones the later wins), so
// Options.Permissions is best a yaml.MapSlice or the text of a rules file;
// from a Go map, paths are taken in alphabetical order.
func New(cfg Config) (*Rules, error) {
	switch cfg.Type {
	case "none":
		return &Rules{open: true, covered: cfg.Options.Coverage}, nil
	case "config":
	case "":
		return nil, errors.New("permission.type: is missing: use none or config")
	default:
		return nil, fmt.Errorf("permission.type: there is no type %q: use none or config", cfg.Type)
	}
	key, tree := "permission.options.permissions", cfg.Options.Permissions
	switch {
	case cfg.Options.Path != "" && tree != nil:
		return nil, errors.New("permission.options.path: permissions is set as well: keep one of them")
	case cfg.Options.Path != "":
		text, err := os.ReadFile(cfg.Options.Path)
		if err != nil {
			return nil, fmt.Errorf("permission.options.path: %w", err)
		}
		key, tree = "permission.options.path: "+cfg.Options.Path, string(text)
	case tree == nil:
		return nil, errors.New("permission.options.permissions: is missing: give the rules, or name their file with path")
	}
	if text, ok := tree.(string); ok {
		var err error
		if tree, err = parseRules(text); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	r, _, mistakes := compile(tree)
	if r.limit = cfg.Options.MaxRuleIterations; r.limit == 0 {
		r.limit = DefaultConfig().Options.MaxRuleIterations
	}
	r.covered = cfg.Options.Coverage
	if len(mistakes) > 0 {
		errs := make([]error, len(mistakes))
		for i, m := range mistakes {
			errs[i] = fmt.Errorf("%s: %w", key, m)
		}
		return nil, errors.Join(errs...)
	}
	return r, nil
}

// parseRules reads the text of a rules file, YAML or JSON, in order.
func parseRules(text string) (any, error) {
	var tree any
	if err := yaml.UnmarshalWithOptions([]byte(text), &tree, yaml.UseOrderedMap()); err != nil {
		return nil, err
	}
	return tree, nil
}

// pair is an entry of a mapping.
type pair struct {
	key   string
	value any
}

// pairs is a decoded mapping in the order in which it was written, as far as
// the decoder kept it, or not ok for anything else.
func pairs(v any) (list []pair, ok bool) {
	switch v := v.(type) {
	case yaml.MapSlice:
		for _, item := range v {
			list = append(list, pair{fmt.Sprint(item.Key), item.Value})
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			list = append(list, pair{k, v[k]})
		}
	case map[any]any:
		for k, value := range v {
			list = append(list, pair{fmt.Sprint(k), value})
		}
		slices.SortFunc(list, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	default:
		return nil, false
	}
	return list, true
}

// spot is a place in a rules file, as far as it is known.
type spot struct{ section, path, rule string }

// mistake is why a file is refused.
type mistake struct {
	spot
	err error // names the place, says what is wrong, and what to do
}

func (m *mistake) Error() string { return m.err.Error() }
func (m *mistake) Unwrap() error { return m.err }

// mistakes are all of a file.
type mistakes []*mistake

func (m *mistakes) add(at spot, format string, args ...any) {
	*m = append(*m, &mistake{at, fmt.Errorf(format, args...)})
}

// drafts are the paths of each section, in the order of the file, with the rules
// that compile.
type drafts [sectionCount][]*node

// compile checks a rules tree in the order of spec 07 §1 and compiles it. Where
// the peer stops at the first mistake, this goes on as far as it makes sense. With
// a mistake, the rules are not to be used.
func compile(tree any) (*Rules, *drafts, mistakes) {
	const four = "record, event, rpc and presence"
	var wrong mistakes
	r, drawn := &Rules{}, &drafts{}
	given, ok := pairs(tree)
	if !ok {
		wrong.add(spot{}, "is not a mapping: it needs the sections %s", four)
		return r, drawn, wrong
	}
	sections := make(map[string]any, len(given))
	for _, s := range given {
		if _, ok := sections[s.key]; ok {
			wrong.add(spot{section: s.key}, "section %q stands there twice: join the two", s.key)
		}
		sections[s.key] = s.value
	}
	var paths [sectionCount][]pair
	for id, name := range sectionNames {
		section, ok := sections[name]
		if !ok {
			wrong.add(spot{section: name}, `section %q is missing: add it, with at least the path "*"`, name)
			continue
		}
		if paths[id], ok = pairs(section); !ok {
			wrong.add(spot{section: name}, "section %q is not a mapping: it needs paths with their rules", name)
		}
	}
	for _, s := range given {
		if !slices.Contains(sectionNames[:], s.key) {
			wrong.add(spot{section: s.key}, "section %q does not exist: there are %s", s.key, four)
		}
	}
	for id, name := range sectionNames {
		if _, ok := pairs(sections[name]); ok {
			var inOrder []*rule
			drawn[id], inOrder = compileSection(sectionID(id), paths[id], &wrong)
			r.sections[id] = newSection(slices.Clone(drawn[id]))
			r.sections[id].rules = inOrder
		}
	}
	if len(wrong) == 0 {
		r.numberCounters()
	}
	return r, drawn, wrong
}

func compileSection(id sectionID, paths []pair, wrong *mistakes) (nodes []*node, inOrder []*rule) {
	name := sectionNames[id]
	if len(paths) == 0 {
		wrong.add(spot{section: name}, `section %q is empty: add the path "*"`, name)
		return nil, nil
	}
	var rules []any // of each node, as they stand in the file
	seen := make(map[string]bool, len(paths))
	for _, p := range paths {
		compiled, err := compilePath(p.key)
		if err != nil {
			wrong.add(spot{section: name, path: p.key}, "%s: path %q %w", name, p.key, err)
			continue
		}
		if seen[p.key] {
			wrong.add(spot{section: name, path: p.key}, "%s: path %q stands there twice: join the two", name, p.key)
			continue
		}
		seen[p.key] = true
		nodes, rules = append(nodes, &node{path: compiled}), append(rules, p.value)
	}
	if !seen["*"] {
		wrong.add(spot{section: name}, `section %q has no path "*": add it, to say what holds for all other names`, name)
	}
	for i, n := range nodes {
		inOrder = append(inOrder, compileRules(id, n, rules[i], wrong)...)
	}
	return nodes, inOrder
}

// compileRules compiles the rules of one path, and returns them in the file's order.
func compileRules(id sectionID, n *node, v any, wrong *mistakes) (inOrder []*rule) {
	name := sectionNames[id]
	rules, ok := pairs(v)
	if !ok {
		wrong.add(spot{section: name, path: n.text}, "%s: path %q is not a mapping: it needs rules, such as %s: true", name, n.text, ruleNames[id][0])
		return nil
	}
	for _, rule := range rules {
		at := spot{name, n.text, rule.key}
		s := slices.Index(ruleNames[id], rule.key)
		if s < 0 {
			wrong.add(at, "%s: path %q: there is no rule %q here: use %s", name, n.text, rule.key, strings.Join(ruleNames[id], ", "))
			continue
		}
		if n.rules[s] != nil {
			wrong.add(at, "%s: path %q: rule %s stands there twice: keep one", name, n.text, rule.key)
			continue
		}
		compiled, err := compileRule(rule.value, id, slot(s), n.path)
		if err != nil {
			wrong.add(at, "%s: path %q: rule %s: %w", name, n.text, rule.key, err)
			continue
		}
		n.rules[s] = compiled
		inOrder = append(inOrder, compiled)
	}
	return inOrder
}

// compileRule compiles one rule. The server must not start with a rule it
// cannot judge: neither allowing nor denying would be what was meant.
func compileRule(v any, id sectionID, s slot, p *path) (*rule, error) {
	r := &rule{section: id, slot: s, path: p.text}
	switch v := v.(type) {
	case bool:
		r.allow, r.text = v, strconv.FormatBool(v)
		r.branches = []expr.Branch{{Text: r.text, Line: 1, Column: 1, Length: len(r.text)}}
		return r, nil
	case string:
		scope := scopes[id][s]
		scope.Vars = p.vars
		compiled, err := expr.Compile(v, scope)
		if err != nil {
			return nil, err
		}
		r.text, r.branches = v, compiled.Branches()
		var constant bool
		if r.allow, constant = compiled.Constant(); !constant {
			r.expr = compiled
			r.needsRecord = id == secRecord && (compiled.UsesData() || compiled.UsesOldData())
		}
		return r, nil
	}
	return nil, fmt.Errorf("%v is neither true nor false nor the text of an expression", v)
}
