package record

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"hadal/auth"
	"hadal/node/sub"
	"hadal/protocol"
)

// hearer is a client that notes what it could show of whole records.
type hearer struct {
	*client
	whole bool // its dialect has no words for anything else
	mu    sync.Mutex
	got   []string // guarded by mu
}

func (c *hearer) WantsWhole() bool { return c.whole }

func (c *hearer) Send(o *protocol.Outbound) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data := o.Result
	if o.Action == protocol.RecordUpdate {
		data = o.Data
	}
	c.got = append(c.got, o.Action.Name(o.Topic)+" "+o.Name+" "+data)
}

func (c *hearer) heard() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// subscribe subscribes it at a room.
func (c *hearer) subscribe(r *Room, names ...string) {
	r.Handle(c, &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribe, Names: names})
}

// watcher is its filters, which may hear of everything.
func (c *hearer) watcher(t *testing.T) *sub.Watcher {
	return sub.NewWatcher(c, func(*auth.User, *protocol.Outbound) (bool, bool) { return true, true },
		func() uint64 { return 0 }, func(string) bool { return true }, func() { t.Error("overflow") })
}

// writer writes records at a node.
type writer struct {
	w *net
	c *client
	r *Room
}

func (wr *writer) write(action protocol.Action, name, path, data string) {
	m := &protocol.Message{Topic: protocol.TopicRecord, Action: action, Name: name, Data: data, Version: -1, Has: protocol.HasVersion}
	if path != "" {
		m.Path, m.Has = path, m.Has|protocol.HasPath
	}
	wr.r.Handle(wr.c, m)
	wr.w.settleAll()
}

func TestWholeRecordsAndFiltersAcrossNodes(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"a", "b", "c"}})
	w.ready()
	b := w.room("b")
	named, filter := &hearer{client: newClient("named"), whole: true}, &hearer{client: newClient("filter"), whole: true}
	watcher := filter.watcher(t)
	wr := writer{w, newClient("writer"), w.room("a")}
	both := func(want ...string) {
		t.Helper()
		w.until("both hear of it", func() bool { return slices.Equal(named.heard(), want) && slices.Equal(filter.heard(), want) })
	}
	wr.write(protocol.RecordCreateAndUpdate, "r", "", `{"a":1}`)
	named.subscribe(b, "r")
	b.Watch("#", []string{""}, watcher)
	w.settleAll()
	if heads := *w.room("a").linkTo("c").heads.Load(); len(heads) != 0 {
		t.Errorf("a thinks that c has filters: %q", heads)
	}
	w.until("a knows what b needs", func() bool { return w.room("a").linkTo("b").watches("x") })
	wr.write(protocol.RecordPatch, "r", "b", `2`)
	both(`PATCH r {"a":1,"b":2}`)
	// A name that nobody here has asked for, over another link.
	w.cut("a", "b", true)
	w.until("the link is gone", func() bool { return w.room("a").wide.Load() == 0 })
	w.link("a", "b")
	w.until("a knows again", func() bool { return w.room("a").wide.Load() == 1 })
	wr.write(protocol.RecordCreateAndUpdate, "other", "", `{"o":1}`)
	w.until("the filter hears of it", func() bool { return slices.Contains(filter.heard(), `UPDATE other {"o":1}`) })
	wr.r.Handle(wr.c, &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordDelete, Name: "other"})
	w.until("the filter hears of its end", func() bool { return slices.Contains(filter.heard(), `DELETED other `) })
	b.Unwatch("#", []string{""}, watcher)
	w.until("nobody has filters", func() bool { return w.room("a").wide.Load() == 0 })
	filter.gone.Store(true)
	watcher.Wait()
}

// What one client needs makes no update of another name larger, and none of its own
// when it has gone.
func TestWholeRecordsGoWhereSomebodyNeedsThem(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"a", "b", "c"}})
	w.ready()
	b := w.room("b")
	whole, light := &hearer{client: newClient("whole"), whole: true}, &hearer{client: newClient("light")}
	filter := &hearer{client: newClient("filter"), whole: true}
	watcher := filter.watcher(t)
	wr := writer{w, newClient("writer"), w.room("a")}
	big := strings.Repeat("x", 10_000)
	for _, name := range []string{"r", "plain", "state/x"} {
		wr.write(protocol.RecordCreateAndUpdate, name, "", `{"a":"`+big+`"}`)
	}
	light.subscribe(b, "r", "plain", "state/x")
	w.settleAll()
	cost := func(name string) int {
		t.Helper()
		e := w.ear("b", "a")
		e.mu.Lock()
		before := e.total
		e.mu.Unlock()
		wr.write(protocol.RecordPatch, name, "b", `2`)
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.total - before
	}
	if n := cost("r"); n > 1000 {
		t.Errorf("a patch of what nobody needs whole took %d bytes", n)
	}
	whole.subscribe(b, "r")
	b.Watch("state/#", []string{"state/"}, watcher)
	w.settleAll()
	for name, need := range map[string]bool{"r": true, "plain": false, "state/x": true} {
		if n := cost(name); n > len(big) != need {
			t.Errorf("a patch of %s took %d bytes", name, n)
		} else {
			t.Logf("a patch of %s took %d bytes", name, n)
		}
	}
	w.until("those hear who need it", func() bool {
		return slices.Equal(whole.heard(), []string{`PATCH r {"a":"` + big + `","b":2}`}) &&
			slices.Equal(filter.heard(), []string{`PATCH state/x {"a":"` + big + `","b":2}`})
	})
	// The next owner is told, too.
	w.move("c", 0)
	w.ready()
	w.compared()
	for _, n := range []string{"3", "4"} { // the first one may come as the state that was compared
		wr.write(protocol.RecordPatch, "r", "b", n)
		w.until("the next owner's is whole", func() bool {
			return slices.ContainsFunc(whole.heard(), func(s string) bool { return strings.HasSuffix(s, ` r {"a":"`+big+`","b":`+n+`}`) })
		})
	}
	w.move("a", 0)
	w.ready()
	w.compared()
	// When they have gone, one update may still be larger.
	b.Handle(whole, &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordUnsubscribe, Names: []string{"r"}})
	b.Unwatch("state/#", []string{"state/"}, watcher)
	w.settleAll()
	for _, name := range []string{"r", "state/x"} {
		cost(name)
		if n := cost(name); n > 1000 {
			t.Errorf("a patch of %s took %d bytes when nobody needed it whole any more", name, n)
		}
	}
	filter.gone.Store(true)
	watcher.Wait()
}

func TestManyBeginningsOfFiltersAreAllNames(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"a", "b"}})
	w.ready()
	c := &hearer{client: newClient("filter"), whole: true}
	watcher := c.watcher(t)
	heads := count("%d/", maxHeads+1)
	for _, h := range heads {
		w.room("b").Watch(h+"#", []string{h}, watcher)
	}
	w.until("all names", func() bool { return w.room("a").linkTo("b").watches("x") })
	w.room("b").Unwatch(heads[0]+"#", heads[:1], watcher)
	w.until("those names", func() bool {
		l := w.room("a").linkTo("b")
		return !l.watches("x") && l.watches("5/x") && !l.watches("0/x")
	})
	c.gone.Store(true)
	watcher.Wait()
}
