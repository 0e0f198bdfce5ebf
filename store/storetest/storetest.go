// Package storetest is the contract of store.Store written as a test. A driver
// calls Run with a function that opens an empty store, and RunShared with one
// that opens several handles on the same data: owners that follow one another,
// and restarts.
//
// It also has a store for tests of those who use one: Replicated stands for the
// replicated log of a cluster, with what may go wrong there.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"hadal/store"
)

// Shared is one set of records that can be opened more than once.
type Shared interface {
	// Open returns another handle on the same records, not yet fenced. It need
	// not close the earlier ones: an owner that was deposed does not know it.
	Open(t *testing.T) store.Store
	// Restart closes every handle, stops what serves them and starts it again,
	// as a new process on the same data directory would.
	Restart(t *testing.T)
}

// Run checks a driver against the contract. open returns an empty store that is
// closed with the test; Run fences it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"what was appended is loaded", appended},
		{"later ops of the same name win", laterOpsWin},
		{"a deleted record is not found and may come back", deleted},
		{"odd names keep their records apart", oddNames},
		{"prefixes list exactly the names that begin with them", prefixes},
		{"records of a mebibyte come back whole", large},
		{"a batch of the most names is stored", fullBatch},
		{"a batch that cannot be stored is refused and changes nothing", refused},
		{"an unfenced store refuses everything", unfenced},
		{"an append that failed fences the store off", failedAppend},
		{"an epoch below the last is refused", lowerEpoch},
		{"a scan ends with the error of its function", scanStops},
		{"a scan under way sees every record once", scanWhileWriting},
		{"reads beside appends see whole batches", readsBesideAppends},
		{"ten thousand records are listed", many},
		{"a closed store says so", closed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			tt.run(t, s)
		})
	}
}

// RunShared checks what holds between owners and across restarts.
func RunShared(t *testing.T, open func(t *testing.T) Shared) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, s Shared)
	}{
		{"an owner that was taken over cannot append", takenOver},
		{"an owner of a lower epoch cannot take over", lowerOwner},
		{"the same epoch may fence again", sameEpoch},
		{"a restart keeps records, removals and the epoch", restart},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

// Put is an op that stores a record.
func Put(name string, version int32, data string) store.Op {
	return store.Op{Record: store.Record{Name: name, Version: version, Data: data}}
}

// Delete is an op that removes a record.
func Delete(name string) store.Op {
	return store.Op{Record: store.Record{Name: name}, Delete: true}
}

func appended(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 0, `{}`))
	add(t, s, Put("b", 7, `{"x":1}`), Put("c", 1<<31-1, `["y"]`))
	want(t, s, "", Put("a", 0, `{}`), Put("b", 7, `{"x":1}`), Put("c", 1<<31-1, `["y"]`))
	add(t, s, Put("a", 1, `{"z":2}`))
	want(t, s, "a", Put("a", 1, `{"z":2}`))
	missing(t, s, "d")
	add(t, s) // an empty batch is no work and no error
	want(t, s, "b", Put("b", 7, `{"x":1}`))
}

func laterOpsWin(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 1, `1`), Put("b", 1, `1`), Put("a", 2, `2`), Delete("b"), Put("c", 1, `1`), Delete("c"), Put("c", 0, `2`))
	want(t, s, "", Put("a", 2, `2`), Put("c", 0, `2`))
	missing(t, s, "b")
}

func deleted(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 5, `5`), Put("b", 1, `1`), Put("c", 1, `1`))
	add(t, s, Delete("a"))
	add(t, s, Delete("c"), Delete("never"))
	missing(t, s, "a")
	missing(t, s, "c")
	want(t, s, "", Put("b", 1, `1`))
	add(t, s, Put("a", 0, `0`))
	want(t, s, "", Put("a", 0, `0`), Put("b", 1, `1`))
	for i := range int32(20) {
		add(t, s, Delete("a"))
		missing(t, s, "a")
		add(t, s, Put("a", i, `[]`), Delete("b"))
		want(t, s, "", Put("a", i, `[]`))
	}
}

