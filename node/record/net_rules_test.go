package record

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/auth"
	"hadal/protocol"
	"hadal/store"
)

// A node that becomes the owner tells its own subscribers what they have missed.
func TestANewOwnerRepairsItsOwnSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startNet(t, netOptions{ids: []string{"old", "new"}})
		w.ready()
		far, near := newClient("far"), newClient("near")
		for _, name := range []string{"changed", "same", "gone", "again"} {
			say(t, w.room("old"), near, `CREATEANDUPDATE `+name+` v=1 data={"x":1}`)
		}
		settle(t, w.room("old"))
		say(t, w.room("new"), far, `SUBSCRIBEANDREAD names=changed,same,gone,again,missing corr=0`)
		w.settleAll()
		far.heard()
		w.cut("old", "new", true)
		w.drain()
		say(t, w.room("old"), near, `UPDATE changed v=2 data={"x":2}`)
		say(t, w.room("old"), near, `DELETE gone`)
		say(t, w.room("old"), near, `DELETE again`)
		say(t, w.room("old"), near, `CREATEANDUPDATE again v=1 data={"x":2}`)
		settle(t, w.room("old"))
		w.move("new", 0)
		w.until("the new owner serves", func() bool { return w.room("new").seats()[0].owner.Load() != nil })
		w.settleAll()
		got := far.heard()
		slices.Sort(got)
		want := []string{`DELETED name=gone`, `UPDATE name=again v=1 data={"x":2}`, `UPDATE name=changed v=2 data={"x":2}`}
		if !slices.Equal(got, want) {
			t.Errorf("far heard\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		// And back: the former owner's subscribers too.
		say(t, w.room("new"), near, `SUBSCRIBE names=nothing corr=1`)
		w.link("old", "new")
		w.ready()
		w.settleAll()
		near.heard()
		say(t, w.room("old"), near, `SUBSCRIBEANDREAD names=changed corr=2`)
		w.settleAll()
		wantHeard(t, "near", near, `SUBSCRIBEANDREAD names=changed corr=2 ack`, `READ_RESPONSE name=changed v=2 data={"x":2}`)
		say(t, w.room("new"), far, `DELETE changed`)
		say(t, w.room("new"), far, `CREATEANDUPDATE changed v=1 data={"x":3}`)
		w.settleAll()
		wantHeard(t, "near", near, `DELETED name=changed`)
	})
}

// Who asks is judged where the owner is, on the record and on others of other owners.
func TestRulesOfRemoteRequestsMayReferToOtherPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startNet(t, netOptions{ids: []string{"a", "b", "c"}, partitions: 6, options: options{rules: crossing{}}})
		w.move("b", 2, 3)
		w.move("c", 4, 5)
		w.ready()
		room := w.room("a")
		ada := newClient("ada")
		ada.user = &auth.User{ID: "ada", ServerData: `{"admin":true}`}
		bob := newClient("bob")
		for i := range 20 {
			say(t, room, ada, fmt.Sprintf(`CREATEANDUPDATE doc/%d v=1 data={} corr=%d ack`, i, i))
		}
		w.settleAll()
		if got := ada.heard(); len(got) != 20 || !strings.HasPrefix(got[0], "WRITE_ACK") {
			t.Fatalf("ada heard %q", got)
		}
		for i := range 20 {
			say(t, room, bob, fmt.Sprintf(`READ doc/%d`, i)) // there is no key yet
		}
		w.settleAll()
		for _, line := range bob.heard() {
			if !strings.HasPrefix(line, "MESSAGE_DENIED") {
				t.Errorf("bob heard %q", line)
			}
		}
		for i := range 20 {
			say(t, room, ada, fmt.Sprintf(`CREATEANDUPDATE key/doc/%d v=1 data={}`, i))
		}
		w.settleAll()
		for i := range 20 {
			say(t, room, bob, fmt.Sprintf(`READ doc/%d`, i))
		}
		w.settleAll()
		got := bob.heard()
		if len(got) != 20 {
			t.Errorf("bob heard %d answers", len(got))
		}
		for _, line := range got {
			if !strings.HasPrefix(line, "READ_RESPONSE") {
				t.Errorf("bob heard %q", line)
			}
		}
		say(t, room, bob, "SUBSCRIBE corr=1 names="+strings.Join(count("doc/%d", 20), ","))
		w.settleAll()
		bob.heard()
		if n := w.nodes["a"].subs.Stats().Subscriptions; n != 20 {
			t.Errorf("%d subscriptions stand", n)
		}
		// Without their keys they end.
		for i := range 10 {
			say(t, room, ada, fmt.Sprintf(`DELETE key/doc/%d`, i))
		}
		w.settleAll()
		if n, err := room.Rejudge(t.Context(), open{}); err != nil || n != 10 {
			t.Errorf("Rejudge = %d, %v, want 10", n, err)
		}
		w.settleAll()
		if got := bob.heard(); len(got) != 10 || !strings.HasPrefix(got[0], "MESSAGE_DENIED") {
			t.Errorf("bob heard %q", got)
		}
		if n := w.nodes["a"].subs.Stats().Subscriptions; n != 10 {
			t.Errorf("%d subscriptions stand, want 10", n)
		}
		interests := int64(0)
		for _, id := range []string{"b", "c"} {
			interests += w.room(id).Stats().Interests
		}
		here := int64(0)
		for name := range w.nodes["a"].subs.Names {
			if room.table.Owner(room.partition(name)).Here {
				here++
			}
		}
		if interests+here != 10 {
			t.Errorf("%d interests elsewhere, %d names here, want 10", interests, here)
		}
	})
}

