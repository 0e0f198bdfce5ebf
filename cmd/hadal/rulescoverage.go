package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"hadal/node/admin"
	"hadal/perms"
)

func newRulesCoverage(t *target) *cobra.Command {
	var start, stop, reset, merge bool
	var out coverageOutput
	cmd := &cobra.Command{
		Use:   "coverage",
		Short: "Say which rules, and which parts of them, the traffic of a running node has used",
		Long: "Say which rules, and which branches of their expressions, the traffic of a running\n" +
			"node has used since counting was switched on, with --start or by\n" +
			"permission.options.coverage. With --merge, add up reports that were printed with\n" +
			"--json instead, of nodes or of tests; the first one says which rules there are.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case merge && len(args) == 0:
				return usagef("name the files to add up")
			case !merge && len(args) > 0:
				return usagef("%s: files are read only with --merge", args[0])
			case merge:
				r, err := mergeCoverage(cmd.ErrOrStderr(), args)
				if err != nil {
					return err
				}
				return out.write(cmd, r)
			}
			return withNode(t, func(cmd *cobra.Command, c *admin.Client, _ []string) error {
				ctx := cmd.Context()
				if reset {
					if err := c.ResetCoverage(ctx); err != nil {
						return err
					}
				}
				if start || stop {
					if err := c.CountCoverage(ctx, start); err != nil {
						return err
					}
				}
				r, err := c.Coverage(ctx)
				if err != nil {
					return err
				}
				if (start || stop || reset) && !out.asJSON && out.html == "" {
					_, err := fmt.Fprintln(cmd.OutOrStdout(), coverageState(r))
					return err
				}
				return out.write(cmd, r)
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&start, "start", false, "begin to count")
	f.BoolVar(&stop, "stop", false, "count no longer; what was counted stays")
	f.BoolVar(&reset, "reset", false, "set everything counted to zero")
	f.BoolVar(&merge, "merge", false, "add up the reports in the files that are named")
	f.BoolVar(&out.asJSON, "json", false, "print JSON, which --merge reads")
	f.StringVar(&out.html, "html", "", "write a page with the rules in colours to this `file`")
	cmd.MarkFlagsMutuallyExclusive("start", "stop", "merge")
	cmd.MarkFlagsMutuallyExclusive("reset", "merge")
	return cmd
}

// coverageOutput says how a report is written.
type coverageOutput struct {
	asJSON bool
	html   string
}

func (o coverageOutput) write(cmd *cobra.Command, r perms.CoverageReport) error {
	if o.html != "" {
		if err := intoFile(cmd, o.html, func(to io.Writer) error { return coveragePage.Execute(to, r) }); err != nil {
			return err
		}
		if !o.asJSON {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), coverageSummary(r))
			return err
		}
	}
	if o.asJSON {
		return printJSON(cmd, r)
	}
	return printCoverage(cmd.OutOrStdout(), r)
}

