package listen

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"hadal/auth"
	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
)

// fake is a client that writes down what it is sent.
type fake struct {
	id   uint64
	user string // "u" if it is empty
	gone atomic.Bool
	mu   sync.Mutex
	got  []string // guarded by mu
	wire []string // the same as bytes, in hex; guarded by mu

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
func (f *fake) User() *auth.User                  { return &auth.User{ID: cmp.Or(f.user, "u")} }
func (f *fake) Gone() bool                        { return f.gone.Load() }
func (f *fake) Answer(m *protocol.Message)        { f.note(m) }
func (f *fake) AnswerShared(o *protocol.Outbound) { f.note(&o.Message) }
func (f *fake) Send(o *protocol.Outbound)         { f.note(&o.Message) }
func (f *fake) Pace()                             {}
func (f *fake) note(m *protocol.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, say(m))
	f.wire = append(f.wire, hex.EncodeToString(protocol.Append(nil, m)))
}

// say spells out all that is on the wire.
func say(m *protocol.Message) string {
	s := m.Topic.String() + " " + m.Action.Name(m.Topic)
	if m.IsAck {
		s += " ack"
	}
	if m.IsError {
		s += " error"
	}
	if m.Carries(protocol.HasName) {
		s += " name=" + m.Name
	}
	if m.Carries(protocol.HasSubscription) {
		s += " subscription=" + m.Subscription
	}
	if m.Carries(protocol.HasOriginalAction) {
		s += " of=" + m.OriginalAction.Name(m.Topic)
	}
	if m.Carries(protocol.HasCorrelationID) {
		s += " id=" + m.CorrelationID
	}
	return s
}

// take returns what has come since the last take.
func (f *fake) take() []string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.got
	f.got = nil
	return got
}

func (f *fake) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := f.take(); !slices.Equal(got, want) {
		t.Errorf("client %d got\n\t%q\nwant\n\t%q", f.id, got, want)
	}
}

// world is a registry that runs, its subscriptions, and short names for what clients do.
type world struct {
	*Registry
	t    *testing.T
	next uint64
}

// inBubble runs body with a registry whose providers are asked in order. Patterns
// must be linear: the other engine has a clock of its own that would outlive the bubble.
func inBubble(t *testing.T, topic protocol.Topic, change func(*Config), body func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.ShuffleProviders = false
		if change != nil {
			change(&cfg)
		}
		w := &world{Registry: New(topic, cfg, sub.NewRegistry(), cluster.NewSoloInMemory("test"), cluster.Alone{}, slog.New(slog.DiscardHandler)), t: t}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		body(w)
		synctest.Wait()
		stop()
		wg.Wait()
	})
}

func (w *world) client() *fake { w.next++; return &fake{id: w.next} }

func (w *world) do(c *fake, a protocol.Action, pattern string) {
	w.Handle(c, &protocol.Message{Topic: w.topic, Action: a, Name: pattern, Has: protocol.HasName})
	synctest.Wait()
}

func (w *world) answer(c *fake, a protocol.Action, pattern, name string) {
	w.Handle(c, &protocol.Message{
		Topic: w.topic, Action: a, Name: pattern, Subscription: name,
		Has: protocol.HasName | protocol.HasSubscription,
	})
	synctest.Wait()
}

func (w *world) subscribe(c *fake, name string) {
	if w.subs.Add(name, c) == sub.First {
		w.Changed(name)
	}
	synctest.Wait()
}

func (w *world) unsubscribe(c *fake, name string) {
	if _, last := w.subs.Remove(name, c); last {
		w.Changed(name)
	}
	synctest.Wait()
}

func (w *world) disconnect(c *fake) {
	c.gone.Store(true)
	for _, name := range w.subs.RemoveClient(c) {
		w.Changed(name)
	}
	w.Closed(c)
	synctest.Wait()
}

// Shorthands for records, in which most tests are written.
const (
	recListen   = protocol.RecordListen
	recUnlisten = protocol.RecordUnlisten
	recAccept   = protocol.RecordListenAccept
	recReject   = protocol.RecordListenReject
)

func found(pattern, name string) string {
	return "RECORD SUBSCRIPTION_FOR_PATTERN_FOUND name=" + pattern + " subscription=" + name
}
func removed(pattern, name string) string {
	return "RECORD SUBSCRIPTION_FOR_PATTERN_REMOVED name=" + pattern + " subscription=" + name
}
func ack(pattern string) string   { return "RECORD LISTEN ack name=" + pattern }
func unack(pattern string) string { return "RECORD UNLISTEN ack name=" + pattern }
func has(name string) string      { return "RECORD SUBSCRIPTION_HAS_PROVIDER name=" + name }
func hasNo(name string) string    { return "RECORD SUBSCRIPTION_HAS_NO_PROVIDER name=" + name }
func timedOut(name string) string { return "RECORD LISTEN_RESPONSE_TIMEOUT subscription=" + name }
func inRecords(t *testing.T, body func(w *world)) {
	t.Helper()
	inBubble(t, protocol.TopicRecord, nil, body)
}

