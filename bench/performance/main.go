// Command performance writes docs/performance.md and its plots from result files of `hadal
// bench`: nobody types a number there.
//
//	performance [--dir docs/performance] [--page docs/performance.md]
//
// The directory has bench.json, of `make bench`, and peers.json, of `make bench-peers`. What
// people have to say stands in page.md.tmpl beside this program, and, step by step, in steps.md
// in the directory, if there is one.
package main

import (
	"bytes"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"hadal/bench"
)

//go:embed page.md.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"number": bench.Number}).Parse(pageText))

func main() {
	dir := flag.String("dir", "docs/performance", "directory of the result files, and of the plots")
	page := flag.String("page", "docs/performance.md", "the page to write")
	flag.Parse()
	if err := run(*dir, *page); err != nil {
		fmt.Fprintln(os.Stderr, "performance:", err)
		os.Exit(1)
	}
}

// run writes the page and, into the directory, its plots.
func run(dir, page string) error {
	files, err := write(dir)
	if err != nil {
		return err
	}
	for name, text := range files {
		to := filepath.Join(dir, name)
		if name == pageName {
			to = page
		}
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pageName is the page among the files.
const pageName = "performance.md"

// view is what the template shows.
type view struct {
	Bench, Peers *bench.Result
	Alone        []alone
	Beside       beside
	Verdicts     []verdict
	Broken       []verdict // those that do not hold
	Unknown      []verdict // those that were not measured
	Notes        []string
	Pictures     []picture
	PeerPictures []picture
	Steps        string
}

// alone is a line of what one target was measured to do.
type alone struct {
	Scenario, Text, Unit, PerSecond, CPU, PerCPU, P50, P99, Memory, Ledger string
	Facts                                                                  string
}

// beside is targets in columns.
type beside struct {
	First  string
	Others []string
	Rows   [][]string
}

// picture is a plot, in a file of its own.
type picture struct{ Title, Text, File string }

// write makes the page and its plots, by their names.
func write(dir string) (map[string][]byte, error) {
	results := make([]*bench.Result, 2)
	for i, name := range []string{"bench.json", "peers.json"} {
		var err error
		if results[i], err = bench.Read(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("%w: make bench and make bench-peers make these files", err)
		}
	}
	v := &view{Bench: results[0], Peers: results[1], Alone: lines(results[0]), Beside: columns(results[1])}
	v.Verdicts = judge(results[0], results[1])
	for _, x := range v.Verdicts {
		switch {
		case x.Measured == "":
			v.Unknown = append(v.Unknown, x)
		case !x.Holds:
			v.Broken = append(v.Broken, x)
		}
	}
	v.Notes = append(notes(results[0]), notes(results[1])...)
	files := map[string][]byte{}
	var err error
	if v.Pictures, err = draw(results[0], "", files); err != nil {
		return nil, err
	}
	if v.PeerPictures, err = draw(results[1], "peers-", files); err != nil {
		return nil, err
	}
	steps, err := os.ReadFile(filepath.Join(dir, "steps.md"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	v.Steps = strings.TrimSpace(string(steps))
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, v); err != nil {
		return nil, err
	}
	files[pageName] = b.Bytes()
	return files, nil
}

// draw draws the plots of a result.
func draw(r *bench.Result, prefix string, files map[string][]byte) ([]picture, error) {
	var all []picture
	for _, p := range r.Overview() {
		svg, err := p.SVG()
		if errors.Is(err, bench.ErrNothing) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Title, err)
		}
		name := prefix + p.Name + ".svg"
		files[name] = svg
		all = append(all, picture{p.Title, p.Text, name})
	}
	return all, nil
}

func lines(r *bench.Result) []alone {
	texts := map[string]string{}
	for _, sc := range bench.All() {
		texts[sc.Name] = sc.Text
	}
	var all []alone
	for _, g := range r.Groups() {
		if len(g.Runs) == 0 {
			continue
		}
		ms := func(m bench.Metric) string { return bench.Number(g.Spread(m).Median / 1000) }
		l := alone{
			Scenario: g.Scenario, Text: texts[g.Scenario], Unit: g.Unit,
			PerSecond: bench.Number(g.Spread(bench.PerSecond).Median), CPU: bench.Number(g.Spread(bench.CPUEach).Median),
			PerCPU: bench.Number(g.Spread(bench.PerCPU).Median), P50: ms(bench.P50), P99: ms(bench.P99),
			Memory: bench.Number(g.Spread(bench.Memory).Median / 1e6), Ledger: "–",
		}
		if led := g.Ledger(); led.Due > 0 {
			l.Ledger = fmt.Sprintf("%d / %d / %d", led.Lost, led.Duplicated, led.OutOfOrder)
		}
		var facts []string
		for _, f := range g.Runs[0].Facts {
			value := bench.Number(g.Spread(bench.FactMetric(f.Name)).Median)
			facts = append(facts, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Name, value, f.Unit)))
		}
		l.Facts = strings.Join(facts, "; ")
		all = append(all, l)
	}
	return all
}

func columns(r *bench.Result) beside {
	first, others, rows := r.Rows()
	b := beside{First: first, Others: others}
	for _, row := range rows {
		cells := []string{row.Scenario, row.Unit, row.FirstText()}
		for i := range others {
			cells = append(cells, row.CPUText(i), row.RatioText(i))
		}
		b.Rows = append(b.Rows, cells)
	}
	return b
}

// notes are what runs said of themselves, but for what a target cannot do.
func notes(r *bench.Result) []string {
	var all []string
	for i := range r.Runs {
		run := &r.Runs[i]
		if run.Skipped {
			continue
		}
		if run.Failed() {
			all = append(all, fmt.Sprintf("%s on %s failed: %s", run.Scenario, run.Target, run.Error))
		}
		for _, n := range run.Notes {
			all = append(all, fmt.Sprintf("%s on %s, round %d: %s", run.Scenario, run.Target, run.Round+1, n))
		}
	}
	return slices.Compact(all)
}
