package vault

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestANodeThatIsCutOffGoesOnForItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		touch := NewTouch(false)
		var over atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go touch.Run(ctx, func() time.Duration { return 10 * time.Second }, func() { over.Add(1) })
		if touch.Knows() || touch.Gone() || touch.Began() {
			t.Error("before the watch has begun the node knows something, or has been cut off")
		}
		touch.Synced()
		time.Sleep(time.Hour)
		if !touch.Lost() || touch.Lost() {
			t.Error("a loss is news once")
		}
		time.Sleep(9 * time.Second)
		if away := touch.Synced(); away != 9*time.Second {
			t.Errorf("it was away for %v, want 9s", away)
		}
		time.Sleep(time.Hour)
		if over.Load() != 0 || !touch.Knows() {
			t.Fatal("a grace that was not used up ended")
		}
		touch.Lost()
		time.Sleep(10*time.Second - time.Millisecond)
		if over.Load() != 0 || !touch.Knows() {
			t.Error("the grace ended too early")
		}
		time.Sleep(2 * time.Millisecond)
		if over.Load() != 1 || touch.Knows() || !touch.Gone() {
			t.Errorf("after the grace: over %d times, knows %v, gone %v", over.Load(), touch.Knows(), touch.Gone())
		}
		if touch.Await(ctx, 5*time.Second) {
			t.Error("who waits was told that the node knows")
		}
		time.AfterFunc(time.Second, func() { touch.Synced() })
		if !touch.Await(ctx, 5*time.Second) || !touch.Knows() || touch.Gone() {
			t.Error("after the loss the node does not know again")
		}
	})
}

func TestANodeThatMayGoOnBeforeItsWatchHasBegunDoesSoForItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		touch := NewTouch(true)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		touch.Lost()
		go touch.Run(ctx, func() time.Duration { return time.Second }, func() {})
		time.Sleep(time.Second / 2)
		if !touch.Knows() {
			t.Error("the node does not go on")
		}
		time.Sleep(time.Second)
		if touch.Knows() || !touch.Gone() {
			t.Error("the node goes on although nothing was ever heard")
		}
	})
}
