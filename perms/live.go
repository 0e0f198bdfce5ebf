package perms

import (
	"context"
	"log/slog"
	"sync/atomic"

	"hadal/auth"
	"hadal/perms/expr"
	"hadal/protocol"
)

// Live holds the rules in force, judges by them, and counts what they decide. All
// methods may be called from anywhere.
type Live struct {
	rules   atomic.Pointer[Rules]
	reloads atomic.Uint64
	records Records
	log     *slog.Logger
	counts  [sectionCount][maxSlots][Allow + 1]counter

	coverage liveCoverage
	shadow   atomic.Pointer[shadow] // nil when off
}

// counter has a cache line of its own: connections on all processors count.
type counter struct {
	n atomic.Uint64
	_ [56]byte
}

// NewLive starts with r. records are what rules at the door refer to; nil has such
// rules fail. log hears at debug of what is refused, and by which rule; nil
// discards that.
func NewLive(r *Rules, records Records, log *slog.Logger) *Live {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Live{records: records, log: log}
	l.Reload(r)
	return l
}

// Load is the rules in force.
func (l *Live) Load() *Rules { return l.rules.Load() }

// Reload puts r in force: every question asked after its return is answered by
// r. New has to succeed first, so a bad file leaves the old rules in force.
func (l *Live) Reload(r *Rules) {
	l.replace(r)
	l.reloads.Add(1)
}

// Generation says how often rules were put in force. A question asked after the call
// is answered by the rules of that time or by younger ones: whoever remembers the
// generation beside an answer knows later whether it may be out of date.
func (l *Live) Generation() uint64 { return l.reloads.Load() }

// Door is Rules.Door of the rules in force. It reads the records that they refer to,
// so it may block, for some seconds at most: it is asked by the client's reader.
func (l *Live) Door(u *auth.User, t protocol.Topic, a protocol.Action, name, data string) Verdict {
	q := question{user: u, topic: t, name: name, data: data, records: l.records}
	rules, shadow := l.rules.Load(), l.shadow.Load()
	if shadow != nil {
		q.records = shadow.watch(&q)
	}
	v, by := rules.door(&q, a)
	if by.slot != noSlot && v != NeedRecord { // Judge will decide, and count, the latter
		l.decide(&q, v, by, demandOf(t, a).section)
	}
	if shadow != nil {
		shadow.door(&q, rules, a, v, by)
	}
	return v
}

// Judge is Rules.Judge of the rules in force. When wanted is not empty it decided
// nothing yet: the caller fetches those records, committed states of them, and asks
// again with all that it has fetched so far. known may be nil as long as nothing
// is. It does not block.
func (l *Live) Judge(u *auth.User, a protocol.Action, name, data, old string, exists bool, known Known) (refused protocol.Action, wanted []string) {
	if known == nil {
		known = unknown
	}
	q := question{user: u, topic: protocol.TopicRecord, name: name, data: data, old: old, exists: exists, known: known}
	rules := l.rules.Load()
	v, by := rules.judge(&q, a)
	if v == Pending {
		return 0, q.wanted
	}
	if shadow := l.shadow.Load(); shadow != nil {
		shadow.owner(&q, rules, a, v, by)
	}
	if by.slot != noSlot {
		l.decide(&q, v, by, secRecord)
	}
	return refusal(v), nil
}

func unknown(string) (data string, exists, known bool) { return "", false, false }

// ReadsRecord is Rules.ReadsRecord of the rules in force.
func (l *Live) ReadsRecord(a protocol.Action, name string) bool {
	return l.rules.Load().ReadsRecord(a, name)
}

// Steady is Rules.Steady of the rules in force.
func (l *Live) Steady(t protocol.Topic, a protocol.Action, name string) bool {
	return l.rules.Load().Steady(t, a, name)
}

// decide counts a decision, and logs a refusal.
func (l *Live) decide(q *question, v Verdict, by decided, id sectionID) {
	l.counts[id][by.slot][v].n.Add(1)
	if v == Allow || !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []any{"user", q.user.ID, "topic", q.topic, "name", q.name, "section", sectionNames[id], "rule", ruleNames[id][by.slot]}
	switch {
	case by.rule == nil:
		attrs = append(attrs, "why", "no path says so")
	default:
		attrs = append(attrs, "path", by.path)
	}
	switch {
	case q.failure != nil:
		attrs = append(attrs, "err", q.failure)
	case by.rule != nil && by.expr != nil && !by.expr.UsesReferences():
		attrs = append(attrs, "part", by.deciding(q))
	}
	l.log.Debug("message refused by a rule", attrs...)
}

// deciding is the part of a rule that made it say no, as it was written.
func (m match) deciding(q *question) string {
	env := new(expr.Env)
	m.fill(env, q)
	for _, step := range m.expr.Explain(env).Steps {
		if step.Decides {
			return step.Text
		}
	}
	return m.expr.Text()
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