// The example of spec 09 §2.5, with the bytes of each message compared too.
func TestTwoProvidersAsInTheExample(t *testing.T) {
	inRecords(t, func(w *world) {
		p1, p2, c := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r/.*")
		w.do(p2, recListen, "r/[0-9]")
		p1.expect(t, ack("r/.*"))
		p2.expect(t, ack("r/[0-9]"))

		w.subscribe(c, "r/1")
		p1.expect(t, found("r/.*", "r/1"))
		w.answer(p1, recReject, "r/.*", "r/1")
		p2.expect(t, found("r/[0-9]", "r/1"))
		w.answer(p2, recAccept, "r/[0-9]", "r/1")
		c.expect(t, has("r/1"))
		if !w.HasProvider("r/1") {
			t.Error("HasProvider = false, want true")
		}

		w.do(p2, recUnlisten, "r/[0-9]")
		c.expect(t, hasNo("r/1"))
		p1.expect(t, found("r/.*", "r/1"))
		p2.expect(t, unack("r/[0-9]"))
		if w.HasProvider("r/1") {
			t.Error("HasProvider = true, want false")
		}

		for _, tc := range []struct { // written down by hand from spec 01
			c    *fake
			want []string
		}{
			{p1, []string{
				"0e10051a0a081b28013204722f2e2a",       // LISTEN ack
				"1110051a0d08213204722f2e2a4a03722f31", // FOUND
				"1110051a0d08213204722f2e2a4a03722f31", // FOUND
			}},
			{p2, []string{
				"1110051a0d081b28013207722f5b302d395d",       // LISTEN ack
				"1410051a1008213207722f5b302d395d4a03722f31", // FOUND
				"1110051a0d081c28013207722f5b302d395d",       // UNLISTEN ack
			}},
			{c, []string{
				"0b10051a07081f3203722f31", // HAS_PROVIDER
				"0b10051a0708203203722f31", // HAS_NO_PROVIDER
			}},
		} {
			if !slices.Equal(tc.c.wire, tc.want) {
				t.Errorf("client %d got the bytes\n\t%q\nwant\n\t%q", tc.c.id, tc.c.wire, tc.want)
			}
		}
	})
}

// A subscriber hears of a provider either from those who subscribe it or with all others:
// nothing may be told between the two.
func TestNobodyIsToldOfProvidersWhileAClientSubscribes(t *testing.T) {
	inRecords(t, func(w *world) {
		p, c, d := w.client(), w.client(), w.client()
		w.do(p, recListen, "r")
		apart := func() {
			if w.mu.TryLock() {
				w.mu.Unlock()
				t.Error("subscribers may be told of a provider now")
			}
		}
		subscribe := func(c *fake, full bool) bool {
			return w.Subscribe("r", func() bool {
				apart()
				if !full && w.subs.Add("r", c) == sub.First {
					w.Changed("r")
				}
				return !full
			}, func() {
				apart()
				c.Answer(&protocol.Message{Topic: w.topic, Action: protocol.RecordSubscriptionHasProvider, Name: "r", Has: protocol.HasName})
			})
		}
		if !subscribe(c, false) {
			t.Error("Subscribe = false, want what add returned")
		}
		synctest.Wait()
		c.expect(t)
		w.answer(p, recAccept, "r", "r")
		c.expect(t, has("r"))
		if !subscribe(d, false) {
			t.Error("Subscribe = false, want what add returned")
		}
		d.expect(t, has("r"))
		if e := w.client(); subscribe(e, true) {
			t.Error("Subscribe = true for one who may not, want false")
		} else {
			e.expect(t)
		}
	})
}

func TestEventsUseTheirOwnNumbersAndTellSubscribersNothing(t *testing.T) {
	inBubble(t, protocol.TopicEvent, nil, func(w *world) {
		p, c := w.client(), w.client()
		w.do(p, protocol.EventListen, "^news/")
		w.subscribe(c, "news/sport")
		w.answer(p, protocol.EventListenAccept, "^news/", "news/sport")
		if !w.HasProvider("news/sport") {
			t.Error("nobody provides the event")
		}
		w.unsubscribe(c, "news/sport")
		w.do(p, protocol.EventUnlisten, "^news/")
		p.expect(t,
			"EVENT LISTEN ack name=^news/",
			"EVENT SUBSCRIPTION_FOR_PATTERN_FOUND name=^news/ subscription=news/sport",
			"EVENT SUBSCRIPTION_FOR_PATTERN_REMOVED name=^news/ subscription=news/sport",
			"EVENT UNLISTEN ack name=^news/")
		c.expect(t)
	})
}

