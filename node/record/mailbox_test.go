package record

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"hadal/protocol"
)

func TestLanesAreServedInTurn(t *testing.T) {
	m := newMailbox(true)
	put := func(l *lane, who string, n int) {
		for i := range n {
			if err := m.put(l, &request{name: fmt.Sprintf("%s%d", who, i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	flood, other, third := newLane(), newLane(), newLane()
	put(flood, "f", 10*turn)
	put(other, "o", 2*laneTurn)
	put(third, "t", 1)
	var order []string
	for _, r := range m.take(nil) {
		order = append(order, r.name)
	}
	if len(order) != turn {
		t.Fatalf("%d requests at once, want %d", len(order), turn)
	}
	for who, latest := range map[string]int{"o0": laneTurn, "o63": 3*laneTurn + 1 + laneTurn, "t0": 2 * laneTurn} {
		if at := slices.Index(order, who); at < 0 || at > latest {
			t.Errorf("%s was served at %d, want no later than %d", who, at, latest)
		}
	}
	// Each lane keeps its order, and nothing is lost.
	next := map[byte]int{}
	for all := order; len(all) > 0; {
		for _, name := range all {
			if want := fmt.Sprintf("%c%d", name[0], next[name[0]]); name != want {
				t.Fatalf("%s came where %s was next", name, want)
			}
			next[name[0]]++
		}
		all = nil
		for _, r := range m.take(nil) {
			all = append(all, r.name)
		}
	}
	if next['f'] != 10*turn || next['o'] != 2*laneTurn || next['t'] != 1 {
		t.Errorf("served %v", next)
	}
	if m.bytes != 0 {
		t.Errorf("an empty mailbox counts %d bytes", m.bytes)
	}
}

func TestAFullMailboxHoldsSendersUntilThereIsSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMailbox(true)
		large := &request{data: strings.Repeat("x", mailboxBytes)}
		if err := m.put(newLane(), large); err != nil {
			t.Fatal(err)
		}
		done, refused := false, error(nil)
		go func() {
			refused = m.put(newLane(), &request{})
			done = true
		}()
		synctest.Wait()
		if done {
			t.Fatal("a full mailbox took more")
		}
		m.take(nil)
		synctest.Wait()
		if !done || refused != nil {
			t.Fatalf("done %v, %v after there was space", done, refused)
		}
		if err := m.put(newLane(), large); err != nil {
			t.Fatal(err)
		}
		go func() { refused = m.put(newLane(), &request{}) }()
		synctest.Wait()
		m.stop(errStopped)
		synctest.Wait()
		if refused != errStopped {
			t.Errorf("put = %v after the end", refused)
		}
	})
}

// What a client may have under way is bounded in bytes too, and all of it is given
// back when it is answered.
func TestALaneIsBoundedAndGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane()
		large := func() *request { return &request{kind: kindNotify, data: strings.Repeat("x", laneBytes/2)} }
		first, second, third := large(), large(), large()
		l.enter([]*request{first}) // alone it may be larger than it should
		entered := false
		go func() {
			l.enter([]*request{second})
			entered = true
		}()
		synctest.Wait()
		if entered {
			t.Fatal("the lane took more bytes than it should")
		}
		first.leave()
		synctest.Wait()
		if !entered {
			t.Fatal("the lane did not take what fits")
		}
		second.leave()
		l.enter([]*request{third})
		third.leave()
		if l.used != 0 || l.bytes != 0 || l.heavy != 0 {
			t.Errorf("an empty lane counts %d requests, %d bytes, %d heavy", l.used, l.bytes, l.heavy)
		}
	})
}

func TestEveryRequestLeavesItsLane(t *testing.T) {
	r := start(t, options{})
	a := newClient("a")
	for _, line := range []string{
		`CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`, `UPDATE r v=1 data={"x":1} corr=2 ack`, `PATCH r v=-1 path=x data=2`,
		`READ r`, `HEAD none`, `SUBSCRIBE names=r,s corr=3`, `SUBSCRIBEANDHEAD names=r,t corr=4`, `SUBSCRIBECREATEANDREAD names=u,v corr=5`,
		`SUBSCRIBEANDREAD names=r,w corr=6`, `NOTIFY names=r,t corr=7`, `UNSUBSCRIBE names=r,s corr=8`, `DELETE r`, `PATCH none v=3 path=x data=2`,
	} {
		say(t, r, a, line)
	}
	settle(t, r)
	settle(t, r) // after the end of the batch that answered the first
	if l := r.lane(a); l.used != 0 || l.bytes != 0 || l.heavy != 0 {
		t.Errorf("when all is answered the lane counts %d requests, %d bytes, %d heavy", l.used, l.bytes, l.heavy)
	}
	r.Closed(a)
	settle(t, r)
	if _, there := r.lanes.Load(a.ID()); there {
		t.Error("the lane outlives its client")
	}
}

// Readers of one large record share the bytes of the answer.
func TestLargeAnswersAreShared(t *testing.T) {
	r := start(t, options{})
	a := newClient("a")
	data := `{"x":"` + strings.Repeat("x", sharedSize) + `"}`
	say(t, r, a, `CREATEANDUPDATE r v=1 corr=1 ack data=`+data)
	say(t, r, a, `READ r`)
	say(t, r, a, `SUBSCRIBEANDREAD names=r corr=2`)
	settle(t, r)
	say(t, r, a, `UPDATE r v=2 data=`+strings.Replace(data, "x", "y", 1))
	say(t, r, a, `READ r`)
	settle(t, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.shared) != 3 || a.shared[0] != a.shared[1] || a.shared[1] == a.shared[2] {
		t.Fatalf("%d answers were shared: %p", len(a.shared), a.shared)
	}
	if o := a.shared[2]; o.Version != 2 || o.Action != protocol.RecordReadResponse || o.Topic != protocol.TopicRecord {
		t.Errorf("the last answer is %+v", o.Message)
	}
}
