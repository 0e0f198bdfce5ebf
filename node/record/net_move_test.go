package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/protocol"
	"hadal/store"
)

func TestAPartitionMovesWithoutAnError(t *testing.T) {
	synctest.Test(t, inAPartitionMovesWithoutAnError)
}

func inAPartitionMovesWithoutAnError(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"a", "b", "c"}, lag: func() time.Duration { return 200 * time.Microsecond }})
	w.ready()
	here := newClient("here")
	say(t, w.room("a"), here, `SUBSCRIBECREATEANDREAD names=r corr=0`)
	watcher := newClient("watcher")
	say(t, w.room("c"), watcher, `SUBSCRIBEANDREAD names=r corr=0`)
	w.settleAll()
	here.heard()
	watcher.heard()
	const n = 300
	var wg sync.WaitGroup
	writers := map[string]*client{}
	for _, id := range []string{"a", "b", "c"} {
		c := newClient(id)
		writers[id] = c
		wg.Go(func() {
			for i := range n {
				say(t, w.room(id), c, fmt.Sprintf(`PATCH r v=-1 path=%s data=%d corr=%d ack`, id, i, i))
			}
		})
	}
	wg.Go(func() {
		for i := range 9 {
			w.until("some writes are done", func() bool { return writers["a"].count() > i*n/10 })
			w.move([]string{"b", "c", "a"}[i%3], 0)
		}
	})
	wg.Wait()
	w.settleAll()
	w.ready()
	w.compared()
	w.settleAll()
	for id, c := range writers {
		got := c.heard()
		for i, line := range got {
			if want := fmt.Sprintf("WRITE_ACKNOWLEDGEMENT name=r corr=%d writeAck", i); line != want {
				t.Fatalf("%s heard %q as answer %d, want %q", id, line, i, want)
			}
		}
		if len(got) != n {
			t.Errorf("%s heard %d answers, want %d", id, len(got), n)
		}
	}
	// Each subscriber has seen versions rise, and the last state.
	reader := newClient("reader")
	say(t, w.room("b"), reader, `READ r`)
	w.settleAll()
	last := reader.heard()
	if want := fmt.Sprintf(`READ_RESPONSE name=r v=%d data={"a":%d,"b":%d,"c":%d}`, 3*n, n-1, n-1, n-1); len(last) != 1 || !sameFields(last[0], want) {
		t.Fatalf("the record is %q, want %q", last, want)
	}
	for who, c := range map[string]*client{"here": here, "watcher": watcher} {
		checkRising(t, who, c.messages(), 3*n)
	}
}

// sameFields says whether two lines are the same but for the order of characters: the
// fields of a record are in the order in which they came.
func sameFields(a, b string) bool {
	sorted := func(s string) string { r := []rune(s); slices.Sort(r); return string(r) }
	return sorted(a) == sorted(b)
}

// messages are what came since the last call.
func (c *client) messages() []protocol.Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

// checkRising wants versions that never fall and end with last, none of them left out
// but where an UPDATE says all.
func checkRising(t *testing.T, who string, got []protocol.Message, last int) {
	t.Helper()
	version := int32(-1)
	for _, m := range got {
		switch {
		case m.Version < version:
			t.Errorf("%s heard of version %d after %d", who, m.Version, version)
		case version >= 0 && m.Version > version+1 && m.Action != protocol.RecordUpdate:
			t.Logf("%s heard %s of version %d after %d", who, m.Action.Name(protocol.TopicRecord), m.Version, version)
		}
		version = m.Version
	}
	if version != int32(last) {
		t.Errorf("%s heard of version %d last, want %d", who, version, last)
	}
}

func TestAPausedOwnerAnswersNothingStale(t *testing.T) {
	synctest.Test(t, inAPausedOwnerAnswersNothingStale)
}

