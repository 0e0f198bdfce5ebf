package record

import (
	"slices"
	"sync"
	"testing"

	"hadal/auth"
	"hadal/node/sub"
	"hadal/protocol"
)

// whole is a client whose dialect says whole records only.
type whole struct {
	*client
	mu  sync.Mutex
	got []string // guarded by mu
}

func (c *whole) Send(o *protocol.Outbound) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data := o.Result
	if o.Action == protocol.RecordUpdate {
		data = o.Data
	}
	c.got = append(c.got, o.Action.Name(o.Topic)+" "+o.Name+" "+data)
}

func (c *whole) heard() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

func TestWholeRecordsAndFiltersAcrossNodes(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"a", "b", "c"}})
	w.ready()
	b := w.room("b")
	named, filter := &whole{client: newClient("named")}, &whole{client: newClient("filter")}
	watcher := sub.NewWatcher(filter, func(*auth.User, *protocol.Outbound) (bool, bool) { return true, true },
		func() uint64 { return 0 }, func(string) bool { return true }, func() { t.Error("overflow") })
	writer := newClient("writer")
	write := func(action protocol.Action, name, path, data string) {
		m := &protocol.Message{Topic: protocol.TopicRecord, Action: action, Name: name, Data: data, Version: -1, Has: protocol.HasVersion}
		if path != "" {
			m.Path, m.Has = path, m.Has|protocol.HasPath
		}
		w.room("a").Handle(writer, m)
		w.settleAll()
	}
	both := func(want ...string) {
		t.Helper()
		w.until("both hear of it", func() bool { return slices.Equal(named.heard(), want) && slices.Equal(filter.heard(), want) })
	}
	write(protocol.RecordCreateAndUpdate, "r", "", `{"a":1}`)
	b.Whole(1)
	b.Handle(named, &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribe, Names: []string{"r"}})
	b.Watch("#", watcher)
	w.settleAll()
	if c := w.room("a").linkTo("c"); c.needs.Load() != 0 {
		t.Errorf("a thinks that c needs %b", c.needs.Load())
	}
	w.until("a knows what b needs", func() bool { return w.room("a").linkTo("b").needs.Load() == needWhole|needAll })
	write(protocol.RecordPatch, "r", "b", `2`)
	both(`PATCH r {"a":1,"b":2}`)
	// A name that nobody here has asked for, over another link.
	w.cut("a", "b", true)
	w.until("the link is gone", func() bool { return w.room("a").wide.Load() == 0 })
	w.link("a", "b")
	w.until("a knows again", func() bool { return w.room("a").wide.Load() == 1 })
	write(protocol.RecordCreateAndUpdate, "other", "", `{"o":1}`)
	w.until("the filter hears of it", func() bool { return slices.Contains(filter.heard(), `UPDATE other {"o":1}`) })
	w.room("a").Handle(writer, &protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordDelete, Name: "other"})
	w.until("the filter hears of its end", func() bool { return slices.Contains(filter.heard(), `DELETED other `) })
	b.Unwatch("#", watcher)
	b.Whole(-1)
	w.until("nobody needs anything", func() bool {
		return w.room("a").wide.Load() == 0 && w.room("a").linkTo("b").needs.Load() == 0
	})
	write(protocol.RecordPatch, "r", "b", `3`)
	w.until("a patch is a patch", func() bool { return slices.Contains(named.heard(), `PATCH r `) })
	filter.gone.Store(true)
	watcher.Wait()
}
