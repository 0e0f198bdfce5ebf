package cluster

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// This file decides which nodes keep a partition and which of them owns it. It is
// pure: the same table gives the same plan everywhere.
//
// Replicas lie evenly on the core nodes, within two of each other: the freedom to
// take one or the other is what lets owners move without chains. They are dear to move, so only a node that leaves for good gives up its own, and one that is merely
// dead keeps them; a new node gets its share and not more.
//
// Owners lie evenly, within one of each other, on the live core nodes that are not
// draining, and each owns only what it keeps. Where a partition cannot move to where
// there is room, because none of its replicas is there, others move on in a chain,
// along the shortest one there is.

// replicaSpread is how far the numbers of replicas on two nodes may be apart.
const replicaSpread = 2

// planNode is a core node, as the plan sees it.
type planNode struct {
	id       string
	alive    bool
	draining bool   // or cannot write
	hash     uint64 // of id, set by sortedNodes
}

// ownerChange is one step of a plan: the partition goes to the owner.
type ownerChange struct {
	partition int
	owner     string
}

// replicaCount is how many replicas a partition has with so many core nodes: the
// odd number that bears the most losses, up to 5. A cluster that has shrunk to two
// keeps two copies. configured, when it is not 0, is the limit instead of that.
func replicaCount(cores, configured int, grown bool) int {
	switch {
	case configured > 0:
		return min(configured, cores)
	case cores >= 5:
		return 5
	case cores >= 3:
		return 3
	case cores == 2 && grown:
		return 2
	}
	return min(cores, 1)
}

// planReplicas is where each partition is to be kept: r replicas, or as many as
// there are nodes. Nodes that are not among the nodes given have left for good.
func planReplicas(nodes []planNode, parts []partitionState, r int) [][]string {
	p := newReplicaPlan(nodes, parts)
	r = min(r, len(nodes))
	for i := range p.replicas {
		for len(p.replicas[i]) > r {
			p.drop(i)
		}
	}
	for i := range p.replicas {
		for len(p.replicas[i]) < r && p.add(i) {
		}
	}
	for p.even() {
	}
	return p.replicas
}

type replicaPlan struct {
	nodes    []planNode
	index    map[string]int
	parts    []partitionState
	replicas [][]string
	kept     [][]int          // by node: the partitions it keeps
	owned    []int            // by node
	drawn    []map[string]int // by node that gains: whose partitions it got
}

func newReplicaPlan(nodes []planNode, parts []partitionState) *replicaPlan {
	p := &replicaPlan{
		nodes: sortedNodes(nodes), parts: parts, replicas: make([][]string, len(parts)),
		kept: make([][]int, len(nodes)), owned: make([]int, len(nodes)), drawn: make([]map[string]int, len(nodes)),
	}
	p.index = indexNodes(p.nodes)
	for i, part := range parts {
		if n, ok := p.index[part.owner]; ok {
			p.owned[n]++
		}
		for _, id := range part.replicas {
			if n, ok := p.index[id]; ok {
				p.replicas[i] = append(p.replicas[i], id)
				p.kept[n] = append(p.kept[n], i)
			}
		}
	}
	return p
}

// drop takes one replica from a partition: from a dead node, else from the one
// that keeps most, and from the owner last.
func (p *replicaPlan) drop(part int) {
	id := slices.MinFunc(p.replicas[part], func(a, b string) int {
		x, y := p.index[a], p.index[b]
		return cmp.Or(
			compareBool(a == p.parts[part].owner, b == p.parts[part].owner),
			compareBool(p.nodes[x].alive, p.nodes[y].alive),
			-cmp.Compare(len(p.kept[x]), len(p.kept[y])),
			cmp.Compare(draw(part, p.nodes[x]), draw(part, p.nodes[y])),
		)
	})
	p.take(part, p.index[id])
}

