package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain is the program itself where it starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == crowdCommand {
		main()
		return
	}
	m.Run()
}

// The numbers are for people; that both strategies are flooded and that others are served
// meanwhile is for the tests.
func TestOthersAreServedInAFlood(t *testing.T) {
	binary := build(t)
	for _, strategy := range []string{"file", "storage"} {
		t.Run(strategy, func(t *testing.T) {
			var out strings.Builder
			if err := measure(t.Context(), settings{node: binary, time: 500 * time.Millisecond, clients: 8}, strategy, &out); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(lines) != 4 {
				t.Fatalf("the table is\n%s\nwant four lines", out.String())
			}
			for i, line := range lines {
				fields := strings.Fields(line)
				attempts, err := strconv.Atoi(fields[len(fields)-1])
				if fields[0] != strategy || err != nil || attempts < 0 || i < 2 && attempts != 0 {
					t.Errorf("the table says %q", line)
				}
			}
		})
	}
}

// How fast is for people too.
func TestRevocationsCloseConnectionsOnOtherNodes(t *testing.T) {
	var out strings.Builder
	if err := revocations(t.Context(), settings{node: build(t), time: time.Millisecond}, &out); err != nil {
		t.Fatal(err)
	}
	if want := "1 revocations, 20 connections"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("it says %q, want %q", out.String(), want)
	}
}

// build makes the node.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "hadal")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "hadal/cmd/hadal").CombinedOutput(); err != nil {
		t.Fatalf("build the node: %v\n%s", err, out)
	}
	return binary
}

func TestWrongFlagsAreExplained(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"--time=0s", "--time is 0s"}, {"--clients=0", "--clients is 0"}, {"--clients=60000", "from 1 to 50000"}, {"--only=jwt", `--only is "jwt"`},
	} {
		err := run(t.Context(), []string{c.flags}, &strings.Builder{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.flags, err, c.want)
		}
	}
}
