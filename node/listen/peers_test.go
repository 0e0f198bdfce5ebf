package listen

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestANameHasOneProviderInTheCluster(t *testing.T) {
	for _, owner := range []string{"a", "b", "c"} {
		inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
			h.ownAll(owner)
			b, c := h.nodes["b"], h.nodes["c"]
			p, late, s, s2 := b.client(), c.client(), c.client(), h.nodes["a"].client()
			b.do(p, recListen, "r/.*")
			h.rest()
			c.subscribe(s, "r/1")
			h.rest()
			p.expect(t, ack("r/.*"), found("r/.*", "r/1"))
			h.hasProvider("r/1", false)
			b.answer(p, recAccept, "r/.*", "r/1")
			h.rest()
			s.expect(t, has("r/1"))
			h.hasProvider("r/1", true)

			c.do(late, recListen, "r/1")
			h.nodes["a"].subscribe(s2, "r/1")
			h.rest()
			late.expect(t, ack("r/1"))
			c.unsubscribe(s, "r/1")
			h.rest()
			p.expect(t)
			h.nodes["a"].unsubscribe(s2, "r/1")
			h.rest()
			p.expect(t, removed("r/.*", "r/1"))
			late.expect(t)
			h.hasProvider("r/1", false)
			for id, n := range h.nodes {
				if st := n.Stats(); st.Matched != 0 || st.Provided != 0 || st.Elsewhere != 0 {
					t.Errorf("%s: Stats = %+v, want nothing left", id, st)
				}
			}
		})
	}
}

func TestEachNodeAsksItsListenersAndThenTheNextDoes(t *testing.T) {
	inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
		a, b, c := h.nodes["a"], h.nodes["b"], h.nodes["c"]
		s := c.client()
		all := map[*fake]*node{}
		for _, n := range []*node{a, a, b, b, c, c} {
			p := n.client()
			all[p] = n
			n.do(p, recListen, "r")
			p.expect(t, ack("r"))
		}
		h.rest()
		c.subscribe(s, "r")
		var turns []string
		for range all {
			h.rest()
			var asked []*fake
			for p := range all {
				if slices.Equal(p.take(), []string{found("r", "r")}) {
					asked = append(asked, p)
				}
			}
			if len(asked) != 1 {
				t.Fatalf("%d are asked at once", len(asked))
			}
			turns = append(turns, all[asked[0]].id)
			all[asked[0]].answer(asked[0], recReject, "r", "r")
		}
		if turns[0] != "a" || len(slices.Compact(turns)) != 3 {
			t.Errorf("asked on %q, want the owner first, and each node once", turns)
		}
		h.rest()
		if got := a.Stats().Unsuccessful; got != 1 {
			t.Errorf("Unsuccessful = %d, want 1", got)
		}
		// A listener that comes while the name rests is asked alone.
		p := b.client()
		b.do(p, recListen, "r")
		h.rest()
		p.expect(t, ack("r"), found("r", "r"))
		b.answer(p, recReject, "r", "r")
		h.rest()
		p = a.client()
		a.do(p, recListen, ".")
		h.rest()
		p.expect(t, ack("."), found(".", "r"))
		a.answer(p, recAccept, ".", "r")
		h.rest()
		s.expect(t, has("r"))
		for p := range all {
			p.expect(t)
		}
	})
}

func TestAnAskedNodeKeepsTheOrderOfItsListeners(t *testing.T) {
	for _, owner := range []string{"a", "b"} {
		inOrder := func(h *house) { h.cfg.ShuffleProviders = false }
		inHouse(t, 1, []string{"a", "b"}, inOrder, func(h *house) {
			h.ownAll(owner)
			a, b := h.nodes["a"], h.nodes["b"]
			// a knows the last pattern before the others, since it had a listener itself.
			patterns := []string{"r/.*", "r", "r/[0-9]", "^r/1", "r/1"}
			gone, s := a.client(), a.client()
			a.do(gone, recListen, patterns[len(patterns)-1])
			h.rest()
			gone.take()
			var all []*fake
			for _, pattern := range patterns {
				p := b.client()
				b.do(p, recListen, pattern)
				h.rest()
				p.expect(t, ack(pattern))
				all = append(all, p)
			}
			a.disconnect(gone)
			h.rest()
			a.subscribe(s, "r/1")
			for i, p := range all {
				h.rest()
				p.expect(t, found(patterns[i], "r/1"))
				b.answer(p, recReject, patterns[i], "r/1")
			}
		})
	}
}

