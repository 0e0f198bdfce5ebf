package protocol

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The examples of spec 01 §2, byte for byte.
var specExamples = []struct {
	name  string
	frame string
	want  Message
}{
	{"accept", "06 10 02 1a 02 08 04", Message{Topic: TopicConnection, Action: ConnectionAccept}},
	{"login without data", "06 10 03 1a 02 08 03", Message{Topic: TopicAuth, Action: AuthAuthSuccessful}},
	{"unknown topic", "06 10 01 1a 02 08 01", Message{Topic: TopicParser, Action: ParserUnknownTopic}},
	{"subscription ack", "0b 10 04 1a 07 08 03 1a 01 37 28 01", Message{
		Topic: TopicEvent, Action: EventSubscribe, Has: HasCorrelationID, CorrelationID: "7", IsAck: true,
	}},
	{"login", "1a 10 03 1a 16 08 02 12 12 7b22757365726e616d65223a226a6f65227d", Message{
		Topic: TopicAuth, Action: AuthRequest, Has: HasData, Data: `{"username":"joe"}`,
	}},
	{"challenge", "3f 10 02 1a 3b 08 05 2a 1e" + hex.EncodeToString([]byte("ws://localhost:6020/deepstream")) +
		"32 04 302e3161 3a 05 372e302e35 42 0a 6a617661736372697074", Message{
		Topic: TopicConnection, Action: ConnectionChallenge, URL: "ws://localhost:6020/deepstream",
		ProtocolVersion: "0.1a", SDKVersion: "7.0.5", SDKType: "javascript",
	}},
}

func TestSpecExamplesReadAndWriteToTheByte(t *testing.T) {
	for _, tt := range specExamples {
		t.Run(tt.name, func(t *testing.T) {
			frame := unhex(t, tt.frame)
			var got Message
			if err := Decode(frame, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Decode = %+v, want %+v", got, tt.want)
			}
			if b := Append(nil, &tt.want); string(b) != string(frame) {
				t.Errorf("Append = %x, want %x", b, frame)
			}
			if n := Size(&tt.want); n != len(frame) {
				t.Errorf("Size = %d, want %d", n, len(frame))
			}
		})
	}
}