// OddNames are names that trip encoders of names.
func OddNames() []string {
	long := strings.Repeat("long/", 1024)
	names := []string{
		"a", "A", "ä", "Ä", "a b", " a", "a ", "a.b", "a/b", "a/b/", "a//b", "/", "//", "/a", ".", "..", "*", ">",
		"$", "$JS.API.>", "_INBOX", "=", "=41", "=~", "a=b", "a/=", "日本/語", "\x00", "\n\r\t", "\xff\xfe", "a*", "a>b",
		"hadal", "fence", "r", "users/1", "users/10", "Users/1", "users", "users/", "{\"}", "%2F", "\u2028", "😀/😀",
		strings.Repeat("x", 5000), strings.Repeat("x", 5001), strings.Repeat("X", 5000),
		long, long + "a", long + "b", "l/" + strings.Repeat("é", 600), strings.Repeat("/", 200), strings.Repeat("a/", 70) + "z",
	}
	return names
}

func oddNames(t *testing.T, s store.Store) {
	fence(t, s, 1)
	var ops, all []store.Op
	for i, name := range OddNames() {
		op := Put(name, int32(i), fmt.Sprintf(`{"n":%d}`, i))
		all = append(all, op)
		if i%2 == 0 {
			add(t, s, op)
		} else {
			ops = append(ops, op)
		}
	}
	add(t, s, ops...)
	want(t, s, "", all...)
	for _, op := range all {
		add(t, s, Delete(op.Name))
		missing(t, s, op.Name)
	}
	want(t, s, "")
}

func prefixes(t *testing.T, s store.Store) {
	fence(t, s, 1)
	var ops []store.Op
	for i, name := range OddNames() {
		ops = append(ops, Put(name, int32(i), `{}`))
	}
	add(t, s, ops...)
	asked := []string{"u", "users", "users/", "users/1", "users/10", "Users/", "nobody/", "a", "a/", "a//", "a.", "a ", "/", "//", "=", "$", "*", ">", "\xff",
		"日", "\xe6", strings.Repeat("x", 5000), strings.Repeat("long/", 1000), strings.Repeat("long/", 1024), strings.Repeat("long/", 1025), strings.Repeat("/", 100), "l/é", strings.Repeat("a/", 64)}
	for _, prefix := range asked {
		var expect []store.Op
		for _, op := range ops {
			if strings.HasPrefix(op.Name, prefix) {
				expect = append(expect, op)
			}
		}
		want(t, s, prefix, expect...)
	}
}

func large(t *testing.T, s store.Store) {
	fence(t, s, 1)
	data := `"` + strings.Repeat("0123456789abcdef", 1<<16)[2:] + `"`
	add(t, s, Put("big", 1, data))
	add(t, s, Put("big2", 1, data), Put("small", 1, `{}`), Put("big3", 2, data))
	want(t, s, "", Put("big", 1, data), Put("big2", 1, data), Put("small", 1, `{}`), Put("big3", 2, data))
}

func fullBatch(t *testing.T, s store.Store) {
	fence(t, s, 1)
	var ops, last []store.Op
	for round := range int32(2) {
		last = last[:0]
		for i := range store.MaxOps {
			op := Put(fmt.Sprintf("r/%d", i), round, `{}`)
			ops, last = append(ops, op), append(last, op)
		}
	}
	add(t, s, ops...)
	want(t, s, "", last...)
}

func refused(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 1, `1`))
	var many []store.Op
	for i := range store.MaxOps + 1 {
		many = append(many, Put(fmt.Sprint(i), 1, `1`))
	}
	for _, ops := range [][]store.Op{many, {Put("a", 2, `2`), Put("", 1, `1`)}} {
		if err := s.Append(t.Context(), ops); !errors.Is(err, store.ErrRefused) {
			t.Fatalf("Append = %v, want ErrRefused", err)
		}
		want(t, s, "", Put("a", 1, `1`))
	}
	add(t, s, Put("a", 2, `2`))
}

