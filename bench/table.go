package bench

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table prints what was measured, a line for each scenario and target: medians over the
// rounds.
func (r *Result) Table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "scenario\ttarget\tmessages/s\tserver CPU µs each\tp50 ms\tp99 ms\tmemory MB\tgenerator µs each\tlost, twice, late\t")
	var remarks []string
	for _, g := range r.Groups() {
		remarks = append(remarks, g.remarks()...)
		if len(g.Runs) == 0 {
			if slices.ContainsFunc(g.Failed, (*Run).Failed) {
				fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t-\t-\t-\t\n", g.Scenario, g.Target)
			}
			continue
		}
		l := g.Ledger()
		generator := g.Spread(Metric{Of: func(r *Run) float64 { return r.Generator }})
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", g.Scenario, g.Target, Number(g.Spread(PerSecond).Median),
			spreadText(g.Spread(CPUEach), 1), spreadText(g.Spread(P50), 1000), spreadText(g.Spread(P99), 1000),
			Number(g.Spread(Memory).Median/1e6), Number(generator.Median), ledgerText(l))
		for _, f := range g.facts() {
			fmt.Fprintf(w, "  %s\t\t%s\t\t\t\t\t\t\t\n", f.Name, strings.TrimSpace(Number(g.Spread(FactMetric(f.Name)).Median)+" "+f.Unit))
		}
	}
	if err := errors.Join(w.Flush(), r.ratios(out)); err != nil {
		return err
	}
	for i, s := range remarks {
		if i == 0 {
			s = "\n" + s
		}
		if _, err := fmt.Fprintln(out, s); err != nil {
			return err
		}
	}
	m := r.Machine
	_, err := fmt.Fprintf(out, "\n%s, %d cores, %s %s; load average at the beginning %.2f; took %.0f s\n", m.CPU, m.Cores, m.OS, m.Kernel, m.Load, r.Took)
	return err
}

// Row is a scenario with all its targets: the first one, and how much of each other one's
// server CPU it takes.
type Row struct {
	Scenario, Unit string
	First          *Group
	Others         []*Group // nil where there is none of that target
}

// Rows puts targets beside each other; others are their names, in order.
func (r *Result) Rows() (first string, others []string, rows []Row) {
	groups := r.Groups()
	names := targetsOf(groups)
	if len(names) < 2 {
		return "", nil, nil
	}
	find := func(scenario, target string) *Group {
		for _, g := range groups {
			if g.Scenario == scenario && g.Target == target && len(g.Runs) > 0 {
				return g
			}
		}
		return nil
	}
	for _, g := range groups {
		if g.Target != names[0] || len(g.Runs) == 0 {
			continue
		}
		row := Row{Scenario: g.Scenario, Unit: g.Unit, First: g}
		for _, other := range names[1:] {
			row.Others = append(row.Others, find(g.Scenario, other))
		}
		rows = append(rows, row)
	}
	return names[0], names[1:], rows
}

// RatioText is how much of another target's server CPU the first one takes, with the spread.
func (r Row) RatioText(i int) string {
	if r.Others[i] == nil {
		return "-"
	}
	q := Ratio(r.Others[i], r.First, CPUEach)
	switch {
	case q.Median == 0:
		return "-"
	case q.Min == q.Max:
		return "×" + Number(q.Median)
	}
	return fmt.Sprintf("×%s (%s–%s)", Number(q.Median), Number(q.Min), Number(q.Max))
}

// FirstText is the server CPU of the first target.
func (r Row) FirstText() string { return spreadText(r.First.Spread(CPUEach), 1) }

// CPUText is the server CPU of another target.
func (r Row) CPUText(i int) string {
	if r.Others[i] == nil {
		return "-"
	}
	return spreadText(r.Others[i].Spread(CPUEach), 1)
}

// ratios prints the server CPU of several targets side by side.
func (r *Result) ratios(out io.Writer) error {
	first, others, rows := r.Rows()
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\nServer CPU, µs each:\n")
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "scenario\tunit\t%s\t", first)
	for _, name := range others {
		fmt.Fprintf(w, "%s\t%s / %s\t", name, first, name)
	}
	fmt.Fprintln(w)
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t", row.Scenario, row.Unit, row.FirstText())
		for i := range others {
			fmt.Fprintf(w, "%s\t%s\t", row.CPUText(i), row.RatioText(i))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// remarks are what a reader of the group's numbers must know, each once.
func (g *Group) remarks() []string {
	var all []string
	for _, run := range append(slices.Clone(g.Failed), g.Runs...) {
		if run.Failed() {
			all = append(all, fmt.Sprintf("%s on %s FAILED: %s", run.Scenario, run.Target, run.Error))
		}
		for _, n := range run.Notes {
			all = append(all, fmt.Sprintf("%s on %s: %s", run.Scenario, run.Target, n))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// facts are the facts of the group's first run.
func (g *Group) facts() []Fact {
	if len(g.Runs) == 0 {
		return nil
	}
	return g.Runs[0].Facts
}

// ledgerText is what a table says of lost, duplicated and late messages.
func ledgerText(l Ledger) string {
	switch {
	case l.Due == 0:
		return "-"
	case l.Clean():
		return "none"
	}
	return fmt.Sprintf("%d, %d, %d", l.Lost, l.Duplicated, l.OutOfOrder)
}

// spreadText is a median, and the least and most if they differ.
func spreadText(s Spread, per float64) string {
	switch {
	case s.Median == 0:
		return "-"
	case s.Min == s.Max:
		return Number(s.Median / per)
	}
	return fmt.Sprintf("%s (%s–%s)", Number(s.Median/per), Number(s.Min/per), Number(s.Max/per))
}

// Number is a number with three figures or so, as people read it.
func Number(v float64) string {
	switch a := max(v, -v); {
	case a == 0:
		return "0"
	case a >= 1e4:
		return grouped(int64(v + 0.5))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// grouped has a space between thousands.
func grouped(n int64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + " " + text[i:] // no-break
	}
	return text
}
