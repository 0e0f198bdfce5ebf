package perms

import (
	"strings"

	"hadal/perms/expr"
	"hadal/protocol"
)

// sectionID numbers the sections of a rules file.
type sectionID uint8

const (
	secRecord sectionID = iota
	secEvent
	secRPC
	secPresence
	sectionCount
)

// sectionNames are the sections as they are called in a file.
var sectionNames = [sectionCount]string{"record", "event", "rpc", "presence"}

// slot numbers the rule types of a section.
type slot int8

const (
	noSlot slot = -1

	recCreate slot = 0
	recRead   slot = 1
	recWrite  slot = 2
	recDelete slot = 3
	recListen slot = 4
	recNotify slot = 5

	evPublish   slot = 0
	evSubscribe slot = 1
	evListen    slot = 2

	rpcProvide slot = 0
	rpcRequest slot = 1

	presAllow slot = 0

	maxSlots = 6
)

// ruleNames are the rule types of each section by slot, as they are called in
// a file.
var ruleNames = [sectionCount][]string{
	secRecord:   {"create", "read", "write", "delete", "listen", "notify"},
	secEvent:    {"publish", "subscribe", "listen"},
	secRPC:      {"provide", "request"},
	secPresence: {"allow"},
}

// demand is what an action needs (spec 07 §3).
type demand struct {
	how           how
	section       sectionID
	first, second slot
	// claims says that the action makes, changes or serves what the name stands
	// for, which for names under hadal/ only the server does.
	claims bool
	// calls says that the name may stand for something that the server itself
	// answers, whatever the rules say.
	calls bool
	// hears says that the name may stand for an event that the server sends to this client
	// alone, which is nobody's to forbid.
	hears bool
}

// firstAs and secondAs are the actions that the two rules see: an action that is
// two of them is each by itself.
func (d demand) firstAs(a protocol.Action) protocol.Action {
	switch d.how {
	case both:
		return protocol.RecordCreate
	case readOrCreate:
		return protocol.RecordRead
	}
	return a
}

func (d demand) secondAs(a protocol.Action) protocol.Action {
	switch {
	case d.how == readOrCreate:
		return protocol.RecordCreate
	case a == protocol.RecordCreateAndPatch:
		return protocol.RecordPatch
	case a == protocol.RecordCreateAndUpdate:
		return protocol.RecordUpdate
	}
	return a
}

// scopes say which rule types have data and oldData (spec 07 §3).
var scopes = [sectionCount][maxSlots]expr.Scope{
	secRecord: {recRead: {OldData: true}, recWrite: {Data: true, OldData: true}, recDelete: {OldData: true}},
	secEvent:  {evPublish: {Data: true}, evSubscribe: {Data: true}},
	secRPC:    {rpcRequest: {Data: true}},
}

type how uint8

const (
	never        how = iota // unknown, or for servers to send
	free                    // no rule
	one                     // the first rule
	nameless                // the first rule, for the text "undefined"
	both                    // the first and the second
	readOrCreate            // the first; where there is no record, the second as well
	ownerOnly               // the first, and clients cannot ask for it by itself
)

// demands holds each action's demand. It is only read.
var demands = func() (table [8][128]demand) {
	record := func(d demand, actions ...protocol.Action) {
		d.section = secRecord
		for _, a := range actions {
			table[protocol.TopicRecord][a] = d
		}
	}
	record(demand{how: one, first: recRead},
		protocol.RecordRead, protocol.RecordHead, protocol.RecordSubscribe,
		protocol.RecordSubscribeAndHead, protocol.RecordSubscribeAndRead)
	record(demand{how: one, first: recWrite, claims: true},
		protocol.RecordUpdate, protocol.RecordPatch, protocol.RecordPatchMulti)
	record(demand{how: one, first: recDelete, claims: true}, protocol.RecordDelete, protocol.RecordErase)
	record(demand{how: one, first: recListen, claims: true}, protocol.RecordListen)
	record(demand{how: one, first: recNotify, claims: true}, protocol.RecordNotify)
	record(demand{how: ownerOnly, first: recCreate, claims: true}, protocol.RecordCreate)
	record(demand{how: both, first: recCreate, second: recWrite, claims: true},
		protocol.RecordCreateAndUpdate, protocol.RecordCreateAndPatch)
	record(demand{how: readOrCreate, first: recRead, second: recCreate, claims: true}, protocol.RecordSubscribeCreateAndRead)
	record(demand{how: free},
		protocol.RecordUnsubscribe, protocol.RecordUnlisten, protocol.RecordListenAccept, protocol.RecordListenReject)

	event := func(d demand, actions ...protocol.Action) {
		d.section = secEvent
		for _, a := range actions {
			table[protocol.TopicEvent][a] = d
		}
	}
	event(demand{how: one, first: evPublish, claims: true}, protocol.EventEmit)
	event(demand{how: one, first: evSubscribe, hears: true}, protocol.EventSubscribe)
	event(demand{how: one, first: evListen, claims: true}, protocol.EventListen)
	event(demand{how: free},
		protocol.EventUnsubscribe, protocol.EventUnlisten, protocol.EventListenAccept, protocol.EventListenReject)

	rpc := func(d demand, actions ...protocol.Action) {
		d.section = secRPC
		for _, a := range actions {
			table[protocol.TopicRPC][a] = d
		}
	}
	rpc(demand{how: one, first: rpcProvide, claims: true}, protocol.RPCProvide)
	rpc(demand{how: one, first: rpcRequest, calls: true}, protocol.RPCRequest)
	rpc(demand{how: free},
		protocol.RPCUnprovide, protocol.RPCAccept, protocol.RPCReject, protocol.RPCResponse, protocol.RPCRequestError)

	presence := func(d demand, actions ...protocol.Action) {
		d.section = secPresence
		for _, a := range actions {
			table[protocol.TopicPresence][a] = d
		}
	}
	presence(demand{how: one, first: presAllow}, protocol.PresenceQuery, protocol.PresenceSubscribe)
	presence(demand{how: nameless, first: presAllow}, protocol.PresenceQueryAll, protocol.PresenceSubscribeAll)
	presence(demand{how: free}, protocol.PresenceUnsubscribe, protocol.PresenceUnsubscribeAll)
	return table
}()

// demandOf is the demand of any action of any topic, also of those that do not
// exist.
func demandOf(t protocol.Topic, a protocol.Action) demand {
	if int(t) >= len(demands) || a < 0 || int(a) >= len(demands[t]) {
		return demand{}
	}
	return demands[t][a]
}

// reserved says whether a name belongs to the server. The name of a listen is
// an unanchored pattern: one that spells the prefix out is refused, and others
// are never asked to provide such names, because nobody is.
func reserved(name string) bool {
	return protocol.Reserved(strings.TrimPrefix(name, "^"))
}
