package sub

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

// ruled is a client that keeps its answers.
type ruled struct {
	fake
	answers []protocol.Message // guarded by fake.mu
}

func (c *ruled) Answer(m *protocol.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, *m)
}

func (c *ruled) told() []protocol.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers
}

// flipped are rules that refuse names that begin with their prefix.
type flipped struct {
	generation atomic.Uint64
	prefix     atomic.Pointer[string]
}

func (f *flipped) flip(prefix string) {
	f.prefix.Store(&prefix)
	f.generation.Add(1)
}

func (f *flipped) Generation() uint64 { return f.generation.Load() }

func (f *flipped) Refuse(_ *auth.User, t protocol.Topic, _ protocol.Action, name, _ string) protocol.Action {
	if strings.HasPrefix(name, *f.prefix.Load()) {
		return protocol.Denied(t)
	}
	return 0
}

func flippable(prefix string) *flipped {
	f := &flipped{}
	f.flip(prefix)
	return f
}

func request(name string, judged uint64) *protocol.Message {
	return &protocol.Message{
		Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{name}, Judged: judged,
		CorrelationID: "7", Has: protocol.HasCorrelationID,
	}
}

func TestRejudgeEndsWhatIsRefusedAndNothingElse(t *testing.T) {
	r, rules := NewRegistry(), flippable("secret")
	a, b := &fake{id: 1}, &fake{id: 2}
	for _, name := range []string{"secret/1", "public"} {
		r.Add(name, a)
		r.Add(name, b)
	}
	r.Add("secret/2", a)
	ended := make(map[string]int)
	last := make(map[string]int)
	n := r.Rejudge(rules, protocol.TopicEvent, protocol.EventSubscribe, func(name string, c Client, l bool) {
		ended[fmt.Sprint(name, c.ID())]++
		if l {
			last[name]++
		}
		r.Has(name) // no lock is held
	})
	if n != 3 || len(ended) != 3 || len(last) != 2 || last["secret/1"] != 1 || last["secret/2"] != 1 {
		t.Errorf("%d ended, %v, last of their names %v", n, ended, last)
	}
	if got, want := r.Stats(), (Stats{Names: 1, Subscriptions: 2}); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
	if a.kept.Load() != 1 {
		t.Errorf("the client's account is %d, want 1", a.kept.Load())
	}
}

func TestASubscriptionJudgedByFormerRulesIsJudgedAgain(t *testing.T) {
	r, rules := NewRegistry(), flippable("secret")
	before := rules.Generation()
	rules.flip("public")
	r.Rejudge(rules, protocol.TopicEvent, protocol.EventSubscribe, func(string, Client, bool) {})
	c := &ruled{}
	if got := r.Subscribe(c, request("secret", before), "secret"); got != First {
		t.Errorf("what the new rules allow: %v, want First", got)
	}
	if got := r.Subscribe(c, request("public", before), "public"); got != Refused {
		t.Errorf("what the new rules refuse: %v, want Refused", got)
	}
	told := c.told()
	if len(told) != 1 || told[0].Action != protocol.EventMessageDenied || told[0].Name != "public" ||
		told[0].OriginalAction != protocol.EventSubscribe || told[0].CorrelationID != "7" || !told[0].IsError {
		t.Errorf("the client was told %+v", told)
	}
	if got := r.Subscribe(c, request("public", rules.Generation()), "public"); got != Further && got != First {
		t.Errorf("what was judged by the present rules is asked again: %v", got)
	}
}

// Clients go on subscribing while the rules change back and forth. After each
// Rejudge nobody is subscribed to what the rules of the moment refuse, whenever it
// passed the door.
func TestNoSubscriptionGetsBehindARejudge(t *testing.T) {
	r, rules := NewRegistry(), flippable("a")
	names := []string{"a/1", "a/2", "b/1", "b/2"}
	var stop atomic.Bool
	var clients sync.WaitGroup
	for id := range uint64(4) {
		clients.Go(func() {
			c := &ruled{fake: fake{id: id}}
			random := rand.New(rand.NewPCG(id, 1))
			for !stop.Load() {
				name := names[random.IntN(len(names))]
				m := request(name, rules.Generation())
				if rules.Refuse(nil, m.Topic, m.Action, name, "") != 0 { // the door
					continue
				}
				r.Subscribe(c, m, name)
				if random.IntN(4) == 0 {
					r.Remove(name, c)
				}
			}
		})
	}
	for i := range 2000 {
		prefix := "ab"[i%2 : i%2+1]
		rules.flip(prefix)
		r.Rejudge(rules, protocol.TopicEvent, protocol.EventSubscribe, func(string, Client, bool) {})
		for name := range r.Names {
			if strings.HasPrefix(name, prefix) {
				t.Fatalf("round %d: %s has a subscriber, and the rules refuse it", i, name)
			}
		}
	}
	stop.Store(true)
	clients.Wait()
}

func TestAllMayCallTheRegistryAndStop(t *testing.T) {
	r := NewRegistry()
	a, b := &fake{id: 1}, &fake{id: 2}
	for i := range 200 {
		r.Add(fmt.Sprint(i), a)
		r.Add(fmt.Sprint(i), b)
	}
	seen := 0
	for name, clients := range r.All {
		if len(clients) != 2 {
			t.Errorf("%s has %d clients, want 2", name, len(clients))
		}
		r.RemoveName(name)
		if seen++; seen == 150 {
			break
		}
	}
	if got := r.Stats().Names; got != 50 {
		t.Errorf("%d names left, want 50", got)
	}
}
