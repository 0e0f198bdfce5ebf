package rpc

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/cluster/clustertest"
	"hadal/protocol"
)

// onNodes runs a test in a bubble with a room on each of so many nodes, all linked. The
// ids of their clients differ.
func onNodes(t *testing.T, nodes int, change func(*Config), test func(wires *clustertest.Wires, w []*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		if change != nil {
			change(&cfg)
		}
		wires := clustertest.NewWires()
		wires.Delay = func() time.Duration { return time.Duration(rand.IntN(2000)) * time.Microsecond }
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var all []*world
		for i := range nodes {
			bus, table := wires.Node(string(rune('a' + i)))
			w := &world{Room: New(cfg, bus, table, slog.New(slog.DiscardHandler)), next: uint64(1000 * (i + 1))}
			running.Go(func() {
				if err := w.Run(ctx); err != nil {
					t.Errorf("Run = %v", err)
				}
			})
			all = append(all, w)
		}
		wires.LinkAll()
		test(wires, all)
		// Nothing that was under way outlives its time.
		<-time.After(2 * rounds * cfg.ResponseTimeout)
		synctest.Wait()
		for i, w := range all {
			w.mu.Lock()
			for id, k := range w.clients {
				if len(k.made)+len(k.asked)+k.bytes > 0 {
					t.Errorf("node %d: client %d has something under way: %+v", i, id, k)
				}
			}
			for id, p := range w.peers {
				if len(p.asked)+len(p.serving)+p.bytes+p.sent > 0 {
					t.Errorf("node %d: peer %s has something under way: %+v", i, id, p)
				}
			}
			w.mu.Unlock()
			st := w.Stats()
			if st.Running != 0 || st.Serving != 0 || st.Unknown != 0 {
				t.Errorf("node %d: Stats = %+v", i, st)
			}
			if ended := st.Responses + st.Errors + st.NoProvider + st.AcceptTimeouts + st.ResponseTimeouts + st.Abandoned; ended != st.Requests {
				t.Errorf("node %d: %d of %d calls ended: %+v", i, ended, st.Requests, st)
			}
		}
		stop()
		running.Wait()
		wires.Close()
	})
}

// spread waits until what was done is known everywhere, which no timer here notices.
func spread() {
	<-time.After(100 * time.Millisecond)
	synctest.Wait()
}

func TestACallGoesToAnotherNodeWhenNobodyProvidesItHere(t *testing.T) {
	onNodes(t, 3, nil, func(_ *clustertest.Wires, w []*world) {
		c, p := w[0].client(), w[1].provider()
		w[0].do(c, request, "early", "1")
		c.expect(t, end("NO_RPC_PROVIDER", "early")) // it is not known yet
		spread()
		w[0].do(c, request, "1", `{"a":1}`)
		spread()
		p.expect(t, `REQUEST name=add id=1 data={"a":1}`)
		w[1].do(p, accept, "1", "")
		w[1].do(p, accept, "1", "")
		p.expect(t, "MULTIPLE_ACCEPT name=add id=1")
		w[1].do(p, respond, "1", "2")
		spread()
		c.expect(t, end("ACCEPT", "1"), end("RESPONSE", "1")+" data=2")
		w[1].do(p, respond, "1", "2")
		p.expect(t, refused("RESPONSE", "1"))
		w[0].do(c, request, "2", "")
		spread()
		p.expect(t, "REQUEST name=add id=2")
		w[1].do(p, fail, "2", `"no"`)
		spread()
		c.expect(t, end("REQUEST_ERROR", "2")+` data="no"`)
		w[0].do(c, request, "3", "")
		spread()
		p.take()
		w[1].do(p, respond, "3", "{")
		p.expect(t, "INVALID_MESSAGE_DATA error name=add id=3 of=RESPONSE")
		spread()
		c.expect(t, end("REQUEST_ERROR", "3")+" data="+invalidData)
		if st := w[0].Stats(); st.Forwarded != 3 || st.Responses != 1 || st.Errors != 2 || st.NoProvider != 1 || st.Served != 0 {
			t.Errorf("Stats of the caller's node = %+v", st)
		}
		if st := w[1].Stats(); st.Served != 3 || st.Responses != 0 || st.Errors != 0 || st.Requests != 0 || st.Invalid != 2 {
			t.Errorf("Stats of the provider's node = %+v", st)
		}
		w[1].disconnect(p)
		spread()
		w[0].do(c, request, "4", "")
		c.expect(t, end("NO_RPC_PROVIDER", "4"))
	})
}

