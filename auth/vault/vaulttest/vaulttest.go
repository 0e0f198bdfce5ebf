// Package vaulttest is the contract of vault.Vault written as a test.
package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hadal/auth/vault"
)

// patience bounds what a test waits for.
const patience = 30 * time.Second

// Run checks an implementation. open returns handles on one vault, as the nodes of a
// cluster have them, one at least; it may be the same vault for every test, each of which
// keeps to keys of its own. around runs one test, in a synctest bubble for instance; nil
// just calls it.
func Run(t *testing.T, open func(t *testing.T) []vault.Vault, around func(t *testing.T, test func(t *testing.T))) {
	t.Helper()
	if around == nil {
		around = func(t *testing.T, test func(t *testing.T)) { test(t) }
	}
	tests := []struct {
		name string
		run  func(t *testing.T, h house)
	}{
		{"what one creates all find", created},
		{"an entry is created once", createdOnce},
		{"an update needs the revision", updated},
		{"a removal needs the revision, or none", deleted},
		{"of racing creates one wins", racingCreates},
		{"no update gets lost", racingUpdates},
		{"an entry with a ttl goes by itself", expires},
		{"an update sets the ttl anew", ttlAnew},
		{"a list has what is below the prefix and nothing else", listed},
		{"a list ends with the error of its function", listStops},
		{"a watcher hears of what is there and of every change", watched},
		{"a watcher hears of what goes by itself", watchedExpiry},
		{"the largest entry comes back whole", largest},
		{"what is no key, prefix or value is refused", refused},
		{"a call ends with its context", ended},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			around(t, func(t *testing.T) {
				tt.run(t, house{nodes: open(t), root: fmt.Sprintf("test%d/", i)})
			})
		})
	}
}

// house is what a test has: the handles and the beginning of its keys.
type house struct {
	nodes []vault.Vault
	root  string
}

// node is a handle; they are dealt out in turn.
func (h *house) node(i int) vault.Vault { return h.nodes[i%len(h.nodes)] }

// key is a key of this test.
func (h *house) key(name string) string { return h.root + name }

func create(t *testing.T, v vault.Vault, key, value string, ttl time.Duration) uint64 {
	t.Helper()
	rev, err := v.Create(t.Context(), key, []byte(value), ttl)
	if err != nil {
		t.Fatalf("Create(%s): %v", key, err)
	}
	if rev == 0 {
		t.Fatalf("Create(%s) returned revision 0", key)
	}
	return rev
}

// find wants the entry to be there.
func find(t *testing.T, v vault.Vault, key, value string, revision uint64) {
	t.Helper()
	e, err := v.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%s): %v", key, err)
	}
	if e.Key != key || string(e.Value) != value || e.Revision != revision {
		t.Errorf("Get(%s) = %s, %q at %d, want %q at %d", key, e.Key, e.Value, e.Revision, value, revision)
	}
}

// wantErr wants that error.
func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}

// gone waits until there is no such entry.
func gone(t *testing.T, v vault.Vault, key string) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		_, err := v.Get(t.Context(), key)
		if errors.Is(err, vault.ErrNotFound) {
			return
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("Get(%s) = %v after %v, want it gone", key, err, patience)
		}
		pause(t)
	}
}

