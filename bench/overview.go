package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Picture is a plot of a result as a whole.
type Picture struct {
	// Name is short and fit for the name of a file.
	Name        string
	Title, Text string
	SVG         func() ([]byte, error)
}

// Overview are the plots that put scenarios beside each other.
func (r *Result) Overview() []Picture {
	groups := r.Groups()
	return []Picture{
		{"cpu-deliveries", "Server CPU for a delivered event or update", "Microseconds of the server's user and system time for each delivery; less is better.", func() ([]byte, error) {
			return bars(groups, CPUEach, func(g *Group) bool { return g.Unit == "delivery" })
		}},
		{"cpu-others", "Server CPU for a write, read, call, notice or match", "Microseconds, for everything else on one node.", func() ([]byte, error) {
			return bars(groups, CPUEach, func(g *Group) bool {
				return g.Unit != "delivery" && g.Unit != "login" && g.Unit != "return" && !onCluster(g.Scenario)
			})
		}},
		{"cpu-clusters", "Server CPU for a login, a return, and a write on three nodes", "Microseconds, added up over all nodes.", func() ([]byte, error) {
			return bars(groups, CPUEach, func(g *Group) bool {
				return g.Unit == "login" || g.Unit == "return" || onCluster(g.Scenario) && g.Unit != "delivery"
			})
		}},
		{"throughput", "Throughput against connections", "Deliveries a second from one publisher to so many subscribers, closed loop.", func() ([]byte, error) {
			return againstConnections(groups)
		}},
		{"memory", "Memory of the server at the end of each scenario", "Megabytes, resident, of all its processes.", func() ([]byte, error) {
			return bars(groups, Metric{Of: func(r *Run) float64 { return float64(r.Memory) / 1e6 }}, func(*Group) bool { return true })
		}},
		{"memory-each", "Memory of what does nothing", "Bytes for each idle connection, and for each subscription.", func() ([]byte, error) { return memoryEach(groups) }},
	}
}

func onCluster(name string) bool {
	return slices.ContainsFunc(scenarios, func(sc Scenario) bool { return sc.Name == name && sc.Nodes > 1 })
}

// targetsOf are the names of the targets, in the order of their first measurements.
func targetsOf(groups []*Group) []string {
	var names []string
	for _, g := range groups {
		if !slices.Contains(names, g.Target) {
			names = append(names, g.Target)
		}
	}
	return names
}

// table is a metric of the groups that are wanted, by scenario and target.
func table(groups []*Group, of func(*Group) float64, want func(*Group) bool) (labels []string, lines []Line) {
	for _, g := range groups {
		if want(g) && of(g) > 0 && !slices.Contains(labels, g.Scenario) {
			labels = append(labels, g.Scenario)
		}
	}
	for _, t := range targetsOf(groups) {
		l := Line{Name: t, Values: make([]float64, len(labels))}
		any := false
		for i, name := range labels {
			l.Values[i] = math.NaN()
			at := slices.IndexFunc(groups, func(g *Group) bool { return g.Scenario == name && g.Target == t })
			if at >= 0 && of(groups[at]) > 0 {
				l.Values[i] = of(groups[at])
				any = true
			}
		}
		if any {
			lines = append(lines, l)
		}
	}
	return labels, lines
}

func bars(groups []*Group, m Metric, want func(*Group) bool) ([]byte, error) {
	labels, lines := table(groups, func(g *Group) float64 { return g.Spread(m).Median }, want)
	if len(lines) == 0 {
		return nil, ErrNothing
	}
	return Bars(labels, lines)
}

// againstConnections is the throughput of the closed loops of fanout.
func againstConnections(groups []*Group) ([]byte, error) {
	labels, lines := table(groups, func(g *Group) float64 { return g.Spread(PerSecond).Median }, func(g *Group) bool {
		return Family(g.Scenario) == "fanout" && !strings.HasSuffix(g.Scenario, "-paced")
	})
	if len(labels) < 2 {
		return nil, ErrNothing
	}
	for i, name := range labels {
		labels[i] = strings.TrimPrefix(name, "fanout/")
	}
	return Lines(labels, lines, "", false)
}

// memoryEach are the facts about memory.
func memoryEach(groups []*Group) ([]byte, error) {
	var labels []string
	values := map[string]map[string]float64{}
	for _, g := range groups {
		for _, f := range g.facts() {
			if f.Unit != "bytes" {
				continue
			}
			label := fmt.Sprintf("%s (%s)", strings.TrimPrefix(f.Name, "memory a "), g.Scenario)
			if !slices.Contains(labels, label) {
				labels = append(labels, label)
				values[label] = map[string]float64{}
			}
			values[label][g.Target] = g.Spread(FactMetric(f.Name)).Median
		}
	}
	if len(labels) == 0 {
		return nil, ErrNothing
	}
	var lines []Line
	for _, t := range targetsOf(groups) {
		l := Line{Name: t}
		for _, label := range labels {
			v, ok := values[label][t]
			if !ok {
				v = math.NaN()
			}
			l.Values = append(l.Values, v)
		}
		lines = append(lines, l)
	}
	return Bars(labels, lines)
}