func TestLocalProvidersComeFirstAndEachIsAskedOnce(t *testing.T) {
	onNodes(t, 3, nil, func(_ *clustertest.Wires, w []*world) {
		c := w[0].client()
		var nodes [][]*fake
		for _, at := range w {
			nodes = append(nodes, []*fake{at.provider(), at.provider()})
		}
		spread()
		w[0].do(c, request, "1", "7")
		count := make(map[*fake]int)
		at := 0 // the node whose providers are asked, once it is known
		for i := range 6 {
			spread()
			p := asked(t, slices.Concat(nodes...)...)
			count[p]++
			if i%2 == 0 {
				at = slices.IndexFunc(nodes, func(list []*fake) bool { return slices.Contains(list, p) })
			}
			if !slices.Contains(nodes[at], p) || i < 2 && at != 0 {
				t.Errorf("request %d went to client %d", i, p.id)
			}
			w[at].do(p, accept, "1", "")
			spread()
			c.expect(t, end("ACCEPT", "1"))
			w[at].do(p, reject, "1", "")
		}
		spread()
		c.expect(t, end("NO_RPC_PROVIDER", "1"))
		if len(count) != 6 {
			t.Errorf("%d providers were asked, want all 6", len(count))
		}
	})
}

func TestEachProviderElsewhereHasItsTime(t *testing.T) {
	onNodes(t, 2, nil, func(_ *clustertest.Wires, w []*world) {
		c, ps := w[0].client(), []*fake{w[1].provider(), w[1].provider(), w[1].provider()}
		spread()
		w[0].do(c, request, "1", "")
		spread()
		// Shortly before the caller's node would give up.
		<-time.After(800 * time.Millisecond)
		w[1].do(asked(t, ps...), reject, "1", "")
		<-time.After(900 * time.Millisecond)
		p := asked(t, ps...)
		w[1].do(p, accept, "1", "")
		<-time.After(9 * time.Second)
		w[1].do(p, reject, "1", "")
		<-time.After(900 * time.Millisecond)
		c.expect(t, end("ACCEPT", "1"))
		<-time.After(200 * time.Millisecond)
		c.expect(t, end("ACCEPT_TIMEOUT", "1"))
		last := asked(t, ps...)
		w[1].do(last, respond, "1", "1")
		last.expect(t, refused("RESPONSE", "1"))
		c.expect(t)
	})
}

func TestASilentProviderElsewhereEndsTheCallAndNobodyElseIsAsked(t *testing.T) {
	onNodes(t, 3, nil, func(_ *clustertest.Wires, w []*world) {
		c := w[0].client()
		ps := []*fake{w[1].provider(), w[1].provider(), w[2].provider()}
		spread()
		w[0].do(c, request, "1", "")
		<-time.After(1100 * time.Millisecond)
		c.expect(t, end("ACCEPT_TIMEOUT", "1"))
		at := func(p *fake) *world { return w[p.id/1000-1] }
		p := asked(t, ps...)
		at(p).do(p, accept, "1", "")
		p.expect(t, refused("ACCEPT", "1"))
		w[0].do(c, request, "2", "")
		spread()
		p = asked(t, ps...)
		at(p).do(p, accept, "2", "")
		<-time.After(10100 * time.Millisecond)
		c.expect(t, end("ACCEPT", "2"), end("RESPONSE_TIMEOUT", "2"))
		at(p).do(p, respond, "2", "")
		p.expect(t, refused("RESPONSE", "2"))
		for _, p := range ps {
			p.expect(t)
		}
	})
}

