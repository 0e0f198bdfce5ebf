package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// nodePlace is one node of a test's cluster.
type nodePlace struct {
	*Place
	dir  *Dir
	stop func()
}

// openPlace starts a node, and gives it back when it has joined.
func openPlace(t *testing.T, cfg Config, name, path string) (*nodePlace, error) {
	dir, err := OpenDir(path)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", name)
	p := NewPlace(cfg, log)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = p.Open(ctx, PlaceOptions{Name: name, Dir: dir, Server: &Options{SyncInterval: time.Minute, Log: log}, Describe: func() []byte { return []byte("I am " + name) }})
	if err != nil {
		dir.Close()
		return nil, err
	}
	running, end := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := p.Run(running); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return &nodePlace{Place: p, dir: dir, stop: sync.OnceFunc(func() {
		end()
		run.Wait()
		p.Close()
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})}, nil
}

func TestThreePlacesFindEachOtherAndOneMayGo(t *testing.T) {
	addrs := freePorts(t, 3)
	dir := t.TempDir()
	open := func(i int) *nodePlace {
		cfg := DefaultConfig()
		cfg.Name, cfg.Secret, cfg.Listen, cfg.Join = "test", "0123456789abcdef0123", addrs[i], addrs
		name := fmt.Sprint("n", i)
		p, err := openPlace(t, cfg, name, filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return nil
		}
		t.Cleanup(p.stop)
		return p
	}
	nodes := make([]*nodePlace, 3)
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() { nodes[i] = open(i) })
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	await := func(what string, ok func() bool) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !ok() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("it does not come to that: %s; %+v", what, nodes[0].Status())
			}
		}
	}
	await("every partition has an owner who may answer", func() bool {
		for p := range nodes[0].Partitions() {
			held := 0
			for _, n := range nodes {
				if n.Holds(p) {
					held++
				}
			}
			if held != 1 {
				return false
			}
		}
		return nodes[0].Partitions() == DefaultPartitions
	})
	for _, n := range nodes {
		raft := n.inner.Load().joined.raft
		raft.SetFit(false)
		unfit := !n.Fit()
		raft.SetFit(true)
		if !unfit || !n.Fit() {
			t.Errorf("Fit does not say whether a node is fit")
		}
		if err := n.AwaitRecords(ctx); err != nil {
			t.Error(err)
		}
		if n.Adopts() {
			t.Error("a node without records has some to bring in")
		}
	}
	await("everybody is linked", func() bool {
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b && !a.Linked(b.Self().ID) {
					return false
				}
			}
		}
		return true
	})
	if got, err := nodes[0].Ask(ctx, nodes[1].Self().ID); err != nil || string(got) != "I am n1" {
		t.Errorf("asked how it is, it says %q, %v", got, err)
	}

	// One goes: its partitions have another owner soon.
	gone := nodes[2].Self().ID
	nodes[2].stop()
	await("others own what the one that went owned", func() bool {
		for p := range nodes[0].Partitions() {
			if o := nodes[0].Owner(p); o.Owner == "" || o.Owner == gone {
				return false
			}
		}
		return true
	})

	// And comes back.
	nodes[2] = open(2)
	if t.Failed() {
		return
	}
	await("the one that came back owns something again", func() bool {
		for p := range nodes[2].Partitions() {
			if nodes[2].Holds(p) {
				return true
			}
		}
		return false
	})
	if err := nodes[2].Drain(ctx, nodes[2].Self().ID, true); err != nil {
		t.Fatal(err)
	}
	await("a node that drains owns nothing", func() bool {
		for p := range nodes[0].Partitions() {
			if o := nodes[0].Owner(p); o.Owner == "" || o.Owner == gone {
				return false
			}
		}
		return true
	})
}

func TestServersOfTheMetaGroupThatAreNoMembersAreStrangersThoughOnline(t *testing.T) {
	peers := []ServerPeer{
		{ID: peerID("member"), Name: "member"},
		{ID: peerID("killed"), Name: "killed", Online: true},
		{ID: peerID("unheard")}, // since this server's start, so it has no name
	}
	got := strangersAmong(peers, map[string]bool{peerID("member"): true})
	if want := map[string]bool{peerID("killed"): true, peerID("unheard"): true}; !maps.Equal(got, want) {
		t.Errorf("strangers = %v, want %v", got, want)
	}
}

func TestARouteStaysWhenOneOfTwoMembersAtTheAddressGoes(t *testing.T) {
	peer := func(id, nats string, role Role) Peer { return Peer{Member: Member{ID: id, Role: role}, NATS: nats} }
	b, now := peer("b", "host-b:6222", RoleCore), peer("now", "host-a:6222", RoleCore)
	want := []string{"host-a:6222", "host-b:6222"}
	for _, peers := range [][]Peer{{peer("former", "host-a:6222", RoleCore), b, now}, {b, now}, {now, b, peer("edge", "host-c:6222", RoleEdge)}} {
		if got := routesTo(peers); !slices.Equal(got, want) {
			t.Errorf("routes to %v = %v, want %v", peers, got, want)
		}
	}
}