func TestTheProviderMovesWhenItGoes(t *testing.T) {
	for what, end := range map[string]func(h *house, n *node, p *fake){
		"by disconnecting":    func(_ *house, n *node, p *fake) { n.disconnect(p) },
		"by unlistening":      func(_ *house, n *node, p *fake) { n.do(p, recUnlisten, "r") },
		"because its node is": func(h *house, n *node, _ *fake) { h.die(n.id) },
	} {
		t.Run(what, func(t *testing.T) {
			inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
				b, c := h.nodes["b"], h.nodes["c"]
				p1, p2, s := b.client(), c.client(), c.client()
				b.do(p1, recListen, "r")
				h.rest()
				c.subscribe(s, "r")
				h.rest()
				b.answer(p1, recAccept, "r", "r")
				c.do(p2, recListen, "r")
				h.rest()
				p2.expect(t, ack("r"))
				end(h, b, p1)
				h.rest()
				p2.expect(t, found("r", "r"))
				c.answer(p2, recAccept, "r", "r")
				h.rest()
				s.expect(t, has("r"), hasNo("r"), has("r"))
				if !h.nodes["a"].HasProvider("r") || !c.HasProvider("r") {
					t.Error("nobody provides it")
				}
			})
		})
	}
}

func TestALinkThatBreaksMovesNoProvider(t *testing.T) {
	inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
		b, c := h.nodes["b"], h.nodes["c"]
		p, other, s := b.client(), c.client(), c.client()
		b.do(p, recListen, "r")
		h.rest()
		c.subscribe(s, "r")
		h.rest()
		b.answer(p, recAccept, "r", "r")
		c.do(other, recListen, "r")
		p.take()
		other.take()
		h.rest()
		s.expect(t, has("r"))
		for range 3 {
			h.wires.CutOff("a")
			time.Sleep(2 * settle)
			h.wires.LinkAll()
			h.rest()
		}
		p.expect(t)
		other.expect(t)
		s.expect(t)
		h.hasProvider("r", true)
		// Both ends of it are known while the link is broken, and heard afterwards.
		h.wires.CutOff("a")
		c.unsubscribe(s, "r")
		h.rest()
		p.expect(t)
		h.wires.LinkAll()
		h.rest()
		p.expect(t, removed("r", "r"))
	})
}

func TestANodeThatIsAskedAndLostIsPassedOver(t *testing.T) {
	inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
		a, b, c := h.nodes["a"], h.nodes["b"], h.nodes["c"]
		clients := map[*node]*fake{b: b.client(), c: c.client()}
		for n, p := range clients {
			n.do(p, recListen, "r")
			p.expect(t, ack("r"))
		}
		h.rest()
		s := a.client()
		a.subscribe(s, "r")
		h.rest()
		first, second := b, c
		if len(clients[b].take()) == 0 {
			first, second = c, b
			clients[c].take()
		}
		h.wires.Cut("a", first.id)
		h.rest()
		clients[second].expect(t, found("r", "r"))
		first.answer(clients[first], recAccept, "r", "r") // whoever asked is not there
		h.rest()
		clients[first].expect(t, removed("r", "r"))
		second.answer(clients[second], recAccept, "r", "r")
		h.rest()
		h.wires.LinkAll()
		h.rest()
		clients[first].expect(t)
		s.expect(t, has("r"))
		h.hasProvider("r", true)
	})
}

func TestANewOwnerTakesOverInTheMiddleOfASearch(t *testing.T) {
	for _, dead := range []bool{true, false} {
		for _, early := range []bool{true, false} {
			t.Run(fmt.Sprint("dead ", dead, " early ", early), func(t *testing.T) {
				inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
					b, c := h.nodes["b"], h.nodes["c"]
					p, s := b.client(), c.client()
					b.do(p, recListen, "r")
					h.rest()
					c.subscribe(s, "r")
					h.rest()
					p.expect(t, ack("r"), found("r", "r"))
					if dead {
						h.wires.CutOff("a")
						h.alive["a"] = false
						h.rest()
					}
					h.own(0, "c")
					if early { // the provider's node knows nothing of it yet
						b.answer(p, recAccept, "r", "r")
						h.agree()
						h.rest()
					} else {
						h.agree()
						h.rest()
						b.answer(p, recAccept, "r", "r")
					}
					h.rest()
					if dead && early {
						// Its question ended with the link: it is asked again, by the new owner.
						p.expect(t, removed("r", "r"), found("r", "r"))
						b.answer(p, recAccept, "r", "r")
						h.rest()
					}
					p.expect(t)
					s.expect(t, has("r"))
					if !b.HasProvider("r") || !c.HasProvider("r") {
						t.Error("nobody provides it")
					}
					c.unsubscribe(s, "r")
					h.rest()
					p.expect(t, removed("r", "r"))
				})
			})
		}
	}
}

