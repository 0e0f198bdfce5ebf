package admin

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestAMergeWritesWhatIsNewerAndTellsTheRest(t *testing.T) {
	incoming := []Record{
		{"new", 3, `{"a":1}`},
		{"older here", 3, `{"a":1}`},
		{"same", 3, `{"a":1}`},
		{"other data", 3, `{"a":1}`},
		{"newer here", 3, `{"a":1}`},
		{"large", 1, `"` + strings.Repeat("x", 1000) + `"`},
		{"hadal/mine", 1, `{}`},
		{"zero", 0, `[]`},
	}
	here := []Record{
		{"older here", 2, `{}`}, {"same", 3, `{"a":1}`}, {"other data", 3, `{"a":2}`}, {"newer here", 4, `{"a":1}`}, {"untouched", 1, `{}`},
	}
	lines := exported(t, holding(t, incoming...))
	newer := map[string]Record{}
	for _, r := range append(slices.Clone(here), incoming[0], incoming[1], incoming[7]) {
		newer[r.Name] = r
	}
	all := maps.Clone(newer)
	all["other data"], all["newer here"] = incoming[3], incoming[4]
	refused := []Told{
		{"hadal/mine", `record is not valid: record "hadal/mine": names that begin with hadal/ are the server's`},
		{"large", "record is not valid: more than 1000 bytes"},
	}
	kept := []Told{refused[0], refused[1],
		{"newer here", `record "newer here": version 4 is here, and 3 comes`}, {"other data", `record "other data": version 3 is here, and 3 comes`}}
	tests := []struct {
		name    string
		options MergeOptions
		want    Merged
		left    map[string]Record
		broken  error // what listing names ends in
	}{
		{"newer", MergeOptions{}, Merged{Written: 3, Unchanged: 1, Kept: 2, Refused: 2, Told: kept}, newer, nil},
		{"newer, names not listed", MergeOptions{}, Merged{Written: 3, Unchanged: 1, Kept: 2, Refused: 2, Told: kept}, newer, errors.New("it changes")},
		{"all", MergeOptions{Overwrite: true}, Merged{Written: 5, Unchanged: 1, Refused: 2, Told: refused}, all, nil},
		{"dry", MergeOptions{DryRun: true}, Merged{Written: 3, Unchanged: 1, Kept: 2, Refused: 2, Told: kept}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to := holding(t, here...)
			to.records.broken = tt.broken
			if tt.left == nil {
				tt.left = maps.Clone(to.records.records)
			}
			got, err := to.client(t).Merge(t.Context(), strings.NewReader(lines), tt.options)
			if err != nil || !slices.Equal(got.Told, tt.want.Told) {
				t.Errorf("Merge = %+v, %v, want %+v", got, err, tt.want)
			}
			got.Told, tt.want.Told = nil, nil
			if got.Written != tt.want.Written || got.Unchanged != tt.want.Unchanged || got.Kept != tt.want.Kept || got.Refused != tt.want.Refused {
				t.Errorf("Merge = %+v, want %+v", got, tt.want)
			}
			if !maps.Equal(to.records.records, tt.left) {
				t.Errorf("there are %v, want %v", to.records.records, tt.left)
			}
			if tt.options.DryRun {
				return
			}
			again, err := to.client(t).Merge(t.Context(), strings.NewReader(lines), tt.options)
			if err != nil || again.Written != 0 || again.Unchanged != tt.want.Written+1 {
				t.Errorf("Merge once more = %+v, %v, want nothing written", again, err)
			}
		})
	}
}

func TestOfSeveralLinesOfOneNameTheHighestVersionStays(t *testing.T) {
	var b strings.Builder
	e := NewExporter(&b)
	for _, version := range []int32{4, 5, 3, 5} {
		if err := e.Add(Record{"a", version, fmt.Sprintf(`{"v":%d}`, version)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.End(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		options MergeOptions
		want    Merged
	}{
		{MergeOptions{}, Merged{Written: 2, Unchanged: 1, Kept: 1, Told: []Told{{"a", `record "a": version 5 is here, and 3 comes`}}}},
		{MergeOptions{Overwrite: true}, Merged{Written: 4}},
	} {
		to := serve(t, Config{})
		got, err := to.client(t).Merge(t.Context(), strings.NewReader(b.String()), tt.options)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: Merge = %+v, %v, want %+v", tt.options, got, err, tt.want)
		}
		if got, want := to.records.records["a"], (Record{"a", 5, `{"v":5}`}); got != want {
			t.Errorf("%+v: there is %v, want %v", tt.options, got, want)
		}
	}
}

func TestAMergeThatBreaksOffIsAnError(t *testing.T) {
	whole := exported(t, holding(t, Record{"a", 1, `1`}, Record{"b", 2, `[2]`}))
	for _, tt := range []struct{ lines, want string }{
		{whole[:strings.Index(whole, `{"end"`)], "no end line"},
		{`{"login":"user/YWRh","value64":"e30="}` + "\n", "what logins keep cannot be written here"},
	} {
		to := serve(t, Config{})
		if _, err := to.client(t).Merge(t.Context(), strings.NewReader(tt.lines), MergeOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Merge = %v, want %q", err, tt.want)
		}
	}
}

func TestNamesAreFoundAgain(t *testing.T) {
	set := make(names, 1<<10)
	for i := range 1000 {
		set.add(fmt.Sprintf("in/%d", i))
	}
	wrong := 0
	for i := range 1000 {
		if !set.has(fmt.Sprintf("in/%d", i)) {
			t.Errorf("in/%d is not there", i)
		}
		if set.has(fmt.Sprintf("out/%d", i)) {
			wrong++
		}
	}
	if wrong > 20 { // two thousand bits of 65 536 are set
		t.Errorf("%d of 1000 others are there", wrong)
	}
}