func TestBrokenFramesAreRefused(t *testing.T) {
	tests := []struct {
		name  string
		frame string
		want  error
	}{
		{"empty", "", ErrTruncated},
		{"length that does not end", "ff", ErrTruncated},
		{"length longer than a frame can be", "ffffffffffffffffff01 10 04", ErrTruncated},
		{"length of more than 64 bits", "ffffffffffffffffffff01", ErrMalformed},
		{"less than announced", "07 10 02 1a 02 08 04", ErrTruncated},
		{"envelope of nothing", "00", ErrTopic},
		{"topic missing", "04 1a 02 08 04", ErrTopic},
		{"topic 0", "06 10 00 1a 02 08 04", ErrTopic},
		{"topic STATE_REGISTRY", "06 10 0b 1a 02 08 04", ErrTopic},
		{"topic ERROR", "06 10 64 1a 02 08 04", ErrTopic},
		{"topic 260 is not EVENT", "07 10 8402 1a 02 08 04", ErrTopic},
		{"topic -1", "0f 10 ffffffffffffffffff01 1a 02 08 04", ErrTopic},
		{"topic without a value", "01 10", ErrTruncated},
		{"inner message shorter than announced", "06 10 04 1a 03 08 04", ErrTruncated},
		{"action without a value", "05 10 04 1a 01 08", ErrTruncated},
		{"text longer than the message", "07 10 04 1a 03 32 05 61", ErrTruncated},
		{"text without a length", "05 10 04 1a 01 32", ErrTruncated},
		{"field number 0", "06 10 04 1a 02 00 01", ErrMalformed},
		{"group that is not closed", "05 10 04 1a 01 7b", ErrTruncated},
		{"group that was not opened", "05 10 04 1a 01 7c", ErrMalformed},
		{"wire type 7", "05 10 04 1a 01 7f", ErrMalformed},
		{"unknown field cut short", "06 10 04 1a 02 7a 05", ErrTruncated},
		{"unknown field of the envelope cut short", "02 22 05", ErrTruncated},
		{"name that is not UTF-8", "07 10 04 1a 03 32 01 ff", ErrUTF8},
		{"half a character at the end of a name", "0d 10 04 1a 09 32 07 616263646566 c3", ErrUTF8},
		{"surrogate in one of the names", "0c 10 05 1a 08 3a 01 61 3a 03 eda080", ErrUTF8},
		{"data that is not UTF-8", "0f 10 05 1a 0b 12 09 6162636465666768 ff", ErrUTF8},
		{"name in versions that is not UTF-8", "09 10 05 1a 05 72 03 0a 01 ff", ErrUTF8},
		{"version in versions cut short", "07 10 05 1a 03 72 01 10", ErrTruncated},
		{"name in versions cut short", "08 10 05 1a 04 72 02 0a 01", ErrTruncated},
		{"unknown field in versions cut short", "08 10 05 1a 04 72 02 1a 01", ErrTruncated},
		{"entry of versions cut short", "06 10 05 1a 02 72 05", ErrTruncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Message{Topic: TopicRPC, Name: "left over", Names: []string{"a"}}
			if err := Decode(unhex(t, tt.frame), &m); !errors.Is(err, tt.want) {
				t.Errorf("Decode = %v, want %v", err, tt.want)
			}
			if !same(m, Message{}) {
				t.Errorf("after the error the message is %+v, want none", m)
			}
		})
	}
}

