package node

import (
	"fmt"
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
