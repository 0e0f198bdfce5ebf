package protocol

import "testing"

// This file is the wire of the published Java client (2.2.0): what it sends, byte for byte,
// and what it waits for. It is the text dialect with habits of its own: numbers are
// written as Java does, a value at a path that was given as JSON is typed O whatever it
// is, and what it queued before the login goes out as one frame.

func TestEveryLineOfTheJavaClient(t *testing.T) {
	write := func(a Action, version int32, id, data string, has Fields) Message {
		return Message{Topic: TopicRecord, Action: a, Has: all | HasVersion | has, Name: "user/lisa", Version: version, CorrelationID: id, Data: data}
	}
	at := func(path string, m Message) Message {
		m.Path, m.Has = path, m.Has|HasPath
		return m
	}
	acked := func(m Message) Message {
		m.IsWriteAck = true
		return m
	}
	for _, c := range []struct {
		line string
		want []Message
	}{
		{`C¦PO+`, []Message{{Topic: TopicConnection, Action: ConnectionPong}}},
		{`C¦CHR¦ws://localhost:6020/deepstream-v3+`, nil},
		{`A¦REQ¦{}+`, []Message{{Topic: TopicAuth, Action: AuthRequest, Has: HasData, Data: `{}`}}},
		{`A¦REQ¦{"username":"Wolfram"}+`, []Message{{Topic: TopicAuth, Action: AuthRequest, Has: HasData, Data: `{"username":"Wolfram"}`}}},
		// set, with and without a path and an acknowledgement
		{`R¦U¦user/lisa¦1¦{"name":"Lisa"}+`, []Message{write(RecordUpdate, 1, "1", `{"name":"Lisa"}`, HasData)}},
		{`R¦U¦user/lisa¦1¦{"a":1}¦{"writeSuccess":true}+`, []Message{acked(write(RecordUpdate, 1, "1", `{"a":1}`, HasData))}},
		{`R¦P¦user/lisa¦2¦name¦SLisa+`, []Message{at("name", write(RecordPatch, 2, "2", `"Lisa"`, HasData))}},
		{`R¦P¦user/lisa¦2¦name¦SLisa¦{"writeSuccess":true}+`, []Message{acked(at("name", write(RecordPatch, 2, "2", `"Lisa"`, HasData)))}},
		{`R¦P¦user/lisa¦3¦pets[0].age¦N3+`, []Message{at("pets[0].age", write(RecordPatch, 3, "3", `3`, HasData))}},
		{`R¦P¦user/lisa¦3¦size¦N10.0+`, []Message{at("size", write(RecordPatch, 3, "3", `10`, HasData))}},
		{`R¦P¦user/lisa¦3¦size¦N-0.0+`, []Message{at("size", write(RecordPatch, 3, "3", `0`, HasData))}},
		{`R¦P¦user/lisa¦3¦size¦N1.0E10+`, []Message{at("size", write(RecordPatch, 3, "3", `10000000000`, HasData))}},
		{`R¦P¦user/lisa¦3¦size¦N1.5E-7+`, []Message{at("size", write(RecordPatch, 3, "3", `1.5e-7`, HasData))}},
		{`R¦P¦user/lisa¦3¦size¦NNaN+`, []Message{at("size", write(RecordPatch, 3, "3", `null`, HasData))}},
		{`R¦P¦user/lisa¦3¦size¦NInfinity+`, []Message{at("size", write(RecordPatch, 3, "3", `null`, HasData))}},
		{`R¦P¦user/lisa¦3¦gone¦L+`, []Message{at("gone", write(RecordPatch, 3, "3", `null`, HasData))}},
		// setData, whose value at a path is JSON already
		{`R¦CU¦user/lisa¦-1¦{"name":"Lisa"}¦{}+`, []Message{write(RecordCreateAndUpdate, -1, "-1", `{"name":"Lisa"}`, HasData)}},
		{`R¦CU¦user/lisa¦-1¦{"a":1}¦{"writeSuccess":true}+`, []Message{acked(write(RecordCreateAndUpdate, -1, "-1", `{"a":1}`, HasData))}},
		{`R¦CU¦user/lisa¦-1¦name¦O"Lisa"¦{}+`, []Message{at("name", write(RecordCreateAndPatch, -1, "-1", `"Lisa"`, HasData))}},
		{`R¦CU¦user/lisa¦-1¦age¦O3¦{}+`, []Message{at("age", write(RecordCreateAndPatch, -1, "-1", `3`, HasData))}},
		{`R¦CU¦user/lisa¦-1¦on¦Otrue¦{}+`, []Message{at("on", write(RecordCreateAndPatch, -1, "-1", `true`, HasData))}},
		{`R¦CU¦user/lisa¦-1¦gone¦Onull¦{}+`, []Message{at("gone", write(RecordErase, -1, "-1", ``, 0))}},
		{`R¦CU¦user/lisa¦-1¦name¦SLisa¦{"writeSuccess":true}+`, []Message{acked(at("name", write(RecordCreateAndPatch, -1, "-1", `"Lisa"`, HasData)))}},
		// snapshot, has, a list
		{`R¦SN¦user/lisa+`, []Message{{Topic: TopicRecord, Action: RecordRead, Has: HasName, Name: "user/lisa"}}},
		{`R¦H¦user/lisa+`, nil},
		{`R¦U¦list¦1¦["a","b"]+`, []Message{{Topic: TopicRecord, Action: RecordUpdate, Has: all | HasVersion | HasData, Name: "list", Version: 1, CorrelationID: "1", Data: `["a","b"]`}}},
		// What was asked for before the login, in one frame
		{`R¦CR¦user/lisa+E¦S¦test1+E¦EVT¦test1+E¦EVT¦test1¦N36.0+E¦L¦a/.*+R¦LA¦a/.*¦a/b+P¦S¦addTwo+`, []Message{
			{Topic: TopicRecord, Action: RecordSubscribeCreateAndRead, Names: []string{"user/lisa"}, Has: HasCorrelationID, CorrelationID: "user/lisa"},
			{Topic: TopicEvent, Action: EventSubscribe, Names: []string{"test1"}, Has: HasCorrelationID, CorrelationID: "test1"},
			{Topic: TopicEvent, Action: EventEmit, Has: HasName, Name: "test1"},
			{Topic: TopicEvent, Action: EventEmit, Has: HasName | HasData, Name: "test1", Data: `36`},
			{Topic: TopicEvent, Action: EventListen, Has: HasName, Name: "a/.*"},
			{Topic: TopicRecord, Action: RecordListenAccept, Has: HasName | HasSubscription, Name: "a/.*", Subscription: "a/b"},
			{Topic: TopicRPC, Action: RPCProvide, Names: []string{"addTwo"}, Has: HasCorrelationID, CorrelationID: "addTwo"},
		}},
		// Calls
		{`P¦REQ¦addTwo¦1¦O{"numA":3,"numB":8}+`, []Message{{Topic: TopicRPC, Action: RPCRequest, Has: all | HasData, Name: "addTwo", CorrelationID: "1", Data: `{"numA":3,"numB":8}`}}},
		{`P¦REQ¦addTwo¦1¦L+`, []Message{{Topic: TopicRPC, Action: RPCRequest, Has: all | HasData, Name: "addTwo", CorrelationID: "1", Data: `null`}}},
		{`P¦A¦REQ¦addTwo¦123+P¦RES¦addTwo¦123¦N10.0+`, []Message{
			{Topic: TopicRPC, Action: RPCAccept, Has: all, Name: "addTwo", CorrelationID: "123"},
			{Topic: TopicRPC, Action: RPCResponse, Has: all | HasData, Name: "addTwo", CorrelationID: "123", Data: `10`},
		}},
		{`P¦A¦REQ¦addTwo¦123+P¦E¦Error Message¦addTwo¦123+`, []Message{
			{Topic: TopicRPC, Action: RPCAccept, Has: all, Name: "addTwo", CorrelationID: "123"},
			{Topic: TopicRPC, Action: RPCRequestError, Has: all | HasData, Name: "addTwo", CorrelationID: "123", Data: `"Error Message"`},
		}},
		{`P¦REJ¦addTwo¦123+`, []Message{{Topic: TopicRPC, Action: RPCReject, Has: all, Name: "addTwo", CorrelationID: "123"}}},
		// Presence
		{`U¦S¦S+U¦Q¦Q+U¦US¦US+`, []Message{
			{Topic: TopicPresence, Action: PresenceSubscribeAll}, {Topic: TopicPresence, Action: PresenceQueryAll}, {Topic: TopicPresence, Action: PresenceUnsubscribeAll},
		}},
	} {
		got := heard(t, line(c.line))
		if len(got) != len(c.want) {
			t.Errorf("%s is %d messages, want %d", c.line, len(got), len(c.want))
			continue
		}
		for i := range got {
			if !same(got[i], c.want[i]) {
				t.Errorf("%s:\n got %+v\nwant %+v", c.line, got[i], c.want[i])
			}
		}
	}
}

