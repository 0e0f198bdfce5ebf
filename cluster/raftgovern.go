package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// leadWhenElected does the leader's work whenever this node is the leader, until ctx
// ends.
func (r *Raft) leadWhenElected(ctx context.Context) {
	for ctx.Err() == nil {
		if r.raft.State() == raft.Leader {
			if err := r.leadTerm(ctx); err != nil {
				r.o.Log.Debug("leading ended", "err", err)
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.raft.LeaderCh():
		}
	}
}

// governor is the leader's work in one term.
type governor struct {
	*Raft
	term        uint64
	looked      int64 // when it last looked at the nodes
	moved       int64 // when partitions last changed hands for balance
	configuring atomic.Bool
	balanced    *lookedAt // what was found to need no change, or nil
	configured  struct {  // when raft's group was compared with the table last
		at   int64
		view *tableView
		conf uint64 // raft's number of its configuration
	}
}

// lookedAt is what a plan depends on, when it may move what it likes.
type lookedAt struct {
	view  *tableState
	unfit map[string]bool
}

// leadTerm leads until this node does so no longer.
func (r *Raft) leadTerm(ctx context.Context) error {
	g := &governor{Raft: r, term: r.raft.CurrentTerm()}
	// Everything that former leaders have done comes first.
	if err := r.raft.Barrier(r.o.FailureTimeout).Error(); err != nil {
		return err
	}
	r.tellCommit()
	r.lead.begin(r, g.term)
	defer r.lead.end()
	if r.raft.State() != raft.Leader || r.raft.CurrentTerm() != g.term {
		return raft.ErrLeadershipLost
	}
	r.o.Log.Info("leading the cluster", "term", g.term)
	g.looked, g.moved = r.now(), r.now()
	tick := time.NewTicker(time.Duration(r.parts.tick))
	defer tick.Stop()
	for {
		if err := g.govern(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.raft.LeaderCh(): // lost, or lost and won
			return raft.ErrLeadershipLost
		case <-r.led:
		case <-tick.C:
		}
		if r.raft.CurrentTerm() != g.term {
			return raft.ErrLeadershipLost
		}
	}
}

// govern looks at everything once.
func (g *governor) govern(ctx context.Context) error {
	now := g.now()
	if now-g.looked > int64(g.o.FailureTimeout)/2 {
		g.lead.hold(g.Raft)
	}
	g.looked = now
	g.holdAsLeader()
	v := g.view.Load()
	if v.cluster == "" {
		return g.form()
	}
	if self := g.joinSelf(); g.lead.rejoins(v, self) {
		return leadershipError(g.admit(self)) // this look ends; the change brings the next
	}
	dead, alive := g.lead.look(g.Raft, v)
	changes, moves := g.steps(v.tableState, dead, alive)
	if len(changes) > 0 {
		if err := g.propose(changes); err != nil {
			g.lead.undo(dead)
			// Another change came in between, or this node leads no more: look again.
			g.o.Log.Debug("table not changed", "err", err)
			return leadershipError(err)
		}
		if moves {
			g.moved = now
		}
	}
	for _, id := range dead {
		g.o.Log.Warn("node is dead", "peer", id, "name", v.members[id].Name)
	}
	for _, id := range alive {
		g.o.Log.Info("node is alive", "peer", id, "name", v.members[id].Name)
	}
	if g.configures(now) && g.configuring.CompareAndSwap(false, true) {
		g.wg.Go(func() {
			defer g.configuring.Store(false)
			if err := g.configure(); err != nil && ctx.Err() == nil {
				g.o.Log.Debug("raft group not changed", "err", err)
			}
		})
	}
	return nil
}

// configures says whether raft's own group is to be compared with the table now: when one of them
// has changed, and every half of a FailureTimeout, since who is steady may.
func (g *governor) configures(now int64) bool {
	last, view, conf := &g.configured, g.view.Load(), g.raft.GetConfiguration().Index()
	if view == last.view && conf == last.conf && now-last.at < int64(g.o.FailureTimeout)/2 {
		return false
	}
	last.at, last.view, last.conf = now, view, conf
	return true
}

// leadershipError is the error when it says that this node does not lead.
func leadershipError(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrRaftShutdown) {
		return err
	}
	return nil
}