// add gives a partition one more replica, on a live node that keeps little: the one
// that keeps least, or, when the partition is without an owner, one that owns least, so
// that there is a heir. It is false when there is none.
func (p *replicaPlan) add(part int) bool {
	least := len(p.parts)
	for n := range p.nodes {
		if p.nodes[n].alive {
			least = min(least, len(p.kept[n]))
		}
	}
	_, owned := p.index[p.parts[part].owner]
	best := -1
	for n := range p.nodes {
		if !p.nodes[n].alive || slices.Contains(p.replicas[part], p.nodes[n].id) {
			continue
		}
		if best < 0 || p.compareTaker(part, n, best, least, owned) < 0 {
			best = n
		}
	}
	if best < 0 {
		return false
	}
	if !owned {
		p.owned[best]++
	}
	p.give(part, best)
	return true
}

func (p *replicaPlan) compareTaker(part, a, b, least int, owned bool) int {
	kept := cmp.Compare(len(p.kept[a]), len(p.kept[b]))
	if !owned {
		kept = compareBool(len(p.kept[a]) >= least+replicaSpread, len(p.kept[b]) >= least+replicaSpread)
	}
	return cmp.Or(
		kept,
		cmp.Compare(p.owned[a], p.owned[b]),
		cmp.Compare(len(p.kept[a]), len(p.kept[b])),
		cmp.Compare(draw(part, p.nodes[a]), draw(part, p.nodes[b])),
	)
}

// even moves one replica from a live node that keeps much to the one that keeps
// least, unless all are within replicaSpread of each other.
func (p *replicaPlan) even() bool {
	most, least := -1, -1
	for n := range p.nodes {
		if !p.nodes[n].alive {
			continue
		}
		if most < 0 || len(p.kept[n]) > len(p.kept[most]) {
			most = n
		}
		if least < 0 || len(p.kept[n]) < len(p.kept[least]) {
			least = n
		}
	}
	if most < 0 || len(p.kept[most])-len(p.kept[least]) <= replicaSpread {
		return false
	}
	id, top := p.nodes[least].id, len(p.kept[most])
	if p.drawn[least] == nil {
		p.drawn[least] = make(map[string]int)
	}
	// Many may keep as much. Take a replica that its node does not own, of an owner
	// that owns most: the new node is to own some, and then can take over from it.
	best, from := -1, -1
	for part := range p.replicas {
		if slices.Contains(p.replicas[part], id) {
			continue
		}
		for _, r := range p.replicas[part] {
			n := p.index[r]
			if len(p.kept[n]) >= top-replicaSpread+1 && p.nodes[n].alive && (best < 0 || p.compareGiven(part, n, best, from, least) < 0) {
				best, from = part, n
			}
		}
	}
	p.drawn[least][p.parts[best].owner]++
	p.take(best, from)
	p.give(best, least)
	return true
}

// compareGiven says which of two replicas should rather move to the node.
func (p *replicaPlan) compareGiven(part, from, otherPart, otherFrom, to int) int {
	x, y := p.parts[part].owner, p.parts[otherPart].owner
	return cmp.Or(
		compareBool(x == p.nodes[from].id, y == p.nodes[otherFrom].id),
		-cmp.Compare(p.ownedBy(x)-p.drawn[to][x], p.ownedBy(y)-p.drawn[to][y]),
		cmp.Compare(draw(part, p.nodes[to]), draw(otherPart, p.nodes[to])),
	)
}

func (p *replicaPlan) ownedBy(id string) int {
	if n, ok := p.index[id]; ok {
		return p.owned[n]
	}
	return 0
}

func (p *replicaPlan) take(part, n int) {
	id := p.nodes[n].id
	p.replicas[part] = slices.DeleteFunc(slices.Clone(p.replicas[part]), func(r string) bool { return r == id })
	p.kept[n] = slices.DeleteFunc(p.kept[n], func(i int) bool { return i == part })
}

func (p *replicaPlan) give(part, n int) {
	p.replicas[part] = append(slices.Clip(p.replicas[part]), p.nodes[n].id)
	p.kept[n] = append(p.kept[n], part)
}

// planOwners is what to change so that every partition has an owner and the owners
// have their share. When some partition has none, these get one, all of them, and
// nothing else moves. Otherwise at most limit of them move, in an order that never
// makes it worse: first to where an operator wants them, then away from nodes that
// drain, then for balance.
func planOwners(nodes []planNode, parts []partitionState, limit int) []ownerChange {
	p := newOwnerPlan(nodes, parts)
	if p.adopt(); len(p.changes) > 0 {
		return p.changes
	}
	p.limit = limit
	p.honour()
	p.drain()
	for len(p.changes) < p.limit && p.balance() {
	}
	return p.changes
}

