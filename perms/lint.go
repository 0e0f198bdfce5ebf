package perms

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"hadal/perms/expr"
	"hadal/protocol"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	// Error: the file is refused, or it does certainly not say what was meant.
	Error Severity = "error"
	// Warning: clients may do more, or get other answers, than was probably meant.
	Warning Severity = "warning"
	// Note: good to know.
	Note Severity = "note"
)

// Finding is something in a rules file that an author should look at.
type Finding struct {
	// ID names the kind of finding; docs/rules-lint.md has all of them.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Line and Column begin at 1.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Section, Path and Rules (their types) are empty where the finding is about more
	// than one.
	Section string   `json:"section,omitempty"`
	Path    string   `json:"path,omitempty"`
	Rules   []string `json:"rules,omitempty"`
	// Problem says what is wrong, Effect what that means for a client, and Cure what
	// to write instead.
	Problem string `json:"problem"`
	Effect  string `json:"effect"`
	Cure    string `json:"cure"`
}

// Where is the finding's place in the rules in words, such as record "users/$id"
// write.
func (f Finding) Where() string {
	where := f.Section
	if f.Path != "" {
		where += fmt.Sprintf(" %q", f.Path)
	}
	return strings.TrimSpace(where + " " + strings.Join(f.Rules, ", "))
}

// refusedFile is the effect of whatever New refuses.
const refusedFile = "A node does not start with this file, and a running one keeps its old rules."

// effects say what a client does that a rule type is about.
var effects = [sectionCount][]string{
	secRecord:   {"create records", "read records", "change records", "delete records", "learn what is subscribed to", "announce changes"},
	secEvent:    {"publish events", "receive events", "learn what is subscribed to"},
	secRPC:      {"answer calls", "make calls"},
	secPresence: {"see who is online"},
}

