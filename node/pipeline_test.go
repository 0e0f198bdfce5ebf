package node

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"hadal/auth"
	"hadal/node/sub"
	"hadal/perms"
	"hadal/protocol"
)

// listener is a client that keeps its answers.
type listener struct {
	sub.Client
	got   []protocol.Message
	paced []int // how many answers there were at each Pace
}

func (l *listener) User() *auth.User           { return &auth.User{ID: "u"} }
func (l *listener) Answer(m *protocol.Message) { l.got = append(l.got, *m) }
func (l *listener) Pace()                      { l.paced = append(l.paced, len(l.got)) }

// keeper is a room that keeps what it is given.
type keeper struct{ got []protocol.Message }

func (k *keeper) Closed(sub.Client) {}
func (k *keeper) Handle(_ sub.Client, m *protocol.Message) {
	c := *m
	c.Names = slices.Clone(m.Names)
	k.got = append(k.got, c)
}

// doors says no to every name that begins with "no", and cannot judge "bad".
type doors struct{ asked []string }

func (d *doors) Generation() uint64 { return 0 }

func (d *doors) Door(_ *auth.User, t protocol.Topic, a protocol.Action, name, data string) perms.Verdict {
	d.asked = append(d.asked, a.Name(t)+" "+name)
	switch {
	case strings.HasPrefix(name, "no"):
		return perms.Deny
	case strings.HasPrefix(name, "bad"):
		return perms.Fail
	case strings.HasPrefix(name, "owner"):
		return perms.NeedRecord
	}
	return perms.Allow
}

func pipelineForTest() (*pipeline, *keeper, *doors, *listener) {
	k, d := &keeper{}, &doors{}
	p := &pipeline{rules: d}
	for _, t := range []protocol.Topic{protocol.TopicEvent, protocol.TopicRecord, protocol.TopicRPC, protocol.TopicPresence} {
		p.rooms[t] = k
	}
	return p, k, d, &listener{}
}

