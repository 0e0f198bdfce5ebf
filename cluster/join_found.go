package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// founding is what a node knows and decides about how its cluster begins. It does not
// talk: Joiner does, or a test. Its rules are told at Joiner.
type founding struct {
	persist func(Formation) error
	expect  int // 0: as many as there may be

	mu        sync.Mutex
	node      NodeInfo   // guarded by mu
	promised  *Formation // guarded by mu
	announced []string   // guarded by mu
}

func newFounding(opts JoinOptions) *founding {
	return &founding{persist: opts.Persist, expect: opts.Expect, node: opts.Self, promised: opts.Promised}
}

// self is this node as others are told.
func (f *founding) self() NodeInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.node
}

// founders are those of the promise.
func (f *founding) founders() []Founder {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.promised == nil {
		return nil
	}
	return f.promised.Founders
}

// formed notes that the cluster exists.
func (f *founding) formed(clusterID, leader string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.node.ClusterID, f.node.Formed, f.node.Leader = clusterID, true, leader
	f.announced = nil
}

// answer answers a question; a proposal is promised or refused.
func (f *founding) answer(q question) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	var refused string
	if q.Propose != nil {
		if err := f.promise(q.From, *q.Propose); err != nil {
			refused = err.Error()
		}
	}
	return answer{Node: f.node, Announced: slices.Clone(f.announced), Promised: f.promised, Refused: refused}
}

// promise promises what another node proposes. Under mu.
func (f *founding) promise(from NodeInfo, p Formation) error {
	switch {
	case f.promised != nil && f.promised.equal(p):
		return nil
	case f.promised != nil:
		return fmt.Errorf("node %s has promised to found cluster id %s with %s", f.node.Name, f.promised.ClusterID, names(f.promised.Founders))
	case f.node.ClusterID != "":
		return fmt.Errorf("node %s belongs to cluster id %s", f.node.Name, f.node.ClusterID)
	case p.ClusterID == "" || len(p.Founders) == 0 || p.Founders[0].ID != from.ID:
		return fmt.Errorf("node %s is not who proposes such a formation", from.Name)
	case !slices.Equal(p.ids(), f.announced):
		return fmt.Errorf("node %s has other founders in mind", f.node.Name)
	}
	if err := f.persist(p); err != nil {
		return fmt.Errorf("node %s cannot keep a promise: %w", f.node.Name, err)
	}
	f.promised, f.announced = &p, p.ids()
	return nil
}

// step is what to do next: one of the three, and words for the log.
type step struct {
	done    *Formation
	propose *Formation
	waits   string
}

// waiting is a step that waits.
func waiting(format string, args ...any) (step, error) {
	return step{waits: fmt.Sprintf(format, args...)}, nil
}

