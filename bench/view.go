package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// lines is the view of a run whose output is no terminal: a line for each measurement.
type lines struct {
	out    io.Writer
	before string
}

// terminal is lines with a bar below, which is drawn over and over.
type terminal struct {
	lines
	bar    *progressbar.ProgressBar
	number int
	what   string
	phase  string
	began  time.Time
	takes  time.Duration
}

// NewView is a view that writes to out, with a bar if that is a terminal.
func NewView(out io.Writer, isTerminal bool) View {
	if !isTerminal {
		return &lines{out: out}
	}
	return &terminal{lines: lines{out: out}}
}

func (v *lines) Begin(sc *Scenario, target string, round, number, of int) {
	v.before = fmt.Sprintf("[%d/%d] %-24s %-12s", number, of, sc.Name, target)
}

func (v *lines) Phase(string, time.Duration) {}
func (v *lines) Sample(Sample)               {}

func (v *lines) Done(r *Run) {
	said := fmt.Sprintf("%11s/s  %7s µs CPU each  p99 %7s ms", Number(r.PerSecond), Number(r.CPUEach), Number(r.Latency.P99/1000))
	switch {
	case r.Failed():
		said = "FAILED: " + r.Error
	case r.Skipped:
		said = ""
	}
	v.say(v.before + " " + said)
	for _, n := range r.Notes {
		v.say("        " + n)
	}
}

// say writes a line. There is nobody to tell when that fails.
func (v *lines) say(line string) { _, _ = fmt.Fprintln(v.out, line) }

// steps is how much of the bar one measurement is.
const steps = 100

func (v *terminal) Begin(sc *Scenario, target string, round, number, of int) {
	v.lines.Begin(sc, target, round, number, of)
	if v.bar == nil {
		v.bar = progressbar.NewOptions(of*steps, progressbar.OptionSetWriter(v.out), progressbar.OptionSetWidth(24),
			progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish())
	}
	v.number, v.what = number-1, sc.Name+" on "+target
}

func (v *terminal) Phase(name string, d time.Duration) {
	v.phase, v.began, v.takes = name, time.Now(), d
	v.draw(v.phase)
}

func (v *terminal) Sample(s Sample) {
	v.draw(fmt.Sprintf("%s/s  %.2f cores  %s MB", Number(s.PerSecond), s.CPU, Number(float64(s.Memory)/1e6)))
}

// draw draws the bar anew.
func (v *terminal) draw(now string) {
	part := 0.0
	if v.phase == "measure" && v.takes > 0 {
		part = min(float64(time.Since(v.began))/float64(v.takes), 1)
	}
	v.bar.Describe(fmt.Sprintf("%-40s %-32s", v.what, now))
	_ = v.bar.Set(v.number*steps + int(part*(steps-1))) // a bar that cannot be drawn is none
}

func (v *terminal) Done(r *Run) {
	_ = v.bar.Clear()
	v.lines.Done(r)
}
