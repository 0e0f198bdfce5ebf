package record

import (
	"testing"
	"testing/synctest"
)

// A subscription that is under way when the subscribers of the name are told that it was
// deleted is one that the owner must not forget.
func TestASubscriptionUnderWayOutlivesTheWordThatTheRecordIsGone(t *testing.T) {
	synctest.Test(t, inASubscriptionUnderWayOutlivesTheWordThatTheRecordIsGone)
}

func inASubscriptionUnderWayOutlivesTheWordThatTheRecordIsGone(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "far"}})
	w.ready()
	near, first, second := newClient("near"), newClient("first"), newClient("second")
	say(t, w.room("owner"), near, `CREATEANDUPDATE r v=1 data={}`)
	settle(t, w.room("owner"))
	say(t, w.room("far"), first, `SUBSCRIBEANDREAD names=r corr=0`)
	w.settleAll()
	first.heard()
	w.cut("owner", "far", true)
	w.drain()
	say(t, w.room("owner"), near, `DELETE r`)
	settle(t, w.room("owner"))
	// What first knows is compared, and second asks before it has been.
	w.deafen("owner", "far", true)
	w.link("owner", "far")
	synctest.Wait()
	say(t, w.room("far"), second, `SUBSCRIBEANDREAD names=r corr=0`)
	synctest.Wait()
	w.deafen("owner", "far", false)
	w.settleAll()
	wantHeard(t, "first", first, `DELETED name=r`)
	wantHeard(t, "second", second, `SUBSCRIBEANDREAD names=r corr=0 ack`, `READ_RESPONSE name=r v=-1 data={}`)
	say(t, w.room("owner"), near, `CREATEANDUPDATE r v=1 data={"x":1}`)
	w.settleAll()
	wantHeard(t, "second", second, `UPDATE name=r v=1 data={"x":1}`)
	second.gone.Store(true)
	w.room("far").Closed(second)
	w.until("the owner forgot it", func() bool { return w.room("owner").Stats().Interests == 0 })
}

// Whoever was subscribed, and whose answer is lost, hears of no change before the answer
// that it gets in the end.
func TestASubscriberWhoseAnswerIsLostIsNoneUntilItIsAnswered(t *testing.T) {
	synctest.Test(t, inASubscriberWhoseAnswerIsLostIsNoneUntilItIsAnswered)
}

func inASubscriberWhoseAnswerIsLostIsNoneUntilItIsAnswered(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "far"}})
	w.ready()
	near, far, before := newClient("near"), newClient("far"), newClient("before")
	say(t, w.room("owner"), near, `CREATEANDUPDATE r v=1 data={}`)
	settle(t, w.room("owner"))
	say(t, w.room("far"), before, `SUBSCRIBEANDREAD names=r corr=0`)
	w.settleAll()
	before.heard()
	w.deafen("owner", "far", true)
	say(t, w.room("far"), far, `SUBSCRIBEANDREAD names=r corr=0`)
	say(t, w.room("far"), before, `SUBSCRIBEANDREAD names=r corr=1`)
	synctest.Wait()
	// What the owner says of the two arrives in part.
	s := w.room("far").seats()[0]
	s.mu.Lock()
	l, k := s.link, state{version: 1, data: "{}", exists: true}.knowledge()
	var ids []uint64
	for id := range s.sent {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		s.hear(l, &frame{kind: frameSubscribed, id: id, known: k})
	}
	if n := w.nodes["far"].subs.Stats().Subscriptions; n != 2 {
		t.Fatalf("%d subscriptions, want 2", n)
	}
	w.cut("owner", "far", true)
	w.deafen("owner", "far", false)
	w.drain()
	if n := w.nodes["far"].subs.Stats().Subscriptions; n != 1 {
		t.Errorf("%d subscriptions stand while one is answered, want that", n)
	}
	say(t, w.room("owner"), near, `PATCH r v=2 path=x data=1`)
	settle(t, w.room("owner"))
	w.link("owner", "far")
	w.ready()
	w.settleAll()
	if got := far.heard(); len(got) == 0 || got[len(got)-1] != `READ_RESPONSE name=r v=2 data={"x":1}` {
		t.Errorf("far heard %q", got)
	}
	if n := w.nodes["far"].subs.Stats().Subscriptions; n != 2 {
		t.Errorf("%d subscriptions at the end, want 2", n)
	}
}
