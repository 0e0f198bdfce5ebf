// Package perms answers whether a user may. Rules stand in a file by section,
// path and rule type (spec 07): `record: {"users/$id": {write: true}}`.
//
// # Two places
//
// A rule that reads no record is judged at the door (Rules.Door), by the node
// that the client is connected to, before the message goes anywhere. A rule
// that reads the record it guards is judged where the record is owned
// (Rules.Judge), on the very state the message would change, so that nothing
// can happen between the check and the change. Door says NeedRecord for those.
// Both are the same rules and may be asked in any number at once; neither
// writes. A rule is a constant or an expression (package expr).
//
// # References
//
// A rule may read other records, _('name'). At the door they are read at once, in
// parallel, and the client's reader waits for them. The owner may not wait, so
// Judge says which records it lacks; the owner fetches them beside, holds back that
// one record's requests meanwhile, and asks again.
//
// # Choosing the rule
//
// Of the paths that match a name and define the needed rule type, the one with
// the longest text decides (spec 07 §2). All of a name's rules are found in one
// search of an index by literal prefix, and remembered in a table of fixed size
// in which names displace one another, so that neither many paths nor many
// names make the door slow or its memory grow.
//
// # What no rule can allow
//
// Names under hadal/ belong to the server: whatever would write, create,
// delete, publish, provide, listen to or notify them is denied; calls to them no
// rule is asked about, because the server answers them, nor about subscriptions to
// hadal/auth/expiring, which it sends to the very client it concerns. Denied is every
// action, too, that the protocol does not know or that only servers send.
package perms

import (
	"sync/atomic"

	"hadal/auth"
	"hadal/perms/expr"
	"hadal/protocol"
)

// Verdict is what the rules say at the door. The zero value denies.
type Verdict uint8

// The verdicts.
const (
	// Deny: a rule says no, or none is found.
	Deny Verdict = iota
	// Fail: a rule could not be judged, which denies too.
	Fail
	// Allow: go on; no rule needs to see the record.
	Allow
	// NeedRecord: the record's owner has to ask Judge.
	NeedRecord
	// Pending: the owner has to fetch records that the rule refers to, and ask again.
	Pending
)

// String is the verdict in lower case, for logs.
func (v Verdict) String() string {
	switch v {
	case Deny:
		return "deny"
	case Fail:
		return "fail"
	case Allow:
		return "allow"
	case NeedRecord:
		return "need record"
	case Pending:
		return "pending"
	}
	return "unknown"
}

// and is the verdict where both a and b have a say: Deny beats Fail beats Pending
// beats NeedRecord beats Allow.
func (v Verdict) and(w Verdict) Verdict {
	switch {
	case v == Deny || w == Deny:
		return Deny
	case v == Fail || w == Fail:
		return Fail
	case v == Pending || w == Pending:
		return Pending
	case v == NeedRecord || w == NeedRecord:
		return NeedRecord
	}
	return Allow
}

// Rules are one set of compiled rules. They never change, but for what counts
// them; a reload makes others (see Live). All methods may be called from anywhere.
type Rules struct {
	// open says that everything is allowed that rules could deny.
	open     bool
	sections [sectionCount]*section // nil when open
	// limit is maxRuleIterations.
	limit int
	// covered is what the configuration says of coverage; coverage counts, if it is
	// there.
	covered  bool
	coverage atomic.Pointer[Coverage]
}

// rule is one compiled rule.
type rule struct {
	// allow is what a constant rule says; expr is the rule otherwise.
	allow bool
	expr  *expr.Rule
	// needsRecord says that the rule reads the record it guards, and so can be
	// judged only at its owner.
	needsRecord bool

	section sectionID
	slot    slot
	path    string
	text    string // as in the file
	// branches are the parts that coverage counts, and counters is where in a
	// Coverage it does.
	branches []expr.Branch
	counters int
}

// Door judges a message before it is handed to its room (spec 07 §3): user u
// wants to do a to name with data, the JSON text of the message or empty. For
// a message with several names it is asked for each. Actions that no rule
// guards are allowed; those that clients may not send are denied. A message
// whose verdict is NeedRecord goes on to the record's owner, who asks Judge.
//
// The caller passes the action that will be executed, so a record UPDATE with
// a path is asked as PATCH (spec 07 §8). Rules that refer to records fail here:
// Live.Door has them.
func (r *Rules) Door(u *auth.User, t protocol.Topic, a protocol.Action, name, data string) Verdict {
	v, _ := r.door(&question{user: u, topic: t, name: name, data: data}, a)
	return v
}