func TestThePipelineChecksTheNameThatIsUsed(t *testing.T) {
	const path, corr = protocol.HasPath, protocol.HasCorrelationID
	tests := map[string]struct {
		in      protocol.Message
		asked   []string           // of the door
		handled []protocol.Message // by the room
		answers []protocol.Message // to the client
	}{
		"a list beside a single name is dropped (trap 51)": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "no-secret", Names: []string{"public"}},
			asked:   []string{"READ no-secret"},
			answers: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordMessageDenied, Name: "no-secret", OriginalAction: protocol.RecordRead, IsError: true}},
		},
		"a name beside a list is dropped": {
			in:      protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Name: "no-secret", Names: []string{"public"}},
			asked:   []string{"SUBSCRIBE public"},
			handled: []protocol.Message{{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"public"}}},
		},
		"exactly the denied names are dropped (trap 18)": {
			in:      protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"good1", "no1", "bad1", "good2"}, CorrelationID: "3", Has: corr},
			asked:   []string{"SUBSCRIBE good1", "SUBSCRIBE no1", "SUBSCRIBE bad1", "SUBSCRIBE good2"},
			handled: []protocol.Message{{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"good1", "good2"}, CorrelationID: "3", Has: corr}},
			answers: []protocol.Message{
				{Topic: protocol.TopicEvent, Action: protocol.EventMessageDenied, Name: "no1", OriginalAction: protocol.EventSubscribe, IsError: true, CorrelationID: "3", Has: corr},
				{Topic: protocol.TopicEvent, Action: protocol.EventMessagePermissionError, Name: "bad1", OriginalAction: protocol.EventSubscribe, IsError: true, CorrelationID: "3", Has: corr},
			},
		},
		"nothing is left of a list that is denied whole": {
			in:      protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"no1"}},
			asked:   []string{"PROVIDE no1"},
			answers: []protocol.Message{{Topic: protocol.TopicRPC, Action: protocol.RPCMessageDenied, Name: "no1", OriginalAction: protocol.RPCProvide, IsError: true}},
		},
		"an empty list goes on to be acknowledged": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordNotify},
			handled: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordNotify}},
		},
		"an UPDATE with a path is a PATCH before it is judged (trap 52)": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordUpdate, Name: "r", Path: "role", Data: `"x"`, Has: path},
			asked:   []string{"PATCH r"},
			handled: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordPatch, Name: "r", Path: "role", Data: `"x"`, Has: path}},
		},
		"an upsert with a path is an upsert of that path": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndUpdate, Name: "r", Path: "role", Data: `"x"`, Has: path},
			asked:   []string{"CREATEANDPATCH r"},
			handled: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordCreateAndPatch, Name: "r", Path: "role", Data: `"x"`, Has: path}},
		},
		"an empty path is refused (trap 4)": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordUpdate, Name: "r", Data: `{}`, Has: path},
			answers: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordInvalidMessageData, Name: "r", OriginalAction: protocol.RecordPatch, IsError: true}},
		},
		"an ERASE with data is refused": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordErase, Name: "r", Path: "x", Data: `1`, Has: path, IsWriteAck: true},
			answers: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordInvalidMessageData, Name: "r", OriginalAction: protocol.RecordErase, IsError: true, IsWriteAck: true}},
		},
		"an ERASE without a path is refused": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordErase, Name: "r"},
			answers: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordInvalidMessageData, Name: "r", OriginalAction: protocol.RecordErase, IsError: true}},
		},
		"a PATCH without a path is refused": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordPatch, Name: "r", Data: "{}"},
			answers: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordInvalidMessageData, Name: "r", OriginalAction: protocol.RecordPatch, IsError: true}},
		},
		"a single-name action needs its name": {
			in:      protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventEmit},
			answers: []protocol.Message{{Topic: protocol.TopicEvent, Action: protocol.EventInvalidMessageData, OriginalAction: protocol.EventEmit, IsError: true}},
		},
		"a name that is too long is refused": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: strings.Repeat("x", maxName+1)},
			answers: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordInvalidMessageData, OriginalAction: protocol.RecordRead, IsError: true}},
		},
		"a correlation id that is too long is refused, and does not come back": {
			in:      protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: []string{"a"}, CorrelationID: strings.Repeat("x", maxCorrelationID+1), Has: corr},
			answers: []protocol.Message{{Topic: protocol.TopicEvent, Action: protocol.EventInvalidMessageData, OriginalAction: protocol.EventSubscribe, IsError: true}},
		},
		"a correlation id that is the only name may be as long as one": {
			in:      protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventUnsubscribe, Names: []string{strings.Repeat("x", maxName)}, CorrelationID: strings.Repeat("x", maxName), Has: corr},
			asked:   []string{"UNSUBSCRIBE " + strings.Repeat("x", maxName)},
			handled: []protocol.Message{{Topic: protocol.TopicEvent, Action: protocol.EventUnsubscribe, Names: []string{strings.Repeat("x", maxName)}, CorrelationID: strings.Repeat("x", maxName), Has: corr}},
		},
		"an empty name in a list is refused": {
			in:      protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribe, Names: []string{"a", ""}},
			answers: []protocol.Message{{Topic: protocol.TopicPresence, Action: protocol.PresenceInvalidPresenceUsers, OriginalAction: protocol.PresenceSubscribe, IsError: true}},
		},
		"a rule that reads the record is left to its owner": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "owner/1"},
			asked:   []string{"READ owner/1"},
			handled: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordRead, Name: "owner/1"}},
		},
		"a read that may create is judged where it is known whether it does": {
			in:      protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeCreateAndRead, Names: []string{"no1", "b"}},
			handled: []protocol.Message{{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeCreateAndRead, Names: []string{"no1", "b"}}},
		},
		"a feature that is off has no topic": {
			in:      protocol.Message{Topic: protocol.TopicConnection, Action: protocol.ConnectionPing},
			answers: []protocol.Message{{Topic: protocol.TopicParser, Action: protocol.ParserUnknownTopic, OriginalAction: protocol.ConnectionPing}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p, k, d, c := pipelineForTest()
			m := test.in
			m.Names = slices.Clone(test.in.Names)
			p.receive(c, &m)
			if !slices.Equal(d.asked, test.asked) {
				t.Errorf("asked the door %q, want %q", d.asked, test.asked)
			}
			if got, want := fmt.Sprintf("%+v", k.got), fmt.Sprintf("%+v", test.handled); got != want {
				t.Errorf("room got\n\t%s\nwant\n\t%s", got, want)
			}
			if got, want := fmt.Sprintf("%+v", c.got), fmt.Sprintf("%+v", test.answers); got != want {
				t.Errorf("client got\n\t%s\nwant\n\t%s", got, want)
			}
		})
	}
}

