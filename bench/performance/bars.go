package main

import (
	"fmt"

	"hadal/bench"
)

// bar is something that must hold.
type bar struct {
	text string
	unit string
	must float64
	aim  float64 // 0: none
	// of is the number, from what `make bench` or `make bench-peers` measured; 0: not measured.
	of func(alone, peers results) float64
}

// results are the groups of a result, by scenario and target.
type results map[[2]string]*bench.Group

func groupsOf(r *bench.Result) results {
	all := results{}
	for _, g := range r.Groups() {
		if len(g.Runs) > 0 {
			all[[2]string{g.Scenario, g.Target}] = g
		}
	}
	return all
}

const ours, peer = "hadal", "deepstream"

func (r results) median(scenario, target string, m bench.Metric) float64 {
	g := r[[2]string{scenario, target}]
	if g == nil {
		return 0
	}
	return g.Spread(m).Median
}

func (r results) over(scenario, base string, m bench.Metric) float64 {
	if b := r.median(base, ours, m); b > 0 {
		return r.median(scenario, ours, m) / b
	}
	return 0
}

// beside is the part of what another target took that ours did, in the same run; 0: not measured.
func (r results) beside(scenario, target string, m bench.Metric) float64 {
	if theirs := r.median(scenario, target, m); theirs > 0 {
		return r.median(scenario, ours, m) / theirs
	}
	return 0
}

// cpu is a bar for the server CPU of a message.
func cpu(scenario, text string, must, aim float64) bar {
	return bar{text + ", server CPU each", "µs", must, aim, func(alone, _ results) float64 { return alone.median(scenario, ours, bench.CPUEach) }}
}

// versus is a bar for the part of a peer's server CPU that ours may take, in the same run. must
// and aim are microseconds beside those that the peer took on the machine where they
// were set, of which theirs is the middle: so they bind on any machine.
func versus(scenario, text string, must, aim, theirs float64) bar {
	return bar{text + ", server CPU, part of the peer's in the same run", "", must / theirs, aim / theirs, func(_, peers results) float64 { return peers.beside(scenario, peer, bench.CPUEach) }}
}

// punctual is a bar for the part of a peer's p99 that ours may be, at a rate that both keep.
func punctual(scenario, text string) bar {
	return bar{text + ", p99, part of the peer's in the same run", "", 1, 0, func(_, peers results) float64 { return peers.beside(scenario, peer, bench.P99) }}
}

// bars are all that must hold. What binds is the ratio in the same run; the microseconds are
// those of one machine and say how large things are.
var bars = []bar{
	cpu("fanout/1", "event 1→1, 64 in flight", 4.5, 3),
	cpu("fanout/100", "event 1→100, 8 in flight", 1.5, 1.2),
	cpu("fanout/1000", "event 1→1000, 4 in flight", 3, 2),
	cpu("fanout/5000", "event 1→5000, 2 in flight", 7, 5),
	cpu("fanout/1000-paced", "event 1→1000 at 20 a second", 9, 0),
	{"event 1→1000 at 20 a second, p99", "ms", 15, 0, func(alone, _ results) float64 { return alone.median("fanout/1000-paced", ours, bench.P99) / 1000 }},
	{"event 1→1000 at 20 a second, server CPU, times the bare writer's", "", 0, 1.1, func(_, peers results) float64 {
		return peers.beside("fanout/1000-paced", "bare", bench.CPUEach)
	}},
	cpu("pairs/1", "500 pairs, 1 in flight", 14, 10),
	cpu("pairs/4", "500 pairs, 4 in flight", 6, 4),
	cpu("record-write", "record write", 12, 8),
	cpu("record-write-ack", "record write with ack", 14, 9),
	cpu("record-hot", "hot record, 1 000 subscribers", 3, 2),
	cpu("rpc", "rpc, 100 requesters, 10 providers", 16, 10),
	cpu("idle", "login", 100, 60),
	{"idle connection, memory", "bytes", 14 << 10, 10 << 10, func(alone, _ results) float64 {
		return alone.median("idle", ours, bench.FactMetric("memory a connection"))
	}},
	{"a rule on user.id, server CPU over none", "", 1.1, 1.05, func(alone, _ results) float64 {
		return alone.over("permissions/user", "permissions/none", bench.CPUEach)
	}},
	{"a rule on the payload, server CPU over none", "", 1.1, 1.05, func(alone, _ results) float64 {
		return alone.over("permissions/payload", "permissions/none", bench.CPUEach)
	}},
	{"100 000 subscriptions on 10 000 connections over 1 000 on 100, server CPU a delivery", "", 1.3, 0, func(alone, _ results) float64 {
		return alone.over("many/100000-paced", "many/1000-paced", bench.CPUEach)
	}},
	{"acknowledged write on three nodes, CPU of all over that of one", "", 4, 0, func(alone, _ results) float64 {
		return alone.over("cluster-write", "record-write-ack", bench.CPUEach)
	}},
	versus("fanout/1", "event 1→1", 4.5, 3, 9.45), versus("fanout/100", "event 1→100", 1.5, 1.2, 6.2), versus("fanout/1000", "event 1→1000", 3, 2, 6.45),
	versus("fanout/5000", "event 1→5000", 7, 5, 7.25), versus("fanout/1000-paced", "event 1→1000 at 20 a second", 9, 0, 8.7),
	versus("pairs/1", "500 pairs, 1 in flight", 14, 10, 16), versus("pairs/4", "500 pairs, 4 in flight", 1, 0, 1),
	versus("record-write", "record write (the peer's in memory, ours on disk)", 12, 8, 18.6), versus("record-write-ack", "record write with ack (the same)", 14, 9, 29.5),
	versus("record-hot", "hot record", 3, 2, 7.9), versus("rpc", "rpc", 16, 10, 35.5), versus("idle", "login", 100, 60, 144),
	punctual("fanout/1000-paced", "event 1→1000 at 20 a second"), punctual("pairs/paced", "500 pairs at 10 000 a second in all, less than half of what the peer can"),
}

// verdict is a bar, and whether it holds.
type verdict struct {
	Text, Measured, Must, Aim string
	Holds, Aimed              bool
}

func judge(alone, peers *bench.Result) []verdict {
	a, p := groupsOf(alone), groupsOf(peers)
	var all []verdict
	for _, b := range bars {
		say := func(v float64) string {
			switch {
			case v == 0:
				return ""
			case b.unit == "":
				return "×" + bench.Number(v)
			}
			return fmt.Sprintf("%s %s", bench.Number(v), b.unit)
		}
		got := b.of(a, p)
		all = append(all, verdict{
			Text: b.text, Measured: say(got), Must: say(b.must), Aim: say(b.aim),
			Holds: got <= b.must || b.must == 0, Aimed: b.aim > 0 && got <= b.aim,
		})
	}
	return all
}
