package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Files of the raft directory.
const (
	raftFile     = "raft.db"   // log, term and vote
	snapshotsDir = "snapshots" // made by raft
)

// DefaultFailureTimeout is how long a node may be silent before it counts as dead.
const DefaultFailureTimeout = time.Second

// Parts of the FailureTimeout. An owner's lease must end well before anything is
// taken from it, with room for clocks that run at different speeds.
const (
	partHeartbeat = 0.5  // raft: without a leader for so long, a node stands for election
	partBeat      = 0.15 // raft: between two heartbeats, which raft itself would send twice as often
	partStepDown  = 0.35 // raft: without a majority for so long, a leader steps down
	partAnswer    = 0.3  // how long one message between nodes may take
	partLease     = 0.45 // how long an owner answers after it has asked the leader
	partRevoke    = 0.6  // after so long nobody has a lease from before any more
	partAsk       = 0.2  // after so long nodes ask, when no heartbeat has had them do it
	partTick      = 0.1  // how often the leader looks, and a node without one for it
	partCommit    = 0.5  // raft: how soon followers hear what is agreed on, if not told (tellCommit)
)

// ErrRemoved means that this node is not a member any more. It can come back with an
// empty data directory.
var ErrRemoved = errors.New("this node was removed from the cluster: to add it again, start it with an empty data directory")

// ErrCopied means that another process runs with this node's id.
var ErrCopied = errors.New("another process runs with this node's id, so one data directory is a copy of the other: stop one of them, and start it with an empty data directory")

// NotLeaderError means that only the leader can do it, and this node is not, or not
// yet, or no longer. Leader and Address say who is, or are empty while nobody is.
type NotLeaderError struct {
	Leader, Address string
}

// Error implements error.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "the cluster has no leader at the moment: try again, and see whether a majority of its core nodes is up"
	}
	return fmt.Sprintf("node %s leads the cluster", e.Leader)
}

// RaftOptions say what a Raft needs.
type RaftOptions struct {
	// Dir is where raft keeps its log, inside the data directory. It is made when it
	// is not there.
	Dir string
	// Self is this node, as the others are to know it. Its incarnation must be higher
	// than at its last start. Alive and Draining are not used.
	Self Peer
	// Returns says that Self has been a member: if the table does not know it any more, it
	// was removed, and is not taken in again.
	Returns bool
	// Stream carries what nodes say to each other; it is closed when Run ends. Its
	// other end must be a member: whoever can open a stream can join.
	Stream raft.StreamLayer
	// FailureTimeout is how long a node may be silent before it counts as dead, and all
	// other times are parts of it. It must be the same on all nodes. Default: 1 s.
	FailureTimeout time.Duration
	// Stabilise is how long a core node must have been in contact, or a voter dead,
	// before it becomes a voter, or is replaced as one. Default: ten FailureTimeouts.
	Stabilise time.Duration
	// Replicas is how many core nodes keep each partition; 0: as the number of core
	// nodes suggests. It must be the same on all nodes.
	Replicas int
	// Log gets what happens. It must not be nil.
	Log *slog.Logger
}

// Raft is the Table of a node in a cluster. The table is replicated by raft; every
// node answers from its own copy. What changes it goes through the leader, which also
// judges who is alive and plans who owns what.
//
// # The lease
//
// An owner may answer only while nobody else can have been made owner, though it may
// have been cut off, or have stood still, without knowing. So every node keeps asking the
// leader, right after each heartbeat of raft's, as the proof is young then and the process
// awake, and holds what it owns for 0.45 FailureTimeouts from when it asked (not from
// when it heard: an answer, or a heartbeat, may have lain in a buffer while the process
// was stopped). The leader answers only when it can prove that it still led at a
// moment no earlier than that, and shortens the lease otherwise (leaderProof).
//
// What is taken from a node is not held by another before either the node has said
// that it knows (it asks with the version of the table that it has), or 0.6
// FailureTimeouts have passed since it was last given a lease. The leader tells all
// nodes up to which version of the table this is so: the table is settled to there. A new
// leader, who knows nothing of the leases that its predecessor gave, waits as long.
type Raft struct {
	o     RaftOptions
	start time.Time // what now counts from
	parts struct{ lease, revoke, tick, answer int64 }

	view    atomic.Pointer[tableView]
	until   atomic.Int64  // the lease; by now
	settled atomic.Uint64 // every taking away up to this version is known or waited for
	stopped atomic.Bool   // this node holds nothing any more
	member  atomic.Bool   // it has been a member since it was started
	isUnfit atomic.Bool   // it cannot write: see SetFit
	beat    atomic.Bool   // a heartbeat of the leader's raft was heard, and not answered yet

	mu      sync.Mutex
	changed chan struct{} // guarded by mu

	formed   chan struct{} // closed when the table is there
	running  chan struct{} // closed when raft and the rest are
	removed  chan struct{} // closed when the leader says that this node has no place any more
	onceGone sync.Once
	why      error // ErrRemoved or ErrOldIncarnation; set before removed is closed

	applied chan struct{} // kicks: the table changed
	beaten  chan struct{} // a heartbeat of the leader's raft was answered
	led     chan struct{}

	// membership is held while it is decided, by the leader, whether a node is taken in or removed.
	membership sync.Mutex

	lead    leading
	streams *raftStreams // from here on set before running is closed
	store   *raftStore
	raft    *raft.Raft
	// transport is raft's, through which stand speaks to it too.
	transport *ackingTransport
	wg        sync.WaitGroup
}

