package record

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"hadal/auth"
	"hadal/protocol"
	"hadal/store"
)

// open are rules that do not matter: listening is not what is tested here.
type open struct{}

func (open) Generation() uint64 { return 2 }
func (open) Refuse(*auth.User, protocol.Topic, protocol.Action, string, string) protocol.Action {
	return 0
}

// owned allows all to everybody, until it is closed: then only those may read whose
// name is in the record.
type owned struct{ closed atomic.Bool }

func (o *owned) judge(u *auth.User, a protocol.Action, _, _, old string, _ bool) protocol.Action {
	if o.closed.Load() && a != protocol.RecordUpdate && !strings.Contains(old, u.ID) {
		return protocol.RecordMessageDenied
	}
	return 0
}

func rejudge(t *testing.T, r *Room) int {
	t.Helper()
	n, err := r.Rejudge(t.Context(), open{})
	if err != nil {
		t.Fatalf("Rejudge = %v", err)
	}
	return n
}

const lost = "MESSAGE_DENIED name=r of=SUBSCRIBECREATEANDREAD error"

func TestNewRulesEndSubscriptionsOnTheRecordItself(t *testing.T) {
	o := &owned{}
	// Nothing stays in memory, so that what the rule reads has to be loaded.
	r := start(t, options{rules: rules(o.judge), keep: func(k *KeepConfig) { k.CacheBytes = 0 }})
	ada, bob, cy := newClient("ada"), newClient("bob"), newClient("cy")
	for _, c := range []*client{ada, bob, cy} {
		say(t, r, c, "SUBSCRIBECREATEANDREAD names=r")
	}
	say(t, r, cy, `CREATEANDUPDATE r v=-1 data={"who":["ada"]}`)
	settle(t, r)
	for _, c := range []*client{ada, bob, cy} {
		c.heard()
	}
	o.closed.Store(true)
	if n := rejudge(t, r); n != 2 {
		t.Errorf("%d ended, want 2", n)
	}
	say(t, r, cy, `UPDATE r v=-1 data={"who":["ada"],"n":1}`)
	settle(t, r)
	wantHeard(t, "ada", ada, `UPDATE name=r v=2 data={"who":["ada"],"n":1}`)
	wantHeard(t, "bob", bob, lost)
	wantHeard(t, "cy", cy, lost)
	if n := rejudge(t, r); n != 0 {
		t.Errorf("%d ended the second time, want 0", n)
	}
}

func TestASubscriptionThatWaitsForItsCommitIsJudgedToo(t *testing.T) {
	o := &owned{}
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := &faulty{Store: store.NewMemory(), onAppend: func([]store.Op) error {
		close(begun)
		<-goOn
		return nil
	}}
	r := start(t, options{rules: rules(o.judge), store: s})
	bob := newClient("bob")
	say(t, r, bob, "SUBSCRIBECREATEANDREAD names=r")
	<-begun // it is created, and its subscription waits for that
	o.closed.Store(true)
	ended := make(chan int)
	go func() {
		n, err := r.Rejudge(t.Context(), open{})
		if err != nil {
			t.Errorf("Rejudge = %v", err)
		}
		ended <- n
	}()
	close(goOn)
	if n := <-ended; n != 1 {
		t.Errorf("%d ended, want 1", n)
	}
	if r.subs.Has("r") {
		t.Error("the subscription stands")
	}
}

func TestARecordThatCannotBeLoadedIsNotWatchedUnderNewRules(t *testing.T) {
	o := &owned{}
	var broken atomic.Bool
	s := &faulty{Store: store.NewMemory(), onLoad: func(context.Context, string) error {
		if broken.Load() {
			return errors.New("disk")
		}
		return nil
	}}
	r := start(t, options{rules: rules(o.judge), store: s, keep: func(k *KeepConfig) { k.CacheBytes = 0 }})
	ada := newClient("ada")
	say(t, r, ada, "SUBSCRIBECREATEANDREAD names=r")
	settle(t, r)
	ada.heard()
	broken.Store(true)
	if n := rejudge(t, r); n != 1 {
		t.Errorf("%d ended, want 1", n)
	}
	wantHeard(t, "ada", ada, lost)
}

func TestARejudgingEndsWithItsContextAndItsRoom(t *testing.T) {
	r := start(t, options{})
	c := newClient("c")
	var names []string
	for i := range 3 * bulkPart {
		names = append(names, fmt.Sprint("r", i))
	}
	say(t, r, c, "SUBSCRIBE names="+strings.Join(names, ","))
	settle(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Rejudge(ctx, open{}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Rejudge = %v", err)
	}
	if n := rejudge(t, r); n != 0 {
		t.Errorf("%d ended, want 0", n)
	}
	r.seats()[0].owner.Load().mail.stop(errStopped)
	if _, err := r.Rejudge(t.Context(), open{}); !errors.Is(err, errStopped) {
		t.Errorf("Rejudge = %v, want %v", err, errStopped)
	}
}

func TestASubscriptionWhoseRecordCannotBeLoadedIsNotJudgedWithoutIt(t *testing.T) {
	s := &faulty{Store: store.NewMemory(), onLoad: func(context.Context, string) error { return errors.New("disk") }}
	missing := rules(func(_ *auth.User, _ protocol.Action, _, _, _ string, exists bool) protocol.Action {
		if exists {
			return protocol.RecordMessageDenied
		}
		return 0
	})
	r := start(t, options{rules: missing, store: s})
	c := newClient("c")
	say(t, r, c, "SUBSCRIBE names=r corr=1")
	settle(t, r)
	wantHeard(t, "c", c, "RECORD_LOAD_ERROR name=r of=SUBSCRIBE error", "SUBSCRIBE corr=1 ack")
	if r.subs.Has("r") {
		t.Error("the subscription stands")
	}
}
