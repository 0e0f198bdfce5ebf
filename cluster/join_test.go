package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// town is a network of nodes that found a cluster, in memory: who asks, decides,
// crashes and is cut off is drawn from a seed.
type town struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	expect int
	nodes  []*citizen
	cut    map[[2]int]bool
	mail   []proposal // under way
	formed *Formation // what somebody has bootstrapped
	// conflicts are proposals to nodes that have promised another.
	conflicts int
}

// citizen is a node with its disk.
type citizen struct {
	info     NodeInfo
	disk     *Formation // promised
	member   string     // the cluster id it belongs to
	up       *founding  // nil while it is down
	answers  map[string]located
	dies     int // 1: before the next promise is on disk, 2: after, 3: does not die, but the disk is full
	finished bool
}

// proposal is one message.
type proposal struct {
	from NodeInfo
	to   int
	f    Formation
}

var errCrash = errors.New("crash")

func newTown(t *testing.T, seed uint64) *town {
	w := &town{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 7)), cut: make(map[[2]int]bool)}
	// As many as there are, of which all must found it in the end; or more than are
	// needed, where founders' lists can differ, and promises block each other.
	n := 1 + w.random.IntN(5)
	w.expect = n
	if w.random.IntN(2) == 0 {
		n = 3 + w.random.IntN(4)
		w.expect = n/2 + 1
	}
	order := w.random.Perm(n)
	for i := range n {
		w.nodes = append(w.nodes, &citizen{info: NodeInfo{
			ID: fmt.Sprint("id", order[i]), Name: fmt.Sprint("n", i), Role: RoleCore, Address: fmt.Sprintf("h%d:1", i),
		}})
	}
	return w
}

func (w *town) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: "+format, append([]any{w.seed}, args...)...)
}

func (w *town) start(c *citizen) {
	if c.up != nil {
		return
	}
	c.answers = make(map[string]located)
	c.info.Incarnation++
	self := c.info
	if c.member != "" { // its raft group is on its disk, and runs
		self.ClusterID, self.Formed, self.Leader = c.member, true, c.info.Address
	}
	c.up = newFounding(JoinOptions{Expect: w.expect, Self: self, Promised: c.disk, Persist: func(f Formation) error {
		if c.disk != nil {
			w.fail("%s promises twice", c.info.Name)
		}
		switch c.dies {
		case 1:
			return errCrash
		case 3:
			return errors.New("no space")
		}
		c.disk = &f
		if c.dies == 2 {
			return errCrash
		}
		return nil
	}})
}

// reap ends a node that was to die at its promise.
func (c *citizen) reap(err error) bool {
	if c.dies > 0 && err != nil && strings.Contains(err.Error(), errCrash.Error()) {
		c.dies, c.up = 0, nil
		return true
	}
	return false
}

func (w *town) reaches(i, j int) bool {
	return w.nodes[j].up != nil && !w.cut[[2]int{min(i, j), max(i, j)}]
}

// ask is a question and its answer, which may get lost.
func (w *town) ask(i, j int, lossy bool) {
	from, to := w.nodes[i], w.nodes[j]
	if i == j || from.up == nil || !w.reaches(i, j) {
		return
	}
	a := to.up.answer(question{From: from.up.self()})
	if lossy && w.random.IntN(5) == 0 {
		return
	}
	from.answers[a.Node.ID] = located{a, to.info.Address}
}

// deliver delivers a proposal, whether or not its sender still lives.
func (w *town) deliver(p proposal) {
	c := w.nodes[p.to]
	if c.up == nil {
		return
	}
	a := c.up.answer(question{From: p.from, Propose: &p.f})
	if a.Refused != "" {
		if strings.Contains(a.Refused, "has promised") {
			w.conflicts++
		}
		c.reap(errors.New(a.Refused))
	}
}

