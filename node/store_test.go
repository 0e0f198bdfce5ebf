package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hadal/cluster"
	"hadal/store"
)

// What was written under a larger records.maxSize and stands in the LOG, as after a
// kill, is carried over under a smaller one.
func TestALowerMaxSizeDoesNotStopCheckpoints(t *testing.T) {
	data := t.TempDir()
	open := func(maxSize int) (st *partitionStore, end func()) {
		t.Helper()
		dir, err := cluster.OpenDir(data)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Default()
		cfg.Records.MaxSize, cfg.Records.CheckpointAge = maxSize, time.Hour
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		n := &Node{cfg: cfg, log: log, place: cluster.NewPlace(cfg.Cluster, log)}
		stores, err := n.openStores(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		st = stores.all()[0]
		if err := st.Fence(t.Context(), dir.Epoch()); err != nil {
			t.Fatal(err)
		}
		return st, func() {
			stores.shutDown()
			if err := dir.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	st, end := open(1 << 20)
	big := `"` + strings.Repeat("x", 1_000_000) + `"`
	if err := st.Append(t.Context(), []store.Op{{Record: store.Record{Name: "a", Version: 1, Data: big}}}); err != nil {
		t.Fatal(err)
	}
	end() // no checkpoint
	st, end = open(10_000)
	defer end()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := st.Checkpoint(ctx); err != nil {
		t.Errorf("Checkpoint under a smaller maxSize = %v", err)
	}
}

// The marks speak of what was synced. What is written without them may shrink.
func TestMarksDoNotOutliveAnIntervalRun(t *testing.T) {
	data := t.TempDir()
	run := func(sync string, appends int) error {
		dir, err := cluster.OpenDir(data)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cfg := Default()
		cfg.Records.Sync = sync
		n := &Node{cfg: cfg, log: slog.New(slog.DiscardHandler), place: cluster.NewPlace(cfg.Cluster, slog.New(slog.DiscardHandler))}
		stores, err := n.openStores(t.Context(), dir)
		if err != nil {
			return err
		}
		defer stores.shutDown()
		st := stores.all()[0]
		if err := st.Fence(t.Context(), dir.Epoch()); err != nil {
			return err
		}
		for i := range appends {
			if err := st.Append(t.Context(), []store.Op{{Record: store.Record{Name: "a", Version: int32(i), Data: `1`}}}); err != nil {
				return err
			}
		}
		return st.Checkpoint(t.Context())
	}
	if err := run("always", 20); err != nil {
		t.Fatal(err)
	}
	if err := run("interval", 1); err != nil {
		t.Fatal(err)
	}
	losePower(t, data)
	if err := run("interval", 1); err != nil {
		t.Fatal("interval after a power cut: ", err)
	}
	if err := run("always", 1); err != nil {
		t.Errorf("always after that: %v", err)
	}
}

// losePower leaves of the LOG what a power cut may leave: the blocks that a purge
// removed are gone, and the one after them was not synced.
func losePower(t *testing.T, data string) {
	t.Helper()
	msgs := filepath.Join(data, "nats", "jetstream", "$G", "streams", "HADAL_LOG_0", "msgs")
	files, err := os.ReadDir(msgs)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Remove(filepath.Join(msgs, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSizesThatTheStoreCannotTakeAreRefused(t *testing.T) {
	for _, tt := range []struct {
		maxSize  int
		logBytes int64
		key      string // "" means fine
	}{
		{1 << 20, 16 << 20, ""}, {31 << 20, 512 << 20, ""},
		{32 << 20, 512 << 20, "records.maxSize"}, {8 << 20, 16 << 20, "records.logBytes"},
	} {
		cfg := Default()
		cfg.Records.MaxSize, cfg.Records.LogBytes, cfg.Records.CheckpointBytes = tt.maxSize, tt.logBytes, 1<<20
		if err := cfg.Validate(); (err == nil) != (tt.key == "") || err != nil && !strings.Contains(err.Error(), tt.key) {
			t.Errorf("maxSize %d, logBytes %d: %v, want %q", tt.maxSize, tt.logBytes, err, tt.key)
		}
	}
}