func TestListenAnswers(t *testing.T) {
	for _, tc := range []struct {
		what string
		do   []protocol.Message
		want []string
	}{
		{"a listen is acknowledged with its name",
			[]protocol.Message{{Action: recListen, Name: "a", Has: protocol.HasName}}, []string{ack("a")}},
		{"a correlation id is echoed",
			[]protocol.Message{{Action: recListen, Name: "a", CorrelationID: "7", Has: protocol.HasName | protocol.HasCorrelationID}},
			[]string{ack("a") + " id=7"}},
		{"the same pattern twice",
			[]protocol.Message{{Action: recListen, Name: "a", Has: protocol.HasName}, {Action: recListen, Name: "a", Has: protocol.HasName}},
			[]string{ack("a"), "RECORD MULTIPLE_SUBSCRIPTIONS name=a of=LISTEN", ack("a")}},
		{"an unknown pattern is unlistened",
			[]protocol.Message{{Action: recUnlisten, Name: "a", Has: protocol.HasName}}, []string{unack("a")}},
		{"a bad expression",
			[]protocol.Message{{Action: recListen, Name: "a(", Has: protocol.HasName}}, []string{"RECORD INVALID_LISTEN_REGEX name=a("}},
		{"no pattern",
			[]protocol.Message{{Action: recListen}}, []string{"RECORD INVALID_LISTEN_REGEX"}},
		{"a pattern that is too long",
			[]protocol.Message{{Action: recListen, Name: strings.Repeat("a", maxPattern+1), Has: protocol.HasName}},
			[]string{"RECORD INVALID_LISTEN_REGEX name=" + strings.Repeat("a", maxPattern+1)}},
		{"an accept nobody asked for",
			[]protocol.Message{{Action: recAccept, Name: "a", Subscription: "b", Has: protocol.HasName | protocol.HasSubscription}}, nil},
		{"an accept without any field", []protocol.Message{{Action: recAccept}}, nil},
		{"an action that is not about listening", []protocol.Message{{Action: protocol.RecordRead, Name: "a"}}, nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			inRecords(t, func(w *world) {
				c := w.client()
				for _, m := range tc.do {
					m.Topic = protocol.TopicRecord
					w.Handle(c, &m)
				}
				c.expect(t, tc.want...)
			})
		})
	}
}

func TestOneClientMayNotListenWithoutEnd(t *testing.T) {
	inRecords(t, func(w *world) {
		c := w.client()
		own := make(map[string]*listener) // as many as it may have, but one
		for i := range w.cfg.MaxPatterns - 1 {
			own[fmt.Sprint("p", i)] = &listener{c: c}
		}
		w.mu.Lock()
		w.listeners[c.id] = own
		w.mu.Unlock()
		w.do(c, recListen, "a")
		w.do(c, recListen, "b")
		c.expect(t, ack("a"), "RECORD INVALID_LISTEN_REGEX name=b")
		w.do(c, recUnlisten, "a")
		w.do(c, recListen, "b")
		c.expect(t, unack("a"), ack("b"))
	})
}

func TestOneUserMayNotListenWithoutEnd(t *testing.T) {
	inRecords(t, func(w *world) {
		w.cfg.MaxPatternsPerUser = 2
		a, b, other, nobody := w.client(), w.client(), w.client(), w.client()
		other.user, nobody.user = "other", auth.Anonymous
		w.do(a, recListen, "a")
		w.do(b, recListen, "b")
		w.do(b, recListen, "c")
		b.expect(t, ack("b"), "RECORD INVALID_LISTEN_REGEX name=c")
		for _, pattern := range []string{"a", "b"} {
			w.do(other, recListen, pattern)
		}
		other.expect(t, ack("a"), ack("b"))
		for _, pattern := range []string{"a", "b", "c"} {
			w.do(nobody, recListen, pattern)
		}
		nobody.expect(t, ack("a"), ack("b"), ack("c"))
		w.do(a, recUnlisten, "a")
		w.do(b, recListen, "c")
		b.expect(t, ack("c"))
		b.gone.Store(true)
		w.Closed(b)
		w.do(a, recListen, "d")
		w.do(a, recListen, "e")
		w.do(a, recListen, "f")
		a.expect(t, ack("a"), unack("a"), ack("d"), ack("e"), "RECORD INVALID_LISTEN_REGEX name=f")
	})
}

func TestPatternsAreUnanchoredJavaScript(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"r/1", "xr/10", true},
		{"^r/1$", "xr/10", false},
		{"^r/1$", "r/1", true},
		{"R/1", "r/1", false},
		{`r/(?!1)\d`, "r/2", true},
		{`r/(?!1)\d`, "r/1", false},
		{`(?<=user/)joe`, "user/joe", true},
		{`(a+)/\1$`, "aa/aa", true},
		{`^(a+)/\1$`, "aa/a", false},
		{`^[^/]+/[^/]+$`, "a/b/c", false},
		{`\u0061/b`, "a/b", true},
		{`^é+$`, "éé", true},
		{`^\d$`, "٣", false},
		{`^\w$`, "é", false},
		{`^.$`, "\n", false},
		{`$`, "a\n", true},
		{`a$`, "a\n", false},
		{`(?<n>x)\k<n>`, "xx", true},
	} {
		x, err := compile(tc.pattern)
		if err != nil {
			t.Errorf("compile(%q) = %v", tc.pattern, err)
			continue
		}
		if got, _ := x.match(tc.name, slog.New(slog.DiscardHandler)); got != tc.want {
			t.Errorf("%q matches %q = %v, want %v", tc.pattern, tc.name, got, tc.want)
		}
	}
}

// Runs outside of a bubble, because the engine's clock must tick.
func TestAPatternThatWastesTimeIsSwitchedOff(t *testing.T) {
	x, err := compile(`^(a|aa)+$(?!x)`)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	name := strings.Repeat("a", 60) + "b"
	if _, err := x.try(name); err == nil {
		t.Fatal("the match did not fail; the test needs a worse pattern")
	}
	x.used = slowBudget - time.Millisecond // the rest of the budget is used up by one more
	x.at = time.Now()
	if ok, _ := x.match(name, log); ok {
		t.Error("a match that fails counts as one")
	}
	if !x.off {
		t.Fatal("the pattern is still on")
	}
	if ok, _ := x.match("aa", log); ok {
		t.Error("a pattern that is off matches")
	}
}

