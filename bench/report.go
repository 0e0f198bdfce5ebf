package bench

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

//go:embed report.html
var reportText string

var reportPage = template.Must(template.New("report").Parse(reportText))

// ErrNothing is what a plot returns whose numbers were not measured.
var ErrNothing = errors.New("nothing to plot")

// page is what the template shows.
type page struct {
	*Result
	Title    string
	Date     string
	Lasted   string
	Warnings []string
	Plots    []plot
	Rows     []row
	Cards    []card
	Asked    string
}

// plot is one picture with a heading.
type plot struct {
	Title, Text string
	SVG         template.HTML
}

// row is a line of the table.
type row struct {
	Scenario, Anchor, Target, Unit                 string
	PerSecond, CPU, P50, P99, Memory, Ledger, Kept string
	Bad, First                                     bool
	Ratio                                          string
	Facts                                          string
}

// card is what is told of one scenario.
type card struct {
	Name, Anchor, Text, How string
	Plots                   []plot
	Notes                   []string
}

// WriteReport writes the result as a page that needs nothing else: its plots are in it.
func (r *Result) WriteReport(path string) error {
	p, err := r.page()
	if err != nil {
		return fmt.Errorf("make the report: %w", err)
	}
	var b bytes.Buffer
	if err := reportPage.Execute(&b, p); err != nil {
		return fmt.Errorf("make the report: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func (r *Result) page() (*page, error) {
	settings, err := json.MarshalIndent(r.Settings, "", "  ")
	if err != nil {
		return nil, err
	}
	p := &page{
		Result: r, Title: "hadal bench", Date: r.When.Format("2 January 2006, 15:04 MST"),
		Lasted: (time.Duration(r.Took) * time.Second).String(), Asked: string(settings), Warnings: r.warnings(),
	}
	groups := r.Groups()
	p.Rows = rows(groups)
	for _, o := range r.Overview() {
		svg, err := o.SVG()
		if errors.Is(err, ErrNothing) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Title, err)
		}
		p.Plots = append(p.Plots, plot{o.Title, o.Text, template.HTML(svg)}) // ours, and its texts are escaped by the library
	}
	for _, sc := range scenarios {
		mine := slices.DeleteFunc(slices.Clone(groups), func(g *Group) bool { return g.Scenario != sc.Name })
		if len(mine) == 0 {
			continue
		}
		c, err := newCard(&sc, mine)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sc.Name, err)
		}
		p.Cards = append(p.Cards, c)
	}
	return p, nil
}

// warnings are what a reader must know of all numbers.
func (r *Result) warnings() []string {
	var all []string
	failed := 0
	for i := range r.Runs {
		if r.Runs[i].Failed() {
			failed++
		}
	}
	if r.Machine.Load > float64(r.Machine.Cores)/2 {
		all = append(all, fmt.Sprintf("The machine was busy with something else: the load average was %.1f on %d cores before the run began.", r.Machine.Load, r.Machine.Cores))
	}
	if failed > 0 {
		all = append(all, fmt.Sprintf("%d of %d measurements failed; the scenarios below say why.", failed, len(r.Runs)))
	}
	if r.Program.Modified {
		all = append(all, "The program was built from files that are not in its commit.")
	}
	return all
}

func anchor(name string) string { return strings.ReplaceAll(name, "/", "-") }

func rows(groups []*Group) []row {
	var all []row
	for i, g := range groups {
		w := row{Scenario: g.Scenario, Anchor: anchor(g.Scenario), Target: g.Target, Unit: g.Unit, First: i == 0 || groups[i-1].Scenario != g.Scenario}
		if len(g.Runs) == 0 {
			w.Bad = slices.ContainsFunc(g.Failed, (*Run).Failed)
			if w.Bad {
				w.Ledger = "failed"
			}
			if w.Bad { // else it was left out, as its card says
				all = append(all, w)
			}
			continue
		}
		l := g.Ledger()
		w.PerSecond, w.CPU = Number(g.Spread(PerSecond).Median), spreadText(g.Spread(CPUEach), 1)
		w.P50, w.P99 = spreadText(g.Spread(P50), 1000), spreadText(g.Spread(P99), 1000)
		w.Memory, w.Ledger, w.Bad = Number(g.Spread(Memory).Median/1e6), ledgerText(l), !l.Clean()
		if !w.First {
			base := slices.IndexFunc(groups, func(o *Group) bool { return o.Scenario == g.Scenario })
			if r := Ratio(groups[base], g, CPUEach); r.Median > 0 {
				w.Ratio = "×" + Number(r.Median)
				if r.Min != r.Max {
					w.Ratio += fmt.Sprintf(" (%s–%s)", Number(r.Min), Number(r.Max))
				}
			}
		}
		var facts []string
		for _, f := range g.facts() {
			facts = append(facts, fmt.Sprintf("%s: %s %s", f.Name, Number(g.Spread(FactMetric(f.Name)).Median), f.Unit))
		}
		w.Facts = strings.Join(facts, " · ")
		all = append(all, w)
	}
	return all
}

