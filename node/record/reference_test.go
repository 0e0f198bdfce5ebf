package record

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/protocol"
	"hadal/store"
)

// referring is a checker whose writes and reads of a name need other records: "a>b"
// may be read and written while the record b holds "yes".
type referring struct{ judged atomic.Int64 }

func (c *referring) Judge(_ *auth.User, a protocol.Action, name, data, old string, _ bool, known func(string) (string, bool, bool)) (protocol.Action, []string) {
	c.judged.Add(1)
	_, others, ok := strings.Cut(name, ">")
	if !ok || a == protocol.RecordCreate {
		return 0, nil
	}
	var wanted []string
	verdict := protocol.Action(0)
	for other := range strings.SplitSeq(others, "+") {
		data, _, there := "", false, false
		if known != nil {
			data, _, there = known(other)
		}
		switch {
		case !there:
			wanted = append(wanted, other)
		case !strings.Contains(data, "yes"):
			verdict = protocol.RecordMessageDenied
		}
	}
	return verdict, wanted
}

func (c *referring) ReadsRecord(_ protocol.Action, name string) bool {
	return strings.Contains(name, ">")
}

func TestARuleMayReferToOtherRecords(t *testing.T) {
	r := start(t, options{rules: &referring{}})
	a := newClient("a")
	say(t, r, a, `CREATEANDUPDATE b v=1 data={"say":"yes"}`)
	say(t, r, a, `CREATEANDUPDATE c v=1 data={"say":"no"}`)
	settle(t, r)
	say(t, r, a, `CREATEANDUPDATE x>b v=1 data={} corr=1 ack`)
	say(t, r, a, `READ x>b`)
	say(t, r, a, `CREATEANDUPDATE x>b+c v=1 data={} corr=2 ack`)
	say(t, r, a, `READ x>missing`)
	settle(t, r)
	say(t, r, a, `SUBSCRIBE names=x>b,y>c corr=3`)
	say(t, r, a, `SUBSCRIBEANDHEAD names=x>b,x>c corr=4`)
	say(t, r, a, `DELETE x>b`)
	settle(t, r)
	got := a.heard()
	for _, want := range []string{
		"WRITE_ACKNOWLEDGEMENT name=x>b corr=1 writeAck", "READ_RESPONSE name=x>b v=1 data={}",
		"MESSAGE_DENIED name=x>b+c corr=2 of=CREATEANDUPDATE error writeAck", "MESSAGE_DENIED name=x>missing of=READ error",
		"MESSAGE_DENIED name=y>c corr=3 of=SUBSCRIBE error", "SUBSCRIBE corr=3 ack", "SUBSCRIBEANDHEAD corr=4 ack",
		"MESSAGE_DENIED name=x>c corr=4 of=SUBSCRIBEANDHEAD error", "MULTIPLE_SUBSCRIPTIONS name=x>b of=SUBSCRIBEANDHEAD", "DELETE_SUCCESS name=x>b",
	} {
		n := 0
		for _, m := range got {
			if m == want {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q came %d times, want once; a heard\n\t%s", want, n, strings.Join(got, "\n\t"))
		}
	}
	settle(t, r) // after the end of the batch that answered the first
	if l := r.lane(a); l.used != 0 {
		t.Errorf("%d requests never left their lane", l.used)
	}
}

// Only the record whose rule waits is held back, and in order.
func TestOnlyTheRecordThatWaitsIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		s := &faulty{Store: store.NewMemory(), onLoad: func(_ context.Context, name string) error {
			if name == "slow" {
				<-held
			}
			return nil
		}}
		r := start(t, options{store: s, rules: &referring{}, cfg: func(c *Config) { c.StorageRetrievalTimeout = time.Minute }})
		a := newClient("a")
		say(t, r, a, `CREATEANDUPDATE slow v=1 data={"say":"yes"}`) // waits for its own load
		say(t, r, a, `CREATEANDUPDATE x>slow v=1 data={"n":1}`)
		say(t, r, a, `READ x>slow`)
		say(t, r, a, `CREATEANDUPDATE other v=1 data={} corr=1 ack`)
		synctest.Wait()
		wantHeard(t, "a", a, "WRITE_ACKNOWLEDGEMENT name=other corr=1 writeAck")
		close(held)
		settle(t, r)
		// For the first, slow was fetched as it was stored, whatever waits in its queue.
		wantHeard(t, "a", a, "MESSAGE_DENIED name=x>slow of=CREATEANDUPDATE error", "RECORD_NOT_FOUND name=x>slow of=READ error")
	})
}

