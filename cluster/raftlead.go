package cluster

import (
	"encoding/binary"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// leading is what a leader keeps in mind about the other nodes: when it gave them a
// lease, and what they have still to learn. It is empty on the others.
type leading struct {
	mu sync.Mutex // guards all below; nothing is called under it but raft, and never with view's lock

	term    uint64        // 0: this node does not lead
	over    chan struct{} // closed when it leads no more; nil while term is 0
	since   int64         // when it began, by Raft.now
	first   uint64        // the version of the table then
	version uint64        // the version of the table that all of this is about
	calm    int64         // until then nobody is taken for dead
	nodes   map[string]*contact
	waiting []taking
	asked   map[raft.ServerID]asked
}

// contact is what the leader knows about one node.
type contact struct {
	incarnation uint64
	granted     int64        // when it was last given a lease, or when this node began to lead
	heard       int64        // when it last asked, or 0
	steady      int64        // since when it has been asking without a break
	must        uint64       // the version that it must know before it gets a lease
	gone        bool         // its stream has ended, or it said goodbye
	left        bool         // it said goodbye: it holds nothing
	unfit       bool         // it cannot write to its disk
	stream      *leaseStream // the one it asks on, or nil
}

// taking is something that was taken from a node, which may not know it yet.
type taking struct {
	version uint64
	from    string
}

// asked is when a voter, that still followed this node, was asked.
type asked struct {
	term uint64
	at   int64
}

// acked is called by the transport.
func (r *Raft) acked(id raft.ServerID, term uint64, at int64) {
	r.lead.mu.Lock()
	if r.lead.asked == nil {
		r.lead.asked = make(map[raft.ServerID]asked)
	}
	if old := r.lead.asked[id]; term > old.term || term == old.term && at > old.at {
		r.lead.asked[id] = asked{term, at}
	}
	r.lead.mu.Unlock()
	r.holdAsLeader()
}

// proof is when this node provably led last, or 0: since that time nobody else can
// have been elected. It is called with lead.mu.
func (r *Raft) proof(now int64) int64 {
	// now was read before these, so this node had not voted for another at that time.
	if r.raft == nil || r.raft.State() != raft.Leader {
		return 0
	}
	term := r.raft.CurrentTerm()
	return leaderProof(now, raft.ServerID(r.o.Self.ID), r.raft.GetConfiguration().Configuration(), func(id raft.ServerID) int64 {
		if a := r.lead.asked[id]; a.term == term {
			return a.at
		}
		return 0
	})
}

// provesLead says whether this node still leads, at a moment after the call: what its
// table does not know then was never agreed on, or not yet. It waits for the answers of a
// majority, at most a FailureTimeout. That raft's state is that of a leader says nothing: this
// process may have been stopped, and another been elected meanwhile.
func (r *Raft) provesLead() bool {
	tick := time.NewTicker(time.Duration(r.parts.tick))
	defer tick.Stop()
	for began := r.now(); r.now()-began < int64(r.o.FailureTimeout); <-tick.C {
		r.lead.mu.Lock()
		leads, proof := r.lead.term != 0, r.proof(r.now())
		r.lead.mu.Unlock()
		if !leads || proof >= began {
			return leads
		}
	}
	return false
}

// holdAsLeader gives this node, when it leads, its own lease.
func (r *Raft) holdAsLeader() {
	r.lead.mu.Lock()
	defer r.lead.mu.Unlock()
	if r.lead.term == 0 {
		return
	}
	if proof := r.proof(r.now()); proof > 0 {
		raise(&r.until, proof+r.parts.lease)
	}
}

// begin notes that this node leads, with everything of former terms applied.
func (l *leading) begin(r *Raft, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := r.view.Load()
	l.term, l.since, l.first, l.version = term, r.now(), v.changed, v.changed
	l.calm = l.since + int64(r.o.FailureTimeout)
	l.nodes, l.waiting, l.over = make(map[string]*contact), nil, make(chan struct{})
	for id, m := range v.members {
		l.nodes[id] = &contact{incarnation: m.Incarnation, granted: l.since, must: l.first}
		// The leases that the one before gave are not known. It has none of the dead.
		if m.Alive && id != r.o.Self.ID {
			l.waiting = append(l.waiting, taking{l.first, id})
		}
	}
}

// end notes that this node leads no more, and turns away those who ask.
func (l *leading) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = 0
	if l.over != nil {
		close(l.over)
		l.over = nil
	}
	for _, c := range l.nodes {
		if c.stream != nil {
			// The asker finds out by reading.
			_ = c.stream.conn.Close()
		}
	}
	l.nodes, l.waiting = nil, nil
}

