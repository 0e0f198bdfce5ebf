package vault_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth/vault"
)

func TestSegmentsKeepTextsApart(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{"a", "A", "ann", "ann ", "ann/bob", "a.b", "*", ">", "ä", "\x00", "\xff\xfe", strings.Repeat("x", 1000)} {
		s := vault.Segment(text)
		if other, ok := seen[s]; ok {
			t.Errorf("%q and %q have the same segment %q", text, other, s)
		}
		seen[s] = text
		if !vault.ValidKey("user/" + s) {
			t.Errorf("the segment %q of %q makes no key", s, text)
		}
		if got, err := vault.Text(s); err != nil || got != text {
			t.Errorf("Text(%q) = %q, %v, want %q", s, got, err, text)
		}
	}
	if _, err := vault.Text("not base64url!"); err == nil {
		t.Error("Text took what is no segment")
	}
}

func TestKeys(t *testing.T) {
	for key, want := range map[string]bool{
		"a": true, "user/ann": true, "A-Z_=/0": true, strings.Repeat("k", vault.MaxKey): true,
		"": false, "/": false, "/a": false, "a/": false, "a//b": false, "a b": false, "a.b": false, "a\n": false, "ä": false,
		strings.Repeat("k", vault.MaxKey+1): false,
		"user/" + vault.Segment(""):         false, // an empty name is no segment
	} {
		if got := vault.ValidKey(key); got != want {
			t.Errorf("ValidKey(%.40q) = %v, want %v", key, got, want)
		}
	}
}

func TestTTLsAreWholeSeconds(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{
		-1: 0, 0: 0, 1: time.Second, time.Second: time.Second, time.Second + 1: 2 * time.Second, time.Hour: time.Hour,
	} {
		if got := vault.WholeSeconds(ttl); got != want {
			t.Errorf("WholeSeconds(%v) = %v, want %v", ttl, got, want)
		}
	}
}

func TestAnEmptySlotIsNotReady(t *testing.T) {
	s := vault.NewSlot()
	ctx := t.Context()
	_, err := s.Get(ctx, "a")
	notReady(t, "Get", err)
	_, err = s.Create(ctx, "a", nil, 0)
	notReady(t, "Create", err)
	_, err = s.Update(ctx, "a", nil, 1, 0)
	notReady(t, "Update", err)
	notReady(t, "Delete", s.Delete(ctx, "a", 0))
	notReady(t, "List", s.List(ctx, "", func(vault.Entry) error { return nil }))
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Watch(ctx, "", vault.Watcher{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v, want the end of its context", err)
	}
}

func notReady(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, vault.ErrNotReady) {
		t.Errorf("%s = %v, want %v", what, err, vault.ErrNotReady)
	}
}

func TestASlotIsWhatWasPutThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := vault.NewSlot(), vault.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		synced := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			ended <- s.Watch(ctx, "", vault.Watcher{Told: func(vault.Change) {}, Synced: func() { close(synced) }, Lost: func(error) {}})
		}()
		synctest.Wait()
		select {
		case <-s.Filled():
			t.Fatal("an empty slot says that it is filled")
		case <-synced:
			t.Fatal("a watcher of an empty slot is synced")
		default:
		}
		s.Put(m)
		s.Put(vault.NewMemory()) // too late
		<-s.Filled()
		<-synced
		rev, err := s.Create(ctx, "a", []byte("1"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if rev, err = s.Update(ctx, "a", []byte("2"), rev, 0); err != nil {
			t.Fatal(err)
		}
		e, err := m.Get(ctx, "a")
		if err != nil || string(e.Value) != "2" || e.Revision != rev {
			t.Errorf("behind the slot is %q at %d, %v, want 2 at %d", e.Value, e.Revision, err, rev)
		}
		if e, err = s.Get(ctx, "a"); err != nil || string(e.Value) != "2" {
			t.Errorf("Get = %q, %v", e.Value, err)
		}
		n := 0
		if err := s.List(ctx, "", func(vault.Entry) error { n++; return nil }); err != nil || n != 1 {
			t.Errorf("List = %d entries, %v, want 1", n, err)
		}
		if err := s.Delete(ctx, "a", rev); err != nil {
			t.Errorf("Delete: %v", err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v", err)
		}
	})
}
