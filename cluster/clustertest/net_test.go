package clustertest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/cluster"
	"hadal/cluster/clustertest"
)

// ear is a room that checks what a bus promises.
type ear struct {
	t    *testing.T
	node *clustertest.Node

	mu        sync.Mutex
	session   map[string]uint64 // of the peer, on the present link
	next      map[string]uint64 // number of its next message
	up        map[string]bool
	heard     *atomic.Int64
	published map[string]uint64
}

func (e *ear) Up(peer string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.up[peer] {
		e.t.Errorf("%s hears Up of %s twice", e.node.Name(), peer)
	}
	e.up[peer] = true
	delete(e.session, peer)
	e.next[peer] = 0
}

func (e *ear) Down(peer string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.up[peer] {
		e.t.Errorf("%s hears Down of %s before Up", e.node.Name(), peer)
	}
	e.up[peer] = false
}

// Hear gets the number of the sender's link and of the message on it.
func (e *ear) Hear(peer string, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	session, number := binary.BigEndian.Uint64(payload), binary.BigEndian.Uint64(payload[8:])
	if !e.up[peer] {
		e.t.Errorf("%s hears %s without a link", e.node.Name(), peer)
	}
	if was, ok := e.session[peer]; ok && was != session {
		e.t.Errorf("%s hears link %d of %s on link %d", e.node.Name(), session, peer, was)
	}
	if number != e.next[peer] {
		e.t.Errorf("%s hears message %d of %s, want %d", e.node.Name(), number, peer, e.next[peer])
	}
	e.session[peer] = session
	e.next[peer] = number + 1
	e.heard.Add(1)
}

func (e *ear) Published(peer string, _ uint16, payload []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	number := binary.BigEndian.Uint64(payload)
	if number <= e.published[peer] {
		e.t.Errorf("%s hears event %d of %s after %d", e.node.Name(), number, peer, e.published[peer])
	}
	e.published[peer] = number
}

// mouth sends numbered messages on each link, and in a slot.
type mouth struct {
	ear
	links uint64
	sent  map[string][2]uint64 // link, next number
}

func (m *mouth) Up(peer string) {
	m.ear.Up(peer)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.links++
	m.sent[peer] = [2]uint64{m.links, 0}
	m.say(peer)
}

func (m *mouth) Down(peer string) {
	m.ear.Down(peer)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sent, peer)
}

func (m *mouth) say(peer string) {
	s, ok := m.sent[peer]
	if !ok {
		return
	}
	payload := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s[0]), s[1])
	if m.node.Bus().Send(peer, cluster.KindNode, payload) {
		m.sent[peer] = [2]uint64{s[0], s[1] + 1}
	} else {
		delete(m.sent, peer) // the link has ended
	}
}

// chatter runs a node on which mouth talks to everybody.
func chatter(ctx context.Context, t *testing.T, net *clustertest.Net, index int, heard *atomic.Int64, wg *sync.WaitGroup, numbers *atomic.Uint64) {
	n := net.Start(index)
	m := &mouth{sent: make(map[string][2]uint64), ear: ear{
		t: t, node: n, heard: heard,
		session: make(map[string]uint64), next: make(map[string]uint64), up: make(map[string]bool), published: make(map[string]uint64),
	}}
	n.Bus().Handle(cluster.KindNode, m)
	n.Bus().Join(cluster.KindNode, 7)
	wg.Go(func() { _ = n.Run(ctx) }) // it ends with the test or a crash
	wg.Go(func() {
		r := net.Rand("chatter " + n.Name())
		for net.Sleep(ctx, "chatter "+n.Name(), time.Duration(r.IntN(20))*time.Millisecond) == nil {
			select {
			case <-n.Dead():
				return
			default:
			}
			m.mu.Lock()
			for i := range 3 {
				m.say(fmt.Sprintf("node-%c", 'a'+i))
			}
			n.Bus().Publish(cluster.KindNode, 7, binary.BigEndian.AppendUint64(nil, numbers.Add(1)))
			m.mu.Unlock()
		}
	})
}

// talk lets three nodes talk under faults, and returns what happened.
func talk(t *testing.T, seed uint64) (events []clustertest.Event, heard int64) {
	var count atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		net := clustertest.New(clustertest.Config{Seed: seed, Nodes: 3, Partitions: 6})
		var wg sync.WaitGroup
		var numbers atomic.Uint64
		start := func(i int) { chatter(ctx, t, net, i, &count, &wg, &numbers) }
		for i := range 3 {
			start(i)
		}
		if err := net.Torment(ctx, clustertest.Torment{Faults: 20, Between: time.Second, Start: start}); err != nil {
			t.Error(err)
		}
		if err := net.Sleep(ctx, "test", 6*time.Second); err != nil {
			t.Error(err)
		}
		if err := net.Settled(); err != nil {
			t.Errorf("6 s after the last fault: %v", err)
		}
		events = net.History.Events() // before all end at once
		cancel()
		wg.Wait()
		net.Close()
	})
	if t.Failed() {
		t.Logf("seed %d:\n%s", seed, clustertest.Tail(events, 60, nil))
	}
	return events, count.Load()
}

