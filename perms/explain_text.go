package perms

import (
	"fmt"
	"strings"
)

// Text is the explanation for people.
func (e *Explanation) Text() string {
	var b strings.Builder
	b.WriteString(strings.ToUpper(e.Verdict))
	if e.Answer != "" {
		b.WriteString(" (" + e.Answer + ")")
	}
	fmt.Fprintf(&b, ": %s\n\n", e.Reason)
	who := e.User
	if !e.Authenticated {
		who += " (not authenticated)"
	}
	fmt.Fprintf(&b, "user    %s\naction  %s.%s (%d)\nname    %s", who, e.Topic, e.Action, e.Number, e.Name)
	if e.Exists != nil && !*e.Exists {
		b.WriteString(" (does not exist)")
	}
	b.WriteByte('\n')
	for i := range e.Checks {
		e.Checks[i].text(&b)
	}
	return b.String()
}

func (c *Check) text(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s %s: ", c.Section, c.Rule)
	if c.Skipped != "" {
		fmt.Fprintf(b, "not asked: %s\n", c.Skipped)
		return
	}
	fmt.Fprintf(b, "%s\n", c.Verdict)
	if c.Path != "" {
		fmt.Fprintf(b, "  rule  %s\n", indent(c.Text, "        "))
	}
	b.WriteString("  paths\n")
	for _, p := range c.Paths {
		mark := "  "
		if p.Chosen {
			mark = "* "
		}
		fmt.Fprintf(b, "  %s%q: %s\n", mark, p.Path, p.Why)
	}
	if len(c.Paths) == 0 {
		b.WriteString("    none matches\n")
	}
	if len(c.Variables) > 0 {
		b.WriteString("  variables\n")
		for _, v := range c.Variables {
			fmt.Fprintf(b, "    %s = %s\n", v.Name, v.Value)
		}
	}
	for i, r := range c.Records {
		if i == 0 {
			b.WriteString("  records\n")
		}
		value := r.Value
		if !r.Exists {
			value = "does not exist"
		}
		fmt.Fprintf(b, "    run %d: %q = %s\n", r.Run, r.Name, value)
	}
	if len(c.Steps) > 0 {
		b.WriteString("  evaluation\n")
	}
	for _, s := range c.Steps {
		mark := "  "
		if s.Decides {
			mark = "* "
		}
		fmt.Fprintf(b, "  %s%s%s %s\n", mark, strings.Repeat("  ", s.Depth), strings.Join(strings.Fields(s.Text), " "), s.outcome())
	}
	if c.Failure != "" {
		fmt.Fprintf(b, "  failed: %s\n", c.Failure)
	}
}

// outcome is what became of a step.
func (s *Step) outcome() string {
	switch {
	case s.Failed != "":
		return "fails: " + s.Failed
	case s.Value != "":
		return "= " + s.Value
	case s.Evaluated:
		return "fails below"
	}
	return "(not reached)"
}

// indent is text of several lines, all but the first behind by.
func indent(text, by string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}
