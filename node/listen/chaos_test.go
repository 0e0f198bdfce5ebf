package listen

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hadal/node/sub"
	"hadal/protocol"
)

// agent is a client that lives by itself: it answers what it is asked in its own way
// and time, and knows what it believes to serve and to be served.
type agent struct {
	fake
	n      *node
	h      *house
	mode   mode
	delay  time.Duration
	pieces sync.WaitGroup

	at      sync.Mutex
	listens map[string]bool   // guarded by at
	asked   map[string]query  // by name; guarded by at
	serves  map[string]string // name → pattern; guarded by at
	served  map[string]bool   // by name subscribed to; guarded by at
	number  int               // guarded by at
}

// query is a question under way.
type query struct {
	pattern string
	number  int
}

type mode int

const (
	accepts mode = iota
	rejects
	silent
)

func (a *agent) Send(o *protocol.Outbound) {
	m := &o.Message
	a.at.Lock()
	defer a.at.Unlock()
	switch m.Action {
	case protocol.RecordSubscriptionHasProvider:
		a.served[m.Name] = true
	case protocol.RecordSubscriptionHasNoProvider:
		a.served[m.Name] = false
	case protocol.RecordSubscriptionForPatternRemoved, protocol.RecordListenResponseTimeout:
		delete(a.asked, m.Subscription)
		delete(a.serves, m.Subscription)
	case protocol.RecordSubscriptionForPatternFound:
		if a.serves[m.Subscription] != "" {
			a.h.t.Errorf("client %d is asked for %q, which it serves", a.id, m.Subscription)
		}
		a.number++
		q, name := query{strings.Clone(m.Name), a.number}, strings.Clone(m.Subscription)
		a.asked[name] = q
		a.pieces.Go(func() { a.reply(q, name) })
	}
}

func (a *agent) reply(q query, name string) {
	time.Sleep(a.delay)
	action := recAccept
	a.at.Lock()
	switch {
	case a.asked[name] != q || a.mode == silent:
		a.at.Unlock()
		return
	case a.mode == rejects:
		action = recReject
	default:
		a.serves[name] = q.pattern
	}
	delete(a.asked, name)
	a.at.Unlock()
	a.n.Handle(a, &protocol.Message{
		Topic: protocol.TopicRecord, Action: action, Name: q.pattern, Subscription: name, Has: protocol.HasName | protocol.HasSubscription,
	})
}

func (a *agent) listen(pattern string) {
	a.at.Lock()
	a.listens[pattern] = true
	a.at.Unlock()
	a.n.Handle(a, &protocol.Message{Topic: protocol.TopicRecord, Action: recListen, Name: pattern, Has: protocol.HasName})
}

func (a *agent) unlisten(pattern string) {
	a.at.Lock()
	delete(a.listens, pattern)
	maps.DeleteFunc(a.asked, func(_ string, q query) bool { return q.pattern == pattern })
	for name, by := range a.serves {
		if by == pattern {
			delete(a.serves, name)
		}
	}
	a.at.Unlock()
	a.n.Handle(a, &protocol.Message{Topic: protocol.TopicRecord, Action: recUnlisten, Name: pattern, Has: protocol.HasName})
}

func (a *agent) subscribe(name string) {
	a.at.Lock()
	if _, already := a.served[name]; already {
		a.at.Unlock()
		return
	}
	a.served[name] = false
	a.at.Unlock()
	if a.n.subs.Add(name, a) == sub.First {
		a.n.Changed(name)
	}
	if a.n.HasProvider(name) {
		a.at.Lock()
		a.served[name] = true
		a.at.Unlock()
	}
}

func (a *agent) unsubscribe(name string) {
	if _, last := a.n.subs.Remove(name, a); last {
		a.n.Changed(name)
	}
	a.at.Lock()
	delete(a.served, name)
	a.at.Unlock()
}

func (a *agent) leave() {
	a.gone.Store(true)
	for _, name := range a.n.subs.RemoveClient(a) {
		a.n.Changed(name)
	}
	a.n.Closed(a)
	a.at.Lock()
	defer a.at.Unlock()
	a.listens, a.serves, a.served = map[string]bool{}, map[string]string{}, map[string]bool{}
}

// chaos is a run of random doings and faults.
type chaos struct {
	*house
	rng    *rand.Rand
	agents []*agent
	later  sync.WaitGroup
	cut    string // the node that is cut off
	ids    uint64
	trail  []string
	calm   bool // only owners change
}

var (
	chaosPatterns = []string{"^r/", "r/[0-4]$", "[0-9]$", "^s/.*5", "^.*[2468]$"}
	chaosNames    []string
)

