package perms

import (
	"fmt"
	"sync"
	"testing"

	"hadal/protocol"
)

// only allows one rule type of one section on every name, and nothing else.
func only(t *testing.T, section, rule string) *Rules {
	t.Helper()
	text := ""
	for id, name := range sectionNames {
		text += name + ": {'*': {"
		if name == section {
			for i, r := range ruleNames[id] {
				text += fmt.Sprintf("%s: %v", r, r == rule)
				if i < len(ruleNames[id])-1 {
					text += ", "
				}
			}
		}
		text += "}}\n"
	}
	return load(t, text)
}

// needs is the table of spec 07 §3, with what its traps add: the one rule an
// action needs, or "" for those that need none.
var needs = map[protocol.Topic]map[protocol.Action]string{
	protocol.TopicRecord: {
		protocol.RecordRead: "read", protocol.RecordHead: "read", protocol.RecordSubscribe: "read",
		protocol.RecordSubscribeAndHead: "read", protocol.RecordSubscribeAndRead: "read",
		protocol.RecordUpdate: "write", protocol.RecordPatch: "write", protocol.RecordPatchMulti: "write",
		protocol.RecordDelete: "delete", protocol.RecordErase: "delete",
		protocol.RecordListen: "listen", protocol.RecordNotify: "notify",
		protocol.RecordUnsubscribe: "", protocol.RecordUnlisten: "",
		protocol.RecordListenAccept: "", protocol.RecordListenReject: "",
	},
	protocol.TopicEvent: {
		protocol.EventEmit: "publish", protocol.EventSubscribe: "subscribe", protocol.EventListen: "listen",
		protocol.EventUnsubscribe: "", protocol.EventUnlisten: "", protocol.EventListenAccept: "", protocol.EventListenReject: "",
	},
	protocol.TopicRPC: {
		protocol.RPCProvide: "provide", protocol.RPCRequest: "request",
		protocol.RPCUnprovide: "", protocol.RPCAccept: "", protocol.RPCReject: "", protocol.RPCResponse: "", protocol.RPCRequestError: "",
	},
	protocol.TopicPresence: {
		protocol.PresenceQuery: "allow", protocol.PresenceQueryAll: "allow",
		protocol.PresenceSubscribe: "allow", protocol.PresenceSubscribeAll: "allow",
		protocol.PresenceUnsubscribe: "", protocol.PresenceUnsubscribeAll: "",
	},
}

var sectionOf = map[protocol.Topic]sectionID{
	protocol.TopicRecord: secRecord, protocol.TopicEvent: secEvent, protocol.TopicRPC: secRPC, protocol.TopicPresence: secPresence,
}

func TestEveryActionOfEveryTopicNeedsItsRuleOrIsDenied(t *testing.T) {
	var sets []struct {
		section, rule string
		rules         *Rules
	}
	for id, section := range sectionNames {
		for _, rule := range ruleNames[id] {
			sets = append(sets, struct {
				section, rule string
				rules         *Rules
			}{section, rule, only(t, section, rule)})
		}
	}
	open, err := New(Config{Type: "none"})
	if err != nil {
		t.Fatal(err)
	}
	for topic := range protocol.Topic(255) {
		for action := protocol.Action(-1); action < 256; action++ {
			if topic == protocol.TopicRecord {
				switch action {
				case protocol.RecordCreateAndUpdate, protocol.RecordCreateAndPatch, protocol.RecordSubscribeCreateAndRead:
					continue // two rules: below
				}
			}
			rule, known := needs[topic][action]
			for _, s := range sets {
				want := Deny
				if known && (rule == "" || rule == s.rule && s.section == sectionNames[sectionOf[topic]]) {
					want = Allow
				}
				if got := s.rules.Door(someone, topic, action, "n", ""); got != want {
					t.Errorf("%v %s where only %s %s is allowed: got %v, want %v", topic, action.Name(topic), s.section, s.rule, got, want)
				}
			}
			want := Deny
			if known {
				want = Allow
			}
			if got := open.Door(someone, topic, action, "n", ""); got != want {
				t.Errorf("%v %s with type none: got %v, want %v", topic, action.Name(topic), got, want)
			}
		}
	}
}

