package perms

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"hadal/auth"
	"hadal/perms/expr"
)

// Cells of a Matrix.
const (
	// CellAllow and CellDeny hold whatever is sent, stored or asked for.
	CellAllow = "allow"
	CellDeny  = "deny"
	// CellSometimes depends on it.
	CellSometimes = "sometimes"
)

// MatrixUser is a column of a Matrix: everybody who has that server data.
type MatrixUser struct {
	// Name heads the column.
	Name string `json:"name"`
	// Anonymous is a client that logged in without a name.
	Anonymous bool `json:"anonymous,omitempty"`
	// Data is the server data, user.data in rules; none is null.
	Data json.RawMessage `json:"data,omitempty"`
}

// RoleUser is the column of a role.
func RoleUser(role string) MatrixUser {
	data, err := json.Marshal(map[string]string{"role": role})
	if err != nil {
		panic(fmt.Sprintf("perms: role cannot be written as JSON: %v", err)) // a text
	}
	return MatrixUser{Name: role, Data: data}
}

// Matrix says what each of some users may do, as far as rules tell without knowing what is
// sent and stored.
type Matrix struct {
	Users []MatrixUser `json:"users"`
	Rows  []MatrixRow  `json:"rows"`
}

// MatrixRow is one action on the names of one path.
type MatrixRow struct {
	// Topic is the section, Path one of its paths, Action a rule type.
	Topic  string `json:"topic"`
	Path   string `json:"path"`
	Action string `json:"action"`
	// By is the path whose rule decides, when it is another one; Rule is the rule. Both are
	// empty where there is none, which denies.
	By   string `json:"by,omitempty"`
	Rule string `json:"rule,omitempty"`
	// Cells are CellAllow, CellDeny or CellSometimes, one for each user.
	Cells []string `json:"cells"`
}

// errOpen is the error of a Matrix of no rules.
var errOpen = errors.New(`permission.type is "none": everybody may do everything, and there is nothing to show`)

// Roles are the roles that rules compare user.data.role with, in the order of the file.
func (r *Rules) Roles() []string {
	var roles []string
	for rule := range r.each {
		if rule.expr == nil {
			continue
		}
		found, err := expr.Compared(rule.text, r.scopeOf(rule), "user.data.role")
		if err != nil {
			panic("perms: a compiled rule does not compile: " + err.Error())
		}
		for _, role := range found {
			if !slices.Contains(roles, role) {
				roles = append(roles, role)
			}
		}
	}
	return roles
}

// scopeOf is what a rule was compiled with.
func (r *Rules) scopeOf(rule *rule) expr.Scope {
	scope := scopes[rule.section][rule.slot]
	if n := r.sections[rule.section].pathOf(rule.path); n != nil {
		scope.Vars = n.vars
	}
	return scope
}

// pathOf is the path of that text, or nil.
func (s *section) pathOf(text string) *node {
	for _, nodes := range s.byPrefix {
		for _, n := range nodes {
			if n.text == text {
				return n
			}
		}
	}
	return nil
}

// Matrix says what users may do, path by path in the order of the file. What a path does
// not say itself is found as for a name that it matches. The error says that there are no
// rules, or whose data is no JSON.
func (r *Rules) Matrix(users []MatrixUser) (*Matrix, error) {
	if r.open {
		return nil, errOpen
	}
	m := &Matrix{Users: users, Rows: []MatrixRow{}}
	known := make([]expr.User, len(users))
	for i, u := range users {
		if len(u.Data) > 0 && !json.Valid(u.Data) {
			return nil, fmt.Errorf("the data of %s is not JSON: text needs quotes of its own", u.Name)
		}
		known[i] = expr.User{Authenticated: !u.Anonymous, Data: userDataOf(&auth.User{ServerData: given(u.Data)})}
		if u.Anonymous {
			known[i].ID = auth.Anonymous
		}
	}
	for id, section := range r.sections {
		var paths []string
		for _, rule := range section.rules {
			if slices.Contains(paths, rule.path) {
				continue
			}
			paths = append(paths, rule.path)
			n := section.pathOf(rule.path)
			for slot, action := range ruleNames[id] {
				row := MatrixRow{Topic: sectionNames[id], Path: n.text, Action: action}
				found := n.rules[slot]
				if found == nil {
					found = section.search(n.sample()).rules[slot].rule
				}
				if found != nil {
					row.Rule = strings.TrimSpace(found.text)
					if found.path != n.text {
						row.By = found.path
					}
				}
				for i, u := range known {
					row.Cells = append(row.Cells, r.cell(found, u, users[i].Anonymous))
				}
				m.Rows = append(m.Rows, row)
			}
		}
	}
	return m, nil
}

