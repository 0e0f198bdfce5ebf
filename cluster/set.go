package cluster

import (
	"context"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// setShards is the number of parts of each table of a Set; a power of two.
	setShards = 32
	// setPause is how long a Set that has sent changes gathers others. A single change
	// does not wait.
	setPause = 2 * time.Millisecond
	// setBurst is after how many parts of a snapshot (4 MiB) there is a burstPause: 80 MiB
	// a second.
	setBurst   = 64
	burstPause = 50 * time.Millisecond
	// settleTime is what Settle says of a set with others. Links that are well take a
	// hundredth of it.
	settleTime = 100 * time.Millisecond
)

// Set is a replicated set of names: every node adds and removes its own, and every
// node knows which other nodes have which name.
//
// # How it is kept
//
// When a link to a peer comes up, all own names go over it as a snapshot, in parts,
// and what changes afterwards as deltas. Very many names go out in bursts, so as not to
// fill what a link may have waiting. Both are made by Run alone, so a delta never
// overtakes the snapshot it follows. A delta says what is true of a name when it is
// written, not what happened to it: a name that is removed and added again in between
// has not changed.
//
// What a peer has is kept when its link goes down, since that says nothing about the
// peer; the snapshot of the next link replaces it, and only the differences are
// announced: a peer that was away and has the same names as before causes no call at
// all. A peer's names count only while the Table says that it is alive. They are
// kept, but do not count, while it is linked without being so; they are forgotten
// when it is neither. A node in a minority that is cut off sees no change of the
// Table, so there everything stays.
//
// # Locks
//
// Each peer has a turn, held while what it sends is taken in and while the Table's
// verdict on it is carried out, over the calls of changed too: that is what puts them
// in order. No method for rooms takes it. The other locks are held for a few map
// accesses, and none while changed or the Bus is called: ownShard.mu, Set.mu and
// indexShard.mu are never held together.
type Set struct {
	bus     Bus
	table   Table
	kind    Kind
	changed func(peer, name string, has bool)
	seed    maphash.Seed
	wake    chan struct{} // says to Run that there is something to send

	own    [setShards]ownShard
	index  [setShards]indexShard
	links  atomic.Int32 // peers that are linked
	others atomic.Bool  // the Table has other members

	mu    sync.Mutex
	peers map[string]*peerNames // linked or alive or both; guarded by mu
	alive map[string]bool       // the Table's verdict as carried out last; guarded by mu

	invalid, sent, heard atomic.Uint64
}

// ownShard is a part of this node's own names.
type ownShard struct {
	mu    sync.Mutex
	names map[string]struct{} // guarded by mu
	dirty map[string]struct{} // names that peers have to be told about; guarded by mu
	_     [40]byte            // keeps neighbours out of one cache line
}

// indexShard is a part of the names of all peers.
type indexShard struct {
	mu    sync.RWMutex
	names map[string]holders // guarded by mu
	_     [32]byte
}

// holders are the peers that have a name, in nearly every case one.
type holders struct {
	one  *peerNames
	more []*peerNames
}

// peerNames is what this node knows of one peer's names.
type peerNames struct {
	id    string
	alive atomic.Bool // written under turn
	whole atomic.Bool // a snapshot has come to its end; written under turn

	linked, fresh bool // fresh needs a snapshot; guarded by Set.mu

	turn    sync.Mutex
	names   map[string]uint32 // name → the snapshot that it was last in; guarded by turn
	filling bool              // a snapshot has begun and not ended; guarded by turn
	synced  bool              // a snapshot has begun on this link; guarded by turn
	number  uint32            // of the snapshot; guarded by turn
}

// SetStats are gauges and counters of a Set.
type SetStats struct {
	// Own is how many names this node has, Others how many pairs of peer and name are
	// known, those that do not count included.
	Own, Others int
	// Sent and Heard count messages to and from peers, Invalid those that could not be
	// understood and were ignored.
	Sent, Heard, Invalid uint64
}