var _ Table = (*Raft)(nil)

// tableView is the table as rooms ask for it. It never changes.
type tableView struct {
	*tableState
	owners []Ownership
}

// NewRaft returns the table of a node. It has nothing to say until the node has heard
// from a leader: see Formed.
func NewRaft(o RaftOptions) (*Raft, error) {
	o.FailureTimeout = defaultTo(o.FailureTimeout, DefaultFailureTimeout)
	o.Stabilise = defaultTo(o.Stabilise, 10*o.FailureTimeout)
	switch {
	case o.Self.ID == "" || o.Self.Name == "" || o.Self.Raft == "":
		return nil, errors.New("a node of a cluster needs an id, a name, and an address for raft")
	case len(o.Self.ID) > math.MaxUint8 || strings.Contains(o.Self.ID, "@"):
		return nil, fmt.Errorf("id %q of a node: it has at most %d bytes, and no @", o.Self.ID, math.MaxUint8)
	case o.Self.Role != RoleCore && o.Self.Role != RoleEdge:
		return nil, fmt.Errorf("a node of a cluster is %s or %s, not %q", RoleCore, RoleEdge, o.Self.Role)
	case o.FailureTimeout < 100*time.Millisecond:
		return nil, fmt.Errorf("failureTimeout: %v is less than 100ms, which takes a pause of the garbage collector for a failure", o.FailureTimeout)
	}
	r := &Raft{o: o, start: time.Now(), changed: make(chan struct{}), formed: make(chan struct{}), running: make(chan struct{}),
		removed: make(chan struct{}), applied: make(chan struct{}, 1), beaten: make(chan struct{}, 1), led: make(chan struct{}, 1)}
	r.parts.lease, r.parts.revoke = int64(r.part(partLease)), int64(r.part(partRevoke))
	r.parts.tick, r.parts.answer = int64(r.part(partTick)), int64(r.part(partAnswer))
	r.view.Store(newTableView((&tableState{}).clone(), o.Self.Member))
	return r, nil
}

