package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hadal/store"
)

// The numbers are for people; that every kind of store is measured is for the
// tests.
func TestEveryStoreIsMeasured(t *testing.T) {
	for _, kind := range storeNames() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := run(t.Context(), []string{
				"--dir", t.TempDir(), "--stores", kind, "--names", "hot", "--writers", "1,16", "--time", "200ms", "--warm-up", "10ms", "--json",
			}, &out)
			if err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(strings.NewReader(out.String()))
			for _, writers := range []int{1, 16} {
				var c cell
				if err := dec.Decode(&c); err != nil {
					t.Fatal(err)
				}
				if c.Store != kind || c.Writers != writers || c.Ops <= 0 || c.P50 <= 0 || c.P99 < c.P50 {
					t.Errorf("measured %+v", c)
				}
				if (c.Reference != nil) != (kind != "memory" && writers == 1) {
					t.Errorf("the reference of %s at %d writers is %v", kind, writers, c.Reference)
				}
			}
		})
	}
}

func TestAStartAfterAKillFindsEverything(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "store")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var errs strings.Builder
	cmd := exec.CommandContext(t.Context(), binary, "--start", "--json", "--dir", t.TempDir(), "--records", "3000", "--tail", "1200")
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	var st started
	if err := json.Unmarshal(out, &st); err != nil {
		t.Fatal(err)
	}
	if st.What != "store" || st.Total <= 0 || st.Fence <= 0 || st.RSS == 0 || st.Dir < 3000*startSize {
		t.Errorf("reported %+v", st)
	}
}

func TestTheOwnerFoldsChangesAndRefusesOldVersions(t *testing.T) {
	st := store.NewMemory()
	if err := st.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	o := newOwner(st)
	for _, tt := range []struct {
		name    string
		version int32
		refused bool
	}{{"a", 0, false}, {"b", -1, false}, {"a", 0, true}, {"a", 1, false}} {
		w := &write{name: tt.name, data: "{}", version: tt.version, done: make(chan error, 1)}
		o.handle(w)
		if refused := len(w.done) == 1; refused != tt.refused {
			t.Errorf("%s after version %d: refused is %v", tt.name, tt.version, refused)
		}
	}
	var got []store.Op
	for _, op := range o.open.ops {
		got = append(got, store.Op{Record: store.Record{Name: op.Name, Version: op.Version, Data: op.Data}})
	}
	want := []store.Op{{Record: store.Record{Name: "a", Version: 2, Data: "{}"}}, {Record: store.Record{Name: "b", Version: 1, Data: "{}"}}}
	if !slices.Equal(got, want) || len(o.open.writes) != 3 {
		t.Errorf("the open batch holds %v for %d writes, want %v for 3", got, len(o.open.writes), want)
	}
}

func TestNoTwoChangesAreAlike(t *testing.T) {
	data := jsonOf(dataSize)
	seen := make(map[string]bool)
	for n := range uint64(1000) {
		number(data, n)
		if len(data) != dataSize || !json.Valid(data) || seen[string(data)] {
			t.Fatalf("change %d is %s", n, data)
		}
		seen[string(data)] = true
	}
}

func TestWrongFlagsAreExplained(t *testing.T) {
	for args, want := range map[string]string{
		"--stores nonsense": `no "nonsense"`,
		"--names some":      `no "some"`,
		"--writers 0":       `"0" is no number`,
		"--sync never":      "neither always nor interval",
		"--records 0":       "at least one",
		"more":              `what is "more"?`,
	} {
		if err := run(t.Context(), strings.Fields(args), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run %s = %v, want %q", args, err, want)
		}
	}
}

func TestTheTableSaysWhatIsTooSlow(t *testing.T) {
	var out strings.Builder
	tab := newTable(&out)
	ref := reference{1000, 8.5, time.Millisecond, 2 * time.Millisecond}
	tab.row(&cell{Store: "log", Ops: 700, Reference: &ref, Ratio: 0.7})
	tab.row(&cell{Store: "log", Ops: 800, Reference: &ref, Ratio: 0.8})
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[1], "0.70 below 1/1.3") || strings.Contains(lines[2], "below") {
		t.Errorf("the table says\n%s", out.String())
	}
}