// refuses checks that every call but Fence answers with err.
func refuses(t *testing.T, s store.Store, want error) {
	t.Helper()
	if err := s.Append(t.Context(), []store.Op{Put("x", 1, `1`)}); !errors.Is(err, want) {
		t.Errorf("Append = %v, want %v", err, want)
	}
	if _, err := s.Load(t.Context(), "a"); !errors.Is(err, want) {
		t.Errorf("Load = %v, want %v", err, want)
	}
	if err := s.Scan(t.Context(), "", func(store.Record) error { return nil }); !errors.Is(err, want) {
		t.Errorf("Scan = %v, want %v", err, want)
	}
	if err := s.Names(t.Context(), "", func(string) error { return nil }); !errors.Is(err, want) {
		t.Errorf("Names = %v, want %v", err, want)
	}
}

func unfenced(t *testing.T, s store.Store) {
	refuses(t, s, store.ErrFenced)
	fence(t, s, 1)
	want(t, s, "")
}

func failedAppend(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 1, `1`))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Append(ctx, []store.Op{Put("a", 2, `2`)})
	if err == nil || errors.Is(err, store.ErrFenced) {
		t.Fatalf("Append with an ended context = %v, want another error than ErrFenced", err)
	}
	refuses(t, s, store.ErrFenced)
	fence(t, s, 1)
	r, err := s.Load(t.Context(), "a")
	if err != nil {
		t.Fatalf("Load after Fence: %v", err)
	}
	if r.Version != 1 && r.Version != 2 {
		t.Errorf("version = %d, want the old or the new one", r.Version)
	}
	add(t, s, Put("a", 3, `3`))
	want(t, s, "", Put("a", 3, `3`))
}

func lowerEpoch(t *testing.T, s store.Store) {
	fence(t, s, 5)
	add(t, s, Put("a", 1, `1`))
	if err := s.Fence(t.Context(), 4); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("Fence(4) after Fence(5) = %v, want ErrFenced", err)
	}
	refuses(t, s, store.ErrFenced)
	fence(t, s, 6)
	want(t, s, "", Put("a", 1, `1`))
}

func scanStops(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 1, `1`), Put("b", 1, `1`), Put("c", 1, `1`))
	stop := errors.New("enough")
	calls := 0
	if err := s.Scan(t.Context(), "", func(store.Record) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("Scan = %v after %d calls, want the function's error after 1", err, calls)
	}
	calls = 0
	if err := s.Names(t.Context(), "", func(string) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("Names = %v after %d calls, want the function's error after 1", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Scan(ctx, "", func(store.Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Scan with an ended context = %v", err)
	}
}

// scanWhileWriting rewrites, adds and removes records from inside the scan, at
// every step, so that the scan runs into its own tail.
func scanWhileWriting(t *testing.T, s store.Store) {
	fence(t, s, 1)
	const n = 300
	var ops []store.Op
	for i := range n {
		ops = append(ops, Put(fmt.Sprintf("r/%03d", i), 0, `{}`))
	}
	add(t, s, ops...)
	seen := make(map[string]int)
	step := 0
	err := s.Scan(t.Context(), "r/", func(r store.Record) error {
		seen[r.Name]++
		if step < n {
			// Some were seen already, some will be; both change now.
			add(t, s, Put(fmt.Sprintf("r/%03d", step), 1, `[]`), Put(fmt.Sprintf("r/%03d", n-1-step), 2, `[]`), Put(fmt.Sprintf("other/%d", step), 1, `[]`))
		}
		step++
		return nil
	})
	if err != nil {
		t.Fatalf("Scan: %v", err)
	}
	for _, op := range ops {
		if seen[op.Name] != 1 {
			t.Errorf("%s was seen %d times, want once", op.Name, seen[op.Name])
		}
	}
}

func readsBesideAppends(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 0, `{}`), Put("b", 0, `{}`))
	const rounds = 50
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := int32(0); ; {
				select {
				case <-done:
					return
				default:
				}
				// a is read first, so b may be newer, but never older.
				a, err := s.Load(t.Context(), "a")
				if err != nil {
					t.Errorf("Load a: %v", err)
					return
				}
				b, err := s.Load(t.Context(), "b")
				if err != nil {
					t.Errorf("Load b: %v", err)
					return
				}
				if b.Version < a.Version || a.Version < last {
					t.Errorf("read a at %d, then b at %d, after a at %d", a.Version, b.Version, last)
					return
				}
				last = a.Version
			}
		})
	}
	for i := range int32(rounds) {
		add(t, s, Put("a", i+1, `{}`), Put("b", i+1, `{}`))
	}
	close(done)
	wg.Wait()
}