// A list of many denied names costs the client its own time, not our memory.
func TestRefusalsAreHeldBack(t *testing.T) {
	p, _, _, c := pipelineForTest()
	m := protocol.Message{Topic: protocol.TopicEvent, Action: protocol.EventSubscribe, Names: make([]string, 3*pace)}
	for i := range m.Names {
		m.Names[i] = fmt.Sprint("no", i)
	}
	p.receive(c, &m)
	if want := []int{pace, 2 * pace, 3 * pace}; !slices.Equal(c.paced, want) {
		t.Errorf("paced after %d answers, want after %d", c.paced, want)
	}
}

// Every action number of every topic either reaches a room after the door was
// asked, or is answered; none slips through unseen.
func TestEveryActionIsJudgedOrRefused(t *testing.T) {
	served := map[protocol.Topic]int{
		protocol.TopicEvent: 7, protocol.TopicRecord: 18, protocol.TopicRPC: 7, protocol.TopicPresence: 6,
	}
	for topic := range 256 {
		handled := 0
		for action := range 256 {
			p, k, d, c := pipelineForTest()
			m := protocol.Message{
				Topic: protocol.Topic(topic), Action: protocol.Action(action), Name: "n", Names: []string{"m"},
				Path: "p", Has: protocol.HasPath,
			}
			p.receive(c, &m)
			handled += len(k.got)
			switch {
			case len(k.got)+len(c.got) != 1:
				t.Errorf("topic %d action %d: %d handled, %d answers; want one of both", topic, action, len(k.got), len(c.got))
			case len(k.got) == 1 && len(d.asked) != 1 && k.got[0].Action != protocol.RecordSubscribeCreateAndRead:
				t.Errorf("topic %d action %d was handled without asking the door", topic, action)
			}
		}
		// PATCH_MULTI with a path is refused, so records have one fewer than shapeOf knows.
		if want := served[protocol.Topic(topic)]; handled != want {
			t.Errorf("topic %d: %d actions reach the room, want %d", topic, handled, want)
		}
	}
}

// noRecords is a record room that has none.
type noRecords struct{}

func (noRecords) Read(context.Context, string) (string, bool, error) { return "", false, nil }

