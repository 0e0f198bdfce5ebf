package sub

import (
	"fmt"
	"runtime"
	"testing"
)

// What very many names occupied is given back when they have gone.
func TestARegistryShrinksWithItsNames(t *testing.T) {
	r := NewRegistry()
	c, stays := &fake{id: 1}, &fake{id: 2}
	if got := r.Add("stays", stays); got != First {
		t.Fatalf("Add = %v", got)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	before := heap()
	const n = 100_000
	for i := range n {
		if got := r.Add(fmt.Sprint("name/", i), c); got != First {
			t.Fatalf("Add = %v", got)
		}
	}
	full := heap()
	if lost := r.RemoveClient(c); len(lost) != n {
		t.Fatalf("%d names were lost, want %d", len(lost), n)
	}
	if after := heap(); after > before+(full-before)/10 {
		t.Errorf("the heap went from %d to %d and back to %d only", before, full, after)
	}
	if !r.Has("stays") {
		t.Error("a name that stays is gone")
	}
	runtime.KeepAlive(r)
}
