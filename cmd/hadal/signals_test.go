package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestSignalsReloadThenStopThenAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, over, done := make(chan os.Signal), make(chan struct{}), make(chan struct{})
		var got []string
		go func() {
			defer close(done)
			attend(signals, over,
				func() { got = append(got, "reload") },
				func(s os.Signal) { got = append(got, "stop "+s.String()) },
				func(s os.Signal) { got = append(got, "abort "+s.String()) })
		}()
		signals <- syscall.SIGHUP
		signals <- syscall.SIGTERM
		signals <- syscall.SIGTERM // passed on by a supervisor
		signals <- syscall.SIGHUP
		timer := time.NewTimer(echo)
		<-timer.C
		signals <- syscall.SIGINT
		close(over)
		<-done
		if want := []string{"reload", "stop terminated", "reload", "abort interrupt"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestBeingToldToStopIsNoFailure(t *testing.T) {
	err := error(stopped{syscall.SIGTERM})
	if !errors.Is(err, context.Canceled) {
		t.Error("a node that was told to stop looks as if it had failed")
	}
	if got, want := err.Error(), "signal: terminated"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
