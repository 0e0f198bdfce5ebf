package jetstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"hadal/store"
	"hadal/store/storetest"
)

// snapshot is the files of a directory at a moment.
type dirSnapshot struct {
	at    time.Time
	files map[string][]byte
}

func takeDir(t testing.TB, dir string) dirSnapshot {
	t.Helper()
	s := dirSnapshot{at: time.Now(), files: make(map[string][]byte)}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // it went meanwhile
		}
		if b, err := os.ReadFile(name); err == nil {
			rel, _ := filepath.Rel(dir, name)
			s.files[rel] = b
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// With records.sync interval, a power cut may take what was written in the last
// SyncDelay, while the removal of a file is durable with the next sync of any file.
// The purge of a checkpoint must not run ahead of the floor that stands for it.
func TestAPowerCutAfterAPurgeInIntervalMode(t *testing.T) {
	for range 20 {
		if powerCutAfterAPurge(t) {
			return
		}
	}
	t.Error("this machine never looked at the files twice within an interval: the test shows nothing")
}

// powerCutAfterAPurge reports whether there was a power cut; there is none when the
// machine was too busy to know what the files held at the sync before.
func powerCutAfterAPurge(t *testing.T) bool {
	const delay = 400 * time.Millisecond
	r := newLogRig(t, false, LogOptions{LogBytes: 120_000, SyncDelay: delay}) // blocks of 32 kB
	l := r.store(t)
	l.state.Lock()
	l.opts.CheckpointBytes = 1 << 30 // not by itself
	l.state.Unlock()
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	big := `"` + strings.Repeat("x", 5000) + `"`
	for i := range int32(13) { // three blocks
		logAppend(t, l, storetest.Put(fmt.Sprintf("n%d", i), i, big))
	}
	first := block(r.dir, "HADAL_LOG_0", 1)
	if _, err := os.Stat(first); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	began := time.Now()
	all := []dirSnapshot{takeDir(t, r.dir)}
	go func() { done <- l.Checkpoint(context.Background()) }()
	late := false
	for len(done) == 0 {
		if _, err := os.Stat(first); err != nil {
			break
		}
		if all = append(all, takeDir(t, r.dir)); len(all) > 2 && time.Since(all[1].at) > delay {
			all = all[1:]
		}
		if !late && time.Since(began) > delay/8 {
			late = true
			logAppend(t, l, storetest.Put("late", 1, `1`))
		}
		time.Sleep(5 * time.Millisecond)
	}
	now := takeDir(t, r.dir) // the power goes: which files there are is as of now,
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first); err == nil {
		t.Fatal("the purge removed no block")
	}
	// and what they hold as of the last sync, half an interval before or a whole one.
	slices.Reverse(all)
	i := slices.IndexFunc(all, func(s dirSnapshot) bool { return now.at.Sub(s.at) >= delay/2 })
	if i < 0 || now.at.Sub(all[i].at) > delay {
		return false
	}
	old := all[i]
	dir := t.TempDir()
	for name := range now.files {
		b, ok := old.files[name]
		if !ok || filepath.Base(name) == "index.db" {
			continue
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.close(t)
	r.stop(t)
	r.dir = dir
	r.start(t)
	next := r.store(t)
	if err := next.Fence(t.Context(), 2); err != nil {
		t.Fatalf("Fence after the power cut = %v", err)
	}
	if _, err := next.Load(t.Context(), "late"); err != nil {
		t.Error(err)
	}
	for i := range int32(13) {
		if rec, err := next.Load(t.Context(), fmt.Sprintf("n%d", i)); err != nil || rec.Version != i {
			t.Errorf("n%d = version %d, %v", i, rec.Version, err)
		}
	}
	return true
}

// With records.sync interval the server's index may be on the disk and the end of
// the block that it was made of not. The server goes on behind what the index says.
func TestAnIndexAheadOfItsBlockInIntervalMode(t *testing.T) {
	r := newLogRig(t, false, LogOptions{})
	l := r.fenced(t, 1)
	logAppend(t, l, storetest.Put("a", 1, `1`))
	logAppend(t, l, storetest.Put("a", 2, `2`))
	r.close(t)
	r.stop(t) // writes the index, as a purge and a timer do
	b := block(r.dir, "HADAL_LOG_0", 1)
	edit(t, b, func(content []byte) []byte {
		items, err := (&blockReader{stream: "HADAL_LOG_0", prefix: []byte("hadal.l0.")}).read(content, 1)
		if err != nil {
			t.Fatal(err)
		}
		return content[:items[len(items)-1].off] // the last second
	})
	r.start(t)
	for epoch := uint64(2); epoch < 5; epoch++ {
		next := r.store(t)
		if err := next.Fence(t.Context(), epoch); err != nil {
			t.Fatalf("Fence after the power cut = %v", err)
		}
		holds(t, next, map[string]store.Record{"a": {Name: "a", Version: 1, Data: `1`}})
	}
	for next := r.open[len(r.open)-1]; next.Stats(t.Context()).Floor == 0; { // without being told to
		if t.Context().Err() != nil {
			t.Fatal("no checkpoint")
		}
	}
}

// A node whose records.logBytes was lowered finds more in the LOG than it may hold.
func TestALowerLimitOfTheLogDoesNotStopTheNode(t *testing.T) {
	r := newLogRig(t, false, LogOptions{LogBytes: 4 << 20})
	l := r.fenced(t, 1)
	big := `"` + strings.Repeat("x", 100_000) + `"`
	for i := range int32(20) {
		logAppend(t, l, storetest.Put(fmt.Sprintf("n%d", i), i, big))
	}
	r.close(t)
	r.opts.LogBytes = 1 << 20
	next := r.store(t)
	if err := next.Fence(t.Context(), 2); err != nil {
		t.Fatalf("Fence with a smaller LOG = %v", err)
	}
	checkpoint(t, next)
	logAppend(t, next, storetest.Put("z", 1, `1`))
}

// While STATE takes nothing, what is dirty is bounded in number as well as in bytes:
// a name in memory costs ten times what it costs in the LOG.
func TestDirtyNamesAreBounded(t *testing.T) {
	const limit = 1000
	r := newLogRig(t, false, LogOptions{CheckpointRecords: limit})
	l := r.store(t)
	flaky := &flakyState{stateStore: l.states}
	l.states = flaky
	if err := l.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	flaky.fail.Store(&broken)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 0
	for ; n < 300*store.MaxOps; n += store.MaxOps {
		ops := make([]store.Op, store.MaxOps)
		for i := range ops {
			ops[i] = storetest.Put(fmt.Sprintf("n%07d", n+i), 1, `{}`)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := l.Append(ctx, ops)
		cancel()
		if errors.Is(err, store.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	st := l.Stats(t.Context())
	t.Logf("%d names, %d bytes of the log wait, %d bytes of memory", st.Dirty, st.Pending, after.HeapAlloc-before.HeapAlloc)
	if st.Dirty > 100*limit {
		t.Errorf("%d names are dirty, a checkpoint is due at %d", st.Dirty, limit)
	}
}
