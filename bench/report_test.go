package bench

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestTheReportNeedsNothingElse(t *testing.T) {
	r := twoRounds()
	r.Machine = Machine{Cores: 2, Load: 7}
	r.Targets[1].About = "<script>alert(1)</script>"
	for i := range r.Runs[:4] {
		run := &r.Runs[i]
		run.Latency = Latency{Count: 10, P50: 100, P90: 200, P99: 5000, Max: 70000}
		run.Samples = []Sample{{At: 0.2, PerSecond: 5, Memory: 1e6}, {At: 0.4, PerSecond: 7, Memory: 2e6}}
		run.Memory = 2e6
	}
	file := filepath.Join(t.TempDir(), "r.html")
	if err := r.WriteReport(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if link := regexp.MustCompile(`(src|href)="[^#"][^"]*"|@import|url\(|<script`).FindString(text); link != "" {
		t.Errorf("the page has %q, which is elsewhere or runs", link)
	}
	for want, n := range map[string]int{
		"<svg":                2 + 3, // CPU of deliveries, memory; latency, throughput and memory of the scenario
		"&lt;script&gt;alert": 1, "the load average was 7.0 on 2 cores": 1, "1 of 6 measurements failed": 1,
		"×0.41 (0.33–0.50)": 1, "a, round 1 failed: it fell over": 1, `class="bad">failed`: 1,
	} {
		if got := strings.Count(text, want); got != n {
			t.Errorf("the page has %q %d times, want %d", want, got, n)
		}
	}
}

func TestAReportOfNothingIsMadeToo(t *testing.T) {
	r := &Result{Format: Format}
	if err := r.WriteReport(filepath.Join(t.TempDir(), "r.html")); err != nil {
		t.Error(err)
	}
}

func TestPlotsEscapeTheirNames(t *testing.T) {
	lines := []Line{{"<b>&", []float64{1, math.NaN()}}, {"x", []float64{2, 3}}}
	for name, draw := range map[string]func() ([]byte, error){
		"lines": func() ([]byte, error) { return Lines([]string{"<i>", "b"}, lines, "<u>", false) },
		"log":   func() ([]byte, error) { return Lines([]string{"<i>", "b"}, lines, "<u>", true) },
		"bars":  func() ([]byte, error) { return Bars([]string{"<i>", "b"}, lines) },
	} {
		svg, err := draw()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, raw := range []string{"<b>", "<i>", "<u>"} {
			if strings.Contains(string(svg), raw) {
				t.Errorf("%s: %s stands in the picture as it is", name, raw)
			}
		}
	}
}

func TestAxesEndAtRoundNumbers(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 0.9: 1, 1: 1.25, 4.7: 5, 19: 20, 230: 250, 355: 500, 1190: 1250} {
		if got := roundUp(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("roundUp(%v) = %v, want %v", v, got, want)
		}
	}
}