func many(t *testing.T, s store.Store) {
	fence(t, s, 1)
	const n = 10_000
	ops := make([]store.Op, 0, n)
	for i := range n {
		ops = append(ops, Put(fmt.Sprintf("group %d/r%d", i%10, i), int32(i), `{"some":"data"}`))
	}
	for i := 0; i < n; i += store.MaxOps {
		add(t, s, ops[i:i+store.MaxOps]...)
	}
	want(t, s, "", ops...)
	var third []store.Op
	for i := 3; i < n; i += 10 {
		third = append(third, ops[i])
	}
	want(t, s, "group 3/", third...)
}

func closed(t *testing.T, s store.Store) {
	fence(t, s, 1)
	add(t, s, Put("a", 1, `1`))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	refuses(t, s, store.ErrClosed)
	if err := s.Fence(t.Context(), 2); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Fence = %v, want ErrClosed", err)
	}
}

func takenOver(t *testing.T, sh Shared) {
	old, next := sh.Open(t), sh.Open(t)
	fence(t, old, 1)
	add(t, old, Put("a", 1, `1`), Put("b", 1, `1`))
	fence(t, next, 2)
	want(t, next, "", Put("a", 1, `1`), Put("b", 1, `1`))
	for _, ops := range [][]store.Op{{Put("a", 2, `"old"`)}, {Put("a", 2, `"old"`), Delete("b")}} {
		if err := old.Append(t.Context(), ops); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("Append of the old owner = %v, want ErrFenced", err)
		}
	}
	refuses(t, old, store.ErrFenced)
	want(t, next, "", Put("a", 1, `1`), Put("b", 1, `1`))
	add(t, next, Put("a", 2, `"new"`))
	add(t, next, Put("a", 3, `"new"`), Delete("b"))
	want(t, next, "", Put("a", 3, `"new"`))
	// The old owner may come back, under a higher epoch only.
	if err := old.Fence(t.Context(), 1); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("Fence(1) = %v, want ErrFenced", err)
	}
	add(t, next, Put("a", 4, `"new"`))
	fence(t, old, 3)
	want(t, old, "", Put("a", 4, `"new"`))
	if err := next.Append(t.Context(), []store.Op{Put("a", 5, `5`)}); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("Append of the owner before = %v, want ErrFenced", err)
	}
	add(t, old, Put("a", 5, `"old"`))
}

func lowerOwner(t *testing.T, sh Shared) {
	first, second := sh.Open(t), sh.Open(t)
	fence(t, first, 9)
	if err := second.Fence(t.Context(), 8); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("Fence(8) = %v, want ErrFenced", err)
	}
	refuses(t, second, store.ErrFenced)
	add(t, first, Put("a", 1, `1`))
	want(t, first, "", Put("a", 1, `1`))
}

func sameEpoch(t *testing.T, sh Shared) {
	s := sh.Open(t)
	for i := range int32(3) {
		fence(t, s, 1)
		add(t, s, Put("a", i, `1`))
	}
	fence(t, s, 1)
	fence(t, s, 1)
	want(t, s, "", Put("a", 2, `1`))
}