// Whatever the action and wherever the name stands, real rules that forbid "secret"
// are asked about it: at the door, or by the room, which asks for what the door left
// to it. Only what takes back or answers is never asked about.
func TestNoActionPassesARuleThatForbidsIt(t *testing.T) {
	free := map[protocol.Topic][]protocol.Action{
		protocol.TopicRecord: {
			protocol.RecordUnsubscribe, protocol.RecordUnlisten, protocol.RecordListenAccept, protocol.RecordListenReject,
		},
		protocol.TopicEvent: {
			protocol.EventUnsubscribe, protocol.EventUnlisten, protocol.EventListenAccept, protocol.EventListenReject,
		},
		protocol.TopicRPC: {
			protocol.RPCUnprovide, protocol.RPCAccept, protocol.RPCReject, protocol.RPCResponse, protocol.RPCRequestError,
		},
		protocol.TopicPresence: {protocol.PresenceUnsubscribe, protocol.PresenceUnsubscribeAll},
	}
	everywhere := func(rule string) func(kind string) string { return func(string) string { return rule } }
	for name, test := range map[string]struct {
		rule   func(kind string) string
		fails  bool // it is MESSAGE_PERMISSION_ERROR, not MESSAGE_DENIED
		public bool // the name "public" is allowed
	}{
		"a constant":                {rule: everywhere("false")},
		"a rule by name":            {rule: everywhere("name === 'public'"), public: true},
		"a rule by user":            {rule: everywhere("user.id === 'root'")},
		"a rule that ends in falsy": {rule: everywhere("user.data && user.data.role")},
		"a rule that fails":         {rule: everywhere("user.data.role.name === name"), fails: true},
		"a reference to nothing":    {rule: everywhere("_('grant/' + name).open"), fails: true},
		"a rule over the record": {rule: func(kind string) string {
			if kind == "read" || kind == "write" || kind == "delete" {
				return "oldData?.open === true || name === 'public'"
			}
			return "name === 'public'"
		}, public: true},
	} {
		t.Run(name, func(t *testing.T) {
			rules := liveForTest(t, test.rule)
			refusals := map[bool]protocol.Action{false: protocol.RecordMessageDenied, true: protocol.RecordMessagePermissionError}
			for sent := range everyMessage("secret", "public", "secret", "public") {
				p, room, c := &pipeline{rules: rules}, &keeper{}, &listener{}
				for topic := range sectionTypes {
					p.rooms[topic] = room
				}
				m := sent
				m.Names = slices.Clone(sent.Names)
				p.receive(c, &m)
				for _, m := range c.got {
					if m.Action == protocol.Denied(m.Topic) && test.fails || m.Action == protocol.PermissionError(m.Topic) && !test.fails {
						t.Errorf("%+v was answered %s", sent, m.Action.Name(m.Topic))
					}
				}
				for _, m := range room.got {
					for _, name := range append(m.Names, m.Name) {
						switch {
						case slices.Contains(free[m.Topic], m.Action), test.public && name == "public", name == "" && len(m.Names) > 0:
						case m.Topic != protocol.TopicRecord:
							t.Errorf("%+v reached the room with %q as %+v", sent, name, m)
						default:
							if got := judge(rules, c.User(), m.Action, name); got != refusals[test.fails] {
								t.Errorf("%+v reached the room, and %q was judged %s", sent, name, got.Name(m.Topic))
							}
						}
					}
				}
			}
		})
	}
}

// everyMessage is every action number of every topic, with and without data and path.
func everyMessage(name string, names ...string) iter.Seq[protocol.Message] {
	return func(yield func(protocol.Message) bool) {
		for i := range 1 << 18 {
			m := protocol.Message{
				Topic: protocol.Topic(i), Action: protocol.Action(i >> 8 & 0xff), Name: name, Names: names,
				CorrelationID: "c", Has: protocol.HasCorrelationID,
			}
			if i>>16&1 != 0 {
				m.Data = `{"open":true}`
			}
			if i>>17&1 != 0 {
				m.Path, m.Has = "p", m.Has|protocol.HasPath
			}
			if !yield(m) {
				return
			}
		}
	}
}

var sectionTypes = map[protocol.Topic][]string{
	protocol.TopicRecord:   {"record", "create", "read", "write", "delete", "listen", "notify"},
	protocol.TopicEvent:    {"event", "publish", "subscribe", "listen"},
	protocol.TopicRPC:      {"rpc", "provide", "request"},
	protocol.TopicPresence: {"presence", "allow"},
}

// liveForTest has the same rule of its kind for every name.
func liveForTest(t *testing.T, rule func(kind string) string) *perms.Live {
	t.Helper()
	tree := map[string]any{}
	for _, names := range sectionTypes {
		kinds := map[string]any{}
		for _, kind := range names[1:] {
			if kinds[kind] = any(rule(kind)); kinds[kind] == "false" {
				kinds[kind] = false
			}
		}
		tree[names[0]] = map[string]any{"*": kinds}
	}
	cfg := perms.DefaultConfig()
	cfg.Type, cfg.Options.Permissions = "config", tree
	rules, err := perms.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return perms.NewLive(rules, noRecords{}, nil)
}

// judge asks as the owner of a record does, who fetches what the rule wants.
func judge(rules *perms.Live, u *auth.User, a protocol.Action, name string) protocol.Action {
	known := func(string) (string, bool, bool) { return "", false, true }
	refused, _ := rules.Judge(u, a, name, `{"open":true}`, `{"open":false}`, true, known)
	return refused
}
