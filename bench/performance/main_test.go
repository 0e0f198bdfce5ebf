package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hadal/bench"
)

func TestThePageIsWhatTheResultsSay(t *testing.T) {
	dir := "../../docs/performance"
	files, err := write(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		at := filepath.Join(dir, name)
		if name == pageName {
			at = "../../docs/performance.md"
		}
		got, err := os.ReadFile(at)
		if err != nil {
			t.Errorf("%v: make performance makes it", err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the results say: make performance", at)
		}
	}
}

func TestBarsAreJudged(t *testing.T) {
	alone := &bench.Result{Runs: []bench.Run{
		{Scenario: "fanout/1", Target: ours, CPUEach: 4.4}, {Scenario: "pairs/1", Target: ours, CPUEach: 15},
		{Scenario: "permissions/none", Target: ours, CPUEach: 4}, {Scenario: "permissions/user", Target: ours, CPUEach: 4.1},
	}}
	peers := &bench.Result{Runs: []bench.Run{{Scenario: "fanout/1", Target: ours, CPUEach: 3}, {Scenario: "fanout/1", Target: peer, CPUEach: 7.5},
		{Scenario: "fanout/1000-paced", Target: ours, Latency: bench.Latency{P99: 12e3}}, {Scenario: "fanout/1000-paced", Target: peer, Latency: bench.Latency{P99: 10e3}}}}
	got := map[string]verdict{}
	for _, v := range judge(alone, peers) {
		got[v.Text] = v
	}
	for text, want := range map[string]verdict{
		"event 1→1, 64 in flight, server CPU each":                             {Measured: "4.40 µs", Must: "4.50 µs", Aim: "3.00 µs", Holds: true},
		"500 pairs, 1 in flight, server CPU each":                              {Measured: "15.0 µs", Must: "14.0 µs", Aim: "10.0 µs"},
		"a rule on user.id, server CPU over none":                              {Measured: "×1.02", Must: "×1.10", Aim: "×1.05", Holds: true, Aimed: true},
		"event 1→1, server CPU, part of the peer's in the same run":            {Measured: "×0.40", Must: "×0.48", Aim: "×0.32", Holds: true},
		"event 1→1000 at 20 a second, p99, part of the peer's in the same run": {Measured: "×1.20", Must: "×1.00"},
		"hot record, server CPU, part of the peer's in the same run":           {Must: "×0.38", Aim: "×0.25", Holds: true, Aimed: true, Measured: ""},
	} {
		want.Text = text
		if got[text] != want {
			t.Errorf("judged %+v, want %+v", got[text], want)
		}
	}
}

func TestWithoutResultsItSaysWhatMakesThem(t *testing.T) {
	if _, err := write(t.TempDir()); err == nil || !strings.Contains(err.Error(), "make bench") {
		t.Errorf("write = %v", err)
	}
}