func inAPausedOwnerAnswersNothingStale(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"old", "new", "c"}})
	w.ready()
	c, d := newClient("c"), newClient("d")
	say(t, w.room("old"), c, `CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`)
	w.settleAll()
	wantHeard(t, "c", c, "WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck")
	// The old owner learns nothing any more, and has no lease.
	w.freeze("old", true)
	w.lease("old", false)
	w.move("new", 0)
	w.until("the new owner serves", func() bool { return w.room("new").seats()[0].owner.Load() != nil })
	say(t, w.room("new"), d, `UPDATE r v=2 data={"x":2} corr=1 ack`)
	settle(t, w.room("new"))
	wantHeard(t, "d", d, "WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck")
	say(t, w.room("old"), c, `READ r`)
	say(t, w.room("old"), c, `HEAD r`)
	say(t, w.room("old"), c, `UPDATE r v=2 data={"x":9} corr=2 ack`)
	say(t, w.room("old"), c, `DELETE none`)
	w.until("requests were refused", func() bool { return c.count() >= 4 })
	for _, line := range c.heard() {
		if !strings.Contains(line, "ERROR") {
			t.Errorf("an owner without a lease answered %q", line)
		}
	}
	// Then it learns, and asks the new one.
	w.freeze("old", false)
	w.ready()
	say(t, w.room("old"), c, `READ r`)
	w.settleAll()
	wantHeard(t, "c", c, `READ_RESPONSE name=r v=2 data={"x":2}`)
}

// A deposed owner that still thinks it holds the lease is stopped by the store, and what
// it could not write is written by the next.
func TestADeposedOwnersWritesAreMadeByTheNext(t *testing.T) {
	synctest.Test(t, inADeposedOwnersWritesAreMadeByTheNext)
}

