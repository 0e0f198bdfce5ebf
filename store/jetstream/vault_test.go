package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"hadal/auth/vault"
	"hadal/auth/vault/vaulttest"
	"hadal/store"
)

func openVault(t testing.TB, nc *nats.Conn, opts VaultOptions) *Vault {
	t.Helper()
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	v, err := OpenVault(context.Background(), nc, opts)
	if err != nil {
		t.Fatalf("OpenVault: %v", err)
	}
	t.Cleanup(v.Close)
	return v
}

func mustCreate(t testing.TB, v vault.Vault, key, value string, ttl time.Duration) uint64 {
	t.Helper()
	seq, err := v.Create(t.Context(), key, []byte(value), ttl)
	if err != nil {
		t.Fatalf("Create(%s): %v", key, err)
	}
	return seq
}

func TestTheVaultKeepsTheContract(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	vaulttest.Run(t, func(t *testing.T) []vault.Vault {
		return []vault.Vault{openVault(t, r.nc, VaultOptions{}), openVault(t, r.nc, VaultOptions{})}
	}, nil)
}

func TestWhatIsGoneFromTheVaultDoesNotComeBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	v := openVault(t, r.nc, VaultOptions{})
	ctx := t.Context()
	rev := mustCreate(t, v, "user/kept", "1", 0)
	if _, err := v.Update(ctx, "user/kept", []byte("2"), rev, 0); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, v, "user/removed", "1", 0)
	if err := v.Delete(ctx, "user/removed", 0); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, v, "bearer/removed", "1", time.Hour)
	if err := v.Delete(ctx, "bearer/removed", 0); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, v, "bearer/expired", "1", time.Second)
	for key, ttl := range map[string]time.Duration{"user/shortened": 0, "bearer/shortened": time.Hour} {
		rev := mustCreate(t, v, key, "1", ttl)
		if _, err := v.Update(ctx, key, []byte("2"), rev, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	gone := []string{"user/removed", "bearer/removed", "bearer/expired", "user/shortened", "bearer/shortened"}
	check := func(when string) {
		t.Helper()
		for _, key := range gone {
			until(t, key+" is gone "+when, func() error {
				_, err := v.Get(ctx, key)
				if err == nil {
					return errors.New("it is there")
				}
				if !errors.Is(err, vault.ErrNotFound) {
					return err
				}
				return nil
			})
		}
		if e, err := v.Get(ctx, "user/kept"); err != nil || string(e.Value) != "2" {
			t.Errorf("%s user/kept = %q, %v, want 2", when, e.Value, err)
		}
		if err := v.List(ctx, "", func(e vault.Entry) error {
			if e.Key != "user/kept" {
				t.Errorf("%s %s is listed", when, e.Key)
			}
			return nil
		}); err != nil {
			t.Errorf("%s: List: %v", when, err)
		}
	}
	check("at first")
	v.Close()
	r.stop(t)
	r.forget(t)
	r.start(t)
	v = openVault(t, r.nc, VaultOptions{})
	check("after a crash")
	for _, key := range gone {
		mustCreate(t, v, key, "again", 0)
	}
}

func TestAFullVaultRefusesAndForgetsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	fillAndEmpty(t, openVault(t, r.nc, VaultOptions{bytes: 20_000, reserve: 4_000}))
}

