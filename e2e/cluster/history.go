//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// history is what all clients of a trial asked and were told, by record. It may be
// used from anywhere.
type history struct {
	began time.Time

	mu      sync.Mutex
	records map[string][]porcupine.Operation // guarded by mu
	states  map[string]map[int32]state       // guarded by mu: what each version was, where nothing is deleted
	acked   map[string]map[int32]string      // guarded by mu: which write was acknowledged under a version, likewise
	newest  map[string]int32                 // guarded by mu: the highest version acknowledged or shown, likewise
	counts  map[outcome]int                  // guarded by mu
	wrong   []string                         // guarded by mu
	clients int                              // guarded by mu
	broken  chan struct{}                    // closed with the first promise that is
}

func newHistory() *history {
	return &history{
		began: time.Now(), records: map[string][]porcupine.Operation{}, states: map[string]map[int32]state{},
		acked: map[string]map[int32]string{}, newest: map[string]int32{}, counts: map[outcome]int{}, broken: make(chan struct{}),
	}
}

// now is the time in a history: nanoseconds since it began.
func (h *history) now() int64 { return int64(time.Since(h.began)) }

// client is the number of a new client. One whose question has no answer goes on under
// another number, as the question is still under way.
func (h *history) client() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients++
	return h.clients
}

// complain notes that a promise is broken.
func (h *history) complain(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.complainLocked(format, args...)
}

func (h *history) complainLocked(format string, args ...any) {
	if len(h.wrong) == 0 {
		close(h.broken)
	}
	h.wrong = append(h.wrong, fmt.Sprintf("%.3fs ", time.Since(h.began).Seconds())+fmt.Sprintf(format, args...))
}

// add takes a question and its answer. A read without an answer says nothing.
func (h *history) add(client int, q question, called int64, a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[a.outcome]++
	if a.outcome == unknown && !q.kind.changes() {
		return
	}
	op := porcupine.Operation{ClientId: client, Input: q, Call: called, Output: a, Return: h.now()}
	if a.outcome == unknown {
		op.Return = math.MaxInt64
	}
	h.records[q.name] = append(h.records[q.name], op)
	if mortal(q.name) {
		return
	}
	switch {
	case a.outcome == done && q.kind.changes() && q.version != anyVersion:
		h.ackLocked(q)
	case a.outcome == exists, a.outcome == done && q.kind == read:
		h.seeLocked(q.name, a.state)
	}
}

// ackLocked takes an acknowledged write of a record that is never deleted.
func (h *history) ackLocked(q question) {
	if h.acked[q.name] == nil {
		h.acked[q.name] = map[int32]string{}
	}
	if other, ok := h.acked[q.name][q.version]; ok {
		h.complainLocked("%s: version %d was accepted twice, from %s and from %s", q.name, q.version, other, q.value)
	}
	h.acked[q.name][q.version] = q.value
	h.newest[q.name] = max(h.newest[q.name], q.version)
	if s, ok := h.states[q.name][q.version]; ok && s.p != q.value {
		h.complainLocked("%s: version %d was shown as %v and acknowledged to %s", q.name, q.version, s, q.value)
	}
}

// see takes a state that somebody was shown of a record that is never deleted. Both
// kinds of writes set p, so it names the write.
func (h *history) see(name string, s state) {
	if mortal(name) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seeLocked(name, s)
}

func (h *history) seeLocked(name string, s state) {
	if h.states[name] == nil {
		h.states[name] = map[int32]state{}
	}
	if other, ok := h.states[name][s.version]; ok && other != s {
		h.complainLocked("%s: version %d was shown as %v and as %v", name, s.version, other, s)
	}
	h.states[name][s.version] = s
	if value, ok := h.acked[name][s.version]; ok && value != s.p {
		h.complainLocked("%s: version %d was acknowledged to %s and shown as %v", name, s.version, value, s)
	}
	h.newest[name] = max(h.newest[name], s.version)
}

// settle compares what is left of a record at the end with what was acknowledged.
func (h *history) settle(name string, s state) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if newest := h.newest[name]; !mortal(name) && s.version < newest {
		h.complainLocked("%s: version %d was acknowledged or shown, and the record ended as %v", name, newest, s)
	}
}

// decideIn is how long the history of one record may take to be checked.
const decideIn = 2 * time.Minute

// check says what is wrong with the whole history, and writes a page for each record
// that is not linearizable, the first few, into dir. slowest is how long the slowest
// check took.
func (h *history) check(dir string) (wrong []string, slowest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wrong = slices.Clone(h.wrong)
	pages := 0
	for _, name := range slices.Sorted(maps.Keys(h.records)) {
		began := time.Now()
		result, info := porcupine.CheckOperationsVerbose(model, closed(h.records[name]), decideIn)
		slowest = max(slowest, time.Since(began))
		switch result {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("%s: %d operations could not be checked in %v", name, len(h.records[name]), decideIn))
		default:
			wrong = append(wrong, fmt.Sprintf("%s: its %d operations are not linearizable", name, len(h.records[name])))
		}
		if pages++; pages > 5 {
			continue
		}
		page := filepath.Join(dir, fmt.Sprintf("record-%d.html", pages))
		if err := porcupine.VisualizePath(model, info, page); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: no page of it: %v", name, err))
		} else {
			wrong[len(wrong)-1] += ", see " + page
		}
	}
	return wrong, slowest
}

// closed has what is still under way end after everything else.
func closed(ops []porcupine.Operation) []porcupine.Operation {
	end := int64(0)
	for _, op := range ops {
		if op.Return != math.MaxInt64 {
			end = max(end, op.Return)
		}
		end = max(end, op.Call)
	}
	ops = slices.Clone(ops)
	for i := range ops {
		if ops[i].Return == math.MaxInt64 {
			ops[i].Return = end + 1
		}
	}
	return ops
}

// total is how many questions were asked, and how many got which answer.
func (h *history) total() (asked, acknowledged, lost, records int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.counts {
		asked += n
	}
	for _, m := range h.acked {
		acknowledged += len(m)
	}
	return asked, acknowledged, h.counts[unknown], len(h.records)
}
