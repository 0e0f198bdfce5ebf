package vault_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth/vault"
	"hadal/auth/vault/vaulttest"
)

func TestACountedVaultKeepsTheContract(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) []vault.Vault {
		v := vault.Count(vault.NewMemory())
		return []vault.Vault{v, v}
	}, synctest.Test)
}

func TestCallsAreCountedByHowTheyEnd(t *testing.T) {
	c := vault.Count(vault.NewMemory())
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	stop := errors.New("stop")
	_, notFound := c.Get(t.Context(), "a")
	revision, ok := c.Create(t.Context(), "a", nil, 0)
	_, exists := c.Create(t.Context(), "a", nil, 0)
	_, conflict := c.Update(t.Context(), "a", nil, revision+1, 0)
	_, canceled := c.Get(gone, "a")
	_, failed := c.Get(t.Context(), "no key")
	stopped := c.List(t.Context(), "", func(vault.Entry) error { return stop })
	for _, e := range []struct{ got, want error }{
		{notFound, vault.ErrNotFound}, {ok, nil}, {exists, vault.ErrExists}, {conflict, vault.ErrConflict},
		{canceled, context.Canceled}, {failed, vault.ErrInvalid}, {stopped, stop},
	} {
		wantError(t, e.got, e.want)
	}
	want := map[vault.Call]uint64{
		{Op: "get", Outcome: "not found"}: 1, {Op: "create", Outcome: "ok"}: 1, {Op: "create", Outcome: "exists"}: 1,
		{Op: "update", Outcome: "conflict"}: 1, {Op: "get", Outcome: "canceled"}: 1, {Op: "get", Outcome: "failed"}: 1,
		{Op: "list", Outcome: "ok"}: 1,
	}
	if got := c.Calls(); !maps.Equal(got, want) {
		t.Errorf("Calls = %v, want %v", got, want)
	}
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRestoreWritesOverWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vault.NewMemory()
		ctx := t.Context()
		if _, err := m.Create(ctx, "a", []byte("old"), 0); err != nil {
			t.Fatal(err)
		}
		for _, e := range []vault.Entry{
			{Key: "a", Value: []byte("new")},
			{Key: "b", Value: []byte("new"), Ends: time.Now().Add(time.Minute)},
			{Key: "c", Value: []byte("new"), Ends: time.Now()},
		} {
			if err := vault.Restore(ctx, m, e); err != nil {
				t.Errorf("Restore(%s): %v", e.Key, err)
			}
		}
		if e, err := m.Get(ctx, "a"); err != nil || string(e.Value) != "new" {
			t.Errorf("a = %q, %v", e.Value, err)
		}
		if e, err := m.Get(ctx, "b"); err != nil || !e.Ends.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("b ends %v, %v", e.Ends, err)
		}
		_, err := m.Get(ctx, "c")
		wantError(t, err, vault.ErrNotFound)
		time.Sleep(time.Minute) // of the bubble
		synctest.Wait()
		_, err = m.Get(ctx, "b")
		wantError(t, err, vault.ErrNotFound)
	})
}