func TestOddFramesAreRead(t *testing.T) {
	tests := []struct {
		name  string
		frame string
		want  Message
	}{
		{"a second envelope is ignored", "06 10 02 1a 02 08 04 06 10 02 1a 02 08 05",
			Message{Topic: TopicConnection, Action: ConnectionAccept}},
		{"garbage after the envelope is ignored", "06 10 02 1a 02 08 04 ff",
			Message{Topic: TopicConnection, Action: ConnectionAccept}},
		{"message before topic", "06 1a 02 08 04 10 02",
			Message{Topic: TopicConnection, Action: ConnectionAccept}},
		{"no message", "02 10 04", Message{Topic: TopicEvent}},
		{"action missing", "07 10 04 1a 03 32 01 61", Message{Topic: TopicEvent, Has: HasName, Name: "a"}},
		{"unknown action is kept", "07 10 04 1a 03 08 e707", Message{Topic: TopicEvent, Action: 999}},
		{"the last of two actions counts", "08 10 04 1a 04 08 02 08 03", Message{Topic: TopicEvent, Action: 3}},
		{"the last of two names counts", "0a 10 04 1a 06 32 01 61 32 01 62",
			Message{Topic: TopicEvent, Has: HasName, Name: "b"}},
		{"the last of two topics counts", "08 10 02 10 04 1a 02 08 02", Message{Topic: TopicEvent, Action: 2}},
		{"unknown fields are skipped", "1a 10 04 1a 16 78 05 8a01 01 61 9901 0102030405060708 08 02 7b 78 01 7c",
			Message{Topic: TopicEvent, Action: 2}},
		{"a field of the envelope is skipped", "09 22 01 61 10 02 1a 02 08 04",
			Message{Topic: TopicConnection, Action: ConnectionAccept}},
		{"a known number of another type is skipped", "08 10 04 1a 04 0a 00 30 05", Message{Topic: TopicEvent}},
		{"originalTOPIC is skipped", "08 10 04 1a 04 08 02 50 05", Message{Topic: TopicEvent, Action: 2}},
		{"pattern is skipped", "09 10 05 1a 05 08 02 42 01 61", Message{Topic: TopicRecord, Action: 2}},
		{"false flags are none", "0a 10 05 1a 06 20 00 28 00 58 00", Message{Topic: TopicRecord}},
		{"any number is true", "07 10 05 1a 03 58 80 01", Message{Topic: TopicRecord, IsWriteAck: true}},
		{"empty data is present", "06 10 04 1a 02 12 00", Message{Topic: TopicEvent, Has: HasData}},
		{"empty path is present", "06 10 05 1a 02 62 00", Message{Topic: TopicRecord, Has: HasPath}},
		{"version 0 is present", "06 10 05 1a 02 68 00", Message{Topic: TopicRecord, Has: HasVersion}},
		{"version -1 in ten bytes", "0f 10 05 1a 0b 68 ffffffffffffffffff01",
			Message{Topic: TopicRecord, Has: HasVersion, Version: -1}},
		{"version -1 in five bytes", "0a 10 05 1a 06 68 ffffffff0f",
			Message{Topic: TopicRecord, Has: HasVersion, Version: -1}},
		{"half entries of versions", "0f 10 05 1a 0b 72 03 0a 01 61 72 02 10 07 72 00",
			Message{Topic: TopicRecord, Has: HasVersions, Versions: []NameVersion{{"a", 0}, {"", 7}, {}}}},
		{"an unknown field in versions is skipped", "0d 10 05 1a 09 72 07 0a 01 61 18 05 10 07",
			Message{Topic: TopicRecord, Has: HasVersions, Versions: []NameVersion{{"a", 7}}}},
		{"MONITORING is topic and action", "09 10 08 1a 05 08 02 12 01 61", Message{Topic: TopicMonitoring, Action: 2}},
		{"CLUSTER is topic and action", "06 10 09 1a 02 08 02", Message{Topic: TopicCluster, Action: 2}},
		{"LOCK is topic and action", "08 10 0a 1a 04 08 02 18 01", Message{Topic: TopicLock, Action: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got Message
			if err := Decode(unhex(t, tt.frame), &got); err != nil {
				t.Fatal(err)
			}
			if !same(got, tt.want) {
				t.Errorf("Decode = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestDecodeForgetsWhatTheMessageHeld(t *testing.T) {
	m := Message{
		Topic: TopicRecord, Action: 3, Has: ^Fields(0), IsAck: true, IsError: true, IsWriteAck: true,
		Version: 1, OriginalAction: 2, CorrelationID: "a", Name: "b", Names: make([]string, 3, 8), Data: "c",
		Path: "d", Subscription: "e", Versions: []NameVersion{{"f", 1}}, RequestorName: "g",
		RequestorData: "h", URL: "i", ProtocolVersion: "j", SDKVersion: "k", SDKType: "l",
	}
	m.Names[2] = "an old frame"
	old := m.Names
	frame := Append(nil, &Message{Topic: TopicEvent, Action: EventSubscribe, Names: []string{"x"}})
	if err := Decode(frame, &m); err != nil {
		t.Fatal(err)
	}
	if want := (Message{Topic: TopicEvent, Action: EventSubscribe, Names: []string{"x"}}); !same(m, want) {
		t.Errorf("Decode = %+v, want %+v", m, want)
	}
	if cap(m.Names) != cap(old) || &m.Names[0] != &old[0] {
		t.Error("Decode did not keep the room of Names")
	}
	if old[2] != "" {
		t.Error("an old name still holds its frame")
	}
	m.Names = make([]string, 0, maxKeptNames+1)
	if err := Decode(frame, &m); err != nil {
		t.Fatal(err)
	}
	if cap(m.Names) > maxKeptNames {
		t.Errorf("Decode kept room for %d names", cap(m.Names))
	}
}

func TestAppendWritesOnlyWhatIsPresent(t *testing.T) {
	tests := []struct {
		name string
		m    Message
		want string
	}{
		{"version without HasVersion", Message{Topic: TopicRecord, Action: 3, Version: 7}, "06 10 05 1a 02 08 03"},
		{"version 0", Message{Topic: TopicRecord, Action: 4, Has: HasVersion}, "08 10 05 1a 04 08 04 68 00"},
		{"version -1", Message{Topic: TopicRecord, Action: 6, Has: HasVersion, Version: -1},
			"11 10 05 1a 0d 08 06 68 ffffffffffffffffff01"},
		{"data that is present and empty", Message{Topic: TopicEvent, Action: 2, Has: HasData}, "06 10 04 1a 02 08 02"},
		{"data that is not named", Message{Topic: TopicEvent, Action: 2, Data: "1"}, "09 10 04 1a 05 08 02 12 01 31"},
		{"correlation id that is present and empty", Message{Topic: TopicRPC, Action: 2, Has: HasCorrelationID},
			"08 10 06 1a 04 08 02 1a 00"},
		{"name that is not named", Message{Topic: TopicEvent, Action: 2, Name: "a"}, "09 10 04 1a 05 08 02 32 01 61"},
		{"original action without its bit", Message{Topic: TopicEvent, Action: 104, OriginalAction: 2},
			"08 10 04 1a 04 08 68 58 02"},
		{"original action 0 with its bit", Message{Topic: TopicPresence, Action: 102, Has: HasOriginalAction},
			"08 10 07 1a 04 08 66 18 00"},
		{"empty versions", Message{Topic: TopicRecord, Action: 8, Has: HasVersions}, "06 10 05 1a 02 08 08"},
		{"versions that are not named", Message{Topic: TopicRecord, Action: 8, Versions: []NameVersion{{"a", 1}}},
			"0d 10 05 1a 09 08 08 72 05 0a 01 61 10 01"},
		{"version 0 in versions", Message{Topic: TopicRecord, Action: 8, Versions: []NameVersion{{"a", 0}}},
			"0d 10 05 1a 09 08 08 72 05 0a 01 61 10 00"},
		{"what the topic does not have", Message{
			Topic: TopicAuth, Action: 3, Has: ^Fields(0), IsWriteAck: true, Version: 1, OriginalAction: 1, CorrelationID: "a",
			Name: "a", Names: []string{"a"}, Path: "a", Subscription: "a", Versions: []NameVersion{{"a", 1}},
			RequestorName: "a", RequestorData: "a", URL: "a", ProtocolVersion: "a", SDKVersion: "a", SDKType: "a",
		}, "06 10 03 1a 02 08 03"},
		{"no action", Message{Topic: TopicEvent}, "06 10 04 1a 02 08 00"},
		{"MONITORING is topic and action", Message{Topic: TopicMonitoring, Action: 2, Data: "1"}, "06 10 08 1a 02 08 02"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			prefix := []byte("before")
			got := Append(prefix, &tt.m)
			want := append([]byte("before"), unhex(t, tt.want)...)
			if !bytes.Equal(got, want) {
				t.Errorf("Append = %x, want %x", got, want)
			}
			if n := Size(&tt.m); n != len(want)-len(prefix) {
				t.Errorf("Size = %d, want %d", n, len(want)-len(prefix))
			}
		})
	}
}

func TestEncodingATopicWithoutCodecPanics(t *testing.T) {
	for _, topic := range []Topic{TopicUnknown, 11, 100, 255} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Append of topic %d did not panic", topic)
				}
			}()
			Append(nil, &Message{Topic: topic, Action: 1})
		}()
	}
}

