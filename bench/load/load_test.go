package main

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// The numbers are for people; that every scenario runs through against a real
// node is for the tests.
func TestEveryScenarioRunsAgainstANode(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "hadal")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "hadal/cmd/hadal").CombinedOutput(); err != nil {
		t.Fatalf("build the node: %v\n%s", err, out)
	}
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			s := settings{idle: 50, count: 10, names: 2000}
			// On a busy machine there may be nothing to measure in so short a time.
			for s.time = 200 * time.Millisecond; ; s.time *= 5 {
				var table strings.Builder
				out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
				if err := runOne(t.Context(), s, sc, binary, "memory", out); err != nil {
					t.Fatal(err)
				}
				if err := out.Flush(); err != nil {
					t.Fatal(err)
				}
				fields := strings.Fields(table.String())
				if len(fields) < 2 || fields[0] != sc.name {
					t.Fatalf("the table says %q", table.String())
				}
				n, err := strconv.Atoi(fields[1])
				if err == nil && n > 0 {
					return
				}
				if err != nil || s.time > 20*time.Second {
					t.Fatalf("measured nothing in %v: %q", s.time, table.String())
				}
			}
		})
	}
}

func TestWrongFlagsAreExplained(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{nil, "either --node or --url"},
		{[]string{"--node", "x", "--url", "y"}, "either --node or --url"},
		{[]string{"--url", "y", "--only", "nonsense"}, `no scenario "nonsense"`},
	}
	for _, tt := range tests {
		err := run(t.Context(), tt.args)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("run %v = %v, want %q", tt.args, err, tt.want)
		}
	}
}
