package bench

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// twoRounds is a result of two targets in two rounds.
func twoRounds() *Result {
	run := func(target string, round int, cpu, perSecond float64) Run {
		return Run{Scenario: "fanout/1", Target: target, Round: round, Unit: "delivery", CPUEach: cpu, PerSecond: perSecond, Messages: 1}
	}
	return &Result{
		Format: Format, Targets: []TargetFacts{{Name: "a"}, {Name: "b"}},
		Runs: []Run{
			run("a", 0, 10, 100), run("b", 0, 4, 220), run("a", 1, 12, 110), run("b", 1, 5, 200),
			{Scenario: "rpc", Target: "a", Error: "it fell over", Notes: []string{"a note"}},
			{Scenario: "rpc", Target: "b", Skipped: true},
		},
	}
}

func TestRatiosHaveTheSpreadOfAllPairs(t *testing.T) {
	all := twoRounds().Against("a")
	if len(all) != 1 || all[0].Scenario != "fanout/1" || all[0].B.Target != "b" {
		t.Fatalf("Against = %+v, want the one scenario that both have numbers of", all)
	}
	got := Ratio(all[0].A, all[0].B, CPUEach)
	if want := (Spread{4.5 / 11, 4.0 / 12, 5.0 / 10}); got != want {
		t.Errorf("Ratio = %v, want %v", got, want)
	}
	if got := Ratio(all[0].A, all[0].B, P99); got != (Spread{}) {
		t.Errorf("Ratio of what was not measured = %v, want nothing", got)
	}
	var out strings.Builder
	if err := WriteComparison(&out, all, func(c Comparison) string { return c.B.Target }); err != nil {
		t.Fatal(err)
	}
	if want := "×0.41 (0.33–0.50)  11.0 → 4.50"; !strings.Contains(out.String(), want) {
		t.Errorf("comparison:\n%s\nwant %q in it", out.String(), want)
	}
}

func TestTheTableNamesWhatFailed(t *testing.T) {
	var out strings.Builder
	if err := twoRounds().Table(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"11.0 (10.0–12.0)", "rpc on a FAILED: it fell over", "rpc on a: a note", "4.50 (4.00–5.00)  ×2.44 (2.00–3.00)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table:\n%s\nwant %q in it", out.String(), want)
		}
	}
}

func TestAResultIsReadAsItWasWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	want := twoRounds()
	if err := want.Write(file); err != nil {
		t.Fatal(err)
	}
	got, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Runs) != len(want.Runs) || got.Runs[2].CPUEach != 12 || got.Runs[4].Error != "it fell over" {
		t.Errorf("read %+v", got)
	}
	want.Format = Format + 1
	if err := want.Write(file); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), "measure again") {
		t.Errorf("Read of another format = %v", err)
	}
}

func TestNumbersAreForPeople(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.126: "0.13", 9.996: "10.00", 12.34: "12.3", 123.4: "123", 9999: "9999", 12345.6: "12 346", 1234567: "1 234 567", -12345.6: "-12 345"} {
		if got := Number(v); got != want {
			t.Errorf("Number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestWrongSettingsAreExplained(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"--time":     func(s *Settings) { s.Time = 0 },
		"--warm-up":  func(s *Settings) { s.WarmUp = -1 },
		"--rounds":   func(s *Settings) { s.Rounds = 0 },
		"--size":     func(s *Settings) { s.Size = 5 },
		"--nodes":    func(s *Settings) { s.Nodes = 2 },
		"--clients":  func(s *Settings) { s.Clients = -1 },
		"either":     func(s *Settings) { s.Rate, s.Window = 1, 1 },
		"--scale":    func(s *Settings) { s.Scale = 2 },
		"--url":      func(s *Settings) { s.URLs = []string{"http://x"} },
		"--pid":      func(s *Settings) { s.PIDs = []int{1} },
		`"fan"; the`: func(s *Settings) { s.Scenarios = []string{"rpc", "fan"} },
	} {
		s := Default()
		if err := s.Validate(); err != nil {
			t.Fatalf("the default: %v", err)
		}
		change(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want %q in it", err, want)
		}
	}
}

func TestResultsDoNotHaveWhatIsSecret(t *testing.T) {
	s := Default()
	s.User, s.Password, s.Token = "u", "hush", "hush"
	s.Env = []string{"HADAL_CLUSTER_SECRET=hush", "HADAL_RECORDS_STORE=memory"}
	s.URLs = []string{"ws://u:hush@127.0.0.1:1/x?token=hush"}
	b, err := json.Marshal(s.shown())
	if err != nil {
		t.Fatal(err)
	}
	if text := string(b); strings.Contains(text, "hush") || !strings.Contains(text, "HADAL_RECORDS_STORE=memory") || !strings.Contains(text, "127.0.0.1:1/x") {
		t.Errorf("a result has the settings %s", text)
	}
	if s.Env[0] != "HADAL_CLUSTER_SECRET=hush" {
		t.Error("the settings themselves have changed")
	}
}

func TestMoreConnectionsThanDescriptorsAreRefusedWithTheCure(t *testing.T) {
	limit := descriptors()
	if limit == 0 {
		t.Skip("nobody knows the limit on this system")
	}
	if err := enough(limit); err == nil || !strings.Contains(err.Error(), "ulimit") {
		t.Errorf("enough(%d) = %v, want the name of the limit", limit, err)
	}
	if err := enough(limit - spare); err != nil {
		t.Error(err)
	}
}
