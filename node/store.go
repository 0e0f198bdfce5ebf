package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"hadal/cluster"
	"hadal/node/record"
	"hadal/store"
	"hadal/store/jetstream"
)

// messageRoom is what a message of the store holds beside names and JSON.
const messageRoom = 64 << 10

// leastMessage keeps what was written under a larger records.maxSize, up to about
// seven MiB, within what the store takes and reads.
const leastMessage = 8 << 20

// recordStore is the store that the configuration asks for, and what it stands on.
type recordStore struct {
	store.Store
	log    *jetstream.Logged // nil when records are kept in memory, like server
	server *cluster.Server
	close  func()
}

// ready says why nothing can be written, in words for anybody, or nil.
func (s *recordStore) ready() error {
	if s.server == nil {
		return nil
	}
	err := s.server.Ready()
	if err == nil {
		err = s.log.Room()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrDiskFull):
		return errors.New("the disk is full: record writes are refused until there is room (see the log)")
	default:
		return errors.New("the disk takes no writes: record writes are refused until it does (see the log)")
	}
}

// startGC is how far the heap may grow between two collections while a node starts
// (GOGC). What a start reads stays in memory, so collecting as often as usual finds
// nothing and takes a third of the time.
const startGC = 200

// relaxGC sets startGC, unless collections are rarer anyway, and returns how to
// set it back.
func relaxGC() (back func()) {
	usual := debug.SetGCPercent(startGC)
	if usual < 0 || usual >= startGC {
		debug.SetGCPercent(usual)
		return func() {}
	}
	return sync.OnceFunc(func() { debug.SetGCPercent(usual) })
}

// openStore makes the store.
func (n *Node) openStore(ctx context.Context, dir *cluster.Dir) (*recordStore, error) {
	keep := n.cfg.Records
	if keep.Store == "memory" {
		n.log.Warn("records are kept in memory only and are gone at exit", "key", "records.store")
		if err := n.place.Open(ctx, cluster.PlaceOptions{Name: n.cfg.ServerName, Dir: dir}); err != nil {
			return nil, err
		}
		st := store.NewMemory()
		return &recordStore{Store: st, close: func() {
			n.logError("close records", st.Close)
			n.place.Close()
		}}, nil
	}
	started := time.Now()
	always := keep.Sync == "always"
	mark, logMark := filepath.Join(dir.Path(), "mark-0"), filepath.Join(dir.Path(), "mark-log-0")
	if !always { // a power cut may take what the marks of an earlier run say is there
		for _, name := range []string{mark, logMark} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		mark, logMark = "", ""
	} else {
		// The server would cut the log off at what is damaged, and say nothing.
		if err := jetstream.CheckLog(ctx, jetstream.VerifyOptions{Dir: dir.Store(), LogMark: logMark, Epoch: dir.Epoch()}); err != nil {
			return nil, err
		}
	}
	err := n.place.Open(ctx, cluster.PlaceOptions{Name: n.cfg.ServerName, Dir: dir, Server: &cluster.Options{
		SyncAlways: always, SyncInterval: keep.SyncInterval,
		MaxMessage:  max(record.MaxBatch(keep.MaxSize, maxName)+messageRoom, leastMessage),
		DiskReserve: keep.DiskReserve, Log: n.log,
	}})
	if err != nil {
		return nil, err
	}
	server := n.place.Server()
	opts := jetstream.LogOptions{
		Options:  jetstream.Options{MaxRecord: keep.MaxSize, Room: server.Room, Log: n.log},
		LogBytes: keep.LogBytes, CheckpointBytes: keep.CheckpointBytes, CheckpointAge: keep.CheckpointAge,
		Failing: server.Suspect,
	}
	opts.Mark, opts.LogMark = mark, logMark
	if !always {
		opts.SyncDelay = 2 * keep.SyncInterval
	}
	if opts.StateConn, err = server.Dial("hadal state"); err != nil {
		n.place.Close()
		return nil, err
	}
	st, err := jetstream.OpenLogged(ctx, server.Conn(), opts)
	if err != nil {
		opts.StateConn.Close()
		n.place.Close()
		return nil, err
	}
	n.log.Info("records are open", "dir", dir.Path(), "epoch", dir.Epoch(), "took", time.Since(started).Round(time.Millisecond))
	return &recordStore{Store: st, log: st, server: server, close: func() {
		n.logError("close records", st.Close)
		opts.StateConn.Close()
		n.place.Close()
	}}, nil
}
