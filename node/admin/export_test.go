package admin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// exported is all of an export.
func exported(t *testing.T, h *harness) string {
	t.Helper()
	var all strings.Builder
	if err := h.client(t).Export(t.Context(), "", func(line []byte) error {
		_, err := all.Write(line)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// holding is a server that has these records.
func holding(t *testing.T, records ...Record) *harness {
	t.Helper()
	h := serve(t, Config{})
	for _, r := range records {
		h.records.records[r.Name] = r
	}
	return h
}

// odd is what a record may be at its oddest.
var odd = []Record{
	{"zero", 0, `{}`},
	{"highest version", math.MaxInt32, `[]`},
	{"control \x00\x01\r\n\t\x7f", 1, `""`},
	{"line separators \u2028\u2029\ufeff", 1, "\"\u2028\u2029\ufeff\""},
	{"no UTF-8 \xff\xc3", 1, `1`},
	{"data without UTF-8", 1, "{\"a\":\"\xff\xfe\"}"},
	{"replacement \ufffd", 1, `"\ufffd"`},
	{"<&>\"\\ ü 🦑", 1, `"<&>\"\\ ü 🦑 \ud83e\udd91 \u0000"`},
	{"numbers", 1, `[1.0,1.50,1e3,1E+03,-0,0.1e-7,12345678901234567890123,100000000000000000000.0]`},
	{"space", 1, `{ "a" :  1 ,	"b":[ ] }`},
	{"lines", 1, "{\n  \"a\": 1,\r\n  \"b\": 2\n}"},
	{"space around", 1, " \t{} "},
	{"line end at the end", 1, "{}\n"},
	{"order and duplicates", 1, `{"b":1,"a":2,"b":3,"":4}`},
	{"null", 1, `null`},
	{`{"end":true}`, 1, `{"end":true,"records":1,"checksum":"00"}`},
	{strings.Repeat("n", 4096), 1, `{"long":"` + strings.Repeat("x", 900) + `"}`},
}

func TestAnExportRoundTripsByteForByte(t *testing.T) {
	from := holding(t, odd...)
	all := exported(t, from)
	if got, want := strings.Count(all, "\n"), len(odd)+1; got != want {
		t.Errorf("the export has %d lines, want %d", got, want)
	}
	to := serve(t, Config{})
	if n, err := to.client(t).Import(t.Context(), strings.NewReader(all), false); n.Records != len(odd) || err != nil {
		t.Fatalf("Import = %d, %v", n, err)
	}
	if !maps.Equal(to.records.records, from.records.records) {
		for name, want := range from.records.records {
			if got := to.records.records[name]; got != want {
				t.Errorf("%q: got %q, want %q", name, got, want)
			}
		}
	}
	if again := exported(t, to); again != all {
		t.Errorf("the second export differs from the first")
	}
	// One by one, and as names.
	names := map[string]bool{}
	if err := to.client(t).Names(t.Context(), "", func(name string) error { names[name] = true; return nil }); err != nil {
		t.Error(err)
	}
	for _, want := range odd {
		if got, err := to.client(t).Get(t.Context(), want.Name); got != want || err != nil {
			t.Errorf("Get = %q, %v, want %q", got, err, want)
		}
		if !names[want.Name] {
			t.Errorf("%q is not among the names", want.Name)
		}
	}
}

func TestExportsMayBeSortedAndPutTogether(t *testing.T) {
	first, second := exported(t, holding(t, odd...)), exported(t, holding(t, Record{"another", 1, `1`}))
	to := serve(t, Config{})
	lines := slices.Sorted(strings.Lines(first + second))
	if n, err := to.client(t).Import(t.Context(), strings.NewReader(strings.Join(lines, "")), false); n.Records != len(odd)+1 || err != nil {
		t.Errorf("Import = %d, %v", n, err)
	}
	if n, err := to.client(t).Import(t.Context(), strings.NewReader(strings.ReplaceAll(second, "\n", "\r\n")), false); n.Records != 1 || err != nil {
		t.Errorf("Import with other line ends = %d, %v", n, err)
	}
}

func TestAnExportThatIsNotWholeIsNoticed(t *testing.T) {
	all := exported(t, holding(t, Record{"a", 1, `{"x":1}`}, Record{"b", 2, `[2]`}, Record{"c", 3, `3`}))
	lines := slices.Collect(strings.Lines(all))
	tests := []struct {
		name, lines, want string
		partial           bool // it is taken as a part of an export
	}{
		{"nothing", "", "no end line", true},
		{"no end", strings.Join(lines[:3], ""), "no end line, as if the export was cut off; import it as a partial one if that is meant (--partial); 3 records are written, and the import may be repeated", true},
		{"cut off in a line", all[:len(lines[0])+10], "line 2: not a record as JSON: it is cut off; 1 records are written", false},
		{"cut off in the end", all[:len(all)-10], "line 4: not a record as JSON: it is cut off", false},
		{"a line missing", lines[0] + lines[2] + lines[3], "there are 2 records, and the end line says 3", true},
		{"a line twice", lines[0] + all, "there are 4 records", true},
		{"another byte", strings.Replace(all, `"x":1`, `"x":2`, 1), "checksum", true},
		{"another version", strings.Replace(all, `"version":3`, `"version":4`, 1), "checksum", true},
		{"another end", lines[0] + `{"end":true,"records":1,"checksum":"x"}`, `line 2: the checksum "x" is none`, false},
		{"half an end", lines[0] + `{"end":true,"records":1}`, "line 2: not the last line of an export", false},
		{"two names", `{"name":"a","name64":"YQ==","version":1,"data":1}`, "line 1: has two names", false},
		{"two data", `{"name":"a","version":1,"data":1,"data64":"MQ=="}`, "data is there twice", false},
		{"no base64", `{"name64":"?","version":1,"data":1}`, "line 1: not a record as JSON", false},
		{"no JSON", `{"name":"a","version":1,"data64":"ew=="}`, "data64 is no JSON", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := serve(t, Config{})
			if _, err := to.client(t).Import(t.Context(), strings.NewReader(tt.lines), false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Import = %v, want %q", err, tt.want)
			}
			if _, err := to.client(t).Import(t.Context(), strings.NewReader(tt.lines), true); (err == nil) != tt.partial {
				t.Errorf("Import of a part = %v, want it taken: %v", err, tt.partial)
			}
		})
	}
	// What broke off may be repeated.
	to := serve(t, Config{})
	if _, err := to.client(t).Import(t.Context(), strings.NewReader(all[:len(all)-50]), false); err == nil {
		t.Error("half an export was taken")
	}
	if n, err := to.client(t).Import(t.Context(), strings.NewReader(all), false); n.Records != 3 || err != nil {
		t.Errorf("Import = %d, %v", n, err)
	}
}

// endless is an import that never ends by itself.
type endless struct{ line []byte }

func (e endless) Read(p []byte) (int, error) { return copy(p, e.line), nil }

// The answer reaches a client that is still sending.
func TestAnImportThatBreaksEarlySaysWhere(t *testing.T) {
	for range 20 {
		to := serve(t, Config{})
		from := io.MultiReader(strings.NewReader(`{"name":"a","version":1,"data":1}`+"\n"+`{"name":"b"}`+"\n"), endless{bytes.Repeat([]byte("x"), 4096)})
		_, err := to.client(t).Import(t.Context(), from, false)
		if err == nil || !strings.Contains(err.Error(), "line 2: record \"b\": version is missing") {
			t.Fatalf("Import = %v, want the line", err)
		}
	}
}

// A node that ends in the middle of its answer is not taken for one that has no
// more records.
func TestAnExportWithoutItsEndIsBrokenOff(t *testing.T) {
	h := holding(t, odd...)
	err := h.client(t).lines(t.Context(), "/records", nil, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	if err := h.client(t).Export(ctx, "", func([]byte) error {
		if n++; n == 2 {
			cancel()
			return ctx.Err()
		}
		return nil
	}); err == nil {
		t.Error("an export that was given up was taken for whole")
	}
}

func BenchmarkExport(b *testing.B) {
	e := NewExporter(io.Discard)
	r := Record{"users/0123456789", 12, fmt.Sprintf("{%q:%q}", "data", strings.Repeat("x", 190))}
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Add(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseLine(b *testing.B) {
	line, err := Record{"users/0123456789", 12, fmt.Sprintf("{%q:%q}", "data", strings.Repeat("x", 190))}.appendLine(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseRecord(line); err != nil {
			b.Fatal(err)
		}
	}
}