func inADeposedOwnersWritesAreMadeByTheNext(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"old", "new"}})
	w.ready()
	c := newClient("c")
	say(t, w.room("old"), c, `SUBSCRIBECREATEANDREAD names=r corr=0`)
	w.settleAll()
	c.heard()
	w.freeze("old", true)
	w.move("new", 0)
	w.until("the new owner serves", func() bool { return w.room("new").seats()[0].owner.Load() != nil })
	for i := range 20 {
		say(t, w.room("old"), c, fmt.Sprintf(`PATCH r v=-1 path=x data=%d corr=%d ack`, i, i))
	}
	say(t, w.room("old"), c, `READ r`)
	w.freeze("old", false)
	w.ready()
	w.settleAll()
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("WRITE_ACKNOWLEDGEMENT name=r corr=%d writeAck", i))
	}
	want = append(want, `READ_RESPONSE name=r v=20 data={"x":19}`)
	got := c.heard()
	if len(got) > 0 && got[0] == "UPDATE name=r v=0 data={}" {
		got = got[1:] // the next owner was not told what the subscriber knows
	}
	if !slices.Equal(got, want) {
		t.Errorf("c heard\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestAWriteWhoseOutcomeIsUnknownIsNotMadeTwice(t *testing.T) {
	synctest.Test(t, inAWriteWhoseOutcomeIsUnknownIsNotMadeTwice)
}

func inAWriteWhoseOutcomeIsUnknownIsNotMadeTwice(t *testing.T) {
	release := make(chan struct{})
	var began atomic.Bool
	hang := func(st store.Store) store.Store {
		return &faulty{Store: st, onAppend: func([]store.Op) error {
			began.Store(true)
			<-release
			return errors.New("no answer")
		}}
	}
	w := startNet(t, netOptions{ids: []string{"old", "new"}, wrap: map[string]func(store.Store) store.Store{"old": hang}})
	w.ready()
	c, d := newClient("c"), newClient("d")
	say(t, w.room("old"), c, `CREATEANDPATCH r v=-1 path=c data=1 corr=1 ack`)
	w.until("an append is under way", began.Load)
	say(t, w.room("new"), d, `CREATEANDPATCH r v=-1 path=d data=1 corr=1 ack`) // in the next batch
	say(t, w.room("new"), d, `READ r`)
	w.until("it is with the owner", func() bool { return w.room("old").Stats().Received >= 2 })
	w.move("new", 0)
	w.until("the old owner knows", func() bool { return w.room("old").seats()[0].losing() })
	close(release)
	w.settleAll()
	wantHeard(t, "c", c, `RECORD_UPDATE_ERROR name=r data="`+errUnknown.Error()+`" corr=1 error writeAck`)
	wantHeard(t, "d", d, "WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck", `READ_RESPONSE name=r v=1 data={"d":1}`)
}

func TestALinkThatIsLostIsRepaired(t *testing.T) { synctest.Test(t, inALinkThatIsLostIsRepaired) }

func inALinkThatIsLostIsRepaired(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "far"}})
	w.ready()
	far, near := newClient("far"), newClient("near")
	say(t, w.room("owner"), near, `CREATEANDUPDATE gone v=1 data={}`)
	say(t, w.room("owner"), near, `CREATEANDUPDATE same v=1 data={}`)
	say(t, w.room("owner"), near, `CREATEANDUPDATE r v=1 data={}`)
	say(t, w.room("owner"), near, `CREATEANDUPDATE again v=1 data={"x":1}`)
	settle(t, w.room("owner"))
	say(t, w.room("far"), far, `SUBSCRIBEANDREAD names=r,gone,same,again,missing corr=0`)
	w.settleAll()
	far.heard()
	near.heard()
	w.cut("owner", "far", true)
	w.drain()
	say(t, w.room("owner"), near, `UPDATE r v=2 data={"x":2}`)
	say(t, w.room("owner"), near, `UPDATE r v=3 data={"x":3}`)
	say(t, w.room("owner"), near, `DELETE gone`)
	say(t, w.room("owner"), near, `DELETE again`)
	say(t, w.room("owner"), near, `CREATEANDUPDATE again v=1 data={"x":2}`) // the same version, and another record
	settle(t, w.room("owner"))
	say(t, w.room("far"), far, `READ same`) // waits for the link
	w.link("owner", "far")
	w.ready()
	w.settleAll()
	w.until("the resync is over", func() bool { return far.count() >= 4 })
	w.settleAll()
	got := far.heard()
	slices.Sort(got)
	want := []string{`DELETED name=gone`, `READ_RESPONSE name=same v=1 data={}`, `UPDATE name=again v=1 data={"x":2}`, `UPDATE name=r v=3 data={"x":3}`}
	if !slices.Equal(got, want) {
		t.Errorf("far heard\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	// And all goes on.
	say(t, w.room("owner"), near, `PATCH r v=4 path=y data=1`)
	say(t, w.room("owner"), near, `CREATEANDUPDATE missing v=1 data={}`)
	say(t, w.room("owner"), near, `CREATEANDUPDATE gone v=1 data={}`)
	w.settleAll()
	wantHeard(t, "far", far, `PATCH name=r v=4 path=y data=1`, `UPDATE name=missing v=1 data={}`)
}

func TestWritesUnderWayWhenALinkIsLostAreUnknownAndReadsAreAskedAgain(t *testing.T) {
	synctest.Test(t, inWritesUnderWayWhenALinkIsLostAreUnknownAndReadsAreAskedAgain)
}

func inWritesUnderWayWhenALinkIsLostAreUnknownAndReadsAreAskedAgain(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "far"}})
	w.ready()
	w.deafen("owner", "far", true)
	c := newClient("c")
	say(t, w.room("far"), c, `CREATEANDUPDATE r v=-1 data={"x":1} corr=1 ack`)
	say(t, w.room("far"), c, `READ r`)
	say(t, w.room("far"), c, `DELETE s`)
	say(t, w.room("far"), c, `SUBSCRIBE names=r corr=2`)
	w.cut("owner", "far", false)
	w.deafen("owner", "far", false)
	w.drain()
	w.link("owner", "far")
	w.settleAll()
	w.settleAll()
	// The owner had heard it all, in time for the second READ.
	wantHeard(t, "c", c, `RECORD_UPDATE_ERROR name=r data="`+errUnknown.Error()+`" corr=1 error writeAck`, `RECORD_DELETE_ERROR name=s`,
		`READ_RESPONSE name=r v=1 data={"x":1}`, `SUBSCRIBE corr=2 ack`)
}

