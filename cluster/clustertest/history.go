package clustertest

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// What says what kind of thing happened.
type What string

// Event is one thing that happened, as those who saw it tell. Which fields mean
// something depends on What; the verifiers say which.
type Event struct {
	At      time.Duration // since the network began
	What    What
	Node    string // where, by Node.Name
	Client  string // which connection of which client
	Name    string // of a record, an event, a call, a user; of a peer
	ID      uint64 // of an operation or a call, unique in the history; the number of an event
	Version int32
	Data    string
	OK      bool
	Note    string
}

// What happens to the cluster.
const (
	Fault    What = "fault"    // Note says what was done to Node
	Decision What = "table"    // of the arbiter
	Lost     What = "lost"     // the arbiter counts the machine Node as dead
	Linked   What = "linked"   // Node has a link to the node Name
	Unlinked What = "unlinked" // and lost it
	Quiet    What = "quiet"    // faults have ended, and what they did is over
)

// machineOf is the machine of a node, which events name by either.
func machineOf(node string) string {
	machine, _, _ := strings.Cut(node, ".")
	return machine
}

// String is the event on one line.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%12.6fs %-10s", e.At.Seconds(), e.What)
	for _, part := range []string{e.Node, e.Client, e.Name} {
		if part != "" {
			b.WriteString(" " + part)
		}
	}
	if e.ID != 0 {
		fmt.Fprintf(&b, " #%d", e.ID)
	}
	if e.Version != 0 || e.Data != "" {
		fmt.Fprintf(&b, " v%d %s", e.Version, e.Data)
	}
	if e.OK {
		b.WriteString(" ok")
	}
	if e.Note != "" {
		b.WriteString(" (" + e.Note + ")")
	}
	return b.String()
}

// History is what happened, in the order in which it did. Its methods may be called
// from anywhere.
type History struct {
	began time.Time

	mu     sync.Mutex
	events []Event // guarded by mu
	ids    uint64  // guarded by mu
}

// Note adds an event that happens now.
func (h *History) Note(e Event) { h.note(e) }

func (h *History) note(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.At = time.Since(h.began)
	h.events = append(h.events, e)
}

// NewID is a number that no event of the history has yet.
func (h *History) NewID() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids++
	return h.ids
}

// Events are all so far. The slice is the caller's.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Event(nil), h.events...)
}

// Tail is the end of a history as text: the last n events that keep keeps, or all
// kinds when it is nil.
func Tail(events []Event, n int, keep func(Event) bool) string {
	var lines []string
	for i := len(events) - 1; i >= 0 && len(lines) < n; i-- {
		if keep == nil || keep(events[i]) {
			lines = append(lines, events[i].String())
		}
	}
	var b strings.Builder
	for i := len(lines) - 1; i >= 0; i-- {
		b.WriteString(lines[i] + "\n")
	}
	return b.String()
}
