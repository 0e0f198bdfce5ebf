package record

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"hadal/protocol"
	"hadal/store"
)

// blindly are rules that allow everything without a look at any record.
type blindly struct{ rules }

func (blindly) ReadsRecord(protocol.Action, string) bool { return false }

// watchMissing has a client at a node subscribe to a record that does not exist.
func watchMissing(t *testing.T, w *net, id, name string) *client {
	t.Helper()
	c := newClient("watch" + id)
	say(t, w.room(id), c, `SUBSCRIBEANDREAD names=`+name+` corr=0`)
	w.settleAll()
	if got := c.heard(); len(got) != 2 || !slices.Contains(got, `READ_RESPONSE name=`+name+` v=-1 data={}`) {
		t.Fatalf("a subscriber of a missing record heard %s", strings.Join(got, ", "))
	}
	return c
}

// Whoever is subscribed to a record that is not there yet stays so, and hears of no
// deletion, however often the owner changes, and though nothing of it is in memory.
func TestSubscribersOfAMissingRecordHearOfNoDeletionWhenTheOwnerChanges(t *testing.T) {
	for name, bytes := range map[string]int64{"in memory": 1 << 20, "forgotten": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := startNet(t, netOptions{
					ids: []string{"a", "b", "c"}, options: options{
						keep: func(k *KeepConfig) { k.CacheBytes = bytes }, rules: blindly{},
					},
				})
				w.ready()
				atA, atC := watchMissing(t, w, "a", "r"), watchMissing(t, w, "c", "r")
				blind := newClient("blind") // never asks what is there
				say(t, w.room("a"), blind, `SUBSCRIBE names=blind corr=0`)
				w.settleAll()
				wantHeard(t, "who does not look", blind, `SUBSCRIBE corr=0 ack`)
				for _, owner := range []string{"b", "a", "c", "a"} {
					w.move(owner, 0)
					w.until("the new owner serves", func() bool { return w.room(owner).seats()[0].owner.Load() != nil })
					w.ready()
					w.settleAll()
					w.compared()
					w.settleAll()
				}
				wantHeard(t, "the subscriber at a", atA)
				wantHeard(t, "the subscriber at c", atC)
				wantHeard(t, "who does not look", blind)
				say(t, w.room("b"), newClient("writer"), `CREATEANDUPDATE blind v=1 data={"x":2}`)
				say(t, w.room("b"), newClient("writer"), `CREATEANDUPDATE r v=1 data={"x":1}`)
				w.settleAll()
				wantHeard(t, "the subscriber at a in the end", atA, `UPDATE name=r v=1 data={"x":1}`)
				wantHeard(t, "the subscriber at c in the end", atC, `UPDATE name=r v=1 data={"x":1}`)
				wantHeard(t, "who does not look, in the end", blind, `UPDATE name=blind v=1 data={"x":2}`)
			})
		})
	}
}

// A creation that ends with its owner, and was not made, has been told to nobody.
func TestACreationThatWasNotMadeIsNoDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var began atomic.Bool
		w := startNet(t, netOptions{ids: []string{"old", "new"}, wrap: map[string]func(store.Store) store.Store{
			"old": func(st store.Store) store.Store {
				return &faulty{Store: st, onAppend: func([]store.Op) error {
					began.Store(true)
					<-release
					return errors.New("no answer")
				}}
			},
		}})
		w.ready()
		watcher, writer := watchMissing(t, w, "old", "r"), newClient("writer")
		say(t, w.room("old"), writer, `CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`)
		w.until("an append is under way", began.Load)
		w.move("new", 0)
		w.until("the old owner knows", func() bool { return w.room("old").seats()[0].losing() })
		close(release)
		w.ready()
		w.settleAll()
		w.compared()
		w.settleAll()
		wantHeard(t, "the writer", writer, `RECORD_UPDATE_ERROR name=r data="`+errUnknown.Error()+`" corr=1 error writeAck`)
		wantHeard(t, "the subscriber", watcher)
		say(t, w.room("new"), writer, `CREATEANDUPDATE r v=1 data={"x":2}`)
		w.settleAll()
		wantHeard(t, "the subscriber in the end", watcher, `UPDATE name=r v=1 data={"x":2}`)
	})
}
