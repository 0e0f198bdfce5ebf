package main

import (
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
	// As few subscriptions as a busy machine makes in the second that an attack has.
	v, err := start(t.Context(), binary, 512, "HADAL_CONNECTIONENDPOINTS=[{type: ws-binary, options: {maxSubscriptions: 500}}]")
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
			res, err := v.suffer(t.Context(), a, time.Second)
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
		})
	}
	m, err := v.node.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"hadal_panics_total": false, "hadal_sockets_refused_total": true, "hadal_subscriptions_refused_total": true,
		"hadal_record_append_errors_total": false,
	} {
		if got := m[name] > 0; got != want {
			t.Errorf("%s is %v, want it above zero: %v", name, m[name], want)
		}
	}
}
