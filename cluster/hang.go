package cluster

import (
	"errors"
	"runtime"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// The embedded server has locks, and errors met at the same time, a disk that fills up most
// of all, can leave it in a deadlock: it answers nothing any more, least of all a question
// about its health. So nobody asks it without a bound. It is restarted when it hangs, like
// one that has stopped; and where it does not even end, the process has to, because two
// servers on one directory would destroy it.

// How long the embedded server may take.
const (
	// hangAfter is for its answer to a question about its health, which takes milliseconds.
	hangAfter = 20 * time.Second
	// endAfter is for its end.
	endAfter = time.Minute
	// stacksShown is how many bytes of its goroutines go to the log when it hangs.
	stacksShown = 256 << 10
)

var (
	errHangs = errors.New("the embedded server hangs: it does not answer")
	errNoEnd = errors.New("the embedded server hangs and does not end: this process has to end and be started again, as systemd and Kubernetes do by themselves")
)

// checkup asks one embedded server how it is.
type checkup struct {
	srv *server.Server
	ask func(*server.Server) complaints
	// one holds a token while a question is under way: one that is never answered is
	// not asked again.
	one chan struct{}
}

func newCheckup(srv *server.Server, ask func(*server.Server) complaints) *checkup {
	return &checkup{srv: srv, ask: ask, one: make(chan struct{}, 1)}
}

// complaints are what the server finds wrong with itself from now on, or errHangs after
// the bound.
func (c *checkup) complaints(bound time.Duration) (complaints, error) {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case c.one <- struct{}{}:
	case <-timer.C:
		return nil, errHangs
	}
	answer := make(chan complaints, 1)
	go func() { // ends with the answer; in a deadlock, with the process
		answer <- c.ask(c.srv)
		<-c.one
	}()
	select {
	case all := <-answer:
		return all, nil
	case <-timer.C:
		return nil, errHangs
	}
}

// stacks are the goroutines of the process, for who looks into a deadlock.
func stacks() string {
	b := make([]byte, stacksShown)
	return string(b[:runtime.Stack(b, true)])
}

// endWithin ends a server, or says that it does not end.
func endWithin(srv *server.Server, end func(*server.Server), bound time.Duration) error {
	if srv == nil {
		return nil
	}
	ended := make(chan struct{})
	go func() { // in a deadlock it ends with the process
		defer close(ended)
		end(srv)
	}()
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
		return errNoEnd
	}
}
