//go:build linux

package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// lanes is how many records are written at a time. Each is replaced by a new one after
// a while: the time that it takes to check a history grows fast with its length.
const lanes = 8

const (
	// opsOf is after how many questions a record is replaced.
	opsOf = 250
	// doubtsOf is after how many changes of unknown outcome it is, if that comes first: each
	// may have happened at any time since, so the time to check doubles with every one.
	doubtsOf = 4
)

// names are the records of a trial. It may be used from anywhere.
type names struct {
	mu   sync.Mutex
	lane [lanes]*record // guarded by mu
	all  []*record      // guarded by mu
}

// record is one as the writers see it.
type record struct {
	name string
	// version is what the writers believe that it has; they all go by it, so they
	// compete.
	version atomic.Int32
	doubts  atomic.Int32 // changes of which nobody knows whether they were made
	asked   int          // guarded by names.mu
}

// mortal says whether a record may be deleted, so that its versions begin anew.
func mortal(name string) bool { return strings.HasPrefix(name, "mortal/") }

func newNames() *names {
	n := &names{}
	for i := range n.lane {
		n.renewLocked(i)
	}
	return n
}

func (n *names) renewLocked(lane int) {
	kind := "lasting"
	if lane%2 == 1 {
		kind = "mortal"
	}
	n.lane[lane] = &record{name: fmt.Sprintf("%s/%d/%d", kind, lane, len(n.all))}
	n.all = append(n.all, n.lane[lane])
}

// next is the record of a lane, for one question.
func (n *names) next(lane int) *record {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.lane[lane]
	if t.asked++; t.asked >= opsOf || t.doubts.Load() >= doubtsOf {
		n.renewLocked(lane)
	}
	return t
}

// since are all records but the first so many.
func (n *names) since(first int) []*record {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*record(nil), n.all[first:]...)
}
