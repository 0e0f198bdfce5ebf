package record

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hadal/store"
)

// unheard is a store whose answers are lost while away is set: what it is given, it keeps.
type unheard struct {
	store.Store
	away   atomic.Bool
	unread atomic.Bool // loads fail
}

func (u *unheard) answer(err error) error {
	if u.away.Load() {
		return errors.New("no answer")
	}
	return err
}

func (u *unheard) Append(ctx context.Context, ops []store.Op) error {
	return u.answer(u.Store.Append(ctx, ops))
}

func (u *unheard) Fence(ctx context.Context, epoch uint64) error {
	if u.away.Load() {
		return u.answer(nil)
	}
	return u.Store.Fence(ctx, epoch)
}

func (u *unheard) Load(ctx context.Context, name string) (store.Record, error) {
	if u.unread.Load() {
		return store.Record{}, errors.New("block is corrupt")
	}
	return u.Store.Load(ctx, name)
}

// A write of which the owner gave up to learn whether it was made, and which was: nobody
// was told of it, and whatever comes next builds on it.
func TestSubscribersHearOfAWriteThatWasGivenUpAndMade(t *testing.T) {
	for _, tt := range []struct {
		name, lost, next  string
		behind            bool // next comes before anybody could look
		subscriber, after []string
	}{
		{
			name: "a patch", lost: `PATCH r v=1 path=a data=1`, next: `PATCH r v=2 path=b data=2`,
			subscriber: []string{`UPDATE name=r v=1 data={"a":1}`}, after: []string{`PATCH name=r v=2 path=b data=2`},
		},
		{
			name: "a deletion", lost: `DELETE r`, next: `CREATEANDUPDATE r v=1 data={}`,
			subscriber: []string{`DELETED name=r`},
		},
		{
			name: "a patch, and another before the first is found", lost: `PATCH r v=1 path=a data=1`, next: `PATCH r v=2 path=b data=2`, behind: true,
			after: []string{`UPDATE name=r v=2 data={"a":1,"b":2}`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var u *unheard
				w := startNet(t, netOptions{
					ids: []string{"owner", "far"},
					wrap: map[string]func(store.Store) store.Store{"owner": func(s store.Store) store.Store {
						u = &unheard{Store: s}
						return u
					}},
				})
				w.ready()
				near, far := newClient("near"), newClient("far")
				say(t, w.room("owner"), near, `SUBSCRIBECREATEANDREAD names=r,s corr=0`)
				say(t, w.room("far"), far, `SUBSCRIBECREATEANDREAD names=r,s corr=0`)
				w.settleAll()
				near.heard()
				far.heard()
				writer := newClient("writer")
				u.away.Store(true)
				say(t, w.room("owner"), writer, tt.lost)
				time.Sleep(holdTime)
				synctest.Wait()
				wantHeard(t, "near while the store is away", near)
				wantHeard(t, "far while the store is away", far)
				u.away.Store(false)
				u.unread.Store(tt.behind)
				time.Sleep(2 * time.Second) // the pause between two fences
				synctest.Wait()
				wantHeard(t, "near when it is back", near, tt.subscriber...)
				wantHeard(t, "far when it is back", far, tt.subscriber...)
				u.unread.Store(false)
				say(t, w.room("far"), writer, tt.next)
				w.settleAll()
				wantHeard(t, "near in the end", near, tt.after...)
				wantHeard(t, "far in the end", far, tt.after...)
			})
		})
	}
}