func TestActionsWithoutANameMatchTheTextUndefined(t *testing.T) {
	r := load(t, restRecord+restEvent+restRPC+"presence: {'*': {allow: true}, undefined: {allow: false}}\n")
	for a, want := range map[protocol.Action]Verdict{
		protocol.PresenceQueryAll:     Deny,
		protocol.PresenceSubscribeAll: Deny,
		protocol.PresenceQuery:        Allow,
		protocol.PresenceSubscribe:    Allow,
	} {
		if got := r.Door(someone, protocol.TopicPresence, a, "", ""); got != want {
			t.Errorf("%s: got %v, want %v", a.Name(protocol.TopicPresence), got, want)
		}
	}
}

// withVerdicts are rules for records whose create, read and write come to the
// given verdicts at the door.
func withVerdicts(create, read, write Verdict) *Rules {
	n := &node{path: &path{wild: wildStar}}
	for slot, v := range map[slot]Verdict{recCreate: create, recRead: read, recWrite: write} {
		n.rules[slot] = &rule{allow: v == Allow, needsRecord: v == NeedRecord}
	}
	return &Rules{sections: [sectionCount]*section{secRecord: newSection([]*node{n})}}
}

func TestMessagesWithTwoRulesNeedBoth(t *testing.T) {
	const upsert, subscribe = protocol.RecordCreateAndUpdate, protocol.RecordSubscribeCreateAndRead
	for _, c := range []struct {
		action              protocol.Action
		create, read, write Verdict
		want                Verdict
	}{
		{upsert, Allow, Deny, Allow, Allow},
		{upsert, Allow, Allow, Deny, Deny},
		{upsert, Deny, Allow, Allow, Deny},
		{upsert, NeedRecord, Allow, Deny, Deny},
		{upsert, Deny, Allow, NeedRecord, Deny},
		{upsert, Allow, Allow, NeedRecord, NeedRecord},
		{upsert, NeedRecord, Deny, Allow, NeedRecord},
		{protocol.RecordCreateAndPatch, Allow, Deny, Allow, Allow},
		{protocol.RecordCreateAndPatch, Deny, Allow, Allow, Deny},
		{subscribe, Allow, Allow, Deny, Allow},
		{subscribe, Allow, Deny, Allow, Deny},
		{subscribe, NeedRecord, Deny, Allow, Deny},
		{subscribe, Deny, Allow, Allow, NeedRecord},
		{subscribe, NeedRecord, Allow, Deny, NeedRecord},
		{subscribe, Allow, NeedRecord, Deny, NeedRecord},
		{subscribe, Deny, NeedRecord, Deny, NeedRecord},
	} {
		got := withVerdicts(c.create, c.read, c.write).Door(someone, protocol.TopicRecord, c.action, "n", "{}")
		if got != c.want {
			t.Errorf("%s with create %v, read %v, write %v: got %v, want %v",
				c.action.Name(protocol.TopicRecord), c.create, c.read, c.write, got, c.want)
		}
	}
}

func TestVerdictsCombineToTheWorst(t *testing.T) {
	order := []Verdict{Deny, Fail, NeedRecord, Allow} // worst first
	for i, a := range order {
		for j, b := range order {
			if got, want := a.and(b), order[min(i, j)]; got != want {
				t.Errorf("%v and %v: got %v, want %v", a, b, got, want)
			}
		}
	}
}

func TestTheOwnerJudgesWhatTheDoorLeftToIt(t *testing.T) {
	const denied = protocol.RecordMessageDenied
	// create denies, read and write allow, delete, listen and notify are not defined
	r := load(t, "record: {'*': {create: false, read: true, write: 'true'}}\n"+restEvent+restRPC+restPresence)
	for _, c := range []struct {
		action protocol.Action
		exists bool
		want   protocol.Action
	}{
		{protocol.RecordRead, true, 0},
		{protocol.RecordRead, false, 0},
		{protocol.RecordHead, true, 0},
		{protocol.RecordCreate, false, denied},
		{protocol.RecordUpdate, true, 0},
		{protocol.RecordPatch, true, 0},
		{protocol.RecordPatchMulti, true, 0},
		{protocol.RecordDelete, true, denied},
		{protocol.RecordErase, true, denied},
		{protocol.RecordNotify, true, denied},
		{protocol.RecordListen, true, denied},
		{protocol.RecordCreateAndUpdate, true, denied},
		{protocol.RecordCreateAndPatch, false, denied},
		{protocol.RecordSubscribeCreateAndRead, true, 0},
		{protocol.RecordSubscribeCreateAndRead, false, denied},
		{protocol.RecordUnsubscribe, true, 0},
		{protocol.RecordReadResponse, true, denied},
		{0, true, denied},
		{-1, true, denied},
		{1 << 20, true, denied},
	} {
		if got := r.Judge(someone, c.action, "n", "{}", "{}", c.exists); got != c.want {
			t.Errorf("%s, exists %v: got %v, want %v", c.action.Name(protocol.TopicRecord), c.exists, got, c.want)
		}
	}
	needy := withVerdicts(NeedRecord, Allow, Allow)
	if got := needy.Judge(someone, protocol.RecordCreate, "n", "", "", false); got != denied {
		t.Errorf("a rule that was left to the owner and does not allow: got %v, want denied", got)
	}
}