func TestRecordsThatReferToEachOtherDoNotBlockEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// "p>q>p": the record p refers to q>p, and so on round.
		r := start(t, options{rules: cycle{}})
		a := newClient("a")
		for i := range 50 {
			say(t, r, a, fmt.Sprintf(`CREATEANDUPDATE one v=-1 data={"n":%d}`, i))
			say(t, r, a, fmt.Sprintf(`CREATEANDUPDATE two v=-1 data={"n":%d}`, i))
		}
		say(t, r, a, `CREATEANDUPDATE self v=1 data={} corr=9 ack`)
		settle(t, r)
		say(t, r, a, `READ one`)
		say(t, r, a, `READ two`)
		settle(t, r)
		wantHeard(t, "a", a, "WRITE_ACKNOWLEDGEMENT name=self corr=9 writeAck",
			`READ_RESPONSE name=one v=50 data={"n":49}`, `READ_RESPONSE name=two v=50 data={"n":49}`)
	})
}

// cycle has one and two refer to each other, and self to itself.
type cycle struct{}

func (cycle) Judge(_ *auth.User, _ protocol.Action, name, _, _ string, _ bool, known func(string) (string, bool, bool)) (protocol.Action, []string) {
	other := map[string]string{"one": "two", "two": "one", "self": "self"}[name]
	if known != nil {
		if _, _, ok := known(other); ok {
			return 0, nil
		}
	}
	return 0, []string{other}
}

func (cycle) ReadsRecord(protocol.Action, string) bool { return true }

// endless wants another record every time.
type endless struct{ n atomic.Int64 }

func (e *endless) Judge(*auth.User, protocol.Action, string, string, string, bool, func(string) (string, bool, bool)) (protocol.Action, []string) {
	return 0, []string{fmt.Sprintf("r/%d", e.n.Add(1))}
}

func (*endless) ReadsRecord(protocol.Action, string) bool { return true }

func TestARuleThatCannotBeJudgedIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &faulty{Store: store.NewMemory(), onLoad: func(ctx context.Context, name string) error {
			if name == "broken" {
				return errors.New("block is damaged")
			}
			time.Sleep(time.Second)
			return nil
		}}
		r := start(t, options{store: s, rules: &referring{}})
		a := newClient("a")
		say(t, r, a, `UPDATE x>broken v=1 data={} corr=1 ack`)
		settle(t, r)
		say(t, r, a, `READ x>broken`)
		settle(t, r)
		wantHeard(t, "a", a,
			"MESSAGE_PERMISSION_ERROR name=x>broken corr=1 of=UPDATE error writeAck",
			"MESSAGE_PERMISSION_ERROR name=x>broken of=READ error")
		r = start(t, options{store: s, rules: &endless{}})
		say(t, r, a, `READ x`)
		settle(t, r)
		wantHeard(t, "a", a, "MESSAGE_PERMISSION_ERROR name=x of=READ error")
	})
}

// A request that waits for a reference while its record is given up starts anew.
func TestAReferenceOutlivesAFailedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		held := make(chan struct{})
		s := &faulty{Store: store.NewMemory(), onLoad: func(_ context.Context, name string) error {
			if name == "b" {
				<-held
			}
			return nil
		}}
		s.onAppend = func([]store.Op) error {
			if full.Load() {
				time.Sleep(time.Second)
				return store.ErrFull
			}
			return nil
		}
		r := start(t, options{store: s, rules: &referring{}, cfg: func(c *Config) { c.StorageRetrievalTimeout = time.Minute }})
		a := newClient("a")
		full.Store(true)
		say(t, r, a, `CREATEANDUPDATE plain v=1 data={}`)
		say(t, r, a, `READ x>b`) // parked
		synctest.Wait()
		time.Sleep(2 * time.Second) // the commit has failed
		full.Store(false)
		close(held)
		settle(t, r)
		heard := strings.Join(a.heard(), "\n")
		if !strings.Contains(heard, "RECORD_UPDATE_ERROR name=plain") || strings.Count(heard, "MESSAGE_DENIED name=x>b of=READ error") != 1 {
			t.Errorf("a heard\n%s", heard)
		}
	})
}

func TestASnapshotWaitsForNoQueue(t *testing.T) {
	r := start(t, options{rules: cycle{}})
	a := newClient("a")
	say(t, r, a, `CREATEANDUPDATE one v=1 data={"n":1}`)
	settle(t, r)
	if data, exists, err := r.Snapshot(t.Context(), "one"); err != nil || !exists || data != `{"n":1}` {
		t.Errorf("Snapshot = %q, %v, %v", data, exists, err)
	}
	if _, exists, err := r.Snapshot(t.Context(), "none"); err != nil || exists {
		t.Errorf("Snapshot of nothing = %v, %v", exists, err)
	}
}
