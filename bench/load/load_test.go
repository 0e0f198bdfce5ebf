package main

import (
	"os"
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
			var table strings.Builder
			out := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
			s := settings{time: 200 * time.Millisecond, idle: 50, count: 10}
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
			if n, err := strconv.Atoi(fields[1]); err != nil || n == 0 {
				t.Errorf("measured nothing: %q", table.String())
			}
		})
	}
}

func TestWhatTheKernelSaysOfAProcess(t *testing.T) {
	for burn := 0; cpuOf(os.Getpid()) == 0; burn++ { // the kernel counts in steps
		if burn == 1e9 {
			t.Fatal("cpuOf this process stays 0")
		}
	}
	if got := rssOf(os.Getpid()); got < 1<<20 {
		t.Errorf("rssOf this process = %d bytes", got)
	}
	if got := cpuOf(0); got != 0 {
		t.Errorf("cpuOf no process = %v, want 0", got)
	}
	if got := rssOf(0); got != 0 {
		t.Errorf("rssOf no process = %d, want 0", got)
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
