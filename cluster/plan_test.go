package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// planSim is a cluster in which the plan is carried out at once.
type planSim struct {
	t          *testing.T
	nodes      []planNode
	parts      []partitionState
	configured int
}

func newPlanSim(t *testing.T, nodes, partitions, configured int) *planSim {
	s := &planSim{t: t, parts: make([]partitionState, partitions), configured: configured}
	for i := range nodes {
		s.nodes = append(s.nodes, planNode{id: fmt.Sprintf("node-%04d", i), alive: true})
	}
	return s
}

// settle carries the plan out and says how many replicas were placed or moved and
// how many partitions got an owner or another one.
func (s *planSim) settle(limit int) (replicas, owners int) {
	s.t.Helper()
	replicas = s.place()
	for range 100 * (len(s.parts) + 1) {
		changes := planOwners(s.nodes, s.parts, limit)
		if len(changes) == 0 {
			return replicas, owners
		}
		for _, c := range changes {
			if !slices.Contains(s.parts[c.partition].replicas, c.owner) || s.parts[c.partition].owner == c.owner {
				s.t.Fatalf("partition %d goes from %q to %q, of %v", c.partition, s.parts[c.partition].owner, c.owner, s.parts[c.partition].replicas)
			}
			s.parts[c.partition].owner = c.owner
			owners++
		}
	}
	s.t.Fatal("the plan never comes to rest")
	return 0, 0
}

func (s *planSim) place() (placed int) {
	for i, replicas := range planReplicas(s.nodes, s.parts, replicaCount(len(s.nodes), s.configured, true)) {
		for _, id := range replicas {
			if !slices.Contains(s.parts[i].replicas, id) {
				placed++
			}
		}
		s.parts[i].replicas = replicas
	}
	return placed
}

// want checks what holds whenever the plan is carried out.
func (s *planSim) want() {
	s.t.Helper()
	owned, kept := s.loads()
	r := replicaCount(len(s.nodes), s.configured, true)
	for i, p := range s.parts {
		if len(p.replicas) != r || !slices.Contains(p.replicas, p.owner) {
			s.t.Fatalf("partition %d of %q has replicas %v, want %d", i, p.owner, p.replicas, r)
		}
	}
	lowOwned, highOwned, lowKept, highKept := len(s.parts), 0, len(s.parts), 0
	for _, n := range s.nodes {
		if !n.alive {
			continue
		}
		lowKept, highKept = min(lowKept, kept[n.id]), max(highKept, kept[n.id])
		if n.draining {
			if owned[n.id] > 0 {
				s.t.Errorf("%s drains and owns %d", n.id, owned[n.id])
			}
			continue
		}
		lowOwned, highOwned = min(lowOwned, owned[n.id]), max(highOwned, owned[n.id])
	}
	if highOwned-lowOwned > 1 {
		s.t.Errorf("%d nodes own from %d to %d partitions", len(s.nodes), lowOwned, highOwned)
	}
	if highKept-lowKept > replicaSpread {
		s.t.Errorf("%d nodes keep from %d to %d replicas", len(s.nodes), lowKept, highKept)
	}
}

func (s *planSim) loads() (owned, kept map[string]int) {
	owned, kept = make(map[string]int), make(map[string]int)
	for _, p := range s.parts {
		owned[p.owner]++
		for _, id := range p.replicas {
			kept[id]++
		}
	}
	return owned, kept
}

// fewest is how few units must move, or be given when they have no place, until
// the nodes have loads within one of each other.
func (s *planSim) fewest(load map[string]int, total int) int {
	var loads []int
	for _, n := range s.nodes {
		loads = append(loads, load[n.id])
	}
	slices.SortFunc(loads, func(a, b int) int { return b - a })
	short := 0
	for i, l := range loads {
		share := total / len(loads)
		if i < total%len(loads) {
			share++
		}
		short += max(0, share-l)
	}
	return short
}

// within is 1.2 times the fewest moves, in whole moves.
func within(fewest int) int { return (12*fewest + 9) / 10 }