func init() {
	for i := range 8 {
		chaosNames = append(chaosNames, fmt.Sprint("r/", i), fmt.Sprint("s/", i))
	}
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

func (c *chaos) note(format string, args ...any) {
	c.trail = append(c.trail, fmt.Sprintf(format, args...))
}

func (c *chaos) nodeIDs() []string {
	var ids []string
	for id := range c.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (c *chaos) join() {
	c.ids++
	a := &agent{
		fake: fake{id: c.ids}, h: c.house, n: c.nodes[pick(c.rng, c.nodeIDs())],
		mode:    pick(c.rng, []mode{accepts, accepts, accepts, rejects, silent}),
		delay:   pick(c.rng, []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 480 * time.Millisecond, 520 * time.Millisecond}),
		listens: map[string]bool{}, asked: map[string]query{}, serves: map[string]string{}, served: map[string]bool{},
	}
	c.agents = append(c.agents, a)
	c.note("client %d comes to %s, mode %d, after %v", a.id, a.n.id, a.mode, a.delay)
}

// spread has all nodes but the one cut off see the truth, each after a while.
func (c *chaos) spread(most time.Duration) {
	for _, id := range c.nodeIDs() {
		if id == c.cut {
			continue
		}
		lag := time.Duration(c.rng.Int64N(int64(most)))
		alive, owners, v := maps.Clone(c.alive), slices.Clone(c.owners), c.nodes[id].view
		c.later.Go(func() {
			time.Sleep(lag)
			v.see(alive, owners)
		})
	}
}

// living are the nodes that may own something.
func (c *chaos) living() []string {
	return slices.DeleteFunc(c.nodeIDs(), func(id string) bool { return !c.alive[id] })
}

// cutOff ends a node for the others: first its links, then its lease, then it is
// held for dead, and what it owned goes to others.
func (c *chaos) cutOff(id string) {
	c.note("%s is cut off", id)
	c.cut = id
	c.wires.CutOff(id)
	c.sleep(450 * time.Millisecond)
	c.nodes[id].view.setLease(false)
	c.sleep(600 * time.Millisecond)
	c.alive[id] = false
	c.spread(100 * time.Millisecond)
	c.sleep(300 * time.Millisecond)
	for p, o := range c.owners {
		if o.Owner == id {
			c.own(p, pick(c.rng, c.living()))
		}
	}
	c.spread(100 * time.Millisecond)
}

// heal has the node that was cut off back.
func (c *chaos) heal() {
	if c.cut == "" {
		return
	}
	c.note("%s is back", c.cut)
	id := c.cut
	c.cut = ""
	c.alive[id] = true
	if c.rng.IntN(2) == 0 {
		c.wires.LinkAll()
	}
	c.spread(200 * time.Millisecond)
	c.sleep(300 * time.Millisecond)
	c.nodes[id].view.setLease(true)
	c.wires.LinkAll()
}

// sleep lets time pass in which clients do something.
func (c *chaos) sleep(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		c.client()
		if c.calm {
			c.atMostOne()
		}
		time.Sleep(time.Duration(c.rng.Int64N(int64(20 * time.Millisecond))))
	}
}

// client has one client do something.
func (c *chaos) client() {
	a := pick(c.rng, c.agents)
	name, pattern := pick(c.rng, chaosNames), pick(c.rng, chaosPatterns)
	switch c.rng.IntN(20) {
	case 0, 1:
		c.note("client %d listens to %s", a.id, pattern)
		a.listen(pattern)
	case 2, 3:
		c.note("client %d unlistens %s", a.id, pattern)
		a.unlisten(pattern)
	case 4:
		c.note("client %d leaves", a.id)
		a.leave()
		c.agents = slices.DeleteFunc(c.agents, func(o *agent) bool { return o == a })
		c.join()
	case 5, 6, 7, 8, 9, 10:
		c.note("client %d subscribes to %s", a.id, name)
		a.subscribe(name)
	case 11, 12, 13, 14, 15:
		c.note("client %d unsubscribes from %s", a.id, name)
		a.unsubscribe(name)
	}
}

// fault does something to the cluster.
func (c *chaos) fault() {
	ids := c.nodeIDs()
	a, b := pick(c.rng, ids), pick(c.rng, ids)
	what := c.rng.IntN(9)
	if c.calm {
		what = 4
	}
	switch what {
	case 0, 1:
		c.note("%s and %s lose their link", a, b)
		c.wires.Cut(a, b)
	case 2, 3:
		if a != c.cut && b != c.cut {
			c.note("%s and %s are linked", a, b)
			c.wires.Link(a, b)
		}
	case 4, 5, 6:
		p, to := c.rng.IntN(len(c.owners)), pick(c.rng, c.living())
		c.note("partition %d goes to %s", p, to)
		from := c.owners[p].Owner
		c.own(p, to)
		if c.calm { // as Table.Holds promises: nobody is made owner while another one is
			c.learn(from)
		}
		c.spread(300 * time.Millisecond)
	case 7:
		if c.cut == "" {
			c.cutOff(a)
		} else {
			c.heal()
		}
	case 8:
		if len(ids) < 5 {
			id := fmt.Sprint("n", len(ids))
			c.note("%s joins", id)
			c.add(id)
			c.spread(100 * time.Millisecond)
			for _, other := range c.nodeIDs() {
				if other != c.cut {
					c.wires.Link(id, other)
				}
			}
		}
	}
}

