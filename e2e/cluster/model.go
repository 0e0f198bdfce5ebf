//go:build linux

package main

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// kind is what a client asks of a record.
type kind uint8

const (
	read kind = iota
	head
	write // of the whole record
	patch // of the key p
	remove
)

func (k kind) String() string {
	return [...]string{"read", "head", "write", "patch", "delete"}[k]
}

// changes says whether the record may be another one afterwards.
func (k kind) changes() bool { return k >= write }

// outcome is how a question was answered.
type outcome uint8

const (
	// unknown is no answer, or an error: what was asked may have happened, may happen
	// later, or never.
	unknown outcome = iota
	// done is a read that was answered, or a change that was acknowledged.
	done
	// missing says that there is no record.
	missing
	// exists says that the version of a write is there already, and shows the record.
	exists
	// ahead says that the version of a write is not the next one, and which one there is.
	ahead
)

func (o outcome) String() string {
	return [...]string{"unknown", "done", "missing", "version exists", "version ahead"}[o]
}

// state is what a record is. The zero value is none. Every write has a value of its
// own, so a state names the writes that made it.
type state struct {
	version int32
	w, p    string
}

func (s state) String() string {
	if s.version == 0 {
		return "absent"
	}
	return fmt.Sprintf("%d:%s/%s", s.version, s.w, s.p)
}

// anyVersion in a write means "whatever comes next".
const anyVersion int32 = -1

// question is what a client asks.
type question struct {
	kind    kind
	name    string
	version int32 // of a write or patch
	value   string
	// plain has it put without leave to create the record, which with a write
	// acknowledgement is given all the same.
	plain bool
}

// answer is what it is told.
type answer struct {
	outcome outcome
	state   state // what was shown; of head and ahead the version only
}

// fits says whether a write would be accepted.
func (q question) fits(s state) bool { return q.version == anyVersion || q.version == s.version+1 }

// apply is the state that a change makes.
func (q question) apply(s state) state {
	switch q.kind {
	case write:
		return state{s.version + 1, q.value, q.value}
	case patch:
		return state{s.version + 1, s.w, q.value}
	default:
		return state{}
	}
}

// step says whether the answer is the one that a record in state s gives, and what it
// is then.
func step(s state, q question, a answer) (bool, state) {
	switch {
	case a.outcome == unknown && q.kind.changes():
		// It may be taken as late as one likes, so one that never happened is taken last.
		if q.kind == remove || q.fits(s) {
			return true, q.apply(s)
		}
		return true, s
	case a.outcome == unknown:
		return true, s
	case a.outcome == missing:
		return s.version == 0, s
	case q.kind == read:
		return s == a.state, s
	case q.kind == head:
		return s.version == a.state.version, s
	case q.kind == remove:
		return true, state{}
	case a.outcome == exists:
		return q.version != anyVersion && q.version <= s.version && s == a.state, s
	case a.outcome == ahead:
		return q.version > s.version+1 && s.version == a.state.version, s
	default:
		return q.fits(s), q.apply(s)
	}
}

// model is a record as porcupine sees it.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) {
		ok, next := step(s.(state), in.(question), out.(answer))
		return ok, next
	},
	DescribeOperation: func(in, out any) string {
		q, a := in.(question), out.(answer)
		text := q.kind.String()
		if q.kind == write || q.kind == patch {
			text += fmt.Sprintf(" %s as %d", q.value, q.version)
		}
		text += " → " + a.outcome.String()
		if a.outcome == exists || a.outcome == ahead || a.outcome == done && !q.kind.changes() {
			text += " " + a.state.String()
		}
		return text
	},
	DescribeState: func(s any) string { return s.(state).String() },
}
