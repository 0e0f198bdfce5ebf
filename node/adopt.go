package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"hadal/cluster"
	"hadal/node/record"
	"hadal/store"
	"hadal/store/jetstream"
)

// This file is how the records of a node that ran alone, and what its logins keep, get
// into the cluster that it founds. The streams of a server alone cannot be seen by one in a cluster, so they are
// opened by a second server beside it, and each record is written anew by its owner. Nobody
// is let in on any node before all are there. A copy that is cut off begins anew: what
// is written twice is the same. Partitions move while nodes come, so a write that fails is
// tried again.

const (
	// adoptAtOnce is how many records are being written at the same time.
	adoptAtOnce = 1024
	// adoptTells is how often the log hears how far it is.
	adoptTells = 2 * time.Second
	// adoptPause is how long after a failure a record is written again.
	adoptPause = 200 * time.Millisecond
)

// adopt copies this node's own records into the cluster if they are to be its first ones,
// and returns when the cluster has all records that it begins with.
func (n *Node) adopt(ctx context.Context, dir *cluster.Dir, to *record.Room) error {
	if !n.place.Adopts() {
		n.setState("waiting for another node to copy the records that the cluster begins with")
		if err := n.place.AwaitRecords(ctx); err != nil {
			return fmt.Errorf("wait for the records that the cluster begins with: %w", err)
		}
		if dir.Belongs() == nil || !dir.HoldsAlone() {
			return nil
		}
		// A crash came between the end of the copy and this.
		aside, err := dir.SetAside()
		if err != nil {
			return fmt.Errorf("set the copied records aside: %w", err)
		}
		n.log.Info("the records of the time alone are in the cluster; their files can be removed", "dir", aside)
		return nil
	}
	n.setState("copying its records into the cluster")
	began := time.Now()
	count, logins, err := n.copyAll(ctx, dir, to)
	if err != nil {
		return fmt.Errorf("copy the records of %s into the cluster: %w", dir.Store(), err)
	}
	if err := n.place.RecordsComplete(ctx); err != nil {
		return fmt.Errorf("say that the records are complete: %w", err)
	}
	aside, err := dir.SetAside()
	if err != nil {
		return fmt.Errorf("set the copied records aside: %w", err)
	}
	n.log.Info("the records of the time alone are in the cluster; their files can be removed",
		"records", count, "logins", logins, "took", time.Since(began).Round(time.Millisecond), "dir", aside)
	return nil
}

// copyAll returns how many records there were, and entries of the store of logins.
func (n *Node) copyAll(ctx context.Context, dir *cluster.Dir, to *record.Room) (count int64, logins int, err error) {
	opts := *n.serverOptions()
	opts.Dir, opts.Store = dir, filepath.Base(dir.Store())
	server, err := cluster.Start(ctx, opts)
	if err != nil {
		return 0, 0, err
	}
	defer server.Close()
	if count, err = n.copyRecords(ctx, dir, server, to); err != nil {
		return count, 0, err
	}
	logins, err = n.copyLogins(ctx, server, n.stored().loginStore())
	return count, logins, err
}

// copyRecords returns how many there were.
func (n *Node) copyRecords(ctx context.Context, dir *cluster.Dir, server *cluster.Server, to *record.Room) (count int64, err error) {
	from, err := jetstream.OpenLogged(ctx, server.Conn(), jetstream.LogOptions{Options: jetstream.Options{
		MaxRecord: n.cfg.Records.MaxSize, Log: n.log,
	}, CheckpointAge: time.Hour})
	if err != nil {
		return 0, err
	}
	defer n.logError("close the records of the time alone", from.Close)
	if err := from.Fence(ctx, dir.Epoch()); err != nil {
		return 0, err
	}
	var done atomic.Int64
	writers, wctx := errgroup.WithContext(ctx)
	writers.SetLimit(adoptAtOnce)
	told := time.Now()
	var failing atomic.Pointer[error]
	err = from.Scan(wctx, "", func(rec store.Record) error {
		writers.Go(func() error {
			for {
				err := to.Restore(wctx, rec)
				switch {
				case err == nil:
					done.Add(1)
					return nil
				case errors.Is(err, record.ErrInvalid), wctx.Err() != nil:
					return err
				}
				failing.Store(&err)
				select {
				case <-time.After(adoptPause):
				case <-wctx.Done():
					return err
				}
			}
		})
		if now := time.Now(); now.Sub(told) >= adoptTells {
			told = now
			if err := failing.Swap(nil); err != nil {
				n.log.Warn("records that could not be copied into the cluster are tried again", "err", *err)
			}
			n.log.Info("copying records into the cluster", "done", done.Load())
		}
		return wctx.Err()
	})
	if failed := writers.Wait(); failed != nil { // and the scan, because of it
		return done.Load(), failed
	}
	return done.Load(), err
}