// What one client's patterns waste is bounded together, and so is what all do, by
// however many connections: the names of others are matched all the same.
func TestManyPatternsWasteNoMoreThanOne(t *testing.T) {
	r := New(protocol.TopicEvent, DefaultConfig(), sub.NewRegistry(), cluster.NewSoloInMemory("test"), cluster.Alone{}, slog.New(slog.DiscardHandler))
	name := strings.Repeat("a", 60) + "b"
	add := func(author uint64, text string) *pattern {
		x, err := compile(text)
		if err != nil {
			t.Fatal(err)
		}
		return &pattern{text: text, author: author, expr: x}
	}
	good := add(999, `^(?!x)a+b$`) // heavy, and quick
	// On a busy machine any match may look slow, and waste what nobody has; then it begins
	// anew.
	matches := func(used time.Duration, trust int) (ok bool) {
		for range 1000 {
			good.expr.budget, good.expr.off, good.expr.quick = budget{}, false, trust
			clear(r.wasted)
			r.total = budget{used: used, at: time.Now()}
			for ok = true; ok && good.expr.quick <= trusted; {
				ok = r.match(good, name)
			}
			if ok {
				return true
			}
		}
		return false
	}
	if !matches(0, 0) {
		t.Fatal("it does not match, or never earns trust")
	}
	clear(r.wasted)
	r.total = budget{at: time.Now()}
	for i := range 300 {
		r.match(add(1, fmt.Sprintf(`^(a|aa)+$(?!%d)`, i)), name)
	}
	// Each match that is tried takes matchTimeout or more, so that few fit into the budget.
	const tried = uint64(clientBudget/matchTimeout + 1)
	skipped := r.Stats().Skipped
	if skipped < 300-tried {
		t.Errorf("%d matches of 300 were skipped, want all but %d", skipped, tried)
	}
	r.total = budget{used: 2 * nodeBudget, at: time.Now()}
	for client := range uint64(100) {
		r.match(add(1000+client, `^(a|aa)+$(?!x)`), name)
	}
	if got := r.Stats().Skipped - skipped; got != 100 {
		t.Errorf("%d matches of a hundred clients that came after were skipped, want all", got)
	}
	if !matches(2*nodeBudget, trusted) || !r.match(add(5, "^a+b$"), name) {
		t.Error("a pattern that never wasted time, or cannot, is not tried")
	}
}

func TestPatternsCountAsSubscriptions(t *testing.T) {
	inRecords(t, func(w *world) {
		c := w.client()
		c.most = int64(weight("a") + weight("b"))
		w.do(c, recListen, "a")
		w.do(c, recListen, "b")
		w.do(c, recListen, "c")
		c.expect(t, ack("a"), ack("b"), "RECORD INVALID_LISTEN_REGEX name=c")
		w.do(c, recUnlisten, "a")
		w.do(c, recListen, "c")
		c.expect(t, unack("a"), ack("c"))
		w.Closed(c)
		if n := c.kept.Load(); n != 0 {
			t.Errorf("%d are reserved for one who has gone", n)
		}
	})
}

func TestABudgetThatIsNotUsedComesBack(t *testing.T) {
	now := time.Unix(1000, 0)
	x := &budget{at: now}
	for range 10_000 {
		now = now.Add(10 * time.Second)
		if x.spend(100*time.Millisecond, now, slowBudget) {
			t.Fatal("a pattern that is slow now and then was switched off")
		}
	}
	for range 21 {
		x.spend(100*time.Millisecond, now, slowBudget)
	}
	if !x.over(now, slowBudget) {
		t.Error("a pattern that is slow all the time is still on")
	}
}

func TestExistingSubscriptionsAreOfferedToANewListener(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p := w.client(), w.client()
		w.subscribe(c, "r/1")
		w.subscribe(c, "x")
		w.do(p, recListen, "r/.*")
		p.expect(t, ack("r/.*"), found("r/.*", "r/1"))
	})
}

func TestAListenerMayBeItsOwnSubscriber(t *testing.T) {
	inRecords(t, func(w *world) {
		p := w.client()
		w.do(p, recListen, "r")
		w.subscribe(p, "r")
		w.answer(p, recAccept, "r", "r")
		p.expect(t, ack("r"), found("r", "r"), has("r"))
	})
}

func TestFurtherListenersAreNotAskedWhileProvided(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.subscribe(c, "r")
		w.answer(p1, recAccept, "r", "r")
		w.do(p2, recListen, ".")
		w.do(p2, recListen, "r")
		p2.expect(t, ack("."), ack("r"))
		c.expect(t, has("r"))
	})
}

func TestAListenerThatComesDuringASearchIsAskedLast(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2, p3 := w.client(), w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.do(p2, recListen, "r")
		w.subscribe(c, "r")
		w.do(p3, recListen, ".") // its pattern is new, its turn the last
		p3.expect(t, ack("."))
		w.answer(p1, recReject, "r", "r")
		p3.expect(t)
		w.answer(p2, recReject, "r", "r")
		p3.expect(t, found(".", "r"))
		w.answer(p3, recReject, ".", "r")
		p1.expect(t, ack("r"), found("r", "r"))
		p2.expect(t, ack("r"), found("r", "r"))
	})
}

