package cluster

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheReserveFollowsTheVolume(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct{ reserve, total, want int64 }{
		{0, 64 * mib, 32 * mib},
		{0, 1024 * mib, 128 * mib},
		{0, 2048 * mib, 256 * mib},
		{0, 1 << 50, 256 * mib},
		{5 * mib, 1 << 50, 5 * mib},
	} {
		d := disk{reserve: tt.reserve}
		if got := d.kept(tt.total); got != tt.want {
			t.Errorf("of %d bytes %d are kept free, want %d", tt.total, got, tt.want)
		}
	}
}

func TestRoomIsWhatIsFreeAboveTheReserve(t *testing.T) {
	dir := t.TempDir()
	s, err := look(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := disk{dir: dir, reserve: s.free / 2}
	if err := d.room(s.free / 4); err != nil {
		t.Errorf("room for a quarter = %v", err)
	}
	err = d.room(s.free * 3 / 4)
	if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "records.diskReserve") {
		t.Errorf("room for three quarters = %v, want ErrDiskFull with the directory and the key", err)
	}
	d.dir = filepath.Join(dir, "gone")
	if err := d.room(0); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), d.dir) {
		t.Errorf("room of no directory = %v", err)
	}
}

func TestRoomIsAskedOfARunningServer(t *testing.T) {
	s := startServer(t, openDir(t, t.TempDir()), Options{DiskReserve: 1})
	if err := errors.Join(s.Room(1), s.Ready()); err != nil {
		t.Errorf("Room and Ready = %v", err)
	}
	if err := s.Room(1 << 60); !errors.Is(err, ErrDiskFull) {
		t.Errorf("Room for an exbibyte = %v, want ErrDiskFull", err)
	}
	// One append that is too large is no trouble of the disk.
	if err := s.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
}

func TestSettleWritesTheBlocksAnewThatMayNotBeSynced(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	content := func(name string) string { return "content of " + name }
	// With the time since their last write.
	files := map[string]time.Duration{
		"a/msgs/9.blk":     20 * time.Second, // not the highest number
		"a/msgs/10.blk":    10 * time.Second,
		"a/msgs/2.blk":     0, // compacted just now
		"a/msgs/index.db":  0,
		"a/msgs/3.blk.tmp": 0,
		"b/msgs/1.blk":     time.Hour,
		"b/msgs/0.blk":     2 * time.Hour,
		".settle-1":        0,
		".probe-2":         0,
	}
	before := make(map[string]os.FileInfo)
	for name, age := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content(name)), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = info
	}
	if err := settle(dir, time.Second); err != nil {
		t.Fatal(err)
	}
	var written []string
	for name, old := range before {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if strings.HasPrefix(name, ".") {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(info, old) {
			written = append(written, name)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != content(name) || info.Mode() != old.Mode() {
			t.Errorf("%s is %q, %v, %v, was %v", name, b, err, info.Mode(), old.Mode())
		}
	}
	slices.Sort(written)
	if want := []string{"a/msgs/10.blk", "a/msgs/2.blk", "b/msgs/1.blk"}; !slices.Equal(written, want) {
		t.Errorf("%v were written anew, want %v", written, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the directory holds %v, %v, want a and b", entries, err)
	}
}

func BenchmarkRoom(b *testing.B) {
	s := Server{disk: disk{dir: b.TempDir(), reserve: 1}}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Room(1); err != nil {
			b.Fatal(err)
		}
	}
}