// door is Door, and says which rule decided, or a match with noSlot.
func (r *Rules) door(q *question, a protocol.Action) (Verdict, decided) {
	d := demandOf(q.topic, a)
	switch d.how {
	case never, ownerOnly:
		return Deny, decided{slot: noSlot}
	case free:
		return Allow, decided{slot: noSlot}
	case nameless:
		q.name = "undefined" // what the peer matches then (spec 07 §3)
	}
	taken := d.claims && reserved(q.name)
	if taken && d.how != readOrCreate {
		return Deny, decided{slot: d.first}
	}
	if d.calls && reserved(q.name) {
		return Allow, decided{slot: noSlot} // the server answers, or says that nobody does
	}
	if d.hears && q.name == protocol.EventExpiring {
		return Allow, decided{slot: noSlot}
	}
	if r.open {
		if taken {
			return NeedRecord, decided{slot: d.first} // to be read if it exists, but not created
		}
		return Allow, decided{slot: d.first}
	}
	q.coverage = r.coverage.Load()
	found := r.sections[d.section].find(q.name)
	if d.section == secRecord {
		q.data = "" // what a record becomes its owner knows
	}
	q.action = d.firstAs(a)
	first := found.rules[d.first].atDoor(q, r.limit)
	switch d.how {
	case both:
		q.action = d.secondAs(a)
		second := found.rules[d.second].atDoor(q, r.limit)
		if v := first.and(second); v != first {
			return v, decided{d.second, found.rules[d.second]}
		}
	case readOrCreate:
		// Create is asked only for a record that does not exist, which only its
		// owner knows; so it decides here only if it does not matter.
		q.action = d.secondAs(a)
		if first == Allow && (taken || found.rules[d.second].atDoor(q, r.limit) != Allow) {
			return NeedRecord, decided{d.first, found.rules[d.first]}
		}
	}
	return first, decided{d.first, found.rules[d.first]}
}

// decided is the rule that a verdict came from. Its rule is nil where none was
// found, or none was asked.
type decided struct {
	slot slot
	match
}

// Judge judges an action on a record at its owner: data is what the record
// would become, or empty for an action that changes nothing; old is its
// content, if it exists. It returns 0 when the user may, and else the refusing
// action, MESSAGE_DENIED or MESSAGE_PERMISSION_ERROR. It must not be asked by
// the server on its own behalf: names under hadal/ are refused here too. Rules that
// refer to records fail here: Live.Judge has them.
func (r *Rules) Judge(u *auth.User, a protocol.Action, name, data, old string, exists bool) protocol.Action {
	v, _ := r.judge(&question{user: u, topic: protocol.TopicRecord, name: name, data: data, old: old, exists: exists}, a)
	return refusal(v)
}

// judge is Judge, and says which rule decided, or a match with noSlot.
func (r *Rules) judge(q *question, a protocol.Action) (Verdict, decided) {
	d := demandOf(protocol.TopicRecord, a)
	switch d.how {
	case never:
		return Deny, decided{slot: noSlot}
	case free:
		return Allow, decided{slot: noSlot}
	}
	if d.claims && reserved(q.name) && !(d.how == readOrCreate && q.exists) {
		return Deny, decided{slot: d.first}
	}
	if r.open {
		return Allow, decided{slot: d.first}
	}
	q.coverage = r.coverage.Load()
	found := r.sections[d.section].find(q.name)
	q.action = d.firstAs(a)
	first := found.rules[d.first].judge(q, r.limit)
	if d.how == both || d.how == readOrCreate && !q.exists {
		q.action = d.secondAs(a)
		second := found.rules[d.second].judge(q, r.limit)
		if v := first.and(second); v != first {
			return v, decided{d.second, found.rules[d.second]}
		}
	}
	return first, decided{d.first, found.rules[d.first]}
}

// ReadsRecord says whether the rule for an action on a record reads that record, or
// others while which its requests are held back, so that who judges it must have it.
func (r *Rules) ReadsRecord(a protocol.Action, name string) bool {
	d := demandOf(protocol.TopicRecord, a)
	if r.open || d.how == never || d.how == free {
		return false
	}
	rule := r.sections[d.section].find(name).rules[d.first].rule
	return rule != nil && (rule.needsRecord || rule.expr != nil && rule.expr.UsesReferences())
}

// Steady says whether the rule for an action decides by the user and the name alone, so
// that its answer holds as long as these and the rules stay: it reads no record and asks
// for no time.
func (r *Rules) Steady(t protocol.Topic, a protocol.Action, name string) bool {
	d := demandOf(t, a)
	if r.open || d.how == never || d.how == free {
		return true
	}
	rule := r.sections[d.section].find(name).rules[d.first].rule
	return rule == nil || !rule.needsRecord && (rule.expr == nil || !rule.expr.UsesReferences() && !rule.expr.UsesNow())
}

// refusal is the record action that a verdict of Judge is answered with.
func refusal(v Verdict) protocol.Action {
	switch v {
	case Allow:
		return 0
	case Fail:
		return protocol.RecordMessagePermissionError
	}
	return protocol.RecordMessageDenied
}
