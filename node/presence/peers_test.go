package presence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/cluster/clustertest"
	"hadal/protocol"
)

// place is a node, and a client there who watches everybody.
type place struct {
	*Room
	id      string
	watcher *watcher
}

// watcher sees that announcements make sense, and keeps who is online by them.
type watcher struct {
	*fake
	t      *testing.T
	at     string
	online map[string]bool // guarded by fake.mu
	seen   int             // guarded by fake.mu
}

func (w *watcher) Send(o *protocol.Outbound) {
	w.mu.Lock()
	defer w.mu.Unlock()
	here := o.Action == joinAll
	if !here && o.Action != leaveAll || w.online[o.Name] == here {
		w.t.Errorf("%s: %s is announced with %v when it is online: %v", w.at, o.Name, o.Action, w.online[o.Name])
	}
	w.seen++
	if here {
		w.online[o.Name] = true
	} else {
		delete(w.online, o.Name)
	}
}

// told is who is online by what was announced, and how many announcements there were.
func (w *watcher) told() (users string, announcements int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for name := range w.online {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " "), w.seen
}

// onNodes runs a test in a bubble with a room on each of so many nodes, all linked.
func onNodes(t *testing.T, nodes int, test func(t *testing.T, w *clustertest.Wires, at []*place)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := clustertest.NewWires()
		w.Delay = func() time.Duration { return time.Duration(rand.IntN(5000)) * time.Microsecond }
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		var all []*place
		for i := range nodes {
			p := &place{id: string(rune('a' + i))}
			p.Room = newRoomOn(w.Node(p.id))
			p.watcher = &watcher{fake: client("open"), t: t, at: p.id, online: make(map[string]bool)}
			p.Handle(p.watcher, &protocol.Message{Topic: protocol.TopicPresence, Action: subAll})
			running.Go(func() {
				if err := p.Run(ctx); err != nil {
					t.Errorf("Run = %v", err)
				}
			})
			all = append(all, p)
		}
		w.LinkAll()
		settle()
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

func (p *place) expect(t *testing.T, what, users string, announcements int) {
	t.Helper()
	got, seen := p.watcher.told()
	if got != users || seen != announcements {
		t.Errorf("%s: %s was told by %d announcements that %q are online, want %q by %d", what, p.id, seen, got, users, announcements)
	}
	c := client("")
	p.do(c, queryAll, "")
	names := c.got[0].Names
	slices.Sort(names)
	if got := strings.Join(names, " "); got != users {
		t.Errorf("%s: %s answers that %q are online, want %q", what, p.id, got, users)
	}
}

func TestAUserIsOnlineWhereverItsSocketIs(t *testing.T) {
	onNodes(t, 3, func(t *testing.T, w *clustertest.Wires, at []*place) {
		ada, bob := at[0].login("ada"), at[1].login("bob")
		settle()
		for _, p := range at {
			p.expect(t, "two logins", "ada bob", 2)
		}
		c := client("x")
		at[2].do(c, query, "1", "ada", "eve")
		at[2].do(c, subscribe, "2", "ada")
		c.expect(t, answer("1", `{"ada":true,"eve":false}`), acked(subscribe, "2"))
		again := at[1].login("ada")
		at[0].logout(ada)
		settle()
		for _, p := range at {
			p.expect(t, "ada at another node", "ada bob", 2)
		}
		at[1].logout(again)
		at[1].logout(bob)
		settle()
		for _, p := range at {
			p.expect(t, "nobody", "", 4)
		}
		c.expect(t, about(leave, "ada"))
		if st := at[0].Stats(); st.Users != 0 || st.Elsewhere != 0 || st.Joins != 2 || st.Leaves != 2 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

func TestAUserWhoMovesToAnotherNodeDoesNotFlap(t *testing.T) {
	onNodes(t, 4, func(t *testing.T, w *clustertest.Wires, at []*place) {
		c := at[0].login("ada")
		from := 0
		settle()
		for range 300 {
			to := rand.IntN(len(at))
			next := at[to].login("ada")
			at[from].logout(c)
			c, from = next, to
			<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
		}
		settle()
		for _, p := range at {
			p.expect(t, "after 300 moves", "ada", 1)
		}
	})
}

func TestTheUsersOfADeadNodeLeaveByTheTablesVerdict(t *testing.T) {
	onNodes(t, 3, func(t *testing.T, w *clustertest.Wires, at []*place) {
		at[0].login("ada")
		at[0].login("both")
		at[1].login("both")
		settle()
		w.CutOff("a")
		settle()
		at[1].expect(t, "without a link", "ada both", 2)
		if got := at[1].Missing(); len(got) > 0 {
			t.Errorf("Missing = %v", got)
		}
		at[1].table(w, "a", false)
		at[2].table(w, "a", false)
		settle()
		at[1].expect(t, "dead", "both", 3)
		at[2].expect(t, "dead", "both", 3)
		// It had only lost its links, and knows the same as before.
		at[0].expect(t, "cut off", "ada both", 2)
		w.SetAlive("a", true)
		w.LinkAll()
		settle()
		at[1].expect(t, "back", "ada both", 4)
		at[0].expect(t, "back", "ada both", 2)
	})
}

func (p *place) table(w *clustertest.Wires, id string, alive bool) { w.Table(p.id).SetAlive(id, alive) }

func TestALinkThatBreaksIsNoNews(t *testing.T) {
	onNodes(t, 2, func(t *testing.T, w *clustertest.Wires, at []*place) {
		for i := range 100 {
			at[0].login(fmt.Sprint("user ", i))
		}
		settle()
		_, before := at[1].watcher.told()
		for range 20 {
			w.CutOff("a")
			<-time.After(time.Second)
			w.LinkAll()
			<-time.After(time.Second)
		}
		settle()
		if _, after := at[1].watcher.told(); before != 100 || after != before {
			t.Errorf("%d announcements, %d before the links broke", after, before)
		}
	})
}

func TestWhateverHappensAllNodesAgreeWhoIsOnlineInTheEnd(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			onNodes(t, 3, func(t *testing.T, w *clustertest.Wires, at []*place) { chaos(t, w, at, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func chaos(t *testing.T, w *clustertest.Wires, at []*place, r *rand.Rand) {
	type socket struct {
		c  *fake
		at *place
	}
	var sockets []socket
	someone := func() *place { return at[r.IntN(len(at))] }
	for range 1000 {
		switch r.IntN(10) {
		case 0:
			w.Cut(someone().id, someone().id)
		case 1:
			w.Link(someone().id, someone().id)
		case 2:
			w.Table(someone().id).SetAlive(someone().id, r.IntN(2) == 0)
		case 3:
			<-time.After(time.Duration(r.IntN(200)) * time.Millisecond)
		case 4, 5, 6:
			p := someone()
			sockets = append(sockets, socket{p.login(fmt.Sprint("u", r.IntN(8))), p})
		default:
			if len(sockets) > 0 {
				i := r.IntN(len(sockets))
				sockets[i].at.logout(sockets[i].c)
				sockets = slices.Delete(sockets, i, i+1)
			}
		}
	}
	w.LinkAll()
	for _, p := range at {
		w.SetAlive(p.id, true)
	}
	settle()
	var want []string
	for _, s := range sockets {
		want = append(want, s.c.user.ID)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	for _, p := range at {
		_, seen := p.watcher.told()
		p.expect(t, "in the end", strings.Join(want, " "), seen)
	}
}