func defaultTo(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (r *Raft) part(of float64) time.Duration { return time.Duration(of * float64(r.o.FailureTimeout)) }

// now is a clock that never goes back: nanoseconds since this Raft was made. It goes
// on while the process is stopped.
func (r *Raft) now() int64 { return int64(time.Since(r.start)) }

// newTableView is the table as one process sees it: what a node owned before it was
// started again is not its own until the table knows of the start.
func newTableView(s *tableState, self Member) *tableView {
	v := &tableView{tableState: s, owners: make([]Ownership, len(s.partitions))}
	known := s.members[self.ID].Incarnation == self.Incarnation
	for i, p := range s.partitions {
		if p.owner != "" {
			v.owners[i] = Ownership{Owner: p.owner, Epoch: p.epoch, Here: known && p.owner == self.ID}
		}
	}
	return v
}

// ClusterID implements Table: empty until Formed.
func (r *Raft) ClusterID() string { return r.view.Load().cluster }

// ClusterName is the name given when the cluster was formed.
func (r *Raft) ClusterName() string { return r.view.Load().name }

// Self implements Table.
func (r *Raft) Self() Member {
	if m, ok := r.view.Load().members[r.o.Self.ID]; ok {
		return m.Member
	}
	return r.o.Self.Member
}

// Members implements Table. They are in the order of their ids.
func (r *Raft) Members() []Member {
	var all []Member
	for _, m := range r.view.Load().sortedMembers() {
		all = append(all, m.Member)
	}
	return all
}

// Peers are the members with their addresses, in the order of their ids. The slice
// is the caller's.
func (r *Raft) Peers() []Peer {
	var all []Peer
	for _, m := range r.view.Load().sortedMembers() {
		all = append(all, m.Peer)
	}
	return all
}

// Partitions implements Table: 0 until Formed.
func (r *Raft) Partitions() int { return len(r.view.Load().owners) }

// Owner implements Table. A partition that does not exist has no owner.
func (r *Raft) Owner(partition int) Ownership {
	v := r.view.Load()
	if partition < 0 || partition >= len(v.owners) {
		return Ownership{}
	}
	return v.owners[partition]
}

// Replicas are the ids of the nodes that are to keep a partition. The slice must not
// be changed.
func (r *Raft) Replicas(partition int) []string {
	v := r.view.Load()
	if partition < 0 || partition >= len(v.partitions) {
		return nil
	}
	return v.partitions[partition].replicas
}

// Holds implements Table. It takes no lock.
func (r *Raft) Holds(partition int) bool {
	v := r.view.Load()
	return partition >= 0 && partition < len(v.owners) && v.owners[partition].Here &&
		v.partitions[partition].since <= r.settled.Load() && (r.now() < r.until.Load() || mutantLease) && !r.stopped.Load()
}

// Changed implements Table.
func (r *Raft) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Setting is the value of a setting that all nodes share, and its number, which rises
// by one with each change; 0 means that it was never set. The value must not be changed.
func (r *Raft) Setting(name string) (value []byte, number uint64) {
	s := r.view.Load().settings[name]
	return s.value, s.number
}

// Formed is closed when this node has a table: a leader has told it, or it leads itself,
// or there was a snapshot on disk, which may be old.
func (r *Raft) Formed() <-chan struct{} { return r.formed }

// Run takes part in the cluster until ctx ends; then it says goodbye, so that nobody
// has to wait for it. The error names what is wrong with the directory, or is
// ErrRemoved, ErrOldIncarnation, or what the StreamLayer said when it could not accept any more.
func (r *Raft) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := os.MkdirAll(r.o.Dir, 0o700); err != nil {
		return fmt.Errorf("raft directory %s cannot be made: %w", r.o.Dir, withCure(err))
	}
	r.store, err = openRaftStore(filepath.Join(r.o.Dir, raftFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.store.Close()) }()
	if r.store.cramped != nil {
		r.o.Log.Warn("raft's file has no room in reserve: free space on the volume, and start the node again", "err", r.store.cramped)
	}
	streams := newRaftStreams(r.o.Stream, r.o.Self.ID, r.o.Self.Raft, r.part(partAnswer))
	r.streams = streams
	streams.answered = func() {
		if r.beat.Swap(false) {
			kick(r.beaten)
		}
	}
	streams.serve[streamLease] = r.serveLease
	streams.serve[streamAsk] = r.serveAsk
	streams.refuse[streamAsk] = r.refuseAsk
	// The streams outlive ctx, for the goodbye.
	streaming, endStreams := context.WithCancel(context.WithoutCancel(ctx))
	defer r.wg.Wait()
	defer endStreams()
	if err := r.startRaft(cancel); err != nil {
		return err
	}
	r.wg.Go(func() {
		if err := streams.run(streaming); err != nil {
			cancel(fmt.Errorf("raft port: %w", err))
		}
	})
	close(r.running)
	var working sync.WaitGroup
	working.Go(func() { r.keepLease(ctx) })
	working.Go(func() { r.leadWhenElected(ctx) })
	select {
	case <-ctx.Done():
		err = context.Cause(ctx)
		if errors.Is(err, context.Canceled) {
			err = nil
		}
	case <-r.removed:
		err = r.why
	}
	r.stopped.Store(true)
	if r.raft.State() == raft.Leader {
		// Another may take over at once. When none can, the election will tell.
		if err := r.raft.LeadershipTransfer().Error(); err != nil {
			r.o.Log.Debug("leadership not handed over", "err", err)
		}
	}
	cancel(nil)
	working.Wait()
	if placed := !errors.Is(err, ErrRemoved) && !errors.Is(err, ErrOldIncarnation); placed && len(r.Members()) > 1 {
		if err := r.goodbye(); err != nil {
			r.o.Log.Debug("nobody to say goodbye to", "err", err)
		}
	}
	return errors.Join(err, r.raft.Shutdown().Error())
}

// startRaft starts raft on what is on disk. fail is told when it cannot go on.
func (r *Raft) startRaft(fail func(error)) error {
	log := newRaftLog(r.o.Log, &r.stopped)
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(r.o.Dir, 2, log)
	if err != nil {
		return fmt.Errorf("raft directory %s: %w", r.o.Dir, err)
	}
	transport := &ackingTransport{now: r.now, acked: r.acked, orders: make(chan raft.RPC),
		heard: func() { r.beat.Store(true) },
		every: int64(r.part(partBeat)), closed: r.streams.closed, sent: make(map[raft.ServerID]int64),
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: forRaft{r.streams}, MaxPool: 2, Timeout: r.part(partAnswer), Logger: log}),
	}
	r.transport = transport
	r.wg.Go(func() { transport.pass(r.streams.closed) })
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.o.Self.ID)
	c.HeartbeatTimeout, c.ElectionTimeout = r.part(partHeartbeat), r.part(partHeartbeat)
	c.LeaderLeaseTimeout = r.part(partStepDown)
	// The leader makes followers learn of a commit by itself (tellCommit), so this is not
	// what bounds that, and may be slow: an idle cluster should be idle.
	c.CommitTimeout = r.part(partCommit)
	c.SnapshotThreshold, c.TrailingLogs = 1024, 1024
	c.ShutdownOnRemove, c.NoLegacyTelemetry = false, true
	c.Logger = log
	r.raft, err = raft.NewRaft(c, (*raftFSM)(r), r.store, raftTerm{r.store, fail}, snapshots, transport)
	if err != nil {
		return errors.Join(fmt.Errorf("raft directory %s: %w", r.o.Dir, err), transport.Close())
	}
	return nil
}

