package presence

import (
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

// closed are rules by which only ada may watch others.
type closed struct{}

func (closed) Generation() uint64 { return 2 }

func (closed) Refuse(u *auth.User, t protocol.Topic, _ protocol.Action, _, _ string) protocol.Action {
	if u.ID != "ada" {
		return protocol.Denied(t)
	}
	return 0
}

func TestNewRulesEndSubscriptions(t *testing.T) {
	r := newRoom()
	ada, bob, cy := client("ada"), client("bob"), client("cy")
	for _, c := range []*fake{ada, bob} {
		r.Handle(c, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribe, Names: []string{"cy", "dan"}})
		r.Handle(c, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribeAll})
		c.got = nil
	}
	if n := r.Rejudge(closed{}); n != 3 {
		t.Errorf("%d ended, want 3", n)
	}
	if st := r.Stats(); st.Subscriptions != 2 || st.Global != 1 {
		t.Errorf("left are %+v, want 2 and 1", st)
	}
	told := make(map[string]protocol.Action)
	for _, m := range bob.got {
		if m.Action != protocol.PresenceMessageDenied || !m.IsError {
			t.Errorf("bob was told %+v", m)
		}
		told[m.Name] = m.OriginalAction
	}
	if len(told) != 3 || told["cy"] != protocol.PresenceSubscribe || told["dan"] != protocol.PresenceSubscribe || told[""] != protocol.PresenceSubscribeAll {
		t.Errorf("bob was told of %v", told)
	}
	bob.got = nil
	r.Login(cy)
	bob.expect(t)
	ada.expect(t,
		protocol.Message{Action: protocol.PresencePresenceJoinAll, Name: "cy", Has: protocol.HasName},
		protocol.Message{Action: protocol.PresencePresenceJoin, Name: "cy", Has: protocol.HasName})
	r.Handle(bob, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribeAll, Judged: 1})
	if st := r.Stats(); st.Global != 1 {
		t.Error("a request that passed the door before was not judged again")
	}
}

func TestAUserThatChangedLosesWhatItMayNotHaveAnyMore(t *testing.T) {
	r := newRoom()
	bob, cy := client("bob"), client("cy")
	for _, c := range []*fake{bob, cy} {
		r.Handle(c, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribe, Names: []string{"dan"}})
		r.Handle(c, &protocol.Message{Topic: protocol.TopicPresence, Action: protocol.PresenceSubscribeAll})
		c.got = nil
	}
	if n := r.RejudgeClient(closed{}, bob); n != 2 {
		t.Errorf("%d ended, want 2", n)
	}
	if len(bob.got) != 2 || len(cy.got) != 0 {
		t.Errorf("bob was told %+v, cy %+v", bob.got, cy.got)
	}
	if st := r.Stats(); st.Subscriptions != 1 || st.Global != 1 {
		t.Errorf("left are %+v, want 1 and 1", st)
	}
}
