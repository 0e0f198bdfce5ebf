//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/gjson"

	"hadal/protocol"
)

// watcher is a client that is subscribed to all records of a trial. What it is shown must
// never run backwards, have no holes, and end at the newest state.
type watcher struct {
	*load
	number int
	prefer int
	shown  atomic.Int64

	mu    sync.Mutex
	views map[string]*view // guarded by mu
}

// view is a record as a watcher sees it.
type view struct {
	state      state
	subscribed bool // on the present connection, and answered
}

func newWatcher(l *load, number int) *watcher {
	return &watcher{load: l, number: number, prefer: number, views: map[string]*view{}}
}

// silence is how long a watcher waits for the answer to a ping before it goes to
// another node.
const silence = 8 * time.Second

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		n := w.rig.nodes[w.prefer%len(w.rig.nodes)]
		s, err := dial(ctx, n, fmt.Sprintf("watcher%d", w.number))
		if err == nil {
			w.logins.Add(1)
			err = w.watch(ctx, s)
			s.close()
			if ctx.Err() != nil {
				return
			}
			w.reconnects.Add(1)
			if broken := (violation)(""); errors.As(err, &broken) {
				w.history.complain("watcher %d at node %s: %v", w.number, n.name, err)
			}
		}
		w.prefer++
		wait(ctx, 50*time.Millisecond)
	}
}

// violation is an error of what is checked, and not of the check.
type violation string

// Error implements error.
func (v violation) Error() string { return string(v) }

// watch is one connection.
func (w *watcher) watch(ctx context.Context, s *session) error {
	w.mu.Lock()
	for _, v := range w.views {
		v.subscribed = false
	}
	w.mu.Unlock()
	again := make(chan string, 1024)
	var writing sync.WaitGroup
	defer writing.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	writing.Go(func() {
		w.subscribe(ctx, s, again)
		s.close() // wakes the reader
	})
	for {
		if err := s.conn.SetDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		m, err := s.conn.Hear()
		if err != nil {
			return err
		}
		if m.Topic != protocol.TopicRecord {
			continue
		}
		name, err := w.hear(m)
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		select {
		case again <- name:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// subscribe subscribes to all records, to new ones as they come, and anew to those that
// were deleted; and pings. It writes, and its caller reads.
func (w *watcher) subscribe(ctx context.Context, s *session, again <-chan string) {
	known := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		var names []string
		for _, r := range w.names.since(known) {
			names = append(names, r.name)
			known++
		}
		for more := true; more; {
			select {
			case name := <-again:
				names = append(names, name)
			default:
				more = false
			}
		}
		if len(names) > 0 {
			s.conn.Queue(&protocol.Message{
				Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeAndRead, Names: names,
				CorrelationID: "1", Has: protocol.HasCorrelationID,
			})
		}
		if i%20 == 0 {
			s.conn.Queue(&protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing})
		}
		if err := s.conn.Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hear takes a message about a record, and returns a name that must be subscribed anew.
func (w *watcher) hear(m *protocol.Message) (again string, err error) {
	if m.IsAck || m.Name == "" {
		return "", nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := string([]byte(m.Name)) // the message goes with the next one
	v := w.views[name]
	if v == nil {
		v = &view{}
		w.views[name] = v
	}
	was := v.state
	switch m.Action {
	case protocol.RecordReadResponse:
		v.state, v.subscribed = stateOf(m), true
		if !mortal(name) && v.state.version < was.version {
			return "", violation(fmt.Sprintf("%s: subscribed anew it is %v, after %v", name, v.state, was))
		}
	case protocol.RecordUpdate:
		// A new owner shows again what it cannot know to be known, and may show a record
		// that was deleted and made anew without a word of the deletion.
		v.state = stateOf(m)
		if !v.subscribed || v.state.version <= was.version && v.state != was && !mortal(name) {
			return "", violation(fmt.Sprintf("%s: shown %v after %v", name, v.state, was))
		}
	case protocol.RecordPatch:
		v.state = state{m.Version, was.w, string([]byte(gjson.Parse(m.Data).String()))}
		if !v.subscribed || m.Version != was.version+1 {
			return "", violation(fmt.Sprintf("%s: shown a patch to %d after %v", name, m.Version, was))
		}
	case protocol.RecordDeleted:
		v.state, v.subscribed = state{}, false
		if !mortal(name) {
			return "", violation(fmt.Sprintf("%s: shown a deletion, and nobody deletes it", name))
		}
		return name, nil
	case protocol.RecordSubscriptionHasProvider, protocol.RecordSubscriptionHasNoProvider:
		return "", nil
	default:
		// Refused: a node without a quorum does that.
		w.errors.Add(1)
		if w.strict {
			return "", violation(fmt.Sprintf("%s: heard %s", name, m.Action.Name(m.Topic)))
		}
		return name, nil
	}
	w.shown.Add(1)
	if v.state.version > 0 {
		w.history.see(name, v.state)
	}
	return "", nil
}

// differ is what the watcher sees otherwise than it is.
func (w *watcher) differ(is map[string]state) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var wrong []string
	for name, s := range is {
		switch v := w.views[name]; {
		case v == nil || !v.subscribed:
			wrong = append(wrong, fmt.Sprintf("%s: watcher %d is not subscribed, it is %v", name, w.number, s))
		case v.state != s:
			wrong = append(wrong, fmt.Sprintf("%s: watcher %d was last shown %v, it is %v", name, w.number, v.state, s))
		}
	}
	return wrong
}