func TestAMinorityRefusesInTime(t *testing.T) { synctest.Test(t, inAMinorityRefusesInTime) }

func inAMinorityRefusesInTime(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "alone"}})
	w.ready()
	c := newClient("c")
	say(t, w.room("alone"), c, `SUBSCRIBECREATEANDREAD names=r corr=0`)
	w.settleAll()
	c.heard()
	w.cut("owner", "alone", true)
	w.drain()
	began := time.Now()
	for _, line := range []string{`READ r`, `HEAD r`, `UPDATE r v=1 data={} corr=1 ack`, `DELETE r`, `SUBSCRIBEANDHEAD names=r,s corr=2`, `UNSUBSCRIBE names=none corr=3`} {
		say(t, w.room("alone"), c, line)
	}
	w.until("all is answered", func() bool { return c.count() >= 8 })
	if took := time.Since(began); took < holdTime-100*time.Millisecond {
		t.Errorf("refused after %v already", took)
	}
	got := c.heard()
	slices.Sort(got)
	want := []string{
		`RECORD_DELETE_ERROR name=r`,
		`RECORD_LOAD_ERROR name=r of=HEAD error`, `RECORD_LOAD_ERROR name=r of=READ error`,
		`RECORD_LOAD_ERROR name=r of=SUBSCRIBEANDHEAD error`, `RECORD_LOAD_ERROR name=s of=SUBSCRIBEANDHEAD error`,
		`RECORD_UPDATE_ERROR name=r data="` + errNoOwner.Error() + `" corr=1 error writeAck`, `SUBSCRIBEANDHEAD corr=2 ack`, `UNSUBSCRIBE corr=3 ack`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("c heard\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	if w.room("alone").Ready() == nil {
		t.Error("a node without an owner in reach is ready")
	}
	if !w.nodes["alone"].subs.Has("r") {
		t.Error("the subscription does not stand")
	}
}

func TestInterestEndsWithTheLastSubscriber(t *testing.T) {
	synctest.Test(t, inInterestEndsWithTheLastSubscriber)
}

func inInterestEndsWithTheLastSubscriber(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "far"}})
	w.ready()
	interests := func() int64 { return w.room("owner").Stats().Interests }
	a, b := newClient("a"), newClient("b")
	say(t, w.room("far"), a, `SUBSCRIBECREATEANDREAD names=r,s corr=0`)
	say(t, w.room("far"), b, `SUBSCRIBE names=r corr=0`)
	w.settleAll()
	if n := interests(); n != 2 {
		t.Errorf("%d interests, want 2", n)
	}
	say(t, w.room("far"), a, `UNSUBSCRIBE names=r corr=1`)
	w.settleAll()
	if n := interests(); n != 2 {
		t.Errorf("%d interests with a subscriber of each, want 2", n)
	}
	b.gone.Store(true)
	w.room("far").Closed(b)
	w.until("the owner forgot it", func() bool { return interests() == 1 })
	say(t, w.room("far"), a, `DELETE s`)
	w.settleAll()
	if n := interests(); n != 0 {
		t.Errorf("%d interests after the record went", n)
	}
	if n := len(w.room("far").seats()[0].known); n != 0 {
		t.Errorf("%d names known", n)
	}
}

func TestSubscriptionsThatComeAndGoNeverMissTheLastState(t *testing.T) {
	synctest.Test(t, inSubscriptionsThatComeAndGoNeverMissTheLastState)
}

