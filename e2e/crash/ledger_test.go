//go:build linux

package main

import (
	"strings"
	"testing"
)

// The stories below are events, one a word: kind, writer, ":", version and data.
// W3:7a is writer 3 whose write of data "a", as version 7, was acknowledged. All are
// about one record. "kill" ends a victim; "scan" lets the next one find nothing, and
// "scan:7a" that version.

func tell(t *testing.T, l *ledger, story string) {
	t.Helper()
	for word := range strings.FieldsSeq(story) {
		switch what, state, ok := strings.Cut(word, ":"); {
		case word == "kill":
			l.died()
		case what == "scan":
			l.take(event{kind: scanBegins, who: secondOwner})
			if ok {
				l.take(parseWord(t, "F64:"+state))
			}
			l.take(event{kind: scanEnds, who: secondOwner})
		default:
			l.take(parseWord(t, word))
		}
	}
}

func parseWord(t *testing.T, word string) event {
	t.Helper()
	e := event{kind: kind(word[0]), name: 5}
	who, state, _ := strings.Cut(word[1:], ":")
	for _, c := range who {
		e.who = e.who*10 + uint8(c-'0')
	}
	for i, c := range state {
		if c < '0' || c > '9' {
			e.hash = hashOf(state[i:])
			break
		}
		e.version = e.version*10 + c - '0'
	}
	return e
}

func TestLedgerBelievesWhatCanBe(t *testing.T) {
	for name, story := range map[string]string{
		"one version after the other":              "w1:1a W1:1a w2:2b W2:2b R1:2b kill scan:2b R64:2b",
		"shown, then acknowledged":                 "w1:1a U0:1a W1:1a kill scan:1a",
		"two writers compete":                      "w1:1a w2:1b W2:1b C1:1b kill scan:1b",
		"deleted and made again":                   "w1:1a W1:1a d2 X0 D2 N1 w1:1b W1:1b kill scan:1b",
		"a writer is ahead of a deletion":          "w1:1a W1:1a d2 D2 w1:2b V1:0 kill scan",
		"deleting what is not there":               "d1 D1 kill scan",
		"unanswered and done":                      "w1:1a W1:1a w2:2b kill scan:2b",
		"unanswered and not done":                  "w1:1a W1:1a w2:2b kill scan:1a",
		"shown, but not answered":                  "w1:1a U0:1a kill scan:1a",
		"an unanswered deletion, done":             "w1:1a W1:1a d2 kill scan",
		"an unanswered deletion, not done":         "w1:1a W1:1a d2 kill scan:1a",
		"an unanswered deletion before a new life": "w1:1a W1:1a w1:2b W1:2b d2 w3:1c kill scan:1c",
		"killed again before it was looked at":     "w1:1a W1:1a w2:2b kill kill scan:2b",
		"refused with an error, done all the same": "w1:1a E1 kill scan:1a",
		"replaced, and refused":                    "w1:1a W1:1a T64 w1:2b E1 scan:1a w64:2c W64:2c kill scan:2c",
		"replaced, and reading old things":         "w1:1a W1:1a T64 scan:1a w64:2b W64:2b R1:1a w2:1c C2:1a kill scan:2b",
		"replaced, and deleting once more":         "d1 D1 T64 scan w64:1a W64:1a d1 X0 D1 kill scan:1a",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			if tell(t, l, story); l.err() != nil {
				t.Errorf("%s: %v", story, l.err())
			}
		})
	}
}

func TestLedgerNoticesWhatCannotBe(t *testing.T) {
	for name, test := range map[string]struct {
		story      string
		lost, gaps int
	}{
		"an acknowledged write is gone":               {"w1:1a W1:1a kill scan", 1, 0},
		"an acknowledged write is taken back":         {"w1:1a W1:1a w1:2b W1:2b kill scan:1a", 1, 0},
		"what was shown is taken back":                {"w1:1a U0:1a kill scan", 1, 0},
		"what was read is taken back":                 {"w1:1a W1:1a kill scan:1a w1:2b U0:2b R2:2b kill scan:1a", 1, 0},
		"the version is right and the data is not":    {"w1:1a W1:1a kill scan:1b", 1, 0},
		"a deleted record is back":                    {"w1:1a W1:1a d1 D1 kill scan:1a", 1, 0},
		"a write that was refused is there":           {"w1:1a W1:1a w2:1b C2:1a kill scan:1b", 1, 0},
		"a version is missing":                        {"w1:2a W1:2a", 0, 1},
		"a version is there twice":                    {"w1:1a W1:1a w2:1b W2:1b", 0, 1},
		"an old version is read":                      {"w1:1a W1:1a w1:2b W1:2b R2:1a", 0, 1},
		"a version that is not acknowledged is read":  {"w1:1a R2:1a", 0, 1},
		"a deleted record is read":                    {"w1:1a W1:1a d1 D1 R2:1a", 0, 1},
		"a record is missing for a reader":            {"w1:1a W1:1a N2", 0, 1},
		"an update that nobody wrote is shown":        {"U0:1a", 0, 1},
		"one write is acknowledged as another":        {"w1:1a W1:1b", 0, 1},
		"an acknowledgement comes twice":              {"w1:1a W1:1a W1:1a", 0, 1},
		"a conflict with an older version":            {"w1:1a W1:1a w2:2b C2:1a", 0, 1},
		"the reader disagrees with the scan":          {"w1:1a W1:1a kill scan:1a N64", 0, 1},
		"an owner that was replaced acknowledges":     {"w1:1a W1:1a T64 scan:1a w1:2b W1:2b", 0, 1},
		"an owner that was replaced deletes":          {"w1:1a W1:1a T64 scan:1a d1 D1", 0, 1},
		"what a replaced owner refused is there":      {"w1:1a W1:1a T64 scan:1a w1:2b E1 kill scan:2b", 1, 0},
		"the second owner does not know the last one": {"w1:1a W1:1a T64 scan", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			tell(t, l, test.story)
			if l.lost != test.lost || l.gaps != test.gaps {
				t.Errorf("%s: %d lost and %d gaps, want %d and %d: %v", test.story, l.lost, l.gaps, test.lost, test.gaps, l.err())
			}
			if l.err() == nil {
				t.Error("and no error")
			}
		})
	}
}

func TestEventsComeThrough(t *testing.T) {
	e := event{kind: wrote, who: 127, name: allNames - 1, version: -1, hash: 1<<64 - 1}
	if got := parseEvent(e.append(nil)); got != e {
		t.Errorf("got %+v, want %+v", got, e)
	}
	for n := range uint16(allNames) {
		if got, ok := numberOf(nameOf(n)); got != n || !ok {
			t.Fatalf("numberOf(%q) = %d, %v", nameOf(n), got, ok)
		}
	}
	for _, name := range []string{"", "hot", "hot/64", "uniform/1", "uniform/2048", "hot/01", "uniform/-1"} {
		if n, ok := numberOf(name); ok {
			t.Errorf("numberOf(%q) = %d", name, n)
		}
	}
}
