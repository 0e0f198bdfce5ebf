package clustertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// What happens in the record room.
const (
	// Requests is a request of Client for the record Name, with ID. Note says which:
	// Read, Head, Create (a subscription that creates), Write or Delete. A Write carries
	// the whole Data that the record shall have, which no other write has, and the Version
	// it shall get, or -1.
	Requests What = "requests"
	// Responds is the answer to request ID. Note says which: Value (Version and Data,
	// of a Head without Data), Missing, Acked, Exists (the write's version, and here are
	// those of the record), Ahead (the write's version; here is the record's), Gone (the
	// record is deleted), Nothing (an error, and the request has had no effect) or Unsure
	// (an error, and it may have had).
	Responds What = "responds"
	// Live is an update that Client gets of a record it is subscribed to. Data is the
	// whole record; Note is Patch when the update said only what changed.
	Live What = "live"
	// Follows says that Client is subscribed to Name from now on and was told Version
	// and Data; Unfollows that it is not any more.
	Follows   What = "follows"
	Unfollows What = "unfollows"
	// Truth is what the store has of the record Name at the end, when it is quiet. OK says
	// that it exists.
	Truth What = "truth"
)

// Kinds of requests and answers, in Event.Note.
const (
	Read   = "read"
	Head   = "head"
	Create = "create"
	Write  = "write"
	Delete = "delete"

	Value   = "value"
	Missing = "missing"
	Acked   = "acked"
	Exists  = "version exists"
	Ahead   = "version ahead"
	Gone    = "deleted"
	Nothing = "nothing done"
	Unsure  = "unsure"

	Patch = "patch"
)

// EmptyRecord is the data of a record that was created without.
const EmptyRecord = "{}"

// record is the state of one record in the model. It is over when the end of the
// history has been passed, and requests that had no effect are let go.
type record struct {
	exists  bool
	version int32
	data    string
	over    bool
}

// Requests of our own.
const (
	// end is the last one of a history.
	end = "end"
	// began is the first half of a Create whose answer got lost on the way to where it was
	// served, and which was served once more: the record was created, then read later.
	began = "began"
)

// exchange is a request and its answer.
type exchange struct{ request, response Event }

// step is the model: what a record becomes by an exchange, and whether that can be.
func step(s record, x exchange) (possible bool, next record) {
	q, a := x.request, x.response
	switch {
	case q.Note == end:
		s.over = true
		return true, s
	case q.Note == began && s.exists:
		return true, s
	case q.Note == began:
		return true, record{exists: true, data: EmptyRecord}
	}
	free := q.Version == -1 || q.Version == s.version+1
	shown := func(r record) bool {
		return a.Version == r.version && (a.Data == r.data || q.Note == Head)
	}
	switch a.Note {
	case Missing:
		return !s.exists, s
	case Value:
		if q.Note == Create && !s.exists {
			s = record{exists: true, data: EmptyRecord}
		}
		return s.exists && shown(s), s
	case Acked:
		return free, record{exists: true, version: s.version + 1, data: q.Data}
	case Exists:
		if !s.exists {
			s.data = EmptyRecord
		}
		return q.Version != -1 && q.Version <= s.version && shown(s), s
	case Ahead:
		return q.Version > s.version+1 && a.Version == s.version, s
	case Gone:
		return true, record{}
	}
	// Unsure. One that had no effect comes after the end: if it could come anywhere, all
	// the places for all of them would have to be tried.
	switch {
	case s.over:
		return true, s
	case q.Note == Write && free:
		return true, record{exists: true, version: s.version + 1, data: q.Data}
	case q.Note == Delete && s.exists:
		return true, record{}
	case q.Note == Create && !s.exists:
		return true, record{exists: true, data: EmptyRecord}
	}
	return false, s
}

// recordModel is the model as the checker wants it.
var recordModel = porcupine.Model{
	Init: func() any { return record{} },
	Step: func(state, input, _ any) (bool, any) { return step(state.(record), input.(exchange)) },
}

// ErrUndecided is the verdict when there is not enough time for one.
var ErrUndecided = errors.New("too much happened at once to decide in time")

// Linearizable verifies, for each record, that there is one order of all requests
// which explains all answers, and in which no request takes effect before it was made
// or after it was answered.
func Linearizable(events []Event, timeout time.Duration) (wrong []error) {
	answers := make(map[uint64]Event)
	shown := make(map[string]time.Duration) // when a client was first shown some data
	for _, e := range events {
		if _, seen := shown[e.Data]; !seen && (e.What == Responds || e.What == Live || e.What == Truth) {
			shown[e.Data] = e.At
		}
		if e.What == Responds {
			if _, twice := answers[e.ID]; twice {
				wrong = append(wrong, fmt.Errorf("answered twice: %v", e))
			}
			answers[e.ID] = e
		}
	}
	const never = int64(1) << 62
	history := make(map[string][]porcupine.Operation)
	clients := make(map[string]int)
	var names []string
	for _, e := range events {
		if e.What == Truth {
			a := Event{Note: Missing}
			if e.OK {
				a = Event{Note: Value, Version: e.Version, Data: e.Data}
			}
			history[e.Name] = append(history[e.Name], porcupine.Operation{
				Input: exchange{Event{Note: Read}, a}, Call: int64(e.At), Return: never - 2,
			})
		}
		if e.What != Requests {
			continue
		}
		a, answered := answers[e.ID]
		if !answered {
			a = Event{Note: Unsure}
		}
		effect := e.Note == Write || e.Note == Delete || e.Note == Create
		if a.Note == Nothing || a.Note == Unsure && !effect {
			continue
		}
		back := int64(a.At)
		if a.Note == Unsure {
			back = never
			if at, seen := shown[e.Data]; seen && e.Note == Write {
				back = max(int64(at), int64(e.At)) // it has happened by then
			}
		}
		if _, known := clients[e.Client]; !known {
			clients[e.Client] = len(clients)
		}
		if history[e.Name] == nil {
			names = append(names, e.Name)
		}
		if e.Note == Create && a.Note == Value {
			history[e.Name] = append(history[e.Name], porcupine.Operation{
				Input: exchange{request: Event{Note: began}}, Call: int64(e.At), Return: back,
			})
		}
		history[e.Name] = append(history[e.Name], porcupine.Operation{
			ClientId: clients[e.Client], Input: exchange{e, a}, Call: int64(e.At), Return: back,
		})
	}
	for _, name := range names {
		history[name] = append(history[name], porcupine.Operation{Input: exchange{request: Event{Note: end}}, Call: never - 1, Return: never})
		switch porcupine.CheckOperationsTimeout(recordModel, history[name], timeout) {
		case porcupine.Illegal:
			wrong = append(wrong, fmt.Errorf("no order of the requests for %s explains the answers", name))
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Errorf("record %s: %w", name, ErrUndecided))
		}
	}
	return wrong
}

