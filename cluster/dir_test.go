package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func openDir(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatalf("OpenDir: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

func TestEveryStartRaisesTheEpochAndKeepsTheIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "data")
	var node, cluster string
	for i := range uint64(5) {
		d := openDir(t, path)
		if d.Epoch() != i+1 || d.Partitions() != 1 || d.Path() != path {
			t.Fatalf("start %d: epoch %d, %d partitions, path %s", i, d.Epoch(), d.Partitions(), d.Path())
		}
		if i > 0 && (d.NodeID() != node || d.ClusterID() != cluster) {
			t.Fatalf("start %d: node %s of %s, was %s of %s", i, d.NodeID(), d.ClusterID(), node, cluster)
		}
		node, cluster = d.NodeID(), d.ClusterID()
		if len(node) < 20 || len(cluster) < 20 || node == cluster {
			t.Fatalf("ids are %q and %q", node, cluster)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMetaFilesThatCannotBeServedAreRefused(t *testing.T) {
	good := `{"format":2,"clusterId":"c","nodeId":"n","partitions":1,"epoch":3}`
	tests := []struct{ name, content, want string }{
		{"a newer format", `{"format":4,"everything":["else"]}`, "written by a newer version of hadal (format 4, this version knows 3)"},
		{"no format", `{}`, "damaged: format 0"},
		{"empty", ``, "damaged"},
		{"torn", good[:30], "damaged"},
		{"no id", strings.Replace(good, `"n"`, `""`, 1), "an id is missing"},
		{"no partitions", strings.Replace(good, `"partitions":1`, `"partitions":0`, 1), "0 partitions"},
		{"too many partitions", strings.Replace(good, `"partitions":1`, `"partitions":4097`, 1), "4097 partitions"},
		{"no epoch", strings.Replace(good, `3`, `0`, 1), "epoch 0"},
		{"the last epoch", strings.Replace(good, `3`, `18446744073709551615`, 1), "epoch 18446744073709551615"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := t.TempDir()
			name := filepath.Join(path, metaFile)
			if err := os.WriteFile(name, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenDir(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("OpenDir = %v, want %q and the path", err, tt.want)
			}
			if b, err := os.ReadFile(name); err != nil || string(b) != tt.content {
				t.Errorf("the file is now %q, %v", b, err)
			}
			// The lock was given back.
			if err := os.WriteFile(name, []byte(good), 0o600); err != nil {
				t.Fatal(err)
			}
			if d := openDir(t, path); d.Epoch() != 4 {
				t.Errorf("epoch = %d, want 4", d.Epoch())
			}
		})
	}
}

func TestDataWithoutItsMetaFileIsRefused(t *testing.T) {
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, natsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(path); err == nil || !strings.Contains(err.Error(), "restore the whole directory") {
		t.Errorf("OpenDir = %v", err)
	}
}

func TestADirectoryThatCannotBeMadeIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := OpenDir(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenDir(%s) = %v, want an error with the path", path, err)
		}
	}
}

// holderEnv makes this test binary hold a data directory until it is killed.
const holderEnv = "HADAL_TEST_HOLD_DIR"

func TestMain(m *testing.M) {
	if path := os.Getenv(holderEnv); path != "" {
		d, err := OpenDir(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(d.Epoch())
		select {}
	}
	os.Exit(m.Run())
}

func TestADirectoryServesOneProcess(t *testing.T) {
	path := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Already dead, unless the test failed before.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "1\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	_, err = OpenDir(path)
	want := fmt.Sprintf("data directory %s is in use by process %d; stop it or choose another with --data-dir", path, cmd.Process.Pid)
	if !errors.Is(err, ErrInUse) || err.Error() != want {
		t.Fatalf("OpenDir = %v, want %s", err, want)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the killed process ended well")
	}
	d := openDir(t, path)
	if d.Epoch() != 2 {
		t.Errorf("epoch after the kill = %d, want 2", d.Epoch())
	}
	// The lock holds against this very process as well.
	if _, err := OpenDir(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second OpenDir = %v, want ErrInUse", err)
	}
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"format":1,"clusterId":"c","nodeId":"n","partitions":1,"epoch":3}`))
	f.Add([]byte(`{"format":3}`))
	f.Add([]byte(`{"format":1,"partitions":1e9}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err == nil && (m.Format < 1 || m.Format > dirFormat || m.NodeID == "" || m.ClusterID == "" || m.Partitions < 1 || m.Epoch == 0) {
			t.Errorf("%q was taken as %+v", b, m)
		}
	})
}

func TestADirectoryIsInspectedWithoutATrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if _, err := InspectDir(path); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("InspectDir of nothing = %v", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := InspectDir(path); err == nil || !strings.Contains(err.Error(), "is no data directory") {
		t.Errorf("InspectDir of an empty directory = %v", err)
	}
	d := openDir(t, path)
	if _, err := InspectDir(path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("InspectDir of a directory in use = %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	inspect := func() *Dir {
		t.Helper()
		d, err := InspectDir(path)
		if err != nil {
			t.Fatalf("InspectDir: %v", err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Errorf("Close: %v", err)
			}
		})
		return d
	}
	for range 2 {
		d := inspect()
		if d.Epoch() != 1 || d.Damage() != nil || d.Store() != filepath.Join(path, "nats") {
			t.Errorf("epoch %d, damage %v, store %s", d.Epoch(), d.Damage(), d.Store())
		}
		if _, err := OpenDir(path); !errors.Is(err, ErrInUse) {
			t.Errorf("OpenDir of an inspected directory = %v", err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// A copy without its lock, and damage.
	meta := filepath.Join(path, "meta")
	for _, err := range []error{os.Remove(filepath.Join(path, "lock")), os.Truncate(meta, 10), os.Mkdir(filepath.Join(path, "nats"), 0o700)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := inspect().Damage(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("Damage = %v", err)
	}
	if err := os.Remove(meta); err != nil {
		t.Fatal(err)
	}
	if err := inspect().Damage(); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("Damage = %v", err)
	}
	if names, err := os.ReadDir(path); err != nil || len(names) != 1 {
		t.Errorf("the directory holds %v, %v, want nats alone", names, err)
	}
}