// decide lets a node decide by what it was answered, lately or long ago.
func (w *town) decide(i int) {
	c := w.nodes[i]
	if c.up == nil || c.finished {
		return
	}
	v := view{possible: len(w.nodes)}
	for _, a := range c.answers {
		v.answers = append(v.answers, a)
	}
	slices.SortFunc(v.answers, func(a, b located) int { return strings.Compare(a.Node.ID, b.Node.ID) })
	s, err := c.up.next(v)
	if err != nil {
		if !c.reap(err) && c.dies != 3 && w.expect == len(w.nodes) {
			w.fail("%s: %v", c.info.Name, err)
		}
		return
	}
	if s.propose != nil {
		if c.disk == nil || !c.disk.equal(*s.propose) {
			w.fail("%s proposes what it has not promised", c.info.Name)
		}
		for j, to := range w.nodes {
			if j != i && slices.Contains(s.propose.ids(), to.info.ID) {
				w.mail = append(w.mail, proposal{from: c.up.self(), to: j, f: *s.propose})
			}
		}
	}
	if s.done == nil {
		return
	}
	if s.done.Founds() {
		for _, founder := range s.done.Founders {
			at := slices.IndexFunc(w.nodes, func(c *citizen) bool { return c.info.ID == founder.ID })
			if d := w.nodes[at].disk; d == nil || !d.equal(*s.done) {
				w.fail("%s bootstraps, and %s has not promised", c.info.Name, founder.Name)
			}
		}
		if w.formed != nil && !w.formed.equal(*s.done) {
			w.fail("two clusters: %+v and %+v", *w.formed, *s.done)
		}
		w.formed = s.done
	} else if w.formed == nil || s.done.ClusterID != w.formed.ClusterID {
		w.fail("%s joins %q, which nobody has bootstrapped", c.info.Name, s.done.ClusterID)
	}
	c.finished, c.member = true, s.done.ClusterID
	c.up.formed(c.member, c.info.Address)
}

// step does one thing.
func (w *town) step() {
	i, j := w.random.IntN(len(w.nodes)), w.random.IntN(len(w.nodes))
	switch w.random.IntN(20) {
	case 0, 1:
		w.start(w.nodes[i])
	case 2:
		w.nodes[i].up = nil
		w.nodes[i].finished = false
	case 3:
		w.nodes[i].dies = w.random.IntN(4)
	case 4:
		if w.random.IntN(4) > 0 {
			w.cut[[2]int{min(i, j), max(i, j)}] = w.random.IntN(2) == 0
			break
		}
		for k := range w.nodes { // one is cut off
			w.cut[[2]int{min(i, k), max(i, k)}] = true
		}
	case 5, 6, 7, 8, 9, 10: // a round; what is decided by it may come much later
		if w.nodes[i].up != nil {
			clear(w.nodes[i].answers)
			for j := range w.nodes {
				w.ask(i, j, true)
			}
		}
	case 11, 12:
		if len(w.mail) > 0 {
			at := w.random.IntN(len(w.mail))
			p := w.mail[at]
			if w.random.IntN(3) > 0 { // else it is delivered twice, or late
				w.mail = slices.Delete(w.mail, at, at+1)
			}
			w.deliver(p)
		}
	case 13, 14, 15, 16, 17:
		w.decide(i)
	default:
		w.ask(i, j, true)
	}
}

// calm ends all faults and lets everybody go on in rounds.
func (w *town) calm() (finished int) {
	clear(w.cut)
	for range 12 {
		for i, c := range w.nodes {
			c.dies = 0
			w.start(c)
			clear(c.answers)
			for j := range w.nodes {
				w.ask(i, j, false)
			}
			w.decide(i)
			mail := w.mail
			w.mail = nil
			for _, p := range mail {
				w.deliver(p)
			}
		}
	}
	for _, c := range w.nodes {
		if c.finished {
			finished++
		}
	}
	return finished
}

func TestNeverTwoClustersHoweverFoundingGoes(t *testing.T) {
	formed, stuck, conflicts := 0, 0, 0
	for seed := range uint64(4000) {
		w := newTown(t, seed)
		for range 50 + w.random.IntN(300) {
			w.step()
		}
		finished := w.calm()
		conflicts += w.conflicts
		switch {
		case finished == len(w.nodes):
			formed++
		case w.expect == len(w.nodes):
			w.fail("%d of %d nodes found the cluster after all faults", finished, len(w.nodes))
		default:
			stuck++
		}
	}
	if formed < 3000 || conflicts == 0 {
		t.Errorf("%d of 4000 towns founded a cluster in the end, %d did not; %d proposals met another promise: the faults are too mild or too harsh", formed, stuck, conflicts)
	}
}

// joinNode is a node that looks for its cluster over real connections.
type joinNode struct {
	*Joiner
	port     *Port
	mu       sync.Mutex
	promised []Formation
}