func TestACallMovesOnWhenItsProviderOrItsNodeIsLost(t *testing.T) {
	for _, tc := range []struct {
		what string
		lose func(wires *clustertest.Wires, at *world, node string, p *fake)
		// what the provider gets for its late answer; empty when it has gone
		late []string
	}{
		{"the provider leaves", func(_ *clustertest.Wires, at *world, _ string, p *fake) { at.disconnect(p) },
			[]string{refused("RESPONSE", "1")}},
		{"the link breaks", func(wires *clustertest.Wires, _ *world, node string, _ *fake) { wires.CutOff(node) }, nil},
		{"the node is dead for the table", func(wires *clustertest.Wires, _ *world, node string, _ *fake) { wires.SetAlive(node, false) },
			[]string{refused("RESPONSE", "1")}},
	} {
		for _, accepted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, accepted %v", tc.what, accepted), func(t *testing.T) {
				onNodes(t, 3, nil, func(wires *clustertest.Wires, w []*world) {
					c, ps := w[0].client(), []*fake{w[1].provider(), w[2].provider()}
					spread()
					w[0].do(c, request, "1", "5")
					spread()
					p := asked(t, ps...)
					first := int(p.id/1000 - 1)
					if accepted {
						w[first].do(p, accept, "1", "")
						spread()
						c.expect(t, end("ACCEPT", "1"))
					}
					tc.lose(wires, w[first], string(rune('a'+first)), p)
					spread()
					other := ps[2-first]
					other.expect(t, "REQUEST name=add id=1 data=5")
					w[first].do(p, respond, "1", "0")
					p.expect(t, tc.late...)
					wires.LinkAll()
					spread()
					c.expect(t)
					w[3-first].do(other, accept, "1", "")
					w[3-first].do(other, respond, "1", "6")
					spread()
					c.expect(t, end("ACCEPT", "1"), end("RESPONSE", "1")+" data=6")
				})
			})
		}
	}
}

func TestACallDoesNotMoveToANodeThatDiesInTheSameMoment(t *testing.T) {
	for range 20 {
		onNodes(t, 6, nil, func(wires *clustertest.Wires, w []*world) {
			var ps []*fake
			for _, at := range w[1:] {
				ps = append(ps, at.provider())
			}
			c := w[0].client()
			spread()
			for i := range 10 {
				w[0].do(c, request, fmt.Sprint(i), "")
			}
			spread()
			wires.Table("a").Dead("b", "c", "d", "e")
			spread()
			for i := range 10 {
				w[5].do(ps[4], respond, fmt.Sprint(i), "1")
			}
			spread()
			if got := w[0].Stats(); got.Responses != 10 {
				t.Errorf("Stats = %+v, want 10 responses", got)
			}
		})
	}
}

func TestWhenTheLastNodeIsLostNobodyProvides(t *testing.T) {
	onNodes(t, 2, nil, func(wires *clustertest.Wires, w []*world) {
		c, p := w[0].client(), w[1].provider()
		spread()
		w[0].do(c, request, "1", "")
		spread()
		p.take()
		wires.CutOff("b")
		synctest.Wait()
		<-time.After(10 * time.Millisecond)
		c.expect(t, end("NO_RPC_PROVIDER", "1"))
		// It is alive, but cannot be reached.
		w[0].do(c, request, "2", "")
		c.expect(t, end("NO_RPC_PROVIDER", "2"))
		wires.LinkAll()
		spread()
		w[0].do(c, request, "3", "")
		spread()
		p.expect(t, "REQUEST name=add id=3")
		// What it says of a call that it was put to over the old link is of no use.
		w[1].do(p, respond, "1", "1")
		spread()
		c.expect(t)
		w[1].do(p, respond, "3", "3")
		spread()
		c.expect(t, end("RESPONSE", "3")+" data=3")
	})
}