// deleted are the names that somebody has asked to delete. Their versions begin anew.
func deleted(events []Event) map[string]bool {
	names := make(map[string]bool)
	for _, e := range events {
		if e.What == Requests && e.Note == Delete {
			names[e.Name] = true
		}
	}
	return names
}

// OneStateEachVersion verifies that whoever is shown a version of a record is shown
// the same data, that what is shown was written, and that an acknowledged write has
// the version it asked for to itself. Records that are deleted are left out, because
// their versions begin anew.
func OneStateEachVersion(events []Event) (wrong []error) {
	type place struct {
		name    string
		version int32
	}
	gone := deleted(events)
	request := make(map[uint64]Event)
	written := make(map[string]string) // data → name
	first := make(map[place]Event)
	is := func(name string, version int32, data string, e Event) {
		p := place{name, version}
		switch f, known := first[p]; {
		case !known:
			e.Version, e.Data = version, data
			first[p] = e
		case f.Data != data:
			wrong = append(wrong, fmt.Errorf("version %d of %s has %s here, and %s in %v: %v", version, name, data, f.Data, f, e))
		}
		if data != EmptyRecord && written[data] != name {
			wrong = append(wrong, fmt.Errorf("nobody had asked to write it: %v", e))
		}
	}
	for _, e := range events {
		if gone[e.Name] {
			continue
		}
		switch e.What {
		case Requests:
			request[e.ID] = e
			if e.Note == Write {
				written[e.Data] = e.Name
			}
		case Responds:
			q := request[e.ID]
			switch {
			case e.Note == Value && q.Note != Head:
				is(e.Name, e.Version, e.Data, e)
			case e.Note == Exists && e.Version > 0:
				is(e.Name, e.Version, e.Data, e)
			case e.Note == Acked && q.Version > 0:
				is(e.Name, q.Version, q.Data, e)
			}
		case Live, Follows:
			if e.Version >= 0 {
				is(e.Name, e.Version, e.Data, e)
			}
		case Truth:
			if e.OK {
				is(e.Name, e.Version, e.Data, e)
			}
		}
	}
	return wrong
}

// LiveUpdatesRunForward verifies what subscribers are shown: versions only rise (the
// whole state may be told once more when a node was not sure what its subscribers
// knew), a patch follows the version before it, and at the end, when it is quiet, each
// subscriber has been shown the newest state, but for one that wrote it.
func LiveUpdatesRunForward(events []Event) (wrong []error) {
	type pair struct{ client, name string }
	type seen struct {
		version int32
		data    string
	}
	gone := deleted(events)
	last := make(map[pair]seen)
	author := make(map[string]string) // of data
	own := make(map[pair]int32)       // the highest version that a client has asked for
	for _, e := range events {
		p := pair{e.Client, e.Name}
		switch e.What {
		case Requests:
			if e.Note == Write {
				author[e.Data] = e.Client
				own[p] = max(own[p], e.Version)
				if e.Version == -1 {
					own[p] = 1 << 30 // it may have been any
				}
			}
		case Follows:
			last[p] = seen{e.Version, e.Data}
		case Unfollows:
			delete(last, p)
		case Closed:
			for p := range last {
				if p.client == e.Client {
					delete(last, p)
				}
			}
		case Live:
			was, ok := last[p]
			switch {
			case !ok:
				wrong = append(wrong, fmt.Errorf("it is not subscribed: %v", e))
			case !gone[e.Name] && (e.Version < was.version || e.Version == was.version && (e.Data != was.data || e.Note == Patch)):
				wrong = append(wrong, fmt.Errorf("after version %d: %v", was.version, e))
			case !gone[e.Name] && e.Note == Patch && e.Version != was.version+1 && own[p] <= was.version:
				wrong = append(wrong, fmt.Errorf("a patch that follows version %d: %v", was.version, e))
			}
			last[p] = seen{e.Version, e.Data}
		case Truth:
			for p, was := range last {
				if p.name != e.Name || author[e.Data] == p.client {
					continue
				}
				now := seen{e.Version, e.Data}
				if !e.OK {
					now = seen{-1, EmptyRecord}
				}
				if was != now && (e.OK || was.version != -1) {
					wrong = append(wrong, fmt.Errorf("%s was shown version %d with %s last: %v", p.client, was.version, was.data, e))
				}
			}
		}
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return wrong
}