// form forms the cluster, when this node was told to and nobody has yet.
func (g *governor) form() error {
	b, err := g.store.Get(formationKey)
	if err != nil || len(b) == 0 {
		return err
	}
	changes, err := decodeCommand(b)
	if err != nil {
		return fmt.Errorf("form a cluster: %w", err)
	}
	if err := g.propose(changes); err != nil {
		return leadershipError(err)
	}
	g.o.Log.Info("cluster formed", "cluster", changes[0].id, "name", changes[0].name)
	return nil
}

// steps are the next changes of the table, to be made together. moves says whether a
// partition that has an owner changes hands.
func (g *governor) steps(s *tableState, dead, alive []string) (changes []change, moves bool) {
	unfit := g.unfit()
	if b := g.balanced; b != nil && b.view == s && len(dead)+len(alive) == 0 && maps.Equal(b.unfit, unfit) {
		return nil, false // as it is most of the time
	}
	g.balanced = nil
	for _, id := range dead {
		changes = append(changes, change{kind: changeAlive, id: id})
	}
	for _, id := range alive {
		changes = append(changes, change{kind: changeAlive, id: id, on: true})
	}
	next, err := s.apply(s.changed, changes)
	if err != nil {
		g.o.Log.Error("the table does not take what the leader sees: report this", "err", err)
		return nil, false
	}
	now := g.now()
	began := now - g.lead.beganAt()
	if fresh(next) && began < 2*int64(g.o.FailureTimeout) {
		return changes, false // the others may be about to come
	}
	limit := 0
	if began >= int64(g.o.FailureTimeout) && g.lead.quiet() && (now-g.moved >= int64(g.o.FailureTimeout) || pressing(next, unfit)) {
		limit = max(1, len(s.partitions)/16)
	}
	assigns := planTable(next, g.o.Replicas, limit, unfit)
	if limit > 0 && len(changes)+len(assigns) == 0 {
		g.balanced = &lookedAt{s, unfit}
	}
	for _, c := range assigns {
		if owner := next.partitions[c.number].owner; owner != "" && owner != c.id {
			moves = true
		}
	}
	return append(changes, assigns...), moves
}

// fresh says whether nothing was ever owned, and a core node of the formation has not
// been seen yet.
func fresh(s *tableState) bool {
	for _, p := range s.partitions {
		if p.since != 0 {
			return false
		}
	}
	for _, m := range s.members {
		if m.Role == RoleCore && !m.Alive {
			return true
		}
	}
	return false
}

// pressing says whether somebody waits for a partition to move: an operator, a node that
// wants to leave, or all who write, when its owner cannot.
func pressing(s *tableState, unfit map[string]bool) bool {
	for _, p := range s.partitions {
		if p.wanted != "" && p.wanted != p.owner || s.members[p.owner].Draining || unfit[p.owner] {
			return true
		}
	}
	return false
}

// propose puts changes into the table, all or none. The error may be the table's,
// which is then as it was; or raft's, and then it is not known.
func (r *Raft) propose(changes []change) error {
	for _, m := range r.view.Load().members {
		if m.speaks < commandVersion {
			return fmt.Errorf("node %s is too old to understand the change: upgrade it first", m.Name)
		}
	}
	f := r.raft.Apply(encodeCommand(changes), r.o.FailureTimeout)
	if err := f.Error(); err != nil {
		return err
	}
	if err, refused := f.Response().(error); refused {
		return err
	}
	r.tellCommit()
	return nil
}

// tellCommit has the followers learn at once that what was agreed on last was: they do with
// the next entry, so there is one. Its fate does not matter.
func (r *Raft) tellCommit() { r.raft.Barrier(r.o.FailureTimeout) }

