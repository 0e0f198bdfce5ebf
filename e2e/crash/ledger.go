//go:build linux

package main

import (
	"fmt"
	"slices"
)

// writers is how many clients write at once.
const writers = 64

// secondOwner is the first writer of the second owner, in the check of the fence.
const secondOwner = writers

// fate is what a write or a deletion would make of its record.
type fate struct {
	name    uint16
	version int32 // 0 when the record is gone
	hash    uint64
}

// gone is the state of a record that does not exist.
func (f fate) gone() bool { return f.version == 0 }

func (f fate) String() string {
	if f.gone() {
		return "absent"
	}
	return fmt.Sprintf("version %d (data %08x)", f.version, uint32(f.hash))
}

// ledger is what is known of the records from outside. It follows the events of
// one victim after the other, and holds against each of them what was told
// before:
//
//   - What was acknowledged, read or shown is the state of the record, and the
//     next one follows it: the next version, or version 1 after a deletion. Nothing
//     else is ever read or shown.
//   - A scan after a restart finds that state, or what a write made of it whose
//     answer had not come when the victim died.
type ledger struct {
	states   [allNames]fate
	doubtful [allNames][]fate   // of unknown outcome, since the last scan
	flying   [2 * writers]*fate // sent by each writer and not answered
	seen     [allNames]bool     // in the scan under way
	deposed  bool               // writers below secondOwner belong to an owner that was replaced
	left     [allNames]fate     // the states that it left behind
	facts
	errs []string // what is wrong, the first few
}

// facts are what a ledger counts.
type facts struct {
	acked, refused, reads, broadcasts int
	// survivors are writes that were found although nobody had been told.
	survivors  int
	lost, gaps int
}

func newLedger() *ledger {
	l := &ledger{}
	for n := range l.states {
		l.states[n].name = uint16(n)
	}
	return l
}

// maxErrs is how many complaints are worth reading.
const maxErrs = 5

func (l *ledger) complain(n uint16, format string, args ...any) {
	if len(l.errs) < maxErrs {
		l.errs = append(l.errs, nameOf(n)+": "+fmt.Sprintf(format, args...))
	}
}

// lose notes that something told before is not there, gap that something was told
// which cannot follow what was told before.
func (l *ledger) lose(n uint16, format string, args ...any) { l.lost++; l.complain(n, format, args...) }
func (l *ledger) gap(n uint16, format string, args ...any)  { l.gaps++; l.complain(n, format, args...) }

// died notes that the victim is gone: what it had not answered may have happened.
func (l *ledger) died() {
	for who, f := range l.flying {
		if f != nil {
			l.doubtful[f.name] = append(l.doubtful[f.name], *f)
			l.flying[who] = nil
		}
	}
	l.deposed = false
}

// take follows one event.
func (l *ledger) take(e event) {
	if e.name >= allNames || e.who >= 2*writers {
		l.gap(0, "an event that makes no sense: %+v", e)
		return
	}
	f := fate{e.name, e.version, e.hash}
	if l.deposed && e.who < secondOwner {
		l.takeOld(e)
		return
	}
	switch e.kind {
	case sentWrite, sentDelete:
		l.flying[e.who] = &f
	case wrote, deleted:
		l.acked++
		if sent := l.land(e); sent != nil && *sent != f {
			l.gap(e.name, "%v was acknowledged to the writer of %v", f, *sent)
		}
		l.follow(f)
	case shown, shownGone:
		l.broadcasts++
		if !l.isFlying(f) {
			l.gap(e.name, "a subscriber was shown %v, which nobody is writing", f)
		}
		l.follow(f)
	case conflict:
		sent := l.land(e)
		if sent != nil && sent.version > f.version {
			l.gap(e.name, "the writer of %v was told that there is %v", *sent, f)
		}
		l.reveal(f)
	case tooFar:
		if now := l.states[e.name].version; l.land(e) != nil && now != f.version {
			l.gap(e.name, "a writer was told that there is version %d, after %v", f.version, l.states[e.name])
		}
	case failed:
		l.refused++
		if sent := l.land(e); sent != nil {
			l.doubtful[sent.name] = append(l.doubtful[sent.name], *sent)
		}
	case read, missing:
		l.reads++
		l.reveal(f)
	case scanBegins:
		clear(l.seen[:])
	case found:
		if l.seen[e.name] {
			l.gap(e.name, "it was found twice in one scan")
		}
		l.seen[e.name] = true
		l.find(f)
	case scanEnds:
		for n := range l.seen {
			if !l.seen[n] {
				l.find(fate{name: uint16(n)})
			}
		}
	case takeover:
		l.deposed, l.left = true, l.states
	}
}

