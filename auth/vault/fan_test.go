package vault_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth/vault"
)

// What is listed may be newer than what the fan has heard of: a watcher is not told of
// the past afterwards.
func TestAWatcherIsNotToldOfThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := vault.NewFan(5)
		ctx, cancel := context.WithCancel(t.Context())
		var heard []string
		failed := false
		ended := make(chan error, 1)
		go func() {
			ended <- f.Watch(ctx, "", vault.Watcher{
				Told: func(c vault.Change) {
					word := c.Key + string(c.Value)
					if c.Gone {
						word = c.Key + " gone"
					}
					heard = append(heard, word)
				},
				Synced: func() { heard = append(heard, "synced") },
				Lost:   func(err error) { heard = append(heard, err.Error()) },
			}, func(_ context.Context, _ string, each func(vault.Entry) error) error {
				if !failed {
					failed = true
					return errors.New("not yet")
				}
				err := each(vault.Entry{Key: "a", Value: []byte("4"), Revision: 4})
				return errors.Join(err, each(vault.Entry{Key: "b", Value: []byte("8"), Revision: 8}))
			})
		}()
		synctest.Wait()
		tell := func(key, value string, revision uint64, gone bool) {
			f.Tell(vault.Change{Entry: vault.Entry{Key: key, Value: []byte(value), Revision: revision}, Gone: gone})
		}
		time.Sleep(time.Second) // of the bubble: it is asked again
		synctest.Wait()
		tell("b", "6", 6, false) // listed is 8
		tell("a", "7", 7, false)
		tell("b", "8", 8, false)
		tell("b", "", 8, true) // what ends without a change of its own
		tell("b", "9", 9, false)
		synctest.Wait()
		f.Lose(errors.New("lost"))
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v", err)
		}
		want := []string{"a4", "b8", "synced", "a7", "b gone", "b9", "lost", "a4", "b8", "synced"}
		if !slices.Equal(heard, want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
		if f.At() != 9 {
			t.Errorf("At = %d, want 9", f.At())
		}
	})
}
