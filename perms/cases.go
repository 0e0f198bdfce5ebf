package perms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Cases are the tests of a rules file, as they stand in a file of their own.
type Cases struct {
	// Rules is the rules file that they test, as it is written there; empty leaves it
	// to who runs them.
	Rules string
	List  []Case
}

// Case is one question with the answer that is expected.
type Case struct {
	Query
	// Title says what the case is about, and Line where it stands.
	Title string
	Line  int
	// Expect is allow, deny or error. By, if it is set, is the path whose rule has to
	// decide.
	Expect, By string
}

// Result is what became of a case.
type Result struct {
	Title  string `json:"title"`
	Line   int    `json:"line"`
	User   string `json:"user"`
	Action string `json:"action"`
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Expect string `json:"expect"`
	Got    string `json:"got,omitempty"`
	// Problem says what is not as expected.
	Problem string `json:"problem,omitempty"`
	// Explanation is of a case that did not pass.
	Explanation *Explanation `json:"explanation,omitempty"`
}

// caseKeys are what a case may say, and defaults as well.
var caseKeys = []string{"title", "user", "userData", "action", "name", "data", "path", "oldData", "refs", "now", "expect", "by"}

// ParseCases reads the text of a file of cases (docs/rules-test.md), and joins all
// mistakes it finds, each with its line.
func ParseCases(text string) (*Cases, error) {
	var tree any
	if err := yaml.UnmarshalWithOptions([]byte(text), &tree, yaml.UseOrderedMap()); err != nil {
		return nil, err
	}
	top, ok := pairs(tree)
	if !ok {
		return nil, errors.New("is not a mapping: it needs cases, a list")
	}
	p := &caseParser{users: map[string]json.RawMessage{}, lines: caseLines(text)}
	var list []any
	defaults := map[string]any{}
	for _, entry := range top {
		switch entry.key {
		case "rules":
			if p.cases.Rules, ok = entry.value.(string); !ok {
				p.wrong(0, "rules: is no text: name the rules file")
			}
		case "users":
			p.readUsers(entry.value)
		case "defaults":
			defaults = p.fields(0, "defaults", entry.value)
		case "cases":
			if list, ok = entry.value.([]any); !ok {
				p.wrong(0, "cases: is no list: begin each case with a dash")
			}
		default:
			p.wrong(0, "there is no key %q: there are rules, users, defaults and cases", entry.key)
		}
	}
	if len(list) == 0 && len(p.errs) == 0 {
		p.wrong(0, "there are no cases: add some, or nothing is tested")
	}
	for i, item := range list {
		p.read(i, item, defaults)
	}
	return &p.cases, errors.Join(p.errs...)
}

// caseParser gathers cases and what is wrong with them.
type caseParser struct {
	cases Cases
	users map[string]json.RawMessage
	lines []int
	errs  []error
}

func (p *caseParser) wrong(line int, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if line > 0 {
		err = fmt.Errorf("line %d: %w", line, err)
	}
	p.errs = append(p.errs, err)
}

// readUsers reads the server data of users.
func (p *caseParser) readUsers(v any) {
	list, ok := pairs(v)
	if !ok {
		p.wrong(0, "users: is not a mapping: it needs user ids with their server data")
	}
	for _, u := range list {
		raw, err := toJSON(u.value)
		if err != nil {
			p.wrong(0, "users: %s: %v", u.key, err)
		}
		p.users[u.key] = raw
	}
}

// fields are the keys of a case, or of defaults.
func (p *caseParser) fields(line int, what string, v any) map[string]any {
	m := map[string]any{}
	list, ok := pairs(v)
	if !ok {
		p.wrong(line, "%s is not a mapping: it needs keys such as action and expect", what)
	}
	for _, f := range list {
		if !slices.Contains(caseKeys, f.key) {
			p.wrong(line, "there is no key %q in %s: there are %s", f.key, what, strings.Join(caseKeys, ", "))
		}
		m[f.key] = f.value
	}
	return m
}