func restart(t *testing.T, sh Shared) {
	kept := make(map[string]store.Op)
	for round := range uint64(4) {
		s := sh.Open(t)
		if round > 0 {
			if err := s.Fence(t.Context(), round-1); !errors.Is(err, store.ErrFenced) {
				t.Fatalf("Fence(%d) after epoch %d = %v, want ErrFenced", round-1, round, err)
			}
		}
		fence(t, s, round+1)
		wantMap(t, s, "", kept)
		for i := range int32(10) {
			batch := []store.Op{Put(fmt.Sprintf("r/%d", i), int32(round), `{}`), Put(fmt.Sprintf("odd %d.%d/*", round, i), i, `[]`), Delete(fmt.Sprintf("odd %d.%d/*", round, i-1))}
			add(t, s, batch...)
			for _, op := range batch {
				if op.Delete {
					delete(kept, op.Name)
				} else {
					kept[op.Name] = op
				}
			}
		}
		last := fmt.Sprintf("r/%d", round)
		add(t, s, Delete(last)) // the very last thing before the stop is a removal
		delete(kept, last)
		wantMap(t, s, "", kept)
		sh.Restart(t)
	}
	s := sh.Open(t)
	fence(t, s, 5)
	wantMap(t, s, "", kept)
}

func fence(t *testing.T, s store.Store, epoch uint64) {
	t.Helper()
	if err := s.Fence(t.Context(), epoch); err != nil {
		t.Fatalf("Fence(%d): %v", epoch, err)
	}
}

func add(t *testing.T, s store.Store, ops ...store.Op) {
	t.Helper()
	if err := s.Append(t.Context(), ops); err != nil {
		t.Fatalf("Append of %d ops: %v", len(ops), err)
	}
}

func missing(t *testing.T, s store.Store, name string) {
	t.Helper()
	if r, err := s.Load(t.Context(), name); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Load %.40q = %v, %v, want ErrNotFound", name, r.Version, err)
	}
}

// want checks that Load, Scan and Names agree on exactly these records under prefix.
func want(t *testing.T, s store.Store, prefix string, ops ...store.Op) {
	t.Helper()
	expect := make(map[string]store.Op, len(ops))
	for _, op := range ops {
		expect[op.Name] = op
	}
	wantMap(t, s, prefix, expect)
}

func wantMap(t *testing.T, s store.Store, prefix string, expect map[string]store.Op) {
	t.Helper()
	left := maps.Clone(expect)
	err := s.Scan(t.Context(), prefix, func(r store.Record) error {
		op, ok := left[r.Name]
		if !ok || op.Record != r {
			t.Errorf("Scan %.40q gave %.40q at version %d with %d bytes, want (known %v) version %d", prefix, r.Name, r.Version, len(r.Data), ok, op.Version)
		}
		delete(left, r.Name)
		return nil
	})
	if err != nil {
		t.Fatalf("Scan %.40q: %v", prefix, err)
	}
	for name := range left {
		t.Errorf("Scan %.40q left out %.40q", prefix, name)
	}
	left = maps.Clone(expect)
	err = s.Names(t.Context(), prefix, func(name string) error {
		if _, ok := left[name]; !ok {
			t.Errorf("Names %.40q gave %.40q, unknown or twice", prefix, name)
		}
		delete(left, name)
		return nil
	})
	if err != nil {
		t.Fatalf("Names %.40q: %v", prefix, err)
	}
	for name := range left {
		t.Errorf("Names %.40q left out %.40q", prefix, name)
	}
	loads := 0
	for name, op := range expect {
		if loads++; loads > 1000 {
			break // the order of a map is a sample
		}
		r, err := s.Load(t.Context(), name)
		if err != nil || r != op.Record {
			t.Errorf("Load %.40q = version %d, %d bytes, %v, want version %d, %d bytes", name, r.Version, len(r.Data), err, op.Version, len(op.Data))
		}
	}
}
