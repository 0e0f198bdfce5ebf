package sub

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"hadal/auth"
	"hadal/protocol"
)

// fake is a client that counts what it is sent.
type fake struct {
	id   uint64
	gone atomic.Bool
	sent atomic.Int64
	mu   sync.Mutex
	got  []string // names of what it was sent; guarded by mu
	keep bool

	most int64 // 0: without bound
	kept atomic.Int64
}

func (f *fake) Reserve(n int) bool {
	if f.most > 0 && f.kept.Load()+int64(n) > f.most {
		return false
	}
	f.kept.Add(int64(n))
	return true
}
func (f *fake) Release(n int)                     { f.kept.Add(-int64(n)) }
func (f *fake) ID() uint64                        { return f.id }
func (f *fake) User() *auth.User                  { return someUser }
func (f *fake) Gone() bool                        { return f.gone.Load() }
func (f *fake) Answer(*protocol.Message)          {}
func (f *fake) Pace()                             {}
func (f *fake) AnswerShared(o *protocol.Outbound) { f.Answer(&o.Message) }
func (f *fake) Send(o *protocol.Outbound) {
	f.sent.Add(1)
	if f.keep {
		f.mu.Lock()
		f.got = append(f.got, o.Name)
		f.mu.Unlock()
	}
}

func event(name string) *protocol.Outbound {
	return &protocol.Outbound{Message: protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit, Name: name}}
}

// added says what Add did as Remove says it.
func added(a Added) (added, first bool) { return a == First || a == Further, a == First }

func TestAClientHasNoMoreThanItMay(t *testing.T) {
	events, records := NewRegistry(), NewRegistry()
	a, b := &fake{id: 1, most: 5}, &fake{id: 2}
	long := strings.Repeat("x", 2*weightBytes) // counts for three
	for _, step := range []struct {
		r    *Registry
		name string
		want Added
	}{
		{events, "a", First}, {events, long, First}, {events, "a", Already}, {records, "a", First},
		{records, "b", Full}, {events, "b", Full}, {records, "b", Full},
	} {
		if got := step.r.Add(step.name, a); got != step.want {
			t.Errorf("Add %.3s = %v, want %v", step.name, got, step.want)
		}
	}
	if n := events.Stats().Refused + records.Stats().Refused; n != 3 {
		t.Errorf("%d were refused, want 3", n)
	}
	events.Add("a", b)
	if got := a.kept.Load(); got != 5 {
		t.Errorf("5 are kept, and %d counted", got)
	}
	events.Remove(long, a)
	events.RemoveName("a")
	records.RemoveClient(a)
	if a.kept.Load() != 0 || b.kept.Load() != 0 {
		t.Errorf("nothing is kept, and %d and %d counted", a.kept.Load(), b.kept.Load())
	}
	if got := events.Add("b", a); got != First {
		t.Errorf("Add = %v when there is room again, want First", got)
	}
}

func TestAddAndRemoveTellFirstAndLast(t *testing.T) {
	r := NewRegistry()
	a, b := &fake{id: 1}, &fake{id: 2}
	for _, step := range []struct {
		what   string
		do     func() (bool, bool)
		w1, w2 bool
	}{
		{"a is the first", func() (bool, bool) { return added(r.Add("x", a)) }, true, true},
		{"a again is nothing new", func() (bool, bool) { return added(r.Add("x", a)) }, false, false},
		{"b is the second", func() (bool, bool) { return added(r.Add("x", b)) }, true, false},
		{"a leaves, b stays", func() (bool, bool) { return r.Remove("x", a) }, true, false},
		{"a has left already", func() (bool, bool) { return r.Remove("x", a) }, false, false},
		{"a never had y", func() (bool, bool) { return r.Remove("y", a) }, false, false},
		{"b is the last", func() (bool, bool) { return r.Remove("x", b) }, true, true},
		{"a is the first again", func() (bool, bool) { return added(r.Add("x", a)) }, true, true},
	} {
		if g1, g2 := step.do(); g1 != step.w1 || g2 != step.w2 {
			t.Errorf("%s: got %v %v, want %v %v", step.what, g1, g2, step.w1, step.w2)
		}
	}
	if got, want := r.Stats(), (Stats{Names: 1, Subscriptions: 1}); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
}

func TestTheEmptyNameIsANameLikeOthers(t *testing.T) {
	r := NewRegistry()
	a := &fake{id: 1}
	r.Add("", a)
	if !r.Has("") || !r.Subscribed("", a) || r.Deliver("", nil, event("")) != 1 {
		t.Error("the empty name was lost")
	}
}

