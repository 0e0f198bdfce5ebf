package rpc

import (
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

// only are rules by which one user alone may provide anything.
type only string

func (only) Generation() uint64 { return 2 }

func (o only) Refuse(u *auth.User, t protocol.Topic, _ protocol.Action, _, _ string) protocol.Action {
	if u.ID != string(o) {
		return protocol.Denied(t)
	}
	return 0
}

const provideEnded = "MESSAGE_DENIED error"

func TestNewRulesEndProviding(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		c, a, b := w.client(), w.provider(), w.provider()
		w.bulk(a, protocol.RPCProvide, "1", "sub")
		a.take()
		w.do(c, request, "x1", "")
		first := asked(t, a, b)
		w.do(first, accept, "x1", "")
		c.take()
		second := a
		if first == a {
			second = b
		}
		if n := w.Rejudge(only(second.user.ID)); n == 0 {
			t.Fatal("nobody was ended")
		}
		// The call goes on with the one who may still provide.
		second.expect(t, "REQUEST name=add id=x1")
		w.do(first, respond, "x1", "1")
		w.do(second, respond, "x1", "2")
		c.expect(t, end("RESPONSE", "x1")+" data=2")
		if st := w.Stats(); st.Running != 0 || st.Providers == 0 {
			t.Errorf("Stats = %+v", st)
		}
		for range 20 { // the other one is not asked any more
			w.do(c, request, "x2", "")
			asked(t, second)
			w.do(second, respond, "x2", "3")
		}
	})
}

func TestACallEndsWhenNewRulesLeaveNobody(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		c, a, b := w.client(), w.provider(), w.provider()
		for _, id := range []string{"x1", "x2", "x3"} {
			w.do(c, request, id, "")
		}
		a.take()
		b.take()
		if n := w.Rejudge(only("nobody")); n != 2 {
			t.Errorf("%d ended, want 2", n)
		}
		// Nobody that was ended is asked what the other one was asked.
		a.expect(t, provideEnded)
		b.expect(t, provideEnded)
		if got := c.take(); len(got) != 3 {
			t.Errorf("the caller heard %q, want three times that there is nobody", got)
		}
		if st := w.Stats(); st.Names != 0 || st.Providers != 0 || st.Running != 0 || st.NoProvider != 3 {
			t.Errorf("Stats = %+v", st)
		}
		if len(w.clients) != 0 {
			t.Errorf("%d clients are remembered", len(w.clients))
		}
		w.Handle(a, &protocol.Message{Topic: protocol.TopicRPC, Action: protocol.RPCProvide, Names: []string{"add"}, Judged: 1})
		if st := w.Stats(); st.Providers != 0 {
			t.Error("a request that passed the door before was not judged again")
		}
	})
}

func TestAProviderWhoseUserChangedEndsAndOthersGoOn(t *testing.T) {
	inBubble(t, nil, func(w *world) {
		c, a, b := w.client(), w.provider(), w.provider()
		w.do(c, request, "x1", "")
		first := asked(t, a, b)
		second := a
		if first == a {
			second = b
		}
		if n := w.RejudgeClient(only("nobody"), c); n != 0 {
			t.Errorf("%d ended of a client that provides nothing", n)
		}
		if n := w.RejudgeClient(only("nobody"), first); n != 1 {
			t.Errorf("%d ended, want 1", n)
		}
		first.expect(t, provideEnded)
		second.expect(t, "REQUEST name=add id=x1")
		w.do(second, respond, "x1", "2")
		c.expect(t, end("RESPONSE", "x1")+" data=2")
	})
}