func inSubscriptionsThatComeAndGoNeverMissTheLastState(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "far"}})
	w.ready()
	writer := newClient("writer")
	say(t, w.room("owner"), writer, `CREATEANDUPDATE r v=1 data={}`)
	settle(t, w.room("owner"))
	const n = 200
	var clients []*client
	var wg sync.WaitGroup
	for i := range 4 {
		c := newClient(fmt.Sprint(i))
		clients = append(clients, c)
		wg.Go(func() {
			for j := range n {
				say(t, w.room("far"), c, fmt.Sprintf(`SUBSCRIBEANDREAD names=r corr=%d`, j))
				if j < n-1 {
					say(t, w.room("far"), c, fmt.Sprintf(`UNSUBSCRIBE names=r corr=%d`, j))
				}
			}
		})
	}
	wg.Go(func() {
		for i := range n {
			say(t, w.room("owner"), writer, fmt.Sprintf(`UPDATE r v=%d data={"x":%d}`, i+2, i))
		}
	})
	wg.Wait()
	w.settleAll()
	say(t, w.room("owner"), writer, fmt.Sprintf(`UPDATE r v=%d data={"x":"last"}`, n+2))
	w.settleAll()
	for i, c := range clients {
		version, subscribed := int32(0), 0
		for _, m := range c.messages() {
			switch m.Action {
			case protocol.RecordReadResponse, protocol.RecordUpdate:
				if m.Version < version {
					t.Errorf("client %d heard of %d after %d", i, m.Version, version)
				}
				version = m.Version
			case protocol.RecordSubscribeAndRead, protocol.RecordUnsubscribe:
				subscribed++
			default:
				t.Errorf("client %d heard %s", i, text(&m))
			}
		}
		if version != n+2 || subscribed != 2*n-1 {
			t.Errorf("client %d heard of %d last, and %d acks", i, version, subscribed)
		}
	}
}

func TestPartsOfABulkGoToTheirOwners(t *testing.T) { synctest.Test(t, inPartsOfABulkGoToTheirOwners) }

func inPartsOfABulkGoToTheirOwners(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"a", "b", "c"}, partitions: 6})
	w.move("b", 2, 3)
	w.move("c", 4, 5)
	w.ready()
	c := newClient("c")
	names := count("bulk/%d", 300)
	say(t, w.room("a"), c, "SUBSCRIBECREATEANDREAD corr=0 names="+strings.Join(names, ","))
	say(t, w.room("a"), c, "SUBSCRIBEANDHEAD corr=1 names="+strings.Join(names, ","))
	say(t, w.room("a"), c, "NOTIFY corr=2 names="+strings.Join(names, ","))
	say(t, w.room("a"), c, "UNSUBSCRIBE corr=3 names="+strings.Join(names, ","))
	w.settleAll()
	seen := map[string]int{}
	for _, m := range c.messages() {
		seen[m.Action.Name(protocol.TopicRecord)+fmt.Sprint(m.IsAck)]++
		if m.Action == protocol.RecordHeadResponseBulk {
			seen["heads"] += len(m.Versions)
		}
	}
	heads := seen["heads"] + seen["HEAD_RESPONSEfalse"]
	if seen["READ_RESPONSEfalse"] != 300 || heads != 300 || seen["UPDATEfalse"] != 300 || seen["MULTIPLE_SUBSCRIPTIONSfalse"] != 300 ||
		seen["SUBSCRIBECREATEANDREADtrue"] != 1 || seen["SUBSCRIBEANDHEADtrue"] != 1 || seen["NOTIFYtrue"] != 1 || seen["UNSUBSCRIBEtrue"] != 1 {
		t.Errorf("c heard %v", seen)
	}
	for _, id := range []string{"a", "b", "c"} {
		if n := w.nodes[id].subs.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions stand at %s", n, id)
		}
		if n := w.room(id).Stats().Interests; n != 0 {
			t.Errorf("%d interests at %s", n, id)
		}
	}
	// The operator sees all of them from anywhere.
	for _, id := range []string{"a", "b", "c"} {
		got := map[string]int{}
		if err := w.room(id).Names(t.Context(), "bulk/", func(name string) error { got[name]++; return nil }); err != nil {
			t.Fatalf("Names at %s = %v", id, err)
		}
		if len(got) != 300 {
			t.Errorf("%d names at %s", len(got), id)
		}
		whole := 0
		if err := w.room(id).Scan(t.Context(), "bulk/", func(rec store.Record) error {
			if rec.Data != "" {
				whole++
			}
			return nil
		}); err != nil || whole != 300 {
			t.Errorf("Scan at %s = %v, %d records", id, err, whole)
		}
		if _, err := w.room(id).Set(t.Context(), "bulk/7", `{"by":"operator"}`); err != nil {
			t.Error(err)
		}
		if rec, err := w.room(id).Get(t.Context(), "bulk/7"); err != nil || rec.Data != `{"by":"operator"}` {
			t.Errorf("Get = %+v, %v", rec, err)
		}
	}
	if err := w.room("c").Delete(t.Context(), "bulk/7"); err != nil {
		t.Error(err)
	}
	if _, err := w.room("a").Get(t.Context(), "bulk/7"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get = %v after Delete", err)
	}
	stop := errors.New("enough")
	if err := w.room("b").Scan(t.Context(), "", func(store.Record) error { return stop }); err != stop {
		t.Errorf("Scan = %v, want what its function said", err)
	}
}

