package record

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"hadal/auth"
	"hadal/protocol"
	"hadal/store"
)

// What one client can do to the others with few bytes.

func TestAConflictTellsOnlyThoseWhoMayRead(t *testing.T) {
	blind := func(u *auth.User, a protocol.Action, name, data, old string, exists bool) protocol.Action {
		if u.ID == "b" && a == protocol.RecordRead {
			return protocol.RecordMessageDenied
		}
		return 0
	}
	r := start(t, options{rules: rules(blind)})
	a, b := newClient("a"), newClient("b")
	say(t, r, a, `CREATEANDUPDATE r v=-1 data={"secret":1}`)
	for _, c := range []*client{a, b} {
		say(t, r, c, `UPDATE r v=1 data={} corr=1 ack`)
		say(t, r, c, `PATCH r v=1 path=x data=1`)
		say(t, r, c, `UPDATE r v=9 data={}`)
	}
	settle(t, r)
	wantHeard(t, "who may read", a,
		`VERSION_EXISTS name=r v=1 data={"secret":1} corr=1 of=UPDATE writeAck`,
		`VERSION_EXISTS name=r v=1 data={"secret":1} of=PATCH`,
		`INVALID_VERSION name=r v=1 data={} of=UPDATE error`)
	wantHeard(t, "who may only write", b,
		`MESSAGE_DENIED name=r corr=1 of=UPDATE error writeAck`,
		`MESSAGE_DENIED name=r of=PATCH error`,
		`MESSAGE_DENIED name=r of=UPDATE error`)
}

func TestAPatchOfVeryManyStepsIsRefused(t *testing.T) {
	r := start(t, options{})
	a := newClient("a")
	say(t, r, a, `CREATEANDUPDATE r v=-1 data={"big":"`+strings.Repeat("x", 900_000)+`"}`)
	steps := strings.Repeat(`{"path":"b","data":1},`, 10_000)
	say(t, r, a, `PATCH_MULTI r v=-1 data=[`+strings.TrimSuffix(steps, ",")+`] corr=1 ack`)
	say(t, r, a, `PATCH_MULTI small v=-1 data=[`+strings.TrimSuffix(steps, ",")+`] corr=2 ack`)
	say(t, r, a, `PATCH r v=-1 path=`+strings.Repeat("a.", 100)+`b data=1`)
	say(t, r, a, `PATCH small v=-1 path=`+strings.Repeat("a.", 100)+`b data=1 corr=4 ack`)
	settle(t, r)
	wantHeard(t, "a", a,
		`RECORD_UPDATE_ERROR name=r data="patch has too many steps for so large a record" corr=1 error writeAck`,
		`RECORD_UPDATE_ERROR name=r data="patch has too many steps for so large a record" error`,
		`WRITE_ACKNOWLEDGEMENT name=small corr=2 writeAck`,
		`WRITE_ACKNOWLEDGEMENT name=small corr=4 writeAck`)
}

// A client that takes no answers has few of them made: its reader is stopped
// before the owner has more to do for it.
func TestReadsUnderWayAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		var loads atomic.Int64
		slow := &faulty{Store: store.NewMemory(), onLoad: func(ctx context.Context, name string) error {
			loads.Add(1)
			<-held
			return nil
		}}
		r := start(t, options{store: slow})
		for name, ask := range map[string]func(c *client, i int){
			"reads":     func(c *client, i int) { say(t, r, c, fmt.Sprintf("READ x/%d", i)) },
			"conflicts": func(c *client, i int) { say(t, r, c, fmt.Sprintf("UPDATE y/%d v=1 data={}", i)) },
			"patches":   func(c *client, i int) { say(t, r, c, fmt.Sprintf("PATCH p/%d v=-1 path=x data=1", i)) },
			"lists":     func(c *client, i int) { say(t, r, c, fmt.Sprintf("SUBSCRIBEANDREAD names=z/%d", i)) },
		} {
			a := newClient("a")
			done, asked := make(chan struct{}), atomic.Int64{}
			go func() {
				defer close(done)
				for i := range 10 * laneHeavy {
					ask(a, i)
					asked.Add(1)
				}
			}()
			synctest.Wait()
			if got := asked.Load(); got > laneHeavy {
				t.Errorf("%s: %d were taken before the first was answered, want at most %d", name, got, laneHeavy)
			}
			held <- struct{}{} // one load
			synctest.Wait()
			if got := asked.Load(); got > laneHeavy+1 {
				t.Errorf("%s: %d were taken after one answer, want at most %d", name, got, laneHeavy+1)
			}
			release := make(chan struct{})
			go func() {
				for {
					select {
					case held <- struct{}{}:
					case <-release:
						return
					}
				}
			}()
			<-done
			synctest.Wait()
			if got := asked.Load(); got != 10*laneHeavy {
				t.Errorf("%s: %d were taken in the end, want all %d", name, got, 10*laneHeavy)
			}
			close(release)
		}
	})
}