func TestACallersLeavingEndsItsCallsElsewhere(t *testing.T) {
	onNodes(t, 2, nil, func(_ *clustertest.Wires, w []*world) {
		c, p, other := w[0].client(), w[1].provider(), w[1].provider()
		spread()
		w[0].do(c, request, "1", "")
		w[0].do(c, request, "2", "")
		w[0].do(c, request, "3", "")
		spread()
		w[0].disconnect(c)
		spread()
		byID := make(map[string]*fake)
		for _, who := range []*fake{p, other} {
			for _, s := range who.take() {
				byID[strings.TrimPrefix(s, "REQUEST name=add id=")] = who
			}
		}
		// What the providers say is taken without an error, and goes nowhere.
		w[1].do(byID["1"], accept, "1", "")
		w[1].do(byID["1"], respond, "1", "1")
		w[1].do(byID["2"], reject, "2", "")
		<-time.After(1100 * time.Millisecond)
		w[1].do(byID["3"], accept, "3", "")
		for _, who := range []*fake{p, other} {
			for _, s := range who.take() {
				if s != refused("ACCEPT", "3") {
					t.Errorf("client %d got %q", who.id, s)
				}
			}
		}
		c.expect(t)
		if st := w[0].Stats(); st.Abandoned != 3 || st.AcceptTimeouts != 0 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

func TestTheNodeOfTheCallerLeavesAndItsCallsAreForgotten(t *testing.T) {
	onNodes(t, 2, nil, func(wires *clustertest.Wires, w []*world) {
		c, p := w[0].client(), w[1].provider()
		spread()
		w[0].do(c, request, "1", "")
		w[0].do(c, request, "2", "")
		spread()
		p.take()
		wires.CutOff("a")
		spread()
		w[1].do(p, respond, "1", "")
		p.expect(t)
		<-time.After(DefaultConfig().ResponseTimeout)
		w[1].do(p, respond, "2", "")
		p.expect(t, refused("RESPONSE", "2"))
		c.expect(t, end("NO_RPC_PROVIDER", "1"), end("NO_RPC_PROVIDER", "2"))
	})
}

func TestTheProviderElsewhereIsToldOfTheCallerAsOneHere(t *testing.T) {
	onNodes(t, 2, func(cfg *Config) { cfg.ProvideRequestorName, cfg.ProvideRequestorData = true, true }, func(_ *clustertest.Wires, w []*world) {
		c, p := w[0].client(), w[1].provider()
		c.user = auth.User{ID: "ada", ClientData: `{"a":1}`}
		spread()
		w[0].do(c, request, "1", "2")
		spread()
		p.expect(t, `REQUEST name=add id=1 data=2 by=ada with={"a":1}`)
		c.user = auth.User{ID: "bob"}
		w[0].do(c, request, "2", "")
		spread()
		p.expect(t, `REQUEST name=add id=2 by=bob`)
	})
}

func TestAnIDThatIsInUseAtANodeGoesToTheNext(t *testing.T) {
	onNodes(t, 3, nil, func(_ *clustertest.Wires, w []*world) {
		c, here, p := w[0].client(), w[1].client(), w[1].provider()
		spread()
		w[1].do(here, request, "1", "1")
		p.expect(t, "REQUEST name=add id=1 data=1")
		w[0].do(c, request, "1", "2")
		spread()
		c.expect(t, end("NO_RPC_PROVIDER", "1"))
		other := w[2].provider()
		spread()
		w[0].do(c, request, "1", "2")
		spread()
		other.expect(t, "REQUEST name=add id=1 data=2")
		p.expect(t)
		w[1].do(p, respond, "1", "1")
		w[2].do(other, respond, "1", "2")
		spread()
		here.expect(t, end("RESPONSE", "1")+" data=1")
		c.expect(t, end("RESPONSE", "1")+" data=2")
	})
}

func TestRejectionsRoundTheClusterComeToAnEnd(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprintf("on %d nodes", nodes), func(t *testing.T) {
			onNodes(t, nodes, nil, func(_ *clustertest.Wires, w []*world) {
				c, at := w[0].client(), w[nodes-1]
				ps := make([]*fake, 100)
				for i := range ps {
					ps[i] = at.provider()
				}
				spread()
				began := time.Now()
				w[0].do(c, request, "1", "")
				n := 0
				for got := []string(nil); len(got) == 0; n++ {
					spread()
					p := asked(t, ps...)
					<-time.After(800 * time.Millisecond)
					at.do(p, reject, "1", "")
					<-time.After(10 * time.Millisecond)
					synctest.Wait()
					if got = c.take(); len(got) > 0 && !slices.Equal(got, []string{end("ACCEPT_TIMEOUT", "1")}) {
						t.Fatalf("the caller got %q", got)
					}
				}
				took, most := time.Since(began), rounds*DefaultConfig().ResponseTimeout
				if took < most || took > most+time.Second {
					t.Errorf("the caller was told after %v and %d rejections, want %v", took, n, most)
				}
			})
		})
	}
}

func TestWhatOnePeerHasUnderWayIsBounded(t *testing.T) {
	onNodes(t, 3, nil, func(_ *clustertest.Wires, w []*world) {
		const most = 20
		data := `"` + strings.Repeat("x", 1000) + `"`
		w[1].mu.Lock()
		w[1].most = most * (len(data) + callOverhead)
		w[1].mu.Unlock()
		p, c, other := w[1].provider(), w[0].client(), w[2].client()
		spread()
		for i := range 2 * most {
			w[0].do(c, request, fmt.Sprint(i), data)
		}
		spread()
		spread()
		served := w[1].Stats().Serving
		if served > most || served < most*9/10 {
			t.Errorf("%d calls are served, want a little less than %d", served, most)
		}
		if got := p.take(); len(got) != served {
			t.Errorf("%d calls are served, and the provider has %d", served, len(got))
		}
		if got := c.take(); len(got) != 2*most-served || len(got) == 0 || !strings.HasPrefix(got[0], "NO_RPC_PROVIDER") {
			t.Errorf("the caller was told of the end of %d calls, want all others: %q", len(got), got)
		}
		w[2].do(other, request, "of another", "1")
		spread()
		p.expect(t, "REQUEST name=add id=of another data=1")
		for i := range 2 * most {
			w[1].do(p, respond, fmt.Sprint(i), "1")
		}
		spread()
		w[0].do(c, request, "again", data)
		spread()
		if got := p.take(); len(got) == 0 || got[len(got)-1] != "REQUEST name=add id=again data="+data {
			t.Errorf("the provider got %q", got)
		}
	})
}

func TestOneCallerDoesNotFillTheLinkToAPeer(t *testing.T) {
	onNodes(t, 2, nil, func(_ *clustertest.Wires, w []*world) {
		p, c := w[1].provider(), w[0].client()
		spread()
		data := `"` + strings.Repeat("x", 4<<20) + `"`
		for i := range 10 {
			w[0].do(c, request, fmt.Sprint(i), data)
		}
		if got, want := c.take(), []string{end("NO_RPC_PROVIDER", "7"), end("NO_RPC_PROVIDER", "8"), end("NO_RPC_PROVIDER", "9")}; !slices.Equal(got, want) {
			t.Errorf("the caller got %q, want %q", got, want)
		}
		spread()
		if got := len(p.take()); got != 7 {
			t.Errorf("%d calls of 4 MB are at the peer, want 7", got)
		}
		w[1].do(p, respond, "0", "")
		spread()
		c.expect(t, end("RESPONSE", "0"))
		w[0].do(c, request, "again", data)
		c.expect(t)
	})
}

// An answer for which there is no room on the way ends its call with an error, and the link and
// the calls after it go on.
func TestAnswersForWhichThereIsNoRoomEndTheirCalls(t *testing.T) {
	onNodes(t, 2, nil, func(wires *clustertest.Wires, w []*world) {
		p, c := w[1].provider(), w[0].client()
		spread()
		wires.Crowd("b", "a", true)
		for _, id := range []string{"1", "2"} {
			w[0].do(c, request, id, "")
			spread()
			w[1].do(p, accept, id, "")
			spread()
			c.expect(t, end("ACCEPT", id))
		}
		w[1].do(p, respond, "1", `"a large answer"`)
		w[1].do(p, fail, "2", `"a large error"`)
		spread()
		c.expect(t, end("REQUEST_ERROR", "1")+" data="+tooManyAnswers, end("REQUEST_ERROR", "2")+" data="+tooManyAnswers)
		wires.Crowd("b", "a", false)
		w[0].do(c, request, "3", "")
		spread()
		w[1].do(p, respond, "3", "3")
		spread()
		c.expect(t, end("RESPONSE", "3")+" data=3")
		if got := w[1].Stats().Crowded; got != 2 {
			t.Errorf("%d answers were crowded out, want 2", got)
		}
		if st := w[0].Stats(); st.Errors != 2 || st.Responses != 1 {
			t.Errorf("Stats of the caller's node = %+v", st)
		}
	})
}

// bot is a provider that answers somehow after a while, or is silent.
type bot struct {
	fake
	at    *world
	asked *holders // or nil
}

// holders are the providers that calls are at, by the calls' ids.
type holders struct {
	t  *testing.T
	mu sync.Mutex
	at map[string]*bot // guarded by mu
}

// take notes that a call has come to b, which nobody else may have.
func (h *holders) take(id string, b *bot) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if other := h.at[id]; other != nil && !other.Gone() {
		h.t.Errorf("call %s is put to client %d while client %d has it", id, b.id, other.id)
	}
	h.at[id] = b
}