func TestRefusalsHaveTheirAction(t *testing.T) {
	for v, want := range map[Verdict]protocol.Action{
		Allow: 0, Deny: protocol.RecordMessageDenied, Fail: protocol.RecordMessagePermissionError,
		NeedRecord: protocol.RecordMessageDenied, // nobody is left to ask
	} {
		if got := refusal(v); got != want {
			t.Errorf("%v: got %v, want %v", v, got, want)
		}
	}
}

func TestNamesOfTheServerAreNotForClients(t *testing.T) {
	open, err := New(Config{Type: "none"})
	if err != nil {
		t.Fatal(err)
	}
	all := "{create: true, read: true, write: true, delete: true, listen: true, notify: true}"
	allowing := load(t, "record: {'*': "+all+", hadal/*: "+all+"}\n"+
		"event: {'*': {publish: true, subscribe: true, listen: true}}\nrpc: {'*': {provide: true, request: true}}\npresence: {'*': {allow: true}}\n")
	for kind, r := range map[string]*Rules{"type none": open, "rules that allow": allowing} {
		for _, c := range []struct {
			topic  protocol.Topic
			action protocol.Action
			want   Verdict
		}{
			{protocol.TopicRecord, protocol.RecordRead, Allow},
			{protocol.TopicRecord, protocol.RecordSubscribe, Allow},
			{protocol.TopicRecord, protocol.RecordUnsubscribe, Allow},
			{protocol.TopicRecord, protocol.RecordSubscribeCreateAndRead, NeedRecord},
			{protocol.TopicRecord, protocol.RecordUpdate, Deny},
			{protocol.TopicRecord, protocol.RecordPatch, Deny},
			{protocol.TopicRecord, protocol.RecordPatchMulti, Deny},
			{protocol.TopicRecord, protocol.RecordCreateAndUpdate, Deny},
			{protocol.TopicRecord, protocol.RecordCreateAndPatch, Deny},
			{protocol.TopicRecord, protocol.RecordErase, Deny},
			{protocol.TopicRecord, protocol.RecordDelete, Deny},
			{protocol.TopicRecord, protocol.RecordNotify, Deny},
			{protocol.TopicRecord, protocol.RecordListen, Deny},
			{protocol.TopicEvent, protocol.EventSubscribe, Allow},
			{protocol.TopicEvent, protocol.EventEmit, Deny},
			{protocol.TopicEvent, protocol.EventListen, Deny},
			{protocol.TopicRPC, protocol.RPCRequest, Allow},
			{protocol.TopicRPC, protocol.RPCProvide, Deny},
			{protocol.TopicPresence, protocol.PresenceSubscribe, Allow},
		} {
			if got := r.Door(someone, c.topic, c.action, "hadal/x", ""); got != c.want {
				t.Errorf("%s: %v %s: got %v, want %v", kind, c.topic, c.action.Name(c.topic), got, c.want)
			}
		}
		if got := r.Door(someone, protocol.TopicEvent, protocol.EventEmit, protocol.EventExpiring, "1"); got != Deny {
			t.Errorf("%s: publishing %s: got %v, want deny", kind, protocol.EventExpiring, got)
		}
		for _, name := range []string{"hadal", "hadalx/y", "x/hadal/"} {
			if got := r.Door(someone, protocol.TopicRecord, protocol.RecordUpdate, name, ""); got != Allow {
				t.Errorf("%s: writing %q: got %v, want allow", kind, name, got)
			}
		}
		if got := r.Door(someone, protocol.TopicEvent, protocol.EventListen, "^hadal/.*", ""); got != Deny {
			t.Errorf("%s: listening for an anchored pattern: got %v, want deny", kind, got)
		}
		for _, c := range []struct {
			action protocol.Action
			exists bool
			want   protocol.Action
		}{
			{protocol.RecordCreate, false, protocol.RecordMessageDenied},
			{protocol.RecordUpdate, true, protocol.RecordMessageDenied},
			{protocol.RecordDelete, true, protocol.RecordMessageDenied},
			{protocol.RecordRead, true, 0},
			{protocol.RecordSubscribeCreateAndRead, true, 0},
			{protocol.RecordSubscribeCreateAndRead, false, protocol.RecordMessageDenied},
		} {
			if got := r.Judge(someone, c.action, "hadal/x", "{}", "", c.exists); got != c.want {
				t.Errorf("%s: judging %s, exists %v: got %v, want %v", kind, c.action.Name(protocol.TopicRecord), c.exists, got, c.want)
			}
		}
	}
}

