package event

import (
	"strings"
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

// closed are rules that refuse what begins with secret.
type closed struct{}

func (closed) Generation() uint64 { return 2 }

func (closed) Refuse(_ *auth.User, t protocol.Topic, _ protocol.Action, name, _ string) protocol.Action {
	if strings.HasPrefix(name, "secret") {
		return protocol.PermissionError(t)
	}
	return 0
}

func ended(of protocol.Action, name string) protocol.Message {
	return protocol.Message{Action: protocol.EventMessageDenied, Name: name, OriginalAction: of, IsError: true}
}

func TestNewRulesEndSubscriptionsAndListening(t *testing.T) {
	r := newRoom()
	sender, c, other := &fake{id: 1}, &fake{id: 2}, &fake{id: 3}
	r.sub(c, "0", "secret", "public")
	r.sub(other, "0", "secret")
	r.do(c, protocol.Message{Action: protocol.EventListen, Name: "secret.*"})
	r.do(c, protocol.Message{Action: protocol.EventListen, Name: "public.*"})
	c.got, other.got = nil, nil
	if n := r.Rejudge(closed{}); n != 3 {
		t.Errorf("%d ended, want 3", n)
	}
	r.emitData(sender, "secret", "1")
	r.emitData(sender, "public", "2")
	c.expect(t, ended(protocol.EventSubscribe, "secret"), ended(protocol.EventListen, "secret.*"), emitted("public", "2"))
	other.expect(t, ended(protocol.EventSubscribe, "secret"))
	if n := r.Rejudge(closed{}); n != 0 {
		t.Errorf("%d ended the second time, want 0", n)
	}
	// A request that passed the door before is judged again; the client may give up
	// what it has not.
	r.sub(c, "1", "secret", "public")
	r.unsub(c, "2", "secret")
	c.expect(t, protocol.Message{
		Action: protocol.EventMessagePermissionError, Name: "secret", OriginalAction: protocol.EventSubscribe, IsError: true,
		CorrelationID: "1", Has: protocol.HasCorrelationID,
	}, multiple("public"), acked(protocol.EventSubscribe, "1"), acked(protocol.EventUnsubscribe, "2"))
	r.do(c, protocol.Message{Action: protocol.EventListen, Name: "secret.*", Judged: 1})
	c.expect(t, protocol.Message{
		Action: protocol.EventMessagePermissionError, Name: "secret.*", OriginalAction: protocol.EventListen, IsError: true,
	})
}

func TestAUserThatChangedLosesWhatItMayNotHaveAnyMoreAndNobodyElseDoes(t *testing.T) {
	r := newRoom()
	c, other := &fake{id: 2}, &fake{id: 3}
	r.sub(c, "0", "secret", "public")
	r.sub(other, "0", "secret")
	r.do(c, protocol.Message{Action: protocol.EventListen, Name: "secret.*"})
	r.do(other, protocol.Message{Action: protocol.EventListen, Name: "secret.*"})
	c.got, other.got = nil, nil
	if n := r.RejudgeClient(closed{}, c); n != 2 {
		t.Errorf("%d ended, want 2", n)
	}
	c.expect(t, ended(protocol.EventSubscribe, "secret"), ended(protocol.EventListen, "secret.*"))
	r.Tell(c, "secret", "1")
	r.Tell(other, "secret", "2")
	r.Tell(c, "public", "3")
	c.expect(t, emitted("public", "3"))
	other.expect(t, emitted("secret", "2"))
}