// give notes that a provider is about to reject a call.
func (h *holders) give(id string, a protocol.Action, b *bot) {
	if h == nil || a != reject {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at[id] == b {
		h.at[id] = nil
	}
}

func (b *bot) Send(o *protocol.Outbound) {
	b.asked.take(o.CorrelationID, b)
	m := protocol.Message{
		Topic: protocol.TopicRPC, Name: o.Name, CorrelationID: o.CorrelationID, Has: protocol.HasName | protocol.HasCorrelationID,
	}
	answer := func(a protocol.Action, data string) {
		time.AfterFunc(time.Duration(rand.IntN(1_200_000))*time.Microsecond, func() {
			m := m
			m.Action, m.Data = a, data
			b.asked.give(m.CorrelationID, a, b)
			b.at.Handle(b, &m)
		})
	}
	if rand.IntN(3) > 0 {
		answer(accept, "")
	}
	switch rand.IntN(8) {
	case 0, 1, 2:
		answer(reject, "")
	case 3, 4, 5:
		answer(respond, "1")
	case 6:
		answer(fail, `"no"`)
	}
}

// Each call ends exactly once and in time, whatever providers, callers, links and
// verdicts do meanwhile.
func TestEachCallEndsOnceWhateverHappensToNodes(t *testing.T) {
	for range 10 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			onNodes(t, 4, nil, func(wires *clustertest.Wires, w []*world) { chaos(t, wires, w, rand.New(rand.NewPCG(seed, 0)), false) })
		})
	}
}