type ownerPlan struct {
	nodes   []planNode
	index   map[string]int
	parts   []partitionState
	owner   []int   // by partition: the node, or -1
	owned   [][]int // by node
	limit   int
	only    map[int]bool // partitions that may move; nil: all
	changes []ownerChange
}

func newOwnerPlan(nodes []planNode, parts []partitionState) *ownerPlan {
	p := &ownerPlan{nodes: sortedNodes(nodes), parts: parts, owner: make([]int, len(parts)), owned: make([][]int, len(nodes))}
	p.index = indexNodes(p.nodes)
	for i := range parts {
		p.owner[i] = -1
		if n, ok := p.index[parts[i].owner]; ok && p.nodes[n].alive {
			p.owner[i] = n
			p.owned[n] = append(p.owned[n], i)
		}
	}
	return p
}

func (p *ownerPlan) mayOwn(n int) bool { return p.nodes[n].alive && !p.nodes[n].draining }

// wanted is the node that an operator wants to own the partition, or -1.
func (p *ownerPlan) wanted(part int) int {
	n, ok := p.index[p.parts[part].wanted]
	if !ok || !p.mayOwn(n) || !slices.Contains(p.parts[part].replicas, p.parts[part].wanted) {
		return -1
	}
	return n
}

// best is the replica that should get a partition: the one that is wanted, else
// the one that owns least; one that drains only when there is no other. It is -1 when
// no replica is alive.
func (p *ownerPlan) best(part int) int {
	if n := p.wanted(part); n >= 0 {
		return n
	}
	best := -1
	for _, id := range p.parts[part].replicas {
		n, ok := p.index[id]
		if !ok || !p.nodes[n].alive {
			continue
		}
		if best < 0 || cmp.Or(
			compareBool(p.nodes[n].draining, p.nodes[best].draining),
			cmp.Compare(len(p.owned[n]), len(p.owned[best])),
			cmp.Compare(draw(part, p.nodes[n]), draw(part, p.nodes[best])),
		) < 0 {
			best = n
		}
	}
	return best
}

// adopt gives every partition without an owner one. Those with the fewest replicas
// to choose from come first.
func (p *ownerPlan) adopt() {
	var orphans []int
	choice := make(map[int]int)
	for i := range p.parts {
		if p.owner[i] >= 0 {
			continue
		}
		orphans = append(orphans, i)
		for _, id := range p.parts[i].replicas {
			if n, ok := p.index[id]; ok && p.nodes[n].alive {
				choice[i]++
			}
		}
	}
	slices.SortStableFunc(orphans, func(a, b int) int { return cmp.Compare(choice[a], choice[b]) })
	p.only = make(map[int]bool)
	for _, part := range orphans {
		if n := p.best(part); n >= 0 {
			p.move(part, n)
			p.only[part] = true
		}
	}
	// They are moving anyway: spread them among themselves.
	p.limit = len(p.parts) * len(p.parts)
	for p.balance() {
	}
	p.changes, p.only = p.changes[:0], nil
	for _, part := range orphans {
		if n := p.owner[part]; n >= 0 {
			p.changes = append(p.changes, ownerChange{part, p.nodes[n].id})
		}
	}
}

func (p *ownerPlan) honour() {
	for i := range p.parts {
		if n := p.wanted(i); n >= 0 && n != p.owner[i] && p.owner[i] >= 0 && len(p.changes) < p.limit {
			p.move(i, n)
		}
	}
}

func (p *ownerPlan) drain() {
	for i := range p.parts {
		if p.owner[i] < 0 || p.mayOwn(p.owner[i]) || len(p.changes) >= p.limit {
			continue
		}
		if n := p.best(i); n >= 0 && p.mayOwn(n) {
			p.move(i, n)
		}
	}
}

func (p *ownerPlan) move(part, to int) {
	if from := p.owner[part]; from >= 0 {
		p.owned[from] = slices.DeleteFunc(p.owned[from], func(i int) bool { return i == part })
	}
	p.owner[part] = to
	p.owned[to] = append(p.owned[to], part)
	p.changes = append(p.changes, ownerChange{part, p.nodes[to].id})
}

