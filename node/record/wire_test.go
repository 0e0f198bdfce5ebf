package record

import (
	"reflect"
	"strings"
	"testing"

	"hadal/protocol"
)

// frames are one of each kind, with every field that it has.
func frames() []frame {
	m := protocol.Message{
		Topic: protocol.TopicRecord, Action: protocol.RecordPatch, Has: protocol.HasVersion | protocol.HasPath, IsAck: true, IsWriteAck: true,
		Version: -1, OriginalAction: protocol.RecordErase, CorrelationID: "7", Name: "r", Data: `{"x":1}`, Path: "x", Judged: 9,
		Names: []string{"a", ""}, Versions: []protocol.NameVersion{{Name: "b", Version: 3}},
	}
	name := protocol.Message{Name: "r"}
	hashed := knowledge{version: 4, exists: true, sure: true, whole: true, hash: 1 << 63}
	whole := knowledge{version: 4, exists: true, data: strings.Repeat("x", 300)}
	return []frame{
		{kind: frameUser, client: 1, user: "u", serverData: "{}", clientData: "1"},
		{kind: frameClosed, client: 1 << 60},
		{kind: frameTaken, bytes: 5},
		{kind: frameWhole, client: 2},
		{kind: frameLight, partition: 3, id: 1, epoch: 2, message: name},
		{kind: frameHeads, names: []string{"state/", ""}},
		{kind: frameRequest, partition: 3, id: 1, epoch: 2, client: 9, request: kindWrite, message: m},
		{kind: frameForget, partition: 3, id: 1, epoch: 2, message: name},
		{kind: frameResync, partition: 3, id: 1, epoch: 2, names: []string{"a", "b"}, knows: []knowledge{hashed, {}}},
		{kind: frameScan, partition: 3, id: 1, epoch: 2, data: true, prefix: "p"},
		{kind: frameMore, partition: 3, id: 1},
		{kind: frameStop, partition: 3, id: 1},
		{kind: frameAnswer, partition: 3, id: 1, message: m},
		{kind: frameSubscribed, partition: 3, id: 1, known: hashed},
		{kind: frameUnsubscribed, partition: 3, id: 1},
		{kind: frameDone, partition: 3, id: 1},
		{kind: frameMoved, partition: 3, id: 1, epoch: 4},
		{kind: frameRefused, partition: 3, id: 1},
		{kind: frameReply, partition: 3, id: 1, known: whole, failure: 2, text: "no"},
		{kind: frameUpdate, partition: 3, epoch: 4, client: 7, known: knowledge{hash: 5}, message: m, result: "{}"},
		{kind: frameDeleted, partition: 3, epoch: 4, client: 7, message: name},
		{kind: frameState, partition: 3, epoch: 4, message: name, known: whole},
		{kind: framePage, partition: 3, id: 1, data: true, last: true, text: "e", names: []string{"a"}, knows: []knowledge{whole}},
		{kind: framePage, partition: 3, id: 1, names: []string{"a", "b"}},
	}
}

func TestFramesArriveAsTheyWereSent(t *testing.T) {
	var payload []byte
	for _, f := range frames() {
		payload = appendFrame(payload, &f)
	}
	// A kind of a later version is skipped.
	payload = append(payload, 200, 2, 'x', 'y')
	var got []frame
	if err := eachFrame(string(payload), func(f *frame) error { got = append(got, *f); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := frames(); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	for n := range payload {
		// Cut off anywhere it is an error, or ends between two frames.
		count := 0
		if err := eachFrame(string(payload[:n]), func(*frame) error { count++; return nil }); err == nil && count >= len(got) && n < len(payload)-4 {
			t.Errorf("%d frames in %d bytes of %d", count, n, len(payload))
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, fr := range frames() {
		f.Add(string(appendFrame(nil, &fr)))
	}
	f.Fuzz(func(t *testing.T, payload string) {
		var again []byte
		var first []frame
		if err := eachFrame(payload, func(f *frame) error {
			again = appendFrame(again, f)
			first = append(first, *f)
			return nil
		}); err != nil || len(first) == 0 {
			return
		}
		var second []frame
		if err := eachFrame(string(again), func(f *frame) error { second = append(second, *f); return nil }); err != nil {
			t.Fatalf("%v in what was written from %q", err, payload)
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("%+v became %+v", first, second)
		}
	})
}