func TestOfTwoProvidersOneIsLeftWhenBothSidesMeet(t *testing.T) {
	inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
		b, c := h.nodes["b"], h.nodes["c"]
		p1, p2, s1, s2 := b.client(), c.client(), b.client(), h.nodes["a"].client()
		c.do(p2, recListen, "r")
		h.rest()
		b.subscribe(s1, "r")
		h.nodes["a"].subscribe(s2, "r")
		h.rest()
		c.answer(p2, recAccept, "r", "r")
		h.rest()
		s1.expect(t, has("r"))
		s2.expect(t, has("r"))
		p2.take()
		// c is cut off and held for dead; b takes its place.
		h.wires.CutOff("c")
		h.alive["c"] = false
		h.learn("a")
		h.learn("b")
		b.do(p1, recListen, "r")
		h.rest()
		b.answer(p1, recAccept, "r", "r")
		p1.expect(t, ack("r"), found("r", "r"))
		h.rest()
		p2.expect(t)
		s1.expect(t, hasNo("r"), has("r"))
		h.hasProvider("r", true)
		h.alive["c"] = true
		h.wires.LinkAll()
		h.agree()
		h.rest()
		p1.expect(t)
		p2.expect(t, removed("r", "r"))
		s1.expect(t)
		h.hasProvider("r", true)
	})
}

func TestAnOwnerWithoutItsLeaseDecidesNothing(t *testing.T) {
	inHouse(t, 1, []string{"a", "b"}, nil, func(h *house) {
		a, b := h.nodes["a"], h.nodes["b"]
		a.view.setLease(false)
		p, s := b.client(), b.client()
		b.do(p, recListen, "r")
		b.subscribe(s, "r")
		time.Sleep(time.Second)
		p.expect(t, ack("r"))
		a.view.setLease(true)
		time.Sleep(2 * leaseRetry)
		p.expect(t, found("r", "r"))
	})
}

// A new owner that cannot hear of all providers waits before it makes another.
func TestANewOwnerWaitsUntilItKnowsWhoProvides(t *testing.T) {
	inHouse(t, 1, []string{"a", "b", "c"}, nil, func(h *house) {
		b, c := h.nodes["b"], h.nodes["c"]
		p, s := b.client(), c.client()
		h.wires.Cut("b", "c")
		c.do(p, recListen, "r")
		h.rest()
		h.own(0, "c")
		h.agree()
		c.subscribe(s, "r")
		h.rest()
		p.expect(t, ack("r"))
		time.Sleep(settle)
		p.expect(t, found("r", "r"))
	})
}

func TestQuestionsOfAnOldEpochAreIgnored(t *testing.T) {
	inHouse(t, 1, []string{"a", "b"}, nil, func(h *house) {
		a, b := h.nodes["a"], h.nodes["b"]
		p := b.client()
		b.do(p, recListen, "r")
		h.rest()
		p.take()
		h.own(0, "a")
		h.learn("b")
		h.rest()
		tell := func(e entry) {
			e.name, e.ids = "r", []patternID{idOf("r")}
			peerHandler{b.Registry}.Hear("a", appendEntry([]byte{format}, &e))
			synctest.Wait()
		}
		tell(entry{op: opAsk, epoch: 1, search: 7})
		p.expect(t)
		tell(entry{op: opAsk, epoch: 2, search: 7})
		p.expect(t, found("r", "r"))
		tell(entry{op: opEnd, epoch: 1})
		b.answer(p, recAccept, "r", "r")
		p.expect(t)
		tell(entry{op: opEnd, epoch: 1, flag: true})
		p.expect(t)
		// The owner, who has not asked, has it stopped as soon as it hears of it.
		h.agree()
		h.rest()
		p.expect(t, removed("r", "r"))
		for _, n := range []*node{a, b} {
			if st := n.Stats(); st.Matched != 0 {
				t.Errorf("%s: Stats = %+v", n.id, st)
			}
		}
	})
}

func TestNamesOfTheServerAreNotTakenFromPeers(t *testing.T) {
	inHouse(t, 1, []string{"a", "b"}, nil, func(h *house) {
		a := h.nodes["a"]
		p := a.client()
		a.do(p, recListen, ".*")
		h.rest()
		p.take()
		for _, op := range []uint8{opWant, opProviding, opAsk} {
			peerHandler{a.Registry}.Hear("b", appendEntry([]byte{format}, &entry{op: op, epoch: 9, name: "hadal/x", ids: []patternID{idOf(".*")}}))
		}
		h.rest()
		p.expect(t)
		if st := a.Stats(); st.Matched != 0 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

func TestAPatternThatGoesEverywhereIsForgotten(t *testing.T) {
	inHouse(t, 1, []string{"a", "b"}, nil, func(h *house) {
		a, b := h.nodes["a"], h.nodes["b"]
		p, q, s := a.client(), b.client(), b.client()
		a.do(p, recListen, "r")
		b.subscribe(s, "r")
		h.rest()
		for range 3 {
			b.do(q, recListen, ".")
			h.rest()
			b.do(q, recUnlisten, ".")
			h.rest()
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.votes) != 1 || len(a.patterns) != 1 || len(a.names["r"].away.wants[0].ids) != 1 {
			t.Errorf("the owner knows of %d patterns, %d told", len(a.patterns), len(a.votes))
		}
	})
}
