package protocol

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"hadal/protocol/jsonpath"

	"pgregory.net/rapid"
)

// line is text as spec 02 writes it: ¦ between the words, + at the end of a line.
func line(s string) string { return strings.NewReplacer("¦", wordEnd, "+", lineEnd).Replace(s) }

// heard is what a frame says.
func heard(t testing.TB, frame string) []Message {
	t.Helper()
	var got []Message
	err := Text{}.Decode([]byte(frame), func(m *Message) {
		c := *m
		c.Names = append([]string(nil), m.Names...)
		got = append(got, c)
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// failer is a testing.TB or a rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// payload is what a server's frame carries, and its first byte.
func payload(t failer, frame []byte) (string, byte) {
	t.Helper()
	n, rest := int(frame[1]), frame[2:]
	switch n {
	case 126:
		n, rest = int(binary.BigEndian.Uint16(rest)), rest[2:]
	case 127:
		n, rest = int(binary.BigEndian.Uint64(rest)), rest[8:]
	}
	if n != len(rest) {
		t.Fatalf("a frame of %d bytes says that it has %d", len(rest), n)
	}
	return string(rest), frame[0]
}

// spoken is what a message is in the text dialect.
func spoken(t testing.TB, m *Message, result string) string {
	t.Helper()
	frame := EncodeFrame(FormText, m, result)
	if frame == nil {
		return ""
	}
	text, op := payload(t, frame)
	if op != 0x81 {
		t.Errorf("the frame begins with %x, want a final text frame", op)
	}
	return text
}

const all = HasName | HasCorrelationID

func TestEveryLineOfAClient(t *testing.T) {
	for _, c := range []struct {
		line string
		want Message
	}{
		// Spec 02 §3
		{`C¦PO`, Message{Topic: TopicConnection, Action: ConnectionPong}},
		{`C¦PI`, Message{Topic: TopicConnection, Action: ConnectionPing}},
		{`A¦REQ¦{"username":"x"}`, Message{Topic: TopicAuth, Action: AuthRequest, Has: HasData, Data: `{"username":"x"}`}},
		{`A¦REQ`, Message{Topic: TopicAuth, Action: AuthRequest}},
		// §4, record
		{`R¦CR¦a/b`, Message{Topic: TopicRecord, Action: RecordSubscribeCreateAndRead, Names: []string{"a/b"}, Has: HasCorrelationID, CorrelationID: "a/b"}},
		{`R¦R¦a`, Message{Topic: TopicRecord, Action: RecordRead, Has: HasName, Name: "a"}},
		{`R¦SN¦a`, Message{Topic: TopicRecord, Action: RecordRead, Has: HasName, Name: "a"}},
		{`R¦HD¦a`, Message{Topic: TopicRecord, Action: RecordHead, Has: HasName, Name: "a"}},
		{`R¦S¦a`, Message{Topic: TopicRecord, Action: RecordSubscribe, Names: []string{"a"}, Has: HasCorrelationID, CorrelationID: "a"}},
		{`R¦US¦a`, Message{Topic: TopicRecord, Action: RecordUnsubscribe, Names: []string{"a"}, Has: HasCorrelationID, CorrelationID: "a"}},
		{`R¦D¦a`, Message{Topic: TopicRecord, Action: RecordDelete, Has: HasName, Name: "a"}},
		{`R¦U¦a¦3¦{"x":1}`, Message{Topic: TopicRecord, Action: RecordUpdate, Has: all | HasVersion | HasData, Name: "a", Version: 3, CorrelationID: "3", Data: `{"x":1}`}},
		{`R¦U¦a¦3¦[]¦{"writeSuccess":true}`, Message{Topic: TopicRecord, Action: RecordUpdate, Has: all | HasVersion | HasData, Name: "a", Version: 3, CorrelationID: "3", Data: `[]`, IsWriteAck: true}},
		{`R¦U¦a¦3¦[]¦{"writeSuccess":false}`, Message{Topic: TopicRecord, Action: RecordUpdate, Has: all | HasVersion | HasData, Name: "a", Version: 3, CorrelationID: "3", Data: `[]`}},
		{`R¦P¦a¦1¦b.c¦SOwen`, Message{Topic: TopicRecord, Action: RecordPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: 1, CorrelationID: "1", Path: "b.c", Data: `"Owen"`}},
		{`R¦P¦a¦-1¦b¦F¦{"writeSuccess":true}`, Message{Topic: TopicRecord, Action: RecordPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: -1, CorrelationID: "-1", Path: "b", Data: `false`, IsWriteAck: true}},
		{`R¦P¦a¦1¦b¦S`, Message{Topic: TopicRecord, Action: RecordPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: 1, CorrelationID: "1", Path: "b", Data: `""`}},
		{`R¦P¦a¦1¦b¦N0`, Message{Topic: TopicRecord, Action: RecordPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: 1, CorrelationID: "1", Path: "b", Data: `0`}},
		{`R¦P¦a¦2¦b¦U`, Message{Topic: TopicRecord, Action: RecordErase, Has: all | HasVersion | HasPath, Name: "a", Version: 2, CorrelationID: "2", Path: "b"}},
		{`R¦P¦a¦2¦b¦Onull`, Message{Topic: TopicRecord, Action: RecordErase, Has: all | HasVersion | HasPath, Name: "a", Version: 2, CorrelationID: "2", Path: "b"}},
		{`R¦P¦a¦2¦b`, Message{Topic: TopicRecord, Action: RecordPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: 2, CorrelationID: "2", Path: "b", Data: `?`}},
		{`R¦P¦a¦2¦b¦`, Message{Topic: TopicRecord, Action: RecordPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: 2, CorrelationID: "2", Path: "b", Data: `?`}},
		{`R¦CU¦a¦2¦b¦¦{}`, Message{Topic: TopicRecord, Action: RecordCreateAndPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: 2, CorrelationID: "2", Path: "b", Data: `?`}},
		{`R¦P¦a¦x¦b¦T`, Message{Topic: TopicRecord, Action: RecordPatch, Has: HasName | HasData | HasPath, Name: "a", Path: "b", Data: `true`}},
		{`R¦P¦a¦07¦b¦T`, Message{Topic: TopicRecord, Action: RecordPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: 7, CorrelationID: "7", Path: "b", Data: `true`}},
		{`R¦P¦a¦4294967296¦b¦T`, Message{Topic: TopicRecord, Action: RecordPatch, Has: HasName | HasData | HasPath, Name: "a", Path: "b", Data: `true`}},
		{`R¦CU¦a¦-1¦{"x":1}¦{}`, Message{Topic: TopicRecord, Action: RecordCreateAndUpdate, Has: all | HasVersion | HasData, Name: "a", Version: -1, CorrelationID: "-1", Data: `{"x":1}`}},
		{`R¦CU¦a¦-1¦{"x":1}¦{"writeSuccess":true}`, Message{Topic: TopicRecord, Action: RecordCreateAndUpdate, Has: all | HasVersion | HasData, Name: "a", Version: -1, CorrelationID: "-1", Data: `{"x":1}`, IsWriteAck: true}},
		{`R¦CU¦a¦-1¦p¦O{"x":1}¦{}`, Message{Topic: TopicRecord, Action: RecordCreateAndPatch, Has: all | HasVersion | HasData | HasPath, Name: "a", Version: -1, CorrelationID: "-1", Path: "p", Data: `{"x":1}`}},
		{`R¦CU¦a¦-1¦p¦U¦{"writeSuccess":true}`, Message{Topic: TopicRecord, Action: RecordErase, Has: all | HasVersion | HasPath, Name: "a", Version: -1, CorrelationID: "-1", Path: "p", IsWriteAck: true}},
		{`R¦L¦a/.*`, Message{Topic: TopicRecord, Action: RecordListen, Has: HasName, Name: "a/.*"}},
		{`R¦UL¦a/.*`, Message{Topic: TopicRecord, Action: RecordUnlisten, Has: HasName, Name: "a/.*"}},
		{`R¦LA¦a/.*¦a/b`, Message{Topic: TopicRecord, Action: RecordListenAccept, Has: HasName | HasSubscription, Name: "a/.*", Subscription: "a/b"}},
		{`R¦LR¦a/.*¦a/b`, Message{Topic: TopicRecord, Action: RecordListenReject, Has: HasName | HasSubscription, Name: "a/.*", Subscription: "a/b"}},
		{`R¦D`, Message{Topic: TopicRecord, Action: RecordDelete}},
		// Event
		{`E¦S¦e`, Message{Topic: TopicEvent, Action: EventSubscribe, Names: []string{"e"}, Has: HasCorrelationID, CorrelationID: "e"}},
		{`E¦US¦e`, Message{Topic: TopicEvent, Action: EventUnsubscribe, Names: []string{"e"}, Has: HasCorrelationID, CorrelationID: "e"}},
		{`E¦S`, Message{Topic: TopicEvent, Action: EventSubscribe, Names: []string{""}}},
		{`E¦EVT¦e¦N1.5e3`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasName | HasData, Name: "e", Data: `1500`}},
		{`E¦EVT¦e`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasName, Name: "e"}},
		{`E¦EVT¦e¦`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasName, Name: "e"}}, // spec 02 §7
		{`E¦EVT¦e¦U`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasName, Name: "e"}},
		{`E¦EVT¦e¦Xa`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasName | HasData, Name: "e", Data: `?Xa`}},
		{`E¦EVT¦e¦5`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasName | HasData, Name: "e", Data: `?5`}},
		{`E¦L¦e.*`, Message{Topic: TopicEvent, Action: EventListen, Has: HasName, Name: "e.*"}},
		{`E¦UL¦e.*`, Message{Topic: TopicEvent, Action: EventUnlisten, Has: HasName, Name: "e.*"}},
		{`E¦LA¦e.*¦e1`, Message{Topic: TopicEvent, Action: EventListenAccept, Has: HasName | HasSubscription, Name: "e.*", Subscription: "e1"}},
		{`E¦LR¦e.*¦e1`, Message{Topic: TopicEvent, Action: EventListenReject, Has: HasName | HasSubscription, Name: "e.*", Subscription: "e1"}},
		// RPC
		{`P¦S¦add`, Message{Topic: TopicRPC, Action: RPCProvide, Names: []string{"add"}, Has: HasCorrelationID, CorrelationID: "add"}},
		{`P¦US¦add`, Message{Topic: TopicRPC, Action: RPCUnprovide, Names: []string{"add"}, Has: HasCorrelationID, CorrelationID: "add"}},
		{`P¦REQ¦add¦id¦O{"a":1}`, Message{Topic: TopicRPC, Action: RPCRequest, Has: all | HasData, Name: "add", CorrelationID: "id", Data: `{"a":1}`}},
		{`P¦REQ¦add¦id¦U`, Message{Topic: TopicRPC, Action: RPCRequest, Has: all, Name: "add", CorrelationID: "id"}},
		{`P¦A¦REQ¦add¦id`, Message{Topic: TopicRPC, Action: RPCAccept, Has: all, Name: "add", CorrelationID: "id"}},
		{`P¦RES¦add¦id¦N3`, Message{Topic: TopicRPC, Action: RPCResponse, Has: all | HasData, Name: "add", CorrelationID: "id", Data: `3`}},
		{`P¦REJ¦add¦id`, Message{Topic: TopicRPC, Action: RPCReject, Has: all, Name: "add", CorrelationID: "id"}},
		{`P¦E¦it "broke"¦add¦id`, Message{Topic: TopicRPC, Action: RPCRequestError, Has: all | HasData, Name: "add", CorrelationID: "id", Data: `"it \"broke\""`}},
		// Presence
		{`U¦S¦S`, Message{Topic: TopicPresence, Action: PresenceSubscribeAll}},
		{`U¦S¦U`, Message{Topic: TopicPresence, Action: PresenceSubscribeAll}},
		{`U¦US¦US`, Message{Topic: TopicPresence, Action: PresenceUnsubscribeAll}},
		{`U¦Q¦Q`, Message{Topic: TopicPresence, Action: PresenceQueryAll}},
		{`U¦S¦1¦["a","b"]`, Message{Topic: TopicPresence, Action: PresenceSubscribe, Names: []string{"a", "b"}, Has: HasCorrelationID, CorrelationID: "1"}},
		{`U¦US¦2¦["a"]`, Message{Topic: TopicPresence, Action: PresenceUnsubscribe, Names: []string{"a"}, Has: HasCorrelationID, CorrelationID: "2"}},
		{`U¦Q¦3¦["a"]`, Message{Topic: TopicPresence, Action: PresenceQuery, Names: []string{"a"}, Has: HasCorrelationID, CorrelationID: "3"}},
	} {
		got := heard(t, line(c.line+"+"))
		if len(got) != 1 || !same(got[0], c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.line, got, c.want)
		}
	}
}

