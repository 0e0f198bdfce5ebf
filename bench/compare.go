package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Comparison is two groups side by side.
type Comparison struct {
	Scenario string
	A, B     *Group
}

// Compare pairs the groups of two results: the same scenario on the same target. When
// each of them has one target, the target's name does not matter.
func Compare(a, b *Result) []Comparison {
	single := len(a.Targets) == 1 && len(b.Targets) == 1
	var all []Comparison
	for _, x := range a.Groups() {
		for _, y := range b.Groups() {
			if x.Scenario == y.Scenario && (single || x.Target == y.Target) && len(x.Runs) > 0 && len(y.Runs) > 0 {
				all = append(all, Comparison{x.Scenario, x, y})
			}
		}
	}
	return all
}

// Against pairs each target of a result with one of them, such as a peer: A is that one.
func (r *Result) Against(name string) []Comparison {
	var all []Comparison
	groups := r.Groups()
	for _, x := range groups {
		for _, y := range groups {
			if x.Scenario == y.Scenario && x.Target == name && y.Target != name && len(x.Runs) > 0 && len(y.Runs) > 0 {
				all = append(all, Comparison{x.Scenario, x, y})
			}
		}
	}
	return all
}

// WriteComparison prints ratios of B to A with their spread: the least and the most that any
// two rounds give. Where that contains 1, there may be no difference.
func WriteComparison(out io.Writer, all []Comparison, what func(Comparison) string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "scenario\t\t")
	for _, m := range Compared {
		fmt.Fprintf(w, "%s\t", m.Name)
	}
	fmt.Fprintln(w)
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%s\t", c.Scenario, what(c))
		for _, m := range Compared {
			fmt.Fprintf(w, "%s\t", ratioText(c, m))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// ratioText is a ratio, its spread, and both medians.
func ratioText(c Comparison, m Metric) string {
	r := Ratio(c.A, c.B, m)
	if r.Median == 0 {
		return "-"
	}
	text := fmt.Sprintf("×%.2f", r.Median)
	if r.Min != r.Max {
		text += fmt.Sprintf(" (%.2f–%.2f)", r.Min, r.Max)
	}
	return fmt.Sprintf("%s  %s → %s", text, Number(c.A.Spread(m).Median), Number(c.B.Spread(m).Median))
}
