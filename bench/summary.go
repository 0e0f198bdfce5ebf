package bench

import (
	"math"
	"slices"
)

// Group is all the runs of a scenario on a target that have numbers.
type Group struct {
	Scenario, Target, Unit string
	Runs                   []*Run
	Failed                 []*Run // without numbers
}

// Groups are the runs of a result by scenario and target, in the order in which they were
// measured first.
func (r *Result) Groups() []*Group {
	var groups []*Group
	for i := range r.Runs {
		run := &r.Runs[i]
		at := slices.IndexFunc(groups, func(g *Group) bool { return g.Scenario == run.Scenario && g.Target == run.Target })
		if at < 0 {
			at = len(groups)
			groups = append(groups, &Group{Scenario: run.Scenario, Target: run.Target, Unit: run.Unit})
		}
		if run.Failed() || run.Skipped {
			groups[at].Failed = append(groups[at].Failed, run)
		} else {
			groups[at].Runs = append(groups[at].Runs, run)
		}
	}
	return groups
}

// Metric is a number of a run.
type Metric struct {
	Name string
	Of   func(*Run) float64 // 0: not known
	// Less says that less is better.
	Less bool
}

// The metrics that runs are compared by.
var (
	CPUEach   = Metric{"server CPU, µs each", func(r *Run) float64 { return r.CPUEach }, true}
	PerSecond = Metric{"messages a second", func(r *Run) float64 { return r.PerSecond }, false}
	PerCPU    = Metric{"messages a server CPU second", func(r *Run) float64 { return r.PerCPU }, false}
	P50       = Metric{"p50, µs", func(r *Run) float64 { return r.Latency.P50 }, true}
	P99       = Metric{"p99, µs", func(r *Run) float64 { return r.Latency.P99 }, true}
	Memory    = Metric{"memory, bytes", func(r *Run) float64 { return float64(r.Memory) }, true}
)

// Compared are the metrics that `hadal bench compare` prints.
var Compared = []Metric{CPUEach, PerSecond, P50, P99, Memory}

// FactMetric is the metric that is a fact of runs.
func FactMetric(name string) Metric {
	return Metric{name, func(r *Run) float64 { v, _ := r.Fact(name); return v }, true}
}

// Spread is a number with the least and the most that was seen of it. All are 0 when nobody
// knows.
type Spread struct{ Median, Min, Max float64 }

func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	slices.Sort(values)
	mid := len(values) / 2
	median := values[mid]
	if len(values)%2 == 0 {
		median = (values[mid-1] + values[mid]) / 2
	}
	return Spread{median, values[0], values[len(values)-1]}
}

// values are those of a metric that are known.
func (g *Group) values(m Metric) []float64 {
	var all []float64
	for _, r := range g.Runs {
		if v := m.Of(r); v != 0 && !math.IsNaN(v) {
			all = append(all, v)
		}
	}
	return all
}

// Spread is a metric over the rounds.
func (g *Group) Spread(m Metric) Spread { return spreadOf(g.values(m)) }

// Middle is the run with the median of the server's CPU, or of the throughput when that is
// not known: the one to show; nil if there is none.
func (g *Group) Middle() *Run {
	if len(g.Runs) == 0 {
		return nil
	}
	runs := slices.Clone(g.Runs)
	slices.SortStableFunc(runs, func(a, b *Run) int {
		if a.CPUEach != b.CPUEach {
			if a.CPUEach < b.CPUEach {
				return -1
			}
			return 1
		}
		return 0
	})
	return runs[len(runs)/2]
}

// Ledger is what became of the messages of all rounds.
func (g *Group) Ledger() Ledger {
	var sum Ledger
	for _, r := range g.Runs {
		l := r.Ledger
		sum.Sent += l.Sent
		sum.Due += l.Due
		sum.Delivered += l.Delivered
		sum.Lost += l.Lost
		sum.Duplicated += l.Duplicated
		sum.OutOfOrder += l.OutOfOrder
	}
	return sum
}

// Ratio is how much more b is than a: medians, and the least and the most of all pairs of
// rounds. It is 0 if either is not known.
func Ratio(a, b *Group, m Metric) Spread {
	as, bs := a.values(m), b.values(m)
	if len(as) == 0 || len(bs) == 0 {
		return Spread{}
	}
	x, y := spreadOf(as), spreadOf(bs)
	return Spread{y.Median / x.Median, y.Min / x.Max, y.Max / x.Min}
}
