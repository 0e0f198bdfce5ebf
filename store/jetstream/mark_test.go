package jetstream

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMarksOutliveTheirStoreAndNotTheirDamage(t *testing.T) {
	name := filepath.Join(t.TempDir(), "mark")
	m, err := openMark(name)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want uint64) {
		t.Helper()
		again, err := openMark(name)
		if err != nil {
			t.Fatal(err)
		}
		defer again.f.Close()
		if got, err := again.read(); err != nil || got != want {
			t.Errorf("mark = %d, %v, want %d", got, err, want)
		}
	}
	check(0)
	for _, seq := range []uint64{1, 1 << 40, 7} {
		if err := m.write(seq); err != nil {
			t.Fatal(err)
		}
		check(seq)
	}
	for _, content := range []string{"", "short", "not a mark at all"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		check(0)
	}
	if err := m.f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openMark(t.TempDir()); err == nil {
		t.Error("a directory was opened as a mark")
	}
}
