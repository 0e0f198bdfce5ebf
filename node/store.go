package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

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

// recordStores are the stores of the partitions that this node owns, and what they
// stand on.
type recordStores struct {
	node   *Node
	dir    *cluster.Dir
	server *cluster.Server // nil when records are kept in memory
	// first is the one partition of a node that runs alone: opened before anybody needs it,
	// so that what is wrong with it ends the start.
	first store.Store

	mu   sync.Mutex
	open map[*partitionStore]struct{} // guarded by mu
	// logins is what logins keep, nil before it is open. Guarded by mu.
	logins *loginStore
}

// partitionStore is the store of one partition, with its connections.
type partitionStore struct {
	*jetstream.Logged
	of        *recordStores
	partition int
	replicas  replicaNeed
	conns     []*nats.Conn
	close     func() error // once
}

// Close closes the connections too.
func (s *partitionStore) Close() error { return s.close() }

// keptOpen is a store that somebody else closes.
type keptOpen struct{ store.Store }

// Close does nothing.
func (keptOpen) Close() error { return nil }

// Lacks implements store.Knower as far as the store does.
func (s keptOpen) Lacks(name string) bool {
	k, ok := s.Store.(store.Knower)
	return ok && k.Lacks(name)
}

// Open opens the store of a partition that this node owns. The record room closes it.
func (s *recordStores) Open(ctx context.Context, partition int) (store.Store, error) {
	if s.first != nil {
		return keptOpen{s.first}, nil
	}
	return s.openPartition(ctx, partition)
}

// all are the stores that are open.
func (s *recordStores) all() []*partitionStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*partitionStore, 0, len(s.open))
	for st := range s.open {
		list = append(list, st)
	}
	return list
}

// ready says why nothing can be written, in words for anybody, or nil.
func (s *recordStores) ready() error {
	if s.server == nil {
		return nil
	}
	err := s.server.Ready()
	for _, st := range s.all() {
		if err == nil {
			err = st.Room()
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrDiskFull), errors.Is(err, store.ErrFull):
		return errors.New("the disk is full: record writes are refused until there is room (see the log)")
	case s.dir.Belongs() != nil && s.server.Stats().TroubledSince.IsZero(): // it is not the disk
		return errors.New("this node's copies of the records lag behind, or too few nodes see each other: see hadal cluster status")
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

// openStores opens the node's place in the cluster, and prepares its stores.
func (n *Node) openStores(ctx context.Context, dir *cluster.Dir) (*recordStores, error) {
	s := &recordStores{node: n, dir: dir, open: make(map[*partitionStore]struct{})}
	opts := cluster.PlaceOptions{Name: n.cfg.ServerName, Dir: dir, Describe: n.describeBytes}
	if n.cfg.Records.Store == "memory" {
		n.log.Warn("records are kept in memory only and are gone at exit", "key", "records.store")
		if err := n.place.Open(ctx, opts); err != nil {
			return nil, err
		}
		s.first = store.NewMemory()
		return s, nil
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	opts.Server = n.serverOptions()
	if err := n.place.Open(ctx, opts); err != nil {
		return nil, err
	}
	s.server = n.place.Server()
	if dir.Belongs() != nil { // the partitions come and go
		return s, nil
	}
	st, err := s.openPartition(ctx, 0)
	if err != nil {
		n.place.Close()
		return nil, err
	}
	s.first = st
	return s, nil
}

// serverOptions are those of the embedded server.
func (n *Node) serverOptions() *cluster.Options {
	keep := n.cfg.Records
	return &cluster.Options{
		SyncAlways: keep.Sync == "always", SyncInterval: keep.SyncInterval,
		MaxMessage:  max(record.MaxBatch(keep.MaxSize, maxName)+messageRoom, leastMessage),
		DiskReserve: keep.DiskReserve, Partition: jetstream.PartitionOf, Log: n.log,
	}
}

// shutDown closes what is open; the record room has ended.
func (s *recordStores) shutDown() {
	if l := s.loginStore(); l != nil {
		l.close()
	}
	if s.first != nil {
		s.node.logError("close records", s.first.Close)
	}
	for _, st := range s.all() {
		s.node.logError("close records", st.Close)
	}
	s.node.place.Close()
}

// marks are the files of a partition that say how far its streams were acknowledged.
func (s *recordStores) marks(partition int) (mark, logMark string) {
	n := strconv.Itoa(partition)
	if s.dir.Belongs() != nil { // those of a time alone speak of other streams
		n = "cluster-" + n
	}
	return filepath.Join(s.dir.Path(), "mark-"+n), filepath.Join(s.dir.Path(), "mark-log-"+n)
}

// check reads the log of a node that runs alone before the server does.
func (s *recordStores) check(ctx context.Context) error {
	if s.node.cfg.Cluster.Enabled() || s.dir.Belongs() != nil {
		return nil // others have copies
	}
	mark, logMark := s.marks(0)
	if s.node.cfg.Records.Sync != "always" { // a power cut may take what the marks of an earlier run say is there
		for _, name := range []string{mark, logMark} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	// The server would cut the log off at what is damaged, and say nothing.
	return jetstream.CheckLog(ctx, jetstream.VerifyOptions{Dir: s.dir.Store(), LogMark: logMark, Epoch: s.dir.Epoch()})
}

// openPartition opens a store on the embedded server. With an error it is nil, also as
// the interface, by which the record room knows that there is none.
func (s *recordStores) openPartition(ctx context.Context, partition int) (_ store.Store, err error) {
	n, keep, started := s.node, s.node.cfg.Records, time.Now()
	st := &partitionStore{of: s, partition: partition}
	defer func() {
		if err != nil {
			st.hangUp()
		}
	}()
	dial := func(what string) (*nats.Conn, error) {
		nc, err := s.server.Dial("hadal " + what + " " + strconv.Itoa(partition))
		if err == nil {
			st.conns = append(st.conns, nc)
		}
		return nc, err
	}
	logConn, err := dial("log")
	if err != nil {
		return nil, err
	}
	stateConn, err := dial("state") // or appends would stand behind a checkpoint's batches
	if err != nil {
		return nil, err
	}
	replicas := n.place.Replicas(partition)
	opts := jetstream.LogOptions{
		Options: jetstream.Options{
			Partition: partition, Replicas: replicas, MaxRecord: keep.MaxSize, Room: s.server.Room, Log: n.log,
		},
		StateConn: stateConn, Leader: n.place.Self().ID, Current: s.server.StreamCurrent,
		LogBytes: keep.LogBytes, CheckpointBytes: keep.CheckpointBytes, CheckpointAge: keep.CheckpointAge,
		Failing: s.server.Suspect,
	}
	if keep.Sync == "always" {
		opts.Mark, opts.LogMark = s.marks(partition)
	} else {
		opts.SyncDelay, opts.AllowHoles = 2*keep.SyncInterval, true
	}
	if st.Logged, err = jetstream.OpenLogged(ctx, logConn, opts); err != nil {
		return nil, err
	}
	st.close = sync.OnceValue(func() error {
		s.mu.Lock()
		delete(s.open, st)
		s.mu.Unlock()
		err := st.Logged.Close()
		st.hangUp()
		return err
	})
	s.mu.Lock()
	s.open[st] = struct{}{}
	s.mu.Unlock()
	n.log.Info("records are open", "dir", s.dir.Path(), "partition", partition, "replicas", replicas, "took", time.Since(started).Round(time.Millisecond))
	return st, nil
}

func (s *partitionStore) hangUp() {
	for _, nc := range s.conns {
		nc.Close()
	}
}
