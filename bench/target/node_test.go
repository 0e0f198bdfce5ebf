package target

import (
	"fmt"
	"slices"
	"testing"
)

func TestTheLastWarningsOfANodeAreKept(t *testing.T) {
	var n Node
	var want []string
	for i := range mostComplaints + 3 {
		n.heed(fmt.Sprintf(`level=INFO msg="number %d"`, i))
		line := fmt.Sprintf(`level=WARN msg="number %d"`, i)
		n.heed(line)
		if i >= 3 {
			want = append(want, line)
		}
	}
	if got := n.Complaints(); !slices.Equal(got, want) {
		t.Errorf("kept %q, want %q", got, want)
	}
}