func TestWhatIsNoMessageIsSkipped(t *testing.T) {
	for _, s := range []string{
		"", "+", "+++", "E¦", "EVT", "C¦CH", "C¦CHR¦ws://x", "C¦XX", "A¦XX¦{}", "X¦E¦a", "EE¦S¦a", "¦S¦a", "R¦H¦name", "R¦XX¦a", "E¦XX¦a",
		"P¦XX¦a", "P¦A¦S¦a", "U¦XX¦a", "E¦A¦S¦a", "E¦E¦S¦a", "E¦A¦E¦S¦a", "R¦A", "R¦A¦E", "U¦S¦1¦[", "U¦S¦1¦{}", "U¦Q¦1¦[1]", "U¦Q¦1¦",
	} {
		if got := heard(t, line(s)); len(got) != 0 {
			t.Errorf("%s: got %+v, want nothing", s, got)
		}
	}
}

func TestAFrameOfManyLines(t *testing.T) {
	got := heard(t, line("A¦REQ¦{}+R¦CR¦a+XX+¦¦¦+C¦PO+E¦S¦b")) // the last line is not ended
	var topics []Topic
	for _, m := range got {
		topics = append(topics, m.Topic)
	}
	if want := []Topic{TopicAuth, TopicRecord, TopicConnection, TopicEvent}; !reflect.DeepEqual(topics, want) {
		t.Errorf("topics %v, want %v", topics, want)
	}
	if err := (Text{}).Decode([]byte("E\x1fS\x1f\xff\x1e"), func(*Message) { t.Error("a message") }); err != ErrUTF8 {
		t.Errorf("err = %v, want ErrUTF8", err)
	}
}