// atMostOne looks for names that two clients provide at this moment.
func (c *chaos) atMostOne() {
	for _, name := range chaosNames {
		var on []string
		for _, id := range c.nodeIDs() {
			n := c.nodes[id]
			n.mu.Lock()
			if s := n.names[name]; s != nil && s.provider != nil && !s.provider.gone {
				on = append(on, id)
			}
			n.mu.Unlock()
		}
		if len(on) > 1 {
			c.note("%s is provided on %q", name, on)
			c.t.Errorf("%s is provided on %q", name, on)
		}
	}
}

// check looks, when everything has come to rest, at what all clients believe.
func (c *chaos) check() {
	for _, name := range chaosNames {
		wanted, willing := false, false
		var serving []string
		for _, n := range c.nodes {
			wanted = wanted || n.subs.Has(name)
		}
		for _, a := range c.agents {
			a.at.Lock()
			for pattern := range a.listens {
				if regexp.MustCompile(pattern).MatchString(name) && a.mode == accepts && a.delay < c.cfg.ResponseTimeout {
					willing = true
				}
			}
			if a.serves[name] != "" {
				serving = append(serving, fmt.Sprintf("%d on %s", a.id, a.n.id))
			}
			a.at.Unlock()
		}
		want := map[bool]int{true: 1}[wanted && willing]
		if len(serving) != want {
			c.t.Errorf("%s (wanted %v, willing %v) is served by %q", name, wanted, willing, serving)
			for _, n := range c.nodes {
				c.t.Log(n.dump(name))
			}
		}
		for id, n := range c.nodes {
			if got := n.HasProvider(name); got != (want == 1) {
				c.t.Errorf("on %s HasProvider(%q) = %v, want %v", id, name, got, want == 1)
			}
		}
		for _, a := range c.agents {
			a.at.Lock()
			if served, subscribed := a.served[name]; subscribed && served != (want == 1) {
				c.t.Errorf("client %d on %s believes of %s that it has a provider: %v", a.id, a.n.id, name, served)
			}
			a.at.Unlock()
		}
	}
}

// moves counts the providers that came and those that were ended.
func (c *chaos) moves() (n uint64) {
	for _, node := range c.nodes {
		st := node.Stats()
		n += st.Accepted + st.Ended
	}
	return n
}

// Whatever clients do and whatever happens between nodes, when it is over each name
// that is wanted and that somebody is willing to provide has one provider, no other
// has one, and everybody knows. In calm runs, in which owners change and nothing else
// happens, no name has two providers at any moment.
func TestNodesAgreeAfterAnyFaults(t *testing.T) {
	seeds := uint64(12)
	if text := os.Getenv("HADAL_LISTEN_SEEDS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = n
	}
	first := uint64(1)
	if text := os.Getenv("HADAL_LISTEN_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, seeds = n, 1
	}
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runChaos(t, seed, false) })
		t.Run(fmt.Sprint("calm seed ", seed), func(t *testing.T) { runChaos(t, seed, true) })
	}
}

func runChaos(t *testing.T, seed uint64, calm bool) {
	inHouse(t, 4, []string{"n0", "n1", "n2"}, func(h *house) {
		h.cfg.ShuffleProviders = true
		h.cfg.RematchInterval, h.cfg.MatchCooldown = 2*time.Second, 700*time.Millisecond
		var mu sync.Mutex
		delays := rand.New(rand.NewPCG(seed, 1))
		h.wires.Delay = func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(delays.Int64N(int64(3 * time.Millisecond)))
		}
	}, func(h *house) {
		c := &chaos{house: h, calm: calm, rng: rand.New(rand.NewPCG(seed, 0))}
		for range 9 {
			c.join()
		}
		for range 25 {
			c.fault()
			c.sleep(time.Duration(c.rng.Int64N(int64(400 * time.Millisecond))))
		}
		c.heal()
		c.wires.LinkAll()
		time.Sleep(time.Second)
		c.later.Wait()
		c.agree()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		before := c.moves()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if after := c.moves(); after != before {
			t.Errorf("%d providers came or went while nothing happened", after-before)
		}
		c.check()
		for _, a := range c.agents {
			a.leave()
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for id, n := range h.nodes {
			if st := n.Stats(); st.Matched+st.Provided+st.Elsewhere+st.Patterns+st.Listeners > 0 || st.Invalid > 0 {
				t.Errorf("%s: Stats = %+v, want nothing left", id, st)
			}
			n.mu.Lock()
			if len(n.votes) > 0 || len(n.byID) > 0 {
				t.Errorf("%s knows of %d patterns, told of %d", id, len(n.byID), len(n.votes))
			}
			n.mu.Unlock()
		}
		for _, a := range c.agents {
			a.pieces.Wait()
		}
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, strings.Join(c.trail, "\n"))
		}
	})
}