// fillAndEmpty fills a vault of 20 000 bytes, changes what is there, and empties it.
func fillAndEmpty(t *testing.T, v *Vault) {
	t.Helper()
	ctx := t.Context()
	revisions := make(map[string]uint64)
	for {
		key := fmt.Sprintf("user/%d", len(revisions))
		rev, err := v.Create(ctx, key, make([]byte, 400), 0)
		if errors.Is(err, vault.ErrFull) {
			break
		}
		if err != nil || len(revisions) > 100 {
			t.Fatalf("Create after %d = %v, want %v at some time", len(revisions), err, vault.ErrFull)
		}
		revisions[key] = rev
	}
	if len(revisions) < 20 {
		t.Errorf("%d entries of 400 bytes fit into 20 000, want 20", len(revisions))
	}
	if _, err := v.Update(ctx, "user/0", make([]byte, 2000), revisions["user/0"], 0); !errors.Is(err, vault.ErrFull) {
		t.Errorf("an update that needs more = %v, want %v", err, vault.ErrFull)
	}
	for key, rev := range revisions {
		// Many times: nothing that needs no more room takes any.
		for range 3 {
			next, err := v.Update(ctx, key, make([]byte, 400), rev, 0)
			if err != nil {
				t.Fatalf("an update that needs no more: %v", err)
			}
			rev = next
		}
		if err := v.Delete(ctx, key, rev); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	mustCreate(t, v, "user/bob", strings.Repeat("b", 2000), 0)
}

func TestADiskWithoutRoomRefusesWritesOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	full := false
	v := openVault(t, r.nc, VaultOptions{Room: func(int64) error {
		if full {
			return errors.New("3 MiB are missing")
		}
		return nil
	}})
	ctx := t.Context()
	rev := mustCreate(t, v, "a", "1", 0)
	full = true
	_, err := v.Create(ctx, "b", nil, 0)
	for what, err := range map[string]error{"Create": err, "Delete": v.Delete(ctx, "a", 0), "Room": v.Room()} {
		if err == nil || what != "Room" && !errors.Is(err, vault.ErrFull) || !strings.Contains(err.Error(), "3 MiB") {
			t.Errorf("%s = %v, want ErrFull and why", what, err)
		}
	}
	if _, err = v.Update(ctx, "a", nil, rev, 0); !errors.Is(err, vault.ErrFull) {
		t.Errorf("Update = %v, want ErrFull", err)
	}
	if e, err := v.Get(ctx, "a"); err != nil || string(e.Value) != "1" {
		t.Errorf("Get = %q, %v", e.Value, err)
	}
}

func TestAVaultWithoutItsServerFailsInTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	v := openVault(t, r.nc, VaultOptions{})
	rev := mustCreate(t, v, "a", "1", 0)
	r.srv.Shutdown()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := v.Update(ctx, "a", nil, rev, 0); err == nil {
		t.Error("Update went well without a server")
	}
	if _, err := v.Get(t.Context(), "a"); err == nil || errors.Is(err, vault.ErrNotFound) {
		t.Errorf("Get = %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("two calls took %v", took)
	}
	v.Close()
	if _, err := v.Get(t.Context(), "a"); !errors.Is(err, vault.ErrNotReady) {
		t.Errorf("Get of a closed vault = %v, want ErrNotReady", err)
	}
	if err := v.Watch(t.Context(), "", vault.Watcher{}); !errors.Is(err, vault.ErrNotReady) {
		t.Errorf("Watch of a closed vault = %v, want ErrNotReady", err)
	}
}