// percentiles are the labels of plots of latencies.
var percentiles = []string{"50 %", "90 %", "99 %", "99.9 %", "99.99 %", "all"}

func (l Latency) percentiles() []float64 {
	ms := []float64{l.P50, l.P90, l.P99, l.P999, l.P9999, l.Max}
	for i, v := range ms {
		if ms[i] = v / 1000; v == 0 {
			ms[i] = math.NaN()
		}
	}
	return ms
}

// newCard is a scenario with its plots.
func newCard(sc *Scenario, groups []*Group) (card, error) {
	c := card{Name: sc.Name, Anchor: anchor(sc.Name), Text: capital(sc.Text)}
	var latencies, throughput, memory []Line
	var times []string
	for _, g := range groups {
		for _, run := range append(slices.Clone(g.Failed), g.Runs...) {
			if run.Failed() {
				c.Notes = append(c.Notes, fmt.Sprintf("%s, round %d failed: %s", run.Target, run.Round+1, run.Error))
			}
			for _, n := range run.Notes {
				note := fmt.Sprintf("%s, round %d: %s", run.Target, run.Round+1, n)
				if run.Skipped {
					note = run.Target + " " + n
				}
				if !slices.Contains(c.Notes, note) {
					c.Notes = append(c.Notes, note)
				}
			}
		}
		run := g.Middle()
		if run == nil {
			continue
		}
		c.How = how(run)
		latencies = append(latencies, Line{g.Target, run.Latency.percentiles()})
		a, b := Line{Name: g.Target}, Line{Name: g.Target}
		for i, s := range run.Samples {
			a.Values, b.Values = append(a.Values, s.PerSecond), append(b.Values, float64(s.Memory)/1e6)
			if i >= len(times) {
				times = append(times, fmt.Sprintf("%.1f s", s.At))
			}
		}
		throughput, memory = append(throughput, a), append(memory, b)
	}
	pad := func(lines []Line) []Line {
		for i := range lines {
			for len(lines[i].Values) < len(times) {
				lines[i].Values = append(lines[i].Values, math.NaN())
			}
		}
		return lines
	}
	for _, x := range []struct {
		title  string
		labels []string
		lines  []Line
		unit   string
		log    bool
	}{
		{"Latency: so many arrived within", percentiles, latencies, "ms", true},
		{plural(sc.Unit) + " a second, over time", times, pad(throughput), "", false},
		{"Memory of the server, over time", times, pad(memory), "MB", false},
	} {
		svg, err := Lines(x.labels, x.lines, x.unit, x.log)
		if errors.Is(err, ErrNothing) {
			continue
		}
		if err != nil {
			return c, err
		}
		c.Plots = append(c.Plots, plot{Title: x.title, SVG: template.HTML(svg)}) // as above
	}
	return c, nil
}

func plural(unit string) string {
	switch unit {
	case "delivery":
		return "Deliveries"
	case "match":
		return "Matches"
	}
	return capital(unit) + "s"
}

// capital begins a sentence of ours.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// how is how a run was driven, in words.
func how(r *Run) string {
	switch {
	case r.Rate > 0:
		return fmt.Sprintf("open loop, %s sent a second, %.1f %% of it kept", Number(r.Rate), 100*r.Kept)
	case r.Window > 0:
		return fmt.Sprintf("closed loop, %d in flight of each sender", r.Window)
	}
	return ""
}