// crossing lets administrators do everything, and others what concerns a record that
// has a key.
type crossing struct{}

func (crossing) Judge(u *auth.User, _ protocol.Action, name, _, _ string, _ bool, known func(string) (string, bool, bool)) (protocol.Action, []string) {
	if strings.Contains(u.ServerData, "admin") {
		return 0, nil
	}
	key := "key/" + name
	if known == nil {
		return 0, []string{key}
	}
	_, exists, is := known(key)
	switch {
	case !is:
		return 0, []string{key}
	case !exists:
		return protocol.RecordMessageDenied, nil
	}
	return 0, nil
}

func (crossing) ReadsRecord(protocol.Action, string) bool { return true }

// Requests wait while a partition is taken over, and no longer than they should.
func TestRequestsWaitForATakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		flaky := func(st store.Store) store.Store {
			return &faulty{Store: st, onFence: func() error {
				if broken.Load() {
					return errors.New("no leader")
				}
				return nil
			}}
		}
		w := startNet(t, netOptions{ids: []string{"a", "b"}, wrap: map[string]func(store.Store) store.Store{"b": flaky}})
		w.ready()
		broken.Store(true)
		w.move("b", 0)
		time.Sleep(100 * time.Millisecond)
		x, y := newClient("x"), newClient("y")
		for room, c := range map[string]*client{"a": x, "b": y} {
			say(t, w.room(room), c, `CREATEANDPATCH r v=-1 path=`+c.user.ID+` data=1 corr=1 ack`)
			say(t, w.room(room), c, `HEAD none`)
		}
		time.Sleep(time.Second)
		if n := x.count() + y.count(); n != 0 {
			t.Errorf("%d answers before there is an owner", n)
		}
		broken.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		for who, c := range map[string]*client{"x": x, "y": y} {
			got := c.heard() // of two records, in any order
			slices.Sort(got)
			if want := []string{`HEAD_RESPONSE name=none v=-1`, `WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck`}; !slices.Equal(got, want) {
				t.Errorf("%s heard %q, want %q", who, got, want)
			}
		}
		broken.Store(true)
		w.move("a", 0)
		w.ready()
		w.move("b", 0)
		time.Sleep(100 * time.Millisecond)
		for room, c := range map[string]*client{"a": x, "b": y} {
			say(t, w.room(room), c, `CREATEANDPATCH r v=-1 path=`+c.user.ID+` data=2 corr=2 ack`)
			say(t, w.room(room), c, `HEAD none`)
		}
		time.Sleep(5 * time.Second)
		for who, c := range map[string]*client{"x": x, "y": y} {
			got := c.heard()
			slices.Sort(got)
			if want := []string{`RECORD_LOAD_ERROR name=none of=HEAD error`, `RECORD_UPDATE_ERROR name=r data="` + errNoOwner.Error() + `" corr=2 error writeAck`}; !slices.Equal(got, want) {
				t.Errorf("%s heard %q, want %q", who, got, want)
			}
		}
		broken.Store(false)
	})
}

func TestRequestsWaitForALeaseThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startNet(t, netOptions{ids: []string{"owner", "far"}})
		w.ready()
		c, d := newClient("c"), newClient("d")
		say(t, w.room("owner"), c, `CREATEANDUPDATE r v=1 data={}`)
		w.settleAll()
		w.lease("owner", false)
		say(t, w.room("owner"), c, `READ r`)
		say(t, w.room("far"), d, `READ r`)
		time.Sleep(time.Second)
		if n := c.count() + d.count(); n != 0 {
			t.Errorf("%d answers without a lease", n)
		}
		w.lease("owner", true)
		time.Sleep(time.Second)
		wantHeard(t, "c", c, `READ_RESPONSE name=r v=1 data={}`)
		wantHeard(t, "d", d, `READ_RESPONSE name=r v=1 data={}`)
		w.lease("owner", false)
		say(t, w.room("owner"), c, `READ r`)
		say(t, w.room("far"), d, `READ r`)
		time.Sleep(3 * time.Second)
		wantHeard(t, "c", c, `RECORD_LOAD_ERROR name=r of=READ error`)
		wantHeard(t, "d", d, `RECORD_LOAD_ERROR name=r of=READ error`)
		if w.room("owner").Ready() == nil {
			t.Error("an owner that refuses is ready")
		}
		w.lease("owner", true)
		time.Sleep(time.Second)
		say(t, w.room("far"), d, `READ r`)
		w.settleAll()
		wantHeard(t, "d", d, `READ_RESPONSE name=r v=1 data={}`)
	})
}