// Bootstrap forms a new cluster of the peers given, this one among them. It must be
// called on each of them that is to vote, which are the first of the core nodes, with
// the same arguments; on others it does nothing. Epochs begin above the one given. On a
// node that has been in a cluster it is an error. Run must be running, or start soon.
func (r *Raft) Bootstrap(ctx context.Context, peers []Peer, clusterID, name string, partitions int, epoch uint64) error {
	select {
	case <-r.running:
	case <-ctx.Done():
		return ctx.Err()
	}
	voters, cores := []raft.Server(nil), 0
	for _, p := range peers {
		if p.Role == RoleCore {
			cores++
		}
	}
	changes := []change{{kind: changeForm, id: clusterID, name: name, number: uint64(partitions), epoch: epoch}}
	for _, p := range peers {
		p.Alive = false // until it is heard of
		changes = append(changes, joining(peerMember{Peer: p, speaks: commandVersion}))
		if p.Role == RoleCore && len(voters) < voterCount(cores) {
			voters = append(voters, raft.Server{ID: raft.ServerID(p.ID), Address: raftAddress(p.ID, p.Raft)})
		}
	}
	if _, err := (&tableState{}).apply(1, changes); err != nil {
		return fmt.Errorf("form a cluster: %w", err)
	}
	if !slices.ContainsFunc(voters, func(s raft.Server) bool { return s.ID == raft.ServerID(r.o.Self.ID) }) {
		return nil
	}
	// Whoever is elected proposes it, even after a crash.
	if err := r.store.Set(formationKey, encodeCommand(changes)); err != nil {
		return fmt.Errorf("form a cluster: %w", withCure(err))
	}
	if err := r.raft.BootstrapCluster(raft.Configuration{Servers: voters}).Error(); err != nil {
		return fmt.Errorf("form a cluster: %w", err)
	}
	return nil
}

var formationKey = []byte("formation")

// voterCount is how many of so many core nodes vote: an odd number, at most 5. An
// even one would bear no more losses than the odd one below it.
func voterCount(cores int) int {
	n := min(cores, 5)
	if n > 0 && n%2 == 0 {
		n--
	}
	return n
}

// raftFSM is the Raft as raft's state machine.
type raftFSM Raft

var _ raft.FSM = (*raftFSM)(nil)

// Apply implements raft.FSM. What it returns is the error of the command, or nil.
func (f *raftFSM) Apply(entry *raft.Log) any {
	r := (*Raft)(f)
	old := r.view.Load().tableState
	changes, err := decodeCommand(entry.Data)
	if err != nil {
		return err
	}
	next, err := old.apply(entry.Index, changes)
	if err != nil {
		return err
	}
	r.publish(old, next)
	return nil
}

// publish makes a table the one in force. The view comes first: who is told that this
// node knows the table must find it acting on it.
func (r *Raft) publish(old, next *tableState) {
	r.view.Store(newTableView(next, r.o.Self.Member))
	r.o.Log.Debug("table changed", "version", next.changed)
	r.lead.changedTable(r, old, next)
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if old.cluster == "" && next.cluster != "" {
		close(r.formed)
	}
	kick(r.applied)
	kick(r.led)
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Snapshot implements raft.FSM.
func (f *raftFSM) Snapshot() (raft.FSMSnapshot, error) {
	return tableSnapshot{(*Raft)(f).view.Load().tableState}, nil
}

// Restore implements raft.FSM.
func (f *raftFSM) Restore(snapshot io.ReadCloser) error {
	defer snapshot.Close()
	b, err := io.ReadAll(snapshot)
	if err != nil {
		return fmt.Errorf("snapshot of the table: %w", err)
	}
	next, err := decodeTable(b)
	if err != nil {
		return fmt.Errorf("snapshot of the table: %w", err)
	}
	r := (*Raft)(f)
	r.publish(r.view.Load().tableState, next)
	return nil
}

type tableSnapshot struct{ *tableState }

// Persist implements raft.FSMSnapshot.
func (s tableSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s.encode()); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (tableSnapshot) Release() {}