// leave removes a node for good.
func (s *planSim) leave(i int) {
	id := s.nodes[i].id
	s.nodes = slices.Delete(s.nodes, i, i+1)
	for i := range s.parts {
		p := &s.parts[i]
		if p.owner == id {
			p.owner = ""
		}
		p.replicas = slices.DeleteFunc(slices.Clone(p.replicas), func(r string) bool { return r == id })
	}
}

// This is the simulation that docs/scaling.md quotes.
func TestPlacementStaysEvenWithFewMovesFromThreeNodesToAThousand(t *testing.T) {
	for _, size := range []int{3, 4, 5, 6, 7, 9, 12, 20, 50, 100, 300, 1000} {
		for _, configured := range []int{0, 3} {
			t.Run(fmt.Sprintf("%d nodes, replicas %d", size, configured), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(uint64(size), uint64(configured)))
				s := newPlanSim(t, size, 2*size, configured)
				s.settle(len(s.parts))
				s.want()
				var moved, least [2]int
				for step := range 24 {
					before := replicaCount(len(s.nodes), configured, true)
					// First some leave, then as many join, then as it comes.
					if leave := step%12 < 6; leave && len(s.nodes) > 3 {
						s.leave(random.IntN(len(s.nodes)))
					} else {
						s.nodes = append(s.nodes, planNode{id: fmt.Sprintf("late-%04d", step), alive: true})
					}
					r := replicaCount(len(s.nodes), configured, true)
					owned, kept := s.loads()
					fewestOwners := s.fewest(owned, len(s.parts))
					fewestReplicas := max(s.fewest(kept, r*len(s.parts)), (r-before)*len(s.parts))
					replicas, owners := s.settle(len(s.parts))
					s.want()
					if r < before {
						continue // replicas that were given up may have been owners
					}
					moved[0], least[0] = moved[0]+replicas, least[0]+fewestReplicas
					moved[1], least[1] = moved[1]+owners, least[1]+fewestOwners
					if replicas > within(fewestReplicas) {
						t.Errorf("step %d to %d nodes placed %d replicas, the fewest is %d", step, len(s.nodes), replicas, fewestReplicas)
					}
					if owners > within(fewestOwners) {
						t.Errorf("step %d to %d nodes moved %d owners, the fewest is %d", step, len(s.nodes), owners, fewestOwners)
					}
				}
				for i, what := range []string{"replicas", "owners"} {
					if 10*moved[i] > 12*least[i] {
						t.Errorf("%d %s moved in all, the fewest is %d", moved[i], what, least[i])
					}
				}
				t.Logf("replicas placed %d, at least %d; owners moved %d, at least %d", moved[0], least[0], moved[1], least[1])
			})
		}
	}
}

func TestANodeThatDiesKeepsItsReplicasAndGetsItsShareBack(t *testing.T) {
	s := newPlanSim(t, 5, 10, 3)
	s.settle(10)
	s.want()
	s.nodes[2].alive = false
	for i := range s.parts {
		if s.parts[i].owner == s.nodes[2].id {
			s.parts[i].owner = ""
		}
	}
	if replicas, owners := s.settle(1); replicas != 0 || owners != 2 {
		t.Errorf("a death placed %d replicas and moved %d owners, want 0 and its 2", replicas, owners)
	}
	s.nodes[2].alive = true
	if replicas, owners := s.settle(1); replicas != 0 || owners != 2 {
		t.Errorf("a return placed %d replicas and moved %d owners, want 0 and 2", replicas, owners)
	}
	s.want()
}

func TestPartitionsWithoutOwnerComeFirstAndAlone(t *testing.T) {
	s := newPlanSim(t, 3, 6, 0)
	s.place()
	for i := range s.parts {
		s.parts[i].owner = s.nodes[0].id // out of balance
	}
	s.parts[1].owner, s.parts[4].owner = "", "gone"
	changes := planOwners(s.nodes, s.parts, 1)
	if len(changes) != 2 || changes[0].partition+changes[1].partition != 5 {
		t.Errorf("plan = %v, want owners for partitions 1 and 4", changes)
	}
	for _, c := range changes {
		if c.owner == s.nodes[0].id {
			t.Errorf("partition %d goes to the node that owns most", c.partition)
		}
		s.parts[c.partition].owner = c.owner
	}
	if changes := planOwners(s.nodes, s.parts, 1); len(changes) != 1 {
		t.Errorf("plan = %v, want one move for balance", changes)
	}
}

