package cluster_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/cluster"
	"hadal/cluster/clustertest"
)

const setKind = cluster.KindPresence

// setNode is a node that has nothing but a set, and notes what the set tells.
type setNode struct {
	t     *testing.T
	id    string
	bus   *clustertest.WiredBus
	table *clustertest.WiredTable
	set   *cluster.Set

	mu     sync.Mutex
	counts map[[2]string]bool // peer and name; guarded by mu
	calls  int                // guarded by mu
}

func (n *setNode) changed(peer, name string, has bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	key := [2]string{peer, name}
	if n.counts[key] == has {
		n.t.Errorf("%s is told twice that %s has %q: %v", n.id, peer, name, has)
	}
	if has {
		n.counts[key] = true
	} else {
		delete(n.counts, key)
	}
	if got := slices.Contains(n.set.Peers(name), peer); has && !got {
		n.t.Errorf("%s is told that %s has %q, and Peers does not say so", n.id, peer, name)
	}
}

// told are the calls since it was asked last.
func (n *setNode) told() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	calls := n.calls
	n.calls = 0
	return calls
}

// withSets runs a test in a bubble, with a set on each of so many nodes, not linked yet.
func withSets(t *testing.T, nodes int, test func(t *testing.T, w *clustertest.Wires, n []*setNode)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := clustertest.NewWires()
		w.Delay = func() time.Duration { return time.Duration(rand.IntN(1000)) * time.Microsecond }
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var all []*setNode
		for i := range nodes {
			n := &setNode{t: t, id: string(rune('a' + i)), counts: make(map[[2]string]bool)}
			n.bus, n.table = w.Node(n.id)
			n.set = cluster.NewSet(n.bus, n.table, setKind, n.changed)
			running.Go(func() {
				if err := n.set.Run(ctx); err != nil {
					t.Errorf("Run = %v", err)
				}
			})
			all = append(all, n)
		}
		test(t, w, all)
		stop()
		running.Wait()
		w.Close()
	})
}

// settle waits until nothing is under way any more.
func settle() {
	<-time.After(10 * time.Second)
	synctest.Wait()
}

func (n *setNode) expect(what, name string, want ...string) {
	n.t.Helper()
	got := n.set.Peers(name)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		n.t.Errorf("%s: %s thinks that %q is at %v, want %v", what, n.id, name, got, want)
	}
	if got := n.set.Elsewhere(name); got != (len(want) > 0) {
		n.t.Errorf("%s: Elsewhere(%q) of %s = %v", what, name, n.id, got)
	}
}