func TestAHundredThousandLines(t *testing.T) {
	frame := []byte(strings.Repeat(line("E¦EVT¦name¦N1+"), 100_000))
	n := 0
	allocs := testing.AllocsPerRun(1, func() {
		n = 0
		if err := (Text{}).Decode(frame, func(m *Message) { n++ }); err != nil {
			t.Error(err)
		}
	})
	if n != 100_000 || allocs > 100 {
		t.Errorf("%d messages with %v allocations, want 100000 with hardly any", n, allocs)
	}
	// Nothing but separators, and words without an end.
	for _, s := range []string{lineEnd, wordEnd, "E" + wordEnd} {
		if got := heard(t, strings.Repeat(s, 1<<20)); len(got) > 1 {
			t.Errorf("%q: %d messages", s, len(got))
		}
	}
}

func TestEveryLineOfTheServer(t *testing.T) {
	named := func(topic Topic, a Action) Message { return Message{Topic: topic, Action: a, Has: HasName, Name: "n"} }
	refused := func(topic Topic, a, original Action, id string) Message {
		return Message{Topic: topic, Action: a, Has: all, Name: "n", OriginalAction: original, IsError: true, CorrelationID: id}
	}
	for _, c := range []struct {
		m    Message
		want string
	}{
		// Spec 02 §3
		{Message{Topic: TopicConnection, Action: ConnectionAccept}, `C¦A+`},
		{Message{Topic: TopicConnection, Action: ConnectionPing}, `C¦PI+`},
		{Message{Topic: TopicConnection, Action: ConnectionPong}, `C¦PO+`},
		{Message{Topic: TopicConnection, Action: ConnectionRedirect, URL: "ws://b/deepstream-v3"}, `C¦RED¦ws://b/deepstream-v3+`},
		{Message{Topic: TopicConnection, Action: ConnectionReject}, `C¦REJ+`},
		{Message{Topic: TopicConnection, Action: ConnectionAuthenticationTimeout}, `C¦E¦CONNECTION_AUTHENTICATION_TIMEOUT+`},
		{Message{Topic: TopicConnection, Action: ConnectionInvalidMessage}, ``},
		{Message{Topic: TopicAuth, Action: AuthAuthSuccessful}, `A¦A+`},
		{Message{Topic: TopicAuth, Action: AuthAuthSuccessful, Data: `{"a":1}`}, `A¦A¦O{"a":1}+`},
		{Message{Topic: TopicAuth, Action: AuthAuthUnsuccessful}, `A¦E¦INVALID_AUTH_DATA¦U+`},
		{Message{Topic: TopicAuth, Action: AuthAuthUnsuccessful, Data: `{"reason":"x"}`}, `A¦E¦INVALID_AUTH_DATA¦O{"reason":"x"}+`},
		{Message{Topic: TopicAuth, Action: AuthInvalidMessageData}, `A¦E¦INVALID_AUTH_DATA¦U+`},
		{Message{Topic: TopicAuth, Action: AuthTooManyAuthAttempts}, `A¦E¦TOO_MANY_AUTH_ATTEMPTS+`},
		{Message{Topic: TopicAuth, Action: AuthInvalidMessage}, ``},
		{Message{Topic: TopicParser, Action: ParserUnknownTopic}, ``},
		// §5, events
		{Message{Topic: TopicEvent, Action: EventSubscribe, IsAck: true, CorrelationID: "n"}, `E¦A¦S¦n+`},
		{Message{Topic: TopicEvent, Action: EventUnsubscribe, IsAck: true, CorrelationID: "n"}, `E¦A¦US¦n+`},
		{Message{Topic: TopicEvent, Action: EventSubscribe, IsAck: true}, ``},
		{Message{Topic: TopicEvent, Action: EventEmit, Name: "n", Data: `"x"`}, `E¦EVT¦n¦Sx+`},
		{Message{Topic: TopicEvent, Action: EventEmit, Name: "n"}, `E¦EVT¦n¦U+`},
		{Message{Topic: TopicEvent, Action: EventListen, IsAck: true, Name: "p"}, `E¦A¦L¦p+`},
		{Message{Topic: TopicEvent, Action: EventUnlisten, IsAck: true, Name: "p"}, `E¦A¦UL¦p+`},
		{Message{Topic: TopicEvent, Action: EventSubscriptionForPatternFound, Name: "p", Subscription: "s"}, `E¦SP¦p¦s+`},
		{Message{Topic: TopicEvent, Action: EventSubscriptionForPatternRemoved, Name: "p", Subscription: "s"}, `E¦SR¦p¦s+`},
		{Message{Topic: TopicEvent, Action: EventListenResponseTimeout, Subscription: "s"}, ``},
		{named(TopicEvent, EventMultipleSubscriptions), `E¦E¦MULTIPLE_SUBSCRIPTIONS¦n+`},
		{named(TopicEvent, EventNotSubscribed), `E¦E¦NOT_SUBSCRIBED¦n+`},
		{named(TopicEvent, EventInvalidListenRegex), `E¦E¦INVALID_LISTEN_REGEX¦n+`},
		{named(TopicEvent, EventInvalidMessageData), `E¦E¦INVALID_MESSAGE_DATA¦n+`},
		{Message{Topic: TopicEvent, Action: EventInvalidMessageData}, `E¦E¦INVALID_MESSAGE_DATA+`},
		{refused(TopicEvent, EventMessageDenied, EventSubscribe, "n"), `E¦E¦MESSAGE_DENIED¦n¦S+`},
		{refused(TopicEvent, EventMessageDenied, EventEmit, ""), `E¦E¦MESSAGE_DENIED¦n¦EVT+`},
		{refused(TopicEvent, EventMessagePermissionError, EventEmit, ""), `E¦E¦MESSAGE_PERMISSION_ERROR¦n+`},
		// Records
		{Message{Topic: TopicRecord, Action: RecordListen, IsAck: true, Name: "p"}, `R¦A¦L¦p+`},
		{Message{Topic: TopicRecord, Action: RecordUnlisten, IsAck: true, Name: "p"}, `R¦A¦UL¦p+`},
		{Message{Topic: TopicRecord, Action: RecordSubscriptionForPatternFound, Name: "p", Subscription: "s"}, `R¦SP¦p¦s+`},
		{Message{Topic: TopicRecord, Action: RecordSubscriptionForPatternRemoved, Name: "p", Subscription: "s"}, `R¦SR¦p¦s+`},
		{Message{Topic: TopicRecord, Action: RecordListenResponseTimeout, Subscription: "s"}, ``},
		{named(TopicRecord, RecordSubscriptionHasProvider), `R¦SH¦n¦T+`},
		{named(TopicRecord, RecordSubscriptionHasNoProvider), `R¦SH¦n¦F+`},
		{Message{Topic: TopicRecord, Action: RecordSubscribeCreateAndRead, IsAck: true, CorrelationID: "n"}, `R¦A¦S¦n+`},
		{Message{Topic: TopicRecord, Action: RecordSubscribe, IsAck: true, CorrelationID: "n"}, `R¦A¦S¦n+`},
		{Message{Topic: TopicRecord, Action: RecordUnsubscribe, IsAck: true, CorrelationID: "n"}, `R¦A¦US¦n+`},
		{Message{Topic: TopicRecord, Action: RecordReadResponse, Name: "n", Has: HasVersion, Data: `{}`}, `R¦R¦n¦0¦{}+`},
		{Message{Topic: TopicRecord, Action: RecordHeadResponse, Name: "n", Has: HasVersion, Version: -1}, `R¦HD¦n¦-1¦null+`},
		{Message{Topic: TopicRecord, Action: RecordUpdate, Name: "n", Version: 7, Data: `{"a":[1]}`}, `R¦U¦n¦7¦{"a":[1]}+`},
		{Message{Topic: TopicRecord, Action: RecordPatch, Name: "n", Version: 1, Path: "lastname", Data: `"Owen"`}, `R¦P¦n¦1¦lastname¦SOwen+`},
		{Message{Topic: TopicRecord, Action: RecordPatch, Name: "n", Version: 1, Path: "p"}, `R¦P¦n¦1¦p¦U+`},
		{Message{Topic: TopicRecord, Action: RecordErase, Name: "n", Version: 1, Path: "p"}, `R¦P¦n¦1¦p¦U+`},
		{Message{Topic: TopicRecord, Action: RecordPatchMulti, Name: "n", Version: 2, Data: `[{"path":"p","data":1}]`}, `R¦U¦n¦2¦{"whole":1}+`},
		{Message{Topic: TopicRecord, Action: RecordPatch, Name: "n", Version: 2, Path: line("a+b"), Data: `1`}, `R¦U¦n¦2¦{"whole":1}+`},
		{Message{Topic: TopicRecord, Action: RecordErase, Name: "n", Version: 2, Path: line("a¦b")}, `R¦U¦n¦2¦{"whole":1}+`},
		{named(TopicRecord, RecordDeleteSuccess), `R¦A¦D¦n+`},
		{named(TopicRecord, RecordDeleted), `R¦A¦D¦n+`},
		{Message{Topic: TopicRecord, Action: RecordWriteAcknowledgement, Name: "n", CorrelationID: "-1", IsWriteAck: true}, `R¦WA¦n¦[-1]¦L+`},
		{Message{Topic: TopicRecord, Action: RecordVersionExists, Name: "n", Version: 5, Data: `{}`, CorrelationID: "3"}, `R¦E¦VERSION_EXISTS¦n¦5¦{}+`},
		{Message{Topic: TopicRecord, Action: RecordVersionExists, Name: "n", Version: 5, Data: `{}`, IsWriteAck: true, CorrelationID: "3"}, `R¦E¦VERSION_EXISTS¦n¦5¦{}¦{"writeSuccess":true}+`},
		{named(TopicRecord, RecordRecordNotFound), `R¦E¦RECORD_NOT_FOUND¦n+`},
		{named(TopicRecord, RecordCacheRetrievalTimeout), `R¦E¦CACHE_RETRIEVAL_TIMEOUT¦n+`},
		{named(TopicRecord, RecordStorageRetrievalTimeout), `R¦E¦STORAGE_RETRIEVAL_TIMEOUT¦n+`},
		{named(TopicRecord, RecordMultipleSubscriptions), `R¦E¦MULTIPLE_SUBSCRIPTIONS¦n+`},
		{named(TopicRecord, RecordNotSubscribed), `R¦E¦NOT_SUBSCRIBED¦n+`},
		{named(TopicRecord, RecordInvalidListenRegex), `R¦E¦INVALID_LISTEN_REGEX¦n+`},
		{named(TopicRecord, RecordRecordLoadError), `R¦E¦RECORD_LOAD_ERROR¦n+`},
		{named(TopicRecord, RecordRecordCreateError), `R¦E¦RECORD_CREATE_ERROR¦n+`},
		{named(TopicRecord, RecordRecordUpdateError), `R¦E¦RECORD_UPDATE_ERROR¦n+`},
		{named(TopicRecord, RecordRecordDeleteError), `R¦E¦RECORD_DELETE_ERROR¦n+`},
		{named(TopicRecord, RecordInvalidVersion), `R¦E¦INVALID_VERSION¦n+`},
		{Message{Topic: TopicRecord, Action: RecordInvalidMessageData, Name: "n", Data: `{a`}, `R¦E¦INVALID_MESSAGE_DATA¦{a+`},
		{Message{Topic: TopicRecord, Action: RecordRecordUpdateError, Name: "n", IsError: true, IsWriteAck: true, CorrelationID: "4"}, `R¦WA¦n¦[4]¦SRECORD_UPDATE_ERROR+R¦E¦RECORD_UPDATE_ERROR¦n+`},
		{Message{Topic: TopicRecord, Action: RecordMessageDenied, Name: "n", IsError: true, IsWriteAck: true, OriginalAction: RecordPatch, CorrelationID: "1"}, `R¦WA¦n¦[1]¦SMESSAGE_DENIED+R¦E¦MESSAGE_DENIED¦n¦P¦1+`},
		{refused(TopicRecord, RecordMessageDenied, RecordSubscribeCreateAndRead, "n"), `R¦E¦MESSAGE_DENIED¦n¦CR+`},
		{refused(TopicRecord, RecordMessageDenied, RecordRead, ""), `R¦E¦MESSAGE_DENIED¦n¦SN+`},
		{refused(TopicRecord, RecordMessageDenied, RecordPatch, "1"), `R¦E¦MESSAGE_DENIED¦n¦P¦1+`},
		{refused(TopicRecord, RecordMessageDenied, RecordErase, "2"), `R¦E¦MESSAGE_DENIED¦n¦P¦2+`},
		{refused(TopicRecord, RecordMessageDenied, RecordDelete, ""), `R¦E¦MESSAGE_DENIED¦n¦D+`},
		{refused(TopicRecord, RecordMessageDenied, RecordSubscribeAndHead, "n"), `R¦E¦MESSAGE_DENIED¦n¦undefined+`},
		{Message{Topic: TopicRecord, Action: RecordHeadResponseBulk, Has: HasVersions}, ``},
		{Message{Topic: TopicRecord, Action: RecordSubscribeAndHead, IsAck: true}, ``},
		{Message{Topic: TopicRecord, Action: RecordNotify, IsAck: true}, ``},
		// RPC
		{Message{Topic: TopicRPC, Action: RPCProvide, IsAck: true, CorrelationID: "n"}, `P¦A¦S¦n+`},
		{Message{Topic: TopicRPC, Action: RPCUnprovide, IsAck: true, CorrelationID: "n"}, `P¦A¦US¦n+`},
		{Message{Topic: TopicRPC, Action: RPCRequest, Name: "n", CorrelationID: "i", Data: `[1]`}, `P¦REQ¦n¦i¦O[1]+`},
		{Message{Topic: TopicRPC, Action: RPCRequest, Name: "n", CorrelationID: "i"}, `P¦REQ¦n¦i¦U+`},
		{Message{Topic: TopicRPC, Action: RPCResponse, Name: "n", CorrelationID: "i", Data: `3`}, `P¦RES¦n¦i¦N3+`},
		{Message{Topic: TopicRPC, Action: RPCAccept, Name: "n", CorrelationID: "i"}, `P¦A¦REQ¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCReject, Name: "n", CorrelationID: "i"}, `P¦REJ¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCRequestError, Name: "n", CorrelationID: "i", Data: `"oops"`}, `P¦E¦Soops¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCNoRPCProvider, Name: "n", CorrelationID: "i"}, `P¦E¦NO_RPC_PROVIDER¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCResponseTimeout, Name: "n", CorrelationID: "i"}, `P¦E¦RESPONSE_TIMEOUT¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCAcceptTimeout, Name: "n", CorrelationID: "i"}, `P¦E¦ACCEPT_TIMEOUT¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCMultipleAccept, Name: "n", CorrelationID: "i"}, `P¦E¦MULTIPLE_ACCEPT¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCMultipleResponse, Name: "n", CorrelationID: "i"}, `P¦E¦MULTIPLE_RESPONSE¦n¦i+`},
		{Message{Topic: TopicRPC, Action: RPCInvalidRPCCorrelationID, Name: "n", CorrelationID: "i"}, `P¦E¦INVALID_RPC_CORRELATION_ID¦n¦i+`},
		{named(TopicRPC, RPCMultipleProviders), `P¦E¦MULTIPLE_SUBSCRIPTIONS¦n+`},
		{named(TopicRPC, RPCNotProvided), `P¦E¦NOT_SUBSCRIBED¦n+`},
		{refused(TopicRPC, RPCMessageDenied, RPCRequest, "i"), `P¦E¦MESSAGE_DENIED¦n¦REQ¦i+`},
		{refused(TopicRPC, RPCMessageDenied, RPCProvide, "n"), `P¦E¦MESSAGE_DENIED¦n¦S+`},
		{refused(TopicRPC, RPCMessagePermissionError, RPCRequest, "i"), `P¦E¦MESSAGE_PERMISSION_ERROR¦n¦i+`},
		// Presence
		{Message{Topic: TopicPresence, Action: PresenceSubscribeAll, IsAck: true}, `U¦A¦S¦S+`},
		{Message{Topic: TopicPresence, Action: PresenceUnsubscribeAll, IsAck: true}, `U¦A¦US¦US+`},
		{Message{Topic: TopicPresence, Action: PresenceSubscribe, IsAck: true, CorrelationID: "1"}, `U¦A¦S¦1+`},
		{Message{Topic: TopicPresence, Action: PresenceUnsubscribe, IsAck: true, CorrelationID: "2"}, `U¦A¦US¦2+`},
		{Message{Topic: TopicPresence, Action: PresenceQueryAllResponse, Names: []string{"a", "b" + line("¦"), "c"}}, `U¦Q¦a¦c+`},
		{Message{Topic: TopicPresence, Action: PresenceQueryAllResponse}, `U¦Q+`},
		{Message{Topic: TopicPresence, Action: PresenceQueryResponse, CorrelationID: "3", Data: `{"a":true,"b":false}`}, `U¦Q¦3¦{"a":true,"b":false}+`},
		{named(TopicPresence, PresencePresenceJoin), `U¦PNJ¦n+`},
		{named(TopicPresence, PresencePresenceJoinAll), `U¦PNJ¦n+`},
		{named(TopicPresence, PresencePresenceLeave), `U¦PNL¦n+`},
		{named(TopicPresence, PresencePresenceLeaveAll), `U¦PNL¦n+`},
		{named(TopicPresence, PresenceMultipleSubscriptions), `U¦E¦MULTIPLE_SUBSCRIPTIONS¦n+`},
		{refused(TopicPresence, PresenceMessageDenied, PresenceQuery, "2"), `U¦E¦MESSAGE_DENIED¦n¦Q¦2+`},
		{Message{Topic: TopicPresence, Action: PresenceMessageDenied, IsError: true, OriginalAction: PresenceQueryAll}, `U¦E¦MESSAGE_DENIED¦undefined¦undefined+`},
	} {
		if got := spoken(t, &c.m, `{"whole":1}`); got != line(c.want) {
			t.Errorf("%v %s: got %q, want %q", c.m.Topic, c.m.Action.Name(c.m.Topic), got, line(c.want))
		}
	}
}

func TestTypedValues(t *testing.T) {
	for _, c := range []struct{ typed, json string }{
		{`Shello`, `"hello"`}, {`S`, `""`}, {`Sa"b\c`, `"a\"b\\c"`}, {"Sa\n\t\x01ü", `"a\n\t\u0001ü"`}, {`S{}`, `"{}"`},
		{`N1`, `1`}, {`N0`, `0`}, {`N-12.5`, `-12.5`}, {`N1500`, `1500`}, {`N123456789012345`, `123456789012345`},
		{`N9007199254740993`, `9007199254740992`}, {`N1e+21`, `1e+21`}, {`N1e-7`, `1e-7`}, {`N0.000001`, `0.000001`},
		{`O{"a":[1,{}]}`, `{"a":[1,{}]}`}, {`O[]`, `[]`}, {`T`, `true`}, {`F`, `false`}, {`L`, `null`}, {`U`, ``},
	} {
		if got := untyped(c.typed); got != c.json {
			t.Errorf("%q is %s, want %s", c.typed, got, c.json)
		}
		want := c.typed
		if c.typed == `N9007199254740993` {
			want = `N9007199254740992`
		}
		if got := string(appendTyped(nil, c.json)); got != want {
			t.Errorf("%s is typed %q, want %q", c.json, got, want)
		}
	}
	for typed, want := range map[string]string{
		`N1.5e3`: `1500`, `N12abc`: `12`, `N.5`: `0.5`, `N5.`: `5`, `N+5`: `5`, `N-0`: `0`, `N007`: `7`, `N1.50`: `1.5`, `N0x10`: `0`, `N 3`: `3`,
		`N`: `null`, `NNaN`: `null`, `NInfinity`: `null`, `N-Infinity`: `null`, `N1e999`: `null`, `N1e`: `1`, `N-`: `null`, `N.`: `null`,
		`null`: `null`, `Onull`: ``, ``: ``, `O`: `?`, `X`: `?X`, `nul`: `?nul`, `Tx`: `true`, `O{`: `{`,
	} {
		if got := untyped(typed); got != want {
			t.Errorf("%q is %s, want %s", typed, got, want)
		}
	}
	for json, want := range map[string]string{
		` "a" `: `Sa`, "\n{}": `O{}`, `1.5e3`: `N1500`, `-0`: `N0`, `1E400`: `NInfinity`, `"\ud83d\ude00"`: `S😀`, `"\ud800"`: "S\ufffd",
		// A string that would end the line stays JSON.
		`"a\u001eR\u001fD\u001fx\u001e"`: `O"a\u001eR\u001fD\u001fx\u001e"`,
	} {
		if got := string(appendTyped(nil, json)); got != want {
			t.Errorf("%s is typed %q, want %q", json, got, want)
		}
	}
}

func TestNumbersAreWrittenAsInJavaScript(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float64().Draw(t, "f")
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return
		}
		want, err := json.Marshal(f) // as ECMAScript says, but for -0
		if err != nil {
			t.Fatal(err)
		}
		if f == 0 {
			want = []byte("0")
		}
		if got := string(appendNumber(nil, f)); got != string(want) {
			t.Errorf("%v is %s, want %s", f, got, want)
		}
		if got := untyped("N" + string(want)); got != string(want) {
			t.Errorf("N%s is read as %s", want, got)
		}
	})
}

// TestNoWordCanBeMore is why a word with a separator is not said: its client would read
// what follows as words of the server.
func TestNoWordCanBeMore(t *testing.T) {
	all := func(topic Topic, action, original Action, s string) string {
		m := Message{
			Topic: topic, Action: action, OriginalAction: original, IsAck: true, IsWriteAck: true,
			Name: s, CorrelationID: s, Path: s, Subscription: s, URL: s, Data: s, Names: []string{s, "a"},
		}
		return spoken(t, &m, s)
	}
	said := 0
	for topic := TopicParser; topic <= TopicLock; topic++ {
		for action := Action(0); action < 125; action++ {
			for _, original := range []Action{0, RecordPatch, RPCRequest} {
				good := all(topic, action, original, "x")
				said += len(good)
				for _, evil := range []string{line("x+R¦D¦y"), line("x¦y"), line("+"), line(`"+A¦A+"`), line(`{"+A¦A+"}`)} {
					bad := all(topic, action, original, evil)
					for _, separator := range []string{lineEnd, wordEnd} {
						if strings.Count(bad, separator) > strings.Count(good, separator) {
							t.Fatalf("%v %s says %q where it would say %q", topic, action.Name(topic), bad, good)
						}
					}
				}
			}
		}
	}
	if said == 0 {
		t.Error("nothing was said at all")
	}
}

func TestABroadcastIsPutIntoTextOnce(t *testing.T) {
	o := &Outbound{Message: Message{Topic: TopicEvent, Action: EventEmit, Name: "n", Data: strings.Repeat(" ", 70000) + `"x"`}}
	first := o.Frame(FormText)
	if again := o.Frame(FormText); &again[0] != &first[0] {
		t.Error("encoded twice")
	}
	silent := &Outbound{Message: Message{Topic: TopicRecord, Action: RecordListenResponseTimeout}}
	if b := silent.Frame(FormText); len(b) != 0 {
		t.Errorf("%q for what the dialect cannot say", b)
	}
}

func TestFrameLengths(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 70000} {
		b := append(make([]byte, headroom), strings.Repeat("x", n)...)
		if text, op := payload(t, finish(b, opText)); len(text) != n || op != 0x81 {
			t.Errorf("%d bytes became %d with opcode %x", n, len(text), op)
		}
	}
}

func FuzzDecodeText(f *testing.F) {
	for _, s := range []string{
		"A¦REQ¦{}+R¦CR¦a+", "R¦P¦a¦1¦b¦SOwen¦{\"writeSuccess\":true}+", "R¦CU¦a¦-1¦p¦O{}¦{}+", "E¦EVT¦e¦N1.5e3+", "P¦E¦text¦n¦id+P¦A¦REQ¦n¦id+",
		"U¦S¦1¦[\"a\",\"b\"]+", "U¦Q¦Q+", "C¦PO+", "¦¦¦¦¦¦¦¦¦¦+", "E¦A¦E+",
	} {
		f.Add([]byte(line(s)))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		n := 0
		err := Text{}.Decode(frame, func(m *Message) {
			n++
			for _, s := range append([]string{m.Name, m.CorrelationID, m.Path, m.Subscription}, m.Names...) {
				if !utf8.ValidString(s) {
					t.Fatalf("%q is not UTF-8", s)
				}
				if !sayable(s) && m.Topic != TopicPresence { // its names are JSON
					t.Fatalf("%q holds a separator", s)
				}
			}
			if m.Data != "" != (m.Has&HasData != 0) || m.Name != "" != (m.Has&HasName != 0) {
				t.Fatalf("Has is wrong in %+v", m)
			}
			if !m.Action.Known(m.Topic) {
				t.Fatalf("action %d of %v", m.Action, m.Topic)
			}
			spoken(t, m, "{}")
			if Size(m) == 0 { // every other dialect can say it
				t.Fatal("no bytes")
			}
		})
		if (err != nil) != !utf8.Valid(frame) {
			t.Fatalf("err = %v", err)
		}
		if n > len(frame)/3+1 {
			t.Fatalf("%d messages in %d bytes", n, len(frame))
		}
	})
}

func FuzzTyped(f *testing.F) {
	for _, s := range []string{`"a"`, `{"a":1}`, `-1.5e-10`, `true`, ` null`, `"\u001e"`, `"\ud800x"`, `1e999`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		if !utf8.ValidString(data) {
			return // Decode has seen to it
		}
		if !jsonpath.ValidJSON(data) {
			appendTyped(nil, data) // must not panic
			if got := untyped(data); got != "" && !jsonpath.ValidJSON(got) && data[0] != 'O' && !strings.HasPrefix(got, notTyped) {
				t.Fatalf("%q is read as %q", data, got)
			}
			return
		}
		typed := string(appendTyped(nil, data))
		if !sayable(typed) {
			t.Fatalf("%q is typed %q, with a separator", data, typed)
		}
		back := untyped(typed)
		var want, got any
		if err := json.Unmarshal([]byte(data), &want); err != nil {
			if strings.Contains(err.Error(), "cannot unmarshal number") || strings.Contains(err.Error(), "out of range") {
				return // 1e999
			}
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(back), &got); err != nil {
			t.Fatalf("%q became %q: %v", data, back, err)
		}
		if want == 0.0 {
			want = 0.0 // JavaScript writes no -0
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%q became %q", data, back)
		}
	})
}

func BenchmarkDecodeTextEvent(b *testing.B) {
	frame := []byte(line(`E¦EVT¦rooms/blue/people¦O{"who":"anna","at":123456789,"seen":true}+`))
	b.ReportAllocs()
	for b.Loop() {
		if err := (Text{}).Decode(frame, func(*Message) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeTextPatch(b *testing.B) {
	frame := []byte(line(`R¦P¦users/0f3a99/profile¦1234¦address.city¦Sanna¦{"writeSuccess":true}+`))
	b.ReportAllocs()
	for b.Loop() {
		if err := (Text{}).Decode(frame, func(*Message) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeText(b *testing.B) {
	m := smallEvent()
	b.ReportAllocs()
	for b.Loop() {
		EncodeFrame(FormText, m, "")
	}
}
