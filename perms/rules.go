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
// blocks. In this version a rule is the constant true or false.
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
// delete, publish, provide, listen to or notify them is denied. So is every
// action that the protocol does not know or that only servers send.
package perms

import (
	"hadal/auth"
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
	}
	return "unknown"
}

// and is the verdict where both a and b have a say: Deny beats Fail beats
// NeedRecord beats Allow.
func (v Verdict) and(w Verdict) Verdict {
	switch {
	case v == Deny || w == Deny:
		return Deny
	case v == Fail || w == Fail:
		return Fail
	case v == NeedRecord || w == NeedRecord:
		return NeedRecord
	}
	return Allow
}

// Rules are one set of compiled rules. They never change; a reload makes
// others (see Live). All methods may be called from anywhere.
type Rules struct {
	// open says that everything is allowed that rules could deny.
	open     bool
	sections [sectionCount]*section // nil when open
}

// rule is one compiled rule.
type rule struct {
	allow bool
	// needsRecord says that the rule reads the record it guards, and so can be
	// judged only at its owner.
	needsRecord bool
}

// atDoor judges the rule where no record is at hand. A nil rule is one that was
// not found.
func (r *rule) atDoor() Verdict {
	switch {
	case r == nil:
		return Deny
	case r.needsRecord:
		return NeedRecord
	}
	return r.atOwner()
}

// atOwner judges the rule where the record is.
func (r *rule) atOwner() Verdict {
	if r != nil && r.allow {
		return Allow
	}
	return Deny
}

// Door judges a message before it is handed to its room (spec 07 §3): user u
// wants to do a to name with data, the JSON text of the message or empty. For
// a message with several names it is asked for each. Actions that no rule
// guards are allowed; those that clients may not send are denied. A message
// whose verdict is NeedRecord goes on to the record's owner, who asks Judge.
//
// The caller passes the action that will be executed, so a record UPDATE with
// a path is asked as PATCH (spec 07 §8).
func (r *Rules) Door(u *auth.User, t protocol.Topic, a protocol.Action, name, data string) Verdict {
	v, _ := r.door(u, t, a, name, data)
	return v
}

// door is Door, and says which rule type decided, or noSlot.
func (r *Rules) door(_ *auth.User, t protocol.Topic, a protocol.Action, name, _ string) (Verdict, slot) {
	d := demandOf(t, a)
	switch d.how {
	case never, ownerOnly:
		return Deny, noSlot
	case free:
		return Allow, noSlot
	case nameless:
		name = "undefined" // what the peer matches then (spec 07 §3)
	}
	taken := d.claims && reserved(name)
	if taken && d.how != readOrCreate {
		return Deny, d.first
	}
	if r.open {
		if taken {
			return NeedRecord, d.first // to be read if it exists, but not created
		}
		return Allow, d.first
	}
	found := r.sections[d.section].find(name)
	first := found.rules[d.first].atDoor()
	switch d.how {
	case both:
		second := found.rules[d.second].atDoor()
		if v := first.and(second); v != first {
			return v, d.second
		}
	case readOrCreate:
		// Create is asked only for a record that does not exist, which only its
		// owner knows; so it decides here only if it does not matter.
		if first == Allow && (taken || found.rules[d.second].atDoor() != Allow) {
			return NeedRecord, d.first
		}
	}
	return first, d.first
}

// Judge judges an action on a record at its owner: data is what the record
// would become, or empty for an action that changes nothing; old is its
// content, if it exists. It returns 0 when the user may, and else the refusing
// action, MESSAGE_DENIED or MESSAGE_PERMISSION_ERROR. It must not be asked by
// the server on its own behalf: names under hadal/ are refused here too.
func (r *Rules) Judge(u *auth.User, a protocol.Action, name, data, old string, exists bool) protocol.Action {
	v, _ := r.judge(u, a, name, data, old, exists)
	return refusal(v)
}

// judge is Judge, and says which rule type decided, or noSlot.
func (r *Rules) judge(_ *auth.User, a protocol.Action, name, _, _ string, exists bool) (Verdict, slot) {
	d := demandOf(protocol.TopicRecord, a)
	switch d.how {
	case never:
		return Deny, noSlot
	case free:
		return Allow, noSlot
	}
	if d.claims && reserved(name) && !(d.how == readOrCreate && exists) {
		return Deny, d.first
	}
	if r.open {
		return Allow, d.first
	}
	found := r.sections[d.section].find(name)
	first := found.rules[d.first].atOwner()
	if d.how == both || d.how == readOrCreate && !exists {
		second := found.rules[d.second].atOwner()
		if v := first.and(second); v != first {
			return v, d.second
		}
	}
	return first, d.first
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