// NewSet returns an empty set, one for each kind of a Bus that does not run yet.
// changed, which may be nil, is called whenever a peer that is alive gains or loses a
// name, a peer that becomes alive gains those that it has, and one that dies loses
// them all. The calls for one peer come one after the other, and has alternates for
// each of its names, beginning with true; those for different peers may come at the
// same time. changed may call the set; it must not block.
func NewSet(bus Bus, table Table, kind Kind, changed func(peer, name string, has bool)) *Set {
	if changed == nil {
		changed = func(string, string, bool) {}
	}
	s := &Set{
		bus: bus, table: table, kind: kind, changed: changed, seed: maphash.MakeSeed(),
		wake: make(chan struct{}, 1), peers: make(map[string]*peerNames), alive: make(map[string]bool),
	}
	for i := range setShards {
		s.own[i].names = make(map[string]struct{})
		s.index[i].names = make(map[string]holders)
	}
	bus.Handle(kind, setHandler{s})
	return s
}

func (s *Set) shard(name string) uint64 { return maphash.String(s.seed, name) % setShards }

// Add puts a name into the set as one of this node's. It has no effect when it is in it
// already. It never blocks, and may be called from anywhere, under a lock too, as may
// all methods but Run. The name is copied when it is kept.
func (s *Set) Add(name string) {
	o := &s.own[s.shard(name)]
	tell := false
	o.mu.Lock()
	if _, has := o.names[name]; !has {
		name = strings.Clone(name)
		o.names[name] = struct{}{}
		tell = s.mark(o, name)
	}
	o.mu.Unlock()
	if tell {
		s.poke()
	}
}

// Remove takes a name of this node out of the set. It has no effect when it is not in it.
func (s *Set) Remove(name string) {
	o := &s.own[s.shard(name)]
	tell := false
	o.mu.Lock()
	if _, has := o.names[name]; has {
		delete(o.names, name)
		tell = s.mark(o, name)
	}
	o.mu.Unlock()
	if tell {
		s.poke()
	}
}

// mark notes a name that peers have to be told about, if there are any: one that is
// linked afterwards gets a snapshot. The caller holds o.mu.
func (s *Set) mark(o *ownShard, name string) bool {
	if s.links.Load() == 0 {
		return false
	}
	if o.dirty == nil {
		o.dirty = make(map[string]struct{})
	}
	if _, marked := o.dirty[name]; !marked {
		o.dirty[strings.Clone(name)] = struct{}{}
	}
	return true
}

func (s *Set) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Has says whether any live node, this one included, has the name.
func (s *Set) Has(name string) bool {
	o := &s.own[s.shard(name)]
	o.mu.Lock()
	_, ok := o.names[name]
	o.mu.Unlock()
	return ok || s.Elsewhere(name)
}

// Elsewhere says whether any other live node has the name.
func (s *Set) Elsewhere(name string) bool {
	for range s.holding(name) {
		return true
	}
	return false
}

// Peers are the other live nodes that have the name, in no order. The slice is the
// caller's.
func (s *Set) Peers(name string) []string {
	var ids []string
	for p := range s.holding(name) {
		ids = append(ids, p.id)
	}
	return ids
}

// holding calls yield with the live peers that have the name, until it is false.
func (s *Set) holding(name string) func(yield func(*peerNames) bool) {
	return func(yield func(*peerNames) bool) {
		x := &s.index[s.shard(name)]
		x.mu.RLock()
		defer x.mu.RUnlock()
		h, ok := x.names[name]
		if !ok || h.one.alive.Load() && !yield(h.one) {
			return
		}
		for _, p := range h.more {
			if p.alive.Load() && !yield(p) {
				return
			}
		}
	}
}

// Settle is how long it should take at most until what another node has done to its
// names is known here, as long as links are well: two changes on two nodes, one after
// the other, may be heard of the other way round within that time. It is 0 when there
// is no other node.
func (s *Set) Settle() time.Duration {
	if s.others.Load() {
		return settleTime
	}
	return 0
}

// Missing are the live nodes whose names are not known here yet, since no snapshot of
// theirs has come to its end. What a set says of other nodes is not complete before
// there is none.
func (s *Set) Missing() []string {
	self := s.table.Self().ID
	var missing []string
	for _, m := range s.table.Members() {
		if !m.Alive || m.ID == self {
			continue
		}
		s.mu.Lock()
		p := s.peers[m.ID]
		s.mu.Unlock()
		if p == nil || !p.whole.Load() {
			missing = append(missing, m.ID)
		}
	}
	return missing
}

