package vault_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth/vault"
	"hadal/auth/vault/vaulttest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) []vault.Vault {
		m := vault.NewMemory()
		return []vault.Vault{m, m, m}
	}, synctest.Test)
}

func TestMemoryCountsWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vault.NewMemory()
		rev, err := m.Create(t.Context(), "a/b", []byte("12345"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = m.Create(t.Context(), "c", []byte("1"), time.Minute); err != nil {
			t.Fatal(err)
		}
		if n, size := m.Size(); n != 2 || size != 10 {
			t.Errorf("Size = %d, %d, want 2 entries of 10 bytes", n, size)
		}
		if _, err = m.Update(t.Context(), "a/b", nil, rev, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // of the bubble
		synctest.Wait()
		if n, size := m.Size(); n != 1 || size != 3 {
			t.Errorf("Size = %d, %d, want 1 entry of 3 bytes", n, size)
		}
	})
}

func TestMemoryWatcherThatFallsBehindBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := vault.NewMemoryBehind(3)
		ctx, cancel := context.WithCancel(t.Context())
		var heard []string
		hold := make(chan struct{})
		done := make(chan error)
		go func() {
			done <- m.Watch(ctx, "", vault.Watcher{
				Told: func(c vault.Change) {
					heard = append(heard, string(c.Value))
					if len(heard) == 2 {
						<-hold
					}
				},
				Synced: func() { heard = append(heard, "synced") },
				Lost:   func(error) { heard = append(heard, "lost") },
			})
		}()
		synctest.Wait()
		rev, err := m.Create(t.Context(), "a", []byte("0"), 0)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // now it is held
		for i := range 10 {
			if rev, err = m.Update(t.Context(), "a", []byte(strconv.Itoa(i+1)), rev, 0); err != nil {
				t.Fatal(err)
			}
		}
		close(hold)
		synctest.Wait()
		cancel()
		<-done
		if want := []string{"synced", "0", "lost", "10", "synced"}; !slices.Equal(heard, want) {
			t.Errorf("the watcher heard %q, want %q", heard, want)
		}
	})
}
