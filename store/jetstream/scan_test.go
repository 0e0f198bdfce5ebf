package jetstream

import (
	"fmt"
	"testing"

	"hadal/store"
	"hadal/store/storetest"
)

// The server's filter for a prefix that ends inside a token lets the neighbours
// through, and those may change meanwhile.
func TestNeighboursThatChangeUnderAScanAreNotMissed(t *testing.T) {
	t.Parallel()
	s := newRig(t, false).fenced(t)
	for i := range 50 {
		mustAppend(t, s, storetest.Put(fmt.Sprintf("dir/n%d", i), 1, `{}`))
	}
	mustAppend(t, s, storetest.Put("dir/a", 1, `{}`), storetest.Put("other", 1, `{}`))
	sc, end, err := s.beginScan("dir/a")
	if err != nil {
		t.Fatal(err)
	}
	defer s.dropScan(sc)
	for i := range 50 {
		mustAppend(t, s, storetest.Put(fmt.Sprintf("dir/n%d", i), 2, `{}`))
	}
	mustAppend(t, s, storetest.Put("other", 2, `{}`))
	if sc.others != 50 || len(sc.changed) != 0 {
		t.Errorf("the scan noted %d others and %d changes, want 50 and none", sc.others, len(sc.changed))
	}
	seen := 0
	if err := s.scan(t.Context(), sc, end, func(store.Record) error { seen++; return nil }); err != nil || seen != 1 {
		t.Errorf("scan = %v after %d records, want one", err, seen)
	}
}
