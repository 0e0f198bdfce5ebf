package mqtt

import (
	"slices"
	"strings"
	"testing"
)

func TestHeadsOfAFilterAreThoseOfAllRecordsThatItMatches(t *testing.T) {
	c := Config{RecordPrefixes: []string{"state/", "room", "state/deep/"}}
	for filter, want := range map[string]string{
		"#":           "state/ room state/deep/",
		"+/x":         "state/ room state/deep/",
		"state/#":     "state/ state/deep/",
		"state/+":     "state/",
		"state/a/#":   "state/a",
		"state/a/+/b": "state/a/",
		"room/#":      "room",
		"roomy/+":     "roomy/",
		"news/#":      "",
		"stat/+":      "",
	} {
		if got := strings.Join(c.Heads(filter), " "); got != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
		if records, _ := c.mayMatch(filter); records != (want != "") {
			t.Errorf("%s: may match records: %v", filter, records)
		}
	}
	if got := (&Config{}).Heads("#"); slices.Contains(got, "") || len(got) > 0 {
		t.Errorf("without records # has the heads %q", got)
	}
}