// Stats returns the numbers of this moment.
func (s *Set) Stats() SetStats {
	st := SetStats{Sent: s.sent.Load(), Heard: s.heard.Load(), Invalid: s.invalid.Load()}
	for i := range setShards {
		o, x := &s.own[i], &s.index[i]
		o.mu.Lock()
		st.Own += len(o.names)
		o.mu.Unlock()
		x.mu.RLock()
		for _, h := range x.names {
			st.Others += 1 + len(h.more)
		}
		x.mu.RUnlock()
	}
	return st
}

// Run tells peers of this node's names and follows the Table, until ctx ends. It is
// called once. Before it runs no peer counts as alive.
func (s *Set) Run(ctx context.Context) error {
	pause := time.NewTimer(setPause)
	defer pause.Stop()
	for {
		change := s.table.Changed() // before the table is asked
		s.judge()
		for changed := false; !changed; {
			select {
			case <-ctx.Done():
				return nil
			case <-change:
				changed = true
			case <-s.wake:
				s.flush(ctx)
				pause.Reset(setPause)
				select {
				case <-ctx.Done():
					return nil
				case <-pause.C:
				}
			}
		}
	}
}

// judge carries out what the Table says of who is alive.
func (s *Set) judge() {
	alive := make(map[string]bool)
	self := s.table.Self().ID
	others := false
	for _, m := range s.table.Members() {
		if m.ID == self {
			continue
		}
		others = true
		if m.Alive {
			alive[m.ID] = true
		}
	}
	s.others.Store(others)
	s.mu.Lock()
	s.alive = alive
	var differ []*peerNames
	for id, p := range s.peers {
		if p.alive.Load() != alive[id] {
			differ = append(differ, p)
		}
	}
	s.mu.Unlock()
	for _, p := range differ {
		p.turn.Lock()
		p.alive.Store(alive[p.id])
		for name := range p.names {
			s.changed(p.id, name, alive[p.id])
		}
		s.forgetIfGone(p)
		p.turn.Unlock()
	}
}

// forgetIfGone drops a peer that is neither alive nor linked. The caller holds its turn.
func (s *Set) forgetIfGone(p *peerNames) {
	s.mu.Lock()
	gone := !p.linked && !p.alive.Load()
	if gone && s.peers[p.id] == p {
		delete(s.peers, p.id)
	}
	s.mu.Unlock()
	if !gone {
		return
	}
	for name := range p.names {
		s.unindex(p, name)
	}
	p.names = nil
}

// gain notes that the peer has a name, in snapshot p.number or later. The caller holds
// its turn.
func (s *Set) gain(p *peerNames, name []byte) {
	if number, has := p.names[string(name)]; has {
		if number != p.number {
			p.names[string(name)] = p.number
		}
		return
	}
	if p.names == nil {
		p.names = make(map[string]uint32)
	}
	kept := string(name)
	p.names[kept] = p.number
	x := &s.index[s.shard(kept)]
	x.mu.Lock()
	h, ok := x.names[kept]
	if ok {
		h.more = append(h.more, p)
	} else {
		h.one = p
	}
	x.names[kept] = h
	x.mu.Unlock()
	if p.alive.Load() {
		s.changed(p.id, kept, true)
	}
}

// lose notes that the peer has a name no more. The caller holds its turn.
func (s *Set) lose(p *peerNames, name string) {
	if _, has := p.names[name]; !has {
		return
	}
	delete(p.names, name)
	s.unindex(p, name)
	if p.alive.Load() {
		s.changed(p.id, name, false)
	}
}

func (s *Set) unindex(p *peerNames, name string) {
	x := &s.index[s.shard(name)]
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.names[name]
	end := len(h.more) - 1
	if h.one == p {
		if end < 0 {
			delete(x.names, name)
			return
		}
		h.one = h.more[end]
	} else {
		h.more[slices.Index(h.more, p)] = h.more[end]
	}
	h.more[end] = nil
	h.more = h.more[:end]
	if end == 0 {
		h.more = nil
	}
	x.names[name] = h
}