func startJoin(t *testing.T, id string, seeds []string, more func(*JoinOptions)) *joinNode {
	t.Helper()
	n := &joinNode{port: listenPort(t, PortConfig{}, secretIdentity(t, id))}
	opts := JoinOptions{
		Seeds: seeds, Self: NodeInfo{ID: id, Name: "node-" + id, Role: RoleCore, Incarnation: 1, Address: n.port.Address(), Routes: "r" + id + ":1"},
		Persist: func(f Formation) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.promised = append(n.promised, f)
			return nil
		},
	}
	if more != nil {
		more(&opts)
	}
	var err error
	if n.Joiner, err = NewJoiner(opts, n.port, quiet()); err != nil {
		t.Fatal(err)
	}
	run(t, "port", n.port.Run)
	return n
}

// discover runs Discover of several nodes at once.
func discover(t *testing.T, nodes ...*joinNode) []Formation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out := make([]Formation, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			f, err := n.Discover(ctx)
			if err != nil {
				t.Errorf("Discover of %s = %v", n.opts.Self.ID, err)
			}
			out[i] = f
		})
	}
	wg.Wait()
	return out
}

func TestThreeNodesFoundAClusterAndAFourthJoinsIt(t *testing.T) {
	three := func(o *JoinOptions) { o.Expect = 3 }
	a := startJoin(t, "a", nil, three)
	seed := []string{a.port.Address()} // all know one
	b, c := startJoin(t, "b", seed, three), startJoin(t, "c", seed, func(o *JoinOptions) { three(o); o.Self.SoloRecords = true })
	got := discover(t, a, b, c)
	for _, f := range got {
		if !f.equal(got[0]) || len(f.Founders) != 3 || f.ClusterID == "" || f.Leader != "" {
			t.Fatalf("formations %+v", got)
		}
	}
	want := Founder{ID: "b", Name: "node-b", Address: b.port.Address(), Routes: "rb:1"}
	if f := got[0].Founders; f[1] != want || !f[2].SoloRecords || f[0].SoloRecords {
		t.Errorf("founders %+v", f)
	}
	for _, n := range []*joinNode{a, b, c} {
		if len(n.promised) != 1 || !n.promised[0].equal(got[0]) {
			t.Errorf("%s promised %+v", n.opts.Self.ID, n.promised)
		}
	}
	id := got[0].ClusterID
	// The cluster exists, and after a while it has a leader.
	b.Formed(id, "")
	timer := time.AfterFunc(100*time.Millisecond, func() { c.Formed(id, "leader:1") })
	defer timer.Stop()
	edge := startJoin(t, "e", []string{b.port.Address(), c.port.Address()}, func(o *JoinOptions) { o.Self.Role = RoleEdge })
	if f := discover(t, edge)[0]; f.Founds() || f.ClusterID != id || f.Leader != "leader:1" || len(edge.promised) > 0 {
		t.Errorf("the edge node gets %+v", f)
	}
	// A member that has lost the others finds the leader by any of them.
	back := startJoin(t, "a2", []string{b.port.Address(), c.port.Address()}, func(o *JoinOptions) { o.Self.ClusterID, o.Self.Formed = id, true })
	if f := discover(t, back)[0]; f.Founds() || f.Leader != "leader:1" {
		t.Errorf("the member gets %+v", f)
	}
	for what, more := range map[string]func(*JoinOptions){
		"other cluster": func(o *JoinOptions) { o.Self.ClusterID = "other" },
		"ran alone":     func(o *JoinOptions) { o.Self.SoloRecords = true },
		"has promised":  func(o *JoinOptions) { o.Promised = &Formation{ClusterID: "x", Founders: []Founder{{ID: "s"}}} },
	} {
		n := startJoin(t, "s", []string{c.port.Address()}, more)
		if _, err := n.Discover(t.Context()); err == nil || !strings.Contains(err.Error(), id) || !strings.Contains(err.Error(), "empty data director") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// addressesOf are ports as a name for several addresses would give them.
func TestANameMayStandForAllNodes(t *testing.T) {
	three := func(o *JoinOptions) { o.Expect = 3 }
	nodes := []*joinNode{startJoin(t, "a", nil, three), startJoin(t, "b", nil, three), startJoin(t, "c", nil, three)}
	byHost := make(map[string]string)
	var hosts []string
	for i, n := range nodes {
		host := fmt.Sprintf("10.0.0.%d", i)
		hosts = append(hosts, host)
		byHost[host+":1"] = n.port.Address()
	}
	for _, n := range nodes {
		real := n.ask
		n.opts.Seeds = []string{"headless:1"}
		n.resolve = func(context.Context, string) ([]string, error) { return hosts, nil }
		n.ask = func(ctx context.Context, address string, q question) (answer, error) {
			if to, ok := byHost[address]; ok {
				address = to
			}
			return real(ctx, address, q)
		}
	}
	got := discover(t, nodes...)
	if !got[0].Founds() || !got[1].equal(got[0]) || !got[2].equal(got[0]) {
		t.Errorf("formations %+v", got)
	}
}

func TestWhatMayNotFoundAClusterWaitsAndSaysWhy(t *testing.T) {
	core := func(id string) located {
		return located{answer: answer{Node: NodeInfo{ID: id, Name: id, Role: RoleCore}}}
	}
	solo := core("b")
	solo.Node.SoloRecords = true
	for _, tt := range []struct {
		what, word string
		expect     int
		self       NodeInfo
		view       view
	}{
		{"too few", "1 of 3", 0, NodeInfo{}, view{possible: 3}},
		{"an edge node", "founds none", 1, NodeInfo{Role: RoleEdge}, view{possible: 1}},
		{"alone, not asked to", "--join names no other node", 0, NodeInfo{}, view{possible: 1}},
		{"a name for several", "--bootstrap-expect", 0, NodeInfo{}, view{possible: 3, several: "x:1"}},
		{"half of them", "more than half", 2, NodeInfo{}, view{possible: 4, answers: []located{core("b")}}},
		{"more than expected", "raise", 1, NodeInfo{}, view{possible: 1, answers: []located{core("b")}}},
		{"two with records", "hold records", 2, NodeInfo{SoloRecords: true}, view{possible: 2, answers: []located{solo}}},
		{"lost members", "no member of cluster", 2, NodeInfo{ClusterID: "x"}, view{possible: 2, answers: []located{core("b")}}},
		{"not seen by all", "does not see", 2, NodeInfo{}, view{possible: 2, answers: []located{core("b")}}},
	} {
		tt.self.ID, tt.self.Name = "a", "a"
		if tt.self.Role == "" {
			tt.self.Role = RoleCore
		}
		f := newFounding(JoinOptions{Expect: tt.expect, Self: tt.self, Persist: func(Formation) error { return errors.New("promised") }})
		s, err := f.next(tt.view)
		if err != nil || s.done != nil || s.propose != nil || !strings.Contains(s.waits, tt.word) {
			t.Errorf("%s: %+v, %v, want %q", tt.what, s, err, tt.word)
		}
	}
	f := newFounding(JoinOptions{Expect: 1, Self: NodeInfo{ID: "a", Role: RoleCore}, Persist: func(Formation) error { return nil }})
	if s, err := f.next(view{possible: 1}); err != nil || s.done == nil || !s.done.Founds() {
		t.Errorf("a cluster of one: %+v, %v", s, err)
	}
}

func TestAFounderThatComesLateAsksTheLeaderWhereThereIsOne(t *testing.T) {
	promised := Formation{ClusterID: "x", Founders: []Founder{{ID: "a"}, {ID: "b"}, {ID: "c"}}}
	formed := func(id, leader string) located {
		return located{answer: answer{Node: NodeInfo{ID: id, Role: RoleCore, ClusterID: "x", Formed: true, Leader: leader}}}
	}
	for leader, founds := range map[string]bool{"": true, "h:1": false} {
		f := newFounding(JoinOptions{Expect: 3, Self: NodeInfo{ID: "c", Role: RoleCore}, Promised: &promised})
		s, err := f.next(view{possible: 3, answers: []located{formed("a", ""), formed("b", leader)}})
		if err != nil || s.done == nil || s.done.Founds() != founds || s.done.Leader != leader || !s.done.equal(promised) {
			t.Errorf("with leader %q: %+v, %v", leader, s, err)
		}
	}
}

func TestDiscoverSaysWhatItWaitsForAndEndsWithItsContext(t *testing.T) {
	a := startJoin(t, "a", []string{"127.0.0.1:1", "[::1]:1"}, nil)
	log := &lines{}
	a.log = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := a.Discover(ctx); done <- err }()
	until(t, "the log says so", func() bool { return log.has("1 of 3 core nodes") && log.has("127.0.0.1:1") })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Discover = %v", err)
	}
	for _, opts := range []JoinOptions{{Seeds: []string{"no-port"}}, {Expect: -1}} {
		opts.Persist = func(Formation) error { return nil }
		if _, err := NewJoiner(opts, a.port, quiet()); err == nil {
			t.Errorf("NewJoiner of %+v gives no error", opts)
		}
	}
}

