package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hadal/node/admin"
	"hadal/store"
)

// testdata/format1.tgz is the data directory of a version that knew no log, killed
// after a few writes and a removal.
func TestADataDirectoryOfThePreviousFormatIsOpened(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("tar", "xzf", filepath.Join("testdata", "format1.tgz"), "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	data := filepath.Join(dir, "data")
	for range 2 { // as it was, and as the first start left it
		n := run(t, func(c *Config) { c.DataDir = data })
		op := operator{n.Node}
		for _, want := range []store.Record{
			{Name: "users/ada", Version: 3, Data: `{"n":3,"name":"Ada"}`},
			{Name: "list", Version: 1, Data: `["a","b"]`},
		} {
			if got, err := op.Get(t.Context(), want.Name); err != nil || got != admin.Record(want) {
				t.Errorf("Get(%q) = %+v, %v, want %+v", want.Name, got, err, want)
			}
		}
		if got, err := op.Get(t.Context(), "gone"); err == nil {
			t.Errorf("a removed record is back: %+v", got)
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if meta, err := os.ReadFile(filepath.Join(data, "meta")); err != nil || !strings.Contains(string(meta), `"format": 2`) {
			t.Errorf("the meta file is %s, %v; a version that knows no log would open it", meta, err)
		}
	}
}
