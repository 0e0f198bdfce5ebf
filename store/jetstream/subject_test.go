package jetstream

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"hadal/store/storetest"
)

func TestSubjectsKeepSlashesAndEscapeTheRest(t *testing.T) {
	tests := []struct{ name, want string }{
		{"users/a b/1.x", "users.a=20b.1=2Ex"},
		{"a", "a"},
		{"A-_:@+,9", "A-_:@+,9"},
		{"a//b", "a.=.b"},
		{"/", "=.="},
		{"a/", "a.="},
		{"=", "=3D"},
		{"*", "=2A"},
		{">", "=3E"},
		{"$", "=24"},
		{"ä", "=C3=A4"},
		{"\x00", "=00"},
		{strings.Repeat("x", 1000), strings.Repeat("x", 1000)},
		{strings.Repeat("x", 1001), hashOf(strings.Repeat("x", 1001))},
		{"dir/" + strings.Repeat("x", 1001), "dir." + hashOf("dir/"+strings.Repeat("x", 1001))},
		{strings.Repeat("a/", 63) + "a", strings.Repeat("a.", 63) + "a"},
		{strings.Repeat("a/", 64) + "a", strings.Repeat("a.", 63) + hashOf(strings.Repeat("a/", 64)+"a")},
	}
	for _, tt := range tests {
		if got := string(appendSubject(nil, tt.name)); got != tt.want {
			t.Errorf("subject of %.50q = %.80q, want %.80q", tt.name, got, tt.want)
		}
	}
}

func hashOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "=~" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// FuzzSubject checks the promises of the encoding for two names: subjects are
// clean and short, differ when the names differ, and are
// matched by the filter of every prefix of the name.
func FuzzSubject(f *testing.F) {
	names := storetest.OddNames()
	for i, name := range names {
		f.Add(name, names[(i+1)%len(names)], uint16(i))
	}
	f.Fuzz(func(t *testing.T, a, b string, cut uint16) {
		if a == "" || b == "" {
			return
		}
		sa, sb := string(appendSubject(nil, a)), string(appendSubject(nil, b))
		if (sa == sb) != (a == b) {
			t.Fatalf("%q and %q have the subjects %q and %q", a, b, sa, sb)
		}
		if len(sa) > maxSubject || strings.Count(sa, ".") >= maxTokens {
			t.Fatalf("subject of %q has %d bytes and %d dots", a, len(sa), strings.Count(sa, "."))
		}
		if strings.ContainsAny(sa, " \t\r\n*>$\x00") || slices.Contains(strings.Split(sa, "."), "") {
			t.Fatalf("subject of %q is %q", a, sa)
		}
		filter := string(appendFilter(nil, a[:int(cut)%(len(a)+1)]))
		if head := strings.TrimSuffix(filter, ">"); !strings.HasPrefix(sa, head) || len(sa) == len(head) {
			t.Fatalf("filter %q of a prefix of %q does not match %q", filter, a, sa)
		}
	})
}

func BenchmarkSubject(b *testing.B) {
	b.ReportAllocs()
	buf := make([]byte, 0, 256)
	for b.Loop() {
		buf = appendSubject(buf[:0], "users/alice.smith@example.com/settings/1")
	}
}

func TestStreamsTellTheirPartition(t *testing.T) {
	for stream, want := range map[string]int{
		Name(0): 0, Name(12): 12, LogName(7): 7,
		"": -1, "HADAL_STATE_": -1, "HADAL_STATE_01": -1, "HADAL_STATE_-1": -1, "HADAL_STATE_HADAL_LOG_1": -1, "HADAL_OTHER_1": -1, "1": -1,
	} {
		got, ok := PartitionOf(stream)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("PartitionOf(%q) = %d, want %d (-1: of none)", stream, got, want)
		}
	}
}