// A machine that was cloned has the data directory of the other.
func TestACopyOfANodeIsFoundBeforeItTakesPart(t *testing.T) {
	run := func(run string) func(o *JoinOptions) {
		return func(o *JoinOptions) { o.Expect, o.Self.Run = 3, run }
	}
	a := startJoin(t, "a", nil, run("1"))
	log := &lines{}
	a.log = slog.New(slog.NewTextHandler(log, nil))
	b := startJoin(t, "b", []string{a.port.Address()}, run("2"))
	twin := startJoin(t, "a", []string{b.port.Address()}, run("3"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b.Meet([]string{a.port.Address()}) // it may not have asked yet
	if _, err := twin.Discover(ctx); !errors.Is(err, ErrCopied) || !strings.Contains(err.Error(), a.port.Address()) {
		t.Errorf("Discover of a copy = %v", err)
	}
	if err := twin.Twin(ctx, patience); !errors.Is(err, ErrCopied) {
		t.Errorf("Twin of a copy = %v", err)
	}
	until(t, "the one that is copied to say so", func() bool { return log.has("another process") && log.has(twin.port.Address()) })
	if err := b.Twin(ctx, patience); err != nil {
		t.Errorf("Twin of a node that was not copied = %v", err)
	}
	if slices.Contains(a.reply(question{From: b.opts.Self}).Known, twin.port.Address()) {
		t.Error("the copy's address is passed on")
	}
}

func FuzzJoin(f *testing.F) {
	for _, v := range []any{
		question{From: NodeInfo{ID: "a", Address: "h:1"}, Propose: &Formation{ClusterID: "x", Founders: []Founder{{ID: "a"}, {ID: "b"}}}},
		answer{Node: NodeInfo{ID: "a", Role: RoleCore, Formed: true, ClusterID: "x", Leader: "h:1"}, Announced: []string{"a"}, Known: []string{"h:1"}},
	} {
		var b bytes.Buffer
		if err := writeJSON(&b, v, maxJoin); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		promised := false
		j := newJoiner(JoinOptions{Expect: 2, Self: NodeInfo{ID: "b", Role: RoleCore}, Persist: func(Formation) error {
			promised = true
			return nil
		}}, quiet())
		var q question
		if readJSON(bytes.NewReader(in), &q, maxJoin) == nil {
			if j.reply(q); promised {
				t.Fatal("a promise that nobody had in mind")
			}
		}
		var a answer
		if readJSON(bytes.NewReader(in), &a, maxJoin) == nil {
			if s, err := j.found.next(view{possible: 2, answers: []located{{a, "x"}}}); err == nil && s.done != nil && s.done.Founds() {
				t.Fatal("founded on one answer")
			}
		}
	})
}

func TestAPromiseIsReadBackFromTheDataDirectory(t *testing.T) {
	path := t.TempDir()
	dir := openDir(t, path)
	if b := dir.Belongs(); b != nil {
		t.Errorf("a new directory belongs to %+v", b)
	}
	want := Belonging{Name: "n", ClusterID: "x", Founders: []Founder{{ID: "a", Name: "n", Address: "h:1", Routes: "h:0"}, {ID: "b", Address: "h:2", SoloRecords: true}}}
	if err := dir.Promise(want); err != nil {
		t.Fatal(err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	again := openDir(t, path)
	if b := again.Belongs(); b == nil || b.Name != "n" || b.ClusterID != "x" || !slices.Equal(b.Founders, want.Founders) || b.Joined || !b.adopts() || again.ClusterID() != "x" {
		t.Errorf("the directory belongs to %+v, want %+v", b, want)
	}
}
