package clustertest

import (
	"fmt"
	"slices"
	"time"

	"hadal/cluster"
)

// The table's timing, as the cluster promises it (cluster.failureTimeout = 1 s).
const (
	heartbeat      = 100 * time.Millisecond
	leaseTime      = 450 * time.Millisecond // of an owner, since a heartbeat that was answered began
	failureTimeout = time.Second            // without a heartbeat a node is dead
	minElection    = 500 * time.Millisecond
	maxElection    = time.Second
)

// view is a state of the table. It is never changed once made.
type view struct {
	index   uint64
	members []cluster.Member // in the order of the machines that have ever joined
	owners  []cluster.Ownership
}

// arbiter stands for the raft group that decides about the table. It lives where its
// leader is, and decides only while the leader reaches a majority. Nodes ask it for
// the table with every heartbeat, and an owner's lease counts from when it asked. What
// is here is guarded by Net.mu.
type arbiter struct {
	net     *Net
	view    *view
	leader  *Node                // or nil
	since   time.Time            // when the leader was last seen to lead, or the group to have none
	grace   time.Time            // until then nobody is declared dead
	contact map[string]time.Time // when a member's last heartbeat came
	applied map[string]uint64    // the view that a member said it had then
	moving  map[int]move         // by partition
	votes   time.Duration        // how long the election under way takes
}

// move is a change of owner between two living nodes: first the old one has to know
// that it is not the owner any more.
type move struct {
	from, to string
	index    uint64
}

func (a *arbiter) init(n *Net) {
	*a = arbiter{
		net: n, view: &view{owners: make([]cluster.Ownership, n.cfg.Partitions)}, since: time.Now(),
		contact: make(map[string]time.Time), applied: make(map[string]uint64), moving: make(map[int]move),
	}
	a.votes = n.between(source{what: "election"}, minElection, maxElection)
}

// change makes the next view.
func (a *arbiter) change(what string, edit func(v *view)) {
	next := &view{index: a.view.index + 1, members: slices.Clone(a.view.members), owners: slices.Clone(a.view.owners)}
	edit(next)
	a.view = next
	a.net.History.note(Event{What: Decision, Note: what, ID: next.index})
}

// leads says whether the leader is one.
func (a *arbiter) leads() bool {
	return a.leader != nil && !a.leader.over && !a.leader.paused && a.net.majority(a.leader.machine.index)
}

// tick happens every heartbeat. The caller holds mu.
func (a *arbiter) tick() {
	n := a.net
	n.at(source{what: "tick"}, time.Now().Add(heartbeat), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		a.tick()
	})
	now := time.Now()
	switch {
	case a.leads():
		if now.Sub(a.since) > 2*heartbeat {
			a.pardon(now) // it was stopped or alone for a while, not the others
		}
		a.since = now
		a.judge(now)
		a.balance()
	case now.Sub(a.since) >= a.votes:
		a.elect(now)
	}
	for _, m := range n.machines {
		if m.node != nil && m.node.running {
			a.ask(m.node)
		}
	}
}

// pardon counts the silence of every member from now.
func (a *arbiter) pardon(now time.Time) {
	for id := range a.contact {
		a.contact[id] = now
	}
}

// elect makes a leader of one of those who reach a majority.
func (a *arbiter) elect(now time.Time) {
	var able []*Node
	for _, m := range a.net.machines {
		if m.node != nil && a.net.majority(m.index) {
			able = append(able, m.node)
		}
	}
	if len(able) == 0 {
		return
	}
	a.leader = able[a.net.draw(source{what: "leader"}, time.Duration(len(able)))]
	a.net.History.note(Event{What: Decision, Node: a.leader.Name(), Note: "leads"})
	a.since, a.grace = now, now.Add(failureTimeout)
	a.votes = a.net.between(source{what: "election"}, minElection, maxElection)
	a.pardon(now)
}