// A list of very many names is no reason for others to wait: the owner is given
// a part of it at a time.
func TestAListOfManyNamesIsServedInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		slow := &faulty{Store: store.NewMemory(), onLoad: func(ctx context.Context, name string) error {
			if strings.HasPrefix(name, "many/") {
				<-held
			}
			return nil
		}}
		r := start(t, options{store: slow})
		a, b := newClient("a"), newClient("b")
		m := protocol.Message{Topic: protocol.TopicRecord, Action: protocol.RecordSubscribeAndHead, CorrelationID: "1", Has: protocol.HasCorrelationID}
		for i := range 20 * bulkPart {
			m.Names = append(m.Names, fmt.Sprintf("many/%d", i))
		}
		say(t, r, b, "CREATEANDUPDATE other v=-1 data={}")
		settle(t, r)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.Handle(a, &m)
		}()
		synctest.Wait()
		say(t, r, b, "READ other")
		synctest.Wait()
		wantHeard(t, "who came after the list", b, "READ_RESPONSE name=other v=1 data={}")
		close(held)
		<-done
		settle(t, r)
		got := a.heard()
		heads := 0
		for i, line := range got {
			if strings.HasPrefix(line, "HEAD_RESPONSE name=many/") {
				heads++
			}
			if strings.HasSuffix(line, " ack") && line != "SUBSCRIBEANDHEAD corr=1 ack" {
				t.Errorf("answer %d is %q", i, line)
			}
		}
		acks := len(slices.DeleteFunc(slices.Clone(got), func(line string) bool { return !strings.HasSuffix(line, " ack") }))
		if heads != 20*bulkPart || acks != 1 {
			t.Errorf("%d heads and %d acks, want %d and 1", heads, acks, 20*bulkPart)
		}
	})
}

// A client that has gone wants no more of its list: a node that stops would wait
// for it.
func TestAListIsGivenUpWithItsClient(t *testing.T) {
	for _, action := range []protocol.Action{
		protocol.RecordSubscribeCreateAndRead, protocol.RecordSubscribeAndHead, protocol.RecordSubscribe,
	} {
		t.Run(action.Name(protocol.TopicRecord), func(t *testing.T) {
			var loads atomic.Int64
			counting := &faulty{Store: store.NewMemory(), onLoad: func(context.Context, string) error {
				loads.Add(1)
				return nil
			}}
			r := start(t, options{store: counting})
			a := newClient("a")
			a.gone.Store(true)
			m := protocol.Message{Topic: protocol.TopicRecord, Action: action}
			for i := range 10 * bulkPart {
				m.Names = append(m.Names, fmt.Sprint("many/", i))
			}
			r.Handle(a, &m)
			settle(t, r)
			if got := loads.Load(); got > bulkPart {
				t.Errorf("%d of %d names were loaded for nobody, want at most %d", got, len(m.Names), bulkPart)
			}
		})
	}
}

func TestANotifyOfOneNameManyTimesIsOneNotify(t *testing.T) {
	r := start(t, options{})
	a, b := newClient("a"), newClient("b")
	say(t, r, a, "SUBSCRIBECREATEANDREAD names=r corr=0")
	settle(t, r)
	a.heard()
	say(t, r, b, "NOTIFY names=r,r,r,r corr=1")
	settle(t, r)
	wantHeard(t, "a", a, "UPDATE name=r v=0 data={}")
	wantHeard(t, "b", b, "NOTIFY names=r,r,r,r corr=1 ack")
}
