package listen

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"hadal/cluster"
	"hadal/node/sub"
	"hadal/protocol"
)

func FuzzDecode(f *testing.F) {
	for op := range fieldsOf {
		if fieldsOf[op] != 0 {
			f.Add(appendEntry([]byte{format}, &entry{op: uint8(op), part: 1, epoch: 2, search: 3, number: 4, name: "r", ids: []patternID{idOf("r")}, flag: true}))
		}
	}
	f.Add([]byte{format, opWant, 1, 'r', 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		entries, err := decode(payload)
		if err != nil {
			return
		}
		b := []byte{format}
		for i := range entries {
			b = appendEntry(b, &entries[i])
		}
		again, err := decode(b)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(entries) {
			t.Fatalf("%v became %v, %v", entries, again, err)
		}
	})
}

// Whatever a peer sends, the registry stands, and when the peer has gone for good
// nothing of it is left.
func FuzzHear(f *testing.F) {
	var all []byte
	for _, op := range []uint8{opBegin, opWant, opProviding, opSynced, opJoined, opAsk, opAnswer, opCancel, opEnd, opLost, opUnwant, opForget} {
		all = appendEntry(all, &entry{op: op, epoch: 1, search: 1, name: "r", ids: []patternID{idOf("r")}, flag: op%2 == 0})
	}
	f.Add(all)
	f.Add(append(slices.Clone(all), all...))
	f.Fuzz(func(t *testing.T, entries []byte) {
		v := &view{self: "a", alive: map[string]bool{"a": true, "b": true}, owners: []cluster.Ownership{{Owner: "a", Epoch: 1}}, lease: true}
		r := New(protocol.TopicRecord, DefaultConfig(), sub.NewRegistry(), v, cluster.Alone{}, slog.New(slog.DiscardHandler))
		p := &fake{id: 1}
		r.Handle(p, &protocol.Message{Topic: protocol.TopicRecord, Action: recListen, Name: "r", Has: protocol.HasName})
		h := peerHandler{r}
		h.Up("b")
		for range 2 {
			h.Hear("b", append([]byte{format}, entries...))
			for r.catchUp(t.Context()) {
			}
		}
		h.Down("b")
		v.alive["b"] = false
		r.refresh()
		for r.catchUp(t.Context()) {
		}
		p.gone.Store(true)
		r.Closed(p)
		for _, j := range r.take() {
			r.do(t.Context(), j)
		}
		if len(r.names) > 0 || len(r.votes) > 0 || len(r.peers) > 0 {
			t.Errorf("%d names, %d patterns, %d peers are left", len(r.names), len(r.votes), len(r.peers))
		}
	})
}