// cell is what one rule says to one user.
func (r *Rules) cell(found *rule, u expr.User, idKnown bool) string {
	switch {
	case found == nil:
		return CellDeny
	case found.expr == nil:
		return verdictOf(found.allow).String()
	}
	switch found.expr.Outlook(u, !idKnown, r.scopeOf(found)) {
	case expr.Always:
		return CellAllow
	case expr.Never:
		return CellDeny
	}
	return CellSometimes
}

// Text is the matrix for a terminal: a table for each section, and below it the rules of
// what is allowed at times.
func (m *Matrix) Text() string {
	return m.write(func(b *bytes.Buffer, title string, rows [][]string, notes []string) {
		fmt.Fprintf(b, "%s\n", title)
		widths := make([]int, len(rows[0]))
		for _, row := range rows {
			for i, cell := range row {
				widths[i] = max(widths[i], len([]rune(cell)))
			}
		}
		for _, row := range rows {
			line := ""
			for i, cell := range row {
				line += "  " + cell + strings.Repeat(" ", widths[i]-len([]rune(cell)))
			}
			fmt.Fprintln(b, strings.TrimRight(line, " "))
		}
		for i, note := range notes {
			fmt.Fprintf(b, "  if %d: %s\n", i+1, note)
		}
	})
}

// Markdown is the same for a page.
func (m *Matrix) Markdown() string {
	return m.write(func(b *bytes.Buffer, title string, rows [][]string, notes []string) {
		fmt.Fprintf(b, "### %s\n\n", title)
		for i, row := range rows {
			for j, cell := range row {
				if j == 0 && i > 0 {
					cell = "`" + cell + "`"
				}
				fmt.Fprintf(b, "| %s ", strings.ReplaceAll(cell, "|", `\|`))
			}
			b.WriteString("|\n")
			if i == 0 {
				b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
			}
		}
		for i, note := range notes {
			if i == 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(b, "%d. `%s`\n", i+1, note)
		}
	})
}

// write has each section written by part: its rows with the heading, and the rules that
// cells refer to by number.
func (m *Matrix) write(part func(b *bytes.Buffer, title string, rows [][]string, notes []string)) string {
	var b bytes.Buffer
	for _, section := range sectionNames {
		head := []string{"name", "action"}
		for _, u := range m.Users {
			head = append(head, u.Name)
		}
		rows, notes := [][]string{head}, []string(nil)
		for _, row := range m.Rows {
			if row.Topic != section {
				continue
			}
			cells := []string{row.Path, row.Action}
			for _, cell := range row.Cells {
				cells = append(cells, shownCell(cell, row.Rule, &notes))
			}
			rows = append(rows, cells)
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		part(&b, section, rows, notes)
	}
	return b.String()
}

// shownCell is a cell for people; a rule that it refers to is among the notes once.
func shownCell(cell, rule string, notes *[]string) string {
	switch cell {
	case CellAllow:
		return "yes"
	case CellDeny:
		return "no"
	}
	rule = strings.Join(strings.Fields(rule), " ")
	i := slices.Index(*notes, rule)
	if i < 0 {
		i = len(*notes)
		*notes = append(*notes, rule)
	}
	return fmt.Sprintf("if %d", i+1)
}