// configure makes raft's own group follow the table: who is in it, where, and who
// votes. It takes one step at a time, and none that could cost the majority.
func (g *governor) configure() error {
	v := g.view.Load()
	servers := g.raft.GetConfiguration().Configuration().Servers
	known := make(map[string]raft.Server)
	for _, s := range servers {
		known[string(s.ID)] = s
	}
	for _, m := range v.sortedMembers() {
		s, ok := known[m.ID]
		if !m.replaced && (!ok || s.Address != raftAddress(m.ID, m.Raft)) {
			// For one that votes this changes the address only.
			return g.raft.AddNonvoter(raft.ServerID(m.ID), raftAddress(m.ID, m.Raft), 0, g.o.FailureTimeout).Error()
		}
	}
	count := g.countVoters(v, servers)
	for id, s := range known {
		if _, ok := v.members[id]; !ok && id != g.o.Self.ID && (s.Suffrage != raft.Voter || count.bears(id)) {
			return g.raft.RemoveServer(s.ID, 0, g.o.FailureTimeout).Error()
		}
	}
	switch want := voterCount(count.cores); {
	case len(count.voters) > want:
		if id := count.worst(g.o.Self.ID); id != "" && count.bears(id) {
			return g.raft.DemoteVoter(raft.ServerID(id), 0, g.o.FailureTimeout).Error()
		}
	case count.candidate != "" && (len(count.voters) < want || count.lost != ""):
		if len(count.alive)+1 > (len(count.voters)+1)/2 {
			m := v.members[count.candidate]
			g.o.Log.Info("node votes from now on", "peer", m.ID, "name", m.Name)
			return g.raft.AddVoter(raft.ServerID(m.ID), raftAddress(m.ID, m.Raft), 0, g.o.FailureTimeout).Error()
		}
	}
	return g.sweep(v, known)
}

// sweep removes one member that was replaced by another of its name, when all others
// are well and it votes no more.
func (g *governor) sweep(v *tableView, known map[string]raft.Server) error {
	var replaced peerMember
	for _, m := range v.sortedMembers() {
		switch {
		case m.replaced:
			replaced = m
		case m.Role == RoleCore && (!m.Alive || g.lead.steadyFor(g.Raft, m.ID) < g.o.Stabilise):
			return nil
		}
	}
	if s, ok := known[replaced.ID]; replaced.ID == "" || ok && s.Suffrage == raft.Voter {
		return nil
	}
	g.o.Log.Info("removing the node that was replaced", "peer", replaced.ID, "name", replaced.Name)
	return g.propose([]change{{kind: changeRemove, id: replaced.ID}})
}

// voterCensus is who votes, and who could.
type voterCensus struct {
	cores     int
	voters    []string
	alive     map[string]bool // of the voters
	lost      string          // a voter that is dead for long, or replaced, or no member
	candidate string          // a core node that is steady and does not vote
}

func (g *governor) countVoters(v *tableView, servers []raft.Server) voterCensus {
	c := voterCensus{alive: make(map[string]bool)}
	for _, m := range v.members {
		if m.Role == RoleCore && !m.replaced {
			c.cores++
		}
	}
	for _, s := range servers {
		id := string(s.ID)
		m, steady := v.members[id], g.lead.steadyFor(g.Raft, id)
		switch {
		case s.Suffrage == raft.Voter:
			c.voters = append(c.voters, id)
			if steady > 0 && m.Alive {
				c.alive[id] = true
			} else if steady <= -g.o.Stabilise || m.replaced || m.ID == "" {
				c.lost = id
			}
		case m.Role == RoleCore && m.Alive && !m.Draining && steady >= g.o.Stabilise && c.candidate == "":
			c.candidate = id
		}
	}
	return c
}

// bears says whether the living voters would be a majority without one of the voters.
func (c voterCensus) bears(without string) bool {
	alive := len(c.alive)
	if c.alive[without] {
		alive--
	}
	return alive > (len(c.voters)-1)/2
}

// worst is the voter to lose when there are too many: a dead one, else the last, and
// not this node.
func (c voterCensus) worst(self string) string {
	if c.lost != "" {
		return c.lost
	}
	worst := ""
	for _, id := range c.voters {
		if id != self && (worst == "" || c.alive[worst] || !c.alive[id]) {
			worst = id
		}
	}
	return worst
}