func TestNobodyIsForbiddenToHearThatHisTokenExpires(t *testing.T) {
	r := load(t, "record: {'*': {read: false}}\nevent: {'*': {subscribe: false}, 'hadal/*': {subscribe: false}}\n"+restRPC+"presence: {'*': {allow: false}}\n")
	for name, want := range map[string]Verdict{protocol.EventExpiring: Allow, "hadal/auth/other": Deny, "auth": Deny} {
		if got := r.Door(someone, protocol.TopicEvent, protocol.EventSubscribe, name, ""); got != want {
			t.Errorf("subscribing to %s: got %v, want %v", name, got, want)
		}
	}
	if got := r.Door(someone, protocol.TopicEvent, protocol.EventListen, protocol.EventExpiring, ""); got != Deny {
		t.Errorf("listening: got %v, want deny", got)
	}
}

func TestDecisionsAreCounted(t *testing.T) {
	l := NewLive(load(t, "record: {'*': {read: true, create: false, write: true}}\n"+restEvent+restRPC+"presence: {'*': {allow: true}}\n"), nil, nil)
	l.Door(someone, protocol.TopicRecord, protocol.RecordRead, "a", "")
	l.Door(someone, protocol.TopicRecord, protocol.RecordHead, "a", "")
	l.Door(someone, protocol.TopicRecord, protocol.RecordCreateAndUpdate, "a", "{}")
	l.Door(someone, protocol.TopicRecord, protocol.RecordUnsubscribe, "a", "")
	l.Door(someone, protocol.TopicRecord, 99, "a", "")
	l.Door(someone, protocol.TopicRecord, protocol.RecordSubscribeCreateAndRead, "a", "") // left to the owner
	l.Judge(someone, protocol.RecordCreate, "a", "", "", false, nil)
	l.Judge(someone, protocol.RecordUpdate, "a", "{}", "{}", true, nil)
	l.Door(someone, protocol.TopicEvent, protocol.EventEmit, "a", "1")
	l.Door(someone, protocol.TopicPresence, protocol.PresenceQueryAll, "", "")
	want := map[Decisions]bool{
		{"record", "read", "allow", 2}:    true,
		{"record", "create", "deny", 2}:   true,
		{"record", "write", "allow", 1}:   true,
		{"event", "publish", "deny", 1}:   true,
		{"presence", "allow", "allow", 1}: true,
	}
	stats := l.Stats()
	for _, d := range stats {
		if d.Count > 0 && !want[d] {
			t.Errorf("unexpected %+v", d)
		}
		delete(want, d)
	}
	for d := range want {
		t.Errorf("missing %+v", d)
	}
	if got, want := len(stats), (6+3+2+1)*3; got != want {
		t.Errorf("%d rows, want %d: every section, type and result, also those that never happened", got, want)
	}
}

func TestAReloadDecidesTheNextQuestion(t *testing.T) {
	yes := load(t, "record: {'*': {read: true}}\n"+restEvent+restRPC+restPresence)
	no := load(t, "record: {'*': {read: false}}\n"+restEvent+restRPC+restPresence)
	l := NewLive(yes, nil, nil)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() { // others keep asking meanwhile
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					l.Door(someone, protocol.TopicRecord, protocol.RecordRead, fmt.Sprint(i%100), "")
				}
			}
		})
	}
	for i := range 1000 {
		r, want, judged := no, Deny, protocol.RecordMessageDenied
		if i%2 == 1 {
			r, want, judged = yes, Allow, 0
		}
		l.Reload(r)
		if got := l.Door(someone, protocol.TopicRecord, protocol.RecordRead, "5", ""); got != want {
			t.Fatalf("door after reload %d: got %v, want %v", i, got, want)
		}
		if got, _ := l.Judge(someone, protocol.RecordRead, "5", "", "{}", true, nil); got != judged {
			t.Fatalf("judge after reload %d: got %v, want %v", i, got, judged)
		}
		if l.Load() != r {
			t.Fatalf("reload %d: other rules are in force", i)
		}
	}
	close(done)
	wg.Wait()
}
