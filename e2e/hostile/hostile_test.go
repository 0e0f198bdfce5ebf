package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The latencies are for people. That everybody is answered, and that the memory is
// bounded, is for the tests; so is that nothing of ours goes wrong meanwhile.
func TestOthersAreServedUnderEveryAttack(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "hadal")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "hadal/cmd/hadal").CombinedOutput(); err != nil {
		t.Fatalf("build the node: %v\n%s", err, out)
	}
	v, err := start(t.Context(), binary, 512, "HADAL_CONNECTIONENDPOINTS=[{type: ws-binary, options: {maxSubscriptions: 500}}]",
		// On a busy machine an answer has the time after which it counts as lost.
		fmt.Sprint("HADAL_RPC_ACKTIMEOUT=", answerTime), fmt.Sprint("HADAL_RPC_RESPONSETIMEOUT=", answerTime),
		fmt.Sprint("HADAL_RECORD_STORAGERETRIEVALTIMEOUT=", answerTime))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.stop(); err != nil {
			t.Error(err)
		}
	}()
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			// On a busy machine a second may be over before an attack has begun.
			length := time.Second
			for suffers(t, v, a, length); a.counts != "" && metrics(t, v)[a.counts] == 0; suffers(t, v, a, length) {
				if length *= 2; length > time.Minute {
					t.Fatalf("%s is 0 after all this time, want it above", a.counts)
				}
			}
		})
	}
	m := metrics(t, v)
	for _, name := range []string{"hadal_panics_total", "hadal_record_append_errors_total"} {
		if m[name] > 0 {
			t.Errorf("%s is %v, want 0", name, m[name])
		}
	}
}

// suffers has v attacked for so long: others are answered, and the memory is bounded.
func suffers(t *testing.T, v *victim, a attack, length time.Duration) {
	t.Helper()
	res, err := v.suffer(t.Context(), a, length)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range res.streams {
		if a.full && s.kind == logins {
			continue
		}
		if lost := s.sent - len(s.took); lost > 0 || s.sent == 0 || len(s.errs) > 0 {
			t.Errorf("%s: %d sent, %d not answered, %v", s.kind, s.sent, lost, s.errs)
		}
	}
	if grown := (res.most - res.before) >> 20; a.run != nil && grown > a.memory {
		t.Errorf("the node took %d MiB more, want at most %d", grown, a.memory)
	}
	t.Logf("memory %d to %d MiB", res.before>>20, res.most>>20)
}

func metrics(t *testing.T, v *victim) map[string]float64 {
	t.Helper()
	m, err := v.node.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}
