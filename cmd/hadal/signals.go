package main

import (
	"context"
	"os"
	"syscall"
	"time"
)

// echo is how soon after the first signal to stop another one is taken for the
// same: a supervisor that passes a signal on to a process that has it already,
// as timeout and npm do, is not an impatient person.
const echo = 500 * time.Millisecond

// attend carries out what signals ask for until over is closed: reload for
// SIGHUP, stop for the first of the others, abort for the next.
func attend(signals <-chan os.Signal, over <-chan struct{}, reload func(), stop, abort func(os.Signal)) {
	var stopping time.Time
	for {
		select {
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				reload()
			case stopping.IsZero():
				stopping = time.Now()
				stop(s)
			case time.Since(stopping) >= echo:
				abort(s)
			}
		case <-over:
			return
		}
	}
}

// stopped is why a node ends that was told to.
type stopped struct{ signal os.Signal }

// Error names the signal.
func (s stopped) Error() string { return "signal: " + s.signal.String() }

// Is says that this is an end in order, as that of any canceled context.
func (stopped) Is(target error) bool { return target == context.Canceled }
