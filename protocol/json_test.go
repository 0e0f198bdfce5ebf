package protocol

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"hadal/protocol/jsonpath"

	"pgregory.net/rapid"
)

func TestEveryObjectOfAClient(t *testing.T) {
	for _, c := range []struct {
		text string
		want Message
	}{
		// Spec 03 §2
		{
			`{"topic":2,"action":5,"url":"ws://x","protocolVersion":"0.1a","sdkVersion":"7.0.5","sdkType":"javascript","isAck":false}`,
			Message{Topic: TopicConnection, Action: ConnectionChallenge, URL: "ws://x", ProtocolVersion: "0.1a", SDKVersion: "7.0.5", SDKType: "javascript"},
		},
		{
			`{"topic":3,"action":2,"parsedData":{"username":"j"},"data":"{\"username\":\"j\"}","isAck":false}`,
			Message{Topic: TopicAuth, Action: AuthRequest, Has: HasData, Data: `{"username":"j"}`},
		},
		{
			`{"topic":5,"action":19,"name":"jr","version":1,"path":"a","parsedData":1,"data":"1","isAck":false}`,
			Message{Topic: TopicRecord, Action: RecordPatch, Has: HasName | HasVersion | HasPath | HasData, Name: "jr", Version: 1, Path: "a", Data: "1"},
		},
		{
			`{"topic":5,"action":20,"name":"jr","version":2,"path":"a","isAck":false}`,
			Message{Topic: TopicRecord, Action: RecordErase, Has: HasName | HasVersion | HasPath, Name: "jr", Version: 2, Path: "a"},
		},
		{`{"topic":2,"action":2,"isAck":false}`, Message{Topic: TopicConnection, Action: ConnectionPing}},
		{
			`{"topic":4,"action":3,"names":["a","\u00fc\n"],"correlationId":"0"}`,
			Message{Topic: TopicEvent, Action: EventSubscribe, Names: []string{"a", "ü\n"}, Has: HasCorrelationID, CorrelationID: "0"},
		},
		{
			` { "action" : 18 , "topic" : 5 , "isWriteAck" : true , "names" : [ ] , "parsedData" : { "a" : [ 1 , "]" ] } , "version" : -1 } ` + "\n",
			Message{Topic: TopicRecord, Action: RecordUpdate, IsWriteAck: true, Has: HasVersion | HasData, Version: -1, Data: `{ "a" : [ 1 , "]" ] }`},
		},
		{`{"topic":4,"action":7,"name":"p","subscription":"s"}`, Message{Topic: TopicEvent, Action: EventListenAccept, Has: HasName | HasSubscription, Name: "p", Subscription: "s"}},
		// §3: one value is kept, and data counts unless there is none
		{`{"topic":4,"action":2,"data":"1","parsedData":2}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: "1"}},
		{`{"topic":4,"action":2,"parsedData":2,"data":"1"}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: "1"}},
		{`{"topic":4,"action":2,"data":"","parsedData":2}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: "2"}},
		{`{"topic":4,"action":2,"data":null,"parsedData":false}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: "false"}},
		{`{"topic":4,"action":2,"parsedData":null}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: "null"}},
		{`{"topic":4,"action":2,"parsedData":""}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: `""`}},
		{`{"topic":4,"action":2,"data":""}`, Message{Topic: TopicEvent, Action: EventEmit}},
		{`{"topic":4,"action":2,"data":"{broken"}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasData, Data: "{broken"}},
		// JavaScript's view of an object
		{`{"topic":4,"action":2,"name":"a","name":"b","n\u0061me":"c","NAME":"d","other":{"name":"e"}}`, Message{Topic: TopicEvent, Action: EventEmit, Has: HasName, Name: "c"}},
		{`{"topic":4e0,"action":3.0,"names":["a"],"names":["b"]}`, Message{Topic: TopicEvent, Action: EventSubscribe, Names: []string{"b"}}},
		{`{"topic":4,"action":3,"names":null,"correlationId":null}`, Message{Topic: TopicEvent, Action: EventSubscribe}}, // §5
		{`{"topic":9,"action":1}`, Message{Topic: TopicCluster, Action: 1}},
	} {
		var got Message
		if err := DecodeJSON([]byte(c.text), &got); err != nil || !same(got, c.want) {
			t.Errorf("%s:\n got %+v %v\nwant %+v", c.text, got, err, c.want)
		}
	}
}

func TestWhatIsNoObjectOfAClient(t *testing.T) {
	deep := strings.Repeat("[", 100_000)
	for text, want := range map[string]error{
		``: ErrMalformed, `{`: ErrMalformed, `{"topic":4,}`: ErrMalformed, `nul`: ErrMalformed, `null`: ErrMalformed, ` null `: ErrMalformed,
		"{\"topic\":4,\"name\":\"\xff\"}": ErrMalformed, `{"topic":4}{"topic":4}`: ErrMalformed,
		`{"topic":4,"parsedData":` + deep: ErrMalformed, `{"topic":4,"parsedData":` + deep + strings.Repeat("]", len(deep)) + `}`: ErrMalformed,
		`5`: ErrType, `"a"`: ErrType, `true`: ErrType, `[]`: ErrType, `[{"topic":4}]`: ErrType,
		`{"topic":4,"name":5}`: ErrType, `{"topic":4,"names":"a"}`: ErrType, `{"topic":4,"names":[1]}`: ErrType, `{"topic":4,"names":[["a"]]}`: ErrType,
		`{"topic":4,"data":1}`: ErrType, `{"topic":4,"data":{}}`: ErrType, `{"topic":4,"version":1.5}`: ErrType, `{"topic":4,"version":3000000000}`: ErrType,
		`{"topic":4,"version":"1"}`: ErrType, `{"topic":4,"isAck":1}`: ErrType, `{"topic":"4"}`: ErrType,
		`{}`: ErrTopic, `{"action":2}`: ErrTopic, `{"topic":0}`: ErrTopic, `{"topic":11}`: ErrTopic, `{"topic":-4}`: ErrTopic, `{"topic":260}`: ErrTopic,
	} {
		m := Message{Name: "old", Has: HasName}
		err := DecodeJSON([]byte(text), &m)
		if !errors.Is(err, want) {
			t.Errorf("%.60s: %v, want %v", text, err, want)
		}
		if !same(m, Message{}) {
			t.Errorf("%.60s: leaves %+v", text, m)
		}
		// A connection ends for what cannot be a mistake, and answers the rest.
		var got []Message
		err = JSON{}.Decode([]byte(text), func(m *Message) { got = append(got, *m) })
		if ends := want == ErrMalformed; ends != (err != nil) || ends != (len(got) == 0) {
			t.Errorf("%.60s: %+v %v", text, got, err)
		} else if !ends && (got[0].Topic != TopicParser || got[0].Action != ParserError) {
			t.Errorf("%.60s: handed on as %+v", text, got[0])
		}
	}
}

func TestEveryObjectOfTheServer(t *testing.T) {
	for _, c := range []struct {
		m    Message
		want string
	}{
		{Message{Topic: TopicConnection, Action: ConnectionPong}, `{"topic":2,"action":3}`},
		{Message{Topic: TopicAuth, Action: AuthAuthSuccessful, Has: HasData, Data: `{"a":1}`}, `{"topic":3,"action":3,"parsedData":{"a":1}}`},
		{Message{Topic: TopicConnection, Action: ConnectionRedirect, URL: "ws://b"}, `{"topic":2,"action":7,"url":"ws://b"}`},
		// Acks say that they are (spec 03 §4, trap 42).
		{Message{Topic: TopicEvent, Action: EventSubscribe, Has: HasCorrelationID, CorrelationID: "0", IsAck: true}, `{"topic":4,"action":3,"correlationId":"0","isAck":true}`},
		{Message{Topic: TopicRPC, Action: RPCProvide, Has: HasCorrelationID, CorrelationID: "0", IsAck: true}, `{"topic":6,"action":8,"correlationId":"0","isAck":true}`},
		{Message{Topic: TopicRecord, Action: RecordListen, Has: HasName, Name: "a.*", IsAck: true}, `{"topic":5,"action":27,"isAck":true,"name":"a.*"}`},
		// Payloads are values. Zero is a version.
		{Message{Topic: TopicRecord, Action: RecordReadResponse, Has: HasVersion, Name: "n", Data: `{}`}, `{"topic":5,"action":4,"name":"n","version":0,"parsedData":{}}`},
		{Message{Topic: TopicRecord, Action: RecordHeadResponse, Has: HasVersion, Name: "n", Version: -1}, `{"topic":5,"action":6,"name":"n","version":-1}`},
		{Message{Topic: TopicEvent, Action: EventEmit, Has: HasName | HasData, Name: "a\"\n", Data: `false`}, `{"topic":4,"action":2,"name":"a\"\n","parsedData":false}`},
		{Message{Topic: TopicEvent, Action: EventEmit, Has: HasName, Name: "n"}, `{"topic":4,"action":2,"name":"n"}`},
		{
			Message{Topic: TopicRecord, Action: RecordPatch, Has: HasVersion | HasPath, Name: "n", Version: 3, Path: "p"},
			`{"topic":5,"action":19,"name":"n","path":"p","version":3}`,
		},
		{
			Message{Topic: TopicRecord, Action: RecordPatchMulti, Has: HasVersion | HasPath, Name: "n", Version: 3, Data: `[]`},
			`{"topic":5,"action":18,"name":"n","version":3,"parsedData":{"whole":1}}`,
		},
		{
			Message{Topic: TopicRecord, Action: RecordHeadResponseBulk, Has: HasVersions, Versions: []NameVersion{{"a\"", 1}, {"b", 0}}},
			`{"topic":5,"action":8,"versions":{"a\"":1,"b":0}}`,
		},
		{Message{Topic: TopicRecord, Action: RecordHeadResponseBulk, Has: HasVersions}, `{"topic":5,"action":8,"versions":{}}`},
		{
			Message{Topic: TopicRecord, Action: RecordMessageDenied, Name: "n", IsError: true, IsWriteAck: true, OriginalAction: RecordPatch, Has: HasCorrelationID, CorrelationID: "1"},
			`{"topic":5,"action":115,"correlationId":"1","isError":true,"isWriteAck":true,"name":"n","originalAction":19}`,
		},
		// What a client sent that is no JSON cannot come back as a value.
		{
			Message{Topic: TopicRecord, Action: RecordInvalidMessageData, Name: "n", IsError: true, OriginalAction: RecordUpdate, Data: `},"x":1`},
			`{"topic":5,"action":116,"isError":true,"name":"n","originalAction":18}`,
		},
		{
			Message{Topic: TopicRecord, Action: RecordVersionExists, Has: HasVersion, Version: 2, Name: "n", OriginalAction: RecordUpdate, Data: `{"a":1}`},
			`{"topic":5,"action":102,"name":"n","originalAction":18,"version":2,"parsedData":{"a":1}}`,
		},
		{
			Message{Topic: TopicRPC, Action: RPCRequest, Has: HasName | HasCorrelationID | HasRequestorName | HasRequestorData, Name: "n", CorrelationID: "i", RequestorName: "lisa", RequestorData: `{"a":1}`},
			`{"topic":6,"action":2,"correlationId":"i","name":"n","requestorName":"lisa","requestorData":"{\"a\":1}"}`,
		},
		{Message{Topic: TopicPresence, Action: PresenceQueryAllResponse, Names: []string{"a", "b"}}, `{"topic":7,"action":3,"names":["a","b"]}`},
		{Message{Topic: TopicPresence, Action: PresenceQueryAllResponse}, `{"topic":7,"action":3,"names":[]}`},
		{Message{Topic: TopicPresence, Action: PresenceQueryResponse, Has: HasCorrelationID | HasData, CorrelationID: "0", Data: `{"a":true}`}, `{"topic":7,"action":5,"correlationId":"0","parsedData":{"a":true}}`},
		{Message{Topic: TopicPresence, Action: PresencePresenceJoin, Has: HasName, Name: "a"}, `{"topic":7,"action":6,"name":"a"}`},
	} {
		got, op := payload(t, EncodeFrame(FormJSON, &c.m, `{"whole":1}`))
		if got != c.want || op != 0x81 {
			t.Errorf("%v %s with opcode %x: got %s, want %s", c.m.Topic, c.m.Action.Name(c.m.Topic), op, got, c.want)
		}
	}
}

// TestObjectsGoBothWays writes any message and reads it again, with our decoder and with
// encoding/json.
func TestObjectsGoBothWays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := messages().Draw(t, "m")
		if m.Action == RecordPatchMulti {
			m.Action = RecordUpdate
		}
		m.Versions, m.Has = nil, m.Has&^HasVersions // only servers send them
		data := m.Data
		if m.Has&HasData != 0 {
			m.Data = string(appendQuoted(nil, data))
		}
		text, _ := payload(t, EncodeFrame(FormJSON, &m, ""))
		var got Message
		if err := DecodeJSON([]byte(text), &got); err != nil || !same(got, m) {
			t.Fatalf("%s\nread %+v %v\nwant %+v", text, got, err, m)
		}
		var object struct {
			Topic, Action int32
			Name          *string
			ParsedData    *string
		}
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			t.Fatal(err)
		}
		if object.Topic != int32(m.Topic) || object.Action != int32(m.Action) ||
			(object.Name != nil) != (m.Has&HasName != 0) || object.Name != nil && *object.Name != m.Name ||
			(object.ParsedData != nil) != (m.Has&HasData != 0) || object.ParsedData != nil && *object.ParsedData != data {
			t.Fatalf("%s is read as %+v", text, object)
		}
	})
}

func TestManyNamesInAnObject(t *testing.T) {
	text := []byte(`{"topic":4,"action":3,"names":[` + strings.Repeat(`"a",`, 100_000) + `"b"]}`)
	var m Message
	if err := DecodeJSON(text, &m); err != nil || len(m.Names) != 100_001 || m.Names[100_000] != "b" {
		t.Fatalf("%d names, %v", len(m.Names), err)
	}
	m.reset()
	if cap(m.Names) != 0 {
		t.Errorf("room for %d names is kept", cap(m.Names))
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{
		`{"topic":5,"action":19,"name":"jr","version":1,"path":"a","parsedData":1,"data":"1","isAck":false}`,
		`{"topic":4,"action":3,"names":["a","b"],"correlationId":"0"}`, `{"topic":4,"action":2,"parsedData":{"a":[{},"\"]"]}}`,
		`null`, `5`, `[]`, `{"n\u0061me":"a","topic":4}`, `{"topic":4e0,"isAck":true,"x":{"y":[1]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var m Message
		if err := DecodeJSON(frame, &m); err != nil {
			if !same(m, Message{}) {
				t.Fatalf("%v leaves %+v", err, m)
			}
			return
		}
		// What JavaScript would see, but for escaped halves of surrogate pairs.
		var want map[string]any
		if err := json.Unmarshal(frame, &want); err != nil {
			t.Fatalf("no JSON: %v", err)
		}
		for key, got := range map[string]string{"name": m.Name, "correlationId": m.CorrelationID, "path": m.Path, "subscription": m.Subscription, "url": m.URL} {
			if !utf8.ValidString(got) {
				t.Fatalf("%s is %q", key, got)
			}
			if s, _ := want[key].(string); s != got {
				if want[key] == nil && strings.Count(string(frame), key) > 1 {
					continue // null after a value, which here is none
				}
				t.Fatalf("%s is %q, want %q", key, got, s)
			}
		}
		if s, _ := want["data"].(string); s != "" && m.Data != s && strings.Count(string(frame), `"data"`) < 2 {
			t.Fatalf("data is %q, want %q", m.Data, s)
		} else if s == "" && m.Data != "" && !jsonpath.ValidJSON(m.Data) && strings.Count(string(frame), `"data"`) < 2 {
			t.Fatalf("parsedData is %q", m.Data)
		}
		names, _ := want["names"].([]any)
		if len(names) != len(m.Names) && strings.Count(string(frame), "names") < 2 {
			t.Fatalf("%d names, want %d", len(m.Names), len(names))
		}
		if m.Data != "" && !jsonpath.ValidJSON(m.Data) {
			m.Data, m.Has = "", m.Has&^HasData
		}
		if m.Topic == TopicRecord && m.Action == RecordPatchMulti {
			return
		}
		text, _ := payload(t, EncodeFrame(FormJSON, &m, ""))
		var again Message
		if err := DecodeJSON([]byte(text), &again); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !reflect.DeepEqual(again.Data, m.Data) || again.Name != m.Name || again.Has != m.Has {
			t.Fatalf("read %+v, wrote and read %+v", m, again)
		}
	})
}

func BenchmarkDecodeJSONEvent(b *testing.B) {
	frame := []byte(`{"topic":4,"action":2,"name":"rooms/blue/people","parsedData":{"who":"anna","at":123456789,"seen":true},"data":"{\"who\":\"anna\",\"at\":123456789,\"seen\":true}","isAck":false}`)
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		if err := DecodeJSON(frame, &m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeJSON(b *testing.B) {
	m := smallEvent()
	b.ReportAllocs()
	for b.Loop() {
		EncodeFrame(FormJSON, m, "")
	}
}
