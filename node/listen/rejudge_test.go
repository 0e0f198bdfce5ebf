package listen

import (
	"strings"
	"testing"

	"hadal/auth"
	"hadal/protocol"
)

// closed are rules that refuse patterns that begin with r.
type closed struct{}

func (closed) Generation() uint64 { return 2 }

func (closed) Refuse(_ *auth.User, t protocol.Topic, _ protocol.Action, name, _ string) protocol.Action {
	if strings.HasPrefix(name, "r") {
		return protocol.Denied(t)
	}
	return 0
}

func TestNewRulesEndListening(t *testing.T) {
	inRecords(t, func(w *world) {
		a, b, c := w.client(), w.client(), w.client()
		w.do(a, recListen, "r/.*")
		w.do(a, recListen, "s/.*")
		w.do(b, recListen, ".*")
		for _, name := range []string{"r/1", "r/2", "s/1"} {
			w.subscribe(c, name)
		}
		w.answer(a, recAccept, "r/.*", "r/1")
		w.answer(a, recAccept, "s/.*", "s/1")
		a.take() // r/2 is asked and not answered
		b.take()
		c.expect(t, has("r/1"), has("s/1"))
		kept := a.kept.Load()

		if n := w.Rejudge(closed{}); n != 1 {
			t.Errorf("%d ended, want 1", n)
		}
		a.expect(t, removed("r/.*", "r/1"), "RECORD MESSAGE_DENIED error")
		w.answer(a, recAccept, "r/.*", "r/2")
		w.subscribe(c, "r/3")
		a.expect(t)
		if got := b.take(); len(got) != 3 {
			t.Errorf("the other listener was asked %q, want r/1, r/2 and r/3", got)
		}
		c.expect(t, hasNo("r/1"))
		if w.HasProvider("r/1") || !w.HasProvider("s/1") {
			t.Error("the wrong listening ended")
		}
		if got := kept - a.kept.Load(); got != int64(weight("r/.*")) {
			t.Errorf("%d were given back, want %d", got, weight("r/.*"))
		}

		w.Handle(a, &protocol.Message{Topic: w.topic, Action: recListen, Name: "r/.*", Judged: 1})
		a.expect(t, "RECORD MESSAGE_DENIED error")
		w.Handle(a, &protocol.Message{Topic: w.topic, Action: recListen, Name: "t/.*", Has: protocol.HasName, Judged: 1})
		a.expect(t, ack("t/.*"))
		w.do(a, recUnlisten, "r/.*")
		a.expect(t, unack("r/.*"))
	})
}