// judge declares dead who has been silent.
func (a *arbiter) judge(now time.Time) {
	if now.Before(a.grace) {
		return
	}
	for i, m := range a.view.members {
		if !m.Alive || now.Sub(a.contact[m.ID]) <= failureTimeout {
			continue
		}
		a.net.History.note(Event{What: Lost, Node: m.Name})
		a.change(m.Name+" is dead", func(v *view) { v.members[i].Alive = false })
		for p, o := range a.view.owners {
			if o.Owner == m.ID {
				a.assign(p, a.least())
			}
		}
	}
	for p := range a.view.owners {
		mv, ok := a.moving[p]
		if !ok || a.alive(mv.from) && a.applied[mv.from] < mv.index {
			continue
		}
		delete(a.moving, p)
		if !a.alive(mv.to) {
			mv.to = a.least()
		}
		a.assign(p, mv.to)
	}
	for p, o := range a.view.owners {
		if _, moving := a.moving[p]; o.Owner == "" && !moving {
			a.assign(p, a.least())
		}
	}
}

func (a *arbiter) alive(id string) bool {
	return slices.ContainsFunc(a.view.members, func(m cluster.Member) bool { return m.ID == id && m.Alive })
}

// least is the living member that owns least, or nobody.
func (a *arbiter) least() string {
	id, _ := a.extreme(func(n, best int) bool { return n < best })
	return id
}

func (a *arbiter) extreme(better func(n, best int) bool) (id string, owns int) {
	for _, m := range a.view.members {
		if !m.Alive {
			continue
		}
		n := 0
		for _, o := range a.view.owners {
			if o.Owner == m.ID {
				n++
			}
		}
		if id == "" || better(n, owns) {
			id, owns = m.ID, n
		}
	}
	return id, owns
}

// assign gives a partition to a member, or to nobody, under a new epoch.
func (a *arbiter) assign(p int, id string) {
	epoch := a.view.owners[p].Epoch
	if id == "" && a.view.owners[p].Owner == "" {
		return
	}
	a.change(fmt.Sprintf("partition %d to %q under epoch %d", p, id, epoch+1), func(v *view) {
		v.owners[p] = cluster.Ownership{Owner: id, Epoch: epoch + 1}
	})
}

// balance moves one partition from the member that owns most to the one that owns
// least.
func (a *arbiter) balance() {
	if len(a.moving) > 0 || time.Now().Before(a.grace) {
		return
	}
	to, few := a.extreme(func(n, best int) bool { return n < best })
	from, many := a.extreme(func(n, best int) bool { return n > best })
	if many-few < 2 {
		return
	}
	for p, o := range a.view.owners {
		if o.Owner == from {
			a.assign(p, "")
			a.moving[p] = move{from: from, to: to, index: a.view.index}
			return
		}
	}
}

// Move begins to hand a partition to the next living member: its owner loses it first.
// It is false when there is no leader to do that, or nobody to own it.
func (n *Net) Move(partition int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := &n.table
	o := a.view.owners[partition]
	if _, moving := a.moving[partition]; moving || !a.leads() || o.Owner == "" {
		return false
	}
	for i, m := range a.view.members {
		if m.ID != o.Owner {
			continue
		}
		for k := range a.view.members {
			to := a.view.members[(i+1+k)%len(a.view.members)]
			if to.Alive && to.ID != o.Owner {
				a.assign(partition, "")
				a.moving[partition] = move{from: o.Owner, to: to.ID, index: a.view.index}
				return true
			}
		}
	}
	return false
}

// ask sends a node's heartbeat to the leader, and what comes back.
func (a *arbiter) ask(node *Node) {
	n, leader := a.net, a.leader
	if leader == nil || node.paused || !n.both(node.machine.index, leader.machine.index) {
		return
	}
	began, applied := time.Now(), node.view.index
	leader.deliver(source{"ask", node.machine.index, leader.machine.index}, began.Add(n.delay(node.machine.index, leader.machine.index)), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if a.leader != leader || !a.leads() || node.over {
			return
		}
		a.hear(node, applied)
		if !n.passes(leader.machine.index, node.machine.index) {
			return
		}
		answer := a.view
		node.deliver(source{"told", leader.machine.index, node.machine.index}, time.Now().Add(n.delay(leader.machine.index, node.machine.index)), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			node.learn(answer, began)
		})
	})
}