// Two of the answers to a write are lost; the write has happened once.
func TestAWriteWithoutAnAnswerHappensOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	v := openVault(t, r.nc, VaultOptions{})
	ctx := t.Context()
	put := func(m vaultMessage) vaultMessage {
		t.Helper()
		if _, err := v.put(ctx, m); err != nil {
			t.Fatal(err)
		}
		now, err := v.latest(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	first := put(entryOf("a", []byte("1"), 0, &vaultMessage{}))
	second := put(entryOf("a", []byte("2"), 0, &first))
	after := func(m *vaultMessage) *vaultMessage { // a write of ours that nobody knows
		ours := entryOf("a", nil, 0, m)
		return &ours
	}
	wrong := &apiError{Code: 400, ErrCode: codeWrongLast, Description: "wrong last sequence: 1"}
	unknown := errors.New("others have written the entry since")
	for _, tt := range []struct {
		name     string
		m        *vaultMessage
		sent     bool
		err      error
		seq      uint64
		want     error
		wantSent bool
	}{
		{name: "the first attempt is refused", m: after(&first), err: wrong, want: errVaultMoved},
		{name: "an attempt before was stored", m: &second, sent: true, err: wrong, seq: second.Revision, wantSent: true},
		{name: "an attempt before was stored, and replaced", m: &first, sent: true, err: wrong, seq: first.Revision, wantSent: true},
		{name: "an attempt before is under way", m: after(&second), sent: true, err: wrong, want: errMoved, wantSent: true},
		{name: "somebody else was first", m: after(&first), sent: true, err: wrong, want: errVaultMoved},
		{name: "much has happened since", m: after(&vaultMessage{}), sent: true, err: wrong, want: unknown, wantSent: true},
		{name: "nobody was there", m: after(&second), err: nats.ErrNoResponders, want: nats.ErrNoResponders},
		{name: "nobody answered", m: after(&second), err: context.DeadlineExceeded, want: context.DeadlineExceeded, wantSent: true},
		{name: "the server refused", m: after(&second), err: &apiError{Code: 503}, want: &apiError{Code: 503}},
	} {
		sent := tt.sent
		got, err := v.unsure(ctx, tt.m, tt.err, &sent)
		if got != tt.seq || fmt.Sprint(err) != fmt.Sprint(tt.want) || sent != tt.wantSent {
			t.Errorf("%s: %d, %v, sent %v, want %d, %v, %v", tt.name, got, err, sent, tt.seq, tt.want, tt.wantSent)
		}
	}
}

// overhear has a watcher note what a watcher was told, as words.
func overhear(t *testing.T, v vault.Vault, prefix string) (heard chan string, end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	heard, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		err := v.Watch(ctx, prefix, vault.Watcher{
			Told: func(c vault.Change) {
				if c.Gone {
					heard <- c.Key + " gone"
				} else {
					heard <- c.Key + "=" + string(c.Value)
				}
			},
			Synced: func() { heard <- "synced" },
			Lost:   func(error) { heard <- "lost" },
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v", err)
		}
	}()
	return heard, func() {
		cancel()
		<-done
	}
}

// hear wants to hear the words in this order, after others perhaps.
func hear(t *testing.T, heard chan string, words ...string) {
	t.Helper()
	var before []string
	for _, want := range words {
		for got := ""; got != want; {
			select {
			case got = <-heard:
				before = append(before, got)
			case <-time.After(30 * time.Second):
				t.Fatalf("%q was not heard within 30 s, only %q", want, before)
			}
		}
	}
}

func TestAWatcherHearsWhatWasLostOnTheWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	v := openVault(t, r.nc, VaultOptions{})
	ctx := t.Context()
	heard, end := overhear(t, v, "w/")
	defer end()
	hear(t, heard, "synced")
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(ctx, VaultName)
	if err != nil {
		t.Fatal(err)
	}
	quiet := st.CachedInfo().Config
	loud := quiet.RePublish
	set := func(to *jetstream.RePublish) {
		t.Helper()
		quiet.RePublish = to
		if _, err := js.UpdateStream(ctx, quiet); err != nil {
			t.Fatal(err)
		}
	}
	set(nil) // as if it was lost
	mustCreate(t, v, "w/a", "1", 0)
	mustCreate(t, v, "other", "1", 0)
	mustCreate(t, v, "w/b", "1", 0)
	if err := v.Delete(ctx, "w/a", 0); err != nil {
		t.Fatal(err)
	}
	set(loud)
	mustCreate(t, v, "w/c", "1", 0)
	hear(t, heard, "w/b=1", "w/a gone", "w/c=1")
	set(nil)
	mustCreate(t, v, "w/d", "1", 0)
	hear(t, heard, "w/d=1") // nothing comes after it: the next touch finds it
}

func TestAWatcherOfADeadServerIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	v := openVault(t, r.nc, VaultOptions{})
	mustCreate(t, v, "a", "1", 0)
	heard, end := overhear(t, v, "")
	defer end()
	hear(t, heard, "a=1", "synced")
	r.srv.Shutdown()
	hear(t, heard, "lost")
}

