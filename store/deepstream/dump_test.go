package deepstream

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// reading collects what is read.
type reading struct {
	records map[string]Record
	left    map[string]error // by name, without ErrElsewhere
	twice   []string
	// elsewhere is how many of another database were told.
	elsewhere int
}

func (r *reading) each(rec Record, reason error) error {
	if errors.Is(reason, ErrElsewhere) {
		r.elsewhere++
		return nil
	}
	_, taken := r.records[rec.Name]
	_, left := r.left[rec.Name]
	if taken || left {
		r.twice = append(r.twice, rec.Name)
	}
	if reason != nil {
		r.left[rec.Name] = reason
		return nil
	}
	r.records[rec.Name] = rec
	return nil
}

func (r *reading) reasons() map[string]string {
	all := map[string]string{}
	for name, err := range r.left {
		all[name] = err.Error()
	}
	return all
}

// read reads with read, which must succeed.
func read(t *testing.T, read func(Each) error) *reading {
	t.Helper()
	r := &reading{records: map[string]Record{}, left: map[string]error{}}
	if err := read(r.each); err != nil {
		t.Fatal(err)
	}
	if len(r.twice) > 0 {
		t.Errorf("%q came more than once", r.twice)
	}
	return r
}

// differ says where two maps do.
func differ[V comparable](t *testing.T, got, want map[string]V) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[name]; !ok || g != want[name] {
			t.Errorf("%q: got %v, want %v", name, g, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%q: got %v, want nothing", name, got[name])
		}
	}
}

const dumpFile = "testdata/dump.rdb"

func dumped(db int) func(Each) error {
	return func(each Each) error { return Dump(context.Background(), dumpFile, db, each) }
}

func TestADumpHasTheRecordsOfTheConnector(t *testing.T) {
	got := read(t, dumped(0))
	want := map[string]Record{}
	for _, r := range []Record{
		{"cars/bmw", 3, `{"1":"first","make":"BMW","wheels":4}`},
		{"cars", 70000, `["cars/bmw","cars/ünique"]`},
		{"cars/ünique", 1, "{\"text\":\"🦑 \\\"quoted\\\" \\\\ \u2028\"}"},
		{"plain", 0, `{}`},
		{"long", 12, `{"text":"` + strings.Repeat("again and ", 2000) + `"}`},
		{"odd_v", 5, `{"of":"odd_v"}`},
		{"odd_d", 6, `{"of":"odd_d"}`},
		{"wrapped", 7, `{"_v":1,"_d":{"is":"data"}}`},
		{"cached", 9, `{"until":"far away"}`},
	} {
		want[r.Name] = r
	}
	for i := range 200 {
		name := fmt.Sprintf("many/%d", i)
		want[name] = Record{name, int32(i + 1), fmt.Sprintf(`{"i":%d}`, i)}
	}
	differ(t, got.records, want)

	reasons := map[string]string{
		"users/ada": ErrUser.Error(),
		"gone_d":    ErrExpired.Error(), "gone_v": ErrExpired.Error(),
		"lost":    "there is lost_d in redis, and no version under lost_v: deepstream does not find it either",
		"strange": "there is strange_d in redis, and no version under strange_v: deepstream does not find it either",
		"alone":   "there is alone_v in redis, and no alone_d",
		"broken":  "its data is not JSON",
	}
	for _, name := range []string{"session:1", "strange_v", "queue", "long queue", "set", "numbers", "scores", "hash", "stream"} {
		reasons[name] = ErrForeign.Error()
	}
	if got.elsewhere != 3 {
		t.Errorf("%d were told of the other database, want 3", got.elsewhere)
	}
	differ(t, got.reasons(), reasons)
}

func TestADumpOfDeepstream3HasItsRecords(t *testing.T) {
	got := read(t, dumped(1))
	want := map[string]Record{
		"cars/bmw": {"cars/bmw", 2, `{"make":"BMW"}`},
		"cars":     {"cars", 1, `["cars/bmw"]`},
		"odd_d":    {"odd_d", 4, `{"of":"odd_d"}`},
	}
	differ(t, got.records, want)
	differ(t, got.reasons(), map[string]string{})
}

func TestADumpOfMoreRecordsThanMemoryHoldsIsReadInParts(t *testing.T) {
	want := read(t, dumped(0))
	defer func(most int) { versionsAtOnce = most }(versionsAtOnce)
	for _, versionsAtOnce = range []int{20, 100, 211, 212, 213} {
		got := read(t, dumped(0))
		differ(t, got.records, want.records)
		differ(t, got.reasons(), want.reasons())
	}
}

func TestADumpThatIsNotWholeIsRefused(t *testing.T) {
	whole, err := os.ReadFile(dumpFile)
	if err != nil {
		t.Fatal(err)
	}
	damaged := slices.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	unsummed := append(slices.Clone(whole[:len(whole)-8]), make([]byte, 8)...)
	for name, tt := range map[string]struct {
		bytes []byte
		want  string
	}{
		"nothing":                 {nil, "not a dump of redis"},
		"text":                    {[]byte("REDIRECT to somewhere"), "not a dump of redis"},
		"cut off":                 {whole[:len(whole)-100], "checksum"},
		"damaged":                 {damaged, "checksum"},
		"an append-only file":     {append(slices.Clone(whole), "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"...), "checksum"},
		"no checksum and cut off": {append(slices.Clone(unsummed[:len(unsummed)/2]), make([]byte, 8)...), "cannot be read"},
		"no checksum":             {unsummed, ""},
		"of a newer redis":        {append([]byte("REDIS0013"), whole[9:]...), `"REDIS0013", and the newest that is read is REDIS0012`},
		"of valkey":               {append([]byte("VALKEY080"), whole[9:]...), `"VALKEY080"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dump.rdb")
			if err := os.WriteFile(path, tt.bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			given := 0
			err := Dump(t.Context(), path, 0, func(Record, error) error { given++; return nil })
			if tt.want == "" {
				if err != nil || given == 0 {
					t.Errorf("Dump = %v, with %d records", err, given)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "dump.rdb") {
				t.Errorf("Dump = %v, want %q", err, tt.want)
			}
			if strings.Contains(tt.want, "checksum") && given > 0 {
				t.Errorf("%d records were given before the damage was found", given)
			}
		})
	}
}

func TestAReadingEndsWhenItIsTold(t *testing.T) {
	enough := errors.New("enough")
	given := 0
	if err := dumped(0)(func(Record, error) error { given++; return enough }); !errors.Is(err, enough) || given != 1 {
		t.Errorf("Dump = %v after %d records", err, given)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Dump(ctx, dumpFile, 0, func(Record, error) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Dump = %v", err)
	}
	if err := Lines(ctx, strings.NewReader("{}"), func(Record, error) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Lines = %v", err)
	}
}

func TestTheChecksumIsThatOfRedis(t *testing.T) {
	// The check value of CRC-64/REDIS (width 64, poly 0xad93d23594c935a9, reflected, no complement).
	if got := ^crc64.Update(^uint64(0), jones, []byte("123456789")); got != 0xe9c6d914c4b8d9ca {
		t.Errorf("%016x", got)
	}
}