// While nodes stay, no call is ever at two providers.
func TestACallIsAtOneProviderAtATime(t *testing.T) {
	for range 10 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			onNodes(t, 4, nil, func(wires *clustertest.Wires, w []*world) { chaos(t, wires, w, rand.New(rand.NewPCG(seed, 0)), true) })
		})
	}
}

// chaos has clients come, provide, call and go, and, unless it is to be calm, nodes too.
func chaos(t *testing.T, wires *clustertest.Wires, w []*world, r *rand.Rand, calm bool) {
	type caller struct {
		*fake
		at    *world
		calls int
	}
	var callers []*caller
	var bots []*bot
	var asked *holders
	if calm {
		asked = &holders{t: t, at: make(map[string]*bot)}
	}
	id := func() string { return string(rune('a' + r.IntN(len(w)))) }
	for range 3000 {
		at := w[r.IntN(len(w))]
		what := r.IntN(20)
		if calm && what < 5 {
			continue
		}
		switch what {
		case 0:
			wires.Cut(id(), id())
		case 1, 2:
			wires.Link(id(), id())
		case 3:
			wires.SetAlive(id(), r.IntN(3) > 0)
		case 4:
			wires.Table(id()).SetAlive(id(), r.IntN(3) > 0)
		case 5:
			at.next++
			b := &bot{fake: fake{id: at.next}, at: at, asked: asked}
			at.Handle(b, &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"add"}})
			bots = append(bots, b)
		case 6:
			if len(bots) > 6 {
				i := r.IntN(len(bots))
				bots[i].gone.Store(true)
				bots[i].at.Closed(bots[i])
				bots = slices.Delete(bots, i, i+1)
			}
		case 7:
			callers = append(callers, &caller{fake: at.client(), at: at})
		case 8:
			if len(callers) > 0 && r.IntN(4) == 0 {
				i := r.IntN(len(callers))
				callers[i].at.disconnect(callers[i].fake)
				callers = slices.Delete(callers, i, i+1)
			}
		case 9, 10:
			<-time.After(time.Duration(r.IntN(300)) * time.Millisecond)
		default:
			if len(callers) > 0 {
				c := callers[r.IntN(len(callers))]
				c.at.do(c.fake, request, fmt.Sprint(c.id, "/", c.calls), "1")
				c.calls++
			}
		}
	}
	<-time.After((rounds + 1) * DefaultConfig().ResponseTimeout)
	synctest.Wait()
	for _, c := range callers {
		ends := make(map[string]int)
		for _, s := range c.take() {
			_, rest, _ := strings.Cut(s, "id=")
			id, _, _ := strings.Cut(rest, " ")
			if ends[id] > 0 {
				t.Fatalf("client %d was told %q after the end of the call", c.id, s)
			}
			if !strings.HasPrefix(s, "ACCEPT ") {
				ends[id]++
			}
		}
		for i := range c.calls {
			if n := ends[fmt.Sprint(c.id, "/", i)]; n != 1 {
				t.Fatalf("call %d of client %d ended %d times", i, c.id, n)
			}
		}
	}
}

func FuzzMessageOfAPeer(f *testing.F) {
	for _, w := range []wire{
		{what: wireCall, number: 1, question: question{"add", "x1"}, data: `{"a":1}`, by: requestor{"ada", "{}", protocol.HasRequestorName | protocol.HasRequestorData}},
		{what: wireCall, number: 1 << 63, question: question{"add", "x1"}},
		{what: wireResponse, number: 2, data: "1"},
		{what: wireNone, number: 3},
	} {
		f.Add(w.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := parseWire(b)
		if err != nil {
			return
		}
		again, err := parseWire(w.append(nil))
		if err != nil || again != w {
			t.Errorf("%+v is %+v, %v", w, again, err)
		}
		// A room survives it, and whatever it did it does once.
		r := newRoom(DefaultConfig())
		h := handler{r}
		h.Up("p")
		h.Hear("p", b)
		h.Hear("p", b)
		h.Hear("p", bytes.Clone(b))
		h.Down("p")
		if st := r.Stats(); st.Serving != 0 || st.Running != 0 {
			t.Errorf("Stats = %+v", st)
		}
	})
}
