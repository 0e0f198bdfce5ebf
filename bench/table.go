package bench

import (
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
		for _, run := range append(g.Failed, g.Runs...) {
			if run.Failed() {
				remarks = append(remarks, fmt.Sprintf("%s on %s FAILED: %s", run.Scenario, run.Target, run.Error))
			}
			for _, n := range run.Notes {
				remark := fmt.Sprintf("%s on %s: %s", run.Scenario, run.Target, n)
				if !slices.Contains(remarks, remark) {
					remarks = append(remarks, remark)
				}
			}
		}
		if len(g.Runs) == 0 {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t-\t-\t-\t\n", g.Scenario, g.Target)
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
	if err := w.Flush(); err != nil {
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