func TestLinksAndSlotsKeepTheirPromisesUnderFaults(t *testing.T) {
	for seed := range uint64(10) {
		if _, heard := talk(t, seed); heard < 500 {
			t.Errorf("seed %d: %d messages were heard, too few to mean something", seed, heard)
		}
	}
}

func TestASeedReplaysItsHistory(t *testing.T) {
	first, _ := talk(t, 42)
	second, _ := talk(t, 42)
	if len(first) != len(second) {
		t.Fatalf("%d events, then %d", len(first), len(second))
	}
	for i := range first {
		if first[i] != second[i] {
			t.Fatalf("event %d was %v, then %v", i, first[i], second[i])
		}
	}
	other, _ := talk(t, 43)
	if len(other) == len(first) && other[len(other)-1] == first[len(first)-1] {
		t.Error("another seed has the same history")
	}
}

// holders looks every few milliseconds at who holds each partition, and returns how
// often two nodes did.
func holders(t *testing.T, cfg clustertest.Config) (twice int) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		net := clustertest.New(cfg)
		var wg sync.WaitGroup
		start := func(i int) {
			n := net.Start(i)
			wg.Go(func() { _ = n.Run(ctx) })
		}
		for i := range cfg.Nodes {
			start(i)
		}
		wg.Go(func() {
			epochs := make([]uint64, cfg.Partitions)
			for net.Sleep(ctx, "watch", 3*time.Millisecond) == nil {
				for p := range cfg.Partitions {
					holding := 0
					for _, n := range net.Nodes() {
						if n.Table().Holds(p) {
							holding++
							epoch := n.Table().Owner(p).Epoch
							if epoch < epochs[p] {
								holding = 2
							}
							epochs[p] = epoch
						}
					}
					if holding > 1 {
						twice++
					}
				}
			}
		})
		if err := net.Torment(ctx, clustertest.Torment{Faults: 20, Between: 2 * time.Second, Start: start}); err != nil {
			t.Error(err)
		}
		if err := net.Sleep(ctx, "test", 6*time.Second); err != nil {
			t.Error(err)
		}
		if err := net.Settled(); err != nil {
			t.Errorf("seed %d, 6 s after the last fault: %v\n%s", cfg.Seed, err, clustertest.Tail(net.History.Events(), 60, nil))
		}
		for p := range cfg.Partitions {
			holding := 0
			for _, n := range net.Nodes() {
				if n.Table().Holds(p) {
					holding++
				}
			}
			if holding != 1 {
				t.Errorf("seed %d: %d nodes hold partition %d at the end", cfg.Seed, holding, p)
			}
		}
		cancel()
		wg.Wait()
		net.Close()
	})
	return twice
}

func TestNoTwoNodesHoldAPartitionAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		if twice := holders(t, clustertest.Config{Seed: seed, Nodes: 3 + 2*int(seed%2), Partitions: 6}); twice > 0 {
			t.Errorf("seed %d: two nodes held a partition, %d times", seed, twice)
		}
	}
}

func TestANodeWithoutALeaseIsFoundOut(t *testing.T) {
	for name, cfg := range map[string]clustertest.Config{"no lease": {NoLease: true}, "late lease": {LateLease: true}} {
		cfg.Nodes, cfg.Partitions = 3, 6
		found := false
		for cfg.Seed = 0; cfg.Seed < 20 && !found; cfg.Seed++ {
			found = holders(t, cfg) > 0
		}
		if !found {
			t.Errorf("%s: nobody ever held a partition twice", name)
		}
	}
}

func TestAnOwnerThatCrashesIsReplacedWithinTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		net := clustertest.New(clustertest.Config{Seed: rand.Uint64(), Nodes: 3, Partitions: 3})
		var wg sync.WaitGroup
		for i := range 3 {
			n := net.Start(i)
			wg.Go(func() { _ = n.Run(ctx) })
		}
		if err := net.Sleep(ctx, "test", 6*time.Second); err != nil {
			t.Error(err)
		}
		victim := net.Nodes()[1]
		owned := -1
		for p := range 3 {
			if victim.Table().Holds(p) {
				owned = p
			}
		}
		if owned < 0 {
			t.Errorf("%s owns nothing", victim.Name())
			cancel()
			wg.Wait()
			return
		}
		victim.Crash()
		began := time.Now()
		held := false
		for !held && time.Since(began) < 5*time.Second {
			if err := net.Sleep(ctx, "test", time.Millisecond); err != nil {
				t.Error(err)
			}
			for _, n := range net.Nodes() {
				held = held || n.Table().Holds(owned)
			}
		}
		// A crashed leader of the table costs an election and its wait on top.
		if gap := time.Since(began); gap > 3*time.Second {
			t.Errorf("partition %d had no owner for %v", owned, gap)
		}
		cancel()
		wg.Wait()
		net.Close()
	})
}