// read reads one item of the list: a case for each user, action and name in it.
func (p *caseParser) read(i int, v any, defaults map[string]any) {
	line := 0
	if i < len(p.lines) {
		line = p.lines[i]
	}
	m := p.fields(line, "a case", v)
	for k, v := range defaults {
		if _, ok := m[k]; !ok {
			m[k] = v
		}
	}
	c := Case{Line: line, Title: p.text(line, m, "title"), Expect: p.text(line, m, "expect"), By: p.text(line, m, "by")}
	c.Path = p.text(line, m, "path")
	c.UserData, c.Data, c.OldData = p.doc(line, m, "userData"), p.doc(line, m, "data"), p.doc(line, m, "oldData")
	if refs, ok := m["refs"]; ok {
		list, ok := pairs(refs)
		if !ok {
			p.wrong(line, "refs: is not a mapping: it needs the names of records with their content")
		}
		c.References = map[string]json.RawMessage{}
		for _, r := range list {
			c.References[r.key] = p.doc(line, map[string]any{r.key: r.value}, r.key)
		}
	}
	if now, ok := m["now"]; ok {
		if _, err := fmt.Sscan(fmt.Sprint(now), &c.Now); err != nil {
			p.wrong(line, "now: %v is no time: give milliseconds since 1970", now)
		}
	}
	if !slices.Contains([]string{"allow", "deny", "error"}, c.Expect) {
		p.wrong(line, "expect: is %q: use allow, deny or error", c.Expect)
	}
	for _, user := range p.texts(line, m, "user") {
		for _, action := range p.texts(line, m, "action") {
			for _, name := range p.texts(line, m, "name") {
				one := c
				one.User, one.Action, one.Name = user, action, name
				if one.UserData == nil {
					one.UserData = p.users[user]
				}
				if _, _, err := parseAction(action, false); err != nil {
					p.wrong(line, "%w", err)
				}
				p.cases.List = append(p.cases.List, one)
			}
		}
	}
}

// text is the text of a key; texts is one, or a list of them, at least one.
func (p *caseParser) text(line int, m map[string]any, key string) string {
	switch v := m[key].(type) {
	case nil:
		return ""
	case string:
		return v
	case uint64, int64, float64, bool:
		return fmt.Sprint(v)
	}
	p.wrong(line, "%s: is no text", key)
	return ""
}

func (p *caseParser) texts(line int, m map[string]any, key string) []string {
	list, ok := m[key].([]any)
	if !ok {
		return []string{p.text(line, m, key)}
	}
	var texts []string
	for _, v := range list {
		texts = append(texts, p.text(line, map[string]any{key: v}, key))
	}
	if len(texts) == 0 {
		p.wrong(line, "%s: is an empty list, so that nothing is tested", key)
	}
	return texts
}

// doc is the JSON of a key, or nil without one.
func (p *caseParser) doc(line int, m map[string]any, key string) json.RawMessage {
	v, ok := m[key]
	if !ok {
		return nil
	}
	raw, err := toJSON(v)
	if err != nil {
		p.wrong(line, "%s: %v", key, err)
	}
	return raw
}

// toJSON writes a decoded YAML value as JSON, its keys in their order.
func toJSON(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return nil, fmt.Errorf("cannot be JSON: %w", err)
	}
	return b.Bytes(), nil
}

func writeJSON(b *bytes.Buffer, v any) error {
	if list, ok := v.([]any); ok {
		b.WriteByte('[')
		for i, element := range list {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, element); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	members, ok := pairs(v)
	if !ok {
		raw, err := json.Marshal(v)
		b.Write(raw)
		return err
	}
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := writeJSON(b, m.key); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := writeJSON(b, m.value); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

// caseLines are the lines on which the cases begin.
func caseLines(text string) []int {
	file, err := parser.ParseBytes([]byte(text), 0)
	if err != nil || len(file.Docs) == 0 {
		return nil
	}
	var entries []*ast.MappingValueNode
	switch body := file.Docs[0].Body.(type) {
	case *ast.MappingNode:
		entries = body.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{body}
	}
	var lines []int
	for _, e := range entries {
		list, ok := e.Value.(*ast.SequenceNode)
		if !ok || e.Key.GetToken().Value != "cases" {
			continue
		}
		for _, item := range list.Values {
			line := item.GetToken().Position.Line
			if m, ok := item.(*ast.MappingNode); ok && len(m.Values) > 0 {
				line = m.Values[0].Key.GetToken().Position.Line
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// Test runs a case. Nothing but the case is read: records that it does not give do
// not exist.
func (r *Rules) Test(ctx context.Context, c Case) Result {
	result := Result{Title: c.Title, Line: c.Line, User: c.User, Action: c.Action, Name: c.Name, Expect: c.Expect}
	x, err := r.Explain(ctx, c.Query, nil)
	if err != nil {
		result.Problem = err.Error()
		return result
	}
	result.User, result.Name, result.Got = x.User, x.Name, x.Verdict
	by := ""
	for _, check := range x.Checks {
		if check.Decides {
			by = check.Path
		}
	}
	switch {
	case x.Verdict != c.Expect:
		result.Problem = fmt.Sprintf("expected %s, got %s", c.Expect, x.Verdict)
	case c.By != "" && by == "":
		result.Problem = fmt.Sprintf("expected the path %q to decide, and none does", c.By)
	case c.By != "" && by != c.By:
		result.Problem = fmt.Sprintf("expected the path %q to decide, and %q does", c.By, by)
	default:
		result.Passed = true
		return result
	}
	result.Explanation = x
	return result
}