// ends is closed when this node leads no more; it is nil when it does not lead.
func (l *leading) ends() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// changedTable notes what a change of the table has taken from whom. It is called by
// raft, after this node's own view has changed.
func (l *leading) changedTable(r *Raft, old, next *tableState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 {
		return
	}
	now := r.now()
	for i := range next.partitions {
		if i >= len(old.partitions) || old.partitions[i].since == next.partitions[i].since {
			continue
		}
		from := old.partitions[i].owner
		if from == "" || from == r.o.Self.ID {
			continue // this node knows
		}
		c := l.nodes[from]
		if c == nil || c.left || now >= c.granted+r.parts.revoke {
			continue
		}
		c.must = next.changed
		if n := len(l.waiting); n == 0 || l.waiting[n-1] != (taking{next.changed, from}) {
			l.waiting = append(l.waiting, taking{next.changed, from})
		}
	}
	for id, c := range l.nodes {
		if _, ok := next.members[id]; !ok {
			c.must = math.MaxUint64 // it gets no lease again, but may still have one
		}
	}
	for id, m := range next.members {
		if c := l.nodes[id]; c == nil || m.Incarnation > c.incarnation {
			// New, or another process: it has no lease of the last one, which is gone.
			l.nodes[id] = &contact{incarnation: m.Incarnation, granted: now, must: next.changed}
		} else if c.must == math.MaxUint64 {
			c.must = next.changed
		}
	}
	l.version = next.changed
	if settled, further := l.settleHere(r, now); further {
		l.spread(r, settled, nil)
	}
}

// settleHere lets go of what is waited for no longer, and tells this node. It is
// called with mu.
func (l *leading) settleHere(r *Raft, now int64) (settled uint64, further bool) {
	settled = l.version
	kept := l.waiting[:0]
	for _, w := range l.waiting {
		c := l.nodes[w.from]
		if c == nil || c.left || now >= c.granted+r.parts.revoke {
			continue
		}
		kept = append(kept, w)
		settled = min(settled, w.version-1)
	}
	l.waiting = kept
	further = settled > r.settled.Load()
	r.settle(settled)
	return settled, further
}

// rejoins says whether who opens a lease stream must be (re)admitted first: this node
// leads, and knows it as it was before.
func (l *leading) rejoins(v *tableView, c change) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, known := v.members[c.id]
	return l.term != 0 && known && !m.replaced &&
		(c.incarnation > m.Incarnation || c.incarnation == m.Incarnation && (c.raft != m.Raft || c.nats != m.NATS || c.url != m.URL))
}

// answer gives a lease, or says why not.
func (l *leading) answer(r *Raft, s *leaseStream, id string, incarnation uint64, ask [leaseAskSize]byte) leaseReply {
	reply := leaseReply{asked: int64(binary.BigEndian.Uint64(ask[1:])), what: leaseNone}
	version := binary.BigEndian.Uint64(ask[9:])
	now := r.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.term == 0 && r.raft.State() == raft.Leader:
		return reply // about to begin
	case l.term == 0 || r.raft.CurrentTerm() != l.term:
		reply.what = leaseNotLeader
		return reply
	}
	v := r.view.Load()
	m, known := v.members[id]
	switch {
	case v.cluster == "":
		return reply
	case !known && !s.isStranger(now, r.proof(now)):
		return reply // whoever leads may have taken it in
	case !known || m.replaced:
		reply.what = leaseNoMember
		return reply
	case m.Incarnation > incarnation:
		reply.what = leaseOutdated // its data directory, or a copy of it, is used by another
		return reply
	case m.Incarnation < incarnation:
		return reply // until it is admitted
	}
	c := l.nodes[id]
	if c == nil {
		c = &contact{incarnation: incarnation, must: l.first, granted: now}
		l.nodes[id] = c
	}
	if c.heard == 0 || now-c.heard > 3*r.parts.answer || c.gone {
		c.steady = now
	}
	c.heard, c.gone, c.stream = now, false, s
	if unfit := ask[0]&leaseUnfit != 0; unfit != c.unfit {
		c.unfit = unfit
		r.o.Log.Info("node can own records, or not", "peer", id, "name", m.Name, "fit", !unfit)
		kick(r.led)
	}
	if ask[0]&leaseGoodbye != 0 {
		c.left, c.gone, c.must, c.heard = true, true, math.MaxUint64, 0
		l.settleHere(r, now)
		reply.what = leaseFarewell
		return reply
	}
	proof := r.proof(now)
	if version >= c.must && proof > 0 {
		reply.what, reply.lead = leaseGiven, now-proof
		c.granted, c.left = now, false
	}
	if version >= c.must {
		// It knows of all that was taken from it up to here.
		l.waiting = deleteTakings(l.waiting, id, version)
	}
	var further bool
	if reply.settled, further = l.settleHere(r, now); further {
		l.spread(r, reply.settled, s)
	}
	return reply
}

