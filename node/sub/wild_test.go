package sub

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"hadal/auth"
	"hadal/protocol"
)

// watcher watches for f, who may hear what allowed says.
func watcher(f *fake, generation *atomic.Uint64, allowed func(name string) (ok, keep bool)) *Watcher {
	return NewWatcher(f, func(_ *auth.User, o *protocol.Outbound) (bool, bool) { return allowed(o.Name) },
		generation.Load, func(string) bool { return true }, func() { f.gone.Store(true) })
}

func always(string) (ok, keep bool) { return true, true }

func TestFiltersMatchAsInMQTT(t *testing.T) {
	for _, c := range []struct {
		filter string
		match  []string
		not    []string
	}{
		{"#", []string{"a", "a/b", "/", "", "a//b"}, []string{"$SYS/a", "hadal/auth", "$"}},
		{"+", []string{"a", ""}, []string{"a/b", "/", "$SYS"}},
		{"a/#", []string{"a", "a/", "a/b/c"}, []string{"ab", "b/a"}},
		{"a/+", []string{"a/b", "a/"}, []string{"a", "a/b/c"}},
		{"+/+", []string{"a/b", "/a", "/"}, []string{"a"}},
		{"/+", []string{"/a"}, []string{"a", "a/b"}},
		{"a/+/c/#", []string{"a/b/c", "a//c/d"}, []string{"a/b", "a/c"}},
		{"hadal/#", nil, []string{"hadal/auth/expiring", "hadal/"}},
		{"$SYS/#", nil, []string{"$SYS/x"}},
	} {
		r, f := NewRegistry(), &fake{id: 1}
		w := watcher(f, new(atomic.Uint64), always)
		if !ValidFilter(c.filter) {
			t.Errorf("%s is no filter", c.filter)
		}
		r.Watch(c.filter, w)
		for _, name := range c.match {
			if !r.Wants(name) {
				t.Errorf("%s does not match %q", c.filter, name)
			}
		}
		for _, name := range c.not {
			if r.Wants(name) {
				t.Errorf("%s matches %q", c.filter, name)
			}
		}
		if removed, last := r.Unwatch(c.filter, w); !removed || !last || len(r.wild.root.next)+len(r.wild.root.below) > 0 || f.kept.Load() != 0 {
			t.Errorf("%s leaves something behind", c.filter)
		}
	}
	for _, bad := range []string{"", "a#", "#/a", "a/+b", "a/b+/c", "a/#/c"} {
		if ValidFilter(bad) {
			t.Errorf("%q is a filter", bad)
		}
	}
}

func TestAWatcherHearsOnceAndOnlyWhatItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := NewRegistry(), &fake{id: 1, keep: true}
		var generation atomic.Uint64
		var judged atomic.Int64
		forbidden := atomic.Pointer[string]{}
		secret := "secret"
		forbidden.Store(&secret)
		w := watcher(f, &generation, func(name string) (bool, bool) {
			judged.Add(1)
			return name != *forbidden.Load(), name != "unsteady"
		})
		for _, filter := range []string{"#", "+", "a/#"} {
			r.Watch(filter, w)
		}
		if r.Watch("#", w) != Already {
			t.Error("a filter counts twice")
		}
		send := func(names ...string) {
			f.got = nil
			for _, name := range names {
				r.Deliver(name, nil, event(name))
			}
			synctest.Wait()
		}
		send("a", "secret", "a/b", "a", "secret")
		if want := []string{"a", "a/b", "a"}; !slices.Equal(f.got, want) || judged.Load() != 3 {
			t.Errorf("got %q after %d judgements, want %q after 3", f.got, judged.Load(), want)
		}
		send("unsteady", "unsteady")
		if len(f.got) != 2 || judged.Load() != 5 {
			t.Errorf("got %q after %d judgements", f.got, judged.Load())
		}
		// Other rules: what was remembered does not count.
		other := "a"
		forbidden.Store(&other)
		generation.Add(1)
		send("a", "secret")
		if !slices.Equal(f.got, []string{"secret"}) {
			t.Errorf("after a reload got %q", f.got)
		}
		// By name and by filter is one; its own it does not hear.
		r.Add("a/b", f)
		send("a/b")
		if len(f.got) != 1 {
			t.Errorf("got %q", f.got)
		}
		f.got = nil
		r.Deliver("secret", f, event("secret"))
		if len(f.got) != 0 {
			t.Errorf("it heard itself: %q", f.got)
		}
		want := WildStats{Filters: 3, Judged: 7, Delivered: 6, Withheld: 3}
		if got := r.WildStats(); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
		f.gone.Store(true)
		w.Wait()
	})
}

func TestWhatWaitsForAVerdictIsBoundedAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := NewRegistry(), &fake{id: 1, keep: true}
		verdict := make(chan struct{})
		var generation atomic.Uint64
		w := watcher(f, &generation, func(string) (bool, bool) { <-verdict; return true, true })
		r.Watch("#", w)
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprint(i%7))
			r.Deliver(want[i], nil, event(want[i]))
		}
		// The rules change while it is being judged: it is judged again.
		synctest.Wait()
		generation.Add(1)
		for range 8 {
			verdict <- struct{}{}
		}
		w.Wait()
		if !slices.Equal(f.got, want) {
			t.Errorf("got %q", f.got)
		}
		for i := range maxUnjudged + 2 {
			r.Deliver(fmt.Sprint("new", i), nil, event(fmt.Sprint("new", i)))
		}
		if !f.gone.Load() {
			t.Error("a client for which more waits than may goes on")
		}
		if n := r.WildStats().Overflows; n == 0 {
			t.Error("that was not counted")
		}
		close(verdict)
		w.Wait()
	})
}

func TestFiltersComeAndGoWhileMessagesDo(t *testing.T) {
	r := NewRegistry()
	var generation atomic.Uint64
	var all sync.WaitGroup
	for id := range uint64(8) {
		all.Go(func() {
			f := &fake{id: id}
			w := watcher(f, &generation, always)
			for i := range 200 {
				filter := fmt.Sprintf("a/%d/#", i%5)
				r.Watch(filter, w)
				r.Deliver(fmt.Sprintf("a/%d/x", i%5), nil, event("x"))
				generation.Add(1)
				r.Settle()
				r.Unwatch(filter, w)
			}
			f.gone.Store(true)
			w.Wait()
		})
	}
	all.Wait()
	if r.Watched() || len(r.wild.root.next) != 0 {
		t.Error("filters are left")
	}
}

// someUser is who all fakes log in as: a client's user is the same one until it is renewed.
var someUser = &auth.User{ID: "u"}