func TestAListHasManyPages(t *testing.T) {
	t.Parallel()
	subjects := func(from, to int) (all []string) {
		for i := from; i < to; i++ {
			all = append(all, fmt.Sprintf("s%06d", i))
		}
		return all
	}
	for name, going := range map[string]func(asked int, now []string) []string{
		"nothing goes":           func(_ int, now []string) []string { return now },
		"the first ones go":      func(asked int, now []string) []string { return now[min(asked*50, len(now)):] },
		"all that was read goes": func(asked int, now []string) []string { return now[min(asked*400, len(now)):] },
		"some come in front":     func(asked int, now []string) []string { return append(subjects(-30*asked, 0), now...) },
	} {
		var visited []string
		asked := 0
		err := eachPage(func(offset int) ([]string, int, error) {
			now := subjects(0, 2000)
			now = going(asked, now)
			asked++
			slices.Sort(now)
			if asked > 1000 {
				return nil, 0, errors.New("asked too often")
			}
			return now[min(offset, len(now)):min(offset+500, len(now))], len(now), nil
		}, func(page []string) error {
			visited = append(visited, page...)
			return nil
		})
		if err != nil || !slices.IsSorted(visited) || len(slices.Compact(slices.Clone(visited))) != len(visited) {
			t.Errorf("%s: visited %d, %v, sorted %v", name, len(visited), err, slices.IsSorted(visited))
		}
		for _, must := range subjects(1900, 2000) { // they stay in all cases but one
			if !slices.Contains(visited, must) && name != "all that was read goes" {
				t.Errorf("%s: %s was not visited", name, must)
				break
			}
		}
	}
	stop := errors.New("stop")
	if err := eachPage(func(int) ([]string, int, error) { return []string{"a"}, 2, nil }, func([]string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a visit that fails: %v, want %v", err, stop)
	}
}

func TestVaultMessagesAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	for _, want := range []vaultMessage{
		{Entry: vault.Entry{Value: []byte{}}, nonce: 1, ends: forever, until: forever},
		{Entry: vault.Entry{Value: []byte("value"), Ends: time.Unix(100, 0)}, nonce: 1<<64 - 1, ends: 100, until: 200},
		{gone: true, until: forever},
		{gone: true, nonce: 5, replaced: 6, before: 4, until: 7},
	} {
		got, err := decodeVault(appendVault(nil, &want))
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("%+v was read, %v, want %+v", got, err, want)
		}
	}
	if m, err := decodeVault(nil); err != nil || !m.gone {
		t.Errorf("the server's marker is %+v, %v, want that the entry is gone", m, err)
	}
	entry := appendVault(nil, &vaultMessage{ends: 5, until: 5})
	for name, payload := range map[string][]byte{
		"cut off": entry[:10], "of another format": append([]byte("X"), entry[1:]...), "without an end": append([]byte("E"), make([]byte, 40)...),
		"ends after its history": appendVault(nil, &vaultMessage{ends: 6, until: 5}),
	} {
		if m, err := decodeVault(payload); err == nil {
			t.Errorf("a message that is %s was read as %+v", name, m)
		}
	}
}

func FuzzVaultMessage(f *testing.F) {
	f.Add(appendVault(nil, &vaultMessage{Entry: vault.Entry{Value: []byte("value")}, ends: 100, until: 200}))
	f.Add(appendVault(nil, &vaultMessage{gone: true, until: forever}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, err := decodeVault(payload)
		if err != nil || len(payload) == 0 {
			return
		}
		again, err := decodeVault(appendVault(nil, &m))
		if err != nil || again.nonce != m.nonce || again.replaced != m.replaced || again.before != m.before || again.ends != m.ends || again.until != m.until || again.gone != m.gone || string(again.Value) != string(m.Value) {
			t.Errorf("%+v was read again as %+v, %v", m, again, err)
		}
	})
}

func TestAnUnreadableEntryIsNotMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	v := openVault(t, r.nc, VaultOptions{})
	if err := r.nc.Publish(v.subject("a"), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if err := r.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	until(t, "it is there", func() error {
		st, err := v.Stream(t.Context())
		if err == nil && st.Messages == 0 {
			err = errors.New("nothing is there")
		}
		return err
	})
	if _, err := v.Get(t.Context(), "a"); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Get = %v, want ErrCorrupt", err)
	}
	if _, err := v.Create(t.Context(), "a", nil, 0); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Create = %v, want ErrCorrupt", err)
	}
}