func TestWhatTheJavaClientHears(t *testing.T) {
	for _, c := range []struct {
		m    Message
		want string
	}{
		{Message{Topic: TopicConnection, Action: ConnectionAccept}, `C¦A+`},
		{Message{Topic: TopicConnection, Action: ConnectionPing}, `C¦PI+`},
		{Message{Topic: TopicAuth, Action: AuthAuthSuccessful, Data: `{"favouriteColour":"red"}`}, `A¦A¦O{"favouriteColour":"red"}+`},
		{Message{Topic: TopicAuth, Action: AuthAuthUnsuccessful, Data: `"no"`}, `A¦E¦INVALID_AUTH_DATA¦Sno+`},
		{Message{Topic: TopicRecord, Action: RecordSubscribeCreateAndRead, IsAck: true, CorrelationID: "user/lisa"}, `R¦A¦S¦user/lisa+`},
		{Message{Topic: TopicRecord, Action: RecordReadResponse, Has: HasVersion, Name: "user/lisa", Version: 3, Data: `{"a":1}`}, `R¦R¦user/lisa¦3¦{"a":1}+`},
		{Message{Topic: TopicRecord, Action: RecordPatch, Name: "user/lisa", Version: 4, Path: "size", Data: `10.0`}, `R¦P¦user/lisa¦4¦size¦N10+`},
		{Message{Topic: TopicRecord, Action: RecordErase, Name: "user/lisa", Version: 4, Path: "size"}, `R¦P¦user/lisa¦4¦size¦U+`},
		// Its versions are an array, its error a typed value.
		{Message{Topic: TopicRecord, Action: RecordWriteAcknowledgement, Name: "user/lisa", CorrelationID: "1", IsWriteAck: true}, `R¦WA¦user/lisa¦[1]¦L+`},
		{Message{Topic: TopicRecord, Action: RecordVersionExists, Name: "user/lisa", Version: 5, Data: `{"a":1}`}, `R¦E¦VERSION_EXISTS¦user/lisa¦5¦{"a":1}+`},
		{Message{Topic: TopicRecord, Action: RecordMessageDenied, Name: "user/lisa", IsError: true, OriginalAction: RecordDelete}, `R¦E¦MESSAGE_DENIED¦user/lisa¦D+`},
		{Message{Topic: TopicRecord, Action: RecordUnsubscribe, IsAck: true, CorrelationID: "user/lisa"}, `R¦A¦US¦user/lisa+`},
		{Message{Topic: TopicRecord, Action: RecordSubscriptionHasProvider, Has: HasName, Name: "user/lisa"}, `R¦SH¦user/lisa¦T+`},
		{Message{Topic: TopicEvent, Action: EventEmit, Has: HasName, Name: "test1"}, `E¦EVT¦test1¦U+`},
		{Message{Topic: TopicEvent, Action: EventListen, IsAck: true, Name: "a/.*"}, `E¦A¦L¦a/.*+`},
		{Message{Topic: TopicEvent, Action: EventSubscriptionForPatternFound, Name: "a/.*", Subscription: "a/b"}, `E¦SP¦a/.*¦a/b+`},
		{Message{Topic: TopicRPC, Action: RPCAccept, Name: "addTwo", CorrelationID: "1"}, `P¦A¦REQ¦addTwo¦1+`},
		{Message{Topic: TopicRPC, Action: RPCResponse, Name: "addTwo", CorrelationID: "1", Data: `11`}, `P¦RES¦addTwo¦1¦N11+`},
		{Message{Topic: TopicRPC, Action: RPCNoRPCProvider, Name: "addTwo", CorrelationID: "1"}, `P¦E¦NO_RPC_PROVIDER¦addTwo¦1+`},
		{Message{Topic: TopicRPC, Action: RPCRequest, Name: "addTwo", CorrelationID: "123", Data: `{"numA":7,"numB":3}`}, `P¦REQ¦addTwo¦123¦O{"numA":7,"numB":3}+`},
		{Message{Topic: TopicPresence, Action: PresenceQueryAllResponse, Names: []string{"Bart", "Homer"}}, `U¦Q¦Bart¦Homer+`},
		{Message{Topic: TopicPresence, Action: PresenceQueryAllResponse}, `U¦Q+`},
		{Message{Topic: TopicPresence, Action: PresencePresenceJoinAll, Has: HasName, Name: "Homer"}, `U¦PNJ¦Homer+`},
	} {
		if got := spoken(t, &c.m, ""); got != line(c.want) {
			t.Errorf("%s %s: got %q, want %q", c.m.Topic, c.m.Action.Name(c.m.Topic), got, line(c.want))
		}
	}
}