// mergeCoverage adds up the reports in files.
func mergeCoverage(warn io.Writer, files []string) (all perms.CoverageReport, err error) {
	for i, name := range files {
		r, err := readCoverage(name)
		if err != nil {
			return all, err
		}
		if i == 0 {
			all = r
			continue
		}
		if left := all.Add(r); left > 0 {
			_, err := fmt.Fprintf(warn, "%s: %d rules are not those of %s, and left out\n", name, left, files[0])
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func readCoverage(name string) (r perms.CoverageReport, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	if r.Format != perms.CoverageFormat {
		return r, fmt.Errorf("%s: is no report of rules coverage: print one with --json", name)
	}
	return r, nil
}

// coverageState says whether counting goes on.
func coverageState(r perms.CoverageReport) string {
	switch since := r.Since.Local().Format(time.DateTime); {
	case r.Counting:
		return "counting since " + since
	case r.Since.IsZero():
		return "not counting: begin with --start"
	default:
		return "not counting any more; counted since " + since
	}
}

func coverageSummary(r perms.CoverageReport) string {
	judged := 0
	for _, rule := range r.Rules {
		if rule.Judged() > 0 {
			judged++
		}
	}
	taken, all := r.Ways()
	return fmt.Sprintf("%d of %d rules judged, %d of %d ways taken (%s)", judged, len(r.Rules), taken, all, percentage(taken, all))
}

// percentage is rounded down: only all is 100 %.
func percentage(part, all int) string {
	if all == 0 {
		return "nothing to take"
	}
	return fmt.Sprintf("%d %%", 100*part/all)
}

// printCoverage prints a report for people.
func printCoverage(to io.Writer, r perms.CoverageReport) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", coverageState(r), coverageSummary(r))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	section, path := "", ""
	for _, rule := range r.Rules {
		if rule.Section != section {
			section, path = rule.Section, ""
			fmt.Fprintf(w, "\n%s\n", section)
		}
		if rule.Path != path {
			path = rule.Path
			fmt.Fprintf(w, "  %s\n", path)
		}
		fmt.Fprintf(w, "    %s\t%s\t%s\n", rule.Rule, oneLine(rule.Text), ruleOutcome(rule))
		if rule.Judged() == 0 {
			continue
		}
		for _, b := range rule.Branches[min(1, len(rule.Branches)):] {
			fmt.Fprintf(w, "      %d:%d\t%s\t%s\n", b.Line, b.Column, oneLine(b.Text), branchOutcome(b))
		}
	}
	// A strings.Builder takes everything.
	_ = w.Flush()
	_, err := io.WriteString(to, b.String())
	return err
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// ruleOutcome says what came of a rule.
func ruleOutcome(r perms.RuleCoverage) string {
	if r.Judged() == 0 {
		return "never judged"
	}
	var words []string
	for _, w := range []struct {
		word string
		n    uint64
	}{{"allowed", r.Allowed}, {"denied", r.Denied}} {
		switch {
		case w.n > 0:
			words = append(words, fmt.Sprintf("%s %d", w.word, w.n))
		case !r.Constant:
			words = append(words, "never "+w.word)
		}
	}
	if r.Failed > 0 {
		words = append(words, fmt.Sprintf("failed %d", r.Failed))
	}
	return strings.Join(words, ", ")
}

// branchOutcome says what came of a branch.
func branchOutcome(b perms.BranchCoverage) string {
	switch {
	case b.True+b.False == 0:
		return "never evaluated"
	case b.True == 0:
		return fmt.Sprintf("never true, false %d", b.False)
	case b.False == 0:
		return fmt.Sprintf("true %d, never false", b.True)
	}
	return fmt.Sprintf("true %d, false %d", b.True, b.False)
}

//go:embed rulescoverage.html
var coverageHTML string

// coveragePage is a report as a page that needs nothing else.
var coveragePage = template.Must(template.New("coverage").Funcs(template.FuncMap{
	"state": coverageState, "summary": coverageSummary, "outcome": ruleOutcome, "branch": branchOutcome,
	"colour": ruleColour, "pieces": coveragePieces, "groups": coverageGroups,
}).Parse(coverageHTML))

// coveragePath is a path with its rules, for the page.
type coveragePath struct {
	Section string // empty when it is that of the path before
	Path    string
	Rules   []perms.RuleCoverage
}

func coverageGroups(r perms.CoverageReport) (groups []coveragePath) {
	section := ""
	for _, rule := range r.Rules {
		last := len(groups) - 1
		if last >= 0 && section == rule.Section && groups[last].Path == rule.Path {
			groups[last].Rules = append(groups[last].Rules, rule)
			continue
		}
		g := coveragePath{Path: rule.Path, Rules: []perms.RuleCoverage{rule}}
		if rule.Section != section {
			section = rule.Section
			g.Section = section
		}
		groups = append(groups, g)
	}
	return groups
}

// colour is the class of something with so many ways, of which some were taken.
func colour(taken, all int) string {
	switch taken {
	case 0:
		return "none"
	case all:
		return "all"
	}
	return "some"
}

func ruleColour(r perms.RuleCoverage) string { return colour(r.Ways()) }

// coveragePiece is a part of a rule's text that has one colour.
type coveragePiece struct{ Text, Class, Title string }

// coveragePieces cuts the text of a rule where another branch begins: every
// character has the colour of the innermost branch that it stands in.
func coveragePieces(r perms.RuleCoverage) (pieces []coveragePiece) {
	if r.Constant {
		return []coveragePiece{{r.Text, ruleColour(r), ruleOutcome(r)}}
	}
	text := []rune(r.Text)
	inside := make([]int, len(text)) // the branch of each character
	order := make([]int, len(r.Branches))
	size := func(i int) int { return r.Branches[i].Length }
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order[min(1, len(order)):], func(a, b int) int { return size(b) - size(a) })
	for _, i := range order {
		if i == 0 {
			continue // everything stands in the rule itself
		}
		from := runeOffset(text, r.Branches[i].Line, r.Branches[i].Column)
		for at := from; at < min(from+size(i), len(text)); at++ {
			inside[at] = i
		}
	}
	for from := 0; from < len(text); {
		to := from
		for to < len(text) && inside[to] == inside[from] {
			to++
		}
		b := r.Branches[inside[from]]
		taken := 0
		for _, n := range []uint64{b.True, b.False} {
			if n > 0 {
				taken++
			}
		}
		pieces = append(pieces, coveragePiece{string(text[from:to]), colour(taken, 2), branchOutcome(b)})
		from = to
	}
	return pieces
}

// runeOffset is the place of a line and column, which begin at 1.
func runeOffset(text []rune, line, column int) int {
	at := 0
	for ; line > 1 && at < len(text); at++ {
		if text[at] == '\n' {
			line--
		}
	}
	return min(at+column-1, len(text))
}