// A peer that does not keep to the rules harms itself at most.
func TestAPeerThatMisbehavesIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startNet(t, netOptions{ids: []string{"owner", "far"}, partitions: 2})
		w.ready()
		room := w.room("owner")
		hear := func(f frame) { room.Hear("far", appendFrame(nil, &f)) }
		write := protocol.Message{Action: protocol.RecordCreateAndUpdate, Name: "r", Version: -1, Data: "{}", Has: protocol.HasVersion}
		p := room.partition("r")
		room.Hear("far", []byte("garbage"))
		room.Hear("nobody", []byte{wireVersion})
		hear(frame{kind: frameRequest, partition: p, id: 1, epoch: 1, client: 5, request: kind(wireOf[kindWrite]), message: write})
		hear(frame{kind: frameUser, client: 5, user: "u"})
		hear(frame{kind: frameRequest, partition: 1 - p, id: 2, epoch: 1, client: 5, request: kind(wireOf[kindWrite]), message: write})
		hear(frame{kind: frameRequest, partition: 99, id: 3, epoch: 1, client: 5, request: kind(wireOf[kindWrite]), message: write})
		hear(frame{kind: frameRequest, partition: p, id: 4, epoch: 1, client: 5, request: kindFlush, message: write})
		bad := write
		bad.Data = "{"
		hear(frame{kind: frameRequest, partition: p, id: 5, epoch: 1, client: 5, request: kind(wireOf[kindWrite]), message: bad})
		hear(frame{kind: frameAnswer, partition: p, id: 6, message: write})
		hear(frame{kind: frameUpdate, partition: p, epoch: 1, message: write})
		hear(frame{kind: frameTaken, bytes: 1<<64 - 1})
		settle(t, room)
		if n := room.Stats().Writes; n != 0 {
			t.Errorf("%d writes were accepted", n)
		}
		// More than a client may have under way, while nothing is served.
		w.lease("owner", false)
		for i := range 3 * laneWidth {
			hear(frame{kind: frameRequest, partition: p, id: uint64(100 + i), epoch: 1, client: 5, request: kind(wireOf[kindHead]), message: protocol.Message{Action: protocol.RecordHead, Name: "r"}})
		}
		l := room.linkTo("far").clients[5].lane
		l.mu.Lock()
		if l.used != 2*laneWidth {
			t.Errorf("%d requests are under way, want %d", l.used, 2*laneWidth)
		}
		l.mu.Unlock()
		w.lease("owner", true)
		settle(t, room)
		hear(frame{kind: frameRequest, partition: p, id: 7, epoch: 1, client: 5, request: kind(wireOf[kindWrite]), message: write})
		settle(t, room)
		if n := room.Stats().Writes; n != 1 {
			t.Errorf("%d writes were accepted, want 1", n)
		}
		hear(frame{kind: frameClosed, client: 5})
	})
}

