package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hadal/cluster"
	"hadal/store"
	"hadal/store/jetstream"
)

// storeNames are the stores that can be measured: LOG and STATE as in a node; the
// same without a checkpoint, to see what that costs; STATE alone; memory.
func storeNames() []string { return []string{"log", "log-only", "state", "memory"} }

// rig is a store on a data directory of its own.
type rig struct {
	dir        string // "" when it keeps nothing
	store      store.Store
	checkpoint func(context.Context) error // nil when there is none
	stats      func(context.Context) (stats, error)
	closers    []func() error
	fenced     time.Duration // how long the fence took
}

// stats is what is looked at while the load runs.
type stats struct {
	Bytes, Appends, Checkpoints uint64
	Dirty                       int
}

// openRig makes a store, fenced and ready.
func openRig(ctx context.Context, s settings, kind string) (*rig, error) {
	if kind == "memory" {
		m := store.NewMemory()
		r := &rig{store: m, closers: []func() error{m.Close}}
		r.stats = func(context.Context) (stats, error) { return stats{}, nil }
		return r, m.Fence(ctx, 1)
	}
	dir, err := os.MkdirTemp(s.dir, "hadal-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir}
	r.closers = append(r.closers, func() error { return os.RemoveAll(dir) })
	if err := r.open(ctx, s, kind); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// open opens the store in r.dir as a node does.
func (r *rig) open(ctx context.Context, s settings, kind string) error {
	dir, err := cluster.OpenDir(r.dir)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, dir.Close)
	server, err := cluster.Start(ctx, cluster.Options{Dir: dir, SyncAlways: s.sync == "always"})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() error { server.Close(); return nil })
	opts := jetstream.LogOptions{CheckpointAge: s.checkpointAge}
	if s.sync == "always" {
		opts.Mark, opts.LogMark = filepath.Join(r.dir, "mark-0"), filepath.Join(r.dir, "mark-log-0")
	}
	if kind == "log-only" {
		// Never due, and never so much that an append waits for it.
		opts.CheckpointAge, opts.CheckpointRecords, opts.LogBytes = 24*time.Hour, 1<<30, 64<<30
		opts.CheckpointRate = 1 << 30 // when asked for one
		opts.CheckpointBytes = opts.LogBytes / 4
	}
	switch kind {
	case "state":
		st, err := jetstream.Open(ctx, server.Conn(), opts.Options)
		if err != nil {
			return err
		}
		r.store = st
		r.stats = func(ctx context.Context) (stats, error) { return stats{Appends: st.Stats(ctx).Appends}, ctx.Err() }
	default:
		st, err := jetstream.OpenLogged(ctx, server.Conn(), opts)
		if err != nil {
			return err
		}
		r.store = st
		r.checkpoint = st.Checkpoint
		r.stats = func(ctx context.Context) (stats, error) {
			now := st.Stats(ctx)
			if now.CheckpointFailures > 0 {
				return stats{}, fmt.Errorf("%d checkpoints failed", now.CheckpointFailures)
			}
			return stats{Bytes: now.Bytes, Appends: now.Appends, Checkpoints: now.Checkpoints, Dirty: now.Dirty}, ctx.Err()
		}
	}
	r.closers = append(r.closers, r.store.Close)
	began := time.Now()
	err = r.store.Fence(ctx, dir.Epoch())
	r.fenced = time.Since(began)
	return err
}

// close undoes open, last first.
func (r *rig) close() error {
	var errs []error
	for i := len(r.closers) - 1; i >= 0; i-- {
		errs = append(errs, r.closers[i]())
	}
	return errors.Join(errs...)
}
