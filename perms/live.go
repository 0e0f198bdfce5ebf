package perms

import (
	"sync/atomic"

	"hadal/auth"
	"hadal/protocol"
)

// Live holds the rules in force and counts what they decide. All methods may
// be called from anywhere.
type Live struct {
	rules  atomic.Pointer[Rules]
	counts [sectionCount][maxSlots][Allow + 1]counter
}

// counter has a cache line of its own: connections on all processors count.
type counter struct {
	n atomic.Uint64
	_ [56]byte
}

// NewLive starts with r.
func NewLive(r *Rules) *Live {
	l := &Live{}
	l.Reload(r)
	return l
}

// Load is the rules in force.
func (l *Live) Load() *Rules { return l.rules.Load() }

// Reload puts r in force: every question asked after its return is answered by
// r. New has to succeed first, so a bad file leaves the old rules in force.
func (l *Live) Reload(r *Rules) { l.rules.Store(r) }

// Door is Rules.Door of the rules in force.
func (l *Live) Door(u *auth.User, t protocol.Topic, a protocol.Action, name, data string) Verdict {
	v, s := l.rules.Load().door(u, t, a, name, data)
	if s != noSlot && v != NeedRecord { // Judge will decide, and count, the latter
		l.counts[demandOf(t, a).section][s][v].n.Add(1)
	}
	return v
}

// Judge is Rules.Judge of the rules in force.
func (l *Live) Judge(u *auth.User, a protocol.Action, name, data, old string, exists bool) protocol.Action {
	v, s := l.rules.Load().judge(u, a, name, data, old, exists)
	if s != noSlot {
		l.counts[secRecord][s][v].n.Add(1)
	}
	return refusal(v)
}

// Decisions is how often rules of one type decided in one way since the start.
type Decisions struct {
	// Section is record, event, rpc or presence.
	Section string
	// Rule is the rule type, such as read.
	Rule string
	// Result is deny, fail or allow.
	Result string
	// Count never falls.
	Count uint64
}

// Stats counts the decisions of Door and Judge by section, rule type and
// result, for metrics. A message that needs several rules counts for the one
// that decided; messages that no rule guards are not counted, and those that
// are judged at the door and again at the owner count at both.
func (l *Live) Stats() []Decisions {
	var all []Decisions
	for id := range l.counts {
		for slot, rule := range ruleNames[id] {
			for v := range l.counts[id][slot] {
				all = append(all, Decisions{
					Section: sectionNames[id], Rule: rule, Result: Verdict(v).String(),
					Count: l.counts[id][slot][v].n.Load(),
				})
			}
		}
	}
	return all
}