func TestListenersThatComeTogetherAreAskedOnceEach(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.subscribe(c, "r")
		for _, p := range []*fake{p1, p2} { // both before the worker looks
			w.Handle(p, &protocol.Message{Topic: w.topic, Action: recListen, Name: "r", Has: protocol.HasName})
		}
		synctest.Wait()
		w.answer(p1, recReject, "r", "r")
		w.answer(p2, recReject, "r", "r")
		p1.expect(t, ack("r"), found("r", "r"))
		p2.expect(t, ack("r"), found("r", "r"))
	})
}

func TestANameIsMatchedAgainstAllPatternsWhateverTheOrderOfJobs(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		// The scan for p2's pattern meets the name before the name's own turn comes.
		w.mu.Lock()
		w.subs.Add("r", c)
		w.mu.Unlock()
		w.do(p2, recListen, ".")
		w.Changed("r")
		p1.expect(t, ack("r"), found("r", "r"))
		w.answer(p1, recReject, "r", "r")
		p2.expect(t, ack("."), found(".", "r"))
	})
}

func TestACandidateThatDoesNotAnswerIsPassedOver(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.do(p2, recListen, "r")
		w.subscribe(c, "r")
		time.Sleep(w.cfg.ResponseTimeout - 1)
		p1.expect(t, ack("r"), found("r", "r"))
		time.Sleep(time.Nanosecond)
		p1.expect(t, timedOut("r"))
		p2.expect(t, ack("r"), found("r", "r"))
		w.answer(p1, recAccept, "r", "r") // too late
		p1.expect(t, removed("r", "r"))   // the official client knows no timeout
		if w.HasProvider("r") {
			t.Error("a late accept was taken")
		}
		w.answer(p2, recAccept, "r", "r")
		time.Sleep(time.Second)
		p2.expect(t)
		c.expect(t, has("r"))
		if got := w.Stats(); got.TimedOut != 1 || got.Stray != 1 || got.Provided != 1 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestEachCandidateHasTheWholeTime(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.do(p2, recListen, "r")
		w.subscribe(c, "r")
		time.Sleep(w.cfg.ResponseTimeout - time.Millisecond)
		w.answer(p1, recReject, "r", "r")
		time.Sleep(w.cfg.ResponseTimeout - time.Millisecond) // the first question's time has passed
		p2.expect(t, ack("r"), found("r", "r"))
		time.Sleep(time.Millisecond)
		p2.expect(t, timedOut("r"))
		p1.expect(t, ack("r"), found("r", "r"))
	})
}

func TestOnlyTheAskedMayAnswer(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2, thief := w.client(), w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.do(p2, recListen, "r")
		w.subscribe(c, "r")
		w.answer(thief, recAccept, "r", "r")
		w.answer(p2, recReject, "r", "r")
		w.answer(p1, recAccept, "another pattern", "r")
		if w.HasProvider("r") {
			t.Error("a stranger's accept was taken")
		}
		p2.expect(t, ack("r"))
		w.answer(p1, recAccept, "r", "r")
		if !w.HasProvider("r") {
			t.Error("the asked client's accept was not taken")
		}
		c.expect(t, has("r"))
	})
}

func TestACandidateThatLeavesIsARejection(t *testing.T) {
	for what, leave := range map[string]func(w *world, p *fake){
		"by disconnecting": func(w *world, p *fake) { w.disconnect(p) },
		"by unlistening":   func(w *world, p *fake) { w.do(p, recUnlisten, "r") },
	} {
		t.Run(what, func(t *testing.T) {
			inRecords(t, func(w *world) {
				c, p1, p2 := w.client(), w.client(), w.client()
				w.do(p1, recListen, "r")
				w.do(p2, recListen, "r")
				w.subscribe(c, "r")
				leave(w, p1)
				p2.expect(t, ack("r"), found("r", "r"))
				w.answer(p2, recAccept, "r", "r")
				c.expect(t, has("r"))
			})
		})
	}
}

func TestAnotherListenersLeavingDoesNotDisturbASearch(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2, p3 := w.client(), w.client(), w.client(), w.client()
		for _, p := range []*fake{p1, p2, p3} {
			w.do(p, recListen, "r")
		}
		w.subscribe(c, "r")
		w.disconnect(p2)
		p3.expect(t, ack("r"))
		w.answer(p1, recReject, "r", "r")
		p3.expect(t, found("r", "r"))
		p2.expect(t, ack("r"))
	})
}

func TestTheProviderIsToldWhenTheLastSubscriberGoes(t *testing.T) {
	for what, end := range map[string]func(w *world, c *fake){
		"by unsubscribing":               func(w *world, c *fake) { w.unsubscribe(c, "r") },
		"by disconnecting":               func(w *world, c *fake) { w.disconnect(c) },
		"because the record was deleted": func(w *world, c *fake) { w.subs.RemoveName("r"); w.Changed("r") },
	} {
		t.Run(what, func(t *testing.T) {
			inRecords(t, func(w *world) {
				c1, c2, p := w.client(), w.client(), w.client()
				w.do(p, recListen, "r")
				w.subscribe(c1, "r")
				w.subscribe(c2, "r")
				w.answer(p, recAccept, "r", "r")
				w.unsubscribe(c2, "r")
				p.expect(t, ack("r"), found("r", "r"))
				end(w, c1)
				p.expect(t, removed("r", "r"))
				c1.expect(t, has("r"))
				if w.HasProvider("r") || w.Stats().Matched != 0 {
					t.Error("the name is not free")
				}
				w.subscribe(c2, "r")
				p.expect(t, found("r", "r"))
			})
		})
	}
}