// hear takes a member's heartbeat.
func (a *arbiter) hear(node *Node, applied uint64) {
	id := node.machine.id
	a.contact[id] = time.Now()
	a.applied[id] = applied
	i := slices.IndexFunc(a.view.members, func(m cluster.Member) bool { return m.ID == id })
	switch {
	case i < 0:
		a.change(node.Name()+" joins", func(v *view) {
			v.members = append(v.members, cluster.Member{
				ID: id, Name: node.machine.name, Incarnation: node.incarnation, Alive: true, Role: cluster.RoleCore,
			})
		})
	case a.view.members[i].Incarnation != node.incarnation:
		a.change(node.Name()+" is back", func(v *view) {
			v.members[i].Incarnation, v.members[i].Alive = node.incarnation, true
		})
		for p, o := range a.view.owners {
			if o.Owner == id {
				a.assign(p, id) // its epoch of before is the past's
			}
		}
	case !a.view.members[i].Alive:
		a.change(node.Name()+" is alive", func(v *view) { v.members[i].Alive = true })
	}
}

// learn takes in what the leader says. The caller holds mu.
func (n *Node) learn(v *view, began time.Time) {
	if n.net.cfg.LateLease {
		began = time.Now()
	}
	if began.After(n.heard) {
		n.heard = began
	}
	if v.index <= n.view.index {
		return
	}
	n.view = v
	close(n.viewChanged)
	n.viewChanged = make(chan struct{})
}

// table is the cluster.Table of a node.
type table struct{ n *Node }

var _ cluster.Table = table{}

// ClusterID implements cluster.Table.
func (t table) ClusterID() string { return "clustertest" }

// Self implements cluster.Table.
func (t table) Self() cluster.Member {
	t.n.net.mu.Lock()
	defer t.n.net.mu.Unlock()
	return t.n.self()
}

func (n *Node) self() cluster.Member {
	for _, m := range n.view.members {
		if m.ID == n.machine.id && m.Incarnation == n.incarnation {
			return m
		}
	}
	return cluster.Member{ID: n.machine.id, Name: n.machine.name, Incarnation: n.incarnation, Alive: true, Role: cluster.RoleCore}
}

// Members implements cluster.Table.
func (t table) Members() []cluster.Member {
	t.n.net.mu.Lock()
	defer t.n.net.mu.Unlock()
	members := slices.Clone(t.n.view.members)
	i := slices.IndexFunc(members, func(m cluster.Member) bool { return m.ID == t.n.machine.id })
	if i < 0 {
		return append(members, t.n.self())
	}
	members[i] = t.n.self()
	return members
}

// Partitions implements cluster.Table.
func (t table) Partitions() int { return t.n.net.cfg.Partitions }

// Owner implements cluster.Table.
func (t table) Owner(partition int) cluster.Ownership {
	t.n.net.mu.Lock()
	defer t.n.net.mu.Unlock()
	return t.n.owner(partition)
}

func (n *Node) owner(partition int) cluster.Ownership {
	if partition < 0 || partition >= len(n.view.owners) {
		return cluster.Ownership{}
	}
	o := n.view.owners[partition]
	o.Here = o.Owner == n.machine.id && slices.ContainsFunc(n.view.members, func(m cluster.Member) bool {
		return m.ID == o.Owner && m.Incarnation == n.incarnation
	})
	return o
}

// Holds implements cluster.Table.
func (t table) Holds(partition int) bool {
	t.n.net.mu.Lock()
	defer t.n.net.mu.Unlock()
	return t.n.owner(partition).Here && (t.n.net.cfg.NoLease || time.Since(t.n.heard) < leaseTime)
}

// Changed implements cluster.Table.
func (t table) Changed() <-chan struct{} {
	t.n.net.mu.Lock()
	defer t.n.net.mu.Unlock()
	return t.n.viewChanged
}