func TestAPartitionWithoutALiveReplicaWaits(t *testing.T) {
	s := newPlanSim(t, 3, 3, 1)
	s.settle(3)
	var dead string
	s.nodes[0].alive, dead = false, s.nodes[0].id
	for i := range s.parts {
		if s.parts[i].owner == dead {
			s.parts[i].owner = ""
		}
	}
	if changes := planOwners(s.nodes, s.parts, 3); len(changes) != 0 {
		t.Errorf("plan = %v, want none: the only replica is dead", changes)
	}
}

func TestADrainingNodeGivesAwayWhatItOwns(t *testing.T) {
	s := newPlanSim(t, 4, 8, 3)
	s.settle(8)
	s.nodes[1].draining = true
	if replicas, owners := s.settle(2); replicas != 0 || owners < 2 {
		t.Errorf("draining placed %d replicas and moved %d owners, want 0 and at least 2", replicas, owners)
	}
	s.want()
	// The last one keeps what nobody else can have.
	lone := newPlanSim(t, 1, 3, 0)
	lone.nodes[0].draining = true
	lone.place()
	changes := planOwners(lone.nodes, lone.parts, 3)
	if len(changes) != 3 {
		t.Errorf("plan = %v, want owners for 3 partitions on a draining node without others", changes)
	}
}

func TestAnOperatorsMoveIsHonouredAndNotUndone(t *testing.T) {
	s := newPlanSim(t, 3, 6, 0)
	s.settle(6)
	to := s.nodes[0].id
	var moved []int
	for i := range s.parts {
		if s.parts[i].owner != to && len(moved) < 2 {
			moved = append(moved, i)
			s.parts[i].wanted = to
		}
	}
	s.settle(1)
	for _, i := range moved {
		if s.parts[i].owner != to {
			t.Errorf("partition %d is at %s, want %s", i, s.parts[i].owner, to)
		}
	}
	s.want() // others made room
	for i := range s.parts {
		s.parts[i].wanted = to
	}
	s.settle(1)
	if owned, _ := s.loads(); owned[to] != 6 {
		t.Errorf("%s owns %d, want the 6 it is wanted for", to, owned[to])
	}
	s.nodes[0].alive = false
	for i := range s.parts {
		s.parts[i].owner = ""
	}
	s.settle(1)
	s.nodes[0].alive = true
	for i := range s.parts {
		s.parts[i].wanted = "" // as the table does when it dies
	}
	s.settle(1)
	s.want()
}

func TestReplicasFollowTheNumberOfCoreNodes(t *testing.T) {
	for _, tt := range []struct {
		cores, configured int
		grown             bool
		want              int
	}{
		{0, 0, false, 0}, {1, 0, false, 1}, {2, 0, false, 1}, {2, 0, true, 2}, {3, 0, false, 3}, {4, 0, true, 3},
		{5, 0, false, 5}, {1000, 0, true, 5}, {7, 3, true, 3}, {2, 3, true, 2},
	} {
		if got := replicaCount(tt.cores, tt.configured, tt.grown); got != tt.want {
			t.Errorf("replicaCount(%d, %d, %v) = %d, want %d", tt.cores, tt.configured, tt.grown, got, tt.want)
		}
	}
}

func TestAPlanDependsOnNothingButTheTable(t *testing.T) {
	a, b := newPlanSim(t, 40, 80, 3), newPlanSim(t, 40, 80, 3)
	slices.Reverse(b.nodes)
	a.settle(5)
	b.settle(5)
	for i := range a.parts {
		if a.parts[i].owner != b.parts[i].owner || !slices.Equal(a.parts[i].replicas, b.parts[i].replicas) {
			t.Fatalf("partition %d is %+v and %+v", i, a.parts[i], b.parts[i])
		}
	}
}