func TestEncodeFrameIsOneWholeWebSocketFrame(t *testing.T) {
	overhead := Size(&Message{Topic: TopicEvent, Action: EventEmit, Data: strings.Repeat("x", 100)}) - 100
	tests := []struct {
		payload int // of the frame
		header  string
	}{
		{100, "82 64"}, {125, "82 7d"}, {126, "82 7e 007e"}, {127, "82 7e 007f"}, {65535, "82 7e ffff"},
		{65536, "82 7f 0000000000010000"}, {1 << 20, "82 7f 0000000000100000"},
	}
	for _, tt := range tests {
		m := Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: strings.Repeat("x", tt.payload-overhead)}
		for Size(&m) > tt.payload { // longer lengths take more bytes
			m.Data = m.Data[1:]
		}
		got := EncodeFrame(FormBinary, &m, "")
		want := append(unhex(t, tt.header), Append(nil, &m)...)
		if !bytes.Equal(got, want) {
			t.Errorf("frame of %d bytes begins % x, want % x", tt.payload, got[:16], want[:16])
		}
		if cap(got) > len(got)+len(got)/4+16 {
			t.Errorf("frame of %d bytes has room for %d", len(got), cap(got))
		}
		if n := testing.AllocsPerRun(10, func() { EncodeFrame(FormBinary, &m, "") }); n != 1 {
			t.Errorf("frame of %d bytes took %v allocations, want 1", tt.payload, n)
		}
	}
}