func TestDeliverReachesAllButOne(t *testing.T) {
	r := NewRegistry()
	clients := make([]*fake, 5)
	for i := range clients {
		clients[i] = &fake{id: uint64(i)}
		r.Add("x", clients[i])
	}
	if got := r.Deliver("x", clients[2], event("x")); got != 4 {
		t.Errorf("Deliver = %d, want 4", got)
	}
	for i, c := range clients {
		want := int64(1)
		if i == 2 {
			want = 0
		}
		if got := c.sent.Load(); got != want {
			t.Errorf("client %d got %d messages, want %d", i, got, want)
		}
	}
	if got := r.Deliver("x", &fake{id: 99}, event("x")); got != 5 {
		t.Errorf("Deliver with a stranger excepted = %d, want 5", got)
	}
	if got := r.Deliver("nobody", nil, event("x")); got != 0 {
		t.Errorf("Deliver to an unknown name = %d, want 0", got)
	}
}

func TestTwoDeliversArriveInOrder(t *testing.T) {
	r := NewRegistry()
	a := &fake{id: 1, keep: true}
	r.Add("x", a)
	for _, n := range []string{"1", "2", "3"} {
		r.Deliver("x", nil, event(n))
	}
	if want := []string{"1", "2", "3"}; !slices.Equal(a.got, want) {
		t.Errorf("got %q, want %q", a.got, want)
	}
}

func TestALeavingClientLosesItsOwnNamesOnly(t *testing.T) {
	r := NewRegistry()
	a, b := &fake{id: 1}, &fake{id: 2}
	r.Add("both", a)
	r.Add("both", b)
	r.Add("mine", a)
	r.Add("yours", b)
	lost := r.RemoveClient(a)
	if want := []string{"mine"}; !slices.Equal(lost, want) {
		t.Errorf("lost %q, want %q", lost, want)
	}
	if got, want := r.Stats(), (Stats{Names: 2, Subscriptions: 2}); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
	if lost := r.RemoveClient(a); lost != nil {
		t.Errorf("lost %q the second time", lost)
	}
}

func TestAClientThatIsGoneIsNotAdded(t *testing.T) {
	r := NewRegistry()
	a := &fake{id: 1}
	a.gone.Store(true)
	if got := r.Add("x", a); got != Ended {
		t.Errorf("Add = %v, want Ended", got)
	}
	if r.Has("x") {
		t.Error("the name exists")
	}
}

func TestRemoveNameUnsubscribesEverybody(t *testing.T) {
	r := NewRegistry()
	a, b := &fake{id: 1}, &fake{id: 2}
	r.Add("x", a)
	r.Add("x", b)
	r.Add("y", b)
	if got := len(r.RemoveName("x")); got != 2 {
		t.Errorf("RemoveName returned %d clients, want 2", got)
	}
	if r.Subscribed("x", a) || r.Subscribed("x", b) || r.Has("x") {
		t.Error("somebody is still subscribed")
	}
	if !r.Subscribed("y", b) {
		t.Error("another name was lost")
	}
	if got := r.RemoveName("x"); got != nil {
		t.Errorf("RemoveName of an unknown name returned %v", got)
	}
	if got := r.Add("x", a); got != First {
		t.Errorf("Add afterwards = %v, want First", got)
	}
}

func TestNamesMayCallTheRegistryAndStop(t *testing.T) {
	r := NewRegistry()
	a := &fake{id: 1}
	for i := range 200 {
		r.Add(fmt.Sprint(i), a)
	}
	seen := 0
	for name := range r.Names {
		r.Remove(name, a)
		if seen++; seen == 150 {
			break
		}
	}
	if got := r.Stats().Names; got != 50 {
		t.Errorf("%d names left, want 50", got)
	}
}

func TestAddCopiesTheName(t *testing.T) {
	r := NewRegistry()
	a := &fake{id: 1}
	frame := strings.Repeat("x", 100)
	name := frame[:3]
	r.Add(name, a)
	if n := testing.AllocsPerRun(10, func() { r.Add(name, a) }); n != 0 {
		t.Errorf("a repeated Add allocates %v times", n)
	}
	for kept := range r.Names {
		if kept != "xxx" {
			t.Errorf("kept %q", kept)
		}
	}
}

func TestDeliverDoesNotAllocate(t *testing.T) {
	r := NewRegistry()
	for i := range 10 {
		r.Add("x", &fake{id: uint64(i)})
	}
	o, except := event("x"), &fake{id: 3}
	if n := testing.AllocsPerRun(100, func() { r.Deliver("x", except, o) }); n != 0 {
		t.Errorf("Deliver allocates %v times", n)
	}
}

