package main

import (
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The short form of what `make soak` runs.
func TestANodeComesBackToWhereItWas(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "hadal")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "hadal/cmd/hadal").CombinedOutput(); err != nil {
		t.Fatalf("build the node: %v\n%s", err, out)
	}
	var out strings.Builder
	err := run(t.Context(), []string{
		"--node", binary, "--connects", "600", "--records", "1000", "--subscriptions", "20000", "--rounds", "2", "--rest", "4s", "--limit", "12m",
	}, &out)
	t.Log("\n" + out.String())
	if err != nil {
		t.Error(err)
	}
	for _, row := range []string{"heap in use, MB", "hadal_connections"} {
		if !strings.Contains(out.String(), row) {
			t.Errorf("the summary does not tell %s", row)
		}
	}
}

func TestWhatIsAboveItsBandIsNamed(t *testing.T) {
	var before, after reading
	before.values[heap], after.values[heap] = 100*mb, 118*mb // 8 MB and a tenth
	before.values[goroutines], after.values[goroutines] = 50, 66
	if err := before.compare(after); err != nil {
		t.Errorf("at the edge of the bands: %v", err)
	}
	after.when = "after all"
	after.values[goroutines], after.values[counted] = 67, 1
	err := before.compare(after)
	if err == nil {
		t.Fatal("above two bands and no error")
	}
	for _, want := range []string{"after all: goroutines is 67.0, was 50.0 before, at most 66.0", "hadal_connections is 1.0"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %q, want %q in it", err, want)
		}
	}
	after.values[dataDir] = dirPeak + 1
	if before.compareDir(after) == nil {
		t.Error("the data directory was too large, and no error")
	}
}

func TestProgressIsToldEveryFewSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := newProgress("work", &out)
		p.total.Store(10)
		p.done.Store(4)
		time.Sleep(progressEvery + time.Second) // in the bubble: no real time passes
		p.done.Store(10)
		p.end()
		want := regexp.MustCompile(`^work: 4 of 10 in 10s, 0 a second\nwork: 10 of 10 in 11s, 1 a second\n$`)
		if !want.MatchString(out.String()) {
			t.Errorf("said %q", out.String())
		}
	})
}

func TestWrongFlagsAreExplained(t *testing.T) {
	for args, want := range map[string]string{
		"":                      "say --node",
		"--node x --connects 0": "at least one",
		"--node x --rounds -1":  "at least one",
		"--node /dev/null":      "start",
	} {
		if err := run(t.Context(), strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run %s = %v, want %q", args, err, want)
		}
	}
}