// next decides by what one round has shown.
func (f *founding) next(v view) (step, error) {
	if err := v.copied(); err != nil {
		return step{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	answers := v.answers
	for _, a := range answers {
		if a.Node.Formed && f.node.ClusterID != "" && a.Node.ClusterID != f.node.ClusterID {
			return step{}, fmt.Errorf("node %s at %s is in cluster id %s, this node's data directory belongs to cluster id %s: "+
				"correct --join, or start with an empty data directory to join that one", a.Node.Name, a.address, a.Node.ClusterID, f.node.ClusterID)
		}
	}
	switch {
	case f.node.Formed:
		return f.rejoin(answers)
	case f.promised != nil:
		return f.keep(answers)
	}
	if s, err := f.join(answers); s != nil || err != nil {
		f.announced = nil
		if err != nil {
			return step{}, err
		}
		return *s, nil
	}
	if f.node.ClusterID != "" {
		f.announced = nil
		return waiting("no member of cluster id %s answers", f.node.ClusterID)
	}
	return f.gather(v)
}

// rejoin looks for the leader of this node's cluster. Under mu.
func (f *founding) rejoin(answers []located) (step, error) {
	if f.node.Leader != "" {
		return step{done: &Formation{ClusterID: f.node.ClusterID, Leader: f.node.Leader}}, nil
	}
	for _, a := range answers {
		if a.Node.Formed && a.Node.Leader != "" {
			return step{done: &Formation{ClusterID: f.node.ClusterID, Leader: a.Node.Leader}}, nil
		}
	}
	return waiting("no member of cluster id %s that answers knows a leader", f.node.ClusterID)
}

// join joins a cluster that exists, if there is one. Under mu.
func (f *founding) join(answers []located) (*step, error) {
	var in *located
	for i, a := range answers {
		if !a.Node.Formed {
			continue
		}
		if in != nil && in.Node.ClusterID != a.Node.ClusterID {
			return nil, fmt.Errorf("node %s at %s is in cluster id %s, node %s at %s in cluster id %s: name nodes of one cluster in --join",
				in.Node.Name, in.address, in.Node.ClusterID, a.Node.Name, a.address, a.Node.ClusterID)
		}
		if in == nil || in.Node.Leader == "" {
			in = &answers[i]
		}
	}
	if in == nil {
		return nil, nil
	}
	if f.node.SoloRecords {
		return nil, fmt.Errorf("this data directory holds records of a node that ran alone, and node %s at %s is in cluster id %s already: "+
			"they would not get into it; export them first, then start with an empty data directory and import them", in.Node.Name, in.address, in.Node.ClusterID)
	}
	if in.Node.Leader == "" {
		return &step{waits: fmt.Sprintf("cluster id %s exists, and has no leader now", in.Node.ClusterID)}, nil
	}
	return &step{done: &Formation{ClusterID: in.Node.ClusterID, Leader: in.Node.Leader}}, nil
}

// keep goes on with the promise. Under mu.
func (f *founding) keep(answers []located) (step, error) {
	f.announced = f.promised.ids()
	var exists *Formation
	var leader string
	yes := map[string]bool{f.node.ID: true}
	for _, a := range answers {
		mine := a.Promised != nil && a.Promised.equal(*f.promised)
		if mine {
			yes[a.Node.ID] = true
		}
		ours := slices.Contains(f.announced, a.Node.ID)
		switch {
		case a.Node.Formed && a.Node.ClusterID == f.promised.ClusterID:
			// It exists, so all have promised. Without a leader it may wait for us.
			exists = f.promised
			leader = cmp.Or(leader, a.Node.Leader)
		case a.Node.Formed:
			return step{}, fmt.Errorf("this node has promised to found cluster id %s with %s, and node %s at %s is in cluster id %s: "+
				"start this node with an empty data directory to join that one", f.promised.ClusterID, names(f.promised.Founders), a.Node.Name, a.address, a.Node.ClusterID)
		case ours && a.Promised != nil && !mine:
			return step{}, fmt.Errorf("this node has promised to found cluster id %s with %s, but node %s has promised cluster id %s: "+
				"neither cluster can begin; stop these nodes and start them with empty data directories", f.promised.ClusterID, names(f.promised.Founders), a.Node.Name, a.Promised.ClusterID)
		}
	}
	if exists != nil {
		return step{done: &Formation{ClusterID: exists.ClusterID, Founders: exists.Founders, Leader: leader}}, nil
	}
	var missing []Founder
	for _, founder := range f.promised.Founders {
		if !yes[founder.ID] {
			missing = append(missing, founder)
		}
	}
	if len(missing) == 0 {
		return step{done: f.promised}, nil
	}
	s := step{waits: fmt.Sprintf("founders of cluster id %s have not all promised: %s is missing (if its data directory is lost for good, start all founders with empty ones)",
		f.promised.ClusterID, names(missing))}
	if f.promised.Founders[0].ID == f.node.ID && slices.ContainsFunc(answers, func(a located) bool {
		return !yes[a.Node.ID] && slices.Equal(a.Announced, f.announced)
	}) {
		s.propose = f.promised
	}
	return s, nil
}

// gather looks for founders, and proposes when it is this node's turn. Under mu.
func (f *founding) gather(v view) (step, error) {
	answers := v.answers
	f.announced = nil
	if f.node.Role != RoleCore {
		return waiting("no cluster exists yet, and this node, which is no core node, founds none")
	}
	expect := f.expect
	switch {
	case expect > 0:
	case v.several != "":
		return waiting("%s stands for several nodes: say with --bootstrap-expect how many are to found a cluster", v.several)
	case v.possible == 1:
		return waiting("--join names no other node: name one")
	default:
		expect = v.possible
	}
	// Somebody may have promised a formation with us before a crash.
	for _, a := range answers {
		if a.Promised != nil && slices.ContainsFunc(a.Promised.Founders, func(founder Founder) bool { return founder.ID == f.node.ID }) {
			f.announced = a.Promised.ids()
			return waiting("node %s founds cluster id %s with %s", a.Node.Name, a.Promised.ClusterID, names(a.Promised.Founders))
		}
	}
	founders := []Founder{founderOf(f.node)}
	cores := 1
	for _, a := range answers {
		if a.Node.Role != RoleCore {
			continue
		}
		cores++
		if a.Promised == nil && a.Node.ClusterID == "" {
			founders = append(founders, founderOf(a.Node))
		}
	}
	slices.SortFunc(founders, func(a, b Founder) int { return cmp.Compare(a.ID, b.ID) })
	if len(founders) < expect {
		return waiting("%d of %d core nodes that are to found a cluster see each other: %s", len(founders), expect, names(founders))
	}
	if all := max(v.possible, cores); 2*expect <= all {
		return waiting("%d core nodes are to found a cluster, which is not more than half of the %d that may exist: raise --bootstrap-expect", expect, all)
	}
	founders = founders[:expect]
	var solo []Founder
	for _, founder := range founders {
		if founder.SoloRecords {
			solo = append(solo, founder)
		}
	}
	if len(solo) > 1 {
		return waiting("%s each hold records of their own, and only one can bring them into a cluster: start the others with empty data directories", names(solo))
	}
	list := Formation{Founders: founders}
	if !slices.Contains(list.ids(), f.node.ID) {
		return waiting("%s found a cluster, which this node then joins", names(founders))
	}
	f.announced = list.ids()
	for _, a := range answers {
		if slices.Contains(f.announced, a.Node.ID) && !slices.Equal(a.Announced, f.announced) {
			return waiting("%s see each other, and %s does not see all of them yet", names(founders), a.Node.Name)
		}
	}
	if founders[0].ID != f.node.ID {
		return waiting("%s see each other, and %s proposes the cluster", names(founders), founders[0].Name)
	}
	list.ClusterID = newID()
	if err := f.persist(list); err != nil {
		return step{}, fmt.Errorf("keep the formation of cluster id %s: %w", list.ClusterID, err)
	}
	f.promised = &list
	if len(founders) == 1 {
		return step{done: f.promised}, nil
	}
	return step{propose: f.promised, waits: fmt.Sprintf("this node proposes cluster id %s with %s", list.ClusterID, names(founders))}, nil
}

// founderOf is a node as a founder.
func founderOf(n NodeInfo) Founder {
	return Founder{ID: n.ID, Name: n.Name, Address: n.Address, Routes: n.Routes, SoloRecords: n.SoloRecords}
}

// names are founders for people.
func names(founders []Founder) string {
	words := make([]string, len(founders))
	for i, f := range founders {
		words[i] = fmt.Sprintf("%s (%s)", f.Name, f.ID)
	}
	return strings.Join(words, ", ")
}