func TestAnAcceptForANameNobodyHearsAnyMoreIsTakenBack(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p := w.client(), w.client()
		w.do(p, recListen, "r")
		w.subscribe(c, "r")
		w.unsubscribe(c, "r")
		w.answer(p, recAccept, "r", "r")
		p.expect(t, ack("r"), found("r", "r"), removed("r", "r"))
		if got := w.Stats(); got.Matched != 0 || got.Provided != 0 {
			t.Errorf("Stats = %+v", got)
		}
	})
}

func TestASubscriberThatReturnsDuringASearchFindsItGoingOn(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p := w.client(), w.client()
		w.do(p, recListen, "r")
		w.subscribe(c, "r")
		w.unsubscribe(c, "r")
		w.subscribe(c, "r")
		w.answer(p, recAccept, "r", "r")
		p.expect(t, ack("r"), found("r", "r"))
		c.expect(t, has("r"))
	})
}

func TestALostProviderIsReplaced(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.do(p2, recListen, "r")
		w.subscribe(c, "r")
		w.answer(p1, recAccept, "r", "r")
		w.disconnect(p1)
		c.expect(t, has("r"), hasNo("r"))
		p2.expect(t, ack("r"), found("r", "r"))
		w.answer(p2, recAccept, "r", "r")
		c.expect(t, has("r"))
		p1.expect(t, ack("r"), found("r", "r"))
	})
}

func TestUnlistenEndsOnePatternOnly(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p := w.client(), w.client()
		w.do(p, recListen, "r/1")
		w.do(p, recListen, "r/.")
		w.subscribe(c, "r/1")
		w.answer(p, recAccept, "r/1", "r/1")
		w.do(p, recUnlisten, "r/1")
		p.expect(t, ack("r/1"), ack("r/."), found("r/1", "r/1"), unack("r/1"), found("r/.", "r/1"))
		c.expect(t, has("r/1"), hasNo("r/1"))
	})
}

func TestANameNobodyAcceptedRestsUntilItsCooldownIsOver(t *testing.T) {
	inBubble(t, protocol.TopicRecord, func(c *Config) {
		c.ShuffleProviders = false
		c.RematchInterval = 2 * time.Second
		c.MatchCooldown = 5 * time.Second
	}, func(w *world) {
		c, p := w.client(), w.client()
		w.do(p, recListen, "r")
		w.subscribe(c, "r")
		time.Sleep(time.Second)
		p.expect(t, ack("r"), found("r", "r"), timedOut("r")) // at 0.5 s; so it rests until 5.5 s
		time.Sleep(4900 * time.Millisecond)                   // rematches at 2 and 4 s pass it over
		p.expect(t)
		time.Sleep(time.Second)
		p.expect(t, found("r", "r"), timedOut("r"))
		if got := w.Stats().Unsuccessful; got != 2 {
			t.Errorf("Unsuccessful = %d, want 2", got)
		}
	})
}

func TestTheRematchCanBeSwitchedOff(t *testing.T) {
	inBubble(t, protocol.TopicRecord, func(c *Config) {
		c.RematchInterval = time.Second
		c.MatchCooldown = 0
	}, func(w *world) {
		c, p := w.client(), w.client()
		w.do(p, recListen, "r")
		w.subscribe(c, "r")
		w.answer(p, recReject, "r", "r")
		time.Sleep(time.Hour)
		p.expect(t, ack("r"), found("r", "r"))
	})
}

func TestAListenerThatComesWhileANameRestsIsAskedAlone(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.subscribe(c, "r")
		w.answer(p1, recReject, "r", "r")
		w.do(p2, recListen, "r")
		p2.expect(t, ack("r"), found("r", "r"))
		w.answer(p2, recReject, "r", "r")
		p1.expect(t, ack("r"), found("r", "r"))
	})
}

func TestAFirstSubscriptionForgetsTheFailureBefore(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p := w.client(), w.client()
		w.do(p, recListen, "r")
		w.subscribe(c, "r")
		w.answer(p, recReject, "r", "r")
		w.unsubscribe(c, "r")
		w.subscribe(c, "r")
		p.expect(t, ack("r"), found("r", "r"), found("r", "r"))
	})
}

func TestABusyListenerIsAskedInTurns(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p := w.client(), w.client()
		const names = window + 500
		for i := range names {
			w.subs.Add(fmt.Sprint("r", i), c)
		}
		w.do(p, recListen, "r")
		got := p.take()
		if len(got) != 1+window {
			t.Fatalf("%d messages, want the ack and %d questions", len(got), window)
		}
		asked := map[string]bool{}
		for len(got) > 0 {
			for _, s := range got {
				if _, name, ok := strings.Cut(s, "subscription="); ok {
					if asked[name] {
						t.Fatalf("%s was asked twice", name)
					}
					asked[name] = true
					w.Handle(p, &protocol.Message{Topic: w.topic, Action: recAccept, Name: "r", Subscription: name})
				}
			}
			got = p.take()
		}
		if st := w.Stats(); len(asked) != names || st.Provided != names || st.TimedOut != 0 {
			t.Errorf("asked %d names, Stats = %+v", len(asked), st)
		}
		w.disconnect(p)
		if st := w.Stats(); st.Provided != 0 || st.Patterns != 0 || st.Listeners != 0 || st.Matched != 0 {
			t.Errorf("Stats = %+v, want nothing left", st)
		}
	})
}

