package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pair is a table of two nodes that are alive, as one of them sees it.
type pair struct {
	*Solo
	self  string
	never chan struct{}
}

func (p pair) Self() Member             { return Member{ID: p.self, Alive: true} }
func (p pair) Members() []Member        { return []Member{{ID: "a", Alive: true}, {ID: "b", Alive: true}} }
func (p pair) Changed() <-chan struct{} { return p.never }

// linkBus is a Bus that has links only.
type linkBus struct {
	Alone
	*Links
}

func (b linkBus) Handle(k Kind, h Handler) { b.Links.Handle(k, h) }
func (b linkBus) Send(peer string, k Kind, payload []byte) bool {
	return b.Links.Send(peer, k, payload)
}
func (b linkBus) Offer(peer string, k Kind, payload []byte) bool {
	return b.Links.Offer(peer, k, payload)
}
func (b linkBus) Linked(peer string) bool { return b.Links.Linked(peer) }

// Over links as they are, which break in the middle of a snapshot and of changes, two
// sets know the same in the end.
func TestSetsAgreeOverLinksThatBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		links := map[string]*Links{}
		sets := map[string]*Set{}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var mu sync.Mutex
		var last net.Conn // guarded by mu
		told := map[string]map[string]bool{"a": {}, "b": {}}
		for _, id := range []string{"a", "b"} {
			l := newLinks(LinksConfig{}, LinkSelf{ID: id, Name: id, Incarnation: 1, ClusterID: "c"}, log)
			links[id] = l
			l.dial = func(context.Context, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				mu.Lock()
				last = ours
				mu.Unlock()
				running.Go(func() { links["b"].accept(ctx, theirs) })
				return ours, nil
			}
			// The calls for one peer come one after the other.
			sets[id] = NewSet(linkBus{Links: l}, pair{NewSoloInMemory(id), id, make(chan struct{})}, KindPresence, func(_, name string, has bool) {
				if told[id][name] == has {
					t.Errorf("%s is told twice of %q: %v", id, name, has)
				}
				told[id][name] = has
			})
		}
		want := map[string]map[string]bool{"a": {}, "b": {}}
		for id, set := range sets {
			for i := range 20_000 {
				name := fmt.Sprintf("a user of some length %s %d", id, i)
				set.Add(name)
				want[id][name] = true
			}
		}
		for id, l := range links {
			l.SetPeers([]PeerAddr{{ID: "a", Incarnation: 1}, {ID: "b", Incarnation: 1}})
			running.Go(func() { _ = l.Run(ctx) })
			running.Go(func() { _ = sets[id].Run(ctx) })
		}
		for range 100 {
			id := []string{"a", "b"}[rand.IntN(2)]
			for range 50 {
				name := fmt.Sprintf("a user of some length %s %d", id, rand.IntN(25_000))
				if want[id][name] = !want[id][name]; want[id][name] {
					sets[id].Add(name)
				} else {
					sets[id].Remove(name)
				}
			}
			if rand.IntN(4) > 0 {
				<-time.After(time.Duration(rand.IntN(500)) * time.Millisecond)
			}
			mu.Lock()
			if last != nil && rand.IntN(2) == 0 {
				_ = last.Close()
			}
			mu.Unlock()
		}
		<-time.After(time.Minute)
		synctest.Wait()
		for here, there := range map[string]string{"a": "b", "b": "a"} {
			if missing := sets[here].Missing(); len(missing) > 0 {
				t.Errorf("%s has not got all of %v", here, missing)
			}
			for name, has := range want[there] {
				if sets[here].Elsewhere(name) != has || told[here][name] != has {
					t.Fatalf("%s knows of %q %v and was told %v, want %v", here, name, sets[here].Elsewhere(name), told[here][name], has)
				}
			}
		}
		if ends := links["a"].Stats().Ends; len(ends) == 0 {
			t.Error("no link broke")
		} else {
			t.Logf("links ended: %v", ends)
		}
		stop()
		running.Wait()
	})
}