func TestOldClientsGetTheWholeRecordForAPatchMulti(t *testing.T) {
	m := Message{
		Topic: TopicRecord, Action: RecordPatchMulti, Has: HasName | HasData | HasVersion | HasPath,
		Name: "r", Version: 3, Data: `[{"path":"a","data":1}]`,
	}
	before := m
	o := Outbound{Message: m, Result: `{"a":1}`}
	tests := []struct {
		form Form
		want Message
	}{
		{FormBinary, m},
		{FormBinary70, Message{
			Topic: TopicRecord, Action: RecordUpdate, Has: HasName | HasData | HasVersion,
			Name: "r", Version: 3, Data: `{"a":1}`,
		}},
	}
	for _, tt := range tests {
		var got Message
		if err := Decode(o.Frame(tt.form)[2:], &got); err != nil {
			t.Fatal(err)
		}
		if !same(got, tt.want) {
			t.Errorf("form %d reads %+v, want %+v", tt.form, got, tt.want)
		}
	}
	if !same(o.Message, before) {
		t.Errorf("encoding changed the message to %+v", o.Message)
	}
	if a, b := o.Frame(FormBinary), o.Frame(FormBinary); &a[0] != &b[0] {
		t.Error("the same form was encoded twice")
	}
	patch := Message{Topic: TopicRecord, Action: RecordPatch, Has: HasPath | HasVersion, Path: "a", Data: "1"}
	if got, want := EncodeFrame(FormBinary70, &patch, "{}"), EncodeFrame(FormBinary, &patch, ""); !bytes.Equal(got, want) {
		t.Errorf("a plain patch for an old client is %x, want %x", got, want)
	}
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	for _, m := range []*Message{smallEvent(), recordPatch()} {
		frame := Append(nil, m)
		var got Message
		if n := testing.AllocsPerRun(100, func() {
			if err := Decode(frame, &got); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("Decode of %v: %v allocations", m.Topic, n)
		}
		buf := make([]byte, 0, len(frame))
		if n := testing.AllocsPerRun(100, func() { buf = Append(buf[:0], m) }); n != 0 {
			t.Errorf("Append of %v: %v allocations", m.Topic, n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range goldenCases(f) {
		f.Add(unhex(f, c.Frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var m Message
		if err := Decode(frame, &m); err != nil {
			return
		}
		if m.Data == "" {
			m.Has &^= HasData // read, but never written
		}
		again := Append(nil, &m)
		if n := Size(&m); n != len(again) {
			t.Fatalf("Size = %d, Append wrote %d", n, len(again))
		}
		var got Message
		if err := Decode(again, &got); err != nil {
			t.Fatalf("what we wrote does not decode: %v", err)
		}
		if !same(got, m) {
			t.Fatalf("read %+v, wrote and read %+v", m, got)
		}
	})
}