// pause lets time go by between two looks.
func pause(t *testing.T) {
	t.Helper()
	select {
	case <-time.After(20 * time.Millisecond):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

func created(t *testing.T, h house) {
	first := create(t, h.node(0), h.key("a/b"), "one", 0)
	second := create(t, h.node(1), h.key("a/c"), "", 0)
	if second <= first {
		t.Errorf("revisions %d, then %d, want them to rise", first, second)
	}
	for _, n := range h.nodes {
		find(t, n, h.key("a/b"), "one", first)
		find(t, n, h.key("a/c"), "", second)
		_, err := n.Get(t.Context(), h.key("a"))
		wantErr(t, "Get of a prefix", err, vault.ErrNotFound)
	}
}

func createdOnce(t *testing.T, h house) {
	key := h.key("a")
	rev := create(t, h.node(0), key, "one", 0)
	for _, n := range h.nodes {
		_, err := n.Create(t.Context(), key, []byte("two"), 0)
		wantErr(t, "Create again", err, vault.ErrExists)
	}
	find(t, h.node(1), key, "one", rev)
	if err := h.node(1).Delete(t.Context(), key, 0); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	again := create(t, h.node(2), key, "three", 0)
	if again <= rev {
		t.Errorf("created anew at %d, want above %d", again, rev)
	}
	find(t, h.node(0), key, "three", again)
}

func updated(t *testing.T, h house) {
	key := h.key("a")
	_, err := h.node(0).Update(t.Context(), key, []byte("x"), 0, 0)
	wantErr(t, "Update of nothing at 0", err, vault.ErrConflict)
	_, err = h.node(0).Update(t.Context(), key, []byte("x"), 1, 0)
	wantErr(t, "Update of nothing", err, vault.ErrConflict)
	first := create(t, h.node(0), key, "one", 0)
	second, err := h.node(1).Update(t.Context(), key, []byte("two"), first, 0)
	if err != nil || second <= first {
		t.Fatalf("Update = %d, %v, want above %d", second, err, first)
	}
	for _, n := range h.nodes {
		for _, wrong := range []uint64{0, first, second + 1000} {
			_, err = n.Update(t.Context(), key, []byte("three"), wrong, 0)
			wantErr(t, fmt.Sprintf("Update at %d", wrong), err, vault.ErrConflict)
		}
		find(t, n, key, "two", second)
	}
	if err := h.node(2).Delete(t.Context(), key, second); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	_, err = h.node(0).Update(t.Context(), key, []byte("four"), second, 0)
	wantErr(t, "Update of what is gone", err, vault.ErrConflict)
}

func deleted(t *testing.T, h house) {
	key := h.key("a")
	wantErr(t, "Delete of nothing", h.node(0).Delete(t.Context(), key, 1), vault.ErrConflict)
	if err := h.node(0).Delete(t.Context(), key, 0); err != nil {
		t.Errorf("Delete of nothing, whatever it is: %v", err)
	}
	first := create(t, h.node(0), key, "one", 0)
	second, err := h.node(0).Update(t.Context(), key, []byte("two"), first, 0)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	wantErr(t, "Delete at an old revision", h.node(1).Delete(t.Context(), key, first), vault.ErrConflict)
	find(t, h.node(2), key, "two", second)
	if err := h.node(2).Delete(t.Context(), key, second); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	for _, n := range h.nodes {
		_, err := n.Get(t.Context(), key)
		wantErr(t, "Get of what is gone", err, vault.ErrNotFound)
		wantErr(t, "Delete again", n.Delete(t.Context(), key, second), vault.ErrConflict)
		if err := n.Delete(t.Context(), key, 0); err != nil {
			t.Errorf("Delete again, whatever it is: %v", err)
		}
	}
}

func racingCreates(t *testing.T, h house) {
	const racers, rounds = 6, 5
	for round := range rounds {
		key := h.key("race" + strconv.Itoa(round))
		var mu sync.Mutex
		var winners []string
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() {
				_, err := h.node(i).Create(t.Context(), key, []byte(strconv.Itoa(i)), 0)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, strconv.Itoa(i))
				} else if !errors.Is(err, vault.ErrExists) {
					t.Errorf("Create: %v", err)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("winners %q, want one", winners)
		}
		e, err := h.node(round).Get(t.Context(), key)
		if err != nil || string(e.Value) != winners[0] {
			t.Errorf("Get = %q, %v, want what %s wrote", e.Value, err, winners[0])
		}
	}
}

func racingUpdates(t *testing.T, h house) {
	const racers, each = 4, 10
	key := h.key("count")
	create(t, h.node(0), key, "0", 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			for done := 0; done < each; {
				e, err := h.node(i).Get(ctx, key)
				if err != nil {
					t.Errorf("Get: %v", err)
					return
				}
				n, err := strconv.Atoi(string(e.Value))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = h.node(i).Update(ctx, key, []byte(strconv.Itoa(n+1)), e.Revision, 0)
				if err == nil {
					done++
				} else if !errors.Is(err, vault.ErrConflict) {
					t.Errorf("Update: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	e, err := h.node(1).Get(t.Context(), key)
	if err != nil || string(e.Value) != strconv.Itoa(racers*each) {
		t.Errorf("the counter is at %q, %v, want %d", e.Value, err, racers*each)
	}
}

func expires(t *testing.T, h house) {
	short, long := h.key("short"), h.key("long")
	began := time.Now()
	create(t, h.node(0), short, "a", 1300*time.Millisecond) // two seconds
	rev := create(t, h.node(0), long, "b", time.Hour)
	gone(t, h.node(1), short)
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("the entry was gone after %v, want two seconds at least", took)
	}
	for _, n := range h.nodes {
		_, err := n.Get(t.Context(), short)
		wantErr(t, "Get of what has expired", err, vault.ErrNotFound)
		find(t, n, long, "b", rev)
	}
	again := create(t, h.node(2), short, "c", 0)
	find(t, h.node(0), short, "c", again)
}

func ttlAnew(t *testing.T, h house) {
	ends, stays := h.key("ends"), h.key("stays")
	e := create(t, h.node(0), ends, "a", 0)
	if _, err := h.node(1).Update(t.Context(), ends, []byte("b"), e, time.Second); err != nil {
		t.Fatalf("Update: %v", err)
	}
	s := create(t, h.node(0), stays, "a", 2*time.Second)
	rev, err := h.node(1).Update(t.Context(), stays, []byte("b"), s, 0)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	create(t, h.node(0), h.key("clock"), "", 3*time.Second)
	gone(t, h.node(0), ends)
	gone(t, h.node(0), h.key("clock"))
	find(t, h.node(0), stays, "b", rev)
}

func listed(t *testing.T, h house) {
	want := map[string]string{}
	for i, name := range []string{"a/b/c", "a/b/d", "a/b/e/f"} {
		create(t, h.node(i), h.key(name), name, 0)
		want[h.key(name)] = name
	}
	for i, name := range []string{"a", "a/b", "a/bb/c", "a/c", "A/b/c", "b/a/b/c"} {
		create(t, h.node(i), h.key(name), name, 0)
	}
	create(t, h.node(0), h.key("a/b/gone"), "x", 0)
	if err := h.node(0).Delete(t.Context(), h.key("a/b/gone"), 0); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	for _, n := range h.nodes {
		got := map[string]string{}
		err := n.List(t.Context(), h.key("a/b/"), func(e vault.Entry) error {
			if e.Revision == 0 {
				t.Errorf("%s is listed with revision 0", e.Key)
			}
			got[e.Key] = string(e.Value)
			return nil
		})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("List = %v, %v, want %v", got, err, want)
		}
		all := 0
		err = n.List(t.Context(), "", func(e vault.Entry) error {
			if strings.HasPrefix(e.Key, h.root) {
				all++
			}
			return nil
		})
		if err != nil || all != 9 {
			t.Errorf("a list of everything has %d of this test, %v, want 9", all, err)
		}
		err = n.List(t.Context(), h.key("none/"), func(e vault.Entry) error {
			t.Errorf("%s is listed below nothing", e.Key)
			return nil
		})
		if err != nil {
			t.Errorf("List of nothing: %v", err)
		}
	}
}

func listStops(t *testing.T, h house) {
	for i := range 5 {
		create(t, h.node(i), h.key(strconv.Itoa(i)), "", 0)
	}
	stop, calls := errors.New("enough"), 0
	err := h.node(0).List(t.Context(), h.root, func(vault.Entry) error {
		if calls++; calls == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || calls != 2 {
		t.Errorf("List = %v after %d calls, want %v after 2", err, calls, stop)
	}
}

// ear notes what a watcher hears, as words.
type ear struct {
	heard chan string
	end   context.CancelFunc
	done  chan error
}

func listen(t *testing.T, v vault.Vault, prefix string) *ear {
	ctx, cancel := context.WithCancel(t.Context())
	e := &ear{heard: make(chan string, 1000), end: cancel, done: make(chan error, 1)}
	go func() {
		e.done <- v.Watch(ctx, prefix, vault.Watcher{
			Told: func(c vault.Change) {
				word := c.Key + "=" + string(c.Value)
				if c.Gone {
					word = c.Key + " gone"
				}
				e.heard <- word
			},
			Synced: func() { e.heard <- "synced" },
			Lost:   func(err error) { e.heard <- "lost: " + err.Error() },
		})
	}()
	return e
}

// hears wants to hear the words in this order.
func (e *ear) hears(t *testing.T, words ...string) {
	t.Helper()
	for _, want := range words {
		select {
		case got := <-e.heard:
			if got != want {
				t.Fatalf("the watcher heard %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("the watcher has not heard %q within %v", want, patience)
		}
	}
}

// close ends the watch and wants its error.
func (e *ear) close(t *testing.T) {
	t.Helper()
	e.end()
	select {
	case err := <-e.done:
		wantErr(t, "Watch", err, context.Canceled)
	case <-time.After(patience):
		t.Fatalf("Watch has not returned %v after its context", patience)
	}
}

func watched(t *testing.T, h house) {
	a, b := h.key("w/a"), h.key("w/b")
	create(t, h.node(0), h.key("other"), "x", 0)
	revA := create(t, h.node(0), a, "1", 0)
	create(t, h.node(0), b, "1", 0)
	create(t, h.node(0), h.key("w/c"), "x", 0)
	if err := h.node(0).Delete(t.Context(), h.key("w/c"), 0); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	var ears []*ear
	for _, n := range h.nodes {
		e := listen(t, n, h.key("w/"))
		// What is there may come in any order, and what is gone may be said to be.
		var first []string
		for len(first) == 0 || first[len(first)-1] != "synced" {
			select {
			case word := <-e.heard:
				if word != h.key("w/c")+" gone" {
					first = append(first, word)
				}
			case <-time.After(patience):
				t.Fatalf("the watcher has heard %q and not that it is synced", first)
			}
		}
		slices.Sort(first)
		if want := []string{"synced", a + "=1", b + "=1"}; !slices.Equal(first, want) {
			t.Errorf("the watcher first heard %q, want %q", first, want)
		}
		ears = append(ears, e)
	}
	revA, err := h.node(1).Update(t.Context(), a, []byte("2"), revA, 0)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	create(t, h.node(2), h.key("w/d/e"), "1", 0)
	create(t, h.node(2), h.key("wide"), "x", 0)
	if err := h.node(0).Delete(t.Context(), b, 0); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if _, err := h.node(0).Update(t.Context(), a, []byte("3"), revA, 0); err != nil {
		t.Fatalf("Update: %v", err)
	}
	for _, e := range ears {
		e.hears(t, a+"=2", h.key("w/d/e")+"=1", b+" gone", a+"=3")
		e.close(t)
	}
}

func watchedExpiry(t *testing.T, h house) {
	e := listen(t, h.node(1), h.root)
	e.hears(t, "synced")
	create(t, h.node(0), h.key("a"), "1", time.Second)
	e.hears(t, h.key("a")+"=1", h.key("a")+" gone")
	e.close(t)
	late := listen(t, h.node(0), h.root)
	for {
		select {
		case word := <-late.heard:
			if word == "synced" {
				late.close(t)
				return
			}
			if word != h.key("a")+" gone" {
				t.Errorf("a late watcher heard %q of what has expired", word)
			}
		case <-time.After(patience):
			t.Fatal("a late watcher is not synced")
		}
	}
}

func largest(t *testing.T, h house) {
	key := h.key(strings.Repeat("k/", (vault.MaxKey-len(h.root))/2-1))
	key += strings.Repeat("z", vault.MaxKey-len(key))
	value := bytes.Repeat([]byte("0123456789abcdef"), vault.MaxValue/16)
	rev, err := h.node(0).Create(t.Context(), key, value, 0)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	e, err := h.node(1).Get(t.Context(), key)
	if err != nil || e.Key != key || !bytes.Equal(e.Value, value) || e.Revision != rev {
		t.Errorf("Get = %d bytes at %d, %v, want %d bytes at %d", len(e.Value), e.Revision, err, len(value), rev)
	}
}

func refused(t *testing.T, h house) {
	v, ctx := h.node(0), t.Context()
	for _, key := range []string{"", "/", "a/", "/a", "a//b", "a b", "a.b", "a*", ">", "ä", strings.Repeat("a", vault.MaxKey+1)} {
		_, err := v.Get(ctx, key)
		wantErr(t, "Get("+key+")", err, vault.ErrInvalid)
		_, err = v.Create(ctx, key, nil, 0)
		wantErr(t, "Create("+key+")", err, vault.ErrInvalid)
		_, err = v.Update(ctx, key, nil, 1, 0)
		wantErr(t, "Update("+key+")", err, vault.ErrInvalid)
		wantErr(t, "Delete("+key+")", v.Delete(ctx, key, 0), vault.ErrInvalid)
	}
	for _, prefix := range []string{"/", "a", "a//", "*/", "a./"} {
		err := v.List(ctx, prefix, func(vault.Entry) error { return nil })
		wantErr(t, "List("+prefix+")", err, vault.ErrInvalid)
		wantErr(t, "Watch("+prefix+")", v.Watch(ctx, prefix, vault.Watcher{}), vault.ErrInvalid)
	}
	_, err := v.Create(ctx, h.key("a"), make([]byte, vault.MaxValue+1), 0)
	wantErr(t, "Create of too large a value", err, vault.ErrInvalid)
}

func ended(t *testing.T, h house) {
	why := errors.New("the caller has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	v, key := h.node(0), h.key("a")
	_, err := v.Get(ctx, key)
	wantErr(t, "Get", err, why)
	_, err = v.Create(ctx, key, nil, 0)
	wantErr(t, "Create", err, why)
	_, err = v.Update(ctx, key, nil, 1, 0)
	wantErr(t, "Update", err, why)
	wantErr(t, "Delete", v.Delete(ctx, key, 0), why)
	wantErr(t, "List", v.List(ctx, h.root, func(vault.Entry) error { return nil }), why)
	wantErr(t, "Watch", v.Watch(ctx, h.root, vault.Watcher{}), why)
}
