package record

import (
	"context"
	"testing"

	"hadal/store"
)

// knowingStore is a store that knows at once what there is not.
type knowingStore struct{ faulty }

func (k *knowingStore) Lacks(name string) bool {
	_, err := k.Store.Load(context.Background(), name)
	return err != nil
}

func TestWhatTheStoreKnowsToBeMissingIsNotLoaded(t *testing.T) {
	loaded := make(chan string, 8)
	st := &knowingStore{faulty{Store: store.NewMemory(), onLoad: func(_ context.Context, name string) error {
		loaded <- name
		return nil
	}}}
	r := start(t, options{store: st, keep: func(k *KeepConfig) { k.CacheBytes = 0 }})
	a := newClient("a")
	hear := func(want ...string) {
		t.Helper()
		settle(t, r)
		wantHeard(t, "a", a, want...)
	}
	say(t, r, a, `READ r`)
	hear(`RECORD_NOT_FOUND name=r of=READ error`)
	say(t, r, a, `CREATEANDUPDATE r v=1 data={"x":1} corr=1 ack`)
	hear(`WRITE_ACKNOWLEDGEMENT name=r corr=1 writeAck`)
	say(t, r, a, `CREATEANDPATCH q v=1 path=x data=1 corr=2 ack`)
	hear(`WRITE_ACKNOWLEDGEMENT name=q corr=2 writeAck`)
	say(t, r, a, `DELETE p`)
	hear(`DELETE_SUCCESS name=p`)
	say(t, r, a, `SUBSCRIBECREATEANDREAD names=s corr=0`)
	hear(`SUBSCRIBECREATEANDREAD names=s corr=0 ack`, `READ_RESPONSE name=s v=0 data={}`)
	if n := len(loaded); n != 0 {
		t.Errorf("%d records were loaded, the first is %q, want none", n, <-loaded)
	}
	// What has left memory is there all the same.
	say(t, r, a, `READ r`)
	hear(`READ_RESPONSE name=r v=1 data={"x":1}`)
	if n := len(loaded); n != 1 {
		t.Errorf("%d records were loaded, want one", n)
	}
}