func TestANameThatWaitedForABusyListenerInVainIsNotAsked(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p := w.client(), w.client()
		for i := range window + 10 {
			w.subs.Add(fmt.Sprint("r", i), c)
		}
		w.do(p, recListen, "r")
		got := p.take()[1:]
		w.disconnect(c)
		for _, s := range got {
			_, name, _ := strings.Cut(s, "subscription=")
			w.Handle(p, &protocol.Message{Topic: w.topic, Action: recReject, Name: "r", Subscription: name})
		}
		p.expect(t)
		if st := w.Stats(); st.Matched != 0 || st.Asked != window {
			t.Errorf("Stats = %+v, want %d asked and none left", st, window)
		}
	})
}

func TestABusyListenerThatLeavesFreesWhatWaits(t *testing.T) {
	inRecords(t, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		const names = window + 10
		for i := range names {
			w.subs.Add(fmt.Sprint("r", i), c)
		}
		w.do(p1, recListen, "r")
		w.do(p2, recListen, "r")
		w.unsubscribe(c, "r0") // in either state: asked or waiting
		w.disconnect(p1)
		if got := len(p2.take()); got != 1+window {
			t.Errorf("p2 got %d messages, want the ack and %d questions", got, window)
		}
		time.Sleep(time.Minute) // all time out, in two turns, and again at the rematch
		if st := w.Stats(); st.Matched != names-1 || st.Provided != 0 || st.Unsuccessful < names-1 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

func TestShuffledProvidersAreNotAlwaysTheSame(t *testing.T) {
	inBubble(t, protocol.TopicRecord, func(c *Config) { c.ShuffleProviders = true }, func(w *world) {
		c, p1, p2 := w.client(), w.client(), w.client()
		w.do(p1, recListen, "r")
		w.do(p2, recListen, "r")
		for i := range 64 {
			w.subscribe(c, fmt.Sprint("r", i))
		}
		first, second := len(p1.take())-1, len(p2.take())-1
		if first == 0 || second == 0 || first+second != 64 {
			t.Errorf("asked %d and %d times", first, second)
		}
	})
}

func TestAClientThatIsGoneIsNotRegistered(t *testing.T) {
	inRecords(t, func(w *world) {
		p := w.client()
		p.gone.Store(true)
		w.do(p, recListen, "r")
		p.expect(t)
		if st := w.Stats(); st.Listeners != 0 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

func TestNothingIsQueuedAfterRun(t *testing.T) {
	var r *Registry
	p := &fake{id: 1}
	inRecords(t, func(w *world) {
		w.do(p, recListen, "r")
		r = w.Registry
	})
	r.Changed("r")
	if len(r.jobs) != 0 || len(r.queued) != 0 {
		t.Error("a job waits for ever")
	}
}

// Whatever happens in which order, in the end each name that has a subscriber and
// a willing listener has a provider, and each provider knows what it provides.
func TestManyGoroutinesAgreeInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.MatchCooldown = time.Millisecond
		r := New(protocol.TopicRecord, cfg, sub.NewRegistry(), cluster.NewSoloInMemory("test"), cluster.Alone{}, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		var run, busy sync.WaitGroup
		run.Go(func() { r.Run(ctx) })

		providers := make([]*willing, 3)
		for i := range providers {
			providers[i] = &willing{fake: fake{id: uint64(i + 1)}, r: r, serves: map[string]bool{}}
			r.Handle(providers[i], &protocol.Message{Topic: protocol.TopicRecord, Action: recListen, Name: fmt.Sprint("[", i, "-9]$"), Has: protocol.HasName})
		}
		subscribers := make([]*fake, 8)
		for g := range subscribers {
			c := &fake{id: uint64(100 + g)}
			subscribers[g] = c
			busy.Go(func() {
				for i := range 300 {
					name := fmt.Sprint("r", (i*7+g*3)%10)
					if i%2 == 0 {
						if r.subs.Add(name, c) == sub.First {
							r.Changed(name)
						}
					} else if _, last := r.subs.Remove(name, c); last {
						r.Changed(name)
					}
					r.HasProvider(name)
				}
			})
		}
		busy.Go(func() { // a provider comes and goes
			for range 50 {
				p := &fake{id: 50}
				r.Handle(p, &protocol.Message{Topic: protocol.TopicRecord, Action: recListen, Name: "r", Has: protocol.HasName})
				p.gone.Store(true)
				r.Closed(p)
			}
		})
		busy.Wait()
		time.Sleep(2 * cfg.RematchInterval)
		synctest.Wait()
		for i := range 10 {
			name := fmt.Sprint("r", i)
			if got, want := r.HasProvider(name), r.subs.Has(name); got != want {
				t.Errorf("HasProvider(%q) = %v, want %v", name, got, want)
			}
			n := 0
			for _, p := range providers {
				p.mu.Lock()
				if p.serves[name] {
					n++
				}
				p.mu.Unlock()
			}
			if want := map[bool]int{true: 1}[r.subs.Has(name)]; n != want {
				t.Errorf("%d providers believe that they serve %q, want %d", n, name, want)
			}
		}
		stop()
		run.Wait()
	})
}

// willing accepts whatever it is asked, from a goroutine of its own.
type willing struct {
	fake
	r      *Registry
	serves map[string]bool // guarded by fake.mu
}

func (p *willing) Send(o *protocol.Outbound) {
	name, pattern := o.Subscription, o.Name
	switch o.Action {
	case protocol.RecordSubscriptionForPatternFound:
		p.mu.Lock()
		p.serves[name] = true
		p.mu.Unlock()
		go p.r.Handle(p, &protocol.Message{Topic: protocol.TopicRecord, Action: recAccept, Name: pattern, Subscription: name})
	case protocol.RecordSubscriptionForPatternRemoved, protocol.RecordListenResponseTimeout:
		p.mu.Lock()
		p.serves[name] = false
		p.mu.Unlock()
	}
}

func FuzzCompileAndMatch(f *testing.F) {
	for _, s := range []string{"r/1", "a(", `(?<=x)\k<n>`, "[z-a]", "a{2,1}", `\u{110000}`, "(?i)x", "\xff", "(?#", "a**"} {
		f.Add(s, "r/1")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		x, err := compile(text)
		if err != nil {
			return
		}
		x.re.MatchTimeout = 5 * time.Millisecond
		x.match(name, slog.New(slog.DiscardHandler))
	})
}

// Where there is a linear expression, it and the JavaScript engine agree.
func FuzzLinearMatchesTheSame(f *testing.F) {
	for _, s := range []string{
		"r/1", "^news/.*$", "[a-z]+/[^/]*", `\d+\.\w?`, "(?:a|b)*c", "a|^b$|", "[-a]", "[a-]", "[a-c-e]", "[^]", "[]", "[.-/]", `[\d-x]`,
		"()*", "(|a)+", "$^", "a??b", "x{2}", "é+", `[\]\\]`,
	} {
		f.Add(s, "news/1")
		f.Add(s, "é\n-a")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		x, err := compile(text)
		if err != nil || x.fast == nil || !utf8.ValidString(name) {
			return
		}
		want, err := x.re.MatchString(name)
		if err != nil { // out of time or stack: the linear one has no such bounds
			return
		}
		if got := x.fast.MatchString(name); got != want {
			t.Errorf("%q as %q matches %q = %v, want %v", text, x.fast, name, got, want)
		}
	})
}

func TestPlainPatternsAreLinear(t *testing.T) {
	for _, text := range []string{"r/.*", "^orders/[^/]+/items$", "user/[a-zA-Z0-9_-]+", `v\d+\.json|^x$`, "(?:a|b)+?/(c)?"} {
		if linear(text) == nil {
			t.Errorf("%q is not", text)
		}
	}
	for _, text := range []string{`(a)\1`, "(?=x)", `\bx`, `\s`, "a{2}", "[^]", "*", "a**", "(a", "[a", "\xff"} {
		if re := linear(text); re != nil {
			t.Errorf("%q became %q", text, re)
		}
	}
}

func BenchmarkChangedWithoutPatterns(b *testing.B) {
	r := New(protocol.TopicRecord, DefaultConfig(), sub.NewRegistry(), cluster.NewSoloInMemory("test"), cluster.Alone{}, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	for b.Loop() {
		r.Changed("r/1")
	}
}

func BenchmarkMatchOneName(b *testing.B) {
	x, err := compile(`^orders/[^/]+/items$`)
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	b.ReportAllocs()
	for b.Loop() {
		x.match("orders/4711/items", log)
	}
}

func TestNamesOfTheServerAreOfferedToNobody(t *testing.T) {
	inRecords(t, func(w *world) {
		early, late, user := w.client(), w.client(), w.client()
		w.do(early, recListen, ".*")
		w.subscribe(user, "hadal/nodes")
		w.subscribe(user, "hadal")
		w.do(late, recListen, "hadal/")
		early.expect(t, ack(".*"), found(".*", "hadal"))
		late.expect(t, ack("hadal/"))
	})
}

// Whoever subscribes faster than names are matched costs no memory, and no name
// is forgotten.
func TestAFullQueueIsReplacedByALookAtEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.ShuffleProviders = false
		w := &world{Registry: New(protocol.TopicRecord, cfg, sub.NewRegistry(), cluster.NewSoloInMemory("test"), cluster.Alone{}, slog.New(slog.DiscardHandler)), t: t}
		provider, user := w.client(), w.client()
		w.Handle(provider, &protocol.Message{Topic: w.topic, Action: recListen, Name: "wanted", Has: protocol.HasName})
		for i := range maxQueued + 1000 {
			name := fmt.Sprint("name/", i)
			w.subs.Add(name, user)
			w.Changed(name)
			w.subs.Remove(name, user)
			w.Changed(name)
		}
		w.subs.Add("wanted/1", user)
		w.Changed("wanted/1")
		if got, most := len(w.jobs), maxQueued+2; got > most {
			t.Errorf("%d jobs wait, want at most %d", got, most)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		provider.expect(t, ack("wanted"), found("wanted", "wanted/1"))
		stop()
		wg.Wait()
	})
}
