package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// What the package says of a full disk in a cluster: the server with it stops JetStream,
// the others go on, and it comes back by itself when there is room.
func TestAServerOfAClusterWhoseDiskIsFullComesBack(t *testing.T) {
	v := newVolume(t, 128)
	f := &fleet{net: newNetwork(t), routes: freePorts(t, 3), members: make([]*Server, 3)}
	f.start(t, 0, t.TempDir())
	f.start(t, 1, t.TempDir())
	full := f.start(t, 2, filepath.Join(v.path, "data"))
	f.await(t, 3)
	js := f.stream(t, f.members[0])
	retry(t, "it is ready", full.Ready)
	supervise(t, full)
	free := v.fill(1 << 20)
	store := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "s.x", make([]byte, 256<<10))
		return err
	}
	retry(t, "the server on the full disk stops JetStream", func() error {
		if err := store(); err != nil {
			t.Logf("while it stops: %v", err) // a leader may change
		}
		if full.server().JetStreamEnabled() {
			return errors.New("not yet")
		}
		return nil
	})
	retry(t, "it says why it waits", func() error {
		if err := full.Ready(); !errors.Is(err, ErrDiskFull) {
			return fmt.Errorf("Ready = %v", err)
		}
		return nil
	})
	for range 10 {
		retry(t, "the others store", store)
	}
	if n := full.Stats().Restarts; n != 0 {
		t.Errorf("it restarted %d times on a full disk", n)
	}
	free()
	retry(t, "it is restarted and has everything", restarts(full, 1))
	retry(t, "all replicas are current", func() error {
		stream, err := js.Stream(t.Context(), "S")
		if err != nil {
			return err
		}
		for _, r := range stream.CachedInfo().Cluster.Replicas {
			if !r.Current {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
}