// Lint looks through the text of a rules file, also one that New refuses. What it
// finds is in the order of the text.
func Lint(text string) []Finding {
	l := &linter{places: placesOf(text)}
	tree, err := parseRules(text)
	if err != nil {
		l.syntax(err)
		return l.found
	}
	r, drawn, wrong := compile(tree)
	for _, m := range wrong {
		l.mistake(m)
	}
	for id, nodes := range drawn {
		for _, n := range nodes {
			l.spelling(sectionID(id), n)
			l.reserved(sectionID(id), n)
			l.unreachable(sectionID(id), n, nodes)
			l.fallThrough(sectionID(id), n, r.sections[id])
			l.reset(sectionID(id), n, r.sections[id])
			l.variables(sectionID(id), n)
			for _, rule := range n.rules {
				if rule != nil {
					l.doubts(rule, n)
				}
			}
		}
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	return l.found
}

// linter gathers findings.
type linter struct {
	places places
	found  []Finding
}

// add places a finding at a path, or at one of its rules.
func (l *linter) add(id string, s Severity, at spot, rules []string, problem, effect, cure string) {
	line, column := l.places.of(at)
	l.found = append(l.found, Finding{
		ID: id, Severity: s, Line: line, Column: column, Section: at.section, Path: at.path, Rules: rules,
		Problem: problem, Effect: effect, Cure: cure,
	})
}

func (l *linter) syntax(err error) {
	f := Finding{ID: "syntax", Severity: Error, Line: 1, Column: 1, Problem: err.Error(), Effect: refusedFile,
		Cure: "correct the YAML: indent with spaces, and put quotes around rules and around paths that begin with *"}
	var located yaml.Error
	if errors.As(err, &located) && located.GetToken() != nil {
		p := located.GetToken().Position
		f.Line, f.Column, f.Problem = p.Line, p.Column, located.GetMessage()
	}
	l.found = append(l.found, f)
}

// mistake tells what New refuses the file for.
func (l *linter) mistake(m *mistake) {
	text := strings.TrimPrefix(m.Error(), m.section+": ")
	if m.path != "" {
		text = strings.TrimPrefix(text, fmt.Sprintf("path %q: ", m.path))
	}
	id := "refused"
	switch {
	case strings.HasSuffix(m.section, " is missing"), strings.HasPrefix(text, fmt.Sprintf("section %q is missing", m.section)):
		id = "missing-section"
	case strings.Contains(text, `has no path "*"`):
		id = "missing-star"
	}
	var rules []string
	if m.rule != "" {
		rules = []string{m.rule}
		text = strings.TrimPrefix(text, fmt.Sprintf("rule %s: ", m.rule))
	}
	at := (*expr.Error)(nil)
	if errors.As(m.err, &at) {
		text = at.Reason
		if strings.HasPrefix(text, "this rule has no ") {
			id = "field-not-allowed"
		}
	}
	what, cure, ok := strings.Cut(text, ": ")
	if !ok {
		cure = "see the rule language in docs/rules.md"
	}
	if id == "missing-section" {
		s := slices.Index(sectionNames[:], m.section)
		cure = fmt.Sprintf(`add it, as %s: {"*": {%s: false}}`, m.section, strings.Join(ruleNames[s], ": false, "))
	}
	l.add(id, Error, m.spot, rules, what, refusedFile, cure)
	if at != nil {
		f := &l.found[len(l.found)-1]
		f.Line, f.Column = l.places.inside(m.spot, at.Line, at.Column)
	}
}

var (
	expression  = regexp.MustCompile(`\.\*|\\|^\^|\[.*\]|\(.*\)`)
	placeholder = regexp.MustCompile(`(^|/):[A-Za-z]\w*|\{[A-Za-z]\w*\}|<[A-Za-z]\w*>`)
)

// spelling finds what stands in a path as text, and was meant to be something else.
func (l *linter) spelling(id sectionID, n *node) {
	at := spot{section: sectionNames[id], path: n.text}
	const nothing = "No name that a client would use matches the path, so its rules protect and allow nothing."
	switch {
	case strings.ContainsAny(n.text, `"'`):
		meant := strings.NewReplacer(`"`, "", `'`, "").Replace(n.text)
		l.add("quotes-in-path", Error, at, nil, "the quotes are part of the path, because it does not begin with one", nothing,
			fmt.Sprintf("write the whole path in quotes: %q", meant))
	case strings.TrimSpace(n.text) != n.text:
		l.add("blank-in-path", Error, at, nil, "the path begins or ends with a blank", nothing,
			fmt.Sprintf("write %q", strings.TrimSpace(n.text)))
	case expression.MatchString(n.text):
		l.add("pattern-in-path", Warning, at, nil,
			fmt.Sprintf("%s looks like a regular expression, and is plain text in a path", expression.FindString(n.text)),
			"Only names that hold exactly this text match the path.", "use * for any text and $name for a part without a slash, and test the rest in the rule: name.match(/…/)")
	case placeholder.MatchString(n.text):
		found := strings.TrimPrefix(placeholder.FindString(n.text), "/")
		l.add("no-variable", Warning, at, nil, found+" is plain text in a path, and no variable",
			"Only names that hold exactly this text match the path.", "write $"+strings.Trim(found, ":{}<>"))
	}
}

// reserved finds rules for names that are the server's own.
func (l *linter) reserved(id sectionID, n *node) {
	if !protocol.Reserved(n.prefix) {
		return
	}
	idle := map[sectionID][]slot{
		secRecord: {recCreate, recWrite, recDelete, recListen, recNotify}, secEvent: {evPublish, evListen}, secRPC: {rpcProvide},
	}[id]
	if types := n.types(id, func(s slot, r *rule) bool { return slices.Contains(idle, s) && r != nil && r.text != "false" }); len(types) > 0 {
		l.add("reserved-path", Warning, spot{section: sectionNames[id], path: n.text}, types, "names under hadal/ are the server's, whatever rules say",
			"Every client is refused here.", "remove these rules, or use names that begin with something else")
	}
}

// types are the names of the rule types that which picks.
func (n *node) types(id sectionID, which func(s slot, r *rule) bool) []string {
	var names []string
	for s, name := range ruleNames[id] {
		if which(slot(s), n.rules[s]) {
			names = append(names, name)
		}
	}
	return names
}

// unreachable finds rules that another path always decides before.
func (l *linter) unreachable(id sectionID, n *node, all []*node) {
	var better *node
	types := n.types(id, func(s slot, r *rule) bool {
		if r == nil {
			return false
		}
		for _, other := range all {
			if other.rank < n.rank && other.rules[s] != nil && other.covers(n.path) {
				better = other
				return true
			}
		}
		return false
	})
	if better == nil {
		return
	}
	why := fmt.Sprintf("has more characters (%d, this has %d)", better.length, n.length)
	cure := fmt.Sprintf("shorten the variables of %q until this path has more characters, or write the condition into its rules", better.text)
	if better.length == n.length {
		why = "has as many characters and stands later"
		cure = "join the two, or move this path behind the other"
	}
	what := "every rule of this path is idle"
	if defined := n.types(id, func(_ slot, r *rule) bool { return r != nil }); len(types) < len(defined) {
		what = strings.Join(types, ", ") + " is idle here"
	}
	l.add("unreachable", Warning, spot{section: sectionNames[id], path: n.text}, types,
		fmt.Sprintf("%s: %q matches the same names and %s, so it decides", what, better.text, why),
		"Clients are judged by the other path's rules, never by these.", cure)
}

// fallThrough tells which rule types a path leaves to others, and for * what it
// opens.
func (l *linter) fallThrough(id sectionID, n *node, all *section) {
	at := spot{section: sectionNames[id], path: n.text}
	missing := n.types(id, func(_ slot, r *rule) bool { return r == nil })
	if n.text == "*" {
		l.star(id, n, missing)
		return
	}
	if len(missing) == len(ruleNames[id]) {
		l.add("no-rules", Warning, at, nil, "the path has no rules", "It changes nothing for anybody.", "add rules, or remove it")
		return
	}
	if len(missing) == 0 {
		return
	}
	found := all.search(n.sample())
	var opened, closed, ruled, can []string
	open := map[string]string{} // who opens
	for s, name := range ruleNames[id] {
		switch m := found.rules[s]; {
		case n.rules[s] != nil:
		case m.rule == nil, m.expr == nil && !m.allow:
			closed = append(closed, name)
		case m.expr != nil:
			ruled = append(ruled, fmt.Sprintf("%s is ruled by %q", name, m.path))
		default:
			opened, can = append(opened, name), append(can, effects[id][s])
			open[name] = m.path
		}
	}
	var said []string
	for _, path := range inOrder(opened, open) {
		var types []string
		for _, name := range opened {
			if open[name] == path {
				types = append(types, name)
			}
		}
		said = append(said, fmt.Sprintf("%s: %q allows that to everybody", strings.Join(types, ", "), path))
	}
	said = append(said, ruled...)
	if len(closed) > 0 {
		said = append(said, strings.Join(closed, ", ")+": nobody may")
	}
	restricts := slices.ContainsFunc(n.rules[:], func(r *rule) bool { return r != nil && (r.expr != nil || !r.allow) })
	severity, effect, cure := Note, "Other paths decide these.", "name them here as well, so that a change elsewhere does not open them"
	if len(opened) > 0 {
		effect = "Any client may " + join(can) + " under these names."
		cure = fmt.Sprintf("add %s: false, or rules as strict as the others", strings.Join(opened, ": false, "))
		if restricts {
			severity = Warning
		}
	} else if len(ruled) == 0 {
		effect = "Every client is refused these."
	}
	l.add("fall-through", severity, at, missing, "not defined here; "+strings.Join(said, "; "), effect, cure)
}

// inOrder are the values of m in the order of keys, each once.
func inOrder(keys []string, m map[string]string) []string {
	var list []string
	for _, k := range keys {
		if !slices.Contains(list, m[k]) {
			list = append(list, m[k])
		}
	}
	return list
}

// star tells what * opens to everybody, and leaves to nobody.
func (l *linter) star(id sectionID, n *node, missing []string) {
	at := spot{section: sectionNames[id], path: n.text}
	var can []string
	open := n.types(id, func(s slot, r *rule) bool {
		if r == nil || r.expr != nil || !r.allow {
			return false
		}
		can = append(can, effects[id][s])
		return true
	})
	if len(open) > 0 {
		severity := Note
		defined := len(ruleNames[id]) - len(missing)
		change := func(name string) bool { return name == "write" || name == "delete" || name == "provide" }
		if len(open) == defined && defined > 1 || slices.ContainsFunc(open, change) {
			severity = Warning
		}
		l.add("open-star", severity, at, open, "allowed to everybody",
			"Any client may "+join(can)+" under every name that no other path protects.",
			"deny here ("+strings.Join(open, ": false, ")+": false), and open paths one by one")
	}
	if len(missing) > 0 && len(missing) < len(ruleNames[id]) {
		l.add("star-incomplete", Note, at, missing, `"*" does not define `+strings.Join(missing, ", "),
			"Every client is refused these for names that no other path allows.", "write them down, false if that is meant")
	}
}

// reset finds write rules that compare with what anybody may delete.
func (l *linter) reset(id sectionID, n *node, all *section) {
	write := n.rules[recWrite]
	if id != secRecord || write == nil || write.expr == nil || !write.expr.UsesOldData() {
		return
	}
	found := all.search(n.sample())
	remove, create := found.rules[recDelete], found.rules[recCreate]
	if remove.rule == nil || remove.expr != nil || !remove.allow || create.rule == nil || create.expr == nil && !create.allow {
		return
	}
	by := "here"
	if remove.path != n.text {
		by = fmt.Sprintf("by %q", remove.path)
	}
	l.add("delete-resets", Warning, spot{sectionNames[id], n.text, "write"}, []string{"create", "write", "delete"},
		"the rule compares with oldData, and delete is allowed to everybody "+by,
		"A client that may not change a record deletes it, creates it again, and writes what it likes.",
		"add delete: false, or a rule as strict as that for write")
}

// variables finds variables that no rule of the path asks for.
func (l *linter) variables(id sectionID, n *node) {
	expressions := 0
	used := map[string]bool{}
	for _, r := range n.rules {
		if r == nil || r.expr == nil {
			continue
		}
		expressions++
		for _, read := range r.expr.Reads() {
			name, _, _ := strings.Cut(read, ".")
			used[name] = true
		}
	}
	for _, v := range n.vars {
		if expressions > 0 && !used[v] {
			l.add("unused-variable", Note, spot{section: sectionNames[id], path: n.text}, nil, "no rule of the path looks at "+v,
				"What stands there in a name makes no difference.", "compare it, such as user.id === "+v+", if it should")
		}
	}
}

// doubtful says how bad each doubt is, and what it means for a client.
var doubtful = map[expr.DoubtKind]struct {
	severity Severity
	effect   string
}{
	expr.MissingOldData:   {Warning, "A client that asks for what does not exist yet gets MESSAGE_PERMISSION_ERROR."},
	expr.MissingUserData:  {Warning, "A user without server data gets MESSAGE_PERMISSION_ERROR, also where another part of the rule would allow it."},
	expr.MissingReference: {Warning, "A client that names what does not exist gets MESSAGE_PERMISSION_ERROR instead of MESSAGE_DENIED."},
	expr.MissingMember:    {Warning, "A client that leaves it out gets MESSAGE_PERMISSION_ERROR instead of MESSAGE_DENIED."},
	expr.MissingData:      {Note, "A client that sends nothing gets MESSAGE_PERMISSION_ERROR instead of MESSAGE_DENIED."},
	expr.AlwaysTrue:       {Error, "Clients that should be refused are let through."},
	expr.AlwaysFalse:      {Warning, "Clients that should be let through are refused."},
	expr.LooseData:        {Warning, "A client may pass by sending another type."},
	expr.Loose:            {Note, "A client may pass with a value of another type."},
	expr.SelfAssigned:     {Warning, "Any client may overwrite the records of others by writing itself in."},
}

// FindingIDs are the kinds of findings there are, sorted.
func FindingIDs() []string {
	ids := []string{"syntax", "refused", "missing-section", "missing-star", "field-not-allowed", "quotes-in-path", "blank-in-path",
		"pattern-in-path", "no-variable", "reserved-path", "unreachable", "no-rules", "fall-through", "open-star", "star-incomplete",
		"delete-resets", "unused-variable"}
	for kind := range doubtful {
		ids = append(ids, string(kind))
	}
	slices.Sort(ids)
	return ids
}

func (l *linter) doubts(r *rule, n *node) {
	scope := scopes[r.section][r.slot]
	scope.Vars = n.vars
	doubts, err := expr.Doubts(r.text, scope)
	if err != nil {
		panic("perms: a compiled rule does not compile: " + err.Error())
	}
	at := spot{sectionNames[r.section], r.path, ruleNames[r.section][r.slot]}
	for _, d := range doubts {
		how := doubtful[d.Kind]
		if r.slot == recDelete && d.Kind == expr.MissingOldData {
			how.severity = Note // there is nothing to delete
		}
		l.add(string(d.Kind), how.severity, at, []string{at.rule}, d.Reason, how.effect, d.Cure)
		f := &l.found[len(l.found)-1]
		f.Line, f.Column = l.places.inside(at, d.Line, d.Column)
	}
}

// join is "a, b and c".
func join(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}