// takeOld follows an event of an owner that was replaced. What it has in memory
// may be old, and it goes by that in what it reads, and deletes a record once more
// that was gone when it was replaced. Nothing else may succeed, and what it refuses
// must not happen: it is not in doubt.
func (l *ledger) takeOld(e event) {
	f := fate{e.name, e.version, e.hash}
	switch e.kind {
	case sentWrite, sentDelete:
		l.flying[e.who] = &f
	case wrote, deleted, shown, shownGone:
		if e.kind == wrote || e.kind == deleted {
			l.land(e)
		}
		if f.gone() && l.left[e.name].gone() {
			return
		}
		l.gap(e.name, "%v was acknowledged or shown by an owner that had been replaced, and left %v", f, l.left[e.name])
		l.follow(f)
	case failed:
		l.refused++
		l.land(e)
	case conflict, tooFar:
		l.land(e)
	}
}

// land is what the writer of e had sent, which is answered now.
func (l *ledger) land(e event) *fate {
	f := l.flying[e.who]
	l.flying[e.who] = nil
	if f == nil && e.kind != failed { // reads may fail too
		l.gap(e.name, "writer %d was answered without having asked", e.who)
	}
	return f
}

func (l *ledger) isFlying(f fate) bool {
	return slices.ContainsFunc(l.flying[:], func(sent *fate) bool { return sent != nil && *sent == f })
}

// follow takes f as the state that comes next. The same write is told up to twice,
// to a subscriber and to its writer.
func (l *ledger) follow(f fate) {
	now := l.states[f.name]
	if f != now && !f.gone() && f.version != now.version+1 {
		l.gap(f.name, "%v came after %v", f, now)
	}
	l.states[f.name] = f
}

// reveal holds a state that somebody was told against the one that is known.
func (l *ledger) reveal(f fate) {
	if now := l.states[f.name]; f != now {
		l.gap(f.name, "somebody was told %v, after %v", f, now)
		l.states[f.name] = f
	}
}

// find holds what a new owner has found against what is known. From here on the
// record is no longer in doubt.
func (l *ledger) find(f fate) {
	now, doubtful := l.states[f.name], l.doubtful[f.name]
	l.states[f.name], l.doubtful[f.name] = f, nil
	if f == now {
		return
	}
	// A deletion of unknown outcome may have come before a write of unknown outcome.
	maybeGone := slices.ContainsFunc(doubtful, fate.gone)
	switch {
	case slices.Contains(doubtful, f) && (f.gone() || f.version == now.version+1 || maybeGone && f.version == 1):
		l.survivors++
	case f.gone():
		l.lose(f.name, "it is gone; acknowledged was %v", now)
	case now.gone():
		l.lose(f.name, "it is there again, %v; its deletion was acknowledged", f)
	case f.version < now.version:
		l.lose(f.name, "found %v; acknowledged was %v", f, now)
	default:
		l.lose(f.name, "found %v, which nobody wrote after %v", f, now)
	}
}

// err is nil when everything told so far fits together.
func (l *ledger) err() error {
	if l.lost+l.gaps == 0 {
		return nil
	}
	text := fmt.Sprintf("%s lost, %s gaps:", count(l.lost), count(l.gaps))
	for _, e := range l.errs {
		text += "\n    " + e
	}
	if more := l.lost + l.gaps - len(l.errs); more > 0 {
		text += fmt.Sprintf("\n    and %s more", count(more))
	}
	return violation(text)
}

// violation is an error of what is checked, and not of the check.
type violation string

// Error implements error.
func (v violation) Error() string { return string(v) }

// count writes a number with its thousands apart.
func count(n int) string {
	digits := fmt.Sprint(n)
	var b []byte
	for i := range len(digits) {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b = append(b, ' ')
		}
		b = append(b, digits[i])
	}
	return string(b)
}