func TestNamesAreKnownOnAllNodes(t *testing.T) {
	withSets(t, 3, func(t *testing.T, w *clustertest.Wires, n []*setNode) {
		n[0].set.Add("early")
		settle()
		if got := n[0].set.Missing(); !slices.Equal(got, []string{"b", "c"}) && !slices.Equal(got, []string{"c", "b"}) {
			t.Errorf("Missing = %v without a link", got)
		}
		w.LinkAll()
		settle()
		if got := n[0].set.Missing(); len(got) > 0 {
			t.Errorf("Missing = %v with all links", got)
		}
		if n[0].set.Settle() <= 0 {
			t.Error("Settle is 0 with other nodes")
		}
		n[0].set.Add("x")
		n[1].set.Add("x")
		n[1].set.Add("x")
		settle()
		n[2].expect("added before the link", "early", "a")
		n[2].expect("added afterwards", "x", "a", "b")
		n[0].expect("its own", "x", "b")
		if !n[0].set.Has("early") || !n[2].set.Has("early") || n[2].set.Has("late") {
			t.Error("Has is wrong")
		}
		n[0].set.Remove("x")
		n[0].set.Remove("x")
		n[2].set.Remove("x")
		settle()
		n[2].expect("removed on one", "x", "b")
		n[1].expect("removed on the other", "x")
		if got := n[1].set.Stats(); got.Own != 1 || got.Others != 1 || got.Invalid != 0 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestAPeerThatComesBackWithTheSameNamesIsNotNews(t *testing.T) {
	withSets(t, 2, func(t *testing.T, w *clustertest.Wires, n []*setNode) {
		for i := range 1000 {
			n[0].set.Add(fmt.Sprint(i))
		}
		w.LinkAll()
		settle()
		if got := n[1].told(); got != 1000 {
			t.Errorf("told %d times of 1000 names", got)
		}
		w.CutOff("a")
		settle()
		n[1].expect("without a link", "7", "a")
		w.LinkAll()
		settle()
		if got := n[1].told(); got != 0 {
			t.Errorf("told %d times of nothing new", got)
		}
		w.CutOff("a")
		n[0].set.Remove("7")
		n[0].set.Add("new")
		w.LinkAll()
		settle()
		n[1].expect("removed without a link", "7")
		n[1].expect("added without a link", "new", "a")
		if got := n[1].told(); got != 2 {
			t.Errorf("told %d times of two changes", got)
		}
	})
}

func TestNamesCountWhileTheTableSaysThatTheirNodeIsAlive(t *testing.T) {
	withSets(t, 2, func(t *testing.T, w *clustertest.Wires, n []*setNode) {
		n[0].set.Add("x")
		n[0].set.Add("y")
		w.LinkAll()
		settle()
		n[1].told()
		w.SetAlive("a", false)
		settle()
		n[1].expect("dead with its link", "x")
		n[0].set.Remove("y")
		n[0].set.Add("z")
		settle()
		if got := n[1].told(); got != 2 {
			t.Errorf("told %d times of the loss of two names", got)
		}
		w.SetAlive("a", true)
		settle()
		n[1].expect("alive again", "x", "a")
		n[1].expect("changed while it was dead", "z", "a")
		n[1].expect("removed while it was dead", "y")
		if got := n[1].told(); got != 2 {
			t.Errorf("told %d times of two names", got)
		}
		w.SetAlive("a", false)
		w.CutOff("a")
		settle()
		if got := n[1].set.Stats().Others; got != 0 {
			t.Errorf("%d names of a dead node without a link are kept", got)
		}
		w.SetAlive("a", true)
		settle()
		n[1].expect("alive without a link", "x")
		w.LinkAll()
		settle()
		n[1].expect("back", "x", "a")
		n[1].table.Remove("a")
		settle()
		n[1].expect("not a member any more", "x")
	})
}

func TestASnapshotOfManyNamesGoesInParts(t *testing.T) {
	withSets(t, 2, func(t *testing.T, w *clustertest.Wires, n []*setNode) {
		const names = 10_000
		long := strings.Repeat("x", 1000)
		for i := range names {
			n[0].set.Add(fmt.Sprint("user/", long, i))
		}
		w.LinkAll()
		settle()
		if got := n[1].set.Stats(); got.Others != names || got.Heard < 150 || got.Heard > 160 {
			t.Errorf("Stats = %+v", got)
		}
		for i := range names {
			n[0].set.Remove(fmt.Sprint("user/", long, i))
		}
		settle()
		if got := n[1].set.Stats(); got.Others != 0 || got.Heard > 320 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestHoweverLinksAndVerdictsChangeAllAgreeInTheEnd(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			withSets(t, 4, func(t *testing.T, w *clustertest.Wires, n []*setNode) { chaos(t, w, n, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func chaos(t *testing.T, w *clustertest.Wires, nodes []*setNode, r *rand.Rand) {
	own := make([]map[string]bool, len(nodes))
	for i := range own {
		own[i] = make(map[string]bool)
	}
	someone := func() *setNode { return nodes[r.IntN(len(nodes))] }
	for range 2000 {
		i := r.IntN(len(nodes))
		name := fmt.Sprint(r.IntN(40))
		switch r.IntN(12) {
		case 0:
			w.Link(someone().id, someone().id)
		case 1:
			w.Cut(someone().id, someone().id)
		case 2:
			w.SetAlive(someone().id, r.IntN(3) > 0)
		case 3: // the verdict does not reach everybody
			if other := someone(); other != nodes[i] {
				nodes[i].table.SetAlive(other.id, r.IntN(3) > 0)
			}
		case 4:
			<-time.After(time.Duration(r.IntN(3000)) * time.Microsecond)
		case 5, 6, 7:
			nodes[i].set.Remove(name)
			delete(own[i], name)
		default:
			nodes[i].set.Add(name)
			own[i][name] = true
		}
	}
	w.LinkAll()
	dead := someone().id
	for _, n := range nodes {
		w.SetAlive(n.id, n.id != dead)
	}
	settle()
	for _, n := range nodes {
		want := make(map[[2]string]bool)
		for j, other := range nodes {
			if other != n && other.id != dead {
				for name := range own[j] {
					want[[2]string{other.id, name}] = true
				}
			}
		}
		if !maps.Equal(n.counts, want) {
			t.Errorf("%s was told of %v, want %v", n.id, n.counts, want)
		}
		for i := range 40 {
			var at []string
			for _, other := range nodes {
				if want[[2]string{other.id, fmt.Sprint(i)}] {
					at = append(at, other.id)
				}
			}
			n.expect("in the end", fmt.Sprint(i), at...)
		}
	}
}

func TestASetAloneKeepsItsOwnNames(t *testing.T) {
	s := cluster.NewSet(cluster.Alone{}, cluster.NewSoloInMemory("n"), setKind, nil)
	s.Add("x")
	if !s.Has("x") || s.Elsewhere("x") || len(s.Peers("x")) > 0 {
		t.Error("a name of its own is not known, or is somewhere else")
	}
	s.Remove("x")
	if s.Has("x") {
		t.Error("a name that was removed is there")
	}
	if s.Settle() != 0 || len(s.Missing()) > 0 {
		t.Error("a set alone waits for others")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func FuzzSetMessage(f *testing.F) {
	f.Add([]byte{1, 0, 1, 1, 'x', 0, 1, 'x'})
	f.Add([]byte{1, 7, 1, 'x', 0})
	f.Add([]byte{1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var h hearing
		told := make(map[string]bool)
		s := cluster.NewSet(&h, cluster.NewSoloInMemory("n"), setKind, func(_, name string, has bool) { told[name] = has })
		h.handler.Up("p")
		h.handler.Hear("p", []byte{1, 7})
		h.handler.Hear("p", payload)
		if st := s.Stats(); st.Others > len(payload) || st.Heard != 2 || st.Invalid > 1 {
			t.Errorf("Stats = %+v", st)
		}
		if len(told) > 0 {
			t.Errorf("told %v of a peer that no table knows", told)
		}
		h.handler.Down("p")
		if st := s.Stats(); st.Others > 0 {
			t.Errorf("Stats = %+v of a peer that has gone", st)
		}
	})
}

// hearing is a Bus whose handler the test calls.
type hearing struct {
	cluster.Alone
	handler cluster.Handler
}

func (h *hearing) Handle(_ cluster.Kind, to cluster.Handler) { h.handler = to }

func BenchmarkSetAdd(b *testing.B) {
	s := cluster.NewSet(cluster.Alone{}, cluster.NewSoloInMemory("n"), setKind, nil)
	b.ReportAllocs()
	for b.Loop() {
		s.Add("some/user")
		s.Remove("some/user")
	}
}

// A peer comes with a hundred thousand names, and goes.
func BenchmarkSetSnapshotHeard(b *testing.B) {
	var parts [][]byte
	part := []byte{1, 5}
	for i := range 100_000 {
		name := fmt.Sprintf("user-%020d", i)
		part = append(append(part, byte(len(name))), name...)
		if len(part) > 64<<10 {
			parts = append(parts, part)
			part = []byte{1, 4}
		}
	}
	part[1] |= 2
	parts = append(parts, part)
	var h hearing
	cluster.NewSet(&h, cluster.NewSoloInMemory("n"), setKind, nil)
	b.ReportAllocs()
	for b.Loop() {
		h.handler.Up("p")
		for _, part := range parts {
			h.handler.Hear("p", part)
		}
		h.handler.Down("p")
	}
}