func FuzzHear(f *testing.F) {
	for _, fr := range frames() {
		f.Add(appendFrame(nil, &fr))
	}
	user := appendFrame(nil, &frame{kind: frameUser, client: 5, user: "u"})
	for k := range wireKinds {
		f.Add(appendFrame(slices.Clone(user), &frame{
			kind: frameRequest, id: 9, epoch: 1, client: 5, request: kind(k),
			message: protocol.Message{Action: protocol.RecordUpdate, Name: "r", Data: "{}", Version: -1, Has: protocol.HasVersion},
		}))
	}
	w := startNet(f, netOptions{ids: []string{"owner", "far"}})
	w.ready()
	here := newClient("here")
	say(f, w.room("far"), here, "SUBSCRIBECREATEANDREAD names=r,s corr=0")
	w.settleAll()
	f.Fuzz(func(t *testing.T, payload []byte) {
		// Both ends: the owner hears a client's node, and that the owner.
		w.ear("owner", "far").say(func() { w.room("owner").Hear("far", payload) })
		w.ear("far", "owner").say(func() { w.room("far").Hear("owner", payload) })
		w.drain()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.room("owner").Flush(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// A node that is alone with its data does not start when it cannot take it over.
func TestAPartitionThatNobodyElseCouldTakeOverEndsTheRoom(t *testing.T) {
	no := errors.New("no")
	r := newRoom(options{store: &faulty{Store: store.NewMemory(), onFence: func() error { return no }}})
	if err := r.Run(t.Context()); !errors.Is(err, no) || !strings.Contains(err.Error(), "take over records") {
		t.Errorf("Run = %v", err)
	}
	if err := r.Flush(t.Context()); err != errStopped {
		t.Errorf("Flush = %v after the end", err)
	}
}

// A comparison with very many large records does not burst the link.
func TestAResyncOfLargeRecordsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startNet(t, netOptions{ids: []string{"owner", "far"}})
		w.ready()
		near, far := newClient("near"), newClient("far")
		names := count("large/%d", 200)
		for _, name := range names {
			say(t, w.room("owner"), near, `CREATEANDUPDATE `+name+` v=1 data={}`)
		}
		w.settleAll()
		say(t, w.room("far"), far, `SUBSCRIBEANDREAD corr=1 names=`+strings.Join(names, ","))
		w.settleAll()
		far.messages()
		w.cut("owner", "far", true)
		w.drain()
		data := `{"x":"` + strings.Repeat("x", 1<<18) + `"}`
		for _, name := range names {
			say(t, w.room("owner"), near, `UPDATE `+name+` v=2 data=`+data)
		}
		settle(t, w.room("owner"))
		w.link("owner", "far")
		e := w.ear("far", "owner")
		w.until("the link is up", func() bool { return w.room("far").Ready() == nil })
		w.deafen("far", "owner", true)
		time.Sleep(time.Second)
		e.mu.Lock()
		if e.bytes > linkWindow+4<<20 {
			t.Errorf("%d bytes are under way", e.bytes)
		}
		e.mu.Unlock()
		w.deafen("far", "owner", false)
		time.Sleep(time.Second)
		w.settleAll()
		got := map[string]int32{}
		for _, m := range far.messages() {
			got[m.Name] = m.Version
		}
		for _, name := range names {
			if got[name] != 2 {
				t.Errorf("far heard of version %d of %s", got[name], name)
			}
		}
	})
}

// Names that are kept in memory only are gone with their owner, and it is said.
func TestExcludedNamesEndWithTheirOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startNet(t, netOptions{ids: []string{"a", "b"}, options: options{cfg: func(c *Config) { c.StorageExclusionPrefixes = []string{"tmp/"} }}})
		w.ready()
		c, d := newClient("c"), newClient("d")
		say(t, w.room("b"), c, `SUBSCRIBECREATEANDREAD names=tmp/x corr=0`)
		say(t, w.room("a"), d, `SUBSCRIBEANDREAD names=tmp/x corr=0`)
		w.settleAll()
		c.heard()
		d.heard()
		w.move("b", 0)
		w.ready()
		w.settleAll()
		w.compared()
		w.settleAll()
		wantHeard(t, "c", c, "DELETED name=tmp/x")
		wantHeard(t, "d", d, "DELETED name=tmp/x")
	})
}

// A client whose user changes is judged by what it is now, also where others own the
// records, and what it asks stays in order.
func TestAUserThatChangedIsJudgedAnewOnEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startNet(t, netOptions{ids: []string{"a", "b"}, partitions: 4, options: options{rules: crossing{}}})
		w.move("b", 0, 1)
		w.ready()
		room, names := w.room("a"), count("doc/%d", 20)
		ada, other := newClient("ada"), newClient("other")
		guest := ada.user
		ada.user = &auth.User{ID: "ada", ServerData: `{"admin":true}`}
		other.user = ada.user
		for _, name := range names {
			say(t, room, ada, "CREATEANDUPDATE "+name+" v=1 data={}")
		}
		say(t, room, ada, "SUBSCRIBE corr=1 names="+strings.Join(names, ","))
		say(t, room, other, "SUBSCRIBE corr=1 names="+strings.Join(names, ","))
		w.settleAll()
		ada.heard()
		ada.user = guest
		if n, err := room.RejudgeClient(t.Context(), open{}, ada); err != nil || n != 20 {
			t.Errorf("RejudgeClient = %d, %v, want 20", n, err)
		}
		w.settleAll()
		ada.heard()
		if n := w.nodes["a"].subs.Stats().Subscriptions; n != 20 {
			t.Errorf("%d subscriptions stand, want the other client's 20", n)
		}
		read := func(want string) {
			t.Helper()
			for _, name := range names {
				say(t, room, ada, "READ "+name)
			}
			w.settleAll()
			got := ada.heard()
			if len(got) != len(names) {
				t.Errorf("ada heard %d answers", len(got))
			}
			for _, line := range got {
				if !strings.HasPrefix(line, want) {
					t.Errorf("ada heard %q, want %s", line, want)
				}
			}
		}
		read("MESSAGE_DENIED")
		ada.user = other.user
		read("READ_RESPONSE")
	})
}
