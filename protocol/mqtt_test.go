package protocol

import "testing"

func TestWhatMQTTAndStreamsHear(t *testing.T) {
	record := func(a Action) Message {
		return Message{Topic: TopicRecord, Action: a, Name: "r", Version: 3, Data: `{"a":1}`, Path: "a", Has: HasVersion}
	}
	for name, c := range map[string]struct {
		m                Message
		result           string
		three, five, sse string
	}{
		"an event":           {Message{Topic: TopicEvent, Action: EventEmit, Name: "e", Data: `"x"`}, "", "\x30\x06\x00\x01e\"x\"", "\x30\x07\x00\x01e\x00\"x\"", "event: event\ndata: {\"name\":\"e\",\"data\":\"x\"}\n\n"},
		"one without data":   {Message{Topic: TopicEvent, Action: EventEmit, Name: "e"}, "", "\x30\x03\x00\x01e", "\x30\x04\x00\x01e\x00", "event: event\ndata: {\"name\":\"e\"}\n\n"},
		"a name with a #":    {Message{Topic: TopicEvent, Action: EventEmit, Name: "a#"}, "", "", "", "event: event\ndata: {\"name\":\"a#\"}\n\n"},
		"an update":          {record(RecordUpdate), "", "\x30\x0a\x00\x01r{\"a\":1}", "\x30\x0b\x00\x01r\x00{\"a\":1}", "id: 3 \"r\"\nevent: record\ndata: {\"name\":\"r\",\"version\":3,\"data\":{\"a\":1}}\n\n"},
		"a patch":            {record(RecordPatch), `{}`, "\x30\x05\x00\x01r{}", "\x30\x06\x00\x01r\x00{}", "id: 3 \"r\"\nevent: record\ndata: {\"name\":\"r\",\"version\":3,\"data\":{}}\n\n"},
		"a patch of nothing": {record(RecordPatch), "", "", "", ""},
		"what there is":      {record(RecordReadResponse), "", "\x31\x0a\x00\x01r{\"a\":1}", "\x31\x0b\x00\x01r\x00{\"a\":1}", "id: 3 \"r\"\nevent: record\ndata: {\"name\":\"r\",\"version\":3,\"data\":{\"a\":1}}\n\n"},
		"what is not there":  {Message{Topic: TopicRecord, Action: RecordReadResponse, Name: "r", Version: -1, Data: "{}"}, "", "", "", ""},
		"a deletion":         {record(RecordDeleted), "", "\x30\x03\x00\x01r", "\x30\x04\x00\x01r\x00", "event: deleted\ndata: {\"name\":\"r\"}\n\n"},
		"lines in JSON":      {Message{Topic: TopicEvent, Action: EventEmit, Name: "e", Data: "[1,\r\n2]"}, "", "\x30\x0a\x00\x01e[1,\r\n2]", "\x30\x0b\x00\x01e\x00[1,\r\n2]", "event: event\ndata: {\"name\":\"e\",\"data\":[1,  2]}\n\n"},
		"a denial":           {Message{Topic: TopicEvent, Action: Denied(TopicEvent), Name: "e", IsError: true}, "", "", "", "event: denied\ndata: {\"name\":\"e\",\"topic\":\"event\",\"reason\":\"MESSAGE_DENIED\"}\n\n"},
		"an rpc":             {Message{Topic: TopicRPC, Action: RPCRequest, Name: "p"}, "", "", "", ""},
		"a heartbeat":        {Message{Topic: TopicConnection, Action: ConnectionPing}, "", "", "", ":\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Outbound{Message: c.m, Result: c.result}
			for form, want := range map[Form]string{FormMQTT: c.three, FormMQTT5: c.five, FormSSE: c.sse} {
				if got := string(o.Frame(form)); got != want {
					t.Errorf("form %d: %q, want %q", form, got, want)
				}
			}
		})
	}
}

// FuzzSSEID holds ids to one line of ASCII, and to what they were made of.
func FuzzSSEID(f *testing.F) {
	f.Add("a\nb", int32(1))
	f.Add("ü😀\u2028", int32(0))
	f.Fuzz(func(t *testing.T, name string, version int32) {
		id := SSEID(nil, name, version)
		for _, b := range id {
			if b < ' ' || b > '~' && b != 0x7f {
				t.Fatalf("%q is not one line of ASCII", id)
			}
		}
		got, n, ok := ParseSSEID(string(id))
		if wanted := name != "" && version >= 0; ok != wanted {
			t.Fatalf("ParseSSEID(%q) = %v", id, ok)
		} else if ok && (n != version || string(SSEID(nil, got, n)) != string(id)) {
			t.Fatalf("%q became %q %d", id, got, n)
		}
	})
}
