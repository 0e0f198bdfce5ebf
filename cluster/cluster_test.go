package cluster

import (
	"fmt"
	"slices"
	"testing"
)

// The slot of a name is part of the stored format and of the wire between nodes.
func TestSlotsNeverChange(t *testing.T) {
	for name, want := range map[string]uint16{"": 0x999, "a": 0xe5b, "users/alice": 0xcee, "日本": 0xfab} {
		if got := Slot(name); got != want {
			t.Errorf("Slot(%q) = %#x, want %#x", name, got, want)
		}
	}
}

func TestNamesSpreadOverTheSlots(t *testing.T) {
	count := make([]int, Slots)
	const n = 200 * Slots
	for i := range n {
		count[Slot(fmt.Sprintf("record/%d", i))]++
	}
	if low, high := slices.Min(count), slices.Max(count); low < 100 || high > 300 {
		t.Errorf("slots got from %d to %d names, want about %d", low, high, n/Slots)
	}
}

func TestPartitionsAreEvenRangesOfSlots(t *testing.T) {
	for _, n := range []int{1, 2, 6, 7, 64, 4096} {
		count := make([]int, n)
		last := 0
		for slot := range Slots {
			p := Partition(uint16(slot), n)
			if p < last || p >= n {
				t.Fatalf("slot %d of %d partitions is in %d, after %d", slot, n, p, last)
			}
			last = p
			count[p]++
		}
		if low, high := slices.Min(count), slices.Max(count); high-low > 1 {
			t.Errorf("%d partitions have from %d to %d slots", n, low, high)
		}
	}
}

func TestASoloNodeOwnsEveryPartition(t *testing.T) {
	dir := openDir(t, t.TempDir())
	for _, tt := range []struct {
		table *Solo
		epoch uint64
	}{{NewSolo(dir, "here"), dir.Epoch()}, {NewSoloInMemory("here"), 1}} {
		self := tt.table.Self()
		if self.ID == "" || self.Name != "here" || !self.Alive || self.Incarnation != tt.epoch || tt.table.ClusterID() == "" {
			t.Errorf("Self = %+v of cluster %q", self, tt.table.ClusterID())
		}
		if got := tt.table.Members(); !slices.Equal(got, []Member{self}) {
			t.Errorf("Members = %v, want this node", got)
		}
		if got, want := tt.table.Owner(0), (Ownership{Owner: self.ID, Epoch: tt.epoch, Here: true}); got != want || tt.table.Partitions() != 1 {
			t.Errorf("Owner(0) = %+v of %d partitions, want %+v of 1", got, tt.table.Partitions(), want)
		}
		for _, p := range []int{-1, 1} {
			if got := tt.table.Owner(p); got != (Ownership{}) {
				t.Errorf("Owner(%d) = %+v, want nobody", p, got)
			}
		}
		if tt.table.Changed() != nil {
			t.Error("a table that never changes has a channel for it")
		}
	}
}

func BenchmarkSlot(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Slot("users/alice.smith@example.com/settings/1")
	}
}
