package api

import (
	"context"
	"runtime/debug"
	"sync"
)

// answerRoom is what is reckoned beforehand for the answer of a command in bytes, so that
// one that is carried out can be told that it was.
const answerRoom = 256

// batch is the commands of one request while they run.
type batch struct {
	commands []command
	share    *share

	mu      sync.Mutex
	over    bool      // the answer is being made: nothing is added any more; guarded by mu
	results []outcome // of the first commands; guarded by mu
	begun   int       // guarded by mu
}

// run, for a request that was begun, runs commands until all are answered or ctx ends, and returns an outcome for each.
// ended is called when nothing of them runs any more, which may be later.
func (s *Server) run(ctx context.Context, caller *Caller, commands []command, share *share, ended func()) []outcome {
	b := &batch{commands: commands, share: share}
	finished := make(chan struct{})
	go func() { // Run waits for it
		defer s.running.Done()
		defer ended()
		defer close(finished)
		defer s.recovered()
		s.runAll(ctx, caller, b)
	}()
	select {
	case <-finished:
	case <-ctx.Done():
	}
	results := b.close()
	for i, r := range results {
		s.count(commands[i].kind, r)
	}
	return results
}

// runAll runs commands one after the other. A panic of a room ends it.
func (s *Server) runAll(ctx context.Context, caller *Caller, b *batch) {
	closed := s.deps.Node.Opened(caller)
	defer closed()
	for i := range b.commands {
		if ctx.Err() != nil || !b.begin() {
			return
		}
		result := notRun
		if b.share.take(answerRoom) {
			result = s.runOne(ctx, caller, &b.commands[i])
		}
		// It is there twice when the whole answer is put together.
		if more := 2*len(result.text) - answerRoom; more > 0 && !isOurs(result) && !b.share.take(more) {
			result = untold
		}
		if !b.add(result) {
			return
		}
	}
}

// isOurs says whether an outcome is one of those that all share, which take nothing.
func isOurs(o outcome) bool {
	return &o.text[0] == &notRun.text[0] || &o.text[0] == &timedOut.text[0]
}

// runOne runs a command until it is answered or ctx ends.
func (s *Server) runOne(ctx context.Context, caller *Caller, c *command) outcome {
	client := newClient(caller, c)
	defer func() {
		client.gone.Store(true)
		s.deps.Node.Closed(client)
	}()
	client.receive(s.deps.Node)
	select {
	case <-client.done:
	case <-ctx.Done():
	}
	client.mu.Lock()
	defer client.mu.Unlock()
	if !client.ended {
		return timedOut
	}
	return client.result
}

// recovered, deferred, keeps a panic of a room from ending the process. The commands that
// have no answer then have timed out.
func (s *Server) recovered() {
	if p := recover(); p != nil {
		s.panics.Add(1)
		s.log.Error("panic while serving a request", "err", p, "stack", string(debug.Stack()))
	}
}

// begin says whether the next command may begin.
func (b *batch) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	b.begun++
	return true
}

// add adds the result of the command that was begun last, unless it is too late.
func (b *batch) add(r outcome) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	b.results = append(b.results, r)
	return true
}

// close ends the batch and returns an outcome for every command.
func (b *batch) close() []outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	for i := len(b.results); i < len(b.commands); i++ {
		r := notBegun
		if i < b.begun {
			r = timedOut
		}
		b.results = append(b.results, r)
	}
	return b.results
}

// result is the body of the answer to a batch (spec 04 §6).
func result(outcomes []outcome) []byte {
	size, succeeded := len(`{"result":"PARTIAL_SUCCESS","body":[]}`), 0
	for _, o := range outcomes {
		size += len(o.text) + 1
		if o.success {
			succeeded++
		}
	}
	word := "PARTIAL_SUCCESS"
	switch succeeded {
	case len(outcomes):
		word = "SUCCESS"
	case 0:
		word = "FAILURE"
	}
	b := append(append(make([]byte, 0, size), `{"result":"`...), word...)
	b = append(b, `","body":[`...)
	for i, o := range outcomes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, o.text...)
	}
	return append(b, `]}`...)
}