func TestANodeThatStopsHandsNothingUndoneAway(t *testing.T) {
	synctest.Test(t, inANodeThatStopsHandsNothingUndoneAway)
}

func inANodeThatStopsHandsNothingUndoneAway(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"a", "b"}})
	w.ready()
	c := newClient("c")
	const n = 200
	for i := range n {
		say(t, w.room("b"), c, fmt.Sprintf(`CREATEANDPATCH r v=-1 path=x data=%d corr=%d ack`, i, i))
	}
	w.move("b", 0) // what a drain begins with
	w.until("it has moved", func() bool {
		return w.room("a").seats()[0].owner.Load() == nil && w.room("b").seats()[0].owner.Load() != nil
	})
	w.nodes["a"].stop()
	<-w.nodes["a"].ended
	w.cut("a", "b", false)
	w.settleAll2("b")
	got := c.heard()
	if len(got) != n {
		t.Fatalf("c heard %d answers, want %d", len(got), n)
	}
	acked := 0
	for _, line := range got {
		if strings.HasPrefix(line, "WRITE_ACK") {
			acked++
		}
	}
	rec, err := w.room("b").Get(t.Context(), "r")
	if err != nil || acked != n || int(rec.Version) != acked {
		t.Errorf("%d acknowledged, version %d, %v", acked, rec.Version, err)
	}
}

// settleAll2 is settleAll of one node.
func (w *net) settleAll2(id string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.room(id).Flush(ctx); err != nil {
		w.t.Fatalf("Flush of %s = %v", id, err)
	}
}

func (s *seat) losing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isLost
}

// What a peer does not take is not made, and other peers do not wait for it.
func TestAnswersToAPeerThatTakesNothingAreBounded(t *testing.T) {
	synctest.Test(t, inAnswersToAPeerThatTakesNothingAreBounded)
}

func inAnswersToAPeerThatTakesNothingAreBounded(t *testing.T) {
	w := startNet(t, netOptions{ids: []string{"owner", "slow", "quick"}})
	w.ready()
	writer, quick := newClient("writer"), newClient("quick")
	say(t, w.room("owner"), writer, `CREATEANDUPDATE r v=1 data={"x":"`+strings.Repeat("x", 1<<19)+`"}`)
	settle(t, w.room("owner"))
	w.deafen("slow", "owner", true)
	const n = 100
	slow := newClient("slow")
	for range n {
		say(t, w.room("slow"), slow, `READ r`)
	}
	e := w.ear("slow", "owner")
	waiting := func() int {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.bytes
	}
	w.until("the window is full", func() bool { return waiting() > linkWindow })
	say(t, w.room("quick"), quick, `READ r`)
	settle(t, w.room("quick"))
	if got := quick.count(); got != 1 {
		t.Errorf("quick heard %d answers", got)
	}
	if got := waiting(); got > linkWindow+4<<20 {
		t.Errorf("%d bytes are under way, want about %d", got, linkWindow)
	}
	w.deafen("slow", "owner", false)
	settle(t, w.room("slow"))
	if got := slow.count(); got != n {
		t.Errorf("slow heard %d answers, want %d", got, n)
	}
}