// The registry behaves as a plain set of pairs would, whatever the order of calls.
func TestRegistryBehavesAsASetOfPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type pair struct {
			name string
			id   uint64
		}
		r, model := NewRegistry(), map[pair]bool{}
		clients := make([]*fake, 6)
		for i := range clients {
			clients[i] = &fake{id: uint64(i)}
		}
		names := []string{"a", "b", "c"}
		count := func(name string) (n int) {
			for p := range model {
				if p.name == name {
					n++
				}
			}
			return n
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			c := rapid.SampledFrom(clients).Draw(t, "client")
			name := rapid.SampledFrom(names).Draw(t, "name")
			p := pair{name, c.id}
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				r.RemoveClient(c)
				for q := range model {
					if q.id == c.id {
						delete(model, q)
					}
				}
			case 1:
				if got, want := len(r.RemoveName(name)), count(name); got != want {
					t.Fatalf("RemoveName = %d, want %d", got, want)
				}
				for q := range model {
					if q.name == name {
						delete(model, q)
					}
				}
			case 2, 3, 4:
				removed, last := r.Remove(name, c)
				had := model[p]
				delete(model, p)
				if removed != had || last != (had && count(name) == 0) {
					t.Fatalf("Remove = %v %v", removed, last)
				}
			default:
				before := count(name)
				added, first := added(r.Add(name, c))
				if added == model[p] || first != (before == 0) && added {
					t.Fatalf("Add = %v %v", added, first)
				}
				model[p] = true
			}
			for _, name := range names {
				if got, want := r.Count(name), count(name); got != want {
					t.Fatalf("Count(%q) = %d, want %d", name, got, want)
				}
				if got, want := r.Deliver(name, nil, event(name)), count(name); got != want {
					t.Fatalf("Deliver(%q) = %d, want %d", name, got, want)
				}
			}
			for _, c := range clients {
				kept := int64(0)
				for p := range model {
					if p.id == c.id {
						kept++
					}
				}
				if got := c.kept.Load(); got != kept {
					t.Fatalf("client %d has %d reserved, want %d", c.id, got, kept)
				}
			}
			if got := r.Stats().Subscriptions; got != len(model) {
				t.Fatalf("Stats has %d subscriptions, want %d", got, len(model))
			}
		}
	})
}

func TestManyGoroutinesLeaveNothingBehind(t *testing.T) {
	r := NewRegistry()
	stop := make(chan struct{})
	var busy, watch sync.WaitGroup
	for i := range 2 {
		watch.Go(func() {
			o := event("n")
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r.Deliver(fmt.Sprint(n%20), nil, o)
				if i == 0 && n%50 == 0 {
					r.RemoveName(fmt.Sprint(n % 20))
				}
				r.Names(func(string) bool { return n%3 != 0 })
			}
		})
	}
	for g := range 4 {
		busy.Go(func() {
			for round := range 20 {
				c := &fake{id: uint64(g*1000 + round)}
				var own sync.WaitGroup
				own.Go(func() { // another goroutine than its reader subscribes it
					for n := range 20 {
						r.Add(fmt.Sprint(n), c)
					}
				})
				for n := range 20 {
					r.Add(fmt.Sprint(n), c)
					if n%3 == 0 {
						r.Remove(fmt.Sprint(n), c)
					}
				}
				c.gone.Store(true)
				r.RemoveClient(c)
				own.Wait()
			}
		})
	}
	busy.Wait()
	close(stop)
	watch.Wait()
	if got := r.Stats(); got != (Stats{}) {
		t.Errorf("Stats = %+v, want nothing", got)
	}
	for i := range r.clients {
		if n := len(r.clients[i].own); n != 0 {
			t.Errorf("shard %d keeps %d clients", i, n)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := NewRegistry()
			for i := range n {
				r.Add("news/sport", &fake{id: uint64(i)})
			}
			o, except := event("news/sport"), &fake{id: 1 << 40}
			b.ReportAllocs()
			for b.Loop() {
				r.Deliver("news/sport", except, o)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/subscriber")
		})
	}
}

func BenchmarkAddRemove(b *testing.B) {
	r := NewRegistry()
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("orders/%d", i)
	}
	other, c := &fake{id: 1}, &fake{id: 2}
	for _, n := range names {
		r.Add(n, other)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		n := names[i%len(names)]
		r.Add(n, c)
		r.Remove(n, c)
		i++
	}
}

func BenchmarkSubscribeThousandAndLeave(b *testing.B) {
	r := NewRegistry()
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("orders/%d", i)
	}
	c := &fake{id: 2}
	b.ReportAllocs()
	for b.Loop() {
		for _, n := range names {
			r.Add(n, c)
		}
		r.RemoveClient(c)
	}
}