func deleteTakings(all []taking, from string, version uint64) []taking {
	kept := all[:0]
	for _, w := range all {
		if w.from != from || w.version > version {
			kept = append(kept, w)
		}
	}
	return kept
}

// spread tells the nodes that the table is settled further, but for one that is being
// told. It is called with mu, and waits for none of them.
func (l *leading) spread(r *Raft, settled uint64, but *leaseStream) {
	for _, c := range l.nodes {
		if s := c.stream; s != nil && s != but && !c.gone {
			r.wg.Go(func() {
				if s.say(leaseReply{what: leaseNone, settled: settled}, time.Duration(r.parts.answer)) != nil {
					_ = s.conn.Close() // its reader ends it
				}
			})
		}
	}
}

// ended notes that a lease stream has.
func (l *leading) ended(s *leaseStream, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.nodes[id]; c != nil && c.stream == s {
		c.stream, c.gone = nil, true
	}
}

// look judges the nodes: which of the living are dead, and which of the dead are alive.
// None of the dead gets a lease until the table says that it is.
func (l *leading) look(r *Raft, v *tableView) (dead, alive []string) {
	now := r.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 {
		return nil, nil
	}
	if settled, further := l.settleHere(r, now); further {
		l.spread(r, settled, nil)
	}
	for id, c := range l.nodes {
		if _, ok := v.members[id]; !ok && now >= c.granted+r.parts.revoke {
			delete(l.nodes, id)
		}
	}
	for _, m := range v.sortedMembers() {
		c := l.nodes[m.ID]
		self := m.ID == r.o.Self.ID
		switch {
		case !m.Alive && !m.replaced && (self || c != nil && !c.gone && c.heard > 0 && c.must != math.MaxUint64 &&
			// It was given a lease lately, so it has what it takes to live longer than this look.
			now-c.heard < 2*r.parts.answer && now-c.granted < 2*r.parts.answer):
			alive = append(alive, m.ID)
		case !m.Alive || self || c == nil:
		case c.left, now >= l.calm && now >= c.granted+int64(r.o.FailureTimeout), l.lost(r, m.ID, c, now):
			dead = append(dead, m.ID)
			c.must = math.MaxUint64
		}
	}
	return dead, alive
}

// lost says whether a node may count as dead before a FailureTimeout has passed: both
// its own stream has ended, or it never opened one, and it does not answer raft. That is
// a process that is gone, not one that is slow. Its lease, or what a former leader
// may have given, has ended all the same. It is called with mu.
func (l *leading) lost(r *Raft, id string, c *contact, now int64) bool {
	answered := int64(0)
	if a := l.asked[raft.ServerID(id)]; a.term == l.term {
		answered = a.at
	}
	missing := c.gone || c.heard == 0 && c.granted == l.since // not one that has just joined
	return missing && now-max(answered, l.since) >= r.parts.answer &&
		now >= c.granted+r.parts.revoke && now >= l.calm-int64(r.o.FailureTimeout)+r.parts.revoke
}

// undo lets those be given leases again whose death was not put into the table.
func (l *leading) undo(dead []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range dead {
		if c := l.nodes[id]; c != nil && c.must == math.MaxUint64 && !c.left {
			c.must = l.version
		}
	}
}

// hold keeps everybody alive for a FailureTimeout: this node itself stood still.
func (l *leading) hold(r *Raft) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calm = r.now() + int64(r.o.FailureTimeout)
}

// quiet says whether nothing that was taken from a node is waited for.
func (l *leading) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term != 0 && len(l.waiting) == 0
}

// steadyFor is how long a node has been in contact, 0 when it is not, and negative,
// how long it has not been.
func (l *leading) steadyFor(r *Raft, id string) time.Duration {
	now := r.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.nodes[id]
	switch {
	case id == r.o.Self.ID:
		return time.Duration(now - l.since)
	case c == nil:
		return -time.Duration(now - l.since)
	case c.gone || c.heard == 0 || now-c.heard > 3*r.parts.answer:
		return -time.Duration(now - max(c.heard, c.granted))
	}
	return time.Duration(now - c.steady)
}

// lastAsk is when a process last asked, or 0 when it has no stream to do so.
func (l *leading) lastAsk(id string, incarnation uint64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.nodes[id]; c != nil && c.incarnation == incarnation && c.stream != nil && !c.gone {
		return c.heard
	}
	return 0
}

// beganAt is when this node began to lead.
func (l *leading) beganAt() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since
}