// balance makes one partition's worth of difference smaller, and is false when
// nothing can.
func (p *ownerPlan) balance() bool {
	most, least := 0, len(p.parts)
	for n := range p.nodes {
		if p.mayOwn(n) {
			most, least = max(most, len(p.owned[n])), min(least, len(p.owned[n]))
		}
	}
	if most-least <= 1 {
		return false
	}
	if p.shift(most, func(owned int) bool { return owned <= most-2 }) {
		return true
	}
	// Nobody can take from those who own most; those who own least may still gain.
	for from := most - 1; from >= least+2; from-- {
		if p.shift(from, func(owned int) bool { return owned == least }) {
			return true
		}
	}
	return false
}

// shift looks for the shortest chain of moves from a node that owns so many to one
// that has room, and makes them, the last one first: so that no node ever owns more
// than before. It is false when there is none.
func (p *ownerPlan) shift(from int, room func(owned int) bool) bool {
	type step struct{ node, part int } // how a node was reached: from whom, with what
	reached := make([]step, len(p.nodes))
	seen := make([]bool, len(p.nodes))
	var queue []int
	for n := range p.nodes {
		if p.mayOwn(n) && len(p.owned[n]) == from {
			reached[n], seen[n] = step{-1, -1}, true
			queue = append(queue, n)
		}
	}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, part := range p.owned[n] {
			if p.wanted(part) >= 0 || p.only != nil && !p.only[part] {
				continue // stays where it is, wanted or not asked about
			}
			for _, id := range p.parts[part].replicas {
				to, ok := p.index[id]
				if !ok || seen[to] || !p.mayOwn(to) {
					continue
				}
				reached[to], seen[to] = step{n, part}, true
				if !room(len(p.owned[to])) {
					queue = append(queue, to)
					continue
				}
				for at := to; reached[at].node >= 0; at = reached[at].node {
					if len(p.changes) >= p.limit {
						return true
					}
					p.move(reached[at].part, at)
				}
				return true
			}
		}
	}
	return false
}

func sortedNodes(nodes []planNode) []planNode {
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b planNode) int { return cmp.Compare(a.id, b.id) })
	for i := range nodes {
		nodes[i].hash = xxhash.Sum64String(nodes[i].id)
	}
	return nodes
}

func indexNodes(nodes []planNode) map[string]int {
	index := make(map[string]int, len(nodes))
	for i, n := range nodes {
		index[n.id] = i
	}
	return index
}

// draw breaks ties between nodes, differently for each partition.
func draw(part int, n planNode) uint64 {
	x := n.hash ^ uint64(part+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>31) * 0xbf58476d1ce4e5b9
	return x ^ x>>29
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// planTable is what to change in the table so that it follows the plan. Partitions
// without an owner get one; besides, at most limit of them change hands. Those that are unfit
// own nothing where others can, and keep their replicas.
func planTable(s *tableState, configured, limit int, unfit map[string]bool) []change {
	var nodes []planNode
	cores, grown := 0, false
	for _, m := range s.sortedMembers() {
		if m.Role != RoleCore {
			continue
		}
		nodes = append(nodes, planNode{id: m.ID, alive: m.Alive, draining: m.Draining || unfit[m.ID]})
		if !m.replaced {
			cores++
		}
	}
	for _, p := range s.partitions {
		grown = grown || len(p.replicas) > 1
	}
	parts := slices.Clone(s.partitions)
	for i, replicas := range planReplicas(nodes, parts, replicaCount(cores, configured, grown)) {
		parts[i].replicas = replicas
		if !slices.Contains(replicas, parts[i].owner) {
			parts[i].owner = ""
		}
	}
	for _, c := range planOwners(nodes, parts, limit) {
		parts[c.partition].owner = c.owner
	}
	var changes []change
	for i, p := range parts {
		if old := s.partitions[i]; p.owner != old.owner || !slices.Equal(p.replicas, old.replicas) {
			changes = append(changes, change{kind: changeAssign, number: uint64(i), id: p.owner, replicas: p.replicas, epoch: old.epoch})
		}
	}
	return changes
}
